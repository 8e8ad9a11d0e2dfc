"""`medlocal convert` as a user types it."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medlocal.catalog import HubSource, ModelCard
from medlocal.cli.converting import card_differences
from medlocal.cli.main import run as run_command
from medlocal.hub import pull_model
from medlocal.settings import load_settings
from medlocal.weights import source as source_module
from medlocal.weights.convert import Converted
from medlocal.weights.inspect import read_gguf
from medlocal.weights.source import CheckpointSource
from tests.hub.conftest import COMMIT, FakeHub
from tests.weights.tiny_checkpoints import BY_NAME, make

LLAMA31 = "Tiny-Llama-3.1-8B-Instruct"


@dataclass
class Cli:
    """`medlocal convert`, in a folder of its own."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self.capture.readouterr()
        code = run_command(["convert", *map(str, arguments)])
        out, err = self.capture.readouterr()
        return code, out, err


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("MEDLOCAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make(BY_NAME[LLAMA31], tmp_path)


CARD = ModelCard(
    id="tiny",
    name="Tiny",
    repo="owner/Tiny-Llama",
    base="",
    role="clinical",
    languages=("en",),
    licence="unknown",
    licence_read="",
    source=HubSource("owner/Tiny-Llama", "", ("*.safetensors", "*.json", "tokenizer*", "*.md")),
    parameters=113_000,
)


def test_it_ends_with_what_the_file_is(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    code, out, _ = cli(checkpoint, "out.gguf", "--type", "q8_0")
    assert code == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    written = Path("out.gguf").read_bytes()
    template = read_gguf("out.gguf").chat_template
    assert template is not None
    assert facts == {
        "path": "out.gguf",
        "size": f"{len(written) / 2**10:,.1f} KiB ({len(written):,} bytes)",
        "sha256": hashlib.sha256(written).hexdigest(),
        "name": "Tiny Llama 3.1 8B Instruct",
        "architecture": "llama",
        "parameters": "112,968",
        "type": "q8_0",
        "vocabulary": "400 tokens",
        "pre-tokenizer": "llama-bpe",
        "template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "licence": "llama3.1",
        "languages": "es, en",
    }


def test_json_stands_alone_on_stdout(cli: Cli, checkpoint: Path) -> None:
    code, out, err = cli(checkpoint, ".", "--json")
    values = json.loads(out)
    assert code == 0
    assert values["path"] == "Tiny-Llama-3.1-113K-8b-Instruct-BF16.gguf"
    assert (values["type"], values["num_vocab"], values["card"]) == ("bf16", 400, {})
    assert "writing Tiny-Llama-3.1-113K-8b-Instruct-BF16.gguf" in err


def test_notes_are_narration(cli: Cli, tmp_path: Path) -> None:
    folder = make(BY_NAME["Tiny-Mistral-7B-v0.1"], tmp_path)
    code, out, err = cli(folder, "out.gguf")
    assert code == 0
    assert "note: the model attends to its last 32 tokens only" in err
    assert "note:" not in out


def test_a_pre_tokenizer_can_be_forced(cli: Cli, checkpoint: Path) -> None:
    code, _, err = cli(checkpoint, "out.gguf", "--pre", "no-such-thing")
    assert code == 2
    assert "no-such-thing" in err
    assert not Path("out.gguf").exists()


def test_a_forced_pre_tokenizer_that_cuts_otherwise_fails_its_trial(
    cli: Cli, checkpoint: Path
) -> None:
    code, _, err = cli(checkpoint, "out.gguf", "--pre", "gpt-2")
    assert code == 4
    assert "in the checkpoint's own tokenizer" in err
    assert "the tokenizer is not gpt-2's" in err
    assert not list(Path().glob("*gguf*"))


def test_a_file_that_is_there_needs_force(cli: Cli, checkpoint: Path) -> None:
    Path("out.gguf").write_bytes(b"another")
    code, _, err = cli(checkpoint, "out.gguf")
    assert (code, "--force" in err) == (2, True)
    assert cli(checkpoint, "out.gguf", "--force")[0] == 0


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), 3, "has no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), 3, "tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{", "utf-8"), 4, "is not JSON"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            4,
            "a pickle",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), 4, "has 0 bytes"),
    ],
)
def test_each_kind_of_bad_checkpoint_has_its_exit_code(
    cli: Cli, checkpoint: Path, change: Any, code: int, message: str
) -> None:
    change(checkpoint)
    ended, out, err = cli(checkpoint, "out.gguf")
    assert (ended, out) == (code, "")
    assert message in err
    assert not list(Path().glob("*gguf*"))


def test_stopped_by_the_user_it_leaves_nothing(
    cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medlocal.weights.convert.check_converted", stop)
    code, out, err = cli(checkpoint, "out.gguf")
    assert (code, out) == (130, "")
    assert err.endswith(f"stopped\n  → do the same again: medlocal convert {checkpoint} out.gguf\n")
    assert not list(Path().glob("*gguf*"))


def test_what_a_card_says_otherwise_is_shown_as_lines_of_its_file(
    cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    pull_model(CARD, load_settings(), client=FakeHub(files=files))
    monkeypatch.setattr(source_module, "model_cards", lambda: {"tiny": CARD})
    code, out, _ = cli("tiny", "out.gguf")
    assert code == 0
    template = read_gguf("out.gguf").chat_template
    assert template is not None
    assert out.splitlines()[-11:] == [
        "",
        "--- models/tiny.toml",
        "+++ what was converted",
        "-parameters = 113_000",
        "+parameters = 112_968",
        f'+template_sha256 = "{hashlib.sha256(template.encode()).hexdigest()}"',
        '-licence = "unknown"',
        '+licence = "llama3.1"',
        '-languages = ["en"]',
        '+languages = ["es", "en"]',
        f'+licence_read = "README.md of owner/Tiny-Llama at {COMMIT}"',
    ]


def test_what_the_file_does_not_say_is_no_difference() -> None:
    source = CheckpointSource(Path("x"), "x", "x", card=CARD)
    silent = Converted(
        path=Path("x"), size=1, sha256="", name="", architecture="llama", type="f16",
        num_parameters=113_000, num_tensors=1, num_vocab=1, pre="", template_sha256="", licence="",
        languages=("de",), notes=(),
    )  # fmt: skip
    assert card_differences(source, silent) == {}


def test_the_script_is_the_same_command(checkpoint: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "tools" / "convert.py"
    command = [sys.executable, str(script), str(checkpoint), str(tmp_path / "out.gguf"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["path"] == str(tmp_path / "out.gguf")
