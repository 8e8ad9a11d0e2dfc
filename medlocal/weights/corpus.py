"""The text that a model is computed on: read, put into tokens, cut into chunks, languages mixed.

For what learns from text how a model behaves (its importance matrix, its loss from quantisation).
Only `read_texts` touches the disk; the rest is pure, and tokens come from a function that is passed
in: nothing here knows a model, nor what is computed on a chunk.

Chunks are cut as llama.cpp's own tools cut them: one stream of tokens per language, which begins with
a BOS where the vocabulary wants one, cut every `chunk_tokens`; each chunk's first token gives way to
a BOS, and what is left after the last whole chunk is not used.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import MedlocalError, MissingError, UsageError

Tokenize = Callable[[bytes], Sequence[int]]
"""UTF-8 text to token ids, without BOS and without reading control tokens out of the text."""

_LANGUAGE = re.compile(r"([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})?):(.+)", re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class CorpusPart:
    """A file or a folder of text in one language."""

    language: str
    """Such as "en"; "" = not said."""
    path: Path


@dataclass(frozen=True, slots=True)
class Document:
    """One file of text."""

    path: Path
    content: bytes = field(repr=False)
    """UTF-8, checked, without a byte order mark."""
    sha256: str
    """Of the file as it lies on the disk."""


@dataclass(frozen=True, slots=True)
class LanguageText:
    """All the text of one language, in the order in which it was named."""

    language: str
    documents: tuple[Document, ...]

    def tokens(self, tokenize: Tokenize) -> NDArray[np.int32]:
        """Put the documents into tokens, one after another; a missing last line end is added between."""
        last = len(self.documents) - 1
        pieces = []
        for number, document in enumerate(self.documents):
            content = document.content
            if number < last and not content.endswith(b"\n"):
                content += b"\n"
            pieces.append(np.asarray(tokenize(content), np.int32))
        return np.concatenate(pieces)


@dataclass(frozen=True, slots=True)
class CorpusOptions:
    """How texts become chunks."""

    chunk_tokens: int = 512
    bos: int | None = None
    """Put before each stream and in place of each chunk's first token; None = the model wants none."""
    shares: Mapping[str, Fraction] = field(default_factory=dict)
    """Of the chunks, by language; the languages that are not named share the rest equally."""
    max_chunks: int | None = None
    """Of all languages together; None = as many as the text gives in these shares."""


@dataclass(frozen=True)
class Corpus:
    """Chunks of tokens, their languages interleaved."""

    sha256: str
    """Of the texts, as `texts_sha256` says."""
    chunk_tokens: int
    shares: Mapping[str, Fraction]
    """Of every language; they sum to 1."""
    available: Mapping[str, int]
    """Whole chunks that the text of each language would give."""
    order: tuple[str, ...]
    """The language of each chunk. With more chunks the order begins in the same way."""
    limited_by: str | None
    """The language whose text ended while another's was left, so that the corpus is shorter than it
    could be with other shares; None = it is not."""
    streams: Mapping[str, NDArray[np.int32]] = field(repr=False)
    bos: int | None

    def __len__(self) -> int:
        return len(self.order)

    def chunks(self, start: int = 0) -> Iterator[tuple[str, NDArray[np.int32]]]:
        """The chunks from number `start` on, each with its language: (chunk_tokens,)."""
        taken = dict.fromkeys(self.streams, 0)
        for number, language in enumerate(self.order):
            place = taken[language]
            taken[language] += 1
            if number >= start:
                yield language, cut_chunk(self.streams[language], place, self)

    def num_tokens(self) -> dict[str, int]:
        """Tokens that are computed, by language."""
        return {name: self.order.count(name) * self.chunk_tokens for name in self.streams}


def corpus_part(text: str) -> CorpusPart:
    """Read a part as a user writes it: "en:notes.txt", "ES:notas/", or a path without a language."""
    if found := _LANGUAGE.fullmatch(text):
        return CorpusPart(language_code(found[1]), Path(found[2]).expanduser())
    return CorpusPart("", Path(text).expanduser())


