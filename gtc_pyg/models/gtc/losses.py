r"""What a content filter is trained by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional import normalize_rows
from gtc_pyg.graph.content import Features
from gtc_pyg.graph.csr_graph import CSRGraph
from gtc_pyg.models.gtc.filtered_content import Filtered
from gtc_pyg.nn import ConditionalDenoiser, NoiseSchedule


def diffusion_loss(
    filtered: Mapping[str, Filtered],
    denoiser: Callable[[str], ConditionalDenoiser],
    schedule: NoiseSchedule,
    features: Features,
    row: Tensor,
    item: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Mean squared error of the noise, over modalities and present entries.

    Content is detached: an encoder drives this loss to zero by erasing it.

    Args:
        filtered: What :meth:`~gtc_pyg.models.ContentFilter.forward` gives.
        denoiser: That of each modality.
        schedule: Their noise.
        features: What ``filtered`` was made of; masks are looked up.
        row: One of the users of each item, whose gate is applied: the position among those that
            ``filtered`` was asked for ``[B]``.
        item: ``[B]``.
        generator: Draws times and noise.
    """
    x = torch.stack([f.x.detach().index_select(0, item) for f in filtered.values()])
    t = schedule.sample_times(x.size(0) * x.size(1), generator)
    noise = schedule.sample_noise(x, generator)
    x_t = schedule.add_noise(x.flatten(0, 1), t, noise.flatten(0, 1)).view_as(x)
    predicted = []
    for (name, f), x_m, t_m in zip(filtered.items(), x_t, t.view(x.shape[:2]), strict=True):
        h = denoiser(name).hidden(x_m, t_m, f.cond.index_select(0, item))
        gate = None if f.gate is None else f.gate.index_select(0, row)
        predicted.append(denoiser(name).noise(h, gate))
    error = (torch.stack(predicted) - noise).pow(2).mean(dim=-1)
    present = _present(features, filtered, item)
    return _mean_where(error, present).mean()


def ranking_loss(
    filtered: Mapping[str, Filtered],
    content: Mapping[str, Tensor],
    features: Features,
    graph: CSRGraph,
    row: Tensor,
    pos_item: Tensor,
    neg_item: Tensor,
) -> Tensor:
    r"""What the filter is for: to a user, their items look alike and others do not (ours).

    .. math::
        d_m = \cos(p^m_{u \setminus i}, \hat x^m_{ui}) - \cos(p^m_{u \setminus i},
        \hat x^m_{un}), \qquad
        p^m_{u \setminus i} = \frac{1}{|N(u) \setminus i|}
        \sum_{j \in N(u) \setminus i} \hat x^m_{uj}

    .. math::
        L_f = -\frac{1}{M} \sum_m \log \sigma(5 \, d_m)
        - \log \sigma \big(5 \textstyle\sum_m a_u^m d_m \big)

    The first term teaches each modality's filter, the second how much a user listens to each
    modality. Pairs count whose user has other items and whose items both have the content.

    Args:
        filtered: What :meth:`~gtc_pyg.models.ContentFilter.forward` gives.
        content: What :meth:`~gtc_pyg.models.ContentFilter.for_users` gives.
        features: What ``filtered`` was made of; masks are looked up.
        graph: The interactions.
        row: The user's position among those that ``filtered`` was asked for ``[B]``.
        pos_item: :math:`i`, an item of each user ``[B]``.
        neg_item: :math:`n`, an item that is none of the user's ``[B]``.
    """
    every = list(filtered.values())
    user_id = every[0].user_id
    user = row if user_id is None else user_id[row]
    own = graph.contains(user, pos_item).long()  # pruned ones are in no mean
    num_items = graph.num_items_of_users[user]
    pairs = row.repeat(2), torch.cat([pos_item, neg_item])
    both = torch.stack([f.for_pairs(*pairs) for f in every])
    total = torch.stack([content[name].index_select(0, row) for name in filtered])
    others = num_items.view(-1, 1) * total - own.view(-1, 1) * both.chunk(2, dim=1)[0]
    others = normalize_rows(others / (num_items - own).clamp(min=1).view(-1, 1))
    pos, neg = normalize_rows(both).chunk(2, dim=1)
    usable = (num_items > own).expand(others.shape[:2])
    for item in (pos_item, neg_item):
        usable = usable & _present(features, filtered, item)
    difference = ((pos - neg) * others).sum(dim=-1)
    weight = torch.stack([f.weight.index_select(0, row) for f in every])
    joint = (weight * difference * usable).sum(dim=0)
    first = _mean_where(F.softplus(-5 * difference), usable).mean()
    return first + _mean_where(F.softplus(-5 * joint), usable.any(dim=0))


def _present(features: Features, filtered: Mapping[str, Filtered], item: Tensor) -> Tensor:
    """Which of the items have which modality ``[M, B]`` (bool)."""
    masks = [features.get(f"has_{name}") for name in filtered]
    whole = torch.ones_like(item, dtype=torch.bool)
    return torch.stack([whole if mask is None else mask[item] for mask in masks])


def _mean_where(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last dimension, where the mask is true; 0 where it nowhere is."""
    return (x * mask).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
