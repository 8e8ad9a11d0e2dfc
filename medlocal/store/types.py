"""What the store keeps and hands out: plain frozen values, without any SQL.

A job and its record carry everything that is needed to grade an answer again and to audit it. This
module knows neither SQLite nor what a format, an arm or an outcome means: those are names here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

FINISH_ERROR = "error"
"""The `finish` of a record whose job the engine could not answer; the only kind that may be replaced."""


class RunState(StrEnum):
    """How far a run is."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """True where nobody works on the run any more."""
        return self in {RunState.DONE, RunState.INTERRUPTED, RunState.FAILED}


@dataclass(frozen=True, slots=True)
class StoredJob:
    """One thing to ask one model."""

    key: str
    """Hash of what determines the answer; equal keys are the same job, in any run."""
    model: str
    dataset: str
    item_id: str
    group_id: str
    """The source item, shared by parallel items."""
    language: str
    variant: str
    prompt: str
    format: str
    arm: str
    payload: Mapping[str, object]
    """JSON values that grading needs: the variant, the gold slot, the ids of the few-shot examples.
    Jobs that were read together may share the object: it is not to be changed."""
    messages: tuple[tuple[str, str], ...]
    """(role, content) in order; empty where the reader asked for jobs without them."""
    question: str = field(default="", compare=False)
    """Of a job that was read: equal where two models were asked the same words of the same variant."""


@dataclass(frozen=True, slots=True)
class Record:
    """The raw result of a job. Never changed once stored, unless it is an error."""

    job_key: str
    text: str
    finish: str
    """"stop" (end of generation), "length", "scored" (nothing was generated) or "error"."""
    token_ids: tuple[int, ...]
    """Generated tokens, stored as int32."""
    logprobs: tuple[float, ...]
    """Natural logarithms, one per token; stored as float32, so read back with 24 bits of precision."""
    error: str = ""
    """Why there is no answer; empty unless `finish` is "error"."""
    stats: Mapping[str, object] = field(default_factory=dict)
    """JSON values: token counts, mask tax, label scores. Not-a-number and infinities are kept."""


@dataclass(frozen=True, slots=True)
class StoredGrade:
    """What one version of the grader judged a record to be."""

    job_key: str
    grader: int
    outcome: str
    slot: int | None
    """The option chosen, as shown; None = none."""
    content: int | None
    """The option chosen, as an index into the item's own options; None = none, -1 = not one of them."""
    correct: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, without its jobs."""

    id: str
    created: str
    """UTC, ISO 8601."""
    finished: str | None
    """UTC, ISO 8601; None while the run is not over."""
    state: RunState
    """A run whose process is gone without saying goodbye is shown as interrupted."""
    crashed: bool
    """True where `state` was corrected: the file says running and no process holds the run's lock."""
    spec: Mapping[str, object]
    model: Mapping[str, object]
    engine: Mapping[str, object]
    error: str
    """Why the run failed; empty otherwise."""

    @property
    def models(self) -> tuple[Mapping[str, Any], ...]:
        """What is known of each model's file: one mapping per model, in the order asked."""
        several = self.model.get("models")
        return tuple(several) if isinstance(several, list) else (self.model,)

    def model_named(self, name: str) -> Mapping[str, Any]:
        """What is known of the model of that name; of the only one, whatever it is called."""
        found = self.models
        return next((model for model in found if model.get("id") == name), found[0])


@dataclass(frozen=True, slots=True)
class Counts:
    """How far the jobs of a run are. `done`, `errors` and `pending` add up to `jobs`."""

    jobs: int
    done: int
    """Jobs with an answer."""
    reused: int
    """Of `done`, those that another run had answered."""
    errors: int
    """Jobs whose record says that the engine could not answer; asked again on resume."""

    @property
    def pending(self) -> int:
        """Jobs that nobody has tried yet."""
        return self.jobs - self.done - self.errors


@dataclass(frozen=True, slots=True)
class PutCounts:
    """What became of the records of one batch."""

    written: int
    replaced: int
    """Error records that gave way to a new record."""
    ignored: int
    """Records whose job already had an answer; the stored one stays."""


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """A record without its text and its per-token arrays: what tables need."""

    job_key: str
    made_by: str
    """The run that asked."""
    created: str
    finish: str
    error: str
    num_tokens: int
    stats: Mapping[str, object]


class Result(NamedTuple):
    """One job of a run with what is known of it."""

    job: StoredJob
    """Its `messages` are empty."""
    grade: StoredGrade | None
    """None = not graded by this version of the grader, or not answered."""
    record: RecordSummary | None
    """None = not answered yet."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run and is worth keeping."""

    id: int
    """Grows with time over the whole store: a reader asks for what came after the last one seen."""
    run_id: str
    time: str
    kind: str
    data: Mapping[str, object]
