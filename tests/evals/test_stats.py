"""The formulas against scipy, worked examples and the laws that they must obey."""

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from medlocal.errors import UsageError
from medlocal.evals import stats
from medlocal.evals.stats import (
    Interval,
    Rate,
    bootstrap_mean_difference,
    clustered_wilson,
    holm,
    mcnemar,
    percentile_interval,
    required_items,
    resample_totals,
    smallest_detectable_difference,
    wilson,
)

ROOT = Path(__file__).parents[2]


class TestWilson:
    @pytest.mark.parametrize("n", [1, 2, 7, 100, 1273, 20_000])
    def test_agrees_with_scipy(self, n: int) -> None:
        for hits in {0, 1, n // 3, n // 2, n - 1, n}:
            oracle = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
            rate = wilson(hits, n)
            assert (rate.low, rate.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)

    def test_agrees_with_newcombe_1998_table_one(self) -> None:
        """81 of 263: 0.2553 to 0.3662 by method 3."""
        rate = wilson(81, 263)
        assert rate.low == pytest.approx(0.2553, abs=5e-5)
        assert rate.high == pytest.approx(0.3662, abs=5e-5)

    def test_none_of_none_has_no_value(self) -> None:
        assert wilson(0, 0) == Rate(None, None, None, 0)

    def test_the_ends_are_exact(self) -> None:
        assert (wilson(0, 30).low, wilson(30, 30).high) == (0.0, 1.0)

    @pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3), (0, -1)])
    def test_refuses_what_is_no_share(self, hits: int, n: int) -> None:
        with pytest.raises(ValueError, match="is no share"):
            wilson(hits, n)

    @given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_holds_its_value_and_mirrors(self, counts: tuple[int, int]) -> None:
        hits, n = counts
        rate, mirrored = wilson(hits, n), wilson(n - hits, n)
        assert rate.value is not None
        assert rate.low is not None
        assert rate.high is not None
        assert mirrored.low is not None
        assert 0 <= rate.low <= rate.value <= rate.high <= 1
        assert mirrored.low == pytest.approx(1 - rate.high)


class TestClusteredWilson:
    @pytest.mark.parametrize(("hits", "n"), [(0, 3), (2, 7), (81, 263), (5, 5)])
    def test_one_answer_per_cluster_is_the_wilson_interval(self, hits: int, n: int) -> None:
        assert clustered_wilson(hits, [1] * n) == wilson(hits, n)

    def test_clusters_of_equal_size_are_worth_one_answer_each(self) -> None:
        """30 of 40 in ten clusters of four: as wide as three quarters of ten independent answers."""
        rate = clustered_wilson(30, [4] * 10)
        # By hand with z² = 3.8415: centre (0.75 + 0.1921) / 1.38415, half
        # 1.96 · sqrt((0.1875 + 0.0960) / 10) / 1.38415.
        assert (rate.value, rate.n) == (0.75, 40)
        assert (rate.low, rate.high) == pytest.approx((0.4422, 0.9191), abs=1e-4)

    def test_clusters_of_unequal_size_are_worth_less_than_their_number(self) -> None:
        """6 and 2 answers: 8² / (36 + 4) = 1.6, not 2."""
        rate, two = clustered_wilson(4, [6, 2]), wilson(1, 2)
        assert rate.low is not None
        assert two.low is not None
        assert rate.low < two.low

    def test_no_clusters_have_no_value(self) -> None:
        assert clustered_wilson(0, []) == Rate(None, None, None, 0)

    def test_refuses_what_is_no_share(self) -> None:
        with pytest.raises(ValueError, match="is no share"):
            clustered_wilson(4, [1, 2])

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.data())
    def test_is_never_narrower_than_wilson(self, sizes: list[int], data: st.DataObject) -> None:
        hits = data.draw(st.integers(0, sum(sizes)))
        wide, narrow = clustered_wilson(hits, sizes), wilson(hits, sum(sizes))
        assert wide.low is not None
        assert wide.high is not None
        assert narrow.low is not None
        assert narrow.high is not None
        assert wide.low <= narrow.low + 1e-12
        assert narrow.high - 1e-12 <= wide.high


