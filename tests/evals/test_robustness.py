"""Effects of variants and consistency, computed by hand for models whose answers follow a rule."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import MedlocalError
from medlocal.evals.answers import Outcome
from medlocal.evals.robustness import robustness, variant_effects
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import Rate, wilson
from tests.evals.answer_values import GOLD_AT, always_a, an_answer, answers_of

# Two variants, sixteen items, every pair of options once: what a model at chance does on average.
AT_CHANCE = [
    *answers_of("original", "0000111122223333"),
    *answers_of("upper", "0123012301230123"),
]


class TestVariantEffects:
    def test_by_hand(self) -> None:
        """Right in both, right to wrong twice, wrong to right, W→W′ three times, W→W once.

        W→W′: option 1 to 2, 1 to unread, unread to 1. One item is unread in both, which is no flip:
        there is no content that could. The last item but one was not asked properly in the original,
        the last one not at all.
        """
        answers = [*answers_of("original", "0001111--! "), *answers_of("upper", "01-021-1-00")]
        (effect,) = variant_effects(answers)
        assert (effect.variant, effect.family, effect.verified) == ("upper", "question", True)
        assert (effect.n, effect.excluded, effect.unpaired) == (9, 1, 1)
        assert (effect.original, effect.accuracy) == (wilson(3, 9), wilson(2, 9))
        assert effect.delta == pytest.approx(-1 / 9)
        assert (effect.b, effect.c, effect.wrong_to_other) == (2, 1, 3)
        assert (effect.right_to_wrong, effect.wrong_to_right) == (2, 1)
        assert (effect.num_unread, effect.num_unread_both) == (3, 1)
        assert effect.flip_rate == wilson(6, 9)
        assert (effect.chance, effect.original_chance) == (0.25, 0.25)
        assert effect.p == 1.0  # twice (1 + 3) of 8

    def test_a_model_at_chance_flips_three_times_in_four(self) -> None:
        """Of 16 pairs of options 4 are equal; right to wrong 3, wrong to right 3, the rest 6."""
        (effect,) = variant_effects(AT_CHANCE)
        assert (effect.b, effect.c, effect.wrong_to_other) == (3, 3, 6)
        assert effect.flip_rate == wilson(12, 16)
        assert effect.delta == 0.0

    def test_a_model_that_always_answers_a(self) -> None:
        """In the original it is right on q0 alone, and says option 0 everywhere.

        Where an item's gold stands already, the variant asks what the original asks and says nothing:
        q0 with the gold at A, q1 with the gold at B. With the gold at A the others turn right. With
        the gold at B q0 turns wrong, and q2 and q3 say another wrong option.
        """
        effects = variant_effects(always_a("original", *GOLD_AT))
        assert [effect.variant for effect in effects] == list(GOLD_AT)
        at_a, at_b = effects[:2]
        assert (at_a.n, at_a.num_verbatim) == (at_b.n, at_b.num_verbatim) == (3, 1)
        assert (at_a.b, at_a.c, at_a.wrong_to_other, at_a.delta) == (0, 3, 0, 1.0)
        assert at_a.p == 0.25
        assert (at_b.b, at_b.c, at_b.wrong_to_other) == (1, 0, 2)
        assert at_b.delta == pytest.approx(-1 / 3)
        assert at_b.flip_rate.value == 1.0

    def test_a_variant_that_changes_no_word_has_no_effect_to_show(self) -> None:
        answers = [
            *answers_of("original", "01", messages="the same"),
            *answers_of("label_style(A.)", "01", messages="the same"),
        ]
        assert variant_effects(answers) == []

    def test_fewer_options_are_easier_to_guess(self) -> None:
        """Four options without one: one in three."""
        answers = [
            *answers_of("original", "00"),
            *answers_of("drop_distractor", "00", num_options=3),
        ]
        (effect,) = variant_effects(answers)
        assert (effect.original_chance, effect.chance) == (0.25, 1 / 3)

    def test_holm_is_over_the_variants_of_a_family(self) -> None:
        """Six of six discordant: 2 / 64; five of five: 2 / 32. Alone in its family, the third stays."""
        answers = [
            *answers_of("original", "000000"),
            *answers_of("upper", "111111"),
            *answers_of("irrelevant_sentence", "111110"),
            *answers_of("rotate(1)", "111110"),
        ]
        effects = {effect.variant: effect for effect in variant_effects(answers)}
        assert [effect.p for effect in effects.values()] == [0.0625, 0.03125, 0.0625]
        assert effects["upper"].p_holm == 0.0625  # 2 x 0.03125
        assert effects["irrelevant_sentence"].p_holm == 0.0625  # 1 x 0.0625
        assert effects["rotate(1)"].p_holm == 0.0625

    def test_two_steps_are_a_family_of_their_own(self) -> None:
        answers = [
            *answers_of("original", "000000"),
            *answers_of("upper", "111111"),
            *answers_of("upper+rotate(1)", "111111"),
        ]
        effects = variant_effects(answers)
        assert [effect.family for effect in effects] == ["question", "two steps"]
        assert [effect.p_holm for effect in effects] == [0.03125, 0.03125]

    def test_what_has_nothing_to_test_is_no_test(self) -> None:
        answers = [
            *answers_of("original", "000000"),
            *answers_of("upper", "111111"),
            *answers_of("irrelevant_sentence", "!!!!!!"),
        ]
        empty, effect = variant_effects(answers)
        assert (empty.n, empty.excluded, empty.p, empty.p_holm) == (0, 6, None, None)
        assert (empty.delta, empty.low, empty.high) == (None, None, None)
        assert empty.accuracy == empty.flip_rate == Rate(None, None, None, 0)
        assert effect.p_holm == 0.03125

    def test_unverified_answers_are_never_pooled_with_verified_ones(self) -> None:
        changed = answers_of("nota_replaces_gold", "111 ")
        unverified = answers_of("nota_replaces_gold", "   0", verified=False)
        effects = variant_effects([*answers_of("original", "0000"), *changed, *unverified])
        assert [(e.verified, e.n, e.b) for e in effects] == [(True, 3, 3), (False, 1, 0)]
        assert [(e.p, e.p_holm) for e in effects] == [(0.25, 0.25), (1.0, 1.0)]

    def test_the_interval_is_clustered_by_source_item(self) -> None:
        """One source item of ten up, one of ten down: whole clusters move together."""
        answers = []
        for number in range(20):
            group = "up" if number < 10 else "down"
            before, after = (1, 0) if group == "up" else (0, 1)
            answers.append(an_answer(f"q{number}", "original", before, group_id=group))
            answers.append(an_answer(f"q{number}", "upper", after, group_id=group))
        (effect,) = variant_effects(answers)
        assert (effect.delta, effect.low, effect.high) == (0.0, -1.0, 1.0)

    @pytest.mark.parametrize("field", ["model", "dataset", "language", "prompt", "format", "arm"])
    def test_pairs_within_one_subject_only(self, field: str) -> None:
        changed = answers_of("upper", "0", **{field: "other"})
        assert variant_effects([*answers_of("original", "0"), *changed]) == []

    def test_an_item_answered_twice_is_refused(self) -> None:
        with pytest.raises(MedlocalError, match="q1 was answered twice by demo in the free arm"):
            variant_effects([an_answer(), an_answer(), an_answer(variant="upper")])

    def test_families_come_in_their_own_order(self) -> None:
        names = ["rotate(1)+next_label", "next_label", "labels(digits)", "rotate(2)", "rotate(1)"]
        names += ["upper", "nota_added", "instruction_language"]
        answers = [a for name in ["original", *names] for a in answers_of(name, "0")]
        effects = variant_effects(answers)
        assert [effect.variant for effect in effects] == [
            "instruction_language",
            "nota_added",
            "upper",
            "rotate(1)",
            "rotate(2)",
            "labels(digits)",
            "next_label",
            "rotate(1)+next_label",
        ]


class TestRobustness:
    def test_a_model_that_always_answers_a_is_never_consistent(self) -> None:
        """With the gold at A, B, C and D by rotation, A shows each of the four options once.

        So no two of an item's four variants have the same content: consistency is 0, though the
        label is the same in all. It is right with the gold at A only.
        """
        (row,) = robustness(always_a(*GOLD_AT))
        assert row.variants == GOLD_AT
        assert (row.n, row.fewest, row.most) == (4, 4, 4)
        assert (row.reacc, row.recon) == (wilson(0, 4), wilson(0, 4))
        none_of_four = wilson(0, 4)
        assert (row.pairwise, row.low, row.high) == (0.0, none_of_four.low, none_of_four.high)
        assert row.worst == ("gold_at(B)", wilson(0, 4))

    def test_one_question_under_two_names_is_one(self) -> None:
        """The original is one of the four rotations: to say the same to it is no consistency."""
        (row,) = robustness(always_a("original", *GOLD_AT))
        assert (row.fewest, row.most) == (4, 4)
        assert (row.reacc.value, row.recon.value, row.pairwise) == (0.0, 0.0, 0.0)

    def test_the_original_is_a_variant_too(self) -> None:
        (row,) = robustness([*answers_of("original", "01"), *answers_of("upper", "00")])
        assert (row.variants, row.pairwise) == (("original", "upper"), 0.5)

    def test_a_model_that_knows_everything_and_follows_no_format(self) -> None:
        answers = [
            answer
            for variant in ("original", "upper", "rotate(1)")
            for answer in answers_of(variant, "00000", outcome=Outcome.LENIENT_VALID)
        ]
        (row,) = robustness(answers)
        assert (row.reacc, row.recon) == (wilson(5, 5), wilson(5, 5))
        all_of_five = wilson(5, 5)
        assert (row.pairwise, row.low, row.high) == (1.0, all_of_five.low, all_of_five.high)
        assert row.worst == ("original", wilson(5, 5))

    def test_a_model_at_chance(self) -> None:
        """Right in both of two: one in sixteen; the same option in both: one in four."""
        (row,) = robustness(AT_CHANCE)
        assert (row.reacc, row.recon) == (wilson(1, 16), wilson(4, 16))
        assert row.pairwise == 0.25

    def test_an_invalid_answer_stays_in_and_equals_nothing(self) -> None:
        """q0: unread twice. q1: right, unread. q2: the same wrong option in both."""
        (row,) = robustness([*answers_of("original", "-01"), *answers_of("upper", "--1")])
        assert (row.n, row.num_excluded) == (3, 0)
        assert (row.reacc, row.recon) == (wilson(0, 3), wilson(1, 3))
        assert row.pairwise == pytest.approx(1 / 3)

    def test_items_with_more_variants_do_not_weigh_more(self) -> None:
        """q0: three variants, contents 0 0 1: one pair of three. q1: two variants alike: one of one."""
        answers = [
            *answers_of("original", "00"),
            *answers_of("upper", "00"),
            *answers_of("typos(0.1)", "1"),
        ]
        (row,) = robustness(answers)
        assert (row.fewest, row.most) == (2, 3)
        assert row.pairwise == pytest.approx((1 / 3 + 1) / 2)

    def test_answers_that_do_not_count_are_counted_beside(self) -> None:
        """q0 is whole. The others miss one, two and all of their answers and are left out."""
        answers = [
            *answers_of("original", "000!"),
            *answers_of("upper", "00!!"),
            *answers_of("rotate(1)", "0!!!"),
        ]
        (row,) = robustness(answers)
        assert (row.n, row.num_alone, row.num_incomplete, row.num_excluded) == (1, 0, 3, 6)

    def test_an_engine_that_fails_makes_no_model_robust(self) -> None:
        """Wrong in `rotate(1)` wherever it was asked: right in all its variants nowhere."""
        answers = [*answers_of("original", "00"), *answers_of("upper", "00")]
        (row,) = robustness([*answers, *answers_of("rotate(1)", "1!")])
        assert (row.n, row.reacc) == (1, wilson(0, 1))

    def test_without_an_item_to_compare_there_is_a_row_without_values(self) -> None:
        (row,) = robustness([*answers_of("original", "!0"), *answers_of("upper", "0!")])
        assert (row.n, row.num_alone, row.num_incomplete, row.num_excluded) == (0, 0, 2, 2)
        assert (row.fewest, row.most, row.variants) == (0, 0, ())
        assert (row.worst, row.pairwise, row.low, row.high) == (None, None, None, None)

    @pytest.mark.parametrize(
        "variant", ["hidden", "next_label", "upper_text", "upper+rotate(1)", "rotate(1)+next_label"]
    )
    def test_variants_that_are_not_meant_to_keep_the_answer_are_left_out(
        self, variant: str
    ) -> None:
        assert robustness([*answers_of("original", "0"), *answers_of(variant, "1")]) == []

    def test_saying_less_of_the_form_is_meant_to_keep_the_answer(self) -> None:
        (row,) = robustness([*answers_of("original", "0"), *answers_of("instruction(none)", "1")])
        assert row.recon.value == 0.0

    def test_unverified_answers_are_left_out(self) -> None:
        unverified = answers_of("foreign_distractor", "1", verified=False)
        answers = [*answers_of("original", "0"), *answers_of("upper", "0"), *unverified]
        (row,) = robustness(answers)
        assert row.variants == ("original", "upper")
        assert row.reacc.value == 1.0

    def test_the_worst_variant_is_the_least_accurate_one(self) -> None:
        answers = [
            *answers_of("original", "0001"),
            *answers_of("upper", "0111"),
            *answers_of("rotate(1)", "0011"),
        ]
        (row,) = robustness(answers)
        assert row.worst == ("upper", wilson(1, 4))

    def test_of_variants_as_bad_the_first_by_name_is_the_worst(self) -> None:
        variants = [("original", "00"), ("upper", "01"), ("rotate(1)", "10")]
        (row,) = robustness([a for name, chosen in variants for a in answers_of(name, chosen)])
        assert row.worst == ("rotate(1)", wilson(1, 2))

    def test_the_interval_of_pairwise_agrees_with_the_normal_approximation(self) -> None:
        """Half of 1,000 items consistent: 0.5 ± 1.96 · sqrt(0.25 / 1,000)."""
        answers = [*answers_of("original", "00" * 500), *answers_of("upper", "01" * 500)]
        (row,) = robustness(answers)
        assert (row.low, row.high) == pytest.approx((0.469, 0.531), abs=2e-3)

    def test_a_subject_asked_in_one_variant_has_no_row(self) -> None:
        assert robustness(answers_of("original", "0123")) == []


@st.composite
def answer_sets(draw: st.DrawFn) -> list[GradedAnswer]:
    signs = st.text(st.sampled_from("0123-! "), min_size=6, max_size=6)
    answers = []
    for variant in ("original", "upper", "rotate(1)", "drop_distractor", "hidden"):
        for answer in answers_of(variant, draw(signs)):
            is_verified = variant == "original" or draw(st.booleans())
            answers.append(replace(answer, verified=is_verified))
    return answers


@given(answer_sets(), st.randoms())
def test_laws(answers: list[GradedAnswer], random: Random) -> None:
    effects, rows = variant_effects(answers), robustness(answers)
    for effect in effects:
        kind = (effect.variant, effect.verified)
        asked = sum((answer.variant, answer.verified) == kind for answer in answers)
        assert effect.n + effect.excluded + effect.unpaired == asked
        if effect.n:
            assert effect.accuracy.value is not None
            assert effect.original.value is not None
            assert effect.p is not None
            assert effect.p_holm is not None
            assert effect.delta == pytest.approx(effect.accuracy.value - effect.original.value)
            assert effect.p <= effect.p_holm <= 1
    for row in rows:
        if row.n:
            values = (row.reacc.value, row.recon.value, row.pairwise)
            reacc, recon, pairwise = (value for value in values if value is not None)
            assert 0 <= reacc <= recon <= pairwise <= 1
            assert row.worst is not None
            assert row.worst[1].value is not None
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert variant_effects(shuffled) == effects
    assert robustness(shuffled) == rows
    others = [replace(answer, model="another") for answer in answers]
    assert variant_effects([*answers, *others])[len(effects) :] == effects
