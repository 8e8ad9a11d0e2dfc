"""The sections on the unperturbed questions: accuracy and form, free against grammar, spread over prompts."""

from collections.abc import Iterator, Sequence

from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.scoring import ConstraintEffect, ScoreRow
from medlocal.evals.spread import PromptSpread, Spread
from medlocal.report import wording
from medlocal.report.blocks import AT_CHANCE_MARK, AT_CHANCE_NOTE, Cell, Table
from medlocal.report.page_parts import (
    Figure,
    Names,
    Part,
    Section,
    by_place,
    condition,
    conditions,
    count_range,
    estimate,
    heads,
    in_order,
    main_prompt,
    names,
    p_cell,
    points_cell,
    rate_cell,
)
from medlocal.report.panels import slope_plot
from medlocal.report.plots import (
    DotRow,
    Estimate,
    StripRow,
    dot_plot,
    share_axis,
    strip_plot,
)
from medlocal.report.results import Report


def accuracy_section(report: Report, given: Names) -> Section | None:
    """Right answers and compliance with the form, on the unperturbed questions."""
    rows = [row for row in report.rows if row.variant == ORIGINAL and row.n]
    parts = [
        Part(title, figures=(_accuracy_figure(title, found, report.models, given),))
        for title, found in by_place(rows)
    ]
    lead = (
        "The unperturbed questions. Right: exactly one option could be read, and it is the right one."
        " In the form: the whole output is what was demanded. Readable: that, or exactly one option"
        " could be read. Dots are measured shares; whiskers are 95 % intervals."
    )
    return Section("accuracy", "Accuracy and format", lead, tuple(parts)) if parts else None


def _accuracy_figure(
    title: str, rows: Sequence[ScoreRow], models: Sequence[str], given: Names
) -> Figure:
    prompt = main_prompt(rows)
    shown = [row for row in rows if row.prompt == prompt]
    by_key = {(row.model, *condition(row)): row for row in shown}
    groups: dict[str, list[DotRow]] = {}
    for key in conditions(shown):
        found = [by_key.get((model, *key)) for model in models]
        chances = [row.chance for row in found if row and row.chance is not None]
        chance = sum(chances) / len(chances) if chances else None
        estimates = [
            tuple(estimate(row.acc_lenient) if row else None for row in found),
            tuple(estimate(row.fcr_strict) if row else None for row in found),
            tuple(estimate(row.fcr_lenient) if row else None for row in found),
        ]
        line = DotRow(wording.clean(key[2]), tuple(estimates), (chance, None, None))
        groups.setdefault(wording.clean(key[1]), []).append(line)
    titled = given.titled(
        f"Accuracy and format, {title}",
        f"Dots with 95 % intervals for {len(models)} model(s): share right, share exactly in the form"
        f" and share readable, for each format and way of answering. The table has the numbers.",
    )
    axes = [share_axis(name) for name in ("Right", "Exactly in the form", "Readable")]
    caption = (
        f"{title}. Prompt {wording.clean(prompt)}, n = {count_range(row.n for row in shown)} per dot."
        " Dashed line: what guessing would get. label and cloze score the options and write nothing,"
        " so that there is no form to keep."
    )
    svg = dot_plot(titled, axes, list(groups.items()), models)
    return Figure(svg, caption, _accuracy_table(title, in_order(shown, models)))


def _accuracy_table(title: str, rows: Sequence[ScoreRow]) -> Table:
    headers = heads(
        "model | format | arm | n | right | chance | majority | in the form | "
        "readable | right of the readable | not in n"
    )
    note = f"{AT_CHANCE_NOTE}. " if any(row.at_chance for row in rows) else ""
    return Table(
        title=f"Accuracy and format, {title}, with 95 % Wilson intervals",
        headers=headers,
        rows=tuple(map(_accuracy_cells, rows)),
        num_names=3,
        note=f"{note}Majority: always choosing the most frequent right place.",
    )


def _accuracy_cells(row: ScoreRow) -> tuple[Cell, ...]:
    value, *interval = rate_cell(row.acc_lenient)
    return (
        *names(row.model, row.format, row.arm),
        (f"{row.n:,}",),
        (f"{value} {AT_CHANCE_MARK}" if row.at_chance else value, *interval),
        (wording.percent(row.chance),),
        (wording.percent(row.majority),),
        rate_cell(row.fcr_strict),
        rate_cell(row.fcr_lenient),
        (*rate_cell(row.acc_given_valid), f"n = {row.acc_given_valid.n:,}"),
        (f"{row.excluded:,}",),
    )


def constraint_section(report: Report, given: Names) -> Section | None:
    """What the grammar did to accuracy."""
    effects = [e for e in report.effects if e.variant == ORIGINAL and e.n]
    parts = []
    for title, found in by_place(effects):
        prompt = main_prompt(found)
        shown = [effect for effect in found if effect.prompt == prompt]
        parts.append(Part(title, figures=(_slope_figure(title, shown, report.models, given),)))
    lead = (
        "The same prompt answered freely (left) and with a grammar that lets only the demanded form"
        " through (right), on the questions that have an answer in both. A line that rises: more is"
        " right with the grammar, such as answers that could not be read when free. Some of those may be"
        " luck, for whatever is forced into the form is right as often as guessing is; the numbers say"
        " how many are. A line that falls: forcing the form makes the model answer worse than it does"
        " freely."
    )
    return Section("grammar", "Free against grammar", lead, tuple(parts)) if parts else None


