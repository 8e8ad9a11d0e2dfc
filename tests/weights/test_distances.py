"""What is kept of a distribution, and what can be said of another one from it, against exact values."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, rel_entr, softmax

from medlocal.weights.distances import Distances, KeepOptions, Kept, distances, joined, keep

Logits = NDArray[np.float32]


def logits_of(*probabilities: tuple[float, ...]) -> Logits:
    return np.asarray(np.log(probabilities), np.float32)


def ids(*tokens: int) -> NDArray[np.int32]:
    return np.asarray(tokens, np.int32)


def kept_of(logits: Logits, following: NDArray[np.int32] | None = None, **options: float) -> Kept:
    following = np.zeros(len(logits), np.int32) if following is None else following
    made = KeepOptions(**options)  # type: ignore[arg-type]
    return keep(logits, following, np.random.default_rng(1), made)


def compared(p: Logits, q: Logits, **options: float) -> Distances:
    following = np.zeros(len(p), np.int32)
    return distances(kept_of(p, following, **options), q, following)


def exact(p: Logits, q: Logits) -> NDArray[np.float64]:
    """scipy's divergence of the full distributions."""
    wide = [softmax(logits.astype(np.float64), axis=1) for logits in (p, q)]
    found: NDArray[np.float64] = rel_entr(*wide).sum(axis=1)
    return found


def random_pair(seed: int, positions: int, size: int, noise: float) -> tuple[Logits, Logits]:
    rng = np.random.default_rng(seed)
    p = rng.normal(0, 3, (positions, size)).astype(np.float32)
    return p, (p + rng.normal(0, noise, p.shape)).astype(np.float32)


THREE, OTHER = logits_of((0.5, 0.25, 0.25)), logits_of((0.25, 0.5, 0.25))


def test_with_everything_kept_the_divergence_is_that_of_three_tokens_by_hand() -> None:
    # 0.5 ln 2 + 0.25 ln 0.5 + 0.25 ln 1 = 0.25 ln 2
    found = compared(THREE, OTHER)
    assert found.divergence == pytest.approx([0.25 * log(2)], abs=1e-6)
    assert found.lower == found.upper == found.divergence
    assert found.variance == [0]


def test_the_lower_bound_merges_the_tokens_that_are_not_kept() -> None:
    # the first token, 0.5 ln 2, and the other two as one, 0.5 ln (0.5 / 0.75)
    found = compared(THREE, OTHER, most=1)
    assert found.lower == pytest.approx([0.5 * log(2) + 0.5 * log(0.5 / 0.75)], abs=1e-6)


def test_the_upper_bound_puts_the_rest_where_the_other_model_finds_least() -> None:
    # Σ p ln p over the two is 2 · 0.25 ln 0.25, and the other model's least is 0.25
    found = compared(THREE, OTHER, most=1)
    expected = 0.5 * log(2) + 0.5 * log(0.25) - 0.5 * log(0.25)
    assert found.upper == pytest.approx([expected], abs=1e-6)


def test_the_estimate_from_draws_has_the_exact_divergence_as_its_mean() -> None:
    p, q = random_pair(2, 1, 300, 0.7)
    many = 3_000
    found = compared(np.repeat(p, many, axis=0), np.repeat(q, many, axis=0), most=20, enough=0)
    error = np.sqrt(found.variance.mean() / many)
    assert 0 < error < 0.01 * exact(p, q)[0]
    assert abs(found.divergence.mean() - exact(p, q)[0]) < 4 * error


def test_the_stated_variance_is_that_of_the_estimates() -> None:
    p, q = random_pair(3, 1, 300, 0.7)
    found = compared(np.repeat(p, 3_000, axis=0), np.repeat(q, 3_000, axis=0), most=20, enough=0)
    assert found.variance.mean() == pytest.approx(found.divergence.var(), rel=0.15)


@given(
    st.integers(0, 10_000),
    st.integers(2, 60),
    st.floats(0, 4),
    st.integers(1, 60),
    st.sampled_from([0.0, 1e-4, 0.05]),
)
def test_the_exact_divergence_lies_between_the_bounds(
    seed: int, size: int, noise: float, most: int, enough: float
) -> None:
    p, q = random_pair(seed, 5, size, noise)
    found = compared(p, q, most=most, enough=enough)
    assert (found.lower <= exact(p, q) + 1e-5).all()
    assert (exact(p, q) <= found.upper + 1e-5).all()
    assert (found.lower <= found.divergence + 1e-12).all()


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 60))
def test_a_model_has_no_divergence_from_itself(seed: int, size: int, most: int) -> None:
    p, _ = random_pair(seed, 4, size, 0)
    assert compared(p, p, most=most).divergence == pytest.approx(np.zeros(4), abs=1e-5)


