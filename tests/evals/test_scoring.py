"""Rows and effects computed by hand from a small set of answers, and the laws that tie them together."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from medlocal.errors import MedlocalError
from medlocal.evals.answers import Outcome
from medlocal.evals.scoring import (
    NOT_ASKED,
    READABLE,
    GradedAnswer,
    baseline,
    constraint_effects,
    is_at_chance,
    score_rows,
)
from medlocal.evals.stats import Interval, Rate


def an_answer(item: str = "q1", **changes: object) -> GradedAnswer:
    answer = GradedAnswer(
        model="demo",
        dataset="starter",
        language="es",
        variant="original",
        prompt="plain-0",
        format="json",
        arm="free",
        item_id=item,
        group_id=f"starter/{item}",
        num_options=4,
        gold_slot=0,
        gold_content=0,
        outcome=Outcome.STRICT_VALID,
        content=0,
        correct=True,
        stats={},
    )
    return replace(answer, **changes)  # type: ignore[arg-type]


def no_answer(item: str, outcome: Outcome, **changes: object) -> GradedAnswer:
    return replace(an_answer(item, **changes), outcome=outcome, content=None, correct=False)


def wrong(item: str, content: int, **changes: object) -> GradedAnswer:
    return replace(an_answer(item, **changes), content=content, correct=False)


# Eight items: four of four options, four of five; the gold is in slots 0 1 1 1 2 0 3 2.
FREE = [
    an_answer("q1"),
    wrong("q2", 1, gold_slot=1),
    an_answer("q3", gold_slot=1, outcome=Outcome.LENIENT_VALID),
    no_answer("q4", Outcome.REFUSAL, gold_slot=1),
    no_answer("q5", Outcome.TRUNCATED, gold_slot=2, num_options=5),
    no_answer("q6", Outcome.UNPARSEABLE, num_options=5),
    no_answer("q7", Outcome.ENGINE_ERROR, gold_slot=3, num_options=5),
    an_answer("q8", gold_slot=2, num_options=5),
]
GRAMMAR = [
    an_answer("q1", arm="grammar", stats={"tax_nats": 0.5}),
    an_answer("q2", arm="grammar", stats={"tax_nats": 1.5}),
    wrong("q3", 1, arm="grammar", stats={"tax_nats": 4.0}),
    an_answer("q4", arm="grammar", stats={"tax_nats": 2.0}),
    wrong("q5", 2, arm="grammar", stats={"tax_nats": 1}),
    no_answer("q6", Outcome.CONSTRAINT_NOT_APPLIED, arm="grammar", stats={"tax_nats": 99.0}),
    an_answer("q7", arm="grammar"),
    an_answer("q8", arm="grammar"),
]
LABEL = [
    an_answer("q1", arm="label", outcome=Outcome.SCORED, stats={"label_mass": 0.5}),
    wrong("q2", 1, arm="label", outcome=Outcome.SCORED, stats={"label_mass": 0.9}),
    no_answer("q3", Outcome.ENGINE_ERROR, arm="label"),
]


def numbers(rate: Rate | None) -> tuple[float | None, ...]:
    return () if rate is None else (rate.value, rate.low, rate.high, rate.n)


def share(hits: int, n: int) -> object:
    """What `numbers` must be, by the oracle."""
    oracle = binomtest(hits, n).proportion_ci(method="wilson")
    return pytest.approx((hits / n, oracle.low, oracle.high, n))


class TestScoreRows:
    def test_free_arm_by_hand(self) -> None:
        (row,) = score_rows(FREE)
        assert (row.n, row.excluded) == (7, 1)
        assert numbers(row.fcr_strict) == share(3, 7)
        assert numbers(row.fcr_lenient) == share(4, 7)
        assert numbers(row.acc_strict) == share(2, 7)
        assert numbers(row.acc_lenient) == share(3, 7)
        assert numbers(row.acc_given_valid) == share(3, 4)
        assert row.coverage == 4 / 7
        assert row.chance == pytest.approx((4 / 4 + 3 / 5) / 7)
        assert row.majority == 3 / 7

    def test_outcomes_are_counted_in_the_order_of_judgement(self) -> None:
        (row,) = score_rows(FREE)
        assert list(row.outcomes.items()) == [
            ("ENGINE_ERROR", 1),
            ("TRUNCATED", 1),
            ("STRICT_VALID", 3),
            ("LENIENT_VALID", 1),
            ("REFUSAL", 1),
            ("UNPARSEABLE", 1),
        ]

    def test_scored_arm_has_no_form_to_follow(self) -> None:
        (row,) = score_rows(LABEL)
        assert (row.fcr_strict, row.fcr_lenient) == (None, None)
        assert row.acc_strict == row.acc_lenient == row.acc_given_valid
        assert numbers(row.acc_lenient) == share(1, 2)
        assert (row.coverage, row.excluded) == (1.0, 1)

    def test_an_answer_that_was_not_constrained_is_excluded(self) -> None:
        (row,) = score_rows(GRAMMAR)
        assert (row.n, row.excluded, row.outcomes["CONSTRAINT_NOT_APPLIED"]) == (7, 1, 1)

    def test_median_tax_and_mean_label_mass_come_from_answers_that_count(self) -> None:
        grammar, label = score_rows([*GRAMMAR, *LABEL])
        assert (grammar.median_tax_nats, grammar.mean_label_mass) == (1.5, None)
        assert label.median_tax_nats is None
        assert label.mean_label_mass == pytest.approx(0.7)
        assert grammar.tax_interval == label.label_mass_interval == Interval(None, None)

    def test_tax_and_label_mass_have_intervals_where_there_are_enough(self) -> None:
        """Of six measurements the median lies between the first and the last; the mean is 0.5 with a
        standard deviation of 0.0894, 2.571 · 0.0894 / √6 = 0.0939 (t with 5 degrees of freedom)."""
        masses = (0.4, 0.4, 0.5, 0.5, 0.6, 0.6)
        (row,) = score_rows(
            an_answer(f"q{n}", stats={"tax_nats": float(n), "label_mass": mass})
            for n, mass in enumerate(masses, start=1)
        )
        assert (row.median_tax_nats, row.tax_interval) == (3.5, Interval(1.0, 6.0))
        assert row.mean_label_mass == pytest.approx(0.5)
        bounds = (row.label_mass_interval.low, row.label_mass_interval.high)
        assert bounds == pytest.approx((0.5 - 0.0939, 0.5 + 0.0939), abs=2e-4)

    def test_only_excluded_answers_give_a_row_without_values(self) -> None:
        (row,) = score_rows([no_answer("q1", Outcome.ENGINE_ERROR)])
        assert (row.n, row.excluded) == (0, 1)
        assert row.acc_lenient == row.acc_given_valid == Rate(None, None, None, 0)
        assert (row.chance, row.majority, row.coverage, row.at_chance) == (None, None, None, False)

    def test_no_answers_give_no_rows(self) -> None:
        assert score_rows([]) == []

    def test_every_part_of_the_condition_makes_a_row(self) -> None:
        names = ("model", "dataset", "language", "variant", "prompt", "format", "arm")
        answers = [an_answer(), *(an_answer(**{name: "other"}) for name in names)]
        rows = score_rows(answers)
        assert len(rows) == 8
        assert {getattr(row, name) for row in rows for name in names} >= {"other"}

    def test_rows_stand_in_the_order_of_variants_formats_and_arms(self) -> None:
        answers = [
            an_answer(variant=variant, format=form, arm=arm)
            for variant in ("negated", "original")
            for form in ("json", "letter")
            for arm in ("label", "grammar", "free")
        ]
        rows = score_rows(answers)
        assert [row.variant for row in rows] == ["original"] * 6 + ["negated"] * 6
        assert [row.format for row in rows][:6] == ["letter"] * 3 + ["json"] * 3
        assert [row.arm for row in rows][:3] == ["free", "grammar", "label"]


class TestAtChance:
    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [(0.20, 0.30, True), (0.25, 0.30, True), (0.10, 0.20, True), (0.26, 0.40, False)],
    )
    def test_is_judged_by_the_lower_bound(self, low: float, high: float, expected: bool) -> None:
        assert is_at_chance(Rate((low + high) / 2, low, high, 100), 0.25) is expected

    def test_nothing_to_judge_is_no_finding(self) -> None:
        assert is_at_chance(Rate(None, None, None, 0), None) is False

    @pytest.mark.parametrize(("num_right", "expected"), [(27, True), (60, False)])
    def test_a_row_says_so(self, num_right: int, expected: bool) -> None:
        answers = [an_answer(f"q{n}", gold_slot=n % 4) for n in range(num_right)]
        answers += [wrong(f"q{n}", 1, gold_slot=n % 4) for n in range(num_right, 100)]
        assert score_rows(answers)[0].at_chance is expected

    def test_always_the_most_frequent_option_is_no_knowledge(self) -> None:
        """Yes, no, maybe in 276, 169 and 55 of 500: always yes is right in 55.2 % (50.8 to 59.5)."""
        golds = [0] * 276 + [1] * 169 + [2] * 55
        answers = [
            an_answer(f"q{n}", num_options=3, gold_slot=slot, correct=slot == 0)
            for n, slot in enumerate(golds)
        ]
        (row,) = score_rows(answers)
        assert row.chance == pytest.approx(1 / 3)
        assert (row.majority, row.baseline, row.at_chance) == (0.552, 0.552, True)

    def test_what_is_above_the_majority_too_is_knowledge(self) -> None:
        """300 of 500 are 60 % (55.6 to 64.2)."""
        golds = [0] * 276 + [1] * 169 + [2] * 55
        answers = [
            an_answer(f"q{n}", num_options=3, gold_slot=slot, correct=n < 300)
            for n, slot in enumerate(golds)
        ]
        (row,) = score_rows(answers)
        assert (row.baseline, row.at_chance) == (0.552, False)


class TestBaseline:
    @pytest.mark.parametrize(
        ("chance", "majority", "n", "expected"),
        [
            (0.25, 0.31, 100, 0.25),  # 22.8 to 40.6 %: by luck
            (0.25, 0.40, 100, 0.40),  # 30.9 to 49.8 %
            (0.25, 0.31, 1000, 0.31),  # 28.2 to 33.9 %
            (0.5, 1.0, 3, 0.5),  # 43.8 to 100 %
            (0.25, None, 100, 0.25),
            (None, None, 0, None),
        ],
    )
    def test_is_the_majority_where_that_is_shown_to_be_above_chance(
        self, chance: float | None, majority: float | None, n: int, expected: float | None
    ) -> None:
        assert baseline(chance, majority, n) == expected


class TestConstraintEffect:
    def test_by_hand(self) -> None:
        (effect,) = constraint_effects([*FREE, *GRAMMAR, *LABEL])
        assert (effect.n, effect.excluded) == (6, 2)
        assert (effect.b, effect.c, effect.p) == (1, 2, 1.0)
        assert effect.delta == 1 / 6
        assert numbers(effect.agreement) == share(2, 6)

    def test_its_accuracies_are_those_of_the_pairs(self) -> None:
        """q6 and q7 have no pair: 3 of 6 right when free, q1, q3 and q8; 4 with the grammar."""
        (effect,) = constraint_effects([*FREE, *GRAMMAR])
        assert numbers(effect.accuracy_free) == share(3, 6)
        assert numbers(effect.accuracy_grammar) == share(4, 6)
        assert effect.delta == pytest.approx(4 / 6 - 3 / 6)

    def test_what_was_forced_is_counted_apart(self) -> None:
        """q4 and q5 could not be read when free; q4 is right when forced, one of four options."""
        (effect,) = constraint_effects([*FREE, *GRAMMAR])
        assert numbers(effect.forced) == share(1, 2)
        assert effect.forced_chance == 1 / 4

    def test_where_all_could_be_read_nothing_was_forced(self) -> None:
        (effect,) = constraint_effects([an_answer(), an_answer(arm="grammar")])
        assert (effect.forced, effect.forced_chance) == (Rate(None, None, None, 0), None)

    def test_without_discordance_the_interval_has_a_width(self) -> None:
        """Five right in both: as wide as Wilson's interval of 5 of 5, 56.6 to 100 %."""
        answers = [an_answer(f"q{n}", arm=arm) for n in range(5) for arm in ("free", "grammar")]
        (effect,) = constraint_effects(answers)
        assert (effect.delta, effect.p) == (0.0, 1.0)
        assert (effect.low, effect.high) == pytest.approx((-0.4345, 0.4345), abs=1e-4)

    def test_the_interval_is_clustered_by_source_item(self) -> None:
        """Two source items, one up and one down: whole clusters move together."""
        answers = [
            an_answer(f"{source}{n}", arm=arm, group_id=source, correct=arm == winner)
            for source, winner in (("up", "grammar"), ("down", "free"))
            for n in range(10)
            for arm in ("free", "grammar")
        ]
        (effect,) = constraint_effects(answers)
        assert (effect.delta, effect.low, effect.high) == (0.0, -1.0, 1.0)

    def test_unreadable_answers_agree_with_nothing(self) -> None:
        free = no_answer("q1", Outcome.EMPTY)
        (effect,) = constraint_effects([free, replace(free, arm="grammar")])
        assert numbers(effect.agreement) == share(0, 1)

    def test_needs_both_arms(self) -> None:
        assert constraint_effects([*FREE, *LABEL]) == []

    def test_pairs_within_one_condition_only(self) -> None:
        assert constraint_effects([an_answer(), an_answer(arm="grammar", language="en")]) == []

    def test_only_excluded_pairs_give_an_effect_without_values(self) -> None:
        pair = [no_answer("q1", Outcome.ENGINE_ERROR), an_answer(arm="grammar")]
        (effect,) = constraint_effects(pair)
        assert (effect.n, effect.excluded, effect.p) == (0, 1, None)
        assert (effect.delta, effect.low, effect.high) == (None, None, None)
        assert effect.agreement == effect.accuracy_free == Rate(None, None, None, 0)

    def test_does_not_depend_on_what_else_is_scored(self) -> None:
        alone = constraint_effects([*FREE, *GRAMMAR])
        others = [replace(answer, model="another") for answer in [*FREE, *GRAMMAR]]
        assert constraint_effects([*FREE, *others, *GRAMMAR])[1:] == alone

    def test_refuses_an_item_answered_twice(self) -> None:
        with pytest.raises(MedlocalError, match="q1 was answered twice by demo in the free arm"):
            constraint_effects([an_answer(), an_answer(), an_answer(arm="grammar")])


