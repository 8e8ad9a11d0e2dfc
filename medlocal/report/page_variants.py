"""The sections on perturbed questions: the map of changes, places of the options, two steps together."""

from collections.abc import Sequence
from dataclasses import replace

from medlocal.evals.perturb import TWO_STEPS
from medlocal.evals.robustness import Robustness, VariantEffect
from medlocal.evals.stats import SIGNIFICANCE
from medlocal.evals.steps import FAMILIES
from medlocal.report import wording
from medlocal.report.blocks import Cell, Table
from medlocal.report.page_parts import (
    NOBODY_CHECKED,
    OTHERS,
    Condition,
    Figure,
    Names,
    Part,
    Prompted,
    Section,
    by_place,
    called,
    compact,
    condition,
    count_range,
    heads,
    in_order,
    lead_condition,
    main_prompt,
    names,
    p_cell,
    part_by_condition,
    points_cell,
    rate_cell,
)
from medlocal.report.results import Report
from medlocal.report.tiles import Cell as Tile
from medlocal.report.tiles import CellGroup, difference_color, difference_scale, heat_map

SHOWN_MARK = "*"
"""Behind a change that is shown: p below 5 % after Holm's correction."""


def variants_section(report: Report, given: Names) -> Section | None:
    """What each perturbation did to accuracy."""

    def draw(
        title: str,
        rows: Sequence[VariantEffect],
        models: Sequence[str],
        shown: Sequence[Condition],
    ) -> Figure:
        return _map_figure(title, rows, (models, shown), given)

    effects = [effect for effect in report.variants if effect.n]
    parts = []
    for title, found in by_place(effects):
        part = part_by_condition(title, found, report, draw)
        parts.append(replace(part, lines=tuple(_changes(found))))
        steady = [row for row in report.robustness if _place_of(row) == _place_of(found[0])]
        if steady:
            parts.append(_robustness_part(title, in_order(steady, report.models), report))
    lead = (
        "Every variant against the original on the same questions: the change of accuracy in"
        f" percentage points. {SHOWN_MARK} marks a change that is shown (exact McNemar, p below 0.05"
        " after Holm's correction within a family); any other may be chance."
    )
    return Section("variants", "Perturbations", lead, tuple(parts)) if parts else None


def _place_of(row: Prompted) -> tuple[str, str]:
    return row.language, row.dataset


def _changes(effects: Sequence[VariantEffect]) -> list[str]:
    """How many of the changes are shown, and the largest of them."""
    tested = [e for e in effects if e.p_holm is not None and e.verified]
    shown = [e for e in tested if e.p_holm is not None and e.p_holm < SIGNIFICANCE]
    said = (
        f"{len(shown):,} of {len(tested):,} changes by verified variants are shown, over all models,"
        " formats and arms. The correction is within each family of variants, so that of many families"
        " without any effect about one in twenty would show one."
    )
    losses = [effect for effect in shown if effect.delta is not None and effect.delta < 0]
    if losses:
        worst = min(losses, key=lambda effect: (effect.delta, effect.variant))
        how = f"{wording.clean(worst.model)}, {called(condition(worst), worst.prompt)}"
        said += (
            f" The largest loss: {worst.variant}, {wording.points(worst.delta)} points"
            f" ({wording.points_interval(worst.low, worst.high)}, n = {worst.n:,}; {how})."
        )
    return [said] if tested else []


def _map_figure(
    title: str,
    effects: Sequence[VariantEffect],
    columns: tuple[Sequence[str], Sequence[Condition]],
    given: Names,
) -> Figure:
    models, shown = columns
    prompt = main_prompt(effects)
    keys = [(model, key) for model in models for key in shown]
    heads_of = [wording.clean(m) if len(models) > 1 else called(k, prompt) for m, k in keys]
    by_key = {(e.model, condition(e), e.variant, e.verified): e for e in effects}
    groups = [
        CellGroup(
            family if verified else NOBODY_CHECKED,
            tuple(
                (variant, tuple(_tile(by_key.get((*key, variant, verified))) for key in keys))
                for variant in variants
            ),
        )
        for family, verified, variants in _families(effects)
    ]
    titled = given.titled(
        f"Change of accuracy per perturbation, {title}",
        "A map with a row per variant and a column per model or way of answering. Every cell has the"
        " change in points; orange is worse, blue is better. The table has the numbers.",
    )
    caption = (
        f"{title}. Change of accuracy against the original, in points; n ="
        f" {count_range(effect.n for effect in effects)} questions per cell."
        f" With {SHOWN_MARK}: p below 0.05 after Holm."
    )
    svg = heat_map(titled, heads_of, groups, difference_scale())
    return Figure(svg, caption, _effects_table(title, effects, models, prompt))


