from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.metrics import (
    LinkPredAveragePopularity,
    LinkPredCoverage,
    LinkPredDiversity,
    LinkPredMetric,
    LinkPredPersonalization,
)


def list_quality(
    items: Tensor, k: int, popularity: Tensor, category: Tensor | None = None
) -> dict[str, float]:
    r"""PyG's metrics of lists as such, without held-out interactions.

    Args:
        items: Lists ``[N, k]``, -1 where one ends early; those are left out.
        k: Length of the lists.
        popularity: Interactions of each item ``[I]``.
        category: Of each item ``[I]``.

    Returns:
        ``{'AveragePopularity@10': ..., 'Coverage@10': ..., ...}``.

    Raises:
        ValueError: Where no list has ``k`` items.
    """
    whole = items[(items >= 0).all(dim=1)] if items.size(1) == k else items[:0]
    if whole.size(0) == 0:
        raise ValueError(f"'k' must leave at least one user with as many candidates (got {k})")
    metrics: dict[str, LinkPredMetric] = {
        "AveragePopularity": LinkPredAveragePopularity(k, popularity),
        "Coverage": LinkPredCoverage(k, popularity.numel()),
        "Personalization": LinkPredPersonalization(k),
    }
    if category is not None:
        metrics["Diversity"] = LinkPredDiversity(k, category)
    nothing = torch.empty(2, 0, dtype=torch.long)  # these metrics look at no labels
    for metric in metrics.values():
        metric.update(whole, nothing)
    return {f"{name}@{k}": float(metric.compute()) for name, metric in metrics.items()}
