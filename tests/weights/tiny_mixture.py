"""A tiny Llama with experts whose tokens are bytes: llama.cpp loads it in milliseconds.

Two layers of five experts, two of which are chosen per token. The router's rows are multiples of one
vector, 1, -1, 2, -2 and 1/2: whatever the token, two of the first four win, and the last never does.
Written with the gguf package from Python's own generator, whose numbers are the same in all versions:
what llama.cpp's own tool made of this model is kept in tests/data.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np

NUM_COLUMNS, NUM_INNER, NUM_LAYERS, NUM_EXPERTS = 64, 32, 2, 5
NUM_SPECIAL = 3
"""<unk>, <s>, </s>; the token of byte b is 3 + b."""
BOS = 1
CONTEXT = 1024


def write_tiny_mixture(path: Path) -> Path:
    """Write the model; SentencePiece without any piece, and a BOS before each text."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_block_count(NUM_LAYERS)
    writer.add_embedding_length(NUM_COLUMNS)
    writer.add_feed_forward_length(NUM_INNER)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_expert_count(NUM_EXPERTS)
    writer.add_expert_used_count(2)
    _add_vocabulary(writer)
    rng = random.Random(20250101)
    for name, shape in _shapes().items():
        writer.add_tensor(name, _tensor(rng, name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: Any) -> None:
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [6] * 256)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (NUM_SPECIAL + 256, NUM_COLUMNS)}
    for layer in range(NUM_LAYERS):
        blk = f"blk.{layer}."
        shapes |= {
            blk + "attn_norm.weight": (NUM_COLUMNS,),
            blk + "attn_q.weight": (NUM_COLUMNS, NUM_COLUMNS),
            blk + "attn_k.weight": (NUM_COLUMNS // 2, NUM_COLUMNS),
            blk + "attn_v.weight": (NUM_COLUMNS // 2, NUM_COLUMNS),
            blk + "attn_output.weight": (NUM_COLUMNS, NUM_COLUMNS),
            blk + "ffn_norm.weight": (NUM_COLUMNS,),
            blk + "ffn_gate_inp.weight": (NUM_EXPERTS, NUM_COLUMNS),
            blk + "ffn_gate_exps.weight": (NUM_EXPERTS, NUM_INNER, NUM_COLUMNS),
            blk + "ffn_up_exps.weight": (NUM_EXPERTS, NUM_INNER, NUM_COLUMNS),
            blk + "ffn_down_exps.weight": (NUM_EXPERTS, NUM_COLUMNS, NUM_INNER),
        }
    shapes["output_norm.weight"] = (NUM_COLUMNS,)
    shapes["output.weight"] = (NUM_SPECIAL + 256, NUM_COLUMNS)
    return shapes


def _tensor(rng: random.Random, name: str, shape: tuple[int, ...]) -> Any:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    if "ffn_gate_inp" in name:
        return np.outer([1, -1, 2, -2, 0.5], _numbers(rng, shape[1])).astype(np.float32)
    return (0.2 * _numbers(rng, int(np.prod(shape)))).reshape(shape).astype(np.float32)


def _numbers(rng: random.Random, count: int) -> Any:
    return np.array([2 * rng.random() - 1 for _ in range(count)])
