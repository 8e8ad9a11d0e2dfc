"""Damaged and hostile GGUF headers: each number names one, always the same.

One to three changes are made to a model that llama.cpp loads: in what the header says (a count, a
type, a shape, a value out of range, a list too short, another architecture) and then in its bytes.
"""

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from tests.weights.gguf_files import ARRAY, STRING, UINT32, text
from tests.weights.tiny_llama import (
    Recipe,
    TensorRecipe,
    f32,
    flag,
    int32s,
    string,
    strings,
    tiny_llama,
    tiny_llama_2,
    u32,
)

SEED = 20_251_125
NUM_BEGINNING = 24

_COUNTS = (0, 1, 2, 3, 5, 7, 8, 31, 32, 33, 64, 128, 255, 511, 512, 513, 1023, 65_536, 2**20)
_EXTREMES = (*_COUNTS, 2**31 - 1, 2**31, 2**32 - 1)
_WIDE = (*_EXTREMES, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 3.4e38, float("inf"), float("-inf"), float("nan"))
_GARBAGE = (b"", b"\0", b"\xff\xfe", b"%s%n", b"{{", b"a" * 5000, b"\x1b[2J", b"../../etc/passwd")
_ARCHITECTURES = (
    "llama4", "mistral3", "gpt2", "mamba", "mamba2", "rwkv6", "gemma3", "gemma3n", "qwen2", "qwen2moe",
    "qwen3next", "bert", "clip", "t5", "deepseek2", "falcon", "phi3", "jamba", "llama-embed",
    "wavtokenizer-dec", "deci", "nonsense", "",
)  # fmt: skip
_TOKENIZERS = ("llama", "bert", "t5", "rwkv", "none", "no_vocab", "plamo2", "gemma4", "test", "x")
_PRE = (
    "default",
    "gpt-2",
    "qwen2",
    "tekken",
    "deepseek-v3",
    "smollm",
    "gemma4",
    "kimi-k2",
    "x",
    "",
)
_NEW_NUMBERS = (
    "general.alignment", "general.file_type", "general.quantization_version", "split.count",
    "split.no", "llama.expert_count", "llama.expert_used_count", "llama.expert_group_count",
    "llama.expert_group_used_count", "llama.attention.key_length", "llama.attention.value_length",
    "llama.attention.sliding_window", "llama.nextn_predict_layers", "llama.pooling_type",
    "llama.rope.scaling.original_context_length", "llama.embedding_length_out",
    "llama.expert_feed_forward_length", "llama.expert_shared_feed_forward_length",
    "llama.leading_dense_block_count", "llama.attention.key_length_swa",
    "llama.rope.dimension_count_swa", "tokenizer.ggml.token_type_count",
    "tokenizer.ggml.eot_token_id", "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id", "tokenizer.ggml.mask_token_id",
)  # fmt: skip
_NEW_FLOATS = (
    "llama.rope.scaling.factor", "llama.rope.scale_linear", "llama.rope.scaling.attn_factor",
    "llama.attention.clamp_kqv", "llama.attention.scale", "llama.logit_scale",
    "llama.attention.max_alibi_bias", "llama.expert_weights_scale", "llama.residual_scale",
    "llama.rope.scaling.yarn_log_multiplier", "llama.attention.layer_norm_epsilon",
)  # fmt: skip
_NEW_FLAGS = (
    "llama.attention.causal", "llama.use_parallel_residual", "llama.rope.scaling.finetuned",
    "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.remove_extra_whitespaces", "general.alignment", "llama.block_count",
)  # fmt: skip


def base(number: int) -> Recipe:
    """The sound file that a mutant was: BPE and SentencePiece in turn."""
    return _sound()[number % 2]


@cache
def _sound() -> tuple[Recipe, Recipe]:
    return tiny_llama(), tiny_llama_2()


