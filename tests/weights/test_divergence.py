"""Means, errors and intervals: by hand, against scipy, and by llama.cpp's formulas written out."""

import subprocess
import sys
from math import exp, log, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from medlocal.weights.distances import Distances
from medlocal.weights.divergence import exp_mean, mean, root_mean_square, summarise

RNG = np.random.default_rng(4)
VALUES = RNG.gamma(1.0, 0.3, (6, 40))


def as_distances(p: NDArray[np.float64], q: NDArray[np.float64], **changes: object) -> Distances:
    """Positions of which only the probabilities of the token that follows are of interest."""
    zeros = np.zeros(p.size)
    values: dict[str, object] = {
        "divergence": zeros, "variance": zeros, "lower": zeros, "upper": zeros,
        "next_log_p": np.log(p.ravel()), "next_log_q": np.log(q.ravel()),
        "is_same_top": np.ones(p.size, np.bool_), **changes,
    }  # fmt: skip
    return Distances(**values)  # type: ignore[arg-type]


def test_perplexities_and_their_ratio_by_hand() -> None:
    # The reference gives the two tokens 1/2 and 1/8, the model 1/4 and 1/4: both have a perplexity of 4.
    found = summarise(as_distances(np.array([0.5, 0.125]), np.array([0.25, 0.25])), 1)
    assert found.perplexity.value == pytest.approx(4)
    assert found.reference_perplexity.value == pytest.approx(4)
    assert found.perplexity_ratio.value == pytest.approx(1)


def test_the_differences_in_probability_by_hand() -> None:
    found = summarise(as_distances(np.array([0.5, 0.2]), np.array([0.2, 0.6])), 1)
    assert found.dp_mean.value == pytest.approx(0.05)  # (−0.3 + 0.4) / 2
    assert found.dp_rms.value == pytest.approx(sqrt((0.09 + 0.16) / 2))


def test_the_divergence_is_summed_up_by_hand() -> None:
    p = np.full(4, 0.5)
    found = summarise(
        as_distances(
            p,
            p,
            divergence=np.array([0.1, 0.2, 0.3, 0.8]),
            variance=np.array([0.04, 0.0, 0.0, 0.05]),
            lower=np.array([0.0, 0.2, 0.3, 0.7]),
            upper=np.array([0.5, 0.2, 0.3, 1.0]),
            is_same_top=np.array([True, True, False, True]),
        ),
        2,
    )
    assert found.kld.value == pytest.approx(0.35)
    assert found.kld_median == pytest.approx(0.25)
    assert found.kld_99 == pytest.approx(0.3 + 0.97 * 0.5)  # of 4 values, place 0.99 · 3 = 2.97
    assert found.kld_max == pytest.approx(0.8)
    assert found.kld_reference_error == pytest.approx(sqrt(0.09) / 4)
    assert (found.kld_lower, found.kld_upper) == pytest.approx((0.3, 0.5))
    assert (found.same_top.value, found.num_same_top) == (0.75, 3)
    assert (found.num_chunks, found.num_positions) == (2, 4)


def test_the_token_error_is_the_standard_error_of_all_positions() -> None:
    assert mean(VALUES).token_error == pytest.approx(stats.sem(VALUES, axis=None))


def test_the_chunk_error_is_the_standard_error_of_the_chunks_means() -> None:
    assert mean(VALUES).chunk_error == pytest.approx(stats.sem(VALUES.mean(axis=1)))


def test_the_interval_is_students_over_the_chunks_means() -> None:
    means = VALUES.mean(axis=1)
    found = mean(VALUES)
    expected = stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))
    assert (found.low, found.high) == pytest.approx(expected)


def test_positions_that_are_alike_within_a_chunk_have_a_larger_chunk_error() -> None:
    alike = np.repeat(RNG.normal(size=(20, 1)), 50, axis=1)
    found = mean(alike)
    assert found.chunk_error is not None
    assert found.chunk_error == pytest.approx(found.token_error * sqrt(50), rel=0.05)


def test_one_chunk_has_no_chunk_error() -> None:
    found = mean(VALUES[:1])
    assert (found.chunk_error, found.low, found.high) == (None, None, None)
    assert root_mean_square(VALUES[:1]).low is None
    assert exp_mean(VALUES[:1]).chunk_error is None


def test_the_error_of_a_perplexity_ratio_knows_that_both_were_measured_on_one_text() -> None:
    """llama.cpp adds both variances and takes off twice the covariance."""
    reference = RNG.gamma(2.0, 1.0, (5, 60))
    model = reference + RNG.normal(0.1, 0.2, (5, 60))
    n = reference.size
    covariance = np.cov(model.ravel(), reference.ravel()) / n
    ratio = exp(model.mean() - reference.mean())
    expected = ratio * sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = exp_mean(model - reference)
    assert found.value == pytest.approx(ratio)
    assert found.token_error == pytest.approx(expected)
    assert found.low is not None
    assert found.high is not None
    assert log(found.high) - log(found.value) == pytest.approx(log(found.value) - log(found.low))


def test_the_error_of_a_root_mean_square_is_half_that_of_the_mean_square_over_the_root() -> None:
    values = RNG.normal(0, 0.1, (4, 50))
    found = root_mean_square(values)
    squares = values**2
    assert found.value == pytest.approx(sqrt(squares.mean()))
    assert found.token_error == pytest.approx(0.5 / found.value * stats.sem(squares, axis=None))


def test_a_root_mean_square_of_nothing_has_no_error() -> None:
    found = root_mean_square(np.zeros((3, 5)))
    assert (found.value, found.token_error, found.chunk_error, found.low) == (0, 0, 0, 0)


def test_scipy_is_loaded_before_the_work_and_not_at_its_end() -> None:
    code = "import sys, medlocal.weights.divergence; sys.exit('scipy.special' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
