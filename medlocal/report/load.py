"""From the store to a report: the graded answers of runs, scored. Needs no model and no data set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from medlocal.errors import UsageError
from medlocal.evals.answers import GRADER_VERSION, Outcome
from medlocal.evals.comparing import compare
from medlocal.evals.obedience import answer_splits
from medlocal.evals.position import position_bias
from medlocal.evals.robustness import robustness, variant_effects
from medlocal.evals.scoring import GradedAnswer, constraint_effects, score_rows
from medlocal.evals.spread import interactions, prompt_spreads
from medlocal.report.results import ModelPair, Report, RunFacts
from medlocal.store import Result, RunRow, Store

_HASH_LENGTH = 64
"""Of a SHA-256 in hexadecimal: that of the messages stands first in a job's `question`."""


def load_report(store: Store, *run_ids: str) -> Report:
    """The report of one or more runs as far as they are graded by this version of the grader.

    Args:
        store: the workspace's.
        run_ids: full ids. A job that several runs share counts once.

    Raises:
        UsageError: two runs asked one model in different ways, so that its answers cannot be pooled.
    """
    answers = _pooled(store, run_ids)
    rows = [store.run(run_id) for run_id in dict.fromkeys(run_ids)]
    return Report(
        runs=tuple(RunFacts(_run_values(store, row), row.engine) for row in rows),
        rows=tuple(score_rows(answers)),
        effects=tuple(constraint_effects(answers)),
        variants=tuple(variant_effects(answers)),
        robustness=tuple(robustness(answers)),
        positions=tuple(position_bias(answers)),
        splits=tuple(answer_splits(answers)),
        spreads=tuple(prompt_spreads(answers)),
        interactions=tuple(interactions(answers)),
        pairs=tuple(_pairs(answers, rows)),
    )


def _pooled(store: Store, run_ids: Sequence[str]) -> list[GradedAnswer]:
    by_key = {
        answer.key: answer
        for run_id in dict.fromkeys(run_ids)
        for answer in graded_answers(store, run_id)
    }
    seen: dict[tuple[object, ...], str] = {}
    for key, a in by_key.items():
        asked = (a.model, a.dataset, a.language, a.item_id, a.variant, a.prompt, a.format, a.arm)
        if seen.setdefault(asked, key) != key:
            raise UsageError(
                f"model {a.model!r} was asked {a.dataset}/{a.item_id} in two ways, by another"
                " file, build, mode or seed: its runs cannot be in one report",
                hint="report them apart, or compare them with `medlocal compare RUN_A RUN_B`",
            )
    return list(by_key.values())


def _run_values(store: Store, row: RunRow) -> dict[str, object]:
    counts = store.counts(row.id)
    run: dict[str, object] = {
        "id": row.id,
        "created": row.created,
        "state": row.state.value,
        "suite": row.spec.get("suite"),
        "model": ", ".join(_model_names(row)),
        "seed": row.spec.get("seed", 0),
        "jobs": counts.jobs,
        "done": counts.done,
        "reused": counts.reused,
        "errors": counts.errors,
        "grader": GRADER_VERSION,
    }
    if left_out := row.spec.get("left_out"):
        assert isinstance(left_out, list)
        run["sets left out"] = ", ".join(left_out)
    num_graded = sum(result.grade is not None for result in store.results(row.id, GRADER_VERSION))
    if missing := counts.done + counts.errors - num_graded:
        run["ungraded"] = missing
    return run


def _model_names(row: RunRow) -> list[str]:
    more = row.spec.get("more_models") or []
    assert isinstance(more, list)
    return [str(row.spec.get("model")), *map(str, more)]


def _pairs(answers: Iterable[GradedAnswer], rows: Sequence[RunRow]) -> Iterator[ModelPair]:
    """Every two models, the one that was run first being the first."""
    by_model: dict[str, list[GradedAnswer]] = {}
    for answer in answers:
        by_model.setdefault(answer.model, []).append(answer)
    for first, second in combinations(by_model, 2):
        comparison = compare(by_model[first], by_model[second], is_same_question)
        if comparison.num_pairs:
            yield ModelPair(first, second, comparison, template_notes(first, second, rows))


def is_same_question(first: GradedAnswer, second: GradedAnswer) -> bool:
    """Whether two models were asked the same words of the same variant."""
    return first.question == second.question


def template_notes(first: str, second: str, rows: Iterable[RunRow]) -> tuple[str, ...]:
    """What differs in how the same messages were sent to two models."""
    models = {str(model.get("id")): model for row in rows for model in row.models}
    if first not in models or second not in models:
        return ()
    if models[first].get("template") == models[second].get("template"):
        return ()
    return (
        "The chat templates of the two models differ: the same messages reached them as other text."
        " `medlocal show KEY` shows a prompt as it was sent.",
    )


def graded_answers(store: Store, run_id: str) -> Iterator[GradedAnswer]:
    """Every graded answer of a run, in the order of its jobs."""
    for result in store.results(run_id, GRADER_VERSION):
        if result.grade is not None:
            yield _graded(result)


def _graded(result: Result) -> GradedAnswer:
    job, grade, record = result
    assert grade is not None
    variant: Mapping[str, Any] = job.payload["variant"]  # type: ignore[assignment]
    return GradedAnswer(
        model=job.model,
        dataset=job.dataset,
        language=job.language,
        variant=job.variant,
        prompt=job.prompt,
        format=job.format,
        arm=job.arm,
        item_id=job.item_id,
        group_id=job.group_id,
        num_options=len(variant["options"]),
        gold_slot=variant["gold"],
        gold_content=variant["origin"][variant["gold"]],
        outcome=Outcome(grade.outcome),
        content=grade.content,
        correct=grade.correct,
        stats=record.stats if record else {},
        verified=variant["verified"],
        slot=grade.slot,
        meaning=_meaning(grade.slot, grade.content, variant),
        key=job.key,
        question=job.question,
        messages=job.question[:_HASH_LENGTH],
    )


def _meaning(slot: int | None, content: int | None, variant: Mapping[str, Any]) -> str | None:
    """The content chosen; an option that is none of the item's own is told by its words."""
    if slot is None or content is None:
        return None
    return f"+{variant['options'][slot]}" if content == -1 else str(content)
