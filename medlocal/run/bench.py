"""A benchmark of one or several models: measured one after the other, written down, found again.

The result is one JSON document, as it is stored, written and printed: `report.bench_results` reads it. Each
finished model and each finished row stands in it, also where the user stopped the rest.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medlocal.engine.timing import SpeedRequest
from medlocal.errors import MedlocalError, MissingError
from medlocal.files import Progress, atomic_write, disk_errors, file_sha256, no_progress
from medlocal.run.bench_machine import describe_machine
from medlocal.run.bench_suite import SuiteStopped, measure_suite
from medlocal.run.spec import RunSpec
from medlocal.run.speed import SpeedStopped, SpeedWatch, measure_speed
from medlocal.settings import Settings
from medlocal.weights.inspect import read_gguf
from medlocal.weights.kernels import slow_types

FORMAT = 1
"""Of the document; raised where a reader of an older one would misread it."""
LAST = "last"
"""Stands for the newest stored result."""


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What is to be measured."""

    models: tuple[tuple[str, Path], ...]
    """Name and file of each."""
    speed: SpeedRequest
    spec: RunSpec | None = None
    """What each model is asked; None = no questions."""
    suite_repetitions: int = 1


@dataclass(frozen=True, slots=True)
class BenchWatch:
    """Who is told how far a benchmark is."""

    tell: Callable[[str], None] = lambda line: None
    """Told in a line what happens now."""
    progress: Progress = no_progress
    """Told how far checksums and the gate are."""


def bench_and_keep(
    request: BenchRequest, settings: Settings, watch: BenchWatch | None = None
) -> tuple[dict[str, Any], Path]:
    """Measure the models one after the other and store the result.

    Returns:
        The document, and the file that it is kept in. Its "stopped" is true where the user stopped
        it: what was finished by then is there, and nothing is raised.

    Raises:
        MedlocalError: a model could not be measured; what was finished before is kept, and the hint
            says where.
    """
    document = _new_document(request, settings)
    try:
        _measure_all(document, request, settings, watch or BenchWatch())
    except MedlocalError as error:
        if any(model["speed"] for model in document["models"]):
            error.hint = "; ".join(
                part for part in (error.hint, f"finished: {keep(document, settings)}") if part
            )
        raise
    return document, keep(document, settings)


def _new_document(request: BenchRequest, settings: Settings) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(settings),
        "request": asdict(request.speed),
        "models": [],
        "stopped": False,
    }


def _measure_all(
    document: dict[str, Any], request: BenchRequest, settings: Settings, watch: BenchWatch
) -> None:
    for name, path in request.models:
        model = _describe(name, path, settings, watch.progress)
        document["models"].append(model)
        try:
            _measure(model, request, settings, watch)
        except (SpeedStopped, SuiteStopped, KeyboardInterrupt):
            document["stopped"] = True
            return


def _measure(
    model: dict[str, Any], request: BenchRequest, settings: Settings, watch: BenchWatch
) -> None:
    """Measure one model, keeping in `model` what is finished, also where it is stopped."""
    name, path = model["name"], Path(model["path"])

    def step(test: str, number: int, total: int) -> None:
        watch.tell(f"{name}: {test} ({number} of {total})")

    try:
        told = SpeedWatch(step=step, progress=watch.progress)
        speeds = measure_speed(path, request.speed, settings, told)
    except SpeedStopped as stop:
        model["speed"] = stop.speeds.to_json()
        raise
    model["speed"] = speeds.to_json()
    if request.spec is None:
        return
    spec = replace(request.spec, model=str(path), more_models=())
    try:
        asked = measure_suite(
            name, path, spec, settings, request.suite_repetitions,
            lambda line: watch.tell(f"{name}: {spec.suite}: {line}"),
        )  # fmt: skip
    except SuiteStopped as stop:
        model["suite"] = stop.suite.to_json() if stop.suite else None
        raise
    model["suite"] = asked.to_json()


def _describe(name: str, path: Path, settings: Settings, progress: Progress) -> dict[str, Any]:
    info = read_gguf(path)
    types = {tensor.type for tensor in info.tensors}
    return {
        "name": name,
        "path": str(path.absolute()),
        "sha256": file_sha256(path, progress, settings.home / "hashes.json"),
        "type": info.main_quantisation,
        "size_bytes": info.size,
        "num_parameters": info.num_parameters,
        "bits_per_weight": info.bits_per_weight,
        "slow_types": slow_types(sorted(types)),
        "speed": None,
        "suite": None,
    }


def bench_folder(settings: Settings) -> Path:
    """Where the workspace keeps results."""
    return settings.home / "bench"


def keep(document: dict[str, Any], settings: Settings) -> Path:
    """Store a result; its name begins with its time, so that names sort by it."""
    folder = bench_folder(settings)
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    stamp = datetime.fromisoformat(document["when"]).strftime("%Y%m%dT%H%M%SZ")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        number, path = 1, folder / f"{stamp}.json"
        while path.exists():
            number, path = number + 1, folder / f"{stamp}-{number + 1}.json"
        atomic_write(path, text)
    return path


def find_result(name: str, hashes: Sequence[str], settings: Settings) -> Path:
    """The file of an earlier result.

    Args:
        name: a path, a stored file's name with or without its ending, or "last": the newest that
            holds one of the models.
        hashes: SHA-256 of the models.
        settings: of the workspace.

    Raises:
        MissingError: there is none.
    """
    folder = bench_folder(settings)
    if name == LAST:
        for path in sorted(folder.glob("*.json"), reverse=True):
            if any(sha256 in path.read_text(encoding="utf-8") for sha256 in hashes):
                return path
        raise MissingError(
            f"no earlier result of these models is kept in {folder}",
            hint="measure once without --compare, or name a file",
        )
    for path in (Path(name).expanduser(), folder / name, folder / f"{name}.json"):
        if path.is_file():
            return path
    raise MissingError(
        f"no result of `medlocal bench` is at {name}",
        hint=f"those of this workspace are in {folder}",
    )
