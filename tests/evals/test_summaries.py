"""The intervals of a mean and of a median, against scipy."""

import numpy as np
import pytest
from scipy.stats import quantile_test, t, ttest_1samp

from medlocal.evals.stats import Interval
from medlocal.evals.summaries import mean_interval, median_interval, student_quantile


class TestMedian:
    @pytest.mark.parametrize("n", [6, 7, 20, 101, 1000])
    def test_agrees_with_scipy(self, n: int) -> None:
        values = np.random.default_rng(n).exponential(size=n).tolist()
        oracle = quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
        found = median_interval(values)
        assert (found.low, found.high) == (oracle.low, oracle.high)

    def test_six_are_as_few_as_have_one(self) -> None:
        """The median is outside of all six with a probability of 2 / 2^6, outside of five with 2 / 2^5."""
        assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == Interval(1.0, 6.0)
        assert median_interval([3.0, 1.0, 2.0, 5.0, 4.0]) == Interval(None, None)

    def test_nothing_has_none(self) -> None:
        assert median_interval([]) == Interval(None, None)


class TestMean:
    @pytest.mark.parametrize("n", [4, 5, 14, 200])
    def test_agrees_with_scipy(self, n: int) -> None:
        values = np.random.default_rng(n).uniform(0.3, 0.7, size=n).tolist()
        oracle = ttest_1samp(values, 0).confidence_interval(0.95)
        found = mean_interval(values, 0.0, 1.0)
        assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-3)

    def test_stays_within_what_can_be(self) -> None:
        found = mean_interval([1.0, 1.0, 1.0, 0.5], 0.0, 1.0)
        assert found.high == 1.0
        assert found.low == pytest.approx(0.875 - 3.182 * 0.25 / 2, abs=1e-3)

    @pytest.mark.parametrize("values", [[], [0.5], [0.2, 0.4, 0.6], [0.9] * 10])
    def test_too_few_or_all_equal_have_none(self, values: list[float]) -> None:
        assert mean_interval(values, 0.0, 1.0) == Interval(None, None)

    @pytest.mark.parametrize("degrees", [3, 4, 7, 30, 1000])
    def test_the_quantile_agrees_with_scipy(self, degrees: int) -> None:
        assert student_quantile(degrees) == pytest.approx(t.ppf(0.975, degrees), rel=2e-3)

    def test_two_degrees_of_freedom_are_refused(self) -> None:
        with pytest.raises(ValueError, match="does not hold for 2"):
            student_quantile(2)
