"""The figures in plain sentences: what is at chance, whether answers have the form, what the grammar did.

Every sentence carries its number with unit, n and interval, and claims no more than they show. Pure.
"""

from collections.abc import Iterable, Sequence

from medlocal.evals.scoring import ConstraintEffect, ScoreRow
from medlocal.evals.stats import SIGNIFICANCE, Rate, smallest_detectable_difference
from medlocal.report import wording
from medlocal.report.blocks import Block, Heading, Lines, by_condition, condition_of


def findings(rows: Sequence[ScoreRow], effects: Sequence[ConstraintEffect]) -> list[Block]:
    """What the rows and effects say, under one heading per condition."""
    found: list[Block] = []
    for group in by_condition(rows):
        title = condition_of(group[0])
        here = [effect for effect in effects if condition_of(effect) == title]
        lines = (*_knowledge(group), *_forms(group), *_constraints(here), *_pressure(group))
        found += [Heading(title, level=3), Lines(lines)]
    return found


def form_verdict(fcr: Rate) -> str:
    """Whether answers have the form, as far as the interval of strict compliance shows it."""
    if fcr.value is None or fcr.low is None or fcr.high is None:
        return "was not asked"
    if fcr.value == 1.0:
        return "always does"
    if fcr.low > 0.5:
        return "mostly does"
    return "mostly does not" if fcr.high < 0.5 else "does about as often as not"


def _knowledge(rows: Sequence[ScoreRow]) -> list[str]:
    subject = f"In {wording.language(rows[0].language)}, {wording.clean(rows[0].model)}"
    judged = [row for row in rows if row.n]
    below = [row for row in judged if _is_below_chance(row)]
    at_chance = [row for row in judged if row.at_chance and row not in below]
    above = [row for row in judged if not row.at_chance]
    said = []
    if at_chance:
        names = ", ".join(_name(row) for row in at_chance)
        where = "" if len(at_chance) == len(judged) else f" with {names}"
        best = max(at_chance, key=lambda row: row.acc_lenient.value or 0.0)
        said.append(
            f"{subject} is at chance{where}: {_chance(at_chance)} would be got by guessing."
            f" Its best result there is {_result(best)}."
        )
    if below:
        results = "; ".join(f"{_result(row)}, {_num_unread(row):,} unreadable" for row in below)
        said.append(
            f"{subject} is below chance ({_chance(below)}) with {results}."
            " Unreadable answers count as wrong."
        )
    if above:
        results = "; ".join(map(_result, above))
        said.append(f"{subject} is above chance ({_chance(above)}) with {results}.")
    return said or [f"{subject} has no answer that counts."]


def _forms(rows: Sequence[ScoreRow]) -> list[str]:
    return [
        f"Told to answer in the form {wording.clean(row.format)}, it {form_verdict(row.fcr_strict)}:"
        f" {wording.full_rate(row.fcr_strict)} of its free answers are exactly in the form,"
        f" {wording.percent(row.fcr_lenient.value)} can be read."
        for row in rows
        if row.arm == "free"
        and row.n
        and row.fcr_strict is not None
        and row.fcr_lenient is not None
    ]


def _constraints(effects: Iterable[ConstraintEffect]) -> list[str]:
    said = []
    for effect in effects:
        subject = f"The grammar for {wording.clean(effect.format)}"
        if effect.delta is None:
            said.append(f"{subject}: no item has an answer that counts in both arms.")
            continue
        interval = wording.points_interval(effect.low, effect.high)
        said.append(
            f"{subject} changes accuracy by {wording.points(effect.delta)} points ({interval},"
            f" n = {effect.n:,}, p {wording.p_value(effect.p)}): {_verdict(effect)}."
        )
    return said


def _pressure(rows: Sequence[ScoreRow]) -> list[str]:
    """What the model would rather have said: behind a mask, compliance is no sign of will."""
    said = []
    for row in rows:
        if row.median_tax_nats is not None:
            tax = f"a median of {row.median_tax_nats:.2f} nats per answer (n = {row.n:,})"
            said.append(f"With {_name(row)}, the mask took {tax} from what it wanted to say.")
        if row.mean_label_mass is not None:
            mass = f"a mean of {wording.percent(row.mean_label_mass)} (n = {row.n:,})"
            said.append(f"With {_name(row)}, {mass} of its probability lay on the labels.")
    return said


def _verdict(effect: ConstraintEffect) -> str:
    if effect.p < SIGNIFICANCE:
        return "better" if effect.c > effect.b else "worse"
    if effect.b + effect.c == 0:
        return "no item is right in one arm only"
    discordance = (effect.b + effect.c) / effect.n
    smallest = smallest_detectable_difference(effect.n, discordance)
    if smallest is None:
        return "no difference shown, and too few items to show one"
    return f"no difference shown; this many items could show {100 * smallest:.1f} points or more"


def _is_below_chance(row: ScoreRow) -> bool:
    high = row.acc_lenient.high
    return high is not None and row.chance is not None and high < row.chance


def _num_unread(row: ScoreRow) -> int:
    return row.n - row.acc_given_valid.n


def _chance(rows: Sequence[ScoreRow]) -> str:
    return wording.share_range([row.chance for row in rows if row.chance is not None])


def _name(row: ScoreRow) -> str:
    return wording.clean(f"{row.format}/{row.arm}")


def _result(row: ScoreRow) -> str:
    return f"{_name(row)} {wording.full_rate(row.acc_lenient)}"
