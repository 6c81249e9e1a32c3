"""The explorer's application lies in the package: gtc_pyg.serve.api."""

from gtc_pyg.serve.api import make_app
from gtc_pyg.serve.heavy import MAX_BYTES

__all__ = ["MAX_BYTES", "make_app"]
