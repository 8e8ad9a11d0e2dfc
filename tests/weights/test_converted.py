"""The trial of a converted file: what it finds where the file is not what the checkpoint is."""

import dataclasses
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from medlocal.errors import MedlocalError, RefusedError
from medlocal.weights import convert as convert_module
from medlocal.weights.convert import ConvertRequest, convert
from medlocal.weights.converted import Expected, check_converted, differences
from medlocal.weights.sentences import SENTENCES
from medlocal.weights.source import CheckpointSource
from tests.weights.tiny_checkpoints import BY_NAME, DATA, make, weights, write_weights

BPE, PIECES = "Tiny-Llama-3.1-8B-Instruct", "Tiny-Llama-2-7b-chat"


@dataclasses.dataclass(frozen=True)
class Made:
    """A converted file, and what it must show."""

    path: Path
    expected: Expected

    def told(self, **changes: object) -> list[str]:
        """What differs where something else is expected."""
        expected = dataclasses.replace(self.expected, **changes)  # type: ignore[arg-type]
        return list(differences(self.path, expected, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    root = tmp_path_factory.mktemp("converted")
    patch = pytest.MonkeyPatch()
    found: dict[str, Made] = {}

    def keep(path: Path, expected: Expected, _num_threads: int) -> None:
        kept = root / f"{expected.folder.name}.gguf"
        kept.write_bytes(path.read_bytes())
        found[expected.folder.name] = Made(kept, expected)

    patch.setattr(convert_module, "check_converted", keep)
    for name in (BPE, PIECES):
        source = CheckpointSource(make(BY_NAME[name], root), name, name)
        convert(ConvertRequest(source, root / "out.gguf", replace=True))
    patch.undo()
    return found


@pytest.mark.parametrize("name", [BPE, PIECES])
def test_a_sound_file_shows_no_difference(made: dict[str, Made], name: str) -> None:
    assert made[name].told() == []


def test_the_sentences_are_forty_and_none_is_there_twice() -> None:
    assert len(set(SENTENCES)) == 40
    assert not any(text.startswith(" ") for text in SENTENCES)
    together = "".join(SENTENCES)
    assert set("ñáéíóú¿¡µβ°×⁹«»\n\t") <= set(together)
    assert all(sign in together for sign in ("  ", "\n\n", "'t", "...", "HbA1c", "38.7", "2,5"))


def test_another_number_of_tokens_is_told(made: dict[str, Made]) -> None:
    assert made[BPE].told(num_vocab=401) == ["it has 400 tokens and not 401"]


@pytest.mark.parametrize(("name", "found"), [("bos", 384), ("eos", 393), ("eot", 393)])
def test_another_special_token_is_told(made: dict[str, Made], name: str, found: int) -> None:
    (told,) = made[BPE].told(special_ids={name: 399})
    assert told == f"its {name.upper()} is token {found} and not 399"


def test_an_end_that_llama_cpp_does_not_know_is_told(made: dict[str, Made]) -> None:
    (told,) = made[BPE].told(ends=(385, 393, 390))
    assert told == "the checkpoint ends at token 390, and it does not"


def test_the_ends_of_generation_config_are_expected(made: dict[str, Made]) -> None:
    assert {385, 392, 393} <= set(made[BPE].expected.ends)


def test_a_tokenizer_that_cuts_otherwise_is_told_with_the_sentence(
    made: dict[str, Made], tmp_path: Path
) -> None:
    # A tokenizer without its merges makes single bytes of everything.
    text = (DATA / "tokenizer.json").read_text(encoding="utf-8")
    start, end = text.index('"merges": [') + len('"merges": ['), text.rindex("]")
    text = text[:start] + text[end:].replace("]", "]", 1)
    (tmp_path / "tokenizer.json").write_text(
        text.replace('"ignore_merges": true', '"ignore_merges": false'), encoding="utf-8"
    )
    told = made[BPE].told(folder=tmp_path)
    assert len(told) == len(SENTENCES)
    assert told[0].startswith("'A 67-year-old man")
    assert "in the checkpoint's own tokenizer" in told[0]


def test_numbers_that_are_not_finite_are_told(made: dict[str, Made], tmp_path: Path) -> None:
    recipe = BY_NAME[PIECES]
    folder = make(recipe, tmp_path)
    tensors = weights(recipe)
    tensors["lm_head.weight"] = np.full_like(tensors["lm_head.weight"], 3e38)
    write_weights(folder, tensors, "F32")
    source = CheckpointSource(folder, "x", "x")
    with pytest.raises(RefusedError, match="numbers that are not finite") as caught:
        convert(ConvertRequest(source, tmp_path / "out.gguf", "f32"))
    assert "was removed" in caught.value.message
    assert not list(tmp_path.glob("*gguf*"))


def test_a_file_that_llama_cpp_cannot_load_is_told(made: dict[str, Made], tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(made[BPE].path.read_bytes()[:2000])
    (told,) = differences(broken, made[BPE].expected, 2)
    assert "llama.cpp could not load" in told


def test_the_child_process_finds_the_same(made: dict[str, Made]) -> None:
    one = made[PIECES]
    check_converted(one.path, one.expected, 2)
    with pytest.raises(RefusedError) as caught:
        check_converted(one.path, dataclasses.replace(one.expected, num_vocab=7, ends=(5,)), 2)
    assert "it has 384 tokens and not 7; the checkpoint ends at token 5" in caught.value.message
    assert caught.value.hint


def interpreter(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return os.fspath(path)


def test_a_crash_refuses_the_file(
    made: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo GGML_ASSERT failed >&2; kill -SEGV $$"
    monkeypatch.setattr("sys.executable", interpreter(tmp_path, script))
    with pytest.raises(RefusedError, match=r"ended with SIGSEGV .*: GGML_ASSERT failed"):
        check_converted(made[BPE].path, made[BPE].expected, 2)


def test_a_trial_that_is_killed_is_no_fault_of_the_file(
    made: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", interpreter(tmp_path, "kill -KILL $$"))
    with pytest.raises(MedlocalError, match="was killed") as caught:
        check_converted(made[BPE].path, made[BPE].expected, 2)
    assert not isinstance(caught.value, RefusedError)
    assert "memory ran out" in str(caught.value.hint)


def test_a_trial_that_cannot_be_made_is_no_fault_of_the_file(
    made: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo ModuleNotFoundError: llama_cpp >&2; exit 1"
    monkeypatch.setattr("sys.executable", interpreter(tmp_path, script))
    with pytest.raises(MedlocalError, match=r"\(exit code 1\): ModuleNotFoundError") as caught:
        check_converted(made[BPE].path, made[BPE].expected, 2)
    assert not isinstance(caught.value, RefusedError)


def test_numbers_that_are_not_finite_are_laid_to_the_weights(tmp_path: Path) -> None:
    """The largest that bfloat16 holds are ordinary numbers, and what is computed with them is not."""
    tensors = dict(weights(BY_NAME[PIECES]))
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = np.full_like(tensors[name], 3e38)
    folder = make(BY_NAME[PIECES], tmp_path)
    write_weights(folder, tensors, "BF16")
    with pytest.raises(RefusedError) as caught:
        convert(ConvertRequest(CheckpointSource(folder, "x", "x"), tmp_path / "out.gguf"))
    assert caught.value.message == (
        f"{folder}: with these weights llama.cpp computes numbers that are not finite for an ordinary"
        " sentence; the converted file was removed"
    )
    assert caught.value.hint == (
        "the checkpoint is damaged, or its weights are too large to compute with: get it again, or"
        " ask its maker"
    )
