"""What a file says in one place against what it says in another; each case is one contradiction."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medlocal.errors import RefusedError
from medlocal.weights import consistency
from medlocal.weights.consistency import check_consistent, doubts
from medlocal.weights.inspect import read_gguf
from tests.weights.gguf_files import ARRAY, FLOAT32, gguf_bytes, write_model
from tests.weights.tiny_llama import (
    Recipe,
    byte_letters,
    f32,
    int32s,
    string,
    strings,
    tiny_llama,
    tiny_llama_2,
    u32,
    write_tiny_llama,
)

Check = Callable[[Recipe], None]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def check_recipe(recipe: Recipe) -> None:
        check_consistent(read_gguf(write_tiny_llama(tmp_path / "tiny.gguf", recipe)))

    return check_recipe


def changed_tensor(name: str, **changes: object) -> Recipe:
    recipe = tiny_llama()
    tensors = [replace(t, **changes) if t.name == name else t for t in recipe.tensors]  # type: ignore[arg-type]
    return replace(recipe, tensors=tuple(tensors))


def without_tensor(*beginnings: str) -> Recipe:
    recipe = tiny_llama()
    kept = [t for t in recipe.tensors if not t.name.startswith(beginnings)]
    return replace(recipe, tensors=tuple(kept))


def test_a_sound_file_is_consistent(check: Check) -> None:
    check(tiny_llama())


def test_a_file_without_weights_is_no_model(tmp_path: Path) -> None:
    recipe = replace(tiny_llama(), tensors=())
    with pytest.raises(RefusedError, match="a vocabulary without weights"):
        check_consistent(read_gguf(write_tiny_llama(tmp_path / "v.gguf", recipe)))


def test_the_message_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    path = write_model(tmp_path / "little.gguf")
    with pytest.raises(RefusedError) as caught:
        check_consistent(read_gguf(path))
    assert str(path) in caught.value.message
    assert "another conversion" in (caught.value.hint or "")


KEYS = {
    "no architecture": ({"general.architecture": None}, "says no general.architecture"),
    "a name of control characters": ({"general.architecture": string("a\x1b")}, "printable ASCII"),
    "a name with a zero byte": ({"llama.x\0": u32(1)}, "printable ASCII"),
    "no layers": ({"llama.block_count": u32(0)}, "block_count is 0"),
    "more layers than llama.cpp has": ({"llama.block_count": u32(513)}, "up to 512"),
    "a context of none": ({"llama.context_length": u32(0)}, "context_length is 0"),
    "no width": ({"llama.embedding_length": None}, "embedding_length is None"),
    "a width that is text": ({"llama.embedding_length": string("x")}, "embedding_length is 'x'"),
    "a negative epsilon": ({"llama.attention.layer_norm_rms_epsilon": f32(-1.0)}, "is -1.0"),
    "a base that is no number": ({"llama.rope.freq_base": f32(float("nan"))}, "freq_base is nan"),
    "an unknown scaling": ({"llama.rope.scaling.type": string("x")}, "which is unknown"),
    "predicted layers": ({"llama.nextn_predict_layers": u32(3)}, "more than its 2 layers"),
    "experts without use": ({"llama.expert_count": u32(8)}, "8 experts, of which 0 are used"),
    "use without experts": ({"llama.expert_used_count": u32(2)}, "0 experts, of which 2 are used"),
    "more experts than llama.cpp has": (
        {"llama.expert_count": u32(1025), "llama.expert_used_count": u32(2)}, "1,025 experts",
    ),
    "uneven groups of experts": (
        {"llama.expert_count": u32(8), "llama.expert_used_count": u32(2),
         "llama.expert_group_count": u32(3)}, "8 experts in 3 groups",
    ),
    "groups that are not used": (
        {"llama.expert_count": u32(8), "llama.expert_used_count": u32(2),
         "llama.expert_group_count": u32(4)}, "of which 0 are used",
    ),
    "no tokenizer": ({"tokenizer.ggml.model": None}, "has no tokenizer"),
    "a tokenizer of none": ({"tokenizer.ggml.model": string("none")}, "has no tokenizer"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, "tokens is None"),
    "tokens that are numbers": ({"tokenizer.ggml.tokens": int32s([1, 2])}, "not a list of texts"),
    "types for some tokens": ({"tokenizer.ggml.token_type": int32s([1])}, "at least 264 values"),
    "merges that are numbers": ({"tokenizer.ggml.merges": int32s([1])}, "not a list of texts"),
    "a special token outside": (
        {"tokenizer.ggml.eot_token_id": u32(264)}, "eot_token_id is 264, outside its 264 tokens",
    ),
    "KV heads that do not divide": ({"llama.attention.head_count_kv": u32(3)}, "4 heads and 3 KV"),
    "no KV heads": ({"llama.attention.head_count_kv": u32(0)}, "4 heads and 0 KV"),
    "heads of one number": ({"llama.attention.head_count": u32(32)}, "cannot be rotated in pairs"),
    "another rotation": ({"llama.rope.dimension_count": u32(4)}, "4 rotated"),
    "values of another length": ({"llama.attention.value_length": u32(4)}, "values of 4"),
    "KV heads by layer": (
        {"llama.attention.head_count_kv": int32s([2, 4])}, "differs between layers",
    ),
    "layers that have no tensors": ({"llama.block_count": u32(3)}, "no tensors for layer 2 of 3"),
    "tensors that have no layer": ({"llama.block_count": u32(1)}, "belongs to none of 1 layers"),
    "another width": (
        {"llama.embedding_length": u32(64), "llama.rope.dimension_count": u32(16)},
        "'token_embd.weight' has the shape (32, 264), not (64, 264)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), KEYS.values(), ids=KEYS.keys())
def test_refuses(check: Check, changes: dict[str, tuple[int, bytes] | None], message: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(message)):
        check(tiny_llama().changed(**changes))


def test_a_padding_outside_the_vocabulary_is_told_only(tmp_path: Path) -> None:
    recipe = tiny_llama().changed(tokenizer__ggml__padding_token_id=u32(264))
    info = read_gguf(write_tiny_llama(tmp_path / "tiny.gguf", recipe))
    check_consistent(info)
    assert list(doubts(info)) == [
        "tokenizer.ggml.padding_token_id is 264, outside its 264 tokens, and is not used"
    ]


def test_refuses_scores_for_some_tokens(check: Check) -> None:
    scores = (ARRAY, struct.pack("<IQ2f", FLOAT32, 2, 0.0, 1.0))
    with pytest.raises(RefusedError, match="scores is no list of at least 264 values"):
        check(tiny_llama().changed(tokenizer__ggml__scores=scores))


def test_refuses_a_vocabulary_larger_than_any_model_has(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency, "MAX_TOKENS", 263)
    with pytest.raises(RefusedError, match="has 264 tokens; up to 263 are read"):
        check(tiny_llama())


def test_refuses_two_tokens_of_one_text(check: Check) -> None:
    tokens = [f"t{number}" for number in range(263)]
    recipe = tiny_llama().changed(tokenizer__ggml__tokens=strings([*tokens, "t7"]))
    with pytest.raises(RefusedError, match="'t7' is there twice, the second time as number 263"):
        check(recipe)


def test_two_tokens_of_broken_characters_are_not_taken_for_one(check: Check) -> None:
    tokens = [f"t{number}".encode() for number in range(262)]
    packed = b"".join(struct.pack("<Q", len(t)) + t for t in [*tokens, b"\xc3", b"\xe2"])
    recipe = tiny_llama().changed(
        tokenizer__ggml__tokens=(ARRAY, struct.pack("<IQ", 8, 264) + packed)
    )
    check(recipe)


def test_a_sentencepiece_vocabulary_must_spell_every_byte(check: Check) -> None:
    sound = tiny_llama_2()
    check(sound)
    kind, packed = sound.keys["tokenizer.ggml.tokens"]
    changed = packed.replace(b"<0x0A>", b"<0x0a>")
    with pytest.raises(RefusedError, match="no token for the byte 0x0A"):
        check(sound.changed(tokenizer__ggml__tokens=(kind, changed)))


def test_refuses_a_vocabulary_of_another_size_than_the_embeddings(check: Check) -> None:
    tokens = [*byte_letters(), *(f"t{number}" for number in range(7))]
    recipe = tiny_llama().changed(tokenizer__ggml__tokens=strings(tokens))
    with pytest.raises(RefusedError, match=re.escape("has the shape (32, 264), not (32, 263)")):
        check(recipe)


def test_refuses_a_model_without_embeddings(check: Check) -> None:
    with pytest.raises(RefusedError, match=re.escape("has no tensor 'token_embd.weight'")):
        check(without_tensor("token_embd"))


def test_refuses_a_gap_between_tensors(check: Check) -> None:
    recipe = tiny_llama()
    places = [0]
    for each in recipe.tensors:
        places.append(places[-1] + -(-len(each.data) // 32) * 32)
    last = replace(recipe.tensors[-1], offset=places[-2] + 32)
    data = last.data + bytes(32)
    moved = replace(recipe, tensors=(*recipe.tensors[:-1], replace(last, data=data)))
    with pytest.raises(RefusedError, match=r"'blk.1.ffn_down.weight' does not follow"):
        check(moved)


def test_refuses_weights_that_begin_between_two_steps_of_the_mapping(tmp_path: Path) -> None:
    # With an alignment of 1 the data begins right behind the header, wherever that ends.
    recipe = tiny_llama().changed(general__alignment=u32(1))
    header = gguf_bytes(*recipe.header_parts())
    name = string("Tiny Llama" + "x" * ((1 - len(header)) % 32))
    header = gguf_bytes(*recipe.changed(general__name=name).header_parts())
    path = tmp_path / "model.gguf"
    path.write_bytes(header + recipe.data())
    assert len(header) % 32 == 1
    with pytest.raises(RefusedError, match=r"begin at byte [\d,]+, which is no multiple of 32"):
        check_consistent(read_gguf(path))


@pytest.mark.parametrize("kind", [9, 15])  # Q8_1 and Q8_K
def test_refuses_a_type_that_only_products_have(check: Check, kind: int) -> None:
    import gguf

    block, num_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    tensor = {"kind": kind, "shape": (256, 4), "data": bytes(256 * 4 // block * num_bytes)}
    with pytest.raises(RefusedError, match="which holds no weights"):
        check(changed_tensor("blk.0.attn_q.weight", **tensor))


@pytest.mark.parametrize("kind", [1, 26, 28])  # F16, I32, F64
def test_refuses_norms_that_cannot_be_multiplied(check: Check, kind: int) -> None:
    num_bytes = {1: 2, 26: 4, 28: 8}[kind]
    changes = {"kind": kind, "data": bytes(32 * num_bytes)}
    with pytest.raises(RefusedError, match=r"'blk.1.ffn_norm.weight' cannot be of type"):
        check(changed_tensor("blk.1.ffn_norm.weight", **changes))


def test_other_architectures_may_lack_what_a_dense_one_has(check: Check) -> None:
    keys = {
        name.replace("llama.", "mamba."): value
        for name, value in tiny_llama().keys.items()
        if "attention" not in name
    }
    check(replace(without_tensor("blk.1"), keys=keys | {"general.architecture": string("mamba")}))
