r"""The graph that a recommender reads, as CSR: how it is made, and the content that goes with it."""

from gtc_pyg.graph.content import Features
from gtc_pyg.graph.csr_graph import CSRGraph, EdgeIndexDict, EdgeWeightDict, SampledNodes
from gtc_pyg.graph.make_graph import interactions_graph, make_graph, pruned

__all__ = [
    "CSRGraph",
    "SampledNodes",
    "Features",
    "EdgeIndexDict",
    "EdgeWeightDict",
    "make_graph",
    "interactions_graph",
    "pruned",
]
