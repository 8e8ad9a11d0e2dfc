"""A model measured in a process of its own: a tiny one for real, and what becomes of what it told."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from medlocal import libllama
from medlocal.engine.timing import SpeedRow
from medlocal.errors import MedlocalError, MissingError
from medlocal.run import speed
from medlocal.run.speed import (
    PeakMemory,
    Repeated,
    SpeedRequest,
    Speeds,
    SpeedStopped,
    SpeedWatch,
    measure_speed,
)
from medlocal.run.speed_child import context_options
from medlocal.settings import Settings, load_settings
from tests.weights.tiny_llama import write_tiny_llama

TINY = SpeedRequest(
    prompt_tokens=16, new_tokens=4, depths=(0, 32), sequences=(1, 2), repetitions=2,
    num_first_tokens=3,
)  # fmt: skip
NAMES = ["pp16", "tg4", "tg4 x2", "pp16 @ d32", "tg4 @ d32", "tg4 x2 @ d32"]
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), threads=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def measured(tiny: Path, settings: Settings) -> tuple[Speeds, list[str], list[SpeedRow]]:
    steps: list[str] = []
    rows: list[SpeedRow] = []
    watch = SpeedWatch(lambda *step: steps.append(" ".join(map(str, step))), rows.append)
    held = bytearray(400 * MEBIBYTE)  # the parent's memory is not the child's
    found = measure_speed(tiny, TINY, settings, watch)
    assert len(held) == 400 * MEBIBYTE
    return found, steps, rows


Measured = tuple[Speeds, list[str], list[SpeedRow]]


def test_every_test_is_measured_as_often_as_asked(measured: Measured) -> None:
    speeds, _, _ = measured
    assert [row.test.name for row in speeds.rows] == NAMES
    assert {row.speed.n for row in speeds.rows} == {2}
    assert all(row.speed.mean > 0 for row in speeds.rows)


def test_steps_and_rows_are_told_as_they_come(measured: Measured) -> None:
    speeds, steps, rows = measured
    expected = ["first token", *NAMES]
    assert steps == [f"{name} {number} 7" for number, name in enumerate(expected, 1)]
    assert rows == list(speeds.rows)


def test_first_tokens_and_load_are_timed(measured: Measured) -> None:
    speeds, _, _ = measured
    assert speeds.first_token is not None
    assert speeds.first_token.n == 3
    assert speeds.load_seconds is not None
    assert 0 < speeds.load_seconds < 30


def test_the_peak_is_that_of_the_measuring_process(measured: Measured) -> None:
    memory = measured[0].memory
    assert memory is not None
    assert 0 < memory.growth_bytes < memory.peak_bytes < 400 * MEBIBYTE


def test_the_context_is_llama_benchs(measured: Measured) -> None:
    facts = measured[0].facts
    # As llama.cpp does it for llama-bench: no batch is larger than the tokens that there is room for.
    assert facts["micro_batch"] == facts["batch"] == 32 + 16
    assert facts["kv_types"] == ["f16", "f16"]
    assert (facts["flash_attention"], facts["repack"], facts["threads"]) == (True, True, 1)


def test_a_file_that_is_not_there_is_missing(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        measure_speed(tmp_path / "none.gguf", TINY, settings)


def test_a_file_that_cannot_be_loaded_never_reaches_the_measurement(
    settings: Settings, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(MedlocalError, match=r"damaged\.gguf"):
        measure_speed(damaged, TINY, settings)


def row_message(name: str) -> dict[str, Any]:
    test = next(test for test in TINY.tests if test.name == name)
    return {"row": asdict(SpeedRow(test, Repeated((100.0, 110.0))))}


def test_ctrl_c_keeps_the_rows_that_are_finished(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, settings: Settings
) -> None:
    def stopped(module: str, asked: object) -> Iterator[dict[str, Any]]:
        yield {"loaded": {"load_seconds": 1.5, "facts": {"threads": 1}}}
        yield row_message("pp16")
        yield row_message("tg4")
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, "messages", stopped)
    with pytest.raises(SpeedStopped) as raised:
        measure_speed(tiny, TINY, settings)
    speeds = raised.value.speeds
    assert [row.test.name for row in speeds.rows] == ["pp16", "tg4"]
    assert (speeds.load_seconds, speeds.first_token, raised.value.exit_code) == (1.5, None, 130)


def test_the_usual_figures_are_those_of_one_text_with_nothing_before(measured: Measured) -> None:
    speeds, _, _ = measured
    assert speeds.prompt == speeds.rows[0].speed
    assert speeds.generation == speeds.rows[1].speed
    assert Speeds(TINY).prompt is None


def test_a_weight_that_was_copied_counts_once() -> None:
    memory = PeakMemory(
        peak_bytes=1000, growth_bytes=900, copied_bytes=300, planned_bytes=500, gpu_bytes=0,
        planned_gpu_bytes=0,
    )  # fmt: skip
    assert (memory.needed_bytes, memory.ratio) == (600, 1.2)


def test_a_context_has_room_for_every_test_and_no_more() -> None:
    options = context_options(SpeedRequest(), num_threads=2)
    assert (options.num_cells, options.num_rows, options.num_texts) == (6144, 512, 32)
    assert options.kv_types == ("f16", "f16")


@pytest.mark.weights
@pytest.mark.slow
def test_the_demo_model_is_measured(demo_model: Path) -> None:
    request = SpeedRequest(
        prompt_tokens=64, new_tokens=8, depths=(0, 64), sequences=(1, 4), repetitions=2,
        num_first_tokens=2,
    )  # fmt: skip
    found = measure_speed(demo_model, request, load_settings())
    assert [row.test.name for row in found.rows] == [test.name for test in request.tests]
    one, four = found.row("generation"), found.row("generation", 0, 4)
    assert found.prompt is not None
    assert one is not None
    assert four is not None
    # A prompt's tokens are computed together; so are those of texts side by side.
    assert found.prompt.mean > one.speed.mean
    assert four.speed.mean > one.speed.mean
    assert found.memory is not None
    if not any(device.kind == "gpu" for device in libllama.devices()):
        assert found.memory.ratio == pytest.approx(1, abs=0.25)
