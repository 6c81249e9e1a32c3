"""Tables of docs/time_to_quality.md; ``time_to_quality.py --report`` writes them."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from gtc_pyg.experiment import NAMES
from harness import by_seed, column, markdown, pick, spread
from harness.stats import Rows

PLOT = "time_to_quality.png"
TITLES = {"tiktok": "TikTok", "lfm2k": "LFM2k", "baby": "Baby", "planted": "planted data"}
MODELS = ["lightgcn", "freedom", "gtc"]
CONDITIONS = ["dataset", "epochs", "threads", "machine", "malloc"]
KEY = [*CONDITIONS, "model", "seed"]
METRICS = ["val_recall@20", "val_ndcg@20", "test_recall@20", "test_ndcg@20"]
LISTS = ["train_s", "evaluation_s", "val_recall@20_by_epoch"]
TARGET = 1.5
SHARES = (1.0, 0.99, 0.95)


@dataclass(frozen=True)
class Run:
    """One run: of each epoch the seconds, those of its evaluation, and validation Recall@20.

    Number 0 is before training: the seconds in which a model starts from the interactions, and what
    it is worth then.
    """

    seconds: list[float]
    evaluation: list[float]
    recall: list[float]
    row: Mapping[str, str]

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "Run":
        lists = [[float(x) for x in row[key].split()] for key in LISTS]
        if len({len(x) for x in lists}) != 1 or len(lists[0]) < 2 or "start_s" in row:
            raise ValueError(
                f"the lists of {[row[key] for key in KEY]} must be as long as each other and begin "
                f"before the first epoch, which older rows do not: run them again"
            )
        return cls(*lists, row)

    @property
    def best(self) -> float:
        """The highest validation Recall@20, be it before training."""
        return max(self.recall)

    @property
    def epoch_s(self) -> float:
        """The median epoch's seconds."""
        return statistics.median(self.seconds[1:])

    def clock(self, account: str) -> list[float]:
        """Seconds before training and at the end of each epoch.

        Args:
            account: ``'measured'``, training seconds so far; ``'steady'``, the start and the median
                epoch times the number of epochs; ``'evaluated'``, as measured with evaluations.
        """
        if account == "measured":
            return list(accumulate(self.seconds))
        if account == "steady":
            return [self.seconds[0] + self.epoch_s * epoch for epoch in range(len(self.seconds))]
        if account == "evaluated":
            both = zip(self.seconds, self.evaluation, strict=True)
            return list(accumulate(train + evaluation for train, evaluation in both))
        raise ValueError(f"'account' must be measured, steady or evaluated (got {account!r})")


def first_epoch(recall: list[float], level: float) -> int | None:
    """The first epoch that is not below the level, 0 before training; ``None`` where all are."""
    return next((epoch for epoch, value in enumerate(recall) if value >= level), None)


Group = dict[str, dict[int, Run]]


def groups(rows: Rows) -> dict[tuple[str, ...], Group]:
    """Conditions to model to seed to run: the seeds that all models of the conditions have.

    Conditions without LightGCN, and without a seed that all share, are left out.

    Raises:
        ValueError: Where a run stands twice.
    """
    out: dict[tuple[str, ...], Group] = {}
    keys = {tuple(row[key] for key in CONDITIONS) for row in rows}
    for key in sorted(keys, key=lambda key: (list(TITLES).index(key[0]), key)):
        own = pick(rows, **dict(zip(CONDITIONS, key, strict=True)))
        found = {name: by_seed(own, model=name) for name in MODELS}
        runs = {
            name: {seed: Run.from_row(row) for seed, row in sorted(seeds.items())}
            for name, seeds in found.items()
            if seeds
        }
        shared = set.intersection(*map(set, runs.values()))
        if shared and "lightgcn" in runs:
            out[key] = {n: {s: seeds[s] for s in seeds if s in shared} for n, seeds in runs.items()}
    return out


def times(group: Group, model: str, share: float, account: str) -> list[float | None]:
    """Seconds of each seed until the share of LightGCN's best, that of the same seed."""
    levels = {seed: share * run.best for seed, run in group["lightgcn"].items()}
    runs = [(run, first_epoch(run.recall, levels[seed])) for seed, run in group[model].items()]
    return [None if epoch is None else run.clock(account)[epoch] for run, epoch in runs]


def ratios(group: Group, model: str, share: float, account: str) -> list[float | None]:
    """Seconds of each seed over LightGCN's of the same seed."""
    pairs = zip(
        times(group, model, share, account), times(group, "lightgcn", share, account), strict=True
    )
    return [None if mine is None else _over(mine, base) for mine, base in pairs]


def _over(mine: float, base: float) -> float:
    """Nobody has a share of no time at all but who needs none."""
    if base > 0:
        return mine / base
    return 1.0 if mine == 0 else float("inf")


