"""The stored form of items, read back field by field and refused where it is not what was written."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.data.stored import read_items, write_items
from medlocal.errors import MissingError, UsageError
from medlocal.evals.items import LANGUAGES, Item

LINE = (
    '{"id":"1","dataset":"set","split":"test","language":"es","stem":"¿Qué?",'
    '"options":["sí","no"],"gold":1,"subject":"s","group":"set/1"}\n'
)
ITEM = Item(
    id="1",
    dataset="set",
    split="test",
    language="es",
    stem="¿Qué?",
    options=("sí", "no"),
    gold=1,
    subject="s",
    group="set/1",
)

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)


@st.composite
def any_items(draw: st.DrawFn) -> Item:
    options = tuple(draw(st.lists(texts, min_size=2, max_size=10)))
    maybe = st.just("") | texts
    return Item(
        id=draw(texts),
        dataset=draw(texts),
        split=draw(texts),
        language=draw(st.sampled_from(LANGUAGES)),
        stem=draw(texts),
        options=options,
        gold=draw(st.integers(0, len(options) - 1)),
        subject=draw(texts),
        group=draw(texts),
        context=draw(maybe),
        difficulty=draw(maybe),
        rationale=draw(maybe),
        flags=tuple(draw(st.lists(texts, max_size=2))),
    )


def written(*items: Item) -> bytes:
    stream = io.BytesIO()
    write_items(stream, items)
    return stream.getvalue()


def file_of(tmp_path: Path, **changes: Any) -> Path:
    values = json.loads(LINE) | changes
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}) + "\n")
    return path


class TestWriting:
    def test_an_item_is_one_line_without_its_defaults(self) -> None:
        assert written(ITEM) == LINE.encode()

    def test_the_items_are_counted(self) -> None:
        assert write_items(io.BytesIO(), iter([ITEM, ITEM, ITEM])) == 3

    def test_half_a_character_is_refused(self) -> None:
        item = Item("1", "d", "test", "en", "\ud800", ("a", "b"), 0, "s", "d/1")
        with pytest.raises(UsageError, match="half a character"):
            written(item)

    def test_items_are_written_as_they_come(self) -> None:
        stream = io.BytesIO()
        sizes = []

        def items() -> Any:
            for _ in range(3):
                sizes.append(len(stream.getvalue()))
                yield ITEM

        write_items(stream, items())
        assert sizes == [0, len(LINE.encode()), 2 * len(LINE.encode())]


class TestReading:
    def test_the_line_gives_the_item(self, tmp_path: Path) -> None:
        path = tmp_path / "items.jsonl"
        path.write_text(LINE + "\n", encoding="utf-8")
        assert list(read_items(path)) == [ITEM]

    @given(item=any_items())
    def test_reading_inverts_writing(
        self, item: Item, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("stored") / "items.jsonl"
        path.write_bytes(written(item))
        assert list(read_items(path)) == [item]

    def test_one_id_may_stand_in_two_languages_and_splits(self, tmp_path: Path) -> None:
        path = tmp_path / "items.jsonl"
        english = LINE.replace('"es"', '"en"')
        path.write_text(LINE + english + LINE.replace('"test"', '"train"'), encoding="utf-8")
        assert [(i.language, i.split) for i in read_items(path)] == [
            ("es", "test"),
            ("en", "test"),
            ("es", "train"),
        ]

    def test_an_id_twice_is_refused_with_its_line(self, tmp_path: Path) -> None:
        path = tmp_path / "items.jsonl"
        path.write_text(LINE + LINE, encoding="utf-8")
        with pytest.raises(UsageError, match=r"items\.jsonl:2: id '1' was used before in test, es"):
            list(read_items(path))

    def test_a_file_that_is_not_there_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match="cannot be read"):
            list(read_items(tmp_path / "items.jsonl"))

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"stem": None}, "stem is missing"),
            ({"stem": ""}, "a text is empty"),
            ({"stem": 3}, "stem must be text, not int"),
            ({"gold": True}, "gold must be a whole number"),
            ({"gold": "A"}, "gold must be a whole number"),
            ({"gold": 2}, "outside its options"),
            ({"options": "ab"}, "options must be a list"),
            ({"options": ["a", None]}, "options must be text"),
            ({"language": "de"}, "language 'de'"),
            ({"flags": "vignette"}, "flags must be a list"),
            ({"difficulty": "\ud800"}, "half a character"),
            ({"dificulty": "3"}, "no field 'dificulty'\n  → did you mean difficulty"),
        ],
    )
    def test_a_wrong_field_is_named_with_its_line(
        self, tmp_path: Path, changes: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(UsageError, match=rf"items\.jsonl:1: (.|\n)*{reason}"):
            list(read_items(file_of(tmp_path, **changes)))

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"[]", "must be a JSON object"),
            (b"{", "not JSON"),
            (b'{"id": "\xff"}', "not UTF-8 at byte 8"),
            (b'{"id": "1", "id": "2"}', "a key stands twice"),
            (b"[" * 100_000, "not JSON that can be read"),
        ],
    )
    def test_a_line_that_is_no_object_is_refused(
        self, tmp_path: Path, content: bytes, reason: str
    ) -> None:
        path = tmp_path / "items.jsonl"
        path.write_bytes(b"\n" + content)
        with pytest.raises(UsageError, match=rf"items\.jsonl:2: .*{reason}"):
            list(read_items(path))
