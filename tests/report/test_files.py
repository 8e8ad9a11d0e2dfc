"""Scores as CSV and LaTeX, from rows written by hand."""

import csv
import re
from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.evals.position import PositionBias
from medlocal.evals.robustness import Robustness, VariantEffect
from medlocal.evals.scoring import ScoreRow
from medlocal.evals.stats import Rate
from medlocal.report.files import escape_latex, scores_csv, scores_latex, variants_csv
from medlocal.report.results import Report

FREE = ScoreRow(
    model="demo",
    dataset="starter",
    language="es",
    variant="original",
    verified=True,
    prompt="plain",
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
    majority=1 / 3,
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
EFFECT = VariantEffect(
    model="demo",
    dataset="starter",
    language="es",
    prompt="plain",
    format="json",
    arm="free",
    variant="rotate(1)",
    family="order",
    verified=True,
    n=100,
    excluded=1,
    unpaired=3,
    num_verbatim=0,
    accuracy=Rate(0.22, 0.150, 0.311, 100),
    original=Rate(0.27, 0.193, 0.364, 100),
    chance=0.25,
    original_chance=0.25,
    delta=-0.05,
    low=-0.13,
    high=0.03,
    b=12,
    c=7,
    wrong_to_other=31,
    num_unread=10,
    num_unread_both=0,
    flip_rate=Rate(0.5, 0.404, 0.596, 100),
    p=0.359,
    p_holm=0.718,
)
ROBUST = Robustness(
    model="demo",
    dataset="starter",
    language="es",
    prompt="plain",
    format="json",
    arm="free",
    variants=("original", "rotate(1)", "typos(0.2)"),
    n=100,
    fewest=2,
    most=3,
    num_alone=0,
    num_incomplete=0,
    num_excluded=4,
    reacc=Rate(0.1, 0.055, 0.174, 100),
    recon=Rate(0.2, 0.133, 0.289, 100),
    worst=("typos(0.2)", Rate(0.15, 0.093, 0.233, 100)),
    pairwise=0.4,
    low=0.35,
    high=0.45,
)
BIAS = PositionBias(
    model="demo",
    dataset="starter",
    language="es",
    prompt="plain",
    format="json",
    arm="free",
    num_slots=2,
    num_other=0,
    n=200,
    excluded=0,
    coverage=1.0,
    recalls=(Rate(0.6, 0.502, 0.691, 100), Rate(0.2, 0.133, 0.289, 100)),
    gold_shares=(0.5, 0.5),
    chosen_shares=(0.7, 0.3),
    rstd=0.2,
    rstd_low=0.104,
    rstd_high=0.297,
    total_variation=0.2,
    total_variation_low=0.1,
    total_variation_high=0.3,
)


def a_report(*rows: ScoreRow, **parts: object) -> Report:
    return Report(runs=(), rows=rows, effects=(), **parts)  # type: ignore[arg-type]


def cells(text: str) -> list[dict[str, str]]:
    """The rows as a program reads them."""
    return list(csv.DictReader(StringIO(text, newline="")))


def table_rows(text: str) -> list[str]:
    """The lines of LaTeX that are rows of a table, without indentation."""
    return [line.strip() for line in text.splitlines() if line.endswith(" \\\\")]


class TestScoresAsCsv:
    def test_the_header(self) -> None:
        assert scores_csv(a_report()) == (
            "model,dataset,language,variant,verified,prompt,format,arm,n,excluded,"
            "acc_lenient,acc_lenient_low,acc_lenient_high,acc_strict,acc_strict_low,acc_strict_high,"
            "fcr_strict,fcr_strict_low,fcr_strict_high,fcr_lenient,fcr_lenient_low,fcr_lenient_high,"
            "acc_given_valid,acc_given_valid_low,acc_given_valid_high,num_valid,coverage,chance,"
            "majority,at_chance,median_tax_nats,mean_label_mass,num_engine_error,"
            "num_constraint_not_applied,num_truncated,num_empty,num_strict_valid,num_lenient_valid,"
            "num_ambiguous,num_out_of_set,num_refusal,num_unparseable,num_scored\r\n"
        )

    def test_a_row_by_hand(self) -> None:
        _, row = scores_csv(a_report(FREE)).splitlines()
        assert row == (
            "demo,starter,es,original,true,plain,json,free,100,2,0.27,0.193,0.364,0.05,0.022,0.112,"
            "0.12,0.07,0.198,0.9,0.826,0.945,0.3,0.215,0.401,90,0.9,0.25,0.3333333333333333,true,,,"
            "2,0,0,0,12,78,0,0,10,0,0"
        )

    def test_a_scored_arm_has_no_compliance(self) -> None:
        (row,) = cells(scores_csv(a_report(LABEL)))
        assert (row["fcr_strict"], row["fcr_lenient_high"]) == ("", "")
        assert (row["mean_label_mass"], row["num_scored"], row["at_chance"]) == (
            "0.835",
            "100",
            "false",
        )

    def test_lines_end_as_rfc_4180_says(self) -> None:
        text = scores_csv(a_report(FREE, LABEL))
        assert text.count("\r\n") == text.count("\n") == 3

    def test_a_name_with_quotes_and_commas_stays_one_cell(self) -> None:
        (row,) = cells(scores_csv(a_report(replace(FREE, model='a,"b"\nc'))))
        assert row["model"] == 'a,"b"\nc'

    @pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "'=1"])
    def test_a_name_that_a_spreadsheet_would_run_gets_an_apostrophe(self, name: str) -> None:
        (row,) = cells(scores_csv(a_report(replace(FREE, model=name))))
        assert row["model"] == f"'{name}"

    @pytest.mark.parametrize("name", ["a=1", "'quoted", " -1", "ñ"])
    def test_other_names_are_left_alone(self, name: str) -> None:
        (row,) = cells(scores_csv(a_report(replace(FREE, model=name))))
        assert row["model"] == name


