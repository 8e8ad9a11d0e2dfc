"""Statistics of paired right-and-wrong answers: intervals, tests, and what a run could have shown. Pure.

It knows numbers and clusters, and nothing of models, items or outcomes.

The Wilson interval and the exact McNemar test are written out here instead of being called from
scipy: each is a few operations of arithmetic, while importing `scipy.stats` takes longer than
everything else that a report does. The tests hold both against scipy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlocal.errors import UsageError

CONFIDENCE = 0.95
"""Level of every interval in the project."""
POWER = 0.80
SIGNIFICANCE = 0.05
NUM_RESAMPLES = 10_000
ASSUMED_DISCORDANCE = 0.2
"""Share of items that exactly one of two models gets right, where none has been observed."""

_CHUNK_ELEMENTS = 2_000_000
"""Numbers held at once while resampling: 16 MB of them."""
_FEW_KINDS = 64
_FEW_PER_CLUSTER = 0.1
"""Up to this many kinds of clusters, or this many per cluster, it is drawn how often each kind occurs:
a multinomial draw costs some ten times as much per kind as drawing one cluster does."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of n, with its 95 % Wilson interval."""

    value: float | None
    """From 0 to 1; None where n is 0, and so are the bounds."""
    low: float | None
    high: float | None
    n: int
    """Size of the denominator."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float | None
    """None where there was too little to compute one from, and so is `high`."""
    high: float | None


def wilson(hits: int, n: int) -> Rate:
    """The share hits / n with its Wilson score interval, without continuity correction.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    JASA 22 (1927) 209-212; it is method 3 of R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is no share")
    if n == 0:
        return Rate(None, None, None, 0)
    low, high = wilson_bounds(hits / n, n)
    return Rate(hits / n, low, high, n)


def clustered_wilson(hits: int, cluster_sizes: Sequence[int]) -> Rate:
    """The share of hits in answers that come in clusters, with an interval that allows for it.

    The Wilson interval of as many independent answers as the clusters are worth at worst, that is
    where the answers of a cluster are all alike: (sum of sizes)^2 / (sum of squared sizes). With one
    answer per cluster it is `wilson`; otherwise it is wider, never too narrow.

    Source: the effective sample size is L. Kish's, Survey Sampling (1965), 5.4, at an intraclass
    correlation of 1; that it goes into Wilson's interval is the proposal of N. Dean and M. Pagano,
    Journal of Survey Statistics and Methodology 3 (2015) 484-503.

    Args:
        hits: answers that are counted.
        cluster_sizes: number of answers per cluster, each 1 or more.
    """
    n = sum(cluster_sizes)
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is no share")
    if n == 0:
        return Rate(None, None, None, 0)
    share = hits / n
    low, high = wilson_bounds(share, n * n / sum(size * size for size in cluster_sizes))
    return Rate(share, low, high, n)


def wilson_bounds(share: float, n: float) -> tuple[float, float]:
    """Both bounds of the Wilson interval of a share, for an n above 0 that need not be whole."""
    z2 = _quantile(1 - (1 - CONFIDENCE) / 2) ** 2
    centre = share + z2 / (2 * n)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n)
    # At the ends one bound is exact; rounding would leave it some 1e-17 beside.
    low = 0.0 if share == 0 else (centre - half) / (1 + z2 / n)
    high = 1.0 if share == 1 else (centre + half) / (1 + z2 / n)
    return low, high


def mcnemar(b: int, c: int) -> float:
    """The exact two-sided p-value of McNemar's test on the discordant counts.

    Under the null hypothesis b is binomial with b + c trials and probability one half, which is
    symmetric: the two-sided p is twice the smaller tail, at most 1. Computed in whole numbers.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157, in the exact form of F. Mosteller,
    Biometrics 8 (1952) 220-226.

    Args:
        b: pairs of which only the first is right.
        c: pairs of which only the second is right.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts cannot be negative: {b}, {c}")
    n, tail, ways = b + c, 0, 1
    for k in range(min(b, c) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)  # from "n choose k" to "n choose k + 1"
    return min(1.0, 2 * tail / (1 << n))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for how many tests there are, in the order given.

    Step down: the smallest of m is multiplied by m, the next by m - 1, and so on; none falls below
    the one before it nor rises above 1.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6 (1979) 65-70.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"a p-value lies between 0 and 1: {list(p_values)}")
    num_tests, adjusted, highest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(num_tests), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (num_tests - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def bootstrap_mean_difference(
    differences: ArrayLike,
    clusters: Sequence[str],
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval of a mean, as of paired differences, clustered by source item.

    A resample's mean is the sum of its differences over their number, which varies with the size of
    the clusters drawn.

    Args:
        differences: one number per pair.
        clusters: the source item of each pair.
        rng: where the draws come from.
        num_resamples: how many resamples to draw.

    Returns:
        The interval; without bounds where there are fewer than two clusters to draw from.
    """
    values = np.asarray(differences, dtype=np.float64)
    columns = np.stack([values, np.ones_like(values)], axis=1)
    totals = resample_totals(columns, clusters, rng, num_resamples=num_resamples)
    return percentile_interval(totals[:, 0] / totals[:, 1])


