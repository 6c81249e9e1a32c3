from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets import InteractionDataset, from_frames
from gtc_pyg.datasets.exact_ids import exact_ids, shared
from gtc_pyg.datasets.splits import check_ratios
from gtc_pyg.distributed import rank
from gtc_pyg.functional import normalize_rows, spectral_factors
from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GraphRecommender
from gtc_pyg.models.registry import build_model, settings_of
from gtc_pyg.recommend.interactions import Interactions, as_frame
from gtc_pyg.recommend.trained import Trained
from gtc_pyg.transforms import ItemKNNGraph


def grown_dataset(
    recommender: Trained,
    interactions: Interactions,
    transform: Any,
    ratios: Sequence[float] = (0.9, 0.05, 0.05),
    seed: int = 0,
) -> InteractionDataset:
    r"""All that a recommender knows, and new interactions with its items, as one dataset.

    What it was trained on is trained on again, since to find that again is no sign of having
    learned. Validation and test are drawn from what is new and what was held out before, at most
    half of it each; every user has a training interaction.

    Args:
        recommender: Knows interactions, content and the items' table.
        interactions: New ones, of users old and new; those known already count once.
        transform: As ``pre_transform`` of :func:`~gtc_pyg.datasets.from_frames`.
        ratios: Shares of training, validation and test.
        seed: Draws what is held out.

    Raises:
        ValueError: For an unknown item, or where fewer than two interactions can be held out.
    """
    check_ratios(ratios)
    users, items = recommender.users, recommender.items
    new = as_frame(interactions)
    item = items.rows(new["item"])
    named = pd.Index(new["user"].unique())
    users = users.extended(named[users.found(named).numpy() < 0])
    trained = recommender.inputs.edge_index_dict[USER_TO_ITEM]
    given = torch.stack([users.rows(new["user"]), item])
    u, i = torch.cat([trained, recommender.seen, given], dim=1)
    table = pd.DataFrame({"user": users[u], "item": items[i]})
    table["split"] = "train"
    free = ~table.duplicated(["user", "item"]) & (table.index >= trained.size(1))
    table = table[free | (table.index < trained.size(1))]
    free &= table.duplicated("user")  # the first one of a new user is for training
    rows = table.index[free[table.index]].to_numpy()
    rows = np.random.default_rng(seed).permutation(rows)
    if len(rows) < 2:
        raise ValueError(
            f"'interactions' must bring at least two to hold out, of users who have others (got "
            f"{len(rows)}): give a dataset with a split of its own"
        )
    num_val, num_test = (min(max(1, round(r * len(table))), len(rows) // 2) for r in ratios[1:])
    table.loc[rows[:num_val], "split"] = "val"
    table.loc[rows[num_val : num_val + num_test], "split"] = "test"
    content = {}
    for name, x in recommender.features.items():
        if not name.startswith("has_"):
            has = recommender.features.get(f"has_{name}", torch.ones(len(x), dtype=torch.bool))
            content[name] = pd.DataFrame(
                x[has].numpy(), items.index[has.numpy()], recommender.columns.get(name)
            )
    shown = pd.DataFrame({"item": items.index})
    data = from_frames(table, shown, content, split_column="split", pre_transform=transform)
    data._items = recommender.describe(data.item_ids)
    return data


def warm_started(
    recommender: Trained, dataset: InteractionDataset, turn: float = 0.5
) -> GraphRecommender:
    r"""A model for a grown dataset that begins where the trained one ended.

    Weights are carried over, and by id the rows of users and items. An item without a row begins
    at the mean direction of its users' ID embeddings, then a user without one at that of their
    items', both at the mean length of the trained rows; one without such neighbours as drawn.

    Whatever goes on from there alone ends below what is trained anew (`"On Warm-Starting Neural
    Network Training" <https://arxiv.org/abs/1910.08475>`_). So directions :math:`w` of the ID
    embeddings turn to those that the grown graph gives, lengths kept (ours):

    .. math::
        w \leftarrow \mathrm{norm}((1 - \tau) w + \tau R s), \quad
        R = \arg\min_{R^\top R = I} \sum_{\text{trained}} \lVert R s - w \rVert^2

    with :math:`s` the directions of :func:`~gtc_pyg.functional.spectral_factors`.

    Args:
        recommender: Has the trained model.
        dataset: Its users, items and content, with more of them.
        turn: :math:`\tau`, in [0, 1]. Measured in ``docs/recommend.md``.

    Raises:
        ValueError: For content of other modalities, widths or columns, or where no user or no item
            is known.
    """
    old = recommender.model
    for name in old.modalities:
        expected, found = old.in_channels[name], dataset.features.get(name)
        if found is None or found.size(1) != expected:
            raise ValueError(
                f"'dataset' must have content {name!r} [I, {expected}], as the model was trained "
                f"with (got {list(dataset.modalities) if found is None else list(found.shape)})"
            )
        names, others = recommender.columns.get(name), dataset.feature_columns.get(name)
        if names and others and names != others:
            raise ValueError(
                f"'dataset' must have the columns of content {name!r} in the order of training, "
                f"{list(names[:5])} ... (got {list(others[:5])} ...): features[{name!r}][columns] "
                "brings a table into it"
            )
    settings = _with_gaps(settings_of(old), dataset)
    model = build_model(settings | {"num_users": dataset.num_users, "num_items": dataset.num_items})
    state = model.state_dict()
    of_rows = {id(table.weight) for _, _, table in old.tables()}
    tables = {name for name, weight in old.named_parameters() if id(weight) in of_rows}
    for name, value in old.state_dict().items():
        if name not in tables and state[name].shape == value.shape:
            state[name].copy_(value)
    ids = {
        "user": (recommender.users, dataset.user_ids),
        "item": (recommender.items, dataset.item_ids),
    }
    rows = {}
    for kind, (known, wanted) in ids.items():
        given = exact_ids(wanted, f"the dataset's {kind} ids")
        shared(given, f"the dataset's {kind}s", known.index, f"the known {kind}s")
        found = known.found(given)
        rows[kind] = found.masked_fill(found >= getattr(old, f"num_{kind}s"), -1)
    edge_index = dataset[0]["user", "rates", "item"].edge_index
    with torch.no_grad():
        for (_, kind, table), (_, _, trained) in zip(model.tables(), old.tables(), strict=True):
            has = rows[kind] >= 0
            table.weight[has] = trained.weight[rows[kind][has]]
        _begin(
            model.item_emb.weight,
            model.user_emb.weight,
            rows["item"],
            rows["user"],
            edge_index.flip(0),
        )
        everybody = torch.zeros_like(rows["item"])
        _begin(model.user_emb.weight, model.item_emb.weight, rows["user"], everybody, edge_index)
        trained_rows = torch.cat([rows["user"], rows["item"]]) >= 0
        _turn(model.user_emb.weight, model.item_emb.weight, trained_rows, edge_index, turn)
    grown = GraphInputs.from_data(dataset[0], [])
    model.prepared.fill_(False)
    model.prepare(grown.edge_index_dict, grown.edge_weight_dict, spectral_start=False)
    model.init_method = "trained before"
    return model


def _with_gaps(settings: dict[str, Any], dataset: InteractionDataset) -> dict[str, Any]:
    """Settings of a model that takes the gaps of a grown dataset's content, too."""
    part = settings.get("content_filter")
    if part is None:
        return settings
    lacking = [name for name in dataset.incomplete if name in part["in_channels"]]
    incomplete = list(dict.fromkeys([*part["incomplete"], *lacking]))
    return {**settings, "content_filter": {**part, "incomplete": incomplete}}


def _begin(table: Tensor, others: Tensor, row: Tensor, other_row: Tensor, edges: Tensor) -> None:
    """Rows that were not trained, from the directions of their neighbours that were."""
    node, neighbor = edges[:, (row[edges[0]] < 0) & (other_row[edges[1]] >= 0)]
    direction = torch.zeros_like(table).index_add_(0, node, normalize_rows(others[neighbor]))
    length = table[row >= 0].norm(dim=1).mean()
    begun = direction.norm(dim=1) > 0
    table[begun] = length * normalize_rows(direction[begun])


def _turn(users: Tensor, items: Tensor, trained: Tensor, edge_index: Tensor, share: float) -> None:
    """Directions of ID embeddings, turned to those of the grown graph."""
    tables = torch.cat([users, items])
    begun = normalize_rows(tables)
    factors = spectral_factors(edge_index, len(users), len(items), tables.size(1))
    graph = normalize_rows(torch.cat(factors)).to(tables)
    u, _, vt = torch.linalg.svd(graph[trained].t() @ begun[trained], full_matrices=False)
    graph = graph @ (u @ vt)
    connected = graph.norm(dim=1, keepdim=True) > 0
    turned = normalize_rows(torch.where(connected, torch.lerp(begun, graph, share), begun))
    turned *= tables.norm(dim=1, keepdim=True)
    users.copy_(turned[: len(users)])
    items.copy_(turned[len(users) :])


def continued(
    recommender: Trained,
    interactions: Interactions | InteractionDataset,
    pre_transform: Any,
    ratios: Sequence[float],
    options: Mapping[str, Any],
) -> tuple[GraphRecommender, InteractionDataset]:
    r"""Trains a warm-started model, and what it was trained on; see :meth:`Recommender.update`."""
    from gtc_pyg.lightning import fit  # an extra of its own; missing, it says so

    seed = int(options.get("seed", 0))
    if isinstance(interactions, InteractionDataset):
        dataset = interactions
    else:
        default = ItemKNNGraph(k=min(10, recommender.num_items)) if recommender.features else None
        graph = pre_transform or default
        dataset = grown_dataset(recommender, interactions, graph, ratios, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = warm_started(recommender, dataset)
    names = [name for name in recommender.features if not name.startswith("has_")]
    result = fit(model, dataset, **{"modalities": names, "name": "update", **options})
    if rank() == 0 and options.get("progress", True):
        found = f"{result.val['Recall@20']:.4f} in epoch {result.best_epoch}"
        print(f"update: validation Recall@20 {found} of {len(result.history)}", file=sys.stderr)
    return result.model, dataset
