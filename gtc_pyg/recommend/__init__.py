r"""After training: lists for users, old and new, for items nobody has touched, and the reasons."""

try:
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401
    import safetensors  # noqa: F401
except ModuleNotFoundError as error:
    message = f'gtc_pyg.recommend needs {error.name}: pip install "gtc-pyg[recommend]"'
    raise ModuleNotFoundError(message, name=error.name) from error

from gtc_pyg.recommend.explanation import Explanation
from gtc_pyg.recommend.folder import check_place
from gtc_pyg.recommend.index import ItemIndex
from gtc_pyg.recommend.lists import Lists
from gtc_pyg.recommend.recommender import Recommender

__all__ = ["Recommender", "Lists", "Explanation", "ItemIndex", "check_place"]
