"""Test metrics of each user, and which of their test items were found."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.lightning import InteractionDataModule
from gtc_pyg.models import GraphRecommender

METRICS = [("recall", 20), ("ndcg", 20), ("recall", 5), ("ndcg", 5)]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class PerUser(NamedTuple):
    """Of the users who have test interactions, and of these interactions."""

    metrics: dict[str, Floats]
    """Recall and NDCG at 5 and 20 of each user ``[N]``."""
    users: Ints
    """Who they are ``[N]``."""
    user_degree: Ints
    """Their training interactions ``[N]``."""
    of_user: Ints
    """Position of the user of each test interaction ``[E]``."""
    item_degree: Ints
    """Training interactions of its item ``[E]``."""
    found: NDArray[np.bool_]
    """Whether it is among the user's first 20 ``[E]``."""


def recall_and_ndcg(hit: Tensor, degree: Tensor) -> tuple[Tensor, Tensor]:
    """Of each list, by its hits ``[N, k]`` and how many items there were to find ``[N]``."""
    rank = torch.arange(2, hit.size(1) + 2, device=hit.device, dtype=torch.double)
    discount = 1 / rank.log2()
    ideal = discount.cumsum(0)[degree.clamp(max=hit.size(1)) - 1]
    return hit.sum(dim=1).double() / degree, (hit * discount).sum(dim=1) / ideal


@torch.no_grad()
def per_user(
    model: GraphRecommender, dataset: InteractionDataset, modalities: Sequence[str] | None = None
) -> PerUser:
    """Ranks the test set once."""
    device = next(model.parameters()).device
    data = InteractionDataModule(dataset, modalities)
    inputs, ranker = data.inputs.to(device), data.rankers["test"].to(device)
    user_emb, item_emb = model.eval()(
        inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict
    )
    trained = dataset[0]["user", "rates", "item"].edge_index.cpu()
    sizes = dataset.num_users, dataset.num_items
    degrees = [torch.bincount(x, minlength=n) for x, n in zip(trained, sizes, strict=True)]
    parts: dict[str, list[Tensor]] = {}
    for users in ranker.users.split(data.eval_batch_size):
        top = ranker.rank(user_emb, item_emb, users, max(k for _, k in METRICS))
        row, item = ranker.labels(users)
        first = torch.arange(users.numel(), device=device) * data.num_items
        shown, wanted = top + first.view(-1, 1), item + first[row]
        hit = torch.isin(shown, wanted) & (top >= 0)
        for k in (20, 5):
            pair = recall_and_ndcg(hit[:, :k], ranker.labels.degree[users])
            for metric, value in zip(("recall", "ndcg"), pair, strict=True):
                parts.setdefault(f"{metric}@{k}", []).append(value)
        parts.setdefault("item_degree", []).append(degrees[1][item.cpu()])
        parts.setdefault("found", []).append(torch.isin(wanted, shown[:, :20][top[:, :20] >= 0]))
    values = {name: torch.cat(part).cpu().numpy() for name, part in parts.items()}
    item_degree, found = values.pop("item_degree"), values.pop("found")
    known = ranker.users.cpu()
    of_user = torch.arange(known.numel()).repeat_interleave(ranker.labels.degree.cpu()[known])
    return PerUser(
        values, known.numpy(), degrees[0][known].numpy(), of_user.numpy(), item_degree, found
    )
