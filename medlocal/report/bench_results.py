"""Results of a benchmark as `medlocal bench` wrote them: the document, read into frozen values. Pure.

A document may come from another machine or an older version, so everything in it is checked when it
is read, and what is wrong with it is told with the file's name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlocal.engine.timing import Energy, Repeated, SpeedRow, SpeedTest
from medlocal.errors import UsageError
from medlocal.files import disk_errors

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class BenchMemory:
    """The most memory that a model took, and what was planned."""

    peak_bytes: int
    """Of the process as a whole."""
    needed_bytes: int
    """Of it, the model's own, each weight counted once."""
    planned_bytes: int
    gpu_bytes: int
    planned_gpu_bytes: int


@dataclass(frozen=True, slots=True)
class BenchSuite:
    """Questions asked end to end."""

    suite: str
    limit: int | None
    """Questions per data set and language; None = all."""
    datasets: tuple[str, ...]
    mode: str
    num_answers: int
    """Of one run: each question once per form and arm."""
    num_items: int
    per_hour: Repeated
    """Answers per hour, one value per run."""
    efficiency: float | None
    energy: Energy | None
    """Per answer, of the first run."""


@dataclass(frozen=True, slots=True)
class BenchModel:
    """What was measured of one model."""

    name: str
    sha256: str
    type: str
    size_bytes: int
    num_parameters: int
    bits_per_weight: float | None
    slow_types: Mapping[str, str]
    """Tensor types that the machine computes slowly, each with the reason."""
    rows: tuple[SpeedRow, ...]
    first_token: Repeated | None
    """Seconds."""
    first_token_prompt: int
    """Tokens of the prompt."""
    load_seconds: float | None
    memory: BenchMemory | None
    facts: Mapping[str, Any]
    """What llama.cpp said it used."""
    gpus: tuple[Mapping[str, Any], ...]
    """What each GPU did while the tests ran; () where nothing could be read."""
    suite: BenchSuite | None


@dataclass(frozen=True, slots=True)
class BenchResults:
    """One benchmark."""

    when: str
    """UTC, ISO 8601."""
    machine: Mapping[str, Any]
    models: tuple[BenchModel, ...]
    is_stopped: bool
    """The user stopped it before all was measured."""


def read_results(path: Path) -> BenchResults:
    """Read a file that `medlocal bench` wrote.

    Raises:
        UsageError: it is none.
        MedlocalError: it cannot be read.
    """
    with disk_errors(path):
        content = path.read_bytes()
    try:
        document = json.loads(content)
    except ValueError as error:
        raise _no_results(str(path), error) from error
    return results_of(document, str(path))


def results_of(document: Mapping[str, Any], origin: str = "the result") -> BenchResults:
    """The values of a document.

    Args:
        document: as `run.bench` made it.
        origin: where it is from, for an error.

    Raises:
        UsageError: it is no such document, or one of another format.
    """
    try:
        if (found := document["format"]) != _FORMAT:
            raise UsageError(
                f"{origin}: its format is {found}, and this version reads {_FORMAT}",
                hint="measure again with this version",
            )
        return BenchResults(
            when=str(document["when"]),
            machine=dict(document["machine"]),
            models=tuple(_model(model) for model in document["models"]),
            is_stopped=bool(document["stopped"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_results(origin, error) from error


def _no_results(origin: str, error: Exception) -> UsageError:
    return UsageError(
        f"{origin} is no result of `medlocal bench`: {type(error).__name__} {error}",
        hint="write one with: medlocal bench MODEL -o FILE.json",
    )


def _model(values: Mapping[str, Any]) -> BenchModel:
    speed = values["speed"] or {}
    first = speed.get("first_token")
    memory = speed.get("memory")
    return BenchModel(
        name=str(values["name"]),
        sha256=str(values["sha256"]),
        type=str(values["type"] or "?"),
        size_bytes=int(values["size_bytes"]),
        num_parameters=int(values["num_parameters"]),
        bits_per_weight=_number(values["bits_per_weight"]),
        slow_types=dict(values["slow_types"]),
        rows=tuple(_row(row) for row in speed.get("rows", ())),
        first_token=_repeated(first["seconds"]) if first else None,
        first_token_prompt=int(first["prompt_tokens"]) if first else 0,
        load_seconds=_number(speed.get("load_seconds")),
        memory=_memory(memory) if memory else None,
        facts=dict(speed.get("facts", {})),
        gpus=tuple(map(dict, speed.get("gpus", ()))),
        suite=_suite(values["suite"]) if values["suite"] else None,
    )


def _row(values: Mapping[str, Any]) -> SpeedRow:
    kind = values["kind"]
    if kind not in {"prompt", "generation"}:
        raise ValueError(f"no kind of test is called {kind!r}")
    numbers = (int(values[name]) for name in ("num_tokens", "depth", "num_texts"))
    energy = values["joules_per_token"]
    return SpeedRow(
        SpeedTest(kind, *numbers),
        _repeated(values["tokens_per_second"]),
        _energy(energy) if energy else None,
    )


def _suite(values: Mapping[str, Any]) -> BenchSuite:
    first = values["runs"][0]
    return BenchSuite(
        suite=str(values["suite"]),
        limit=values["limit"],
        datasets=tuple(map(str, values["datasets"])),
        mode=str(values["mode"]),
        num_answers=int(values["num_answers"]),
        num_items=int(values["num_items"]),
        per_hour=_repeated(values["answers_per_hour"]),
        efficiency=_number(first["efficiency"]),
        energy=_energy(first["energy"]) if first["energy"] else None,
    )


def _memory(values: Mapping[str, Any]) -> BenchMemory:
    names = ("peak_bytes", "needed_bytes", "planned_bytes", "gpu_bytes", "planned_gpu_bytes")
    return BenchMemory(*(int(values[name]) for name in names))


def _repeated(values: Mapping[str, Any]) -> Repeated:
    found = tuple(float(value) for value in values["values"])
    if not found or min(found) <= 0:
        raise ValueError("a figure without a value, or one that is not above 0")
    return Repeated(found)


def _energy(values: Mapping[str, Any]) -> Energy:
    return Energy(float(values["joules"]), float(values["above_idle"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
