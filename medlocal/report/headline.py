"""The first sentences of a language: which model, whether it knows anything, how sure that is. Pure.

A model is said to be better than another by one test over all questions that both answered, clustered
by question; what each data set shows stands beside it. Nothing more is claimed than was tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from medlocal.evals.comparing import ComparisonRow, OverallRow, Verdict
from medlocal.report import wording
from medlocal.report.leading import Lead
from medlocal.report.model_lines import ModelLine, Ranking
from medlocal.report.results import Report

_NOT_RELIED = "Do not rely on"
_FIXED = "always choosing the most frequent right place"


def told(report: Report, language: str, lead: Lead, ranking: Ranking) -> tuple[str, list[str]]:
    """The headline of a language, and the sentences that make it sure or unsure."""
    name, lines = wording.language(language), ranking.lines
    if len(lines) == 1:
        headline, said = _of_one(name, lines[0])
    elif not ranking.datasets:
        headline, said = _on_other_sets(name, lines)
    elif lines[0].at_chance:
        headline, said = _of_nobody(name, lines[0])
    else:
        headline, said = _of_the_best(report, language, lead, ranking)
    return headline, [*said, *map(_unanswered, ranking.unanswered)]


def _of_one(name: str, line: ModelLine) -> tuple[str, list[str]]:
    model = wording.clean(line.model)
    if line.at_chance:
        answers = f"It answers {_result(line)}. {_NOT_RELIED} its answers."
        return f"{name}: {model} is {_not_above(line)}.", [answers]
    return f"{name}: {model} is better than guessing.", [f"{model} answers {_result(line)}."]


def _of_nobody(name: str, best: ModelLine) -> tuple[str, list[str]]:
    answers = f"The best, {wording.clean(best.model)}, answers {_result(best)}."
    nobody = "know more than a guesser"
    if _beats_guessing(best):
        nobody = f"be better than {_FIXED}"
    return f"{name}: no model is shown to {nobody}.", [f"{answers} {_NOT_RELIED} their answers."]


def _on_other_sets(name: str, lines: Sequence[ModelLine]) -> tuple[str, list[str]]:
    said = [
        f"{wording.clean(line.model)} answers {_result(line)}"
        + (f": it is {_not_above(line)}." if line.at_chance else ".")
        for line in lines
    ]
    return f"{name}: the models were asked other data sets, and cannot be ranked.", said


def _of_the_best(
    report: Report, language: str, lead: Lead, ranking: Ranking
) -> tuple[str, list[str]]:
    best, other = ranking.lines[:2]
    name = wording.language(language)
    above = f"{wording.clean(best.model)} answers {_result(best)}."
    duel = _duel(report, language, lead, best.model, other.model)
    headline, said = _between_two(name, duel)
    if ranking.others:
        only, left = _sets(ranking.datasets), _sets(ranking.others)
        said.insert(1, f"The models are ranked on {only} only: not all were asked {left}.")
    return headline, [above, *said]


def _sets(names: Sequence[str]) -> str:
    return wording.listed([wording.clean(name) for name in names])


def _result(line: ModelLine) -> str:
    """What it gets right, and what knowing nothing gets."""
    guessing = f"guessing gets {wording.percent(line.chance)}"
    fixed = f"{_FIXED} {wording.percent(line.majority)}"
    return f"{wording.full_rate(line.knowledge)} of the questions right; {guessing}, {fixed}"


def _beats_guessing(line: ModelLine) -> bool:
    low = line.knowledge.low
    return low is not None and line.chance is not None and low > line.chance


def _not_above(line: ModelLine) -> str:
    if _beats_guessing(line):
        return f"better than guessing, but not shown to be better than {_FIXED}"
    return "not shown to know more than a guesser"


def _unanswered(found: tuple[str, int]) -> str:
    model, num_failed = found
    failed = f" ({num_failed:,} engine errors or masks not applied)" if num_failed else ""
    return f"{wording.clean(model)} has no answer that counts{failed}, and is not ranked."


@dataclass(frozen=True, slots=True)
class _Gain:
    """How far one model is ahead of another, on one data set or on all."""

    n: int
    delta: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: Verdict
    """On the first-named against the other."""
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class _Duel:
    """Two models under the condition that stands for the language."""

    ahead: str
    """The one that is better, or the one with the higher accuracy where nothing is shown."""
    behind: str
    is_best: bool
    """True where `ahead` is the one with the higher accuracy."""
    overall: _Gain | None
    """None = they were not asked the same questions."""
    smallest: float | None
    """What the test of `overall` would have shown."""
    sets: tuple[_Gain, ...]
    """What each data set shows, corrected for their number; () = there is one only."""


def _duel(report: Report, language: str, lead: Lead, best: str, other: str) -> _Duel:
    for pair in report.pairs:
        if {pair.first, pair.second} != {best, other}:
            continue
        condition = (language, lead.format, lead.arm, lead.prompt)
        rows = [row for row in pair.comparison.rows if _condition(row) == condition and row.n]
        for row in pair.comparison.overall:
            if _condition(row) == condition and row.n:
                is_best_ahead = row.verdict != ("worse" if pair.second == best else "better")
                ahead, behind = (best, other) if is_best_ahead else (other, best)
                turned = pair.second != ahead
                return _Duel(
                    wording.clean(ahead),
                    wording.clean(behind),
                    is_best_ahead,
                    _gain(row, turned=turned),
                    row.smallest,
                    tuple(_gain(r, turned=turned) for r in rows) if len(rows) > 1 else (),
                )
    return _Duel(wording.clean(best), wording.clean(other), True, None, None, ())


def _condition(row: ComparisonRow | OverallRow) -> tuple[str, ...]:
    return row.language, row.format, row.arm, row.prompt


_TURNED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


def _gain(row: ComparisonRow | OverallRow, *, turned: bool) -> _Gain:
    delta, low, high, verdict = row.delta, row.low, row.high, row.verdict
    if turned:
        delta = None if delta is None else -delta
        low, high = (None if high is None else -high), (None if low is None else -low)
        verdict = _TURNED.get(verdict, verdict)
    if isinstance(row, ComparisonRow):
        return _Gain(row.n, delta, low, high, row.p_holm, verdict, row.dataset)
    return _Gain(row.n, delta, low, high, row.p, verdict)


def _between_two(name: str, duel: _Duel) -> tuple[str, list[str]]:
    """The headline on two models, and the sentences behind it: all questions first, then each set."""
    ahead, behind, overall = duel.ahead, duel.behind, duel.overall
    if overall is None:
        nothing = "nothing is shown about the two"
        return f"{name}: {ahead} has the highest accuracy.", [
            f"It was not asked the same questions as {behind}: {nothing}."
        ]
    over = f" over {len(duel.sets)} data sets" if duel.sets else ""
    figures = f"{_difference(overall)}{over}"
    if overall.verdict == "better":
        said = f"{'It' if duel.is_best else ahead} is better than {behind}: {figures}."
        headline = f"use {ahead}"
        if worse := _shown(duel.sets, "worse"):
            said = f"{ahead} against {behind}: {figures}."
            headline = f"{ahead} is shown to be better than {behind} over all data sets, but worse on {worse}"
    else:
        said = f"{ahead} against {behind}: {figures}; {wording.could_show(duel.smallest)}."
        headline = f"no difference is shown between {ahead} and {behind}{_exceptions(duel)}"
    return f"{name}: {headline}.", [said, *_set_by_set(duel.sets)]


def _exceptions(duel: _Duel) -> str:
    """What single data sets show where all together show nothing."""
    ahead, behind = (_shown(duel.sets, verdict) for verdict in ("better", "worse"))
    parts = [
        f"{model} is shown to be better on {sets}"
        for model, sets in ((duel.ahead, ahead), (duel.behind, behind))
        if sets
    ]
    return f" over all data sets; {', '.join(parts)}" if parts else ""


def _shown(gains: Sequence[_Gain], verdict: str) -> str:
    """The data sets that have a verdict, in words; "" = none."""
    found = [gain.dataset for gain in gains if gain.verdict == verdict]
    return _sets(found) if found else ""


def _set_by_set(gains: Sequence[_Gain]) -> list[str]:
    if not gains:
        return []
    each = "; ".join(f"{wording.clean(gain.dataset)} {_difference(gain)}" for gain in gains)
    return [f"By data set, p corrected for {len(gains)}: {each}."]


def _difference(gain: _Gain) -> str:
    p = "" if gain.p is None else f", p {wording.p_value(gain.p)}"
    interval = wording.points_interval(gain.low, gain.high)
    return f"{wording.points(gain.delta)} points ({interval}, n = {gain.n:,}{p})"
