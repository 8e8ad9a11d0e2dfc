"""Compute an importance matrix from a user's text, with checkpoints that a later call goes on from.

A chunk of text at a time goes through the model, and the inputs of its matrices are summed. Every so
often the sums are kept beside the result, in float64, so that a run that was stopped ends with the
very numbers that an uninterrupted one gives. How text is read and mixed stands in `corpus`, what is
summed in `activations`, how the result is kept in `importance`; nothing here prints.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from medlocal.errors import Interrupted, MedlocalError, RefusedError, UsageError
from medlocal.files import disk_errors, require_room
from medlocal.libllama import LlamaModel
from medlocal.weights.activations import Activations, Collector
from medlocal.weights.arrays import Value, read_arrays, write_arrays
from medlocal.weights.corpus import (
    Corpus,
    CorpusOptions,
    CorpusPart,
    LanguageText,
    make_corpus,
    read_texts,
)
from medlocal.weights.forward import Forward, ForwardOptions
from medlocal.weights.importance import (
    CHUNK_SIZE,
    CORPUS_SHA256,
    COUNTS,
    MODEL_SHA256,
    NUM_CHUNKS,
    SHARES,
    SUMS,
    Importance,
    shares_to_texts,
    write_importance,
)
from medlocal.weights.inspect import GGUFInfo, read_gguf
from medlocal.weights.provenance import KEYS

FEWEST_TOKENS = 16
"""Of a chunk: llama.cpp's tool leaves out products of fewer rows."""
MOST_THREADS = 512
"""ggml's own limit (GGML_MAX_N_THREADS), beyond which it ends the process."""
_MOST_ROWS = 512
_PARTIAL_KIND = "imatrix, unfinished"
_ROOM_HINT = "make room, or write to another disk with -o"
_WITH_OUTPUT = "medlocal.imatrix.with_output"
_MEANING = {
    MODEL_SHA256: "model (SHA-256)",
    CORPUS_SHA256: "text (SHA-256)",
    SHARES: "shares",
    CHUNK_SIZE: "tokens per chunk",
    _WITH_OUTPUT: "choice about the output matrix",
}


@dataclass(frozen=True)
class ImatrixRequest:
    """What is to be computed."""

    model: Path
    """A GGUF."""
    parts: tuple[CorpusPart, ...]
    out: Path
    num_threads: int
    model_sha256: str = ""
    """Must be known to `collect`, not to `check_request`."""
    shares: Mapping[str, Fraction] = field(default_factory=dict)
    """Of the chunks, by language; see `CorpusOptions`."""
    chunk_tokens: int = 512
    max_chunks: int | None = None
    """None = as many as the text gives."""
    save_every: int = 200
    """Chunks between two checkpoints."""
    with_output: bool = False
    """Collect for the output matrix too; llama.cpp's tool does not unless told to."""

    @property
    def partial(self) -> Path:
        """Where the checkpoint lies until the result is there."""
        return self.out.with_name(f"{self.out.name}.partial")


@dataclass(frozen=True, slots=True)
class ImatrixProgress:
    """How far the computation has come."""

    done: int
    """Chunks, those of earlier calls included."""
    total: int
    num_tokens: int
    """Computed in this call."""
    seconds: float
    """Of this call's computation."""

    @property
    def tokens_per_second(self) -> float:
        """Of this call."""
        return self.num_tokens / self.seconds if self.seconds else 0.0

    def seconds_left(self, chunk_tokens: int) -> float | None:
        """Until the end, at the speed so far; None before the first chunk."""
        left = (self.total - self.done) * chunk_tokens
        return left / self.tokens_per_second if self.tokens_per_second else None


@dataclass(frozen=True)
class Collected:
    """What was computed."""

    path: Path
    importance: Importance
    num_tokens: Mapping[str, int]
    """Computed, by language, those of earlier calls included."""
    unused_chunks: Mapping[str, int]
    """Whole chunks of text that were not computed, by language."""
    limited_by: str | None
    """The language whose text ended first, where that ended the computation; see `Corpus`."""
    resumed_at: int
    """Chunks that earlier calls had computed."""
    seconds: float
    without_entry: tuple[str, ...]
    """The layers' matrices that the computation never multiplied with."""


def collect(
    request: ImatrixRequest,
    show: Callable[[ImatrixProgress], None],
    should_stop: Callable[[], bool],
) -> Collected:
    """Compute an importance matrix, or go on with one, and publish it.

    Args:
        request: what to compute.
        show: told of the progress after each chunk.
        should_stop: asked after each chunk; True keeps a checkpoint and ends.

    Raises:
        UsageError: the request cannot be met: text, shares, chunk size, the result's folder.
        MissingError: a file is not there.
        RefusedError: the model cannot be used, or the checkpoint is of another computation.
        Interrupted: `should_stop` said so; the checkpoint is kept.
        MedlocalError: the disk is full, or llama.cpp failed. Where the result could not be written,
            all chunks are kept in a checkpoint.
    """
    info, texts = check_request(request)
    with LlamaModel(request.model) as model:
        options = CorpusOptions(
            chunk_tokens=request.chunk_tokens,
            bos=model.bos if info.wants_bos else None,
            shares=request.shares,
            max_chunks=request.max_chunks,
        )
        work = _Work.begin(request, make_corpus(texts, model.tokenize, options), _parent(info))
        started = time.monotonic()
        for _ in work.chunks(model):
            seconds = time.monotonic() - started
            num_tokens = (work.done - work.resumed_at) * request.chunk_tokens
            show(ImatrixProgress(work.done, work.total, num_tokens, seconds))
            work.keep(stop=should_stop())
        importance = work.publish()
    return _collected(work, info, importance, time.monotonic() - started)


