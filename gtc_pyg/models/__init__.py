r"""Recommenders behind one protocol, :class:`GraphRecommender`, and what they are made of."""

from gtc_pyg.models.content_filter import ContentFilter
from gtc_pyg.models.filtered import Filtered
from gtc_pyg.models.freedom import FREEDOM
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.gtc import GTC
from gtc_pyg.models.item_embedder import ItemEmbedder
from gtc_pyg.models.lightgcn import LightGCN
from gtc_pyg.models.low_pass import LowPass
from gtc_pyg.models.mgcn import MGCN
from gtc_pyg.models.modality_filler import ModalityFiller
from gtc_pyg.models.user_embedder import UserEmbedder

__all__ = [
    "GraphRecommender",
    "GTC",
    "ContentFilter",
    "Filtered",
    "FREEDOM",
    "ItemEmbedder",
    "LightGCN",
    "LowPass",
    "MGCN",
    "ModalityFiller",
    "UserEmbedder",
]
