"""The bytes of a GGUF's header: keys and values, and the list of tensors with their places.

Only packing: what is written and why is decided elsewhere, and the tensors' bytes are streamed
after it by whoever has them. Arrays of a hundred thousand strings are packed in one go, which
the `gguf` package does one by one. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

ALIGNMENT = 32
"""Of each tensor's bytes; the format's default."""
UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = (
    range(13)
)
"""The format's value types; equal to `gguf.GGUFValueType`."""
_CODES = {
    UINT8: "B",
    INT8: "b",
    UINT16: "H",
    INT16: "h",
    UINT32: "I",
    INT32: "i",
    FLOAT32: "f",
    BOOL: "?",
    UINT64: "Q",
    INT64: "q",
    FLOAT64: "d",
}
"""`struct`'s codes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value."""

    key: str
    value: Any
    """A number, a bool, text, or a sequence of one of them."""
    type: int
    """One of the format's value types; for `ARRAY` the elements' type follows from the first."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as the header announces it."""

    name: str
    shape: tuple[int, ...]
    """ggml's order: the first dimension is a row."""
    type: int
    """ggml's number of the type."""
    num_bytes: int


def pack_header(entries: Iterable[Entry], tensors: Sequence[TensorEntry]) -> bytes:
    """All that stands before the tensors' bytes, padded so that they can follow.

    Of two entries with one key the later one's value stands, in the earlier one's place. Empty
    texts and arrays are left out: the format has no use for them.
    """
    kept = {entry.key: entry for entry in entries if entry.value not in ("", b"", (), [])}
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(kept))]
    parts += [_pack_text(e.key) + struct.pack("<I", e.type) + _pack(e) for e in kept.values()]
    offset = 0
    for tensor in tensors:
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        parts += [_pack_text(tensor.name), shape, struct.pack("<IQ", tensor.type, offset)]
        offset += tensor.num_bytes + padding(tensor.num_bytes)
    header = b"".join(parts)
    return header + bytes(padding(len(header)))


def padding(num_bytes: int) -> int:
    """Bytes to add so that the next tensor begins where it may."""
    return -num_bytes % ALIGNMENT


def _pack(entry: Entry) -> bytes:
    if entry.type == STRING:
        return _pack_text(entry.value)
    if entry.type != ARRAY:
        return struct.pack(f"<{_CODES[entry.type]}", entry.value)
    values = entry.value
    kind = _element_type(values[0])
    head = struct.pack("<IQ", kind, len(values))
    if kind == STRING:
        return head + b"".join(map(_pack_text, values))
    return head + struct.pack(f"<{len(values)}{_CODES[kind]}", *values)


def _element_type(value: object) -> int:
    if isinstance(value, str | bytes):
        return STRING
    if isinstance(value, bool):
        return BOOL
    return FLOAT32 if isinstance(value, float) else INT32


def _pack_text(value: str | bytes) -> bytes:
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data
