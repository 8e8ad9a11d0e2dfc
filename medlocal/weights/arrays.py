"""A GGUF that holds arrays instead of a model: what an importance matrix is kept in.

Written atomically, and read through the checked header. This module does not know what the arrays
mean. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import RefusedError
from medlocal.files import publish
from medlocal.weights.header import MAX_NAME_BYTES
from medlocal.weights.inspect import GGUFInfo, read_gguf
from medlocal.weights.writer import (
    ARRAY,
    STRING,
    UINT32,
    Entry,
    TensorEntry,
    pack_header,
    padding,
)

Value = str | int | tuple[str, ...]
"""Of a key: text, a number from 0 to 2^32 - 1, or a list of texts, none of them empty."""

_KINDS = {str: STRING, int: UINT32, tuple: ARRAY}
_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float64): 28}
_DTYPES: Mapping[str, str] = {"F32": "<f4", "F64": "<f8"}


def write_arrays(path: Path, keys: Mapping[str, Value], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Publish a GGUF of float32 and float64 arrays, in the order given.

    Args:
        path: the file; it is there whole or not at all.
        keys: the metadata.
        arrays: by name; shapes are numpy's, so that the last axis is GGUF's first.

    Raises:
        RefusedError: a name is longer than GGUF allows.
        OSError: the disk is full, or the file cannot be written.
    """
    entries = [Entry(key, value, _KINDS[type(value)]) for key, value in keys.items()]
    header = pack_header(entries, [_entry(name, array) for name, array in arrays.items()])
    with publish(path) as stream:
        stream.write(header)
        for array in arrays.values():
            stream.write(array.tobytes())
            stream.write(bytes(padding(array.nbytes)))


def read_arrays(path: Path) -> tuple[GGUFInfo, dict[str, NDArray[Any]]]:
    """Read the header of a GGUF and all its tensors, which must be float32 or float64.

    Returns:
        What the header says, and the arrays by name; shapes are numpy's.

    Raises:
        MissingError: there is no such file.
        RefusedError: the file is damaged, or a tensor has another type.
        MedlocalError: the system does not let it be read.
    """
    info = read_gguf(path)
    arrays: dict[str, NDArray[Any]] = {}
    with path.open("rb") as stream:
        for tensor in info.tensors:
            if tensor.type not in _DTYPES:
                raise RefusedError(
                    f"{path}: the tensor {tensor.name} is {tensor.type}, not F32 or F64",
                    hint="name an importance matrix, not a model",
                )
            stream.seek(tensor.offset)
            flat = np.frombuffer(stream.read(tensor.num_bytes), _DTYPES[tensor.type])
            arrays[tensor.name] = flat.reshape(tensor.shape[::-1])
    return info, arrays


def _entry(name: str, array: NDArray[Any]) -> TensorEntry:
    if len(name.encode()) > MAX_NAME_BYTES:
        raise RefusedError(
            f"the name {name!r} is longer than the {MAX_NAME_BYTES} bytes that GGUF allows",
            hint="this model's tensors have names that no importance matrix can hold",
        )
    shape = array.shape[::-1]
    while len(shape) > 1 and shape[-1] == 1:  # as ggml counts dimensions
        shape = shape[:-1]
    return TensorEntry(name, shape, _TYPES[array.dtype], array.nbytes)
