"""The benchmark for GPUs, on the CPU and small shapes: models of random weights, stages that may fail."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from benchmarks.perf import gpu, gpu_model
from benchmarks.perf.gpu_model import random_blocks, write_model
from benchmarks.perf.gpu_stages import Setting, bench
from medlocal.libllama import LlamaModel
from medlocal.weights.inspect import read_gguf
from tests.weights.tiny_llama import write_tiny_llama


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "vocabulary.gguf")


@pytest.mark.parametrize(
    ("name", "block_bytes"), [("Q8_0", 34), ("Q4_K", 144), ("Q6_K", 210), ("BF16", 2)]
)
def test_random_weights_are_finite_and_as_large_as_real_ones(name: str, block_bytes: int) -> None:
    raw = random_blocks(name, 300_000)
    rows = raw[: len(raw) // block_bytes * block_bytes].reshape(-1, block_bytes)
    weights = dequantize(rows, gguf.GGMLQuantizationType[name])
    assert np.isfinite(weights).all()
    assert weights.std() == pytest.approx(0.02, rel=0.1)
    assert abs(weights.mean()) < 0.002


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M", "BF16"])
def test_a_model_is_loaded_by_llama_cpp(tmp_path: Path, vocabulary: Path, kind: str) -> None:
    path = write_model(tmp_path / "model.gguf", kind, vocabulary, tiny=True)
    info = read_gguf(path)
    assert (info.num_layers, info.num_heads, info.num_kv_heads) == (4, 4, 2)
    with LlamaModel(path, gpu_layers=0) as model, LlamaModel(vocabulary, gpu_layers=0) as other:
        assert model.num_vocab == other.num_vocab
        assert model.tokenize(b"hello") == other.tokenize(b"hello")


def test_q4_k_m_has_the_mixture_of_types_that_llama_cpp_writes(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = replace(gpu_model.hyperparameters(tiny=True), num_layers=32)
    monkeypatch.setattr(gpu_model, "hyperparameters", lambda *, tiny: deep)
    info = read_gguf(write_model(tmp_path / "model.gguf", "Q4_K_M", vocabulary, tiny=True))
    six = {t.name for t in info.tensors if t.type == "Q6_K"}
    # As in the published Q4_K_M of Llama 3.1 8B.
    layers = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert six == {"output.weight"} | {
        f"blk.{layer}.{name}.weight" for layer in layers for name in ("attn_v", "ffn_down")
    }


def a_run(tmp_path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    output = tmp_path / "gpu.json"
    folder = tmp_path / "models"
    given = ["--cpu", "--tiny", "--folder", str(folder), "-o", str(output), *more]
    code = gpu.main(given)
    return code, json.loads(output.read_text(encoding="utf-8"))


def test_a_stage_that_fails_is_recorded_and_the_next_goes_on(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.gguf"
    code, found = a_run(tmp_path, "--vocab", str(nothing), "--stages", "models,identical")
    assert code == 1
    assert found["stages"]["models"]["state"] == "failed (1)"
    assert "nothing.gguf" in found["stages"]["models"]["error"]
    assert found["stages"]["identical"]["state"] == "failed (1)"


def test_a_stage_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    found = gpu.run_stage("models", ["--cpu", "--tiny", "--folder", str(tmp_path)], 0.05)
    assert found["state"] == "too slow"


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    code, found = a_run(tmp_path, "--seconds", "5", "--stages", "models")
    assert code == 1
    assert found["stages"] == {"models": {"state": "no time left"}}


def a_bench(tmp_path: Path, script: str) -> Setting:
    """A setting with a stand-in for llama-bench."""
    program = tmp_path / "llama-bench"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return Setting(tmp_path, tmp_path, 2, 12, 60, program, cpu=True, tiny=True)


def test_llama_bench_waits_as_we_do_and_the_result_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    row = '{"n_depth": 0, "n_prompt": %s, "n_gen": %s, "avg_ts": %s}'
    rows = f"[{row % (64, 0, 12.5)}, {row % (0, 32, 3.5)}]"
    script = f"test \"$OMP_WAIT_POLICY\" = passive && echo '{rows}'"
    found = bench(a_bench(tmp_path, script), "Q8_0")
    assert (found["prompt"], found["generation"], found["waiting"]) == (12.5, 3.5, "passive")


def test_a_llama_bench_that_fails_says_why(tmp_path: Path) -> None:
    setting = a_bench(tmp_path, "echo 'no such model' >&2; exit 1")
    assert bench(setting, "Q8_0") == {"error": "no such model\n"}


@pytest.mark.slow
def test_models_are_made_measured_and_asked_with_less_memory(
    tmp_path: Path, vocabulary: Path
) -> None:
    stages = "models,work Q4_K_M,recovery"
    code, found = a_run(tmp_path, "--vocab", str(vocabulary), "--stages", stages)
    assert code == 0, found
    work = found["stages"]["work Q4_K_M"]["result"]
    assert {work[arm]["answered"] for arm in ("label", "free", "grammar")} == {12}
    assert work["together"]["answered"] == 36
    # Behind the 40 shared tokens each question has 20, of which a small vocabulary shares some by chance.
    assert 240 < work["label"]["unique_prompt_tokens"] <= 40 + 12 * 20
    recovery = found["stages"]["recovery"]["result"]
    assert recovery["answered"] == recovery["asked"] == 12
    assert recovery["context"]["notices"]
    assert recovery["in_the_middle"]["answered"] == 12
    assert recovery["in_the_middle"]["notices"]
    assert found["machine"]["result"]["build"]["commit"]
