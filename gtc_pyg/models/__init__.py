r"""Recommenders behind one protocol, :class:`GraphRecommender`."""

from gtc_pyg.models.content_filter import ContentFilter
from gtc_pyg.models.freedom import FREEDOM
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.gtc import GTC
from gtc_pyg.models.lightgcn import LightGCN

__all__ = ["GraphRecommender", "GTC", "ContentFilter", "FREEDOM", "LightGCN"]
