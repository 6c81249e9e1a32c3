from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.evaluation import GroupedEdges
from gtc_pyg.functional import inner_product_topk, whole_number

MARGIN = 16  # candidates more, as single precision may get the last ones wrong
ROWS = 256  # scored again at a time
TIE = 1e-9


@dataclass(frozen=True)
class Candidates:
    r"""Which items may be in a list."""

    only: Tensor | None = None
    """The rows to choose from, ascending; all where ``None``."""
    never: Tensor | None = None
    """Rows that are in no list."""
    of_user: GroupedEdges | None = None
    """Rows that are not in the list of a user."""

    def links(self, users: Tensor) -> Tensor:
        r"""Pairs of a position in ``users`` and an item that is left out ``[2, E]``."""
        links = [torch.empty(2, 0, dtype=torch.long)]
        if self.never is not None:
            position = torch.arange(users.numel()).repeat_interleave(self.never.numel())
            links.append(torch.stack([position, self.never.repeat(users.numel())]))
        if self.of_user is not None:
            links.append(torch.stack(self.of_user(users)))
        return torch.cat(links, dim=1)

    def describe(self) -> list[Any]:
        r"""What tells these from others: tensors and constants."""
        pairs = None if self.of_user is None else [self.of_user.item, self.of_user.degree]
        return [self.only, self.never, *(pairs or [])]


def best_items(
    user_emb: Tensor, item_emb: Tensor, k: int, chosen: Candidates, exclude_links: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The ``k`` best candidates of each user, in an order that no rounding decides.

    A few more than ``k`` are found in single precision and scored again in double precision; where
    all of those are equal to the last one of the list, everything is. Of scores that are equal to
    ten decimals the lower row is first.

    Args:
        user_emb: ``[N, K]``.
        item_emb: ``[I, K]``.
        k: Length of the lists.
        chosen: Its ``only`` is applied, the rest is to be in ``exclude_links``.
        exclude_links: Pairs of a row of ``user_emb`` and an item ``[2, E]``.

    Returns:
        Scores (double) and items ``[N, min(k, number of candidates)]``; ``-inf`` and ``-1`` where a
        user has fewer.

    Raises:
        ValueError: If ``k`` is less than 1.
    """
    k = whole_number(1, k=k)
    emb, links = item_emb, exclude_links
    if chosen.only is not None:
        emb = item_emb[chosen.only]
        position = torch.full((item_emb.size(0),), -1)
        position[chosen.only] = torch.arange(chosen.only.numel())
        links = torch.stack([links[0], position[links[1]]])
        links = links[:, links[1] >= 0]
    found = inner_product_topk(user_emb, emb, k + MARGIN, links)[1]
    found = found.masked_fill(found < 0, emb.size(0)).sort(dim=1).values  # none: at the end
    items = found.clamp(max=emb.size(0) - 1)
    exact = [
        torch.einsum("nk,nik->ni", u.double(), emb[i].double())
        for u, i in zip(user_emb.split(ROWS), items.split(ROWS), strict=True)
    ]
    scores = torch.cat(exact) if exact else items.double()
    scores = scores.masked_fill(found == emb.size(0), float("-inf"))
    scores, items = (x[:, : k + MARGIN].clone() for x in _in_order(scores, items))
    if k + MARGIN < emb.size(0):
        last = scores[:, -1].isfinite() & ((scores[:, k - 1] - scores[:, -1]).abs() < TIE)
        for row in last.nonzero().view(-1).tolist():
            every = emb.double() @ user_emb[row].double()
            every[links[1, links[0] == row]] = float("-inf")
            best = _in_order(every.view(1, -1), torch.arange(emb.size(0)).view(1, -1))
            scores[row], items[row] = (x[0, : k + MARGIN] for x in best)
    items, scores = items[:, :k], scores[:, :k]
    if chosen.only is not None:
        items = chosen.only[items]
    return scores, items.masked_fill(scores == float("-inf"), -1)


def _in_order(scores: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Best first, equal ones in the order that they came in."""
    order = scores.round(decimals=10).sort(dim=1, descending=True, stable=True).indices
    return scores.gather(1, order), items.gather(1, order)
