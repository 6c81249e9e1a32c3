r"""Transforms that add content and graphs to an interaction graph, and the k-core."""

from gtc_pyg.transforms.item_knn_graph import ItemKNNGraph
from gtc_pyg.transforms.k_core import k_core
from gtc_pyg.transforms.spectral_features import SpectralFeatures, spectral_embedding
from gtc_pyg.transforms.text_features import tfidf_embedding

__all__ = [
    "ItemKNNGraph",
    "SpectralFeatures",
    "k_core",
    "spectral_embedding",
    "tfidf_embedding",
]