def _slope_figure(
    title: str, effects: Sequence[ConstraintEffect], models: Sequence[str], given: Names
) -> Figure:
    by_key = {(effect.format, effect.model): effect for effect in effects}
    panels = []
    for form in dict.fromkeys(effect.format for effect in effects):
        lines: list[tuple[Estimate, Estimate] | None] = []
        for model in models:
            found = by_key.get((form, model))
            rates = (found.accuracy_free, found.accuracy_grammar) if found else (None, None)
            ends = [estimate(rate) for rate in rates]
            lines.append((ends[0], ends[1]) if ends[0] and ends[1] else None)
        panels.append((wording.clean(form), lines))
    titled = given.titled(
        f"Free against grammar, {title}",
        "One panel per format, one line per model from the accuracy of free answers to that of"
        " answers masked by the grammar. The table has the numbers.",
    )
    numbers = count_range(effect.n for effect in effects)
    caption = f"{title}. Accuracy, n = {numbers} questions per line; whiskers are 95 % intervals."
    table = Table(
        title=f"Grammar minus free, {title}, paired by question",
        headers=heads(
            "model | format | n | free | grammar | points (95 % interval) | lost | "
            "gained | McNemar p | same answer | forced: right | forced: guessing | not in n"
        ),
        rows=tuple(map(_effect_cells, effects)),
        num_names=2,
        note="Lost: right only when free. Gained: right only with the grammar. p is per row. Forced: the"
        " questions whose free answer could not be read. Not in n: one of the two answers does not"
        " count.",
    )
    return Figure(slope_plot(titled, ("free", "grammar"), panels, models), caption, table)


def _effect_cells(effect: ConstraintEffect) -> tuple[Cell, ...]:
    return (
        *names(effect.model, effect.format),
        (f"{effect.n:,}",),
        rate_cell(effect.accuracy_free),
        rate_cell(effect.accuracy_grammar),
        points_cell(effect.delta, effect.low, effect.high),
        (f"{effect.b:,}",),
        (f"{effect.c:,}",),
        p_cell(effect.p),
        rate_cell(effect.agreement),
        (*rate_cell(effect.forced), f"n = {effect.forced.n:,}"),
        (wording.percent(effect.forced_chance),),
        (f"{effect.excluded:,}",),
    )


def prompts_section(report: Report, given: Names) -> Section | None:
    """How much of the accuracy is owed to the wording of the prompt."""
    spreads = [spread for spread in report.spreads if spread.accuracy]
    parts = [
        Part(title, figures=(_prompts_figure(title, found, report.models, given),))
        for title, found in by_place(spreads)
    ]
    lead = (
        "The same questions under differently worded prompts: every dot is a prompt, the bar their"
        " mean. A wide row means that a figure measured with one prompt says little. Part of any"
        " spread is chance, and more of it with few questions."
    )
    return Section("prompts", "Spread over prompts", lead, tuple(parts)) if parts else None


def _prompts_figure(
    title: str, spreads: Sequence[PromptSpread], models: Sequence[str], given: Names
) -> Figure:
    ordered = in_order(spreads, models)
    groups: dict[str, list[StripRow]] = {}
    for spread in ordered:
        both = (spread.accuracy, spread.compliance)
        row = StripRow(
            f"{wording.clean(spread.format)} · {wording.clean(spread.arm)}",
            tuple(_values(one) for one in both),
            tuple(_ends(one) for one in both),
        )
        groups.setdefault(wording.clean(spread.model), []).append(row)
    titled = given.titled(
        f"Spread over prompts, {title}",
        "Per model, format and way of answering a row of dots, one per prompt, for accuracy and for"
        " compliance with the form; the best and the worst prompt are named beside it.",
    )
    counts = count_range(len(s.accuracy.rates) for s in ordered if s.accuracy)
    numbers = count_range(spread.n for spread in ordered)
    caption = f"{title}. {counts} prompts, all on the same n = {numbers} questions."
    axes = [share_axis("Right"), share_axis("Exactly in the form")]
    svg = strip_plot(titled, axes, list(groups.items()))
    return Figure(svg, caption, _prompts_table(title, ordered))


def _values(spread: Spread | None) -> tuple[float, ...] | None:
    return None if spread is None else tuple(rate.value or 0.0 for rate in spread.rates.values())


def _ends(spread: Spread | None) -> tuple[tuple[str, str], ...]:
    if spread is None:
        return ()
    if spread.range == 0:
        return ((f"all {100 * spread.mean:.0f} %", ""),)
    ends = (("best", spread.best), ("worst", spread.worst))
    return tuple(
        (f"{word} {100 * (rate.value or 0.0):.0f} %", wording.clean(name))
        for word, (name, rate) in ends
    )


def _prompts_table(title: str, spreads: Sequence[PromptSpread]) -> Table:
    return Table(
        title=f"Spread over prompts, {title}",
        headers=heads(
            "model | format | arm | measure | worst prompt | best prompt | prompts | "
            "n | mean | sd | range (95 % interval) | worst | best"
        ),
        rows=tuple(cells for spread in spreads for cells in _prompts_cells(spread)),
        num_names=6,
        note="In points where there is no sign. The interval of the range is never below 0, also"
        " where all prompts are equally good.",
    )


def _prompts_cells(spread: PromptSpread) -> Iterator[tuple[Cell, ...]]:
    for measure, one in (("right", spread.accuracy), ("in the form", spread.compliance)):
        if one is None:
            continue
        yield (
            *names(spread.model, spread.format, spread.arm, measure, one.worst[0], one.best[0]),
            (f"{len(one.rates):,}",),
            (f"{spread.n:,}",),
            (wording.percent(one.mean),),
            (f"{100 * one.sd:.1f}",),
            points_cell(one.range, one.low, one.high),
            rate_cell(one.worst[1]),
            rate_cell(one.best[1]),
        )
