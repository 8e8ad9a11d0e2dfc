"""How fast one model file is on this machine: loaded and timed in a process of its own.

`measure_speed` lets the file through the gate and starts the process; `speed_child` is what runs there.
What is timed, and how it compares with llama.cpp's own benchmarks, is told in `engine.timing`. Nothing is
asked of the model here and nothing is printed.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medlocal.engine.timing import (
    Energy,
    Kind,
    Repeated,
    SpeedRequest,
    SpeedRow,
    SpeedTest,
)
from medlocal.errors import Interrupted
from medlocal.files import Progress, no_progress
from medlocal.run.child import Message, messages
from medlocal.settings import Settings
from medlocal.weights.gate import admit

__all__ = ["PeakMemory", "Repeated", "SpeedRequest", "SpeedStopped", "Speeds", "measure_speed"]

CHILD = "medlocal.run.speed_child"
FIRST_TOKEN = "first token"
"""How that measurement is called beside the tests' own names."""


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """The most that the process and the GPUs held, and what was planned."""

    peak_bytes: int
    """Of the process, mapped pages of the file and Python included."""
    growth_bytes: int
    """Of that, what came with the model."""
    copied_bytes: int
    """Weights that were repacked for the processor or moved to a GPU. Their pages of the file are in
    `growth_bytes` too, until the system takes them back."""
    planned_bytes: int
    """Of the CPU's memory, by `weights.memory`."""
    gpu_bytes: int
    """Taken of all GPUs."""
    planned_gpu_bytes: int

    @property
    def needed_bytes(self) -> int:
        """What the model took of the CPU's memory, each weight counted once."""
        return self.growth_bytes - self.copied_bytes

    @property
    def ratio(self) -> float:
        """What was taken ÷ what was planned, of the CPU's memory."""
        return self.needed_bytes / self.planned_bytes


@dataclass(frozen=True)
class Speeds:
    """What was measured of a model; where it was stopped, of what was finished by then."""

    request: SpeedRequest
    rows: tuple[SpeedRow, ...] = ()
    """One per test, in their order."""
    first_token: Repeated | None = None
    """Seconds until the first token of the answer to a prompt of `request.prompt_tokens`."""
    load_seconds: float | None = None
    """From opening the file to the first token computed, the file in whatever state the system's cache
    has it: the gate or a checksum has often read it just before."""
    memory: PeakMemory | None = None
    """None where the system does not say."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What llama.cpp says it used: threads, batches, flash attention, KV types, layers offloaded."""
    gpus: tuple[Mapping[str, Any], ...] = ()
    """What each GPU did meanwhile, as `gpu_monitor.GpuUse` says it; () where nothing can be read."""

    def row(self, kind: Kind, depth: int = 0, num_texts: int = 1) -> SpeedRow | None:
        """One of the rows; None where it was not measured."""
        for row in self.rows:
            if (row.test.kind, row.test.depth, row.test.num_texts) == (kind, depth, num_texts):
                return row
        return None

    @property
    def prompt(self) -> Repeated | None:
        """Tokens per second of a prompt with nothing before it."""
        row = self.row("prompt")
        return row.speed if row else None

    @property
    def generation(self) -> Repeated | None:
        """Tokens per second of one text with nothing before it."""
        row = self.row("generation")
        return row.speed if row else None

    def to_json(self) -> dict[str, Any]:
        """JSON values, the derived ones included."""
        return {
            "rows": [_row_json(row) for row in self.rows],
            "first_token": _first_token_json(self),
            "load_seconds": self.load_seconds,
            "memory": _memory_json(self.memory),
            "facts": dict(self.facts),
            "gpus": [dict(gpu) for gpu in self.gpus],
        }


class SpeedStopped(Interrupted):
    """The measurement was stopped by the user; what was finished is in `speeds`."""

    def __init__(self, speeds: Speeds) -> None:
        super().__init__("stopped while the speed was measured; the finished rows are kept")
        self.speeds = speeds
        """What was finished."""


