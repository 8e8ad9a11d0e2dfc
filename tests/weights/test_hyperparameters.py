"""What a configuration says, what it leaves out, and what cannot be meant."""

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import RefusedError
from medlocal.weights.hyperparameters import (
    Hyperparameters,
    Llama3Scaling,
    read_hyperparameters,
    rope_factors,
)
from medlocal.weights.writer import pack_header
from tests.weights.tiny_checkpoints import DATA
from tools.golden_conversions import STRETCHED

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


def without(*keys: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in LLAMA.items() if key not in keys} | changes


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(RefusedError) as caught:
        read_hyperparameters(config)
    assert caught.value.hint
    return caught.value.message


def test_llama_3_1_is_read_as_it_is_written() -> None:
    assert read_hyperparameters(LLAMA) == Hyperparameters(
        architecture="LlamaForCausalLM",
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        context_length=131072,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        tied=False,
        llama3=Llama3Scaling(8.0, 1.0, 4.0, 8192),
    )


def test_a_silent_llama_means_what_transformers_takes_it_to_mean() -> None:
    silent = read_hyperparameters(
        without(
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta",
            "rope_scaling",
        )
    )  # fmt: skip
    assert (silent.num_kv_heads, silent.context_length) == (32, 2048)
    assert (silent.rms_norm_eps, silent.rope_theta, silent.llama3) == (1e-6, 10000.0, None)


def test_a_silent_mistral_means_what_transformers_takes_it_to_mean() -> None:
    config = without("num_key_value_heads", "max_position_embeddings", "rope_scaling")
    silent = read_hyperparameters({**config, "architectures": ["MistralForCausalLM"]})
    assert (silent.num_kv_heads, silent.context_length) == (8, 131072)


def test_a_mistral_that_says_none_shares_no_heads() -> None:
    config = without("rope_scaling", architectures=["MistralForCausalLM"], num_key_value_heads=None)
    assert read_hyperparameters(config).num_kv_heads == 32


def test_a_mistral_has_a_window_and_a_llama_none() -> None:
    mistral = {"architectures": ["MistralForCausalLM"]}
    assert read_hyperparameters(without(**mistral, sliding_window=4096)).sliding_window == 4096
    assert read_hyperparameters(without(**mistral, sliding_window=None)).sliding_window is None
    assert read_hyperparameters(without(sliding_window=4096)).sliding_window is None


def test_the_newer_way_of_writing_positions_is_read_as_well() -> None:
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000}
    config = without("rope_scaling", "rope_theta", rope_parameters=rope)
    found = read_hyperparameters(config)
    assert (found.rope_theta, found.linear_factor) == (20000.0, 4.0)


def test_the_older_name_of_the_scaling_is_read_as_well() -> None:
    config = without(rope_scaling={"type": "linear", "factor": 2.0})
    assert read_hyperparameters(config).linear_factor == 2.0


def test_a_head_may_be_larger_than_its_share() -> None:
    assert read_hyperparameters(without(head_dim=256)).head_dim == 256


@pytest.mark.parametrize("named", [["GPT2LMHeadModel"], [], None, "LlamaForCausalLM", [7], [["x"]]])
def test_an_unknown_architecture_is_refused_with_the_known_ones(named: object) -> None:
    message = refusal(without(architectures=named))
    assert "known are LlamaForCausalLM and MistralForCausalLM" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"vocab_size": "128256"}, "vocab_size is '128256'"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        ({"head_dim": 127}, "heads of 127 elements"),
        ({"num_key_value_heads": 5}, "32 heads cannot share 5"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_act": ["silu"]}, "hidden_act is"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised already"),
        ({"rope_scaling": "llama3"}, "the rope scaling is 'llama3'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "of the type 'yarn'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor is missing"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(without(**changes))


def test_factors_that_do_not_rise_are_refused() -> None:
    scaling = {**LLAMA["rope_scaling"], "low_freq_factor": 4.0}
    assert "is not below" in refusal(without(rope_scaling=scaling))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*LLAMA, "rope_parameters", "head_dim"]), anything))
def test_whatever_a_configuration_says_is_refused_or_can_be_written(changes: Any) -> None:
    with suppress(RefusedError):
        found = read_hyperparameters({**LLAMA, **changes})
        rope_factors(found)
        assert pack_header(found.entries(0), []).startswith(b"GGUF")


@given(st.dictionaries(st.sampled_from([*LLAMA["rope_scaling"], "rope_theta"]), anything))
def test_whatever_a_scaling_says_is_refused_or_can_be_written(changes: Any) -> None:
    with suppress(RefusedError):
        config = without(rope_scaling={**LLAMA["rope_scaling"], **changes})
        rope_factors(read_hyperparameters(config))


@pytest.mark.parametrize("name", STRETCHED)
def test_the_factors_of_llama_3_are_those_of_llama_cpps_converter(name: str) -> None:
    head_dim, factor = STRETCHED[name]
    scaling = {**LLAMA["rope_scaling"], "factor": factor}
    factors = rope_factors(read_hyperparameters(without(head_dim=head_dim, rope_scaling=scaling)))
    assert factors is not None
    golden = json.loads((DATA / "rope.json").read_text(encoding="utf-8"))[name]
    assert [float(one).hex() for one in factors] == golden


def test_short_waves_are_kept_and_long_ones_stretched() -> None:
    factors = rope_factors(read_hyperparameters(LLAMA))
    assert factors is not None
    assert factors.dtype == np.float32
    # theta 500,000 and 64 pairs: a wave is 2π·theta^(i/64) tokens long. The 29th pair, of 1,955
    # tokens, is below 8,192/4; the 35th, of 8,218, above 8,192/1.
    assert factors[:29].tolist() == [1.0] * 29
    assert factors[35:].tolist() == [8.0] * 29
    assert (np.diff(factors[28:36]) > 0).all()


def test_a_wave_in_between_is_stretched_in_part() -> None:
    factors = rope_factors(read_hyperparameters(LLAMA))
    assert factors is not None
    # By hand in double precision: the 32nd pair's wave is 2π·500000^(32/64) = 4442.883 tokens;
    # smooth = (8192/4442.883 - 1)/3 = 0.2812826; 1/((1 - 0.2812826)/8 + 0.2812826) = 2.6945297.
    assert factors[32] == pytest.approx(2.6945297, abs=2e-6)


def test_nothing_is_stretched_where_nothing_is_said() -> None:
    assert rope_factors(read_hyperparameters(without("rope_scaling"))) is None
