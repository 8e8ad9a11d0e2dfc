"""A text through a model, chunk by chunk, with the logits of all wanted positions.

For what looks at a model as a whole: its importance matrix, its perplexity, its distance from
another. Each chunk is computed by itself, from an empty cache, in rows of at most `num_rows`.
Nothing here knows what the logits are for, nor where the text comes from; evaluating questions,
where prompts share prefixes, is the engine's.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import MedlocalError
from medlocal.libllama import LOG, LlamaModel, library

Watch = Callable[[int, bool], bool]
"""Told of every tensor of the graph: its address and whether it is only asked for. Asked, it says
whether it wants the tensor's values; told, whether the computation goes on (llama.cpp's `cb_eval`)."""


@dataclass(frozen=True, slots=True)
class ForwardOptions:
    """How a text is computed."""

    num_tokens: int
    """Of a chunk, at most: the context's size."""
    num_threads: int
    num_rows: int = 512
    """Of one call; batch and micro-batch are the same, so that one call is one graph."""


class Forward:
    """A context for whole chunks. One per model and thread."""

    def __init__(
        self, model: LlamaModel, options: ForwardOptions, watch: Watch | None = None
    ) -> None:
        """Make the context.

        Raises:
            MedlocalError: there is not enough memory.
        """
        lib = library()
        self._lib = lib
        self._options = options
        self._num_vocab = model.num_vocab
        self._failure: BaseException | None = None
        self._callback = (
            lib.ggml_backend_sched_eval_callback(self._guarded(watch)) if watch else None
        )
        self._context = lib.llama_init_from_model(model.handle, self._params())
        if not self._context:
            raise MedlocalError(
                f"no context of {options.num_tokens} tokens for {model.path}: {LOG.errors()}",
                hint="free memory, or choose shorter chunks",
            )
        self._memory = lib.llama_get_memory(self._context)

    def _params(self) -> Any:
        options = self._options
        params = self._lib.llama_context_default_params()
        params.n_ctx = options.num_tokens
        params.n_batch = params.n_ubatch = min(options.num_rows, options.num_tokens)
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = options.num_threads
        params.no_perf = True
        if self._callback is not None:
            params.cb_eval = self._callback
        return params

    def _guarded(self, watch: Watch) -> Callable[[int, bool, object], bool]:
        """A callback for C: what it raises is kept and raised again after the computation."""

        def told(tensor: int, ask: bool, _user: object) -> bool:
            if self._failure is not None:
                return False
            try:
                return watch(tensor, ask)
            except BaseException as error:  # an exception cannot pass through C
                self._failure = error
                return False

        return told

    def blocks(
        self, tokens: Sequence[int], first: int | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Compute one chunk from an empty cache.

        Args:
            tokens: ids, at most `num_tokens`.
            first: the first position whose logits are wanted; None = none are, which saves the
                last layer's work.

        Yields:
            The position of a block's first row, and its logits, (rows, vocabulary): a view, valid
            until the next block.

        Raises:
            MedlocalError: llama.cpp could not compute it. Whatever the watch raised.
        """
        lib = self._lib
        lib.llama_memory_clear(self._memory, True)
        size = min(self._options.num_rows, self._options.num_tokens)
        wanted = len(tokens) if first is None else first
        for start in range(0, len(tokens), size):
            part = np.asarray(tokens[start : start + size], np.int32)
            outputs = np.arange(start, start + len(part)) >= wanted
            self._decode(part, start, outputs.astype(np.int8))
            if num_rows := int(outputs.sum()):
                address = lib.llama_get_logits(self._context)
                shape = (num_rows, self._num_vocab)
                yield max(start, wanted), np.ctypeslib.as_array(address, shape=shape)

    def _decode(self, tokens: NDArray[np.int32], start: int, outputs: NDArray[np.int8]) -> None:
        lib, n = self._lib, len(tokens)
        positions = np.arange(start, start + n, dtype=np.int32)
        num_ids = np.ones(n, np.int32)
        sequence = np.zeros(1, np.int32)
        addresses = np.full(n, sequence.ctypes.data, np.uint64)
        batch = lib.llama_batch(
            n_tokens=n,
            token=tokens.ctypes.data_as(ctypes.POINTER(lib.llama_token)),
            embd=None,
            pos=positions.ctypes.data_as(ctypes.POINTER(lib.llama_pos)),
            n_seq_id=num_ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=addresses.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))),
            logits=outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        code = lib.llama_decode(self._context, batch)
        if self._failure is not None:
            raise self._failure
        if code:
            reason = LOG.errors() or "no reason given"
            raise MedlocalError(f"llama.cpp could not compute a chunk (code {code}): {reason}")

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
