"""What a report shows, in blocks that every output can lay out: headings, tables, lines of text. Pure.

The content is written once, here and in `findings`; Markdown and the terminal only place it. A table's
cell is a tuple of short lines: the terminal stacks them to stay within 80 columns, Markdown joins them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from medlocal.evals.scoring import ConstraintEffect, ScoreRow
from medlocal.evals.stats import Rate
from medlocal.report import wording

Cell = tuple[str, ...]
"""Lines, one below the other where there is little room."""
_Scored = TypeVar("_Scored", ScoreRow, ConstraintEffect)

AT_CHANCE_MARK = "*"
AT_CHANCE_NOTE = (
    f"{AT_CHANCE_MARK} not shown to be above chance, or above the majority where that is higher"
)
LEGEND = (
    "Rates with 95 % Wilson intervals. Strict: the whole output is the form; lenient: or exactly one"
    " option can be read. Chance: guessing; majority: always the most frequent gold label.",
    "free: greedy text; grammar: the same prompt, tokens masked by the form; label, cloze: options"
    " scored, nothing generated. Engine errors and masks not applied are not in n. Intervals and p"
    " are per row, and not corrected for the number of rows unless it is said.",
)

_NOT_FOR_READING = frozenset({"system"})
"""Engine facts that identify a build to a program; they stand in the JSON."""

_SCORE_HEADERS: tuple[Cell, ...] = (
    ("format",),
    ("arm",),
    ("n",),
    ("accuracy",),
    ("chance",),
    ("majority",),
    ("strict", "form"),
    ("lenient", "form"),
)
_OUTCOME_HEADERS: tuple[Cell, ...] = (("format",), ("arm",), ("outcomes",))
_EFFECT_HEADERS: tuple[Cell, ...] = (
    ("format",),
    ("n",),
    ("points",),
    ("95 % interval",),
    ("lost", "(b)"),
    ("gained", "(c)"),
    ("McNemar", "p"),
    ("same", "answer"),
)


@dataclass(frozen=True, slots=True)
class Heading:
    """A title of a part."""

    text: str
    level: int = 2
    """1 = the report's own."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headers."""

    title: str
    headers: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_names: int
    """Leading columns that hold words, which may wrap; the others hold numbers, which may not."""
    note: str = ""
    """What stands below it; empty = nothing."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Sentences or facts, one per line."""

    lines: tuple[str, ...]


Block = Heading | Table | Lines


def run_lines(run: Mapping[str, object]) -> Lines:
    """What is known of the run itself, without what is nested in it."""
    simple = {key: value for key, value in run.items() if not isinstance(value, Mapping)}
    return Lines(tuple(f"{name}: {value}" for name, value in wording.facts(simple)))


def engine_lines(engine: Mapping[str, object]) -> Lines:
    """What the engine really used and did; how much of the prompts was shared, where it says so."""
    told = {name: value for name, value in engine.items() if name not in _NOT_FOR_READING}
    lines = [f"{name}: {value}" for name, value in wording.facts(told)]
    total, unique = engine.get("total_prompt_tokens"), engine.get("unique_prompt_tokens")
    if isinstance(total, int) and isinstance(unique, int) and unique > 0:
        times = f"{total / unique:.1f} times as many"
        lines.append(f"prompt sharing: {unique:,} distinct tokens stand for {total:,}, {times}")
    return Lines(tuple(lines) or ("nothing was recorded",))


def score_tables(rows: Sequence[ScoreRow]) -> list[Table]:
    """Two tables per language (and model, data set, variant, prompt): the rates, and the outcomes."""
    groups = by_condition(rows)
    return [table for group in groups for table in (_rate_table(group), _outcome_table(group))]


def effect_tables(effects: Sequence[ConstraintEffect]) -> list[Table]:
    """The effect of the grammar, in tables cut like those of the scores."""
    return [
        Table(
            title=f"Grammar minus free · {condition_of(group[0])}",
            headers=_EFFECT_HEADERS,
            rows=tuple(_effect_cells(effect) for effect in group),
            num_names=1,
            note=left_out((wording.clean(effect.format), effect.excluded) for effect in group),
        )
        for group in by_condition(effects)
    ]


def left_out(counts: Iterable[tuple[str, int]]) -> str:
    """Which rows of pairs lack some because an answer does not count; "" = none."""
    told = ", ".join(f"{name} {count:,}" for name, count in counts if count)
    return f"Not in n, because one of the two answers does not count: {told}." if told else ""


def by_condition(rows: Iterable[_Scored]) -> list[list[_Scored]]:
    """The rows in groups that share language, model, data set, variant, its verification and prompt."""

    def key(row: _Scored) -> tuple[str, ...]:
        original_first = "" if row.variant == "original" else row.variant
        verified_first = "" if row.verified else "unverified"
        return row.language, row.model, row.dataset, original_first, verified_first, row.prompt

    return [list(group) for _, group in groupby(sorted(rows, key=key), key)]


def condition_of(row: ScoreRow | ConstraintEffect) -> str:
    """What the rows of a table share: "Spanish · demo · starter · original · plain-0"."""
    variant = row.variant if row.verified else f"{row.variant} (unverified)"
    names = (wording.language(row.language), row.model, row.dataset, variant, row.prompt)
    return " · ".join(wording.clean(name) for name in names)


def _rate_table(rows: Sequence[ScoreRow]) -> Table:
    return Table(
        title=condition_of(rows[0]),
        headers=_SCORE_HEADERS,
        rows=tuple(_score_cells(row) for row in rows),
        num_names=2,
        note=AT_CHANCE_NOTE if any(row.at_chance for row in rows) else "",
    )


def _outcome_table(rows: Sequence[ScoreRow]) -> Table:
    return Table(
        title=f"Outcomes · {condition_of(rows[0])}",
        headers=_OUTCOME_HEADERS,
        rows=tuple((*_names(row), (_outcomes(row.outcomes),)) for row in rows),
        num_names=3,
    )


def _names(row: ScoreRow) -> tuple[Cell, Cell]:
    return (wording.clean(row.format),), (wording.clean(row.arm),)


def _outcomes(counts: Mapping[str, int]) -> str:
    words = (f"{name.lower().replace('_', ' ')} {count:,}" for name, count in counts.items())
    return ", ".join(words)


def _score_cells(row: ScoreRow) -> tuple[Cell, ...]:
    accuracy, interval = rate_cell(row.acc_lenient)
    mark = f" {AT_CHANCE_MARK}" if row.at_chance else ""
    return (
        *_names(row),
        (f"{row.n:,}",),
        (accuracy + mark, interval),
        (wording.percent(row.chance),),
        (wording.percent(row.majority),),
        rate_cell(row.fcr_strict),
        rate_cell(row.fcr_lenient),
    )


def rate_cell(rate: Rate | None) -> Cell:
    """A share over its interval."""
    return (
        (wording.ABSENT,) if rate is None else (wording.percent(rate.value), wording.bounds(rate))
    )


def p_cell(p: float | None) -> Cell:
    """A p-value; its column's header says what it is."""
    return (wording.ABSENT if p is None else wording.p_value(p).removeprefix("= "),)


def _effect_cells(effect: ConstraintEffect) -> tuple[Cell, ...]:
    return (
        (wording.clean(effect.format),),
        (f"{effect.n:,}",),
        (wording.points(effect.delta),),
        (wording.points_interval(effect.low, effect.high),),
        (f"{effect.b:,}",),
        (f"{effect.c:,}",),
        p_cell(effect.p),
        rate_cell(effect.agreement),
    )
