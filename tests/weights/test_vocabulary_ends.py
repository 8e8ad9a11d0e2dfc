"""Special tokens by id, and that llama.cpp stops wherever the checkpoint stops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medlocal.errors import RefusedError
from medlocal.weights.vocabulary import Vocabulary, read_vocabulary
from tests.weights.tokenizer_values import (
    CONFIG,
    NUM_BASE,
    added,
    bpe,
    byte_letters,
    in_llama_cpp,
    sequence,
    split,
    write_folder,
)

BOS, EOS, FIRST = NUM_BASE, NUM_BASE + 1, NUM_BASE + 2
MODEL = {"vocab_size": NUM_BASE + 10, "bos_token_id": BOS, "eos_token_id": EOS}


def read(
    folder: Path,
    texts: tuple[str, ...] = (),
    model: Mapping[str, Any] = MODEL,
    generation: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] = CONFIG,
) -> Vocabulary:
    """A vocabulary with more special tokens, the first of which has the id `FIRST`."""
    tokenizer = bpe(*(added(FIRST + n, text) for n, text in enumerate(texts)))
    write_folder(folder, tokenizer__json=tokenizer, tokenizer_config__json=config)
    return read_vocabulary(folder, model, generation or {})


@pytest.mark.parametrize(
    ("texts", "ends", "ids"),
    [
        # Llama 3.1: end of text, end of message, end of turn, all known to llama.cpp by their texts.
        (("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"), (0, 1, 2), {}),
        (("<|im_end|>",), (0,), {}),
        (("<|fin_de_turno|>",), (0,), {"eot": FIRST}),
        (("<|fin|>", "<|mensaje|>"), (0, 1), {"eot": FIRST, "eom": FIRST + 1}),
        # Where llama.cpp finds an end of turn by its text, that is left to be found.
        (("<|eot_id|>", "<|fin|>"), (0, 1), {"eom": FIRST + 1}),
        (("<|eot_id|>", "<|fin|>", "<|eso|>"), (0, 1, 2), {"eom": FIRST + 1, "eot": FIRST + 2}),
    ],
)
def test_llama_cpp_stops_where_generation_config_stops(
    tmp_path: Path, texts: tuple[str, ...], ends: tuple[int, ...], ids: dict[str, int]
) -> None:
    wanted = [FIRST + n for n in ends]

    found = read(tmp_path, texts, generation={"eos_token_id": wanted})

    assert found.special_ids == {"bos": BOS, "eos": EOS, **ids}
    assert set(found.departures) == {f"tokenizer.ggml.{kind}_token_id" for kind in ids}
    assert set(found.end_ids) == {EOS, *wanted}
    with in_llama_cpp(found, tmp_path) as vocabulary:
        assert vocabulary.ends() >= {EOS, *wanted}
        assert not vocabulary.ends() & {BOS, *range(NUM_BASE)}


@pytest.mark.parametrize("value", [EOS, [EOS], None, []])
def test_one_end_needs_nothing_further(tmp_path: Path, value: object) -> None:
    found = read(tmp_path, generation={"eos_token_id": value})

    assert found.special_ids == {"bos": BOS, "eos": EOS}
    assert found.end_ids == (EOS,)


def test_ends_may_stand_in_config_json_alone(tmp_path: Path) -> None:
    model = {**MODEL, "eos_token_id": [EOS, FIRST]}

    found = read(tmp_path, ("<|fin|>",), model)

    assert found.special_ids == {"bos": BOS, "eos": EOS, "eot": FIRST}
    assert found.end_ids == (EOS, FIRST)


def test_refuses_more_ends_than_a_gguf_has_places_for(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"263 \('<c>'\)") as caught:
        read(tmp_path, ("<a>", "<b>", "<c>"), generation={"eos_token_id": [261, 262, 263]})

    assert "generation_config.json" in (caught.value.hint or "")


def test_refuses_an_end_that_llama_cpp_takes_back(tmp_path: Path) -> None:
    # Beside <|return|> and <|call|> it takes <|end|> for the end of a message, not of a turn.
    texts = ("<|return|>", "<|call|>", "<|end|>")

    with pytest.raises(RefusedError, match=r"263 \('<\|end\|>'\)"):
        read(tmp_path, texts, generation={"eos_token_id": [263]})


def test_llama_cpp_takes_that_end_back(tmp_path: Path) -> None:
    found = read(tmp_path, ("<|return|>", "<|call|>", "<|end|>"))

    with in_llama_cpp(found, tmp_path) as vocabulary:
        assert vocabulary.ends() == {EOS, 261, 262}


@pytest.mark.parametrize(
    ("generation", "said"),
    [
        ({"eos_token_id": "</s>"}, "generation_config.json: eos_token_id is '</s>'"),
        ({"eos_token_id": [EOS, None]}, "generation_config.json: eos_token_id is [260, None]"),
        ({"eos_token_id": True}, "generation_config.json: eos_token_id is True"),
        ({"eos_token_id": [EOS, 999]}, "the eos token has the id 999, outside the 269 tokens"),
        ({"eos_token_id": -1}, "the eos token has the id -1"),
    ],
)
def test_refuses_an_end_that_is_no_token(
    tmp_path: Path, generation: dict[str, object], said: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        read(tmp_path, generation=generation)

    assert said in caught.value.message


# Ids from config.json.


def test_takes_ids_from_config_json_where_no_name_leads_to_one(tmp_path: Path) -> None:
    found = read(tmp_path, ("<pad>",), {**MODEL, "pad_token_id": FIRST}, config={"x": 1})

    assert found.special_ids == {"bos": BOS, "eos": EOS, "pad": FIRST}


def test_a_name_outweighs_an_id(tmp_path: Path) -> None:
    found = read(tmp_path, ("<|fin|>",), config={**CONFIG, "eos_token": "<|fin|>"})

    assert found.special_ids["eos"] == FIRST
    assert found.end_ids == (EOS, FIRST)


@pytest.mark.parametrize("token_id", [-1, 269])
def test_a_padding_token_that_is_none_is_left_out(tmp_path: Path, token_id: int) -> None:
    found = read(tmp_path, model={**MODEL, "pad_token_id": token_id})

    assert "pad" not in found.special_ids
    assert f"the pad token {token_id} is outside the 269 tokens" in found.notes[0]


@pytest.mark.parametrize("kind", ["bos", "eos"])
@pytest.mark.parametrize("token_id", [-1, 269])
def test_refuses_a_bos_or_eos_that_is_none(tmp_path: Path, kind: str, token_id: int) -> None:
    model = {**MODEL, f"{kind}_token_id": token_id}

    with pytest.raises(RefusedError, match=f"the {kind} token has the id {token_id}, outside"):
        read(tmp_path, model=model, config={"x": 1})


@pytest.mark.parametrize(
    ("model", "generation", "config"),
    [
        ({"eos_token_id": [FIRST, EOS]}, {}, {}),
        ({}, {"eos_token_id": FIRST}, {}),
        ({}, {}, {"eos_token": "re"}),
    ],
)
def test_finds_an_eos_where_llama_cpps_converter_does_not_look(
    tmp_path: Path, model: dict[str, Any], generation: dict[str, Any], config: dict[str, Any]
) -> None:
    model = {"vocab_size": MODEL["vocab_size"], "bos_token_id": BOS, **model}

    found = read(tmp_path, ("<|fin|>",), model, generation, config)

    assert found.special_ids["eos"] == (257 if config else FIRST)
    assert "tokenizer.ggml.eos_token_id" in found.departures


def test_refuses_a_checkpoint_that_never_ends(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="names no token that ends a text"):
        read(tmp_path, model={"vocab_size": 269, "bos_token_id": BOS}, config={})


def test_without_a_bos_llama_cpp_is_told_to_write_none(tmp_path: Path) -> None:
    found = read(tmp_path, model={"vocab_size": 269, "eos_token_id": EOS}, config={})

    assert found.adds == {"bos": False}
    assert "tokenizer.ggml.add_bos_token" in found.departures
    with in_llama_cpp(found, tmp_path) as vocabulary:
        assert vocabulary.tokenize("a", add_special=True) == vocabulary.tokenize("a")


def test_without_a_bos_a_pre_tokenizer_that_wants_none_is_left_alone(tmp_path: Path) -> None:
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    write_folder(tmp_path, tokenizer__json=bpe(pre_tokenizer=gpt2, ignore_merges=False))

    found = read_vocabulary(tmp_path, {"vocab_size": 269, "eos_token_id": EOS}, {})

    assert (found.pre, found.adds) == ("gpt-2", {})


def test_refuses_to_add_a_bos_that_nobody_names(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="wants a BOS before every text and names none"):
        read(
            tmp_path,
            model={"vocab_size": 269, "eos_token_id": EOS},
            config={"add_bos_token": True},
        )


def test_code_llamas_end_of_turn_is_known_by_its_place(tmp_path: Path) -> None:
    vocab = {text: number for number, text in enumerate([*byte_letters(), "Ġa", "re", "Ġare"])}
    digits = {f"w{n}": n for n in range(259, 32010)}
    tokenizer = bpe(
        vocab={**vocab, **digits},
        added_tokens=[added(32010, "▁<EOT>", special=True)],
        pre_tokenizer=sequence(split(r"\p{N}"), {"type": "ByteLevel", "add_prefix_space": False,
                                                "trim_offsets": True, "use_regex": True}),
    )  # fmt: skip
    write_folder(tmp_path, tokenizer__json=tokenizer)

    found = read_vocabulary(
        tmp_path, {"vocab_size": 32016, "bos_token_id": 1, "eos_token_id": 2}, {}
    )

    assert found.special_ids == {"bos": 1, "eos": 2, "eot": 32010}
