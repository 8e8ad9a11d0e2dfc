"""Two models on the same questions, computed by hand."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import MedlocalError, UsageError
from medlocal.evals.answers import Outcome
from medlocal.evals.comparing import Comparison, ComparisonRow, OverallRow, PooledRow, compare
from medlocal.evals.stats import (
    Rate,
    clustered_wilson,
    mcnemar,
    smallest_detectable_difference,
    wilson,
)
from tests.evals.answer_values import a_failure, an_answer, answers_of

BASE: dict[str, Any] = {"model": "base"}
ADAPTED: dict[str, Any] = {"model": "adapted"}


def originals(first: str, second: str, **changes: object) -> Comparison:
    return compare(
        answers_of("original", first, **BASE, **changes),
        answers_of("original", second, **ADAPTED, **changes),
    )


def the_row(comparison: Comparison) -> ComparisonRow:
    (row,) = comparison.rows
    return row


def on_sets(*sets: str, first: str, second: str, **changes: Any) -> Comparison:
    """The same answers on several data sets."""
    sides = [
        [
            replace(answer, dataset=name, group_id=f"{name}/{answer.item_id}")
            for name in sets
            for answer in answers_of("original", chosen, **model, **changes)
        ]
        for chosen, model in ((first, BASE), (second, ADAPTED))
    ]
    return compare(sides[0], sides[1])


def the_overall(comparison: Comparison) -> OverallRow:
    (row,) = comparison.overall
    return row


def the_pool(comparison: Comparison) -> PooledRow:
    (row,) = comparison.pooled
    return row


class TestRow:
    def test_by_hand(self) -> None:
        """Both right 2, only the first 1, only the second 3, both wrong 4 (one of them alike)."""
        row = the_row(originals("000123123-!", "001000131-0"))
        assert (row.dataset, row.language, row.format, row.arm) == (
            "starter",
            "es",
            "letter",
            "free",
        )
        assert (row.prompt, row.n, row.excluded) == ("plain", 10, 1)
        assert (row.accuracy_first, row.accuracy_second) == (wilson(3, 10), wilson(5, 10))
        assert row.delta == pytest.approx(0.2)
        assert (row.b, row.c, row.right_to_wrong, row.wrong_to_right) == (1, 3, 1, 3)
        assert row.p == row.p_holm == pytest.approx(0.625)  # twice (1 + 4) of 16
        assert row.agreement == wilson(3, 10)
        assert row.verdict == "no difference shown"

    def test_compliance_of_both(self) -> None:
        first = [an_answer("q0", **BASE), an_answer("q1", outcome=Outcome.LENIENT_VALID, **BASE)]
        second = answers_of("original", "00", **ADAPTED)
        row = the_row(compare(first, second))
        assert (row.fcr_first, row.fcr_second) == (wilson(1, 2), wilson(2, 2))

    def test_arms_that_generate_nothing_have_no_compliance(self) -> None:
        row = the_row(originals("00", "01", arm="label", outcome=Outcome.SCORED))
        assert (row.fcr_first, row.fcr_second) == (None, None)

    @pytest.mark.parametrize(
        ("first", "second", "verdict"),
        [
            ("1" * 6, "0" * 6, "better"),  # 2 / 64
            ("0" * 6, "1" * 6, "worse"),
            ("1" * 5, "0" * 5, "no difference shown"),  # 2 / 32
            ("000000", "000000", "no difference shown"),
        ],
    )
    def test_verdict_is_of_the_second_against_the_first(
        self, first: str, second: str, verdict: str
    ) -> None:
        assert the_row(originals(first, second)).verdict == verdict

    def test_holm_is_over_data_sets(self) -> None:
        """p of 2 / 64 alone is a difference; as the smaller of two it is 4 / 64, and none."""
        first = answers_of("original", "111111", **BASE)
        second = answers_of("original", "000000", **ADAPTED)
        others = [
            [replace(answer, dataset="medqa") for answer in answers_of("original", "1", **model)]
            for model in (BASE, ADAPTED)
        ]
        other, row = compare([*first, *others[0]], [*second, *others[1]]).rows
        assert (other.dataset, other.p_holm) == ("medqa", 1.0)
        assert (row.p, row.p_holm, row.verdict) == (0.03125, 0.0625, "no difference shown")

    @pytest.mark.parametrize("field", ["language", "format", "arm"])
    def test_holm_is_within_language_format_and_arm(self, field: str) -> None:
        first = answers_of("original", "111111", **BASE)
        second = answers_of("original", "000000", **ADAPTED)
        changes: dict[str, Any] = {field: "other"}
        first += [replace(answer, **changes) for answer in first]
        second += [replace(answer, **changes) for answer in second]
        assert [row.p_holm for row in compare(first, second).rows] == [0.03125, 0.03125]

    def test_a_data_set_without_counted_pairs_is_no_test(self) -> None:
        first = [*answers_of("original", "111111", **BASE), a_failure(dataset="medqa", **BASE)]
        second = [
            *answers_of("original", "000000", **ADAPTED),
            an_answer(dataset="medqa", **ADAPTED),
        ]
        empty, row = compare(first, second).rows
        assert (empty.n, empty.excluded, empty.delta, empty.p, empty.p_holm) == (
            0,
            1,
            None,
            None,
            None,
        )
        assert (empty.accuracy_first, empty.smallest) == (Rate(None, None, None, 0), None)
        assert empty.verdict == "no difference shown"
        assert row.p_holm == 0.03125

    def test_smallest_difference_is_that_of_the_observed_discordance(self) -> None:
        """1,000 pairs of which 150 are discordant."""
        row = the_row(originals("0" * 900 + "1" * 100, "0" * 850 + "1" * 50 + "0" * 100))
        assert (row.n, row.b, row.c) == (1000, 50, 100)
        assert row.smallest == smallest_detectable_difference(1000, 0.15)

    @pytest.mark.parametrize(("b", "c"), [(0, 0), (2, 3), (0, 5), (0, 1)])
    def test_few_differences_on_many_items_are_not_few_questions(self, b: int, c: int) -> None:
        """Two models that are nearly alike, as a quantised one and the full one: 7.905 of 5,000."""
        first = "0" * b + "1" * c + "0" * (5000 - b - c)
        row = the_row(originals(first, "1" * b + "0" * c + "0" * (5000 - b - c)))
        assert row.verdict == "no difference shown"
        assert row.smallest == pytest.approx(0.00158, abs=1e-5)

    def test_what_could_be_shown_is_corrected_as_the_verdict_is(self) -> None:
        """150 of 1,000 discordant; three sets share the 5 %: 3.96 points instead of 3.43."""
        first, second = "0" * 900 + "1" * 100, "0" * 850 + "1" * 50 + "0" * 100
        alone, together = (
            originals(first, second),
            on_sets("x", "y", "z", first=first, second=second),
        )
        assert the_row(alone).num_tests == 1
        assert the_row(alone).smallest == pytest.approx(0.03427, abs=1e-5)
        assert [row.num_tests for row in together.rows] == [3, 3, 3]
        assert together.rows[0].smallest == pytest.approx(0.03957, abs=1e-5)

    def test_without_discordance_the_interval_has_a_width(self) -> None:
        """Five right for both: as wide as Wilson's interval of 5 of 5, 56.6 to 100 %."""
        row = the_row(originals("00000", "00000"))
        assert (row.low, row.high) == pytest.approx((-0.4345, 0.4345), abs=1e-4)

    def test_perturbed_items_are_not_in_it(self) -> None:
        comparison = compare(
            answers_of("upper", "00", **BASE), answers_of("upper", "01", **ADAPTED)
        )
        assert comparison.rows == ()

    def test_the_prompt_with_most_pairs_is_taken(self) -> None:
        first = [
            *answers_of("original", "000", **BASE),
            *answers_of("original", "0000", prompt="exam", **BASE),
        ]
        second = [
            *answers_of("original", "000", **ADAPTED),
            *answers_of("original", "11", prompt="exam", **ADAPTED),
        ]
        row = the_row(compare(first, second))
        assert (row.prompt, row.n, row.delta) == ("plain", 3, 0.0)

    def test_of_prompts_with_as_many_pairs_the_first_by_name_is_taken(self) -> None:
        first, second = (
            [a for p in ("formal", "exam") for a in answers_of("original", "00", prompt=p, **model)]
            for model in (BASE, ADAPTED)
        )
        assert the_row(compare(first, second)).prompt == "exam"

    def test_the_interval_agrees_with_the_normal_approximation(self) -> None:
        """1,500 up, 1,000 down, 7,500 alike: 0.05 ± 1.96 · sqrt((0.25 − 0.05²) / 10,000)."""
        row = the_row(originals("1" * 1500 + "0" * 8500, "0" * 1500 + "1" * 1000 + "0" * 7500))
        assert (row.low, row.high) == pytest.approx((0.04025, 0.05975), abs=5e-4)
        assert row.verdict == "better"


