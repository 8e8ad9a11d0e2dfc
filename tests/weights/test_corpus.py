"""Texts for a model: reading, cutting into chunks, and mixing languages. Tokens are bytes here."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import MedlocalError, MissingError, UsageError
from medlocal.weights.corpus import (
    Corpus,
    CorpusOptions,
    CorpusPart,
    corpus_part,
    full_shares,
    interleave,
    read_corpus,
    read_texts,
    texts_sha256,
)

HALF = Fraction(1, 2)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def bytes_as_tokens(text: bytes) -> list[int]:
    return list(text)


def corpus_of(folder: Path, texts: Mapping[str, str], **options: object) -> Corpus:
    parts = [
        CorpusPart(language, write(folder, f"{language}.txt", text))
        for language, text in texts.items()
    ]
    return read_corpus(parts, bytes_as_tokens, CorpusOptions(**options))  # type: ignore[arg-type]


def as_text(corpus: Corpus, start: int = 0) -> list[str]:
    return [bytes(chunk.tolist()).decode() for _, chunk in corpus.chunks(start)]


# --- reading


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.TXT", "a/b.md", "c.txt"):
        write(tmp_path, name, name)

    (text,) = read_texts([CorpusPart("es", tmp_path)])

    assert [d.content for d in text.documents] == [b"a/z.TXT", b"b.txt", b"c.txt"]


def test_texts_of_a_language_come_together_in_the_order_named(tmp_path: Path) -> None:
    one, two, three = (write(tmp_path, f"{n}.txt", n) for n in ("one", "two", "three"))

    texts = read_texts([CorpusPart("es", two), CorpusPart("", three), CorpusPart("es", one)])

    found = [(text.language, [d.path.name for d in text.documents]) for text in texts]
    assert found == [("es", ["two.txt", "one.txt"]), ("", ["three.txt"])]


def test_text_that_is_not_utf_8_is_refused_with_file_and_byte(tmp_path: Path) -> None:
    path = write(tmp_path, "old.txt", "dolor torácico".encode("latin1"))

    with pytest.raises(UsageError, match=r"old\.txt is not UTF-8 text: byte 9 is 0xe1"):
        read_texts([CorpusPart("es", path)])


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"\xef\xbb\xbfniega")

    (text,) = read_texts([CorpusPart("es", path)])

    assert text.documents[0].content == b"niega"


@pytest.mark.parametrize("content", ["", " \n\t\r\n"])
def test_a_file_without_text_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="there is no text in"):
        read_texts([CorpusPart("", write(tmp_path, "a.txt", content))])


def test_a_folder_without_text_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "notes.docx", "x")

    with pytest.raises(UsageError, match=r"has no \.txt file"):
        read_texts([CorpusPart("", tmp_path)])


def test_a_text_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no text at"):
        read_texts([CorpusPart("", tmp_path / "none.txt")])


def test_a_text_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "x")

    with pytest.raises(UsageError, match=r"a\.txt is named twice"):
        read_texts([CorpusPart("en", path), CorpusPart("es", tmp_path)])


def test_no_text_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no text is named"):
        read_texts([])


def test_the_checksum_is_of_languages_and_files_not_of_names(tmp_path: Path) -> None:
    files = [write(tmp_path, "a.txt", "one"), write(tmp_path, "b.txt", "dos")]
    lines = f"en {hashlib.sha256(b'one').hexdigest()}\nes {hashlib.sha256(b'dos').hexdigest()}\n"

    texts = read_texts([CorpusPart("en", files[0]), CorpusPart("es", files[1])])

    assert texts_sha256(texts) == hashlib.sha256(lines.encode()).hexdigest()


# --- chunks


def test_chunks_are_cut_from_one_stream_and_the_rest_is_left(tmp_path: Path) -> None:
    assert as_text(corpus_of(tmp_path, {"en": "abcdefghij"}, chunk_tokens=4)) == ["abcd", "efgh"]


def test_a_bos_goes_before_the_stream_and_takes_each_chunks_first_place(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"en": "abcdefghijk"}, chunk_tokens=4, bos=ord("^"))

    # The stream is ^abcdefghijk: d and h give way.
    assert as_text(corpus) == ["^abc", "^efg", "^ijk"]


def test_documents_are_kept_apart_by_a_line_end(tmp_path: Path) -> None:
    for name, content in (("a", "alta"), ("b", "ok\n"), ("c", "fin")):
        write(tmp_path, f"{name}.txt", content)

    corpus = read_corpus(
        [CorpusPart("", tmp_path)], bytes_as_tokens, CorpusOptions(chunk_tokens=11)
    )

    assert as_text(corpus) == ["alta\nok\nfin"]


def test_languages_take_turns(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"en": "aabb", "es": "ññ" * 2}, chunk_tokens=2)

    assert corpus.order == ("en", "es", "en", "es")
    assert as_text(corpus) == ["aa", "ñ", "bb", "ñ"]


def test_chunks_can_be_taken_from_the_middle(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"en": "aabbcc", "es": "ddeeff"}, chunk_tokens=2)

    assert as_text(corpus, 3) == as_text(corpus)[3:] == ["ee", "cc", "ff"]


def test_text_too_short_for_a_chunk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the es text has 3 tokens, and a chunk takes 4"):
        corpus_of(tmp_path, {"en": "abcd", "es": "abc"}, chunk_tokens=4)


def test_a_language_that_ends_first_ends_the_corpus(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"en": "a" * 20, "es": "ñ" * 2}, chunk_tokens=2)

    assert corpus.order == ("en", "es", "en", "es", "en")
    assert corpus.limited_by == "es"
    assert corpus.num_tokens() == {"en": 6, "es": 4}


@pytest.mark.parametrize("most", [2, 4])
def test_a_corpus_as_long_as_asked_for_is_limited_by_no_language(tmp_path: Path, most: int) -> None:
    corpus = corpus_of(tmp_path, {"en": "a" * 20, "es": "ñ" * 2}, chunk_tokens=2, max_chunks=most)

    assert len(corpus) == most
    assert corpus.limited_by is None


# --- what a user writes, and what cannot be read


@pytest.mark.parametrize(
    ("text", "language", "path"),
    [
        ("en:notes.txt", "en", "notes.txt"),
        ("EN:notes.txt", "en", "notes.txt"),
        ("ES-MX:notas", "es-MX", "notas"),
        ("notes.txt", "", "notes.txt"),
        ("e:notes.txt", "", "e:notes.txt"),
    ],
)
def test_a_part_is_read_as_a_user_writes_it(text: str, language: str, path: str) -> None:
    assert corpus_part(text) == CorpusPart(language, Path(path))


@pytest.mark.parametrize("closed", ["notas", "notas/dos"])
def test_a_folder_that_may_not_be_read_is_named_and_nothing_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    folder = tmp_path / "notas"
    (folder / "dos").mkdir(parents=True)
    (folder / "uno.txt").write_text("Niega fiebre.", encoding="utf-8")
    (folder / "dos" / "dos.txt").write_text("Refiere tos.", encoding="utf-8")
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == tmp_path / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MedlocalError, match=f"{closed} cannot be read: Permission denied"):
        read_texts([CorpusPart("es", folder)])


def test_the_texts_of_a_folder_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/1.txt", "a.txt", "b.TXT", "b/0.md", "b/2/0.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Niega fiebre.", encoding="utf-8")
    (text,) = read_texts([CorpusPart("es", tmp_path)])
    found = [str(document.path.relative_to(tmp_path)) for document in text.documents]
    assert found == ["a.txt", "b/1.txt", "b/2/0.txt", "b.TXT"]


# --- shares


@pytest.mark.parametrize(
    ("shares", "order"),
    [
        ({"en": HALF, "es": HALF}, "en es en es en es"),
        ({"en": Fraction(1, 3), "es": Fraction(2, 3)}, "es en es es en es"),
        ({"en": Fraction(3, 4), "es": Fraction(1, 4)}, "en en en es en en"),
    ],
)
def test_the_order_is_the_quota_methods(shares: dict[str, Fraction], order: str) -> None:
    assert interleave(shares, {"en": 9, "es": 9}, 6) == order.split()


weights = st.lists(st.integers(1, 60), min_size=1, max_size=5)


@given(weights, st.integers(1, 200))
def test_at_any_point_each_language_has_its_share(numbers: list[int], length: int) -> None:
    total = sum(numbers)
    shares = {str(i): Fraction(number, total) for i, number in enumerate(numbers)}
    taken: Counter[str] = Counter()

    order = interleave(shares, dict.fromkeys(shares, length), length)

    assert len(order) == length
    for turn, name in enumerate(order, 1):
        taken[name] += 1
        assert all(abs(taken[name] - share * turn) < 1 for name, share in shares.items())


@given(weights, st.integers(1, 60), st.integers(0, 60))
def test_more_chunks_begin_in_the_same_order(numbers: list[int], short: int, more: int) -> None:
    shares = {str(i): Fraction(number, sum(numbers)) for i, number in enumerate(numbers)}
    available = dict.fromkeys(shares, 200)

    assert interleave(shares, available, short + more)[:short] == interleave(
        shares, available, short
    )


@given(weights, st.data())
def test_no_language_gives_more_than_it_has(numbers: list[int], data: st.DataObject) -> None:
    shares = {str(i): Fraction(number, sum(numbers)) for i, number in enumerate(numbers)}
    available = {name: data.draw(st.integers(1, 30)) for name in shares}

    taken = Counter(interleave(shares, available))

    assert all(taken[name] <= available[name] for name in shares)
    assert any(taken[name] == available[name] for name in shares)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, {"en": "1/3", "es": "1/3", "": "1/3"}),
        ({"es": "0.5"}, {"en": "1/4", "es": "1/2", "": "1/4"}),
        ({"es": "0.5", "en": "0.3"}, {"en": "3/10", "es": "1/2", "": "1/5"}),
        ({"es": "1/3", "en": "1/3", "": "1/3"}, {"en": "1/3", "es": "1/3", "": "1/3"}),
    ],
)
def test_languages_without_a_share_divide_the_rest(
    stated: dict[str, str], expected: dict[str, str]
) -> None:
    shares = full_shares({name: Fraction(s) for name, s in stated.items()}, ["en", "es", ""])

    assert {name: str(share) for name, share in shares.items()} == expected


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"fr": "0.5"}, "a share is stated for fr, which has no text"),
        ({"es": "0"}, "the share of es is 0; it must be above 0"),
        ({"es": "1.5"}, "the share of es is 1.5; it must be above 0 and at most 1"),
        ({"es": "1"}, "the stated shares sum to 1, and en would get the rest"),
        ({"es": "0.5", "en": "0.4"}, "the stated shares sum to 0.9"),
        ({"es": "0.5", "en": "0.6"}, "the stated shares sum to 1.1"),
    ],
)
def test_shares_that_cannot_be_are_refused(stated: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        full_shares({name: Fraction(share) for name, share in stated.items()}, ["en", "es"])
