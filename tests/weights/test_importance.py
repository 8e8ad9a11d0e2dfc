"""Importance matrices in files: ours, llama.cpp's, its older form, and broken ones."""

import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlocal.errors import MissingError, RefusedError
from medlocal.weights.importance import (
    Entry,
    Importance,
    read_importance,
    texts_to_shares,
    write_importance,
)
from tests.weights.gguf_files import write_model

DATA = Path(__file__).parents[1] / "data"
QUERY, EXPERTS = "blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"


def small() -> Importance:
    """A matrix of one weight of two columns and one of two experts, the second never used."""
    return Importance(
        entries={
            QUERY: Entry(np.array([[6, 3]], np.float32), np.array([3])),
            EXPERTS: Entry(np.array([[2, 4, 8], [0, 0, 0]], np.float32), np.array([2, 0])),
        },
        num_chunks=1,
        chunk_size=16,
        datasets=("es:notas", "en:notes.txt"),
        corpus_sha256="ab" * 32,
        shares={"es": Fraction(1, 3), "en": Fraction(2, 3)},
        model_sha256="cd" * 32,
        model_parent_sha256="ef" * 32,
    )


def legacy(entries: Mapping[str, tuple[int, list[float]]], *ending: bytes) -> bytes:
    """The older form: per weight a number of chunks n and n times the means."""
    parts = [struct.pack("<i", len(entries))]
    for name, (num_chunks, values) in entries.items():
        parts.append(struct.pack(f"<i{len(name)}s", len(name), name.encode()))
        parts.append(struct.pack(f"<ii{len(values)}f", num_chunks, len(values), *values))
    return b"".join([*parts, *ending])


def ending(num_chunks: int, dataset: str) -> bytes:
    return struct.pack(f"<ii{len(dataset)}s", num_chunks, len(dataset), dataset.encode())


def write_gguf(path: Path, arrays: Mapping[str, Any], **keys: object) -> Path:
    """Write a matrix with the gguf package, as other programs do; None leaves a key out."""
    import gguf

    usual: dict[str, object] = {
        "general.type": "imatrix", "imatrix.datasets": ["a.txt"],
        "imatrix.chunk_count": 1, "imatrix.chunk_size": 512,
    }  # fmt: skip
    usual |= {key.replace("__", "."): value for key, value in keys.items()}
    writer = gguf.GGUFWriter(path, "none")
    for key, value in usual.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
    for name, values in arrays.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pair(name: str, sums: object, counts: object) -> dict[str, Any]:
    return {
        f"{name}.in_sum2": np.array(sums, np.float32),
        f"{name}.counts": np.array(counts, np.float32),
    }


# --- what quantisation takes


def test_means_are_sums_by_counts_and_one_where_nothing_was_summed() -> None:
    sums = small().sums

    assert sums[QUERY].tolist() == [2, 1]
    assert sums[EXPERTS].tolist() == [1, 2, 4, 1, 1, 1]
    assert sums[QUERY].dtype == np.float32


def test_experts_without_activations_are_counted() -> None:
    assert small().never_used == {EXPERTS: 1}


# --- our own files


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_importance(path, small())

    found = read_importance(path)

    assert list(found.entries) == sorted(small().entries)
    for name, entry in small().entries.items():
        np.testing.assert_array_equal(found.entries[name].sums, entry.sums)
        np.testing.assert_array_equal(found.entries[name].counts, entry.counts)
    assert (found.num_chunks, found.chunk_size) == (1, 16)
    assert found.datasets == ("es:notas", "en:notes.txt")
    assert found.corpus_sha256 == "ab" * 32
    assert found.shares == {"es": Fraction(1, 3), "en": Fraction(2, 3)}
    assert (found.model_sha256, found.model_parent_sha256) == ("cd" * 32, "ef" * 32)


