"""The parts of a report that appear when variants, prompts or several models were asked. Pure.

Each part is a list of blocks and is empty where there is nothing to show. A person's report shows one
condition per language where the machine's outputs have all of them: the one that stands for the
language in `overview`, or for what concerns the form, its free arm.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TypeVar

from medlocal.evals.formats import FORMATS
from medlocal.evals.obedience import AnswerSplit
from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.position import PositionBias
from medlocal.evals.robustness import Robustness, VariantEffect
from medlocal.evals.scoring import ScoreRow
from medlocal.evals.spread import Interaction, PromptSpread, Spread
from medlocal.evals.stats import SIGNIFICANCE
from medlocal.report import wording
from medlocal.report.blocks import Block, Cell, Heading, Lines, Table, p_cell, rate_cell
from medlocal.report.overview import LanguageOverview, ModelLine, leads_of
from medlocal.report.results import Report

_T = TypeVar("_T")
_Leading = TypeVar("_Leading", VariantEffect, Interaction)

SHOWN_MARK = "*"
_UNVERIFIED = "unverified"
_VARIANT_NOTE = (
    f"{SHOWN_MARK} differs from the original at 5 % after Holm's correction over its family. Lost: right"
    " to wrong; gained: wrong to right; moved: from one wrong answer to another, or between a wrong and"
    " an unreadable one. Chance: the accuracy of guessing, which changes with the number of options."
    " Questions that a variant asks word for word as the original does are left out."
    f" {_UNVERIFIED}: nobody checked that the right answer is still right."
)
_ROBUST_NOTE = (
    "All right: right in every variant (ReAcc). All same: the same option in every variant, right or"
    " wrong (ReCon). Pairs: share of pairs of variants with the same option. An unreadable answer"
    " equals nothing. Answer transforms, two steps and the hidden question are left out, and so are"
    " questions with an answer that does not count. Worst: the lowest of several rates is low by chance"
    " too."
)
_POSITION_NOTE = (
    "RStd: standard deviation of the accuracy over the slots of the right option, in points. Total"
    " variation: half the sum of the differences between how often a slot is chosen and how often it"
    " is right. Both are above 0 by chance too."
)
_SPREAD_NOTE = "The range is never below 0, also for prompts that are equally good."
_SPLIT_NOTE = (
    "Wrong form: the right option, not transformed as told. Wrong knowledge: transformed as told, from"
    " a wrong option."
)
_INTERACTION_NOTE = (
    "Interaction: what the two do together less the sum of what each does alone, in points; below 0,"
    " together they harm more. Without an interval where fewer than six questions differ from the sum."
)


def overview_blocks(languages: Sequence[LanguageOverview]) -> list[Block]:
    """The first thing to read: the verdict of each language, and a line per model."""
    found: list[Block] = []
    for part in languages:
        found += [Heading(part.headline, level=3), Lines(part.sentences)]
        if len(part.lines) > 1 or any(line.robust for line in part.lines):
            found.append(_overview_table(part))
    return found


def _overview_table(part: LanguageOverview) -> Table:
    return Table(
        title=f"{wording.language(part.language)} · knowledge {part.lines[0].how}",
        headers=(
            ("model",),
            ("n",),
            ("accuracy",),
            ("chance,", "majority"),
            ("in the", "form"),
            ("readable",),
            ("right in", "all variants"),
        ),
        rows=tuple(_overview_row(line) for line in part.lines),
        num_names=1,
    )


def _overview_row(line: ModelLine) -> tuple[Cell, ...]:
    return (
        (wording.clean(line.model),),
        (f"{line.knowledge.n:,}",),
        rate_cell(line.knowledge),
        (wording.percent(line.chance), wording.percent(line.majority)),
        rate_cell(line.compliance),
        rate_cell(line.readable),
        rate_cell(line.robust),
    )


def variant_tables(report: Report) -> list[Block]:
    """Every variant against the original, under the condition that stands for the language."""
    chosen = _leading(report, report.variants)
    return [_variant_table(group) for group in _by_subject(chosen)]


def _variant_table(effects: Sequence[VariantEffect]) -> Table:
    return Table(
        title=_subject(effects[0]),
        headers=(
            ("variant",),
            ("n",),
            ("accuracy",),
            ("chance",),
            ("points", "to original"),
            ("p", "(Holm)"),
            ("lost, gained,", "moved"),
        ),
        rows=tuple(_variant_row(effect) for effect in effects),
        num_names=1,
        note=_VARIANT_NOTE,
    )


def _variant_row(effect: VariantEffect) -> tuple[Cell, ...]:
    is_shown = effect.p_holm is not None and effect.p_holm < SIGNIFICANCE
    mark = f" {SHOWN_MARK}" if is_shown else ""
    return (
        _variant_name(effect.variant, verified=effect.verified),
        (f"{effect.n:,}",),
        rate_cell(effect.accuracy),
        _chance_cell(effect),
        (wording.points(effect.delta) + mark, wording.points_interval(effect.low, effect.high)),
        p_cell(effect.p_holm),
        (f"{effect.b:,} {effect.c:,} {effect.wrong_to_other:,}",),
    )


def _chance_cell(effect: VariantEffect) -> Cell:
    """Chance in the variant; where it is another, chance in the original under it."""
    chance, before = wording.percent(effect.chance), wording.percent(effect.original_chance)
    return (chance,) if chance == before else (chance, f"(was {before})")


def robustness_tables(report: Report) -> list[Block]:
    """All variants together, per format and arm."""
    return [
        Table(
            title=_place(group[0]),
            headers=(
                ("format", "arm"),
                ("n",),
                ("variants",),
                ("all right",),
                ("all same",),
                ("pairs",),
                ("worst", "variant"),
            ),
            rows=tuple(map(_robustness_row, group)),
            num_names=1,
            note=_ROBUST_NOTE,
        )
        for group in _by_place(report.robustness)
    ]


def _robustness_row(row: Robustness) -> tuple[Cell, ...]:
    variants = f"{row.most}" if row.fewest == row.most else f"{row.fewest}–{row.most}"
    name, rate = row.worst or (wording.ABSENT, None)
    pairs = (wording.percent(row.pairwise), _share_interval(row.low, row.high))
    worst = (wording.ABSENT,) if rate is None else (*rate_cell(rate), f"n = {rate.n:,}")
    return (
        _condition(row),
        (f"{row.n:,}",),
        (variants,),
        rate_cell(row.reacc),
        rate_cell(row.recon),
        pairs,
        (wording.clean(name), *worst),
    )


def position_tables(report: Report) -> list[Block]:
    """Accuracy by the slot of the right option, where options were moved."""
    moved = {_key(e) for e in report.variants if e.family == "order"}
    rows = [row for row in report.positions if _key(row) in moved]
    return [
        Table(
            title=_place(group[0]),
            headers=(
                ("format", "arm"),
                ("n",),
                ("accuracy by", "gold slot"),
                ("chosen",),
                ("RStd",),
                ("total", "variation"),
            ),
            rows=tuple(map(_position_row, group)),
            num_names=1,
            note=_POSITION_NOTE,
        )
        for group in _by_place(rows)
    ]


def _position_row(row: PositionBias) -> tuple[Cell, ...]:
    return (
        _condition(row),
        (f"{row.n:,}",),
        (_shares([rate.value for rate in row.recalls]),),
        (_shares(row.chosen_shares) or wording.ABSENT,),
        (
            wording.points(row.rstd).removeprefix("+"),
            _share_interval(row.rstd_low, row.rstd_high),
        ),
        (
            "–" if row.total_variation is None else f"{row.total_variation:.2f}",
            _plain_range(row.total_variation_low, row.total_variation_high),
        ),
    )


def spread_tables(report: Report) -> list[Block]:
    """The same questions under several prompts."""
    return [
        Table(
            title=_named(group[0].language, group[0].model, group[0].dataset),
            headers=(
                ("format", "arm"),
                ("n",),
                ("what",),
                ("prompts",),
                ("mean", "(sd)"),
                ("worst",),
                ("best",),
                ("range",),
            ),
            rows=tuple(row for spread in group for row in _spread_rows(spread)),
            num_names=1,
            note=_SPREAD_NOTE,
        )
        for group in _grouped(report.spreads, lambda s: (s.language, s.model, s.dataset))
    ]


def _spread_rows(spread: PromptSpread) -> Iterable[tuple[Cell, ...]]:
    named: tuple[tuple[str, Spread | None], ...] = (
        ("accuracy", spread.accuracy),
        ("in form", spread.compliance),
    )
    for name, found in named:
        if found is None:
            continue
        yield (
            (f"{spread.format}", spread.arm),
            (f"{spread.n:,}",),
            (name,),
            (f"{len(found.rates):,}",),
            (wording.percent(found.mean), f"({100 * found.sd:.1f})"),
            (wording.clean(found.worst[0]), *rate_cell(found.worst[1])),
            (wording.clean(found.best[0]), *rate_cell(found.best[1])),
            (
                wording.points(found.range).removeprefix("+"),
                _share_interval(found.low, found.high),
            ),
        )


def level_tables(report: Report) -> list[Block]:
    """Format compliance by how much is said of the form, in the free arm."""
    levels = [row for row in report.rows if row.arm == "free" and row.variant in _LEVELS]
    asked = {_place_key(row) for row in levels if row.variant != ORIGINAL}
    rows = [row for row in levels if _place_key(row) in asked]
    return [
        Table(
            title=_named(group[0].language, group[0].model, group[0].dataset, group[0].prompt),
            headers=(
                ("format",),
                ("the form is",),
                ("n",),
                ("strict", "form"),
                ("lenient", "form"),
                ("accuracy",),
            ),
            rows=tuple(_level_row(row) for row in sorted(group, key=_level_order)),
            num_names=2,
        )
        for group in _grouped(rows, _place_key)
    ]


_LEVELS = ("instruction(none)", "instruction(mentioned)", "instruction(example)", ORIGINAL)
_LEVEL_WORDS = ("not mentioned", "mentioned", "mentioned, with example", "demanded")


def _level_order(row: ScoreRow) -> tuple[int, int]:
    return list(FORMATS).index(row.format), _LEVELS.index(row.variant)


def _level_row(row: ScoreRow) -> tuple[Cell, ...]:
    return (
        (wording.clean(row.format),),
        (_LEVEL_WORDS[_LEVELS.index(row.variant)],),
        (f"{row.n:,}",),
        rate_cell(row.fcr_strict),
        rate_cell(row.fcr_lenient),
        rate_cell(row.acc_lenient),
    )


def split_tables(report: Report) -> list[Block]:
    """What is wrong with transformed answers: knowledge or form, in the free arm."""
    found = [split for split in report.splits if split.arm == "free"]
    asked = {_key(split) for split in found if split.wrong_form is not None}
    return [
        Table(
            title=_subject(group[0]),
            headers=(
                ("variant",),
                ("n",),
                ("right in", "original"),
                ("right",),
                ("wrong", "form"),
                ("wrong", "knowledge"),
                ("both", "wrong"),
                ("unread",),
            ),
            rows=tuple(map(_split_row, group)),
            num_names=1,
            note=_SPLIT_NOTE,
        )
        for group in _by_subject([split for split in found if _key(split) in asked])
    ]


def _split_row(split: AnswerSplit) -> tuple[Cell, ...]:
    parts = (split.right, split.wrong_form, split.wrong_knowledge, split.both_wrong, split.unread)
    rates = (split.original, *parts)
    return (
        _variant_name(split.variant, verified=split.verified),
        (f"{split.n:,}",),
        *map(rate_cell, rates),
    )


def interaction_tables(report: Report) -> list[Block]:
    """Two perturbations together against each alone, under the language's condition."""
    chosen = _leading(report, report.interactions)
    return [
        Table(
            title=_subject(group[0]),
            headers=(
                ("first", "second"),
                ("n",),
                ("first", "alone"),
                ("second", "alone"),
                ("together",),
                ("interaction",),
            ),
            rows=tuple(map(_interaction_row, group)),
            num_names=1,
            note=_INTERACTION_NOTE,
        )
        for group in _by_subject(chosen)
    ]


