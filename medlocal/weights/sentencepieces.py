"""SentencePiece's `tokenizer.model`, from bytes that nobody vouches for.

The file is a protocol buffer (sentencepiece_model.proto), of which only a few fields matter here. They
are read in Python, because a damaged file must be refused with a reason, and because what decides
whether llama.cpp can do the same (the algorithm, the normalisation) is not to be had from the
`sentencepiece` package. What the pieces become in a GGUF is `piece_table`'s matter.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medlocal.errors import RefusedError
from medlocal.files import disk_errors
from medlocal.weights.header import PULL_AGAIN, shown
from medlocal.weights.tokenizer_files import MAX_TOKENS

_MAX_BYTES = 64 * 2**20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BPE = 2
_ALGORITHMS = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}

Value = int | bytes
Fields = Iterator[tuple[int, int, Value]]
"""Number, wire type and value of each field of a message."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token."""

    text: str
    score: float
    type: int
    """SentencePiece's numbers, which llama.cpp shares: see `token_table`."""


@dataclass(frozen=True)
class PieceModel:
    """What a `tokenizer.model` says."""

    pieces: tuple[Piece, ...]
    """By id."""
    adds_space_prefix: bool
    """A text is read as if a space stood before it."""
    collapses_spaces: bool
    """Several spaces are read as one."""
    normalizes: bool
    """Letters are replaced by others before the text is cut, as NFKC does."""


def read_piece_model(path: Path) -> PieceModel:
    """Read the file.

    Raises:
        RefusedError: it is damaged, or its algorithm is not BPE, the only one that llama.cpp has.
        MedlocalError: the system does not let it be read.
    """
    with disk_errors(path):
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise RefusedError(f"{path} has {size:,} bytes, and may have {_MAX_BYTES:,}")
        content = path.read_bytes()
    pieces: list[Piece] = []
    trainer, normalizer = b"", b""
    try:
        for number, wire, value in _fields(content):
            if wire != _BYTES or isinstance(value, int):
                continue
            if number == 1:
                pieces.append(_piece(value))
            elif number == 2:
                trainer = value
            elif number == 3:
                normalizer = value
        if not 0 < len(pieces) <= MAX_TOKENS:
            raise ValueError(f"{len(pieces):,} pieces")
        _check_algorithm(path, trainer)
        return _model(pieces, normalizer)
    except (ValueError, struct.error) as error:
        head = "a git-lfs pointer" if content[:7] == b"version" else str(error)
        raise RefusedError(f"{path} is no SentencePiece model: {head}", hint=PULL_AGAIN) from error


def _model(pieces: list[Piece], normalizer: bytes) -> PieceModel:
    values = {number: value for number, _, value in _fields(normalizer)}
    return PieceModel(
        pieces=tuple(pieces),
        # What a file leaves out is true, says the format.
        adds_space_prefix=bool(values.get(3, 1)),
        collapses_spaces=bool(values.get(4, 1)),
        normalizes=bool(values.get(2)),
    )


def _check_algorithm(path: Path, trainer: bytes) -> None:
    values = {number: value for number, _, value in _fields(trainer)}
    if (algorithm := values.get(3, 1)) != _BPE:
        name = _ALGORITHMS.get(algorithm if isinstance(algorithm, int) else 0, shown(algorithm))
        raise RefusedError(
            f"{path}: SentencePiece's algorithm is {name}, and llama.cpp's for Llama and Mistral is"
            " BPE: it would cut texts otherwise than in training, without a word",
            hint="models of this kind cannot be converted here",
        )


def _piece(message: bytes) -> Piece:
    text, score, kind = b"", 0.0, 1
    for number, _, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            text = value
        elif number == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if not 1 <= kind <= 6 or score != score:
        raise ValueError(f"a piece of type {kind} with the score {score}")
    return Piece(text.decode("utf-8"), score, kind)


def _fields(message: bytes) -> Fields:
    """The fields of a message in order; a fixed number is left as its bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            whole, at = _varint(message, at)
            yield number, wire, whole
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in {_FIXED32, _FIXED64}:
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"a field of the wire type {wire} at byte {at}")
        if length > len(message) - at:
            raise ValueError(f"a field of {length} bytes where {len(message) - at} are left")
        yield number, wire, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"a number of more than ten bytes at byte {at}")
