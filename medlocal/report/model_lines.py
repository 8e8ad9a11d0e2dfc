"""What the first screen has of each model in a language: what it knows, its form, how it holds out. Pure.

Models are set side by side on data sets that all of them were asked: an accuracy on easier questions
is no higher. What is said of the lines stands in `headline` and `overview`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.scoring import ScoreRow, is_at_chance
from medlocal.evals.stats import Rate, wilson
from medlocal.report.leading import Lead
from medlocal.report.results import Report


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model in one language, on some data sets."""

    model: str
    how: str
    """Format and arm of `knowledge`: "letter/grammar"."""
    knowledge: Rate
    """Accuracy on the unperturbed questions of the data sets together."""
    chance: float | None
    """What guessing would get."""
    majority: float | None
    """What always choosing the most frequent right place of each data set would get."""
    baseline: float | None
    """What knowing nothing gets: see `scoring.baseline`, taken per data set."""
    at_chance: bool
    """True where `knowledge` is not shown to be above `baseline`."""
    compliance: Rate | None
    """Free answers that are exactly in the form that was demanded; None = none was asked for, and n = 0
    where none counts."""
    readable: Rate | None
    """Free answers from which exactly one option can be read."""
    form: str
    """The format of both; "" = none."""
    robust: Rate | None
    """Questions answered right in every variant (ReAcc); None = there were no variants."""
    num_variants: int
    """Of `robust`, the original included: those of the question that has most."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The models of a language, as far as they can be ranked."""

    lines: tuple[ModelLine, ...]
    """Best first; those that are not shown to know anything come last. By name where there is nothing
    to rank them on."""
    datasets: tuple[str, ...]
    """Those that all lines are on; () = no data set was asked of all, and each line is on its own."""
    others: tuple[str, ...]
    """Data sets left out because not all were asked them."""
    unanswered: tuple[tuple[str, int], ...]
    """(model, answers that do not count) of those without an answer that counts, which have no line."""


def rank(report: Report, language: str, lead: Lead) -> Ranking:
    """The models of a language under the condition that stands for it."""
    asked = [
        row
        for row in report.rows
        if (row.language, row.variant) == (language, ORIGINAL)
        and (row.prompt, row.format, row.arm) == (lead.prompt, lead.format, lead.arm)
    ]
    sets = {
        model: {row.dataset for row in asked if row.model == model and row.n}
        for model in report.models
    }
    shared = frozenset.intersection(*(frozenset(found) for found in sets.values() if found))
    lines = [
        _line(report, language, lead, model, shared or frozenset(found))
        for model, found in sets.items()
        if found
    ]
    if shared:
        lines.sort(key=lambda line: (line.at_chance, -(line.knowledge.value or 0)))
    unanswered = [
        (model, sum(row.excluded for row in asked if row.model == model))
        for model, found in sets.items()
        if not found and any((r.model, r.language) == (model, language) for r in report.rows)
    ]
    return Ranking(
        lines=tuple(lines),
        datasets=tuple(sorted(shared)),
        others=tuple(sorted(set().union(*sets.values()) - shared)),
        unanswered=tuple(unanswered),
    )


def _line(report: Report, language: str, lead: Lead, model: str, sets: frozenset[str]) -> ModelLine:
    rows = [
        row
        for row in report.rows
        if (row.language, row.model, row.variant) == (language, model, ORIGINAL)
        and (row.prompt, row.format) == (lead.prompt, lead.format)
        and row.dataset in sets
    ]
    knowledge = [row for row in rows if row.arm == lead.arm]
    rate = _pooled([row.acc_lenient for row in knowledge])
    level = _mean(knowledge, lambda row: row.baseline)
    free = [row for row in rows if row.arm == "free"]
    robust = [
        row
        for row in report.robustness
        if (row.language, row.model, row.prompt) == (language, model, lead.prompt)
        and (row.format, row.arm) == (lead.format, lead.arm)
        and row.dataset in sets
        and row.n
    ]
    return ModelLine(
        model=model,
        how=f"{lead.format}/{lead.arm}",
        knowledge=rate,
        chance=_mean(knowledge, lambda row: row.chance),
        majority=_mean(knowledge, lambda row: row.majority),
        baseline=level,
        at_chance=is_at_chance(rate, level),
        compliance=_pooled([row.fcr_strict for row in free if row.fcr_strict]) if free else None,
        readable=_pooled([row.fcr_lenient for row in free if row.fcr_lenient]) if free else None,
        form=lead.format if free else "",
        robust=_pooled([row.reacc for row in robust]) if robust else None,
        num_variants=max((row.most for row in robust), default=0),
    )


def _pooled(rates: Sequence[Rate]) -> Rate:
    """The rate over several data sets together."""
    hits = sum(round((rate.value or 0.0) * rate.n) for rate in rates)
    return wilson(hits, sum(rate.n for rate in rates))


def _mean(rows: Sequence[ScoreRow], of: Callable[[ScoreRow], float | None]) -> float | None:
    """Of the rows' questions, so that a row weighs as much as it has questions."""
    counted = [(value, row.n) for row in rows if (value := of(row)) is not None]
    total = sum(n for _, n in counted)
    return sum(value * n for value, n in counted) / total if total else None