class TestOverall:
    def test_by_hand(self) -> None:
        """Two sets of five, one answer without a partner that counts: +1, +1, -1, 0, and the same."""
        row = the_overall(on_sets("x", "y", first="1100!", second="00100"))
        assert (row.language, row.format, row.arm, row.prompt) == ("es", "letter", "free", "plain")
        assert (row.datasets, row.n, row.excluded, row.num_items) == (("x", "y"), 8, 2, 8)
        assert (row.accuracy_first, row.accuracy_second) == (wilson(4, 8), wilson(6, 8))
        assert (row.delta, row.b, row.c) == (0.25, 2, 4)
        assert row.p == mcnemar(2, 4) == 0.6875  # twice (1 + 6 + 15) of 64
        assert row.verdict == "no difference shown"

    def test_sets_that_show_nothing_alone_may_show_something_together(self) -> None:
        """Three times 32 against 48 of 400: p = 0.093 each, 0.279 corrected, and 0.0023 together."""
        first = "0" * 32 + "1" * 48 + "0" * 160 + "1" * 160
        second = "1" * 32 + "0" * 48 + "0" * 160 + "1" * 160
        comparison = on_sets("x", "y", "z", first=first, second=second)
        assert {row.verdict for row in comparison.rows} == {"no difference shown"}
        row = the_overall(comparison)
        assert (row.n, row.b, row.c, row.verdict) == (1200, 96, 144, "better")
        assert row.p == pytest.approx(0.0023454, abs=1e-7)  # binomtest(96, 240)

    def test_what_it_could_show_is_what_one_test_of_all_shows(self) -> None:
        """240 of 1,200 discordant: 3.62 points, as the sample size of one test says."""
        first = "0" * 40 + "1" * 40 + "0" * 320
        second = "1" * 40 + "0" * 40 + "0" * 320
        row = the_overall(on_sets("x", "y", "z", first=first, second=second))
        assert row.smallest == pytest.approx(0.03613, abs=1e-5)

    def test_every_prompt_has_its_own(self) -> None:
        first, second = (
            [a for p in ("plain", "exam") for a in answers_of("original", "00", prompt=p, **model)]
            for model in (BASE, ADAPTED)
        )
        assert [row.prompt for row in compare(first, second).overall] == ["exam", "plain"]

    def test_items_of_one_source_are_one_unit(self) -> None:
        """Six items gained in two source items: p is 2 / 2², not 2 / 2⁶, and nothing could be shown."""
        first, second = (
            [
                replace(answer, group_id=f"source {number // 3}")
                for number, answer in enumerate(answers_of("original", chosen, **model))
            ]
            for chosen, model in (("1" * 6, BASE), ("0" * 6, ADAPTED))
        )
        row = the_overall(compare(first, second))
        assert (row.n, row.num_items, row.c) == (6, 2, 6)
        assert (row.p, row.verdict, row.smallest) == (0.5, "no difference shown", None)

    def test_pairs_without_a_counted_answer_give_a_row_without_values(self) -> None:
        row = the_overall(originals("!", "0"))
        assert (row.n, row.excluded, row.num_items, row.datasets) == (0, 1, 0, ())
        assert (row.delta, row.low, row.p, row.smallest) == (None, None, None, None)
        assert row.verdict == "no difference shown"

    def test_perturbed_items_are_not_in_it(self) -> None:
        sides = (answers_of("upper", "00", **BASE), answers_of("upper", "01", **ADAPTED))
        assert compare(*sides).overall == ()


