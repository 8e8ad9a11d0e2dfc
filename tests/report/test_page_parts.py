"""How a page's sections cut and say what a report holds, on values written by hand."""

import re
from dataclasses import replace

import pytest

from medlocal.evals.comparing import Comparison, ComparisonRow, OverallRow, PooledRow
from medlocal.evals.robustness import VariantEffect
from medlocal.evals.scoring import ConstraintEffect, ScoreRow
from medlocal.evals.stats import Rate
from medlocal.report.blocks import Table
from medlocal.report.page_models import comparison_section
from medlocal.report.page_parts import (
    Names,
    Section,
    by_condition,
    by_place,
    called,
    compact,
    count_range,
    heads,
)
from medlocal.report.page_scores import accuracy_section, constraint_section
from medlocal.report.page_variants import variants_section
from medlocal.report.results import ModelPair, Report

HALF = Rate(0.5, 0.299, 0.701, 20)
ROW = ScoreRow(
    model="general",
    dataset="starter",
    language="es",
    variant="original",
    verified=True,
    prompt="plain",
    format="letter",
    arm="free",
    n=20,
    excluded=0,
    outcomes={"STRICT_VALID": 20},
    fcr_strict=HALF,
    fcr_lenient=HALF,
    acc_strict=HALF,
    acc_lenient=HALF,
    acc_given_valid=HALF,
    coverage=1.0,
    chance=0.25,
    majority=0.3,
    median_tax_nats=None,
    mean_label_mass=None,
    at_chance=False,
)
EFFECT = VariantEffect(
    model="general",
    dataset="starter",
    language="es",
    prompt="plain",
    format="letter",
    arm="free",
    variant="shuffle",
    family="order",
    verified=True,
    n=20,
    excluded=0,
    unpaired=0,
    num_verbatim=0,
    accuracy=HALF,
    original=HALF,
    chance=0.25,
    original_chance=0.25,
    delta=-0.35,
    low=-0.55,
    high=-0.15,
    b=7,
    c=0,
    wrong_to_other=2,
    num_unread=1,
    num_unread_both=0,
    flip_rate=HALF,
    p=0.016,
    p_holm=0.031,
)


def variants(*effects: VariantEffect, rows: tuple[ScoreRow, ...] = (ROW,)) -> Section:
    models = dict.fromkeys(effect.model for effect in effects)
    known = (*rows, *(replace(ROW, model=model) for model in models))
    section = variants_section(Report((), known, (), variants=effects), Names())
    assert section is not None
    return section


