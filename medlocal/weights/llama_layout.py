"""What a Llama or Mistral checkpoint is in GGUF: the tensors' names, shapes and order of rows.

The table says where each tensor goes and which shape the configuration demands of it, so that a
checkpoint that lacks one, has one too many or one of another shape is refused before a byte is
written. The names are llama.cpp's (`LLM_ARCH_LLAMA`).

Not every tensor is copied as it lies: Hugging Face turns the two halves of a head against each
other, llama.cpp neighbouring pairs, so the rows of every query and key head are interleaved.

Pure: shapes in, a plan out; no file is read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import RefusedError
from medlocal.weights.header import shown
from medlocal.weights.hyperparameters import Hyperparameters
from medlocal.weights.safetensors import StoredTensor

_UNUSED = (".rotary_emb.inv_freq", ".attention.masked_bias")
"""Ends of names that older checkpoints keep and that are computed anew."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One tensor of the checkpoint and its place in the GGUF."""

    name: str
    """llama.cpp's."""
    source: StoredTensor
    num_heads: int = 0
    """Heads whose rows are interleaved; 0 = the rows stay as they lie."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tensor that a configuration allows, and whether it demands it."""

    name: str
    shape: tuple[int, ...]
    num_heads: int = 0
    needed: bool = True


def place(
    parameters: Hyperparameters, tensors: Mapping[str, StoredTensor]
) -> tuple[Placement, ...]:
    """Find the place of every tensor, in the checkpoint's order.

    Raises:
        RefusedError: one is missing, has no place, or is of another shape than the configuration
            says.
    """
    slots = dict(_slots(parameters))
    found = {name: t for name, t in tensors.items() if not name.endswith(_UNUSED)}
    if missing := [name for name, slot in slots.items() if slot.needed and name not in found]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise RefusedError(
            f"the configuration demands tensors that are not there: {shown(missing[0])}{more}",
            hint="the checkpoint is incomplete: get it again",
        )
    placements = []
    for name, tensor in found.items():
        if (slot := slots.get(name)) is None:
            raise RefusedError(
                f"the tensor {shown(name)} has no place in a {parameters.architecture}",
                hint="a model that was changed beyond its configuration cannot be converted",
            )
        if tensor.shape != slot.shape:
            raise RefusedError(
                f"the tensor {shown(name)} has the shape {tensor.shape}, and the configuration says"
                f" {slot.shape}",
                hint="config.json and the weights do not belong together: get both again",
            )
        placements.append(Placement(slot.name, tensor, slot.num_heads))
    return tuple(placements)


def interleave(rows: NDArray[np.generic], num_heads: int) -> NDArray[np.generic]:
    """Bring the rows of each head from halves (0…h, h…2h) into pairs (0, h, 1, h + 1, …).

    Args:
        rows: (rows of all heads, columns).
        num_heads: that the rows are divided among.
    """
    halves = rows.reshape(num_heads, 2, rows.shape[0] // num_heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _slots(parameters: Hyperparameters) -> Iterator[tuple[str, _Slot]]:
    """The tensors of a model by the name that Hugging Face gives them."""
    vocab_size, hidden_size = parameters.vocab_size, parameters.hidden_size
    yield "model.embed_tokens.weight", _Slot("token_embd.weight", (vocab_size, hidden_size))
    yield "model.norm.weight", _Slot("output_norm.weight", (hidden_size,))
    # A tied checkpoint may hold its output all the same; llama.cpp's converter keeps it.
    output = _Slot("output.weight", (vocab_size, hidden_size), needed=not parameters.tied)
    yield "lm_head.weight", output
    for layer in range(parameters.num_layers):
        yield from _layer_slots(parameters, layer)


def _layer_slots(parameters: Hyperparameters, layer: int) -> Iterator[tuple[str, _Slot]]:
    hidden_size, feed_forward = parameters.hidden_size, parameters.intermediate_size
    num_heads, num_kv_heads = parameters.num_heads, parameters.num_kv_heads
    queries, keys = num_heads * parameters.head_dim, num_kv_heads * parameters.head_dim
    theirs, ours = f"model.layers.{layer}", f"blk.{layer}"
    for name, place_name in (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ):
        yield f"{theirs}.{name}.weight", _Slot(f"{ours}.{place_name}.weight", (hidden_size,))
    for name, place_name, rows, columns, heads in (
        ("self_attn.q_proj", "attn_q", queries, hidden_size, num_heads),
        ("self_attn.k_proj", "attn_k", keys, hidden_size, num_kv_heads),
        ("self_attn.v_proj", "attn_v", keys, hidden_size, 0),
        ("self_attn.o_proj", "attn_output", hidden_size, queries, 0),
        ("mlp.gate_proj", "ffn_gate", feed_forward, hidden_size, 0),
        ("mlp.up_proj", "ffn_up", feed_forward, hidden_size, 0),
        ("mlp.down_proj", "ffn_down", hidden_size, feed_forward, 0),
    ):
        slot = f"{ours}.{place_name}"
        yield f"{theirs}.{name}.weight", _Slot(f"{slot}.weight", (rows, columns), heads)
        yield f"{theirs}.{name}.bias", _Slot(f"{slot}.bias", (rows,), heads, needed=False)
