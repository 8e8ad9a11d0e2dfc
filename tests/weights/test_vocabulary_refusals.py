"""Byte-level tokenizers that are refused, and that the message names the place."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medlocal.errors import MissingError, RefusedError, UsageError
from medlocal.weights.vocabulary import Vocabulary, read_vocabulary
from tests.weights.tokenizer_values import (
    CONFIG,
    MODEL,
    NUM_BASE,
    added,
    bpe,
    byte_letters,
    read_bpe,
    write_folder,
)

Read = Callable[..., Vocabulary]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    return partial(read_bpe, tmp_path / "checkpoint")


def refusal(read: Read, *arguments: Any, **files: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read(*arguments, **files)
    return caught.value


def test_a_folder_without_a_tokenizer_names_the_files_that_were_looked_for(tmp_path: Path) -> None:
    write_folder(tmp_path, vocab__json={}, tekken__json={})

    with pytest.raises(MissingError) as caught:
        read_vocabulary(tmp_path, MODEL, {})

    assert "neither tokenizer.json nor SentencePiece's tokenizer.model" in caught.value.message
    assert "it has tekken.json and vocab.json, which say too little" in caught.value.message


@pytest.mark.parametrize(
    "content", ["{", "[]", b"\xff", "version https://git-lfs.github.com/spec/v1"]
)
def test_refuses_a_tokenizer_json_that_is_none(read: Read, content: Any) -> None:
    assert "tokenizer.json" in refusal(read, content).message


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        ({}, "a tokenizer of the kind None"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "a tokenizer of the kind 'Unigram'"),
        ({"model": {"type": "BPE"}}, "cannot be read as a tokenizer"),
        (bpe(merges=[["a", "zz"]]), "cannot be read as a tokenizer"),
        (bpe(merges=[]), "has no merges"),
        (bpe(decoder={"type": "Fuse"}), "BPE with the decoder"),
        (bpe(added(NUM_BASE + 4, "<x>")), "'<x>' has the id 263, and is token 261 once"),
        (bpe(added(2**40, "<x>")), "has the id 1099511627776, which no token can have"),
        (bpe(added_tokens="many"), "added_tokens is 'many', not a list"),
        (bpe(added_tokens=[{"id": 0}]), "added_tokens[0] is {'id': 0}, not a token"),
        (bpe(post_processor={"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}), "'BertProcessing'"),
        (bpe(normalizer={"type": "Lowercase"}), "its normalizer makes"),
    ],
)  # fmt: skip
def test_refuses_a_tokenizer_that_llama_cpp_cannot_have(
    read: Read, tokenizer: Any, said: str
) -> None:
    error = refusal(read, tokenizer)

    assert said in error.message
    assert error.hint


def test_refuses_two_tokens_with_one_id(read: Read) -> None:
    vocab = {text: number for number, text in enumerate([*byte_letters(), "Ġa", "re"])}

    error = refusal(read, bpe(vocab={**vocab, "Ġare": 257}))

    assert "have the same id 257" in error.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # llama.cpp reads up to the zero byte, and the letter a is there already.
        ("a\0b", "the tokens 97 and 261 have the same text 'a'"),
        ("[PAD263]", "the tokens 261 and 263 have the same text '[PAD263]'"),
    ],
)
def test_refuses_two_ids_with_one_text_at_which_llama_cpp_ends_the_process(
    read: Read, text: str, said: str
) -> None:
    assert said in refusal(read, bpe(added(NUM_BASE + 2, text))).message


def test_refuses_more_tokens_than_the_embeddings_have_rows(read: Read) -> None:
    error = refusal(read, None, {**MODEL, "vocab_size": NUM_BASE + 1})

    assert "has 261 tokens, and config.json's vocab_size is 260" in error.message


@pytest.mark.parametrize("size", [0, -1, "many", True, 2**40])
def test_refuses_a_vocab_size_that_is_none(read: Read, size: object) -> None:
    assert "vocab_size is" in refusal(read, None, {**MODEL, "vocab_size": size}).message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"bos_token": 5}, "bos_token is 5, not a token's text"),
        ({"added_tokens_decoder": []}, None),
        ({"added_tokens_decoder": [1]}, "added_tokens_decoder is [1], not an object"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "has the id None"),
        ({"added_tokens_decoder": {"261": {"content": 7}}}, "is {'content': 7}, not a token"),
        (
            {"added_tokens_decoder": {"259": {"content": "<otro>"}}},
            "'<otro>' has the id 259, and is token 261 once",
        ),
        ({"add_prefix_space": "yes"}, "add_prefix_space is 'yes'"),
        ({"chat_template": [{"template": "T"}]}, "chat_template[0] is"),
        ({"chat_template": "\ud800"}, "no Unicode text"),
    ],
)
def test_refuses_a_tokenizer_config_that_says_what_cannot_be_meant(
    read: Read, config: dict[str, Any], said: str | None
) -> None:
    text = json.dumps({**CONFIG, **config})  # ASCII, so that half a surrogate pair can be written
    if said is None:
        read(config=text)
    else:
        error = refusal(read, config=text)
        assert said in error.message
        assert "tokenizer_config.json" in error.message


def test_refuses_a_name_that_llama_cpp_does_not_know(read: Read) -> None:
    with pytest.raises(UsageError, match=r"llama-bpx.*\n.*llama-bpe"):
        read(pre="llama-bpx")
