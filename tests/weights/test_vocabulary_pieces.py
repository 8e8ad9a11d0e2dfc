"""SentencePiece: from tokenizer.model, and from the tokenizer.json that was made of one."""

import io
from pathlib import Path
from typing import Any

import pytest

from medlocal.errors import RefusedError, UsageError
from medlocal.weights.sentencepieces import read_piece_model
from medlocal.weights.vocabulary import Vocabulary, read_vocabulary
from tests.weights.tokenizer_values import (
    BYTE,
    CONTROL,
    LETTERS,
    MERGED,
    NORMAL,
    PIECES,
    PIECES_CONFIG,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    added,
    bpe,
    byte_pieces,
    in_llama_cpp,
    piece,
    piece_model,
    write_folder,
)

NUM_PIECES = 269
MODEL = {"vocab_size": NUM_PIECES + 4, "bos_token_id": 1, "eos_token_id": 2}
TEXTS = ["El paciente de 65 años refiere dolor torácico.", "A 65-year-old man with chest pain."]


def read(
    folder: Path, model: bytes | None = None, config: Any = PIECES_CONFIG, **files: Any
) -> Vocabulary:
    if config is not None:
        files["tokenizer_config__json"] = config
    files["tokenizer__model"] = piece_model(PIECES) if model is None else model
    return read_vocabulary(write_folder(folder, **files), MODEL, {})


def test_reads_pieces_scores_and_types(tmp_path: Path) -> None:
    found = read(tmp_path)

    assert found.tokens[:4] == ("<unk>", "<s>", "</s>", "<0x00>")
    assert found.tokens[259:] == (
        *("▁h", "el", "lo", "▁hel", "▁hello", "▁", "e", "l", "h", "o"),
        *("[PAD269]", "[PAD270]", "[PAD271]", "[PAD272]"),
    )
    assert found.token_types == (
        *(UNKNOWN, CONTROL, CONTROL),
        *[BYTE] * 256,
        *[NORMAL] * 10,
        *[UNUSED] * 4,
    )
    scores = [0.0] * 259 + [0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -9.0]
    assert found.scores == (*scores, *[-10000.0] * 4)
    assert found.merges is None


def test_writes_keys_in_the_order_of_llama_cpps_converter(tmp_path: Path) -> None:
    found = read(tmp_path, config={**PIECES_CONFIG, "add_prefix_space": True})

    assert [(key, kind.name) for key, _, kind in found.entries()] == [
        ("tokenizer.ggml.add_space_prefix", "BOOL"),
        ("tokenizer.ggml.model", "STRING"),
        ("tokenizer.ggml.pre", "STRING"),
        ("tokenizer.ggml.tokens", "ARRAY"),
        ("tokenizer.ggml.scores", "ARRAY"),
        ("tokenizer.ggml.token_type", "ARRAY"),
        ("tokenizer.ggml.bos_token_id", "UINT32"),
        ("tokenizer.ggml.eos_token_id", "UINT32"),
        ("tokenizer.ggml.add_bos_token", "BOOL"),
        ("tokenizer.ggml.add_eos_token", "BOOL"),
    ]
    assert (found.model, found.pre) == ("llama", "default")
    assert (found.add_bos, found.add_eos) == (True, False)
    assert (found.notes, found.departures) == ((), {})


def test_added_tokens_of_three_files_are_laid_over_each_other(tmp_path: Path) -> None:
    specials = {str(n): {"content": t, "special": True} for n, t in enumerate(("<unk>", "<s>"))}
    found = read(
        tmp_path,
        config={
            **PIECES_CONFIG,
            "added_tokens_decoder": {**specials, "269": {"content": "<|a|>", "special": False}},
        },
        added_tokens__json={"<|a|>": 269, "b▁b": 270},
        tokenizer__json={"added_tokens": [added(270, "c"), added(271, "d▁d", special=False)]},
    )

    assert found.tokens[269:] == ("<|a|>", "b▁b", "d d", "[PAD272]")
    assert found.token_types[269:] == (CONTROL, USER_DEFINED, USER_DEFINED, UNUSED)
    assert found.token_types[:3] == (CONTROL, CONTROL, CONTROL)
    assert found.scores is not None
    assert found.scores[:3] == (-1000.0, -1000.0, 0.0)
    assert found.scores[269:] == (-1000.0, -1000.0, -1000.0, -10000.0)
    assert list(found.departures) == ["tokenizer.ggml.tokens"]