def _interaction_row(row: Interaction) -> tuple[Cell, ...]:
    second = row.second if row.verified else f"{row.second} ({_UNVERIFIED})"
    return (
        (wording.clean(row.first), wording.clean(second)),
        (f"{row.n:,}",),
        (wording.points(row.delta_first),),
        (wording.points(row.delta_second),),
        (wording.points(row.delta_both),),
        (wording.points(row.interaction), wording.points_interval(row.low, row.high)),
    )


def _leading(report: Report, rows: Iterable[_Leading]) -> list[_Leading]:
    """The rows under the condition that stands for their language."""
    leads = leads_of(report.rows)
    return [
        row
        for row in rows
        if (lead := leads.get(row.language))
        and (row.prompt, row.format, row.arm) == (lead.prompt, lead.format, lead.arm)
    ]


def _key(row: VariantEffect | PositionBias | AnswerSplit) -> tuple[str, ...]:
    return row.language, row.model, row.dataset, row.prompt, row.format, row.arm


def _place_key(row: ScoreRow | Robustness | PositionBias) -> tuple[str, ...]:
    return row.language, row.model, row.dataset, row.prompt


_Subject = TypeVar("_Subject", VariantEffect, AnswerSplit, Interaction)
_Place = TypeVar("_Place", Robustness, PositionBias)


