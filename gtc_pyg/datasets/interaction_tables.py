r"""What every interaction dataset is before it is a graph, and the checks all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

SPLITS = ("train", "val", "test")
_MOST_ROWS_PER_USER = 1000  # rows of a table that nobody uses are memory alone


@dataclass
class InteractionTables:
    r"""Interactions by split and content by modality.

    Attributes:
        splits: ``train``, ``val`` and ``test``, each ``[2, num_interactions]``, int64: users and
            items.
        num_users: The number of users.
        features: Modality to content ``[num_items, F]``, kept as float32 without a gradient, in
            their order.
        masks: Modality to which items have it, ``[num_items]``, bool; only where some lack it,
            whose content is zeros.
        graphs: Modality to ``(edge_index, edge_weight, num_rows)`` of a published similarity
            graph: neighbour (source) and item (destination).
        graph_derived: The modalities whose features were made from their graph.
        train_weight: A positive weight for each training interaction, float32.
        sources: Where things came from, for messages: a split's name, ``x_<modality>`` or
            ``similar_<modality>`` to a file or argument.
        lines: A split's name to the line in its source of each interaction.
        untrained_users: Whether held-out interactions may be of users who have none in training, as
            in some published splits.
    """

    splits: Mapping[str, Tensor]
    num_users: int
    features: Mapping[str, Tensor]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    graphs: Mapping[str, tuple[Tensor, Tensor, int]] = field(default_factory=dict)
    graph_derived: tuple[str, ...] = ()
    train_weight: Tensor | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, Tensor] = field(default_factory=dict)
    untrained_users: bool = False

    def __post_init__(self) -> None:
        self.features = {
            name: x.detach().to_dense().to(torch.float32) for name, x in self.features.items()
        }

    @property
    def num_items(self) -> int:
        r"""The number of items, that of the rows of the content."""
        return next(iter(self.features.values())).size(0)

    def validate(self) -> None:
        r"""Refuses what would train a wrong model.

        Raises:
            ValueError: If there is no content; content is not two-dimensional, has NaN or
                infinite entries or differs in rows between modalities; a mask is no boolean per
                item, or content stands where it says that there is none; a split is empty; an id
                is negative or past the users or the content's rows; of the users hardly any occurs
                (ids that are no numbering); an interaction occurs twice, within a split or across
                splits (a leak); a user has none in training; or weights are not one positive number
                per training interaction.
        """
        self._validate_content()
        self._validate_masks()
        self._validate_ids()
        self._validate_users()
        self._validate_duplicates()
        self._validate_weight()

    def to_hetero_data(self) -> HeteroData:
        r"""The training view: content, graphs and training edges; no held-out interactions."""
        data = HeteroData()
        data["user"].num_nodes = self.num_users
        data["item"].num_nodes = self.num_items
        data["user", "rates", "item"].edge_index = self.splits["train"].contiguous()
        if self.train_weight is not None:
            data["user", "rates", "item"].weight = self.train_weight
        data = ToUndirected()(data)
        for modality, x in self.features.items():
            data["item"][f"x_{modality}"] = x
            if modality in self.masks:
                data["item"][f"has_{modality}"] = self.masks[modality]
        for modality, (edge_index, edge_weight, _) in self.graphs.items():
            data["item", f"similar_{modality}", "item"].edge_index = edge_index
            data["item", f"similar_{modality}", "item"].edge_weight = edge_weight
        return data

    def _source(self, key: str) -> str:
        return self.sources.get(key, key)

    def _where(self, split: str, index: int) -> str:
        where = self._source(split)
        return f"{where}, line {int(self.lines[split][index])}" if split in self.lines else where

    def _validate_content(self) -> None:
        if not self.features:
            raise ValueError("'features' must hold content of at least one modality (got none)")
        rows: list[tuple[str, int]] = []
        for modality, x in self.features.items():
            source = self._source(f"x_{modality}")
            if x.dim() != 2 or x.size(1) == 0:
                raise ValueError(
                    f"{source}: features of {modality!r} have shape {tuple(x.shape)}, "
                    "expected [num_items, num_features]"
                )
            finite = x.isfinite()
            if not finite.all():
                row, col = (~finite).nonzero()[0].tolist()
                raise ValueError(
                    f"{source}: row {row}, column {col} is {x[row, col].item()}, "
                    "expected finite content (within float32)"
                )
            rows.append((source, x.size(0)))
        rows += [(self._source(f"similar_{name}"), graph[2]) for name, graph in self.graphs.items()]
        first, num_items = rows[0]
        for source, size in rows:
            if size != num_items:
                raise ValueError(
                    f"{source} has {size} rows but {first} has {num_items}; expected one row "
                    "per item in both"
                )

    def _validate_masks(self) -> None:
        for modality, mask in self.masks.items():
            source = self._source(f"has_{modality}")
            if modality not in self.features:
                raise ValueError(
                    f"{source}: a mask of {modality!r}, which is no modality; expected one of "
                    f"{list(self.features)}"
                )
            if mask.dtype != torch.bool or mask.shape != (self.num_items,):
                raise ValueError(
                    f"{source}: the mask of {modality!r} is {mask.dtype} {list(mask.shape)}, "
                    f"expected bool [{self.num_items}], one entry per item"
                )
            unexpected = ~mask & (self.features[modality] != 0).any(dim=1)
            if unexpected.any():
                raise ValueError(
                    f"{source}: item {int(unexpected.nonzero()[0])} has content of {modality!r} "
                    "though the mask says that it lacks it, expected zeros"
                )

    def _validate_weight(self) -> None:
        weight, expected = self.train_weight, self.splits["train"].size(1)
        if weight is None:
            return
        if weight.shape != (expected,) or not weight.is_floating_point():
            raise ValueError(
                f"the weights are {weight.dtype} {list(weight.shape)}, expected float "
                f"[{expected}], one per training interaction"
            )
        wrong = ~((weight > 0) & weight.isfinite())
        if wrong.any():
            index = int(wrong.nonzero()[0])
            raise ValueError(
                f"{self._where('train', index)}: the weight of training interaction {index} is "
                f"{weight[index].item()}, expected a positive finite number"
            )

    def _validate_ids(self) -> None:
        limits = {"user": self.num_users, "item": self.num_items}
        for split in SPLITS:
            edge_index = self.splits[split]
            if edge_index.numel() == 0:
                raise ValueError(
                    f"{self._source(split)}: the {split} split is empty, expected at least one "
                    "interaction"
                )
            for axis, (kind, limit) in enumerate(limits.items()):
                outside = (edge_index[axis] < 0) | (edge_index[axis] >= limit)
                if outside.any():
                    index = int(outside.nonzero()[0])
                    what = "rows of content" if kind == "item" else "users"
                    raise ValueError(
                        f"{self._where(split, index)}: {kind} id {int(edge_index[axis, index])} "
                        f"in the {split} split, expected 0 to {limit - 1} ({limit} {what})"
                    )

    def _validate_users(self) -> None:
        trained = self.splits["train"][0].unique()
        held_out = {split: self.splits[split][0] for split in ("val", "test")}
        occurring = torch.cat([trained, *held_out.values()]).unique().numel()
        if self.num_users > _MOST_ROWS_PER_USER * occurring:
            raise ValueError(
                f"{self._source('train')}: the largest user id is {self.num_users - 1}, and only "
                f"{occurring} users occur; expected users numbered from 0 without such gaps"
            )
        if self.untrained_users:
            return
        for split, user in held_out.items():
            lacking = ~torch.isin(user, trained)
            if lacking.any():
                index = int(lacking.nonzero()[0])
                raise ValueError(
                    f"{self._where(split, index)}: user {int(user[index])} is in the {split} split "
                    "and has nothing in the train split, expected at least one interaction there; "
                    f"give them one, or drop their rows ({user[lacking].unique().numel()} such "
                    "user(s))"
                )

    def _validate_duplicates(self) -> None:
        key = torch.cat([self.splits[s][0] * self.num_items + self.splits[s][1] for s in SPLITS])
        ordered, order = torch.sort(key, stable=True)
        repeated = (ordered[1:] == ordered[:-1]).nonzero()
        if repeated.numel() == 0:
            return
        ends = torch.tensor([self.splits[s].size(1) for s in SPLITS]).cumsum(0)
        first, second = order[repeated[0, 0]], order[repeated[0, 0] + 1]
        split = [SPLITS[int(torch.searchsorted(ends, p, right=True))] for p in (first, second)]
        start = ends[SPLITS.index(split[1])] - self.splits[split[1]].size(1)
        pair = divmod(int(key[second]), self.num_items)
        where = self._where(split[1], int(second - start))
        if split[0] == split[1]:
            what = f"twice in the {split[0]} split, expected once"
        else:
            what = f"in the {split[0]} split and in the {split[1]} split (a leak), expected in one"
        raise ValueError(f"{where}: user {pair[0]}, item {pair[1]} occurs {what}")
