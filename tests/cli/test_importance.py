"""`medlocal imatrix` as a user types it."""

import hashlib
import json
import re
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from medlocal.cli import importance
from medlocal.cli.importance import describe
from medlocal.cli.main import run as run_command
from medlocal.weights import gate
from medlocal.weights.imatrix import ImatrixProgress
from medlocal.weights.importance import read_importance
from tests.weights.tiny_mixture import write_tiny_mixture

DATA = Path(__file__).parents[1] / "data"
ENGLISH, SPANISH = f"en:{DATA / 'clinical_en.txt'}", f"es:{DATA / 'clinical_es.txt'}"


@pytest.fixture(scope="module")
def tiny_mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_mixture(tmp_path_factory.mktemp("mixture") / "mixture.gguf")


@dataclass
class Cli:
    """`medlocal imatrix` on the tiny mixture, in a folder of its own."""

    model: Path
    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capture.readouterr()
        code = run_command(["imatrix", str(self.model), *arguments])
        out, err = self.capture.readouterr()
        return code, out, err


@pytest.fixture
def cli(
    tiny_mixture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    monkeypatch.setenv("MEDLOCAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Cli(tiny_mixture, tmp_path, capsys)


def test_the_report_names_what_was_computed(cli: Cli) -> None:
    code, out, err = cli(
        *("--text", ENGLISH, "--text", SPANISH, "--share", "es=0.25"),
        *("--chunk-tokens", "64", "--chunks", "8"),
    )

    assert code == 0
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert facts["importance matrix"] == "mixture.imatrix.gguf"
    assert facts["chunks"] == "8 of 64 tokens"
    assert facts["text en"] == "384 tokens, share 0.75"
    assert facts["text es"] == "128 tokens, share 0.25"
    assert facts["weights"] == "16"
    assert facts["experts never used"].startswith("blk.0.ffn_gate_exps.weight (1), ")
    assert re.search(r"chunk 8/8 · [\d,]+ tokens/s", err)
    assert read_importance(cli.folder / "mixture.imatrix.gguf").num_chunks == 8


def test_equal_shares_are_said(cli: Cli) -> None:
    _, _, err = cli("--text", ENGLISH, "--text", SPANISH, "--chunk-tokens", "64", "--chunks", "2")

    assert "en and es have equal shares of the chunks; --share says otherwise" in err


def test_json_is_all_of_stdout(cli: Cli) -> None:
    code, out, _ = cli("--text", ENGLISH, "--chunk-tokens", "64", "--chunks", "2", "--json")

    values = json.loads(out)
    assert code == 0
    assert values["path"] == "mixture.imatrix.gguf"
    assert values["tokens"] == {"en": 128}
    assert values["shares"] == {"en": 1.0}
    assert values["never_used"]["blk.1.ffn_up_exps.weight"] == 1
    assert values["without_entry"] == []


def test_text_may_come_without_a_language(cli: Cli) -> None:
    _, out, _ = cli(
        "--text", str(DATA / "clinical_en.txt"), "--chunk-tokens", "64", "--chunks", "1"
    )

    assert re.search(r"^text +64 tokens, share 1$", out, re.MULTILINE)


def test_a_text_that_ends_first_is_said(cli: Cli) -> None:
    short = cli.folder / "short.txt"
    short.write_text("Niega alergias a medicamentos. Refiere dolor torácico opresivo.\n", "utf-8")

    _, _, err = cli("--text", ENGLISH, "--text", f"es:{short}", "--chunk-tokens", "64")

    assert re.search(
        r"the es text ended first, so to keep the shares \d+ chunks of en were not used", err
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--text", "es:none.txt"], 3, "there is no text at none.txt"),
        (["--text", ENGLISH, "--share", "en"], 2, "--share 'en' is no share"),
        (["--text", ENGLISH, "--share", "en=1/0"], 2, "--share 'en=1/0' is no share"),
        (["--text", ENGLISH, "--share", "en=1", "--share", "en=1"], 2, "is stated twice"),
        (["--text", ENGLISH, "--threads", "0"], 2, "--threads must be at least 1"),
        (["--text", ENGLISH, "--chunks", "0"], 2, "a number of chunks must be at least 1"),
        (["--text", ENGLISH, "--threads", "99999"], 2, "99,999 threads: between 1 and 512"),
        (["--text", ENGLISH, "--chunk-tokens", "15"], 2, "chunks of 15 tokens are too short"),
        (["--text", ENGLISH, "-o", "none/m.gguf"], 2, "there is no folder none"),
        ([], 2, "--text"),
    ],
)
def test_a_wrong_request_has_its_code_and_its_reason(
    cli: Cli, arguments: list[str], code: int, message: str
) -> None:
    found, out, err = cli(*arguments)

    assert (found, out) == (code, "")
    assert message in err


def test_a_wrong_request_is_told_before_the_model_is_hashed_or_loaded(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("it was admitted")

    monkeypatch.setattr(gate, "admit", fail)
    assert cli("--text", ENGLISH, "--chunk-tokens", "15")[0] == 2


def test_a_language_may_be_written_in_capitals(cli: Cli) -> None:
    text = ENGLISH.replace("en:", "EN:", 1)
    code, out, _ = cli("--text", text, "--share", "EN=1", "--chunk-tokens", "64", "--chunks", "1")
    assert code == 0
    assert re.search(r"^text en +64 tokens, share 1$", out, re.MULTILINE)


def test_a_matrix_is_shown_as_one_and_not_as_a_model(cli: Cli) -> None:
    options = ("--text", ENGLISH, "--text", SPANISH, "--chunk-tokens", "64", "--chunks", "2")
    assert cli(*options, "-o", "m.gguf")[0] == 0

    assert run_command(["models", "show", "m.gguf", "--json"]) == 0
    found = json.loads(cli.capture.readouterr().out)
    assert found["kind"] == "an importance matrix, not a model"
    assert (found["weights"], found["chunks"], found["chunk_tokens"]) == (16, 2, 64)
    assert found["texts"] == ["en:clinical_en.txt", "es:clinical_es.txt"]
    assert found["shares"] == ["en=1/2", "es=1/2"]
    assert found["model_sha256"] == hashlib.sha256(cli.model.read_bytes()).hexdigest()

    assert run_command(["inspect", "m.gguf"]) == 4
    assert "m.gguf is an importance matrix, not a model" in cli.capture.readouterr().err


def test_progress_is_one_line() -> None:
    line = describe(ImatrixProgress(done=30, total=7500, num_tokens=10 * 512, seconds=64.0), 512)

    assert line == "chunk 30/7,500 · 80 tokens/s · 13:16:48 left"


def test_ctrl_c_ends_with_130_and_the_command_that_carries_on(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = cli.folder / "my notes.txt"
    text.write_bytes((DATA / "clinical_en.txt").read_bytes())
    options = ["--text", f"en:{text}", "--text", SPANISH, "--share", "es=1/3"]
    options += ["--chunk-tokens", "64", "--chunks", "5", "-o", "my matrix.gguf"]

    def press_ctrl_c(progress: ImatrixProgress, chunk_tokens: int) -> str:
        signal.raise_signal(signal.SIGINT)
        return describe(progress, chunk_tokens)

    with monkeypatch.context() as patch:
        patch.setattr(importance, "describe", press_ctrl_c)
        code, out, err = cli(*options)

    assert (code, out) == (130, "")
    assert "stopped after 1 of 5 chunks, which are kept in my matrix.gguf.partial" in err
    again = re.search(r"carry on: medlocal (.*)$", err, re.MULTILINE)
    assert again is not None
    assert run_command([*shlex.split(again[1]), "--json"]) == 0
    values = json.loads(cli.capture.readouterr().out)
    assert (values["path"], values["resumed_at"], values["chunks"]) == ("my matrix.gguf", 1, 5)
