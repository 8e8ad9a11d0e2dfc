"""A checkpoint's way to a chosen quantisation and what it lost, by the four commands of the README."""

import json
from pathlib import Path
from typing import Any

import pytest

from medlocal.catalog import data_root
from medlocal.cli.main import run
from tests.weights.tiny_checkpoints import BY_NAME, make

TEXTS = data_root() / "benchmarks" / "texts"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDLOCAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(capsys: pytest.CaptureFixture[str], command: str) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    code = run([*command.split(), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def test_a_checkpoint_becomes_a_quantisation_that_says_where_it_comes_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(BY_NAME["Tiny-Llama-3.1-8B-Instruct"], folder)
    texts = f"--text en:{TEXTS / 'en.txt'} --text es:{TEXTS / 'es.txt'}"
    converted = done(capsys, "convert Tiny-Llama-3.1-8B-Instruct tiny-BF16.gguf --type bf16")
    matrix = done(
        capsys, f"imatrix tiny-BF16.gguf {texts} --chunks 8 --chunk-tokens 64 -o tiny.imatrix.gguf"
    )
    quantised = done(capsys, "quantize tiny-BF16.gguf Q8_0 Q4_0 --imatrix tiny.imatrix.gguf")
    measured = done(
        capsys,
        "quality tiny-BF16.gguf tiny-BF16-Q8_0.gguf tiny-BF16-Q4_0.gguf --chunks 4"
        " --chunk-tokens 64 --no-tasks -o quality.svg",
    )
    assert (converted["type"], converted["num_vocab"]) == ("bf16", 400)
    assert matrix["chunks"] == 8
    assert [row["type"] for row in quantised] == ["Q8_0", "Q4_0"]
    assert (folder / "quality.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert [file["name"] for file in measured["files"]] == ["tiny-BF16-Q8_0", "tiny-BF16-Q4_0"]
    for language in ("en", "es"):
        eight, four = (f["languages"][language]["kld"]["value"] for f in measured["files"])
        assert 0 < eight < four
    way = done(capsys, "models show tiny-BF16-Q4_0.gguf")["way"]
    assert way["source"] == "Tiny-Llama-3.1-8B-Instruct"
    assert way["parent_sha256"] == converted["sha256"]
    assert (way["imatrix_file"], way["imatrix_chunks"]) == ("tiny.imatrix.gguf", 8)
    assert (way["corpus_sha256"], way["corpus_shares"]) == (
        matrix["corpus_sha256"],
        "en=1/2 es=1/2",
    )
