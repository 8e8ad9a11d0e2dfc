"""Between the store's values and SQLite's columns: JSON, packed arrays, times. Pure."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from medlocal.store.types import Event, Record, RecordSummary, StoredGrade, StoredJob

JOB_COLUMNS = (
    "jobs.key, jobs.model, jobs.dataset, jobs.item_id, jobs.group_id, jobs.language, "
    "jobs.variant, jobs.prompt, jobs.format, jobs.arm, payloads.json, "
    "jobs.prompt_hash || jobs.payload_hash"
)
NUM_JOB_COLUMNS = 12
PAYLOADS = "JOIN contents AS payloads ON payloads.hash = jobs.payload_hash"
"""The join that `JOB_COLUMNS` needs."""
MESSAGES = "JOIN contents AS messages ON messages.hash = jobs.prompt_hash"
"""The join that the column messages.json needs."""
RECORD_COLUMNS = "records.job_key, text, finish, token_ids, logprobs, error, stats"
GRADE_COLUMNS = "grades.job_key, grader, outcome, slot, content, correct, reason"
SUMMARY_COLUMNS = (
    "records.job_key, made_by, records.created, finish, error, length(token_ids) / 4, stats"
)
EVENT_COLUMNS = "id, run_id, time, kind, data"

_NUM_PARSED = 64
"""Payloads that a reader remembers; jobs of one question stand close together in a run."""

Row = tuple[Any, ...]
"""One row as sqlite3 gives it; the columns' types are the schema's business."""


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def new_run_id(moment: datetime) -> str:
    """`YYYYMMDD-HHMMSS-xxxx`, the last part being 65,536ths of the second: names sort by time."""
    return f"{moment:%Y%m%d-%H%M%S}-{moment.microsecond * 0x10000 // 1_000_000:04x}"


def to_json(value: object) -> str:
    """Compact JSON. Not-a-number and infinities are written as Python's json writes and reads them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_object(value: Mapping[str, object]) -> str:
    """Compact JSON of a mapping of any kind."""
    return to_json(dict(value))


def content_row(value: object) -> tuple[str, str]:
    """(hash, JSON) of messages or of a payload; the order of a mapping's keys makes no difference."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest(), text


def job_row(job: StoredJob, prompt_hash: str, payload_hash: str) -> Row:
    """The columns of `jobs`, in order."""
    names = (job.key, job.model, job.dataset, job.item_id, job.group_id, job.language)
    return (*names, job.variant, job.prompt, job.format, job.arm, prompt_hash, payload_hash)


def job_reader() -> Callable[[Row, str], StoredJob]:
    """Make a function from `JOB_COLUMNS` and the JSON of the messages to a job.

    It parses a payload once for the jobs in a row that share it, and they get the same object.
    """
    read_payload = lru_cache(_NUM_PARSED)(json.loads)

    def read_job(row: Row, messages: str) -> StoredJob:
        read_messages = tuple((role, content) for role, content in json.loads(messages))
        values = (*row[:10], read_payload(row[10]), read_messages, row[11])
        return StoredJob(*values)

    return read_job


def record_row(record: Record) -> Row:
    """Finish, error, stats, text, token ids and log-probabilities, as `records` orders them."""
    num_tokens, num_logprobs = len(record.token_ids), len(record.logprobs)
    return (
        record.finish,
        record.error,
        json_object(record.stats),
        record.text,
        struct.pack(f"<{num_tokens}i", *record.token_ids),
        struct.pack(f"<{num_logprobs}f", *record.logprobs),
    )


def read_record(row: Row) -> Record:
    """A record from `RECORD_COLUMNS`."""
    key, text, finish, token_ids, logprobs, error, stats = row
    return Record(
        job_key=key,
        text=text,
        finish=finish,
        token_ids=struct.unpack(f"<{len(token_ids) // 4}i", token_ids),
        logprobs=struct.unpack(f"<{len(logprobs) // 4}f", logprobs),
        error=error,
        stats=json.loads(stats),
    )


def read_summary(row: Row) -> RecordSummary | None:
    """A record's summary from `SUMMARY_COLUMNS`; None where the join found no record."""
    if row[0] is None:
        return None
    values = (*row[:6], json.loads(row[6]))
    return RecordSummary(*values)


def grade_row(grade: StoredGrade) -> Row:
    """The columns of `grades`, in order."""
    verdict = (grade.slot, grade.content, int(grade.correct), grade.reason)
    return (grade.job_key, grade.grader, grade.outcome, *verdict)


def read_grade(row: Row) -> StoredGrade | None:
    """A grade from `GRADE_COLUMNS`; None where the join found no grade."""
    if row[0] is None:
        return None
    key, grader, outcome, slot, content, correct, reason = row
    return StoredGrade(key, grader, outcome, slot, content, bool(correct), reason)


def read_event(row: Row) -> Event:
    """An event from `EVENT_COLUMNS`."""
    values = (*row[:4], json.loads(row[4]))
    return Event(*values)