class TestVariantsAsCsv:
    def test_a_row_by_hand(self) -> None:
        assert variants_csv(a_report(variants=(EFFECT,))) == (
            "model,dataset,language,prompt,format,arm,variant,family,verified,n,excluded,unpaired,"
            "num_verbatim,accuracy,accuracy_low,accuracy_high,original,original_low,original_high,"
            "delta,delta_low,delta_high,chance,original_chance,"
            "right_to_wrong,wrong_to_right,wrong_to_other,num_unread,num_unread_both,"
            "flip_rate,flip_rate_low,flip_rate_high,p,p_holm\r\n"
            "demo,starter,es,plain,json,free,rotate(1),order,true,100,1,3,0,"
            "0.22,0.15,0.311,0.27,0.193,0.364,-0.05,-0.13,0.03,0.25,0.25,12,7,31,10,0,0.5,0.404,0.596,"
            "0.359,0.718\r\n"
        )

    def test_a_negative_number_is_no_formula(self) -> None:
        (row,) = cells(variants_csv(a_report(variants=(EFFECT,))))
        assert float(row["delta"]) == -0.05

    def test_what_was_not_computed_is_empty(self) -> None:
        nothing = Rate(None, None, None, 0)
        empty = replace(
            EFFECT, n=0, accuracy=nothing, delta=None, low=None, high=None, p=None, p_holm=None
        )
        (row,) = cells(variants_csv(a_report(variants=(empty,))))
        assert {row[name] for name in ("accuracy", "delta", "delta_low", "p", "p_holm")} == {""}