def _by_subject(rows: Iterable[_Subject]) -> list[list[_Subject]]:
    return _grouped(
        rows, lambda row: (row.language, row.model, row.dataset, row.prompt, row.format, row.arm)
    )


def _by_place(rows: Iterable[_Place]) -> list[list[_Place]]:
    return _grouped(rows, _place_key)


def _grouped(rows: Iterable[_T], key: Callable[[_T], tuple[str, ...]]) -> list[list[_T]]:
    """In the order of the key; within a group, the order in which they came."""
    return [list(group) for _, group in groupby(sorted(rows, key=key), key)]


def _subject(row: VariantEffect | AnswerSplit | Interaction) -> str:
    condition = f"{row.format}/{row.arm}"
    return _named(row.language, row.model, row.dataset, row.prompt, condition)


def _place(row: Robustness | PositionBias) -> str:
    return _named(row.language, row.model, row.dataset, row.prompt)


def _named(language: str, *names: str) -> str:
    return " · ".join((wording.language(language), *map(wording.clean, names)))


def _condition(row: Robustness | PositionBias) -> Cell:
    return wording.clean(row.format), row.arm


def _variant_name(name: str, *, verified: bool) -> Cell:
    steps = wording.clean(name).replace("+", " +\n").split("\n")  # one below the other
    return (*steps, *(() if verified else (f"({_UNVERIFIED})",)))


def _shares(shares: Sequence[float | None]) -> str:
    return " ".join("–" if share is None else f"{100 * share:.0f}" for share in shares)


def _share_interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"({100 * low:.1f}–{100 * high:.1f})"


def _plain_range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"({low:.2f}–{high:.2f})"
