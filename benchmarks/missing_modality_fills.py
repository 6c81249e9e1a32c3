"""What stands in the place of content that was removed, and how near it comes to it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional import principal_axes, ridge_predictions, spectral_items
from gtc_pyg.imputation import ModalityFiller

REMOVED = {"lfm2k": "text", "tiktok": "image"}
TRAINED = ["complete", "zero", "mean", "fill"]
MEASURED = ["mean", "neighbors", "others", "ridge", "fill"]


def present_rows(num_items: int, rate: float, seed: int) -> Tensor:
    """Which items keep the modality: all but ``round(rate * num_items)`` drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(num_items, dtype=torch.bool)
    mask[torch.randperm(num_items, generator=generator)[: round(rate * num_items)]] = False
    return mask


def fill_content(
    condition: str,
    features: dict[str, Tensor],
    modality: str,
    mask: Tensor,
    edge_index: Tensor,
    num_users: int,
    seed: int,
    epochs: int = 200,
) -> Tensor:
    """The modality with its absent rows filled; what they hold is not looked at."""
    x = torch.where(mask.view(-1, 1), features[modality], 0.0)
    others = {name: y for name, y in features.items() if name != modality}
    mean = x[mask].mean(0)
    if condition in ("zero", "learned"):
        return x
    if condition in ("fill", "content"):
        given = {**others, modality: x, f"has_{modality}": mask}
        filler = ModalityFiller(modality, x.size(1))
        filler.fit(given, edge_index, num_users, epochs=epochs, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        return filler(given, edge_index, num_users, num_samples=32, generator=generator)[modality]
    if condition == "mean":
        out = mean.expand_as(x)
    elif condition == "neighbors":
        known = torch.cat([(x - mean) * mask.view(-1, 1), mask.view(-1, 1)], dim=1)
        adj = torch.zeros(num_users, x.size(0))
        adj[edge_index[0], edge_index[1]] = 1
        adj = adj / (adj.sum(1, keepdim=True) * adj.sum(0)).sqrt().clamp(min=1)
        total = adj.t() @ (adj @ known)
        out = mean + total[:, :-1] / total[:, -1:].clamp(min=1e-9)
    elif condition == "ridge":
        out = ridge_predictions(spectral_items(edge_index, num_users, x.size(0), 64), x, mask)
    elif condition == "others":
        unit = [
            F.normalize((y - y.mean(0)) @ principal_axes(y, 64).t(), dim=1) for y in others.values()
        ]
        out = ridge_predictions(torch.cat(unit, dim=1), x, mask)
    else:
        raise ValueError(f"unknown condition {condition!r}")
    return torch.where(mask.view(-1, 1), x, out)


def quality(filled: Tensor, true: Tensor, mask: Tensor, k: int = 10) -> tuple[float, float]:
    """Mean cosine of filled and true rows around the mean, and the share of true neighbours kept.

    Both over the removed rows; neighbours are the ``k - 1`` of largest cosine with an item.
    """
    mean, absent = true[mask].mean(0), ~mask
    cosine = F.cosine_similarity(filled[absent] - mean, true[absent] - mean).mean()
    near = []
    for x in (filled, true):
        unit = F.normalize(x, dim=1)
        similarity = unit[absent] @ unit.t()
        similarity[torch.arange(int(absent.sum())), absent.nonzero().view(-1)] = -2.0
        near.append(similarity.topk(k - 1, dim=1).indices)
    both = (near[0].unsqueeze(2) == near[1].unsqueeze(1)).any(dim=2)
    return float(cosine), float(both.float().mean())