def test_an_added_token_without_a_row_is_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, added_tokens__json={"<pad>": 273})

    assert "'<pad>' has the id 273, for which the model has no row" in found.notes[0]
    assert "<pad>" not in found.tokens


def test_notes_a_piece_that_llama_cpp_does_not_find_whole(tmp_path: Path) -> None:
    found = read(tmp_path, piece_model([*PIECES, piece("hell", 0.0, USER_DEFINED)]))

    assert (found.tokens[269], found.token_types[269]) == ("hell", NORMAL)
    assert "1 pieces, such as 'hell', are found whole" in found.notes[0]
    assert found.departures == {}


def test_a_piece_that_is_also_an_added_token_needs_no_note(tmp_path: Path) -> None:
    decoder = {"269": {"content": "<|fin|>", "special": False}}
    found = read(
        tmp_path,
        piece_model([*PIECES, piece("<|fin|>", 0.0, USER_DEFINED)]),
        {**PIECES_CONFIG, "added_tokens_decoder": decoder},
    )

    assert (found.token_types[269], found.notes) == (CONTROL, ())


def test_a_model_that_adds_no_space_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, piece_model(PIECES, prefix=False))

    with in_llama_cpp(found, tmp_path) as vocabulary:
        assert vocabulary.tokenize("lo") == [261]
    assert found.add_space_prefix is False
    assert list(found.departures) == ["tokenizer.ggml.add_space_prefix"]


def test_notes_spaces_that_are_read_as_one(tmp_path: Path) -> None:
    found = read(tmp_path, piece_model(PIECES, collapse=True))

    assert "reads several spaces as one, llama.cpp as several" in found.notes[0]


def test_agrees_with_sentencepiece_on_a_model_of_its_own(tmp_path: Path) -> None:
    import sentencepiece

    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=buffer,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(buffer.getvalue())
    theirs = sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue())

    ours = read_piece_model(path)

    ids = range(theirs.vocab_size())
    assert [p.text for p in ours.pieces] == [theirs.id_to_piece(n) for n in ids]
    assert [p.score for p in ours.pieces] == [theirs.get_score(n) for n in ids]
    assert [p.type == CONTROL for p in ours.pieces] == [theirs.is_control(n) for n in ids]
    assert [p.type == BYTE for p in ours.pieces] == [theirs.is_byte(n) for n in ids]
    assert [p.type == UNKNOWN for p in ours.pieces] == [theirs.is_unknown(n) for n in ids]
    assert ours.adds_space_prefix
    assert not ours.collapses_spaces
    assert not ours.normalizes


def test_sees_sentencepieces_usual_normalisation(tmp_path: Path) -> None:
    import sentencepiece

    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=buffer,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        minloglevel=2,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(buffer.getvalue())

    ours = read_piece_model(path)

    assert ours.normalizes
    assert ours.collapses_spaces


# Refusals.


def refusal(folder: Path, *arguments: Any, **files: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read(folder, *arguments, **files)
    return caught.value


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (b"", "0 pieces"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (b"\x0a\x05ab", "a field of 5 bytes where 2 are left"),
        (b"\x0b", "a field of the wire type 3"),
        (b"\xff" * 20, "a number of more than ten bytes"),
        (b"\x08\x80", "it ends within a number"),
        (piece_model([piece(b"\xff")]), "invalid start byte"),
        (piece_model([piece("a", float("nan"))]), "with the score nan"),
        (piece_model([piece("a", 0.0, 9)]), "a piece of type 9"),
    ],
)
def test_refuses_a_file_that_is_no_model(tmp_path: Path, model: bytes, said: str) -> None:
    error = refusal(tmp_path, model)

    assert "tokenizer.model is no SentencePiece model" in error.message
    assert said in error.message


def test_refuses_an_algorithm_that_llama_cpp_does_not_have(tmp_path: Path) -> None:
    error = refusal(tmp_path, piece_model(PIECES, algorithm=1))

    assert "SentencePiece's algorithm is unigram" in error.message


def test_refuses_a_model_without_bytes_on_which_llama_cpp_ends_the_process(tmp_path: Path) -> None:
    pieces = [*PIECES[:3], *byte_pieces()[:-2], *PIECES[259:]]

    assert "2 of the 256 bytes have no token" in refusal(tmp_path, piece_model(pieces)).message


def test_refuses_a_piece_twice(tmp_path: Path) -> None:
    error = refusal(tmp_path, piece_model([*PIECES, piece("lo")]))

    assert "the tokens 261 and 269 have the same text 'lo'" in error.message


