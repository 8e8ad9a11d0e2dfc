"""What is known of model files that were looked at in a hurry: questions, scores, comparisons, warnings.

Everything is read from the store's run, and shown for the questions that were asked in full: the
longest beginning of the balanced order in which every answer is there. Answers beyond it are kept and
not counted, since those that came first are the short ones. Rates are over all data sets of a language
together. Nothing is measured here; how it looks on a screen stands in `quick_screen`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from medlocal.evals.answers import GRADER_VERSION
from medlocal.evals.comparing import Comparison, compare
from medlocal.evals.scoring import GradedAnswer, ScoreRow, score_rows
from medlocal.report import wording
from medlocal.report.leading import leads_of
from medlocal.report.load import graded_answers, is_same_question
from medlocal.store import Store

_ALL_SETS = "all"
"""Stands for the data set where all of them are taken together."""
_FACTS = "quick"
"""Under which name a run keeps what was measured of a model: see `run.quick`."""
_BARE = (
    "no chat template: it is no chat model, or the template was lost when the file was made;"
    " it was not asked anything"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """How many questions of a language there are, and how many count."""

    planned: int
    counted: int
    """Answered in full, and none before them in the order is not."""


@dataclass(frozen=True, slots=True)
class QuickModel:
    """What is known of one model."""

    name: str
    facts: Mapping[str, Any]
    """Of the file and its speed: see `run.quick`."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """What the engine really used and did."""
    asked: Mapping[str, Asked] = field(default_factory=dict)
    """By language."""
    rows: tuple[ScoreRow, ...] = ()
    """Per language and arm, all data sets together."""
    by_dataset: tuple[ScoreRow, ...] = ()

    def row(self, language: str, arm: str) -> ScoreRow | None:
        """The scores of a language in an arm; None where it was not asked."""
        found = (row for row in self.rows if (row.language, row.arm) == (language, arm))
        return next(found, None)


@dataclass(frozen=True, slots=True)
class QuickReport:
    """Everything that the screen shows."""

    models: tuple[QuickModel, ...]
    comparisons: tuple[Comparison, ...] = ()
    """Of each other model with the one that they are held against, which is the first of each."""
    run_id: str = ""
    """Empty where nothing could be asked."""
    minutes: float = 0.0
    """That there were."""
    seconds: float = 0.0
    """That were taken."""
    datasets: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """Of the questions, in the order of their codes."""
        return tuple(sorted({language for model in self.models for language in model.asked}))

    @property
    def is_complete(self) -> bool:
        """True where every planned question counts."""
        asked = [found for model in self.models for found in model.asked.values()]
        return all(found.counted == found.planned for found in asked)


def read_models(
    store: Store, run_id: str
) -> tuple[tuple[QuickModel, ...], dict[str, list[GradedAnswer]]]:
    """The models of a run with their scores, and by model the answers that count."""
    asked, counted = _counted(store, run_id)
    engine = store.run(run_id).engine
    answers: dict[str, list[GradedAnswer]] = {name: [] for name in asked}
    for answer in graded_answers(store, run_id):
        if answer.key in counted:
            answers[answer.model].append(answer)
    models = []
    for name, found in asked.items():
        facts = engine if len(asked) == 1 else engine.get(name, {})
        assert isinstance(facts, Mapping)
        pooled = [
            replace(a, dataset=_ALL_SETS, item_id=f"{a.dataset}/{a.item_id}") for a in answers[name]
        ]
        models.append(
            QuickModel(
                name=name,
                facts=facts.get(_FACTS, {}),
                engine={key: value for key, value in facts.items() if key != _FACTS},
                asked=found,
                rows=tuple(score_rows(pooled)),
                by_dataset=tuple(score_rows(answers[name])),
            )
        )
    return tuple(models), answers


def compared(answers: Mapping[str, Sequence[GradedAnswer]], against: str) -> tuple[Comparison, ...]:
    """Every other model against one, on the questions that count for both."""
    return tuple(
        compare(answers[against], found, is_same_question)
        for name, found in answers.items()
        if name != against and found and answers[against]
    )


def _counted(store: Store, run_id: str) -> tuple[dict[str, dict[str, Asked]], set[str]]:
    """Per model and language how many questions there are and count, and the jobs that do."""
    items: dict[str, dict[tuple[str, str], list[tuple[str, str, bool]]]] = {}
    for job, _, record in store.results(run_id, GRADER_VERSION):
        item = items.setdefault(job.model, {}).setdefault((job.dataset, job.item_id), [])
        item.append((job.key, job.language, record is not None))
    asked: dict[str, dict[str, Asked]] = {}
    counted: set[str] = set()
    for model, found in items.items():
        planned: Counter[str] = Counter()
        complete: Counter[str] = Counter()
        is_whole = True
        for jobs in found.values():
            languages = {language for _, language, _ in jobs}
            planned.update(languages)
            is_whole = is_whole and all(is_there for _, _, is_there in jobs)
            if is_whole:
                complete.update(languages)
                counted.update(key for key, _, _ in jobs)
        asked[model] = {name: Asked(planned[name], complete[name]) for name in sorted(planned)}
    return asked, counted


def quick_json(report: QuickReport) -> Any:
    """Everything, as JSON values. Shares run from 0 to 1, rates are {"value", "low", "high", "n"}."""
    return wording.plain(
        {
            "run": report.run_id or None,
            "minutes": report.minutes,
            "seconds": round(report.seconds, 2),
            "complete": report.is_complete,
            "datasets": report.datasets,
            "models": [
                {
                    "name": model.name,
                    **{key: value for key, value in model.facts.items() if key != "gate_warnings"},
                    "self_test": model.engine.get("self_test"),
                    "engine": {k: v for k, v in model.engine.items() if k != "self_test"},
                    "warnings": list(warnings(model)),
                    "questions": {name: asdict(found) for name, found in model.asked.items()},
                    "rows": [asdict(row) for row in model.rows],
                    "by_dataset": [asdict(row) for row in model.by_dataset],
                }
                for model in report.models
            ],
            "comparisons": [asdict(comparison) for comparison in report.comparisons],
        }
    )


def warnings(model: QuickModel) -> Iterator[str]:
    """What a person should know of a model before using it, the gravest first."""
    file = model.facts.get("file", {})
    if not file.get("has_template", True):
        yield _BARE
    if unsure := [row for row in _knowledge(model) if row.at_chance]:
        names = wording.listed([wording.language(row.language) for row in unsure])
        levels = wording.listed([*dict.fromkeys(wording.percent(row.baseline) for row in unsure)])
        yield f"{names}: not shown to beat knowing nothing ({levels})"
    for row in model.rows:
        if row.excluded:
            yield (
                f"{wording.language(row.language)}, {row.arm}: {row.excluded:,} answers do not count:"
                " the engine failed or the mask did not act"
            )
    if model.engine.get("liveness") == "failed":
        yield "the masks do nothing: a forced text did not come out"
    yield from (f"no fast kernel: {why}" for why in file.get("slow", {}).values())
    yield from model.facts.get("gate_warnings", ())
    yield from model.engine.get("given_up", ())
    if (test := model.engine.get("self_test")) and model.engine.get("mode") == "exact":
        for what in ("together", "alone"):
            if test[what]["same_bits"] < test[what]["n"]:
                yield "asked in exact mode, and equal requests did not get equal answers"
                break


def _knowledge(model: QuickModel) -> list[ScoreRow]:
    """Per language the scores in the arm that tells knowledge best."""
    found = (model.row(name, lead.arm) for name, lead in leads_of(model.rows).items())
    return [row for row in found if row is not None]
