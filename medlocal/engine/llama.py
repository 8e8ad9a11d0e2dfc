"""Computing with a loaded model: a context of llama.cpp, called over our own numpy arrays.

The high-level `Llama` class is not used: it keeps one sequence and resets it. Which batch to
compute, and what the numbers mean, is decided elsewhere; loading a model is `libllama`'s.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from medlocal.engine.batching import Batch, Limits
from medlocal.engine.sequence import Logits
from medlocal.errors import MedlocalError
from medlocal.libllama import LOG, LlamaModel, OutOfMemoryError, library, read_buffers

KV_TYPES = {"f16": 1, "bf16": 30}
"""Names of KV types and ggml's numbers for them."""
_ALLOCATION_FAILED = -2
"""What `llama_decode` returns where a buffer could not be had."""

ONE_KERNEL = ("bf16", "f16")
"""Types of keys and values for which llama.cpp's attention on a CPU has one kernel whatever the batch.

Where both have one type, batches of 64 rows and more take another kernel and single rows a third,
with other last bits. The kernel for unequal types adds up cell by cell, in the order of the cells,
and skips masked ones: a result depends neither on the batch nor on what lies in other cells. BF16
keys use the processor's own dot product; F16 values are added without being converted (BF16 values
took 15 % more time for a whole run)."""


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


class LlamaDecoder:
    """A context: computes batches and keeps their KV. One per model and thread."""

    def __init__(self, model: LlamaModel, options: ContextOptions) -> None:
        """Make the context.

        Raises:
            OutOfMemoryError: there is not enough memory.
            MedlocalError: llama.cpp refuses the options.
        """
        lib = library()
        LOG.lines.clear()
        self.options = options
        self.limits = options.limits
        self.num_vocab = model.num_vocab
        self.ends = model.ends
        self._lib = lib
        self._context = lib.llama_init_from_model(model.handle, self._params())
        if not self._context:
            kind = OutOfMemoryError if LOG.is_out_of_memory else MedlocalError
            raise kind(
                f"no context of {options.num_cells} cells for {model.path}: {LOG.errors()}",
                hint="free memory, or choose a smaller context with --context",
            )
        self._memory = lib.llama_get_memory(self._context)
        self._log_facts = _read_log()
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
            OutOfMemoryError: a buffer for it could not be had.
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
        LOG.lines.clear()
        code = self._lib.llama_decode(self._context, self._batch)
        if code:
            reason = "the KV cache is full" if code == 1 else LOG.errors() or "no reason given"
            is_short = code == _ALLOCATION_FAILED or LOG.is_out_of_memory
            kind = OutOfMemoryError if is_short else MedlocalError
            raise kind(f"llama.cpp could not compute a batch (code {code}): {reason}")

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
            "kv_types": list(self.options.kv_types),
            **self._log_facts,
        }

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None


def _read_log() -> dict[str, object]:
    """What the log of making a context says.

    The number of splits tells whether a device left part of its graph to another: whole on one
    device it is 1 or 2.
    """
    splits = LOG.search(r"graph.*splits = (\d+)")
    sizes: dict[str, int] = {}
    for buffer in read_buffers(line for _, line in LOG.lines):
        name = f"{buffer.name} {buffer.part}"
        sizes[name] = sizes.get(name, 0) + buffer.num_bytes
    return {
        "flash_attention": bool(LOG.search(r"flash_attn\s*=\s*enabled")),
        "graph_splits": int(splits[1]) if splits else None,
        "buffer_bytes": sizes,
    }