def test_refuses_more_pieces_than_the_embeddings_have_rows(tmp_path: Path) -> None:
    error = refusal(tmp_path, piece_model([*PIECES, *(piece(f"x{n}") for n in range(5))]))

    assert "has 274 tokens, and config.json's vocab_size is 273" in error.message


def test_refuses_a_tokenizer_json_with_other_numbers(tmp_path: Path) -> None:
    error = refusal(tmp_path, tokenizer__json=bpe())

    assert "'▁h' is token 259 in tokenizer.model and None in tokenizer.json" in error.message


def test_a_pre_tokenizer_is_not_to_be_chosen(tmp_path: Path) -> None:
    write_folder(tmp_path, tokenizer__model=piece_model(PIECES))

    with pytest.raises(UsageError, match="leave out --pre"):
        read_vocabulary(tmp_path, MODEL, {}, "llama-bpe")


def test_metas_own_form_of_llama_3s_vocabulary_is_left_alone(tmp_path: Path) -> None:
    write_folder(tmp_path, tokenizer__json=bpe(), tokenizer__model="IQ== 0\nIg== 1\n")

    found = read_vocabulary(
        tmp_path, {"vocab_size": 261, "bos_token_id": 259, "eos_token_id": 260}, {}
    )

    assert found.model == "gpt2"


# From tokenizer.json alone.

PREPEND = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
REPLACE = PREPEND["normalizers"][1]
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def merged(normalizer: Any = PREPEND, pre_tokenizer: Any = None) -> dict[str, Any]:
    """A `tokenizer.json` as it is made of `PIECES`."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *MERGED, *LETTERS]
    tokenizer = bpe(
        vocab={text: number for number, text in enumerate(texts)},
        merges=["▁ h", "e l", "l o", "▁h el", "▁hel lo"],
        ignore_merges=False,
        added_tokens=[added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        decoder=DECODER,
    )
    tokenizer["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    return tokenizer


def read_merged(folder: Path, tokenizer: Any) -> Vocabulary:
    write_folder(folder, tokenizer__json=tokenizer, tokenizer_config__json=PIECES_CONFIG)
    return read_vocabulary(folder, MODEL, {})


def test_the_order_of_merges_gives_the_scores_that_tokenizer_model_has(tmp_path: Path) -> None:
    ours = read_merged(tmp_path / "a", merged())
    theirs = read(tmp_path / "b")

    assert ours.scores is not None
    assert theirs.scores is not None
    assert ours.tokens == theirs.tokens
    assert ours.scores[3:] == theirs.scores[3:]
    assert ours.scores[:3] == (-1000.0,) * 3
    assert ours.token_types == (CONTROL, *theirs.token_types[1:])
    assert list(ours.departures) == ["tokenizer.ggml.scores"]


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "add_space_prefix"),
    [
        (PREPEND, None, None),
        (None, METASPACE, None),
        (REPLACE, None, False),
        (None, {**METASPACE, "prepend_scheme": "never"}, False),
    ],
)
def test_llama_cpp_makes_the_same_tokens(
    tmp_path: Path, normalizer: Any, pre_tokenizer: Any, add_space_prefix: bool | None
) -> None:
    from tokenizers import Tokenizer

    found = read_merged(tmp_path, merged(normalizer, pre_tokenizer))

    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert found.add_space_prefix is add_space_prefix
    with in_llama_cpp(found, tmp_path) as vocabulary:
        for text in ("hello", "hello hello", "lo  he\nñandú 🙂", "o", "65 años"):
            assert (
                vocabulary.tokenize(text) == library.encode(text, add_special_tokens=False).ids
            ), text


def test_notes_that_a_leading_space_is_read_otherwise(tmp_path: Path) -> None:
    found = read_merged(tmp_path, merged(None, METASPACE))

    assert "adds no space before a text that begins with one" in found.notes[0]


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer"),
    [
        (None, None),
        (None, {**METASPACE, "split": True}),
        ({"type": "Sequence", "normalizers": [PREPEND, {"type": "NFKD"}]}, None),
    ],
)
def test_refuses_spaces_that_llama_cpp_cannot_read_so(
    tmp_path: Path, normalizer: Any, pre_tokenizer: Any
) -> None:
    with pytest.raises(RefusedError, match=r"before merging, and llama\.cpp"):
        read_merged(tmp_path, merged(normalizer, pre_tokenizer))
