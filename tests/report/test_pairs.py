"""Two models compared, in words and tables, from rows written by hand."""

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from medlocal.evals.comparing import Comparison, ComparisonRow, OverallRow, PooledRow
from medlocal.evals.stats import clustered_wilson, wilson
from medlocal.report import wording
from medlocal.report.blocks import Block, Heading, Lines, Table
from medlocal.report.pairs import pair_blocks, verdict_sentence
from medlocal.report.results import ModelPair
from medlocal.report.tables import print_pair
from tests.report.test_overview import a_comparison, an_overall

BETTER = a_comparison(5, 20, verdict="better", p_holm=0.0041)
POOLED = PooledRow(
    language="en",
    format="letter",
    arm="grammar",
    n=1200,
    excluded=0,
    num_items=100,
    accuracy_first=clustered_wilson(600, [12] * 100),
    accuracy_second=clustered_wilson(690, [12] * 100),
    delta=0.075,
    low=-0.01,
    high=0.16,
    p=0.0812,
    verdict="no difference shown",
)


def a_pair(
    *rows: ComparisonRow,
    overall: tuple[OverallRow, ...] = (),
    pooled: tuple[PooledRow, ...] = (POOLED,),
    **counts: int,
) -> ModelPair:
    found = Comparison("general", "clinical", rows, pooled, 1200, 0, 0, 0, overall)
    comparison = replace(found, **counts)  # type: ignore[arg-type]
    return ModelPair("general", "clinical", comparison, ("The chat templates differ.",))


def lines_of(pair: ModelPair) -> tuple[str, ...]:
    (found,) = [block for block in pair_blocks((pair,)) if isinstance(block, Lines)]
    return found.lines


def tables_of(pair: ModelPair) -> list[Table]:
    return [block for block in pair_blocks((pair,)) if isinstance(block, Table)]


class TestWords:
    def test_a_verdict_and_what_is_left_out(self) -> None:
        pair = a_pair(BETTER, only_first=12, only_second=3, different=5)
        assert pair_blocks((pair,))[0] == Heading("clinical against general", level=3)
        assert lines_of(pair) == (
            "English, starter, letter/grammar: better, +15.0 points (+7.0 to +23.0, n = 100,"
            " p = 0.004).",
            "The chat templates differ.",
            "5 pairs of answers are left out: the two were asked in other words.",
            "15 answers are left out because the other model has none to the same question, asked alike"
            " (12 of the first, 3 of the second).",
        )

    def test_no_difference_says_what_would_have_been_shown(self) -> None:
        """At 27 % discordance 100 questions show 14.4 points."""
        row = a_comparison(12, 15, p_holm=0.701, smallest=0.14387)
        assert verdict_sentence(row) == (
            "English, starter, letter/grammar: no difference shown, +3.0 points (−5.0 to +11.0,"
            " n = 100, p = 0.701); a true difference of 14.4 points or more would have been shown with"
            " 80 % power."
        )

    def test_a_correction_is_named(self) -> None:
        row = a_comparison(12, 15, p_holm=1.0, smallest=0.166, num_tests=3)
        assert "n = 100, p = 1.000 corrected for 3 data sets); a true" in verdict_sentence(row)

    def test_too_few_to_show_any(self) -> None:
        row = a_comparison(1, 1, 5, p_holm=1.0, smallest=None)
        assert verdict_sentence(row).endswith("; too few questions to show any difference.")

    def test_a_verdict_on_nothing_is_said(self) -> None:
        empty = replace(a_comparison(0, 0), n=0, delta=None, p=None, p_holm=None)
        assert verdict_sentence(empty) == (
            "English, starter, letter/grammar: no question has an answer of both that counts."
        )

    def test_several_data_sets_are_told_together_first(self) -> None:
        rows = (
            a_comparison(32, 48, 400, p_holm=0.279, num_tests=2, smallest=0.07),
            a_comparison(32, 48, 400, dataset="other", p_holm=0.279, num_tests=2, smallest=0.07),
        )
        overall = an_overall(64, 96, 800, datasets=("other", "starter"), p=0.0138, verdict="better")
        first, second, third, _ = lines_of(a_pair(*rows, overall=(overall,)))
        assert first == (
            "English, 2 data sets together, letter/grammar: better, +4.0 points (−4.0 to +12.0, n = 800,"
            " p = 0.014)."
        )
        assert second.startswith("English, starter, letter/grammar: no difference shown, ")
        assert third.startswith("English, other, letter/grammar: no difference shown, ")

    @pytest.mark.parametrize("change", [{"datasets": ("starter",)}, {"prompt": "exam"}])
    def test_one_data_set_or_another_prompt_is_not_told_twice(self, change: dict[str, Any]) -> None:
        values = {"datasets": ("other", "starter"), **change}
        found = lines_of(a_pair(BETTER, overall=(an_overall(5, 20, **values),)))
        assert not any("together" in line for line in found)

    @pytest.mark.parametrize(
        ("smallest", "said"), [(0.0361, "3.6"), (0.00158, "0.2"), (0.0004, "0.04"), (1.0, "100.0")]
    )
    def test_a_difference_that_could_be_shown_is_never_none(
        self, smallest: float, said: str
    ) -> None:
        assert f"difference of {said} points" in wording.could_show(smallest)

    @pytest.mark.parametrize(
        ("low", "high", "said"),
        [
            (-0.081, 0.02, "−8.1 to +2.0"),
            (0.0, 0.002, "0.0 to +0.2"),
            (-0.00039, 0.00039, "−0.039 to +0.039"),
            (0.0, 0.0, "0.0 to 0.0"),
            (None, None, "–"),
        ],
    )
    def test_an_interval_that_has_a_width_shows_one(
        self, low: float | None, high: float | None, said: str
    ) -> None:
        assert wording.points_interval(low, high) == said


