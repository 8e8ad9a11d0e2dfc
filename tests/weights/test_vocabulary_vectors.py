"""llama.cpp's own test vectors for Llama 2's and Llama 3's vocabularies, on what is read here.

The vocabularies are turned into the files of a checkpoint, read, written as a GGUF, and loaded.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from medlocal.weights.inspect import read_gguf
from medlocal.weights.vocabulary import Vocabulary, read_vocabulary
from tests.weights.test_vocabulary_pieces import DECODER, METASPACE, PREPEND
from tests.weights.tokenizer_values import (
    NORMAL,
    PIECES_CONFIG,
    added,
    bpe,
    in_llama_cpp,
    piece,
    piece_model,
    write_folder,
)

pytestmark = [pytest.mark.shared_data]

_BETWEEN = "\n__ggml_vocab_test__\n"
LLAMA3_MODEL = {"vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128001}
LLAMA2_MODEL = {"vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0}
LLAMA3_CONFIG = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}


def vectors(folder: Path, name: str) -> list[tuple[str, list[int]]]:
    """Text and tokens of each of llama.cpp's tests."""
    raw = (folder / f"{name}.inp").read_bytes().decode()
    texts = raw.removesuffix(_BETWEEN).split(_BETWEEN)
    lines = (folder / f"{name}.out").read_text(encoding="ascii").splitlines()
    assert len(texts) == len(lines) > 40
    return [
        (text, [int(token) for token in line.split()])
        for text, line in zip(texts, lines, strict=True)
    ]


@cache
def metadata(path: Path) -> Mapping[str, Any]:
    """All keys of a vocabulary, its long arrays as lists."""
    found = read_gguf(path).metadata
    arrays = ("tokens", "token_type", "scores", "merges")
    lists = {
        key: list(found[key])  # type: ignore[call-overload]
        for name in arrays
        if (key := f"tokenizer.ggml.{name}") in found
    }
    return {**found, **lists}


@pytest.fixture(scope="module")
def llama3(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Vocabulary:
    """Llama 3's, from a `tokenizer.json` that is made of its tokens and merges."""
    found = metadata(shared_data / "llama_vocab" / "ggml-vocab-llama-bpe.gguf")
    tokens = found["tokenizer.ggml.tokens"]
    tokenizer = bpe(
        vocab={text: number for number, text in enumerate(tokens[:128000])},
        merges=[merge.split(" ") for merge in found["tokenizer.ggml.merges"]],
        added_tokens=[added(n, text) for n, text in enumerate(tokens) if n >= 128000],
    )
    folder = write_folder(
        tmp_path_factory.mktemp("llama3"),
        tokenizer__json=tokenizer,
        tokenizer_config__json=LLAMA3_CONFIG,
    )
    return read_vocabulary(folder, LLAMA3_MODEL, {"eos_token_id": [128001, 128009]})


def llama2_scored(folder: Path, found: Mapping[str, Any]) -> Vocabulary:
    """Llama 2's, from a `tokenizer.model`."""
    columns = (found[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    model = piece_model([piece(*row) for row in zip(*columns, strict=True)])
    write_folder(folder, tokenizer__model=model, tokenizer_config__json=PIECES_CONFIG)
    return read_vocabulary(folder, LLAMA2_MODEL, {})


def llama2_merged(folder: Path, found: Mapping[str, Any], **changes: Any) -> Vocabulary:
    """Llama 2's, from a `tokenizer.json` alone, whose merges are made of the scores."""
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    ids = {text: number for number, text in enumerate(tokens)}
    merges = []
    for number, text in enumerate(tokens):
        halves = [(text[:n], text[n:]) for n in range(1, len(text)) if types[number] == NORMAL]
        known = [(ids[a], ids[b], a, b) for a, b in halves if a in ids and b in ids]
        score = found["tokenizer.ggml.scores"][number]
        merges += [(-score, [a, b]) for _, _, a, b in sorted(known)]
    merges.sort(key=lambda merge: merge[0])
    tokenizer = bpe(
        vocab=ids,
        merges=[pair for _, pair in merges],
        ignore_merges=False,
        added_tokens=[added(number, tokens[number]) for number in range(3)],
        **{"normalizer": PREPEND, "pre_tokenizer": None, "decoder": DECODER, **changes},
    )
    tokenizer["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    write_folder(folder, tokenizer__json=tokenizer, tokenizer_config__json=PIECES_CONFIG)
    return read_vocabulary(folder, LLAMA2_MODEL, {})


@pytest.fixture
def llama2(shared_data: Path) -> Mapping[str, Any]:
    """The keys of Llama 2's vocabulary."""
    return metadata(shared_data / "llama_vocab" / "ggml-vocab-llama-spm.gguf")


def failures(
    vocabulary: Vocabulary, tmp_path: Path, tests: list[tuple[str, list[int]]]
) -> list[str]:
    """The texts of which llama.cpp makes other tokens than the vectors say."""
    with in_llama_cpp(vocabulary, tmp_path) as loaded:
        return [text for text, tokens in tests if loaded.tokenize(text) != tokens]


def test_llama_3s_vectors_pass(llama3: Vocabulary, tmp_path: Path, llama_vocab: Path) -> None:
    tests = vectors(llama_vocab, "ggml-vocab-llama-bpe.gguf")

    assert failures(llama3, tmp_path, tests) == []


def test_llama_3s_keys_are_those_of_its_vocabulary(llama3: Vocabulary, llama_vocab: Path) -> None:
    found = metadata(llama_vocab / "ggml-vocab-llama-bpe.gguf")

    written = {key: value for key, value, _ in llama3.entries()}

    assert written == {k: v for k, v in found.items() if k.startswith("tokenizer.")}
    assert llama3.notes == ()


def test_llama_3s_ends_of_turn_end_in_llama_cpp(llama3: Vocabulary, tmp_path: Path) -> None:
    with in_llama_cpp(llama3, tmp_path) as loaded:
        assert loaded.ends() == {128001, 128009}
        assert loaded.special("bos") == 128000


def test_llama_2s_vectors_pass(
    llama2: Mapping[str, Any], tmp_path: Path, llama_vocab: Path
) -> None:
    tests = vectors(llama_vocab, "ggml-vocab-llama-spm.gguf")

    assert failures(llama2_scored(tmp_path, llama2), tmp_path, tests) == []


def test_llama_2s_keys_are_those_of_its_vocabulary(
    llama2: Mapping[str, Any], tmp_path: Path
) -> None:
    written = {key: value for key, value, _ in llama2_scored(tmp_path, llama2).entries()}

    assert written == {k: v for k, v in llama2.items() if k.startswith("tokenizer.")}


@pytest.mark.parametrize(
    "changes",
    [{}, {"normalizer": None, "pre_tokenizer": {**METASPACE, "prepend_scheme": "always"}}],
    ids=["prepended", "metaspace"],
)
def test_llama_2s_vectors_pass_without_its_scores(
    llama2: Mapping[str, Any], tmp_path: Path, llama_vocab: Path, changes: dict[str, Any]
) -> None:
    tests = vectors(llama_vocab, "ggml-vocab-llama-spm.gguf")

    assert failures(llama2_merged(tmp_path, llama2, **changes), tmp_path, tests) == []
