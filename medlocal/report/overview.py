"""The first screen in plain words: which model in which language, how sure, and can its answers be read.

It chooses the figures that matter first and says them, each with its n and interval, claiming no more
than they show. What is known and what is said in the right form are kept apart: knowledge is read
where the form cannot cost answers (under the grammar, else from the labels' probabilities), the form
where the model is free. Everything else of a report stands behind it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medlocal.evals.comparing import ComparisonRow
from medlocal.evals.formats import ARMS, FORMATS
from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.prompts import USUAL_PROMPT
from medlocal.evals.scoring import ScoreRow, is_at_chance
from medlocal.evals.stats import ASSUMED_DISCORDANCE, Rate, smallest_detectable_difference, wilson
from medlocal.report import wording
from medlocal.report.results import Report

_KNOWLEDGE_ARMS = ("grammar", "label", "free", "cloze")
"""Arms by how well they tell knowledge from form."""


@dataclass(frozen=True, slots=True)
class Lead:
    """The condition that stands for a language where one must be chosen."""

    prompt: str
    format: str
    arm: str


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model in one language."""

    model: str
    how: str
    """Format and arm of `knowledge`: "letter/grammar"."""
    knowledge: Rate
    """Accuracy on the unperturbed questions of all data sets."""
    chance: float | None
    at_chance: bool
    compliance: Rate | None
    """Free answers that are exactly in the form that was demanded; None = none were asked."""
    readable: Rate | None
    """Free answers from which exactly one option can be read."""
    form: str
    """The format of both; "" = none."""
    robust: Rate | None
    """Questions answered right in every variant (ReAcc); None = there were no variants."""
    num_variants: int
    """Of `robust`, the original included: those of the question that has most."""


@dataclass(frozen=True, slots=True)
class LanguageOverview:
    """What to know first of one language."""

    language: str
    headline: str
    """One sentence: which model."""
    sentences: tuple[str, ...]
    """How sure that is, and whether its answers can be parsed."""
    lines: tuple[ModelLine, ...]
    """Every model, best first; those that are not shown to be above chance come last."""


def overview(report: Report) -> tuple[LanguageOverview, ...]:
    """What to know first, language by language; nothing where nothing was answered."""
    languages = dict.fromkeys(row.language for row in report.rows)
    found = (_language(report, language) for language in languages)
    return tuple(part for part in found if part is not None)


def lead_of(rows: Iterable[ScoreRow], language: str) -> Lead | None:
    """The condition that stands for a language, of those that every model was asked in.

    The usual prompt, the arm that tells knowledge best, the first format. None where there is none.
    """
    asked = [row for row in rows if row.language == language and row.variant == ORIGINAL and row.n]
    models = {row.model for row in asked}
    by_condition: dict[tuple[str, str, str], set[str]] = {}
    for row in asked:
        by_condition.setdefault((row.prompt, row.format, row.arm), set()).add(row.model)
    common = [key for key, found in by_condition.items() if found == models]
    if not common:
        return None

    def order(key: tuple[str, str, str]) -> tuple[object, ...]:
        prompt, form, arm = key
        return (
            prompt != USUAL_PROMPT,
            prompt,
            _KNOWLEDGE_ARMS.index(arm),
            list(FORMATS).index(form) if form in FORMATS else len(FORMATS),
        )

    return Lead(*min(common, key=order))


def leads_of(rows: Sequence[ScoreRow]) -> dict[str, Lead]:
    """The condition that stands for each language that has one."""
    languages = dict.fromkeys(row.language for row in rows)
    found = {language: lead_of(rows, language) for language in languages}
    return {language: lead for language, lead in found.items() if lead is not None}


def _language(report: Report, language: str) -> LanguageOverview | None:
    lead = lead_of(report.rows, language)
    if lead is None:
        return None
    lines = [_line(report, language, lead, model) for model in report.models]
    known = sorted(
        (line for line in lines if line is not None),
        key=lambda line: (line.at_chance, -(line.knowledge.value or 0)),
    )
    headline, more = _verdict(report, language, lead, known)
    sentences = (*more, *(_form_sentence(line) for line in known if line.compliance))
    if known[0].robust is not None:
        sentences = (*sentences, *(_robust_sentence(line) for line in known if line.robust))
    return LanguageOverview(language, headline, sentences, tuple(known))


