"""Checkpoints of a few hundred kilobytes, as Hugging Face lays them out, made from numbers alone.

Numpy and the standard library only, so that the script which asks llama.cpp's converter and
transformers what they make of them, in an environment of its own, makes the very same files. The
weights come from a counter through a mixing function, not from a random generator whose stream
may change with its version. The two tokenizers lie in `tests/data/conversions/`.
"""

import json
import shutil
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parents[1] / "data" / "conversions"
NUM_BPE, NUM_PIECES = 400, 384
"""Tokens of the two tokenizers, special ones included."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}"
    "<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INST_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]{% else %} {{ message['content'] }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Recipe:
    """One checkpoint."""

    name: str
    """Of its folder, too: it names the model where its card does not."""
    tokenizer: str
    """"bpe" as Llama 3 has it, or "pieces" as Llama 2 and Mistral 7B have it."""
    type: str
    """Of the weights: "F32", "F16", "BF16"."""
    config: Mapping[str, Any]
    """What differs from `_SIZES`; None = the key is left out."""
    num_shards: int = 1
    has_output: bool = True
    has_biases: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)
    readme: str = ""
    files: Mapping[str, Any] = field(default_factory=dict)
    """More JSON files, by name."""
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the tokenizer's own."""


_SIZES: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
_BPE = {"vocab_size": NUM_BPE, "bos_token_id": 384, "eos_token_id": 385}
_PIECES = {"vocab_size": NUM_PIECES, "bos_token_id": 1, "eos_token_id": 2}
_MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
_LLAMA31_CARD = """---
license: llama3.1
base_model:
- meta-llama/Llama-3.1-8B-Instruct
- example-lab/Corpus-Adapter-v2
language:
- es
- en
tags:
- medical
- clinical
pipeline_tag: text-generation
datasets:
- example-lab/notas-clinicas
---

# A model of nobody's
"""

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "Tiny-Llama-2-7b-chat",
        "pieces",
        "F16",
        # As the first Llama 2 checkpoints: silent about rotation and shared heads.
        {**_PIECES, "num_key_value_heads": None, "rope_theta": None},
        generation={"temperature": 0.6, "top_p": 0.9, "bos_token_id": 1, "eos_token_id": 2},
        readme="---\nlicense: llama2\nlanguage: en\nmodel_name: Tiny Two\n---\n",
        tokenizer_config={"chat_template": INST_TEMPLATE},
    ),
    Recipe(
        "Tiny-Llama-3.1-8B-Instruct",
        "bpe",
        "BF16",
        {**_BPE, "rope_scaling": LLAMA3_ROPE, "rope_theta": 500.0},
        generation={
            "bos_token_id": 384,
            "eos_token_id": [385, 392, 393],
            "temperature": 0.6,
            "top_p": 0.9,
            "do_sample": True,
        },
        readme=_LLAMA31_CARD,
        tokenizer_config={"chat_template": CHAT_TEMPLATE, "eos_token": "<|eot_id|>"},
    ),
    Recipe(
        "tiny-llama-3.2-tied",
        "bpe",
        "BF16",
        {
            **_BPE,
            "tie_word_embeddings": True,
            "head_dim": 32,
            "rope_scaling": {**LLAMA3_ROPE, "factor": 32.0},
        },
        has_output=False,
    ),
    Recipe("tiny-tied-with-output", "bpe", "F16", {**_BPE, "tie_word_embeddings": True}),
    Recipe(
        "Tiny-Mistral-7B-v0.1",
        "pieces",
        "BF16",
        {**_PIECES, **_MISTRAL, "sliding_window": 32, "max_position_embeddings": 128},
        readme="---\nlicense: apache-2.0\n---\n",
    ),
    Recipe(
        "tiny-sharded",
        "bpe",
        "F32",
        {
            **_BPE,
            "rope_theta": None,
            # As transformers writes it from its fifth version on.
            "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
        },
        num_shards=3,
    ),
    Recipe(
        "tiny-pieces-with-added-tokens",
        "pieces",
        "F16",
        {**_PIECES, "vocab_size": NUM_PIECES + 8},
        files={"added_tokens.json": {"<|im_start|>": NUM_PIECES, "<|im_end|>": NUM_PIECES + 1}},
        tokenizer_config={
            "added_tokens_decoder": {
                "0": {"content": "<unk>", "special": True},
                "1": {"content": "<s>", "special": True},
                "2": {"content": "</s>", "special": True},
                str(NUM_PIECES): {"content": "<|im_start|>", "special": True},
                str(NUM_PIECES + 1): {"content": "<|im_end|>", "special": True},
                str(NUM_PIECES + 2): {"content": "mg/dl▁de", "special": False},
            }
        },
    ),
    Recipe(
        "tiny-bpe-with-added-tokens",
        "bpe",
        "BF16",
        {**_BPE, "vocab_size": NUM_BPE + 6},
        tokenizer_config={"added": {"<historia>": False, "<|fin|>": True}},
    ),
    Recipe(
        "tiny-biases",
        "pieces",
        "F32",
        {**_PIECES, "attention_bias": True, "mlp_bias": True, "intermediate_size": 80},
        has_biases=True,
    ),
    Recipe(
        "tiny-linear-rope",
        "pieces",
        "BF16",
        {**_PIECES, "rope_scaling": {"type": "linear", "factor": 2.0}},
    ),
)
BY_NAME = {recipe.name: recipe for recipe in RECIPES}


