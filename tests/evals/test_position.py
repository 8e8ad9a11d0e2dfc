"""Position bias, computed by hand for models that prefer a place, or none."""

from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.errors import MedlocalError
from medlocal.evals.answers import Outcome
from medlocal.evals.position import PositionBias, position_bias
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import Rate, clustered_wilson, wilson
from tests.evals.answer_values import GOLD_AT, a_failure, always_a, an_answer


def at(item: str, variant: str, gold: int, chosen: int | None, **changes: object) -> GradedAnswer:
    """An answer by slots: where the right option stands, and which slot is chosen."""
    content = None if chosen is None else (chosen - gold) % 4
    return an_answer(item, variant, content, gold_slot=gold, slot=chosen, **changes)


class TestAlwaysA:
    def test_by_hand(self) -> None:
        """Right where the gold is at A, wrong elsewhere: recalls 1, 0, 0, 0, whose mean is 1/4.

        RStd = sqrt(((3/4)² + 3 · (1/4)²) / 4) = sqrt(12/64) = sqrt(3)/4. It chooses 1, 0, 0, 0 where
        1/4 each is right: half of 3/4 + 3 · 1/4 is 3/4.
        """
        (row,) = position_bias(always_a(*GOLD_AT))
        assert (row.num_slots, row.num_other, row.n, row.excluded) == (4, 0, 16, 0)
        assert row.recalls == (wilson(4, 4), wilson(0, 4), wilson(0, 4), wilson(0, 4))
        assert row.rstd == pytest.approx(3**0.5 / 4)
        assert (row.gold_shares, row.chosen_shares) == ((0.25,) * 4, (1.0, 0.0, 0.0, 0.0))
        assert row.total_variation == 0.75
        assert row.coverage == 1.0

    def test_every_resample_shows_the_same(self) -> None:
        """Each item has the gold once in every slot, so that whatever items are drawn agree."""
        (row,) = position_bias(always_a(*GOLD_AT))
        assert (row.rstd_low, row.rstd_high) == pytest.approx((3**0.5 / 4, 3**0.5 / 4))
        assert (row.total_variation_low, row.total_variation_high) == (0.75, 0.75)

    def test_the_original_alone_shows_it_as_well(self) -> None:
        (row,) = position_bias(always_a("original"))
        assert (row.rstd, row.total_variation) == pytest.approx((3**0.5 / 4, 0.75))


def test_a_model_that_knows_everything_has_no_bias() -> None:
    answers = [
        at(f"q{item}", variant, slot, slot, outcome=Outcome.LENIENT_VALID)
        for item, (slot, variant) in product(range(3), enumerate(GOLD_AT))
    ]
    (row,) = position_bias(answers)
    assert (row.rstd, row.rstd_low, row.rstd_high) == (0.0, 0.0, 0.0)
    assert (row.total_variation, row.total_variation_high) == (0.0, 0.0)


def test_a_model_at_chance_has_no_bias_where_every_slot_is_chosen_as_often() -> None:
    """Sixteen items: every gold slot with every choice once. Recalls of 1/4, shares of 1/4."""
    answers = [at(f"q{g}{c}", "original", g, c) for g, c in product(range(4), repeat=2)]
    (row,) = position_bias(answers)
    assert row.recalls == (wilson(1, 4),) * 4
    assert (row.rstd, row.total_variation) == (0.0, 0.0)


def test_an_unread_answer_is_wrong_and_chooses_nothing() -> None:
    """Gold A, B, C, D; chosen A, none, A, D. Of the three that chose: gold A, C, D and A, A, D."""
    answers = [
        at("q0", "original", 0, 0),
        at("q1", "original", 1, None),
        at("q2", "original", 2, 0),
        at("q3", "original", 3, 3),
    ]
    (row,) = position_bias(answers)
    assert (row.n, row.coverage) == (4, 0.75)
    assert [rate.value for rate in row.recalls] == [1.0, 0.0, 0.0, 1.0]
    assert row.rstd == 0.5
    assert row.gold_shares == pytest.approx((1 / 3, 0, 1 / 3, 1 / 3))
    assert row.chosen_shares == pytest.approx((2 / 3, 0, 0, 1 / 3))
    assert row.total_variation == pytest.approx(1 / 3)


def test_a_slot_that_is_never_gold_has_no_recall() -> None:
    """Recalls of 1 and 0 over two slots: their standard deviation is 1/2."""
    (row,) = position_bias([at("q0", "original", 0, 0), at("q1", "original", 1, 0)])
    assert row.recalls[2] == row.recalls[3] == Rate(None, None, None, 0)
    assert row.rstd == 0.5


def test_one_gold_slot_shows_no_spread() -> None:
    (row,) = position_bias([at("q0", "original", 0, 0), at("q1", "original", 0, 1)])
    assert (row.rstd, row.rstd_low, row.rstd_high) == (None, None, None)
    assert row.total_variation == 0.5


def test_answers_that_chose_nothing_have_no_shares() -> None:
    (row,) = position_bias([at("q0", "original", 0, None), at("q1", "original", 1, None)])
    assert (row.coverage, row.gold_shares, row.chosen_shares) == (0.0, (), ())
    assert (row.total_variation, row.total_variation_low) == (None, None)
    assert row.rstd == 0.0


