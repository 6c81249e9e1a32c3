"""Statistics over seeds and over users."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, str]]
LEVEL, POWER, RESAMPLES = 0.01, 0.8, 9999
BOOTSTRAP: dict[str, Any] = {"n_resamples": RESAMPLES, "batch": 99, "method": "percentile"}


def pick(rows: Iterable[Any], **wanted: object) -> list[Any]:
    """The rows that have all the wanted entries."""
    return [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]


def column(rows: Iterable[Mapping[str, str]], name: str) -> list[float]:
    """The numbers of a column."""
    return [float(row[name]) for row in rows]


def mean(rows: Iterable[Mapping[str, str]], name: str) -> float:
    """The mean of a column."""
    return statistics.fmean(column(rows, name))


def by_seed(rows: Iterable[Any], **wanted: object) -> dict[int, Any]:
    """Seed to row, of the rows that have all the wanted entries.

    Raises:
        ValueError: Where a seed stands twice.
    """
    seeds: dict[int, Any] = {}
    for row in pick(rows, **wanted):
        if int(row["seed"]) in seeds:
            raise ValueError(f"seed {row['seed']} stands twice for {wanted}")
        seeds[int(row["seed"])] = row
    return seeds


def spread(values: Sequence[float | None], digits: int = 4) -> str:
    """Mean and sample standard deviation; how many values are missing where some are."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"not reached ({len(values) - len(known)} of {len(values)})"
    if not known:
        return ""
    text = f"{statistics.fmean(known):.{digits}f}"
    return text if len(known) < 2 else f"{text} ± {statistics.stdev(known):.{digits}f}"


def paired(
    ours: Mapping[int, Mapping[str, str]], theirs: Mapping[int, Mapping[str, str]], name: str
) -> tuple[float, float, float] | None:
    """Of a column over the seeds that both have: difference of means, p, spread of theirs.

    p is that of a paired two-sided t-test; nothing with fewer than two seeds.
    """
    shared = sorted(set(ours) & set(theirs))
    if len(shared) < 2:
        return None
    from scipy.stats import ttest_rel

    pair = [[float(of[seed][name]) for seed in shared] for of in (ours, theirs)]
    p = float(ttest_rel(*pair).pvalue) if pair[0] != pair[1] else 1.0
    return statistics.fmean(pair[0]) - statistics.fmean(pair[1]), p, statistics.stdev(pair[1])


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest of m times ``m - i + 1``, never decreasing."""
    order, adjusted, largest = np.argsort(p), [0.0] * len(p), 0.0
    for i, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - i) * p[index]))
        adjusted[index] = largest
    return adjusted


def detectable(difference: Floats) -> float:
    """The smallest mean that a paired two-sided test finds at LEVEL with probability POWER."""
    normal = statistics.NormalDist()
    quantiles = normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
    return float(quantiles * difference.std(ddof=1) / np.sqrt(difference.size))


def compare(gtc: Floats, baseline: Floats) -> dict[str, float]:
    """Of two values for each user: means, difference, interval, p and detectable gain.

    Where no user has a difference, p is 1 and the interval is [0, 0].
    """
    from scipy import stats

    difference = np.round(gtc - baseline, 10)  # equal means of seeds differ by rounding
    low = high = 0.0
    p = 1.0
    if difference.any():
        found = stats.bootstrap((difference,), np.mean, rng=0, **BOOTSTRAP).confidence_interval
        low, high = float(found.low), float(found.high)
        p = float(stats.wilcoxon(difference).pvalue)
    return {
        "gtc": float(gtc.mean()),
        "baseline_value": float(baseline.mean()),
        "difference": float(difference.mean()),
        "gain": float(difference.mean() / baseline.mean()) if baseline.any() else float("nan"),
        "low": low,
        "high": high,
        "p": p,
        "detectable": detectable(difference),
    }
