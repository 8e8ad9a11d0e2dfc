"""A Llama that llama.cpp loads, in 90 KB: a recipe of keys and tensors to be varied, and its bytes.

Built with `gguf_files`' byte builders, which share no code with the reader under test.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tests.weights.gguf_files import (
    ARRAY,
    BOOL,
    CHATML,
    F32,
    FLOAT32,
    INT32,
    Q8_0,
    STRING,
    UINT32,
    gguf_bytes,
    key,
    tensor,
    text,
)

NUM_EMBD, NUM_HEADS, NUM_KV_HEADS, NUM_FF, NUM_LAYERS, NUM_TOKENS = 32, 4, 2, 64, 2, 264


@dataclass(frozen=True)
class TensorRecipe:
    """One tensor as the header is to announce it, and the bytes that follow for it."""

    name: str
    shape: tuple[int, ...]
    kind: int
    data: bytes = field(repr=False)
    offset: int | None = None
    """None = where it belongs."""


@dataclass(frozen=True)
class Recipe:
    """What a file is made of."""

    keys: Mapping[str, tuple[int, bytes]]
    """Value type and payload of each metadata key."""
    tensors: tuple[TensorRecipe, ...]

    def changed(self, **payloads: tuple[int, bytes] | None) -> "Recipe":
        """The same with other keys; `__` stands for a dot, None leaves a key out."""
        keys = dict(self.keys)
        for name, value in payloads.items():
            keys.pop(name.replace("__", "."), None)
            if value is not None:
                keys[name.replace("__", ".")] = value
        return replace(self, keys=keys)

    def header_parts(self) -> tuple[list[bytes], list[bytes]]:
        """Keys and tensors, each as its bytes."""
        keys = [key(name, kind, payload) for name, (kind, payload) in self.keys.items()]
        tensors, offset = [], 0
        for each in self.tensors:
            place = offset if each.offset is None else each.offset
            tensors.append(tensor(each.name, each.shape, each.kind, place))
            offset += -(-len(each.data) // 32) * 32
        return keys, tensors

    def to_bytes(self) -> bytes:
        """The file."""
        header = gguf_bytes(*self.header_parts())
        return header + bytes(-len(header) % 32) + self.data()

    def data(self) -> bytes:
        """What follows the header."""
        return b"".join(each.data + bytes(-len(each.data) % 32) for each in self.tensors)


def u32(value: int) -> tuple[int, bytes]:
    return UINT32, struct.pack("<I", value)


def f32(value: float) -> tuple[int, bytes]:
    return FLOAT32, struct.pack("<f", value)


def string(value: str | bytes) -> tuple[int, bytes]:
    return STRING, text(value)


def flag(value: bool) -> tuple[int, bytes]:
    return BOOL, bytes([value])


def strings(values: list[str]) -> tuple[int, bytes]:
    return ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


def int32s(values: list[int]) -> tuple[int, bytes]:
    return ARRAY, struct.pack(f"<IQ{len(values)}i", INT32, len(values), *values)


def byte_letters() -> list[str]:
    """The letters that byte-level BPE writes for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def tiny_llama(seed: int = 1) -> Recipe:
    """Two layers, byte-level BPE of 264 tokens, ChatML, F32 with embeddings in Q8_0."""
    keys = _network() | {
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("llama-bpe"),
        "tokenizer.ggml.tokens": strings([
            *byte_letters(), "Ġa", "re", "Ġare", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "ón",
        ]),
        "tokenizer.ggml.token_type": int32s([1] * 259 + [3] * 4 + [1]),
        "tokenizer.ggml.merges": strings(["Ġ a", "r e", "Ġa re", "ó n"]),
        "tokenizer.ggml.bos_token_id": u32(259),
        "tokenizer.ggml.eos_token_id": u32(262),
        "tokenizer.ggml.add_bos_token": flag(True),
        "tokenizer.chat_template": string(CHATML),
    }  # fmt: skip
    return Recipe(keys, _tensors(np.random.default_rng(seed)))


def tiny_llama_2(seed: int = 2) -> Recipe:
    """The same network with a SentencePiece vocabulary of as many pieces."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    scores = [0.0] * 259 + [-1.0, -2.0, -3.0, -4.0, -5.0]
    keys = _network() | {
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.tokens": strings([*pieces, "▁a", "▁", "a", "re", "ó"]),
        "tokenizer.ggml.scores": (ARRAY, struct.pack("<IQ264f", FLOAT32, 264, *scores)),
        "tokenizer.ggml.token_type": int32s([2, 3, 3] + [6] * 256 + [1] * 5),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.unknown_token_id": u32(0),
        "tokenizer.ggml.add_bos_token": flag(True),
        "tokenizer.ggml.add_space_prefix": flag(True),
        "tokenizer.chat_template": string(CHATML),
    }
    return Recipe(keys, _tensors(np.random.default_rng(seed)))


def _network() -> dict[str, tuple[int, bytes]]:
    return {
        "general.architecture": string("llama"),
        "general.name": string("Tiny Llama"),
        "general.license": string("apache-2.0"),
        "llama.block_count": u32(NUM_LAYERS),
        "llama.context_length": u32(128),
        "llama.embedding_length": u32(NUM_EMBD),
        "llama.feed_forward_length": u32(NUM_FF),
        "llama.attention.head_count": u32(NUM_HEADS),
        "llama.attention.head_count_kv": u32(NUM_KV_HEADS),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.rope.freq_base": f32(10000.0),
        "llama.rope.dimension_count": u32(NUM_EMBD // NUM_HEADS),
        "llama.vocab_size": u32(NUM_TOKENS),
    }


def _tensors(rng: np.random.Generator) -> tuple[TensorRecipe, ...]:
    wide = NUM_EMBD * NUM_KV_HEADS // NUM_HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (NUM_EMBD, NUM_TOKENS), "output_norm": (NUM_EMBD,)
    }  # fmt: skip
    for layer in range(NUM_LAYERS):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm": (NUM_EMBD,), "attn_q": (NUM_EMBD, NUM_EMBD),
                "attn_k": (NUM_EMBD, wide), "attn_v": (NUM_EMBD, wide),
                "attn_output": (NUM_EMBD, NUM_EMBD), "ffn_norm": (NUM_EMBD,),
                "ffn_gate": (NUM_EMBD, NUM_FF), "ffn_up": (NUM_EMBD, NUM_FF),
                "ffn_down": (NUM_FF, NUM_EMBD),
            }.items()
        }  # fmt: skip
    return tuple(_tensor(f"{name}.weight", shape, rng) for name, shape in shapes.items())


def _tensor(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> TensorRecipe:
    num = int(np.prod(shape))
    if len(shape) == 1:
        return TensorRecipe(name, shape, F32, np.ones(num, np.float32).tobytes())
    if name != "token_embd.weight":
        return TensorRecipe(name, shape, F32, rng.normal(0, 0.1, num).astype("<f4").tobytes())
    blocks = [
        np.float16(0.01).tobytes() + rng.integers(-127, 128, 32).astype("<i1").tobytes()
        for _ in range(num // 32)
    ]
    return TensorRecipe(name, shape, Q8_0, b"".join(blocks))


def write_tiny_llama(path: Path, recipe: Recipe | None = None) -> Path:
    """Write it, or a variation of it."""
    path.write_bytes((recipe or tiny_llama()).to_bytes())
    return path
