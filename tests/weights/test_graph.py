"""Reading llama.cpp's tensors through a structure that is mirrored by hand."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from medlocal.errors import MedlocalError
from medlocal.weights import graph
from medlocal.weights.graph import GraphTensor, TensorLayout, layout_differences, weight_name

FIELDS = [name for name, *_ in TensorLayout._fields_]


@dataclass
class Tensors:
    """A product of two matrices of 5 columns and 3 and 7 rows, two of each."""

    left: GraphTensor
    right: GraphTensor
    product: GraphTensor
    lib: Any

    def fill(self, tensor: GraphTensor, values: np.ndarray[Any, Any]) -> None:
        raw = np.ascontiguousarray(values, np.float32).tobytes()
        put = self.lib.ggml_backend_tensor_set
        put.restype, put.argtypes = None, [ctypes.c_void_p, ctypes.c_char_p, *[ctypes.c_size_t] * 2]
        put(tensor.address, raw, 0, len(raw))


@pytest.fixture
def tensors() -> Iterator[Tensors]:
    with graph._product() as (left, right, product, _):
        yield Tensors(GraphTensor(left), GraphTensor(right), GraphTensor(product), graph._ggml())


def exchanged(first: str, second: str) -> type[ctypes.Structure]:
    """The mirror with two fields in each other's place."""
    fields = list(TensorLayout._fields_)
    one, two = FIELDS.index(first), FIELDS.index(second)
    fields[one], fields[two] = fields[two], fields[one]
    return type("Exchanged", (ctypes.Structure,), {"_fields_": fields})


def test_the_mirror_fits_this_llama_cpp() -> None:
    assert layout_differences(TensorLayout) == []


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("ne", "nb", ["ne", "nb"]),
        ("data", "view_src", ["data"]),
        ("op", "flags", ["op"]),
        ("type", "op", ["type", "op"]),
        ("buffer", "data", ["buffer", "data"]),
        ("name", "src", ["src", "data", "name"]),
    ],
)
def test_a_mirror_with_fields_exchanged_is_found_out(
    first: str, second: str, found: list[str]
) -> None:
    differences = layout_differences(exchanged(first, second))

    assert set(found) <= set(differences)


def test_a_mirror_of_another_size_is_found_out() -> None:
    fields = [*TensorLayout._fields_, ("more", ctypes.c_void_p)]
    longer = type("Longer", (ctypes.Structure,), {"_fields_": fields})

    assert layout_differences(longer) == ["the size of a tensor"]


def test_a_llama_cpp_with_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "TensorLayout", exchanged("ne", "nb"))
    graph.check_layout.cache_clear()

    with pytest.raises(MedlocalError, match=r"in another way than medlocal was written for .*ne"):
        graph.check_layout()


def test_a_tensor_says_what_it_is(tensors: Tensors) -> None:
    product = tensors.product

    assert (product.operation, product.name, product.shape) == ("MUL_MAT", "product", (3, 7, 2, 1))
    assert product.is_float32
    assert [product.source(n).address for n in (0, 1)] == [
        tensors.left.address,
        tensors.right.address,
    ]


def test_a_source_that_is_not_there_is_an_error(tensors: Tensors) -> None:
    with pytest.raises(MedlocalError, match="'product' has no source 2"):
        tensors.product.source(2)


@pytest.mark.parametrize("in_host_memory", [True, False])
def test_values_are_read_from_host_and_device_memory(
    tensors: Tensors, in_host_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = np.arange(2 * 7 * 5, dtype=np.float32).reshape(1, 2, 7, 5)
    tensors.fill(tensors.right, wanted)
    monkeypatch.setattr(tensors.lib, "ggml_backend_buffer_is_host", lambda _: in_host_memory)

    np.testing.assert_array_equal(tensors.right.values(), wanted)


def test_a_tensor_without_memory_has_no_values(tensors: Tensors) -> None:
    fields = TensorLayout.from_address(tensors.right.address)
    fields.buffer = None

    with pytest.raises(MedlocalError, match="has no values that can be read"):
        tensors.right.values()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blk.0.attn_k.weight", "blk.0.attn_k.weight"),
        ("CUDA0#blk.0.attn_k.weight#0", "blk.0.attn_k.weight"),
        ("CUDA0#blk.0.attn_k.weight", "blk.0.attn_k.weight"),
    ],
)
def test_a_copy_on_a_device_has_its_weights_name(name: str, expected: str) -> None:
    assert weight_name(name) == expected
