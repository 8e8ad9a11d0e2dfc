"""The section that compares models: the verdict in words, the differences, and what could be shown."""

from collections.abc import Iterable, Sequence

from medlocal.evals.comparing import ComparisonRow, PooledRow
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
from medlocal.report.pairs import verdict_sentence
from medlocal.report.plots import DotRow, Estimate, difference_axis, dot_plot
from medlocal.report.results import ModelPair, Report


def comparison_section(report: Report, given: Names) -> Section | None:
    """Every two models on the questions that both answered."""
    parts = [_pair_part(pair, given) for pair in report.pairs]
    lead = (
        "Only questions that both models answered, asked in the same way. “Better” is said of the"
        " model that a heading names first; differences are in percentage points. “No difference"
        " shown” is not “equal”: it is said beside it how large a difference could have been shown."
    )
    return Section("models", "Model against model", lead, tuple(parts)) if parts else None


def _pair_part(pair: ModelPair, given: Names) -> Part:
    first, second = wording.clean(pair.first), wording.clean(pair.second)
    title = f"{second} against {first}"
    compared = pair.comparison
    rows = [row for row in compared.rows if row.n]
    lines = [*_verdicts(rows), *_pooled_verdicts(compared.pooled), *pair.notes]
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


def _pooled_verdicts(rows: Sequence[PooledRow]) -> list[str]:
    said = []
    for language in dict.fromkeys(row.language for row in rows):
        row = next(row for row in rows if row.language == language)
        if not row.n:
            continue
        how = f"{wording.clean(row.format)}/{wording.clean(row.arm)}"
        said.append(
            f"Over all variants and prompts in {wording.language(language)}, {how}: {row.verdict}"
            f" ({wording.points(row.delta)} points, {wording.points_interval(row.low, row.high)};"
            f" {row.n:,} pairs from {row.num_items:,} questions)."
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
            *heads("same answer | could show"),
        ),
        rows=tuple(_comparison_cells(row, is_one_set=is_one_set) for row in rows),
        num_names=5,
        note=f"Lost, gained: right of {first} only, of {second} only. Could show: the smallest difference that n questions show with 80 % power at the 5 %"
        " level, in points, not corrected for the number of sets.",
    )
    numbers = count_range(row.n for row in rows)
    caption = f"{title}, n = {numbers} questions per dot. Right of 0: {second} is better."
    return Figure(dot_plot(titled, [axis], groups, [title]), caption, table)


def _comparison_cells(row: ComparisonRow, *, is_one_set: bool) -> tuple[Cell, ...]:
    where = place(row.language, row.dataset, is_one_set=is_one_set)
    smallest = wording.ABSENT if row.smallest is None else f"{100 * row.smallest:.1f}"
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
        (wording.percent(row.agreement.value),),
        (smallest,),
    )


def _pooled_table(models: tuple[str, str], rows: Iterable[PooledRow]) -> tuple[Table, ...]:
    first, second = models
    cells = tuple(
        (
            *names(wording.language(row.language), row.format, row.arm, row.verdict),
            (f"{row.n:,}",),
            (f"{row.num_items:,}",),
            (wording.percent(row.accuracy_first),),
            (wording.percent(row.accuracy_second),),
            points_cell(row.delta, row.low, row.high),
        )
        for row in rows
        if row.n
    )
    if not cells:
        return ()
    headers = (
        *heads("language | format | arm | verdict | pairs | questions"),
        *((f"{model} right",) for model in models),
        *heads("points (95 % interval)"),
    )
    note = "The interval is clustered by question: its variants and prompts are not independent."
    title = f"{second} against {first}"
    return (Table(f"{title}, all data sets, variants and prompts", headers, cells, 4, note),)
