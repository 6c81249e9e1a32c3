r"""The graph that a recommender reads, as CSR, and what travels with it."""

from gtc_pyg.graph.batch import Batch
from gtc_pyg.graph.content import Features
from gtc_pyg.graph.csr_graph import CSRGraph, EdgeIndexDict, EdgeWeightDict, SampledNodes
from gtc_pyg.graph.make_graph import interactions_graph, make_graph, pruned

__all__ = [
    "CSRGraph",
    "Batch",
    "SampledNodes",
    "Features",
    "EdgeIndexDict",
    "EdgeWeightDict",
    "make_graph",
    "interactions_graph",
    "pruned",
]
