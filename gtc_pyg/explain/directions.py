from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.graph import CSRGraph, Features
from gtc_pyg.graph.content import present_rows
from gtc_pyg.models import GTC, FilteredContent
from gtc_pyg.nn import ModalityEncoder


class FilterDirections(NamedTuple):
    r"""What of a modality's content a user's filter keeps and drops, beside the mean gate.

    To first order the filtered content answers to a change of an item's raw content, each column
    in its standard deviations :math:`\sigma` over the items, by

    .. math::
        G(g) = \big( \bar J_b + V \, \mathrm{diag}(g) \, \bar J_h \big) \, \mathrm{diag}(\sigma),
        \qquad \bar J_b = \frac{1}{I} \sum_i \frac{\partial \, \text{base}_i}{\partial f_i}, \quad
        \bar J_h = \frac{1}{I} \sum_i \frac{\partial h_i}{\partial f_i},

    with :math:`\hat x_{ui} = \text{base}_i + V (g_u \odot h_i)`
    (:class:`~gtc_pyg.models.FilteredContent`); gates and conditions stay as they are. The strength
    of a direction :math:`d` is :math:`|G d|^2`, and what the user's gate changes in it is

    .. math::
        d^\top \Delta \, d, \qquad \Delta = \frac{G(g_u)^\top G(g_u) - G(\bar g)^\top G(\bar g)}
        {\mathrm{tr} \; G(\bar g)^\top G(\bar g)},

    with :math:`\bar g` the mean over the users. Eigenvectors of :math:`\Delta` with the largest
    eigenvalues are kept, those with the lowest dropped; the eigenvalues add up to the same as the
    changes of the columns, ``strength - usual``. With the conditions ``'item'`` and ``'neighbors'``
    nothing is.
    """

    strength: Tensor
    """Of each column in what this user's filter lets through ``[F]``; relative to all columns'
    strength for the mean gate."""
    usual: Tensor
    """The same for the mean gate ``[F]``; sums to one, or to zero where all content is the same."""
    kept: Tensor
    """Directions let through more than usual ``[K, F]``, of unit length."""
    kept_by: Tensor
    """How much more, largest first ``[K]``."""
    dropped: Tensor
    """Directions let through less than usual ``[K', F]``."""
    dropped_by: Tensor
    """How much less, negative, lowest first ``[K']``."""
    weight: Tensor
    """The weight of the modality for the user, :math:`a_u^m`, between 0 and 2."""
    usual_weight: Tensor
    """The mean of it over the users."""


class Response(NamedTuple):
    r"""How a modality's base and features answer to its content: :math:`[\bar J_b; \bar J_h]
    \mathrm{diag}(\sigma) = R^\top Q^\top`."""

    basis: Tensor
    """:math:`Q`, ``[F, K]``."""
    factor: Tensor
    """:math:`R`, ``[K, D + H]``."""
    gate: Tensor | None
    """The mean gate of the users ``[H]``, where there are gates."""
    weight: Tensor
    """The mean over the users of the weight of the modality."""


def response(model: GTC, features: Features, graph: CSRGraph, name: str) -> Response:
    r"""How the filter of a modality answers to content, on average over the items that have it.

    Args:
        model: A trained GTC.
        features: As in :meth:`~gtc_pyg.models.GTC.forward`.
        graph: The interactions.
        name: The modality.
    """
    encoder = cast(ModalityEncoder, model.content_filter.encoders[name])
    raw, rows = features[name].detach(), present_rows(features, name)
    with torch.inference_mode(False), torch.enable_grad():
        # A view of users is made of content without a gradient: gates and conditions stay.
        f = model.filter_content({**features, name: raw.clone().requires_grad_()}, graph)[name]
        answers = torch.cat([f.base, f.h], dim=1)
        with torch.no_grad():
            z = encoder.lin(raw[rows])
        jacobian = []
        for column in answers.sum(dim=0):
            (of_x,) = torch.autograd.grad(column, f.x, retain_graph=True)
            jacobian.append(_through_norm(of_x[rows], z).mean(dim=0))
    spread = raw[rows].std(dim=0, correction=0)
    spread = spread * (spread > 1e-6 * raw[rows].abs().amax(dim=0))  # more than rounding
    with torch.no_grad():
        whole = torch.stack(jacobian) @ encoder.lin.weight * spread
        basis, factor = torch.linalg.qr(whole.t())
        gate = None if f.gate is None else f.gate.mean(dim=0)
        return Response(basis, factor, gate, f.weight.mean())


@torch.no_grad()
def filter_directions(response: Response, own: FilteredContent, k: int) -> FilterDirections:
    r"""What one user's filter keeps and drops.

    Args:
        response: Of the modality.
        own: The modality as this one user has it filtered.
        k: How many directions at most, of each kind.
    """
    if k < 0:
        raise ValueError(f"'k' must be at least 0 (got {k})")
    v = own.to_content
    gates = [response.gate, None if own.gate is None else own.gate[0]]
    usual, mine = (
        torch.cat([torch.eye(v.size(0)).to(v), v if g is None else v * g], dim=1)
        @ response.factor.t()
        for g in gates
    )
    total = usual.pow(2).sum().clamp(min=torch.finfo(usual.dtype).tiny)  # of constant content 0
    strength, normal = ((g @ response.basis.t()).pow(2).sum(dim=0) / total for g in (mine, usual))
    value, vector = torch.linalg.eigh((mine.t() @ mine - usual.t() @ usual) / total)
    least = 1e-6 * (1 + value.abs().max())
    up = (value > least).nonzero().view(-1).flip(0)[:k]
    down = (value < -least).nonzero().view(-1)[:k]
    kept, dropped = (_signed((response.basis @ vector[:, rows]).t()) for rows in (up, down))
    return FilterDirections(
        strength=strength,
        usual=normal,
        kept=kept,
        kept_by=value[up],
        dropped=dropped,
        dropped_by=value[down],
        weight=own.weight[0],
        usual_weight=response.weight,
    )


def _through_norm(grad: Tensor, z: Tensor) -> Tensor:
    """The gradient at the input ``z`` of a layer norm from that at its output ``[N, D]``."""
    z = z.detach().requires_grad_()
    return torch.autograd.grad(F.layer_norm(z, z.shape[1:]), z, grad)[0]


def _signed(rows: Tensor) -> Tensor:
    """Each with its largest entry positive: a direction has no sign."""
    if rows.numel() == 0:
        return rows
    return rows * rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()
