"""Small GGUF files for tests: sound ones by the gguf package, broken ones byte by byte.

The byte builders share no code with the reader under test: a test that builds a file with them states
the format once more, from its specification.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

UINT8, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 0, 4, 5, 6, 7, 8, 9, 10
F32, Q8_0 = 0, 8
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_model(path: Path, **changes: object) -> Path:
    """Write a sound little Llama: 2 layers, 4 heads and 2 KV heads of 16, 7 tokens.

    Args:
        path: where to.
        changes: tokenizer.ggml or tokenizer keys (`add_bos_token=True`) in place of the usual; None
            leaves one out.
    """
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Little Llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_context_length(512)
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    usual: dict[str, object] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": ["<s>", "</s>", "<|eot|>", "a", "ñ", "Ġthe", "?"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 2,
        "tokenizer.chat_template": CHATML,
    }
    for name, value in changes.items():
        usual[
            "tokenizer.chat_template" if name == "chat_template" else f"tokenizer.ggml.{name}"
        ] = value
    for key, value in usual.items():
        if value is not None:
            writer.add_key_value(key, value, *_types(value))
    _add_tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _types(value: object) -> tuple[object, ...]:
    import gguf

    kinds = gguf.GGUFValueType
    if isinstance(value, list):
        return kinds.ARRAY, kinds.STRING
    return ({bool: kinds.BOOL, int: kinds.UINT32, str: kinds.STRING}[type(value)],)


def _add_tensors(writer: object) -> None:
    import gguf

    assert isinstance(writer, gguf.GGUFWriter)
    # Q4_K: 144 bytes per block of 256. The writer takes quantised data as rows of bytes.
    blocks = np.zeros((7, 144), np.uint8)
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((3, 5), np.float32))


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + payload


def number_key(name: str, value: int) -> bytes:
    return key(name, UINT32, struct.pack("<I", value))


def array_key(name: str, kind: int, count: int, payload: bytes = b"") -> bytes:
    return key(name, ARRAY, struct.pack("<IQ", kind, count) + payload)


def tensor(name: str, shape: Sequence[int], kind: int = F32, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def gguf_bytes(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    num_data: int = 0,
    alignment: int = 32,
    beginning: bytes | None = None,
) -> bytes:
    """Put a file together.

    Args:
        keys: made by `key`.
        tensors: made by `tensor`.
        num_data: bytes of tensor data after the header.
        alignment: where the data begins.
        beginning: the first 24 bytes, in place of the right ones.
    """
    start = beginning or beginning_of(len(tensors), len(keys))
    header = start + b"".join(keys) + b"".join(tensors)
    if not num_data:
        return header
    return header + bytes(-len(header) % alignment) + bytes(num_data)


def beginning_of(num_tensors: int, num_keys: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)