def met(group: Group) -> bool:
    """Whether GTC needs at most 1.5 times LightGCN's seconds.

    The mean over seeds must say so, of the measured and of the steady seconds, and every seed must
    reach the level.
    """
    for account in ("measured", "steady"):
        found = ratios(group, "gtc", 1.0, account)
        reached = [ratio for ratio in found if ratio is not None]
        if len(reached) < len(found) or statistics.fmean(reached) > TARGET:
            return False
    return True


def target_table(rows: Rows) -> str:
    """Seconds of GTC over those of LightGCN, for each seed and on the whole."""
    head = ["", "by seed", "mean", "mean, steady", "mean, with evaluation", "at most 1.5"]
    body = []
    for key, group in groups(rows).items():
        if "gtc" in group:
            found = [ratios(group, "gtc", 1.0, of) for of in ("measured", "steady", "evaluated")]
            reached = "**met**" if met(group) else "**not met**"
            body.append([title(key), _each(found[0]), *(spread(x, 2) for x in found), reached])
    return markdown(head, body)


def time_table(rows: Rows) -> str:
    """Epochs and seconds of each model until LightGCN's best."""
    head = ["", "start, s", "epochs", "s / epoch", "seconds", "of LightGCN's", "seconds, steady"]
    tables = []
    for key, group in groups(rows).items():
        body = []
        for model, runs in group.items():
            best = {seed: run.best for seed, run in group["lightgcn"].items()}
            columns = [
                ([run.seconds[0] for run in runs.values()], 1),
                ([first_epoch(run.recall, best[seed]) for seed, run in runs.items()], 0),
                ([run.epoch_s for run in runs.values()], 3),
                (times(group, model, 1.0, "measured"), 1),
                (ratios(group, model, 1.0, "measured"), 2),
                (times(group, model, 1.0, "steady"), 1),
            ]
            body.append([NAMES[model], *(spread(values, digits) for values, digits in columns)])
        tables.append(f"**{title(key)}**: {_conditions(key, group)}\n\n{markdown(head, body)}")
    return "\n\n".join(tables) or markdown(head, [])


def share_table(rows: Rows) -> str:
    """Seconds until shares of LightGCN's best, as multiples of LightGCN's own, seed by seed."""
    others = [NAMES[model] for model in MODELS[1:]]
    head = ["", "of LightGCN's best", "LightGCN, seconds", *(f"{name}, times" for name in others)]
    body = []
    for key, group in groups(rows).items():
        for share in SHARES:
            cells = [title(key), f"{share:.0%}"]
            cells.append(_each(times(group, "lightgcn", share, "measured"), 1))
            for model in MODELS[1:]:
                known = model in group
                cells.append(_each(ratios(group, model, share, "measured")) if known else "")
            body.append(cells)
    return markdown(head, body)


def accuracy_table(rows: Rows) -> str:
    """Validation and test of the best epochs of these runs."""
    head = ["", "", "best epoch", "validation Recall@20", "NDCG@20", "test Recall@20", "NDCG@20"]
    columns = [("best_epoch", 0), *((metric, 4) for metric in METRICS)]
    body = [
        [title(key), NAMES[model]]
        + [spread(column((run.row for run in runs.values()), name), n) for name, n in columns]
        for key, group in groups(rows).items()
        for model, runs in group.items()
    ]
    return markdown(head, body)


def curves(rows: Rows) -> str:
    """The plot, where there is something to draw."""
    text = "Validation Recall@20 of each model against seconds of training, for each dataset"
    return f"![{text}](images/{PLOT})" if groups(rows) else "Nothing to draw yet."


PARTS = {
    "target": target_table,
    "curves": curves,
    "seconds": time_table,
    "shares": share_table,
    "accuracy": accuracy_table,
}


def texts(rows: Rows) -> dict[str, str]:
    return {name: make(rows) for name, make in PARTS.items()}


def _each(values: list[float | None], digits: int = 2) -> str:
    return ", ".join("not reached" if x is None else f"{x:.{digits}f}" for x in values)


def title(key: tuple[str, ...]) -> str:
    """Dataset, and what is unusual about the runs."""
    dataset, epochs, threads, _, malloc = key
    more = [f"{threads} thread{'' if threads == '1' else 's'}"]
    more += [f"at most {epochs} epochs"] if epochs != "example's" else []
    more += ["glibc's malloc set"] if malloc != "default" else []
    return f"{TITLES[dataset]}, {', '.join(more)}"


def _conditions(key: tuple[str, ...], group: Group) -> str:
    _, _, _, machine, malloc = key
    runs = [list(seeds.values()) for seeds in group.values()]
    processes = [{run.row["process"] for run in seed} for seed in zip(*runs, strict=True)]
    apart = sum(len(found) > 1 for found in processes)
    commits = sorted({run.row["commit"] for seeds in runs for run in seeds})
    one = "all models of a seed in one process"
    several = f"models of {apart} of {len(processes)} seeds in several processes"
    parts = [machine, *([] if malloc == "default" else [f"`{malloc}`"])]
    parts += [f"seeds {', '.join(map(str, group['lightgcn']))}", several if apart else one]
    return "; ".join([*parts, f"commit {', '.join(commits)}"])
