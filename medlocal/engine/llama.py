"""The seam to llama.cpp: the only module that imports llama_cpp.

Its low-level interface, called over our own numpy arrays. The high-level `Llama` class is not used:
it keeps one sequence and resets it. This module loads a model, turns text into ids and back, and
computes batches; which batch to compute, and what the numbers mean, is decided elsewhere.

llama.cpp writes its log to stderr by itself; here it is caught and kept, so that a failure can be
told with llama.cpp's own words and a screen is never overwritten.
"""

import ctypes
import os
import re
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from medlocal.engine.batching import Batch, Limits
from medlocal.engine.sequence import Logits
from medlocal.errors import MedlocalError, RefusedError

_LOG_LINES = 400
_BUSY_CORES = 0.5
"""From here on another process is taken to be at work."""
_DEBUG, _ERROR = 1, 4
"""ggml's own levels; llama_cpp's table of them is off by one."""


KV_TYPES = {"f16": 1, "bf16": 30}
"""Names of KV types and ggml's numbers for them."""

ONE_KERNEL = ("bf16", "f16")
"""Types of keys and values for which llama.cpp's attention on a CPU has one kernel whatever the batch.

Where both have one type, batches of 64 rows and more take another kernel and single rows a third,
with other last bits. The kernel for unequal types adds up cell by cell, in the order of the cells,
and skips masked ones: a result depends neither on the batch nor on what lies in other cells. BF16
keys use the processor's own dot product; F16 values are added without being converted (BF16 values
took 15 % more time for a whole run)."""


class _Log:
    """The last lines that llama.cpp logged, with their level."""

    def __init__(self) -> None:
        self.lines: deque[tuple[int, str]] = deque(maxlen=_LOG_LINES)
        self._callback: Any = None

    def install(self, lib: Any) -> None:
        if self._callback is None:
            self._callback = lib.llama_log_callback(self._take)
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _user: object) -> None:
        line = text.decode("utf-8", "replace").rstrip("\n")
        if level != _DEBUG and line.strip(". "):
            self.lines.append((level, line))

    def errors(self) -> str:
        return "; ".join(line for level, line in self.lines if level == _ERROR)[-500:]

    def search(self, pattern: str) -> re.Match[str] | None:
        """The last line that fits."""
        for _, line in reversed(self.lines):
            if found := re.search(pattern, line):
                return found
        return None


_LOG = _Log()


def _library() -> Any:
    """llama_cpp, with its log caught and its backends ready. Imported on first use: 0.5 s."""
    if _LOG._callback is None:
        _choose_waiting()
    import llama_cpp

    if _LOG._callback is None:
        _LOG.install(llama_cpp)
        llama_cpp.llama_backend_init()
    return llama_cpp


def _choose_waiting() -> None:
    """Tell OpenMP how its threads wait for each other, before its library is loaded.

    Spinning is 20 to 40 % faster as long as every thread has a core to itself. With anything else
    at work on one of the cores it is 6 times slower than sleeping, because all threads spin until
    the one that was put aside comes back. So the machine is looked at first, for a tenth of a second.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    if _num_busy_cores(0.1) > _BUSY_CORES:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _num_busy_cores(seconds: float) -> float:
    """Cores' worth of work that other processes do now; 0 where the system does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    first = _idle_and_total(stat)
    time.sleep(seconds)
    idle, total = (b - a for a, b in zip(first, _idle_and_total(stat), strict=True))
    return (1 - idle / total) * (os.cpu_count() or 1) if total else 0.0


