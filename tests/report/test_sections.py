"""The parts of a report on variants, prompts and models: a row of each by hand, and when they appear."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from medlocal.evals.comparing import Comparison, PooledRow
from medlocal.evals.obedience import AnswerSplit
from medlocal.evals.position import PositionBias
from medlocal.evals.robustness import Robustness, VariantEffect
from medlocal.evals.spread import Interaction, PromptSpread, Spread
from medlocal.evals.stats import clustered_wilson, wilson
from medlocal.report import pairs, sections
from medlocal.report.blocks import Block, Heading, Lines, Table
from medlocal.report.overview import overview
from medlocal.report.results import ModelPair, Report
from medlocal.report.tables import to_markdown
from tests.report.test_overview import a_comparison, a_free_row, a_row

SUBJECT = {
    "model": "general",
    "dataset": "starter",
    "language": "en",
    "prompt": "plain",
    "format": "letter",
    "arm": "grammar",
}
EFFECT = VariantEffect(
    **SUBJECT,
    variant="upper",
    family="question",
    verified=True,
    n=100,
    excluded=0,
    unpaired=0,
    num_verbatim=0,
    accuracy=wilson(45, 100),
    original=wilson(60, 100),
    chance=0.25,
    original_chance=0.25,
    delta=-0.15,
    low=-0.23,
    high=-0.07,
    b=20,
    c=5,
    wrong_to_other=11,
    num_unread=0,
    num_unread_both=0,
    flip_rate=wilson(36, 100),
    p=0.004,
    p_holm=0.0041,
)
ROBUSTNESS = Robustness(
    **SUBJECT,
    variants=("original", "upper", "rotate(1)"),
    n=100,
    fewest=2,
    most=3,
    num_alone=0,
    num_incomplete=0,
    num_excluded=0,
    reacc=wilson(30, 100),
    recon=wilson(45, 100),
    worst=("upper", wilson(45, 100)),
    pairwise=0.5432,
    low=0.45,
    high=0.6389,
)
POSITIONS = PositionBias(
    **SUBJECT,
    num_slots=4,
    num_other=0,
    n=40,
    excluded=0,
    coverage=1.0,
    recalls=(wilson(10, 10), wilson(5, 10), wilson(0, 10), wilson(0, 0)),
    gold_shares=(0.25, 0.25, 0.25, 0.25),
    chosen_shares=(0.7, 0.2, 0.1, 0.0),
    rstd=0.4082,
    rstd_low=0.3,
    rstd_high=0.55,
    total_variation=0.45,
    total_variation_low=0.3,
    total_variation_high=0.6,
)
SPREAD = PromptSpread(
    model="general",
    dataset="starter",
    language="en",
    format="letter",
    arm="free",
    n=10,
    excluded=0,
    incomplete=0,
    accuracy=Spread(
        rates={"exam": wilson(5, 10), "plain": wilson(8, 10)},
        mean=0.65,
        sd=0.2121,
        worst=("exam", wilson(5, 10)),
        best=("plain", wilson(8, 10)),
        range=0.3,
        low=0.1,
        high=0.6,
    ),
    compliance=None,
)
SPLIT = AnswerSplit(
    **{**SUBJECT, "arm": "free"},
    variant="upper_text",
    verified=True,
    n=10,
    excluded=0,
    original=None,
    right=wilson(4, 10),
    wrong_form=wilson(3, 10),
    wrong_knowledge=wilson(2, 10),
    both_wrong=wilson(1, 10),
    unread=wilson(0, 10),
)
INTERACTION = Interaction(
    **SUBJECT,
    variant="upper+rotate(1)",
    first="upper",
    second="rotate(1)",
    verified=True,
    n=100,
    excluded=0,
    delta_first=-0.15,
    delta_second=0.02,
    delta_both=-0.2,
    interaction=-0.07,
    low=-0.15,
    high=0.01,
)
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
PAIR = ModelPair(
    "general",
    "clinical",
    Comparison("general", "clinical", (BETTER,), (POOLED,), 1200, 3, 4, 5),
    ("The chat templates differ.",),
)


def a_report(**parts: Any) -> Report:
    """A report on two models, whose condition is letter/grammar under the usual prompt."""
    return Report((), (a_row(), a_row("clinical", 70)), (), **parts)


def only_table(blocks: Sequence[Block]) -> Table:
    (table,) = blocks
    assert isinstance(table, Table)
    return table


PARTS: dict[str, tuple[Callable[[Report], list[Block]], dict[str, Any]]] = {
    "Each variant against the original": (sections.variant_tables, {"variants": (EFFECT,)}),
    "All variants together": (sections.robustness_tables, {"robustness": (ROBUSTNESS,)}),
    "Prompts": (sections.spread_tables, {"spreads": (SPREAD,)}),
    "Transformed answers": (sections.split_tables, {"splits": (SPLIT,)}),
    "Two steps": (sections.interaction_tables, {"interactions": (INTERACTION,)}),
    "Models compared": (lambda report: pairs.pair_blocks(report.pairs), {"pairs": (PAIR,)}),
}


class TestWhenTheyAppear:
    @pytest.mark.parametrize("title", PARTS)
    def test_a_part_stands_in_the_report_where_it_has_data(self, title: str) -> None:
        build, data = PARTS[title]
        assert build(a_report(**data))
        assert f"\n## {title}\n" in to_markdown(a_report(**data))

    @pytest.mark.parametrize("title", PARTS)
    def test_without_data_there_is_neither_part_nor_title(self, title: str) -> None:
        assert PARTS[title][0](a_report()) == []
        assert f"## {title}\n" not in to_markdown(a_report())

    def test_position_bias_is_shown_where_options_were_moved(self) -> None:
        moved = replace(EFFECT, variant="rotate(1)", family="order")
        assert sections.position_tables(a_report(positions=(POSITIONS,))) == []
        assert sections.position_tables(a_report(positions=(POSITIONS,), variants=(EFFECT,))) == []
        assert sections.position_tables(a_report(positions=(POSITIONS,), variants=(moved,)))

    @pytest.mark.parametrize("change", [{"arm": "free"}, {"format": "json"}, {"prompt": "exam"}])
    def test_variants_are_shown_under_the_languages_condition_only(
        self, change: dict[str, Any]
    ) -> None:
        other, elsewhere = replace(EFFECT, **change), replace(INTERACTION, **change)
        report = a_report(variants=(other,), interactions=(elsewhere,))
        assert sections.variant_tables(report) == []
        assert sections.interaction_tables(report) == []

    def test_levels_are_shown_where_less_than_all_was_said(self) -> None:
        report = replace(a_report(), rows=(a_free_row(),))
        assert sections.level_tables(report) == []

    def test_transformed_answers_are_those_of_the_free_arm(self) -> None:
        masked = replace(SPLIT, arm="grammar")
        assert sections.split_tables(a_report(splits=(masked,))) == []

    def test_an_original_that_nothing_is_compared_with_has_no_split(self) -> None:
        alone = replace(SPLIT, variant="original", wrong_form=None, both_wrong=None)
        assert sections.split_tables(a_report(splits=(alone,))) == []


class TestRows:
    def test_of_a_variant(self) -> None:
        table = only_table(sections.variant_tables(a_report(variants=(EFFECT,))))
        assert table.title == "English · general · starter · plain · letter/grammar"
        assert table.rows == (
            (
                ("upper",),
                ("100",),
                ("45.0 %", "(35.6–54.8)"),
                ("25.0 %",),
                ("−15.0 *", "−23.0 to −7.0"),
                ("0.004",),
                ("20 5 11",),
            ),
        )

    def test_a_difference_that_is_not_shown_has_no_mark(self) -> None:
        effects = (replace(EFFECT, p_holm=0.05), replace(EFFECT, p_holm=None, low=None, high=None))
        table = only_table(sections.variant_tables(a_report(variants=effects)))
        assert [row[4] for row in table.rows] == [
            ("−15.0", "−23.0 to −7.0"),
            ("−15.0", "–"),
        ]
        assert [row[5] for row in table.rows] == [("0.050",), ("–",)]

    def test_chance_before_the_change_stands_beside_another_chance(self) -> None:
        effects = (replace(EFFECT, variant="drop_distractor", chance=1 / 3),)
        table = only_table(sections.variant_tables(a_report(variants=effects)))
        assert table.rows[0][3] == ("33.3 %", "(was 25.0 %)")

    def test_unverified_ones_are_marked(self) -> None:
        parts = {
            "variants": (replace(EFFECT, variant="nota_replaces_gold", verified=False),),
            "splits": (replace(SPLIT, variant="nota_replaces_gold+next_label", verified=False),),
            "interactions": (replace(INTERACTION, verified=False),),
        }
        text = to_markdown(a_report(**parts))
        assert "| nota\\_replaces\\_gold (unverified) |" in text
        assert "| nota\\_replaces\\_gold + next\\_label (unverified) |" in text
        assert "| upper rotate(1) (unverified) |" in text
        assert "unverified: nobody checked that the right answer is still right." in text

    def test_of_all_variants_together(self) -> None:
        table = only_table(sections.robustness_tables(a_report(robustness=(ROBUSTNESS,))))
        assert table.title == "English · general · starter · plain"
        assert table.rows == (
            (
                ("letter", "grammar"),
                ("100",),
                ("2–3",),
                ("30.0 %", "(21.9–39.6)"),
                ("45.0 %", "(35.6–54.8)"),
                ("54.3 %", "(45.0–63.9)"),
                ("upper", "45.0 %", "(35.6–54.8)", "n = 100"),
            ),
        )

    def test_of_all_variants_where_no_item_could_be_compared(self) -> None:
        empty = replace(
            ROBUSTNESS,
            n=0,
            fewest=0,
            most=0,
            reacc=wilson(0, 0),
            recon=wilson(0, 0),
            worst=None,
            pairwise=None,
            low=None,
            high=None,
        )
        (row,) = only_table(sections.robustness_tables(a_report(robustness=(empty,)))).rows
        assert row == (
            ("letter", "grammar"),
            ("0",),
            ("0",),
            ("–", "–"),
            ("–", "–"),
            ("–", ""),
            ("–", "–"),
        )

    def test_of_position_bias(self) -> None:
        moved = replace(EFFECT, variant="rotate(1)", family="order")
        report = a_report(positions=(POSITIONS,), variants=(moved,))
        assert only_table(sections.position_tables(report)).rows == (
            (
                ("letter", "grammar"),
                ("40",),
                ("100 50 0 –",),
                ("70 20 10 0",),
                ("40.8", "(30.0–55.0)"),
                ("0.45", "(0.30–0.60)"),
            ),
        )

    def test_of_the_spread_over_prompts(self) -> None:
        assert SPREAD.accuracy is not None
        form = replace(
            SPREAD.accuracy, worst=("plain", wilson(0, 10)), best=("exam", wilson(10, 10))
        )
        spreads = (replace(SPREAD, compliance=replace(form, range=1.0, low=None, high=None)),)
        table = only_table(sections.spread_tables(a_report(spreads=spreads)))
        assert table.title == "English · general · starter"
        assert table.rows == (
            (
                ("letter", "free"),
                ("10",),
                ("accuracy",),
                ("2",),
                ("65.0 %", "(21.2)"),
                ("exam", "50.0 %", "(23.7–76.3)"),
                ("plain", "80.0 %", "(49.0–94.3)"),
                ("30.0", "(10.0–60.0)"),
            ),
            (
                ("letter", "free"),
                ("10",),
                ("in form",),
                ("2",),
                ("65.0 %", "(21.2)"),
                ("plain", "0.0 %", "(0.0–27.8)"),
                ("exam", "100.0 %", "(72.2–100.0)"),
                ("100.0", ""),
            ),
        )

    def test_of_the_levels_in_the_order_of_what_is_said(self) -> None:
        levels = ("original", "instruction(example)", "instruction(none)", "instruction(mentioned)")
        rows = [
            replace(a_free_row(strict=strict, lenient=100), variant=level)
            for level, strict in zip(levels, (45, 30, 15, 20), strict=True)
        ]
        rows += [replace(row, format="json") for row in rows[:3]]
        table = only_table(sections.level_tables(Report((), tuple(rows), ())))
        assert [(row[0], row[1], row[3]) for row in table.rows] == [
            (("letter",), ("not mentioned",), ("15.0 %", "(9.3–23.3)")),
            (("letter",), ("mentioned",), ("20.0 %", "(13.3–28.9)")),
            (("letter",), ("mentioned, with example",), ("30.0 %", "(21.9–39.6)")),
            (("letter",), ("demanded",), ("45.0 %", "(35.6–54.8)")),
            (("json",), ("not mentioned",), ("15.0 %", "(9.3–23.3)")),
            (("json",), ("mentioned, with example",), ("30.0 %", "(21.9–39.6)")),
            (("json",), ("demanded",), ("45.0 %", "(35.6–54.8)")),
        ]
        assert table.rows[0][4:] == (("100.0 %", "(96.3–100.0)"), ("40.0 %", "(30.9–49.8)"))

    def test_a_level_with_a_second_step_is_no_level(self) -> None:
        rows = (
            a_free_row(),
            replace(a_free_row(), variant="instruction(none)"),
            replace(a_free_row(), variant="instruction(mentioned)+next_label"),
            replace(a_free_row(), variant="rotate(1)+instruction(example)"),
        )
        table = only_table(sections.level_tables(Report((), rows, ())))
        assert [row[1] for row in table.rows] == [("not mentioned",), ("demanded",)]

    def test_of_transformed_answers_beside_the_original(self) -> None:
        original = replace(
            SPLIT,
            variant="original",
            right=wilson(7, 10),
            wrong_form=None,
            wrong_knowledge=wilson(2, 10),
            both_wrong=None,
            unread=wilson(1, 10),
        )
        transformed = replace(SPLIT, original=wilson(7, 10))
        table = only_table(sections.split_tables(a_report(splits=(original, transformed))))
        assert table.title == "English · general · starter · plain · letter/free"
        assert table.rows == (
            (
                ("original",),
                ("10",),
                ("–",),
                ("70.0 %", "(39.7–89.2)"),
                ("–",),
                ("20.0 %", "(5.7–51.0)"),
                ("–",),
                ("10.0 %", "(1.8–40.4)"),
            ),
            (
                ("upper_text",),
                ("10",),
                ("70.0 %", "(39.7–89.2)"),
                ("40.0 %", "(16.8–68.7)"),
                ("30.0 %", "(10.8–60.3)"),
                ("20.0 %", "(5.7–51.0)"),
                ("10.0 %", "(1.8–40.4)"),
                ("0.0 %", "(0.0–27.8)"),
            ),
        )

    def test_of_two_steps(self) -> None:
        table = only_table(sections.interaction_tables(a_report(interactions=(INTERACTION,))))
        assert table.rows == (
            (
                ("upper", "rotate(1)"),
                ("100",),
                ("−15.0",),
                ("+2.0",),
                ("−20.0",),
                ("−7.0", "−15.0 to +1.0"),
            ),
        )

    def test_of_the_overview(self) -> None:
        rows = (a_row(), a_row("clinical", 70), a_free_row(), a_free_row("clinical", 45, 100))
        heading, lines, table = sections.overview_blocks(overview(Report((), rows, ())))
        assert heading == Heading("English: clinical has the highest accuracy.", level=3)
        assert isinstance(lines, Lines)
        assert len(lines.lines) == 4
        assert isinstance(table, Table)
        assert table.title == "English · knowledge letter/grammar"
        assert table.rows[0] == (
            ("clinical",),
            ("100",),
            ("70.0 %", "(60.4–78.1)"),
            ("25.0 %", "30.0 %"),
            ("45.0 %", "(35.6–54.8)"),
            ("100.0 %", "(96.3–100.0)"),
            ("–",),
        )

    def test_one_model_without_variants_needs_no_table_in_the_overview(self) -> None:
        blocks = sections.overview_blocks(overview(Report((), (a_row(),), ())))
        assert [type(block) for block in blocks] == [Heading, Lines]


class TestTheWholeReport:
    def everything(self) -> Report:
        levels = tuple(
            replace(a_free_row(), variant=level)
            for level in ("original", "instruction(none)", "instruction(example)")
        )
        moved = replace(EFFECT, variant="shuffle", family="order")
        unverified = replace(EFFECT, variant="nota_replaces_gold+typos(0.05)", verified=False)
        return Report(
            (),
            (a_row("a|b"), a_row("general"), a_row("clinical", 70), *levels),
            (),
            variants=(EFFECT, moved, unverified),
            robustness=(ROBUSTNESS,),
            positions=(POSITIONS,),
            splits=(SPLIT,),
            spreads=(SPREAD,),
            interactions=(INTERACTION,),
            pairs=(PAIR, replace(PAIR, first="a|b")),
        )

    def test_every_row_of_a_table_has_as_many_cells_as_its_header(self) -> None:
        text = to_markdown(self.everything())
        tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        assert len(tables) >= 12
        for table in tables:
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, table

    def test_the_parts_come_in_the_order_of_reading(self) -> None:
        titles = re.findall(r"^## (.*)$", to_markdown(self.everything()), re.MULTILINE)
        assert titles[:2] == ["Overview", "Scores"]
        assert set(titles) >= {*PARTS, "Position bias", "How much is said of the form"}
        assert titles[-2:] == ["In words", "Terms"]

    def test_languages_models_and_sets_have_tables_of_their_own(self) -> None:
        effects = (
            EFFECT,
            replace(EFFECT, model="clinical"),
            replace(EFFECT, dataset="other"),
            replace(EFFECT, variant="hidden"),
        )
        found = sections.variant_tables(a_report(variants=effects))
        titles = [table.title.split(" · ")[1:3] for table in found if isinstance(table, Table)]
        assert titles == [["clinical", "starter"], ["general", "other"], ["general", "starter"]]
