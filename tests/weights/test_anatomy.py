"""A GGUF taken apart: groups, numbers, tokenizer, template; expectations written out by hand."""

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from medlocal.weights.anatomy import (
    Rope,
    SpecialToken,
    rope_of,
    shape_of,
    template_facts,
    tensor_groups,
    tokenizer_of,
)
from medlocal.weights.inspect import GGUFInfo, read_gguf
from medlocal.weights.template import ChatTemplate
from tests.weights.gguf_files import CHATML, F32
from tests.weights.test_template import MISTRAL, SAYS_ALL
from tests.weights.tiny_llama import (
    Recipe,
    TensorRecipe,
    f32,
    flag,
    int32s,
    string,
    tiny_llama,
    u32,
    write_tiny_llama,
)

Read = Callable[[Recipe], GGUFInfo]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    return lambda recipe: read_gguf(write_tiny_llama(tmp_path / "tiny.gguf", recipe))


def with_tensors(*names: str) -> Recipe:
    recipe = tiny_llama()
    more = [TensorRecipe(name, (4,), F32, bytes(16)) for name in names]
    return replace(recipe, tensors=(*recipe.tensors, *more))


# Groups of tensors.


def test_tensors_are_grouped_by_their_role_in_the_order_of_the_network(read: Read) -> None:
    groups = tensor_groups(read(tiny_llama()))
    assert [(g.name, g.num_tensors, g.num_elements, g.num_bytes) for g in groups] == [
        ("token_embd", 1, 32 * 264, 264 * 34),
        ("attn_q", 2, 2 * 32 * 32, 8192),
        ("attn_k", 2, 2 * 32 * 16, 4096),
        ("attn_v", 2, 2 * 32 * 16, 4096),
        ("attn_output", 2, 2 * 32 * 32, 8192),
        ("ffn_gate", 2, 2 * 32 * 64, 16384),
        ("ffn_up", 2, 2 * 32 * 64, 16384),
        ("ffn_down", 2, 2 * 64 * 32, 16384),
        ("norms", 5, 5 * 32, 640),
    ]


def test_bits_per_weight_count_the_scales(read: Read) -> None:
    groups = {group.name: group for group in tensor_groups(read(tiny_llama()))}
    assert groups["token_embd"].bits_per_weight == 8.5  # 34 bytes for 32 weights
    assert groups["norms"].bits_per_weight == 32


def test_a_group_of_two_types_names_the_one_with_most_bytes_first(read: Read) -> None:
    recipe = tiny_llama()
    mixed = tuple(
        replace(t, kind=1, data=bytes(32 * 32 * 2)) if t.name == "blk.0.attn_q.weight" else t
        for t in recipe.tensors
    )
    groups = {g.name: g for g in tensor_groups(read(replace(recipe, tensors=mixed)))}
    assert list(groups["attn_q"].types.items()) == [("F32", 1), ("F16", 1)]


def test_biases_others_and_the_output_come_last(read: Read) -> None:
    recipe = with_tensors(
        "output.weight", "blk.0.attn_q.bias", "blk.1.new.weight", "rope_freqs.weight"
    )
    names = [group.name for group in tensor_groups(read(recipe))]
    assert names[-5:] == ["new", "rope_freqs", "norms", "biases", "output"]


# Numbers.


def test_the_numbers_of_the_network(read: Read) -> None:
    shape = shape_of(read(tiny_llama()))
    assert (shape.context_length, shape.num_layers, shape.embedding_length) == (128, 2, 32)
    assert (shape.feed_forward_length, shape.num_heads, shape.num_kv_heads) == (64, 4, 2)
    assert (shape.head_length, shape.num_experts) == ((8, 8), None)
    assert shape.kv_bytes_per_token == 2 * 2 * (8 + 8) * 2


def test_what_a_file_does_not_say_is_none(read: Read) -> None:
    shape = shape_of(read(tiny_llama().changed(general__architecture=None)))
    assert set(astuple(shape)) == {None}


