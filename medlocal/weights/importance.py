"""The importance matrix: for every weight, how strongly each of its input columns is used.

A weight's entry is the sum of squared activations per input column and the number of activations that
went into it, so that quantisation can spend its precision where the model is sensitive. Read and
written in llama.cpp's GGUF form, so that its tools read ours and ours read theirs; its older binary
form is read too. How the sums come about is `imatrix`'s affair, what is done with them `quantize`'s.

The GGUF form: `general.type` is "imatrix", and for a weight NAME there are the tensors NAME.in_sum2,
(matrices, columns), and NAME.counts, (matrices, 1), where a weight of experts has one matrix per
expert. The older form holds per weight a name, a number of chunks n, and n times the means.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import MedlocalError, MissingError, RefusedError
from medlocal.weights.arrays import Value, read_arrays, write_arrays
from medlocal.weights.header import MAX_ENTRIES, MAX_NAME_BYTES, shown
from medlocal.weights.inspect import GGUFInfo

SUMS, COUNTS = ".in_sum2", ".counts"
DATASETS, NUM_CHUNKS = "imatrix.datasets", "imatrix.chunk_count"
CHUNK_SIZE = "imatrix.chunk_size"
CORPUS_SHA256, SHARES = "medlocal.imatrix.corpus_sha256", "medlocal.imatrix.shares"
MODEL_SHA256 = "medlocal.imatrix.model_sha256"
MODEL_PARENT_SHA256 = "medlocal.imatrix.model_parent_sha256"
_KIND = "imatrix"


@dataclass(frozen=True, slots=True)
class Entry:
    """What was summed for one weight."""

    sums: NDArray[np.float32]
    """Of squared activations, (matrices, columns)."""
    counts: NDArray[np.int64]
    """Activations that were summed, (matrices,); 0 = this expert was never chosen."""

    def means(self) -> NDArray[np.float32]:
        """Mean square per column, flat, matrix after matrix; 1 where nothing was summed.

        It is what llama.cpp's quantisation takes, divided in float32 as its own tools divide.
        """
        counts = self.counts.astype(np.float32)[:, None]
        empty = counts == 0
        means = np.where(empty, np.float32(1), self.sums / np.where(empty, np.float32(1), counts))
        return means.ravel()


@dataclass(frozen=True)
class Importance:
    """An importance matrix, and what it was computed from."""

    entries: Mapping[str, Entry] = field(repr=False)
    """By the weight's name, as "blk.0.attn_q.weight"."""
    num_chunks: int
    """Chunks of text computed; 0 = not said."""
    chunk_size: int
    """Tokens per chunk; 0 = not said, as in the older form."""
    datasets: tuple[str, ...] = ()
    """What its maker calls the texts."""
    corpus_sha256: str | None = None
    """Of the texts, as `corpus.texts_sha256` says; None in files of other makers."""
    shares: Mapping[str, Fraction] = field(default_factory=dict)
    """Of the chunks, by language; empty in files of other makers."""
    model_sha256: str = ""
    """Of the GGUF that it was computed on; "" in files of other makers."""
    model_parent_sha256: str = ""
    """Of the GGUF that that one was quantised from; "" where it does not say."""

    @cached_property
    def sums(self) -> Mapping[str, NDArray[np.float32]]:
        """Per weight the mean square of each input column, flat: what quantisation takes."""
        return {name: entry.means() for name, entry in self.entries.items()}

    @cached_property
    def never_used(self) -> Mapping[str, int]:
        """Weights with matrices that no activation reached, and how many: experts, mostly."""
        empty = {name: int((entry.counts == 0).sum()) for name, entry in self.entries.items()}
        return {name: count for name, count in empty.items() if count}