class TestPairs:
    def test_what_has_no_partner_is_counted(self) -> None:
        comparison = originals("00000   ", "000  000")
        counts = (comparison.num_pairs, comparison.only_first, comparison.only_second)
        assert counts == (3, 2, 3)
        assert the_row(comparison).n == 3

    @pytest.mark.parametrize(
        "changes",
        [
            {"dataset": "medqa"},
            {"language": "en"},
            {"item_id": "other"},
            {"variant": "upper"},
            {"verified": False},
            {"prompt": "exam"},
            {"format": "json"},
            {"arm": "grammar"},
        ],
    )
    def test_partners_agree_in_all_that_was_asked(self, changes: dict[str, Any]) -> None:
        comparison = compare([an_answer(**BASE)], [replace(an_answer(**ADAPTED), **changes)])
        counts = (comparison.num_pairs, comparison.only_first, comparison.only_second)
        assert counts == (0, 1, 1)
        assert (comparison.rows, comparison.pooled) == ((), ())

    def test_partners_that_were_not_asked_the_same_are_counted(self) -> None:
        comparison = compare(
            answers_of("original", "000", **BASE),
            answers_of("original", "000", **ADAPTED),
            lambda first, second: first.item_id != "q1",
        )
        assert (comparison.num_pairs, comparison.different) == (2, 1)
        assert (comparison.only_first, comparison.only_second) == (0, 0)
        assert the_row(comparison).n == 2

    def test_the_models_are_named(self) -> None:
        comparison = originals("0", "0")
        assert (comparison.first, comparison.second) == ("base", "adapted")

    def test_a_side_may_be_empty(self) -> None:
        comparison = compare([], [an_answer()])
        assert (comparison.first, comparison.only_second, comparison.rows) == ("", 1, ())

    def test_a_side_of_several_models_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"several models .*: adapted, base"):
            compare([an_answer(**BASE), an_answer("q1", **ADAPTED)], [an_answer()])

    def test_a_question_answered_twice_is_refused(self) -> None:
        with pytest.raises(MedlocalError, match="q1 was answered twice by base"):
            compare([an_answer(**BASE), an_answer(**BASE)], [an_answer(**ADAPTED)])


