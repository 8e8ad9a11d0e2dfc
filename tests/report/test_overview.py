"""What the first screen says, from rows written by hand: which model, how sure, and can it be parsed.

The intervals in the sentences are scipy's Wilson intervals of the counts.
"""

from dataclasses import replace
from typing import Any

import pytest

from medlocal.evals.comparing import Comparison, ComparisonRow
from medlocal.evals.robustness import Robustness
from medlocal.evals.scoring import ScoreRow, is_at_chance
from medlocal.evals.stats import wilson
from medlocal.report.overview import LanguageOverview, Lead, lead_of, overview
from medlocal.report.results import ModelPair, Report


def a_row(model: str = "general", hits: int = 60, n: int = 100, **changes: Any) -> ScoreRow:
    """A condition with four options to a question, asked under the grammar."""
    rate, none = wilson(hits, n), wilson(0, 0)
    row = ScoreRow(
        model=model,
        dataset="starter",
        language="en",
        variant="original",
        verified=True,
        prompt="plain",
        format="letter",
        arm="grammar",
        n=n,
        excluded=0,
        outcomes={},
        fcr_strict=none,
        fcr_lenient=none,
        acc_strict=rate,
        acc_lenient=rate,
        acc_given_valid=rate,
        coverage=1.0,
        chance=0.25,
        majority=0.3,
        median_tax_nats=None,
        mean_label_mass=None,
        at_chance=is_at_chance(rate, 0.25),
    )
    return replace(row, **changes)


def a_free_row(model: str = "general", strict: int = 12, lenient: int = 90) -> ScoreRow:
    """The same, free: how many answers of 100 are in the form, and can be read."""
    rates: dict[str, Any] = {"fcr_strict": wilson(strict, 100), "fcr_lenient": wilson(lenient, 100)}
    return a_row(model, 40, arm="free", **rates)


