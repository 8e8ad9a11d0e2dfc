"""Which keys were met before, and where, for more of them than memory should hold."""

import sqlite3
from types import TracebackType
from typing import Self

from medlocal.errors import MedlocalError


class Seen:
    """A set of keys, each with the number of the row that it was first met in.

    It lies in a database that has no name and is gone when it is closed: SQLite keeps two megabytes
    of it in memory and the rest in a temporary file, where a `dict` would grow with the rows.
    """

    def __enter__(self) -> Self:
        with _explained():
            self._database = sqlite3.connect("", isolation_level=None)
            # Nothing of it is wanted after a crash.
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute(
                "CREATE TABLE seen (key BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID"
            )
            self._database.execute("BEGIN")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def add(self, key: str, number: int) -> int:
        """Note a key; returns the row that it was met in before, 0 = it is new.

        Raises:
            MedlocalError: the disk for temporary files is full or cannot be written.
        """
        blob = key.encode()
        with _explained():
            added = self._database.execute(
                "INSERT OR IGNORE INTO seen VALUES (?, ?)", (blob, number)
            )
            if added.rowcount:
                return 0
            found = self._database.execute("SELECT row FROM seen WHERE key = ?", (blob,))
            return int(found.fetchone()[0])


class _explained:  # noqa: N801 - used as the function that it stands for
    """Turn what SQLite says into our error; a class, because a generator costs more than an insert."""

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise MedlocalError(
                f"the ids met so far cannot be kept in a temporary file: {error}",
                hint="make room, or set TMPDIR to a folder on another disk",
            ) from error
