"""Rows of weights from one number format into another, with every number made sure of.

A weight that is not a number makes a model that answers nothing, and one that the new format cannot
hold becomes infinite without a word: both are refused, and named. What comes out is equal bit by
bit to what llama.cpp's converter and its `quantize_row_q8_0_ref` make of the same rows.

Arrays in, arrays out; bfloat16 is kept as its bits.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlocal.weights.safetensors import FLOATS

BLOCK, BLOCK_BYTES = 32, 34
"""Elements of a Q8_0 block, and its bytes: a float16 scale and 32 int8."""
TARGETS = ("F32", "F16", "BF16", "Q8_0")
# Bits of the magnitude, and the first magnitude that is no finite number.
_MAGNITUDES: Mapping[str, tuple[str, int, int]] = {
    "F64": ("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7FFF_FFFF, 0x7F80_0000),
    "F16": ("<u2", 0x7FFF, 0x7C00),
    "BF16": ("<u2", 0x7FFF, 0x7F80),
}


class NotFiniteError(Exception):
    """A number among rows is not finite, or would not be."""

    def __init__(self, row: int, column: int, value: float, *, is_cast: bool) -> None:
        super().__init__(f"row {row}, column {column}: {value}")
        self.row = row
        self.column = column
        self.value = value
        """Before the cast."""
        self.is_cast = is_cast
        """True: it is a number, and too large for the new format."""


def cast(rows: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    """Write rows in another format.

    Args:
        rows: (rows, columns) as `FLOATS[source]`.
        source: a name in `FLOATS`.
        target: a name in `TARGETS`; for Q8_0 columns are a multiple of `BLOCK`.

    Returns:
        (rows, columns) of the target's numbers, bfloat16 as bits; for Q8_0 (rows, bytes). Where the
        formats are the same, the rows themselves.

    Raises:
        NotFiniteError: the first number that is not finite, or that the target cannot hold.
    """
    if place := _not_finite(rows, source):
        raise NotFiniteError(*place, float(to_float32(rows[place], source)), is_cast=False)
    if source == target:
        return rows
    values = to_float32(rows, source)
    if source == "F64" and (place := _not_finite(values, "F32")):
        raise NotFiniteError(*place, float(rows[place]), is_cast=True)
    result, marks, kind = _from_float32(values, target)
    if place := _not_finite(marks, kind):
        # Of a block's scale the place is its first element's.
        row, column = place[0], place[1] * (BLOCK if target == "Q8_0" else 1)
        raise NotFiniteError(row, column, float(values[row, column]), is_cast=True)
    return result


def to_float32(rows: NDArray[Any], source: str) -> NDArray[np.float32]:
    """The same numbers in single precision; those of F64 are rounded."""
    if source == "BF16":
        return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):  # what overflows is looked for afterwards
        return rows.astype(np.float32)


def num_bytes(num_elements: int, target: str) -> int:
    """What so many elements take in a format."""
    if target == "Q8_0":
        return num_elements // BLOCK * BLOCK_BYTES
    return num_elements * FLOATS[target].itemsize


def _from_float32(values: NDArray[np.float32], target: str) -> tuple[NDArray[Any], Any, str]:
    """The rows in the target format, and what tells whether it holds them: numbers of a kind."""
    if target == "F32":
        return values, values, "F32"
    if target == "F16":
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        return halves, halves, "F16"
    if target == "BF16":
        bits = _round_to_bfloat16(values)
        return bits, bits, "BF16"
    return _quantise(values)


def _round_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Drop the lower half of each number's bits, rounding to the nearest, ties to even."""
    bits = values.view(np.uint32)
    rounding = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    rounding += bits  # finite numbers are far enough from the largest integer
    return (rounding >> np.uint32(16)).astype(np.uint16)


def _quantise(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float16], str]:
    """Q8_0: per block of 32 a scale, the largest magnitude / 127, and whole multiples of it.

    Returns:
        (rows, bytes); the scales, (rows, blocks); and the scales' format.
    """
    num_rows, num_columns = values.shape
    blocks = values.reshape(-1, BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = np.where(scales == 0, np.float32(0), np.float32(1) / scales)
        multiples = _round_half_away(blocks * inverse)
        halves = scales.astype(np.float16)
    packed = np.empty((len(blocks), BLOCK_BYTES), np.uint8)
    packed[:, :2] = halves.view(np.uint8)
    with np.errstate(invalid="ignore"):  # a scale too small to be inverted: C's cast wraps too
        packed[:, 2:] = multiples.astype(np.int8).view(np.uint8)
    return packed.reshape(num_rows, -1), halves.reshape(num_rows, num_columns // BLOCK), "F16"


def _round_half_away(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """C's roundf: ties go away from zero, where numpy's go to the even number."""
    rounded = np.rint(values)
    rest = values - rounded  # exact: both are multiples of the value's own last bit
    rounded += (rest == 0.5) & (values > 0)
    rounded -= (rest == -0.5) & (values < 0)
    return rounded


def _not_finite(rows: NDArray[Any], kind: str) -> tuple[int, int] | None:
    """The row and column of the first number that is not finite."""
    dtype, mask, least = _MAGNITUDES[kind]
    bits = rows.view(dtype)
    # The largest magnitude of all rows: one quick pass, and no array of truth values.
    if not bits.size or int((bits & bits.dtype.type(mask)).max()) < least:
        return None
    flat = int(((bits & bits.dtype.type(mask)) >= least).argmax())
    row, column = divmod(flat, rows.shape[1])
    return row, column
