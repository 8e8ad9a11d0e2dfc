"""The figures in plain sentences: what is known, whether answers have the form, what the grammar did.

Every sentence carries its number with unit, n and interval, and its words say what the interval shows,
not what the number is. Pure.
"""

from collections.abc import Sequence

from medlocal.evals.paired import smallest_shown
from medlocal.evals.pairing import holm_within
from medlocal.evals.scoring import ConstraintEffect, ScoreRow, is_at_chance
from medlocal.evals.stats import SIGNIFICANCE, Interval, Rate
from medlocal.report import wording
from medlocal.report.blocks import Block, Heading, Lines, by_condition, condition_of

_TESTS = "tests of a grammar"


def findings(rows: Sequence[ScoreRow], effects: Sequence[ConstraintEffect]) -> list[Block]:
    """What the rows and effects say, under one heading per condition.

    The tests of all effects are corrected together (Holm): they are read together.
    """
    adjusted = holm_within([("effects", effect.p) for effect in effects])
    num_tests = sum(p is not None for p in adjusted)
    found: list[Block] = []
    for group in by_condition(rows):
        title = condition_of(group[0])
        grammars = [
            _constraint(effect, p, num_tests)
            for effect, p in zip(effects, adjusted, strict=True)
            if condition_of(effect) == title
        ]
        lines = (*_knowledge(group), *_forms(group), *grammars, *_pressure(group))
        found += [Heading(title, level=3), Lines(lines)]
    return found


def form_verdict(fcr: Rate) -> str:
    """Whether answers have the form, as far as the interval of strict compliance shows it."""
    if fcr.low is None or fcr.high is None:
        return "was not asked"
    if fcr.low > 0.95:
        return "nearly always does"
    if fcr.high < 0.05:
        return "hardly ever does"
    if fcr.low > 0.5:
        return "mostly does"
    if fcr.high < 0.5:
        return "mostly does not"
    if fcr.low >= 0.35 and fcr.high <= 0.65:
        return "does about as often as not"
    return "may or may not do so, too few answers to tell"


def _knowledge(rows: Sequence[ScoreRow]) -> list[str]:
    subject = f"In {wording.language(rows[0].language)}, {wording.clean(rows[0].model)}"
    judged = [row for row in rows if row.n]
    below = [row for row in judged if _is_below_chance(row)]
    open_ = [row for row in judged if is_at_chance(row.acc_lenient, row.chance)]
    not_shown = [row for row in open_ if row not in below]
    fixed = [row for row in judged if row.at_chance and row not in open_]
    above = [row for row in judged if row not in open_ and not row.at_chance]
    said = []
    if not_shown:
        names = ", ".join(_name(row) for row in not_shown)
        where = "" if len(not_shown) == len(judged) else f" with {names}"
        best = max(not_shown, key=lambda row: row.acc_lenient.value or 0.0)
        said.append(
            f"{subject} is not shown to be above chance{where}: guessing gets {_chance(not_shown)}."
            f" Its best result there is {_result(best)}."
        )
    if below:
        results = "; ".join(f"{_result(row)}, {_num_unread(row):,} unreadable" for row in below)
        said.append(
            f"{subject} is below chance ({_chance(below)}) with {results}."
            " Unreadable answers count as wrong."
        )
    if fixed:
        majority = wording.share_range([row.majority for row in fixed if row.majority is not None])
        said.append(
            f"{subject} is above chance ({_chance(fixed)}), but not shown to be above the majority"
            f" ({majority}), with {'; '.join(map(_result, fixed))}."
        )
    if above:
        results = "; ".join(map(_result, above))
        said.append(f"{subject} is above chance ({_chance(above)}) with {results}.")
    return said or [f"{subject} has no answer that counts."]


def _forms(rows: Sequence[ScoreRow]) -> list[str]:
    return [
        f"Told to answer in the form {wording.clean(row.format)}, it {form_verdict(row.fcr_strict)}:"
        f" {wording.full_rate(row.fcr_strict)} of its free answers are exactly in the form,"
        f" {wording.rate_in_words(row.fcr_lenient)} can be read."
        for row in rows
        if row.arm == "free"
        and row.n
        and row.fcr_strict is not None
        and row.fcr_lenient is not None
    ]


def _constraint(effect: ConstraintEffect, p: float | None, num_tests: int) -> str:
    """What the grammar did, by a p-value that is corrected for the number of tests."""
    subject = f"The grammar for {wording.clean(effect.format)}"
    if effect.delta is None or p is None:
        return f"{subject}: no item has an answer that counts in both arms."
    interval = wording.points_interval(effect.low, effect.high)
    corrected = wording.corrected_p(p, num_tests, _TESTS)
    return (
        f"{subject} changes accuracy by {wording.points(effect.delta)} points ({interval},"
        f" n = {effect.n:,}, {corrected}): {_verdict(effect, p, num_tests)}.{_forced(effect)}"
    )


def _verdict(effect: ConstraintEffect, p: float, num_tests: int) -> str:
    if p < SIGNIFICANCE:
        return "better" if effect.c > effect.b else "worse"
    smallest = smallest_shown(effect.n, effect.b + effect.c, num_tests=num_tests)
    return f"no difference shown; {wording.could_show(smallest)}"


def _forced(effect: ConstraintEffect) -> str:
    """How much of a gain may be luck: a forced answer is right as often as guessing, an unread one never."""
    if not effect.forced.n:
        return ""
    is_luck = is_at_chance(effect.forced, effect.forced_chance)
    return (
        f" Of the questions whose free answer could not be read, it gets"
        f" {wording.full_rate(effect.forced)} right, and guessing"
        f" {wording.percent(effect.forced_chance)}"
        + (": what it gains there may be luck, and is no sign of knowledge." if is_luck else ".")
    )


def _pressure(rows: Sequence[ScoreRow]) -> list[str]:
    """What the model would rather have said: behind a mask, compliance is no sign of will."""
    said = []
    for row in rows:
        if row.median_tax_nats is not None:
            within = _within(row.tax_interval, 1, 2)
            tax = f"a median of {row.median_tax_nats:.2f} nats per answer ({within}n = {row.n:,})"
            said.append(f"With {_name(row)}, the mask took {tax} from what it wanted to say.")
        if row.mean_label_mass is not None:
            within = _within(row.label_mass_interval, 100, 1)
            mass = f"a mean of {wording.percent(row.mean_label_mass)} ({within}n = {row.n:,})"
            said.append(f"With {_name(row)}, {mass} of its probability lay on the labels.")
    return said


def _within(interval: Interval, factor: int, num_decimals: int) -> str:
    if interval.low is None or interval.high is None:
        return ""
    low, high = (f"{factor * bound:.{num_decimals}f}" for bound in (interval.low, interval.high))
    return f"{low}–{high}, "


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