class TestLatex:
    def test_a_row_has_accuracy_baselines_and_compliance(self) -> None:
        assert table_rows(scores_latex(a_report(FREE, LABEL)))[1:] == [
            "demo & json & free & 100 & 27.0 (19.3--36.4)$^{*}$ & 25.0 & 33.3 & 12.0 (7.0--19.8) \\\\",
            "& json & label & 100 & 60.0 (50.2--69.1) & 25.0 & 33.3 & -- \\\\",
        ]

    def test_the_caption_says_what_is_shown_of_how_many(self) -> None:
        text = scores_latex(a_report(FREE, replace(FREE, arm="grammar", n=98)))
        assert "\\caption{Unperturbed questions, Spanish, data set starter, prompt plain." in text
        assert "in \\% of $n$ questions with 95\\,\\% Wilson intervals; $n$ = 98--100." in text
        assert "$^{*}$: not shown to be above chance, or above the majority" in text

    def test_a_model_is_named_once_and_set_apart(self) -> None:
        other = replace(FREE, model="base")
        lines = scores_latex(a_report(FREE, LABEL, other)).splitlines()
        body = [line.strip().split(" & ")[0] for line in lines]
        start = body.index("\\midrule")
        assert body[start + 1 : start + 6] == [
            "base",
            "\\addlinespace",
            "demo",
            "& json",
            "\\bottomrule",
        ]

    def test_languages_data_sets_and_prompts_have_tables_of_their_own(self) -> None:
        english, medqa = replace(FREE, language="en"), replace(FREE, dataset="medqa")
        text = scores_latex(a_report(FREE, english, medqa, replace(FREE, prompt="exam")))
        assert text.count("\\begin{table}") == 4
        assert len(set(re.findall(r"\\label\{(.*)\}", text))) == 4

    def test_perturbed_questions_are_not_among_the_scores(self) -> None:
        perturbed = replace(FREE, variant="rotate(1)", acc_lenient=Rate(0.777, 0.7, 0.8, 100))
        assert "77.7" not in scores_latex(a_report(FREE, perturbed))

    def test_robustness_by_hand(self) -> None:
        report = a_report(robustness=(ROBUST,), positions=(BIAS,), variants=(EFFECT,))
        text = scores_latex(report)
        assert table_rows(text)[1] == (
            "demo & json & free & 100 & 10.0 (5.5--17.4) & 20.0 (13.3--28.9)"
            " & typos(0.2) & 15.0 (9.3--23.3) & 20.0 (10.4--29.7) \\\\"
        )
        assert "over 2--3 wordings of each question, the original included." in text

    def test_where_no_option_was_moved_there_is_no_position_bias(self) -> None:
        text = scores_latex(a_report(robustness=(ROBUST,), positions=(BIAS,)))
        assert table_rows(text)[1].endswith("& 15.0 (9.3--23.3) & -- \\\\")

    def test_position_bias_of_another_arm_is_not_shown(self) -> None:
        biases = (replace(BIAS, arm="grammar"),)
        report = a_report(robustness=(ROBUST,), positions=biases, variants=(EFFECT,))
        text = scores_latex(report)
        assert table_rows(text)[1].endswith("& 15.0 (9.3--23.3) & -- \\\\")

    def test_an_item_count_of_zero_shows_no_numbers(self) -> None:
        none = Rate(None, None, None, 0)
        empty = replace(ROBUST, n=0, reacc=none, recon=none, worst=None)
        assert table_rows(scores_latex(a_report(robustness=(empty,))))[1] == (
            "demo & json & free & 0 & -- & -- & -- & -- & -- \\\\"
        )

    def test_nothing_graded_is_said_in_a_comment(self) -> None:
        assert scores_latex(a_report()).splitlines()[-1] == "% No answer has been graded yet."

    def test_environments_braces_and_columns_fit_together(self) -> None:
        odd = replace(FREE, model="a_b & c%{d}\\", dataset="50 %", prompt="[x]")
        text = scores_latex(a_report(FREE, LABEL, odd, robustness=(ROBUST,), positions=(BIAS,)))
        is_balanced(text)
        open_ones: list[str] = []
        for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
            assert what == "begin" or open_ones.pop() == name
            open_ones += [name] if what == "begin" else []
        assert open_ones == []
        widths = {len(re.findall(r"(?<!\\)&", row)) for row in table_rows(text)}
        assert widths == {7, 8}


def is_balanced(text: str) -> None:
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0


class TestEscaping:
    @pytest.mark.parametrize(
        ("name", "latex"),
        [
            ("a_b", "a\\_b"),
            ("50 % & more", "50 \\% \\& more"),
            ("#1 ${x}", "\\#1 \\$\\{x\\}"),
            ("~^\\", "\\textasciitilde{}\\textasciicircum{}\\textbackslash{}"),
            ("<a|b>", "\\textless{}a\\textbar{}b\\textgreater{}"),
            ("[1]*", "{[}1{]}{*}"),
            ("a--b---c", "a-{}-b-{}-{}-c"),
            ('"x"', "{\\char34}x{\\char34}"),
            ("señor", "se\\~{n}or"),
            ("sen\u0303or", "se\\~{n}or"),
            ("Müller, çà", 'M\\"{u}ller, \\c{c}\\`{a}'),
            ("Ångström", '\\r{A}ngstr\\"{o}m'),
            ("¿5–6 µg?", "\\textquestiondown{}5\\textendash{}6 $\\mu$g?"),
            ("α", "U+03B1"),
            ("医", "U+533B"),
            ("a\nb\x00\u202ec", "a bc"),
        ],
    )
    def test_by_hand(self, name: str, latex: str) -> None:
        assert escape_latex(name) == latex

    @given(st.text())
    def test_no_name_can_break_a_table(self, name: str) -> None:
        latex = escape_latex(name)
        assert latex.isascii()
        assert latex.isprintable()
        is_balanced(latex)
        plain = re.sub(r"\\[&%$#_{}]|\\[~^]\{", "", latex)
        assert not set("&%#_~") & set(plain)
        assert plain.count("$") % 2 == 0
        assert not re.match(r"[\[*]", latex)
