"""Take the header of a GGUF file apart, trusting nothing in it.

Every count and length is checked against the bytes that are there before anything is allocated, and
the header as a whole is bounded, so a hostile file costs no more than a broken one. Tensor data is
never touched; it is only proved to lie inside the file. llama.cpp checks much of this too, but its own
answer is a line in a log and a null pointer, and has been a crash.

This module knows bytes, not models: no key but the two that change how a file is read means anything
to it. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import itertools
import mmap
import reprlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

from medlocal.errors import RefusedError

MAX_HEADER_BYTES = 128 * 2**20
"""Metadata and tensor list together; the largest in use (262k tokens and a JSON copy) take 50 MiB."""
MAX_ENTRIES = 65_536
"""Keys, and tensors: bounds the Python objects made. Real files have tens, and thousands."""
MAX_KEY_BYTES = 65_535
"""The format's own limit."""
MAX_NAME_BYTES = 63
"""Of a tensor's name: ggml's own limit, GGML_MAX_NAME less the closing zero."""
MAX_EAGER = 1024
"""Arrays up to this many elements become tuples; longer ones stay `ArrayRef`."""
MAX_EAGER_TOTAL = 65_536
"""Elements decoded into tuples in one file; every array after that stays `ArrayRef`."""
PULL_AGAIN = "the download is incomplete or damaged: pull the model again"

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_SCALARS: Mapping[int, tuple[str, struct.Struct]] = {
    0: ("uint8", struct.Struct("<B")),
    1: ("int8", struct.Struct("<b")),
    2: ("uint16", struct.Struct("<H")),
    3: ("int16", struct.Struct("<h")),
    4: ("uint32", _U32),
    5: ("int32", struct.Struct("<i")),
    6: ("float32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<?")),
    10: ("uint64", _U64),
    11: ("int64", struct.Struct("<q")),
    12: ("float64", struct.Struct("<d")),
}
_LAYOUTS = dict(_SCALARS.values())

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


@dataclass(frozen=True)
class ArrayRef:
    """A long array of the metadata, its elements decoded as they are iterated over.

    It holds a copy of its own bytes, so it outlives the file. Its strings may be pieces of characters:
    bytes that are not UTF-8 come out as U+FFFD.
    """

    type: str
    """The format's name of the element type: "string", "int32", "float32", …"""
    count: int
    offset: int
    """Of the first element, in bytes from the beginning of the file."""
    data: bytes = field(repr=False)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[object]:
        if self.type != "string":
            return (value for (value,) in _LAYOUTS[self.type].iter_unpack(self.data))
        return self._strings()

    def __getitem__(self, index: int) -> object:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return next(itertools.islice(self, index, None))

    def _strings(self) -> Iterator[str]:
        position = 0
        for _ in range(self.count):
            (length,) = _U64.unpack_from(self.data, position)
            position += 8 + length
            yield self.data[position - length : position].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header announces it."""

    name: str
    shape: tuple[int, ...]
    """ggml's order: the first dimension is the contiguous one, a row."""
    type: str
    """ggml's name of the type: "F32", "Q4_K", …"""
    offset: int
    """Of its data, in bytes from the beginning of the file."""
    num_bytes: int
    num_elements: int


@dataclass(frozen=True)
class Header:
    """All that stands before the tensor data."""

    version: int
    metadata: Mapping[str, object]
    """Read-only."""
    tensors: tuple[TensorInfo, ...]
    """In file order."""


def read_header(path: Path, data: mmap.mmap) -> Header:
    """Read and check the header of a file that begins with the right four letters.

    Args:
        path: for the messages.
        data: the whole file.

    Raises:
        RefusedError: the file must not be used; the message says what was found.
    """
    cursor = _Cursor(path, data)
    version = _read_version(cursor)
    num_tensors = cursor.number(_U64, "the number of tensors")
    num_keys = cursor.number(_U64, "the number of metadata keys")
    # The least that one takes: a key of one byte with a bool; a nameless tensor of one dimension.
    _check_number(cursor, num_keys, 14, "metadata keys")
    _check_number(cursor, num_tensors, 32, "tensors")
    metadata = _read_metadata(cursor, num_keys)
    tensors = _place(cursor, [_read_tensor(cursor) for _ in range(num_tensors)], metadata)
    return Header(version, MappingProxyType(metadata), tensors)