def write_importance(path: Path, importance: Importance) -> None:
    """Publish an importance matrix in llama.cpp's GGUF form.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    keys: dict[str, Value] = {
        "general.type": _KIND,
        DATASETS: importance.datasets or ("unknown",),  # llama.cpp's tools want the key
        NUM_CHUNKS: importance.num_chunks,
        CHUNK_SIZE: importance.chunk_size,
    }
    if importance.corpus_sha256:
        keys[CORPUS_SHA256] = importance.corpus_sha256
    if importance.model_sha256:
        keys[MODEL_SHA256] = importance.model_sha256
    if importance.model_parent_sha256:
        keys[MODEL_PARENT_SHA256] = importance.model_parent_sha256
    if importance.shares:
        keys[SHARES] = shares_to_texts(importance.shares)
    arrays: dict[str, NDArray[Any]] = {}
    for name in sorted(importance.entries):
        entry = importance.entries[name]
        arrays[name + SUMS] = entry.sums
        arrays[name + COUNTS] = entry.counts.astype(np.float32)[:, None]
    write_arrays(path, keys, arrays)


def is_importance(info: GGUFInfo) -> bool:
    """Whether a GGUF says that it is an importance matrix, and so no model."""
    return info.metadata.get("general.type") == _KIND


def read_importance(path: Path) -> Importance:
    """Read an importance matrix, in the GGUF form or the older one.

    Raises:
        MissingError: there is no such file.
        RefusedError: the file is damaged, no importance matrix, or holds numbers that cannot be.
        MedlocalError: the system does not let it be read.
    """
    try:
        with path.open("rb") as stream:
            is_gguf = stream.read(4) == b"GGUF"
        importance = _from_gguf(path) if is_gguf else _from_legacy(path)
    except FileNotFoundError as error:
        hint = "check the path, or compute it with `medlocal imatrix`"
        raise MissingError(f"there is no importance matrix at {path}", hint=hint) from error
    except OSError as error:
        raise MedlocalError(f"{path} cannot be read: {error.strerror or error}") from error
    for name, entry in importance.entries.items():
        if not (np.isfinite(entry.sums).all() and (entry.sums >= 0).all()):
            raise _refused(path, f"the sums of {name} are not all finite and positive")
    return importance


def shares_to_texts(shares: Mapping[str, Fraction]) -> tuple[str, ...]:
    """Write shares exactly, as "en=1/2"."""
    return tuple(f"{language}={share}" for language, share in shares.items())


def texts_to_shares(texts: object) -> dict[str, Fraction]:
    """Read what `shares_to_texts` wrote; what is not of that form is left out."""
    shares = {}
    for text in texts if isinstance(texts, tuple) else ():
        language, _, share = str(text).rpartition("=")
        try:
            shares[language] = Fraction(share)
        except (ValueError, ZeroDivisionError):
            continue
    return shares


def _from_gguf(path: Path) -> Importance:
    info, arrays = read_arrays(path)
    if not is_importance(info):
        kind = shown(info.metadata.get("general.type"))
        raise _refused(path, f"its general.type is {kind}, not {_KIND!r}")
    names = dict.fromkeys(name.removesuffix(SUMS).removesuffix(COUNTS) for name in arrays)
    if not names:
        raise _refused(path, "it holds no sums")
    entries = {name: _entry(path, name, arrays) for name in names}
    datasets = info.metadata.get(DATASETS, ())
    return Importance(
        entries=entries,
        num_chunks=_number(info, NUM_CHUNKS),
        chunk_size=_number(info, CHUNK_SIZE),
        datasets=tuple(map(str, datasets)) if isinstance(datasets, tuple) else (),
        corpus_sha256=_text(info, CORPUS_SHA256) or None,
        shares=texts_to_shares(info.metadata.get(SHARES)),
        model_sha256=_text(info, MODEL_SHA256),
        model_parent_sha256=_text(info, MODEL_PARENT_SHA256),
    )


def _entry(path: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> Entry:
    sums, counts = arrays.get(name + SUMS), arrays.get(name + COUNTS)
    if sums is None or counts is None:
        missing = name + (SUMS if sums is None else COUNTS)
        raise _refused(path, f"there is no tensor {shown(missing)}")
    if sums.dtype != np.float32 or counts.dtype != np.float32:
        raise _refused(path, f"the entry {shown(name)} is not F32: it may be unfinished")
    if not (np.isfinite(counts).all() and (counts >= 0).all()) or sums.size % counts.size:
        raise _refused(path, f"the counts of {shown(name)} do not fit its sums")
    shape = (counts.size, sums.size // counts.size)
    return Entry(sums.reshape(shape), np.rint(counts.ravel()).astype(np.int64))


def _text(info: GGUFInfo, key: str) -> str:
    return value if isinstance(value := info.metadata.get(key), str) else ""


def _number(info: GGUFInfo, key: str) -> int:
    if type(value := info.metadata.get(key)) is not int:
        raise _refused(info.path, f"{key} is {shown(value)}, not a number")
    return value


@dataclass(slots=True)
class _Bytes:
    """Goes forward through a file of the older form, and refuses each step beyond its end."""

    path: Path
    raw: mmap.mmap
    position: int = 0

    def take(self, num_bytes: int, what: str) -> bytes:
        if num_bytes < 0 or num_bytes > len(self.raw) - self.position:
            message = (
                f"{what} takes {num_bytes:,} bytes at byte {self.position:,} of {len(self.raw):,}"
            )
            raise _refused(self.path, message)
        self.position += num_bytes
        return self.raw[self.position - num_bytes : self.position]

    def number(self, what: str) -> int:
        return int(struct.unpack("<i", self.take(4, what))[0])

    def text(self, what: str, most: int) -> str:
        if not 0 <= (length := self.number(f"the length of {what}")) <= most:
            raise _refused(self.path, f"the length of {what} is {length:,}; it may be {most:,}")
        return self.take(length, what).decode("utf-8", "replace")


def _from_legacy(path: Path) -> Importance:
    """Read the older form; what follows the entries may be left out."""
    if not path.stat().st_size:
        raise _refused(path, "it is empty")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        return _read_legacy(_Bytes(path, raw))


def _read_legacy(source: _Bytes) -> Importance:
    path, size = source.path, len(source.raw)
    if not 0 < (num_entries := source.number("the number of entries")) <= MAX_ENTRIES:
        raise _refused(path, f"it is no GGUF, and in the older form it has {num_entries:,} entries")
    entries = dict(_legacy_entries(source, num_entries))
    if source.position == size:
        return Importance(entries, num_chunks=0, chunk_size=0)
    num_chunks = max(0, source.number("the number of chunks"))
    dataset = source.text("the data set's name", size) if source.position < size else ""
    datasets = (dataset,) if dataset else ()
    return Importance(entries, num_chunks=num_chunks, chunk_size=0, datasets=datasets)


def _legacy_entries(source: _Bytes, num_entries: int) -> Iterator[tuple[str, Entry]]:
    for number in range(1, num_entries + 1):
        name = source.text(f"the name of entry {number}", MAX_NAME_BYTES)
        num_chunks = source.number(f"the chunks of {shown(name)}")
        num_values = source.number(f"the number of values of {shown(name)}")
        if num_chunks < 0 or num_values < 1:
            message = f"{shown(name)} has {num_values:,} values over {num_chunks:,} chunks"
            raise _refused(source.path, message)
        raw = source.take(4 * num_values, f"the values of {shown(name)}")
        # A number of chunks of 0 means that the values are means already.
        yield name, Entry(np.frombuffer(raw, "<f4")[None], np.array([max(1, num_chunks)]))


def _refused(path: Path, message: str) -> RefusedError:
    hint = "name a file that `medlocal imatrix` or llama.cpp's llama-imatrix made"
    return RefusedError(f"{path} is no importance matrix that can be used: {message}", hint=hint)