def texts(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


class TestCuts:
    def test_one_data_set_is_not_named(self) -> None:
        assert [name for name, _ in by_place([ROW, replace(ROW, language="en")])] == [
            "English",
            "Spanish",
        ]

    def test_several_data_sets_are_named(self) -> None:
        assert [name for name, _ in by_place([ROW, replace(ROW, dataset="medqa")])] == [
            "Spanish · medqa",
            "Spanish · starter",
        ]

    def test_the_wanted_condition_comes_first(self) -> None:
        rows = [ROW, replace(ROW, arm="grammar"), replace(ROW, format="json")]
        found = [key for key, _ in by_condition(rows, ("plain", "json", "free"))]
        assert found == [
            ("plain", "json", "free"),
            ("plain", "letter", "free"),
            ("plain", "letter", "grammar"),
        ]

    def test_without_it_that_with_most_rows_does(self) -> None:
        rows = [ROW, replace(ROW, arm="grammar"), replace(ROW, arm="grammar", model="clinical")]
        assert by_condition(rows, ("exam", "tag", "free"))[0][0] == ("plain", "letter", "grammar")

    def test_the_usual_prompt_is_not_named(self) -> None:
        assert called(("plain", "letter", "free"), "plain") == "letter · free"
        assert called(("exam", "letter", "free"), "plain") == "letter · free · exam"

    @pytest.mark.parametrize(
        ("numbers", "said"), [([], "0"), ([20, 20], "20"), ([7, 1200], "7–1,200")]
    )
    def test_numbers_as_a_range(self, numbers: list[int], said: str) -> None:
        assert count_range(numbers) == said


class TestCompact:
    TABLE = Table(
        "Title",
        heads("variant | model | n"),
        ((("a",), ("m",), ("20",)), (("b",), ("m",), ("20",))),
        num_names=2,
    )

    def test_a_column_of_one_word_goes_into_the_title(self) -> None:
        found = compact(self.TABLE)
        assert found.title == "Title (model: m)"
        assert found.headers == (("variant",), ("n",))
        assert found.rows == ((("a",), ("20",)), (("b",), ("20",)))
        assert found.num_names == 1

    def test_numbers_stay_though_they_are_equal(self) -> None:
        assert ("n",) in compact(self.TABLE).headers

    def test_what_the_title_says_is_not_said_again(self) -> None:
        assert compact(replace(self.TABLE, title="Title of m")).title == "Title of m"

    def test_a_row_keeps_a_name(self) -> None:
        same = replace(self.TABLE, rows=(self.TABLE.rows[0],) * 2)
        assert compact(same).headers == (("variant",), ("n",))

    def test_one_row_stays_as_it_is(self) -> None:
        one = replace(self.TABLE, rows=self.TABLE.rows[:1])
        assert compact(one) == one


class TestVariants:
    def test_a_change_that_is_shown_is_marked(self) -> None:
        other = replace(EFFECT, variant="rotate(1)", delta=-0.1, p_holm=0.051)
        shown = texts(variants(EFFECT, other).parts[0].figures[0].svg)
        assert "−35.0*" in shown
        assert "−10.0" in shown

    def test_the_largest_loss_is_told(self) -> None:
        (line,) = variants(EFFECT, replace(EFFECT, variant="upper", p_holm=0.5)).parts[0].lines
        assert line.startswith("1 of 2 changes")
        assert "shuffle, −35.0 points (−55.0 to −15.0, n = 20; general, letter · free)" in line

    def test_unverified_variants_stand_apart(self) -> None:
        doubtful = replace(EFFECT, variant="nota_replaces_gold", family="option", verified=False)
        shown = texts(variants(EFFECT, doubtful).parts[0].figures[0].svg)
        head = shown.index("Unverified: nobody checked that the right answer is still right")
        assert shown.index("shuffle") < head < shown.index("nota_replaces_gold")

    def test_unverified_changes_are_not_counted(self) -> None:
        (line,) = variants(EFFECT, replace(EFFECT, verified=False)).parts[0].lines
        assert line.startswith("1 of 1 changes")

    def test_models_stand_side_by_side(self) -> None:
        (part,) = variants(EFFECT, replace(EFFECT, model="clinical")).parts
        assert {"general", "clinical"} <= set(texts(part.figures[0].svg))

    def test_one_model_has_its_conditions_side_by_side(self) -> None:
        (part,) = variants(EFFECT, replace(EFFECT, arm="grammar")).parts
        assert {"letter · free", "letter · grammar"} & set(texts(part.figures[0].svg))
        assert part.more == ()

    def test_other_conditions_of_several_models_are_folded(self) -> None:
        effects = [
            replace(EFFECT, model=model, arm=arm)
            for model in ("general", "clinical")
            for arm in ("free", "grammar")
        ]
        (part,) = variants(*effects).parts
        assert "Spanish, letter · free" in part.figures[0].table.title
        assert [more.title for more in part.more] == ["Spanish, letter · grammar"]

    def test_the_numbers_stand_in_the_table(self) -> None:
        table = variants(EFFECT).parts[0].figures[0].table
        cells = dict(zip((head[0] for head in table.headers), table.rows[0], strict=True))
        assert cells["n"] == ("20",)
        assert cells["points (95 % interval)"] == ("−35.0", "(−55.0 to −15.0)")
        assert cells["right→wrong"] == ("7",)
        assert cells["p (Holm)"] == ("0.031",)


class TestAccuracy:
    def test_arms_that_write_nothing_have_no_form(self) -> None:
        scored = replace(ROW, arm="label", fcr_strict=None, fcr_lenient=None)
        section = accuracy_section(Report((), (scored,), ()), Names())
        assert section is not None
        table = section.parts[0].figures[0].table
        cells = dict(zip((head[0] for head in table.headers), table.rows[0], strict=True))
        assert cells["in the form"] == ("–",)
        assert cells["right"] == ("50.0 %", "(29.9–70.1)")

    def test_an_accuracy_at_chance_is_marked_and_explained(self) -> None:
        row = replace(ROW, at_chance=True)
        section = accuracy_section(Report((), (row,), ()), Names())
        assert section is not None
        table = section.parts[0].figures[0].table
        assert ("50.0 % *", "(29.9–70.1)") in table.rows[0]
        assert "not shown to be above chance" in table.note

    def test_accuracy_of_the_readable_has_its_own_n(self) -> None:
        row = replace(ROW, acc_given_valid=Rate(0.556, 0.337, 0.754, 18))
        section = accuracy_section(Report((), (row,), ()), Names())
        assert section is not None
        table = section.parts[0].figures[0].table
        assert ("55.6 %", "(33.7–75.4)", "n = 18") in table.rows[0]

    def test_perturbed_questions_are_no_part_of_it(self) -> None:
        row = replace(ROW, variant="shuffle")
        assert accuracy_section(Report((), (row,), ()), Names()) is None


class TestConstraint:
    EFFECT = ConstraintEffect(
        model="general",
        dataset="starter",
        language="es",
        variant="original",
        verified=True,
        prompt="plain",
        format="letter",
        n=50,
        excluded=50,
        accuracy_free=Rate(0.0, 0.0, 0.071, 50),
        accuracy_grammar=Rate(0.2, 0.112, 0.330, 50),
        b=0,
        c=10,
        p=0.002,
        delta=0.2,
        low=0.1,
        high=0.32,
        agreement=Rate(0.8, 0.670, 0.888, 50),
        forced=Rate(0.25, 0.142, 0.402, 40),
        forced_chance=0.25,
    )

    def test_its_shares_are_those_of_the_pairs(self) -> None:
        """Half of all free answers are right, and none of those that have a pair."""
        free = replace(ROW, n=100, acc_lenient=Rate(0.5, 0.404, 0.596, 100))
        report = Report((), (free, replace(free, arm="grammar")), (self.EFFECT,))
        section = constraint_section(report, Names())
        assert section is not None
        figure = section.parts[0].figures[0]
        heads = [head[0] for head in figure.table.headers]
        cells = dict(zip(heads, figure.table.rows[0], strict=True))
        assert cells["free"] == ("0.0 %", "(0.0–7.1)")
        assert cells["grammar"] == ("20.0 %", "(11.2–33.0)")
        assert cells["points (95 % interval)"] == ("+20.0", "(+10.0 to +32.0)")
        assert cells["same answer"] == ("80.0 %", "(67.0–88.8)")
        assert cells["forced: right"] == ("25.0 %", "(14.2–40.2)", "n = 40")
        assert (cells["forced: guessing"], cells["not in n"]) == (("25.0 %",), ("50",))

    def test_a_gain_is_not_called_knowledge(self) -> None:
        section = constraint_section(Report((), (ROW,), (self.EFFECT,)), Names())
        assert section is not None
        assert "Some of those may be luck" in section.lead


class TestModels:
    ROW = ComparisonRow(
        dataset="starter",
        language="es",
        format="letter",
        arm="free",
        prompt="plain",
        n=20,
        excluded=0,
        accuracy_first=HALF,
        accuracy_second=HALF,
        delta=0.05,
        low=-0.2,
        high=0.3,
        b=2,
        c=3,
        p=1.0,
        p_holm=1.0,
        fcr_first=HALF,
        fcr_second=HALF,
        agreement=HALF,
        verdict="no difference shown",
        smallest=0.349,
    )

    def section(self, *rows: ComparisonRow) -> Section:
        comparison = Comparison("general", "clinical", rows, (), 20, 3, 0, 1)
        pair = ModelPair("general", "clinical", comparison, ("The templates differ.",))
        section = comparison_section(Report((), (ROW,), (), pairs=(pair,)), Names())
        assert section is not None
        return section

    def test_no_difference_comes_with_what_could_have_been_shown(self) -> None:
        (part,) = self.section(self.ROW).parts
        assert part.title == "clinical against general"
        assert "no difference shown" in part.lines[0]
        assert "34.9 points or more" in part.lines[0]

    def test_agreement_and_what_does_not_count_stand_beside(self) -> None:
        (part,) = self.section(replace(self.ROW, excluded=2, num_tests=3)).parts
        table = part.more[0].figures[0].table
        cells = dict(zip((head[0] for head in table.headers), table.rows[0], strict=True))
        assert cells["same answer"] == ("50.0 %", "(29.9–70.1)")
        assert (cells["could show"], cells["not in n"]) == (("34.9",), ("2",))
        assert "with 80 % power, corrected for 3 data sets as p is, in points" in table.note

    def test_all_data_sets_together_and_all_variants_together_are_told(self) -> None:
        other = replace(self.ROW, dataset="medqa")
        overall = OverallRow(
            language="es",
            format="letter",
            arm="free",
            prompt="plain",
            datasets=("medqa", "starter"),
            n=40,
            excluded=0,
            num_items=40,
            accuracy_first=HALF,
            accuracy_second=HALF,
            delta=0.05,
            low=-0.1,
            high=0.2,
            b=4,
            c=6,
            p=0.754,
            verdict="no difference shown",
            smallest=0.24,
        )
        pooled = PooledRow(
            language="es",
            format="letter",
            arm="free",
            n=400,
            excluded=3,
            num_items=40,
            accuracy_first=HALF,
            accuracy_second=HALF,
            delta=0.06,
            low=0.01,
            high=0.11,
            p=0.031,
            verdict="better",
        )
        comparison = Comparison(
            "general", "clinical", (self.ROW, other), (pooled,), 400, 0, 0, 0, (overall,)
        )
        pair = ModelPair("general", "clinical", comparison)
        section = comparison_section(Report((), (ROW,), (), pairs=(pair,)), Names())
        assert section is not None
        (part,) = section.parts
        assert part.lines[0] == (
            "Spanish, 2 data sets together, letter/free: no difference shown, +5.0 points (−10.0 to +20.0,"
            " n = 40, p = 0.754); a true difference of 24.0 points or more would have been shown with"
            " 80 % power."
        )
        assert part.lines[-1] == (
            "Over all data sets, prompts and variants that keep the answer in Spanish, letter/free:"
            " better (+6.0 points, +1.0 to +11.0, p = 0.031; 400 pairs of answers to 40 questions)."
        )
        (table,) = part.more[0].tables
        cells = dict(zip((head[0] for head in table.headers), table.rows[0], strict=True))
        assert cells["general right"] == ("50.0 %", "(29.9–70.1)")
        assert (cells["p"], cells["not in n"]) == (("0.031",), ("3",))

    def test_what_has_no_partner_is_told(self) -> None:
        (part,) = self.section(self.ROW).parts
        assert "The templates differ." in part.lines
        assert part.lines[-1] == (
            "Left out: 3 answers of general and 0 of clinical without a partner; pairs that were not"
            " asked the same: 1."
        )

    def test_models_without_common_questions_have_no_plot(self) -> None:
        (part,) = self.section().parts
        assert part.more == ()
