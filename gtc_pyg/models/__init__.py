r"""Recommenders behind one protocol, :class:`GraphRecommender`, and what they are made of."""

from gtc_pyg.models.freedom import FREEDOM
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.gtc import GTC, ContentFilter, Filtered
from gtc_pyg.models.heads import LowPass
from gtc_pyg.models.lightgcn import LightGCN
from gtc_pyg.models.mgcn import MGCN

__all__ = [
    "GraphRecommender",
    "GTC",
    "ContentFilter",
    "Filtered",
    "FREEDOM",
    "LightGCN",
    "LowPass",
    "MGCN",
]