class TestMcNemar:
    @pytest.mark.parametrize(
        ("b", "c"), [(0, 1), (1, 0), (0, 6), (5, 5), (10, 30), (31, 30), (400, 300), (1500, 1400)]
    )
    def test_agrees_with_scipy(self, b: int, c: int) -> None:
        assert mcnemar(b, c) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-9)

    def test_agrees_with_the_hand(self) -> None:
        """1 against 5: twice (1 + 6) of 64."""
        assert mcnemar(1, 5) == 14 / 64

    def test_no_discordant_pair_says_nothing(self) -> None:
        assert mcnemar(0, 0) == 1.0

    def test_does_not_underflow_into_an_error(self) -> None:
        assert mcnemar(0, 5000) == 0.0

    def test_refuses_negative_counts(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            mcnemar(-1, 2)

    @given(st.integers(0, 300), st.integers(0, 300))
    def test_is_a_probability_and_does_not_mind_the_order(self, b: int, c: int) -> None:
        assert 0 < mcnemar(b, c) == mcnemar(c, b) <= 1


class TestHolm:
    def test_by_hand(self) -> None:
        """0.005 · 4, 0.01 · 3, 0.03 · 2; 0.04 · 1 would fall below the one before it."""
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_rises_to_1_at_most(self) -> None:
        assert holm([0.6, 0.9]) == [1.0, 1.0]

    def test_one_test_needs_no_correction(self) -> None:
        assert holm([0.04]) == [0.04]

    def test_no_tests_have_no_p_values(self) -> None:
        assert holm([]) == []

    def test_equal_p_values_stay_equal(self) -> None:
        assert holm([0.01, 0.5, 0.01]) == pytest.approx([0.03, 0.5, 0.03])

    @pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
    def test_refuses_what_is_no_probability(self, p: float) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.5, p])

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
    def test_is_the_closure_of_bonferroni(self, p_values: list[float]) -> None:
        """Every set of hypotheses that holds this one must be refused by Bonferroni (Marcus 1976)."""
        indices = range(len(p_values))
        sets = [s for size in indices for s in combinations(indices, size + 1)]
        expected = [
            max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets if at in s)
            for at in indices
        ]
        assert holm(p_values) == pytest.approx(expected)


