r"""A modality with gaps that interactions and another modality tell, and its filler."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.imputation import ModalityFiller

NUM_USERS, NUM_ITEMS = 60, 200
OPTIONS = {"channels": 16, "hidden_channels": 64, "spectral_channels": 8}


@cache
def planted(others: bool = True, taste: bool = True) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Text made of an item's group and its style: users tell the one, audio the other."""
    g = torch.Generator().manual_seed(0)
    group = torch.randint(6, (NUM_ITEMS,), generator=g)
    style = torch.randn(NUM_ITEMS, 4, generator=g)
    meaning = torch.cat([2 * F.one_hot(group, 6).float(), style], dim=1)
    text = meaning @ torch.randn(10, 20, generator=g)
    text += 0.3 * torch.randn(text.shape, generator=g) + 5
    audio = style @ torch.randn(4, 12, generator=g)
    affinity = torch.rand(NUM_USERS, NUM_ITEMS, generator=g)
    if taste:
        affinity += (
            F.one_hot(torch.arange(NUM_USERS) % 6, 6).float() @ F.one_hot(group, 6).float().t()
        )
    items = affinity.topk(12, dim=1).indices
    edge_index = torch.stack([torch.arange(NUM_USERS).repeat_interleave(12), items.flatten()])
    mask = torch.rand(NUM_ITEMS, generator=g) > 0.4
    features = {"text": torch.where(mask.view(-1, 1), text, float("nan")), "has_text": mask}
    return features | ({"audio": audio} if others else {}), edge_index, text


def fitted(
    features: dict[str, Tensor], edge_index: Tensor, epochs: int = 60, seed: int = 0
) -> ModalityFiller:
    filler = ModalityFiller("text", 20, **OPTIONS)
    return filler.fit(features, edge_index, NUM_USERS, epochs=epochs, num_folds=4, seed=seed)
