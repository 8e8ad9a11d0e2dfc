"""What a GGUF says of its own way."""

from pathlib import Path

import pytest

from medlocal.errors import RefusedError
from medlocal.weights.inspect import read_gguf
from medlocal.weights.provenance import Provenance, cleared, fitted, read_provenance
from tests.weights.gguf_files import STRING, gguf_bytes, key, number_key, text


def written(path: Path, *keys: bytes) -> Provenance:
    path.write_bytes(gguf_bytes(keys))
    return read_provenance(read_gguf(path))


def test_a_file_that_no_such_tool_made_says_nothing(tmp_path: Path) -> None:
    assert written(tmp_path / "a.gguf") == Provenance()


def test_what_medlocal_writes_is_read_back(tmp_path: Path) -> None:
    said = Provenance(
        version="0.1.0",
        source="HiTZ/Marmoka",
        revision="abc",
        source_sha256="1" * 64,
        parent_sha256="2" * 64,
        requantised_from="Q4_1",
        llama_commit="0c1e570",
    )
    keys = [key(name, STRING, text(value)) for name, value in said.entries().items()]
    assert written(tmp_path / "a.gguf", *keys) == said


def test_the_keys_are_those_that_were_agreed_on() -> None:
    said = Provenance("v", "s", "r", "h", "p", "q", "c")
    assert said.entries() == {
        "medlocal.version": "v",
        "medlocal.source": "s",
        "medlocal.source.revision": "r",
        "medlocal.source.sha256": "h",
        "medlocal.parent.sha256": "p",
        "medlocal.requantised_from": "q",
        "medlocal.llama_commit": "c",
    }


def test_what_is_not_known_is_not_written() -> None:
    assert Provenance(version="0.1.0").entries() == {"medlocal.version": "0.1.0"}


def test_the_matrix_that_llama_quantize_writes_down_is_read(tmp_path: Path) -> None:
    found = written(
        tmp_path / "a.gguf",
        key("quantize.imatrix.file", STRING, text("m.gguf")),
        key("quantize.imatrix.dataset", STRING, text("notes.txt")),
        number_key("quantize.imatrix.entries_count", 210),
        number_key("quantize.imatrix.chunks_count", 88),
    )
    assert found == Provenance(
        imatrix_file="m.gguf", imatrix_dataset="notes.txt", imatrix_entries=210, imatrix_chunks=88
    )


def test_what_a_source_says_of_its_matrix_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(
        gguf_bytes(
            [
                key("quantize.imatrix.file", STRING, text("m.gguf")),
                number_key("quantize.imatrix.chunks_count", 88),
                key("medlocal.imatrix.corpus_sha256", STRING, text("ab" * 32)),
                key("medlocal.source", STRING, text("HiTZ/Marmoka")),
            ]
        )
    )
    assert dict(cleared(read_gguf(path))) == {
        "quantize.imatrix.file": "",
        "quantize.imatrix.chunks_count": 0,
        "medlocal.imatrix.corpus_sha256": "",
    }


def test_a_key_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"medlocal\.source is 7, not text"):
        written(tmp_path / "a.gguf", number_key("medlocal.source", 7))
    wrong = key("quantize.imatrix.chunks_count", STRING, text("88"))
    with pytest.raises(RefusedError, match=r"chunks_count is '88', not a whole number"):
        written(tmp_path / "b.gguf", wrong)


def test_a_long_text_is_cut_to_127_bytes_and_between_characters() -> None:
    assert fitted("a" * 126 + "ñ") == "a" * 126
    assert fitted("a" * 125 + "ñ") == "a" * 125 + "ñ"
    assert Provenance(source="x" * 300).entries() == {"medlocal.source": "x" * 127}
