from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkNeighborLoader
from torch_geometric.sampler import EdgeSamplerInput
from torch_geometric.typing import EdgeType

from gtc_pyg.distributed import own_rows, rank
from gtc_pyg.functional import check_edges, check_least, check_weights, takes_numbers
from gtc_pyg.loader.interaction_loader import (
    InteractionBatch,
    NegativeSampler,
    without_full_users,
)

USER_TO_ITEM: EdgeType = ("user", "rates", "item")
ITEM_TO_USER: EdgeType = ("item", "rev_rates", "user")


class SubgraphLoader:
    r"""Shuffled triples, each batch with a sample of the graph around it, for graphs that do not
    fit into one step.

    :class:`torch_geometric.loader.LinkNeighborLoader` samples; the negatives are ours, and exact:
    its own may be positives. A batch is a :class:`~torch_geometric.data.HeteroData` of the sampled
    nodes with their content, ``n_id`` and ``degree`` (of the whole graph), and the sampled edges;
    ``batch.triple`` is an :class:`InteractionBatch` of positions among its nodes. To train:

    .. code-block:: python

        features = {"image": batch["item"].x_image, "text": batch["item"].x_text}
        parts = model.loss(*batch.triple, features, model.subgraph(batch))

    Of several processes each gets its share of every batch, with a sample around that share alone;
    ``batch.num_triples`` counts those of all (:func:`~gtc_pyg.distributed.own_rows` says what the
    mean of a share weighs). Order and negatives are those of one process.

    Args:
        data: Interactions in both directions, content and, where a model wants it, the item graph.
        num_neighbors: How many neighbours are sampled in each hop, for all edge types or for each;
            ``-1`` takes all.
        batch_size: Interactions per batch; the last one may be smaller.
        seed: Seeds order, negatives and neighbours.
        edge_label_index: Interactions to train on ``[2, E]``; all of ``data`` where ``None``.

    Raises:
        ImportError: Where neither torch-sparse nor pyg-lib is installed.
        ValueError: As :func:`~gtc_pyg.functional.check_edges` says, for any of the edges.
    """

    @takes_numbers
    def __init__(
        self,
        data: HeteroData,
        num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]] = (15, 10, 5),
        batch_size: int = 2048,
        seed: int = 0,
        edge_label_index: Tensor | None = None,
    ) -> None:
        check_least(1, batch_size=batch_size)
        num_users, num_items = data["user"].num_nodes, data["item"].num_nodes
        self.data = checked_edges(data)
        user, item = self.data[USER_TO_ITEM].edge_index
        self.data["user"].degree = torch.bincount(user, minlength=num_users)
        self.data["item"].degree = torch.bincount(item, minlength=num_items)
        self.edge_label_index = self.data[USER_TO_ITEM].edge_index
        if edge_label_index is not None:
            self.edge_label_index = check_edges(
                edge_label_index, num_users, num_items, "edge_label_index"
            )
        if self.edge_label_index.size(1) == 0:
            raise ValueError("'data' holds no interactions")
        self.edge_label_index = without_full_users(self.edge_label_index, num_users, num_items)
        self.num_neighbors = (
            dict(num_neighbors) if isinstance(num_neighbors, Mapping) else list(num_neighbors)
        )
        self.batch_size, self.seed = batch_size, seed
        self.epoch = 0
        self.negatives = NegativeSampler(self.edge_label_index, num_users, num_items)
        with warnings.catch_warnings():  # that pyg-lib is quicker than torch-sparse
            warnings.filterwarnings("ignore", message=".*pyg-lib", category=UserWarning)
            self.loader = LinkNeighborLoader(
                self.data,
                num_neighbors=self.num_neighbors,
                edge_label_index=(USER_TO_ITEM, self.edge_label_index[:, :1]),  # set by batch
            )

    def __len__(self) -> int:
        return -(-self.edge_label_index.size(1) // self.batch_size)

    def __iter__(self) -> Iterator[HeteroData]:
        seed = self.seed * 1_000_003 + self.epoch
        generator = torch.Generator().manual_seed(seed)
        self.epoch += 1
        order = torch.randperm(self.edge_label_index.size(1), generator=generator)
        for step, start in enumerate(range(0, order.numel(), self.batch_size)):
            rows = order[start : start + self.batch_size]  # split() holds all views at once
            user, item = self.edge_label_index[:, rows]
            share, _ = own_rows(rows.numel())
            neg_item = self.negatives(user, generator)[share]
            user, item = user[share], item[share]
            items = torch.cat([item, neg_item])
            self.loader.input_data = EdgeSamplerInput(
                None, user.repeat(2), items, input_type=USER_TO_ITEM
            )
            with torch.random.fork_rng(devices=[]):  # neighbours are drawn from the global state
                torch.manual_seed(seed * 1_000_003 + step + rank() * 7_368_787)
                batch = self.loader(torch.arange(items.numel()))
            pairs, num = batch[USER_TO_ITEM].edge_label_index, user.numel()
            batch.triple = InteractionBatch(pairs[0, :num], pairs[1, :num], pairs[1, num:])
            batch.num_triples = rows.numel()
            yield batch


def checked_edges(data: HeteroData) -> HeteroData:
    r"""The same data, its tensors shared, with ``int64`` edges none of which leads out of it.

    Args:
        data: Of edges as ``edge_index``.

    Raises:
        ValueError: As :func:`~gtc_pyg.functional.check_edges` says, naming the edge type.
    """
    out = copy.copy(data)
    for key in data.edge_types:
        sizes, store = (data[key[0]].num_nodes, data[key[2]].num_nodes), data[key]
        if "edge_index" not in store:
            raise ValueError(f"'data' at {key} must have an 'edge_index' (it has {list(store)})")
        try:
            edge_index = check_edges(store.edge_index, *sizes, kinds=(key[0], key[2]))
            if "edge_weight" in store:
                check_weights(store.edge_weight, edge_index.size(1))
        except ValueError as error:
            raise ValueError(f"'data' at {key}: {error}") from error
        out[key].edge_index = edge_index
    return out
