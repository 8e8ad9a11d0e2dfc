"""Tokenizers for tests: small ones made by hand, and llama.cpp's reading of a vocabulary as oracle.

SentencePiece's file format is stated here once more, by an encoder that shares no code with the reader
under test.
"""

import ctypes
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medlocal.libllama import library
from medlocal.weights.vocabulary import Vocabulary, read_vocabulary

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's regular expression, as its tokenizer.json has it."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def byte_letters() -> list[str]:
    """The letters that byte-level BPE writes for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


WORDS = ("Ġa", "re", "Ġare")
MERGES = (("Ġ", "a"), ("r", "e"), ("Ġa", "re"))
NUM_BASE = 256 + len(WORDS)
"""Tokens of `bpe` without the added ones: <s> is 259, </s> 260."""


def added(token_id: int, content: str, special: bool = True, **flags: bool) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    usual = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    entry = {"id": token_id, "content": content, **usual, "normalized": not special}
    return {**entry, "special": special, **flags}


def split(pattern: str) -> dict[str, Any]:
    """A step of a pre-tokenizer that cuts at a regular expression."""
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


BYTES_ONLY = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}


def sequence(*steps: Mapping[str, Any]) -> dict[str, Any]:
    """A pre-tokenizer of several steps."""
    return {"type": "Sequence", "pretokenizers": list(steps)}


def bpe(*more: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A `tokenizer.json` like Llama 3's: 256 bytes, three words, <s>, </s> and `more` added tokens.

    Args:
        more: made by `added`.
        changes: top-level keys in place of the usual, and `vocab`, `merges` and `ignore_merges`.
    """
    vocab = {text: number for number, text in enumerate([*byte_letters(), *WORDS])}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": changes.pop("ignore_merges", True),
        "vocab": changes.pop("vocab", vocab),
        "merges": changes.pop("merges", [list(pair) for pair in MERGES]),
    }
    usual = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(NUM_BASE, "<s>"), added(NUM_BASE + 1, "</s>"), *more],
        "normalizer": None,
        "pre_tokenizer": sequence(split(LLAMA3), BYTES_ONLY),
        "post_processor": None,
        "decoder": {**BYTES_ONLY, "use_regex": True},
        "model": model,
    }
    return {**usual, **changes}


CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}


def write_folder(folder: Path, **files: Any) -> Path:
    """Write a tokenizer's files.

    Args:
        folder: where to; it is made.
        files: content by name, a dot written as `__`: bytes and text as they are, the rest as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if not isinstance(content, bytes | str):
            content = json.dumps(content, ensure_ascii=False)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


SIZE = NUM_BASE + 8
MODEL = {"vocab_size": SIZE, "bos_token_id": NUM_BASE, "eos_token_id": NUM_BASE + 1}
"""A `config.json` for `bpe`, with room for six more tokens."""


def read_bpe(
    folder: Path, tokenizer: object = None, model: Mapping[str, Any] = MODEL, **files: Any
) -> Vocabulary:
    """Write a byte-level tokenizer's files and read them.

    Args:
        folder: where to.
        tokenizer: `tokenizer.json`; None = `bpe()`.
        model: `config.json`.
        files: further files as `write_folder` takes them, and `config` for tokenizer_config.json (None
            = there is none), `generation` and `pre`.
    """
    config = files.pop("config", CONFIG)
    generation, pre = files.pop("generation", {}), files.pop("pre", None)
    if config is not None:
        files["tokenizer_config__json"] = config
    files["tokenizer__json"] = bpe() if tokenizer is None else tokenizer
    return read_vocabulary(write_folder(folder, **files), model, generation, pre)


# SentencePiece's model file, by its protocol buffer's definition.


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def message_field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def piece(text: str | bytes, score: float = 0.0, kind: int = NORMAL) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    inner = message_field(1, raw) + message_field(2, score)
    return message_field(1, inner + (message_field(3, kind) if kind != NORMAL else b""))


def piece_model(
    pieces: Sequence[bytes], algorithm: int = 2, prefix: bool = True, collapse: bool = False
) -> bytes:
    """A `tokenizer.model`.

    Args:
        pieces: made by `piece`.
        algorithm: 1 = unigram, 2 = BPE.
        prefix: a text is read as if a space stood before it.
        collapse: several spaces are read as one.
    """
    trainer = message_field(3, algorithm) + message_field(35, 1)
    normalizer = message_field(1, b"identity") + message_field(3, int(prefix))
    normalizer += message_field(4, int(collapse)) + message_field(5, 1)
    return b"".join(pieces) + message_field(2, trainer) + message_field(3, normalizer)


def byte_pieces() -> list[bytes]:
    return [piece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]


LETTERS = ("▁", "e", "l", "h", "o")
MERGED = ("▁h", "el", "lo", "▁hel", "▁hello")
PIECES = (
    piece("<unk>", 0.0, UNKNOWN),
    piece("<s>", 0.0, CONTROL),
    piece("</s>", 0.0, CONTROL),
    *byte_pieces(),
    *(piece(text, -float(rank)) for rank, text in enumerate((*MERGED, *LETTERS))),
)
"""Like Llama 2's: special ones, bytes, then what merging makes, then letters. 269 in all."""
PIECES_CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
}


class LlamaVocab:
    """A vocabulary as llama.cpp reads it."""

    def __init__(self, pointer: Any) -> None:
        self._lib = library()
        self._pointer = pointer

    @property
    def num_tokens(self) -> int:
        return int(self._lib.llama_vocab_n_tokens(self._pointer))

    def tokenize(self, text: str, special: bool = False, add_special: bool = False) -> list[int]:
        raw = text.encode()
        size = len(raw) + 8
        buffer = (self._lib.llama_token * size)()
        n = self._lib.llama_tokenize(
            self._pointer, raw, len(raw), buffer, size, add_special, special
        )
        assert n >= 0
        return list(buffer[:n])

    def ends(self) -> set[int]:
        is_end = self._lib.llama_vocab_is_eog
        return {token for token in range(self.num_tokens) if is_end(self._pointer, token)}

    def special(self, kind: str) -> int:
        return int(getattr(self._lib, f"llama_vocab_{kind}")(self._pointer))


def write_vocabulary(path: Path, entries: Sequence[tuple[str, Any, Any]]) -> Path:
    """Write a GGUF that holds a vocabulary and nothing else."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    for key, value, kind in entries:
        writer.add_key_value(key, value, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@contextmanager
def loaded(path: Path) -> Iterator[LlamaVocab]:
    """Load a vocabulary in llama.cpp."""
    lib = library()
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    assert model, "llama.cpp does not load it"
    try:
        yield LlamaVocab(ctypes.c_void_p(lib.llama_model_get_vocab(model)))
    finally:
        lib.llama_model_free(model)


@contextmanager
def in_llama_cpp(vocabulary: Vocabulary, folder: Path) -> Iterator[LlamaVocab]:
    """Write what was read and load it in llama.cpp."""
    with loaded(write_vocabulary(folder / "vocabulary.gguf", vocabulary.entries())) as loaded_one:
        yield loaded_one
