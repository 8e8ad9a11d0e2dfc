"""Questions per hour, end to end: a whole run of a suite, timed in a process and a store of its own.

Nothing is reused: the store is new and empty each time, and is gone afterwards. The time is that of
everything that a run does from the first look at the file to the last commit: identity, plan, load,
calibration, asking, grading, keeping. The gate has passed the file before. `measure_suite` starts the
process, `ask` is what runs there.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medlocal.engine.timing import Energy, EnergyCount, EnergyMeter, Repeated
from medlocal.errors import Interrupted, UsageError
from medlocal.run.backend import LlamaBackend
from medlocal.run.child import Message, Tell, messages, serve
from medlocal.run.energy import find_meter, gpus_watched
from medlocal.run.execute import Control, Progress, peak_memory_bytes, start_run
from medlocal.run.spec import RunSpec
from medlocal.run.speed import repeated_json
from medlocal.settings import Settings
from medlocal.store import Store

CHILD = __name__
_TELL_SECONDS = 5.0
"""Between two words on how far a run is."""
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """One run of a suite."""

    num_answers: int
    """Questions asked, each counted once per form and arm, errors left out."""
    num_errors: int
    num_items: int
    """Different questions among them, per language."""
    seconds: float
    peak_memory_bytes: int
    mode: str
    """`exact` or `fast`."""
    efficiency: float | None
    """Ideal ÷ actual time of asking; None where the run was too short to measure it."""
    energy: Energy | None
    """Per answer."""
    gpus: tuple[Mapping[str, Any], ...] = ()
    """What each GPU did meanwhile, as `gpu_monitor.GpuUse` says it; () where nothing can be read."""

    @property
    def per_hour(self) -> float:
        """Answers per hour."""
        return _HOUR * self.num_answers / self.seconds


@dataclass(frozen=True, slots=True)
class SuiteSpeed:
    """A suite's runs, one after the other."""

    spec: RunSpec
    runs: tuple[SuiteRun, ...]
    """At least one."""

    def to_json(self) -> dict[str, Any]:
        """JSON values, the derived ones included."""
        return {
            "suite": self.spec.suite,
            "datasets": list(self.spec.datasets),
            "languages": list(self.spec.languages),
            "limit": self.spec.limit,
            "mode": self.runs[0].mode,
            "num_answers": self.runs[0].num_answers,
            "num_items": self.runs[0].num_items,
            "answers_per_hour": repeated_json(Repeated(tuple(run.per_hour for run in self.runs))),
            "runs": [asdict(run) for run in self.runs],
        }


class SuiteStopped(Interrupted):
    """The runs were stopped by the user; `suite` has those that were finished, None = none was."""

    def __init__(self, suite: SuiteSpeed | None) -> None:
        super().__init__("stopped while a suite was asked; finished runs are kept")
        self.suite = suite
        """The finished runs."""


def measure_suite(
    name: str,
    path: Path,
    spec: RunSpec,
    settings: Settings,
    repetitions: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> SuiteSpeed:
    """Ask a model a suite, so many times.

    Args:
        name: how the run calls the model.
        path: its file, which the gate let through.
        spec: what is asked of it.
        settings: threads, and where data sets are kept.
        repetitions: of the whole run.
        tell: told now and then how far it is.

    Raises:
        SuiteStopped: Ctrl-C; it carries what was finished.
        MedlocalError: the run failed.
    """
    asked: dict[str, object] = {
        "name": name,
        "path": str(path.absolute()),
        "spec": spec.to_json(),
        "settings": {**asdict(settings), "home": str(settings.home)},
        "repetitions": repetitions,
    }
    runs: list[SuiteRun] = []
    try:
        with closing(messages(CHILD, asked)) as told:
            for message in told:
                if "run" in message:
                    runs.append(_run_of(message["run"]))
                if "progress" in message:
                    tell(message["progress"])
    except KeyboardInterrupt as stop:
        raise SuiteStopped(SuiteSpeed(spec, tuple(runs)) if runs else None) from stop
    return SuiteSpeed(spec, tuple(runs))


def _run_of(values: Message) -> SuiteRun:
    energy, gpus = values.pop("energy"), tuple(values.pop("gpus"))
    return SuiteRun(**values, energy=Energy(**energy) if energy else None, gpus=gpus)


# What the child does.


def ask(asked: Message, tell: Tell) -> None:
    """Run a suite as often as asked, each time in a new store.

    Args:
        asked: as `measure_suite` sends it.
        tell: told "progress" (a line) and "run" (the fields of a `SuiteRun`).
    """
    settings = Settings(**{**asked["settings"], "home": Path(asked["settings"]["home"])})
    spec = RunSpec.from_json(asked["spec"])
    path = Path(asked["path"])
    meter = find_meter()
    for _ in range(asked["repetitions"]):
        with tempfile.TemporaryDirectory() as folder:
            store_path = Path(folder) / "bench.db"
            backend = LlamaBackend(asked["name"], path, settings, spec.mode, spec.context)
            with gpus_watched() as gpus:
                run = time_run(spec, backend, store_path, meter, _Teller(tell))
        tell(run=asdict(replace(run, gpus=tuple(gpus))))


def time_run(
    spec: RunSpec,
    backend: LlamaBackend,
    store_path: Path,
    meter: EnergyMeter | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> SuiteRun:
    """Run a suite once and time it.

    Raises:
        UsageError: nothing could be answered.
    """
    count = EnergyCount(meter)
    started = time.perf_counter()
    with Store(store_path) as store:
        summary = start_run(spec, store, backend, backend.model_facts(), Control(watch))
        seconds = time.perf_counter() - started
        energy = count.per_unit(max(1, summary.done))
        efficiency = store.run(summary.run_id).engine.get("efficiency")
        items = {(j.dataset, j.item_id, j.language) for j in store.jobs(summary.run_id)}
    if not summary.done:
        raise UsageError(f"none of the {summary.jobs} questions of {spec.suite} could be answered")
    return SuiteRun(
        num_answers=summary.done,
        num_errors=summary.errors,
        num_items=len(items),
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(),
        mode=backend.mode,
        efficiency=float(efficiency) if isinstance(efficiency, int | float) else None,
        energy=energy,
    )


@dataclass
class _Teller:
    """Tells how far a run is when that is another phase, and now and then."""

    tell: Tell
    last: float = 0.0
    phase: str = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase == self.phase and now - self.last < _TELL_SECONDS:
            return
        self.last, self.phase = now, progress.phase
        done = progress.done + progress.errors
        self.tell(progress=f"{progress.phase} {done:,}/{progress.total:,}")


if __name__ == "__main__":
    serve(ask)
