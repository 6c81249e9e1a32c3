r"""What a content filter is trained by, of tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional import normalize_rows


def noise_error(predicted: Tensor, noise: Tensor, present: Tensor) -> Tensor:
    r"""Mean squared error of the noise, over modalities and present entries.

    Args:
        predicted: ``[M, B, D]``.
        noise: ``[M, B, D]``.
        present: Which entries count ``[M, B]`` (bool).

    Returns:
        A scalar; 0 where nothing is present.
    """
    return _mean_where((predicted - noise).pow(2).mean(dim=-1), present).mean()


def separation(others: Tensor, pos: Tensor, neg: Tensor, weight: Tensor, usable: Tensor) -> Tensor:
    r"""To a user, their items look alike and others do not (ours).

    .. math::
        d_m = \cos(p^m_{u \setminus i}, \hat x^m_{ui}) - \cos(p^m_{u \setminus i},
        \hat x^m_{un}), \qquad
        p^m_{u \setminus i} = \frac{1}{|N(u) \setminus i|}
        \sum_{j \in N(u) \setminus i} \hat x^m_{uj}

    .. math::
        L_f = -\frac{1}{M} \sum_m \log \sigma(5 \, d_m)
        - \log \sigma \big(5 \textstyle\sum_m a_u^m d_m \big)

    The first term teaches each modality's filter, the second how much each modality weighs for a
    user. Pairs count whose user has other items and whose items both have the content.

    Args:
        others: :math:`p^m_{u \setminus i}`, ``[M, B, D]``.
        pos: :math:`\hat x^m_{ui}` of an item of the user ``[M, B, D]``.
        neg: :math:`\hat x^m_{un}` of an item that is none of theirs ``[M, B, D]``.
        weight: :math:`a_u^m`, ``[M, B]``.
        usable: Which pairs count ``[M, B]`` (bool).

    Returns:
        A scalar.
    """
    difference = (normalize_rows(pos) - normalize_rows(neg)) * normalize_rows(others)
    difference = difference.sum(dim=-1)
    joint = (weight * difference * usable).sum(dim=0)
    first = _mean_where(F.softplus(-5 * difference), usable).mean()
    return first + _mean_where(F.softplus(-5 * joint), usable.any(dim=0))


def _mean_where(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last dimension, where the mask is true; 0 where it nowhere is."""
    return (x * mask).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