def _line(report: Report, language: str, lead: Lead, model: str) -> ModelLine | None:
    rows = [
        row
        for row in report.rows
        if (row.language, row.model, row.variant) == (language, model, ORIGINAL)
        and (row.prompt, row.format) == (lead.prompt, lead.format)
    ]
    knowledge = [row for row in rows if row.arm == lead.arm]
    if not knowledge:
        return None
    rate = _pooled([row.acc_lenient for row in knowledge])
    chance = _mean_chance(knowledge)
    free = [row for row in rows if row.arm == "free"]
    robust = [
        row
        for row in report.robustness
        if (row.language, row.model, row.prompt) == (language, model, lead.prompt)
        and (row.format, row.arm) == (lead.format, lead.arm)
    ]
    return ModelLine(
        model=model,
        how=f"{lead.format}/{lead.arm}",
        knowledge=rate,
        chance=chance,
        at_chance=is_at_chance(rate, chance),
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


def _mean_chance(rows: Sequence[ScoreRow]) -> float | None:
    counted = [(row.chance, row.n) for row in rows if row.chance is not None]
    total = sum(n for _, n in counted)
    return sum(chance * n for chance, n in counted) / total if total else None


@dataclass(frozen=True, slots=True)
class _Gain:
    """How far the best model is ahead of another on one data set."""

    dataset: str
    n: int
    delta: float | None
    low: float | None
    high: float | None
    num_different: int
    """Questions that exactly one of the two got right."""
    p: float | None
    verdict: str
    """On the best against the other: "better", "worse", "no difference shown"."""


def _verdict(
    report: Report, language: str, lead: Lead, lines: Sequence[ModelLine]
) -> tuple[str, list[str]]:
    """The headline, and what makes it sure or unsure."""
    name, best = wording.language(language), lines[0]
    model, rate = wording.clean(best.model), wording.full_rate(best.knowledge)
    chance = f"guessing gets {wording.percent(best.chance)}"
    if best.at_chance and len(lines) == 1:
        return f"{name}: {model} is not shown to know more than a guesser.", [
            f"It answers {rate} of the questions right; {chance}. Do not rely on its answers."
        ]
    if best.at_chance:
        return f"{name}: no model is shown to know more than a guesser.", [
            f"The best, {model}, answers {rate} of the questions right; {chance}."
            " Do not rely on their answers."
        ]
    above = f"{model} answers {rate} of the questions right; {chance}."
    if len(lines) == 1:
        return f"{name}: {model} is better than guessing.", [above]
    gains = _gains(report, language, lead, best.model, lines[1].model)
    headline, sentence = _between_two(name, model, wording.clean(lines[1].model), gains)
    return headline, [above, sentence]


def _between_two(name: str, model: str, other: str, gains: Sequence[_Gain]) -> tuple[str, str]:
    if not gains:
        return (
            f"{name}: {model} has the highest accuracy.",
            f"It was not asked the same questions as {other}: nothing is shown about the two.",
        )
    told = "; ".join(_difference(gain, names_set=len(gains) > 1) for gain in gains)
    better, worse = (_sets(gains, verdict) for verdict in ("better", "worse"))
    if len(better) == len(gains):
        return f"{name}: use {model}.", f"It is better than {other}: {told}."
    against = f"{model} against {other}: {told}"
    if better and worse:
        headline = (
            f"{name}: {model} is shown to be better than {other} on {', '.join(better)},"
            f" and worse on {', '.join(worse)}."
        )
        return headline, f"{against}."
    if better or worse:
        ahead, behind = (model, other) if better else (other, model)
        sets = ", ".join(better or worse)
        return f"{name}: {ahead} is shown to be better than {behind} on {sets} only.", f"{against}."
    n = sum(gain.n for gain in gains)
    discordance = sum(gain.num_different for gain in gains) / n
    smallest = smallest_detectable_difference(n, discordance or ASSUMED_DISCORDANCE)
    could = (
        "too few questions to show any difference"
        if smallest is None
        else f"this many questions could show {100 * smallest:.1f} points or more"
    )
    return (
        f"{name}: no difference is shown between {model} and {other}.",
        f"{against}; {could}.",
    )


def _sets(gains: Sequence[_Gain], verdict: str) -> list[str]:
    """The data sets that have a verdict."""
    return [wording.clean(gain.dataset) for gain in gains if gain.verdict == verdict]


def _gains(report: Report, language: str, lead: Lead, best: str, other: str) -> list[_Gain]:
    """The best model against another under the lead condition, per data set."""
    for pair in report.pairs:
        if {pair.first, pair.second} == {best, other}:
            return [
                _gain(row, is_second=pair.second == best)
                for row in pair.comparison.rows
                if (row.language, row.format, row.arm) == (language, lead.format, lead.arm)
                and row.n
            ]
    return []


def _gain(row: ComparisonRow, *, is_second: bool) -> _Gain:
    delta, low, high = row.delta, row.low, row.high
    if not is_second:
        delta = None if delta is None else -delta
        low, high = (None if high is None else -high), (None if low is None else -low)
    turned = {"better": "worse", "worse": "better"}
    verdict = row.verdict if is_second else turned.get(row.verdict, row.verdict)
    return _Gain(row.dataset, row.n, delta, low, high, row.b + row.c, row.p_holm, verdict)


def _difference(gain: _Gain, *, names_set: bool) -> str:
    where = f" on {wording.clean(gain.dataset)}" if names_set else ""
    p = "" if gain.p is None else f", p {wording.p_value(gain.p)}"
    interval = wording.points_interval(gain.low, gain.high)
    return f"{wording.points(gain.delta)} points{where} ({interval}, n = {gain.n:,}{p})"


def _form_sentence(line: ModelLine) -> str:
    """Whether a program could read the answers."""
    assert line.compliance is not None
    model, strict = wording.clean(line.model), line.compliance
    if strict.value == 1 or (strict.low or 0) > 0.95:
        verdict = "can be parsed"
    elif strict.value == 0 or (strict.high or 1) < 0.05:
        verdict = "cannot be parsed as they are"
    else:
        verdict = "can be parsed in part"
    readable = (
        ""
        if line.readable is None
        else (f"; an option can be read from {wording.percent(line.readable.value)}")
    )
    return (
        f"{model}'s free answers {verdict}: {wording.full_rate(strict)} are exactly in the form"
        f" {wording.clean(line.form)}{readable}."
    )


def _robust_sentence(line: ModelLine) -> str:
    assert line.robust is not None
    return (
        f"{wording.clean(line.model)} answers {wording.full_rate(line.robust)} of the questions right"
        f" in all of up to {line.num_variants} variants of them."
    )


assert set(_KNOWLEDGE_ARMS) == set(ARMS)
