"""What is kept of a reference model's distributions over a text, as one file that is made once.

A file holds the chunks of token ids and, chunk by chunk, what `distances` needs to compare another
model: some 2 KiB per predicted token where all probabilities would take 100 to 260. Its header says
what it was made from. It is used again where all of that is the same; a file that is damaged, or is
not what its name says, is refused. Nothing here computes a model or a divergence.

The file, little-endian: the magic, the version and the header's length (two uint32), the header as
JSON, the token ids (int32, chunks × tokens), the chunks one after another, and the SHA-256 of all that.
A chunk: how many tokens are kept at each position (uint32), their ids and log-probabilities, the others'
probability and Σ p ln p, the drawn ids and log-probabilities, the log-probability of the token that
follows. Ids are uint16 where the vocabulary allows, else uint32; all else is float32.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import RefusedError
from medlocal.files import CHUNK, disk_errors, publish
from medlocal.weights.distances import Ids, KeepOptions, Kept

VERSION = 1
SUFFIX = ".reference"

_MAGIC = b"medlocal"
_LENGTHS = struct.Struct("<II")
_DIGEST_BYTES = 32
_MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ReferenceKey:
    """What a reference's numbers depend on."""

    model_sha256: str
    """Of the GGUF."""
    text_sha256: str
    chunk_tokens: int
    num_chunks: int
    """Chunks that were asked for; the text may have fewer."""
    num_rows: int
    """Positions computed in one call: another number gives other last bits."""
    num_threads: int
    """Where the attention is divided among threads, their number does the same."""
    build: str
    """Commit of llama.cpp, and its devices."""
    keep: KeepOptions

    def path(self, folder: Path) -> Path:
        """Where the file lies: the name begins with the model's checksum and tells the whole key."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return folder / f"{self.model_sha256[:12]}-{digest[:16]}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """What the model had to say of itself when it was loaded."""

    num_vocab: int
    vocabulary_sha256: str
    loaded_bytes: int
    """Of all tensors, as llama.cpp counts them."""


@dataclass(frozen=True)
class Reference:
    """A file that was checked, to be read as often as there are models to compare."""

    path: Path
    facts: ReferenceFacts
    tokens: Ids = field(repr=False)
    """(chunks, tokens): the text as it was computed."""
    keep: KeepOptions
    _start: int
    """Of the first chunk, in bytes."""

    @property
    def num_positions(self) -> int:
        """Predicted tokens, over all chunks."""
        return len(self.tokens) * scored_positions(self.tokens.shape[1])

    @property
    def bytes_per_position(self) -> float:
        """Of the file, per predicted token."""
        return self.path.stat().st_size / self.num_positions

    def chunks(self) -> Iterator[Kept]:
        """What is kept of each chunk, in their order."""
        ids = _id_type(self.facts.num_vocab)
        positions = scored_positions(self.tokens.shape[1])
        with disk_errors(self.path.parent), self.path.open("rb") as stream:
            stream.seek(self._start)
            for _ in range(len(self.tokens)):
                yield _read_chunk(stream, positions, self.keep.num_drawn, ids)


def scored_positions(chunk_tokens: int) -> int:
    """Predicted tokens of a chunk, as llama.cpp scores it: of its second half, but the first one."""
    return chunk_tokens - 1 - chunk_tokens // 2


def write_reference(
    folder: Path, key: ReferenceKey, facts: ReferenceFacts, tokens: Ids, chunks: Iterable[Kept]
) -> Path:
    """Publish a reference; its chunks are computed while it is written.

    Args:
        folder: where references are kept; it is made where it is not there.
        key: what the numbers depend on.
        facts: of the model.
        tokens: (chunks, tokens).
        chunks: as many.

    Raises:
        MedlocalError: the disk is full. Nothing lies under the file's name then.
    """
    path = key.path(folder)
    head = json.dumps(
        {"key": asdict(key), "facts": asdict(facts), "num_chunks": len(tokens)}, sort_keys=True
    ).encode()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with publish(path) as stream:
            digest = hashlib.sha256()
            for part in (_MAGIC, _LENGTHS.pack(VERSION, len(head)), head):
                _put(stream, digest, part)
            _put(stream, digest, tokens.astype("<i4").tobytes())
            for chunk in chunks:
                for array in _arrays(chunk, _id_type(facts.num_vocab)):
                    _put(stream, digest, array.tobytes())
            stream.write(digest.digest())
    return path


def open_reference(folder: Path, key: ReferenceKey) -> Reference | None:
    """The reference that was made from just this; None where there is none.

    Raises:
        RefusedError: a file of that name is damaged, or was made from something else.
    """
    path = key.path(folder)
    if not path.is_file():
        return None
    with disk_errors(folder), path.open("rb") as stream:
        _check_whole(path, stream)
        head, start = _read_head(path, stream)
        if head.get("key") != asdict(key):
            raise _refused(path, "was made from something else than its name says")
        num_chunks = int(head["num_chunks"])
        size = num_chunks * key.chunk_tokens
        raw = stream.read(4 * size)
        tokens = np.frombuffer(raw, "<i4").astype(np.int32).reshape(num_chunks, key.chunk_tokens)
        facts = ReferenceFacts(**head["facts"])
    return Reference(path, facts, tokens, key.keep, start + 4 * size)


def _check_whole(path: Path, stream: IO[bytes]) -> None:
    """Compare the file with the checksum at its end, and go back to its beginning."""
    left = path.stat().st_size - _DIGEST_BYTES
    digest = hashlib.sha256()
    while left > 0 and (part := stream.read(min(CHUNK, left))):
        digest.update(part)
        left -= len(part)
    if stream.read() != digest.digest():
        raise _refused(path, "is damaged: its checksum does not fit")
    stream.seek(0)


def _read_head(path: Path, stream: IO[bytes]) -> tuple[dict[str, Any], int]:
    """The header, and where it ends."""
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise _refused(path, "is not a reference that medlocal made")
    version, length = _LENGTHS.unpack(stream.read(_LENGTHS.size))
    if version != VERSION or length > _MOST_HEADER_BYTES:
        raise _refused(path, f"has version {version}, and {VERSION} is read here")
    head: dict[str, Any] = json.loads(stream.read(length))
    return head, len(_MAGIC) + _LENGTHS.size + length


def _refused(path: Path, why: str) -> RefusedError:
    return RefusedError(f"{path} {why}", hint="remove the file; it is made again when it is needed")


def _id_type(num_vocab: int) -> np.dtype[Any]:
    return np.dtype("<u2" if num_vocab <= 1 << 16 else "<u4")


def _put(stream: IO[bytes], digest: "hashlib._Hash", part: bytes) -> None:
    stream.write(part)
    digest.update(part)


def _arrays(chunk: Kept, ids: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """A chunk's arrays in the order in which they are written."""
    return (
        chunk.counts.astype("<u4"),
        chunk.ids.astype(ids),
        chunk.log_p.astype("<f4"),
        chunk.rest.astype("<f4"),
        chunk.rest_log.astype("<f4"),
        chunk.drawn_ids.astype(ids),
        chunk.drawn_log_p.astype("<f4"),
        chunk.next_log_p.astype("<f4"),
    )


def _read_chunk(stream: IO[bytes], positions: int, drawn: int, ids: np.dtype[Any]) -> Kept:
    def take(number: int, kind: str | np.dtype[Any]) -> NDArray[Any]:
        kind = np.dtype(kind)
        return np.frombuffer(stream.read(number * kind.itemsize), kind)

    counts = take(positions, "<u4").astype(np.int64)
    num_kept = int(counts.sum())
    return Kept(
        counts=counts,
        ids=take(num_kept, ids).astype(np.int32),
        log_p=take(num_kept, "<f4"),
        rest=take(positions, "<f4"),
        rest_log=take(positions, "<f4"),
        drawn_ids=take(positions * drawn, ids).astype(np.int32).reshape(positions, drawn),
        drawn_log_p=take(positions * drawn, "<f4").reshape(positions, drawn),
        next_log_p=take(positions, "<f4"),
    )