def a_comparison(b: int, c: int, n: int = 100, **changes: Any) -> ComparisonRow:
    """b questions that only the first model got right, c that only the second did."""
    delta = (c - b) / n
    row = ComparisonRow(
        dataset="starter",
        language="en",
        format="letter",
        arm="grammar",
        prompt="plain",
        n=n,
        excluded=0,
        accuracy_first=wilson(n // 2, n),
        accuracy_second=wilson(n // 2 + c - b, n),
        delta=delta,
        low=round(delta - 0.08, 4),
        high=round(delta + 0.08, 4),
        b=b,
        c=c,
        p=0.5,
        p_holm=0.5,
        fcr_first=None,
        fcr_second=None,
        agreement=wilson(n - b - c, n),
        verdict="no difference shown",
        smallest=None,
    )
    return replace(row, **changes)


def a_pair(first: str, second: str, *rows: ComparisonRow) -> ModelPair:
    return ModelPair(first, second, Comparison(first, second, rows, (), 100, 0, 0, 0))


def turned(row: ComparisonRow) -> ComparisonRow:
    """The same comparison with the models the other way round."""
    assert row.delta is not None
    assert row.low is not None
    assert row.high is not None
    names = {"better": "worse", "worse": "better"}
    return replace(
        row,
        delta=-row.delta,
        low=-row.high,
        high=-row.low,
        b=row.c,
        c=row.b,
        accuracy_first=row.accuracy_second,
        accuracy_second=row.accuracy_first,
        verdict=names.get(row.verdict, row.verdict),  # type: ignore[arg-type]
    )


def first_screen(*rows: ScoreRow, pairs: tuple[ModelPair, ...] = ()) -> LanguageOverview:
    (part,) = overview(Report((), rows, (), pairs=pairs))
    return part


BETTER = a_comparison(5, 20, verdict="better", p_holm=0.0041)
"""The second model is 15 points ahead of the first."""


class TestOneModel:
    def test_above_chance(self) -> None:
        part = first_screen(a_row(), a_free_row())
        assert part.headline == "English: general is better than guessing."
        assert part.sentences == (
            "general answers 60.0 % (50.2–69.1, n = 100) of the questions right; guessing gets"
            " 25.0 %.",
            "general's free answers can be parsed in part: 12.0 % (7.0–19.8, n = 100) are exactly"
            " in the form letter; an option can be read from 90.0 %.",
        )

    def test_at_chance(self) -> None:
        part = first_screen(a_row(hits=27))
        assert part.headline == ("English: general is not shown to know more than a guesser.")
        assert part.sentences == (
            "It answers 27.0 % (19.3–36.4, n = 100) of the questions right; guessing gets 25.0 %."
            " Do not rely on its answers.",
        )

    def test_a_line_holds_the_figures(self) -> None:
        (line,) = first_screen(a_row(), a_free_row()).lines
        assert (line.model, line.how, line.form) == ("general", "letter/grammar", "letter")
        assert (line.knowledge, line.chance, line.at_chance) == (wilson(60, 100), 0.25, False)
        assert (line.compliance, line.readable) == (wilson(12, 100), wilson(90, 100))
        assert (line.robust, line.num_variants) == (None, 0)

    def test_data_sets_are_taken_together_by_their_questions(self) -> None:
        """30 of 40 and 45 of 60 are 75 of 100; chance is a quarter for 40 and a fifth for 60."""
        rows = (
            a_row(hits=30, n=40),
            a_row(hits=45, n=60, dataset="other", chance=0.2),
        )
        (line,) = first_screen(*rows).lines
        assert line.knowledge == wilson(75, 100)
        assert line.chance == pytest.approx(0.22)

    def test_another_variant_prompt_or_format_is_not_counted_with_it(self) -> None:
        others = (
            a_row(hits=0, variant="hidden"),
            a_row(hits=0, prompt="exam"),
            a_row(hits=0, format="json"),
        )
        (line,) = first_screen(*others, a_row()).lines
        assert line.knowledge == wilson(60, 100)

    @pytest.mark.parametrize(
        ("strict", "verdict"),
        [
            (100, "can be parsed: 100.0 % (96.3–100.0, n = 100)"),
            (99, "can be parsed in part: 99.0 % (94.6–99.8, n = 100)"),
            (1, "can be parsed in part: 1.0 % (0.2–5.4, n = 100)"),
            (0, "cannot be parsed as they are: 0.0 % (0.0–3.7, n = 100)"),
        ],
    )
    def test_whether_its_answers_can_be_parsed(self, strict: int, verdict: str) -> None:
        said = first_screen(a_row(), a_free_row(strict=strict)).sentences[-1]
        assert said.startswith(f"general's free answers {verdict} are exactly in the form letter")

    def test_where_nothing_was_asked_freely_nothing_is_said_of_it(self) -> None:
        part = first_screen(a_row())
        assert len(part.sentences) == 1
        assert (part.lines[0].compliance, part.lines[0].form) == (None, "")

    def test_how_many_it_gets_right_in_all_variants(self) -> None:
        robust = Robustness(
            model="general",
            dataset="starter",
            language="en",
            prompt="plain",
            format="letter",
            arm="grammar",
            variants=("original", "upper", "rotate(1)"),
            n=100,
            fewest=2,
            most=3,
            num_alone=0,
            num_excluded=0,
            reacc=wilson(35, 100),
            recon=wilson(50, 100),
            worst=("upper", wilson(50, 100)),
            pairwise=0.6,
            low=0.5,
            high=0.7,
        )
        freely = replace(robust, arm="free", reacc=wilson(1, 100))
        (part,) = overview(Report((), (a_row(),), (), robustness=(freely, robust)))
        assert part.sentences[-1] == (
            "general answers 35.0 % (26.4–44.7, n = 100) of the questions right in all of up to 3"
            " variants of them."
        )
        assert (part.lines[0].robust, part.lines[0].num_variants) == (wilson(35, 100), 3)


class TestTwoModels:
    ROWS = (a_row("general", 55), a_row("clinical", 70))

    def test_a_better_one_is_to_be_used(self) -> None:
        part = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", BETTER),))
        assert part.headline == "English: use clinical."
        assert part.sentences == (
            "clinical answers 70.0 % (60.4–78.1, n = 100) of the questions right; guessing gets"
            " 25.0 %.",
            "It is better than general: +15.0 points (+7.0 to +23.0, n = 100, p = 0.004).",
        )
        assert [line.model for line in part.lines] == ["clinical", "general"]

    def test_no_difference_shown_says_what_could_have_been(self) -> None:
        """At 27 % discordance 100 questions show 14.4 points: it solves the sample size's formula."""
        row = a_comparison(12, 15, p_holm=0.701)
        part = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", row),))
        assert part.headline == ("English: no difference is shown between clinical and general.")
        assert part.sentences[1] == (
            "clinical against general: +3.0 points (−5.0 to +11.0, n = 100, p = 0.701);"
            " this many questions could show 14.4 points or more."
        )

    def test_too_few_questions_to_show_anything(self) -> None:
        """Ten with no discordance: at 20 % it would take 35 points, and 20 is the most there is."""
        row = a_comparison(0, 0, 10, p_holm=1.0)
        part = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", row),))
        assert part.sentences[1].endswith("; too few questions to show any difference.")

    @pytest.mark.parametrize("row", [BETTER, a_comparison(12, 15)])
    def test_the_difference_is_told_for_the_best_whichever_is_first(
        self, row: ComparisonRow
    ) -> None:
        ahead = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", row),))
        behind = first_screen(*self.ROWS, pairs=(a_pair("clinical", "general", turned(row)),))
        assert (ahead.headline, ahead.sentences) == (behind.headline, behind.sentences)

    def test_not_asked_the_same_questions(self) -> None:
        expected = (
            "English: clinical has the highest accuracy.",
            "It was not asked the same questions as general: nothing is shown about the two.",
        )
        nothing = a_comparison(12, 15)
        elsewhere = replace(nothing, arm="free"), replace(nothing, language="es")
        for pairs in ((), (a_pair("general", "clinical", *elsewhere),)):
            part = first_screen(*self.ROWS, pairs=pairs)
            assert (part.headline, part.sentences[1]) == expected

    def test_of_several_data_sets_only_one_shows(self) -> None:
        rows = (BETTER, a_comparison(6, 9, dataset="other", p_holm=0.61))
        part = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", *rows),))
        assert part.headline == (
            "English: clinical is shown to be better than general on starter only."
        )
        assert part.sentences[1] == (
            "clinical against general: +15.0 points on starter (+7.0 to +23.0, n = 100, p = 0.004);"
            " +3.0 points on other (−5.0 to +11.0, n = 100, p = 0.610)."
        )

    def test_better_on_one_data_set_and_worse_on_another(self) -> None:
        worse = a_comparison(18, 4, dataset="other", verdict="worse", p_holm=0.009)
        part = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", BETTER, worse),))
        assert part.headline == (
            "English: clinical is shown to be better than general on starter, and worse on other."
        )
        assert "−14.0 points on other (−22.0 to −6.0, n = 100, p = 0.009)" in part.sentences[1]

    def test_the_other_one_is_better_on_the_only_data_set_that_shows(self) -> None:
        """The accuracy over both sets may favour one, and a single set show that the other is better."""
        worse = a_comparison(18, 4, dataset="other", verdict="worse", p_holm=0.009)
        rows = (a_comparison(6, 9), worse)
        part = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", *rows),))
        assert part.headline == (
            "English: general is shown to be better than clinical on other only."
        )

    def test_better_on_all_data_sets(self) -> None:
        rows = (BETTER, replace(BETTER, dataset="other"))
        part = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", *rows),))
        assert part.headline == "English: use clinical."

    def test_both_at_chance(self) -> None:
        part = first_screen(a_row("general", 20), a_row("clinical", 27))
        assert part.headline == "English: no model is shown to know more than a guesser."
        assert part.sentences == (
            "The best, clinical, answers 27.0 % (19.3–36.4, n = 100) of the questions right;"
            " guessing gets 25.0 %. Do not rely on their answers.",
        )

    def test_a_lucky_one_of_few_questions_does_not_hide_one_that_is_above_chance(self) -> None:
        """3 of 5 are 60 %, with a lower bound of 23.1 %; 55 of 100 are fewer and shown."""
        part = first_screen(a_row("lucky", 3, 5), a_row("general", 55))
        assert [line.model for line in part.lines] == ["general", "lucky"]
        assert "no model" not in part.headline

    def test_each_is_told_how_its_answers_can_be_parsed_the_best_first(self) -> None:
        rows = (*self.ROWS, a_free_row("general", 0), a_free_row("clinical", 100))
        *_, clinical, general = first_screen(*rows).sentences
        assert clinical.startswith("clinical's free answers can be parsed: ")
        assert general.startswith("general's free answers cannot be parsed as they are: ")


class TestLanguages:
    def test_each_has_its_own_verdict_in_the_order_of_the_rows(self) -> None:
        rows = (a_row(language="es", hits=27), a_row(language="en"))
        parts = overview(Report((), rows, ()))
        assert [part.headline for part in parts] == [
            "Spanish: general is not shown to know more than a guesser.",
            "English: general is better than guessing.",
        ]

    def test_a_language_in_which_nothing_counts_is_left_out(self) -> None:
        empty = a_row(language="es", n=0, hits=0, chance=None)
        assert [p.language for p in overview(Report((), (empty, a_row()), ()))] == ["en"]

    def test_a_report_of_nothing_says_nothing(self) -> None:
        assert overview(Report((), (), ())) == ()

    def test_a_name_cannot_bring_control_characters(self) -> None:
        part = first_screen(a_row("evil\x1b[31m\u202e"), a_free_row("evil\x1b[31m\u202e"))
        assert part.headline == "English: evil[31m is better than guessing."
        assert not any("\x1b" in said or "\u202e" in said for said in part.sentences)


class TestLead:
    @pytest.mark.parametrize(
        ("arms", "lead"),
        [
            (("free", "label", "grammar"), "grammar"),
            (("free", "label"), "label"),
            (("cloze", "free"), "free"),
            (("cloze",), "cloze"),
        ],
    )
    def test_knowledge_is_read_where_the_form_costs_least(
        self, arms: tuple[str, ...], lead: str
    ) -> None:
        rows = [a_row(arm=arm) for arm in arms]
        assert lead_of(rows, "en") == Lead("plain", "letter", lead)

    def test_the_usual_prompt_comes_before_a_better_arm(self) -> None:
        rows = [a_row(prompt="exam"), a_row(arm="free")]
        assert lead_of(rows, "en") == Lead("plain", "letter", "free")

    def test_without_the_usual_prompt_the_first_by_name_is_taken(self) -> None:
        rows = [a_row(prompt="student"), a_row(prompt="careful")]
        assert lead_of(rows, "en") == Lead("careful", "letter", "grammar")

    def test_the_first_format_of_the_study_is_taken(self) -> None:
        rows = [a_row(format=form) for form in ("reasoned", "json", "phrase")]
        assert lead_of(rows, "en") == Lead("plain", "phrase", "grammar")

    def test_every_model_must_have_been_asked_so(self) -> None:
        rows = [a_row("general"), a_row("general", arm="free"), a_row("clinical", arm="free")]
        assert lead_of(rows, "en") == Lead("plain", "letter", "free")

    def test_models_that_share_no_condition_have_no_lead_and_no_overview(self) -> None:
        rows = (a_row("general"), a_row("clinical", arm="free"))
        assert lead_of(rows, "en") is None
        assert overview(Report((), rows, ())) == ()

    @pytest.mark.parametrize(
        "change", [{"language": "es"}, {"variant": "upper"}, {"n": 0, "hits": 0}]
    )
    def test_only_unperturbed_answers_that_count_lead(self, change: dict[str, Any]) -> None:
        assert lead_of([a_row(**change)], "en") is None
