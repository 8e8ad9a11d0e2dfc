"""The first load of a file by llama.cpp, in a process of its own.

llama.cpp is C++ that reads what strangers wrote: a file that passed every check in Python can still
end the process that loads it, or keep it busy for ever. So the first to load it is a child, which maps
the weights, goes through the vocabulary and computes a few tokens as a run would; what it dies of is
told, and the parent lives on. `load` is what the child does; `first_load` starts one and judges it.

The child has bounds: of time, of memory that is its own (mapped weights are not), and it leaves no core
dump. It is no prison: a file that made llama.cpp run code of its own would run it with the user's
rights. It computes on the processor, so that what goes wrong on a graphics card only is not found.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from medlocal.errors import MedlocalError, RefusedError

_SECONDS, _BYTES_PER_SECOND = 60.0, 20e6
"""Time for any file, and the slowest disk that weights are read from."""
_OWN_MEMORY = 4 * 2**30
"""Bytes a load may take beside the file's size: context, graph, vocabulary, Python."""
_LOG_ERROR = 4
"""ggml's level."""
_AGAIN = "use another conversion of the model, and report this one where it came from"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load that went well has shown."""

    num_vocab: int
    ends: tuple[int, ...]
    """End-of-generation tokens, as llama.cpp takes them from their ids and their texts."""
    seconds: float
    """Of the child's life, start included."""


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """What a load may take."""

    seconds: float
    memory_bytes: int

    @classmethod
    def of(cls, num_bytes: int) -> "LoadLimits":
        """The limits for a file of `num_bytes`."""
        return cls(_SECONDS + num_bytes / _BYTES_PER_SECOND, _OWN_MEMORY + num_bytes)


def first_load(
    path: Path, limits: LoadLimits | None = None, command: Sequence[str] | None = None
) -> Loaded:
    """Load a file in a child process.

    Args:
        path: a GGUF whose header was checked.
        limits: what the load may take; None = by the file's size.
        command: of the child; None = this module on `path`. Another one is for tests.

    Raises:
        RefusedError: llama.cpp crashed on the file, hung, refused it, or computed what is no number.
        MedlocalError: the child could not be started, or ended for a reason of its own.
    """
    limits = limits or LoadLimits.of(path.stat().st_size)
    command = command or [sys.executable, "-P", "-m", __name__, str(path), json.dumps(
        [limits.seconds, limits.memory_bytes]
    )]  # fmt: skip
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=limits.seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise _hung(path, limits.seconds, _last_step(late.stdout or b"")) from late
    except OSError as error:
        raise MedlocalError(
            f"the first load of {path} needs a process of its own, which cannot be started: {error}",
            hint="free memory or processes and do the same again; nothing was loaded",
        ) from error
    return _judge(path, done, time.monotonic() - started)


def _environment() -> dict[str, str]:
    """The parent's, with its import path, without a debugger at a crash and without a GPU."""
    path = os.pathsep.join(part for part in sys.path if part)
    return os.environ | {
        "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1", "CUDA_VISIBLE_DEVICES": ""
    }  # fmt: skip


def _judge(path: Path, done: "subprocess.CompletedProcess[bytes]", seconds: float) -> Loaded:
    said = _last_line(done.stdout)
    if done.returncode == 0 and "num_vocab" in said:
        return Loaded(int(said["num_vocab"]), tuple(said["ends"]), seconds)
    if "refused" in said:
        raise RefusedError(f"{path}: {said['refused']}", hint=_AGAIN)
    step, last = _last_step(done.stdout), _last_words(done.stderr)
    if done.returncode == -signal.SIGXCPU:
        raise _hung(path, seconds, step)
    if done.returncode == -signal.SIGKILL:
        raise MedlocalError(
            f"the first load of {path} was killed while {step}",
            hint="most likely memory ran out: free some and do the same again",
        )
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise RefusedError(f"{path}: llama.cpp crashed ({name}) while {step}: {last}", hint=_AGAIN)
    raise MedlocalError(
        f"the process for the first load of {path} failed: {last}",
        hint="`medlocal doctor` says whether llama.cpp can be loaded at all",
    )


