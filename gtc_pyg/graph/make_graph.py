r"""How the graph of a recommender is made of the adjacency that it is given, and pruned."""

from __future__ import annotations

import torch
from torch import Tensor

from gtc_pyg.functional import degree_sensitive_sample, to_csr
from gtc_pyg.graph.csr_graph import (
    ITEM_TO_USER,
    SIMILAR_ITEMS,
    USER_TO_ITEM,
    CSRGraph,
    EdgeIndexDict,
    EdgeWeightDict,
    SampledNodes,
)


def make_graph(
    edge_index_dict: EdgeIndexDict,
    edge_weight_dict: EdgeWeightDict | None,
    num_users: int,
    num_items: int,
    num_item_layers: int = 0,
    nodes: SampledNodes | None = None,
) -> CSRGraph:
    r"""The edge types that a recommender reads, as transposed CSR.

    Args:
        edge_index_dict: As in :meth:`~gtc_pyg.models.GraphRecommender.forward`.
        edge_weight_dict: As in :meth:`~gtc_pyg.models.GraphRecommender.forward`.
        num_users: Number of users, those of the sub-graph where it is one.
        num_items: Number of items, likewise.
        num_item_layers: Layers on the item graph; with 0 none is needed.
        nodes: Of a sub-graph, whose edges and content are by position in these.

    Raises:
        ValueError: Where either direction of the interactions is missing, has weights or
            repeats an edge, or the two are not the same edges (by their counts).
    """
    sizes, weights = {"user": num_users, "item": num_items}, edge_weight_dict or {}
    for key, weight in weights.items():
        if key in (USER_TO_ITEM, ITEM_TO_USER):
            raise ValueError(f"'edge_weight_dict' has {key}: interactions take no weights yet")
        if weight.requires_grad:
            raise ValueError(f"'edge_weight_dict' at {key} must not require a gradient")
    edges = {}
    for key in (USER_TO_ITEM, ITEM_TO_USER, SIMILAR_ITEMS):
        if key in edge_index_dict:
            adj = edge_index_dict[key]
            try:
                edges[key] = to_csr(adj, sizes[key[2]], sizes[key[0]], weights.get(key))
            except ValueError as error:
                raise ValueError(f"'edge_index_dict' at {key}: {error}") from error
        elif key != SIMILAR_ITEMS:
            raise ValueError(
                f"'edge_index_dict' lacks {key} (it has {list(edge_index_dict)}); "
                f"torch_geometric.transforms.ToUndirected adds the reverse edges"
            )
        elif num_item_layers > 0:
            raise ValueError(
                f"'edge_index_dict' lacks {key}; gtc_pyg.transforms.ItemKNNGraph adds it, and "
                f"num_item_layers=0 does without"
            )
    graph = CSRGraph(edges, nodes)
    if nodes is None:  # else each direction is a sample of its own
        _check_interactions(graph)
    return graph


def interactions_graph(edge_index: Tensor, num_users: int, num_items: int) -> CSRGraph:
    r"""The graph of interactions alone, in both directions.

    Args:
        edge_index: Users and items ``[2, E]``, no pair twice.
        num_users: Number of users.
        num_items: Number of items.
    """
    to_item = to_csr(edge_index, num_items, num_users)
    to_user = to_csr(edge_index.flip(0), num_users, num_items)
    return CSRGraph({USER_TO_ITEM: to_item, ITEM_TO_USER: to_user})


def pruned(graph: CSRGraph, share: float, generator: torch.Generator | None = None) -> CSRGraph:
    r"""The graph without a share of its interactions, popular ones first.

    Args:
        graph: A whole one.
        share: Of the interactions, see :func:`gtc_pyg.functional.degree_sensitive_sample`.
        generator: Draws those that are kept, at least one.
    """
    to_user = graph[ITEM_TO_USER]
    user = torch.arange(graph.num_users, device=to_user.device)
    user = user.repeat_interleave(graph.num_items_of_users)
    edge_index = torch.stack([user, to_user.col_indices()])
    num_kept = max(1, round((1 - share) * user.numel()))
    sizes = graph.num_users, graph.num_items
    kept = degree_sensitive_sample(edge_index, *sizes, num_kept, generator)
    return CSRGraph({**graph, **interactions_graph(edge_index[:, kept], *sizes)})


def _check_interactions(graph: CSRGraph) -> None:
    """Unweighted, none twice, and the same in both directions."""
    for key, reverse in ((USER_TO_ITEM, ITEM_TO_USER), (ITEM_TO_USER, USER_TO_ITEM)):
        adj, col = graph[key], graph[key].col_indices()
        first = torch.zeros(col.numel() + 1, dtype=torch.bool, device=col.device)
        first[adj.crow_indices()] = True  # of its row
        twice = (col[1:] == col[:-1]) & ~first[1:-1]
        if bool((adj.values() != 1).any()) or bool(twice.any()):
            raise ValueError(
                f"'edge_index_dict' at {key} must hold every interaction once, without weights "
                f"(torch_geometric.utils.coalesce removes copies)"
            )
        degree = torch.bincount(col, minlength=adj.size(1))
        if not torch.equal(degree, graph[reverse].crow_indices().diff()):
            raise ValueError(
                f"'edge_index_dict' at {key} and {reverse} must be the same interactions (got "
                f"{col.numel()} and {graph[reverse].col_indices().numel()}, or of other nodes)"
            )