def test_answers_that_do_not_count_are_counted_beside() -> None:
    (row,) = position_bias([at("q0", "original", 0, 0), a_failure("q1"), a_failure("q2")])
    assert (row.n, row.excluded) == (1, 2)


def test_only_answers_that_do_not_count_give_a_row_without_values() -> None:
    (row,) = position_bias([a_failure("q0"), a_failure("q1")])
    assert (row.n, row.coverage, row.rstd, row.total_variation) == (0, None, None, None)


def test_items_with_another_number_of_options_are_left_out_and_counted() -> None:
    answers = [at(f"q{number}", "original", number, 0) for number in range(4)]
    answers += [at("five", v, 0, 0, num_options=5) for v in ("original", "rotate(1)", "rotate(2)")]
    (row,) = position_bias(answers)
    assert (row.num_slots, row.num_other, row.n) == (4, 1, 4)


def test_of_numbers_that_are_as_common_the_smallest_is_taken() -> None:
    (row,) = position_bias([at("q0", "original", 0, 0, num_options=5), at("q1", "original", 0, 0)])
    assert (row.num_slots, row.num_other) == (4, 1)


def test_only_the_original_and_verified_variants_of_order_are_in() -> None:
    answers = [
        at("q0", "original", 0, 0),
        at("q0", "shuffle", 1, 0),
        at("q0", "upper", 0, 3),
        at("q0", "upper+rotate(1)", 1, 3),
        at("q0", "rotate(1)", 1, 3, verified=False),
    ]
    (row,) = position_bias(answers)
    assert (row.n, row.chosen_shares) == (2, (1.0, 0.0, 0.0, 0.0))


def test_recalls_allow_for_answers_of_one_item_being_alike() -> None:
    """Two items, each three times with the gold at A."""
    names = ("original", "shuffle", "gold_at(A)")
    answers = [at(item, name, 0, 0) for item, name in product(("q0", "q1"), names)]
    (row,) = position_bias(answers)
    assert row.recalls[0] == clustered_wilson(6, [3, 3])
    assert row.recalls[0].low == pytest.approx(wilson(2, 2).low)


def test_an_item_answered_twice_is_refused() -> None:
    with pytest.raises(MedlocalError, match="answered twice"):
        position_bias([an_answer(), an_answer()])


def simulated() -> list[GradedAnswer]:
    """Eighty items in two orders each, with a preference for the first slot."""
    rng = np.random.default_rng(11)
    answers = []
    for number in range(80):
        gold = int(rng.integers(4))
        for variant, slot in (("original", gold), ("rotate(2)", (gold + 2) % 4)):
            draw = rng.random()
            chosen = slot if draw < 0.4 else 0 if draw < 0.7 else int(rng.integers(4))
            answers.append(at(f"q{number}", variant, slot, None if draw > 0.95 else chosen))
    return answers


def test_intervals_agree_with_a_plain_resampling_of_items() -> None:
    answers = simulated()
    items = [[a for a in answers if a.item_id == f"q{number}"] for number in range(80)]
    rng = np.random.default_rng(5)
    rstds, variations = [], []
    for _ in range(1500):
        drawn = [answer for at_ in rng.integers(0, 80, 80) for answer in items[at_]]
        by_slot = [[a.correct for a in drawn if a.gold_slot == slot] for slot in range(4)]
        rstds.append(np.std([np.mean(found) for found in by_slot]))
        valid = [a for a in drawn if a.slot is not None]
        gold = np.bincount([a.gold_slot for a in valid], minlength=4) / len(valid)
        chosen = np.bincount([a.slot or 0 for a in valid], minlength=4) / len(valid)
        variations.append(np.abs(gold - chosen).sum() / 2)
    (row,) = position_bias(answers)
    oracle = np.quantile(rstds, [0.025, 0.975])
    assert (row.rstd_low, row.rstd_high) == pytest.approx(tuple(oracle), abs=0.012)
    oracle = np.quantile(variations, [0.025, 0.975])
    bounds = (row.total_variation_low, row.total_variation_high)
    assert bounds == pytest.approx(tuple(oracle), abs=0.012)


choices = st.lists(
    st.tuples(st.integers(0, 3), st.none() | st.integers(0, 3)), min_size=1, max_size=12
)


@settings(max_examples=40)  # each of them resamples twice
@given(choices, st.randoms())
def test_laws(chosen: list[tuple[int, int | None]], random: Random) -> None:
    answers = [at(f"q{n}", "original", *slots) for n, slots in enumerate(chosen)]
    (row,) = rows = position_bias(answers)
    assert isinstance(row, PositionBias)
    assert sum(rate.n for rate in row.recalls) == row.n
    found = [rate.value for rate in row.recalls if rate.value is not None]
    assert row.rstd == (pytest.approx(np.std(found), abs=1e-12) if len(found) > 1 else None)
    if row.total_variation is not None:
        assert 0 <= row.total_variation <= 1
        assert sum(row.gold_shares) == pytest.approx(1)
        assert sum(row.chosen_shares) == pytest.approx(1)
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert position_bias(shuffled) == rows
