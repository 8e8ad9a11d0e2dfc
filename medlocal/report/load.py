"""From the store to a report: the graded answers of a run, scored. Needs no model and no data set."""

from collections.abc import Iterator, Mapping
from typing import Any

from medlocal.evals.answers import GRADER_VERSION, Outcome
from medlocal.evals.scoring import GradedAnswer, constraint_effects, score_rows
from medlocal.report.tables import Report, build_report
from medlocal.store import Result, Store


def load_report(store: Store, run_id: str) -> Report:
    """The report of a run as far as it is graded by this version of the grader.

    Args:
        store: the workspace's.
        run_id: the full id.
    """
    answers = list(graded_answers(store, run_id))
    row, counts = store.run(run_id), store.counts(run_id)
    run: dict[str, object] = {
        "id": row.id,
        "created": row.created,
        "state": row.state.value,
        "suite": row.spec.get("suite"),
        "model": row.spec.get("model"),
        "jobs": counts.jobs,
        "done": counts.done,
        "reused": counts.reused,
        "errors": counts.errors,
        "grader": GRADER_VERSION,
    }
    if left_out := row.spec.get("left_out"):
        assert isinstance(left_out, list)
        run["sets left out"] = ", ".join(left_out)
    if missing := counts.done + counts.errors - len(answers):
        run["ungraded"] = missing
    return build_report(run, score_rows(answers), constraint_effects(answers), row.engine)


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
    )