@st.composite
def answer_sets(draw: st.DrawFn) -> list[GradedAnswer]:
    outcomes = [outcome for outcome in Outcome if outcome is not Outcome.SCORED]
    answers = []
    for number in range(draw(st.integers(1, 12))):
        for arm in ("free", "grammar"):
            outcome = draw(st.sampled_from(outcomes))
            if outcome not in READABLE:
                answers.append(no_answer(f"q{number}", outcome, arm=arm))
                continue
            content = draw(st.integers(0, 3))
            changes = {"arm": arm, "outcome": outcome, "content": content, "correct": content == 0}
            answers.append(an_answer(f"q{number}", **changes))
    return answers


@given(answer_sets(), st.randoms())
def test_laws(answers: list[GradedAnswer], random: Random) -> None:
    rows = score_rows(answers)
    for row in rows:
        assert sum(row.outcomes.values()) == row.n + row.excluded
        assert sum(row.outcomes.get(name, 0) for name in NOT_ASKED) == row.excluded
        if row.fcr_lenient and row.fcr_lenient.value:
            given_valid = row.acc_given_valid.value
            assert given_valid is not None
            assert row.acc_lenient.value == pytest.approx(row.fcr_lenient.value * given_valid)
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert score_rows(shuffled) == rows
    assert constraint_effects(shuffled) == constraint_effects(answers)
