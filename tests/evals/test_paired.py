"""The test, the interval and the power of paired answers, against scipy, worked examples and the hand."""

from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from medlocal.evals.paired import (
    difference_interval,
    least_discordance,
    score_interval,
    sign_flip,
    smallest_shown,
)
from medlocal.evals.stats import (
    Interval,
    bootstrap_mean_difference,
    mcnemar,
    smallest_detectable_difference,
)


def by_enumeration(differences: list[int], clusters: list[str]) -> float:
    """The share of all ways of exchanging whole clusters that give a sum as far from 0."""
    sums = dict.fromkeys(clusters, 0)
    for name, difference in zip(clusters, differences, strict=True):
        sums[name] += difference
    totals, observed = list(sums.values()), abs(sum(differences))
    ways = list(product((-1, 1), repeat=len(totals)))
    far = [
        signs
        for signs in ways
        if abs(sum(s * t for s, t in zip(signs, totals, strict=True))) >= observed
    ]
    return len(far) / len(ways)


class TestSignFlip:
    @pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 5), (0, 6), (32, 48), (96, 144)])
    def test_with_one_pair_per_item_it_is_mcnemars(self, b: int, c: int) -> None:
        differences = [-1] * b + [1] * c + [0] * 20
        clusters = [str(number) for number in range(len(differences))]
        assert sign_flip(differences, clusters) == mcnemar(b, c)

    def test_agrees_with_the_hand(self) -> None:
        """Sums 2, 1 and -1: of eight ways 2 is reached or passed by 4, 2, 2 and their opposites."""
        assert sign_flip([1, 1, 1, -1], ["a", "a", "b", "c"]) == 6 / 8

    def test_repeating_every_pair_shows_no_more(self) -> None:
        differences, clusters = [1, 1, 1, 1, 1, -1], list("abcdef")
        once = sign_flip(differences, clusters)
        assert once == mcnemar(1, 5)
        assert sign_flip(differences * 4, clusters * 4) == once

    def test_what_cancels_out_within_an_item_says_nothing(self) -> None:
        assert sign_flip([1, -1] * 10, [str(n // 2) for n in range(20)]) == 1.0

    def test_no_pairs_say_nothing(self) -> None:
        assert sign_flip([], []) == 1.0

    @given(
        st.lists(st.tuples(st.sampled_from((-1, 0, 1)), st.sampled_from("abcdefgh")), max_size=30),
        st.randoms(),
    )
    def test_is_the_share_of_all_exchanges(
        self, pairs: list[tuple[int, str]], random: Random
    ) -> None:
        differences, clusters = [d for d, _ in pairs], [c for _, c in pairs]
        p = sign_flip(differences, clusters)
        assert p == pytest.approx(by_enumeration(differences, clusters))
        assert sign_flip([-d for d in differences], clusters) == pytest.approx(p)
        random.shuffle(pairs)
        assert sign_flip([d for d, _ in pairs], [c for _, c in pairs]) == pytest.approx(p)

    def test_agrees_with_the_normal_approximation_where_n_is_large(self) -> None:
        """640 items that differ, 300 by three pairs and 340 by one: a sum of 110 of variance 9 · 300 + 340.

        That is 1.995 standard deviations of 55.14; with half a step of 2 for continuity 1.977, beyond
        which, on both sides, lie 0.0480.
        """
        threes, ones = (
            [[1, 1, 1]] * 160 + [[-1, -1, -1]] * 140,
            [[1, 0, 0]] * 195 + [[0, 0, -1]] * 145,
        )
        items = threes + ones
        differences = [d for item in items for d in item]
        clusters = [str(number) for number in range(len(items)) for _ in range(3)]
        assert sum(differences) == 110
        assert sign_flip(differences, clusters) == pytest.approx(0.0480, abs=5e-4)


class TestScoreInterval:
    def test_agrees_with_newcombes_worked_example(self) -> None:
        """Cells 36, 12, 2, 0 (Newcombe 1998, table II): 0.0569 to 0.3404 by method 10."""
        found = score_interval(both=36, gained=12, lost=2, neither=0)
        assert found.low == pytest.approx(0.0569, abs=5e-5)
        assert found.high == pytest.approx(0.3404, abs=5e-5)

    def test_agrees_with_altmans_worked_example(self) -> None:
        """Cells 14, 5, 0, 22 (Altman et al., Statistics with Confidence, 2000, table 6.2): 0.011 to
        0.226."""
        found = score_interval(both=14, gained=5, lost=0, neither=22)
        assert found.low == pytest.approx(0.011, abs=5e-4)
        assert found.high == pytest.approx(0.226, abs=5e-4)

    def test_without_discordance_by_hand(self) -> None:
        """Three right in both and two wrong in both: a share of 0.6, Wilson 0.2307 to 0.8824; its
        correlation is (6 - 2.5) / 6. √(0.3693² - 2 · 0.5833 · 0.3693 · 0.2824 + 0.2824²) = 0.3074."""
        found = score_interval(3, 0, 0, 2)
        assert (found.low, found.high) == pytest.approx((-0.3074, 0.3074), abs=1e-4)

    def test_all_right_in_both_is_as_wide_as_the_share(self) -> None:
        """Wilson's lower bound for 5 of 5 is 0.5655."""
        found = score_interval(5, 0, 0, 0)
        assert (found.low, found.high) == pytest.approx((-0.4345, 0.4345), abs=1e-4)

    def test_nothing_has_no_bounds(self) -> None:
        assert score_interval(0, 0, 0, 0) == Interval(None, None)

    @given(*[st.integers(0, 300)] * 4)
    def test_holds_the_difference_and_mirrors(
        self, both: int, gained: int, lost: int, neither: int
    ) -> None:
        n = both + gained + lost + neither
        found = score_interval(both, gained, lost, neither)
        if found.low is None or found.high is None:
            assert n == 0
            return
        difference = (gained - lost) / n
        assert -1 - 1e-9 <= found.low <= difference + 1e-9
        assert difference - 1e-9 <= found.high <= 1 + 1e-9
        mirrored = score_interval(both, lost, gained, neither)
        assert mirrored.low == pytest.approx(-found.high, abs=1e-9)


class TestDifferenceInterval:
    def test_is_the_bootstrap_where_that_has_a_width(self) -> None:
        first, second = [True, False, False, True, False], [True, True, True, False, True]
        found = difference_interval(first, second, list("abcde"), np.random.default_rng(1))
        expected = bootstrap_mean_difference(
            [0, 1, 1, -1, 1], list("abcde"), np.random.default_rng(1)
        )
        assert found == expected

    @pytest.mark.parametrize(
        ("first", "second", "cells"),
        [
            ("11111", "11111", (5, 0, 0, 0)),
            ("11100", "11100", (3, 0, 0, 2)),
            ("00000", "11111", (0, 5, 0, 0)),
            ("11111", "00000", (0, 0, 5, 0)),
        ],
    )
    def test_where_no_resample_differs_it_is_the_score_interval(
        self, first: str, second: str, cells: tuple[int, int, int, int]
    ) -> None:
        rights = [[sign == "1" for sign in side] for side in (first, second)]
        found = difference_interval(rights[0], rights[1], list("abcde"), np.random.default_rng(0))
        assert found == score_interval(*cells)
        assert found.low is not None
        assert found.high is not None
        assert found.high - found.low > 0.3

    def test_repeating_an_item_does_not_narrow_it(self) -> None:
        right = [True] * 5
        once, four_times = (
            difference_interval(right * n, right * n, list("abcde") * n, np.random.default_rng(0))
            for n in (1, 4)
        )
        assert (once.low, once.high) == pytest.approx((four_times.low, four_times.high))

    @pytest.mark.parametrize("n", [0, 3])
    def test_fewer_than_two_items_have_none(self, n: int) -> None:
        found = difference_interval([True] * n, [False] * n, ["a"] * n, np.random.default_rng(0))
        assert found == Interval(None, None)


class TestSmallestShown:
    @pytest.mark.parametrize(("num_tests", "needed"), [(1, 6), (3, 7), (6, 8)])
    @pytest.mark.parametrize("n", [10, 98, 5000])
    def test_the_least_discordance_is_significant_with_80_percent_power(
        self, n: int, num_tests: int, needed: int
    ) -> None:
        """2 / 2^6 < 5 %, 2 / 2^7 < 5 % / 3, 2 / 2^8 < 5 % / 6; how many occur is binomial."""
        least = least_discordance(n, num_tests)
        assert least is not None
        assert binom.sf(needed - 1, n, least) == pytest.approx(0.8, abs=1e-9)

    def test_few_discordant_pairs_of_many_are_not_few_questions(self) -> None:
        """7.905 of 5,000 must be expected, that 6 occur with 80 % probability: 0.158 points."""
        for num_discordant in range(8):
            assert smallest_shown(5000, num_discordant) == pytest.approx(0.00158, abs=1e-5)

    def test_it_rises_with_the_discordance_and_never_falls(self) -> None:
        found = [smallest_shown(5000, number) for number in range(0, 5000, 5)]
        sizes = [size for size in found if size is not None]
        assert len(sizes) == len(found)
        assert sizes == sorted(sizes)

    def test_is_that_of_the_formula_where_there_is_discordance_enough(self) -> None:
        assert smallest_shown(1000, 150) == smallest_detectable_difference(1000, 0.15)
        assert smallest_shown(626, 125) == pytest.approx(0.05, abs=1e-4)

    def test_a_shared_level_takes_a_larger_difference(self) -> None:
        """z of 5 % / 3 is 2.3940: (2.3940 · √0.2 + 0.8416 · √(0.2 − δ²)) / √1,000 = δ at 0.04570."""
        assert smallest_shown(1000, 200, num_tests=3) == pytest.approx(0.04570, abs=1e-5)

    def test_of_as_many_tests_each_keeps_its_power(self) -> None:
        """1,000 pairs with 20 % discordance, at what is said for three tests: 80 %, by simulation."""
        difference, rng = smallest_shown(1000, 200, num_tests=3), np.random.default_rng(5)
        assert difference is not None
        up = (0.2 + difference) / 2
        drawn = rng.multinomial(1000, [up, 0.2 - up, 0.8], size=2000)
        shown = [mcnemar(int(b), int(c)) < 0.05 / 3 for c, b, _ in drawn]
        assert np.mean(shown) == pytest.approx(0.8, abs=0.03)

    @pytest.mark.parametrize(("n", "num_tests"), [(0, 1), (5, 1), (6, 3)])
    def test_too_few_to_be_significant_whatever_they_say(self, n: int, num_tests: int) -> None:
        assert smallest_shown(n, n, num_tests=num_tests) is None

    def test_six_must_nearly_all_differ(self) -> None:
        """All six with 80 % probability: 0.8^(1/6)."""
        assert smallest_shown(6, 0) == pytest.approx(0.8 ** (1 / 6))
