"""Files that are whole or not there: atomic publishing, checksums remembered, locks, a full disk.

Knows nothing of models, cards or the network. It stands apart from `hub` because whatever writes
a file that somebody will trust (weights, a receipt, a report) publishes it the same way.
"""

import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from medlocal.errors import MedlocalError

CHUNK = 1 << 20
"""Bytes read or written at a time: large enough to be quick, small enough for a bar that moves."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_WRITING = _FULL | {errno.EFBIG}
"""What only a write can fail with."""
_ROOM_HINT = "make room, or set MEDLOCAL_HOME to a folder on another disk, and do the same again"
_FORBIDDEN = "change the permissions, or name another place"
_HINTS = {
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "name a place that can be written to",
    errno.EFBIG: "neither the disk nor `ulimit -f` may forbid files of that size",
}

# A file changed twice within one tick of the file system's clock can keep its size and its time.
# As git does for its index, a file this young is hashed again rather than remembered.
_SETTLED_NS = 2_000_000_000


class Progress(Protocol):
    """Somebody who is told how far a long step has come. May be called from another thread."""

    def __call__(self, description: str, done: int, total: int | None) -> None:
        """Report `done` of `total` bytes; None = how many there will be is not known."""


def no_progress(description: str, done: int, total: int | None) -> None:
    """Report to nobody."""


@contextmanager
def publish(path: Path) -> Iterator[IO[bytes]]:
    """Open a `.part` beside `path` that becomes `path` once it is whole and on the disk.

    Where the block raises, nothing is published and the part is removed. A process that is killed
    leaves at most a `.part`: never half a file under the final name. Errors of the disk name the
    final file, whose name the user knows.
    """
    # Not tempfile: its files are readable by their owner only, and a replace keeps that.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, part):
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def _is_about(error: OSError, part: Path) -> bool:
    """Whether an error befell the part: one of a write names no file."""
    if error.filename is None:
        return error.errno in _WRITING
    return str(error.filename) == str(part)


def leftovers(path: Path) -> list[Path]:
    """The parts of a file that `publish` could not remove, its process having been killed.

    One that another process is just writing is among them.
    """
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.part"))


def leftover_notes(path: Path, act: str) -> list[str]:
    """What a user should know of each of the `leftovers`.

    Args:
        path: the final file.
        act: what makes such files, with its article: "a conversion".
    """
    return [
        f"{part} was left by {act} that was killed, or is being written by another one: where none"
        " runs, remove it"
        for part in leftovers(path)
    ]


def atomic_write(path: Path, content: bytes | str) -> None:
    """Publish `content` as the file `path`; text is written as UTF-8."""
    with publish(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, as fsync does for the bytes in a file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path, progress: Progress | None = None, cache: Path | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Args:
        path: the file.
        progress: told how many bytes were read; None = nobody is.
        cache: a JSON file that remembers checksums by path, size, times and inode, so that
            gigabytes are not read at every start; None = always read the file. A check of what
            lies on the disk must read it.
    """
    before = _signature(path)
    key = str(path.absolute())
    if cache is not None and (known := _remembered(cache).get(key)) and known[:-1] == before:
        return str(known[-1])
    digest = _read_sha256(path, progress or no_progress)
    if cache is not None and _signature(path) == before and _is_settled(before):
        # A cache that cannot be written, as in an installation that many share, costs time, never
        # an answer.
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            # Two processes may write at once; the later one wins, and what is lost is hashed again.
            atomic_write(cache, json.dumps(_remembered(cache) | {key: [*before, digest]}, indent=0))
    return digest


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`, which ends with the process however that ends.

    Args:
        path: the lock file. It stays: removing it would let two processes lock two files.
        waiting: called once where another process holds it, before waiting for that one.
    """
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_errors(where: Path, room_hint: str | None = None) -> Iterator[None]:
    """Turn what the operating system says of a disk into an error that a user can act on.

    Args:
        where: the file or folder that is named where the system names none.
        room_hint: what to do where the disk is full; None = move MEDLOCAL_HOME.

    Raises:
        MedlocalError: the disk is full, or a file could not be read or written.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, where, room_hint) from error


def disk_error(error: OSError, where: Path, room_hint: str | None = None) -> MedlocalError:
    """The error for a user; the arguments are those of `disk_errors`."""
    if error.errno in _FULL:
        return disk_full(where, room_hint)
    message = f"{error.filename or where}: {error.strerror or error}"
    return MedlocalError(message, hint=_HINTS.get(error.errno or 0))


def require_room(folder: Path, num_bytes: int, hint: str | None = None) -> None:
    """Raise MedlocalError where the disk that holds `folder` has less than `num_bytes` free.

    Args:
        folder: which exists.
        num_bytes: that are to be written there.
        hint: what to do about it; None = move MEDLOCAL_HOME.
    """
    if (free := shutil.disk_usage(folder).free) < num_bytes:
        full = disk_full(folder, hint)
        detail = f"{num_bytes:,} bytes are needed, and {free:,} are free"
        raise MedlocalError(f"{full.message}: {detail}", hint=full.hint)


def disk_full(where: Path, hint: str | None = None) -> MedlocalError:
    """The error for a disk that has no room left for `where`; `hint` as in `require_room`."""
    return MedlocalError(f"the disk that holds {where} is full", hint=hint or _ROOM_HINT)


def bytes_under(folder: Path) -> int:
    """The bytes of all files under a folder; files that go while it counts are left out."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _signature(path: Path) -> list[int]:
    # The change time is there too because, unlike the modification time, nobody can set it back.
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_settled(signature: list[int]) -> bool:
    _, modified_ns, changed_ns, _ = signature
    return max(modified_ns, changed_ns) < time.time_ns() - _SETTLED_NS


def _remembered(cache: Path) -> dict[str, list[object]]:
    # A cache that is damaged or may not be read is an empty one: it costs time, never a wrong answer.
    try:
        entries = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {key: entry for key, entry in entries.items() if isinstance(entry, list) and entry}


def _read_sha256(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    done, total = 0, path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(f"checking {path.name}", done, total)
    return digest.hexdigest()
