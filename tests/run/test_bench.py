"""A benchmark's document: what stands in it, where it is kept, how it is found again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medlocal.engine.timing import Repeated, SpeedRow
from medlocal.errors import MedlocalError, MissingError
from medlocal.run import bench as bench_module
from medlocal.run.bench import BenchRequest, bench_and_keep, bench_folder, find_result, keep
from medlocal.run.bench_machine import describe_machine, processor_name
from medlocal.run.bench_suite import SuiteRun, SuiteSpeed, SuiteStopped
from medlocal.run.spec import RunSpec
from medlocal.run.speed import SpeedRequest, Speeds, SpeedStopped
from medlocal.settings import Settings
from tests.weights.tiny_llama import write_tiny_llama

TINY = SpeedRequest(16, 4, (0,), (1,), repetitions=2)
ROWS = tuple(SpeedRow(test, Repeated((90.0, 110.0))) for test in TINY.tests)
SPEC = RunSpec("quick", "first", ("starter",), ("en",), ())
RUN = SuiteRun(
    num_answers=60, num_errors=1, num_items=20, seconds=30.0, peak_memory_bytes=1, mode="exact",
    efficiency=0.9, energy=None,
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def request_of_two(tmp_path: Path) -> BenchRequest:
    paths = [write_tiny_llama(tmp_path / f"{name}.gguf") for name in ("first", "second")]
    return BenchRequest(tuple((path.stem, path) for path in paths), TINY)


def measuring(monkeypatch: pytest.MonkeyPatch, how: Callable[[Path], Speeds]) -> None:
    monkeypatch.setattr(bench_module, "measure_speed", lambda path, *rest: how(path))


def asking(monkeypatch: pytest.MonkeyPatch, how: Callable[[RunSpec], SuiteSpeed]) -> None:
    monkeypatch.setattr(bench_module, "measure_suite", lambda name, path, spec, *rest: how(spec))


def test_each_model_is_measured(
    monkeypatch: pytest.MonkeyPatch, request_of_two: BenchRequest, settings: Settings
) -> None:
    measuring(monkeypatch, lambda path: Speeds(TINY, ROWS, load_seconds=1.0))
    document, _ = bench_and_keep(request_of_two, settings)
    assert [model["name"] for model in document["models"]] == ["first", "second"]
    row = document["models"][1]["speed"]["rows"][0]
    assert (row["name"], row["tokens_per_second"]["mean"]) == ("pp16", 100.0)
    assert (document["stopped"], document["models"][0]["suite"]) == (False, None)


def test_what_is_kept_is_the_document(
    monkeypatch: pytest.MonkeyPatch, request_of_two: BenchRequest, settings: Settings
) -> None:
    measuring(monkeypatch, lambda path: Speeds(TINY, ROWS))
    document, kept = bench_and_keep(request_of_two, settings)
    assert kept.parent == settings.home / "bench"
    assert json.loads(kept.read_text(encoding="utf-8")) == json.loads(json.dumps(document))


def test_ctrl_c_keeps_finished_models_and_finished_rows(
    monkeypatch: pytest.MonkeyPatch, request_of_two: BenchRequest, settings: Settings
) -> None:
    def measure(path: Path) -> Speeds:
        if path.stem == "second":
            raise SpeedStopped(Speeds(TINY, ROWS[:1]))
        return Speeds(TINY, ROWS)

    measuring(monkeypatch, measure)
    document, kept = bench_and_keep(request_of_two, settings)
    assert [len(model["speed"]["rows"]) for model in document["models"]] == [2, 1]
    assert document["stopped"] is True
    assert kept.is_file()


def test_ctrl_c_while_questions_are_asked_keeps_the_speed_and_finished_runs(
    monkeypatch: pytest.MonkeyPatch, request_of_two: BenchRequest, settings: Settings
) -> None:
    def stop(spec: RunSpec) -> SuiteSpeed:
        raise SuiteStopped(SuiteSpeed(spec, (RUN,)))

    measuring(monkeypatch, lambda path: Speeds(TINY, ROWS))
    asking(monkeypatch, stop)
    document, _ = bench_and_keep(replace(request_of_two, spec=SPEC), settings)
    (model,) = document["models"]
    assert len(model["speed"]["rows"]) == 2
    assert model["suite"]["answers_per_hour"]["values"] == [7200.0]


def test_an_error_keeps_what_was_finished_before(
    monkeypatch: pytest.MonkeyPatch, request_of_two: BenchRequest, settings: Settings
) -> None:
    def measure(path: Path) -> Speeds:
        if path.stem == "second":
            raise MedlocalError("memory ran out", hint="free some")
        return Speeds(TINY, ROWS)

    measuring(monkeypatch, measure)
    with pytest.raises(MedlocalError, match="memory ran out") as raised:
        bench_and_keep(request_of_two, settings)
    (kept,) = bench_folder(settings).iterdir()
    assert raised.value.hint == f"free some; finished: {kept}"


def test_each_model_is_asked_alone(
    monkeypatch: pytest.MonkeyPatch, request_of_two: BenchRequest, settings: Settings
) -> None:
    specs: list[RunSpec] = []

    def ask(spec: RunSpec) -> SuiteSpeed:
        specs.append(spec)
        return SuiteSpeed(spec, (RUN, replace(RUN, seconds=60.0)))

    measuring(monkeypatch, lambda path: Speeds(TINY, ROWS))
    asking(monkeypatch, ask)
    document, _ = bench_and_keep(
        replace(request_of_two, spec=replace(SPEC, more_models=("second",))), settings
    )
    assert [(Path(spec.model).stem, spec.more_models) for spec in specs] == [
        ("first", ()), ("second", ()),
    ]  # fmt: skip
    suite = document["models"][0]["suite"]
    assert suite["answers_per_hour"]["mean"] == 5400.0
    assert (suite["num_answers"], suite["num_items"], suite["mode"]) == (60, 20, "exact")


def document(when: str, sha256: str) -> dict[str, Any]:
    return {"when": when, "models": [{"sha256": sha256}]}


def test_two_results_of_one_second_do_not_replace_each_other(settings: Settings) -> None:
    paths = [keep(document("2026-01-02T03:04:05+00:00", name), settings) for name in "abc"]
    assert [path.name for path in paths] == [
        "20260102T030405Z.json", "20260102T030405Z-2.json", "20260102T030405Z-3.json",
    ]  # fmt: skip


def test_last_is_the_newest_result_with_one_of_the_models(settings: Settings) -> None:
    keep(document("2026-01-01T00:00:00+00:00", "mine"), settings)
    newest = keep(document("2026-01-02T00:00:00+00:00", "mine"), settings)
    keep(document("2026-01-03T00:00:00+00:00", "another"), settings)
    assert find_result("last", ["mine", "new"], settings) == newest


def test_last_is_missing_where_the_models_were_never_measured(settings: Settings) -> None:
    keep(document("2026-01-01T00:00:00+00:00", "another"), settings)
    with pytest.raises(MissingError, match="no earlier result"):
        find_result("last", ["mine"], settings)


def test_a_result_is_found_by_its_name_and_by_its_path(settings: Settings, tmp_path: Path) -> None:
    kept = keep(document("2026-01-01T00:00:00+00:00", "mine"), settings)
    for name in (str(kept), kept.name, kept.stem):
        assert find_result(name, [], settings) == kept
    with pytest.raises(MissingError, match=r"nothing\.json"):
        find_result(str(tmp_path / "nothing.json"), [], settings)


def test_the_processors_name_is_read(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Toy CPU 9000\nflags\t: fpu\n")
    assert processor_name(cpuinfo) == "Toy CPU 9000"


def test_the_machine_is_described_by_what_decides_the_figures(settings: Settings) -> None:
    found = describe_machine(settings)
    assert found["memory_bytes"] > 0
    assert found["cores"] >= 1
    assert len(found["llama_cpp"]) >= 7
    assert [device["kind"] for device in found["devices"]].count("cpu") == 1
    json.dumps(found)
