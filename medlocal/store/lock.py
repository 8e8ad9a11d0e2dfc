"""One writer per run: a lock that the kernel gives back when its process dies, however it dies.

It is flock(2) on a small file per run. The file stays when the lock goes: deleting it would let two
processes lock two different files of the same name. What a run is, is not known here.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medlocal.errors import MedlocalError

# A reader that asks whether a run is alive holds the lock for some microseconds (see `is_held`);
# a writer that comes at that moment must not be turned away.
_PATIENCE_SECONDS = 0.5
_PAUSE_SECONDS = 0.01


@contextmanager
def hold(path: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a run while the block runs.

    Args:
        path: the lock's file, created where there is none.
        run_id: the run, for the message.

    Raises:
        MedlocalError: another process (or another part of this one) holds it, or the file cannot
            be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise MedlocalError(
            f"run {run_id} cannot be locked: {path}: {error.strerror}",
            hint=f"check that you may write in {path.parent}",
        ) from error
    try:
        if not _acquire(descriptor):
            raise _held_elsewhere(descriptor, run_id)
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # on a full disk the lock still holds; only its message says less
            os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)  # releases the lock


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock. Never creates the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # A shared lock: two processes that ask at the same time do not take each other for a writer.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(descriptor: int) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        else:
            return True


def _held_elsewhere(descriptor: int, run_id: str) -> MedlocalError:
    pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
    holder = f"process {pid}" if pid else "another process"
    return MedlocalError(
        f"run {run_id} is being worked on by {holder}",
        hint="let it finish or stop it; a run has one writer at a time",
    )
