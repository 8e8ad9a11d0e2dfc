"""Intervals of a mean and of a median of measurements, such as probabilities and nats. Pure.

Each measurement is of another item. It knows numbers, and nothing of what they measure.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev

from medlocal.evals.stats import CONFIDENCE, Interval

_FEWEST = 4
"""Measurements of which a mean has an interval: with fewer, the quantile's expansion is off by 1 %."""

_ONE_IN = 40
"""2.5 % is one in so many: in whole numbers, which do not overflow."""


def median_interval(values: Sequence[float]) -> Interval:
    """95 % interval of a median, between two of the measurements, whatever their distribution.

    From the r-th smallest to the r-th largest, where r is the largest for which as few as r - 1 of n
    measurements fall below the median with 2.5 % probability at most, which is binomial.

    Source: W. R. Thompson, Annals of Mathematical Statistics 7 (1936) 122-128; W. J. Conover, Practical
    Nonparametric Statistics (3rd ed. 1999), 3.2.

    Returns:
        The interval; without bounds for fewer than six measurements, where there is no such r.
    """
    rank = _median_rank(len(values))
    if not rank:
        return Interval(None, None)
    ordered = sorted(values)
    return Interval(ordered[rank - 1], ordered[-rank])


@lru_cache(maxsize=4096)
def _median_rank(n: int) -> int:
    """The largest r for which P(at most r - 1 of n) is 2.5 % at most; 0 = none."""
    rank, tail, ways = 0, 1, 1
    while tail * _ONE_IN <= 1 << n:
        ways = ways * (n - rank) // (rank + 1)  # from "n choose rank" to "n choose rank + 1"
        tail += ways
        rank += 1
    return rank


def mean_interval(values: Sequence[float], lowest: float, highest: float) -> Interval:
    """95 % interval of a mean by Student's t, within the range that the measurements have.

    Args:
        values: the measurements.
        lowest: least value that one can have.
        highest: greatest value that one can have.

    Returns:
        The interval; without bounds for fewer than four measurements, and where all are equal: then
        nothing is known of how much they vary.
    """
    n = len(values)
    if n < _FEWEST or not (spread := stdev(values)):
        return Interval(None, None)
    mean, half = fmean(values), student_quantile(n - 1) * spread / math.sqrt(n)
    return Interval(max(lowest, mean - half), min(highest, mean + half))


def student_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t with three degrees of freedom or more, to 0.2 %.

    Source: M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions (1964), 26.7.5.
    """
    if degrees < _FEWEST - 1:
        raise ValueError(f"the expansion does not hold for {degrees} degrees of freedom")
    x = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))
