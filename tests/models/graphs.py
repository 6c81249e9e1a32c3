r"""What tests of models make of a planted graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM, CSRGraph
from gtc_pyg.models import GTC, ContentFilter, GraphRecommender
from gtc_pyg.models.registry import arguments_of
from gtc_pyg.nn import BPR

MODALITIES = [("image",), ("image", "text"), ("image", "text", "sound")]
FILTER_ARGUMENTS = arguments_of(ContentFilter).keys()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arguments(graph: SimpleNamespace) -> tuple:
    return graph.features, graph.edge_index_dict, graph.edge_weight_dict


def recommender(graph: SimpleNamespace, edge_dropout: float = 0.0) -> GraphRecommender:
    with torch.random.fork_rng():  # draws embeddings, which nobody looks at
        return GraphRecommender(graph.num_users, graph.num_items, edge_dropout=edge_dropout)


def csr_of(graph: SimpleNamespace) -> CSRGraph:
    return recommender(graph).csr_graph(graph.edge_index_dict, graph.edge_weight_dict)


def gtc_of(graph: SimpleNamespace, channels: int = 8, **settings: Any) -> GTC:
    r"""A small plain GTC: BPR, no heads, no dropout.

    Args:
        graph: Its sizes, widths and edges.
        channels: Width of the embeddings.
        **settings: Arguments of :class:`ContentFilter` or :class:`GTC`.
    """
    torch.manual_seed(0)
    of_filter = {"strength": 0.05}
    of_filter |= {name: settings.pop(name) for name in FILTER_ARGUMENTS & settings.keys()}
    settings = {"ranking": BPR(), "heads": [], "edge_dropout": 0.0, **settings}
    content_filter = ContentFilter(graph.in_channels, channels, **of_filter)
    model = GTC(
        graph.num_users,
        graph.num_items,
        graph.in_channels,
        content_filter=content_filter,
        **settings,
    )
    if model.item_bias is not None:
        torch.nn.init.normal_(model.item_bias.weight)
    model.prepare(graph.edge_index_dict, graph.edge_weight_dict, spectral_start=False)
    return model


def pairs(to_item: Tensor) -> set[tuple[int, int]]:
    item, user = to_item.to_dense().nonzero().t()
    return set(zip(user.tolist(), item.tolist(), strict=True))


def hetero_of(graph: SimpleNamespace) -> HeteroData:
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = graph.num_users, graph.num_items
    for name, x in graph.features.items():
        data["item"][f"x_{name}"] = x
    for key, edge_index in graph.edge_index_dict.items():
        data[key].edge_index = edge_index
    data[SIMILAR_ITEMS].edge_weight = graph.edge_weight_dict[SIMILAR_ITEMS]
    return data


def with_edges(graph: SimpleNamespace, edges: Tensor) -> SimpleNamespace:
    graph.edge_index_dict[USER_TO_ITEM], graph.edge_index_dict[ITEM_TO_USER] = edges, edges.flip(0)
    return graph


def with_isolated_nodes(graph: SimpleNamespace) -> SimpleNamespace:
    r"""Takes the first three users and items all their interactions."""
    edges = graph.edge_index_dict[USER_TO_ITEM]
    return with_edges(graph, edges[:, (edges[0] > 2) & (edges[1] > 2)])


def twins(graph: SimpleNamespace) -> SimpleNamespace:
    r"""Gives user 1 the items of user 0."""
    edges = graph.edge_index_dict[USER_TO_ITEM]
    items = edges[1][edges[0] == 0]
    copies = torch.stack([torch.ones_like(items), items])
    return with_edges(graph, torch.cat([edges[:, edges[0] != 1], copies], dim=1))


def without_some_images(graph: SimpleNamespace) -> Tensor:
    r"""Marks 15 of the items as lacking their image."""
    graph.features["has_image"] = torch.randperm(graph.num_items, generator=seeded()) >= 15
    return graph.features["has_image"]
