"""Two models compared, in blocks: a verdict in words per data set and language, and the tables behind it.

Pure. What is compared, and what the verdict is, stands in the comparison; here it is said.
"""

from collections.abc import Sequence

from medlocal.evals.comparing import ComparisonRow, PooledRow
from medlocal.report import wording
from medlocal.report.blocks import Block, Cell, Heading, Lines, Table, p_cell, rate_cell
from medlocal.report.results import ModelPair


def pair_blocks(pairs: Sequence[ModelPair]) -> list[Block]:
    """Every two models: a verdict per data set and language, then all pairs of answers together."""
    found: list[Block] = []
    for pair in pairs:
        first, second = wording.clean(pair.first), wording.clean(pair.second)
        found.append(Heading(f"{second} against {first}", level=3))
        found.append(Lines((*map(verdict_sentence, pair.comparison.rows), *_left_over(pair))))
        if pair.comparison.rows:
            found.append(_comparison_table(pair))
        if pair.comparison.pooled and _has_more(pair):
            found.append(_pooled_table(pair))
    return found


def verdict_sentence(row: ComparisonRow) -> str:
    """One row of a comparison in words, with the smallest difference that could have been shown."""
    place = (
        f"{wording.language(row.language)}, {wording.clean(row.dataset)},"
        f" {wording.clean(row.format)}/{row.arm}"
    )
    if row.delta is None:
        return f"{place}: no question has an answer of both that counts."
    told = (
        f"{wording.points(row.delta)} points ({wording.points_interval(row.low, row.high)},"
        f" n = {row.n:,}, p {_p_words(row.p_holm)})"
    )
    if row.verdict != "no difference shown":
        return f"{place}: {row.verdict}, {told}."
    if row.smallest is None:
        return f"{place}: no difference shown, {told}; too few questions to show any."
    return (
        f"{place}: no difference shown, {told}; this many questions could have shown"
        f" {100 * row.smallest:.1f} points or more."
    )


def _left_over(pair: ModelPair) -> list[str]:
    c = pair.comparison
    said = list(pair.notes)
    if c.different:
        said.append(
            f"{c.different:,} questions were asked in other words of the two, and are left out."
        )
    if c.only_first or c.only_second:
        said.append(
            f"Only one of the two answered {c.only_first + c.only_second:,} questions"
            f" ({c.only_first:,} and {c.only_second:,}); they are left out."
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
        note="p: exact McNemar, corrected over the data sets. Intervals are clustered by question.",
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
        title="All data sets, variants and prompts together",
        headers=(
            ("language",),
            ("format", "arm"),
            ("answers",),
            ("questions",),
            ("first",),
            ("second",),
            ("points",),
            ("verdict",),
        ),
        rows=tuple(map(_pooled_row, pair.comparison.pooled)),
        num_names=2,
        note="Answers to one question are not independent: there is no p, and the interval is"
        " clustered by question.",
    )


def _pooled_row(row: PooledRow) -> tuple[Cell, ...]:
    return (
        (wording.language(row.language),),
        (wording.clean(row.format), row.arm),
        (f"{row.n:,}",),
        (f"{row.num_items:,}",),
        (wording.percent(row.accuracy_first),),
        (wording.percent(row.accuracy_second),),
        (wording.points(row.delta), wording.points_interval(row.low, row.high)),
        tuple(row.verdict.replace("no difference ", "no difference\n").split("\n")),
    )


def _p_words(p: float | None) -> str:
    return "unknown" if p is None else wording.p_value(p)
