"""Statistics of pairs of right-and-wrong answers in clusters: a test, an interval, what could be shown. Pure.

It knows numbers and clusters, and nothing of models, items or outcomes. A pair is the same question
asked twice, of two models or in two ways; pairs of one cluster are not independent of each other.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medlocal.evals.stats import (
    POWER,
    SIGNIFICANCE,
    Interval,
    bootstrap_mean_difference,
    detectable_difference,
    mcnemar,
    wilson_bounds,
)

_STEPS = 60
"""Halvings of the interval from 0 to 1: more than a double can tell apart."""


def sign_flip(differences: Sequence[int], clusters: Sequence[str]) -> float:
    """The exact two-sided p-value of the sum of paired differences, clustered by source item.

    If the two sides of every cluster could as well be exchanged, each cluster's sum has either sign
    with probability one half, all its pairs together. The p-value is the probability of a sum at
    least as far from 0 as the observed one. With one pair per cluster it is McNemar's exact test.

    Source: the randomisation test for pairs, R. A. Fisher, The Design of Experiments (1935), 21; with
    clusters as its units, M. H. Gail et al., Statistics in Medicine 15 (1996) 1069-1092.

    Args:
        differences: -1, 0 or 1 per pair.
        clusters: the source item of each pair.
    """
    sums: Counter[str] = Counter()
    for cluster, difference in zip(clusters, differences, strict=True):
        sums[cluster] += difference
    sizes = Counter(abs(total) for total in sums.values() if total)
    if len(sizes) <= 1:
        return mcnemar(*(sum(sign * total > 0 for total in sums.values()) for sign in (-1, 1)))
    farthest, observed = sum(size * count for size, count in sizes.items()), abs(sum(differences))
    if observed == 0:
        return 1.0
    probabilities = np.ones(1)  # of the sum of the sizes of those with a plus, from 0 on
    for size, count in sizes.items():
        probabilities = np.convolve(probabilities, _spaced(count, size))
    # A sum of s on the plus side is a total of 2 s - farthest, which is symmetric about 0.
    tail = probabilities[(farthest + observed) // 2 :]
    return min(1.0, 2 * float(tail.sum()))


def _spaced(num_trials: int, size: int) -> NDArray[np.float64]:
    """Probabilities of `size` times a fair binomial count: (num_trials * size + 1,)."""
    found = np.zeros(num_trials * size + 1)
    ways, all_ways = 1, 1 << num_trials
    for hits in range(num_trials + 1):
        found[hits * size] = ways / all_ways
        ways = ways * (num_trials - hits) // (hits + 1)
    return found


def difference_interval(
    first: Sequence[bool],
    second: Sequence[bool],
    clusters: Sequence[str],
    rng: np.random.Generator,
) -> Interval:
    """95 % interval of the share right of the second minus that of the first, clustered by source item.

    The percentile bootstrap; where every resample gives the same difference, as where no pair is
    discordant, that interval would have no width however few the pairs, and it is `score_interval` of
    as many independent pairs as the clusters are worth at worst (see `clustered_wilson`).

    Args:
        first: whether the first answer of each pair is right.
        second: the same of the second.
        clusters: the source item of each pair.
        rng: where the draws come from.

    Returns:
        The interval; without bounds where there are fewer than two clusters.
    """
    pairs = Counter(zip(map(bool, first), map(bool, second), strict=True))
    differences = [int(after) - int(before) for before, after in zip(first, second, strict=True)]
    found = bootstrap_mean_difference(differences, clusters, rng)
    if found.low is None or found.low != found.high:
        return found
    worth = len(differences) / sum(size * size for size in Counter(clusters).values())
    cells = ((True, True), (False, True), (True, False), (False, False))
    return score_interval(*(worth * pairs[cell] for cell in cells))


def score_interval(both: float, gained: float, lost: float, neither: float) -> Interval:
    """95 % interval of the difference of two paired shares, made of their Wilson intervals.

    The two intervals are put together by squaring and adding, allowing for the correlation of the two
    shares, with a continuity correction of a positive one.

    Source: method 10 of R. G. Newcombe, Improved confidence intervals for the difference between
    binomial proportions based on paired data, Statistics in Medicine 17 (1998) 2635-2650.

    Args:
        both: pairs of which both are right; the counts need not be whole.
        gained: pairs of which only the second is right.
        lost: pairs of which only the first is right.
        neither: pairs of which none is right.

    Returns:
        The interval of (gained - lost) / n; without bounds where n is 0.
    """
    n = both + gained + lost + neither
    if n <= 0:
        return Interval(None, None)
    first, second = (both + lost) / n, (both + gained) / n
    (low1, high1), (low2, high2) = wilson_bounds(first, n), wilson_bounds(second, n)
    phi = _correlation(both, gained, lost, neither)
    below = _joined(second - low2, high1 - first, phi)
    above = _joined(high2 - second, first - low1, phi)
    return Interval(second - first - below, second - first + above)


def _correlation(both: float, gained: float, lost: float, neither: float) -> float:
    """Of the two answers of a pair, corrected for continuity; 0 where one side never varies."""
    n = both + gained + lost + neither
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    product = both * neither - gained * lost
    if product > 0:
        product = max(product - n / 2, 0.0)
    return product / math.sqrt(margins)


def _joined(one: float, other: float, correlation: float) -> float:
    # Rounding may leave a square below 0 where both are equal and fully correlated.
    return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))


def smallest_shown(n: int, num_discordant: int, *, num_tests: int = 1) -> float | None:
    """The smallest true difference in accuracy that n paired items would have shown, with 80 % power.

    By `detectable_difference` at the discordance observed, and never less than `least_discordance`: few
    discordant pairs, however many the items, are not few questions.

    Args:
        n: paired items.
        num_discordant: items that exactly one of the two got right.
        num_tests: how many tests share the 5 % level; Holm's correction leaves each at least the
            num_tests-th part of it.

    Returns:
        The difference; None where not even n discordant items on one side would be significant.
    """
    least = least_discordance(n, num_tests)
    if least is None:
        return None
    found = detectable_difference(n, num_discordant / n, SIGNIFICANCE / num_tests)
    return min(1.0, max(least, found))


@lru_cache(maxsize=4096)
def least_discordance(n: int, num_tests: int = 1) -> float | None:
    """The least share of discordant items, all on one side, that McNemar's test shows with 80 % power.

    All on one side, discordance and difference are the same. So many discordant items as are needed for
    significance must occur in n with 80 % probability, which is binomial.

    Returns:
        The share; None where n is smaller than the number needed.
    """
    needed = 1
    while mcnemar(0, needed) >= SIGNIFICANCE / num_tests:
        needed += 1
    if n < needed:
        return None
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _at_least(needed, n, middle) >= POWER else (middle, high)
    return high


def _at_least(hits: int, n: int, share: float) -> float:
    """The probability of at least so many hits in n trials."""
    below, term = 0.0, (1 - share) ** n
    for number in range(hits):
        below += term
        term *= (n - number) / (number + 1) * share / (1 - share)
    return 1 - below
