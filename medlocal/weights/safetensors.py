"""Read a safetensors file by memory map, trusting nothing in its header.

The file is eight bytes of length, a JSON header, and the tensors' bytes. Every offset is checked
against the bytes that are there before a tensor is handed out: types known, shapes and sizes in
agreement, tensors apart and without gaps, as the format demands. Rows are views of the map; whoever
reads a large file says when it is done with a part of it (`forget`), so that memory does not grow
with the file.

This module knows bytes and shapes, not models. The format:
https://github.com/huggingface/safetensors#format
"""

import json
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import MedlocalError, MissingError, RefusedError
from medlocal.weights.header import shown

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
MAX_DIMS = 8
"""More than any tensor has; it bounds the product of a shape."""
PULL_AGAIN = "the download is incomplete or damaged: get the checkpoint again"

FLOATS: Mapping[str, "np.dtype[Any]"] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: its bits
}
"""The types that hold weights, and how numpy holds them."""
_SIZES = {name: dtype.itemsize for name, dtype in FLOATS.items()} | {
    **dict.fromkeys(("I64", "U64", "C64"), 8),
    **dict.fromkeys(("I32", "U32"), 4),
    **dict.fromkeys(("I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file."""

    name: str
    type: str
    """As the format calls it: "BF16", "F32", …"""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte, from the beginning of the file."""
    num_bytes: int
    file: "SafetensorsFile" = field(repr=False, compare=False)

    @property
    def num_rows(self) -> int:
        """Elements of the first dimension; 1 for a single number."""
        return self.shape[0] if self.shape else 1

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """The rows [start, stop) as they lie in the file: a view, read-only.

        Returns:
            (rows, elements of a row) of the type that `FLOATS` gives.

        Raises:
            RefusedError: the type is not one of `FLOATS`.
        """
        if self.type not in FLOATS:
            raise RefusedError(
                f"{self.file.path}: the tensor {shown(self.name)} is of type {self.type},"
                f" and weights are {', '.join(FLOATS)}",
                hint="convert the original checkpoint, not one that was quantised",
            )
        dtype = FLOATS[self.type]
        count = (stop - start) * self._row_bytes // dtype.itemsize
        offset = self.offset + start * self._row_bytes
        flat = np.frombuffer(self.file.data, dtype, count, offset)
        return flat.reshape(stop - start, -1)

    def forget(self, start: int, stop: int) -> None:
        """Give the memory of the rows [start, stop) back; read again, they come from the file."""
        size = self._row_bytes
        self.file.forget(self.offset + start * size, self.offset + stop * size)

    @property
    def _row_bytes(self) -> int:
        return self.num_bytes // max(self.num_rows, 1)


@dataclass(frozen=True, eq=False)
class SafetensorsFile:
    """An open file; its map is closed when nothing holds a view of it any more."""

    path: Path
    data: mmap.mmap = field(repr=False)
    tensors: dict[str, StoredTensor] = field(default_factory=dict, repr=False)
    """By name, in the order of the names."""

    def forget(self, start: int, stop: int) -> None:
        """Give the memory of the bytes [start, stop) back to the system."""
        # Up to the page that `stop` lies in: its beginning may hold what was already read, and
        # what comes after it is read again at the price of one page.
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        if (length := stop // mmap.PAGESIZE * mmap.PAGESIZE - first) > 0:
            self.data.madvise(mmap.MADV_DONTNEED, first, length)


def open_safetensors(path: Path) -> SafetensorsFile:
    """Map a file and check its header.

    A file that another process shortens while it is read ends this process (SIGBUS): that is how
    mapped files work.

    Raises:
        MissingError: there is no such file.
        RefusedError: the file must not be used; the message says what was found.
        MedlocalError: the system does not let it be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
            _check_beginning(path, head)
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise MissingError(f"there is no file {path}", hint=PULL_AGAIN) from error
    except OSError as error:
        raise MedlocalError(f"{path} cannot be read: {error.strerror or error}") from error
    (length,) = struct.unpack_from("<Q", data)
    header = _read_json(path, data[8 : 8 + length])
    opened = SafetensorsFile(path, data)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    tensors = [_read_tensor(opened, name, entries[name], 8 + length) for name in sorted(entries)]
    _check_apart(path, tensors, 8 + length, len(data))
    opened.tensors.update({tensor.name: tensor for tensor in tensors})
    return opened


def _check_beginning(path: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise RefusedError(
            f"{path} is a git-lfs pointer, not the file", hint="run `git lfs pull` in its folder"
        )
    if len(head) < 8:
        raise RefusedError(
            f"{path} has {len(head)} bytes, and a safetensors header has at least 8",
            hint=PULL_AGAIN,
        )
    (length,) = struct.unpack_from("<Q", head)
    if length > MAX_HEADER_BYTES:
        raise RefusedError(
            f"{path} is not a safetensors file: its header would take {length:,} bytes,"
            f" and may take {MAX_HEADER_BYTES:,}",
            hint="name a folder with *.safetensors files",
        )
    if (size := path.stat().st_size) < 8 + length:
        raise RefusedError(
            f"{path}: TRUNCATED: its header takes {length:,} bytes, and {size - 8:,} follow",
            hint=PULL_AGAIN,
        )


def _read_json(path: Path, content: bytes) -> dict[str, object]:
    def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
            raise ValueError(f"{shown(twice)} is there twice")
        return found

    try:
        header = json.loads(content, object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path}: its header is not JSON: {error}", hint=PULL_AGAIN) from error
    if not isinstance(header, dict):
        raise RefusedError(f"{path}: its header is not a JSON object", hint=PULL_AGAIN)
    return header


def _read_tensor(file: SafetensorsFile, name: str, entry: object, start: int) -> StoredTensor:
    """One entry of the header; `start` is where the tensors' bytes begin."""
    what = f"the tensor {shown(name)}"
    if not isinstance(entry, dict):
        raise _refused(file.path, f"{what} is described by {shown(entry)}")
    kind, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in _SIZES:
        raise _refused(file.path, f"{what} is of the unknown type {shown(kind)}")
    if not _are_counts(shape) or len(shape) > MAX_DIMS:
        raise _refused(file.path, f"{what} has the impossible shape {shown(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _refused(file.path, f"{what} has the impossible place {shown(offsets)}")
    first, end = offsets
    num_bytes = _SIZES[kind]
    for length in shape:
        num_bytes *= length
    if num_bytes != end - first:
        raise _refused(
            file.path,
            f"{what} of shape {tuple(shape)} and type {kind} needs {num_bytes:,} bytes,"
            f" and has {end - first:,}",
        )
    return StoredTensor(name, kind, tuple(shape), start + first, num_bytes, file)


def _are_counts(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers from 0 up that the format can mean."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_apart(path: Path, tensors: list[StoredTensor], start: int, size: int) -> None:
    """Prove that the tensors cover the rest of the file, each byte once."""
    end, before = start, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.num_bytes)):
        what = f"the tensor {shown(tensor.name)}"
        if tensor.offset < end:
            raise _refused(path, f"{before} and {what} overlap")
        if tensor.offset > end:
            raise _refused(path, f"{tensor.offset - end:,} bytes before {what} belong to none")
        end, before = tensor.offset + tensor.num_bytes, what
    if end > size:
        raise _refused(
            path, f"TRUNCATED: its header promises {end:,} bytes, and {size:,} are there"
        )
    if end < size:
        raise _refused(path, f"{size - end:,} bytes after the last tensor belong to none")


def _refused(path: Path, message: str) -> RefusedError:
    return RefusedError(f"{path}: {message}", hint=PULL_AGAIN)
