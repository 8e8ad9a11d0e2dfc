"""Which part of a transformed answer was wrong: every cell of the table."""

import pytest

from medlocal.evals.answers import Outcome
from medlocal.evals.obedience import AnswerSplit, answer_splits, changes_answer
from medlocal.evals.stats import wilson
from tests.evals.answer_values import a_failure, an_answer, answers_of

LENIENT = {"outcome": Outcome.LENIENT_VALID}


def values(split: AnswerSplit) -> list[float | None]:
    rates = (split.right, split.wrong_form, split.wrong_knowledge, split.both_wrong, split.unread)
    return [None if rate is None else rate.value for rate in rates]


def test_every_part_by_hand() -> None:
    """Of 10: four right, three right but sloppy, one exact but wrong, one neither, one unread."""
    answers = [
        *answers_of("upper_text", "0000"),
        *answers_of("upper_text", "    000", **LENIENT),
        *answers_of("upper_text", "       2"),
        *answers_of("upper_text", "        3", **LENIENT),
        *answers_of("upper_text", "         -!"),
    ]
    (split,) = answer_splits(answers)
    assert (split.variant, split.verified, split.n, split.excluded) == ("upper_text", True, 10, 1)
    assert values(split) == [0.4, 0.3, 0.1, 0.1, 0.1]
    assert split.wrong_form == wilson(3, 10)


def test_the_original_is_split_into_right_wrong_and_unread() -> None:
    answers = [
        *answers_of("original", "001-"),
        *answers_of("original", "    02", **LENIENT),
        *answers_of("upper_text", "000000"),
    ]
    original, changed = answer_splits(answers)
    assert original.variant == "original"
    assert values(original) == [
        pytest.approx(3 / 6),
        None,
        pytest.approx(2 / 6),
        None,
        pytest.approx(1 / 6),
    ]
    assert changed.right.value == 1.0


def test_without_a_transformed_answer_there_is_no_split() -> None:
    assert answer_splits([*answers_of("original", "0"), *answers_of("upper", "0")]) == []


@pytest.mark.parametrize("arm", ["label", "cloze"])
def test_arms_that_generate_nothing_have_no_split(arm: str) -> None:
    answer = an_answer(variant="upper_text", arm=arm, outcome=Outcome.SCORED)
    assert answer_splits([answer]) == []


class TestNextLabel:
    """The gold stands in slot 2; its label, C, reads as slot 1, whose next label it is."""

    @pytest.mark.parametrize(
        ("original", "part"),
        [
            ("0", "wrong_form"),
            ("3", "wrong_knowledge"),
            ("-", "wrong_knowledge"),
            (" ", "wrong_form"),
        ],
    )
    def test_the_gold_label_is_knowledge_where_the_original_was_right(
        self, original: str, part: str
    ) -> None:
        answer = an_answer("q0", "next_label", 1, gold_slot=2, slot=1)
        split = answer_splits([*answers_of("original", original), answer])[-1]
        assert getattr(split, part).value == 1.0

    def test_an_original_that_was_not_asked_properly_says_nothing(self) -> None:
        answer = an_answer("q0", "next_label", 1, gold_slot=2, slot=1)
        split = answer_splits([a_failure("q0"), answer])[-1]
        assert split.wrong_form is not None
        assert split.wrong_form.value == 1.0

    def test_the_first_label_comes_after_the_last(self) -> None:
        """The gold is A: A is the label after D."""
        answer = an_answer("q0", "next_label", 3, gold_slot=0, slot=3)
        (split,) = answer_splits([answer])
        assert values(split) == [0.0, 1.0, 0.0, 0.0, 0.0]

    @pytest.mark.parametrize("slot", [0, 3])
    def test_another_label_is_wrong_knowledge(self, slot: int) -> None:
        answer = an_answer("q0", "next_label", slot + 1, gold_slot=2, slot=slot)
        (split,) = answer_splits([answer])
        assert values(split) == [0.0, 0.0, 1.0, 0.0, 0.0]

    @pytest.mark.parametrize(("original", "part"), [("0", "wrong_form"), ("3", "both_wrong")])
    def test_the_gold_label_in_a_sloppy_answer(self, original: str, part: str) -> None:
        answer = an_answer("q0", "next_label", 1, gold_slot=2, slot=1, **LENIENT)
        split = answer_splits([*answers_of("original", original), answer])[-1]
        assert getattr(split, part).value == 1.0

    def test_after_another_step_too(self) -> None:
        answer = an_answer("q0", "rotate(2)+next_label", 1, gold_slot=2, slot=1)
        (split,) = answer_splits([answer])
        assert split.wrong_form is not None
        assert split.wrong_form.value == 1.0

    def test_elsewhere_the_slot_before_the_gold_is_wrong_knowledge(self) -> None:
        (split,) = answer_splits([an_answer("q0", "append(!)", 1, gold_slot=2, slot=1)])
        assert split.wrong_knowledge.value == 1.0


def test_unverified_answers_are_split_apart() -> None:
    name = "nota_replaces_gold+next_label"
    answers = [*answers_of(name, "00"), *answers_of(name, "  1", verified=False, gold_slot=0)]
    verified, unverified = answer_splits(answers)
    assert (verified.verified, verified.n, verified.right.value) == (True, 2, 1.0)
    assert (unverified.verified, unverified.n, unverified.right.value) == (False, 1, 0.0)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("next_label", True),
        ("rotate(1)+append(#)", True),
        ("original", False),
        ("instruction(none)", False),
        ("upper+rotate(1)", False),
    ],
)
def test_which_variants_ask_for_a_transformed_answer(variant: str, expected: bool) -> None:
    assert changes_answer(variant) is expected


def test_the_parts_add_up() -> None:
    answers = [
        *answers_of("next_label", "0123-"),
        *answers_of("next_label", "     0123", **LENIENT),
    ]
    (split,) = answer_splits(answers)
    assert sum(value or 0 for value in values(split)) == pytest.approx(1)


def test_the_original_of_the_same_items_stands_beside() -> None:
    """The variant was asked of q0 and q1 only, of which q0 was right before."""
    answers = [*answers_of("original", "0100"), *answers_of("upper_text", "00  ")]
    original, split = answer_splits(answers)
    assert (original.original, original.right) == (None, wilson(3, 4))
    assert split.original == wilson(1, 2)