def _hung(path: Path, seconds: float, step: str) -> RefusedError:
    return RefusedError(
        f"{path}: llama.cpp did not come to an end within {seconds:,.0f} s, and was {step}",
        hint="where the machine was busy or the disk slow, do the same again",
    )


def _last_line(out: bytes) -> dict[str, Any]:
    """The last thing that the child said; {} where it was cut off or nothing."""
    lines = out.splitlines()
    try:
        said = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _last_step(out: bytes) -> str:
    """What the child was about when it was last heard of."""
    said = _last_line(out)
    return str(said.get("step", "starting"))


def _last_words(err: bytes) -> str:
    """Its last line on stderr: there an assertion or an exception of C++ is told."""
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines()]
    text = next((line for line in reversed(lines) if line), "no reason given")
    return "".join(c if c.isprintable() else " " for c in text)[:300]


# What the child does.


def load(path: Path, tell: Callable[[str], None]) -> dict[str, object]:
    """Load a file and use it as a run would.

    Args:
        path: the file.
        tell: told of each step before it is taken.

    Raises:
        RefusedError: llama.cpp refuses it, or the logits are no numbers.
    """
    from medlocal.libllama import LOG, LlamaModel

    LOG.listener = _pass_on
    tell("opening it")
    # Not repacked: then the weights stay mapped, and take no memory of their own.
    with LlamaModel(path, repack=False, gpu_layers=0) as model:
        tell("going through its vocabulary")
        ends = sorted(model.ends)
        tokens = _tokens(model)
        tell("computing with it")
        _compute(model, tokens)
        return {"num_vocab": model.num_vocab, "ends": ends}


def _tokens(model: Any) -> list[int]:
    """Ids for a few rows, once every token was spelled and a text with every byte was read."""
    assert model.pieces is not None
    model.control_texts  # noqa: B018 - a run asks for them
    blocks = (range(1, 0x250), range(0x800, 0xD800, 0x400), range(0x10000, 0x110000, 0x4000))
    text = "".join(chr(code) for block in blocks for code in block).encode()
    seen = [*model.tokenize(text), *model.tokenize(text, special=True)]
    if not all(0 <= token < model.num_vocab for token in seen):
        raise RefusedError("its tokenizer gives tokens that it does not have")
    return [0, model.num_vocab // 2, model.num_vocab - 1, *seen[:5]]


def _compute(model: Any, tokens: list[int]) -> None:
    import numpy as np

    from medlocal.weights.forward import Forward, ForwardOptions

    options = ForwardOptions(num_tokens=256, num_threads=len(os.sched_getaffinity(0)))
    with Forward(model, options) as forward:
        for _, logits in forward.blocks(tokens, 0):
            if not np.isfinite(logits).all():
                raise RefusedError("it computes values that are no numbers (NaN or infinite)")


def _pass_on(level: int, piece: str) -> None:
    """Write llama.cpp's errors down as they come: after a crash there is no asking for them."""
    if level == _LOG_ERROR:
        os.write(2, piece.encode())


def _tell(**values: object) -> None:
    print(json.dumps(values), flush=True)  # noqa: T201 - to the parent


def bound(seconds: float, memory_bytes: int) -> None:
    """Bound this process; where a limit is lower already, that one stays."""
    threads = len(os.sched_getaffinity(0))
    limits = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(seconds * threads) + 1),
        (resource.RLIMIT_DATA, memory_bytes),
    )
    for kind, most in limits:
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, hard))


def main(arguments: Sequence[str]) -> NoReturn:
    """Load one file within limits; the last line on stdout says how it ended."""
    path, limits = arguments
    bound(*json.loads(limits))
    try:
        _tell(**load(Path(path), lambda step: _tell(step=step)))
    except (MedlocalError, MemoryError) as error:
        _tell(refused=getattr(error, "message", None) or "it needs more memory than is granted")
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
