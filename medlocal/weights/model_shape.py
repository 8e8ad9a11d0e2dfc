"""How large a model is in each of its dimensions: all that its memory depends on.

Read from a GGUF's header, from a checkpoint's configuration, or known of a family of published models,
which is an assumption and says so. The weights themselves are not touched, and how much memory they
take where is `memory`'s to say.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medlocal.catalog import ModelCard
from medlocal.errors import MissingError, RefusedError
from medlocal.weights.checkpoint import read_checkpoint
from medlocal.weights.header import TensorInfo
from medlocal.weights.hyperparameters import (
    GGUF_ARCHITECTURE,
    ROPE_FACTORS,
    Hyperparameters,
    read_hyperparameters,
)
from medlocal.weights.inspect import GGUFInfo
from medlocal.weights.llama_layout import place

_ALIGNMENT = 32
"""Of tensors in a GGUF, and in a buffer of the CPU."""
_INPUTS = ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
"""Beginnings of the names of tensors that are only looked up in: llama.cpp leaves them on the CPU."""
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_PARAMETER_TOLERANCE = 1e-4
"""Within which a card's number of parameters names a known shape: some count Llama 3's factors of
positions, some do not."""


@dataclass(frozen=True)
class ModelShape:
    """A model's dimensions and tensors."""

    name: str
    architecture: str
    """llama.cpp's name of it."""
    hidden_size: int
    feed_forward_size: int
    """Of one token: all experts that are used for it together."""
    query_size: int
    """Elements of all heads' queries."""
    key_sizes: tuple[int, ...]
    """Elements of all heads' keys, of each layer."""
    value_sizes: tuple[int, ...]
    """Elements of all heads' values, of each layer."""
    head_sizes: tuple[int, int]
    """Elements of one head's key and value."""
    vocab_size: int
    context_length: int
    """Tokens that it was trained for."""
    tensors: tuple[TensorInfo, ...]
    assumptions: tuple[str, ...] = ()
    """What was not read but taken to be so, a sentence each."""

    @property
    def num_layers(self) -> int:
        """Transformer blocks. llama.cpp counts the output as one more."""
        return len(self.key_sizes)

    @cached_property
    def layer_bytes(self) -> tuple[int, ...]:
        """Of each block's weights. What belongs to no block, as factors of positions, is the first's."""
        totals = [0] * self.num_layers
        for tensor in self.tensors:
            if not tensor.name.startswith((*_INPUTS, "output")):
                found = re.match(r"blk\.(\d+)\.", tensor.name)
                totals[min(int(found[1]), len(totals) - 1) if found else 0] += held_bytes(tensor)
        return tuple(totals)

    @cached_property
    def embedding_bytes(self) -> int:
        """Of what is looked up for each token."""
        return sum(held_bytes(t) for t in self.tensors if t.name.startswith(_INPUTS))

    @cached_property
    def output_bytes(self) -> int:
        """Of the last norm and the output matrix; where they are tied, of the norm alone."""
        return sum(held_bytes(t) for t in self.tensors if t.name.startswith("output"))

    @cached_property
    def tied_bytes(self) -> int:
        """Of the embeddings that the output is computed with; 0 = it has a matrix of its own.

        A GPU that computes the output needs a second copy of them.
        """
        sizes = {tensor.name: held_bytes(tensor) for tensor in self.tensors}
        return 0 if _OUTPUT in sizes else sizes.get(_EMBEDDING, 0)

    @cached_property
    def largest_tensor_bytes(self) -> int:
        """Of the largest tensor of any block."""
        sizes = (t.num_bytes for t in self.tensors if t.name.startswith("blk."))
        return max(sizes, default=0)

    @property
    def weights_bytes(self) -> int:
        """Of all weights, each once."""
        return sum(self.layer_bytes) + self.embedding_bytes + self.output_bytes

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors."""
        return sum(tensor.num_elements for tensor in self.tensors)

    def with_bytes(self, sizes: Mapping[str, int]) -> "ModelShape":
        """The same model with other sizes of its tensors, in bytes by name: another quantisation."""
        tensors = tuple(dataclasses.replace(t, num_bytes=sizes[t.name]) for t in self.tensors)
        return dataclasses.replace(self, tensors=tensors)


def held_bytes(tensor: TensorInfo) -> int:
    """What a tensor takes in a buffer."""
    return math.ceil(tensor.num_bytes / _ALIGNMENT) * _ALIGNMENT


def shape_of_gguf(info: GGUFInfo) -> ModelShape:
    """Read a GGUF's shape.

    Where layers attend through a window or keep a recurrent state, the keys and values taken here are
    an upper bound.

    Raises:
        RefusedError: the file has no weights, or does not say what is needed.
    """
    if not info.tensors:
        raise RefusedError(f"{info.path} has no tensors, only a vocabulary")
    key, value = info.head_dim
    heads = _kv_heads(info)
    return ModelShape(
        name=info.path.stem,
        architecture=info.architecture,
        hidden_size=_number(info, "embedding_length") or info.num_heads * value,
        feed_forward_size=_feed_forward_size(info),
        query_size=info.num_heads * key,
        key_sizes=tuple(number * key for number in heads),
        value_sizes=tuple(number * value for number in heads),
        head_sizes=(key, value),
        vocab_size=info.vocab_size,
        context_length=info.context_length,
        tensors=info.tensors,
    )


def _kv_heads(info: GGUFInfo) -> tuple[int, ...]:
    most = info.num_kv_heads  # refuses what cannot be meant
    value = info.metadata.get(f"{info.architecture}.attention.head_count_kv")
    return value if isinstance(value, tuple) and len(value) > 1 else (most,) * info.num_layers


def _feed_forward_size(info: GGUFInfo) -> int:
    used = _number(info, "expert_used_count")
    plain = _number(info, "feed_forward_length")
    expert = _number(info, "expert_feed_forward_length") or plain
    return max(plain, used * expert)


def _number(info: GGUFInfo, name: str) -> int:
    """A number of the metadata, the largest where there is one per layer; 0 where there is none."""
    value = info.metadata.get(f"{info.architecture}.{name}")
    values = value if isinstance(value, tuple) else (value,)
    return max((v for v in values if type(v) is int), default=0)


def shape_of_checkpoint(folder: Path) -> ModelShape:
    """Read the shape of a checkpoint, as `medlocal convert` would write it in BF16.

    Raises:
        UsageError, MissingError, RefusedError: it is no complete, sound Llama or Mistral.
    """
    checkpoint = read_checkpoint(folder)
    parameters = read_hyperparameters(checkpoint.config)
    shapes = {p.name: p.source.shape for p in place(parameters, checkpoint.tensors)}
    return _shape_of(
        parameters,
        folder.resolve().name,
        shapes,
        ("a checkpoint: its weights are counted as they would be converted to BF16",),
    )


def shape_of_card(card: ModelCard) -> ModelShape:
    """What a model that is not here is most likely to be like.

    Raises:
        MissingError: the card does not tell enough.
    """
    # Several may have as many parameters: the one whose name the card has comes first.
    for known in sorted(KNOWN_SHAPES, key=lambda known: not known.names(card)):
        if known.is_meant(card):
            return _shape_of(
                known.parameters,
                card.id,
                llama_shapes(known.parameters),
                (
                    f"{card.id} is not here: the shape of {known.name} is assumed, in BF16,"
                    f" {known.reason(card)}",
                ),
            )
    raise MissingError(
        f"the model {card.id} is not here, and its card does not tell its shape",
        hint=f"get it first: medlocal models pull {card.id}",
    )


def llama_shapes(parameters: Hyperparameters) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama without biases, by llama.cpp's names; shapes with the rows first."""
    hidden, inner = parameters.hidden_size, parameters.intermediate_size
    queries = parameters.num_heads * parameters.head_dim
    keys = parameters.num_kv_heads * parameters.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        _EMBEDDING: (parameters.vocab_size, hidden),
        "output_norm.weight": (hidden,),
    }
    if not parameters.tied:
        shapes[_OUTPUT] = (parameters.vocab_size, hidden)
    for layer in range(parameters.num_layers):
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (hidden,), "attn_q": (queries, hidden), "attn_k": (keys, hidden),
                "attn_v": (keys, hidden), "attn_output": (hidden, queries), "ffn_norm": (hidden,),
                "ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner),
            }.items()
        }  # fmt: skip
    return shapes


