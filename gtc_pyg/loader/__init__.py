r"""Batches of interactions with exact negatives, with the whole graph or a sample of it."""

from gtc_pyg.loader.graph_inputs import GraphInputs
from gtc_pyg.loader.interaction_loader import (
    InteractionBatch,
    InteractionLoader,
    NegativeSampler,
)
from gtc_pyg.loader.subgraph_loader import SubgraphLoader

__all__ = [
    "GraphInputs",
    "InteractionBatch",
    "InteractionLoader",
    "NegativeSampler",
    "SubgraphLoader",
]
