r"""How the graph of a recommender is made of the adjacency that it is given, and pruned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gtc_pyg.functional import check_edges, degree_sensitive_sample, to_csr
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
        ValueError: For what :func:`~gtc_pyg.functional.to_csr` refuses; where either direction of
            the interactions is missing, has weights or repeats an edge, or the two are not the
            same edges.
    """
    for name, given in (
        ("edge_index_dict", edge_index_dict),
        ("edge_weight_dict", edge_weight_dict or {}),
    ):
        if not isinstance(given, Mapping):
            raise ValueError(f"'{name}' must map edge types to edges (got {type(given).__name__})")
    sizes, weights = {"user": num_users, "item": num_items}, edge_weight_dict or {}
    for key, weight in weights.items():
        if key in (USER_TO_ITEM, ITEM_TO_USER):
            raise ValueError(f"'edge_weight_dict' has {key}: interactions take no weights yet")
        if isinstance(weight, Tensor) and weight.requires_grad:
            raise ValueError(f"'edge_weight_dict' at {key} must not require a gradient")
    edges = {}
    for key in (USER_TO_ITEM, ITEM_TO_USER, SIMILAR_ITEMS):
        if key in edge_index_dict:
            adj = edge_index_dict[key]
            try:
                edges[key] = to_csr(adj, sizes[key[2]], sizes[key[0]], weights.get(key))
            except ValueError as error:
                raise ValueError(f"'edge_index_dict' at {key}: {error}") from error
            if edges[key].requires_grad:
                raise ValueError(f"'edge_index_dict' at {key} must not require a gradient")
        elif key != SIMILAR_ITEMS:
            raise ValueError(
                f"'edge_index_dict' lacks {key} (it has {list(edge_index_dict)}); "
                f"torch_geometric.transforms.ToUndirected adds the reverse edges"
            )
        elif num_item_layers > 0:
            raise ValueError(
                f"'edge_index_dict' lacks {key}; gtc_pyg.transforms.ItemKNNGraph adds it, and "
                f"num_item_layers=0 of the model and its heads does without"
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

    Raises:
        ValueError: As :func:`~gtc_pyg.functional.check_edges` says.
    """
    edge_index = check_edges(edge_index, num_users, num_items)
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
    pairs = {}
    for key in (USER_TO_ITEM, ITEM_TO_USER):
        adj = graph[key]
        row = torch.arange(adj.size(0), device=adj.device)
        row = row.repeat_interleave(adj.crow_indices().diff())
        user, item = (row, adj.col_indices()) if key == ITEM_TO_USER else (adj.col_indices(), row)
        pair = pairs[key] = (user * graph.num_items + item).sort().values
        if bool((adj.values() != 1).any()) or bool((pair[1:] == pair[:-1]).any()):
            raise ValueError(
                f"'edge_index_dict' at {key} must hold every interaction once, without weights "
                f"(torch_geometric.utils.coalesce removes copies)"
            )
    there, back = pairs.values()
    if not torch.equal(there, back):
        _, count = torch.cat([there, back]).unique(return_counts=True)
        raise ValueError(
            f"'edge_index_dict' at {USER_TO_ITEM} and {ITEM_TO_USER} must be the same interactions "
            f"(got {there.numel()} and {back.numel()}, {int((count == 1).sum())} of them in one "
            f"alone)"
        )
