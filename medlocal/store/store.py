"""The store itself: what can be asked of it and written into it.

Every write is one transaction; `put` is one per finished batch, so that a process killed at any
moment loses the batch in flight and nothing else. Reads are done in pages, with no statement left
open between them: a reader never holds up a writer, and whoever iterates may write meanwhile.
One `Store` belongs to one thread.

An answer is never changed. A record whose `finish` is "error" is not an answer: it is kept, so that a
report can count it, and gives way to the next record of its job; what it said moves to an event of
kind "error_replaced". `pending(run, retry_errors=True)` is therefore what a resumed run has to do.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from medlocal.errors import UsageError, unknown_name
from medlocal.store import lock, rows
from medlocal.store.opening import explained, open_database, transaction
from medlocal.store.types import (
    FINISH_ERROR,
    Counts,
    Event,
    PutCounts,
    Record,
    Result,
    RunRow,
    RunState,
    StoredGrade,
    StoredJob,
)

_PAGE = 500
"""Rows per read of an iterator."""

_RUN_COLUMNS = "id, created, finished, state, spec, model, engine, error"
# The greatest code point sorts after whatever continues a prefix; LIKE would read _ and % as wildcards.
_PREFIX = "BETWEEN ? AND ? || char(0x10FFFF)"


class Store:
    """The run store of one workspace.

    Use it as a context manager, or `close` it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the store, creating it where there is none.

        Raises:
            RefusedError: the file is not a store that this version can use.
            MedlocalError: the file cannot be reached or written.
        """
        self.path = Path(path).absolute()
        """The SQLite file; its folder also holds `locks/`."""
        self._database = open_database(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was written is safe without it."""
        with explained(self.path):
            self._database.close()

    # Runs

    def create_run(
        self, spec: Mapping[str, object], model: Mapping[str, object] | None = None
    ) -> str:
        """Add a planned run and return its id, `YYYYMMDD-HHMMSS-xxxx` in UTC.

        Args:
            spec: what was asked for, as JSON values.
            model: what is known of the model or models, as JSON values.
        """
        texts = (rows.json_object(spec), rows.json_object(model or {}))
        with self._writing():
            while True:
                moment = rows.now()
                run_id = rows.new_run_id(moment)
                if not self._select("SELECT 1 FROM runs WHERE id = ?", run_id):
                    break
            self._database.execute(
                "INSERT INTO runs (id, created, state, spec, model, engine, error)"
                " VALUES (?, ?, 'planned', ?, ?, '{}', '')",
                (run_id, moment.isoformat(), *texts),
            )
        return run_id

    def set_state(self, run_id: str, state: str, error: str = "") -> None:
        """Say how far a run is.

        Args:
            run_id: the full id.
            state: one of `RunState`; a final one notes the time, another one clears it.
            error: why it failed.
        """
        new = RunState(state)
        finished = rows.now().isoformat() if new.is_final else None
        self._update_run(run_id, "state = ?, finished = ?, error = ?", new.value, finished, error)

    def set_engine(self, run_id: str, facts: Mapping[str, object]) -> None:
        """Keep what the engine really used and measured, in place of what was kept before."""
        self._update_run(run_id, "engine = ?", rows.json_object(facts))

    def runs(self) -> list[RunRow]:
        """All runs, newest first."""
        found = self._select(f"SELECT {_RUN_COLUMNS} FROM runs ORDER BY number DESC")
        return [self._run_row(row) for row in found]

    def run(self, name: str) -> RunRow:
        """The run of that id, of that beginning of an id, or the newest one ("last").

        Raises:
            UsageError: no run is called so, or several begin so.
        """
        select = f"SELECT {_RUN_COLUMNS} FROM runs"
        if name == "last":
            found = self._select(f"{select} ORDER BY number DESC LIMIT 1")
        else:
            found = self._matching(select, "id", name)
        if not found:
            raise self._unknown_run(name)
        if len(found) > 1:
            raise _ambiguous("run", name, [row[0] for row in found])
        return self._run_row(found[0])

    def lock_run(self, run_id: str) -> AbstractContextManager[None]:
        """Be the one writer of a run while the block runs; the kernel unlocks when the process dies.

        Raises:
            UsageError: there is no such run.
            MedlocalError: another process holds it; the message names its id.
        """
        full_id = self.run(run_id).id
        return lock.hold(self._lock_path(full_id), full_id)

    # Jobs

    def add_jobs(self, run_id: str, jobs: Iterable[StoredJob]) -> int:
        """Append jobs to a run, in order, as one transaction.

        A job that the store has from an earlier run is reused with whatever is known of it; one
        that the run already has is skipped.

        Returns:
            How many jobs the run gained.

        Raises:
            UsageError: there is no such run, or a key stands for another prompt in the
                store.
        """
        self._require_run(run_id)
        with self._writing(run_id):
            (last,) = self._select("SELECT max(ordinal) FROM run_jobs WHERE run_id = ?", run_id)[0]
            ordinal = first = 0 if last is None else last + 1
            for job in jobs:
                self._add_job(job)
                added = self._database.execute(
                    "INSERT INTO run_jobs VALUES (?, ?, ?) ON CONFLICT (run_id, job_key) DO NOTHING",
                    (run_id, ordinal, job.key),
                )
                ordinal += added.rowcount
        return int(ordinal - first)

    def pending(self, run_id: str, *, retry_errors: bool = False) -> list[str]:
        """The keys of the run's jobs that are still to be asked, in order.

        Args:
            run_id: the full id.
            retry_errors: also those whose record says that the engine could not answer.
        """
        self._require_run(run_id)
        found = self._select(
            "SELECT run_jobs.job_key FROM run_jobs LEFT JOIN records USING (job_key)"
            " WHERE run_id = ? AND (finish IS NULL OR (? AND finish = ?)) ORDER BY ordinal",
            *(run_id, retry_errors, FINISH_ERROR),
        )
        return [key for (key,) in found]

    def answered(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose job has an answer, from any run; errors are none."""
        statement = "SELECT 1 FROM records WHERE job_key = ? AND finish != ?"
        return {key for key in keys if self._select(statement, key, FINISH_ERROR)}

    def counts(self, run_id: str) -> Counts:
        """How far the jobs of a run are."""
        self._require_run(run_id)
        ((jobs, done, reused, errors),) = self._select(
            "SELECT count(*), total(finish != ?1), total(finish != ?1 AND made_by != ?2),"
            " total(finish = ?1) FROM run_jobs LEFT JOIN records USING (job_key) WHERE run_id = ?2",
            *(FINISH_ERROR, run_id),
        )
        return Counts(jobs=jobs, done=int(done), reused=int(reused), errors=int(errors))

    def jobs(self, run_id: str) -> Iterator[StoredJob]:
        """The jobs of a run with their messages, in order."""
        read_job = rows.job_reader()
        for row in self._pages(run_id, f"{rows.JOB_COLUMNS}, messages.json", rows.MESSAGES):
            yield read_job(row[:-1], row[-1])

    def job(self, name: str) -> StoredJob:
        """The job of that key, or of that beginning of a key.

        Raises:
            UsageError: no job has it, or several begin so.
        """
        found = self._matching(
            f"SELECT {rows.JOB_COLUMNS}, messages.json FROM jobs {rows.PAYLOADS} {rows.MESSAGES}",
            "key",
            name,
        )
        if not found:
            raise self._unknown_job(name)
        if len(found) > 1:
            raise _ambiguous("job", name, [row[0] for row in found])
        return rows.job_reader()(found[0][:-1], found[0][-1])

    # Records and grades

    def put(
        self, run_id: str, records: Iterable[Record], grades: Iterable[StoredGrade] = ()
    ) -> PutCounts:
        """Keep the results of a finished batch: all of them or, if that fails, none.

        A record whose job has an answer already is ignored, together with its grade; one whose job
        has an error record replaces it.

        Args:
            run_id: the run that asked, by its full id.
            records: results of jobs that the store has.
            grades: judgements on them, or on records that the store has.
        """
        counts = {"written": 0, "replaced": 0, "ignored": 0}
        ignored: set[str] = set()
        self._require_run(run_id)
        with self._writing(run_id):
            for record in records:
                done = self._put_record(run_id, record)
                counts[done] += 1
                if done == "ignored":
                    ignored.add(record.job_key)
            self._put_grades(grade for grade in grades if grade.job_key not in ignored)
        return PutCounts(**counts)

    def put_grades(self, grades: Iterable[StoredGrade]) -> int:
        """Keep judgements on records that the store has, in one transaction; return how many.

        A grade by the same version of the grader is replaced, one by another version stays.
        """
        with self._writing():
            return self._put_grades(grades)

    def record(self, key: str) -> Record | None:
        """The raw result of a job, by its full key; None while there is none."""
        found = self._select(f"SELECT {rows.RECORD_COLUMNS} FROM records WHERE job_key = ?", key)
        return rows.read_record(found[0]) if found else None

    def grade(self, key: str, grader: int) -> StoredGrade | None:
        """What one version of the grader said of a record; None where it did not judge it."""
        found = self._select(
            f"SELECT {rows.GRADE_COLUMNS} FROM grades WHERE job_key = ? AND grader = ?", key, grader
        )
        return rows.read_grade(found[0]) if found else None

    def latest_grades(self, run_id: str, grader: int) -> dict[str, StoredGrade]:
        """By job, the grade of the newest version of the grader up to `grader` that judged it."""
        found = self._select(
            f"SELECT {rows.GRADE_COLUMNS}, MAX(grader) FROM grades JOIN run_jobs USING (job_key)"
            " WHERE run_id = ? AND grader <= ? GROUP BY grades.job_key",
            *(run_id, grader),
        )
        grades = (rows.read_grade(row[:-1]) for row in found)
        return {grade.job_key: grade for grade in grades if grade is not None}

    def run_of(self, key: str) -> RunRow | None:
        """The run that answered a job, else the newest one that holds it; None where none does."""
        found = self._select(
            "SELECT run_id FROM run_jobs JOIN runs ON runs.id = run_id"
            " LEFT JOIN records ON records.job_key = run_jobs.job_key AND made_by = run_id"
            " WHERE run_jobs.job_key = ? ORDER BY made_by IS NULL, number DESC LIMIT 1",
            key,
        )
        return self.run(found[0][0]) if found else None

    def results(self, run_id: str, grader: int) -> Iterator[Result]:
        """Every job of a run, in order, with what one version of the grader said of it.

        Texts, tokens and messages are left out. A run that is being written may gain results
        while this goes on.
        """
        read_job = rows.job_reader()
        columns = f"{rows.JOB_COLUMNS}, {rows.GRADE_COLUMNS}, {rows.SUMMARY_COLUMNS}"
        joins = (
            "LEFT JOIN records ON records.job_key = jobs.key"
            " LEFT JOIN grades ON grades.job_key = jobs.key AND grader = ?"
        )
        for row in self._pages(run_id, columns, joins, grader):
            job, rest = row[: rows.NUM_JOB_COLUMNS], row[rows.NUM_JOB_COLUMNS :]
            yield Result(
                read_job(job, "[]"), rows.read_grade(rest[:7]), rows.read_summary(rest[7:])
            )

    # Events

    def full_results(
        self, run_id: str, grader: int
    ) -> Iterator[tuple[StoredJob, StoredGrade | None, Record | None]]:
        """Every job of a run with its messages, its grade by one grader and its whole record."""
        read_job = rows.job_reader()
        columns = f"{rows.JOB_COLUMNS}, {rows.GRADE_COLUMNS}, {rows.RECORD_COLUMNS}, messages.json"
        joins = (
            f"{rows.MESSAGES} LEFT JOIN records ON records.job_key = jobs.key"
            " LEFT JOIN grades ON grades.job_key = jobs.key AND grader = ?"
        )
        for row in self._pages(run_id, columns, joins, grader):
            job, rest = row[: rows.NUM_JOB_COLUMNS], row[rows.NUM_JOB_COLUMNS :]
            record = None if rest[7] is None else rows.read_record(rest[7:-1])
            yield read_job(job, row[-1]), rows.read_grade(rest[:7]), record

    def log_event(self, run_id: str, kind: str, data: Mapping[str, object] | None = None) -> None:
        """Keep that something happened in a run."""
        self._require_run(run_id)
        with self._writing(run_id):
            self._log_event(run_id, kind, data or {})

    def events(self, run_id: str, after: int = 0) -> list[Event]:
        """What happened in a run, in order, after the event with the given id."""
        found = self._select(
            f"SELECT {rows.EVENT_COLUMNS} FROM events WHERE run_id = ? AND id > ? ORDER BY id",
            *(run_id, after),
        )
        return [rows.read_event(row) for row in found]

    # Inside

    @contextmanager
    def _writing(self, run_id: str = "") -> Iterator[None]:
        with explained(self.path, run_id), transaction(self._database):
            yield

    def _select(self, statement: str, *values: object) -> list[rows.Row]:
        with explained(self.path), closing(self._database.execute(statement, values)) as cursor:
            return cursor.fetchall()

    def _matching(self, select: str, column: str, name: str) -> list[rows.Row]:
        """The row of that name, else those that begin so, four at most."""
        if exact := self._select(f"{select} WHERE {column} = ?", name):
            return exact
        if not name:
            return []
        return self._select(f"{select} WHERE {column} {_PREFIX} LIMIT 4", name, name)

    def _pages(self, run_id: str, columns: str, joins: str, *values: object) -> Iterator[rows.Row]:
        self._require_run(run_id)
        last = -1
        while True:
            page = self._select(
                f"SELECT run_jobs.ordinal, {columns} FROM run_jobs"
                f" JOIN jobs ON jobs.key = run_jobs.job_key {rows.PAYLOADS} {joins}"
                " WHERE run_jobs.run_id = ? AND run_jobs.ordinal > ?"
                f" ORDER BY run_jobs.ordinal LIMIT {_PAGE}",
                *(*values, run_id, last),
            )
            if not page:
                return
            last = page[-1][0]
            for row in page:
                yield row[1:]

    def _run_row(self, row: rows.Row) -> RunRow:
        run_id, created, finished, state, spec, model, engine, error = row
        crashed = state == RunState.RUNNING and self._has_crashed(run_id)
        return RunRow(
            id=run_id,
            created=created,
            finished=finished,
            state=RunState.INTERRUPTED if crashed else RunState(state),
            crashed=crashed,
            spec=json.loads(spec),
            model=json.loads(model),
            engine=json.loads(engine),
            error=error,
        )

    def _has_crashed(self, run_id: str) -> bool:
        if lock.is_held(self._lock_path(run_id)):
            return False
        # A writer that ended well in the meantime said so before it let the lock go.
        return bool(
            self._select("SELECT 1 FROM runs WHERE id = ? AND state = ?", run_id, RunState.RUNNING)
        )

    def _lock_path(self, run_id: str) -> Path:
        return self.path.parent / "locks" / f"{run_id}.lock"

    def _update_run(self, run_id: str, assignment: str, *values: object) -> None:
        with self._writing(run_id):
            done = self._database.execute(
                f"UPDATE runs SET {assignment} WHERE id = ?", (*values, run_id)
            )
        if not done.rowcount:
            raise self._unknown_run(run_id)

    def _require_run(self, run_id: str) -> None:
        if not self._select("SELECT 1 FROM runs WHERE id = ?", run_id):
            raise self._unknown_run(run_id)

    def _unknown_run(self, name: str) -> UsageError:
        newest = [
            row[0] for row in self._select("SELECT id FROM runs ORDER BY number DESC LIMIT 20")
        ]
        if not newest:
            return UsageError(f"{self.path} holds no run yet", hint="`medlocal run` makes one")
        return unknown_name("run", name, [*newest, "last"])

    def _unknown_job(self, name: str) -> UsageError:
        # A store holds tens of thousands of keys: those that sort next to the name are enough.
        near = self._select("SELECT key FROM jobs WHERE key < ? ORDER BY key DESC LIMIT 2", name)
        near += self._select("SELECT key FROM jobs WHERE key > ? ORDER BY key LIMIT 2", name)
        if not near:
            return UsageError(f"{self.path} holds no job yet", hint="`medlocal run` makes some")
        return unknown_name("job", name, [key for (key,) in near])

    def _add_job(self, job: StoredJob) -> None:
        contents = (rows.content_row(job.messages), rows.content_row(dict(job.payload)))
        self._database.executemany(
            "INSERT INTO contents VALUES (?, ?) ON CONFLICT DO NOTHING", contents
        )
        prompt_hash, payload_hash = (digest for digest, _ in contents)
        added = self._database.execute(
            "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            rows.job_row(job, prompt_hash, payload_hash),
        )
        if added.rowcount:
            return
        (known,) = self._select("SELECT prompt_hash, payload_hash FROM jobs WHERE key = ?", job.key)
        if known[0] != prompt_hash:
            # The stored answer was given to other words: using it would be a wrong result.
            raise UsageError(
                f"job {job.key} (item {job.item_id}) has another prompt than in an earlier run",
                hint="raise the version of the prompt or format that changed",
            )
        if known[1] != payload_hash:
            # What was asked is the same, what is known of the item is not: a corrected subject.
            self._database.execute(
                "UPDATE jobs SET payload_hash = ? WHERE key = ?", (payload_hash, job.key)
            )

    def _put_record(self, run_id: str, record: Record) -> str:
        known = self._select(
            "SELECT finish, error, made_by, created FROM records WHERE job_key = ?", record.job_key
        )
        if known and known[0][0] != FINISH_ERROR:
            return "ignored"
        if known:
            data = dict(zip(("error", "made_by", "created"), known[0][1:], strict=True))
            self._log_event(run_id, "error_replaced", {"job_key": record.job_key, **data})
            for table in ("grades", "records"):  # its grades are judgements on the error
                self._database.execute(f"DELETE FROM {table} WHERE job_key = ?", (record.job_key,))
        self._database.execute(
            "INSERT INTO records (job_key, made_by, created, finish, error, stats, text, token_ids,"
            " logprobs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (record.job_key, run_id, rows.now().isoformat(), *rows.record_row(record)),
        )
        return "replaced" if known else "written"

    def _put_grades(self, grades: Iterable[StoredGrade]) -> int:
        num_grades = 0
        for grade in grades:
            self._database.execute(
                "INSERT OR REPLACE INTO grades VALUES (?, ?, ?, ?, ?, ?, ?)", rows.grade_row(grade)
            )
            num_grades += 1
        return num_grades

    def _log_event(self, run_id: str, kind: str, data: Mapping[str, object]) -> None:
        self._database.execute(
            "INSERT INTO events (run_id, time, kind, data) VALUES (?, ?, ?, ?)",
            (run_id, rows.now().isoformat(), kind, rows.json_object(data)),
        )


def _ambiguous(kind: str, name: str, found: list[str]) -> UsageError:
    listed = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
    return UsageError(f"several {kind}s begin with {name!r}: {listed}", hint="write more of it")
