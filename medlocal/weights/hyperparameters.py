"""A Llama's or Mistral's `config.json`, made sure of, and as keys of a GGUF.

What a configuration means where it is silent is what transformers takes it to mean; what llama.cpp's
Llama (`LLM_ARCH_LLAMA`) would compute otherwise, or not at all, is refused. The rope scaling of
Llama 3 becomes a tensor of factors, one per pair of elements that are turned together.

Pure: a configuration in, numbers out; no file is read, and no tensor is known.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import RefusedError
from medlocal.weights.header import shown
from medlocal.weights.writer import FLOAT32, STRING, UINT32, Entry

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
"""As `config.json` names them."""
GGUF_ARCHITECTURE = "llama"
ROPE_FACTORS = "rope_freqs.weight"
_MAX_COUNT = 2**31 - 1
_MAX_LAYERS = 4096

# Values that transformers takes for what a configuration does not say.
_SILENT: Mapping[str, object] = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10_000.0}
_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "LlamaForCausalLM": {**_SILENT, "max_position_embeddings": 2048},
    "MistralForCausalLM": {
        **_SILENT,
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 8,
    },
}


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """How Llama 3.1 stretches its positions: long waves by the factor, short ones not."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int
    """Tokens that the model was trained for before it was stretched."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What a configuration says, made sure of."""

    architecture: str
    """One of `ARCHITECTURES`."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    rms_norm_eps: float
    rope_theta: float
    tied: bool
    """True: the output is computed with the embeddings."""
    linear_factor: float | None = None
    """Positions are divided by it; None = they are not."""
    llama3: Llama3Scaling | None = None
    sliding_window: int | None = None
    """Tokens that one attends to; None = all."""

    def entries(self, file_type: int) -> list[Entry]:
        """The keys under `llama.`, in the order in which llama.cpp's converter writes them.

        Args:
            file_type: `general.file_type`, which that converter writes among them.
        """
        scaling: list[tuple[str, object, int]] = []
        if self.linear_factor is not None:
            scaling = [
                ("rope.scaling.type", "linear", STRING),
                ("rope.scaling.factor", self.linear_factor, FLOAT32),
            ]
        keys = [
            ("block_count", self.num_layers, UINT32),
            ("context_length", self.context_length, UINT32),
            ("embedding_length", self.hidden_size, UINT32),
            ("feed_forward_length", self.intermediate_size, UINT32),
            ("attention.head_count", self.num_heads, UINT32),
            ("attention.head_count_kv", self.num_kv_heads, UINT32),
            *scaling,
            ("rope.freq_base", self.rope_theta, FLOAT32),
            ("attention.layer_norm_rms_epsilon", self.rms_norm_eps, FLOAT32),
            ("attention.key_length", self.head_dim, UINT32),
            ("attention.value_length", self.head_dim, UINT32),
        ]
        last = [
            ("vocab_size", self.vocab_size, UINT32),
            ("rope.dimension_count", self.head_dim, UINT32),
        ]
        return [
            *(Entry(f"{GGUF_ARCHITECTURE}.{key}", value, kind) for key, value, kind in keys),
            Entry("general.file_type", file_type, UINT32),
            *(Entry(f"{GGUF_ARCHITECTURE}.{key}", value, kind) for key, value, kind in last),
        ]


def read_hyperparameters(config: Mapping[str, object]) -> Hyperparameters:
    """Read `config.json`.

    Raises:
        RefusedError: the architecture is not one of `ARCHITECTURES`, or a value is missing, cannot
            be meant, or asks for something that llama.cpp's Llama does not compute.
    """
    architecture = _architecture(config)
    reader = _Config({**_DEFAULTS[architecture], **config})
    reader.check_computable()
    num_heads, hidden_size = reader.count("num_attention_heads"), reader.count("hidden_size")
    head_dim = reader.count("head_dim", hidden_size // num_heads)
    num_kv_heads = reader.count("num_key_value_heads", num_heads)
    if head_dim % 2:
        raise _refused(f"heads of {head_dim} elements cannot be turned in pairs")
    if num_heads % num_kv_heads:
        raise _refused(f"{num_heads} heads cannot share {num_kv_heads} key and value heads")
    rope = reader.rope()
    return Hyperparameters(
        architecture=architecture,
        vocab_size=reader.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=reader.count("intermediate_size"),
        num_layers=reader.count("num_hidden_layers", most=_MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        context_length=reader.count("max_position_embeddings"),
        rms_norm_eps=reader.number("rms_norm_eps"),
        rope_theta=rope.number("rope_theta", reader.number("rope_theta")),
        tied=config.get("tie_word_embeddings") is True,
        linear_factor=rope.number("factor") if rope.kind == "linear" else None,
        llama3=rope.llama3() if rope.kind == "llama3" else None,
        sliding_window=None
        if architecture == "LlamaForCausalLM" or config.get("sliding_window") is None
        else reader.count("sliding_window"),
    )


def rope_factors(parameters: Hyperparameters) -> NDArray[np.float32] | None:
    """What llama.cpp divides each pair's frequency by; None where nothing is stretched so.

    Wavelengths beyond `original_context / low_freq_factor` are stretched by the whole factor, those
    below `original_context / high_freq_factor` not at all, those between in part:
    transformers, `modeling_rope_utils.py`, `_compute_llama3_parameters`.

    In single precision, with the reciprocals that torch takes where it divides a number by a tensor,
    so that the factors of Llama 3.1, 3.2 and 3.3 are those of llama.cpp's converter to the last bit.
    Only the power is taken in double precision and rounded once, since its last bit in single
    precision depends on the processor: with other bases a factor may differ there in its last bit.
    """
    if (scaling := parameters.llama3) is None:
        return None
    one = np.float32
    exponents = np.arange(0, parameters.head_dim, 2, dtype=np.float32) / one(parameters.head_dim)
    powers = np.float64(parameters.rope_theta) ** exponents.astype(np.float64)
    frequencies = one(1) / powers.astype(np.float32)
    wavelengths = one(1) / frequencies * one(2 * math.pi)
    waves = one(1) / wavelengths * one(scaling.original_context)
    smooth = (waves - one(scaling.low_freq_factor)) / one(
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    between = one(1) / ((one(1) - smooth) / one(scaling.factor) + smooth)
    is_short = wavelengths < scaling.original_context / scaling.high_freq_factor
    is_long = wavelengths > scaling.original_context / scaling.low_freq_factor
    factors = np.where(is_short, one(1), np.where(is_long, one(scaling.factor), between))
    return factors.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Config:
    """A configuration's values, each checked as it is asked for."""

    values: Mapping[str, object]

    def check_computable(self) -> None:
        """Refuse what llama.cpp's Llama would compute otherwise, or would not know of."""
        if self.values.get("quantization_config"):
            raise _refused(
                "the weights are quantised already (quantization_config)",
                "convert the original checkpoint, then `medlocal quantize`",
            )
        if (activation := self.values["hidden_act"]) not in ("silu", "swish"):
            raise _refused(f"hidden_act is {shown(activation)}, and llama.cpp computes silu")
        if self.values.get("partial_rotary_factor") not in (None, 1):
            raise _refused("partial_rotary_factor turns only a part of each head by position")

    def count(self, key: str, default: int | None = None, most: int = _MAX_COUNT) -> int:
        value = self._get(key, default)
        if type(value) is not int or not 0 < value <= most:
            raise _refused(f"{key} is {shown(value)}, not a number from 1 to {most:,}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refused(f"{key} is {shown(value)}, not a number")
        # Beyond single precision a value could not be written.
        if not 0 < value < 3e38:
            raise _refused(f"{key} is {shown(value)}, and must be above 0")
        return float(value)

    def rope(self) -> "_Rope":
        values = self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}
        if not isinstance(values, dict):
            raise _refused(f"the rope scaling is {shown(values)}, not an object")
        rope = _Rope(values)
        if rope.kind not in {"default", "linear", "llama3"}:
            raise _refused(
                f"the rope scaling is of the type {shown(rope.kind)}; known are linear and llama3"
            )
        return rope

    def _get(self, key: str, default: float | None) -> object:
        value = self.values.get(key)
        if value is None and default is None:
            raise _refused(f"{key} is missing")
        return default if value is None else value


@dataclass(frozen=True, slots=True)
class _Rope(_Config):
    """The part of a configuration that says how positions are turned and stretched."""

    @property
    def kind(self) -> str:
        named = self.values.get("rope_type", self.values.get("type"))
        return "default" if named is None else str(named).lower()

    def llama3(self) -> Llama3Scaling:
        low, high = self.number("low_freq_factor"), self.number("high_freq_factor")
        if low >= high:
            raise _refused(f"low_freq_factor {low:g} is not below high_freq_factor {high:g}")
        original = self.count("original_max_position_embeddings")
        return Llama3Scaling(self.number("factor"), low, high, original)


def _architecture(config: Mapping[str, object]) -> str:
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if name not in ARCHITECTURES:
        raise _refused(
            f"the architecture is {shown(name)}; known are {' and '.join(ARCHITECTURES)}",
            "llama.cpp's own convert_hf_to_gguf.py knows others",
        )
    return str(name)


def _refused(message: str, hint: str = "correct config.json, or get it again") -> RefusedError:
    return RefusedError(f"config.json: {message}", hint=hint)
