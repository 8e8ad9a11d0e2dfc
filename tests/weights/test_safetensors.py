"""The header of a safetensors file, sound and not."""

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.errors import MedlocalError, MissingError, RefusedError
from medlocal.weights.safetensors import open_safetensors
from tests.weights.tiny_checkpoints import safetensors_bytes, write_safetensors

PAIR = {
    "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "a": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}
DATA = struct.pack("<6f4H", 1, 2, 3, 4, 5, 6, 0x3F80, 0x4000, 0x4040, 0x4080)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return path


def refusal(folder: Path, header: Any, data: bytes = DATA) -> str:
    path = written(folder, safetensors_bytes(header, [data]))
    with pytest.raises(RefusedError) as caught:
        open_safetensors(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value.message


def changed(**values: object) -> dict[str, Any]:
    """The sound header with something else said of the second tensor."""
    return {**PAIR, "a": {**PAIR["a"], **values}}


def test_tensors_are_known_by_name_type_and_shape(tmp_path: Path) -> None:
    file = open_safetensors(written(tmp_path, safetensors_bytes(PAIR, [DATA])))
    found = [(t.name, t.type, t.shape) for t in file.tensors.values()]
    assert found == [("a", "BF16", (4,)), ("b", "F32", (2, 3))]


def test_rows_are_read_as_they_lie_in_the_file(tmp_path: Path) -> None:
    file = open_safetensors(written(tmp_path, safetensors_bytes(PAIR, [DATA])))
    assert file.tensors["b"].rows(1, 2).tolist() == [[4, 5, 6]]
    assert file.tensors["a"].rows(0, 4).tolist() == [[0x3F80], [0x4000], [0x4040], [0x4080]]


def test_what_the_maker_says_of_himself_is_no_tensor(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, **PAIR}
    file = open_safetensors(written(tmp_path, safetensors_bytes(header, [DATA])))
    assert set(file.tensors) == {"a", "b"}


def test_rows_that_were_forgotten_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values = np.arange(40_000, dtype=np.float32).reshape(40, 1000)
    write_safetensors(path, {"a": values}, "F32")
    tensor = open_safetensors(path).tensors["a"]
    assert tensor.rows(0, 40)[7, 7] == 7007
    tensor.forget(0, 40)
    assert (tensor.rows(0, 40) == values).all()


def test_integers_are_no_weights(tmp_path: Path) -> None:
    header = {"ids": {"dtype": "I64", "shape": [4], "data_offsets": [0, 32]}}
    file = open_safetensors(written(tmp_path, safetensors_bytes(header, [DATA])))
    with pytest.raises(RefusedError, match="'ids' is of type I64"):
        file.tensors["ids"].rows(0, 4)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no file"):
        open_safetensors(tmp_path / "model.safetensors")


def test_a_folder_in_its_place_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(MedlocalError, match="cannot be read"):
        open_safetensors(tmp_path / "model.safetensors")


def test_a_git_lfs_pointer_is_told_from_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(RefusedError, match="git-lfs pointer") as caught:
        open_safetensors(path)
    assert caught.value.hint == "run `git lfs pull` in its folder"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes"),
        (b"1234", "has 4 bytes"),
        (b"PK\x03\x04 a zip of pickles", "is not a safetensors file"),
        (struct.pack("<Q", 500) + b"{}", "TRUNCATED: its header takes 500 bytes, and 2 follow"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 3) + b"{{{", "not JSON"),
        (struct.pack("<Q", 2) + b"\xff\xfe", "not JSON"),
        (struct.pack("<Q", 200_000) + b"[" * 200_000, "not JSON"),
        (struct.pack("<Q", 15) + b'{"a":{},"a":{}}', "'a' is there twice"),
    ],
)
def test_what_is_no_header_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        open_safetensors(written(tmp_path, content))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "Q4_K"}, "'a' is of the unknown type 'Q4_K'"),
        ({"dtype": None}, "'a' is of the unknown type None"),
        ({"dtype": ["F32"]}, "unknown type"),
        ({"shape": [-4]}, "impossible shape"),
        ({"shape": [4.0]}, "impossible shape"),
        ({"shape": [True]}, "impossible shape"),
        ({"shape": "4"}, "impossible shape"),
        ({"shape": [1] * 9 + [4]}, "impossible shape"),
        ({"shape": [2**63]}, "impossible shape"),
        ({"shape": [2**62, 2**62, 2**62]}, "needs"),
        ({"shape": [5]}, r"shape \(5,\) and type BF16 needs 10 bytes, and has 8"),
        ({"data_offsets": [24]}, "impossible place"),
        ({"data_offsets": [32, 24]}, "impossible place"),
        ({"data_offsets": [-8, 0]}, "impossible place"),
        ({"data_offsets": [0, 8]}, "overlap"),
        ({"data_offsets": [16, 24]}, "overlap"),
        ({"data_offsets": [28, 36]}, "4 bytes before the tensor 'a' belong to none"),
        ({"data_offsets": [2**62, 2**62 + 8]}, "belong to none"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(refusal(tmp_path, changed(**values)))


def test_an_entry_that_describes_nothing_is_refused(tmp_path: Path) -> None:
    assert "'a' is described by 7" in refusal(tmp_path, {**PAIR, "a": 7})


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, PAIR, DATA[:-1])
    assert "TRUNCATED" in message


def test_bytes_that_belong_to_no_tensor_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, PAIR, DATA + b"xyz")
    assert "3 bytes after the last tensor belong to none" in message


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_and_never_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sound = bytearray(safetensors_bytes(PAIR, [DATA]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(sound) - 1))
        sound[place] = data.draw(st.integers(0, 255))
    path = written(tmp_path_factory.mktemp("damaged"), bytes(sound))
    with suppress(RefusedError):
        for tensor in open_safetensors(path).tensors.values():
            if tensor.num_bytes and tensor.type in {"F32", "BF16"}:
                assert len(tensor.rows(0, tensor.num_rows)) == tensor.num_rows


def test_a_header_may_be_as_long_as_the_format_allows(tmp_path: Path) -> None:
    path = written(tmp_path, struct.pack("<Q", 100_000_001) + b"{}")
    with pytest.raises(RefusedError, match="may take 100,000,000"):
        open_safetensors(path)
    padded = json.dumps(PAIR).encode().ljust(100_000)
    file = open_safetensors(written(tmp_path, struct.pack("<Q", len(padded)) + padded + DATA))
    assert len(file.tensors) == 2