def _families(effects: Sequence[VariantEffect]) -> list[tuple[str, bool, list[str]]]:
    """(family, verified, variants in order); unverified variants come last, all together."""
    variants = list(dict.fromkeys((e.family, e.variant) for e in effects if e.verified))
    doubtful = list(dict.fromkeys(e.variant for e in effects if not e.verified))
    found = [
        (family, True, [variant for of, variant in variants if of == family])
        for family in (*FAMILIES, TWO_STEPS)
    ]
    return [group for group in (*found, ("", False, doubtful)) if group[2]]


def _tile(effect: VariantEffect | None) -> Tile | None:
    if effect is None or effect.delta is None:
        return None
    is_shown = effect.p_holm is not None and effect.p_holm < SIGNIFICANCE
    mark = SHOWN_MARK if is_shown else ""
    return Tile(f"{wording.points(effect.delta)}{mark}", difference_color(effect.delta))


def _effects_table(
    title: str, effects: Sequence[VariantEffect], models: Sequence[str], prompt: str
) -> Table:
    order = {
        (variant, verified): (number, rank)
        for number, (_, verified, variants) in enumerate(_families(effects))
        for rank, variant in enumerate(variants)
    }
    ordered = sorted(in_order(effects, models), key=lambda e: order[e.variant, e.verified])
    return Table(
        title=f"Each variant against the original, {title}",
        headers=heads(
            "variant | family | checked | model | how | n | original | variant | chance | points"
            " (95 % interval) | right→wrong | wrong→right | wrong→other | unread | p | p (Holm)"
        ),
        rows=tuple(_effect_cells(effect, prompt) for effect in ordered),
        num_names=5,
        note="Paired by question; intervals of the change are bootstrapped, clustered by question."
        " wrong→other: wrong in both, with another option, or with one that could be read in one of them"
        " only. unread: no option could be read. chance: of guessing, in the original → in the variant"
        " where they differ. Questions that a variant asks as the original does are left out.",
    )


def _effect_cells(effect: VariantEffect, prompt: str) -> tuple[Cell, ...]:
    checked = "yes" if effect.verified else "no"
    how = called(condition(effect), prompt)
    counts = (
        effect.right_to_wrong,
        effect.wrong_to_right,
        effect.wrong_to_other,
        effect.num_unread,
    )
    return (
        *names(effect.variant, effect.family, checked, effect.model, how),
        (f"{effect.n:,}",),
        rate_cell(effect.original),
        rate_cell(effect.accuracy),
        (_chance(effect),),
        points_cell(effect.delta, effect.low, effect.high),
        *((f"{count:,}",) for count in counts),
        p_cell(effect.p),
        p_cell(effect.p_holm),
    )


def _chance(effect: VariantEffect) -> str:
    chance, before = wording.percent(effect.chance), wording.percent(effect.original_chance)
    return chance if chance == before else f"{before} → {chance}"


def _robustness_part(title: str, rows: Sequence[Robustness], report: Report) -> Part:
    """All variants together, in the overview's condition; in every condition for who wants it."""
    prompt = main_prompt(rows)
    wanted = lead_condition(report, rows[0].language)
    front = [row for row in rows if condition(row) == wanted] or rows
    name = f"{title}: all variants together"
    told = f"Robustness over all variants of a question, {title}"
    more = Part(f"{name}, {OTHERS}", tables=(_robustness_table(told, rows, prompt),))
    return Part(
        name,
        tables=(_robustness_table(told, front, prompt),),
        more=(more,) if len(front) < len(rows) else (),
    )


def _robustness_table(title: str, rows: Sequence[Robustness], prompt: str) -> Table:
    table = Table(
        title=title,
        headers=heads(
            "model | how | worst variant | variants | n | right in all | same option in all | pairs"
            " of variants with the same option | worst accuracy"
        ),
        rows=tuple(_robustness_cells(row, prompt) for row in rows),
        num_names=3,
        note="Over the original and all verified variants of one step, without those that change the"
        " answer and without hidden, on questions whose answers all count. An answer that cannot be read"
        " equals nothing.",
    )
    return compact(table)


def _robustness_cells(row: Robustness, prompt: str) -> tuple[Cell, ...]:
    worst, rate = row.worst or (wording.ABSENT, None)
    return (
        *names(row.model, called(condition(row), prompt), worst),
        (count_range((row.fewest, row.most)),),
        (f"{row.n:,}",),
        rate_cell(row.reacc),
        rate_cell(row.recon),
        (
            wording.percent(row.pairwise),
            f"({100 * row.low:.1f}–{100 * row.high:.1f})"
            if row.low is not None and row.high is not None
            else wording.ABSENT,
        ),
        rate_cell(rate),
    )
