"""What the first screen says, from rows written by hand: which model, how sure, and can it be parsed.

The intervals in the sentences are scipy's Wilson intervals of the counts.
"""

from dataclasses import replace
from typing import Any

import pytest

from medlocal.evals.comparing import Comparison, ComparisonRow, OverallRow
from medlocal.evals.robustness import Robustness
from medlocal.evals.scoring import ScoreRow, is_at_chance
from medlocal.evals.stats import wilson
from medlocal.report.overview import LanguageOverview, overview
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


def a_free_row(
    model: str = "general", strict: int = 12, lenient: int = 90, **changes: Any
) -> ScoreRow:
    """The same, free: how many answers of 100 are in the form, and can be read."""
    rates: dict[str, Any] = {"fcr_strict": wilson(strict, 100), "fcr_lenient": wilson(lenient, 100)}
    return replace(a_row(model, 40, arm="free", **rates), **changes)


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


def an_overall(b: int, c: int, n: int = 100, **changes: Any) -> OverallRow:
    """The same over all data sets."""
    delta = (c - b) / n
    row = OverallRow(
        language="en",
        format="letter",
        arm="grammar",
        prompt="plain",
        datasets=("starter",),
        n=n,
        excluded=0,
        num_items=n,
        accuracy_first=wilson(n // 2, n),
        accuracy_second=wilson(n // 2 + c - b, n),
        delta=delta,
        low=round(delta - 0.08, 4),
        high=round(delta + 0.08, 4),
        b=b,
        c=c,
        p=0.5,
        verdict="no difference shown",
        smallest=0.14387,
    )
    return replace(row, **changes)


def a_pair(first: str, second: str, *rows: ComparisonRow, **changes: Any) -> ModelPair:
    """Two models by data set, and over all of them; "overall" alone where there is one data set."""
    overall = changes.get("overall", ())
    overall = overall if isinstance(overall, tuple) else (overall,)
    comparison = Comparison(first, second, rows, (), 100, 0, 0, 0, overall=overall)
    return ModelPair(first, second, comparison)


def turned(row: OverallRow) -> OverallRow:
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


BETTER = an_overall(5, 20, verdict="better", p=0.0041)
"""The second model is 15 points ahead of the first."""
NOTHING_SHOWN = an_overall(12, 15, p=0.701)
KNOWS_NOTHING = "guessing gets 25.0 %, always choosing the most frequent right place 30.0 %"


class TestOneModel:
    def test_above_chance(self) -> None:
        part = first_screen(a_row(), a_free_row())
        assert part.headline == "English: general is better than guessing."
        assert part.sentences == (
            f"general answers 60.0 % (50.2–69.1, n = 100) of the questions right; {KNOWS_NOTHING}.",
            "general's free answers mostly cannot be parsed as they are: 12.0 % (7.0–19.8, n = 100) are"
            " exactly in the form letter; an option can be read from 90.0 % (82.6–94.5).",
        )

    def test_at_chance(self) -> None:
        part = first_screen(a_row(hits=27))
        assert part.headline == ("English: general is not shown to know more than a guesser.")
        assert part.sentences == (
            f"It answers 27.0 % (19.3–36.4, n = 100) of the questions right; {KNOWS_NOTHING}."
            " Do not rely on its answers.",
        )

    def test_above_chance_and_not_above_the_majority(self) -> None:
        """Yes, no, maybe, with yes in 55.2 % of 500: 276 right are 55.2 % (50.8 to 59.5)."""
        part = first_screen(
            a_row(hits=276, n=500, chance=1 / 3, majority=0.552, dataset="pubmedqa")
        )
        assert part.headline == (
            "English: general is better than guessing, but not shown to be better than always choosing"
            " the most frequent right place."
        )
        assert part.sentences == (
            "It answers 55.2 % (50.8–59.5, n = 500) of the questions right; guessing gets 33.3 %,"
            " always choosing the most frequent right place 55.2 %. Do not rely on its answers.",
        )
        assert part.lines[0].at_chance

    def test_the_majority_counts_data_set_by_data_set(self) -> None:
        """Of 500 of a set with a majority of 55.2 % and 500 without: (0.552 + 0.25) / 2 = 40.1 %."""
        rows = (
            a_row(hits=250, n=500, chance=1 / 3, majority=0.552, dataset="pubmedqa"),
            a_row(hits=150, n=500, majority=0.27),
        )
        (line,) = first_screen(*rows).lines
        assert line.baseline == pytest.approx(0.401)
        assert line.majority == pytest.approx(0.411)
        assert (line.knowledge, line.at_chance) == (wilson(400, 1000), True)

    def test_a_line_holds_the_figures(self) -> None:
        (line,) = first_screen(a_row(), a_free_row()).lines
        assert (line.model, line.how, line.form) == ("general", "letter/grammar", "letter")
        assert (line.knowledge, line.chance, line.at_chance) == (wilson(60, 100), 0.25, False)
        assert (line.majority, line.baseline) == (0.3, 0.25)
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
        ("strict", "n", "verdict"),
        [
            (100, 100, "can be parsed: 100.0 % (96.3–100.0, n = 100)"),
            (99, 100, "can mostly be parsed: 99.0 % (94.6–99.8, n = 100)"),
            (4, 4, "can mostly be parsed: 100.0 % (51.0–100.0, n = 4)"),
            (14, 20, "can be parsed in part: 70.0 % (48.1–85.5, n = 20)"),
            (1, 1, "are too few to tell whether they can be parsed: 100.0 % (20.7–100.0, n = 1)"),
            (1, 100, "mostly cannot be parsed as they are: 1.0 % (0.2–5.4, n = 100)"),
            (0, 100, "cannot be parsed as they are: 0.0 % (0.0–3.7, n = 100)"),
        ],
    )
    def test_whether_its_answers_can_be_parsed_is_said_by_the_interval(
        self, strict: int, n: int, verdict: str
    ) -> None:
        free = a_free_row(fcr_strict=wilson(strict, n), fcr_lenient=wilson(n, n))
        said = first_screen(a_row(), free).sentences[-1]
        assert said.startswith(f"general's free answers {verdict} are exactly in the form letter")

    def test_free_answers_that_all_failed_say_nothing_of_the_form(self) -> None:
        none = wilson(0, 0)
        failed = a_free_row(n=0, excluded=20, fcr_strict=none, fcr_lenient=none)
        part = first_screen(a_row(), failed)
        assert part.sentences[1:] == (
            "No free answer of general counts: nothing is known of its form.",
        )

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
            num_incomplete=0,
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

    def screen(self, *rows: ComparisonRow, overall: OverallRow) -> LanguageOverview:
        pair = a_pair("general", "clinical", *rows, overall=overall)
        return first_screen(*self.ROWS, pairs=(pair,))

    def test_a_better_one_is_to_be_used(self) -> None:
        part = self.screen(overall=BETTER)
        assert part.headline == "English: use clinical."
        assert part.sentences == (
            f"clinical answers 70.0 % (60.4–78.1, n = 100) of the questions right; {KNOWS_NOTHING}.",
            "It is better than general: +15.0 points (+7.0 to +23.0, n = 100, p = 0.004).",
        )
        assert [line.model for line in part.lines] == ["clinical", "general"]

    def test_no_difference_shown_says_what_could_have_been(self) -> None:
        part = self.screen(overall=NOTHING_SHOWN)
        assert part.headline == "English: no difference is shown between clinical and general."
        assert part.sentences[1:] == (
            "clinical against general: +3.0 points (−5.0 to +11.0, n = 100, p = 0.701); a true"
            " difference of 14.4 points or more would have been shown with 80 % power.",
        )

    def test_too_few_questions_to_show_anything(self) -> None:
        part = self.screen(overall=an_overall(0, 0, 5, p=1.0, smallest=None))
        assert part.sentences[1].endswith("; too few questions to show any difference.")

    @pytest.mark.parametrize("row", [BETTER, NOTHING_SHOWN])
    def test_the_difference_is_told_for_the_best_whichever_is_first(self, row: OverallRow) -> None:
        ahead = first_screen(*self.ROWS, pairs=(a_pair("general", "clinical", overall=row),))
        behind = first_screen(
            *self.ROWS, pairs=(a_pair("clinical", "general", overall=turned(row)),)
        )
        assert (ahead.headline, ahead.sentences) == (behind.headline, behind.sentences)

    def test_the_test_decides_and_not_the_accuracies(self) -> None:
        """On what both answered the other one is better, though it got fewer right in all."""
        part = self.screen(overall=turned(BETTER))
        assert part.headline == "English: use general."
        assert part.sentences[1] == (
            "general is better than clinical: +15.0 points (+7.0 to +23.0, n = 100, p = 0.004)."
        )

    @pytest.mark.parametrize(
        "change", [{"arm": "free"}, {"language": "es"}, {"format": "json"}, {"prompt": "exam"}]
    )
    def test_not_asked_the_same_questions(self, change: dict[str, Any]) -> None:
        """Another condition, or another prompt, is no test of what the accuracies stand for."""
        elsewhere = a_pair("general", "clinical", overall=replace(BETTER, **change))
        for pairs in ((), (elsewhere,)):
            part = first_screen(*self.ROWS, pairs=pairs)
            assert (part.headline, part.sentences[1]) == (
                "English: clinical has the highest accuracy.",
                "It was not asked the same questions as general: nothing is shown about the two.",
            )


class TestSeveralDataSets:
    ROWS = (
        a_row("general", 55),
        a_row("clinical", 70),
        a_row("general", 50, dataset="other"),
        a_row("clinical", 53, dataset="other"),
    )

    def screen(self, *rows: ComparisonRow, overall: OverallRow) -> LanguageOverview:
        pair = a_pair("general", "clinical", *rows, overall=overall)
        return first_screen(*self.ROWS, pairs=(pair,))

    def test_one_test_over_all_of_them_decides(self) -> None:
        """No set alone shows anything after the correction, and all together do."""
        part = self.screen(
            a_comparison(32, 48, 400, p_holm=0.279, num_tests=3),
            a_comparison(32, 48, 400, dataset="other", p_holm=0.279, num_tests=3),
            a_comparison(32, 48, 400, dataset="third", p_holm=0.279, num_tests=3),
            overall=an_overall(96, 144, 1200, p=0.0023, verdict="better"),
        )
        assert part.headline == "English: use clinical."
        assert part.sentences[1:] == (
            "It is better than general: +4.0 points (−4.0 to +12.0, n = 1,200, p = 0.002) over 3 data"
            " sets.",
            "By data set, p corrected for 3: starter +4.0 points (−4.0 to +12.0, n = 400, p = 0.279);"
            " other +4.0 points (−4.0 to +12.0, n = 400, p = 0.279);"
            " third +4.0 points (−4.0 to +12.0, n = 400, p = 0.279).",
        )

    def test_a_data_set_on_which_it_is_worse_is_named(self) -> None:
        part = self.screen(
            a_comparison(5, 40, verdict="better", p_holm=0.001),
            a_comparison(18, 4, dataset="other", verdict="worse", p_holm=0.009),
            overall=an_overall(23, 44, 200, p=0.014, verdict="better"),
        )
        assert part.headline == (
            "English: clinical is shown to be better than general over all data sets, but worse on"
            " other."
        )
        assert part.sentences[1].startswith("clinical against general: +10.5 points ")
        assert "other −14.0 points (−22.0 to −6.0, n = 100, p = 0.009)" in part.sentences[2]

    def test_what_single_sets_show_is_said_where_all_together_show_nothing(self) -> None:
        part = self.screen(
            a_comparison(5, 20, verdict="better", p_holm=0.008),
            a_comparison(18, 4, dataset="other", verdict="worse", p_holm=0.009),
            overall=an_overall(23, 24, 200, p=1.0, smallest=0.0955),
        )
        assert part.headline == (
            "English: no difference is shown between clinical and general over all data sets;"
            " clinical is shown to be better on starter, general is shown to be better on other."
        )
        assert "difference of 9.6 points or more" in part.sentences[1]

    def test_another_prompt_of_a_set_is_not_told_beside(self) -> None:
        rows = (a_comparison(5, 20, prompt="exam"), a_comparison(5, 20, dataset="other"))
        part = self.screen(*rows, overall=BETTER)
        assert not any(said.startswith("By data set") for said in part.sentences)


class TestWhoIsRanked:
    def test_a_model_without_an_answer_that_counts_is_named_apart(self) -> None:
        """It is no better than one at chance, nor than one that is not."""
        none: dict[str, Any] = {"chance": None, "majority": None, "excluded": 100}
        broken = a_row("broken", 0, 0, **none)
        part = first_screen(broken, a_row("guesser", 25))
        assert part.headline == "English: guesser is not shown to know more than a guesser."
        assert part.sentences[-1] == (
            "broken has no answer that counts (100 engine errors or masks not applied), and is not"
            " ranked."
        )
        assert [line.model for line in part.lines] == ["guesser"]

    def test_models_are_ranked_on_the_data_sets_that_all_were_asked(self) -> None:
        """On medqa clinical is ahead; general's easier questions are no merit of its own."""
        rows = (
            a_row("general", 50, dataset="medqa"),
            a_row("general", 95, dataset="easy"),
            a_row("clinical", 58, dataset="medqa"),
        )
        better = an_overall(0, 8, p=0.0078, verdict="better", datasets=("medqa",))
        pair = a_pair("general", "clinical", overall=better)
        part = first_screen(*rows, pairs=(pair,))
        assert part.headline == "English: use clinical."
        assert [(line.model, line.knowledge) for line in part.lines] == [
            ("clinical", wilson(58, 100)),
            ("general", wilson(50, 100)),
        ]
        assert part.sentences[2] == (
            "The models are ranked on medqa only: not all were asked easy."
        )

    def test_models_without_a_common_data_set_are_not_ranked(self) -> None:
        rows = (a_row("general", 90, dataset="easy"), a_row("clinical", 27, dataset="hard"))
        part = first_screen(*rows)
        assert part.headline == (
            "English: the models were asked other data sets, and cannot be ranked."
        )
        assert part.sentences == (
            f"general answers 90.0 % (82.6–94.5, n = 100) of the questions right; {KNOWS_NOTHING}.",
            f"clinical answers 27.0 % (19.3–36.4, n = 100) of the questions right; {KNOWS_NOTHING}: it"
            " is not shown to know more than a guesser.",
        )

    def test_both_at_chance(self) -> None:
        part = first_screen(a_row("general", 20), a_row("clinical", 27))
        assert part.headline == "English: no model is shown to know more than a guesser."
        assert part.sentences == (
            f"The best, clinical, answers 27.0 % (19.3–36.4, n = 100) of the questions right;"
            f" {KNOWS_NOTHING}. Do not rely on their answers.",
        )

    def test_all_above_chance_and_none_above_the_majority(self) -> None:
        rates: dict[str, Any] = {"chance": 1 / 3, "majority": 0.552}
        part = first_screen(
            a_row("general", 250, 500, **rates), a_row("clinical", 276, 500, **rates)
        )
        assert part.headline == (
            "English: no model is shown to be better than always choosing the most frequent right"
            " place."
        )

    def test_a_lucky_one_of_few_questions_does_not_hide_one_that_is_above_chance(self) -> None:
        """3 of 5 are 60 %, with a lower bound of 23.1 %; 55 of 100 are fewer and shown."""
        part = first_screen(a_row("lucky", 3, 5), a_row("general", 55))
        assert [line.model for line in part.lines] == ["general", "lucky"]
        assert "no model" not in part.headline

    def test_each_is_told_how_its_answers_can_be_parsed_the_best_first(self) -> None:
        grammar = (a_row("general", 55), a_row("clinical", 70))
        rows = (*grammar, a_free_row("general", 0), a_free_row("clinical", 100))
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
