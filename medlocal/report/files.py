"""The figures of a report for other programs and for papers: CSV and LaTeX tables. Pure.

CSV has every figure in full precision, as shares from 0 to 1. LaTeX has those that a paper shows, in
percent. Single answers are not known here, nor how a person reads a report on a screen; files are
written by the caller.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TypeVar

from medlocal.data.tables import GUARDED
from medlocal.evals.answers import Outcome
from medlocal.evals.pairing import SUBJECT
from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.position import PositionBias
from medlocal.evals.robustness import Robustness, VariantEffect
from medlocal.evals.scoring import ScoreRow
from medlocal.evals.stats import Rate
from medlocal.report import wording
from medlocal.report.results import Report

_Asked = TypeVar("_Asked", ScoreRow, Robustness)

_SCORE_RATES = ("acc_lenient", "acc_strict", "fcr_strict", "fcr_lenient", "acc_given_valid")
_OUTCOMES = {f"num_{outcome.value.lower()}": outcome.value for outcome in Outcome}
_EFFECT_RATES = ("accuracy", "original", "flip_rate")


def _with_bounds(names: Iterable[str]) -> list[str]:
    return [f"{name}{part}" for name in names for part in ("", "_low", "_high")]


SCORE_COLUMNS = (
    *("model", "dataset", "language", "variant", "verified", "prompt", "format", "arm"),
    *("n", "excluded"),
    *_with_bounds(_SCORE_RATES),
    *("num_valid", "coverage", "chance", "majority", "at_chance"),
    *("median_tax_nats", "mean_label_mass"),
    *_OUTCOMES,
)
"""Of `scores_csv`. `num_valid` is the denominator of `acc_given_valid`, n that of all other shares."""
VARIANT_COLUMNS = (
    *("model", "dataset", "language", "prompt", "format", "arm", "variant", "family", "verified"),
    *("n", "excluded", "unpaired", "num_verbatim"),
    *_with_bounds(("accuracy", "original", "delta")),
    *("chance", "original_chance"),
    *("right_to_wrong", "wrong_to_right", "wrong_to_other", "num_unread", "num_unread_both"),
    *_with_bounds(("flip_rate",)),
    *("p", "p_holm"),
)
"""Of `variants_csv`. `delta` has bootstrap bounds, the other shares Wilson bounds."""


def scores_csv(report: Report) -> str:
    """The scores as CSV: a header, then one row per model, condition and arm.

    Lines end in CRLF (RFC 4180). A value that does not apply is empty. A text that a spreadsheet would
    take for a formula has an apostrophe before it.
    """
    return _csv(SCORE_COLUMNS, map(_score_values, report.rows))


def variants_csv(report: Report) -> str:
    """Every variant against the original as CSV, one row each; written as `scores_csv` is."""
    return _csv(VARIANT_COLUMNS, map(_effect_values, report.variants))


def csv_cell(value: object) -> str:
    """How a value stands in a cell of a CSV file.

    None is empty, a truth value `true` or `false`, a number has all its digits. A text that begins as
    a formula of a spreadsheet does gets an apostrophe before it, which importing takes away again.
    """
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str():
            return f"'{value}" if GUARDED.match(f"'{value}") else value
        case _:
            return str(value)


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([csv_cell(row[name]) for name in columns])
    return text.getvalue()


def _score_values(row: ScoreRow) -> dict[str, object]:
    counts = {name: row.outcomes.get(outcome, 0) for name, outcome in _OUTCOMES.items()}
    rates = _rates(row, _SCORE_RATES)
    return {**asdict(row), **rates, "num_valid": row.acc_given_valid.n, **counts}


def _effect_values(effect: VariantEffect) -> dict[str, object]:
    renamed = {
        "delta_low": effect.low,
        "delta_high": effect.high,
        "right_to_wrong": effect.right_to_wrong,
        "wrong_to_right": effect.wrong_to_right,
    }
    return {**asdict(effect), **_rates(effect, _EFFECT_RATES), **renamed}


def _rates(row: ScoreRow | VariantEffect, names: Iterable[str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in names:
        rate: Rate | None = getattr(row, name)
        parts = (rate.value, rate.low, rate.high) if rate else (None, None, None)
        found |= zip(_with_bounds([name]), parts, strict=True)
    return found


_PREAMBLE = (
    "% Tables of medlocal. They need \\usepackage{booktabs}, and no input encoding: all is ASCII.\n"
)
_NOTHING = "% No answer has been graded yet.\n"
_LATEX_ABSENT = "--"
_LATEX_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\\": "\\textbackslash{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "`": "\\textasciigrave{}",
    '"': "{\\char34}",  # active in several languages of babel
    # At the beginning of a row these three would be taken for an argument of the \\ before it.
    **{sign: f"{{{sign}}}" for sign in "[]*"},
    "–": "\\textendash{}",
    "—": "\\textemdash{}",
    "‘": "\\textquoteleft{}",
    "’": "\\textquoteright{}",
    "“": "\\textquotedblleft{}",
    "”": "\\textquotedblright{}",
    "…": "\\textellipsis{}",
    "¿": "\\textquestiondown{}",
    "¡": "\\textexclamdown{}",
    "·": "\\textperiodcentered{}",
    "−": "$-$",
    "×": "$\\times$",
    "±": "$\\pm$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    "°": "$^{\\circ}$",
    "µ": "$\\mu$",
    "ß": "\\ss{}",
    "æ": "\\ae{}",
    "Æ": "\\AE{}",
    "ø": "\\o{}",
    "Ø": "\\O{}",
    "œ": "\\oe{}",
    "Œ": "\\OE{}",
    "ł": "\\l{}",
    "Ł": "\\L{}",
}
_MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LATEX_ACCENTS = dict(zip(_MARKS, "`'^~=u.\"rHvc", strict=True))
"""Combining marks with the command that sets each."""


@dataclass(frozen=True, slots=True)
class _LatexTable:
    """A table whose texts are LaTeX already."""

    label: str
    caption: str
    columns: str
    """As tabular takes them: l, r."""
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The first cell is the model; it is shown where it changes."""


