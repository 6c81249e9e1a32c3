from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gtc_pyg.explain.explained_user import ExplainedUser

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL_LENGTH = 28
LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}


def plot_user(
    user: ExplainedUser,
    items: Sequence[int | Tensor],
    label: Callable[[int], str] = str,
    names: Sequence[str] | None = None,
    title: str = "",
    num_past: int = 10,
    silent: Collection[str] = (),
) -> Figure:
    r"""Draws why some items are a user's: their history, the items' parts, the sources' shares.

    Left the past items that speak most for the items, on average over these, and the user's own
    ID embedding; in the middle each item's score as a sum of its sources; right each source's share
    of all these scores without the items' bias, and how much the user listens to each modality
    beside the mean user.

    Args:
        user: What :meth:`Explainer.user` gives.
        items: As in :meth:`ExplainedUser.score_parts`, best first.
        label: Names an item of the model by its row.
        names: Of ``items``; needed where some are no rows.
        title: Of the figure.
        num_past: How many past items are drawn, at most.
        silent: Modalities whose content is the same for every item, to say so.

    Returns:
        A figure of matplotlib's that belongs to no window; ``savefig`` writes it.

    Raises:
        ValueError: Without items, or where ``names`` are not as many.
    """
    from matplotlib.figure import Figure

    if len(items) == 0:
        raise ValueError("'items' must hold at least one (got none)")
    if names is None:
        if any(isinstance(item, Tensor) for item in items):
            raise ValueError("'names' must be given where 'items' are not all rows (got None)")
        names = [label(int(item)) for item in items]
    if len(names) != len(items):
        raise ValueError(f"'names' must be {len(items)}, as many as 'items' (got {len(names)})")
    found = [user.score_parts(item) for item in items]
    sources = found[0].sources
    own = torch.stack([p.own for p in found]).mean(dim=0, keepdim=True).cpu()
    past = torch.stack([p.past[p.past_items.argsort()] for p in found]).mean(dim=0).cpu()
    first = past.sum(dim=1).argsort(descending=True, stable=True)[:num_past]
    history = [label(int(item)) for item in user.items.cpu()[first]]

    height = 1.6 + 0.3 * max(len(items), len(first) + 1, 4)
    figure = Figure(figsize=(12, height), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1.15, 0.7])
    _stacked(left, torch.cat([past[first], own]), [*history, "(own ID)"], sources)
    left.set(title=f"History: {len(first)} of {len(past)} items", xlabel="mean part of the scores")

    values = torch.stack([torch.cat([p.by_source, p.bias.view(1)]) for p in found]).cpu()
    biased = bool((values[:, -1] != 0).any())
    shown = values if biased else values[:, :-1]
    named = [*sources, "item's bias"] if biased else list(sources)
    bars = _stacked(middle, shown, list(names), named)
    marks = middle.plot([float(p.score) for p in found], range(len(found)), "k|")
    middle.set(title="Items", xlabel="parts of the score")
    handles = [*marks, *bars]
    num = len(handles)
    # Matplotlib reads a label before it can be told that it is literal.
    legend = figure.legend(handles, "?" * num, loc="outside lower center", ncols=num, frameon=False)
    for text, name in zip(legend.get_texts(), ["score", *named], strict=True):
        text.set(text=name, **LITERAL)

    total = values[:, :-1].sum(dim=0)
    share = total / total.sum() if total.sum() != 0 else total
    right.barh(range(len(sources)), share.numpy(), color=[f"C{k}" for k in range(len(sources))])
    ticks = list(sources)
    for k, name in enumerate(sources):
        if name in user.filtered:
            usual = float(user.components.filtered[name].weight.mean())
            weight = float(user.filtered[name].weight[0]) / usual if usual > 0 else 1.0
            said = "says nothing" if name in silent else f"weight {weight:.2f} ×"
            ticks[k] = f"{name}\n{said}"
    right.set_yticks(range(len(ticks)), ticks, **LITERAL)
    right.bar_label(right.containers[0], [f"{float(x):.0%}" for x in share], padding=3)
    right.invert_yaxis()
    right.margins(x=0.2)
    right.axvline(0, color="black", linewidth=0.8)
    right.set(title="Shares", xlabel="of these scores")
    if title:
        figure.suptitle(title, **LITERAL)
    return figure


def _stacked(axis: Any, values: Tensor, names: Sequence[str], sources: Sequence[str]) -> list[Any]:
    """A bar for each row: what speaks for it to the right of zero, what against it to the left.

    Gives the bars of each source.
    """
    bars = []
    ends = {True: np.zeros(len(values)), False: np.zeros(len(values))}
    for k, column in enumerate(values.t().numpy()):
        color = f"C{k}" if k < len(sources) - 1 or sources[k] != "item's bias" else "0.7"
        for positive in (True, False):
            part = column.clip(min=0) if positive else column.clip(max=0)
            left = ends[positive].tolist()
            drawn = axis.barh(range(len(values)), part.tolist(), left=left, color=color)
            ends[positive] += part
            if positive:
                bars.append(drawn)
    short = [n if len(n) <= LABEL_LENGTH else f"{n[: LABEL_LENGTH - 1]}…" for n in names]
    axis.set_yticks(range(len(values)), short, **LITERAL)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    return bars