def _shape_of(
    parameters: Hyperparameters,
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    assumptions: Iterable[str],
) -> ModelShape:
    factors = {ROPE_FACTORS: (parameters.head_dim // 2,)} if parameters.llama3 else {}
    keys = (parameters.num_kv_heads * parameters.head_dim,) * parameters.num_layers
    return ModelShape(
        name=name,
        architecture=GGUF_ARCHITECTURE,
        hidden_size=parameters.hidden_size,
        feed_forward_size=parameters.intermediate_size,
        query_size=parameters.num_heads * parameters.head_dim,
        key_sizes=keys,
        value_sizes=keys,
        head_sizes=(parameters.head_dim, parameters.head_dim),
        vocab_size=parameters.vocab_size,
        context_length=parameters.context_length,
        tensors=tuple(_tensor(*pair) for pair in {**factors, **shapes}.items()),
        assumptions=tuple(assumptions),
    )


def _tensor(name: str, shape: tuple[int, ...]) -> TensorInfo:
    """As the converter writes it: matrices in BF16, vectors in F32."""
    kind, width = ("BF16", 2) if len(shape) > 1 else ("F32", 4)
    num_elements = math.prod(shape)
    return TensorInfo(name, shape[::-1], kind, 0, width * num_elements, num_elements)


@dataclass(frozen=True, slots=True)
class KnownShape:
    """A published model whose shape many others have."""

    name: str
    parameters: Hyperparameters
    pattern: str
    """Found in the Hub's name of a model that has it, or of the model it was adapted from."""

    @property
    def num_parameters(self) -> int:
        """Of all tensors."""
        return sum(math.prod(shape) for shape in llama_shapes(self.parameters).values())

    def names(self, card: ModelCard) -> list[str]:
        """Those of a card's names that are such a model's."""
        return [n for n in (card.base, card.repo) if re.search(self.pattern, n, re.IGNORECASE)]

    def is_meant(self, card: ModelCard) -> bool:
        """Whether a card's number of parameters, else one of its names, is that of such a model."""
        if card.parameters is None:
            return bool(self.names(card))
        off = abs(card.parameters - self.num_parameters)
        return off <= _PARAMETER_TOLERANCE * self.num_parameters

    def reason(self, card: ModelCard) -> str:
        """Why it is taken to be meant."""
        if card.parameters is not None:
            return f"because its card says {card.parameters:,} parameters"
        return f"because of the name {self.names(card)[0]}"


def _known(
    name: str, pattern: str, sizes: tuple[int, int, int, int, int, int], **more: object
) -> KnownShape:
    vocab_size, hidden_size, inner, num_layers, num_heads, num_kv_heads = sizes
    values: dict[str, object] = {
        "architecture": "LlamaForCausalLM", "head_dim": 128, "context_length": 131_072,
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tied": False, **more,
    }  # fmt: skip
    return KnownShape(
        name,
        Hyperparameters(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=inner,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            **values,  # type: ignore[arg-type]  # fields of another type each
        ),
        pattern,
    )


KNOWN_SHAPES = (
    _known(
        "Llama 3.2 1B",
        r"llama-?3\.2.*\b1b\b",
        (128_256, 2048, 8192, 16, 32, 8),
        head_dim=64,
        tied=True,
    ),
    _known("Llama 3.2 3B", r"llama-?3\.2.*\b3b\b", (128_256, 3072, 8192, 28, 24, 8), tied=True),
    _known(
        "Llama 3 8B",
        r"llama-?3(?!\.[12]).*\b8b\b",
        (128_256, 4096, 14_336, 32, 32, 8),
        context_length=8192,
    ),
    _known("Llama 3.1 8B", r"llama-?3\.1.*\b8b\b", (128_256, 4096, 14_336, 32, 32, 8)),
    _known(
        "Mistral 7B", r"mistral.*\b7b\b", (32_000, 4096, 14_336, 32, 32, 8), context_length=32_768
    ),
    _known(
        "Llama 2 7B",
        r"llama-?2.*\b7b\b|meditron.*\b7b\b",
        (32_000, 4096, 11_008, 32, 32, 32),
        context_length=4096,
    ),
)
"""Their configurations, as their makers published them."""