def scores_latex(report: Report) -> str:
    """The scores of the unperturbed questions and the robustness, as LaTeX tables for `booktabs`.

    Two tables at most per language, data set and prompt: accuracy and strict format compliance, and
    robustness over the variants. The text is ASCII: letters with accents are set by commands, and a
    character that LaTeX does not know by name stands as its number (U+03B1).
    """
    originals = [row for row in report.rows if row.variant == ORIGINAL]
    moved = {_subject(effect) for effect in report.variants if effect.family == "order"}
    positions = {_subject(bias): bias for bias in report.positions if _subject(bias) in moved}
    tables = [
        _score_table(rows, f"tab:medlocal-accuracy-{number}")
        for number, rows in enumerate(_by_condition(originals), start=1)
    ]
    tables += [
        _robustness_table(rows, positions, f"tab:medlocal-robustness-{number}")
        for number, rows in enumerate(_by_condition(report.robustness), start=1)
    ]
    return _PREAMBLE + ("\n".join(map(_laid_out, tables)) or _NOTHING)


def escape_latex(text: str) -> str:
    """A text of somebody else's as LaTeX that says the same, in ASCII and on one line."""
    composed = unicodedata.normalize("NFC", wording.clean(text))
    # Two hyphens would become a dash.
    return re.sub("-(?=-)", "-{}", "".join(map(_latex_sign, composed)))


def _latex_sign(sign: str) -> str:
    if sign in _LATEX_SIGNS:
        return _LATEX_SIGNS[sign]
    if sign.isascii():
        return sign
    base, *marks = list(unicodedata.normalize("NFD", sign))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _LATEX_ACCENTS:
        return f"\\{_LATEX_ACCENTS[marks[0]]}{{{base}}}"
    return f"U+{ord(sign):04X}"


def _by_condition(rows: Iterable[_Asked]) -> list[list[_Asked]]:
    """Rows that share language, data set and prompt; the models of a group one after another."""

    def key(row: _Asked) -> tuple[str, str, str]:
        return (row.language, row.dataset, row.prompt)

    ordered = sorted(rows, key=lambda row: (key(row), row.model))
    return [list(group) for _, group in groupby(ordered, key)]


def _subject(row: Robustness | PositionBias | VariantEffect) -> tuple[str, ...]:
    return tuple(getattr(row, name) for name in SUBJECT)


