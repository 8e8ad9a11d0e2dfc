"""`medlocal bench` as a user types it, on a tiny model that is really measured."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medlocal.cli.benching import numbers
from medlocal.cli.main import run as run_command
from medlocal.errors import UsageError
from medlocal.run.child import messages
from tests.weights.tiny_llama import tiny_llama, u32

QUICK = (
    "--prompt-tokens", "16", "--new-tokens", "4", "--depths", "0", "--sequences", "1,2",
    "--repetitions", "3",
)  # fmt: skip
NAMES = ["pp16", "tg4", "tg4 x2"]


@dataclass
class Cli:
    """`medlocal bench`."""

    home: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capture.readouterr()
        code = run_command(["bench", *arguments])
        out, err = self.capture.readouterr()
        return code, out, err

    def json(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    @property
    def kept(self) -> list[Path]:
        return sorted((self.home / "bench").glob("*.json"))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    home = tmp_path / "home"
    monkeypatch.setenv("MEDLOCAL_HOME", str(home))
    monkeypatch.setenv("MEDLOCAL_THREADS", "1")
    return Cli(home, capsys)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A model that is small, and has room for a question."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_llama().changed(llama__context_length=u32(8192)).to_bytes())
    return str(path)


def test_the_tests_are_measured_printed_and_kept(cli: Cli, tiny: str) -> None:
    found = cli.json(tiny, *QUICK, "--no-suite")
    (model,) = found["models"]
    assert (model["name"], model["suite"]) == ("tiny", None)
    assert [row["name"] for row in model["speed"]["rows"]] == NAMES
    assert [row["tokens_per_second"]["n"] for row in model["speed"]["rows"]] == [3, 3, 3]
    (kept,) = cli.kept
    assert json.loads(kept.read_text(encoding="utf-8")) == found


def test_the_machine_stands_in_the_result(cli: Cli, tiny: str) -> None:
    machine = cli.json(tiny, *QUICK, "--no-suite")["machine"]
    assert {"processor", "cores", "memory_bytes", "llama_cpp", "flags", "devices"} <= set(machine)
    assert machine["threads"] == 1


def test_questions_are_asked_end_to_end_and_not_kept(cli: Cli, tiny: str) -> None:
    (model,) = cli.json(tiny, *QUICK, "--suite", "starter", "--limit", "1")["models"]
    suite = model["suite"]
    assert (suite["suite"], suite["num_items"], suite["num_answers"]) == ("starter", 2, 12)
    assert suite["answers_per_hour"]["mean"] > 0
    assert not (cli.home / "medlocal.db").exists()


def test_a_second_time_is_compared_with_the_first(cli: Cli, tiny: str) -> None:
    cli.json(tiny, *QUICK, "--no-suite")
    found = cli.json(tiny, *QUICK, "--no-suite", "--compare", "last")["comparison"]
    assert [change["what"] for change in found["changes"]] == [
        *NAMES, "first token", "load", "peak memory",
    ]  # fmt: skip
    rows = found["changes"][:3]
    assert all(row["ratio"]["low"] < row["ratio"]["value"] < row["ratio"]["high"] for row in rows)
    assert found["notes"] == []


def test_a_comparison_is_printed_and_written(cli: Cli, tiny: str, tmp_path: Path) -> None:
    cli(tiny, *QUICK, "--no-suite")
    written = tmp_path / "bench.md"
    code, out, _ = cli(
        tiny, *QUICK, "--no-suite", "--compare", cli.kept[0].stem, "-o", str(written)
    )
    assert code == 0
    assert "Now ÷ before" in out
    assert "| tiny | pp16 |" in written.read_text(encoding="utf-8")


def test_a_written_result_can_be_compared_with(cli: Cli, tiny: str, tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    assert cli(tiny, *QUICK, "--no-suite", "-o", str(written))[0] == 0
    found = cli.json(tiny, *QUICK, "--no-suite", "--compare", str(written))
    assert len(found["comparison"]["changes"]) == 6


def test_a_first_time_cannot_be_compared_and_nothing_is_measured(cli: Cli, tiny: str) -> None:
    code, out, err = cli(tiny, *QUICK, "--no-suite", "--compare", "last")
    assert (code, out) == (3, "")
    assert "no earlier result" in err
    assert cli.kept == []


def test_ctrl_c_keeps_and_prints_what_is_finished(
    cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(module: str, asked: dict[str, object]) -> Iterator[dict[str, Any]]:
        for message in messages(module, asked):
            yield message
            if "row" in message:
                raise KeyboardInterrupt

    monkeypatch.setattr("medlocal.run.speed.messages", stopped)
    code, out, err = cli(tiny, *QUICK, "--no-suite")
    assert code == 130
    assert "pp16" in out
    assert "stopped before all was measured" in out
    assert str(cli.kept[0]) in err
    assert json.loads(cli.kept[0].read_text(encoding="utf-8"))["stopped"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        ("--depths", "a"), ("--sequences", ""), ("--sequences", "0"), ("--repetitions", "0"),
        ("--suite-repetitions", "0"), ("-o", "bench.pdf"), ("--suite", "quikc"),
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2(cli: Cli, tiny: str, wrong: tuple[str, str]) -> None:
    assert cli(tiny, *wrong)[0] == 2


def test_a_model_named_twice_is_wrong(cli: Cli, tiny: str) -> None:
    assert cli(tiny, tiny, *QUICK)[0] == 2


def test_a_model_that_is_not_here_ends_with_3(cli: Cli, tmp_path: Path) -> None:
    assert cli(str(tmp_path / "none.gguf"), *QUICK)[0] == 3


def test_two_files_of_one_name_are_told_apart(cli: Cli, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "tiny.gguf"
    other.write_bytes(tiny_llama(seed=7).to_bytes())
    found = cli.json(tiny, str(other), *QUICK, "--no-suite")
    assert [model["name"] for model in found["models"]] == [f"{tmp_path.name}/tiny", "other/tiny"]


def test_without_a_template_it_says_how_to_measure_the_bare_speed(cli: Cli, tmp_path: Path) -> None:
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(tiny_llama().changed(tokenizer__chat_template=None).to_bytes())
    code, _, err = cli(str(bare), *QUICK)
    assert code == 4
    assert "--no-suite" in err
    assert cli(str(bare), *QUICK, "--no-suite")[0] == 0


def test_lists_of_numbers_are_read() -> None:
    assert numbers("0, 2048", "--depths") == (0, 2048)
    with pytest.raises(UsageError, match="--depths '1;2'"):
        numbers("1;2", "--depths")
