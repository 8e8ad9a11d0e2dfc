"""The first screen in plain words: which model in which language, how sure, and can its answers be read.

It chooses the figures that matter first and says them, each with its n and interval, claiming no more
than they show. What is known and what is said in the right form are kept apart: knowledge is read
where the form cannot cost answers (under the grammar, else from the labels' probabilities), the form
where the model is free. Everything else of a report stands behind it.
"""

from dataclasses import dataclass

from medlocal.evals.stats import Rate
from medlocal.report import wording
from medlocal.report.headline import told
from medlocal.report.leading import Lead, lead_of, leads_of
from medlocal.report.model_lines import ModelLine, rank
from medlocal.report.results import Report

__all__ = ["LanguageOverview", "Lead", "ModelLine", "lead_of", "leads_of", "overview"]


@dataclass(frozen=True, slots=True)
class LanguageOverview:
    """What to know first of one language."""

    language: str
    headline: str
    """One sentence: which model."""
    sentences: tuple[str, ...]
    """How sure that is, and whether its answers can be parsed."""
    lines: tuple[ModelLine, ...]
    """Every model with an answer that counts, best first; those that are not shown to be above chance
    come last."""


def overview(report: Report) -> tuple[LanguageOverview, ...]:
    """What to know first, language by language; nothing where nothing was answered."""
    languages = dict.fromkeys(row.language for row in report.rows)
    found = (_language(report, language) for language in languages)
    return tuple(part for part in found if part is not None)


def _language(report: Report, language: str) -> LanguageOverview | None:
    lead = lead_of(report.rows, language)
    if lead is None:
        return None
    ranking = rank(report, language, lead)
    headline, more = told(report, language, lead, ranking)
    formed = [_form_sentence(line) for line in ranking.lines if line.compliance is not None]
    robust = [_robust_sentence(line) for line in ranking.lines if line.robust is not None]
    return LanguageOverview(language, headline, (*more, *formed, *robust), ranking.lines)


def _form_sentence(line: ModelLine) -> str:
    """Whether a program could read the answers."""
    assert line.compliance is not None
    model, strict = wording.clean(line.model), line.compliance
    if not strict.n:
        return f"No free answer of {model} counts: nothing is known of its form."
    readable = (
        ""
        if line.readable is None
        else f"; an option can be read from {wording.rate_in_words(line.readable)}"
    )
    return (
        f"{model}'s free answers {_parsed(strict)}: {wording.full_rate(strict)} are exactly in the"
        f" form {wording.clean(line.form)}{readable}."
    )


def _parsed(strict: Rate) -> str:
    """What the interval of strict compliance shows, whatever the share itself."""
    assert strict.low is not None
    assert strict.high is not None
    if strict.low > 0.95:
        return "can be parsed"
    if strict.high < 0.05:
        return "cannot be parsed as they are"
    if strict.low > 0.5:
        return "can mostly be parsed"
    if strict.high < 0.5:
        return "mostly cannot be parsed as they are"
    if strict.low > 0.05 and strict.high < 0.95:
        return "can be parsed in part"
    return "are too few to tell whether they can be parsed"


def _robust_sentence(line: ModelLine) -> str:
    assert line.robust is not None
    return (
        f"{wording.clean(line.model)} answers {wording.full_rate(line.robust)} of the questions right"
        f" in all of up to {line.num_variants} variants of them."
    )