def mutant(number: int) -> bytes:
    """One damaged file."""
    rng = random.Random(SEED + number)
    recipe = base(number)
    num_changes = rng.choice((1, 1, 1, 2, 2, 3))
    num_in_bytes = sum(rng.random() < 0.35 for _ in range(num_changes))
    for _ in range(num_changes - num_in_bytes):
        recipe = rng.choice(_CHANGES)(recipe, rng)
    data = recipe.to_bytes()
    end = len(data) - len(recipe.data())
    for _ in range(num_in_bytes):
        if len(data) < NUM_BEGINNING:  # what was cut off already
            break
        data = rng.choice(_DAMAGES)(data, min(end, len(data)), rng)
    return data


# Changes of what the header says.


def _change_number(recipe: Recipe, rng: random.Random) -> Recipe:
    name = rng.choice([n for n, (kind, _) in recipe.keys.items() if kind == UINT32])
    return recipe.changed(**{name: u32(rng.choice(_EXTREMES))})


def _change_float(recipe: Recipe, rng: random.Random) -> Recipe:
    names = ("llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base", *_NEW_FLOATS)
    return recipe.changed(**{rng.choice(names): f32(rng.choice(_FLOATS))})


def _add_number(recipe: Recipe, rng: random.Random) -> Recipe:
    number = rng.choice((*_COUNTS[:12], rng.choice(_EXTREMES)))
    return recipe.changed(**{rng.choice(_NEW_NUMBERS): u32(number)})


def _add_flag(recipe: Recipe, rng: random.Random) -> Recipe:
    return recipe.changed(**{rng.choice(_NEW_FLAGS): flag(rng.random() < 0.5)})


def _add_list(recipe: Recipe, rng: random.Random) -> Recipe:
    names = ("head_count", "head_count_kv", "sliding_window_pattern")
    name = f"llama.attention.{rng.choice(names)}"
    if rng.random() < 0.3:
        name = rng.choice(("llama.feed_forward_length", "llama.expert_used_count"))
    values = [rng.choice((-1, 0, 1, 2, 3, 4, 2**31 - 1)) for _ in range(rng.choice((0, 1, 2, 3)))]
    return recipe.changed(**{name: int32s(values)})


def _retype(recipe: Recipe, rng: random.Random) -> Recipe:
    """The same bytes, or others, under another type code."""
    name = rng.choice(list(recipe.keys))
    payload = recipe.keys[name][1]
    kind = rng.choice((*range(13), 13, 255, 2**31))
    if rng.random() < 0.5:
        payload = struct.pack("<Q", rng.choice(_WIDE))[: rng.choice((1, 2, 4, 8))]
    return recipe.changed(**{name: (kind, payload)})


def _drop_key(recipe: Recipe, rng: random.Random) -> Recipe:
    return recipe.changed(**{rng.choice(list(recipe.keys)): None})


def _rename_key(recipe: Recipe, rng: random.Random) -> Recipe:
    name = rng.choice(list(recipe.keys))
    renamed = rng.choice((name.upper(), name + " ", name[:-1], "k" * 65_536, "", name + "\0"))
    return recipe.changed(**{name: None, renamed: recipe.keys[name]})


def _change_text(recipe: Recipe, rng: random.Random) -> Recipe:
    choices = {
        "general.architecture": _ARCHITECTURES,
        "tokenizer.ggml.model": _TOKENIZERS,
        "tokenizer.ggml.pre": _PRE,
        "llama.rope.scaling.type": ("none", "yarn", "longrope", "linear", "", "x"),
    }
    name = rng.choice(list(choices))
    return recipe.changed(**{name: string(rng.choice(choices[name]))})


def _change_architecture(recipe: Recipe, rng: random.Random) -> Recipe:
    """Another architecture that finds its own numbers, so that its code is reached."""
    name = rng.choice(_ARCHITECTURES)
    keys = {key.replace("llama.", f"{name}.", 1): value for key, value in recipe.keys.items()}
    return replace(recipe, keys=keys | {"general.architecture": string(name)})


def _garbage(recipe: Recipe, rng: random.Random) -> Recipe:
    name = rng.choice([n for n, (kind, _) in recipe.keys.items() if kind == STRING])
    return recipe.changed(**{name: string(rng.choice((*_GARBAGE, rng.randbytes(20))))})


