"""Two models compared, in blocks: a verdict in words per data set and language, and the tables behind it.

Pure. What is compared, and what the verdict is, stands in the comparison; here it is said.
"""

from collections.abc import Sequence

from medlocal.evals.comparing import ComparisonRow, OverallRow, PooledRow
from medlocal.report import wording
from medlocal.report.blocks import Block, Cell, Heading, Lines, Table, left_out, p_cell, rate_cell
from medlocal.report.results import ModelPair

_COMPARISON_NOTE = (
    "p: exact McNemar, corrected over the data sets. Intervals are clustered by question."
)
_POOLED_NOTE = (
    "Answers to one question are not independent: intervals and verdict are clustered by question."
    " Two steps, changed answers, the hidden question and parallel questions are left out."
)


def pair_blocks(pairs: Sequence[ModelPair]) -> list[Block]:
    """Every two models: a verdict per data set and language, then all pairs of answers together."""
    found: list[Block] = []
    for pair in pairs:
        first, second = wording.clean(pair.first), wording.clean(pair.second)
        found.append(Heading(f"{second} against {first}", level=3))
        rows = pair.comparison.rows
        verdicts = (*map(overall_sentence, overall_rows(pair)), *map(verdict_sentence, rows))
        found.append(Lines((*verdicts, *_left_over(pair))))
        if rows:
            found.append(_comparison_table(pair))
        if pair.comparison.pooled and _has_more(pair):
            found.append(_pooled_table(pair))
    return found


def overall_rows(pair: ModelPair) -> list[OverallRow]:
    """Several data sets together, under the prompts that their rows are shown under."""
    shown = {(row.language, row.format, row.arm, row.prompt) for row in pair.comparison.rows}
    return [
        row
        for row in pair.comparison.overall
        if len(row.datasets) > 1 and (row.language, row.format, row.arm, row.prompt) in shown
    ]


def verdict_sentence(row: ComparisonRow) -> str:
    """One data set of a comparison in words, with what would have been shown where nothing is."""
    place = _place(row, wording.clean(row.dataset))
    if row.delta is None or row.p_holm is None:
        return f"{place}: no question has an answer of both that counts."
    p = wording.corrected_p(row.p_holm, row.num_tests, "data sets")
    return f"{place}: {_verdict(row, p)}."


def overall_sentence(row: OverallRow) -> str:
    """All data sets together in words, as one test."""
    place = _place(row, f"{len(row.datasets)} data sets together")
    if row.p is None:
        return f"{place}: no question has an answer of both that counts."
    return f"{place}: {_verdict(row, wording.corrected_p(row.p, 1, ''))}."


def _place(row: ComparisonRow | OverallRow, where: str) -> str:
    form, arm = wording.clean(row.format), wording.clean(row.arm)
    return f"{wording.language(row.language)}, {where}, {form}/{arm}"


def _verdict(row: ComparisonRow | OverallRow, p: str) -> str:
    interval = wording.points_interval(row.low, row.high)
    told = f"{row.verdict}, {wording.points(row.delta)} points ({interval}, n = {row.n:,}, {p})"
    if row.verdict != "no difference shown":
        return told
    return f"{told}; {wording.could_show(row.smallest)}"


def _left_over(pair: ModelPair) -> list[str]:
    """What was not compared: answers, of which a question has one per variant, prompt, format and arm."""
    c = pair.comparison
    said = list(pair.notes)
    if c.different:
        said.append(
            f"{c.different:,} pairs of answers are left out: the two were asked in other words."
        )
    if c.only_first or c.only_second:
        said.append(
            f"{c.only_first + c.only_second:,} answers are left out because the other model has none to"
            f" the same question, asked alike ({c.only_first:,} of the first, {c.only_second:,} of the"
            " second)."
        )
    return said


def _has_more(pair: ModelPair) -> bool:
    """Whether pooling adds anything to the rows: variants, prompts or data sets."""
    return (
        sum(row.n for row in pair.comparison.pooled) > sum(row.n for row in pair.comparison.rows)
        or len({row.dataset for row in pair.comparison.rows}) > 1
    )


def _comparison_table(pair: ModelPair) -> Table:
    return Table(
        title="The unperturbed questions",
        headers=(
            ("language", "data set"),
            ("format", "arm"),
            ("n",),
            ("first",),
            ("second",),
            ("points",),
            ("lost,", "gained"),
            ("p", "(Holm)"),
        ),
        rows=tuple(map(_comparison_row, pair.comparison.rows)),
        num_names=2,
        note=" ".join(filter(None, (_COMPARISON_NOTE, _not_counted(pair.comparison.rows)))),
    )


def _not_counted(rows: Sequence[ComparisonRow]) -> str:
    """Which rows lack questions, in the words of the table's first columns."""
    return left_out(
        (f"{wording.clean(row.dataset)} {wording.clean(row.format)}/{row.arm}", row.excluded)
        for row in rows
    )


def _comparison_row(row: ComparisonRow) -> tuple[Cell, ...]:
    return (
        (wording.language(row.language), wording.clean(row.dataset)),
        (wording.clean(row.format), row.arm),
        (f"{row.n:,}",),
        rate_cell(row.accuracy_first),
        rate_cell(row.accuracy_second),
        (wording.points(row.delta), wording.points_interval(row.low, row.high)),
        (f"{row.b:,} {row.c:,}",),
        p_cell(row.p_holm),
    )


def _pooled_table(pair: ModelPair) -> Table:
    return Table(
        title="All data sets, prompts and variants that keep the answer together",
        headers=(
            ("language",),
            ("format", "arm"),
            ("answers,", "questions"),
            ("first",),
            ("second",),
            ("points",),
            ("verdict",),
        ),
        rows=tuple(map(_pooled_row, pair.comparison.pooled)),
        num_names=2,
        note=" ".join(filter(None, (_POOLED_NOTE, _not_pooled(pair.comparison.pooled)))),
    )


def _pooled_row(row: PooledRow) -> tuple[Cell, ...]:
    return (
        (wording.language(row.language),),
        (wording.clean(row.format), row.arm),
        (f"{row.n:,}", f"{row.num_items:,}"),
        rate_cell(row.accuracy_first),
        rate_cell(row.accuracy_second),
        (wording.points(row.delta), wording.points_interval(row.low, row.high)),
        tuple(row.verdict.replace("no difference ", "no difference\n").split("\n")),
    )


def _not_pooled(rows: Sequence[PooledRow]) -> str:
    return left_out(
        (f"{wording.language(row.language)} {wording.clean(row.format)}/{row.arm}", row.excluded)
        for row in rows
    )
