"""A GGUF with the shape of Llama 3.1 8B, the real Llama 3 vocabulary and random weights, in seconds.

The speed of a model does not depend on the values of its weights, so none need be downloaded. Blocks
are valid and their values small: no scale is infinite, and logits stay finite. Random bytes are made
once per type and written again and again, each matrix from another place on.

Types per tensor of Q4_K_M follow llama.cpp's rule for this shape (`llama_tensor_get_type`): the output,
and in half of the layers the values and the feed-forward's last matrix, are Q6_K.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlocal.weights.hyperparameters import Hyperparameters
from medlocal.weights.inspect import read_gguf
from medlocal.weights.model_shape import KNOWN_SHAPES, llama_shapes
from medlocal.weights.writer import (
    ARRAY,
    FLOAT32,
    STRING,
    UINT32,
    Entry,
    TensorEntry,
    pack_header,
    padding,
)

TYPES = ("Q4_K_M", "BF16", "Q8_0")
_POOL_BYTES = 96 * 2**20
"""Of random bytes, per type of block."""
_STD = 0.02
"""Of a weight."""
_BLOCKS: dict[str, tuple[int, int, int]] = {
    "F32": (0, 1, 4), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210),
    "BF16": (30, 1, 2),
}  # fmt: skip
"""ggml's number of a type, and its block in elements and bytes."""
_FILE_TYPES = {"Q8_0": 7, "Q4_K_M": 15, "BF16": 32}
"""llama.cpp's `llama_ftype`."""


def hyperparameters(*, tiny: bool) -> Hyperparameters:
    """Of Llama 3.1 8B; tiny: the same kind of model, small enough for any machine."""
    known = next(k.parameters for k in KNOWN_SHAPES if k.name == "Llama 3.1 8B")
    if not tiny:
        return known
    return replace(
        known, hidden_size=256, intermediate_size=512, num_layers=4, num_heads=4, num_kv_heads=2,
        head_dim=64, context_length=8192,
    )  # fmt: skip


def write_model(path: Path, kind: str, vocabulary: Path, *, tiny: bool = False) -> Path:
    """Write a model.

    Args:
        path: where to; the file is there whole or not at all.
        kind: one of `TYPES`.
        vocabulary: a GGUF whose vocabulary is taken.
        tiny: see `hyperparameters`.

    Raises:
        RefusedError: the vocabulary's file is none.
    """
    entries, vocab_size = _vocabulary(vocabulary)
    parameters = replace(hyperparameters(tiny=tiny), vocab_size=vocab_size)
    entries = [*_entries(parameters, kind), *entries]
    shapes = {"rope_freqs.weight": (parameters.head_dim // 2,), **llama_shapes(parameters)}
    types = {name: _type(name, shape, kind, parameters) for name, shape in shapes.items()}
    tensors = [
        TensorEntry(name, shape[::-1], _BLOCKS[types[name]][0], _num_bytes(types[name], shape))
        for name, shape in shapes.items()
    ]
    pools = {name: random_blocks(name, _POOL_BYTES) for name in set(types.values()) - {"F32"}}
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("wb") as file:
        file.write(pack_header(entries, tensors))
        for number, tensor in enumerate(tensors):
            name = types[tensor.name]
            if name == "F32":
                file.write(np.ones(tensor.num_bytes // 4, "<f4").tobytes())
            else:
                for piece in _pieces(pools[name], tensor.num_bytes, number, _BLOCKS[name][2]):
                    file.write(piece)
            file.write(bytes(padding(tensor.num_bytes)))
    return scratch.replace(path)


def random_blocks(name: str, num_bytes: int) -> NDArray[np.uint8]:
    """Valid blocks of a type, at most so many bytes of them, with weights of about `_STD`.

    Layouts: ggml's `block_q8_0`, `block_q4_K`, `block_q6_K` (ggml-common.h).
    """
    rng = np.random.default_rng(20)
    _, _, block_bytes = _BLOCKS[name]
    num_blocks = num_bytes // block_bytes
    if name == "BF16":
        values = rng.standard_normal(num_blocks, np.float32) * np.float32(_STD)
        return (values.view(np.uint32) >> 16).astype("<u2").view(np.uint8)
    raw = rng.integers(0, 256, (num_blocks, block_bytes), np.uint8)
    # Where a block's factors lie, and what makes of its random numbers weights of that size.
    scales = {
        "Q8_0": {0: _STD / 74},
        # d * scale * q - dmin * min: of 6 and 4 bits, and of 6 bits, so that they cancel on average.
        "Q4_K": {0: _STD / 240, 2: _STD / 32},
        "Q6_K": {208: _STD / 1350},
    }[name]
    for place, value in scales.items():
        raw[:, place : place + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
    return raw.reshape(-1)


def _pieces(
    pool: NDArray[np.uint8], num_bytes: int, number: int, block_bytes: int
) -> Iterator[memoryview]:
    """So many bytes of a pool, from a place on that differs from tensor to tensor."""
    num_blocks = len(pool) // block_bytes
    start = number * 7919 % num_blocks * block_bytes
    while num_bytes:
        piece = pool[start : start + num_bytes]
        yield piece.data
        num_bytes -= len(piece)
        start = 0


def _vocabulary(path: Path) -> tuple[list[Entry], int]:
    """The entries of a file's vocabulary, and how many tokens it has."""
    info = read_gguf(path)
    kinds = {int: UINT32, float: FLOAT32, str: STRING}
    entries = []
    for key, value in info.metadata.items():
        if key.startswith("tokenizer.") and not isinstance(value, bool):
            kind = kinds.get(type(value), ARRAY)
            entries.append(Entry(key, list(value) if kind == ARRAY else value, kind))  # type: ignore[call-overload]  # arrays
    return entries, info.vocab_size


def _entries(parameters: Hyperparameters, kind: str) -> list[Entry]:
    numbers = {
        "block_count": parameters.num_layers,
        "context_length": parameters.context_length,
        "embedding_length": parameters.hidden_size,
        "feed_forward_length": parameters.intermediate_size,
        "attention.head_count": parameters.num_heads,
        "attention.head_count_kv": parameters.num_kv_heads,
        "rope.dimension_count": parameters.head_dim,
        "vocab_size": parameters.vocab_size,
    }
    return [
        Entry("general.architecture", "llama", STRING),
        Entry("general.name", f"random weights, {kind}", STRING),
        Entry("general.file_type", _FILE_TYPES[kind], UINT32),
        *(Entry(f"llama.{key}", value, UINT32) for key, value in numbers.items()),
        Entry("llama.rope.freq_base", parameters.rope_theta, FLOAT32),
        Entry("llama.attention.layer_norm_rms_epsilon", parameters.rms_norm_eps, FLOAT32),
    ]


def _type(name: str, shape: tuple[int, ...], kind: str, parameters: Hyperparameters) -> str:
    if len(shape) < 2:
        return "F32"
    if kind != "Q4_K_M":
        return kind
    if name == "output.weight":
        return "Q6_K"
    _, _, rest = name.partition("blk.")
    if rest.endswith(("attn_v.weight", "ffn_down.weight")):
        layer, eighth = int(rest.partition(".")[0]), parameters.num_layers // 8
        is_outer = layer < eighth or layer >= 7 * parameters.num_layers // 8
        return "Q6_K" if is_outer or (layer - eighth) % 3 == 2 else "Q4_K"
    return "Q4_K"


def _num_bytes(name: str, shape: tuple[int, ...]) -> int:
    _, block, block_bytes = _BLOCKS[name]
    return math.prod(shape) // block * block_bytes
