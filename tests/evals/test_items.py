"""The project's own form is read exactly, or refused with the place and the reason."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import MissingError, UsageError
from medlocal.evals.items import LETTERS, Item, canonical_json, load_items

ITEM = Item(
    id="renal-01",
    dataset="demo",
    split="test",
    language="es",
    stem="¿Cuál es el anión mayoritario?",
    options=("Cloruro", "Fosfato"),
    gold=0,
    subject="renal",
    group="demo/renal-01",
)


def a_line(**changes: object) -> dict[str, object]:
    """A sound line; a change to None takes the key out."""
    values: dict[str, object] = {
        "id": "renal-01",
        "subject": "renal",
        "vignette": True,
        "difficulty": "easy",
        "gold": "B",
        "en": {"stem": "Which ion?", "options": ["Sodium", "Chloride"], "rationale": "Because."},
        "es": {"stem": "¿Qué ion?", "options": ["Sodio", "Cloruro"], "rationale": "Porque sí."},
    }
    values.update(changes)
    return {key: value for key, value in values.items() if value is not None}


def english(**changes: object) -> dict[str, object]:
    """The English part of a sound line; a change to None takes the key out."""
    values: dict[str, object] = {"stem": "Which ion?", "options": ["Sodium", "Chloride"]}
    values.update(changes)
    return {key: value for key, value in values.items() if value is not None}


def write(path: Path, *lines: object) -> Path:
    path.write_bytes(b"\n".join(json.dumps(line).encode() for line in lines) + b"\n")
    return path


def refusal(path: Path, language: str = "en") -> UsageError:
    with pytest.raises(UsageError) as caught:
        load_items(path, "demo", "test", language)
    return caught.value


def test_a_line_becomes_the_item_of_the_language_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", a_line())
    assert load_items(path, "demo", "test", "es") == [
        Item(
            id="renal-01",
            dataset="demo",
            split="test",
            language="es",
            stem="¿Qué ion?",
            options=("Sodio", "Cloruro"),
            gold=1,
            subject="renal",
            group="demo/renal-01",
            difficulty="easy",
            rationale="Porque sí.",
            flags=("vignette",),
        )
    ]


def test_what_may_be_left_out_is_empty(tmp_path: Path) -> None:
    line = a_line(vignette=None, difficulty=None, es=None, en=english())
    (item,) = load_items(write(tmp_path / "items.jsonl", line), "demo", "test", "en")
    assert (item.flags, item.difficulty, item.rationale, item.context) == ((), "", "", "")


def test_parallel_items_share_their_group(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", a_line())
    groups = {load_items(path, "demo", "test", language)[0].group for language in ("en", "es")}
    assert groups == {"demo/renal-01"}


def test_items_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", a_line(id="z"), a_line(id="a"), a_line(id="m"))
    assert [item.id for item in load_items(path, "demo", "test", "en")] == ["z", "a", "m"]


def test_windows_line_ends_and_blank_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    lines = [json.dumps(a_line(id="a")), "", json.dumps(a_line(id="b")), ""]
    path.write_bytes("\r\n".join(lines).encode())
    assert [item.id for item in load_items(path, "demo", "test", "en")] == ["a", "b"]


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    line = a_line(en=english(stem="Which\u2028ion?"))
    path.write_text(json.dumps(line, ensure_ascii=False), encoding="utf-8")
    assert load_items(path, "demo", "test", "en")[0].stem == "Which\u2028ion?"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"id": None}, "'id' is missing"),
        ({"id": " "}, "id is empty"),
        ({"id": 7}, "id must be a text, not int"),
        ({"subject": None}, "'subject' is missing"),
        ({"difficulty": ""}, "difficulty is empty"),
        ({"vignette": "yes"}, "vignette must be true or false, not 'yes'"),
        ({"gold": None}, "'gold' is missing"),
        ({"gold": "C"}, "gold 'C' is not the label of an option of 'en'"),
        ({"gold": "b"}, "gold 'b' is not the label of an option of 'en'"),
        ({"gold": "AB"}, "gold 'AB' is not the label of an option of 'en'"),
        ({"gold": 1}, "gold must be a text, not int"),
        ({"en": "text"}, "'en' must be a JSON object"),
        ({"en": english(stem=None)}, "'en.stem' is missing"),
        ({"en": english(stem="\t")}, "en.stem is empty"),
        ({"en": english(stem="\ud83d")}, "en.stem holds half a character (a lone surrogate)"),
        ({"en": english(rationale="")}, "en.rationale is empty"),
        ({"en": english(options=None)}, "en.options must be a list of 2 to 10 texts"),
        ({"en": english(options="AB")}, "en.options must be a list of 2 to 10 texts"),
        ({"en": english(options=["one"])}, "en.options must be a list of 2 to 10 texts"),
        (
            {"en": english(options=list("abcdefghijk"))},
            "en.options must be a list of 2 to 10 texts",
        ),
        ({"en": english(options=["one", ""])}, "an option of 'en' is empty"),
        ({"en": english(options=["one", 2])}, "an option of 'en' must be a text, not int"),
        ({"en": english(options=["one", "One "])}, "en.options holds 'one' twice"),
        ({"es": english(options=["uno", "dos", ""])}, "an option of 'es' is empty"),
    ],
)
def test_a_malformed_line_is_refused_with_its_place(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    path = write(tmp_path / "items.jsonl", a_line(id="sound"), a_line(**changes))
    assert refusal(path).message == f"{path}:2: {complaint}"


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "items.jsonl", a_line(dificulty="easy")))
    assert error.message.endswith(":1: the line has an unknown key 'dificulty'")
    assert error.hint == "did you mean difficulty?"


def test_an_unknown_key_inside_a_language_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "items.jsonl", a_line(en=english(option=["a"]))))
    assert error.message.endswith(":1: 'en' has an unknown key 'option'")
    assert error.hint == "did you mean options?"


def test_a_missing_language_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", a_line(es=None))
    assert refusal(path, "es").message == f"{path}:1: language 'es' is missing"


def test_a_repeated_id_is_refused_naming_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", a_line(), a_line(id="other"), a_line())
    assert refusal(path).message == f"{path}:3: id 'renal-01' was used before, on line 1"


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b'{"id": "a"', "not JSON: Expecting ',' delimiter at column 11"),
        (b"[1]", "the line must be a JSON object"),
        (b'{"id": "a", "id": "b"}', "not JSON that can be read: key 'id' twice"),
        (b'{"id": "\xf1"}', "not UTF-8 at byte 8"),
        (b"[" * 100_000, "not JSON that can be read: "),
    ],
    ids=["cut off", "a list", "a key twice", "Latin-1", "nested beyond measure"],
)
def test_what_is_not_a_json_object_is_refused(tmp_path: Path, raw: bytes, complaint: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\n" + raw)
    assert refusal(path).message.startswith(f"{path}:2: {complaint}")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\n")
    assert refusal(path).message == f"{path}: the file holds no item"


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no such file"):
        load_items(tmp_path / "items.jsonl", "demo", "test", "en")


def test_an_unknown_language_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "items.jsonl", a_line()), "pt")
    assert (error.message, error.hint) == ("no language is called 'pt'", "known: en, es, fr, it")


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"stem": " "},
        {"subject": ""},
        {"options": ("Cloruro", "")},
        {"flags": ("",)},
        {"language": "pt"},
        {"options": ("Cloruro",)},
        {"options": tuple("abcdefghijk")},
        {"gold": 2},
        {"gold": -1},
    ],
)
def test_an_item_that_cannot_be_meant_is_a_programmer_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="item "):
        replace(ITEM, **wrong)  # type: ignore[arg-type]


def test_the_content_hash_is_that_of_the_question_spelled_as_canonical_json() -> None:
    spelled = (
        '{"context":"","gold":0,"language":"es","options":["Cloruro","Fosfato"],'
        '"stem":"¿Cuál es el anión mayoritario?"}'
    )
    assert ITEM.content_sha256 == hashlib.sha256(spelled.encode("utf-8")).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"stem": "¿Cuál es el anión principal?"},
        {"context": "En el plasma."},
        {"options": ("Fosfato", "Cloruro")},
        {"gold": 1},
        {"language": "en"},
    ],
)
def test_whatever_determines_the_question_changes_its_hash(change: dict[str, object]) -> None:
    assert replace(ITEM, **change).content_sha256 != ITEM.content_sha256  # type: ignore[arg-type]


def test_what_does_not_determine_the_question_leaves_its_hash() -> None:
    other = replace(
        ITEM, id="x", dataset="y", split="z", group="y/x", subject="s", rationale="r", flags=("f",)
    )
    assert other.content_sha256 == ITEM.content_sha256


def test_canonical_json_refuses_what_json_cannot_spell() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"temperature": float("nan")})


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(
    stem=texts,
    options=st.lists(
        texts, min_size=2, max_size=10, unique_by=lambda t: " ".join(t.casefold().split())
    ),
    data=st.data(),
)
def test_any_text_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, stem: str, options: list[str], data: st.DataObject
) -> None:
    gold = data.draw(st.integers(0, len(options) - 1))
    line = a_line(gold=LETTERS[gold], en={"stem": stem, "options": options}, es=None)
    path = write(tmp_path_factory.mktemp("items") / "items.jsonl", line)
    (item,) = load_items(path, "demo", "test", "en")
    assert (item.stem, item.options, item.gold) == (stem, tuple(options), gold)