class TestBootstrap:
    def test_agrees_with_a_plain_resampling_of_clusters(self) -> None:
        rng = np.random.default_rng(3)
        clusters = [f"item {number}" for number in range(60) for _ in range(1 + number % 3)]
        shift = {name: rng.integers(0, 2) for name in sorted(set(clusters))}
        differences = [float(shift[name] - rng.integers(0, 2)) for name in clusters]
        groups = [
            np.array([d for d, c in zip(differences, clusters, strict=True) if c == name])
            for name in sorted(set(clusters))
        ]
        means = []
        for _ in range(4000):
            drawn = np.concatenate([groups[i] for i in rng.integers(0, 60, 60)])
            means.append(drawn.mean())
        low, high = np.quantile(means, [0.025, 0.975])
        interval = bootstrap_mean_difference(differences, clusters, np.random.default_rng(0))
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.012)

    def test_agrees_with_the_normal_approximation_where_n_is_large(self) -> None:
        """1,500 up, 1,000 down, 7,500 alike: 0.05 ± 1.96 · sqrt((0.25 − 0.05²) / 10,000)."""
        differences = [1] * 1500 + [-1] * 1000 + [0] * 7500
        clusters = [str(number) for number in range(10_000)]
        interval = bootstrap_mean_difference(differences, clusters, np.random.default_rng(0))
        assert (interval.low, interval.high) == pytest.approx((0.04025, 0.05975), abs=4e-4)

    def test_repeating_an_item_does_not_narrow_the_interval(self) -> None:
        once = bootstrap_mean_difference([1, 0, -1, 0, 1], list("abcde"), np.random.default_rng(1))
        five_times = bootstrap_mean_difference(
            [1, 0, -1, 0, 1] * 5, list("abcde") * 5, np.random.default_rng(1)
        )
        assert five_times == once

    def test_the_same_generator_gives_the_same_interval(self) -> None:
        first, second = (
            bootstrap_mean_difference([1, 0, 0, -1], list("abcd"), np.random.default_rng(7))
            for _ in range(2)
        )
        assert first == second

    def test_chunks_cover_every_resample(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stats, "_CHUNK_ELEMENTS", 7)
        interval = bootstrap_mean_difference(
            [2.0, 2.0], ["a", "b"], np.random.default_rng(0), num_resamples=101
        )
        assert interval == Interval(2.0, 2.0)

    @pytest.mark.parametrize("few_kinds", [0, 1000])
    def test_drawing_clusters_and_drawing_kinds_agree(
        self, few_kinds: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The mean of 1 to 400: 200.5 ± 1.96 · sqrt((400² - 1) / 12 / 400)."""
        monkeypatch.setattr(stats, "_FEW_KINDS", few_kinds)
        interval = bootstrap_mean_difference(
            np.arange(1, 401), [str(n) for n in range(400)], np.random.default_rng(0)
        )
        assert (interval.low, interval.high) == pytest.approx((189.18, 211.82), abs=0.6)

    @pytest.mark.parametrize("few_kinds", [0, 1000])
    def test_every_resample_draws_as_many_clusters_as_there_are(
        self, few_kinds: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Twelve clusters of two records, one column counts records, one is their double."""
        monkeypatch.setattr(stats, "_FEW_KINDS", few_kinds)
        monkeypatch.setattr(stats, "_FEW_PER_CLUSTER", 0)
        values = np.stack([np.arange(24), np.ones(24), 2 * np.ones(24)], axis=1)
        clusters = [str(n // 2) for n in range(24)]
        totals = resample_totals(values, clusters, np.random.default_rng(0), num_resamples=50)
        assert totals.shape == (50, 3)
        assert totals[:, 1].tolist() == [24.0] * 50
        assert totals[:, 2].tolist() == [48.0] * 50
        assert len(set(totals[:, 0])) > 10

    def test_a_resample_without_the_statistic_is_passed_over(self) -> None:
        assert percentile_interval(np.array([3.0, np.nan, 3.0])) == Interval(3.0, 3.0)
        assert percentile_interval(np.array([np.nan])) == Interval(None, None)

    def test_ten_thousand_distinct_clusters_take_little_time_and_memory(self) -> None:
        """A limit of 10 s and 200 MB; it takes about half a second and 50 MB."""
        values = np.random.default_rng(0).normal(size=10_000)
        clusters = [f"set/{number}" for number in range(10_000)]
        tracemalloc.start()
        start = time.perf_counter()
        interval = bootstrap_mean_difference(values, clusters, np.random.default_rng(1))
        seconds = time.perf_counter() - start
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (seconds < 10, peak < 200_000_000) == (True, True)
        half = 1.96 * values.std() / 100
        expected = (values.mean() - half, values.mean() + half)
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-3)

    @pytest.mark.parametrize("differences", [[], [1.0], [1.0, 0.0]])
    def test_fewer_than_two_clusters_have_no_interval(self, differences: list[float]) -> None:
        clusters = ["a"] * len(differences)
        interval = bootstrap_mean_difference(differences, clusters, np.random.default_rng(0))
        assert interval == Interval(None, None)

    def test_refuses_names_that_do_not_match(self) -> None:
        with pytest.raises(ValueError, match="2 differences"):
            bootstrap_mean_difference([1, 0], ["a"], np.random.default_rng(0))


class TestPower:
    @pytest.mark.parametrize(("difference", "n"), [(0.02, 3923), (0.03, 1742), (0.05, 626)])
    def test_the_three_worked_numbers(self, difference: float, n: int) -> None:
        assert required_items(difference, discordance=0.20) == n

    @pytest.mark.parametrize(("difference", "discordance"), [(0, 0.2), (0.3, 0.2), (0.5, 1.2)])
    def test_refuses_what_cannot_be(self, difference: float, discordance: float) -> None:
        with pytest.raises(UsageError, match="is not possible"):
            required_items(difference, discordance)

    @given(st.integers(20, 100_000), st.floats(0.01, 1.0))
    def test_the_smallest_difference_needs_these_items(self, n: int, discordance: float) -> None:
        difference = smallest_detectable_difference(n, discordance)
        if difference is None:
            assert required_items(discordance, discordance) > n
        else:
            assert required_items(difference, discordance) in {n, n + 1}  # + 1: rounded up
            assert required_items(difference * 0.999, discordance) > n

    @pytest.mark.parametrize("n", [0, 3, 30])
    def test_too_few_items_show_nothing(self, n: int) -> None:
        assert smallest_detectable_difference(n, 0.2) is None


@pytest.mark.parametrize("call", [lambda: wilson(1, 3).low, lambda: mcnemar(1, 5)])
def test_results_are_plain_floats(call: Callable[[], object]) -> None:
    assert type(call()) is float


def test_scipy_is_not_imported() -> None:
    code = "import sys, medlocal.evals.stats; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
