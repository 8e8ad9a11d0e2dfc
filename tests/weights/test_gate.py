"""The gate as a whole: what is checked when, what is remembered, and what is not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medlocal import libllama
from medlocal.errors import MissingError, RefusedError
from medlocal.settings import Settings
from medlocal.weights import gate
from medlocal.weights.first_load import Loaded
from medlocal.weights.gate import Gate, admit, examine, remembered_gates
from medlocal.weights.inspect import read_gguf
from tests.weights.gguf_files import CHATML
from tests.weights.test_template import SMOLLM2
from tests.weights.tiny_llama import string, tiny_llama, u32, write_tiny_llama


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "tiny.gguf")


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were loaded, by a child that is not started."""
    seen: list[Path] = []

    def load(path: Path) -> Loaded:
        seen.append(path)
        return Loaded(264, (262,), 1.234)

    monkeypatch.setattr(gate, "first_load", load)
    build_is(monkeypatch, "abc123")
    return seen


def build_is(monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    monkeypatch.setattr(libllama, "build_info", lambda: {"commit": commit})


def memory(here: Settings) -> Path:
    return here.home / "gate.json"


def test_a_file_that_passes_says_what_and_when(
    path: Path, here: Settings, loads: list[Path]
) -> None:
    passed = admit(path, here)
    assert loads == [path]
    assert passed.passed == ("header", "metadata and tensors", "chat template", "first load")
    assert (passed.commit, passed.warnings, passed.ends) == ("abc123", (), (262,))
    assert passed.seconds == 1.23
    assert passed.when.endswith("+00:00")


def test_a_file_is_loaded_once(path: Path, here: Settings, loads: list[Path]) -> None:
    assert admit(path, here) == admit(path, here)
    assert len(loads) == 1


def test_a_copy_is_the_same_file(path: Path, here: Settings, loads: list[Path]) -> None:
    admit(path, here)
    copy = path.with_name("copy.gguf")
    copy.write_bytes(path.read_bytes())
    admit(copy, here)
    assert loads == [path]


def test_another_file_is_loaded(
    path: Path, here: Settings, loads: list[Path], tmp_path: Path
) -> None:
    admit(path, here)
    other = write_tiny_llama(tmp_path / "other.gguf", tiny_llama(seed=2))
    admit(other, here)
    admit(path, here)
    assert loads == [path, other]


def test_another_build_of_llama_cpp_loads_again_and_both_are_remembered(
    path: Path, here: Settings, loads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    admit(path, here)
    build_is(monkeypatch, "def456")
    admit(path, here)
    build_is(monkeypatch, "abc123")
    admit(path, here)
    assert len(loads) == 2
    assert [known.commit for known in remembered_gates(memory(here))] == ["abc123", "def456"]


def test_another_version_of_the_gate_looks_again(
    path: Path, here: Settings, loads: list[Path]
) -> None:
    admit(path, here)
    (entry,) = json.loads(memory(here).read_bytes())
    memory(here).write_text(json.dumps([entry | {"version": 0}]), encoding="utf-8")
    admit(path, here)
    assert len(loads) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"{", b"{}", b"[1, null]", b'[{"version": 1}]', b'[{"version": 1, "x": 2}]',
    ],
)  # fmt: skip
def test_a_damaged_memory_costs_a_load(
    path: Path, here: Settings, loads: list[Path], content: bytes
) -> None:
    here.home.mkdir()
    memory(here).write_bytes(content)
    admit(path, here)
    admit(path, here)
    assert len(loads) == 1


@pytest.mark.parametrize(
    "change", [{"passed": ["header"]}, {"sha256": 1}, {"ends": None}, {"warnings": "none"}]
)
def test_an_entry_that_no_gate_wrote_lets_nothing_through(
    path: Path, here: Settings, loads: list[Path], change: dict[str, object]
) -> None:
    admit(path, here)
    (entry,) = json.loads(memory(here).read_bytes())
    memory(here).write_text(json.dumps([entry | change]), encoding="utf-8")
    admit(path, here)
    assert len(loads) == 2