class TestPool:
    def test_by_hand(self) -> None:
        """Two variants of three items: 6 pairs, one without an answer that counts; +1, +1, -1, 0, 0."""
        first = [*answers_of("original", "110", **BASE), *answers_of("upper", "00!", **BASE)]
        second = [*answers_of("original", "001", **ADAPTED), *answers_of("upper", "000", **ADAPTED)]
        row = the_pool(compare(first, second))
        assert (row.language, row.format, row.arm) == ("es", "letter", "free")
        assert (row.n, row.excluded, row.num_items) == (5, 1, 3)
        assert row.accuracy_first == clustered_wilson(3, [2, 2, 1])
        assert row.accuracy_second == clustered_wilson(4, [2, 2, 1])
        assert row.delta == pytest.approx(0.2)

    @pytest.mark.parametrize("variant", ["hidden", "next_label", "parallel", "rotate(1)+upper"])
    def test_what_does_not_keep_the_answer_is_not_in_it(self, variant: str) -> None:
        """Equal on the originals, and 30 of 40 apart in a variant that asks for something else."""
        first = [*answers_of("original", "0" * 40, **BASE), *answers_of(variant, "1" * 40, **BASE)]
        second = [
            *answers_of("original", "0" * 40, **ADAPTED),
            *answers_of(variant, "0" * 30 + "1" * 10, **ADAPTED),
        ]
        comparison = compare(first, second)
        assert comparison.num_pairs == 80
        row = the_pool(comparison)
        assert (row.n, row.delta, row.verdict) == (40, 0.0, "no difference shown")

    @pytest.mark.parametrize(
        "variant", ["upper", "shuffle", "labels(digits)", "instruction(none)", "drop_distractor"]
    )
    def test_single_steps_that_keep_the_answer_are_in_it(self, variant: str) -> None:
        sides = (answers_of(variant, "01", **BASE), answers_of(variant, "00", **ADAPTED))
        assert the_pool(compare(*sides)).n == 2

    def test_data_sets_and_prompts_are_pooled_and_languages_are_not(self) -> None:
        conditions: list[dict[str, Any]] = [
            {"dataset": "medqa", "group_id": "medqa/q0"},
            {"prompt": "exam"},
            {},
            {"language": "en"},
        ]
        first, second = ([an_answer(**model, **c) for c in conditions] for model in (BASE, ADAPTED))
        rows = compare(first, second).pooled
        assert [(row.language, row.n, row.num_items) for row in rows] == [
            ("en", 1, 1),
            ("es", 3, 2),
        ]

    def test_unverified_pairs_are_not_in_it(self) -> None:
        first, second = (
            [an_answer(**model), an_answer(variant="foreign_distractor", verified=False, **model)]
            for model in (BASE, ADAPTED)
        )
        comparison = compare(first, second)
        assert (comparison.num_pairs, the_pool(comparison).n) == (2, 1)

    def test_variants_of_an_item_do_not_narrow_the_interval(self) -> None:
        """Twenty items, 12 up and 8 down, once or in four variants: the same interval."""
        once = originals("1" * 12 + "0" * 8, "0" * 12 + "1" * 8)
        names = ("original", "upper", "rotate(1)", "rotate(2)")
        four_times = compare(
            [a for v in names for a in answers_of(v, "1" * 12 + "0" * 8, **BASE)],
            [a for v in names for a in answers_of(v, "0" * 12 + "1" * 8, **ADAPTED)],
        )
        assert the_pool(four_times).n == 80
        bounds = [(row.low, row.high) for row in (the_pool(once), the_pool(four_times))]
        assert bounds[0] == bounds[1]

    @pytest.mark.parametrize(
        ("first", "second", "verdict"),
        [
            ("1" * 40 + "0" * 60, "0" * 40 + "1" * 10 + "0" * 50, "better"),
            ("0" * 40 + "1" * 10 + "0" * 50, "1" * 40 + "0" * 60, "worse"),
            ("1" * 20 + "0" * 80, "0" * 20 + "1" * 18 + "0" * 62, "no difference shown"),
        ],
    )
    def test_verdict_is_of_the_second_against_the_first(
        self, first: str, second: str, verdict: str
    ) -> None:
        assert the_pool(originals(first, second)).verdict == verdict

    @pytest.mark.parametrize(
        ("num", "p", "verdict"), [(5, 0.0625, "no difference shown"), (6, 0.03125, "better")]
    )
    def test_five_source_items_show_nothing(self, num: int, p: float, verdict: str) -> None:
        """All on one side, in two variants each: by the sign test 2 / 32 with five, 2 / 64 with six."""
        first, second = (
            [a for v in ("original", "upper") for a in answers_of(v, sign * num, **model)]
            for sign, model in (("1", BASE), ("0", ADAPTED))
        )
        row = the_pool(compare(first, second))
        assert (row.n, row.p, row.verdict) == (2 * num, p, verdict)

    def test_the_verdict_is_that_of_an_exact_test(self) -> None:
        """Of eight items that differ one is lost: p = 2 · 9 / 256. A percentile interval of 500 items
        leaves out 0 for seven against one, which would be an error in 7 % of cases."""
        row = the_pool(originals("1" * 7 + "0" * 493, "0" * 7 + "1" + "0" * 492))
        assert (row.p, row.verdict) == (0.0703125, "no difference shown")

    def test_pairs_without_a_counted_answer_give_a_row_without_values(self) -> None:
        row = the_pool(originals("!", "0"))
        assert (row.n, row.excluded, row.num_items) == (0, 1, 0)
        assert (row.accuracy_first.value, row.delta, row.low, row.p) == (None, None, None, None)
        assert row.verdict == "no difference shown"


