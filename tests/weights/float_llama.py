"""Small Llamas in F32, made-up importance matrices for them, and the cases in which they are quantised.

Written with the gguf package from numbers that are the same everywhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FloatLlama:
    """Its dimensions. Heads are 64 wide."""

    width: int = 256
    inner: int = 512
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 4
    num_tokens: int = 64
    num_experts: int = 0
    """Two of which are used at a time; 0 = it has none."""
    tied: bool = False
    seed: int = 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """All tensors; shapes are numpy's: rows first."""
        narrow = self.width * self.num_kv_heads // self.num_heads
        experts = (self.num_experts,) if self.num_experts else ()
        suffix = "_exps" if experts else ""
        rows = {
            "attn_q": (self.width, self.width), "attn_k": (narrow, self.width),
            "attn_v": (narrow, self.width), "attn_output": (self.width, self.width),
            f"ffn_gate{suffix}": (*experts, self.inner, self.width),
            f"ffn_up{suffix}": (*experts, self.inner, self.width),
            f"ffn_down{suffix}": (*experts, self.width, self.inner),
            "attn_norm": (self.width,), "ffn_norm": (self.width,),
        }  # fmt: skip
        if experts:
            rows["ffn_gate_inp"] = (*experts, self.width)
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.num_tokens, self.width)}
        for layer in range(self.num_layers):
            shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in rows.items()}
        shapes["output_norm.weight"] = (self.width,)
        return shapes if self.tied else {**shapes, "output.weight": (self.num_tokens, self.width)}

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Bell-shaped weights with a few large ones, as trained models have; norms of one."""
        tensors = {}
        for number, (name, shape) in enumerate(self.shapes().items()):
            num = int(np.prod(shape))
            parts = [_uniform(num, 1000 * self.seed + 10 * number + part) for part in range(5)]
            values = (sum(parts[:4]) - 2) * np.where(parts[4] < 1 / 128, 0.5, 0.125)
            if len(shape) == 1:
                values = np.ones(num)
            tensors[name] = values.reshape(shape).astype(np.float32)
        return tensors

    def importance(self) -> dict[str, NDArray[np.float32]]:
        """Made-up mean squares of activations over eight octaves: (matrices, columns), for every
        matrix but embeddings, output and router."""
        means = {}
        for number, (name, shape) in enumerate(self.shapes().items()):
            if len(shape) == 1 or not name.startswith("blk.") or "gate_inp" in name:
                continue
            num_matrices = shape[0] if len(shape) == 3 else 1
            uniform = _uniform(num_matrices * shape[-1], 1000 * self.seed + 10 * number + 9)
            octaves = np.ldexp(1 + uniform, (uniform * 4096).astype(int) % 8 - 4)
            means[name] = octaves.reshape(num_matrices, -1).astype(np.float32)
        return means

    def write_importance(self, path: Path) -> Path:
        """Write them as llama.cpp's tool does: sums over 8 tokens."""
        import gguf

        writer = gguf.GGUFWriter(path, "", use_temp_file=False)
        writer.kv_data[0].clear()  # a matrix has no architecture
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", ["notes.txt"])
        writer.add_uint32("imatrix.chunk_count", 3)
        writer.add_uint32("imatrix.chunk_size", 512)
        for name, means in self.importance().items():
            writer.add_tensor(f"{name}.in_sum2", means * np.float32(8))
            writer.add_tensor(f"{name}.counts", np.full((len(means), 1), 8, np.float32))
        _write(writer)
        return path


def _uniform(num: int, seed: int) -> NDArray[np.float64]:
    """Numbers from 0 to 1 in steps of 2^-24, by SplitMix64: the same on every machine for ever."""
    state = np.arange(1, num + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state += np.uint64(seed * 0xD1B54A32D192ED03 % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform: NDArray[np.float64] = ((state ^ (state >> np.uint64(31))) >> np.uint64(40)) / 2.0**24
    return uniform


MODELS = {
    "plain": FloatLlama(),
    # Rows that blocks of 256 do not divide.
    "narrow": FloatLlama(width=192, inner=320, num_heads=3, num_kv_heads=3, seed=2),
    # Layers enough for the mixtures that depend on a layer's place.
    "grouped": FloatLlama(num_layers=9, num_kv_heads=1, tied=True, seed=3),
    "experts": FloatLlama(inner=256, num_experts=4, seed=4),
}
MATRIX_NAME = "imatrix.gguf"


@dataclass(frozen=True)
class Case:
    """One quantisation of one of the models."""

    model: str
    recipe: str
    with_matrix: bool = False
    keep: tuple[str, ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None

    @property
    def name(self) -> str:
        chosen = "-kept" if self.keep or self.output_type or self.embedding_type else ""
        return f"{self.model}-{self.recipe}{'-matrix' if self.with_matrix else ''}{chosen}"


_ANYWAY = (
    *("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L"),
    *("Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"),
    *("TQ1_0", "TQ2_0", "MXFP4_MOE", "Q1_0"),
)
_WITH_MATRIX = (
    "Q2_K_S",
    "IQ1_S",
    "IQ1_M",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_S",
    "IQ2_M",
    "IQ3_XXS",
    "IQ3_XS",
)
CASES = (
    *(Case("plain", recipe) for recipe in _ANYWAY),
    *(Case("plain", recipe, with_matrix=True) for recipe in (*_ANYWAY, *_WITH_MATRIX)),
    *(Case("narrow", recipe) for recipe in ("Q2_K", "Q4_K_M", "Q5_K_M", "IQ4_XS", "Q6_K")),
    *(Case("grouped", recipe) for recipe in ("Q3_K_M", "Q4_K_M", "Q5_K_M", "IQ4_XS")),
    *(Case("grouped", recipe, with_matrix=True) for recipe in ("Q4_0", "Q4_K_M", "IQ3_XXS")),
    *(Case("experts", recipe) for recipe in ("MXFP4_MOE", "Q4_K_M")),
    *(Case("experts", recipe, with_matrix=True) for recipe in ("MXFP4_MOE", "Q2_K", "IQ2_XS")),
    Case("plain", "Q4_K_M", True, ("attn_v=q8_0", r"blk\.0\.ffn=q6_K"), "q8_0", "f16"),
)


def write_float_llama(path: Path, model: FloatLlama = FloatLlama()) -> Path:
    """Write it."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Float Llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(1024)
    writer.add_block_count(model.num_layers)
    writer.add_embedding_length(model.width)
    writer.add_feed_forward_length(model.inner)
    writer.add_head_count(model.num_heads)
    writer.add_head_count_kv(model.num_kv_heads)
    writer.add_rope_dimension_count(model.width // model.num_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    if model.num_experts:
        writer.add_expert_count(model.num_experts)
        writer.add_expert_used_count(2)
    writer.add_vocab_size(model.num_tokens)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"▁t{i}" for i in range(3, model.num_tokens))])
    writer.add_token_scores([0.0] * model.num_tokens)
    writer.add_token_types([2, 3, 3, *([1] * (model.num_tokens - 3))])
    for name, values in model.tensors().items():
        writer.add_tensor(name, values)
    _write(writer)
    return path


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
