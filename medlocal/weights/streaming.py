"""Write planned tensors behind a header: cast in threads, written in order.

A few rows at a time go from a mapped checkpoint through `casting` into the file, and their memory
is given back at once, so that it depends on neither the model's size nor its largest tensor. The
order of the bytes does not depend on the threads. What the tensors are is planned elsewhere.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import RefusedError
from medlocal.files import Progress
from medlocal.weights.casting import NotFiniteError, cast, num_bytes
from medlocal.weights.header import shown
from medlocal.weights.llama_layout import Placement, interleave
from medlocal.weights.writer import padding

T = TypeVar("T")

_BLOCK_ELEMENTS = 2**21
"""Elements that are cast at a time: 4 MiB of bfloat16, which stay in a processor's cache."""
_WRITE_BYTES = 2**18
"""Handed to the system at a time. For a larger write Linux looks for larger runs of free memory, and
where it finds none at once it takes several times as long."""


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the new file."""

    name: str
    shape: tuple[int, ...]
    """numpy's order: rows first."""
    type: str
    """A name in `casting.TARGETS`."""
    placement: Placement | None
    """None = computed: `values`."""
    values: NDArray[np.float32] | None = None

    @property
    def num_elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes in the file, without the padding that follows."""
        return num_bytes(self.num_elements, self.type)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes that are ready, and what to do once they are written."""

    data: Any
    forget: Callable[[], None] | None = None


@dataclass(slots=True)
class StreamedFile:
    """A file that is being written."""

    stream: IO[bytes]
    name: str
    """For the progress."""
    total: int
    """Bytes of the whole file."""
    progress: Progress
    done: int = 0

    def write(self, header: bytes, tensors: Sequence[PlannedTensor], num_threads: int) -> None:
        """Write all of it.

        Raises:
            RefusedError: a weight is no finite number, or the type cannot hold it.
        """
        with ThreadPoolExecutor(num_threads) as pool:
            for piece in _in_order(pool, _jobs(header, tensors), 2 * num_threads):
                self._put(memoryview(piece.data).cast("B"))
                if piece.forget:
                    piece.forget()

    def _put(self, data: memoryview) -> None:
        for start in range(0, len(data), _WRITE_BYTES):
            self.stream.write(data[start : start + _WRITE_BYTES])
        self.done += len(data)
        self.progress(f"writing {self.name}", self.done, self.total)


def _in_order(pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], T]], depth: int) -> Iterator[T]:
    """The jobs' results in the jobs' order, at most `depth` of them under way or waiting."""
    waiting: deque[Future[T]] = deque()
    for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _jobs(header: bytes, tensors: Sequence[PlannedTensor]) -> Iterator[Callable[[], _Piece]]:
    yield partial(_Piece, header)
    for tensor in tensors:
        if tensor.placement is None:
            yield partial(_Piece, tensor.values)
        else:
            yield from _blocks(tensor, tensor.placement)
        if rest := padding(tensor.num_bytes):
            yield partial(_Piece, bytes(rest))


def _blocks(tensor: PlannedTensor, placement: Placement) -> Iterator[Callable[[], _Piece]]:
    """The rows of a tensor, block by block; a block never ends inside a head."""
    num_rows = placement.source.num_rows
    unit = num_rows // placement.num_heads if placement.num_heads else 1
    row_elements = max(tensor.num_elements // num_rows, 1)
    step = max(_BLOCK_ELEMENTS // row_elements // unit, 1) * unit
    for start in range(0, num_rows, step):
        yield partial(_block, tensor.type, placement, start, min(start + step, num_rows))


def _block(target: str, placement: Placement, start: int, stop: int) -> _Piece:
    source = placement.source
    try:
        rows = cast(source.rows(start, stop), source.type, target)
    except NotFiniteError as error:
        raise _refused(placement, start, error, target) from error
    if placement.num_heads:
        heads = placement.num_heads * (stop - start) // source.num_rows
        rows = interleave(rows, heads)
    return _Piece(rows, partial(source.forget, start, stop))


def _refused(placement: Placement, start: int, error: NotFiniteError, target: str) -> RefusedError:
    source = placement.source
    place = [start + error.row, error.column][: len(source.shape)]
    what = f"{source.file.path}: the tensor {shown(source.name)} holds {error.value:g} at {place}"
    if error.is_cast:
        return RefusedError(
            f"{what}, which {target.lower()} cannot hold", hint="convert with --type bf16 or f32"
        )
    return RefusedError(
        f"{what}, which is no weight",
        hint="the checkpoint is damaged: get it again, or ask its maker",
    )