signs = st.text(st.sampled_from("01-! "), min_size=8, max_size=8)


@given(signs, signs, st.randoms())
def test_laws(first: str, second: str, random: Random) -> None:
    """The order of answers is of no consequence, and the other way round everything is mirrored."""
    base, adapted = (
        [a for v in ("original", "upper") for a in answers_of(v, side, **model)]
        for side, model in ((first, BASE), (second, ADAPTED))
    )
    there, back = compare(base, adapted), compare(adapted, base)
    assert there.num_pairs + there.only_first == len(base)
    assert there.num_pairs + there.only_second == len(adapted)
    for row, mirrored in zip(there.rows, back.rows, strict=True):
        assert (row.b, row.c, row.p, row.n) == (mirrored.c, mirrored.b, mirrored.p, mirrored.n)
        if row.delta is not None and mirrored.delta is not None:
            assert row.delta == -mirrored.delta
    for all_of, mirror in zip(there.overall, back.overall, strict=True):
        assert (all_of.b, all_of.p, all_of.smallest) == (mirror.c, mirror.p, mirror.smallest)
        assert all_of.n == sum(row.n for row in there.rows)
    random.shuffle(base)
    random.shuffle(adapted)
    assert compare(base, adapted) == there


def test_of_prompts_with_as_many_pairs_the_usual_one_is_compared() -> None:
    first, second = (
        [
            an_answer(f"q{number}", model=model, prompt=prompt)
            for number in range(3)
            for prompt in ("careful", "plain")
        ]
        for model in ("base", "adapted")
    )
    (row,) = compare(first, second).rows
    assert (row.prompt, row.n) == ("plain", 3)
