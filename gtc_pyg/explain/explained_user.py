from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.explain.directions import FilterDirections, Response, filter_directions
from gtc_pyg.graph import CSRGraph
from gtc_pyg.models import FilteredContent
from gtc_pyg.models.components import Components
from gtc_pyg.models.heads import Heads


class ScoreParts(NamedTuple):
    r"""What the score of a user and an item is made of.

    The same score in three ways, each of which adds up to it, all at once and source by source:

    .. math::
        y_{ui} = \sum_k \text{by\_source}_k + b_i
        = \sum_k \Big( \text{own}_k + \sum_j \text{past}_{jk} \Big) + b_i
        = \sum_k \Big( \text{itself}_k + \sum_r \text{similar}_{rk} \Big) + b_i,

    How a source is defined is said at :class:`Explainer`.
    """

    score: Tensor
    """:math:`y_{ui}`, the inner product of the model's embeddings."""
    sources: tuple[str, ...]
    """``'interactions'`` and the modalities, :math:`S` of them."""
    by_source: Tensor
    """``[S]``."""
    bias: Tensor
    """The item's, 0 where there is none."""
    own: Tensor
    """Of the user's own ID embedding ``[S]``."""
    past_items: Tensor
    """The user's items, those that speak most for the item first ``[N]``."""
    past: Tensor
    """What they add ``[N, S]``."""
    itself: Tensor
    """Of the item's own embedding, over the item graph and back too ``[S]``."""
    similar_items: Tensor
    """Its neighbours in the item graph, near and far, those that add most first ``[R]``."""
    similar: Tensor
    """What it gets through them ``[R, S]``."""

    def share(self, name: str) -> float:
        r"""A source's part of the score without the bias, negative where it speaks against.

        Where that score is 0, so is every share.

        Args:
            name: One of ``sources``.
        """
        if name not in self.sources:
            raise ValueError(f"'name' must be one of {list(self.sources)} (got {name!r})")
        part, whole = float(self.by_source[self.sources.index(name)]), float(self.by_source.sum())
        return part / whole if whole != 0 else 0.0


class ExplainedUser:
    r"""A user whose scores are to be explained; made by :meth:`Explainer.user`."""

    @torch.no_grad()
    def __init__(
        self,
        components: Components,
        heads: Heads,
        num_item_layers: int,
        graph: CSRGraph,
        ego: Tensor,
        response: Callable[[str], Response],
    ) -> None:
        self.components, self._response = components, response
        self._heads = [head for head in heads if not head.in_loss]
        self._biases = heads.in_loss
        self._num_item_layers = num_item_layers
        self.items = graph.user_items
        """Their items, ascending ``[N]``."""
        own, past, filtered = components.of_user(graph, ego)
        self.filtered: Mapping[str, FilteredContent] = filtered
        """Content of the items, filtered for this user, by modality."""
        columns = [head.past(graph, self.items) for head in self._heads]
        self._past = _beside(past, columns)
        self._own = F.pad(own, (0, self._past.size(-1) - own.size(-1)))

    @torch.no_grad()
    def score_parts(self, item: int | Tensor) -> ScoreParts:
        r"""What the user's score of an item is made of.

        Args:
            item: Row of an item of the model; or the embedding of another one ``[K]``, which is
                not known to be made of sources: then the user's side decides alone what belongs to
                which, and the item has no neighbours.

        Raises:
            ValueError: For an item that does not exist, or an embedding of another width.
        """
        everything = self._own + self._past.sum(dim=0)
        bias = everything.new_zeros(())
        if isinstance(item, Tensor):
            width = everything.size(1) + len(self._biases)
            if item.shape != (width,):
                raise ValueError(f"'item' must be a row or [{width}] (got {list(item.shape)})")
            bias = item[-1] if self._biases else bias
            emb = item[: everything.size(1)]
            own, past, itself = (x @ emb for x in (self._own, self._past, everything))
            rows, similar = self.items[:0], itself.new_zeros(0, itself.numel())
        else:
            check_row("item", item, self.components.graph.num_items)
            for head in self._biases:
                columns = head.items(self.components.graph, self._num_item_layers)
                bias = columns[item, 0].detach()
            alone, rows, near = self._of_item(item)
            whole = alone + near.sum(dim=0)
            own, past = _halves(self._own, whole), _halves(self._past, whole)
            itself, similar = _halves(alone, everything), _halves(near, everything)
        by_source = own + past.sum(dim=0)
        first, nearest = _descending(past), _descending(similar)
        return ScoreParts(
            score=by_source.sum() + bias,
            sources=self.components.sources,
            by_source=by_source,
            bias=bias,
            own=own,
            past_items=self.items[first],
            past=past[first],
            itself=itself,
            similar_items=rows[nearest],
            similar=similar[nearest],
        )

    def _of_item(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        """An item's own part ``[S, K]``, similar items ``[R]``, what they give ``[R, S, K]``."""
        graph = self.components.graph
        parts = [head.item_parts(graph, self._num_item_layers, item) for head in self._heads]
        itself, own_rows, own_near = self.components.of_item(item)
        alone = _beside(itself, [x for x, _, _ in parts])
        rows, place = torch.cat([own_rows, *(r for _, r, _ in parts)]).unique(return_inverse=True)
        places = place.split([own_rows.numel(), *(r.numel() for _, r, _ in parts)])
        near = own_near.new_zeros(rows.numel(), *alone.shape)
        start = own_near.size(-1)
        near[..., :start].index_add_(0, places[0], own_near)
        for (_, _, x), at in zip(parts, places[1:], strict=True):
            near[:, 0, start : start + x.size(-1)].index_add_(0, at, x)
            start += x.size(-1)
        other = rows != item  # over its neighbours an item reaches itself: that is its own
        return alone + near[~other].sum(dim=0), rows[other], near[other]

    def directions(self, name: str, k: int = 5) -> FilterDirections:
        r"""What of a modality's content the user's filter keeps and drops.

        Args:
            name: The modality.
            k: How many directions at most, of each kind.

        Raises:
            ValueError: For a modality that the model does not filter.
        """
        known = self._response(name)
        return filter_directions(known, self.filtered[name], k)


def _halves(part: Tensor, other: Tensor) -> Tensor:
    """Half of what each source of a part does, and half of what is done with it ``[..., S]``."""
    return 0.5 * ((part * other.sum(dim=0)).sum(dim=-1) + part.sum(dim=-2) @ other.t())


def _descending(parts: Tensor) -> Tensor:
    return parts.sum(dim=-1).argsort(descending=True, stable=True)


def _beside(x: Tensor, columns: Sequence[Tensor]) -> Tensor:
    """``[..., S, D]``, and beside it columns ``[..., C]`` of heads in the first source."""
    start, width = x.size(-1), sum(c.size(-1) for c in columns)
    out = F.pad(x, (0, width))
    if columns:
        out[..., 0, start:] = torch.cat(list(columns), dim=-1)
    return out


def check_row(name: str, value: int, num: int) -> None:
    r"""Refuses what is no row of ``num``, naming the argument."""
    if not 0 <= value < num:
        raise ValueError(f"'{name}' must be a row, 0 to {num - 1} (got {value})")