def _change_tokens(recipe: Recipe, rng: random.Random) -> Recipe:
    num = rng.choice((0, 1, 2, 100, 255, 256, 257, 263, 264, 265, 300))
    tokens = [f"t{number}" if rng.random() < 0.2 else chr(200 + number) for number in range(num)]
    if num and rng.random() < 0.3:
        tokens[rng.randrange(num)] = rng.choice(("", "t1", "<0x0A>", " ", "\0", "x" * 3000))
    return recipe.changed(**{"tokenizer.ggml.tokens": strings(tokens)})


def _change_lists(recipe: Recipe, rng: random.Random) -> Recipe:
    num = rng.choice((0, 1, 263, 264, 265, 1025))
    values = [rng.choice((-1, 0, 1, 2, 3, 4, 5, 6, 7, 2**31 - 1)) for _ in range(num)]
    floats = [rng.choice(_FLOATS) for _ in range(num)]
    packed = struct.pack(f"<IQ{num}f", 6, num, *floats)
    name, value = rng.choice((
        ("tokenizer.ggml.token_type", int32s(values)),
        ("tokenizer.ggml.scores", (ARRAY, packed)),
        ("tokenizer.ggml.scores", int32s(values)),
        ("tokenizer.ggml.merges", strings(["a b", "", " ", "ab", "a b c"][: num % 6])),
        ("tokenizer.ggml.merges", int32s(values)),
        ("tokenizer.ggml.precompiled_charsmap", (ARRAY, struct.pack("<IQ", 0, 8) + bytes(8))),
    ))  # fmt: skip
    return recipe.changed(**{name: value})


def _change_tensor(recipe: Recipe, rng: random.Random) -> Recipe:
    index = rng.randrange(len(recipe.tensors))
    tensor = recipe.tensors[index]
    changed = rng.choice((_reshape, _retype_tensor, _move, _rename_tensor))(tensor, rng)
    tensors = (*recipe.tensors[:index], changed, *recipe.tensors[index + 1 :])
    return replace(recipe, tensors=tensors)


def _reshape(tensor: TensorRecipe, rng: random.Random) -> TensorRecipe:
    kind = rng.randrange(4)
    if kind == 0:
        return replace(tensor, shape=tensor.shape[::-1])
    if kind == 1:
        return replace(tensor, shape=tuple(rng.choice(_WIDE) for _ in range(rng.randrange(6))))
    if kind == 2:
        return replace(tensor, shape=(*tensor.shape, rng.choice((0, 1, 2, 2**61))))
    shape = list(tensor.shape)
    shape[rng.randrange(len(shape))] = rng.choice(_WIDE)
    return replace(tensor, shape=tuple(shape))