def test_the_gguf_package_reads_what_is_written(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "a.gguf"
    write_importance(path, small())

    reader = gguf.GGUFReader(path)

    values = {tensor.name: tensor.data.tolist() for tensor in reader.tensors}
    assert values == {
        f"{QUERY}.in_sum2": [6, 3],
        f"{QUERY}.counts": [3],
        f"{EXPERTS}.in_sum2": [[2, 4, 8], [0, 0, 0]],
        f"{EXPERTS}.counts": [[2], [0]],
    }
    keys = {
        key: field.contents()
        for key, field in reader.fields.items()
        if "." in key and key[0] != "G"
    }
    assert keys == {
        "general.type": "imatrix",
        "imatrix.datasets": ["es:notas", "en:notes.txt"],
        "imatrix.chunk_count": 1,
        "imatrix.chunk_size": 16,
        "medlocal.imatrix.corpus_sha256": "ab" * 32,
        "medlocal.imatrix.shares": ["es=1/3", "en=2/3"],
        "medlocal.imatrix.model_sha256": "cd" * 32,
        "medlocal.imatrix.model_parent_sha256": "ef" * 32,
    }


def test_shares_of_another_form_are_left_out() -> None:
    assert texts_to_shares(("es=1/2", "en", "fr=x", "de=1/0")) == {"es": Fraction(1, 2)}


# --- other programs' files


def test_a_matrix_of_another_program_is_read(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "a.gguf", pair(QUERY, [8, 2], [4]) | pair(EXPERTS, [[1, 2], [3, 4]], [[1], [2]])
    )

    found = read_importance(path)

    assert found.sums[QUERY].tolist() == [2, 0.5]
    assert found.sums[EXPERTS].tolist() == [1, 2, 1.5, 2]
    assert (found.num_chunks, found.chunk_size, found.datasets) == (1, 512, ("a.txt",))
    assert (found.corpus_sha256, found.shares) == (None, {})
    assert (found.model_sha256, found.model_parent_sha256) == ("", "")


def test_the_older_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(legacy({QUERY: (4, [8, 2]), EXPERTS: (0, [5])}, ending(4, "wiki.txt")))

    found = read_importance(path)

    assert found.sums[QUERY].tolist() == [2, 0.5]
    assert found.sums[EXPERTS].tolist() == [5]
    assert (found.num_chunks, found.datasets) == (4, ("wiki.txt",))


def test_the_older_form_may_end_with_its_entries(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(legacy({QUERY: (1, [8, 2])}))

    found = read_importance(path)

    assert (found.num_chunks, found.datasets) == (0, ())


def test_llama_cpps_own_file_is_read(tmp_path: Path) -> None:
    found = read_importance(DATA / "imatrix_tiny.imatrix")

    assert (found.num_chunks, found.chunk_size) == (8, 128)
    assert found.datasets == ("clinical_en.txt",)
    assert len(found.entries) == 17
    assert found.entries["blk.1.attn_k.weight"].counts.tolist() == [1024]
    assert found.entries["blk.1.ffn_up_exps.weight"].sums.shape == (5, 64)
    assert found.never_used.keys() == {
        f"blk.{layer}.ffn_{part}_exps.weight" for layer in (0, 1) for part in ("up", "down", "gate")
    }


def test_what_llama_cpp_wrote_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    theirs, ours = DATA / "imatrix_tiny.imatrix", tmp_path / "ours.gguf"

    write_importance(ours, read_importance(theirs))

    assert ours.read_bytes() == theirs.read_bytes()


def test_llama_cpps_older_form_gives_the_same_means() -> None:
    older, newer = (read_importance(DATA / f"imatrix_tiny.{kind}") for kind in ("dat", "imatrix"))

    assert older.sums.keys() == newer.sums.keys()
    for name, means in newer.sums.items():
        np.testing.assert_allclose(older.sums[name], means, rtol=1e-6, err_msg=name)
    assert (older.num_chunks, older.datasets) == (8, ("clinical_en.txt",))


# --- files that are refused


@pytest.mark.parametrize(
    ("arrays", "keys", "message"),
    [
        (pair(QUERY, [1], [1]), {"general__type": "model"}, "its general.type is 'model'"),
        (pair(QUERY, [1], [1]), {"general__type": None}, "its general.type is None"),
        (pair(QUERY, [1], [1]), {"imatrix__chunk_count": None}, "imatrix.chunk_count is None"),
        (pair(QUERY, [1], [1]), {"imatrix__chunk_size": "x"}, "imatrix.chunk_size is 'x'"),
        ({f"{QUERY}.counts": np.ones(1, np.float32)}, {}, "there is no tensor '.*in_sum2'"),
        ({f"{QUERY}.in_sum2": np.ones(1, np.float32)}, {}, "there is no tensor '.*counts'"),
        (pair(QUERY, [1, 2, 3], [1, 1]), {}, "the counts of '.*' do not fit"),
        (pair(QUERY, [1], [-1]), {}, "the counts of '.*' do not fit"),
        (pair(QUERY, [1], [np.nan]), {}, "the counts of '.*' do not fit"),
        (pair(QUERY, [np.inf], [1]), {}, "the sums of .* are not all finite and positive"),
        (pair(QUERY, [-1], [1]), {}, "the sums of .* are not all finite and positive"),
        ({}, {}, "it holds no sums"),
        (
            {f"{QUERY}.in_sum2": np.ones(1), f"{QUERY}.counts": np.ones(1)}, {},
            "is not F32: it may be unfinished",
        ),
    ],
)  # fmt: skip
def test_a_gguf_that_is_no_matrix_is_refused(
    tmp_path: Path, arrays: dict[str, Any], keys: dict[str, object], message: str
) -> None:
    path = write_gguf(tmp_path / "a.gguf", arrays, **keys)

    with pytest.raises(RefusedError, match=message):
        read_importance(path)


def test_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"is Q4_K, not F32 or F64"):
        read_importance(write_model(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "it is empty"),
        (b"ab", "the number of entries takes 4 bytes at byte 0 of 2"),
        (struct.pack("<i", 0), "in the older form it has 0 entries"),
        (b"%PDF-1.7 and so on", "in the older form it has .* entries"),
        (legacy({QUERY: (1, [1])})[:-1], "the values of '.*' takes 4 bytes"),
        (legacy({QUERY: (-1, [1])}), "'.*' has 1 values over -1 chunks"),
        (legacy({QUERY: (1, [])}), "'.*' has 0 values over 1 chunks"),
        (struct.pack("<ii", 1, 1 << 30), "the length of the name of entry 1 is 1,073,741,824"),
        (struct.pack("<ii", 1, -1), "the length of the name of entry 1 is -1"),
        (legacy({QUERY: (1, [1])}, struct.pack("<ii", 1, 99)), "the length of the data set's name"),
        (legacy({QUERY: (1, [float("nan")])}), "the sums of .* are not all finite"),
    ],
)
def test_a_broken_file_of_the_older_form_is_refused(
    tmp_path: Path, raw: bytes, message: str
) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(raw)

    with pytest.raises(RefusedError, match=message):
        read_importance(path)


def test_a_damaged_gguf_is_refused_at_every_length(tmp_path: Path) -> None:
    whole, cut = tmp_path / "a.gguf", tmp_path / "b.gguf"
    write_importance(whole, small())
    raw = whole.read_bytes()
    end = len(raw.rstrip(b"\0"))

    for length in range(4, end):
        cut.write_bytes(raw[:length])
        with pytest.raises(RefusedError):
            read_importance(cut)


def test_a_matrix_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no importance matrix at"):
        read_importance(tmp_path / "none.gguf")
