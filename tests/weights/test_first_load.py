"""The first load: what the child finds in a real file, and what the parent makes of how it ends."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medlocal.errors import MedlocalError, RefusedError
from medlocal.weights import first_load as module
from medlocal.weights.first_load import LoadLimits, first_load
from tests.weights.tiny_llama import string, tiny_llama, tiny_llama_2, write_tiny_llama

LIMITS = LoadLimits(seconds=60, memory_bytes=2**29)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "tiny.gguf")


def child(code: str) -> list[str]:
    """A child that runs some code in place of the load."""
    return [sys.executable, "-c", f"import json, os, signal, sys\n{code}"]


# Real loads.


def test_a_sound_file_is_loaded(path: Path) -> None:
    loaded = first_load(path)
    assert (loaded.num_vocab, loaded.ends) == (264, (260, 262))  # </s> by its text, <|im_end|> too
    assert 0 < loaded.seconds < 60


def test_a_sentencepiece_vocabulary_is_gone_through_too(tmp_path: Path) -> None:
    loaded = first_load(write_tiny_llama(tmp_path / "two.gguf", tiny_llama_2()))
    assert (loaded.num_vocab, loaded.ends) == (264, (2,))


def test_what_llama_cpp_refuses_is_refused_with_its_words(tmp_path: Path) -> None:
    recipe = tiny_llama().changed(tokenizer__ggml__pre=string("nonsense"))
    path = write_tiny_llama(tmp_path / "odd.gguf", recipe)
    with pytest.raises(RefusedError, match="unknown pre-tokenizer type: 'nonsense'"):
        first_load(path)


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    recipe = tiny_llama()
    tensors = list(recipe.tensors)
    tensors[1] = replace(tensors[1], data=np.full(32, np.nan, "<f4").tobytes())
    path = write_tiny_llama(tmp_path / "nan.gguf", replace(recipe, tensors=tuple(tensors)))
    with pytest.raises(RefusedError, match="no numbers"):
        first_load(path)


def test_a_file_that_kills_llama_cpp_kills_the_child_alone(tmp_path: Path) -> None:
    # This tokenizer goes back to the first letter of a text for ever, when no token ends where its
    # vocabulary does: memory fills until the child's limit.
    recipe = tiny_llama().changed(tokenizer__ggml__model=string("rwkv"))
    path = write_tiny_llama(tmp_path / "endless.gguf", recipe)
    with pytest.raises(
        RefusedError, match=r"crashed \(SIGABRT\) while going through its vocab"
    ) as caught:
        first_load(path, LIMITS)
    assert "bad_alloc" in caught.value.message


def test_the_child_finds_the_package_wherever_it_is_started(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder of another's with a package of this name must not be taken for this one.
    (tmp_path / "medlocal").mkdir()
    (tmp_path / "medlocal" / "__init__.py").write_text("raise SystemExit(9)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert first_load(path).num_vocab == 264


# How a child may end.


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE"])
def test_a_crash_is_told_with_the_step_and_the_last_words(path: Path, name: str) -> None:
    code = (
        "print(json.dumps({'step': 'opening it'}), flush=True)\n"
        "print('ggml.c:7: GGML_ASSERT(\\x1bx) failed', file=sys.stderr, flush=True)\n"
        f"os.kill(os.getpid(), signal.{name})"
    )
    with pytest.raises(RefusedError) as caught:
        first_load(path, LIMITS, child(code))
    assert caught.value.message == (
        f"{path}: llama.cpp crashed ({name}) while opening it: ggml.c:7: GGML_ASSERT( x) failed"
    )


def test_a_hang_is_ended_and_told(path: Path) -> None:
    code = (
        "print(json.dumps({'step': 'computing with it'}), flush=True)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pause()"
    )
    limits = replace(LIMITS, seconds=1)
    with pytest.raises(RefusedError, match=r"did not .* within 1 s, and was computing with it"):
        first_load(path, limits, child(code))


def test_too_much_processor_time_is_a_hang(path: Path) -> None:
    code = "os.kill(os.getpid(), signal.SIGXCPU)"
    with pytest.raises(RefusedError, match="did not come to an end"):
        first_load(path, LIMITS, child(code))


def test_a_child_that_was_killed_says_nothing_about_the_file(path: Path) -> None:
    code = "os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(MedlocalError, match="was killed while starting") as caught:
        first_load(path, LIMITS, child(code))
    assert not isinstance(caught.value, RefusedError)
    assert "memory" in (caught.value.hint or "")


def test_a_child_that_fails_by_itself_says_nothing_about_the_file(path: Path) -> None:
    with pytest.raises(MedlocalError, match="failed: ImportError: no such thing") as caught:
        first_load(path, LIMITS, child("raise ImportError('no such thing')"))
    assert not isinstance(caught.value, RefusedError)


def test_a_child_that_ends_without_a_verdict_has_failed(path: Path) -> None:
    for said in ("", "not json", "[1]", '{"step": "opening it"}'):
        with pytest.raises(MedlocalError, match="failed: no reason given"):
            first_load(path, LIMITS, child(f"print({said!r})"))


def test_a_machine_that_starts_no_child_is_told_and_nothing_is_skipped(path: Path) -> None:
    with pytest.raises(MedlocalError, match="cannot be started") as caught:
        first_load(path, LIMITS, [str(path.parent / "no-such-python")])
    assert not isinstance(caught.value, RefusedError)


def test_the_child_gets_no_graphics_card_and_no_debugger(path: Path) -> None:
    code = (
        "names = ('CUDA_VISIBLE_DEVICES', 'GGML_NO_BACKTRACE')\n"
        "said = [os.environ[name] for name in names]\n"
        "print(json.dumps({'num_vocab': 1, 'ends': said}))"
    )
    assert [str(said) for said in first_load(path, LIMITS, child(code)).ends] == ["", "1"]


# Limits.


def test_the_limits_grow_with_the_file() -> None:
    small, large = LoadLimits.of(0), LoadLimits.of(16 * 10**9)
    assert (small.seconds, small.memory_bytes) == (60, 4 * 2**30)
    assert (large.seconds, large.memory_bytes) == (860, 4 * 2**30 + 16 * 10**9)


def test_a_process_bounds_its_memory_its_time_and_its_core(path: Path) -> None:
    code = (
        f"import resource; sys.path[:] = {sys.path!r}\n"
        f"from {module.__name__} import bound\n"
        "bound(2.5, 123_000_000)\n"
        "kinds = (resource.RLIMIT_CORE, resource.RLIMIT_DATA, resource.RLIMIT_CPU)\n"
        "print(json.dumps({'num_vocab': 0, 'ends': [resource.getrlimit(k)[0] for k in kinds]}))"
    )
    threads = len(os.sched_getaffinity(0))
    ends = first_load(path, LIMITS, child(code)).ends
    assert ends == (0, 123_000_000, int(2.5 * threads) + 1)


def test_the_child_ends_with_one_line_of_json(path: Path) -> None:
    command = [sys.executable, "-m", module.__name__, str(path), json.dumps([60, 2**30])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [step.get("step") for step in steps] == [
        "opening it", "going through its vocabulary", "computing with it", None,
    ]  # fmt: skip
    assert steps[-1] == {"num_vocab": 264, "ends": [260, 262]}