def _score_table(rows: Sequence[ScoreRow], label: str) -> _LatexTable:
    first = rows[0]
    caption = (
        f"Unperturbed questions, {_condition(first)}. Accuracy (an answer counts where exactly one"
        " option can be read) and strict form (the whole answer is in the form that was demanded),"
        f" in \\% of $n$ questions with 95\\,\\% Wilson intervals; $n$ = {_span(row.n for row in rows)}."
        " Chance: guessing; majority: always the most frequent right label."
        " $^{*}$: not shown to be above chance, or above the majority where that is higher. Engine errors and masks that did not act are not in $n$."
    )
    headers = ("Model", "Format", "Arm", "$n$", "Accuracy", "Chance", "Majority", "Strict form")
    return _LatexTable(label, caption, "lllrrrrr", headers, tuple(map(_score_cells, rows)))


def _score_cells(row: ScoreRow) -> tuple[str, ...]:
    mark = "$^{*}$" if row.at_chance else ""
    return (
        *(escape_latex(name) for name in (row.model, row.format, row.arm)),
        f"{row.n:,}",
        _share(row.acc_lenient) + mark,
        _percent(row.chance),
        _percent(row.majority),
        _share(row.fcr_strict),
    )


def _robustness_table(
    rows: Sequence[Robustness], positions: Mapping[tuple[str, ...], PositionBias], label: str
) -> _LatexTable:
    variants = _span(number for row in rows for number in (row.fewest, row.most))
    caption = (
        f"Robustness, {_condition(rows[0])}, over {variants} wordings of each question, the original"
        " included. ReAcc: questions answered right in all their variants; ReCon: with the same"
        f" option in all; worst: the variant with the lowest accuracy; in \\% of $n$ questions with 95\\,\\%"
        f" Wilson intervals; $n$ = {_span(row.n for row in rows)}. RStd: standard deviation of the recall"
        " over the places of the right option, in percentage points with a 95\\,\\% bootstrap interval"
        " clustered by question, where options were moved; it is above 0 by chance too."
    )
    headers = (
        "Model",
        "Format",
        "Arm",
        "$n$",
        "ReAcc",
        "ReCon",
        "Worst variant",
        "its accuracy",
        "RStd",
    )
    cells = tuple(_robustness_cells(row, positions.get(_subject(row))) for row in rows)
    return _LatexTable(label, caption, "lllrrrlrr", headers, cells)


def _robustness_cells(row: Robustness, bias: PositionBias | None) -> tuple[str, ...]:
    name, worst = row.worst or ("", None)
    rstd = _interval(bias.rstd, bias.rstd_low, bias.rstd_high) if bias else _LATEX_ABSENT
    return (
        *(escape_latex(name) for name in (row.model, row.format, row.arm)),
        f"{row.n:,}",
        _share(row.reacc),
        _share(row.recon),
        escape_latex(name) or _LATEX_ABSENT,
        _share(worst),
        rstd,
    )


def _condition(row: ScoreRow | Robustness) -> str:
    language, dataset, prompt = map(
        escape_latex, (wording.language(row.language), row.dataset, row.prompt)
    )
    return f"{language}, data set {dataset}, prompt {prompt}"


def _span(numbers: Iterable[int]) -> str:
    found = list(numbers)
    low, high = min(found), max(found)
    return f"{low:,}" if low == high else f"{low:,}--{high:,}"


def _share(rate: Rate | None) -> str:
    return _interval(rate.value, rate.low, rate.high) if rate else _LATEX_ABSENT


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return _LATEX_ABSENT
    bounds = "" if low is None or high is None else f" ({100 * low:.1f}--{100 * high:.1f})"
    return f"{100 * value:.1f}{bounds}"


def _percent(share: float | None) -> str:
    return _LATEX_ABSENT if share is None else f"{100 * share:.1f}"


def _laid_out(table: _LatexTable) -> str:
    lines = [
        "\\begin{table}",
        "  \\centering",
        "  \\small",
        f"  \\caption{{{table.caption}}}",
        f"  \\label{{{table.label}}}",
        f"  \\begin{{tabular}}{{{table.columns}}}",
        "    \\toprule",
        f"    {' & '.join(table.headers)} \\\\",
        "    \\midrule",
    ]
    shown = ""
    for model, *cells in table.rows:
        if shown and model != shown:
            lines.append("    \\addlinespace")
        lines.append(f"    {' & '.join(['' if model == shown else model, *cells])} \\\\")
        shown = model
    return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""])
