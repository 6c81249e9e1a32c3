r"""Batches of interactions with exact negatives."""

from gtc_pyg.loader.interaction_loader import (
    InteractionBatch,
    InteractionLoader,
    NegativeSampler,
)

__all__ = ["InteractionBatch", "InteractionLoader", "NegativeSampler"]