@dataclass
class _Work:
    """The sums so far, and how many chunks are in them."""

    request: ImatrixRequest
    corpus: Corpus
    activations: Activations
    resumed_at: int
    done: int
    model_parent_sha256: str

    @classmethod
    def begin(cls, request: ImatrixRequest, corpus: Corpus, model_parent_sha256: str) -> "_Work":
        """Begin with nothing, or with the checkpoint.

        Raises:
            RefusedError: the checkpoint is of another computation, or damaged.
        """
        if not request.partial.exists():
            return cls(request, corpus, Activations(), 0, 0, model_parent_sha256)
        activations, done = _read_partial(request.partial, _identity(request, corpus))
        if done > len(corpus):
            raise _refused_partial(
                request.partial, f"has {done:,} chunks, more than the {len(corpus):,} wanted"
            )
        return cls(request, corpus, activations, done, done, model_parent_sha256)

    @property
    def total(self) -> int:
        return len(self.corpus)

    def chunks(self, model: LlamaModel) -> Iterator[int]:
        """Compute the chunks that are left; yields how many are done after each."""
        collector = Collector(self.activations, with_output=self.request.with_output)
        with _forward(model, self.request, collector) as forward:
            for _, tokens in self.corpus.chunks(self.done):
                # All positions are wanted: for the others the last layer would be left out.
                for _ in forward.blocks(tokens.tolist(), 0):
                    collector.next_graph()
                self.done += 1
                yield self.done

    def keep(self, *, stop: bool) -> None:
        """Keep a checkpoint where it is time for one.

        Raises:
            Interrupted: the computation is to stop here.
        """
        if self.done == self.total:
            return
        if stop or self.done % self.request.save_every == 0:
            with disk_errors(self.request.partial, _ROOM_HINT):
                self._save()
        if stop:
            raise Interrupted(
                f"stopped after {self.done:,} of {self.total:,} chunks, which are kept in"
                f" {self.request.partial}",
                hint="give the same command again to carry on",
            )

    def publish(self) -> Importance:
        """Write the result, and remove the checkpoint.

        Raises:
            MedlocalError: it could not be written; then all chunks are in the checkpoint.
        """
        request, importance = self.request, self.importance()
        with disk_errors(request.out, _ROOM_HINT):
            try:
                write_importance(request.out, importance)
            except OSError as error:
                self._save()
                raise MedlocalError(
                    f"{request.out} could not be written: {error.strerror or error}; all"
                    f" {self.done:,} chunks are kept in {request.partial}",
                    hint="make room or change the permissions, and give the same command again",
                ) from error
            request.partial.unlink(missing_ok=True)
        return importance

    def _save(self) -> None:
        identity = _identity(self.request, self.corpus)
        _write_partial(self.request.partial, identity, self.activations, self.done)

    def importance(self) -> Importance:
        parts = self.request.parts
        return Importance(
            entries=self.activations.entries(),
            num_chunks=self.done,
            chunk_size=self.request.chunk_tokens,
            # Only the names: a path tells of the user's machine, and the matrix is handed on.
            datasets=tuple(f"{p.language}:{p.path.name}".lstrip(":") for p in parts),
            corpus_sha256=self.corpus.sha256,
            shares=self.corpus.shares,
            model_sha256=self.request.model_sha256,
            model_parent_sha256=self.model_parent_sha256,
        )


@contextmanager
def _forward(model: LlamaModel, request: ImatrixRequest, collector: Collector) -> Iterator[Forward]:
    """A context that computes a chunk in equal rows: a short last one would not be collected."""
    num_blocks = math.ceil(request.chunk_tokens / _MOST_ROWS)
    options = ForwardOptions(
        num_tokens=request.chunk_tokens,
        num_threads=request.num_threads,
        num_rows=math.ceil(request.chunk_tokens / num_blocks),
    )
    with Forward(model, options, collector) as forward:
        yield forward


def check_request(request: ImatrixRequest) -> tuple[GGUFInfo, tuple[LanguageText, ...]]:
    """Check all that costs little, before a model of gigabytes is hashed and loaded.

    Returns:
        What the model's header says, and the texts.

    Raises:
        UsageError, MissingError, RefusedError, MedlocalError: as `collect` says.
    """
    texts = read_texts(request.parts)
    info = read_gguf(request.model)
    _check_numbers(request, info)
    _check_out(request.out)
    columns = sum(_num_columns(tensor.shape) for tensor in info.tensors)
    # A result in float32, a checkpoint in float64, and the next one before it takes its place.
    require_room(request.out.parent, columns * (4 + 8 + 8), _ROOM_HINT)
    return info, texts


