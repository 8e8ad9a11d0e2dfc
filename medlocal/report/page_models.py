"""The section that compares models: the verdict in words, the differences, and what could be shown."""

from collections.abc import Iterable, Sequence

from medlocal.evals.comparing import ComparisonRow, OverallRow, PooledRow
from medlocal.report import wording
from medlocal.report.blocks import Cell, Table
from medlocal.report.page_parts import (
    Figure,
    Names,
    Part,
    Section,
    by_place,
    count_range,
    heads,
    names,
    p_cell,
    place,
    points_cell,
    rate_cell,
)
from medlocal.report.pairs import overall_rows, overall_sentence, verdict_sentence
from medlocal.report.plots import DotRow, Estimate, difference_axis, dot_plot
from medlocal.report.results import ModelPair, Report


def comparison_section(report: Report, given: Names) -> Section | None:
    """Every two models on the questions that both answered."""
    parts = [_pair_part(pair, given) for pair in report.pairs]
    lead = (
        "Only questions that both models answered, asked in the same way. “Better” is said of the"
        " model that a heading names first; differences are in percentage points. “No difference"
        " shown” is not “equal”: it is said beside it how large a true difference would have been shown."
    )
    return Section("models", "Model against model", lead, tuple(parts)) if parts else None


def _pair_part(pair: ModelPair, given: Names) -> Part:
    first, second = wording.clean(pair.first), wording.clean(pair.second)
    title = f"{second} against {first}"
    compared = pair.comparison
    rows = [row for row in compared.rows if row.n]
    together = overall_rows(pair)
    lines = [*_overall_verdicts(together), *_verdicts(rows)]
    lines += [*_pooled_verdicts(compared.pooled), *pair.notes]
    if compared.only_first or compared.only_second or compared.different:
        lines.append(
            f"Left out: {compared.only_first:,} answers of {first} and {compared.only_second:,} of"
            f" {second} without a partner; pairs that were not asked the same: {compared.different:,}."
        )
    if not rows:
        return Part(title, lines=tuple(lines))
    more = Part(
        f"{title}: every format and arm",
        figures=(_pair_figure((first, second), rows, given),),
        tables=_pooled_table((first, second), compared.pooled),
    )
    return Part(title, lines=tuple(lines), more=(more,))


def _verdicts(rows: Sequence[ComparisonRow]) -> list[str]:
    """A sentence per language and data set: the format and arm that comes first."""
    return [verdict_sentence(found[0]) for _, found in by_place(rows)]


def _overall_verdicts(rows: Sequence[OverallRow]) -> list[str]:
    """A sentence per language: the format and arm that comes first, over all data sets."""
    languages = dict.fromkeys(row.language for row in rows)
    firsts = (next(row for row in rows if row.language == language) for language in languages)
    return [overall_sentence(row) for row in firsts]


def _pooled_verdicts(rows: Sequence[PooledRow]) -> list[str]:
    said = []
    for language in dict.fromkeys(row.language for row in rows):
        row = next(row for row in rows if row.language == language)
        if not row.n:
            continue
        how = f"{wording.clean(row.format)}/{wording.clean(row.arm)}"
        p = "" if row.p is None else f", p {wording.p_value(row.p)}"
        said.append(
            f"Over all data sets, prompts and variants that keep the answer in"
            f" {wording.language(language)}, {how}: {row.verdict}"
            f" ({wording.points(row.delta)} points, {wording.points_interval(row.low, row.high)}{p};"
            f" {row.n:,} pairs of answers to {row.num_items:,} questions)."
        )
    return said


def _pair_figure(models: tuple[str, str], rows: Sequence[ComparisonRow], given: Names) -> Figure:
    first, second = models
    title = f"{second} against {first}"
    axis = difference_axis(
        "Difference in accuracy, points", [bound for row in rows for bound in (row.low, row.high)]
    )
    groups = [
        (
            where,
            [
                DotRow(
                    f"{wording.clean(row.format)} · {wording.clean(row.arm)}",
                    ((Estimate(row.delta, row.low, row.high),),),
                )
                for row in found
            ],
        )
        for where, found in by_place(rows)
    ]
    titled = given.titled(
        f"Difference in accuracy, {title}",
        "Per language, format and way of answering the difference in accuracy with its 95 % interval.",
    )
    is_one_set = len({row.dataset for row in rows}) < 2
    table = Table(
        title=f"{title}, unperturbed questions",
        headers=(
            *heads("where | format | arm | prompt | verdict | n"),
            *((f"{model} right",) for model in models),
            *heads("points (95 % interval) | lost | gained | p (Holm)"),
            *((f"{model} in the form",) for model in models),
            *heads("same answer | could show | not in n"),
        ),
        rows=tuple(_comparison_cells(row, is_one_set=is_one_set) for row in rows),
        num_names=5,
        note=_note(first, second, rows),
    )
    numbers = count_range(row.n for row in rows)
    caption = f"{title}, n = {numbers} questions per dot. Right of 0: {second} is better."
    return Figure(dot_plot(titled, [axis], groups, [title]), caption, table)


def _note(first: str, second: str, rows: Sequence[ComparisonRow]) -> str:
    num_tests = max(row.num_tests for row in rows)
    corrected = f", corrected for {num_tests} data sets as p is" if num_tests > 1 else ""
    return (
        f"Lost, gained: right of {first} only, of {second} only. Could show: the smallest true difference"
        f" that would have been shown with 80 % power{corrected}, in points. Not in n: one of the two"
        " answers does not count."
    )


def _comparison_cells(row: ComparisonRow, *, is_one_set: bool) -> tuple[Cell, ...]:
    where = place(row.language, row.dataset, is_one_set=is_one_set)
    smallest = wording.ABSENT if row.smallest is None else wording.points_size(row.smallest)
    return (
        *names(where, row.format, row.arm, row.prompt, row.verdict),
        (f"{row.n:,}",),
        rate_cell(row.accuracy_first),
        rate_cell(row.accuracy_second),
        points_cell(row.delta, row.low, row.high),
        (f"{row.b:,}",),
        (f"{row.c:,}",),
        p_cell(row.p_holm),
        rate_cell(row.fcr_first),
        rate_cell(row.fcr_second),
        rate_cell(row.agreement),
        (smallest,),
        (f"{row.excluded:,}",),
    )


def _pooled_table(models: tuple[str, str], rows: Iterable[PooledRow]) -> tuple[Table, ...]:
    first, second = models
    cells = tuple(
        (
            *names(wording.language(row.language), row.format, row.arm, row.verdict),
            (f"{row.n:,}",),
            (f"{row.num_items:,}",),
            rate_cell(row.accuracy_first),
            rate_cell(row.accuracy_second),
            points_cell(row.delta, row.low, row.high),
            p_cell(row.p),
            (f"{row.excluded:,}",),
        )
        for row in rows
        if row.n
    )
    if not cells:
        return ()
    headers = (
        *heads("language | format | arm | verdict | pairs | questions"),
        *((f"{model} right",) for model in models),
        *heads("points (95 % interval) | p | not in n"),
    )
    note = (
        "Intervals and p are clustered by question: its variants and prompts are not independent. p:"
        " exact, as if the two models could be exchanged question by question. Left out: two steps,"
        " changed answers, the hidden question, parallel questions."
    )
    title = f"{second} against {first}, all data sets, prompts and variants that keep the answer"
    return (Table(title, headers, cells, 4, note),)
