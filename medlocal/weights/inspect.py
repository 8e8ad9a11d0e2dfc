"""What a GGUF file says about its model, from a header that nobody vouches for.

`read_gguf` either returns what the file says, or raises `RefusedError` saying what is wrong and what
was found; `header` does the reading. This module does not know whether llama.cpp supports the
architecture, nor whether the numbers in the tensors make sense.
"""

import math
import mmap
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medlocal.errors import MedlocalError, MissingError, RefusedError
from medlocal.weights.header import PULL_AGAIN, ArrayRef, TensorInfo, read_header, shown

__all__ = ["ArrayRef", "GGUFInfo", "TensorInfo", "read_gguf"]

# Where the file does not say, llama.cpp writes a BOS for SentencePiece vocabularies and for BPE ones
# with these pre-tokenizers (llama-vocab.cpp): the Llama 3 family and Mistral's Tekken among them.
_BOS_TOKENIZERS = frozenset({"llama", "gemma4"})
_BOS_PRE_TOKENIZERS = frozenset({
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    *("jina-v5-nano", "tekken", "chameleon"),
})  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class GGUFInfo:
    """What one GGUF file says about itself, checked.

    A property that is `None` says nothing; one that cannot be `None` raises `RefusedError` where the
    file does not say. Each raises `RefusedError` where the file says something that cannot be meant.
    """

    path: Path
    version: int
    size: int
    """Of the file, in bytes."""
    metadata: Mapping[str, object]
    """Numbers, bools, strings, tuples, and `ArrayRef` for long arrays; read-only."""
    tensors: tuple[TensorInfo, ...]
    """In file order; () for a vocabulary without weights."""

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the architecture, such as "llama" or "gemma3"."""
        return self._need("general.architecture", str)

    @property
    def name(self) -> str | None:
        """What its maker calls it; often a leftover from the base model."""
        return self._find("general.name", str)

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors; 0 for a vocabulary without weights."""
        return sum(tensor.num_elements for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float | None:
        """Mean over all tensors, block scales included; None without tensors."""
        num_bytes = sum(tensor.num_bytes for tensor in self.tensors)
        return 8 * num_bytes / self.num_parameters if self.tensors else None

    @property
    def file_type(self) -> str | None:
        """The quantisation recipe that the file claims ("Q4_K_M"); see `main_quantisation`."""
        from gguf import LlamaFileType

        if (number := self._find("general.file_type", int)) is None:
            return None
        try:
            return str(LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_"))
        except ValueError:
            return f"unknown ({number})"

    @property
    def main_quantisation(self) -> str | None:
        """The tensor type that holds most bytes; None without tensors."""
        num_bytes: Counter[str] = Counter()
        for tensor in self.tensors:
            num_bytes[tensor.type] += tensor.num_bytes
        return num_bytes.most_common(1)[0][0] if num_bytes else None

    @property
    def has_super_blocks(self) -> bool:
        """True where any tensor is quantised in blocks of 256, as K- and I-quants are."""
        return any(t.type.endswith("_K") or t.type.startswith("IQ") for t in self.tensors)

    @property
    def context_length(self) -> int:
        """Tokens the model was trained for."""
        return self._count("context_length")

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return self._count("block_count")

    @property
    def num_heads(self) -> int:
        """Query heads; the most in any layer where layers differ."""
        heads = self._heads("head_count")
        if heads is None or (most := max(heads, default=0)) == 0:
            raise self._refused(f"says no {self.architecture}.attention.head_count")
        return most

    @property
    def num_kv_heads(self) -> int:
        """Key and value heads; the most in any layer where layers differ."""
        return max(self._heads("head_count_kv") or (self.num_heads,))

    @property
    def head_dim(self) -> tuple[int, int]:
        """Elements of one head's key and of one head's value."""
        return self._head_length("key_length"), self._head_length("value_length")

    def kv_bytes_per_token(self, type_bytes: float = 2.0) -> int:
        """Bytes of KV cache that one token takes, over all layers.

        An upper bound where layers attend through a window or keep a recurrent state instead.

        Args:
            type_bytes: bytes per element; 2 = F16, 34/32 = Q8_0.
        """
        heads = self._heads("head_count_kv") or (self.num_heads,)
        total = sum(heads) if len(heads) > 1 else heads[0] * self.num_layers
        return math.ceil(total * sum(self.head_dim) * type_bytes)

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary, padding included."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, tuple | ArrayRef) else self._count("vocab_size")

    @property
    def tokenizer_model(self) -> str | None:
        """The kind of tokenizer: "gpt2" is BPE, "llama" is SentencePiece."""
        return self._find("tokenizer.ggml.model", str)

    @property
    def tokenizer_pre(self) -> str | None:
        """llama.cpp's name of the pre-tokenizer; a wrong one costs accuracy silently."""
        return self._find("tokenizer.ggml.pre", str)

    @property
    def bos_id(self) -> int | None:
        """Beginning of sequence."""
        return self._token_id("bos")

    @property
    def eos_id(self) -> int | None:
        """End of sequence."""
        return self._token_id("eos")

    @property
    def eot_id(self) -> int | None:
        """End of turn, where it is another token than `eos_id`."""
        return self._token_id("eot")

    @property
    def add_bos(self) -> bool | None:
        """What the file says about writing a BOS; `wants_bos` is what holds."""
        return self._find("tokenizer.ggml.add_bos_token", bool)

    @property
    def wants_bos(self) -> bool:
        """Whether a prompt must begin with a BOS: what the file says, else llama.cpp's defaults."""
        if (said := self.add_bos) is not None:
            return said
        model = self.tokenizer_model
        return model in _BOS_TOKENIZERS or (
            model == "gpt2" and self.tokenizer_pre in _BOS_PRE_TOKENIZERS
        )

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of its chat template; None for a base model."""
        return self._find("tokenizer.chat_template", str) or None

    def token(self, token_id: int) -> str:
        """The text of one token as the vocabulary writes it: "<s>", "Ġthe"."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, tuple | ArrayRef) and 0 <= token_id < len(tokens):
            return str(tokens[token_id])
        raise self._refused(f"has no token {token_id} in its vocabulary")

    def _token_id(self, name: str) -> int | None:
        key = f"tokenizer.ggml.{name}_token_id"
        if (token_id := self._find(key, int)) is not None and not 0 <= token_id < self.vocab_size:
            raise self._refused(f"{key} is {token_id}, outside its {self.vocab_size:,} tokens")
        return token_id

    def _head_length(self, name: str) -> int:
        if f"{self.architecture}.attention.{name}" in self.metadata:
            return self._count(f"attention.{name}")
        return self._count("embedding_length") // self.num_heads

    def _heads(self, name: str) -> tuple[int, ...] | None:
        """One number for all layers, or one per layer; None where the file does not say."""
        key = f"{self.architecture}.attention.{name}"
        value = self.metadata.get(key)
        counts = value if isinstance(value, tuple) else (value,)
        if value is None:
            return None
        if isinstance(value, tuple) and len(value) != self.num_layers:
            raise self._refused(f"{key} has {len(value)} values for {self.num_layers} layers")
        if any(type(count) is not int or count < 0 for count in counts):
            raise self._refused(f"{key} is {shown(value)}, not a number of heads")
        return counts

    def _count(self, name: str) -> int:
        key = f"{self.architecture}.{name}"
        if (value := self._need(key, int)) < 1:
            raise self._refused(f"{key} is {value}, which must be positive")
        return value

    def _need(self, key: str, kind: type[T]) -> T:
        if (value := self._find(key, kind)) is None:
            raise self._refused(f"says no {key}")
        return value

    def _find(self, key: str, kind: type[T]) -> T | None:
        if (value := self.metadata.get(key)) is None:
            return None
        if type(value) is not kind:  # isinstance would take True for a number
            raise self._refused(f"{key} is {shown(value)}, not of type {kind.__name__}")
        return value

    def _refused(self, message: str) -> RefusedError:
        return RefusedError(
            f"{self.path}: {message}", hint="use a file that llama.cpp's tools made"
        )


def read_gguf(path: Path | str) -> GGUFInfo:
    """Read the header of a GGUF file and check all of it.

    A file that another process shortens while its header is being read ends this process (SIGBUS):
    that is how mapped files work. Nothing is mapped any more when this returns.

    Raises:
        MissingError: there is no such file.
        RefusedError: the file must not be used; the message says what was found.
        MedlocalError: the system does not let it be read.
    """
    path = Path(path)
    with _map(path) as data:
        header = read_header(path, data)
        return GGUFInfo(path, header.version, len(data), header.metadata, header.tensors)


def _map(path: Path) -> mmap.mmap:
    """Map a file that begins like a GGUF."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            kind = "a folder" if path.is_dir() else "no regular file"
            raise RefusedError(f"{path} is {kind}, not a GGUF file", hint="name one .gguf file")
        with path.open("rb") as file:
            _check_beginning(path, file.read(512))
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        hint = "check the path, or get the model with `medlocal models pull`"
        raise MissingError(f"there is no file {path}", hint=hint) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise MedlocalError(f"{path} cannot be read: {error}") from error


def _check_beginning(path: Path, head: bytes) -> None:
    if not head:
        raise RefusedError(f"{path} is empty", hint=PULL_AGAIN)
    if len(head) >= 4 and not head.startswith(b"GGUF"):
        found = _looks_like(head) or f"it begins with {head[:8]!r}"
        raise RefusedError(f"{path} is not a GGUF file: {found}", hint="name a .gguf file")
    if len(head) < 24:
        raise RefusedError(
            f"{path} has {len(head)} bytes, and a GGUF header has 24", hint=PULL_AGAIN
        )


def _looks_like(head: bytes) -> str:
    """What a file that is not GGUF seems to be; "" where nothing comes to mind."""
    text = head.lstrip().lower()
    signs = (
        (head[8:9] == b"{", "it looks like safetensors weights"),
        (head.startswith(b"PK\x03\x04"), "it looks like a zip archive, such as PyTorch weights"),
        (text.startswith((b"<!doctype", b"<html", b"<?xml")), "it looks like a web page"),
        (
            head.startswith(b"version https://git-lfs"),
            "it looks like a git-lfs pointer, not the file",
        ),
        (head[:4] in {b"lmgg", b"fmgg", b"tjgg"}, "it looks like GGML, which came before GGUF"),
    )
    return next((name for fits, name in signs if fits), "")
