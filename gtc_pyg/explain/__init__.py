r"""Why: what a score is made of, what a user's filter keeps, and what of the content mattered."""

from gtc_pyg.explain.directions import FilterDirections
from gtc_pyg.explain.explained_user import ExplainedUser, ScoreParts
from gtc_pyg.explain.explainer import Explainer
from gtc_pyg.explain.plot import plot_user
from gtc_pyg.explain.relevance import filter_relevance, filter_share, score_share

__all__ = [
    "Explainer",
    "ExplainedUser",
    "ScoreParts",
    "FilterDirections",
    "plot_user",
    "filter_relevance",
    "filter_share",
    "score_share",
]