def test_tokens_that_float32_cannot_tell_from_0_leave_the_lower_bound_one() -> None:
    p = np.array([[0, -10, -10]], np.float32)
    q = np.array([[0, -300, -400]], np.float32)
    found = compared(p, q, most=1, enough=0)
    assert 0 < found.lower[0] <= exact(p, q)[0] <= found.upper[0]


def test_no_more_are_kept_once_the_others_have_too_little_together() -> None:
    kept = kept_of(logits_of((0.9, 0.05, 0.04, 0.009, 0.001)), enough=0.02)
    assert kept.counts.tolist() == [3]
    assert kept.rest == pytest.approx([0.01], rel=1e-5)


def test_no_more_are_kept_than_the_most() -> None:
    kept = kept_of(logits_of((0.3, 0.25, 0.2, 0.15, 0.1)), most=2)
    assert kept.counts.tolist() == [2]
    assert kept.ids.tolist() == [0, 1]
    assert kept.log_p == pytest.approx([log(0.3), log(0.25)], abs=1e-6)


def test_each_position_keeps_as_many_as_it_needs() -> None:
    kept = kept_of(logits_of((0.97, 0.02, 0.01), (0.4, 0.3, 0.3)), enough=0.05)
    assert kept.counts.tolist() == [1, 3]
    assert kept.ids[0] == 0


def test_the_rest_is_stored_with_its_part_of_the_entropy() -> None:
    kept = kept_of(logits_of((0.5, 0.3, 0.15, 0.05)), most=2)
    assert kept.rest == pytest.approx([0.2], rel=1e-5)
    assert kept.rest_log == pytest.approx([0.15 * log(0.15) + 0.05 * log(0.05)], rel=1e-5)


def test_only_tokens_that_are_not_kept_are_drawn_as_often_as_they_are_likely() -> None:
    p = np.repeat(logits_of((0.5, 0.3, 0.15, 0.05)), 2_000, axis=0)
    drawn = kept_of(p, most=2, num_drawn=4).drawn_ids
    counts = np.bincount(drawn.ravel(), minlength=4)
    assert counts[:2].tolist() == [0, 0]
    assert counts[2] / counts.sum() == pytest.approx(0.75, abs=0.02)


def test_the_token_that_follows_has_its_exact_log_probability_kept_or_not() -> None:
    p, q = random_pair(5, 6, 50, 1.0)
    following = ids(0, 7, 11, 30, 49, 3)
    found = distances(kept_of(p, following, most=1), q, following)
    rows = np.arange(6)
    for log_p, logits in ((found.next_log_p, p), (found.next_log_q, q)):
        expected = log_softmax(logits.astype(np.float64), axis=1)[rows, following]
        assert log_p == pytest.approx(expected, abs=2e-6)


def test_the_same_top_token_is_the_same_most_likely_one() -> None:
    p = logits_of((0.6, 0.3, 0.1), (0.2, 0.3, 0.5))
    q = logits_of((0.4, 0.35, 0.25), (0.5, 0.3, 0.2))
    assert compared(p, q).is_same_top.tolist() == [True, False]


def test_of_equally_likely_tokens_the_first_is_the_top_one() -> None:
    p = np.zeros((1, 40), np.float32)
    q = np.zeros((1, 40), np.float32)
    assert compared(p, q, most=3).is_same_top.tolist() == [True]


def test_blocks_of_positions_come_to_the_same_as_all_at_once() -> None:
    p, q = random_pair(6, 100, 80, 1.0)
    following = np.arange(100, dtype=np.int32) % 80
    kept = kept_of(p, following, most=10)
    whole = distances(kept, q, following)
    parts = [kept.part(0, 37), kept.part(37, 100)]
    joint = joined(parts)
    for name in Kept.__slots__:
        assert np.array_equal(getattr(joint, name), getattr(kept, name)), name
    second = distances(parts[1], q[37:], following[37:])
    for name in Distances.__slots__:
        assert np.array_equal(getattr(second, name), getattr(whole, name)[37:]), name
