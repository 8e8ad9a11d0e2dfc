"""The bytes of a GGUF's header."""

from typing import Any

import pytest
from gguf import GGUFValueType

from medlocal.weights import writer
from medlocal.weights.writer import Entry, TensorEntry, pack_header, padding

NAMES = (
    *("UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "FLOAT32", "BOOL", "STRING"),
    *("ARRAY", "UINT64", "INT64", "FLOAT64"),
)


def test_the_types_numbers_are_the_formats() -> None:
    assert {name: getattr(writer, name) for name in NAMES} == {
        name: GGUFValueType[name].value for name in NAMES
    }


def test_a_header_is_these_bytes() -> None:
    entries = [Entry("k", 7, writer.UINT32), Entry("s", "ñ", writer.STRING)]
    header = pack_header(entries, [TensorEntry("t", (3, 2), 0, 24), TensorEntry("u", (1,), 1, 2)])
    expected = bytes.fromhex(
        "47475546 03000000 0200000000000000 0200000000000000"  # GGUF 3, two tensors, two keys
        "0100000000000000 6b 04000000 07000000"
        "0100000000000000 73 08000000 0200000000000000 c3b1"
        "0100000000000000 74 02000000 0300000000000000 0200000000000000 00000000 0000000000000000"
        "0100000000000000 75 01000000 0100000000000000 01000000 2000000000000000"
    )
    assert header == expected.ljust(160, b"\0")


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (("a", b"\xff"), "08000000 0200000000000000 0100000000000000 61 0100000000000000 ff"),
        ((-1, 2), "05000000 0200000000000000 ffffffff 02000000"),
        ((1.5,), "06000000 0100000000000000 0000c03f"),
        ((True, False), "07000000 0200000000000000 01 00"),
    ],
)
def test_an_arrays_type_is_that_of_its_first_element(value: Any, packed: str) -> None:
    header = pack_header([Entry("k", value, writer.ARRAY)], [])
    assert header[24:].rstrip(b"\0") == (
        bytes.fromhex("0100000000000000 6b 09000000" + packed).rstrip(b"\0")
    )


@pytest.mark.parametrize("value", ["", (), []])
def test_what_is_empty_is_left_out(value: object) -> None:
    assert pack_header([Entry("k", value, writer.STRING)], [])[16:24] == bytes(8)


def test_what_is_false_or_zero_is_not_empty() -> None:
    entries = [Entry("a", False, writer.BOOL), Entry("b", 0, writer.UINT32)]
    assert pack_header(entries, [])[16] == 2


def test_the_later_of_two_values_stands_in_the_earlier_ones_place() -> None:
    entries = [Entry(key, n, writer.UINT32) for n, key in enumerate("aba")]
    assert pack_header(entries, []) == pack_header(
        [Entry("a", 2, writer.UINT32), Entry("b", 1, writer.UINT32)], []
    )


def test_text_that_is_no_unicode_is_written_all_the_same() -> None:
    assert b"?" in pack_header([Entry("k", "\ud800", writer.STRING)], [])


@pytest.mark.parametrize(("size", "rest"), [(0, 0), (1, 31), (31, 1), (32, 0), (33, 31)])
def test_padding_goes_to_the_next_place(size: int, rest: int) -> None:
    assert padding(size) == rest
