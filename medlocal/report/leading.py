"""Which condition stands for a language where a report shows one: prompt, format and arm. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medlocal.evals.formats import ARMS, FORMATS
from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.prompts import USUAL_PROMPT
from medlocal.evals.scoring import ScoreRow

_KNOWLEDGE_ARMS = ("grammar", "label", "free", "cloze")
"""Arms by how well they tell knowledge from form."""


@dataclass(frozen=True, slots=True)
class Lead:
    """The condition that stands for a language where one must be chosen."""

    prompt: str
    format: str
    arm: str


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


assert set(_KNOWLEDGE_ARMS) == set(ARMS)
