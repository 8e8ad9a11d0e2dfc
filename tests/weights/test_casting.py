"""Numbers from one format into another, against the `gguf` package and ggml itself."""

import ctypes
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from medlocal.libllama import ggml
from medlocal.weights.casting import NotFiniteError, cast, num_bytes, to_float32

GGML_Q8_0 = 8

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
moderate = st.floats(-1000, 1000, width=32)
ties = st.integers(-127, 127).map(lambda n: n / 2)


def rows_of(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[NDArray[np.float32]]:
    return hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.just(64)), elements=numbers)


def ggml_q8_0(values: NDArray[np.float32]) -> bytes:
    """What llama.cpp's own quantiser makes of the rows."""
    base = ggml("ggml-base")
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    base.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    ]
    out = np.empty(num_bytes(values.size, "Q8_0"), np.uint8)
    num_rows, num_columns = values.shape
    base.ggml_quantize_chunk(
        GGML_Q8_0, values.ctypes.data, out.ctypes.data, 0, num_rows, num_columns, None
    )
    return out.tobytes()


@settings(deadline=None)  # llama.cpp is loaded in the first
@given(rows_of(moderate | ties))
def test_q8_0_is_what_ggml_makes(values: NDArray[np.float32]) -> None:
    assert cast(values, "F32", "Q8_0").tobytes() == ggml_q8_0(values)


@given(rows_of(moderate | ties))
def test_q8_0_is_what_the_gguf_package_makes(values: NDArray[np.float32]) -> None:
    expected = quants.quantize(values, GGMLQuantizationType.Q8_0)
    assert cast(values, "F32", "Q8_0").tobytes() == expected.tobytes()


def test_half_a_step_is_rounded_away_from_zero() -> None:
    values = np.zeros((1, 32), np.float32)
    values[0, :6] = [127, 0.5, 1.5, 2.5, -0.5, -2.5]
    packed = cast(values, "F32", "Q8_0")
    assert packed[0, :2].view(np.float16).tolist() == [1.0]
    assert packed[0, 2:8].view(np.int8).tolist() == [127, 1, 2, 3, -1, -3]


def test_a_block_of_zeros_has_the_scale_zero() -> None:
    assert cast(np.zeros((1, 32), np.float32), "F32", "Q8_0").tolist() == [[0] * 34]


@given(rows_of(finite))
def test_bfloat16_is_rounded_as_the_gguf_package_rounds(values: NDArray[np.float32]) -> None:
    expected = quants.quantize(values, GGMLQuantizationType.BF16).tobytes()
    # The largest bfloat16 and half a step more: from there on the nearest is infinity.
    if np.abs(values).max() >= float.fromhex("0x1.ffp127"):
        with pytest.raises(NotFiniteError):
            cast(values, "F32", "BF16")
    else:
        assert cast(values, "F32", "BF16").tobytes() == expected


@pytest.mark.parametrize(
    ("bits", "rounded"),
    [
        (0x3F80_7FFF, 0x3F80),  # below the half: down
        (0x3F80_8000, 0x3F80),  # the half: to even, down
        (0x3F81_8000, 0x3F82),  # the half: to even, up
        (0x3F80_8001, 0x3F81),  # above the half: up
        (0x8000_0001, 0x8000),  # the smallest negative number keeps its sign
    ],
)
def test_bfloat16_ties_go_to_the_even_number(bits: int, rounded: int) -> None:
    values = np.array([[bits]], np.uint32).view(np.float32)
    assert cast(values, "F32", "BF16").tolist() == [[rounded]]


@pytest.mark.parametrize("kind", ["F16", "BF16", "F32"])
def test_every_number_keeps_its_bits_where_the_format_does(kind: str) -> None:
    dtype = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32}[kind]
    rows = np.array([[1, 2, 3]], dtype)
    assert cast(rows, kind, kind) is rows


def test_every_finite_bfloat16_survives_the_way_through_single_precision() -> None:
    bits = np.arange(2**16, dtype=np.uint16).reshape(1, -1)
    bits = bits[:, (bits[0] & 0x7FFF) < 0x7F80]
    assert (cast(to_float32(bits, "BF16"), "F32", "BF16") == bits).all()


def test_every_finite_half_survives_the_way_through_single_precision() -> None:
    halves = np.arange(2**16, dtype=np.uint16).reshape(1, -1)
    halves = halves[:, (halves[0] & 0x7FFF) < 0x7C00].view(np.float16)
    back = cast(to_float32(halves, "F16"), "F32", "F16")
    assert (back.view(np.uint16) == halves.view(np.uint16)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("target", ["F32", "F16", "BF16", "Q8_0"])
def test_what_is_no_number_is_found_at_its_place(value: float, kind: str, target: str) -> None:
    values = np.ones((3, 32), np.float64)
    values[1, 5] = values[2, 0] = value
    rows: NDArray[Any] = values.astype({"F64": "f8", "F16": "f2"}.get(kind, "f4"))
    if kind == "BF16":
        rows = (rows.view(np.uint32) >> 16).astype(np.uint16)
    with pytest.raises(NotFiniteError) as caught:
        cast(rows, kind, target)
    found = caught.value
    assert (found.row, found.column, found.is_cast) == (1, 5, False)
    np.testing.assert_equal(found.value, value)


@pytest.mark.parametrize(
    ("value", "kind", "target", "column"),
    [
        (65520.0, "F32", "F16", 5),
        (-70000.0, "F32", "F16", 5),
        (3.4e38, "F32", "BF16", 5),
        (1e300, "F64", "F32", 5),
        (1e9, "F32", "Q8_0", 0),  # a block's scale is too large, not one number of it
    ],
)
def test_what_the_format_cannot_hold_is_found_at_its_place(
    value: float, kind: str, target: str, column: int
) -> None:
    rows = np.ones((2, 64), {"F32": "f4", "F64": "f8"}[kind])
    rows[1, 5] = value
    with pytest.raises(NotFiniteError) as caught:
        cast(rows, kind, target)
    assert (caught.value.row, caught.value.column) == (1, column)
    assert caught.value.is_cast


def test_the_largest_half_still_fits() -> None:
    rows = np.array([[65519.0]], np.float32)
    assert cast(rows, "F32", "F16").tolist() == [[65504.0]]