@dataclass(frozen=True, slots=True)
class SpeedWatch:
    """Who is told how far a measurement is."""

    step: Callable[[str, int, int], None] = lambda name, number, total: None
    """Told what is measured now, which of the measurements that is from 1 on, and how many there are."""
    row: Callable[[SpeedRow], None] = lambda row: None
    """Told each finished row."""
    progress: Progress = no_progress
    """Told how far the gate is."""


def measure_speed(
    path: Path,
    request: SpeedRequest,
    settings: Settings,
    watch: SpeedWatch | None = None,
) -> Speeds:
    """Measure a model file in a process of its own, once the gate let it through.

    Args:
        path: a GGUF.
        request: what is to be measured; `SpeedRequest.seconds` bounds how long.
        settings: threads, and the workspace whose gate remembers the file.
        watch: None = nobody is told how far it is.

    Raises:
        SpeedStopped: Ctrl-C; it carries what was finished.
        MissingError, RefusedError: the file is not there or must not be loaded.
        MedlocalError: memory ran out, or the process ended before it was done.
    """
    watch = watch or SpeedWatch()
    admit(path, settings, watch.progress)
    asked: dict[str, object] = {
        "path": str(path.absolute()),
        "num_threads": settings.num_threads,
        "request": asdict(request),
    }
    collected = _Collected(request, watch)
    try:
        with closing(messages(CHILD, asked)) as told:
            for message in told:
                collected.take(message)
    except KeyboardInterrupt as stop:
        raise SpeedStopped(collected.speeds) from stop
    return collected.speeds


@dataclass
class _Collected:
    """What the child has told so far."""

    request: SpeedRequest
    watch: SpeedWatch
    rows: list[SpeedRow] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    num_steps: int = 0

    @property
    def speeds(self) -> Speeds:
        return Speeds(self.request, tuple(self.rows), **self.found)

    def take(self, message: Message) -> None:
        """Keep one message of `speed_child`."""
        if "step" in message:
            self.num_steps += 1
            total = len(self.request.tests) + bool(self.request.num_first_tokens)
            self.watch.step(message["step"], self.num_steps, total)
        if "loaded" in message:
            self.found |= message["loaded"]
        if message.get("first_token"):
            self.found["first_token"] = Repeated(tuple(message["first_token"]))
        if message.get("memory"):
            self.found["memory"] = PeakMemory(**message["memory"])
        if "gpus" in message:
            self.found["gpus"] = tuple(message["gpus"])
        if "row" in message:
            self.rows.append(_row_of(message["row"]))
            self.watch.row(self.rows[-1])


def _row_of(values: Mapping[str, Any]) -> SpeedRow:
    """The row that `asdict` took apart."""
    energy = values["energy"]
    return SpeedRow(
        SpeedTest(**values["test"]),
        Repeated(tuple(values["speed"]["values"])),
        Energy(**energy) if energy else None,
    )


def repeated_json(found: Repeated) -> dict[str, Any]:
    """A figure with all that is derived from it."""
    return {
        "values": list(found.values),
        "mean": found.mean,
        "sd": found.sd,
        "n": found.n,
        "variation": found.variation,
        "unstable": found.is_unstable,
    }


def _row_json(row: SpeedRow) -> dict[str, Any]:
    return {
        "name": row.test.name,
        **asdict(row.test),
        "tokens_per_second": repeated_json(row.speed),
        "seconds_per_token": row.seconds_per_token,
        "joules_per_token": asdict(row.energy) if row.energy else None,
    }


def _first_token_json(speeds: Speeds) -> dict[str, Any] | None:
    if (found := speeds.first_token) is None:
        return None
    return {
        "prompt_tokens": speeds.request.prompt_tokens,
        "seconds": repeated_json(found),
        "p50": found.percentile(50),
        "p95": found.percentile(95),
    }


def _memory_json(memory: PeakMemory | None) -> dict[str, Any] | None:
    if memory is None:
        return None
    return {**asdict(memory), "needed_bytes": memory.needed_bytes, "ratio": memory.ratio}