def make(recipe: Recipe, root: Path) -> Path:
    """Write one checkpoint into a folder of its name under `root`."""
    folder = root / recipe.name
    folder.mkdir()
    config = {k: v for k, v in {**_SIZES, **recipe.config}.items() if v is not None}
    write_json(folder / "config.json", config)
    if recipe.generation:
        write_json(folder / "generation_config.json", recipe.generation)
    if recipe.readme:
        (folder / "README.md").write_text(recipe.readme, encoding="utf-8")
    for name, content in recipe.files.items():
        write_json(folder / name, content)
    _write_tokenizer(recipe, folder)
    write_weights(folder, weights(recipe), recipe.type, recipe.num_shards)
    return folder


def weights(recipe: Recipe) -> dict[str, NDArray[np.float32]]:
    """The tensors of a recipe in single precision, before they are stored as its type."""
    seed = sum(ord(c) * (i + 1) for i, c in enumerate(recipe.name))
    shapes = _shapes(recipe)
    return {
        name: _numbers(seed * 1000 + number, shape, name)
        for number, (name, shape) in enumerate(shapes.items())
    }


def write_weights(
    folder: Path, tensors: Mapping[str, NDArray[np.float32]], kind: str, num_shards: int = 1
) -> None:
    """Write tensors as one safetensors file, or as shards with an index."""
    if num_shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, kind)
        return
    places: dict[str, str] = {}
    for shard in range(num_shards):
        # Dealt out in turns, so that neighbouring tensors lie in different files.
        names = list(tensors)[shard::num_shards]
        file = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in names}, kind)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    write_json(folder / "model.safetensors.index.json", index)


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.float32]], kind: str) -> None:
    """Write one safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, offset = [], 0
    for name, values in tensors.items():
        data = stored(values, kind)
        place = [offset, offset + len(data)]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": place}
        parts.append(data)
        offset += len(data)
    path.write_bytes(safetensors_bytes(header, parts))


def safetensors_bytes(header: Mapping[str, Any], parts: Iterable[bytes]) -> bytes:
    """A file of a header and of what follows it."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def stored(values: NDArray[np.float32], kind: str) -> bytes:
    """Numbers as a safetensors file stores them; bfloat16 by cutting the lower bits off."""
    if kind == "BF16":
        return (values.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind]).tobytes()


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as Hugging Face's tools do."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def probe_tokens(recipe: Recipe, num_tokens: int) -> list[int]:
    """A fixed row of token ids, special ones included."""
    vocab_size = int(recipe.config["vocab_size"])
    return [(7 + 31 * i + i * i) % vocab_size for i in range(num_tokens)]


def _shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    config = {**_SIZES, **{k: v for k, v in recipe.config.items() if v is not None}}
    if recipe.config.get("num_key_value_heads", 0) is None:
        config["num_key_value_heads"] = config["num_attention_heads"]
    hidden, feed = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    vocab_size = config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab_size, hidden)}
    for layer in range(config["num_hidden_layers"]):
        where = f"model.layers.{layer}"
        matrices = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (feed, hidden),
            "mlp.up_proj": (feed, hidden),
            "mlp.down_proj": (hidden, feed),
        }
        for name, shape in matrices.items():
            shapes[f"{where}.{name}.weight"] = shape
            if recipe.has_biases:
                shapes[f"{where}.{name}.bias"] = shape[:1]
        shapes[f"{where}.input_layernorm.weight"] = (hidden,)
        shapes[f"{where}.post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if recipe.has_output:
        shapes["lm_head.weight"] = (vocab_size, hidden)
    return shapes


def _numbers(seed: int, shape: tuple[int, ...], name: str) -> NDArray[np.float32]:
    """Numbers from -0.25 to 0.25 by the splitmix64 function of a counter; around 1 for norms."""
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        mixed = np.arange(count, dtype=np.uint64) + np.uint64(seed << 32)
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    values = (mixed >> np.uint64(40)).astype(np.float32) * np.float32(2**-25) - np.float32(0.25)
    if "norm" in name:
        return (values + np.float32(1)).reshape(shape)
    if name.endswith("gate_proj.weight"):
        # What formats differ in: a block of nothing, signed zeros, numbers too small for most, ties.
        values[:32] = 0.0
        values[32:36] = [-0.0, 1e-7, -3e-40, 6e-5]
        ties = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 63.5], np.float32)
        values[64:96] = np.tile(ties, 4) / np.float32(512)
    return values.reshape(shape)


def _write_tokenizer(recipe: Recipe, folder: Path) -> None:
    changes = dict(recipe.tokenizer_config)
    if recipe.tokenizer == "pieces":
        shutil.copy(DATA / "tokenizer.model", folder / "tokenizer.model")
        config = {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "legacy": False,
        }
        write_json(folder / "tokenizer_config.json", {**config, **changes})
        return
    tokenizer = json.loads((DATA / "tokenizer.json").read_text(encoding="utf-8"))
    for number, (content, is_special) in enumerate(changes.pop("added", {}).items()):
        tokenizer["added_tokens"].append(_added(NUM_BPE + number, content, is_special))
    write_json(folder / "tokenizer.json", tokenizer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(token["id"]): {k: v for k, v in token.items() if k != "id"}
            for token in tokenizer["added_tokens"]
        },
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 256,
    }
    write_json(folder / "tokenizer_config.json", {**config, **changes})


def _added(token_id: int, content: str, is_special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return {
        "id": token_id,
        "content": content,
        **flags,
        "normalized": not is_special,
        "special": is_special,
    }


if __name__ == "__main__":
    # For the script that makes the golden values: every checkpoint into the folder that it names.
    for one in RECIPES:
        make(one, Path(sys.argv[1]))
