"""Opening the store's file, and turning SQLite's failures into errors that say what to do.

Here are the schema, the checks that a file is a store of this version, and the settings that make it
crash-safe. What is written into the tables is not known here.

Tables are not STRICT: that needs SQLite 3.37, and enterprise distributions still ship 3.34.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medlocal.errors import MedlocalError, RefusedError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6D656477
"""Marks the file as ours in its header ("medw"), so that another program's database is not written to."""
BUSY_SECONDS = 30.0
"""How long a statement waits for another process's transaction."""

# WITHOUT ROWID is for the tables of short rows only, as SQLite's documentation advises.
# `contents` has messages and payloads by their hash, because the jobs of a question share them.
# In `records` the small columns come first: SQLite follows a long row's overflow pages only as far as
# it must, and a report reads no text and no token arrays.
_SCHEMA = (
    """CREATE TABLE runs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL,
        finished TEXT,
        state TEXT NOT NULL CHECK (state IN ('planned', 'running', 'done', 'interrupted', 'failed')),
        spec TEXT NOT NULL,
        model TEXT NOT NULL,
        engine TEXT NOT NULL,
        error TEXT NOT NULL)""",
    """CREATE TABLE contents (
        hash TEXT NOT NULL PRIMARY KEY,
        json TEXT NOT NULL)""",
    """CREATE TABLE jobs (
        key TEXT NOT NULL PRIMARY KEY,
        model TEXT NOT NULL,
        dataset TEXT NOT NULL,
        item_id TEXT NOT NULL,
        group_id TEXT NOT NULL,
        language TEXT NOT NULL,
        variant TEXT NOT NULL,
        prompt TEXT NOT NULL,
        format TEXT NOT NULL,
        arm TEXT NOT NULL,
        prompt_hash TEXT NOT NULL REFERENCES contents (hash),
        payload_hash TEXT NOT NULL REFERENCES contents (hash))""",
    """CREATE TABLE run_jobs (
        run_id TEXT NOT NULL REFERENCES runs (id),
        ordinal INTEGER NOT NULL,
        job_key TEXT NOT NULL REFERENCES jobs (key),
        PRIMARY KEY (run_id, ordinal),
        UNIQUE (run_id, job_key)) WITHOUT ROWID""",
    """CREATE TABLE records (
        job_key TEXT NOT NULL PRIMARY KEY REFERENCES jobs (key),
        made_by TEXT NOT NULL REFERENCES runs (id),
        created TEXT NOT NULL,
        finish TEXT NOT NULL,
        error TEXT NOT NULL,
        stats TEXT NOT NULL,
        text TEXT NOT NULL,
        token_ids BLOB NOT NULL,
        logprobs BLOB NOT NULL)""",
    """CREATE TABLE grades (
        job_key TEXT NOT NULL REFERENCES records (job_key),
        grader INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        slot INTEGER,
        content INTEGER,
        correct INTEGER NOT NULL CHECK (correct IN (0, 1)),
        reason TEXT NOT NULL,
        PRIMARY KEY (job_key, grader)) WITHOUT ROWID""",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL REFERENCES runs (id),
        time TEXT NOT NULL,
        kind TEXT NOT NULL,
        data TEXT NOT NULL)""",
    "CREATE INDEX events_by_run ON events (run_id, id)",
)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the store's file, creating it where there is none.

    The connection is in autocommit: whoever writes begins and commits its own transactions.

    Raises:
        RefusedError: the file is no SQLite database, is damaged, belongs to another program, or was
            written by a newer medlocal.
        MedlocalError: the file cannot be reached or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedlocalError(
            f"the folder {path.parent} cannot be made: {error.strerror}",
            hint="set MEDLOCAL_HOME to a folder that you may write to",
        ) from error
    with explained(path), _one_at_a_time(path.parent):
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            _prepare(database, path)
        except BaseException:
            database.close()
            raise
    return database


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    # Switching a new file to write-ahead logging fails at once where another process looks at it:
    # SQLite's busy timeout does not cover it. Opening takes milliseconds, so openers queue.
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    version = _checked_version(database, path)
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise MedlocalError(
            f"{path}: the file system does not allow write-ahead logging (SQLite chose {mode!r})",
            hint="set MEDLOCAL_HOME to a folder on a local disk",
        )
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    if version < SCHEMA_VERSION:
        with transaction(database):
            _create(database)


def _checked_version(database: sqlite3.Connection, path: Path) -> int:
    # One read transaction: a store that another process is creating at this moment is seen either
    # empty or complete.
    with transaction(database, "BEGIN"):
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (num_objects,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (num_objects or application or version):
        raise RefusedError(
            f"{path} is a SQLite database, but not a run store of medlocal",
            hint="move it away, or set MEDLOCAL_HOME to another folder",
        )
    if version > SCHEMA_VERSION:
        raise RefusedError(
            f"{path} was written by a newer medlocal (schema {version}; this one knows {SCHEMA_VERSION})",
            hint="upgrade medlocal, or set MEDLOCAL_HOME to another folder",
        )
    return int(version)


def _create(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return  # another process created it while this one waited for the write lock
    for statement in _SCHEMA:
        database.execute(statement)
    # Both live in the file's header and are part of the transaction.
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def transaction(database: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Commit what the block does as a whole, or leave the file as it was.

    A writer takes the write lock at the start, where SQLite can wait for it; upgrading a read lock
    later fails at once when somebody else has written in between.
    """
    database.execute(begin)
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # SQLite rolls back by itself when the disk is full. A rollback that fails too changes
        # nothing: without a commit frame the next reader ignores what was written.
        if database.in_transaction:
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
        raise