def _check_out(out: Path) -> None:
    """Refuse a result that could not be written, by trying it out in its folder."""
    if not out.parent.is_dir():
        raise UsageError(
            f"there is no folder {out.parent}", hint="make it, or write elsewhere with -o"
        )
    if out.exists():
        raise UsageError(f"{out} is there already", hint="remove it, or name another file with -o")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"nothing can be written in {out.parent}: {error.strerror or error}",
            hint="write elsewhere with -o",
        ) from error


def _check_numbers(request: ImatrixRequest, info: GGUFInfo) -> None:
    if request.chunk_tokens < FEWEST_TOKENS:
        raise UsageError(
            f"chunks of {request.chunk_tokens} tokens are too short",
            hint=f"{FEWEST_TOKENS} is the least, 512 is usual: --chunk-tokens 512",
        )
    if request.chunk_tokens > info.context_length:
        raise UsageError(
            f"chunks of {request.chunk_tokens:,} tokens are longer than the"
            f" {info.context_length:,} that the model was trained for",
            hint="choose fewer with --chunk-tokens",
        )
    if request.save_every < 1 or (request.max_chunks is not None and request.max_chunks < 1):
        raise UsageError("a number of chunks must be at least 1", hint="leave the option out")
    if not 1 <= request.num_threads <= MOST_THREADS:
        raise UsageError(
            f"{request.num_threads:,} threads: between 1 and {MOST_THREADS} are possible",
            hint=f"this machine has {os.cpu_count()} cores; fewer with --threads",
        )


def _parent(info: GGUFInfo) -> str:
    """Of which file the model says that it was quantised from it; "" = it does not say."""
    value = info.metadata.get(KEYS["parent_sha256"])
    return value if isinstance(value, str) else ""


def _num_columns(shape: tuple[int, ...]) -> int:
    return shape[0] * math.prod(shape[2:]) if len(shape) > 1 else 0


def _collected(work: _Work, info: GGUFInfo, importance: Importance, seconds: float) -> Collected:
    corpus = work.corpus
    return Collected(
        path=work.request.out,
        importance=importance,
        num_tokens=corpus.num_tokens(),
        unused_chunks={
            name: count - corpus.order.count(name) for name, count in corpus.available.items()
        },
        limited_by=corpus.limited_by,
        resumed_at=work.resumed_at,
        seconds=seconds,
        without_entry=without_entry(info, importance),
    )


def without_entry(info: GGUFInfo, importance: Importance) -> tuple[str, ...]:
    """Matrices of the model's layers that an importance matrix says nothing of, in file order."""
    matrices = (t.name for t in info.tensors if t.name.startswith("blk.") and len(t.shape) > 1)
    return tuple(name for name in matrices if name not in importance.entries)


def _identity(request: ImatrixRequest, corpus: Corpus) -> dict[str, Value]:
    """What must be the same for a computation to go on; the number of chunks may grow."""
    return {
        MODEL_SHA256: request.model_sha256,
        CORPUS_SHA256: corpus.sha256,
        SHARES: shares_to_texts(corpus.shares),
        CHUNK_SIZE: request.chunk_tokens,
        _WITH_OUTPUT: int(request.with_output),
    }


def _write_partial(
    path: Path, identity: Mapping[str, Value], activations: Activations, done: int
) -> None:
    keys = {"general.type": _PARTIAL_KIND, NUM_CHUNKS: done, **identity}
    arrays = {}
    for name, sums in activations.sums.items():
        arrays[name + SUMS] = sums
        arrays[name + COUNTS] = activations.counts[name].astype(np.float64)[:, None]
    write_arrays(path, keys, arrays)


def _read_partial(path: Path, identity: Mapping[str, Value]) -> tuple[Activations, int]:
    try:
        info, arrays = read_arrays(path)
    except RefusedError as error:  # whose hint is about files that were fetched
        raise _refused_partial(path, f"is damaged: {error.message}") from error
    done = info.metadata.get(NUM_CHUNKS)
    if info.metadata.get("general.type") != _PARTIAL_KIND or type(done) is not int or done < 1:
        raise _refused_partial(path, "is no checkpoint of an importance matrix")
    for key, value in identity.items():
        if (found := info.metadata.get(key)) != value:
            raise _refused_partial(
                path, f"was begun with another {_MEANING[key]}: {found}, and now {value}"
            )
    activations = Activations()
    for name in arrays:
        if not name.endswith(SUMS):
            continue
        weight = name.removesuffix(SUMS)
        if (counts := arrays.get(weight + COUNTS)) is None or arrays[name].size % counts.size:
            raise _refused_partial(path, f"has no counts that fit {name}")
        activations.sums[weight] = arrays[name].astype(np.float64).reshape(counts.size, -1)
        activations.counts[weight] = np.rint(counts.ravel()).astype(np.int64)
    return activations, done


def _refused_partial(path: Path, message: str) -> RefusedError:
    hint = "remove it to start again, or write elsewhere with -o"
    return RefusedError(f"the checkpoint {path} {message}", hint=hint)
