"""What quantisation changed on the tasks: answers lost and gained against the reference, from the store.

The data sets of a language are put together here, unlike in the comparison of two models, because a
quantised file is to be judged by all that was asked. Only unperturbed questions count, each once per
form and arm, so that they are independent and McNemar's test holds. No model is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from medlocal.evals.comparing import ComparisonRow, compare
from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.scoring import GradedAnswer, ScoreRow, score_rows
from medlocal.evals.stats import Rate
from medlocal.report.load import graded_answers, is_same_question
from medlocal.report.overview import Lead, lead_of
from medlocal.store import Store

_ALL = "all"
"""Stands for the data sets that were put together."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One file against the reference: one language, form and arm, over all data sets."""

    name: str
    """Of the file."""
    comparison: ComparisonRow
    """`b` are the answers lost, right to wrong, `c` those gained; `p` is for this row alone."""


@dataclass(frozen=True, slots=True)
class ReferenceScore:
    """How the reference did in one language, form and arm."""

    language: str
    format: str
    arm: str
    accuracy: Rate
    chance: float | None
    """What guessing would get."""
    majority: float | None
    """What always choosing the most frequent gold label would get."""
    at_chance: bool
    """Not shown to be above chance: then answers are lost and gained by chance too."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Everything that the tasks showed."""

    suite: str
    run_id: str
    datasets: tuple[str, ...]
    reference: tuple[ReferenceScore, ...]
    rows: tuple[TaskRow, ...]
    leads: Mapping[str, Lead]
    """By language, the form and arm that stand for it: those that tell knowledge best."""

    def lead_row(self, name: str, language: str) -> ComparisonRow | None:
        """The row that stands for a file in a language; None where nothing was asked in it."""
        if (lead := self.leads.get(language)) is None:
            return None
        for row in self.rows:
            found = row.comparison
            if (row.name, found.language) == (name, language) and _is_of(found, lead):
                return found
        return None

    def lead_score(self, language: str) -> ReferenceScore | None:
        """How the reference did where `lead_row` is."""
        if (lead := self.leads.get(language)) is None:
            return None
        return next((s for s in self.reference if s.language == language and _is_of(s, lead)), None)


def read_tasks(store: Store, run_id: str, names: Mapping[str, str]) -> Tasks:
    """What a run of several files showed.

    Args:
        store: where the run is.
        run_id: its full id.
        names: what each file is called in the run, the reference first, and what it is called here.
    """
    first, *others = names
    found = list(graded_answers(store, run_id))
    answers = [_pooled(answer) for answer in found]
    by_name = {name: [a for a in answers if a.model == name] for name in names}
    scores = [row for row in score_rows(answers) if row.variant == ORIGINAL]
    languages = dict.fromkeys(row.language for row in scores)
    leads = {language: lead_of(scores, language) for language in languages}
    usual = {language: lead for language, lead in leads.items() if lead is not None}
    return Tasks(
        suite=str(store.run(run_id).spec.get("suite")),
        run_id=run_id,
        datasets=tuple(sorted({answer.dataset for answer in found})),
        reference=tuple(
            _score(row)
            for row in sorted(scores, key=lambda row: row.language)
            if row.model == first and _is_usual(row, usual)
        ),
        rows=tuple(
            TaskRow(names[name], row)
            for name in others
            for row in compare(by_name[first], by_name[name], is_same_question).rows
        ),
        leads=usual,
    )


def _is_usual(row: ScoreRow, leads: Mapping[str, Lead]) -> bool:
    return row.language in leads and row.prompt == leads[row.language].prompt


def _is_of(found: ComparisonRow | ReferenceScore, lead: Lead) -> bool:
    return (found.format, found.arm) == (lead.format, lead.arm)


def _pooled(answer: GradedAnswer) -> GradedAnswer:
    """The answer as one of all data sets; its item keeps the set's name, so that none are confused."""
    return replace(answer, dataset=_ALL, item_id=f"{answer.dataset}/{answer.item_id}")


def _score(row: ScoreRow) -> ReferenceScore:
    return ReferenceScore(
        language=row.language,
        format=row.format,
        arm=row.arm,
        accuracy=row.acc_lenient,
        chance=row.chance,
        majority=row.majority,
        at_chance=row.at_chance,
    )
