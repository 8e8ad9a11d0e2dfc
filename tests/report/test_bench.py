"""What is read of a benchmark, how two are compared, and what the report says."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from medlocal.engine.timing import Repeated
from medlocal.errors import UsageError
from medlocal.report.bench import bench_markdown, print_bench
from medlocal.report.bench_compare import compare_results, ratio_of
from medlocal.report.bench_results import BenchResults, read_results, results_of

SPEEDS = [100.0, 104.0, 98.0, 101.0, 97.0]


def row(values: list[float], depth: int = 0, num_texts: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "kind": "generation", "num_tokens": 128, "depth": depth, "num_texts": num_texts,
        "tokens_per_second": {"values": values}, "joules_per_token": None, **more,
    }  # fmt: skip


def prompt(values: list[float]) -> dict[str, Any]:
    return {**row(values), "kind": "prompt", "num_tokens": 512}


def model(name: str = "demo", sha256: str = "a" * 64, **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "sha256": sha256, "type": "Q4_0", "size_bytes": 100 * 2**20,
        "num_parameters": 135_000_000, "bits_per_weight": 4.6, "slow_types": {},
        "speed": {
            "rows": [prompt([1000.0, 1010.0]), row(SPEEDS), row([200.0, 300.0, 400.0], 2048, 8)],
            "first_token": {"prompt_tokens": 512, "seconds": {"values": [0.5, 0.5, 0.6]}},
            "load_seconds": 0.25,
            "memory": {
                "peak_bytes": 400 * 2**20, "needed_bytes": 220 * 2**20,
                "planned_bytes": 200 * 2**20, "gpu_bytes": 0, "planned_gpu_bytes": 0,
            },
            "facts": {
                "threads": 2, "batch": 512, "micro_batch": 512, "flash_attention": True,
                "kv_types": ["f16", "f16"], "repack": True, "layers_offloaded": 0,
            },
        },
        "suite": {
            "suite": "quick", "limit": 20, "datasets": ["starter"], "mode": "exact",
            "num_answers": 120, "num_items": 40, "answers_per_hour": {"values": [7200.0]},
            "runs": [{"efficiency": 0.9, "energy": None}],
        },
        **changes,
    }  # fmt: skip


def document(*models: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "format": 1, "when": "2026-01-02T03:04:05+00:00", "stopped": False,
        "machine": {
            "processor": "Toy CPU 9000", "cores": 2, "memory_bytes": 8 * 2**30, "system": "Linux",
            "llama_cpp": "0c1e57098", "flags": "AVX2 = 1", "devices": [], "load_average": 0.1,
        },
        "models": list(models) or [model()],
        **changes,
    }  # fmt: skip


def results(*models: dict[str, Any], **changes: Any) -> BenchResults:
    return results_of(document(*models, **changes))


def with_speeds(values: list[float]) -> dict[str, Any]:
    changed = model()
    changed["speed"] = {**changed["speed"], "rows": [row(values)]}
    return changed


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ([110.0, 115.0, 108.0, 111.0, 109.0], SPEEDS),
        ([50.0, 80.0, 65.0], [100.0, 101.0, 99.0, 100.5, 100.2]),
        ([1.0, 2.0], [3.0, 30.0]),
    ],
)
def test_the_interval_of_a_ratio_is_welchs_of_the_logarithms(
    new: list[float], old: list[float]
) -> None:
    logs_new, logs_old = ([math.log(x) for x in values] for values in (new, old))
    oracle = stats.ttest_ind(logs_new, logs_old, equal_var=False).confidence_interval(0.95)
    found = ratio_of(Repeated(tuple(new)), Repeated(tuple(old)))
    assert (found.low, found.high) == pytest.approx((math.exp(oracle.low), math.exp(oracle.high)))
    assert found.value == pytest.approx(stats.gmean(new) / stats.gmean(old))


def test_what_was_measured_once_has_a_ratio_without_an_interval() -> None:
    found = ratio_of(Repeated((3.0,)), Repeated((2.0, 2.0)))
    assert found.value == pytest.approx(1.5)
    assert (found.low, found.high) == (None, None)


def test_figures_that_do_not_vary_have_an_interval_without_width() -> None:
    found = ratio_of(Repeated((3.0, 3.0)), Repeated((2.0, 2.0)))
    assert (found.low, found.high) == (found.value, found.value)


def test_what_both_measured_alike_is_compared() -> None:
    found = compare_results(results(), results())
    assert [change.what for change in found.changes] == [
        "pp512", "tg128", "tg128 x8 @ d2048", "first token", "load", "peak memory", "suite quick",
    ]  # fmt: skip
    assert {change.ratio.value for change in found.changes} == {1.0}
    assert found.notes == ()


def test_another_file_is_not_compared() -> None:
    found = compare_results(results(model(sha256="b" * 64)), results())
    assert found.changes == ()
    assert found.notes == ("demo is not in the earlier result: no file there has its SHA-256",)


def test_other_settings_are_not_compared() -> None:
    changed = model()
    changed["speed"]["facts"] = {**changed["speed"]["facts"], "threads": 4}
    found = compare_results(results(changed), results())
    assert found.changes == ()
    assert found.notes == ("demo is not compared, for it ran otherwise: threads 2 → 4",)


def test_another_test_is_not_compared() -> None:
    changed = model()
    changed["speed"]["rows"] = [{**row(SPEEDS), "num_tokens": 64}]
    found = compare_results(results(changed), results())
    assert "tg64" not in [change.what for change in found.changes]


def test_other_questions_are_not_compared() -> None:
    changed = model()
    changed["suite"] = {**changed["suite"], "limit": 10}
    found = compare_results(results(changed), results())
    assert "suite quick" not in [change.what for change in found.changes]
    assert "other ones were asked" in found.notes[0]


def test_another_machine_is_compared_and_told() -> None:
    other = document()
    other["machine"] = {**other["machine"], "processor": "Other CPU", "llama_cpp": "1234567"}
    found = compare_results(results(), results_of(other))
    assert len(found.changes) == 7
    assert found.notes == (
        "the two were not measured on the same machine and build: processor, llama.cpp differ",
    )


@pytest.mark.parametrize(
    ("speeds", "verdict"),
    [([150.0, 151.0, 152.0], "better"), ([50.0, 51.0, 52.0], "worse"), (SPEEDS, "")],
)
def test_a_verdict_needs_an_interval_without_one(speeds: list[float], verdict: str) -> None:
    new, old = results(with_speeds(speeds)), results(with_speeds(SPEEDS))
    (line,) = table_lines(bench_markdown(new, compare_results(new, old)), "| demo | tg128 ")
    assert line.rsplit("|", 2)[1].strip() == verdict


def test_less_time_is_better() -> None:
    quick = model()
    quick["speed"]["first_token"] = {
        "prompt_tokens": 512, "seconds": {"values": [0.1, 0.11, 0.1]},
    }  # fmt: skip
    new = results(quick)
    (line,) = table_lines(
        bench_markdown(new, compare_results(new, results())), "| demo | first token"
    )
    assert line.endswith("| better |")


def table_lines(text: str, beginning: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(beginning)]


def test_a_row_says_mean_deviation_and_how_often() -> None:
    (line,) = table_lines(bench_markdown(results()), "| tg128 |")
    assert line == "| tg128 | 100.0 | 2.7 | 5 | 10.00 |  |"


def test_a_row_that_varies_is_marked() -> None:
    (line,) = table_lines(bench_markdown(results()), "| tg128 x8 @ d2048 |")
    assert line.endswith("| UNSTABLE |")


def test_energy_has_its_columns_only_where_it_was_counted() -> None:
    assert "J per token" not in bench_markdown(results())
    counted = model()
    counted["speed"]["rows"] = [
        row(SPEEDS, joules_per_token={"joules": 0.5, "above_idle": 0.25}), row(SPEEDS, 2048)
    ]  # fmt: skip
    text = bench_markdown(results(counted))
    assert "| J per token | above idle |" in text
    (line,) = table_lines(text, "| tg128 |")
    assert line == "| tg128 | 100.0 | 2.7 | 5 | 10.00 | 0.5 | 0.25 |  |"


def test_load_first_token_memory_and_questions_are_told() -> None:
    text = bench_markdown(results())
    assert "load: 0.25 s" in text
    assert "prompt of 512 tokens: p50 500.0 ms, p95 590.0 ms (n = 3)" in text
    assert "220.0 MiB, planned 200.0 MiB (taken ÷ planned 1.10)" in text
    assert "7,200 per hour (n = 1), suite quick, 40 items asked 120 times, exact mode" in text


def test_lower_clocks_of_a_gpu_are_told() -> None:
    throttled = model()
    throttled["speed"]["gpus"] = [
        {"name": "Toy GPU", "busy": 0.875, "mean_watts": 250.4, "throttled": ["power limit"]}
    ]
    assert (
        "Toy GPU while the tests ran: busy 87.5 %; 250 W on average; ! lower clocks because of: power"
        " limit"
    ) in bench_markdown(results(throttled))


def test_several_models_stand_side_by_side() -> None:
    text = bench_markdown(results(model(), model("other", "b" * 64)))
    rows = table_lines(text, "| demo |") + table_lines(text, "| other |")
    assert rows[0] == (
        "| demo | 100.0 MiB 4.60 | 0.25 | 1,005 ± 7 | 100.0 ± 2.7 | 500 | 400.0 MiB | 7,200 |"
    )
    assert len(rows) == 2
    assert "Models side by side" not in bench_markdown(results())


def test_a_busy_machine_a_stop_and_slow_types_are_warned_of() -> None:
    busy = document(model(slow_types={"Q4_1": "row by row"}), stopped=True)
    busy["machine"]["load_average"] = 1.7
    text = bench_markdown(results_of(busy))
    assert "! the machine was busy before: its load over the last minute was 1.7" in text
    assert "! stopped before all was measured" in text
    assert "! slow type Q4\\_1: row by row" in text


def test_a_model_that_was_stopped_at_once_is_shown_without_figures() -> None:
    text = bench_markdown(results(model(speed=None, suite=None), stopped=True))
    assert "100.0 MiB" in text
    assert "tokens/s" not in text


def test_the_terminals_lines_are_not_wider_than_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rich.console import Console

    found = results(model(), model("another-8b-Q4_K_M", "b" * 64))
    print_bench(found, compare_results(found, found), Console(width=80))
    out = capsys.readouterr().out
    tables = [line for line in out.splitlines() if "another-8b" in line or "tg128" in line]
    assert tables
    assert max(len(line) for line in tables) <= 80


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(document()))
    assert read_results(path) == results()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"x"', json.dumps({"format": 1})])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"bench\.json"):
        read_results(path)


def test_a_figure_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="not above 0"):
        results(with_speeds([0.0]))


def test_another_format_is_refused() -> None:
    with pytest.raises(UsageError, match="format is 2"):
        results_of(document(format=2))
