from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.explain import ExplainedUser, ScoreParts
from gtc_pyg.recommend.ids import Ids

POPULARITY = "popularity"


@dataclass(frozen=True)
class Explanation:
    r"""Why an item is where it is in a user's list; every table's values add up to the score.

    How a score is taken apart is said at :class:`gtc_pyg.explain.Explainer`.
    """

    item: Any
    """Its id."""
    score: float
    """What :meth:`~gtc_pyg.recommend.Recommender.recommend` gives."""
    sources: pd.Series
    """The part of ``'interactions'``, of each modality and, where items have a bias, of
    ``'popularity'``; sums to the score."""
    past_items: pd.DataFrame
    """The user's own items, those that speak most for the item first: ``item``, ``value`` and what
    there is to show."""
    similar_items: pd.DataFrame
    """The same of the items that are similar to it, of what it gets through them."""
    own: float
    """What the user's own ID embedding adds: the score is this, the past items and popularity."""
    itself: float
    """What is the item's own: the score is this, the similar items and popularity."""
    directions: pd.DataFrame
    """What of the content the user's filter keeps and drops, beside the mean user's: ``modality``,
    ``kind`` (``'kept'`` or ``'dropped'``), ``by`` (how much more or less of the variance it lets
    through) and the items at both ends of that direction of the content, ``high`` and ``low``."""

    def to_dict(self) -> dict[str, Any]:
        r"""The same of plain lists and numbers, for JSON."""
        out: dict[str, Any] = {"item": _plain(self.item), "score": self.score}
        out |= {"sources": {str(name): float(value) for name, value in self.sources.items()}}
        for name in ("past_items", "similar_items", "directions"):
            table: pd.DataFrame = getattr(self, name)
            out[name] = json.loads(table.to_json(orient="records", force_ascii=False))
        return out | {"own": self.own, "itself": self.itself}

    def __str__(self) -> str:
        lines = [f"{_plain(self.item)!r} scores {self.score:.4g}"]
        lines += [f"  {name:<14}{value:+.4g}" for name, value in self.sources.items()]
        for title, table in (
            ("past items", self.past_items),
            ("similar items", self.similar_items),
        ):
            shown = ", ".join(
                f"{_plain(item)!r} {value:+.3g}"
                for item, value in zip(table["item"][:5], table["value"][:5], strict=True)
            )
            lines.append(f"  {title}: {shown or 'none'}")
        return "\n".join(lines)


def explanation(
    item: Any,
    parts: ScoreParts,
    describe: Callable[[Tensor], pd.DataFrame],
    directions: pd.DataFrame,
) -> Explanation:
    r"""The parts of a score with the user's own ids.

    Args:
        item: The item's id.
        parts: What :meth:`gtc_pyg.explain.ExplainedUser.score_parts` gives.
        describe: The table of some rows of items.
        directions: As :func:`directions_of` gives them.
    """
    sources = dict(zip(parts.sources, parts.by_source.tolist(), strict=True))
    if float(parts.bias) != 0:
        sources[POPULARITY] = float(parts.bias)

    def valued(rows: Tensor, values: Tensor) -> pd.DataFrame:
        table = describe(rows)
        table.insert(1, "value", values.sum(dim=-1).numpy())
        return table

    return Explanation(
        item=item,
        score=float(parts.score),
        sources=pd.Series(sources, dtype=float),
        past_items=valued(parts.past_items, parts.past),
        similar_items=valued(parts.similar_items, parts.similar),
        own=float(parts.own.sum()),
        itself=float(parts.itself.sum()),
        directions=directions,
    )


def directions_of(
    user: ExplainedUser,
    features: dict[str, Tensor],
    ids: Ids,
    k: int,
    num_items: int = 3,
) -> pd.DataFrame:
    r"""What of the content a user's filter keeps and drops, shown by items at both ends.

    Args:
        user: Of :class:`gtc_pyg.explain.Explainer`.
        features: Content of each modality ``[I, F_m]``.
        ids: The items' ids.
        k: How many directions of each kind; nothing is computed for 0.
        num_items: How many items at each end.
    """
    rows = []
    for name in user.filtered if k > 0 else ():
        found = user.directions(name, k)
        has = features.get(f"has_{name}", torch.ones(len(features[name]), dtype=torch.bool))
        present = has.nonzero().view(-1)
        x = features[name][present]
        x = (x - x.mean(dim=0)) / x.std(dim=0).clamp(min=1e-12)
        for kind, vectors, by in (
            ("kept", found.kept, found.kept_by),
            ("dropped", found.dropped, found.dropped_by),
        ):
            for vector, value in zip(vectors, by.tolist(), strict=True):
                order = present[(x @ vector).argsort(descending=True, stable=True)]
                ends = (ids[order[:num_items]], ids[order.flip(0)[:num_items]])
                high, low = ([_plain(item) for item in end] for end in ends)
                rows.append((name, kind, value, high, low))
    return pd.DataFrame(rows, columns=["modality", "kind", "by", "high", "low"])


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
