"""`medlocal quick` as a user types it."""

import ctypes
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medlocal import libllama
from medlocal.cli.main import run
from tests.weights.gguf_files import write_model

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs it in a workspace of its own: exit code, stdout, stderr."""
    monkeypatch.setenv("MEDLOCAL_HOME", str(tmp_path / "home"))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["quick", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return call


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_a_budget_must_be_some_time(command: Command, minutes: str) -> None:
    code, _, err = command("/none.gguf", "--minutes", minutes)
    assert code == 2
    assert "--minutes" in err


def test_an_output_of_another_kind_is_refused_before_anything_is_read(command: Command) -> None:
    code, _, err = command("/none.gguf", "-o", "look.html")
    assert code == 2
    assert ".md or .json" in err


def test_a_file_that_is_not_there_is_missing(command: Command) -> None:
    code, _, err = command("/none.gguf")
    assert code == 3
    assert "/none.gguf" in err


def test_a_model_is_not_held_against_itself(command: Command, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    code, _, err = command(path, "--against", path)
    assert code == 2
    assert "named twice" in err


def test_nothing_is_held_against_a_model_that_cannot_be_asked(
    command: Command, tmp_path: Path
) -> None:
    one, bare = write_model(tmp_path / "a.gguf"), tmp_path / "b.gguf"
    write_model(bare, chat_template=None)
    code, _, err = command(one, "--against", bare)
    assert code == 4
    assert "no chat template" in err


@pytest.fixture
def demo_in(workspace: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in a workspace that sees the demo model."""
    monkeypatch.setenv("MEDLOCAL_HOME", str(workspace))
    return command


@pytest.mark.weights
@pytest.mark.slow
def test_a_look_at_the_demo_model_keeps_to_its_time_and_goes_on(
    demo_in: Command, tmp_path: Path
) -> None:
    outputs = [tmp_path / "look.md", tmp_path / "look.json"]
    asked = [part for path in outputs for part in ("-o", path)]
    began = time.monotonic()
    code, out, err = demo_in("smollm2-135m-instruct", "--minutes", 0.5, "--json", *asked)
    seconds = time.monotonic() - began
    assert code == 0, err
    assert seconds < 30 + 6, "a batch of this model, and reading what was answered, take no 6 s"
    values = json.loads(out)
    assert values == json.loads(outputs[1].read_text(encoding="utf-8"))
    assert outputs[0].read_text(encoding="utf-8").startswith("# Quick look at ")
    (model,) = values["models"]
    counted = {name: found["counted"] for name, found in model["questions"].items()}
    assert counted["en"] == counted["es"] > 0
    assert {(row["language"], row["arm"], row["n"]) for row in model["rows"]} == {
        (language, arm, counted[language])
        for language in ("en", "es")
        for arm in ("free", "grammar", "label")
    }
    assert model["speed"]["rows"][0]["tokens_per_second"]["mean"] > 1
    again = json.loads(demo_in("smollm2-135m-instruct", "--minutes", 0.5, "--json")[1])["models"][0]
    assert again["questions"]["en"]["counted"] > counted["en"]
    # A machine that is busy may have no time for it in one of the two.
    tests = [found["self_test"] for found in (model, again) if found["self_test"]]
    assert tests
    for test in tests:
        assert test["together"]["same_bits"] == test["together"]["n"] > 0
        assert test["alone"]["same_bits"] == test["alone"]["n"]


@pytest.mark.weights
@pytest.mark.slow
def test_two_files_stand_side_by_side_and_one_is_held_against_the_other(
    demo_in: Command, demo_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "demo-Q8_0.gguf"
    lib = libllama.library()
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = lib.LLAMA_FTYPE_MOSTLY_Q8_0, True
    source, target = str(demo_model).encode(), str(other).encode()
    assert lib.llama_model_quantize(source, target, ctypes.byref(params)) == 0
    code, out, err = demo_in(other, "--against", "smollm2-135m-instruct", "--minutes", 0.4)
    assert code == 0, err
    assert "against smollm2-135m-instruct, the same questions" in out
    verdicts = [line for line in out.split("\n") if line.startswith(("English", "Spanish"))]
    assert [line.split()[1] for line in verdicts] == 2 * ["free", "grammar", "label"]
    assert "no fast kernel" in out or "AVX2" not in libllama.build_info()["system"]


@pytest.mark.weights
@pytest.mark.slow
def test_a_model_without_a_template_is_measured_and_not_asked(
    demo_in: Command, demo_model: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.gguf"
    # The key's name is as long as the template's: the file stays sound, and has no template.
    content = demo_model.read_bytes().replace(
        b"tokenizer.chat_template", b"tokenizer.chat_xxxxxxxx", 1
    )
    bare.write_bytes(content)
    code, out, err = demo_in(bare, "--minutes", 0.2, "--json")
    assert code == 0, err
    values = json.loads(out)
    (model,) = values["models"]
    assert (values["run"], model["questions"]) == (None, {})
    assert model["speed"]["rows"][0]["tokens_per_second"]["mean"] > 1
    assert "no chat template" in model["warnings"][0]
