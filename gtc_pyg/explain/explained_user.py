from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.explain.components import Components
from gtc_pyg.explain.directions import FilterDirections, Response, filter_directions
from gtc_pyg.functional import normalize_rows
from gtc_pyg.models import GTC
from gtc_pyg.models.csr_graph import ITEM_TO_USER, CSRGraph
from gtc_pyg.models.filtered import Filtered, gated
from gtc_pyg.models.graph_recommender import GraphRecommender


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
        model: GraphRecommender,
        components: Components,
        graph: CSRGraph,
        start: Tensor,
        response: Callable[[str], Response],
    ) -> None:
        self.components = c = components
        self._response = response
        self.items = graph[ITEM_TO_USER].col_indices()
        """Their items, ascending ``[N]``."""
        self.filtered: dict[str, Filtered] = {}
        """Content of the items, filtered for this user, by modality."""
        num = max(1, self.items.numel())
        own, past = c.told.new_zeros(c.told.shape[1:]), c.told[self.items] / num**0.5
        own[0] = c.start * start
        low_pass, factors = None, []
        if isinstance(model, GTC):
            item_emb = normalize_rows(model.item_emb.weight)
            self.filtered = model.filter.of_new_users(
                c.filtered, graph, item_emb, start.view(1, -1)
            )
            for k, f in enumerate(self.filtered.values(), start=1):
                x = gated(f.base[self.items], f.h[self.items], f.gate, f.to_content) / num
                length = x.sum(dim=0).norm()
                weight = model.content_strength * f.weight * (length > 1e-12) / length.clamp(1e-12)
                if model.filter_in != "score":
                    past[:, k] += weight * x
                if model.filter_in != "messages":
                    factors.append(f.user_factors(weight * x))
            if c.low_pass is not None:
                weight = c.low_pass.weight_of(torch.tensor(num))
                low_pass = weight * c.low_pass.told[self.items]
        nothing = None if low_pass is None else low_pass.new_zeros(low_pass.size(1))
        self._own = c.scale * _beside(own, nothing, [x.new_zeros(x.size(1)) for x in factors])
        self._past = c.scale * _beside(past, low_pass, factors)
        self._in_score = bool(factors)

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
        c = self.components
        everything = self._own + self._past.sum(dim=0)
        rows, bias = self.items[:0], everything.new_zeros(())
        if isinstance(item, Tensor):
            width = everything.size(1) + (c.bias is not None)
            if item.shape != (width,):
                raise ValueError(f"'item' must be a row or [{width}] (got {list(item.shape)})")
            bias = bias if c.bias is None else item[-1]
            emb = item[: everything.size(1)]
            own, past, itself = (x @ emb for x in (self._own, self._past, everything))
            similar = itself.new_zeros(0, itself.numel())
        else:
            check_row("item", item, c.told.size(0))
            bias = bias if c.bias is None else c.bias[item].detach()
            rows, weight = c.neighbors(item)
            factors = [torch.cat([f.base[item], f.h[item]]) for f in self.filtered.values()]
            of_item = of_near = None
            if c.low_pass is not None and c.low_pass_item is not None:
                scale = c.low_pass.item_scale[item]
                of_item = scale * c.low_pass_item[item]
                of_near = scale * c.low_pass_item[rows] * weight.view(-1, 1)
            alone = _beside(c.itself[item], of_item, factors if self._in_score else [])
            near = _beside(c.spread[rows] * weight.view(-1, 1, 1), of_near, [], alone.size(1))
            other = rows != item  # over its neighbours an item reaches itself: that is its own
            alone = alone + near[~other].sum(dim=0)
            rows, near = rows[other], near[other]
            whole = alone + near.sum(dim=0)
            own, past = _halves(self._own, whole), _halves(self._past, whole)
            itself, similar = _halves(alone, everything), _halves(near, everything)
        by_source = own + past.sum(dim=0)
        first, nearest = _descending(past), _descending(similar)
        return ScoreParts(
            score=by_source.sum() + bias,
            sources=c.sources,
            by_source=by_source,
            bias=bias,
            own=own,
            past_items=self.items[first],
            past=past[first],
            itself=itself,
            similar_items=rows[nearest],
            similar=similar[nearest],
        )

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


def _beside(
    x: Tensor, low_pass: Tensor | None, factors: Sequence[Tensor], width: int = 0
) -> Tensor:
    """``[..., S, D]`` and beside it ``[..., W]``: low-pass columns in the first source,
    and what modalities have, each in its own."""
    columns = [*enumerate(factors, start=1)]
    if low_pass is not None:
        columns.insert(0, (0, low_pass))
    start = x.size(-1)
    width = max(width, start + sum(f.size(-1) for _, f in columns))
    out = F.pad(x, (0, width - start))
    for k, f in columns:
        out[..., k, start : start + f.size(-1)] = f
        start += f.size(-1)
    return out


def check_row(name: str, value: int, num: int) -> None:
    r"""Refuses what is no row of ``num``, naming the argument."""
    if not 0 <= value < num:
        raise ValueError(f"'{name}' must be a row, 0 to {num - 1} (got {value})")
