"""The tensors of a computation, as llama.cpp's evaluation callback hands them over.

What ggml exports a function for is asked of ggml. Shapes, strides and sources it exports nothing for:
they are read from its structure, mirrored here by hand. A mirror that does not fit reads other memory
without any sign, so `check_layout` compares it with what ggml's own functions make, and nothing is
read before that. This module does not know what a tensor is for.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import MedlocalError
from medlocal.libllama import ggml

_OBJECT_BYTES = 32
"""What ggml keeps before each tensor: two sizes, a pointer, a kind, padding."""
_DTYPES = {0: np.dtype(np.float32), 26: np.dtype(np.int32)}


class TensorLayout(ctypes.Structure):
    """`struct ggml_tensor` of ggml 0.25 (ggml.h)."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


class GraphTensor:
    """One tensor, valid only while the callback that was given its address runs."""

    def __init__(self, address: int) -> None:
        self.address = address
        self._fields: Any = TensorLayout.from_address(address)

    @property
    def operation(self) -> str:
        """What makes it, as ggml calls it: "MUL_MAT", "MUL_MAT_ID"."""
        return str(_ggml().ggml_op_desc(self.address).decode("ascii", "replace"))

    @property
    def name(self) -> str:
        """Of a weight: as in the file. A copy on another device is named after it: see `weight_name`."""
        return str(_ggml().ggml_get_name(self.address).decode("utf-8", "replace"))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """In ggml's order: the first dimension is the contiguous one."""
        first, second, third, fourth = self._fields.ne
        return first, second, third, fourth

    @property
    def is_float32(self) -> bool:
        """Whether its elements are 32-bit floats."""
        return bool(self._fields.type == 0)

    def source(self, number: int) -> "GraphTensor":
        """One of the tensors that it is made from.

        Raises:
            MedlocalError: it has no such source.
        """
        if not (address := self._fields.src[number]):
            raise MedlocalError(f"llama.cpp's tensor {self.name!r} has no source {number}")
        return GraphTensor(address)

    def values(self) -> NDArray[Any]:
        """Its elements, in numpy's order (fourth, third, second, first dimension).

        A view of llama.cpp's memory where that can be read, else a copy from the device.

        Raises:
            MedlocalError: it is neither float32 nor int32, or has no memory.
        """
        lib, fields = _ggml(), self._fields
        if fields.type not in _DTYPES or not fields.buffer:
            raise MedlocalError(f"llama.cpp's tensor {self.name!r} has no values that can be read")
        num_bytes = lib.ggml_nbytes(self.address)
        if lib.ggml_backend_buffer_is_host(fields.buffer):
            buffer = (ctypes.c_char * num_bytes).from_address(lib.ggml_get_data(self.address))
        else:
            buffer = (ctypes.c_char * num_bytes)()
            lib.ggml_backend_tensor_get(self.address, buffer, 0, num_bytes)
        # numpy refuses strides that lead out of the buffer.
        return np.ndarray(
            tuple(fields.ne)[::-1], _DTYPES[fields.type], buffer, strides=tuple(fields.nb)[::-1]
        )


def weight_name(name: str) -> str:
    """The weight's own name from that of its copy on a device, as "CUDA0#blk.0.attn_k.weight#0"."""
    _, separator, rest = name.partition("#")
    return rest.partition("#")[0] if separator else name


@cache
def check_layout() -> None:
    """Prove once per process that the mirror of ggml's structure fits.

    Raises:
        MedlocalError: it does not; the message names what differs.
    """
    if found := layout_differences(TensorLayout):
        raise MedlocalError(
            "this llama.cpp lays its tensors out in another way than medlocal was written for"
            f" (differing: {', '.join(found)})",
            hint="install the llama-cpp-python that medlocal names: pip install --force-reinstall medlocal",
        )


def layout_differences(layout: type[ctypes.Structure]) -> list[str]:
    """The fields that differ from what ggml's own functions say of a product of two matrices."""
    lib = _ggml()
    if ctypes.sizeof(layout) != lib.ggml_tensor_overhead() - _OBJECT_BYTES:
        return ["the size of a tensor"]
    with _product() as (left, right, product, buffer):
        mul_mat = next(n for n in range(256) if lib.ggml_op_name(n) == b"MUL_MAT")
        fields: Any = layout.from_address(product)
        expected = {
            "type": fields.type == 0 and lib.ggml_type_name(0) == b"f32",
            "buffer": fields.buffer == buffer,
            "ne": tuple(fields.ne) == (3, 7, 2, 1),
            "nb": tuple(fields.nb) == (4, 12, 84, 168),
            "op": fields.op == mul_mat,
            "src": tuple(fields.src) == (left, right, *[None] * 8),
            "data": fields.data == lib.ggml_get_data(product),
            "name": fields.name == lib.ggml_get_name(product) == b"product",
            "int32": lib.ggml_type_name(26) == b"i32",
        }
    return [name for name, fits in expected.items() if not fits]


@contextmanager
def _product() -> Iterator[tuple[int, int, int, int]]:
    """The addresses of two matrices of 5 columns, of their product, and of the buffer they lie in."""
    lib = _ggml()
    context = lib.ggml_init(_InitParams(16 * lib.ggml_tensor_overhead(), None, True))
    left, right = (lib.ggml_new_tensor_3d(context, 0, 5, rows, 2) for rows in (3, 7))
    product = lib.ggml_mul_mat(context, left, right)
    lib.ggml_set_name(product, b"product")
    buffer = lib.ggml_backend_alloc_ctx_tensors_from_buft(
        context, lib.ggml_backend_cpu_buffer_type()
    )
    try:
        yield left, right, product, buffer
    finally:
        lib.ggml_backend_buffer_free(buffer)
        lib.ggml_free(context)


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


@cache
def _ggml() -> ctypes.CDLL:
    lib = ggml("ggml-base")
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    signatures: dict[str, tuple[Any, Sequence[Any]]] = {
        "ggml_op_desc": (text, [pointer]),
        "ggml_op_name": (text, [ctypes.c_int]),
        "ggml_type_name": (text, [ctypes.c_int]),
        "ggml_get_name": (text, [pointer]),
        "ggml_set_name": (pointer, [pointer, text]),
        "ggml_nbytes": (size, [pointer]),
        "ggml_get_data": (pointer, [pointer]),
        "ggml_tensor_overhead": (size, []),
        "ggml_init": (pointer, [_InitParams]),
        "ggml_free": (None, [pointer]),
        "ggml_new_tensor_3d": (pointer, [pointer, ctypes.c_int, *[ctypes.c_int64] * 3]),
        "ggml_mul_mat": (pointer, [pointer] * 3),
        "ggml_backend_cpu_buffer_type": (pointer, []),
        "ggml_backend_alloc_ctx_tensors_from_buft": (pointer, [pointer, pointer]),
        "ggml_backend_buffer_free": (None, [pointer]),
        "ggml_backend_buffer_is_host": (ctypes.c_bool, [pointer]),
        "ggml_backend_tensor_get": (None, [pointer, pointer, size, size]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib
