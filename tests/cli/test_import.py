"""A hospital's spreadsheet becomes a set, or nothing is imported and every bad row is told."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from medlocal.cli.main import run as run_command

HEADER = ["Nº", "Pregunta", "A", "B", "C", "D", "Respuesta correcta", "Especialidad"]
ROWS: list[list[Any]] = [
    [1, "¿Qué vitamina falta en el escorbuto?", "A", "B12", "C", "D", "C", "nutrición"],
    [2, "Primera línea en la anafilaxia:", "Adrenalina", "Corticoide", "Té", "Suero", "A", "urgencias"],
]  # fmt: skip
BAD: list[list[Any]] = [
    [3, None, "a", "b", "c", "d", "A", "x"],
    [4, "¿Una sola opción?", "a", None, None, None, "A", "x"],
    [5, "¿Dos buenas?", "a", "b", "c", "d", "A y C", "x"],
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDLOCAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def workbook(path: Path, rows: list[list[Any]]) -> str:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (HEADER, *rows):
        sheet.append(row)
    book.save(path)
    return str(path)


class Ended:
    """How a command ended."""

    def __init__(self, capture: pytest.CaptureFixture[str], *arguments: str) -> None:
        capture.readouterr()
        self.code = run_command(list(arguments))
        self.out, self.err = capture.readouterr()


def test_a_spreadsheet_becomes_a_set_named_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workbook(tmp_path / "Preguntas Ágiles.xlsx", ROWS)
    ended = Ended(capsys, "data", "import", file, "--language", "es", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["id"], told["rows"], told["items"], told["gold"]) == (
        "preguntas-agiles", 2, 2, "letter",
    )  # fmt: skip
    shown = json.loads(Ended(capsys, "data", "show", "preguntas-agiles", "--json").out)
    assert (shown["items"], shown["gold"], shown["languages"]) == (2, {"A": 1, "C": 1}, ["es"])
    assert shown["per_language"]["es"]["subjects"] == {"nutrición": 1, "urgencias": 1}
    assert shown["origin"]["files"][0]["name"] == "Preguntas Ágiles.xlsx"


def test_every_bad_row_is_told_and_nothing_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    file = workbook(tmp_path / "malas.xlsx", ROWS + BAD)
    ended = Ended(capsys, "data", "import", file, "--language", "es")
    assert ended.code == 2
    assert f"{file}:4: the question is empty" in ended.err
    assert f"{file}:5: 1 options" in ended.err
    assert f"{file}:6: several right answers" in ended.err
    assert "3 of 5 rows cannot be imported, and so none was" in ended.err
    assert not list(home.glob("data/malas/*.json*"))


def test_the_sound_rows_are_imported_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workbook(tmp_path / "malas.xlsx", ROWS + BAD)
    ended = Ended(
        capsys, "data", "import", file, "--language", "es", "--skip-bad", "--multi", "first-only",
        "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["items"], told["bad"], told["skipped_multiple"]) == (2, 2, 1)
    assert [bad["row"] for bad in told["bad_rows"]] == [4, 5]


def test_numbers_that_could_count_from_0_or_1_are_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "latin.csv"
    text = "Pregunta;A;B;C;Respuesta\n¿Cuál es el músculo?;Bíceps;Fémur;Hígado;1\n"
    path.write_bytes(text.encode("latin-1"))
    ended = Ended(capsys, "data", "import", str(path), "--language", "es")
    assert ended.code == 2
    assert "--gold zero-based|one-based" in ended.err
    assert Ended(
        capsys, "data", "import", str(path), "--language", "es", "--gold", "one-based"
    ).code == 0  # fmt: skip
    assert Ended(capsys, "data", "export", "latin", str(tmp_path / "out.jsonl")).code == 0
    line = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert line["options"] == ["Bíceps", "Fémur", "Hígado"]


def test_a_name_of_medlocals_own_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workbook(tmp_path / "medqa.xlsx", ROWS)
    ended = Ended(capsys, "data", "import", file, "--language", "es")
    assert ended.code == 2
    assert "give another --id" in ended.err


@pytest.mark.weights
@pytest.mark.slow
def test_an_imported_set_is_evaluated_on_a_real_model_without_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    assert workspace.is_dir()
    file = workbook(tmp_path / "preguntas.xlsx", ROWS)
    assert Ended(capsys, "data", "import", file, "--language", "es").code == 0
    blocked = (
        "import socket, sys\n"
        "class Refused(socket.socket):\n"
        "    def __init__(self, *a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket = Refused\n"
        "from medlocal.cli import main\nmain()"
    )
    arguments = ["run", "preguntas", "--model", "smollm2-135m-instruct", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", blocked, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["state"], summary["done"]) == ("done", 2 * 2 * 3)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.shared_data
def test_the_spanish_suite_runs_on_what_is_here_without_a_network(
    capsys: pytest.CaptureFixture[str], workspace: Path, shared_data: Path
) -> None:
    assert workspace.is_dir()
    for name, folder in (("head-qa", "head_qa"), ("casimedicos", "casimedicos")):
        pulled = Ended(capsys, "data", "pull", name, "--from", str(shared_data / folder))
        assert pulled.code == 0, pulled.err
    ended = Ended(
        capsys, "--offline", "run", "clinical-es", "--model", "smollm2-135m-instruct",
        "--limit", "2", "--shots", "1", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "left out, because it is not here: careqa" in ended.err
    assert json.loads(ended.out)["done"] == 2 * 2 * 2 * 3
    shown = Ended(capsys, "report", "last")
    assert "sets left out: careqa" in shown.out


def test_what_a_program_asks_for_is_told_of_bad_rows_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workbook(tmp_path / "malas.xlsx", ROWS + BAD)
    ended = Ended(capsys, "data", "import", file, "--language", "es", "--json")
    assert ended.code == 2
    assert [bad["row"] for bad in json.loads(ended.out)["bad_rows"]] == [4, 5, 6]


def test_a_second_import_says_what_it_replaces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workbook(tmp_path / "mias.xlsx", ROWS)
    assert Ended(capsys, "data", "import", file, "--language", "es").code == 0
    again = Ended(capsys, "data", "import", file, "--language", "es")
    assert f"mias was replaced; it came from {file}" in again.err


def test_a_language_without_prompts_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workbook(tmp_path / "francais.xlsx", ROWS)
    ended = Ended(capsys, "data", "import", file, "--language", "fr")
    assert ended.code == 0
    assert "no prompts in fr" in ended.err
    assert Ended(capsys, "run", "francais", "-m", "smollm2-135m-instruct").code == 2


def test_control_characters_never_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workbook(tmp_path / "mias.xlsx", ROWS)
    title = "T\x1b[31mx"
    assert Ended(capsys, "data", "import", file, "--language", "es", "--title", title).code == 0
    for arguments in (("data", "list"), ("data", "show", "mias")):
        ended = Ended(capsys, *arguments)
        assert "\x1b" not in ended.out + ended.err


def test_a_set_whose_file_is_gone_or_changed_is_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    file = workbook(tmp_path / "mias.xlsx", ROWS)
    assert Ended(capsys, "data", "import", file, "--language", "es").code == 0
    (items,) = (home / "data" / "mias").glob("items-*.jsonl")
    content = items.read_bytes()
    items.write_bytes(content.replace(b"B12", b"B13"))
    assert Ended(capsys, "data", "check", "mias").code == 4
    items.unlink()
    ended = Ended(capsys, "data", "show", "mias")
    assert ended.code == 3
    assert f"medlocal data import {file} --id mias" in ended.err


def test_a_damaged_receipt_of_one_set_leaves_the_others_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    file = workbook(tmp_path / "mias.xlsx", ROWS)
    assert Ended(capsys, "data", "import", file, "--language", "es").code == 0
    receipt = home / "data" / "mias" / "receipt.json"
    values = json.loads(receipt.read_bytes())
    receipt.write_text(json.dumps({**values, "card": {"id": "mias"}}), encoding="utf-8")
    ended = Ended(capsys, "data", "list")
    assert ended.code == 0
    assert "mias" not in ended.out
