"""From a stored record to a grade, with nothing but the store: no model, no data set.

A job's payload holds what was asked, so that a better grader can judge old answers again. This
module does not know how an answer was obtained beyond the arm's name.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from medlocal.evals.answers import GRADER_VERSION, Answer, Grade, grade_output, grade_scores
from medlocal.evals.formats import FORMATS, SCORED_ARMS
from medlocal.evals.items import Item
from medlocal.evals.plan import Job
from medlocal.evals.variant import Variant
from medlocal.store import FINISH_ERROR, Record, Store, StoredGrade, StoredJob

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Change:
    """One answer that a new grading judged otherwise."""

    job: StoredJob
    before: StoredGrade
    """By the newest earlier version of the grader, or by this version when it was judged last."""
    now: StoredGrade


@dataclass(frozen=True, slots=True)
class Regraded:
    """What a new grading changed."""

    num_records: int
    num_new: int
    """Records that had no grade at all."""
    graders: tuple[int, ...]
    """Versions of the grader that the earlier grades were by, ascending."""
    num_right_before: int
    """Of the records that had a grade."""
    num_right_now: int
    """Of the same records."""
    changes: tuple[Change, ...]
    """Those whose outcome or option changed."""


def to_stored(job: Job, model: str) -> StoredJob:
    """A planned job as the store keeps it."""
    item, variant = job.variant.item, job.variant
    return StoredJob(
        key=job.key,
        model=model,
        dataset=item.dataset,
        item_id=item.id,
        group_id=item.group,
        language=item.language,
        variant=variant.name,
        prompt=job.prompt.style,
        format=job.format,
        arm=job.arm,
        payload=_payload(variant, job.examples),
        messages=tuple((message.role, message.content) for message in job.messages),
    )


def _payload(variant: Variant, examples: tuple[str, ...]) -> dict[str, object]:
    values = asdict(variant)
    # The rationale is never asked nor graded.
    values["item"].pop("rationale")
    return {"variant": values, "examples": list(examples)}


def variant_of(job: StoredJob) -> Variant:
    """What a stored job asked."""
    values: dict[str, Any] = dict(job.payload["variant"])  # type: ignore[call-overload]
    item = Item(**_tuples(values.pop("item")))
    # Before variants had two steps, a version was one number.
    return Variant(item=item, **_tuples({**values, "version": str(values["version"])}))


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def grade(job: StoredJob, record: Record) -> StoredGrade:
    """Judge a record by this version of the grader."""
    judged = _judge(job, record)
    return StoredGrade(
        job_key=job.key,
        grader=judged.grader,
        outcome=judged.outcome.value,
        slot=judged.slot,
        content=judged.content,
        correct=judged.correct,
        reason=judged.reason,
    )


def _judge(job: StoredJob, record: Record) -> Grade:
    variant = variant_of(job)
    if job.arm in SCORED_ARMS:
        scores = record.stats.get("scores") or {}
        assert isinstance(scores, Mapping)
        names = score_names(variant, job.arm)
        by_slot = {names.index(label): float(score) for label, score in scores.items()}
        failed = record.finish == FINISH_ERROR
        return grade_scores({} if failed else by_slot, variant)
    answer = Answer(
        text=record.text,
        finish=record.finish,
        arm=job.arm,
        constraint_applied=bool(record.stats.get("constraint_applied", False)),
        error=record.error,
    )
    return grade_output(answer, variant, FORMATS[job.format], variant.prompt_language)


def score_names(variant: Variant, arm: str) -> tuple[str, ...]:
    """Per slot, under which name a score is kept: what is to be written, or the option's label."""
    if arm == "label":
        return variant.replies
    # Bullets are all the same, and options may have the same words.
    return variant.labels if variant.has_labels else tuple(map(str, range(len(variant.labels))))


def regrade(store: Store, run_id: str) -> Regraded:
    """Judge all records of a run again and keep the grades; records are never touched.

    Grades of earlier versions of the grader stay beside the new ones.
    """
    before = store.latest_grades(run_id, GRADER_VERSION)
    changes: list[Change] = []
    num_records = num_before = num_now = 0
    batch: list[StoredGrade] = []
    for job, record in _answered(store, run_id):
        new, old = grade(job, record), before.get(job.key)
        num_records += 1
        if old is not None:
            num_before += old.correct
            num_now += new.correct
            if (old.outcome, old.slot) != (new.outcome, new.slot):
                changes.append(Change(job, old, new))
        batch.append(new)
        if len(batch) >= _BATCH:
            store.put_grades(batch)
            batch = []
    store.put_grades(batch)
    store.log_event(run_id, "regraded", {"grader": GRADER_VERSION, "changed": len(changes)})
    graders = tuple(sorted({old.grader for old in before.values()}))
    num_new = num_records - len(before)
    return Regraded(num_records, num_new, graders, num_before, num_now, tuple(changes))


def _answered(store: Store, run_id: str) -> Iterator[tuple[StoredJob, Record]]:
    for job in store.jobs(run_id):
        if record := store.record(job.key):
            yield job, record


def normalised(score: float, text: str) -> float:
    """A cloze score per character of the option.

    Per character and not per token: vocabularies cut the same words into different numbers of
    tokens, and options are compared across models.
    """
    return score / len(text) if text and math.isfinite(score) else score
