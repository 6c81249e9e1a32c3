r"""GTC: the paper, read top to bottom."""

from gtc_pyg.models.gtc.content_filter import ContentFilter
from gtc_pyg.models.gtc.filtered_content import FilteredContent
from gtc_pyg.models.gtc.gtc import GTC

__all__ = ["GTC", "ContentFilter", "FilteredContent"]