def test_what_cannot_be_meant_is_none(read: Read) -> None:
    recipe = tiny_llama().changed(
        llama__context_length=u32(0), llama__attention__head_count_kv=int32s([1])
    )
    shape = shape_of(read(recipe))
    assert (shape.context_length, shape.num_kv_heads, shape.num_layers) == (None, None, 2)


def test_positions_that_are_not_scaled(read: Read) -> None:
    assert rope_of(read(tiny_llama())) == Rope(10000.0, 8, None, None, None)


def test_positions_that_are_scaled(read: Read) -> None:
    recipe = tiny_llama().changed(
        llama__rope__scaling__type=string("yarn"),
        llama__rope__scaling__factor=f32(4.0),
        llama__rope__scaling__original_context_length=u32(32),
    )
    assert rope_of(read(recipe)) == Rope(10000.0, 8, "yarn", 4.0, 32)


def test_llama_3_scales_by_a_tensor(read: Read) -> None:
    assert rope_of(read(with_tensors("rope_freqs.weight"))).scaling == "factors"


# Tokenizer.


def test_the_tokenizer_and_its_special_tokens(read: Read) -> None:
    tokenizer = tokenizer_of(read(tiny_llama().changed(tokenizer__ggml__eot_token_id=u32(262))))
    assert (tokenizer.model, tokenizer.pre) == ("gpt2", "llama-bpe")
    assert (tokenizer.num_tokens, tokenizer.num_merges) == (264, 4)
    assert tokenizer.special == (
        SpecialToken("bos", 259, "<s>"),
        SpecialToken("eos", 262, "<|im_end|>"),
        SpecialToken("eot", 262, "<|im_end|>"),
    )
    assert (tokenizer.add_bos, tokenizer.wants_bos, tokenizer.add_eos) == (True, True, None)


def test_a_bos_may_be_wanted_without_being_said(read: Read) -> None:
    tokenizer = tokenizer_of(read(tiny_llama().changed(tokenizer__ggml__add_bos_token=None)))
    assert (tokenizer.add_bos, tokenizer.wants_bos) == (None, True)  # by its pre-tokenizer


def test_switches_are_read_as_they_are(read: Read) -> None:
    recipe = tiny_llama().changed(
        tokenizer__ggml__add_eos_token=flag(False), tokenizer__ggml__add_space_prefix=flag(True)
    )
    tokenizer = tokenizer_of(read(recipe))
    assert (tokenizer.add_eos, tokenizer.add_space_prefix) == (False, True)


def test_a_special_token_that_is_not_there_has_no_text(read: Read) -> None:
    tokenizer = tokenizer_of(read(tiny_llama().changed(tokenizer__ggml__eos_token_id=u32(999))))
    assert SpecialToken("eos", 999, None) in tokenizer.special


# Template.


def test_a_template_is_shown_on_an_example() -> None:
    example = template_facts(ChatTemplate(CHATML, "<s>", "</s>")).example
    assert example == (
        "<|im_start|>system\nYou answer questions about medicine. Responde en español.<|im_end|>\n"
        "<|im_start|>user\n¿Qué órgano produce la insulina?\nA. El hígado\nB. El páncreas<|im_end|>\n"
        "<|im_start|>assistant\nB<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )


NO_TOOLS = SAYS_ALL.replace("{{", "{% if m.role != 'tool' %}{{").replace("}}", "}}{% endif %}")


@pytest.mark.parametrize(
    ("source", "roles"),
    [
        (CHATML, ("system", "user", "assistant", "tool")),
        (MISTRAL, ("system (in the user's turn)", "user", "assistant")),
        (NO_TOOLS, ("system", "user", "assistant")),
        ("{% if %}", ()),
    ],
    ids=["ChatML", "Mistral", "without tools", "broken"],
)
def test_the_roles_are_those_whose_words_appear(source: str, roles: tuple[str, ...]) -> None:
    assert template_facts(ChatTemplate(source, "<s>", "</s>")).roles == roles


def test_a_template_that_fails_has_no_example() -> None:
    assert template_facts(ChatTemplate("{% if %}", "", "")).example is None
