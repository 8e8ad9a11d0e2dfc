"""What a report shows in JSON, Markdown and the terminal, from rows written by hand."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medlocal.evals.scoring import ConstraintEffect, ScoreRow
from medlocal.evals.stats import Interval, Rate
from medlocal.report.findings import form_verdict
from medlocal.report.results import Report, RunFacts
from medlocal.report.tables import print_terminal, to_json, to_markdown

ROOT = Path(__file__).parents[2]
NONE = Rate(None, None, None, 0)

FREE = ScoreRow(
    model="demo",
    dataset="starter",
    language="es",
    variant="original",
    verified=True,
    prompt="plain-0",
    format="json",
    arm="free",
    n=100,
    excluded=2,
    outcomes={"ENGINE_ERROR": 2, "STRICT_VALID": 12, "LENIENT_VALID": 78, "REFUSAL": 10},
    fcr_strict=Rate(0.12, 0.070, 0.198, 100),
    fcr_lenient=Rate(0.90, 0.826, 0.945, 100),
    acc_strict=Rate(0.05, 0.022, 0.112, 100),
    acc_lenient=Rate(0.27, 0.193, 0.364, 100),
    acc_given_valid=Rate(0.30, 0.215, 0.401, 90),
    coverage=0.9,
    chance=0.25,
    majority=0.29,
    median_tax_nats=None,
    mean_label_mass=None,
    at_chance=True,
)
LABEL = replace(
    FREE,
    arm="label",
    excluded=0,
    outcomes={"SCORED": 100},
    fcr_strict=None,
    fcr_lenient=None,
    acc_strict=Rate(0.6, 0.502, 0.691, 100),
    acc_lenient=Rate(0.6, 0.502, 0.691, 100),
    acc_given_valid=Rate(0.6, 0.502, 0.691, 100),
    coverage=1.0,
    mean_label_mass=0.835,
    at_chance=False,
)
EFFECT = ConstraintEffect(
    model="demo",
    dataset="starter",
    language="es",
    variant="original",
    verified=True,
    prompt="plain-0",
    format="json",
    n=100,
    excluded=0,
    accuracy_free=Rate(0.27, 0.193, 0.364, 100),
    accuracy_grammar=Rate(0.30, 0.219, 0.396, 100),
    b=12,
    c=15,
    p=0.701,
    delta=0.03,
    low=-0.07,
    high=0.13,
    agreement=Rate(0.62, 0.522, 0.709, 100),
    forced=NONE,
    forced_chance=None,
)
RUN = {"id": "20260901-101112-ab12", "state": "done", "spec": {"suite": "quick"}}
ENGINE = {
    "build": "0c1e57098",
    "devices": ["CPU"],
    "mode": "exact",
    "micro_batch": 60,
    "unique_prompt_tokens": 20_000,
    "total_prompt_tokens": 50_000,
    "seconds": 123.456,
    "liveness": {"came_out": True},
}


def a_report(*rows: ScoreRow, effects: tuple[ConstraintEffect, ...] = ()) -> Report:
    return Report((RunFacts(RUN, ENGINE),), tuple(rows), tuple(effects))


def terminal(report: Report, width: int = 80, *, color: bool = False) -> str:
    out = StringIO()
    print_terminal(report, Console(file=out, width=width, force_terminal=color))
    return out.getvalue()


def json_of(report: Report) -> Any:
    """What a program reads."""
    return json.loads(json.dumps(to_json(report), allow_nan=False))


def said(report: Report) -> str:
    """The sentences, on one line each."""
    return to_markdown(report).split("## In words")[1].split("## Terms")[0]


class TestJson:
    def test_has_these_keys_and_no_others(self) -> None:
        value = to_json(a_report(FREE, effects=(EFFECT,)))
        assert list(value) == [
            *("run", "rows", "constraint_effect", "engine", "runs", "variants", "robustness"),
            *("positions", "answer_splits", "prompt_spreads", "interactions", "comparisons"),
        ]

    def test_a_row_by_hand(self) -> None:
        (row,) = json_of(a_report(FREE))["rows"]
        assert row == {
            "model": "demo",
            "dataset": "starter",
            "language": "es",
            "variant": "original",
            "verified": True,
            "prompt": "plain-0",
            "format": "json",
            "arm": "free",
            "n": 100,
            "excluded": 2,
            "outcomes": {
                "ENGINE_ERROR": 2,
                "STRICT_VALID": 12,
                "LENIENT_VALID": 78,
                "REFUSAL": 10,
            },
            "fcr_strict": {"value": 0.12, "low": 0.070, "high": 0.198},
            "fcr_lenient": {"value": 0.90, "low": 0.826, "high": 0.945},
            "acc_strict": {"value": 0.05, "low": 0.022, "high": 0.112},
            "acc_lenient": {"value": 0.27, "low": 0.193, "high": 0.364},
            "acc_given_valid": {"value": 0.30, "low": 0.215, "high": 0.401},
            "num_valid": 90,
            "coverage": 0.9,
            "chance": 0.25,
            "majority": 0.29,
            "median_tax_nats": None,
            "mean_label_mass": None,
            "at_chance": True,
            "tax_interval": {"low": None, "high": None},
            "label_mass_interval": {"low": None, "high": None},
        }

    def test_a_scored_arm_has_nulls_for_compliance(self) -> None:
        (row,) = json_of(a_report(LABEL))["rows"]
        nulls = {"value": None, "low": None, "high": None}
        assert (row["fcr_strict"], row["fcr_lenient"]) == (nulls, nulls)

    def test_an_effect_by_hand(self) -> None:
        (effect,) = json_of(a_report(effects=(EFFECT,)))["constraint_effect"]
        expected = {"language": "es", "format": "json", "n": 100, "b": 12, "c": 15, "p": 0.701}
        assert effect.items() >= expected.items()
        assert effect.items() >= {"delta": 0.03, "low": -0.07, "high": 0.13}.items()
        assert effect["agreement"] == {"value": 0.62, "low": 0.522, "high": 0.709, "n": 100}
        assert effect["accuracy_free"]["value"] == 0.27
        assert {"model", "dataset", "prompt", "variant"} < effect.keys()

    def test_run_and_engine_pass_through(self) -> None:
        value = to_json(a_report())
        assert (value["run"], value["engine"]) == (RUN, ENGINE)

    def test_is_strict_json_whatever_was_measured(self) -> None:
        odd = replace(FREE, median_tax_nats=float("inf"))
        report = Report((RunFacts({"when": (1, float("nan"))}, {"path": Path("/x")}),), (odd,), ())
        value = json_of(report)
        assert value["rows"][0]["median_tax_nats"] is None
        assert (value["run"], value["engine"]) == ({"when": [1, None]}, {"path": "/x"})


class TestMarkdown:
    def test_a_row_shows_value_interval_n_and_baselines(self) -> None:
        assert (
            "| json | free | 100 | 27.0 % \\* (19.3–36.4) | 25.0 % | 29.0 % | 12.0 % (7.0–19.8)"
            " | 90.0 % (82.6–94.5) |\n"
        ) in to_markdown(a_report(FREE))

    def test_a_scored_arm_shows_that_compliance_does_not_apply(self) -> None:
        line = "| json | label | 100 | 60.0 % (50.2–69.1) | 25.0 % | 29.0 % | – | – |\n"
        assert line in to_markdown(a_report(LABEL))

    def test_outcomes_are_counted_in_words(self) -> None:
        line = "| json | free | engine error 2, strict valid 12, lenient valid 78, refusal 10 |"
        assert line in to_markdown(a_report(FREE))

    def test_an_effect_shows_its_counts(self) -> None:
        line = "| json | 100 | +3.0 | −7.0 to +13.0 | 12 | 15 | 0.701 | 62.0 % (52.2–70.9) |"
        assert line in to_markdown(a_report(FREE, effects=(EFFECT,)))

    def test_an_effect_of_nothing_has_no_p(self) -> None:
        nothing = replace(
            EFFECT, n=0, b=0, c=0, p=None, delta=None, low=None, high=None, agreement=NONE
        )
        line = "| json | 0 | – | – | 0 | 0 | – | – – |"
        assert line in to_markdown(a_report(FREE, effects=(nothing,)))

    def test_pairs_that_do_not_count_are_counted_beside(self) -> None:
        note = "Not in n, because one of the two answers does not count: json 2."
        failed = replace(EFFECT, excluded=2)
        assert note in to_markdown(a_report(FREE, effects=(failed,)))
        assert "Not in n" not in to_markdown(a_report(FREE, effects=(EFFECT,)))

    def test_verified_and_unverified_rows_have_tables_of_their_own(self) -> None:
        """Also in a run of one variant, which is shown whole."""
        checked = replace(FREE, variant="nota_replaces_gold", n=4)
        unchecked = replace(checked, verified=False, n=5)
        text = to_markdown(a_report(checked, unchecked)).split("## In words")[0]
        name = "Spanish · demo · starter · nota\\_replaces\\_gold"
        tables = re.findall(r"^### (Spanish .*)\n\n(?:.*\n){2}(.*)$", text, re.MULTILINE)
        assert [(title, row[:22]) for title, row in tables] == [
            (f"{name} · plain-0", "| json | free | 4 | 27"),
            (f"{name} (unverified) · plain-0", "| json | free | 5 | 27"),
        ]

    def test_each_language_has_its_tables(self) -> None:
        text = to_markdown(a_report(FREE, replace(FREE, language="en")))
        scores = text[text.index("## Scores") :]
        headings = [line for line in scores.splitlines() if line.startswith("### ")]
        assert headings[:4] == [
            "### English · demo · starter · original · plain-0",
            "### Outcomes · English · demo · starter · original · plain-0",
            "### Spanish · demo · starter · original · plain-0",
            "### Outcomes · Spanish · demo · starter · original · plain-0",
        ]

    def test_a_name_cannot_break_the_table(self) -> None:
        text = to_markdown(a_report(replace(FREE, model="a|b\n<c>\x1b[31m")))
        assert "### Spanish · a\\|b \\<c\\>\\[31m · starter" in text

    def test_every_row_of_a_table_has_as_many_cells_as_its_header(self) -> None:
        lines = to_markdown(a_report(FREE, LABEL, effects=(EFFECT,))).splitlines()
        widths = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]
        assert widths == [9] * 4 + [4] * 4 + [9] * 3

    def test_what_was_not_measured_is_said(self) -> None:
        text = to_markdown(Report((RunFacts({}, {}),), (), ()))
        assert "No answer has been graded yet." in text
        assert "nothing was recorded" in text


class TestTerminal:
    def test_fits_into_eighty_columns(self) -> None:
        big = replace(
            FREE,
            format="reasoned",
            arm="grammar",
            n=99_999,
            acc_lenient=Rate(1.0, 0.997, 1.0, 99_999),
            fcr_strict=Rate(1.0, 0.997, 1.0, 99_999),
            fcr_lenient=Rate(1.0, 0.997, 1.0, 99_999),
        )
        effect = replace(EFFECT, format="reasoned", n=99_999, b=10_000, c=10_000, p=0.0001)
        text = terminal(a_report(big, LABEL, effects=(effect,)))
        assert max(map(len, text.splitlines())) <= 80
        assert text.count("(99.7–100.0)") == 3

    @pytest.mark.parametrize("width", [30, 60, 80, 200])
    def test_no_number_is_cut(self, width: int) -> None:
        text = terminal(a_report(FREE, LABEL, effects=(EFFECT,)), width)
        table = text.split("Scores")[1].split("In words")[0]
        for number in ["27.0 % *", "(19.3–36.4)", "12.0 %", "(82.6–94.5)", "−7.0 to +13.0"]:
            assert number in table

    def test_colours_add_nothing(self) -> None:
        report = a_report(FREE, LABEL, effects=(EFFECT,))
        coloured = re.sub(r"\x1b\[[0-9;]*m", "", terminal(report, color=True))
        assert coloured == terminal(report)

    def test_a_name_is_not_read_as_markup(self) -> None:
        assert "[red]demo" in terminal(a_report(replace(FREE, model="[red]demo")))

    def test_a_name_cannot_send_control_sequences(self) -> None:
        report = Report(
            (RunFacts({"id": "\x1b]52;c;eA==\x07"}, {"build": "\x9b31m"}),), (FREE,), ()
        )
        assert not set("\x1b\x07\x9b") & set(terminal(report))

    def test_engine_facts_are_lines(self) -> None:
        lines = terminal(a_report(FREE)).split("\nEngine\n")[1].splitlines()
        assert lines[:9] == [
            "- build: 0c1e57098",
            "- devices: CPU",
            "- mode: exact",
            "- micro batch: 60",
            "- unique prompt tokens: 20,000",
            "- total prompt tokens: 50,000",
            "- seconds: 123.5",
            "- liveness · came out: yes",
            "- prompt sharing: 20,000 distinct tokens stand for 50,000, 2.5 times as many",
        ]


class TestSentences:
    def test_what_is_not_shown_is_not_called_chance(self) -> None:
        assert (
            "- In Spanish, demo is not shown to be above chance: guessing gets 25.0 %. Its best result"
            " there is json/free 27.0 % (19.3–36.4, n = 100)."
        ) in said(a_report(FREE))

    def test_three_of_seven_may_be_anything(self) -> None:
        """42.9 % (15.8 to 75.0): above chance, and not shown to be."""
        few = replace(FREE, n=7, acc_lenient=Rate(3 / 7, 0.158, 0.750, 7))
        text = said(a_report(few))
        assert "demo is not shown to be above chance: guessing gets 25.0 %." in text
        assert "at chance" not in text

    def test_some_results_shown_and_some_not(self) -> None:
        text = said(a_report(FREE, LABEL))
        assert "is not shown to be above chance with json/free: guessing gets 25.0 %." in text
        above = "demo is above chance (25.0 %) with json/label 60.0 % (50.2–69.1, n = 100)."
        assert above in text

    def test_above_chance_and_not_above_the_majority(self) -> None:
        row = replace(LABEL, chance=1 / 3, majority=0.552, at_chance=True)
        assert (
            "- In Spanish, demo is above chance (33.3 %), but not shown to be above the majority"
            " (55.2 %), with json/label 60.0 % (50.2–69.1, n = 100)."
        ) in said(a_report(row))

    def test_above_chance_has_no_reserve(self) -> None:
        assert "not shown" not in said(a_report(LABEL))

    def test_below_chance_names_the_unreadable_answers(self) -> None:
        low = replace(FREE, acc_lenient=Rate(0.05, 0.022, 0.112, 100))
        text = said(a_report(low))
        result = (
            "json/free 5.0 % (2.2–11.2, n = 100), 10 unreadable. Unreadable answers count as wrong"
        )
        assert f"demo is below chance (25.0 %) with {result}." in text
        assert "not shown" not in text.split(result)[0]

    def test_nothing_counted_is_said(self) -> None:
        empty = replace(FREE, n=0, acc_lenient=NONE, chance=None, majority=None, at_chance=False)
        assert "In Spanish, demo has no answer that counts." in said(a_report(empty))

    def test_languages_are_told_apart(self) -> None:
        text = said(a_report(FREE, replace(LABEL, language="en")))
        assert "In English, demo is above chance" in text
        assert "In Spanish, demo is not shown to be above chance" in text

    def test_chance_that_differs_is_a_range(self) -> None:
        text = said(a_report(FREE, replace(FREE, format="letter", chance=0.2)))
        assert "is not shown to be above chance: guessing gets 20.0–25.0 %" in text

    def test_whether_answers_have_the_form(self) -> None:
        assert (
            "- Told to answer in the form json, it mostly does not: 12.0 % (7.0–19.8, n = 100) of"
            " its free answers are exactly in the form, 90.0 % (82.6–94.5) can be read."
        ) in said(a_report(FREE))

    @pytest.mark.parametrize(
        ("rate", "verdict"),
        [
            (Rate(1.0, 0.96, 1.0, 100), "nearly always does"),
            (Rate(1.0, 0.439, 1.0, 3), "may or may not do so, too few answers to tell"),
            (Rate(1.0, 0.207, 1.0, 1), "may or may not do so, too few answers to tell"),
            (Rate(0.7, 0.6, 0.8, 100), "mostly does"),
            (Rate(0.7, 0.481, 0.855, 20), "may or may not do so, too few answers to tell"),
            (Rate(0.55, 0.45, 0.65, 100), "does about as often as not"),
            (Rate(0.3, 0.2, 0.4, 100), "mostly does not"),
            (Rate(0.0, 0.0, 0.561, 3), "may or may not do so, too few answers to tell"),
            (Rate(0.0, 0.0, 0.037, 100), "hardly ever does"),
            (NONE, "was not asked"),
        ],
    )
    def test_form_verdict_is_what_the_interval_shows(self, rate: Rate, verdict: str) -> None:
        assert form_verdict(rate) == verdict

    def test_no_difference_shown_says_what_could_have_been(self) -> None:
        """n = 100 with 27 % discordant: 0.1439 solves the formula of the sample size."""
        assert (
            "- The grammar for json changes accuracy by +3.0 points (−7.0 to +13.0, n = 100,"
            " p = 0.701): no difference shown; a true difference of 14.4 points or more would have been"
            " shown with 80 % power."
        ) in said(a_report(FREE, effects=(EFFECT,)))

    @pytest.mark.parametrize(
        ("changes", "verdict"),
        [
            ({"p": 0.01, "b": 5, "c": 20}, "better"),
            ({"p": 0.01, "b": 20, "c": 5}, "worse"),
            (
                {"p": 1.0, "b": 0, "c": 0},
                "no difference shown; a true difference of 7.8 points or more would have been shown"
                " with 80 % power",  # 7.79 of 100 items, of which six are needed
            ),
            (
                {"p": 1.0, "n": 5, "b": 1, "c": 1},
                "no difference shown; too few questions to show any difference",
            ),
        ],
    )
    def test_verdict_on_the_grammar(self, changes: dict[str, float], verdict: str) -> None:
        effect = replace(EFFECT, **changes)  # type: ignore[arg-type]
        assert f": {verdict}.\n" in said(a_report(FREE, effects=(effect,)))

    def test_several_grammars_are_corrected_together(self) -> None:
        """The smaller of 0.03 and 0.2 is 0.06 among two; a third without pairs is no test."""
        effects = (
            replace(EFFECT, p=0.03, b=5, c=16),
            replace(EFFECT, format="letter", p=0.2),
            replace(EFFECT, format="tag", n=0, b=0, c=0, p=None, delta=None),
        )
        text = said(a_report(FREE, effects=effects))
        assert "n = 100, p = 0.060 corrected for 2 tests of a grammar): no difference shown" in text
        assert "p = 0.200 corrected for 2 tests of a grammar): no difference shown" in text
        assert "The grammar for tag: no item has an answer that counts in both arms." in text

    def test_a_gain_by_forced_guesses_is_no_knowledge(self) -> None:
        """40 free answers could not be read; forced, 10 of them are right, as guessing is."""
        effect = replace(
            EFFECT, p=0.002, b=0, c=10, forced=Rate(0.25, 0.142, 0.402, 40), forced_chance=0.25
        )
        assert (
            ": better. Of the questions whose free answer could not be read, it gets 25.0 %"
            " (14.2–40.2, n = 40) right, and guessing 25.0 %: what it gains there may be luck, and is"
            " no sign of knowledge."
        ) in said(a_report(FREE, effects=(effect,)))

    def test_a_gain_above_guessing_is_told_without_that_reserve(self) -> None:
        effect = replace(
            EFFECT, p=0.002, b=0, c=10, forced=Rate(0.75, 0.598, 0.858, 40), forced_chance=0.25
        )
        text = said(a_report(FREE, effects=(effect,)))
        assert "it gets 75.0 % (59.8–85.8, n = 40) right, and guessing 25.0 %.\n" in text
        assert "luck" not in text

    def test_an_effect_without_pairs_is_said(self) -> None:
        effect = replace(EFFECT, n=0, b=0, c=0, p=None, delta=None, low=None, high=None)
        assert "no item has an answer that counts in both arms" in said(
            a_report(FREE, effects=(effect,))
        )

    def test_mask_tax_and_label_mass_have_their_unit_and_n(self) -> None:
        grammar = replace(FREE, arm="grammar", median_tax_nats=1.5)
        text = said(a_report(grammar, LABEL))
        tax = "With json/grammar, the mask took a median of 1.50 nats per answer (n = 100)"
        assert tax in text
        assert "With json/label, a mean of 83.5 % (n = 100) of its probability" in text

    def test_mask_tax_and_label_mass_have_their_intervals(self) -> None:
        grammar = replace(
            FREE, arm="grammar", median_tax_nats=1.5, tax_interval=Interval(1.204, 1.8)
        )
        label = replace(LABEL, label_mass_interval=Interval(0.811, 0.859))
        text = said(a_report(grammar, label))
        assert "a median of 1.50 nats per answer (1.20–1.80, n = 100)" in text
        assert "a mean of 83.5 % (81.1–85.9, n = 100) of its probability" in text


def test_rich_and_scipy_are_loaded_only_when_needed() -> None:
    code = (
        "import sys, medlocal.report.tables as t; t.to_markdown(t.Report((), (), ()));"
        "sys.exit(any(m in sys.modules for m in ('rich', 'scipy', 'llama_cpp', 'outlines')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
