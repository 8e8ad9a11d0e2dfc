"""`medlocal quality` as a user types it."""

import ctypes
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medlocal import libllama
from medlocal.cli import quality as quality_command
from medlocal.cli.main import run
from medlocal.cli.quality import describe
from medlocal.weights import quality as quality_module
from medlocal.weights.quality_results import Quality
from tests.report.quality_values import a_report
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
        code = run(["quality", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two files whose headers are sound, and which hold no whole model."""
    return write_model(tmp_path / "a.gguf"), write_model(tmp_path / "b.gguf")


def test_an_output_of_another_kind_is_refused_before_anything_is_read(command: Command) -> None:
    code, _, err = command("/none.gguf", "/none2.gguf", "-o", "table.xlsx")
    assert code == 2
    assert ".svg" in err


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/nowhere/q.svg", "there is no folder /nowhere"),
        ("/proc/q.svg", "nothing can be written in /proc"),
    ],
)
def test_an_output_that_could_not_be_written_is_refused_before_anything_is_read(
    command: Command, output: str, message: str
) -> None:
    code, _, err = command("/none.gguf", "/none2.gguf", "-o", output)
    assert code == 2
    assert message in err


def test_an_output_that_is_a_folder_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "q.svg").mkdir()
    code, _, err = command("/none.gguf", "/none2.gguf", "-o", tmp_path / "q.svg")
    assert code == 2
    assert "q.svg is a folder" in err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_was_measured_is_shown_even_where_a_file_cannot_be_written(
    command: Command,
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """The folder goes while it measures."""
    (folder := tmp_path / "out").mkdir()

    def measured(request: object) -> Quality:
        folder.rmdir()
        return a_report(with_tasks=False).quality

    monkeypatch.setattr(quality_command, "_measure", measured)
    code, out, err = command(*pair, "--no-tasks", "-o", folder / "q.md", *options)
    assert code == 1
    assert "model-Q4_0" in out
    assert f"{folder / 'q.md'}: No such file or directory" in err


def test_ctrl_c_says_that_the_same_command_carries_on(
    command: Command, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quality_module, "measure", stopped)
    code, out, err = command(*pair, "--no-tasks")
    assert (code, out) == (130, "")
    assert "the same command carries on: what was computed of the reference is kept" in err


def test_a_text_may_have_its_language_in_capitals(
    command: Command, pair: tuple[Path, Path]
) -> None:
    code, _, err = command(*pair, "--text", "EN:/none.txt")
    assert code == 3
    assert "there is no text at /none.txt" in err


def test_a_file_that_is_not_there_is_missing(command: Command, pair: tuple[Path, Path]) -> None:
    code, _, err = command(pair[0], "/none.gguf")
    assert code == 3
    assert "/none.gguf" in err


def test_a_text_must_say_its_language(command: Command, pair: tuple[Path, Path]) -> None:
    code, _, err = command(*pair, "--text", "notes.txt")
    assert code == 2
    assert "en:FILE" in err


def test_a_file_with_another_vocabulary_is_refused(
    command: Command, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    other = write_model(tmp_path / "c.gguf", tokens=[*"abcdefg"])
    code, _, err = command(pair[0], other)
    assert code == 4
    assert "vocabulary" in err


def test_a_model_without_a_chat_template_can_be_measured_on_texts_only(
    command: Command, tmp_path: Path
) -> None:
    bare = [write_model(tmp_path / f"{name}.gguf", chat_template=None) for name in "ab"]
    code, _, err = command(*bare)
    assert code == 4
    assert "--no-tasks" in err


def test_an_unknown_suite_is_told_before_anything_is_measured(
    command: Command, pair: tuple[Path, Path]
) -> None:
    code, _, err = command(*pair, "--suite", "quik")
    assert code == 2
    assert "quick" in err


def test_progress_says_how_much_is_left() -> None:
    assert describe("model, en", 2_000, 8_000, 10.0) == (
        "model, en · 2,000/8,000 tokens · 200 tokens/s · 0:30 left"
    )


def test_progress_before_anything_is_known_is_what_is_done_now() -> None:
    assert describe("loading model", 0, None, 3.0) == "loading model"
    assert describe("loading model", 0, 8_000, 3.0) == "loading model · 0/8,000 tokens"


@pytest.mark.weights
@pytest.mark.slow
def test_the_whole_command_on_the_demo_model(
    command: Command, demo_model: Path, tmp_path: Path
) -> None:
    """Texts that ship, the quick suite, every kind of output; and again, from what was kept."""
    lib = libllama.library()
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = lib.LLAMA_FTYPE_MOSTLY_Q8_0, True
    reference = tmp_path / "demo-Q8_0.gguf"
    source, target = str(demo_model).encode(), str(reference).encode()
    assert lib.llama_model_quantize(source, target, ctypes.byref(params)) == 0
    outputs = [tmp_path / f"q.{kind}" for kind in ("svg", "png", "csv", "json", "md")]
    asked = [part for path in outputs for part in ("-o", path)]
    small = ("--chunks", 2, "--chunk-tokens", 128, "--limit", 2)
    code, out, err = command(reference, demo_model, *small, *asked, "--json")
    assert code == 0, err
    values = json.loads(out)
    assert [text["language"] for text in values["texts"]] == ["en", "es"]
    for found in values["files"][0]["languages"].values():
        # Q8_0 was made from the demo's Q4_1: what they differ by is the rounding to 8 bits.
        assert 0 < found["kld"]["value"] < 0.05
        assert found["num_positions"] == 126
    rows = values["tasks"]["rows"]
    assert {row["comparison"]["language"] for row in rows} == {"en", "es"}
    assert all(row["comparison"]["n"] == 2 for row in rows)
    assert all(path.stat().st_size > 500 for path in outputs)
    again = json.loads(command(reference, demo_model, *small, "--json")[1])
    assert again["references_reused"] == 2
    assert again["files"] == values["files"]
    assert again["tasks"]["rows"] == rows