class TestTables:
    def test_the_rows(self) -> None:
        compared, pooled = tables_of(a_pair(BETTER))
        assert compared.rows == (
            (
                ("English", "starter"),
                ("letter", "grammar"),
                ("100",),
                ("50.0 %", "(40.4–59.6)"),
                ("65.0 %", "(55.3–73.6)"),
                ("+15.0", "+7.0 to +23.0"),
                ("5 20",),
                ("0.004",),
            ),
        )
        # As wide as of 100 independent answers: they come from 100 questions.
        assert wilson(50, 100).low == pytest.approx(0.404, abs=5e-4)
        assert pooled.rows == (
            (
                ("English",),
                ("letter", "grammar"),
                ("1,200", "100"),
                ("50.0 %", "(40.4–59.6)"),
                ("57.5 %", "(47.7–66.7)"),
                ("+7.5", "−1.0 to +16.0"),
                ("no difference", "shown"),
            ),
        )

    def test_answers_that_do_not_count_are_counted_beside(self) -> None:
        pair = a_pair(replace(BETTER, excluded=2), pooled=(replace(POOLED, excluded=24),))
        compared, pooled = tables_of(pair)
        left_out = "Not in n, because one of the two answers does not count: "
        assert compared.note.endswith(f"{left_out}starter letter/grammar 2.")
        assert pooled.note.endswith(f"{left_out}English letter/grammar 24.")
        assert not any("Not in n" in table.note for table in tables_of(a_pair(BETTER)))

    def test_what_is_pooled_is_shown_where_it_adds_something(self) -> None:
        assert len(tables_of(a_pair(BETTER, pooled=(replace(POOLED, n=100),)))) == 1

    def test_fits_into_eighty_columns(self) -> None:
        wide = replace(
            BETTER,
            dataset="casimedicos",
            format="reasoned",
            n=99_999,
            delta=-0.15,
            low=-0.234,
            high=-0.102,
            b=10_000,
            c=10_000,
        )
        pooled = replace(POOLED, format="reasoned", n=1_199_999, num_items=99_999, delta=-0.1)
        out = StringIO()
        print_pair(a_pair(wide, pooled=(pooled,)), Console(file=out, width=80))
        assert max(map(len, out.getvalue().splitlines())) <= 80
        assert "1,199,999" in out.getvalue()


def test_nothing_compared_has_no_blocks() -> None:
    nothing: list[Block] = pair_blocks(())
    assert nothing == []
