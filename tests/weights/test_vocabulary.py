"""Byte-level BPE: tokens, types, padding, what is put around a text, templates, and their order.

The literal keys and their order were compared once with what llama.cpp's converter writes for the
same folders.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medlocal.weights.vocabulary import Vocabulary
from tests.weights.tokenizer_values import (
    BYTES_ONLY,
    CONFIG,
    CONTROL,
    MODEL,
    NORMAL,
    NUM_BASE,
    SIZE,
    UNUSED,
    USER_DEFINED,
    added,
    bpe,
    byte_letters,
    in_llama_cpp,
    read_bpe,
    write_folder,
)

Read = Callable[..., Vocabulary]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    return partial(read_bpe, tmp_path / "checkpoint")


def text_around(single: list[str], pair: list[str]) -> dict[str, Any]:
    """A post-processor: a text is "A" or "B", all else is a special token."""

    def parts(names: list[str]) -> list[dict[str, Any]]:
        kinds = [("Sequence" if name in {"A", "B"} else "SpecialToken", name) for name in names]
        return [{kind: {"id": name, "type_id": 0}} for kind, name in kinds]

    ids = {"<s>": NUM_BASE, "</s>": NUM_BASE + 1}
    tokens = {name: {"id": name, "ids": [n], "tokens": [name]} for name, n in ids.items()}
    return {
        "type": "TemplateProcessing",
        "single": parts(single),
        "pair": parts(pair),
        "special_tokens": tokens,
    }


BEGINS = text_around(["<s>", "A"], ["<s>", "A", "<s>", "B"])


def test_reads_tokens_types_and_merges(read: Read) -> None:
    found = read()

    padding = [f"[PAD{n}]" for n in range(NUM_BASE + 2, SIZE)]
    assert list(found.tokens) == [*byte_letters(), "Ġa", "re", "Ġare", "<s>", "</s>", *padding]
    assert list(found.token_types) == [NORMAL] * NUM_BASE + [CONTROL] * 2 + [UNUSED] * 6
    assert found.merges == ("Ġ a", "r e", "Ġa re")
    assert found.scores is None


def test_writes_keys_in_the_order_of_llama_cpps_converter(read: Read) -> None:
    config = {
        **CONFIG,
        "add_prefix_space": False,
        "add_eos_token": False,
        "pad_token": "</s>",
        "chat_template": "{{ messages }}",
    }

    entries = read(
        bpe(post_processor=BEGINS), {**MODEL, "unk_token_id": 3}, config=config
    ).entries()

    assert [(key, kind.name) for key, _, kind in entries] == [
        ("tokenizer.ggml.add_space_prefix", "BOOL"),
        ("tokenizer.ggml.model", "STRING"),
        ("tokenizer.ggml.pre", "STRING"),
        ("tokenizer.ggml.tokens", "ARRAY"),
        ("tokenizer.ggml.token_type", "ARRAY"),
        ("tokenizer.ggml.merges", "ARRAY"),
        ("tokenizer.ggml.bos_token_id", "UINT32"),
        ("tokenizer.ggml.eos_token_id", "UINT32"),
        ("tokenizer.ggml.padding_token_id", "UINT32"),
        ("tokenizer.ggml.unknown_token_id", "UINT32"),
        ("tokenizer.ggml.add_bos_token", "BOOL"),
        ("tokenizer.ggml.add_sep_token", "BOOL"),
        ("tokenizer.ggml.add_eos_token", "BOOL"),
        ("tokenizer.chat_template", "STRING"),
    ]
    values = {key: value for key, value, _ in entries if not isinstance(value, list)}
    assert values == {
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.bos_token_id": 259,
        "tokenizer.ggml.eos_token_id": 260,
        "tokenizer.ggml.padding_token_id": 260,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_sep_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": "{{ messages }}",
    }


@pytest.mark.parametrize(
    ("processor", "config", "adds"),
    [
        (None, {}, {}),
        (None, {"add_bos_token": True}, {"bos": True}),
        (BYTES_ONLY, {}, {"bos": False, "eos": False}),
        (BEGINS, {}, {"bos": True, "sep": False}),
        (
            {"type": "Sequence", "processors": [BYTES_ONLY, BEGINS]},
            {},
            {"bos": True, "eos": False, "sep": False},
        ),
        (
            text_around(["<s>", "A", "</s>"], ["<s>", "A", "<s>", "B", "</s>"]),
            {},
            {"bos": True, "eos": True, "sep": False},
        ),
        (
            text_around(["<s>", "A"], ["<s>", "A", "</s>", "B"]),
            {},
            {"bos": True, "sep": True},
        ),
        (text_around(["A"], ["A", "B"]), {}, {}),
    ],
)
def test_reads_what_is_put_around_a_text(
    read: Read, processor: Any, config: dict[str, Any], adds: dict[str, bool]
) -> None:
    found = read(bpe(post_processor=processor), config={**CONFIG, **config})

    assert list(found.adds.items()) == list(adds.items())
    assert found.notes == ()


def test_tokenizer_json_outweighs_a_flag_and_says_so(read: Read) -> None:
    found = read(bpe(post_processor=BYTES_ONLY), config={**CONFIG, "add_bos_token": True})

    assert found.add_bos is False
    assert "add_bos_token True, tokenizer.json does the opposite" in found.notes[0]


def test_the_token_that_ends_a_text_is_the_eos_and_the_named_one_ends_a_turn(read: Read) -> None:
    tokenizer = bpe(
        added(NUM_BASE + 2, "<|fin|>"),
        post_processor=text_around(["<s>", "A", "</s>"], ["<s>", "A", "B", "</s>"]),
    )

    found = read(tokenizer, config={**CONFIG, "eos_token": "<|fin|>"})

    assert found.special_ids == {"bos": 259, "eos": 260, "eot": 261}


def test_the_token_that_begins_a_text_is_the_bos_whatever_is_named(read: Read) -> None:
    tokenizer = bpe(added(NUM_BASE + 2, "<|otro|>"), post_processor=BEGINS)

    found = read(tokenizer, config={**CONFIG, "bos_token": "<|otro|>"})

    assert (found.special_ids["bos"], found.add_bos) == (259, True)
    assert "'<s>'" in found.notes[0]
    assert "'<|otro|>'" in found.notes[0]
    assert list(found.departures) == ["tokenizer.ggml.bos_token_id"]


def test_a_vocabulary_of_granites_size_gets_no_bos(read: Read) -> None:
    found = read(model={**MODEL, "vocab_size": 49152})

    assert found.adds == {"bos": False}
    assert found.departures == {}


def test_a_vocabulary_of_granites_size_keeps_a_bos_that_its_tokenizer_writes(read: Read) -> None:
    found = read(bpe(post_processor=BEGINS), {**MODEL, "vocab_size": 49152})

    assert found.add_bos is True
    assert "tokenizer.ggml.add_bos_token" in found.departures


# Added tokens.


def test_added_tokens_are_control_or_for_users(read: Read) -> None:
    found = read(
        bpe(
            added(NUM_BASE + 2, "<historia>", special=False),
            added(NUM_BASE + 3, "<|fin|>", special=False),
            added(NUM_BASE + 4, "mg▁dl", special=False),
            added(NUM_BASE + 5, "<nuevo>"),
        )
    )

    assert found.tokens[NUM_BASE + 2 : NUM_BASE + 6] == (
        "<historia>",
        "<|fin|>",
        "mg dl",
        "<nuevo>",
    )
    # What looks special is special, whatever its file says.
    types = found.token_types[NUM_BASE + 2 : NUM_BASE + 6]
    assert types == (USER_DEFINED, CONTROL, USER_DEFINED, CONTROL)


def test_llama_cpp_finds_an_added_token_with_an_accent(read: Read, tmp_path: Path) -> None:
    found = read(bpe(added(NUM_BASE + 2, "<diagnóstico>")))

    with in_llama_cpp(found, tmp_path) as vocabulary:
        assert vocabulary.tokenize("<diagnóstico>", special=True) == [NUM_BASE + 2]
    assert list(found.departures) == ["tokenizer.ggml.tokens"]


def test_an_added_token_in_the_letters_of_bytes_is_written_as_text(read: Read) -> None:
    found = read(bpe(added(NUM_BASE + 2, "Ġdosis")))

    assert found.tokens[NUM_BASE + 2] == " dosis"
    assert found.departures == {}


def test_tokenizer_config_adds_tokens_and_changes_what_they_are(read: Read) -> None:
    decoder = {
        str(NUM_BASE + 2): {"content": "<a>", "special": True},
        str(NUM_BASE + 3): {"content": "<b>", "special": False},
    }

    found = read(
        bpe(added(NUM_BASE + 2, "<a>", special=False)),
        config={**CONFIG, "added_tokens_decoder": decoder},
    )

    assert found.tokens[NUM_BASE + 2 : NUM_BASE + 4] == ("<a>", "<b>")
    assert found.token_types[NUM_BASE + 2 : NUM_BASE + 4] == (CONTROL, USER_DEFINED)


def test_a_token_named_special_is_control(read: Read) -> None:
    tokenizer = bpe(added(NUM_BASE + 2, "<relleno>", special=False))

    found = read(tokenizer, config={**CONFIG, "pad_token": {"content": "<relleno>"}})

    assert found.token_types[NUM_BASE + 2] == CONTROL
    assert found.special_ids["pad"] == NUM_BASE + 2


def test_a_hole_in_the_numbers_is_padding(read: Read) -> None:
    vocab = {text: number for number, text in enumerate([*byte_letters(), "Ġa", "re"])}

    found = read(bpe(vocab={**vocab, "Ġare": NUM_BASE + 5}))

    assert found.tokens[NUM_BASE - 1 : NUM_BASE + 1] == ("[PAD258]", "<s>")
    assert found.token_types[NUM_BASE - 1] == UNUSED
    assert found.tokens[NUM_BASE + 5] == "Ġare"


def test_merges_may_be_texts(read: Read) -> None:
    assert read(bpe(merges=["Ġ a", "r e"])).merges == ("Ġ a", "r e")


def test_notes_an_added_token_that_takes_in_the_spaces_beside_it(read: Read) -> None:
    found = read(bpe(added(NUM_BASE + 2, "<x>", rstrip=True)))

    assert "1 added tokens, such as '<x>'" in found.notes[0]


def test_notes_bytes_without_a_token(read: Read) -> None:
    vocab = {text: number for number, text in enumerate(byte_letters()) if text != "ñ"}
    tokenizer = bpe(vocab={**vocab, "Ġa": 241, "re": 256, "Ġare": 257}, merges=[["Ġ", "a"]])
    tokenizer["added_tokens"] = [added(258, "<s>"), added(259, "</s>")]

    assert "1 of the 256 bytes have no token" in read(tokenizer).notes[0]


def test_notes_a_special_token_outside_the_vocabulary(read: Read) -> None:
    found = read(config={**CONFIG, "pad_token": "[PAD]"})

    assert "the pad_token '[PAD]' is not in the vocabulary" in found.notes[0]
    assert "pad" not in found.special_ids


# Chat templates.


@pytest.mark.parametrize(
    ("config", "files", "written"),
    [
        ({"chat_template": "C"}, {}, [("tokenizer.chat_template", "C")]),
        ({}, {"chat_template__jinja": "F"}, [("tokenizer.chat_template", "F")]),
        (
            {},
            {"chat_template__json": {"chat_template": "J"}},
            [("tokenizer.chat_template", "J")],
        ),
        (
            {
                "chat_template": [
                    {"name": "tool use", "template": "T"},
                    {"name": "default", "template": "D"},
                ]
            },
            {},
            [
                ("tokenizer.chat_template.tool_use", "T"),
                ("tokenizer.chat_templates", ["tool_use"]),
                ("tokenizer.chat_template", "D"),
            ],
        ),
        (
            {"chat_template": [{"name": "rag", "template": "R"}]},
            {},
            [("tokenizer.chat_template.rag", "R"), ("tokenizer.chat_templates", ["rag"])],
        ),
        ({"chat_template": ""}, {}, []),
        ({}, {}, []),
    ],
)
def test_writes_chat_templates(
    read: Read, config: dict[str, Any], files: dict[str, Any], written: list[Any]
) -> None:
    found = read(config={**CONFIG, **config}, **files)

    entries = [(key, value) for key, value, _ in found.entries() if "chat_template" in key]
    assert entries == written
    assert found.departures == {}


def test_finds_further_templates_beside_a_templates_file(read: Read, tmp_path: Path) -> None:
    more = tmp_path / "checkpoint" / "additional_chat_templates"
    write_folder(more, b__jinja="B", a__jinja="A")

    found = read(chat_template__jinja="D")

    assert found.chat_templates == {"default": "D", "a": "A", "b": "B"}
    assert "tokenizer.chat_templates" in found.departures


@pytest.mark.parametrize("config", [None, {**CONFIG, "chat_template": None}])
def test_finds_a_templates_file_that_llama_cpps_converter_does_not_look_for(
    read: Read, config: Any
) -> None:
    found = read(config=config, chat_template__jinja="F")

    assert found.chat_template == "F"
    assert "tokenizer.chat_template" in found.departures


def test_notes_two_templates_that_differ(read: Read) -> None:
    found = read(config={**CONFIG, "chat_template": "C"}, chat_template__jinja="F")

    assert found.chat_template == "C"
    assert "another beside it: the first is used" in found.notes[0]


# What a user chooses, and what a user should know.


def test_takes_the_name_that_a_user_chose(read: Read) -> None:
    tokenizer = bpe(pre_tokenizer=BYTES_ONLY)

    assert read(tokenizer, pre="qwen2").pre == "qwen2"


def test_notes_composition_that_llama_cpp_does_not_do(read: Read) -> None:
    assert "(NFC)" in read(bpe(normalizer={"type": "NFC"})).notes[0]
