r"""The best of many inner products in little memory."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from gtc_pyg.functional.adjacency import check_edges
from gtc_pyg.functional.checks import whole_number

SCORE_BYTES = 2**24  # what stays in the cache of a CPU from the product to the top-k
MIN_ITEMS = 2**14  # of a chunk, where there are as many: top-k of short rows is slow
BLOCK = 64


@torch.no_grad()
def inner_product_topk(
    user_emb: Tensor,
    item_emb: Tensor,
    k: int,
    exclude_links: Tensor | None = None,
    score_bytes: int = SCORE_BYTES,
) -> tuple[Tensor, Tensor]:
    r"""The ``k`` items of the highest inner product with each user, exactly.

    Scores are computed for a chunk of users and a chunk of items at a time, in one buffer, and the
    best so far are kept: users times items never exist at once. Half-precision embeddings are
    multiplied in single precision. Equal scores come in any order, and where a list ends among
    equal ones, any of them is in it. ``NaN`` counts as the highest score, as in :func:`torch.topk`;
    an item of score ``-inf`` is never listed.

    Args:
        user_emb: ``[U, K]``.
        item_emb: ``[I, K]``.
        k: Length of the lists.
        exclude_links: Pairs of a row of ``user_emb`` and an item that is no candidate, ``[2, E]``.
        score_bytes: Memory for scores, which sets the size of chunks. The default suits the cache
            of a CPU; a GPU is kept busy by more.

    Returns:
        Scores and items, each ``[U, min(k, I)]``, best first. Where a user has fewer candidates,
        the rest is ``-inf`` and ``-1``.

    Raises:
        ValueError: If ``k`` is less than 1, or for a pair that is out of range (on the CPU).

    Example:
        >>> items = torch.tensor([[3.0], [1.0], [2.0]])
        >>> inner_product_topk(torch.ones(1, 1), items, k=2)[1]
        tensor([[0, 2]])
    """
    k = whole_number(1, k=k)
    num_users, num_items, device = user_emb.size(0), item_emb.size(0), user_emb.device
    dtype = torch.promote_types(torch.result_type(user_emb, item_emb), torch.float32)
    rows, cols = _chunk_size(num_users, num_items, score_bytes // dtype.itemsize)
    buffer = torch.empty(rows * _padded(cols), dtype=dtype, device=device)
    value = torch.full((num_users, min(k, num_items)), float("-inf"), dtype=dtype, device=device)
    index = torch.full_like(value, -1, dtype=torch.long)
    links = index.new_empty(2, 0) if exclude_links is None else exclude_links
    links = check_edges(links, num_users, num_items, "exclude_links", ("row", "item"), wait=False)
    if (links[0, 1:] < links[0, :-1]).any():
        links = links[:, links[0].argsort()]
    starts = range(0, num_users, rows)
    ends = torch.tensor([*starts, num_users], device=device)
    spans = pairwise(torch.searchsorted(links[0].contiguous(), ends).tolist())
    for i, (first, last) in zip(starts, spans, strict=True):
        x, best, items = (tensor[i : i + rows] for tensor in (user_emb, value, index))
        excluded = _by_chunk(links[0, first:last] - i, links[1, first:last], cols, num_items)
        for j, pairs in zip(range(0, num_items, cols), excluded, strict=True):
            y = item_emb[j : j + cols].to(dtype)
            score = buffer[: x.size(0) * _padded(y.size(0))].view(x.size(0), -1)
            torch.mm(x.to(dtype), y.t(), out=score[:, : y.size(0)])
            score[:, y.size(0) :] = float("-inf")
            score[pairs] = float("-inf")
            new, new_items = _topk(score, k, floor=best[:, -1:])
            new, order = torch.cat([best, new], dim=1).topk(best.size(1), dim=1)
            best.copy_(new)
            items.copy_(torch.cat([items, new_items + j], dim=1).gather(1, order))
    return value, index.masked_fill_(value == float("-inf"), -1)


def _chunk_size(num_users: int, num_items: int, num_scores: int) -> tuple[int, int]:
    """How many users and items are multiplied at the same time, so that the scores fit."""
    rows = max(1, min(num_users, num_scores // max(1, min(num_items, MIN_ITEMS))))
    return rows, max(1, min(num_items, num_scores // rows))


def _padded(num_items: int) -> int:
    """Rounded up to whole blocks."""
    return -(-num_items // BLOCK) * BLOCK


def _by_chunk(row: Tensor, item: Tensor, cols: int, num_items: int) -> list[tuple[Tensor, Tensor]]:
    """The pairs of each chunk of ``cols`` items, which are numbered from its start."""
    num_chunks = -(-num_items // cols)
    if num_chunks == 1:
        return [(row, item)]
    chunk, order = (item // cols).sort()
    sizes = torch.bincount(chunk, minlength=num_chunks).tolist()
    item = item[order] - chunk * cols
    return list(zip(row[order].split(sizes), item.split(sizes), strict=True))


def _topk(score: Tensor, k: int, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the ``k`` highest of each row that are above ``floor`` ``[N, 1]``, in any order.

    The ``k`` blocks of the highest maxima contain the ``k`` highest scores, so only those blocks
    are searched, and no more of them than there are with a maximum above the floor. What comes
    with them from below the floor does no harm.
    """
    blocks = score.view(score.size(0), -1, BLOCK)
    num_blocks = blocks.size(1)
    if num_blocks < 4 * k:
        value, index = score.topk(min(k, score.size(1)), dim=1, sorted=False)
        return value, index
    highest = blocks.amax(dim=2)
    above = (highest <= floor).logical_not_().sum(dim=1).max()  # NaN is above, as in torch.topk
    block = highest.topk(min(k, int(above)), dim=1, sorted=False).indices
    row = torch.arange(score.size(0), device=score.device).unsqueeze(1)
    found = score.view(-1, BLOCK)[(row * num_blocks + block).view(-1)].view(score.size(0), -1)
    value, place = found.topk(min(k, found.size(1)), dim=1, sorted=False)
    return value, block.gather(1, place // BLOCK) * BLOCK + place % BLOCK