def _idle_and_total(stat: Path) -> tuple[int, int]:
    ticks = [int(n) for n in stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _ggml(name: str) -> ctypes.CDLL:
    folder = Path(_library().__file__).parent / "lib"
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    return ctypes.CDLL(str(folder / f"lib{name}.{suffix}"))


@dataclass(frozen=True, slots=True)
class Device:
    """A device that this build of llama.cpp can compute on."""

    name: str
    description: str
    kind: str
    """`cpu`, `gpu`, `igpu` or `accel`."""
    free_bytes: int
    total_bytes: int


def devices() -> list[Device]:
    """The devices that llama.cpp sees, with their memory."""
    registry, base = _ggml("ggml"), _ggml("ggml-base")
    registry.ggml_backend_dev_count.restype = ctypes.c_size_t
    registry.ggml_backend_dev_get.restype = ctypes.c_void_p
    registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name in ("name", "description"):
        getattr(base, f"ggml_backend_dev_{name}").restype = ctypes.c_char_p
        getattr(base, f"ggml_backend_dev_{name}").argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p] + [
        ctypes.POINTER(ctypes.c_size_t)
    ] * 2
    found = []
    for number in range(registry.ggml_backend_dev_count()):
        device = registry.ggml_backend_dev_get(number)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        kind = ("cpu", "gpu", "igpu", "accel")[min(base.ggml_backend_dev_type(device), 3)]
        name = base.ggml_backend_dev_name(device).decode()
        description = base.ggml_backend_dev_description(device).decode()
        found.append(Device(name, description, kind, free.value, total.value))
    return found


def build_info() -> dict[str, str]:
    """Which llama.cpp this is: the commit identifies it, its build number does not."""
    lib, base = _library(), _ggml("ggml-base")
    base.ggml_commit.restype = base.ggml_version.restype = ctypes.c_char_p
    return {
        "llama_cpp_python": lib.__version__,
        "ggml": base.ggml_version().decode(),
        "commit": base.ggml_commit().decode(),
        "system": " ".join(lib.llama_print_system_info().decode().split()),
        "gpu_offload": "yes" if lib.llama_supports_gpu_offload() else "no",
    }


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """How a context is made. Part of a result's identity: another micro-batch, other last bits."""

    num_cells: int
    """KV cells."""
    num_rows: int
    """Rows of one call; batch and micro-batch are the same, so that one call is one graph."""
    num_ids: int
    """Sequence ids, at most 256."""
    num_threads: int
    num_outputs: int
    """Rows of one call whose logits may be wanted."""
    min_rows: int = 1
    """See `Limits.min_rows`."""
    num_texts: int = 32
    """Texts generated side by side."""
    kv_types: tuple[str, str] = ("f16", "f16")
    """Of keys and of values, names in `KV_TYPES`; see `ONE_KERNEL`."""

    @property
    def limits(self) -> Limits:
        """The same, as the planner wants it."""
        return Limits(
            num_cells=self.num_cells,
            num_rows=self.num_rows,
            num_ids=self.num_ids,
            num_texts=self.num_texts,
            num_outputs=self.num_outputs,
            min_rows=self.min_rows,
        )


