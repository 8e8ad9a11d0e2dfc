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

_CHUNK_ELEMENTS = 2_000_000
"""Numbers held at once while resampling: 16 MB of them."""


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
    share, z2 = hits / n, _quantile(1 - (1 - CONFIDENCE) / 2) ** 2
    centre = share + z2 / (2 * n)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n)
    # At the ends one bound is exact; rounding would leave it some 1e-17 beside.
    low = 0.0 if hits == 0 else (centre - half) / (1 + z2 / n)
    high = 1.0 if hits == n else (centre + half) / (1 + z2 / n)
    return Rate(share, low, high, n)


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


def bootstrap_mean_difference(
    differences: ArrayLike,
    clusters: Sequence[str],
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval of a mean of paired differences, clustered by source item.

    Whole clusters are drawn with replacement; a resample's mean is the sum of its differences over
    their number. Clusters of equal sum and size cannot be told apart in it, so that it is enough to
    draw how often each kind occurs, which is multinomial: for right-and-wrong answers there are a
    handful of kinds, however many items.

    Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; for
    clusters, A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application (1997), 3.8.

    Args:
        differences: one number per pair.
        clusters: the source item of each pair.
        rng: where the draws come from.
        num_resamples: how many resamples to draw.

    Returns:
        The interval; without bounds where there are fewer than two clusters to draw from.
    """
    sums, sizes = _cluster_totals(np.asarray(differences, dtype=np.float64), clusters)
    num_clusters = len(sums)
    if num_clusters < 2:
        return Interval(None, None)
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    rows = max(1, _CHUNK_ELEMENTS // len(counts))  # (rows, kinds) draws at a time
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, rows):
        stop = min(start + rows, num_resamples)
        drawn = rng.multinomial(num_clusters, counts / num_clusters, size=stop - start)
        means[start:stop] = (drawn @ kinds[0]) / (drawn @ kinds[1])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
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
    """The smallest difference in accuracy that n paired items show: `required_items` solved for δ.

    Squaring √n·δ − z₀.₉₇₅·√d = z₀.₈·√(d − δ²) gives a quadratic in δ, whose larger root is meant.

    Args:
        n: paired items.
        discordance: d, the share of items that exactly one of the two gets right.

    Returns:
        The difference; None where n is too small for any difference that this discordance allows.
    """
    alpha2, beta2 = _quantile(1 - SIGNIFICANCE / 2) ** 2, _quantile(POWER) ** 2
    if n + beta2 < alpha2:
        return None
    root = math.sqrt(alpha2 * n) + math.sqrt(beta2 * (n + beta2 - alpha2))
    difference = math.sqrt(discordance) * root / (n + beta2)
    return difference if 0 < difference <= discordance else None


def _quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _cluster_totals(
    differences: NDArray[np.float64], clusters: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(differences) != len(clusters):
        raise ValueError(f"{len(differences)} differences in {len(clusters)} clusters' names")
    _, index = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    sums, sizes = np.bincount(index, weights=differences), np.bincount(index)
    return sums.astype(np.float64), sizes.astype(np.float64)
