"""Every single answer of a run as a row, and rows as CSV, JSON Lines or Parquet. Needs no model.

A row says what was asked, what came back, and what it was judged to be by this version of the grader.
Rows are read and written one after another: a run of any length takes little memory. No figure is
computed from several answers here.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from medlocal.errors import UsageError, unknown_name
from medlocal.evals.answers import GRADER_VERSION
from medlocal.evals.perturb import parse_variant
from medlocal.files import disk_errors, publish
from medlocal.report import wording
from medlocal.report.files import csv_cell
from medlocal.store import Record, Store, StoredGrade, StoredJob

Row = Mapping[str, object]
"""By column, in the order of `COLUMNS`; None = does not apply or is not known."""
FullResult = tuple[StoredJob, StoredGrade | None, Record | None]
"""A job with its messages, its grade by this version of the grader, and its whole record."""

COLUMNS: Mapping[str, str] = {
    "run": "text",
    "job": "text",
    "model": "text",
    "dataset": "text",
    "item_id": "text",
    "group_id": "text",
    "language": "text",
    "prompt_language": "text",
    "variant": "text",
    "verified": "truth",
    "family": "text",
    "prompt": "text",
    "format": "text",
    "arm": "text",
    "gold_label": "text",
    "gold_reply": "text",
    "answer_label": "text",
    "outcome": "text",
    "correct": "truth",
    "content": "whole",
    "slot": "whole",
    "reason": "text",
    "grader": "whole",
    "finish": "text",
    "error": "text",
    "output": "text",
    "num_prompt_tokens": "whole",
    "num_tokens": "whole",
    "logprob_sum": "real",
    "tax_nats": "real",
    "label_mass": "real",
    "scores": "text",
    "prompt_text": "text",
}
"""The columns in their order, with the kind of their values.

`language` is the item's, `prompt_language` that of the instruction. `gold_reply` is what must be
written to be right. `content` is the chosen option's place in the item (-1 = none of its own), `slot`
its place as shown; both count from 0. `logprob_sum` is the natural logarithm of the generated tokens'
probability. `scores` is a JSON object from label (or reply) to log-probability, `prompt_text` a JSON
list of the messages.
"""

_ROW_GROUP = 10_000
"""Rows that a Parquet file holds together; so many are in memory at once."""


def full_results(store: Store, run_id: str) -> Iterator[FullResult]:
    """Every job of a run with everything that the store has of it, in order."""
    yield from store.full_results(run_id, GRADER_VERSION)


def answer_rows(store: Store, run_ids: Iterable[str]) -> Iterator[dict[str, object]]:
    """The rows of some runs, run by run, in the order of their jobs.

    A job that was not answered or not graded yet is a row too, with None where nothing is known. A
    job that two of the runs share is a row of each.

    Args:
        store: the workspace's.
        run_ids: full ids.

    Raises:
        UsageError: there is no such run, or this version knows no variant of that name.
    """
    for run_id in run_ids:
        for job, grade, record in full_results(store, run_id):
            yield {
                "run": run_id,
                **_asked(job),
                **_judged(job, grade),
                **_answered(record),
                "prompt_text": messages_json(job.messages),
            }


def write_answers(path: Path, rows: Iterable[Row], kind: str) -> int:
    """Write rows to a file that appears once it is whole; an older one of that name is replaced.

    Args:
        path: the file.
        rows: as `answer_rows` gives them.
        kind: "csv" (RFC 4180, UTF-8 with a mark, by which Excel knows it; see `files.csv_cell`),
            "jsonl" (strict JSON: null for a number that is not finite), or "parquet".

    Returns:
        How many rows were written.

    Raises:
        UsageError: the kind is unknown, or no file can be at that path.
        MedlocalError: the disk is full or cannot be written.
    """
    if kind not in _WRITERS:
        raise unknown_name("kind of file", kind, _WRITERS)
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(
            f"{path}: {what}", hint="give the path of a file in a folder that is there"
        )
    with disk_errors(path.parent), publish(path) as stream:
        return _WRITERS[kind](stream, rows)


def messages_json(messages: Iterable[tuple[str, str]]) -> str:
    """A chat as a JSON list of {"role", "content"}."""
    turns = [{"role": role, "content": content} for role, content in messages]
    return json.dumps(turns, ensure_ascii=False)


def replies(variant: Mapping[str, Any]) -> list[str]:
    """Per slot of a stored variant, what must be written to name it."""
    return list(variant.get("replies") or variant["labels"])


def stored_variant(job: StoredJob) -> Mapping[str, Any]:
    """The variant in a job's payload, as JSON values."""
    variant: Mapping[str, Any] = job.payload["variant"]  # type: ignore[assignment]
    return variant


def _asked(job: StoredJob) -> dict[str, object]:
    variant = stored_variant(job)
    return {
        "job": job.key,
        "model": job.model,
        "dataset": job.dataset,
        "item_id": job.item_id,
        "group_id": job.group_id,
        "language": job.language,
        # Runs from before instructions had a language of their own do not say it.
        "prompt_language": variant.get("prompt_language") or job.language,
        "variant": job.variant,
        "verified": variant["verified"],
        "family": parse_variant(job.variant).family,
        "prompt": job.prompt,
        "format": job.format,
        "arm": job.arm,
        "gold_label": variant["labels"][variant["gold"]],
        "gold_reply": replies(variant)[variant["gold"]],
    }


def _judged(job: StoredJob, grade: StoredGrade | None) -> dict[str, object]:
    names = ("outcome", "correct", "content", "slot", "reason", "grader")
    if grade is None:
        return dict.fromkeys(("answer_label", *names))
    labels = stored_variant(job)["labels"]
    return {
        "answer_label": None if grade.slot is None else labels[grade.slot],
        **{name: getattr(grade, name) for name in names},
    }


def _answered(record: Record | None) -> dict[str, object]:
    if record is None:
        names = ("finish", "error", "output", "num_prompt_tokens", "num_tokens", "logprob_sum")
        return dict.fromkeys((*names, "tax_nats", "label_mass", "scores"))
    stats = record.stats
    scores = stats.get("scores")
    return {
        "finish": record.finish,
        "error": record.error,
        "output": record.text,
        "num_prompt_tokens": stats.get("num_prompt_tokens"),
        "num_tokens": len(record.token_ids),
        "logprob_sum": sum(record.logprobs) if record.logprobs else None,
        "tax_nats": stats.get("tax_nats"),
        "label_mass": stats.get("label_mass"),
        "scores": json.dumps(wording.plain(scores), ensure_ascii=False) if scores else None,
    }


def _write_csv(stream: IO[bytes], rows: Iterable[Row]) -> int:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    num_rows = 0
    try:
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([csv_cell(row[name]) for name in COLUMNS])
            num_rows += 1
        text.flush()
    finally:
        text.detach()  # the stream is closed by who opened it
    return num_rows


def _write_jsonl(stream: IO[bytes], rows: Iterable[Row]) -> int:
    num_rows = 0
    for row in rows:
        values = {name: wording.plain(row[name]) for name in COLUMNS}
        stream.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
        num_rows += 1
    return num_rows


def _write_parquet(stream: IO[bytes], rows: Iterable[Row]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"text": pa.string(), "truth": pa.bool_(), "whole": pa.int64(), "real": pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    num_rows, remaining = 0, iter(rows)
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while batch := list(islice(remaining, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
            num_rows += len(batch)
    return num_rows


_WRITERS: Mapping[str, Callable[[IO[bytes], Iterable[Row]], int]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
