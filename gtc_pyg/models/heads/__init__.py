r"""Columns beside the embeddings of any recommender, when items are ranked."""

from gtc_pyg.models.heads.head import Head, Heads
from gtc_pyg.models.heads.item_bias import ItemBias
from gtc_pyg.models.heads.spectral_head import SpectralHead

__all__ = ["Head", "Heads", "ItemBias", "SpectralHead"]
