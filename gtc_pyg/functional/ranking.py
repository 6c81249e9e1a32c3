r"""Losses of ranked items, without state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gtc_pyg.functional.adjacency import check_csr, free_to_read
from gtc_pyg.functional.checks import check_ids
from gtc_pyg.functional.rows import upcast


class _LogSumExp(torch.autograd.Function):
    """Log of the sum of exponentials of inner products, with one ``[N, M]`` buffer.

    The loss takes .68 (.56 to .85) of the time that it takes by autograd's operators, with 1,300
    users, 1,024 negatives and two threads; the ratio by turns is in ``benchmarks/notes.md``.
    """

    @staticmethod
    def forward(ctx, x, y, excluded):  # type: ignore[no-untyped-def]
        scores = x @ y.t()
        # Not -inf, of which the largest of a row that is left with nothing could not be taken off.
        scores.view(-1).index_fill_(0, excluded, torch.finfo(scores.dtype).min / 2)
        largest = scores.amax(dim=1, keepdim=True)
        total = scores.sub_(largest).exp_().sum(dim=1, keepdim=True)
        ctx.save_for_backward(x, y, scores, total)
        return (largest + total.log()).view(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        x, y, exponentials, total = ctx.saved_tensors
        factor = grad_output.view(-1, 1) / total
        grad_x = (exponentials @ y).mul_(factor)
        return grad_x, exponentials.t() @ (factor * x), None


def sampled_softmax(
    user_emb: Tensor,
    item_emb: Tensor,
    row: Tensor,
    pos_item: Tensor,
    negatives: Tensor,
    known: Tensor,
) -> Tensor:
    r"""Cross-entropy of a user's item among sampled items that are none of theirs.

    With :math:`s_{ui}` the inner product, :math:`N` the sampled items and :math:`N(u)` the user's,

    .. math::
        -\frac{1}{B} \sum_{(u, i)} \log \frac{\exp s_{ui}}
        {\exp s_{ui} + \sum_{j \in N \setminus N(u)} \exp s_{uj}}

    With a single negative this is the loss of BPR. All users share the sample, so that their scores
    are one product, and the sum over them is made once for a user, however many items of theirs are
    in the batch. See `"On the Effectiveness of Sampled Softmax Loss for Item Recommendation"
    <https://arxiv.org/abs/2201.02327>`_; theirs takes the batch's other items as negatives.

    Half precision is cast up, and autocast is off inside.

    Args:
        user_emb: Of the users ``[N, K]``.
        item_emb: Of all items ``[I, K]``.
        row: A row of ``user_emb`` for each pair ``[B]``.
        pos_item: An item of that user ``[B]``.
        negatives: Sampled items, none twice ``[M]``.
        known: The users' items as CSR ``[N, I]``; its values do not matter.

    Returns:
        A scalar; 0 for users that have all sampled items.

    Raises:
        ValueError: For shapes that do not fit, no pair, or ids out of range (on the CPU).
    """
    num_users, num_items = user_emb.size(0), item_emb.size(0)
    check_csr(known, "known")
    if known.shape != (num_users, num_items):
        raise ValueError(f"'known' must be [{num_users}, {num_items}] (got {list(known.shape)})")
    if row.dim() != 1 or row.shape != pos_item.shape or row.numel() == 0:
        raise ValueError(
            f"'row' and 'pos_item' must be [B] each, of one pair or more (got {list(row.shape)} "
            f"and {list(pos_item.shape)})"
        )
    if free_to_read(row):
        row = check_ids(row, num_users, "'row' holds")
        pos_item = check_ids(pos_item, num_items, "'pos_item' holds")
        negatives = check_ids(negatives, num_items, "'negatives' holds")
    user_emb, item_emb = upcast(user_emb), upcast(item_emb)
    positives = (user_emb.index_select(0, row) * item_emb.index_select(0, pos_item)).sum(-1)
    place = negatives.new_full((item_emb.size(0),), -1)
    place[negatives] = torch.arange(negatives.numel(), device=place.device)
    column = place[known.col_indices()]
    user = torch.arange(user_emb.size(0), device=place.device)
    user = user.repeat_interleave(known.crow_indices().diff(), output_size=column.numel())
    excluded = (user * negatives.numel() + column)[column >= 0]
    with torch.autocast(user_emb.device.type, enabled=False):  # backward runs outside of it
        others = _LogSumExp.apply(user_emb, item_emb.index_select(0, negatives), excluded)
    return F.softplus(others.index_select(0, row) - positives).mean()