def resample_totals(
    values: ArrayLike,
    clusters: Sequence[str],
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> NDArray[np.float64]:
    """Column totals of resamples in which whole clusters were drawn with replacement.

    Clusters of equal totals cannot be told apart, so that it is enough to draw how often each kind
    of them occurs, which is multinomial: for right-and-wrong answers there are a handful of kinds,
    however many items. Where there are many, drawing the clusters themselves is quicker.

    Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; for
    clusters, A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application (1997), 3.8.

    Args:
        values: (records, columns) numbers; a column of ones counts a resample's records.
        clusters: the source item of each record.
        rng: where the draws come from.
        num_resamples: how many resamples to draw.

    Returns:
        (resamples, columns) totals; (0, columns) where there are fewer than two clusters.
    """
    by_cluster = _cluster_totals(np.asarray(values, dtype=np.float64), clusters)
    num_clusters, num_columns = by_cluster.shape
    if num_clusters < 2:
        return np.empty((0, num_columns))
    kinds, counts = np.unique(by_cluster, axis=0, return_counts=True)
    is_few = len(kinds) <= max(_FEW_KINDS, _FEW_PER_CLUSTER * num_clusters)
    if not is_few:
        kinds = by_cluster
    totals = np.empty((num_resamples, num_columns))
    rows = max(1, _CHUNK_ELEMENTS // len(kinds))  # (rows, kinds) draws at a time
    for start in range(0, num_resamples, rows):
        stop = min(start + rows, num_resamples)
        if is_few:
            drawn = rng.multinomial(num_clusters, counts / num_clusters, size=stop - start)
        else:
            drawn = _draw_clusters(num_clusters, stop - start, rng)
        totals[start:stop] = drawn @ kinds
    return totals


def percentile_interval(resampled: NDArray[np.float64]) -> Interval:
    """The 95 % interval of a statistic from its values in the resamples; no bounds where it has none.

    Args:
        resampled: (resamples,) values; NaN = the statistic does not exist in that resample, which
            is passed over.
    """
    found = resampled[~np.isnan(resampled)]
    if not len(found):
        return Interval(None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(low), float(high))


def required_items(difference: float, discordance: float) -> int:
    """How many paired items show a difference in accuracy, with 80 % power at the 5 % level.

    n = ((z₀.₉₇₅·√d + z₀.₈·√(d − δ²)) / δ)², rounded up. Source: R. J. Connor, Sample size for testing
    differences in proportions for the paired-sample design, Biometrics 43 (1987) 207-211.

    Args:
        difference: δ, the difference to be shown, above 0.
        discordance: d, the share of items that exactly one of the two gets right.

    Raises:
        UsageError: two models that disagree on a share of d cannot differ by δ.
    """
    if not 0 < difference <= discordance <= 1:
        raise UsageError(
            f"a difference of {difference:g} is not possible at a discordance of {discordance:g}",
            hint="both lie between 0 and 1, and the difference is at most the discordance",
        )
    alpha, beta = _quantile(1 - SIGNIFICANCE / 2), _quantile(POWER)
    spread = alpha * math.sqrt(discordance) + beta * math.sqrt(discordance - difference**2)
    return math.ceil((spread / difference) ** 2)


def smallest_detectable_difference(n: int, discordance: float) -> float | None:
    """The smallest difference in accuracy that n paired items show at an assumed discordance.

    Args:
        n: paired items.
        discordance: d, the share of items that exactly one of the two gets right.

    Returns:
        The difference; None where n is too small for any difference that this discordance allows.
    """
    difference = detectable_difference(n, discordance)
    return difference if 0 < difference <= discordance else None


def detectable_difference(n: int, discordance: float, significance: float = SIGNIFICANCE) -> float:
    """`required_items` solved for δ, whether or not the discordance allows such a difference.

    Squaring √n·δ − z·√d = z₀.₈·√(d − δ²) gives a quadratic in δ, whose larger root is meant.

    Args:
        n: paired items.
        discordance: d, the share of items that exactly one of the two gets right.
        significance: level of the two-sided test, which gives z.

    Returns:
        The difference; infinite where n is too small for any.
    """
    alpha2, beta2 = _quantile(1 - significance / 2) ** 2, _quantile(POWER) ** 2
    if n + beta2 < alpha2:
        return math.inf
    root = math.sqrt(alpha2 * n) + math.sqrt(beta2 * (n + beta2 - alpha2))
    return math.sqrt(discordance) * root / (n + beta2)


def _quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _cluster_totals(values: NDArray[np.float64], clusters: Sequence[str]) -> NDArray[np.float64]:
    """(records, columns) -> (clusters, columns)."""
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} differences in {len(clusters)} clusters' names")
    if not len(values):
        return values
    _, index = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    columns = [np.bincount(index, weights=column) for column in values.T]
    return np.stack(columns, axis=1)


def _draw_clusters(
    num_clusters: int, num_resamples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """How often each cluster is drawn: (resamples, clusters); each row sums to their number."""
    drawn = np.empty((num_resamples, num_clusters), dtype=np.int64)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, num_clusters, num_clusters), minlength=num_clusters)
    return drawn
