"""The section on places: whether a model prefers one, by recall and by how often each is chosen."""

from collections.abc import Sequence

from medlocal.evals.position import PositionBias
from medlocal.evals.robustness import VariantEffect
from medlocal.report import wording
from medlocal.report.blocks import Cell, Table
from medlocal.report.page_parts import (
    Figure,
    Names,
    Part,
    Section,
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
from medlocal.report.panels import Slots, slot_plot
from medlocal.report.plots import Estimate
from medlocal.report.results import Report


def positions_section(report: Report, given: Names) -> Section | None:
    """Whether a model prefers a place, where options were moved."""
    moved = {_key(effect) for effect in report.variants if effect.family == "order"}
    rows = [row for row in report.positions if row.n and _key(row) in moved]
    parts = [
        Part(title, figures=(_slots_figure(title, found, report.models, given),))
        for title, found in by_place(rows)
    ]
    lead = (
        "Whether a model prefers a place. Above: how often it is right, by the place where the right"
        " option stands. Below: how often each place is chosen (bar) and how often it is right"
        " (line). Without a preference the dots lie level and the bars end at the lines; chance"
        " alone moves both a little, and RStd and TV are never quite 0."
    )
    return Section("positions", "Places of the options", lead, tuple(parts)) if parts else None


def _key(row: PositionBias | VariantEffect) -> tuple[object, ...]:
    return row.model, row.language, row.dataset, condition(row)


def _slots_figure(
    title: str, rows: Sequence[PositionBias], models: Sequence[str], given: Names
) -> Figure:
    prompt = main_prompt(rows)
    shown = [row for row in rows if row.prompt == prompt]
    by_key = {(row.model, condition(row)): row for row in shown}
    columns = conditions(shown)
    grid = [
        (wording.clean(model), [_slots(by_key.get((model, key))) for key in columns])
        for model in models
        if any(row.model == model for row in shown)
    ]
    titled = given.titled(
        f"Places of the options, {title}",
        "A panel per model and way of answering, with the share right and the share chosen by place."
        " The table has the numbers.",
    )
    caption = (
        f"{title}. The original and the variants that move options; n ="
        f" {count_range(row.n for row in shown)} answers per panel. 1 is the first place."
    )
    svg = slot_plot(
        titled, [(wording.clean(key[1]), wording.clean(key[2])) for key in columns], grid
    )
    return Figure(svg, caption, _slots_table(title, in_order(rows, models), prompt))


def _slots(row: PositionBias | None) -> Slots | None:
    if row is None:
        return None
    recalls = tuple(Estimate(rate.value, rate.low, rate.high) for rate in row.recalls)
    rstd = wording.ABSENT if row.rstd is None else f"{100 * row.rstd:.1f}"
    variation = (
        wording.ABSENT if row.total_variation is None else f"{100 * row.total_variation:.1f}"
    )
    return Slots(recalls, row.gold_shares, row.chosen_shares, (f"RStd {rstd}", f"TV {variation}"))


def _slots_table(title: str, rows: Sequence[PositionBias], prompt: str) -> Table:
    num_slots = max(row.num_slots for row in rows)
    places = " | ".join(f"place {number + 1}" for number in range(num_slots))
    return Table(
        title=f"Places of the options, {title}",
        headers=heads(f"model | how | n | read | RStd (95 %) | TV (95 %) | {places}"),
        rows=tuple(_slot_cells(row, prompt, num_slots) for row in rows),
        num_names=2,
        note="Per place: recall with its interval, and the share chosen / the share where it is"
        " right. RStd: standard deviation of the recalls, in points. TV: half the sum of"
        " differences between chosen and right shares, in points. read: answers that chose a place.",
    )


def _slot_cells(row: PositionBias, prompt: str, num_slots: int) -> tuple[Cell, ...]:
    places: list[Cell] = []
    for number, recall in enumerate(row.recalls):
        shares = wording.ABSENT
        if row.chosen_shares:
            chosen, gold = row.chosen_shares[number], row.gold_shares[number]
            shares = f"{wording.percent(chosen)} / {wording.percent(gold)}"
        places.append((*rate_cell(recall), shares))
    places += [(wording.ABSENT,)] * (num_slots - len(places))
    return (
        *names(row.model, called(condition(row), prompt)),
        (f"{row.n:,}",),
        (wording.percent(row.coverage),),
        _spread_cell(row.rstd, row.rstd_low, row.rstd_high),
        _spread_cell(row.total_variation, row.total_variation_low, row.total_variation_high),
        *places,
    )


def _spread_cell(value: float | None, low: float | None, high: float | None) -> Cell:
    if value is None:
        return (wording.ABSENT,)
    if low is None or high is None:
        return (f"{100 * value:.1f}",)
    return f"{100 * value:.1f}", f"({100 * low:.1f}–{100 * high:.1f})"
