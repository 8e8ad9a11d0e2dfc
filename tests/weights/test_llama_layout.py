"""Names, shapes and the order of rows of Llama's tensors."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest

from medlocal.errors import RefusedError
from medlocal.weights.hyperparameters import Hyperparameters
from medlocal.weights.llama_layout import interleave, place
from medlocal.weights.safetensors import SafetensorsFile, StoredTensor

PARAMETERS = Hyperparameters(
    architecture="LlamaForCausalLM",
    vocab_size=10,
    hidden_size=8,
    intermediate_size=12,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    context_length=16,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    tied=False,
)
TENSORS: Mapping[str, tuple[int, ...]] = {
    "lm_head.weight": (10, 8),
    "model.embed_tokens.weight": (10, 8),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.mlp.down_proj.weight": (8, 12),
    "model.layers.0.mlp.gate_proj.weight": (12, 8),
    "model.layers.0.mlp.up_proj.weight": (12, 8),
    "model.layers.0.post_attention_layernorm.weight": (8,),
    "model.layers.0.self_attn.k_proj.weight": (8, 8),
    "model.layers.0.self_attn.o_proj.weight": (8, 16),
    "model.layers.0.self_attn.q_proj.weight": (16, 8),
    "model.layers.0.self_attn.v_proj.weight": (8, 8),
    "model.norm.weight": (8,),
}


def stored(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
    file = cast("SafetensorsFile", None)  # no row is read here
    return {name: StoredTensor(name, "F32", shape, 0, 0, file) for name, shape in shapes.items()}


def refusal(shapes: Mapping[str, tuple[int, ...]], parameters: Any = PARAMETERS) -> str:
    with pytest.raises(RefusedError) as caught:
        place(parameters, stored(shapes))
    assert caught.value.hint
    return caught.value.message


def test_every_tensor_has_the_place_that_llama_cpp_gives_it() -> None:
    placed = [(p.name, p.num_heads) for p in place(PARAMETERS, stored(TENSORS))]
    assert placed == [
        ("output.weight", 0),
        ("token_embd.weight", 0),
        ("blk.0.attn_norm.weight", 0),
        ("blk.0.ffn_down.weight", 0),
        ("blk.0.ffn_gate.weight", 0),
        ("blk.0.ffn_up.weight", 0),
        ("blk.0.ffn_norm.weight", 0),
        ("blk.0.attn_k.weight", 2),
        ("blk.0.attn_output.weight", 0),
        ("blk.0.attn_q.weight", 4),
        ("blk.0.attn_v.weight", 0),
        ("output_norm.weight", 0),
    ]


def test_biases_are_placed_where_there_are_any() -> None:
    shapes = {**TENSORS, "model.layers.0.self_attn.q_proj.bias": (16,)}
    placed = place(PARAMETERS, stored(shapes))
    assert ("blk.0.attn_q.bias", 4) in [(p.name, p.num_heads) for p in placed]


def test_frequencies_that_old_checkpoints_keep_are_passed_over() -> None:
    shapes = {**TENSORS, "model.layers.0.self_attn.rotary_emb.inv_freq": (2,)}
    assert len(place(PARAMETERS, stored(shapes))) == len(TENSORS)


def test_a_tied_model_needs_no_output() -> None:
    tied = dataclasses.replace(PARAMETERS, tied=True)
    shapes = {name: shape for name, shape in TENSORS.items() if name != "lm_head.weight"}
    assert len(place(tied, stored(shapes))) == len(shapes)


@pytest.mark.parametrize("name", TENSORS)
def test_a_missing_tensor_is_named(name: str) -> None:
    shapes = {other: shape for other, shape in TENSORS.items() if other != name}
    expected = f"the configuration demands tensors that are not there: '{name}'"
    assert refusal(shapes) == expected


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_of_another_shape_is_named_with_both(name: str) -> None:
    wrong = (*TENSORS[name][:-1], TENSORS[name][-1] + 1)
    message = refusal({**TENSORS, name: wrong})
    assert message == (
        f"the tensor '{name}' has the shape {wrong}, and the configuration says {TENSORS[name]}"
    )


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "lm_head.bias",
    ],
)
def test_a_tensor_without_a_place_is_named(name: str) -> None:
    assert f"the tensor '{name}' has no place" in refusal({**TENSORS, name: (8,)})


def test_the_halves_of_each_head_become_neighbours() -> None:
    rows = np.arange(16).reshape(16, 1)
    assert interleave(rows, 2)[:, 0].tolist() == [
        *(0, 4, 1, 5, 2, 6, 3, 7),
        *(8, 12, 9, 13, 10, 14, 11, 15),
    ]
