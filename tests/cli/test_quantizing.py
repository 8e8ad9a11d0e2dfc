"""`medlocal quantize` as a user types it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from medlocal.cli.main import run as run_command
from medlocal.files import Progress
from medlocal.weights import quantize as quantize_module
from medlocal.weights.inspect import read_gguf
from medlocal.weights.quantize import Plan, Quantised
from tests.processes import heed_ctrl_c
from tests.weights.float_llama import MODELS, write_float_llama


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("plain", "narrow", "grouped"):
        write_float_llama(folder / f"{name}.gguf", MODELS[name])
        MODELS[name].write_importance(folder / f"{name}.imatrix.gguf")
    return folder


@dataclass
class Cli:
    """`medlocal quantize`, in a folder of its own."""

    models: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, model: str, *arguments: str) -> tuple[int, str, str]:
        self.capture.readouterr()
        code = run_command(["quantize", str(self.models / f"{model}.gguf"), *arguments])
        out, err = self.capture.readouterr()
        return code, out, err


@pytest.fixture
def cli(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    monkeypatch.setenv("MEDLOCAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Cli(models, capsys)


def test_a_table_names_what_was_made(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("plain", "Q4_K_M", "q8_0", "-o", "out")
    assert code == 0
    lines = [line.split() for line in out.splitlines()[2:]]
    made = [tmp_path / "out" / f"plain-{name}.gguf" for name in ("Q4_K_M", "Q8_0")]
    assert [line[0] for line in lines] == ["out/plain-Q4_K_M.gguf", "out/plain-Q8_0.gguf"]
    assert [read_gguf(path).file_type for path in made] == ["Q4_K_M", "Q8_0"]
    assert "quantising to Q4_K_M" in err


def test_the_prediction_is_told_before(cli: Cli) -> None:
    _, out, err = cli("plain", "Q8_0")
    size = next(line.split()[1:3] for line in out.splitlines() if line.startswith("plain"))
    assert f"Q8_0: {' '.join(size)}, 8.52 bits per weight (predicted)" in err
    assert "memory: " in err


def test_json_holds_all_that_is_known(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("narrow", "Q4_K_M", "--json")
    assert code == 0
    (made,) = json.loads(out)
    path = tmp_path / "narrow-Q4_K_M.gguf"
    assert made.pop("seconds") > 0
    assert made.pop("bits_per_weight") == pytest.approx(read_gguf(path).bits_per_weight)
    assert made.pop("ratio") == pytest.approx(
        path.stat().st_size / (cli.models / "narrow.gguf").stat().st_size
    )
    assert abs(made.pop("predicted_bytes") - path.stat().st_size) <= 64
    assert made == {
        "type": "Q4_K_M",
        "path": "narrow-Q4_K_M.gguf",
        "num_bytes": path.stat().st_size,
        "warnings": [
            "16 of 21 tensors have rows that blocks of 256 do not divide: 13 became Q5_0,"
            " 3 became Q8_0"
        ],
    }


def test_warnings_are_told_before_and_not_in_the_table(cli: Cli) -> None:
    _, out, err = cli("plain", "MXFP4_MOE")
    assert "! no tensor of this model becomes MXFP4" in err
    assert out.splitlines()[0].split() == [
        "path", "size", "bits", "per", "weight", "of", "source", "seconds"
    ]  # fmt: skip
    assert max(map(len, out.splitlines())) <= 80


def test_a_matrix_is_used_and_named(cli: Cli, tmp_path: Path) -> None:
    matrix = cli.models / "plain.imatrix.gguf"
    code, _, _ = cli("plain", "IQ4_XS", "--imatrix", str(matrix))
    assert code == 0
    metadata = read_gguf(tmp_path / "plain-IQ4_XS.gguf").metadata
    assert metadata["quantize.imatrix.entries_count"] == 14


def test_tensors_are_kept_in_other_types(cli: Cli, tmp_path: Path) -> None:
    options = ("--keep", "attn_v=Q8_0", "--output-type", "F16", "--token-embedding-type", "Q6_K")
    code, _, _ = cli("plain", "Q4_0", *options)
    assert code == 0
    types = {tensor.name: tensor.type for tensor in read_gguf(tmp_path / "plain-Q4_0.gguf").tensors}
    assert types["blk.1.attn_v.weight"] == "Q8_0"
    assert (types["output.weight"], types["token_embd.weight"]) == ("F16", "Q6_K")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("Q4_KM",), 2, "no type of quantisation is called 'Q4_KM'"),
        (("IQ1_S",), 2, "IQ1_S needs an importance matrix"),
        (("Q8_0", "--threads", "0"), 2, "--threads must be at least 1"),
        (("Q8_0", "--threads", "99999"), 2, "99,999 threads: between 1 and 512 are possible"),
        (("Q8_0", "-o", "/proc/version"), 2, "/proc/version is no folder"),
        (("Q8_0", "-o", "/proc/version/out"), 2, "/proc/version is no folder"),
        (("Q8_0", "--keep", "nothing"), 2, "no PATTERN=TYPE"),
        (("Q4_0", "--keep", "(?i)attn_v=F16"), 2, "(?i means something else to llama.cpp"),
        (("Q8_0", "--imatrix", "none.gguf"), 3, "no importance matrix at none.gguf"),
    ],
)
def test_what_is_wrong_is_told_with_its_exit_code(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended, out, err = cli("plain", *arguments)
    assert (ended, out) == (code, "")
    assert message in err
    assert not list(tmp_path.glob("*.gguf"))


def test_a_quantised_file_is_refused_and_taken_when_asked(cli: Cli, tmp_path: Path) -> None:
    cli("plain", "Q8_0")
    (tmp_path / "plain-Q8_0.gguf").rename(cli.models / "small.gguf")
    code, _, err = cli("small", "Q4_0")
    assert code == 4
    assert "--allow-requantize" in err
    code, _, err = cli("small", "Q4_0", "--allow-requantize")
    assert code == 0
    assert "made from Q8_0, whose losses stay in it" in err


def test_a_result_that_is_there_is_replaced_only_when_forced(cli: Cli) -> None:
    assert cli("plain", "Q8_0")[0] == 0
    code, _, err = cli("plain", "Q8_0")
    assert code == 2
    assert "plain-Q8_0.gguf is there already" in err
    assert cli("plain", "Q8_0", "--force")[0] == 0


def test_stopping_says_how_to_make_the_rest(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = quantize_module.quantize

    def stopped_after_one(plan: Plan, progress: Progress) -> Iterator[Quantised]:
        yield next(real(plan, progress))
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize_module, "quantize", stopped_after_one)
    code, out, err = cli("plain", "Q8_0", "Q4_0", "F16", "--keep", "attn_v=Q6_K", "--threads", "2")
    assert (code, out) == (130, "")
    assert "made: plain-Q8_0.gguf" in err
    model = cli.models / "plain.gguf"
    command = f"medlocal quantize {model} Q4_0 F16 -o . --keep attn_v=Q6_K --threads 2"
    assert f"carry on: {command}" in err


def test_a_part_that_a_killed_process_left_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".plain-Q8_0.gguf.0a1b2c3d.part").write_bytes(b"half of it")
    code, _, err = cli("plain", "Q8_0")
    assert code == 0
    assert ".plain-Q8_0.gguf.0a1b2c3d.part was left by a quantisation that was killed" in err


def test_ctrl_c_ends_it_at_once_with_nothing_under_the_final_name(cli: Cli, tmp_path: Path) -> None:
    model, matrix = cli.models / "grouped.gguf", cli.models / "grouped.imatrix.gguf"
    command = [sys.executable, "-m", "medlocal", "quantize", str(model), "IQ3_XXS"]
    command += ["--imatrix", str(matrix)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, cwd=tmp_path, text=True, preexec_fn=heed_ctrl_c
    ) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if line.startswith("quantising to"):
                os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, told
    assert f"carry on: medlocal quantize {model} IQ3_XXS" in told[-1]
    assert not list(tmp_path.glob("*.gguf*"))
    assert not list(tmp_path.glob(".*part"))