def _retype_tensor(tensor: TensorRecipe, rng: random.Random) -> TensorRecipe:
    """Another type, mostly with as many bytes as it needs, so that the layout stays right."""
    import gguf

    kind = rng.choice((*range(45), 2**31, 2**32 - 1))
    sizes = {int(k): v for k, v in gguf.GGML_QUANT_SIZES.items()}
    if kind not in sizes or rng.random() < 0.2:
        return replace(tensor, kind=kind)
    block, num_bytes = sizes[kind]
    num = 1
    for length in tensor.shape:
        num *= length
    return replace(tensor, kind=kind, data=rng.randbytes(num // block * num_bytes))


def _move(tensor: TensorRecipe, rng: random.Random) -> TensorRecipe:
    return replace(tensor, offset=rng.choice((0, 1, 31, 32, 64, 4096, *_WIDE)))


def _rename_tensor(tensor: TensorRecipe, rng: random.Random) -> TensorRecipe:
    names = (
        "blk.0.attn_q.weight", "output.weight", "blk.2.attn_q.weight", "rope_freqs.weight", "",
        "x" * 64, "x" * 63, "a\0b", "blk.4294967295.attn_q.weight", "output_norm.weight",
        "token_embd.bias", "blk.0.attn_qkv.weight", "blk.0.attn_q.bias",
        "blk.0.ffn_gate_inp.weight", "é", "%s%n",
    )  # fmt: skip
    return replace(tensor, name=rng.choice(names))


def _drop_tensor(recipe: Recipe, rng: random.Random) -> Recipe:
    gone = rng.randrange(len(recipe.tensors))
    return replace(recipe, tensors=recipe.tensors[:gone] + recipe.tensors[gone + 1 :])


def _repeat_tensor(recipe: Recipe, rng: random.Random) -> Recipe:
    again = rng.choice(recipe.tensors)
    if rng.random() < 0.5:
        again = _rename_tensor(again, rng)
    return replace(recipe, tensors=(*recipe.tensors, again))


def _shuffle_tensors(recipe: Recipe, rng: random.Random) -> Recipe:
    return replace(recipe, tensors=tuple(rng.sample(recipe.tensors, len(recipe.tensors))))


_CHANGES: tuple[Callable[[Recipe, random.Random], Recipe], ...] = (
    _change_number, _change_number, _change_number, _change_float, _add_number, _add_number,
    _add_number, _add_flag, _add_list, _retype, _retype, _drop_key, _rename_key, _change_text,
    _change_architecture, _garbage, _change_tokens, _change_lists, _change_tensor, _change_tensor,
    _change_tensor, _drop_tensor, _repeat_tensor, _shuffle_tensors,
)  # fmt: skip


# Damage to its bytes; `end` is where the header ends.


def _place(data: bytes, end: int, rng: random.Random) -> int:
    """A byte of the header; mostly not in the lists of tokens, scores and merges, which fill it."""
    first = data.find(b"tokenizer.ggml.tokens") + 64
    last = data.find(b"tokenizer.ggml.bos_token_id") - 8
    while first <= (at := rng.randrange(end)) < last and rng.random() < 0.9:
        pass
    return at


def _flip_bits(data: bytes, end: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[_place(data, end, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, end: int, rng: random.Random) -> bytes:
    packed = struct.pack("<Q", rng.choice(_WIDE))[: rng.choice((1, 2, 4, 8))]
    at = _place(data, end, rng)
    return data[:at] + packed + data[at + len(packed) :]


def _change_beginning(data: bytes, end: int, rng: random.Random) -> bytes:
    fields = [(4, 4), (8, 8), (16, 8)]
    at, size = rng.choice(fields)
    now: int = int.from_bytes(data[at : at + size], "little")
    number: int = rng.choice((now + 1, now - 1, *_WIDE)) % (1 << 8 * size)
    return data[:at] + number.to_bytes(size, "little") + data[at + size :]


def _cut(data: bytes, end: int, rng: random.Random) -> bytes:
    last = end if rng.random() < 0.5 else len(data)
    return data[: rng.randrange(1, max(last, 2))] + bytes(rng.choice((0, 0, 1, 63)))


def _insert(data: bytes, end: int, rng: random.Random) -> bytes:
    at = _place(data, end, rng)
    return data[:at] + rng.randbytes(rng.randint(1, 16)) + data[at:]


def _delete(data: bytes, end: int, rng: random.Random) -> bytes:
    at = _place(data, end, rng)
    return data[:at] + data[at + rng.randint(1, 16) :]


def _repeat_key(data: bytes, end: int, rng: random.Random) -> bytes:
    """A second `llama.block_count`, announced as one key more."""
    (num_keys,) = struct.unpack_from("<Q", data, 16)
    name = rng.choice((b"llama.block_count", b"general.alignment", b"llama.vocab_size"))
    more: bytes = text(name) + struct.pack("<II", UINT32, rng.choice(_EXTREMES))
    return data[:16] + struct.pack("<Q", (num_keys + 1) % 2**64) + more + data[NUM_BEGINNING:]


_DAMAGES: tuple[Callable[[bytes, int, random.Random], bytes], ...] = (
    _flip_bits, _flip_bits, _overwrite, _overwrite, _change_beginning, _cut, _insert, _delete,
    _repeat_key,
)  # fmt: skip
