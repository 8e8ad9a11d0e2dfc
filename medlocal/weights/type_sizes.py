"""What a model would take in every type that llama.cpp quantises to, and what others say that costs.

Which tensor gets which type is llama.cpp's own answer, from a dry run that reads a header only. For a
model that is not a GGUF a file of its shape is made for that: a header and a hole as long as the
weights, which takes no room on the disk.

The costs are those that llama.cpp publishes for another model, and are told as such: what a type costs
this one is for `quality` to measure.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medlocal.weights.model_shape import ModelShape
from medlocal.weights.quantization_plan import planned_types
from medlocal.weights.quantizer import Job, Quantizer
from medlocal.weights.recipes import Recipe, needs_matrix, recipes, tensor_types

PUBLISHED_FOR = "Llama-3-8B"
PUBLISHED_IN = "llama.cpp, tools/quantize/quantize.cpp, at 0c1e57098"
PUBLISHED_PERPLEXITY: Mapping[str, float] = {
    "Q4_0": 0.4685,
    "Q4_1": 0.4511,
    "Q5_0": 0.1316,
    "Q5_1": 0.1062,
    "Q2_K": 3.5199,
    "Q2_K_S": 3.1836,
    "Q3_K_S": 1.6321,
    "Q3_K_M": 0.6569,
    "Q3_K_L": 0.5562,
    "Q4_K_S": 0.2689,
    "Q4_K_M": 0.1754,
    "Q5_K_S": 0.1049,
    "Q5_K_M": 0.0569,
    "Q6_K": 0.0217,
    "Q8_0": 0.0026,
}
"""What is added to `PUBLISHED_FOR`'s perplexity by each type, as `PUBLISHED_IN` says."""
_FOR_TRAINED_SO = frozenset({"TQ1_0", "TQ2_0", "Q1_0", "Q2_0"})
"""Types of so few levels that only models which were trained in them are of use."""
_NO_SMALLER = frozenset({"F32", "F16"})
"""Types that take as much as BF16, in which models are published, or more."""
_BUFFER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TypeSize:
    """A model in one type."""

    type: str
    shape: ModelShape
    """With the sizes that its tensors would have."""
    needs_matrix: bool
    """Whether llama.cpp makes it with an importance matrix only."""

    @property
    def bits_per_weight(self) -> float:
        """Mean over all tensors."""
        return 8 * sum(t.num_bytes for t in self.shape.tensors) / self.shape.num_parameters

    @property
    def published_perplexity(self) -> float | None:
        """See `PUBLISHED_PERPLEXITY`; None = nothing is published."""
        return PUBLISHED_PERPLEXITY.get(self.type)


def type_sizes(shape: ModelShape, path: Path | None = None) -> tuple[TypeSize, ...]:
    """Every type that a model can be quantised to, the largest first; BF16 is among them.

    Args:
        shape: of the model.
        path: its GGUF, whose header was checked; None = there is none, and the shape is a Llama's.

    Raises:
        MedlocalError: llama.cpp cannot quantise this model.
    """
    with tempfile.TemporaryDirectory() as folder, Quantizer() as quantizer:
        source = path or write_outline(shape, Path(folder) / "outline.gguf")
        found = []
        for recipe in recipes().values():
            if recipe.name in _FOR_TRAINED_SO | _NO_SMALLER:
                continue
            kinds = _kinds(quantizer, source, recipe, shape)
            if recipe.main.name in kinds.values():
                found.append(_sized(shape, recipe, kinds))
    return tuple(sorted(found, key=lambda size: -size.shape.weights_bytes))


def write_outline(shape: ModelShape, path: Path) -> Path:
    """Write a Llama's header with no weights behind it.

    The file is as long as if they were there, so that it passes for one, and holds a hole in their
    place. It has no vocabulary.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, shape.architecture)
    key, value = shape.head_sizes
    for name, number in (
        ("block_count", shape.num_layers),
        ("context_length", shape.context_length),
        ("embedding_length", shape.hidden_size),
        ("feed_forward_length", shape.feed_forward_size),
        ("attention.head_count", shape.query_size // key),
        ("attention.head_count_kv", max(shape.key_sizes) // key),
        ("attention.key_length", key),
        ("attention.value_length", value),
        ("rope.dimension_count", key),
        ("vocab_size", shape.vocab_size),
    ):
        writer.add_uint32(f"{shape.architecture}.{name}", number)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("none")
    kinds = tensor_types()
    for tensor in shape.tensors:
        kind = kinds[tensor.type]
        rows = (*tensor.shape[:0:-1], tensor.shape[0] // kind.block * kind.block_bytes)
        raw = gguf.GGMLQuantizationType(kind.number)
        writer.add_tensor_info(
            tensor.name, rows, np.dtype(np.uint8), tensor.num_bytes, raw_dtype=raw
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // 32) * 32
    with path.open("r+b") as file:
        file.truncate(start + sum(-(-t.num_bytes // 32) * 32 for t in shape.tensors))
    return path


def _kinds(quantizer: Quantizer, source: Path, recipe: Recipe, shape: ModelShape) -> dict[str, str]:
    """The type that each tensor would have, by name."""
    pieces: list[str] = []
    job = Job(
        source=str(source),
        target="",
        recipe=recipe.number,
        num_threads=1,
        max_buffer_bytes=_BUFFER_BYTES,
        allow_requantize=True,
    )
    quantizer.run(job, lambda _level, piece: pieces.append(piece))
    planned = planned_types(pieces)
    return {t.name: planned.get(t.name) or t.type for t in shape.tensors}


def _sized(shape: ModelShape, recipe: Recipe, kinds: Mapping[str, str]) -> TypeSize:
    types = tensor_types()
    sizes = {t.name: types[kinds[t.name]].num_bytes(t.num_elements) for t in shape.tensors}
    matrix = any(needs_matrix(name, kind, recipe.name) for name, kind in kinds.items())
    return TypeSize(recipe.name, shape.with_bytes(sizes), matrix)
