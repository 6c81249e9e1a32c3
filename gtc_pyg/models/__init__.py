r"""Recommenders behind one protocol, :class:`GraphRecommender`, and what they are made of."""

from gtc_pyg.models.freedom import FREEDOM
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.gtc import GTC, ContentFilter, FilteredContent
from gtc_pyg.models.heads import Head, ItemBias, SpectralHead
from gtc_pyg.models.lightgcn import LightGCN
from gtc_pyg.models.mgcn import MGCN
from gtc_pyg.models.spectral_filter import SpectralFilter

__all__ = [
    "GraphRecommender",
    "GTC",
    "ContentFilter",
    "FilteredContent",
    "FREEDOM",
    "LightGCN",
    "MGCN",
    "SpectralFilter",
    "Head",
    "SpectralHead",
    "ItemBias",
]
