"""Questions per hour: every run asks all anew, in a process of its own."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from medlocal.engine.timing import Energy
from medlocal.run import bench_suite, make_spec
from medlocal.run.bench_suite import SuiteRun, SuiteSpeed, SuiteStopped, measure_suite
from medlocal.run.child import Message
from medlocal.settings import Settings
from tests.weights.tiny_llama import tiny_llama, u32

RUN = SuiteRun(
    num_answers=60, num_errors=0, num_items=20, seconds=30.0, peak_memory_bytes=1, mode="fast",
    efficiency=None, energy=Energy(2.0, 1.0),
)  # fmt: skip


def test_questions_per_hour_are_answers_by_the_time_of_the_whole_run() -> None:
    assert RUN.per_hour == 7200


def test_a_stop_carries_the_finished_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stopped(module: str, asked: object) -> Iterator[Message]:
        yield {"progress": "loading 0/60"}
        yield {"run": asdict(RUN)}
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_suite, "messages", stopped)
    spec = make_spec("starter", "toy", settings=Settings(tmp_path))
    lines: list[str] = []
    with pytest.raises(SuiteStopped) as raised:
        measure_suite("toy", tmp_path, spec, Settings(tmp_path), 3, lines.append)
    assert raised.value.suite == SuiteSpeed(spec, (RUN,))
    assert lines == ["loading 0/60"]


def test_every_run_asks_all_of_it_and_keeps_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", threads=1)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_llama().changed(llama__context_length=u32(8192)).to_bytes())
    spec = make_spec(
        "starter", str(path), limit=1, languages=("en",), formats=("letter",), arms=("label",),
        settings=settings,
    )  # fmt: skip
    found = measure_suite("tiny", path, spec, settings, repetitions=2)
    assert [run.num_answers for run in found.runs] == [1, 1]
    assert not settings.store_path.exists()
