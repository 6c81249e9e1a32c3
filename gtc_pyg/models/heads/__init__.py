r"""Columns beside the embeddings of any recommender."""

from gtc_pyg.models.heads.spectral_head import LowPass

__all__ = ["LowPass"]