@dataclass
class LlamaModel:
    """A loaded model and its vocabulary."""

    path: Path
    repack: bool = True
    """Let llama.cpp repack weights for this processor. For K-quants the repacked kernels give
    other last bits when a prompt is split elsewhere, so exact mode does without."""
    gpu_layers: int = -1
    """Layers to offload; -1 = all that there are, where there is a GPU."""
    _model: Any = field(init=False, repr=False, default=None)
    _vocab: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Load the file.

        Raises:
            RefusedError: llama.cpp cannot load it.
        """
        lib = _library()
        _LOG.lines.clear()
        params = lib.llama_model_default_params()
        params.use_extra_bufts = self.repack
        params.n_gpu_layers = self.gpu_layers
        self._model = lib.llama_model_load_from_file(str(self.path).encode(), params)
        if not self._model:
            raise RefusedError(
                f"llama.cpp could not load {self.path}: {_LOG.errors() or 'no reason given'}",
                hint="check the file with `medlocal models verify`, or get it again",
            )
        self._vocab = lib.llama_model_get_vocab(self._model)
        found = _LOG.search(r"offloaded (\d+)/(\d+) layers")
        self.layers_offloaded = int(found[1]) if found else 0
        """Layers really on a GPU, as llama.cpp's log says."""

    def close(self) -> None:
        """Free the weights. Contexts must be closed before."""
        if self._model:
            _library().llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def num_vocab(self) -> int:
        """Size of the vocabulary."""
        return int(_library().llama_vocab_n_tokens(self._vocab))

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(_library().llama_model_size(self._model))

    @cached_property
    def bos(self) -> int | None:
        """Beginning-of-sequence token; None where the vocabulary has none."""
        token = int(_library().llama_vocab_bos(self._vocab))
        return token if token >= 0 else None

    @cached_property
    def ends(self) -> frozenset[int]:
        """End-of-generation tokens."""
        is_end = _library().llama_vocab_is_eog
        return frozenset(t for t in range(self.num_vocab) if is_end(self._vocab, t))

    @cached_property
    def pieces(self) -> dict[int, bytes]:
        """Text of every token that can stand in a text, control tokens left out."""
        lib = _library()
        hidden = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        hidden |= lib.LLAMA_TOKEN_ATTR_UNUSED
        pieces = {}
        for token in range(self.num_vocab):
            if token in self.ends or lib.llama_vocab_get_attr(self._vocab, token) & hidden:
                continue
            pieces[token] = self.piece(token)
        return pieces

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """How the control tokens are spelled: texts that no question may hold."""
        lib = _library()
        texts = []
        for token in range(self.num_vocab):
            if lib.llama_vocab_get_attr(self._vocab, token) & lib.LLAMA_TOKEN_ATTR_CONTROL:
                text = lib.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
                texts.append(text)
        return tuple(text for text in texts if text)

    def piece(self, token: int) -> bytes:
        """The bytes of one token; b"" for a control token."""
        lib = _library()
        buffer = ctypes.create_string_buffer(64)
        n = lib.llama_token_to_piece(self._vocab, token, buffer, 64, 0, False)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = lib.llama_token_to_piece(self._vocab, token, buffer, -n, 0, False)
        return buffer.raw[:n]

    def tokenize(self, text: bytes, *, special: bool = False) -> list[int]:
        """Token ids of a text, without BOS.

        Args:
            text: UTF-8.
            special: read `<|im_start|>` and its like as control tokens. Chat templates need it;
                text that comes from a question or a user must not have it.
        """
        lib = _library()
        size = len(text) + 8
        buffer = (lib.llama_token * size)()
        n = lib.llama_tokenize(self._vocab, text, len(text), buffer, size, False, special)
        if n < 0:
            buffer = (lib.llama_token * -n)()
            n = lib.llama_tokenize(self._vocab, text, len(text), buffer, -n, False, special)
        return list(buffer[:n])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens; bytes that are no UTF-8 become U+FFFD.

        A SentencePiece vocabulary writes a space before the first word of any text: it is not
        part of the answer.
        """
        raw = b"".join(self.piece(t) for t in tokens)
        if self.is_sentencepiece:
            raw = raw.removeprefix(b" ")
        return raw.decode("utf-8", "replace")

    @cached_property
    def is_sentencepiece(self) -> bool:
        """True for the vocabularies of Llama 2 and Mistral 7B."""
        lib = _library()
        return bool(lib.llama_vocab_type(self._vocab) == lib.LLAMA_VOCAB_TYPE_SPM)


class LlamaDecoder:
    """A context: computes batches and keeps their KV. One per model and thread."""

    def __init__(self, model: LlamaModel, options: ContextOptions) -> None:
        """Make the context.

        Raises:
            MedlocalError: there is not enough memory, or llama.cpp refuses the options.
        """
        lib = _library()
        self.options = options
        self.limits = options.limits
        self.num_vocab = model.num_vocab
        self.ends = model.ends
        self._lib = lib
        self._context = lib.llama_init_from_model(model._model, self._params())
        if not self._context:
            raise MedlocalError(
                f"no context of {options.num_cells} cells for {model.path}: {_LOG.errors()}",
                hint="free memory, or choose a smaller context with --context",
            )
        self._memory = lib.llama_get_memory(self._context)
        self._make_arrays()

    def _params(self) -> Any:
        lib, options = self._lib, self.options
        params = lib.llama_context_default_params()
        params.n_ctx = options.num_cells
        params.n_batch = params.n_ubatch = options.num_rows
        params.n_seq_max = options.num_ids
        # llama.cpp reserves an output for every sequence id, and aborts where fewer are allowed.
        params.n_outputs_max = max(options.num_outputs, options.num_ids)
        params.n_outputs_max_per_seq = 0
        params.n_threads = params.n_threads_batch = options.num_threads
        # Without flash attention the softmax runs over all cells of the cache, other sequences'
        # masked ones among them, and its last bits depend on where they lie.
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        # A cache of its own per sequence aborts the process on a partial copy.
        params.kv_unified = True
        params.type_k, params.type_v = (KV_TYPES[name] for name in options.kv_types)
        params.no_perf = True
        return params

    def _make_arrays(self) -> None:
        """Arrays that every batch is written into: rows are at most `num_rows`."""
        n, width = self.options.num_rows, self.options.num_ids
        self._tokens = np.zeros(n, np.int32)
        self._positions = np.zeros(n, np.int32)
        self._num_ids = np.zeros(n, np.int32)
        self._ids = np.zeros((n, width), np.int32)
        self._outputs = np.zeros(n, np.int8)
        starts = self._ids.ctypes.data + np.arange(n, dtype=np.uint64) * self._ids.strides[0]
        self._id_starts = starts.astype(np.uint64)
        lib = self._lib
        self._batch = lib.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(ctypes.POINTER(lib.llama_token)),
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(lib.llama_pos)),
            n_seq_id=self._num_ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._id_starts.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))),
            logits=self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def decode(self, batch: Batch) -> None:
        """Compute a batch.

        Raises:
            MedlocalError: llama.cpp refused it; the cache is then as it was before.
        """
        n = len(batch)
        self._tokens[:n] = batch.tokens
        self._positions[:n] = batch.positions
        self._outputs[:n] = batch.outputs
        for row, ids in enumerate(batch.ids):
            self._num_ids[row] = len(ids)
            self._ids[row, : len(ids)] = ids
        self._batch.n_tokens = n
        code = self._lib.llama_decode(self._context, self._batch)
        if code:
            reason = "the KV cache is full" if code == 1 else _LOG.errors() or "no reason given"
            raise MedlocalError(f"llama.cpp could not compute a batch (code {code}): {reason}")

    def logits(self, row: int) -> Logits:
        """The logits of a wanted row of the last batch: a view, valid until the next batch."""
        address = self._lib.llama_get_logits_ith(self._context, row)
        assert bool(address), f"row {row} was not wanted"
        return np.ctypeslib.as_array(address, shape=(self.num_vocab,))

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let a sequence share the cells of another at positions start … end-1."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, start, end)

    def remove(self, sequence: int) -> None:
        """Take a sequence id off all its cells; cells without an id are free."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        """Empty the cache."""
        self._lib.llama_memory_clear(self._memory, False)

    def facts(self) -> dict[str, object]:
        """What llama.cpp says it really uses, read back."""
        lib = self._lib
        return {
            "context_cells": lib.llama_n_ctx(self._context),
            "batch": lib.llama_n_batch(self._context),
            "micro_batch": lib.llama_n_ubatch(self._context),
            "threads": lib.llama_n_threads_batch(self._context),
            "flash_attention": bool(_LOG.search(r"flash_attn\s*=\s*enabled")),
            "kv_types": list(self.options.kv_types),
        }

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None
