"""The spread over prompts and the interaction of two steps, computed by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import MedlocalError
from medlocal.evals.answers import Outcome
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.spread import interactions, prompt_spreads
from medlocal.evals.stats import wilson
from tests.evals.answer_values import an_answer, answers_of


class TestPromptSpread:
    # Right: 4, 2 and 3 of 4. Mean 3/4; deviations 1/4, -1/4, 0; squares 2/16, of two: sd 1/4.
    ANSWERS = (
        *answers_of("original", "0000", prompt="plain"),
        *answers_of("original", "0110", prompt="exam"),
        *answers_of("original", "00-0", prompt="formal"),
    )

    def test_by_hand(self) -> None:
        (row,) = prompt_spreads(self.ANSWERS)
        assert (row.n, row.excluded, row.incomplete) == (4, 0, 0)
        assert row.accuracy is not None
        assert dict(row.accuracy.rates) == {
            "exam": wilson(2, 4),
            "formal": wilson(3, 4),
            "plain": wilson(4, 4),
        }
        assert (row.accuracy.mean, row.accuracy.sd) == (0.75, 0.25)
        assert row.accuracy.worst == ("exam", wilson(2, 4))
        assert row.accuracy.best == ("plain", wilson(4, 4))
        assert row.accuracy.range == 0.5

    def test_compliance_has_a_spread_of_its_own(self) -> None:
        """The unread answer is the only one that is not in the form: 1, 1 and 3/4."""
        (row,) = prompt_spreads(self.ANSWERS)
        assert row.compliance is not None
        assert row.compliance.mean == pytest.approx(11 / 12)
        assert row.compliance.worst == ("formal", wilson(3, 4))
        assert row.compliance.best == ("exam", wilson(4, 4))

    def test_arms_that_generate_nothing_have_no_compliance(self) -> None:
        scored = {"arm": "label", "outcome": Outcome.SCORED}
        answers = [a for p in ("a", "b") for a in answers_of("original", "01", prompt=p, **scored)]
        (row,) = prompt_spreads(answers)
        assert row.compliance is None
        assert row.accuracy is not None

    def test_only_items_with_an_answer_under_all_prompts_are_in(self) -> None:
        answers = [
            *answers_of("original", "0000 ", prompt="plain"),
            *answers_of("original", "01!  0", prompt="exam"),
        ]
        (row,) = prompt_spreads(answers)
        assert (row.n, row.excluded, row.incomplete) == (2, 1, 2)
        assert row.accuracy is not None
        assert row.accuracy.mean == 0.75

    def test_without_such_items_there_is_a_row_without_values(self) -> None:
        answers = [
            *answers_of("original", "0!", prompt="plain"),
            *answers_of("original", " 0", prompt="exam"),
        ]
        (row,) = prompt_spreads(answers)
        assert (row.n, row.excluded, row.incomplete) == (0, 1, 1)
        assert (row.accuracy, row.compliance) == (None, None)

    def test_needs_two_prompts(self) -> None:
        assert prompt_spreads(answers_of("original", "00")) == []

    def test_perturbed_items_are_not_in_it(self) -> None:
        answers = [*answers_of("original", "0"), *answers_of("upper", "0", prompt="exam")]
        assert prompt_spreads(answers) == []

    def test_an_item_answered_twice_is_refused(self) -> None:
        answers = [an_answer(), an_answer(), an_answer(prompt="exam")]
        with pytest.raises(MedlocalError, match="answered twice"):
            prompt_spreads(answers)

    def test_prompts_that_agree_on_every_item_have_no_spread(self) -> None:
        answers = [a for p in "abc" for a in answers_of("original", "0101", prompt=p)]
        (row,) = prompt_spreads(answers)
        assert row.accuracy is not None
        spread = row.accuracy
        assert (spread.sd, spread.range, spread.low, spread.high) == (0.0, 0.0, 0.0, 0.0)
        assert (spread.worst[0], spread.best[0]) == ("a", "a")

    def test_the_interval_of_two_prompts_is_that_of_their_difference(self) -> None:
        """300 of 1,000 items only "b" gets right, 100 only "a": 0.2 ± 1.96 · sqrt(0.36 / 1,000)."""
        answers = [
            *answers_of("original", "1" * 300 + "0" * 100 + "0" * 600, prompt="a"),
            *answers_of("original", "0" * 300 + "1" * 100 + "0" * 600, prompt="b"),
        ]
        (row,) = prompt_spreads(answers)
        assert row.accuracy is not None
        assert (row.accuracy.low, row.accuracy.high) == pytest.approx((0.1628, 0.2372), abs=2.5e-3)

    def test_the_interval_is_clustered_by_source_item(self) -> None:
        """Of two source items one is right under "a", one under "b": drawing one twice shows all."""
        answers = []
        for prompt, number in product("ab", range(20)):
            group = "up" if number < 10 else "down"
            chosen = 0 if (group == "up") == (prompt == "a") else 1
            answers.append(an_answer(f"q{number}", chosen=chosen, prompt=prompt, group_id=group))
        (row,) = prompt_spreads(answers)
        assert row.accuracy is not None
        assert (row.accuracy.range, row.accuracy.low, row.accuracy.high) == (0.0, 0.0, 1.0)


def four(original: str, first: str, second: str, both: str) -> list[GradedAnswer]:
    return [
        *answers_of("original", original),
        *answers_of("upper", first),
        *answers_of("rotate(1)", second),
        *answers_of("upper+rotate(1)", both),
    ]


class TestInteraction:
    def test_by_hand(self) -> None:
        """Right: 8, 6, 7 and 3 of 8. Δ_A = -2/8, Δ_B = -1/8, Δ_AB = -5/8: -2/8 beyond the sum."""
        (row,) = interactions(four("00000000", "11000000", "00000001", "11111000"))
        assert (row.variant, row.first, row.second) == ("upper+rotate(1)", "upper", "rotate(1)")
        assert (row.n, row.excluded, row.verified) == (8, 0, True)
        assert (row.delta_first, row.delta_second, row.delta_both) == (-0.25, -0.125, -0.625)
        assert row.interaction == -0.25

    def test_steps_that_add_up_on_every_item_have_none(self) -> None:
        (row,) = interactions(four("0000", "1000", "0100", "1100"))
        assert row.interaction == 0.0

    def test_five_items_beyond_the_sum_are_too_few_for_an_interval(self) -> None:
        """Five of five in one direction have p = 0.0625 by the sign test, six of six 0.03125."""
        (five,) = interactions(four("00000000", "00000000", "00000000", "11111000"))
        assert (five.interaction, five.low, five.high) == (-0.625, None, None)
        (six,) = interactions(four("00000000", "00000000", "00000000", "11111100"))
        assert six.low is not None
        assert six.high is not None
        assert six.high < 0

    def test_only_items_with_all_four_are_in(self) -> None:
        (row,) = interactions(four("0000 ", "00! 0", "00000", "01000"))
        assert (row.n, row.excluded) == (2, 1)
        assert row.interaction == -0.5

    @pytest.mark.parametrize("missing", ["original", "upper", "rotate(1)", "upper+rotate(1)"])
    def test_needs_all_four_variants(self, missing: str) -> None:
        answers = [a for a in four("00", "00", "00", "00") if a.variant != missing]
        assert interactions(answers) == []

    def test_only_excluded_items_give_a_row_without_values(self) -> None:
        (row,) = interactions(four("00", "!!", "00", "00"))
        assert (row.n, row.excluded) == (0, 2)
        assert (row.delta_first, row.interaction, row.low, row.high) == (None,) * 4

    def test_items_with_an_unverified_variant_are_apart(self) -> None:
        both = "nota_replaces_gold+rotate(1)"
        answers = [
            *answers_of("original", "000"),
            *answers_of("nota_replaces_gold", "00 "),
            *answers_of("nota_replaces_gold", "  1", verified=False),
            *answers_of("rotate(1)", "000"),
            *answers_of(both, "01 "),
            *answers_of(both, "  1", verified=False),
        ]
        rows = interactions(answers)
        assert [(row.verified, row.n, row.interaction) for row in rows] == [
            (True, 2, -0.5),
            (False, 1, 0.0),
        ]

    def test_the_interval_agrees_with_the_normal_approximation(self) -> None:
        """Of 2,000 items 500 break under the two together only: -0.25 ± 1.96 · sqrt(0.1875 / 2,000)."""
        right = "0" * 2000
        (row,) = interactions(four(right, right, right, "1" * 500 + "0" * 1500))
        assert (row.low, row.high) == pytest.approx((-0.26898, -0.23102), abs=1.5e-3)

    @given(st.lists(st.tuples(*[st.sampled_from("01")] * 4), min_size=1, max_size=10))
    def test_is_what_is_left_of_the_deltas(self, items: list[tuple[str, ...]]) -> None:
        original, first, second, both = ("".join(signs) for signs in zip(*items, strict=True))
        (row,) = interactions(four(original, first, second, both))
        rates = [
            np.mean([sign == "0" for sign in signs]) for signs in (original, first, second, both)
        ]
        expected = rates[3] - rates[0] - (rates[1] - rates[0]) - (rates[2] - rates[0])
        assert row.interaction == pytest.approx(expected)
