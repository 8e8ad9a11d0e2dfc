"""llama.cpp's quantiser in a process of its own: jobs in, its log and its verdict out.

    python -m medlocal.weights.quantizer      reads jobs from stdin, a line of JSON each

The C code ends its process where an assertion fails or memory runs out, and cannot be interrupted;
here that ends the child, and the caller says what happened. The child ends with its parent too,
however that ends: it watches its stdin. Each piece of llama.cpp's log comes back as a line of JSON,
and the verdict last. Nothing here knows whether a job is wise, nor publishes a file.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from medlocal.errors import MedlocalError
from medlocal.libllama import LOG, library

Listener = Callable[[int, str], None]
"""Told of llama.cpp's log: ggml's level, and a piece that may be part of a line."""

_ERROR = 4
_PACKAGE_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Job:
    """One call of `llama_model_quantize`. All numbers of types are llama.cpp's."""

    source: str
    target: str
    """Overwritten; "" = only say what would become of each tensor."""
    recipe: int
    """`llama_ftype`."""
    num_threads: int
    max_buffer_bytes: int
    """Most rows of a tensor that are held at a time, in bytes."""
    output_type: int | None = None
    """Type of output.weight; None = as the recipe has it."""
    embedding_type: int | None = None
    """Type of token_embd.weight; None = as the recipe has it."""
    keep: tuple[tuple[str, int], ...] = ()
    """Regular expressions, searched in tensors' names, and the type that those get: the first
    that fits."""
    entries: tuple[tuple[str, str | int], ...] = ()
    """Metadata to set: keys and values of at most 127 bytes."""
    imatrix: str = ""
    """An importance matrix; "" = none."""
    allow_requantize: bool = False


class Quantizer:
    """A child that quantises. To be closed; it ends by itself when its parent does."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._process = subprocess.Popen(
            # -P: a folder called medlocal where the user happens to be is not this package.
            [sys.executable, "-P", "-m", "medlocal.weights.quantizer"],
            # A backtrace by a debugger would take seconds and bury the assertion that failed.
            env={**os.environ, "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        self.process_id = self._process.pid

    def run(self, job: Job, listener: Listener) -> None:
        """Run a job to its end.

        Args:
            job: what to do.
            listener: told of the log as it comes. What it raises ends the child.

        Raises:
            MedlocalError: llama.cpp refused, or its process ended; the message has its last words.
        """
        errors: list[str] = []
        try:
            failed = self._follow(job, listener, errors)
        except BaseException:
            self.close()
            raise
        if failed:
            raise MedlocalError(f"llama.cpp could not quantise {job.source}: {_told(errors)}")

    def _follow(self, job: Job, listener: Listener, errors: list[str]) -> bool:
        """Give the child its job and listen to it; whether llama.cpp said no."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended(job) from None
        for line in self._process.stdout:
            message = json.loads(line)
            if "failed" in message:
                return bool(message["failed"])
            if message["level"] == _ERROR:
                errors.append(message["piece"])
            listener(message["level"], message["piece"])
        raise self._ended(job)

    def _ended(self, job: Job) -> MedlocalError:
        """The error for a child that is no more."""
        code = self._process.wait()
        self._stderr.seek(0)
        words = _told(self._stderr.read().decode("utf-8", "replace").splitlines())
        if code == -signal.SIGKILL:
            return MedlocalError(
                f"quantising {job.source} was killed: most likely the memory ran out",
                hint="close other programs, or use fewer threads with --threads",
            )
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return MedlocalError(f"llama.cpp's quantiser ended ({how}) on {job.source}: {words}")

    def close(self) -> None:
        """End the child, whatever it does."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # a job that it never read
            self._process.__exit__(None, None, None)
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _told(lines: list[str]) -> str:
    """The end of what was said, in one line."""
    words = " ".join(" ".join(lines).replace("=", " ").split())
    return words[-500:] or "no reason given"


def main() -> None:
    """Do the jobs that come on stdin until it ends."""
    # What C code prints must not come between the messages.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()

    def send(**message: object) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    lib = library()
    LOG.listener = lambda level, piece: send(level=level, piece=piece)
    while True:
        job = _job(jobs.get())
        params, kept = _params(lib, job)
        code = lib.llama_model_quantize(os.fsencode(job.source), os.fsencode(job.target), params)
        del kept
        send(failed=code != 0)


def _read_jobs(jobs: "queue.SimpleQueue[bytes]") -> None:
    """Hand on the lines of stdin; where it ends, so does this process, in the midst of its work."""
    for line in sys.stdin.buffer:
        jobs.put(line)
    os._exit(1)


def _job(line: bytes) -> Job:
    values = json.loads(line)
    for name in ("keep", "entries"):
        values[name] = tuple((key, value) for key, value in values[name])
    return Job(**values)


def _params(lib: Any, job: Job) -> tuple[Any, list[Any]]:
    """llama.cpp's parameters, and what must live as long as they do."""
    params = lib.llama_model_quantize_default_params()
    params.nthread = job.num_threads
    params.ftype = job.recipe
    params.max_buf_size = job.max_buffer_bytes
    params.allow_requantize = job.allow_requantize
    params.dry_run = not job.target
    if job.output_type is not None:
        params.output_tensor_type = job.output_type
    if job.embedding_type is not None:
        params.token_embedding_type = job.embedding_type
    params.kv_overrides = entries = _entries(lib, job)
    params.tt_overrides = keep = _keep(lib, job)
    kept = [entries, keep]
    if job.imatrix:
        params.imatrix, sums = _matrix(lib, Path(job.imatrix))
        kept += [params.imatrix, sums]
    return params, kept


def _entries(lib: Any, job: Job) -> Any:
    """An array of overrides; an empty key ends it."""
    overrides = (lib.llama_model_kv_override * (len(job.entries) + 1))()
    for override, (key, value) in zip(overrides, job.entries, strict=False):
        override.key = key.encode()
        if isinstance(value, str):
            override.tag = lib.LLAMA_KV_OVERRIDE_TYPE_STR
            override.value.val_str = value.encode()
        else:
            override.tag = lib.LLAMA_KV_OVERRIDE_TYPE_INT
            override.value.val_i64 = value
    return overrides


def _keep(lib: Any, job: Job) -> Any:
    """An array of patterns with their types; a null pattern ends it."""
    patterns = (lib.llama_model_tensor_override * (len(job.keep) + 1))()
    for pattern, (text, number) in zip(patterns, job.keep, strict=False):
        pattern.pattern, pattern.type = text.encode(), number
    return patterns


def _matrix(lib: Any, path: Path) -> tuple[Any, Any]:
    """An array of tensors' names with their sums, which a null name ends; and the sums."""
    from medlocal.weights.importance import read_importance

    sums = {name: np.ascontiguousarray(s.ravel()) for name, s in read_importance(path).sums.items()}
    data = (lib.llama_model_imatrix_data * (len(sums) + 1))()
    for entry, (name, values) in zip(data, sums.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return data, sums


if __name__ == "__main__":
    main()
