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
from gtc_pyg.functional import takes_numbers
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
        if batch_size < 1:
            raise ValueError(f"'batch_size' must be at least 1 (got {batch_size})")
        num_users, num_items = data["user"].num_nodes, data["item"].num_nodes
        user, item = data[USER_TO_ITEM].edge_index
        self.data = copy.copy(data)  # its tensors are shared
        self.data["user"].degree = torch.bincount(user, minlength=num_users)
        self.data["item"].degree = torch.bincount(item, minlength=num_items)
        self.edge_label_index = data[USER_TO_ITEM].edge_index
        if edge_label_index is not None:
            self.edge_label_index = edge_label_index
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
