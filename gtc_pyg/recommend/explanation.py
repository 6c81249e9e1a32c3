from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.explain import ExplainedUser, plot_user
from gtc_pyg.recommend.ids import Ids
from gtc_pyg.recommend.trained import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    ``'popularity'``; sums to the score. Half of what two sources do together belongs to each, so an
    item without content of a modality has a part of it, too, by what the user has of it."""
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
    through, as a share of all that the mean user's filter lets through of the modality: values are
    small, a hundredth is much) and the items at both ends of that direction of the content,
    ``high`` and ``low``. None of a modality whose content is the same for every item."""

    def to_dict(self) -> dict[str, Any]:
        r"""The same of plain lists and numbers, for JSON."""
        out: dict[str, Any] = {"item": _plain(self.item), "score": self.score}
        out |= {"sources": {str(name): float(value) for name, value in self.sources.items()}}
        for name in ("past_items", "similar_items", "directions"):
            table: pd.DataFrame = getattr(self, name)
            out[name] = json.loads(table.to_json(orient="records", force_ascii=False))
        return out | {"own": self.own, "itself": self.itself}

    def __str__(self) -> str:
        lines = [f"{_quoted(self.item)} scores {self.score:.4g}"]
        lines += [f"  {name:<14}{value:+.4g}" for name, value in self.sources.items()]
        for title, table in (
            ("past items", self.past_items),
            ("similar items", self.similar_items),
        ):
            shown = ", ".join(
                f"{_quoted(item)} {value:+.3g}"
                for item, value in zip(table["item"][:5], table["value"][:5], strict=True)
            )
            lines.append(f"  {title}: {shown or 'none'}")
        return "\n".join(lines)


def explain(recommender: Trained, user: Any, item: Any, interactions: Any, k: int) -> Explanation:
    r"""The parts of a score with the user's own ids; see :meth:`Recommender.explain`."""
    who = _explained(recommender, user, interactions)
    row = recommender.items.row(item)
    parts = who.score_parts(_explainable(recommender, row)[0])
    sources = dict(zip(parts.sources, parts.by_source.tolist(), strict=True))
    if float(parts.bias) != 0:
        sources[POPULARITY] = float(parts.bias)

    def valued(rows: Tensor, values: Tensor) -> pd.DataFrame:
        table = recommender.describe(recommender.items[rows])
        table.insert(1, "value", values.sum(dim=-1).numpy())
        return table

    return Explanation(
        item=recommender.items[row].tolist()[0],
        score=float(parts.score),
        sources=pd.Series(sources, dtype=float),
        past_items=valued(parts.past_items, parts.past),
        similar_items=valued(parts.similar_items, parts.similar),
        own=float(parts.own.sum()),
        itself=float(parts.itself.sum()),
        directions=directions_of(who, recommender.inputs.features, recommender.items, k),
    )


def plot(
    recommender: Trained, lists: pd.DataFrame, user: Any, interactions: Any, label: str | None
) -> Figure:
    r"""A user's best items and where they come from; see :meth:`Recommender.plot_user`."""
    table, column = recommender.describe(), "item" if label is None else label
    if column not in table:
        raise ValueError(f"'label' must be one of {list(table.columns)} (got {label!r})")
    shown = table[column].astype(object)
    names = shown.where(shown.notna(), table["item"]).astype(str).tolist()
    rows = recommender.items.rows(lists["item"])
    return plot_user(
        _explained(recommender, user, interactions),
        _explainable(recommender, rows),
        names.__getitem__,
        [names[row] for row in rows.tolist()],
        title="" if user is None else f"Why these items: {user}",
        silent=recommender.inputs.silent(),
    )


def _explained(recommender: Trained, user: Any, interactions: Any) -> ExplainedUser:
    if (user is None) == (interactions is None):
        raise ValueError("either 'user' or 'interactions' must be given")
    explainer, num_users = recommender.explainer, recommender.model.num_users
    if interactions is None:
        row = int(recommender.users.row(user))
        if row < num_users:
            return explainer.user(row)
        items = recommender.seen_rows(row)
    else:
        items = recommender.items.rows(interactions).unique()
    explainer.user_embedder = recommender.user_embedder  # the one that embeds their lists
    return explainer.user(items[items < recommender.model.num_items])


def _explainable(recommender: Trained, rows: Tensor) -> list[int | Tensor]:
    """Items whose embedding the model made, by row, and the embeddings of others."""
    num_items, cold = recommender.model.num_items, recommender.cold_rows
    return [
        r if r < num_items and r not in cold else recommender.item_emb[r] for r in rows.tolist()
    ]


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
        x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0).clamp(min=1e-12)
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


def _quoted(value: Any) -> str:
    value = _plain(value)
    return f"'{value}'" if isinstance(value, str) and value.isprintable() else repr(value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