def test_what_was_remembered_is_read_back_as_it_was(
    path: Path, here: Settings, loads: list[Path]
) -> None:
    passed = admit(path, here)
    assert remembered_gates(memory(here)) == (passed,)
    assert isinstance(passed, Gate)


def test_a_refusal_is_not_remembered(
    path: Path, here: Settings, loads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Loaded:
        raise RefusedError("it crashed")

    with monkeypatch.context() as patch:
        patch.setattr(gate, "first_load", refuse)
        with pytest.raises(RefusedError, match="it crashed"):
            admit(path, here)
    assert not memory(here).exists()
    admit(path, here)
    assert loads == [path]


def test_the_load_is_announced(path: Path, here: Settings, loads: list[Path]) -> None:
    told: list[str] = []
    admit(path, here, lambda description, done, total: told.append(description))
    admit(path, here, lambda description, done, total: told.append(description))
    assert told.count("first load of tiny.gguf in a process of its own") == 1


def test_a_missing_file_is_missing(here: Settings, tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        admit(tmp_path / "none.gguf", here)


# What is refused before any load.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.alignment": u32(3)}, "not a power of two"),
        ({"llama.block_count": u32(3)}, "no tensors for layer 2"),
        ({"tokenizer.chat_template": string(CHATML + "{% include 'x' %}")}, "another template"),
        ({"tokenizer.ggml.bos_token_id": u32(999)}, "outside its 264 tokens"),
    ],
    ids=["header", "metadata", "template", "tokens"],
)
def test_what_python_refuses_is_never_loaded(
    here: Settings,
    loads: list[Path],
    tmp_path: Path,
    changes: dict[str, tuple[int, bytes]],
    message: str,
) -> None:
    path = write_tiny_llama(tmp_path / "bad.gguf", tiny_llama().changed(**changes))
    with pytest.raises(RefusedError, match=message):
        admit(path, here)
    assert loads == []


def test_a_base_model_has_no_template_to_refuse(
    here: Settings, loads: list[Path], tmp_path: Path
) -> None:
    recipe = tiny_llama().changed(tokenizer__chat_template=None)
    assert admit(write_tiny_llama(tmp_path / "base.gguf", recipe), here).warnings == ()


# What is told.


def test_warnings_of_the_template_are_kept(
    here: Settings, loads: list[Path], tmp_path: Path
) -> None:
    talkative = "You know all that was written until 2023. " + SMOLLM2
    recipe = tiny_llama().changed(tokenizer__chat_template=string(talkative))
    (warning,) = admit(write_tiny_llama(tmp_path / "smol.gguf", recipe), here).warnings
    assert warning.startswith("the chat template puts words of its own into every conversation")
    (remembered,) = remembered_gates(memory(here))
    assert remembered.warnings == (warning,)


def test_bytes_behind_the_last_tensor_are_told(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(1000))
    assert examine(read_gguf(path)) == ("1,000 bytes follow the last tensor, which nothing reads",)


def test_padding_behind_the_last_tensor_is_none(tmp_path: Path) -> None:
    recipe = tiny_llama()
    last = recipe.tensors[-1]
    odd = replace(last, name="blk.1.attn_q.bias", shape=(1,), data=bytes(4))
    path = write_tiny_llama(tmp_path / "odd.gguf", replace(recipe, tensors=(*recipe.tensors, odd)))
    assert examine(read_gguf(path)) == ()


# Everything real.


def test_a_file_goes_through_the_whole_gate(path: Path, here: Settings) -> None:
    passed = admit(path, here)
    assert passed.ends == (260, 262)
    assert passed.commit == libllama.build_info()["commit"]


@pytest.mark.weights
def test_the_demo_model_passes(demo_model: Path, here: Settings) -> None:
    passed = admit(demo_model, here)
    assert passed.ends == (0, 2, 4)  # <|endoftext|>, <|im_end|>, and <reponame> as llama.cpp has it
    assert passed.warnings == ()


def test_a_memory_that_cannot_be_kept_costs_a_load_and_no_answer(
    path: Path, here: Settings, loads: list[Path]
) -> None:
    here.home.write_bytes(b"")  # where a folder would have to be
    assert admit(path, here).commit == "abc123"
    assert admit(path, here).commit == "abc123"
    assert loads == [path, path]
