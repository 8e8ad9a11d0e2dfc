"""Work in a process of its own that tells, line by line, what it has done so far.

A measurement needs a fresh process: its peak of memory, the time of a load and the way in which threads
wait would else be those of whatever ran before. `messages` starts a module as a program and hands on
what it says, one JSON object per line; `serve` is what such a module does. What the work is, neither knows.

Ctrl-C reaches parent and child at once. The child leaves it to the parent, which ends the child and keeps
what was told by then.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from medlocal.errors import MedlocalError, MissingError, RefusedError, UsageError

Message = dict[str, Any]
Tell = Callable[..., None]
"""Called with the named values of a message, JSON all of them."""

_FAILED = "failed"
_ERRORS: Mapping[int, type[MedlocalError]] = {
    kind.exit_code: kind for kind in (MedlocalError, UsageError, MissingError, RefusedError)
}
_GRACE_SECONDS = 5.0
"""Between asking a child to end and ending it."""


def messages(
    module: str, request: Mapping[str, object], command: Sequence[str] | None = None
) -> Generator[Message, None, None]:
    """What a child says, as it says it. The child has ended when the iterator has, however that ends.

    Args:
        module: which calls `serve` when it is run.
        request: JSON values for it.
        command: of the child; None = this Python on the module. Another one is for tests.

    Raises:
        MedlocalError: the child could not be started or failed, with its own words.
    """
    command = command or [sys.executable, "-P", "-m", module, json.dumps(request)]
    path = os.pathsep.join(part for part in sys.path if part)
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said,
            )  # fmt: skip
        except OSError as error:
            raise MedlocalError(
                f"a process of its own cannot be started for {module}: {error}",
                hint="free memory or processes and do the same again",
            ) from error
        try:
            yield from _read(process)
            process.wait()
        finally:
            _end(process)
        if process.returncode:
            said.seek(0)
            raise _died(module, process.returncode, said.read())


def _read(process: "subprocess.Popen[bytes]") -> Iterator[Message]:
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if failed := message.get(_FAILED):
            kind = _ERRORS.get(failed["exit_code"], MedlocalError)
            raise kind(failed["message"], hint=failed["hint"])
        yield message


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Leave no child behind: it is asked first, then ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _died(module: str, code: int, said: bytes) -> MedlocalError:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "no reason given")
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    hint = "most likely memory ran out: free some" if code == -signal.SIGKILL else None
    return MedlocalError(f"the process of {module} {how}: {last[:300]}", hint=hint)


def serve(work: Callable[[Message, Tell], None]) -> None:
    """Be the child: do the work that the first argument asks for, and tell its errors to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work(json.loads(sys.argv[1]), _tell)
    except MedlocalError as error:
        failed = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        _tell(**{_FAILED: failed})


def _tell(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()
