"""The section on two perturbations at once: do they harm more together than the sum of both?"""

from collections.abc import Sequence

from medlocal.evals.spread import Interaction
from medlocal.report import wording
from medlocal.report.blocks import Table
from medlocal.report.page_parts import (
    NOBODY_CHECKED,
    Condition,
    Figure,
    Names,
    Section,
    by_place,
    called,
    condition,
    count_range,
    heads,
    in_order,
    main_prompt,
    names,
    part_by_condition,
    points_cell,
)
from medlocal.report.plots import DotRow, Estimate, difference_axis, dot_plot
from medlocal.report.results import Report


def interactions_section(report: Report, given: Names) -> Section | None:
    """Two perturbations together against the sum of both."""

    def draw(
        title: str,
        rows: Sequence[Interaction],
        models: Sequence[str],
        shown: Sequence[Condition],
    ) -> Figure:
        return _interaction_figure(title, rows, (models, shown), given)

    rows = [row for row in report.interactions if row.n]
    parts = [part_by_condition(title, found, report, draw) for title, found in by_place(rows)]
    lead = (
        "Two perturbations at once against the sum of what each does alone: Δ of both − (Δ of the"
        " first + Δ of the second), in points. Left of 0: together they harm more than the sum. An"
        " interval that holds 0 shows no interaction; intervals are per row, not corrected, and there is"
        " none where fewer than six questions differ from the sum."
    )
    return Section("interactions", "Two steps together", lead, tuple(parts)) if parts else None


def _interaction_figure(
    title: str,
    rows: Sequence[Interaction],
    columns: tuple[Sequence[str], Sequence[Condition]],
    given: Names,
) -> Figure:
    models, shown = columns
    prompt = main_prompt(rows)
    keys = [(model, key) for model in models for key in shown]
    series = [wording.clean(m) if len(models) > 1 else called(k, prompt) for m, k in keys]
    by_key = {(row.model, condition(row), row.variant, row.verified): row for row in rows}
    groups = []
    for verified in (True, False):
        variants = list(dict.fromkeys(row.variant for row in rows if row.verified == verified))
        lines = [
            DotRow(v, (tuple(_interaction(by_key.get((*key, v, verified))) for key in keys),))
            for v in variants
        ]
        if lines:
            groups.append(("" if verified else NOBODY_CHECKED, lines))
    bounds = [bound for row in rows for bound in (row.low, row.high, row.interaction)]
    axis = difference_axis("Interaction, points", bounds)
    titled = given.titled(
        f"Two steps together, {title}",
        "Per pair of perturbations a dot with its 95 % interval for each model or way of answering."
        " The table has the numbers.",
    )
    numbers = count_range(row.n for row in rows)
    caption = f"{title}. n = {numbers} questions per dot; whiskers are 95 % intervals."
    svg = dot_plot(titled, [axis], groups, series)
    return Figure(svg, caption, _interaction_table(title, in_order(rows, models), prompt))


def _interaction(row: Interaction | None) -> Estimate | None:
    return None if row is None else Estimate(row.interaction, row.low, row.high)


def _interaction_table(title: str, rows: Sequence[Interaction], prompt: str) -> Table:
    return Table(
        title=f"Two steps together, {title}",
        headers=heads(
            "both | checked | model | how | n | Δ first | Δ second | Δ both | interaction (95 %"
            " interval)"
        ),
        rows=tuple(
            (
                *names(row.variant, "yes" if row.verified else "no", row.model),
                *names(called(condition(row), prompt)),
                (f"{row.n:,}",),
                (wording.points(row.delta_first),),
                (wording.points(row.delta_second),),
                (wording.points(row.delta_both),),
                points_cell(row.interaction, row.low, row.high),
            )
            for row in sorted(rows, key=lambda row: (not row.verified, row.variant))
        ),
        num_names=4,
        note="In points of accuracy, on the questions asked in all four variants.",
    )
