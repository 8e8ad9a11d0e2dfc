"""The sections on instructions: how much is said of the form, and answers that must be transformed."""

from collections.abc import Sequence
from dataclasses import replace

from medlocal.evals.obedience import AnswerSplit
from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.scoring import ScoreRow
from medlocal.report import wording
from medlocal.report.blocks import Cell, Table
from medlocal.report.page_parts import (
    OTHERS,
    Figure,
    Names,
    Part,
    Section,
    by_condition,
    by_place,
    called,
    condition,
    conditions,
    count_range,
    heads,
    in_order,
    main_prompt,
    names,
    rate_cell,
)
from medlocal.report.results import Report
from medlocal.report.tiles import BarGroup, CellGroup, bar_plot, heat_map, share_color, share_scale
from medlocal.report.tiles import Cell as Tile

_LEVELS = {
    "instruction(none)": "not mentioned",
    "instruction(mentioned)": "mentioned",
    "instruction(example)": "mentioned, with example",
    ORIGINAL: "demanded",
}
"""Variants by how much they say of the form, from nothing to the original."""
_PARTS = (
    "right",
    "right knowledge, wrong form",
    "right form, wrong knowledge",
    "both wrong",
    "unread",
)


def levels_section(report: Report, given: Names) -> Section | None:
    """Compliance by how much is said of the form."""
    rows = [row for row in report.rows if row.variant in _LEVELS and row.fcr_strict and row.n]
    parts = []
    for title, found in by_place(rows):
        asked = {condition(row) for row in found if row.variant != ORIGINAL}
        shown = [row for row in found if condition(row) in asked]
        if shown:
            parts.append(Part(title, figures=(_levels_figure(title, shown, report.models, given),)))
    lead = (
        "The same questions with more and more said of the form of the answer. The map has the share"
        " of free answers that are exactly in the form."
    )
    return Section("levels", "Instruction levels", lead, tuple(parts)) if parts else None


def _levels_figure(
    title: str, rows: Sequence[ScoreRow], models: Sequence[str], given: Names
) -> Figure:
    prompt = main_prompt(rows)
    free = [row for row in rows if row.arm == "free"] or list(rows)
    by_key = {(row.model, condition(row), row.variant): row for row in free}
    groups = [
        CellGroup(
            wording.clean(model),
            tuple(
                (
                    called(key, prompt),
                    tuple(_tile(by_key.get((model, key, level))) for level in _LEVELS),
                )
                for key in conditions(row for row in free if row.model == model)
            ),
        )
        for model in models
        if any(row.model == model for row in free)
    ]
    titled = given.titled(
        f"Compliance by what is said of the form, {title}",
        "A map with a row per model and format and a column per level of instruction. Every cell has"
        " the share of answers exactly in the form. The table has the numbers.",
    )
    caption = (
        f"{title}. Share of answers exactly in the form; n = {count_range(row.n for row in free)}"
        " questions per cell."
    )
    svg = heat_map(titled, list(_LEVELS.values()), groups, share_scale())
    return Figure(svg, caption, _levels_table(title, in_order(rows, models), prompt))


def _tile(row: ScoreRow | None) -> Tile | None:
    if row is None or row.fcr_strict is None or row.fcr_strict.value is None:
        return None
    share = row.fcr_strict.value
    return Tile(f"{100 * share:.0f} %", share_color(share))


def _levels_table(title: str, rows: Sequence[ScoreRow], prompt: str) -> Table:
    order = list(_LEVELS)
    ordered = sorted(rows, key=lambda row: order.index(row.variant))
    return Table(
        title=f"Instruction levels, {title}",
        headers=heads("said of the form | model | how | n | in the form | readable | right"),
        rows=tuple(
            (
                *names(_LEVELS[row.variant], row.model, called(condition(row), prompt)),
                (f"{row.n:,}",),
                rate_cell(row.fcr_strict),
                rate_cell(row.fcr_lenient),
                rate_cell(row.acc_lenient),
            )
            for row in ordered
        ),
        num_names=3,
    )


def transforms_section(report: Report, given: Names) -> Section | None:
    """Answers that must be transformed: what is wrong with them."""
    rows = [row for row in report.splits if row.n]
    parts = []
    for title, found in by_place(rows):
        prompt = main_prompt(found)
        drawn = []
        for key, of_condition in by_condition(found):
            name = f"{title}, {called(key, prompt)}"
            figure = _bars_figure(name, of_condition, report.models, given)
            drawn.append(Part(name, figures=(figure,)))
        others = tuple(drawn[1:])
        parts.append(replace(drawn[0], more=others, more_title=f"{title}, {OTHERS}"))
    lead = (
        "Something must be made of the answer, such as the label after the right one. Errors are"
        " split into those of knowledge and those of following the instruction; “original” is the"
        " plain question, to compare with."
    )
    return Section("transforms", "Transformed answers", lead, tuple(parts)) if parts else None


def _bars_figure(
    title: str, splits: Sequence[AnswerSplit], models: Sequence[str], given: Names
) -> Figure:
    ordered = in_order(splits, models)
    groups = [
        BarGroup(
            wording.clean(model),
            tuple(
                (_variant(split), _shares(split), f"n = {split.n:,}")
                for split in ordered
                if split.model == model
            ),
        )
        for model in models
        if any(split.model == model for split in ordered)
    ]
    titled = given.titled(
        f"Transformed answers, {title}",
        "Per model and transformation a bar divided into right, right knowledge in the wrong form,"
        " right form with wrong knowledge, both wrong, and unread. The table has the numbers.",
    )
    numbers = count_range(split.n for split in ordered)
    caption = f"{title}. Shares of answers in per cent, n = {numbers} questions per bar."
    return Figure(bar_plot(titled, _PARTS, groups), caption, _bars_table(title, ordered))


def _variant(split: AnswerSplit) -> str:
    return split.variant if split.verified else f"{split.variant} (unverified)"


def _shares(split: AnswerSplit) -> tuple[float, ...]:
    rates = (
        split.right, split.wrong_form, split.wrong_knowledge, split.both_wrong, split.unread
    )  # fmt: skip
    return tuple((rate.value or 0.0) if rate else 0.0 for rate in rates)


def _bars_table(title: str, splits: Sequence[AnswerSplit]) -> Table:
    return Table(
        title=f"Transformed answers, {title}",
        headers=heads("model | variant | n | right in the original | " + " | ".join(_PARTS)),
        rows=tuple(_bar_cells(split) for split in splits),
        num_names=2,
        note="Unread: no option could be read. Of the original, a right answer counts in any form.",
    )


def _bar_cells(split: AnswerSplit) -> tuple[Cell, ...]:
    return (
        *names(split.model, _variant(split)),
        (f"{split.n:,}",),
        rate_cell(split.original),
        rate_cell(split.right),
        rate_cell(split.wrong_form),
        rate_cell(split.wrong_knowledge),
        rate_cell(split.both_wrong),
        rate_cell(split.unread),
    )