class _Cursor:
    """Goes forward through the header, and refuses each step that leads beyond its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.end = min(self.size, MAX_HEADER_BYTES)
        self.position = 4  # behind the magic
        self.num_decoded = 0  # array elements turned into Python objects

    def refuse(self, message: str, hint: str = PULL_AGAIN) -> RefusedError:
        return RefusedError(f"{self.path}: {message}", hint=hint)

    def left(self) -> int:
        return self.end - self.position

    def skip(self, num_bytes: int, what: str) -> int:
        """Step over `num_bytes` and return where they began."""
        if num_bytes > self.left():
            where = f"byte {self.position:,} of {self.size:,}"
            if self.end < self.size:
                where += f", the header may take {MAX_HEADER_BYTES:,}"
            raise self.refuse(
                f"{what} at {where} needs {num_bytes:,} bytes, and {self.left():,} are left"
            )
        self.position += num_bytes
        return self.position - num_bytes

    def number(self, kind: struct.Struct, what: str) -> int:
        (value,) = kind.unpack_from(self.data, self.skip(kind.size, what))
        return int(value)

    def string(self, what: str, max_bytes: int = MAX_HEADER_BYTES) -> str:
        length = self.number(_U64, f"the length of {what}")
        if length > max_bytes:
            raise self.refuse(f"{what} is {length:,} bytes long, and may be {max_bytes:,}")
        start = self.skip(length, what)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.refuse(f"{what} is not UTF-8 text: {error.reason}") from error

    def skip_strings(self, count: int, what: str) -> None:
        # The one loop that runs once per token and merge: 400,000 times for Llama 3. Hence no calls.
        data, end, position, unpack = self.data, self.end, self.position, _U64.unpack_from
        for index in range(count):
            if position + 8 > end:
                raise self.refuse(f"string {index:,} of {count:,} in {what} lies beyond the file")
            position += 8 + unpack(data, position)[0]
        self.skip(position - self.position, what)

    def value(self, what: str) -> object:
        kind = self.number(_U32, f"the type of {what}")
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            return self.array(what)
        start = self.skip_scalars(kind, 1, what)
        return _SCALARS[kind][1].unpack_from(self.data, start)[0]

    def array(self, what: str) -> object:
        kind = self.number(_U32, f"the element type of {what}")
        count = self.number(_U64, f"the length of {what}")
        if kind == _ARRAY:
            # The format allows arrays in arrays; llama.cpp refuses them, and no model has any.
            raise self.refuse(f"{what} is an array of arrays", "use a file that llama.cpp can read")
        start = self.position
        if kind == _STRING:
            if 8 * count > self.left():
                raise self.refuse(f"{what} has {count:,} strings in {self.left():,} bytes")
            self.skip_strings(count, what)
        else:
            self.skip_scalars(kind, count, what)
        name = "string" if kind == _STRING else _SCALARS[kind][0]
        array = ArrayRef(name, count, start, self.data[start : self.position])
        self.num_decoded += count if count <= MAX_EAGER else 0
        return array if count > MAX_EAGER or self.num_decoded > MAX_EAGER_TOTAL else tuple(array)

    def skip_scalars(self, kind: int, count: int, what: str) -> int:
        if kind not in _SCALARS:
            raise self.refuse(f"{what} has the value type {kind}, which does not exist")
        name, layout = _SCALARS[kind]
        start = self.skip(count * layout.size, what)
        if name == "bool" and (odd := self.data[start : self.position].translate(None, b"\0\1")):
            raise self.refuse(f"{what} is a bool that is {odd[0]}, neither 0 nor 1")
        return start


def _read_version(cursor: _Cursor) -> int:
    version = cursor.number(_U32, "the version")
    if version in {2, 3}:
        return version
    if version & 0xFFFF == 0 and version:
        raise cursor.refuse(
            "a big-endian GGUF", "convert the model again for little-endian machines"
        )
    raise cursor.refuse(f"GGUF version {version}; 2 and 3 are supported", "convert the model again")


def _check_number(cursor: _Cursor, number: int, least_bytes: int, what: str) -> None:
    if number * least_bytes > cursor.left():
        raise cursor.refuse(
            f"announces {number:,} {what} in the {cursor.left():,} bytes that follow"
        )
    if number > MAX_ENTRIES:
        raise cursor.refuse(f"announces {number:,} {what}; up to {MAX_ENTRIES:,} are read")


def _read_metadata(cursor: _Cursor, num_keys: int) -> dict[str, object]:
    metadata: dict[str, object] = {}
    for index in range(num_keys):
        key = cursor.string(f"metadata key {index}", MAX_KEY_BYTES)
        if not key:
            raise cursor.refuse(f"metadata key {index} is empty")
        if key in metadata:
            raise cursor.refuse(f"the metadata key {shown(key)} is there twice")
        metadata[key] = cursor.value(shown(key))
    num_parts = metadata.get("split.count", 1)
    if isinstance(num_parts, int) and num_parts > 1:
        raise cursor.refuse(
            f"one part of a model split into {num_parts}, which is not supported yet",
            "put all parts into one folder and merge them: llama-gguf-split --merge FIRST_PART OUT",
        )
    return metadata


def _read_tensor(cursor: _Cursor) -> TensorInfo:
    """Read one entry of the tensor list; its offset still counts from the beginning of the data."""
    name = cursor.string("a tensor's name", MAX_NAME_BYTES)
    what = f"the tensor {shown(name)}"
    num_dims = cursor.number(_U32, what)
    if not 1 <= num_dims <= 4:
        raise cursor.refuse(f"{what} has {num_dims:,} dimensions; 1 to 4 are possible")
    shape = tuple(cursor.number(_U64, what) for _ in range(num_dims))
    num_elements = 1
    for length in shape:
        num_elements *= length
    if not 0 < num_elements < 2**63:
        raise cursor.refuse(f"{what} has the impossible shape {shape}")
    kind = cursor.number(_U32, what)
    offset = cursor.number(_U64, what)
    if kind not in _ggml_types():
        raise cursor.refuse(
            f"{what} has the unknown ggml type {kind}", "upgrade gguf, or quantise it otherwise"
        )
    type_name, block, block_bytes = _ggml_types()[kind]
    if shape[0] % block:
        raise cursor.refuse(
            f"{what} has rows of {shape[0]:,}, which {type_name}'s blocks of {block} do not divide"
        )
    num_bytes = num_elements // block * block_bytes
    return TensorInfo(name, shape, type_name, offset, num_bytes, num_elements)


def _place(
    cursor: _Cursor, tensors: list[TensorInfo], metadata: Mapping[str, object]
) -> tuple[TensorInfo, ...]:
    """Prove that the tensors lie apart and inside the file; give them their place in it."""
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.refuse(f"general.alignment is {shown(alignment)}, not a power of two")
    start = -(-cursor.position // alignment) * alignment
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise cursor.refuse(f"the tensor {shown(tensor.name)} is there twice")
        if tensor.offset % alignment:
            raise cursor.refuse(
                f"the tensor {shown(tensor.name)} at {tensor.offset:,} is not aligned to {alignment}"
            )
        names.add(tensor.name)
    _check_apart(cursor, sorted(tensors, key=lambda tensor: tensor.offset), start)
    return tuple(dataclasses.replace(t, offset=start + t.offset) for t in tensors)


def _check_apart(cursor: _Cursor, tensors: list[TensorInfo], start: int) -> None:
    end, before = 0, ""
    for tensor in tensors:
        if tensor.offset < end:
            raise cursor.refuse(f"the tensors {shown(before)} and {shown(tensor.name)} overlap")
        end, before = tensor.offset + tensor.num_bytes, tensor.name
    if tensors and start + end > cursor.size:
        raise cursor.refuse(
            f"TRUNCATED: its header promises {start + end:,} bytes, and {cursor.size:,} are there"
        )


@cache
def _ggml_types() -> Mapping[int, tuple[str, int, int]]:
    """For each ggml type: its name, elements per block, bytes per block."""
    from gguf import GGML_QUANT_SIZES  # importing it takes a quarter of a second

    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


def shown(value: object) -> str:
    """A value from the file for a message: short, and without control characters."""
    return _SHORT.repr(value)
