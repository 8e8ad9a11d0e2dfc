"""The reference's file: what is read is what was written, and nothing else is read."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from medlocal.errors import RefusedError
from medlocal.weights.distances import KeepOptions, Kept, keep
from medlocal.weights.reference import (
    ReferenceFacts,
    ReferenceKey,
    open_reference,
    scored_positions,
    write_reference,
)

KEY = ReferenceKey("a" * 64, "b" * 64, 32, 3, 512, 2, "commit on cpu", KeepOptions(most=8))
POSITIONS = scored_positions(32)
TOKENS = np.arange(96, dtype=np.int32).reshape(3, 32)


def facts(num_vocab: int = 100) -> ReferenceFacts:
    return ReferenceFacts(num_vocab, "c" * 64, 12_345)


def chunks(num_vocab: int = 100) -> list[Kept]:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (3, POSITIONS, num_vocab)).astype(np.float32)
    following = rng.integers(0, num_vocab, POSITIONS).astype(np.int32)
    return [keep(chunk, following, rng, KEY.keep) for chunk in logits]


def write(folder: Path, num_vocab: int = 100) -> Path:
    return write_reference(folder, KEY, facts(num_vocab), TOKENS, chunks(num_vocab))


@pytest.mark.parametrize("num_vocab", [100, 70_000])
def test_what_is_read_is_what_was_written(tmp_path: Path, num_vocab: int) -> None:
    """With 70,000 tokens ids do not fit into 16 bits."""
    write(tmp_path, num_vocab)
    found = open_reference(tmp_path, KEY)
    assert found is not None
    assert np.array_equal(found.tokens, TOKENS)
    assert found.facts == facts(num_vocab)
    read = list(found.chunks())
    for made, expected in zip(read, chunks(num_vocab), strict=True):
        for name in Kept.__slots__:
            assert np.array_equal(getattr(made, name), getattr(expected, name)), name


def test_the_second_half_of_a_chunk_but_its_first_token_is_predicted() -> None:
    assert scored_positions(512) == 255
    assert scored_positions(33) == 16


def test_the_size_per_predicted_token_is_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    found = open_reference(tmp_path, KEY)
    assert found is not None
    assert found.num_positions == 45
    assert found.bytes_per_position == path.stat().st_size / 45


def test_a_reference_that_was_not_made_is_none(tmp_path: Path) -> None:
    assert open_reference(tmp_path, KEY) is None


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, model_sha256="0" * 64),
        replace(KEY, text_sha256="0" * 64),
        replace(KEY, chunk_tokens=64),
        replace(KEY, num_chunks=4),
        replace(KEY, num_rows=256),
        replace(KEY, num_threads=1),
        replace(KEY, build="another"),
        replace(KEY, keep=KeepOptions(most=9)),
    ],
    ids=list(asdict(KEY)),
)
def test_another_key_is_another_file(tmp_path: Path, other: ReferenceKey) -> None:
    assert other.path(tmp_path) != KEY.path(tmp_path)


@pytest.mark.parametrize("place", [0, 9, 40, 1_000, -1])
def test_a_file_with_a_changed_byte_is_refused(tmp_path: Path, place: int) -> None:
    path = write(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(RefusedError, match="damaged"):
        open_reference(tmp_path, KEY)


@pytest.mark.parametrize("length", [0, 10, 500])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RefusedError, match="damaged"):
        open_reference(tmp_path, KEY)


def test_a_sound_file_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    other = replace(KEY, num_threads=7)
    write(tmp_path).rename(other.path(tmp_path))
    with pytest.raises(RefusedError, match="something else"):
        open_reference(tmp_path, other)


def test_nothing_is_published_where_a_chunk_cannot_be_computed(tmp_path: Path) -> None:
    def broken() -> Iterator[Kept]:
        yield chunks()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_reference(tmp_path, KEY, facts(), TOKENS, broken())
    assert list(tmp_path.iterdir()) == []