def language_code(text: str) -> str:
    """A language as it is kept: "EN" is "en", and what follows a hyphen stays."""
    language, hyphen, region = text.partition("-")
    return language.lower() + hyphen + region


def read_corpus(
    parts: Sequence[CorpusPart], tokenize: Tokenize, options: CorpusOptions = CorpusOptions()
) -> Corpus:
    """Read texts and cut them into chunks.

    Raises:
        UsageError: no text, text that is not UTF-8 or too short for a chunk, shares that cannot be.
        MissingError: a file or a folder is not there.
    """
    return make_corpus(read_texts(parts), tokenize, options)


def make_corpus(
    texts: Sequence[LanguageText], tokenize: Tokenize, options: CorpusOptions
) -> Corpus:
    """Cut texts into chunks.

    Raises:
        UsageError: a text is too short for a chunk, or the shares cannot be.
    """
    shares = full_shares(options.shares, [text.language for text in texts])
    streams: dict[str, NDArray[np.int32]] = {}
    for text in texts:
        tokens = text.tokens(tokenize)
        start = [] if options.bos is None else [options.bos]
        streams[text.language] = np.concatenate([np.asarray(start, np.int32), tokens])
    available = {name: len(stream) // options.chunk_tokens for name, stream in streams.items()}
    for name, count in available.items():
        if not count:
            raise UsageError(
                f"the {named(name)}text has {len(streams[name]):,} tokens, and a chunk takes"
                f" {options.chunk_tokens:,}",
                hint="give more text, or shorter chunks with --chunk-tokens",
            )
    order = tuple(interleave(shares, available, options.max_chunks))
    return Corpus(
        sha256=texts_sha256(texts),
        chunk_tokens=options.chunk_tokens,
        shares=shares,
        available=available,
        order=order,
        limited_by=_limited_by(order, available, options.max_chunks),
        streams=streams,
        bos=options.bos,
    )


def _limited_by(order: Sequence[str], available: Mapping[str, int], most: int | None) -> str | None:
    left = {name: count - order.count(name) for name, count in available.items()}
    if len(order) == most or not any(left.values()):
        return None
    return next(name for name in left if not left[name])


def cut_chunk(
    stream: NDArray[np.int32], place: int, how: Corpus | CorpusOptions
) -> NDArray[np.int32]:
    """Chunk number `place` of one language's stream, its first token a BOS where one is wanted."""
    size = how.chunk_tokens
    chunk = stream[place * size : (place + 1) * size].copy()
    if how.bos is not None:
        chunk[0] = how.bos
    return chunk


def interleave(
    shares: Mapping[str, Fraction], available: Mapping[str, int], most: int | None = None
) -> list[str]:
    """The language of each chunk, so that after any number of chunks each language has its share.

    Balinski and Young's quota method (American Mathematical Monthly 82, 1975): after k chunks each
    language has its share of k, rounded up or down. It ends where a language whose turn it is has
    nothing left.

    Args:
        shares: positive, summing to 1.
        available: chunks by language.
        most: chunks at most; None = as many as there are.
    """
    whole = lcm(*(share.denominator for share in shares.values()))
    weights = {name: int(share * whole) for name, share in shares.items()}
    taken = dict.fromkeys(shares, 0)
    order: list[str] = []
    while most is None or len(order) < most:
        turn = len(order) + 1
        behind = [name for name in shares if taken[name] * whole < weights[name] * turn]
        name = min(behind, key=lambda name: Fraction(taken[name] + 1, weights[name]))
        if taken[name] == available[name]:
            break
        taken[name] += 1
        order.append(name)
    return order


def full_shares(stated: Mapping[str, Fraction], languages: Sequence[str]) -> dict[str, Fraction]:
    """The share of every language: those that are not stated divide the rest equally.

    Raises:
        UsageError: a share of a language without text, one that is not positive, or a sum that is
            not 1.
    """
    for name, share in stated.items():
        if name not in languages:
            known = ", ".join(map(_quoted, languages))
            raise UsageError(
                f"a share is stated for {_quoted(name)}, which has no text",
                hint=f"name its text with --text {name}:FILE; text is there for {known}",
            )
        if not 0 < share <= 1:
            raise UsageError(
                f"the share of {_quoted(name)} is {float(share):g}; it must be above 0 and at most 1",
                hint="leave out the text of a language that is to have no share",
            )
    rest = 1 - sum(stated.values(), Fraction(0))
    others = [name for name in languages if name not in stated]
    if rest < 0 or (others and rest == 0) or (not others and rest != 0):
        total = float(1 - rest)
        whom = f", and {', '.join(map(_quoted, others))} would get the rest" if others else ""
        raise UsageError(f"the stated shares sum to {total:g}{whom}", hint="let them sum to 1")
    equal = rest / max(1, len(others))
    return {name: stated.get(name, equal) for name in languages}


def read_texts(parts: Sequence[CorpusPart]) -> tuple[LanguageText, ...]:
    """Read the files, and the folders' `.txt` files in the order of their names.

    Returns:
        One text per language, in the order in which languages are first named.

    Raises:
        UsageError: nothing is named, a file twice, or a text is empty or not UTF-8.
        MissingError: a file or a folder is not there.
        MedlocalError: the system does not let a file or a folder be read.
    """
    if not parts:
        raise UsageError("no text is named", hint="name some: --text en:FILE --text es:FOLDER")
    documents: dict[str, list[Document]] = {}
    seen: set[Path] = set()
    for part in parts:
        found = [_read_document(path) for path in _files(part.path)]
        if not any(document.content.strip() for document in found):
            raise UsageError(f"there is no text in {part.path}", hint="name a file that holds some")
        for document in found:
            if (real := document.path.resolve()) in seen:
                raise UsageError(f"{document.path} is named twice", hint="name each text once")
            seen.add(real)
        documents.setdefault(part.language, []).extend(found)
    return tuple(LanguageText(name, tuple(found)) for name, found in documents.items())


def texts_sha256(texts: Iterable[LanguageText]) -> str:
    """One checksum for texts, whatever their files are called.

    It is the SHA-256 of one line per document, in order: the language, a space, the SHA-256 of the
    file, a line end.
    """
    digest = hashlib.sha256()
    for text in texts:
        for document in text.documents:
            digest.update(f"{text.language} {document.sha256}\n".encode())
    return digest.hexdigest()


def named(language: str) -> str:
    """A language as a word before "text": "es ", or "" where it is not said."""
    return f"{language} " if language else ""


def _quoted(language: str) -> str:
    return language or "the text without a language"


def _files(path: Path) -> list[Path]:
    try:
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise MissingError(f"there is no text at {path}", hint="check the path")
        found = _text_files(path)
    except OSError as error:
        raise _unreadable(Path(error.filename or path), error) from error
    if found:
        return found
    raise UsageError(f"the folder {path} has no .txt file", hint="name a file, or another folder")


def _text_files(folder: Path) -> list[Path]:
    """All of them under a folder, in the order of their names; links to folders are not followed.

    Raises:
        OSError: a folder cannot be read: what is left out unsaid would be missed by nobody.
    """

    def fail(error: OSError) -> None:
        raise error

    found = [Path(root, name) for root, _, names in os.walk(folder, onerror=fail) for name in names]
    return sorted(file for file in found if file.suffix.lower() == ".txt" and file.is_file())


def _unreadable(path: Path, error: OSError) -> MedlocalError:
    return MedlocalError(
        f"{path} cannot be read: {error.strerror or error}",
        hint="change its permissions, or name other text",
    )


def _read_document(path: Path) -> Document:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text: byte {error.start:,} is 0x{raw[error.start]:02x}",
            hint="convert it, for example: iconv -f latin1 -t utf-8 OLD > NEW",
        ) from error
    return Document(path, raw.removeprefix(_BYTE_ORDER_MARK), hashlib.sha256(raw).hexdigest())
