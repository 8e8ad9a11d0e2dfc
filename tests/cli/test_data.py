"""`medlocal data` on the original releases, as a user gets and looks at them; nothing opens a socket."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from medlocal.cli.main import run as run_command
from medlocal.data.library import known_set, read_set
from medlocal.settings import load_settings

pytestmark = pytest.mark.shared_data

FOLDERS = {
    "medqa": "medqa",
    "medmcqa": "medmcqa",
    "mmlu": "mmlu",
    "pubmedqa": "pubmedqa",
    "head-qa": "head_qa",
    "casimedicos": "casimedicos",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the test's own, on a machine that has no network."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv("MEDLOCAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDLOCAL_OFFLINE", "0")
    return tmp_path / "home"


class Ended:
    """How a command ended."""

    def __init__(self, capture: pytest.CaptureFixture[str], *arguments: str) -> None:
        capture.readouterr()
        self.code = run_command(list(arguments))
        self.out, self.err = capture.readouterr()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def pull(capture: pytest.CaptureFixture[str], shared_data: Path, name: str) -> Any:
    folder = str(shared_data / FOLDERS[name])
    ended = Ended(capture, "data", "pull", name, "--from", folder, "--json")
    assert ended.code == 0, ended.err
    assert "note:" not in ended.err, "the card expects something else"
    return ended.json


@pytest.mark.parametrize(
    ("name", "items", "gold"),
    [
        ("medqa", 1273, {"A": 353, "B": 309, "C": 346, "D": 265}),
        ("medmcqa", 4183, {"A": 1348, "B": 1085, "C": 925, "D": 825}),
        ("mmlu", 1089, None),
        ("pubmedqa", 500, None),
    ],
)
def test_a_set_is_pulled_and_shown_with_its_counts(
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    items: int,
    gold: dict[str, int] | None,
) -> None:
    pull(capsys, shared_data, name)
    shown = Ended(capsys, "data", "show", name, "--json").json
    assert (shown["items"], shown["excluded"], shown["languages"]) == (items, {}, ["en"])
    assert gold in (None, shown["gold"])
    assert shown["licence"] == "MIT"
    assert len(shown["sha256"]) == 64
    assert shown["origin"]["files"]


def test_pictures_are_left_out_of_head_qa_with_their_number(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(capsys, shared_data, "head-qa")
    shown = Ended(capsys, "data", "show", "head-qa", "--language", "es", "--json").json
    assert (shown["items"], shown["excluded"]) == (2742 - 67, {"picture missing": 67})
    every = Ended(capsys, "data", "show", "head-qa", "--split", "all", "--json").json
    assert every["excluded"]["picture missing"] == 2 * 165


def test_casimedicos_stands_in_four_languages_and_overlaps_with_head_qa(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(capsys, shared_data, "casimedicos")
    pull(capsys, shared_data, "head-qa")
    shown = Ended(capsys, "data", "show", "casimedicos", "--json").json
    counts = {language: values["items"] for language, values in shown["per_language"].items()}
    assert counts == {"es": 117, "en": 117, "fr": 117, "it": 117}
    arguments = ("casimedicos", "--against", "head-qa", "--language", "es", "--json")
    (overlap,) = Ended(capsys, "data", "check", *arguments).json["overlaps"]
    found = {shared["rule"]: shared for shared in overlap["shared"]}
    assert (found["opening"]["num_distinct"], found["opening"]["out_of"]) == (141, 479)


def test_a_check_is_printed_for_people(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(capsys, shared_data, "mmlu")
    out = Ended(capsys, "data", "check", "mmlu", "--split", "test").out
    assert "gold is longest" in out
    assert "majority" in out


def test_a_question_is_shown_in_all_languages(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(capsys, shared_data, "casimedicos")
    found = Ended(capsys, "data", "show", "casimedicos", "--item", "test-1", "--json").json
    assert [item["language"] for item in found] == ["es", "en", "fr", "it"]


def test_a_folder_that_holds_another_set_is_refused(
    shared_data: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    ended = Ended(capsys, "data", "pull", "medqa", "--from", str(shared_data / "medmcqa"))
    assert ended.code in {2, 3}
    assert "error:" in ended.err
    assert Ended(capsys, "data", "show", "medqa").code == 3
    assert not list(home.glob("data/medqa/items*"))


def test_a_set_that_is_not_here_names_the_command_that_gets_it(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shared_data
    ended = Ended(capsys, "run", "careqa", "--model", "smollm2-135m-instruct")
    assert ended.code == 3
    assert "medlocal data pull careqa" in ended.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("data", "show", "medqq"), "did you mean medqa"),
        (("data", "show", "starter", "--language", "fr"), "known: en, es"),
        (("data", "show", "starter", "--split", "tset"), "did you mean test?"),
        (("data", "show", "starter", "--item", "cardiology-99"), "did you mean cardiology-0"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest(
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    hint: str,
) -> None:
    assert shared_data
    ended = Ended(capsys, *arguments)
    assert ended.code == 2
    assert hint in ended.err


def test_the_starter_set_cannot_be_pulled(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = Ended(capsys, "data", "pull", "starter", "--from", str(shared_data))
    assert ended.code == 2
    assert "ships with medlocal" in ended.err


@pytest.mark.parametrize(("name", "ending"), [("medmcqa", "csv"), ("casimedicos", "xlsx")])
def test_an_exported_set_is_imported_as_it_was(
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    ending: str,
) -> None:
    """With all its defects: options that are equal, and one that a spreadsheet took for a formula."""
    pull(capsys, shared_data, name)
    file = tmp_path / f"set.{ending}"
    assert Ended(capsys, "data", "export", name, str(file)).code == 0
    assert Ended(capsys, "data", "import", str(file), "--id", "mine").code == 0
    here = load_settings()
    card, mine = known_set(name, here), known_set("mine", here)
    expected = read_set(card, here, card.languages)
    found = read_set(mine, here, mine.languages, {card.split})
    renamed = [
        replace(item, dataset=name, group=item.group.replace("mine/", f"{name}/")) for item in found
    ]
    assert renamed == expected