@contextmanager
def explained(path: Path, run_id: str = "") -> Iterator[None]:
    """Turn SQLite's errors inside the block into medlocal's.

    Args:
        path: the store's file.
        run_id: the run being worked on, for the hint; empty where there is none.
    """
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # a mistake in this package, which no hint can mend
    except sqlite3.Error as error:
        raise explain(error, path, run_id) from error


def explain(error: sqlite3.Error, path: Path, run_id: str = "") -> MedlocalError:
    """Build the error that a user can act on from SQLite's result code."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = (code or 0) & 0xFF  # the upper bits only refine it
    again = f"`medlocal run --resume {run_id}`" if run_id else "the same command again"
    kept = "the batch in flight was rolled back, everything before it is kept"
    folder = path.parent
    match primary:
        case sqlite3.SQLITE_FULL:
            hint = f"free space on {folder}{_free_space(folder)}, then {again}"
            return MedlocalError(f"no space is left for {path}: {kept}", hint=hint)
        case sqlite3.SQLITE_IOERR:
            hint = (
                f"check the disk and the free space on {folder}{_free_space(folder)}, then {again}"
            )
            return MedlocalError(f"reading or writing {path} failed ({error}): {kept}", hint=hint)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            hint = f"let the other process finish or stop it, then {again}"
            return MedlocalError(f"another process keeps {path} locked: {kept}", hint=hint)
        case sqlite3.SQLITE_NOTADB:
            hint = "move it away, or set MEDLOCAL_HOME to another folder"
            return RefusedError(f"{path} is not a SQLite database", hint=hint)
        case sqlite3.SQLITE_CORRUPT:
            hint = "restore a copy, or save what can be read with `sqlite3 FILE .recover`"
            return RefusedError(f"{path} is damaged ({error})", hint=hint)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            hint = f"check that you may write in {folder}, then {again}"
            return MedlocalError(f"{path} cannot be opened for writing ({error})", hint=hint)
        case _:
            return MedlocalError(f"the run store {path} refused to work: {error}")


def _free_space(folder: Path) -> str:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return ""
    return f" ({disk.f_bavail * disk.f_frsize / 2**20:,.0f} MiB left)"
