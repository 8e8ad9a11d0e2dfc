"""What quantising a GGUF will make, found out before any work: types, sizes, and what to know of them.

llama.cpp itself says what becomes of each tensor, in a dry run that reads the header only; the sizes
follow from shapes and types. A matrix that is needed and not there, a full disk and too little memory
are found here. Nothing is written.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from medlocal import __version__
from medlocal.errors import MedlocalError, UsageError
from medlocal.files import Progress, leftover_notes, no_progress
from medlocal.libllama import available_memory, build_info
from medlocal.weights.header import TensorInfo
from medlocal.weights.importance import shares_to_texts
from medlocal.weights.inspect import GGUFInfo
from medlocal.weights.kernels import slow_types
from medlocal.weights.provenance import KEYS, MAX_VALUE_BYTES, Provenance, cleared, fitted
from medlocal.weights.quantization_request import (
    Checked,
    QuantizeRequest,
    check_request,
    matrix_hint,
)
from medlocal.weights.quantizer import Job, Quantizer
from medlocal.weights.recipes import (
    FLOATS,
    Recipe,
    TensorType,
    needs_matrix,
    tensor_type,
    tensor_types,
)

_ALIGNMENT = 32
"""Of tensors in what llama.cpp writes."""
_BASE_BYTES = 120 * 2**20
"""Of the process that quantises, without any tensor; measured: 84 MiB."""
_MOST_BUFFER_BYTES = 8 * 2**30
"""llama.cpp's own limit for the rows of a tensor that it holds at a time."""
_LEAST_BUFFER_BYTES = 64 * 2**20
_SHARE = 0.8
"""Of the memory that is free now, what may be taken: other programs live too."""
_SLOW_SHARE = 0.05
"""Of a file's bytes, from where on a slow type is worth a warning."""


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """What becomes of one tensor."""

    source: TensorInfo
    kind: TensorType
    """Its type in the result."""

    @property
    def num_bytes(self) -> int:
        """In the result."""
        return self.kind.num_bytes(self.source.num_elements)

    @property
    def buffer_bytes(self) -> int:
        """What llama.cpp holds to make it: its numbers as F32 and the result; 0 = it is copied."""
        if self.kind.name == self.source.type:
            return 0
        unpacked = 0 if self.source.type == "F32" else 4 * self.source.num_elements
        return unpacked + self.num_bytes


@dataclass(frozen=True)
class PlannedFile:
    """One file that will be made."""

    recipe: Recipe
    path: Path
    tensors: tuple[PlannedTensor, ...]
    job: Job = field(repr=False)
    """That makes it; without its target."""
    header_bytes: int
    warnings: tuple[str, ...] = ()
    """What its maker should know of it, a sentence each."""

    @cached_property
    def num_bytes(self) -> int:
        """Of the whole file, predicted."""
        return self.header_bytes + sum(_padded(t.num_bytes) for t in self.tensors)

    @cached_property
    def bits_per_weight(self) -> float:
        """Mean over all tensors, block scales included."""
        num_elements = sum(t.source.num_elements for t in self.tensors)
        return 8 * sum(t.num_bytes for t in self.tensors) / num_elements

    @cached_property
    def bytes_by_type(self) -> Mapping[str, int]:
        """How many bytes of tensors each type has."""
        num_bytes: Counter[str] = Counter()
        for tensor in self.tensors:
            num_bytes[tensor.kind.name] += tensor.num_bytes
        return num_bytes


@dataclass(frozen=True)
class Plan:
    """All that will be made."""

    request: QuantizeRequest
    info: GGUFInfo
    """Of the source."""
    files: tuple[PlannedFile, ...]
    peak_bytes: int
    """Memory of the process that quantises, predicted; the mapped source is not counted, because
    the system takes its pages back where it needs them."""

    @property
    def num_bytes(self) -> int:
        """Of all results."""
        return sum(file.num_bytes for file in self.files)


def plan_quantisation(request: QuantizeRequest, progress: Progress = no_progress) -> Plan:
    """Find out what quantising will make.

    Args:
        request: what is asked.
        progress: told of the source's bytes that were hashed, where its matrix names its model.

    Raises:
        MissingError: there is no such GGUF or matrix.
        RefusedError: a file must not be used: damaged, quantised already, another model's matrix.
        UsageError: an unknown type, a pattern that fits nothing or does nothing, a matrix that is
            needed and not given, a result that is there already.
        MedlocalError: llama.cpp cannot quantise this model, or the disk or the memory has not
            enough room.
    """
    checked = check_request(request, progress)
    buffer_bytes = _buffer_bytes(available_memory())
    commit = build_info()["commit"]
    files = []
    with Quantizer() as quantizer:
        for wanted, path in zip(checked.recipes, checked.paths, strict=True):
            job = _job(checked, wanted, buffer_bytes, commit)
            tensors = _dry_run(checked, quantizer, job)
            _check_kept(checked, wanted, tensors)
            _check_matrix(checked, wanted, tensors)
            file = PlannedFile(wanted, path, tensors, job, _header_bytes(checked.info, job))
            files.append(replace(file, warnings=tuple(_warnings(checked, file))))
    plan = Plan(request, checked.info, tuple(files), _peak_bytes(checked, files, buffer_bytes))
    _require_room(plan)
    return plan


def _job(checked: Checked, wanted: Recipe, buffer_bytes: int, commit: str) -> Job:
    request = checked.request
    output, embedding = request.output_type, request.embedding_type
    matrix = checked.matrix
    made = Provenance(
        version=__version__,
        requantised_from=checked.requantised_from,
        llama_commit=commit,
        corpus_sha256=matrix.corpus_sha256 or "" if matrix else "",
        corpus_shares=" ".join(shares_to_texts(matrix.shares)) if matrix else "",
    )
    return Job(
        source=str(request.source),
        target="",
        recipe=wanted.number,
        num_threads=request.num_threads,
        max_buffer_bytes=buffer_bytes,
        output_type=tensor_type(output).number if output else None,
        embedding_type=tensor_type(embedding).number if embedding else None,
        keep=tuple((pattern, kind.number) for pattern, kind in checked.keep),
        entries=tuple(
            {
                **dict(cleared(checked.info)),
                **made.entries(),
                **dict(_matrix_entries(checked)),
            }.items()
        ),
        imatrix=str(request.imatrix or ""),
        allow_requantize=request.allow_requantize,
    )


def _matrix_entries(checked: Checked) -> Iterator[tuple[str, str | int]]:
    """What llama.cpp's own tool writes of an importance matrix."""
    if (matrix := checked.matrix) is None:
        return
    yield KEYS["imatrix_file"], fitted(str(checked.request.imatrix))
    if matrix.datasets:
        yield KEYS["imatrix_dataset"], _named(matrix.datasets)
    yield KEYS["imatrix_entries"], len(matrix.sums)
    if matrix.num_chunks > 0:
        yield KEYS["imatrix_chunks"], matrix.num_chunks


def _named(datasets: Sequence[str]) -> str:
    """All of them, or how many there are beside the first, as far as a value holds them."""
    if len((every := ", ".join(datasets)).encode()) <= MAX_VALUE_BYTES:
        return every
    more = f" and {len(datasets) - 1} more" if len(datasets) > 1 else ""
    return fitted(datasets[0], MAX_VALUE_BYTES - len(more)) + more


def _dry_run(checked: Checked, quantizer: Quantizer, job: Job) -> tuple[PlannedTensor, ...]:
    """What llama.cpp would make of each tensor, in the source's order."""
    pieces: list[str] = []
    try:
        quantizer.run(job, lambda _level, piece: pieces.append(piece))
    except MedlocalError as error:
        if "regular expression" not in error.message:
            raise
        raise UsageError(
            f"llama.cpp cannot read {' or '.join(pattern for pattern, _ in checked.keep)}:"
            f" {error.message.rpartition('failed to quantize: ')[2]}",
            hint="write --keep's pattern as an ECMAScript regular expression",
        ) from error
    kinds = planned_types(pieces)
    tensors = checked.info.tensors
    if missing := [tensor.name for tensor in tensors if tensor.name not in kinds]:
        raise MedlocalError(
            f"llama.cpp does not say what becomes of {missing[0]} of {job.source}",
            hint="this llama-cpp-python is another one than medlocal was made for",
        )
    types = tensor_types()
    return tuple(PlannedTensor(t, types[kinds[t.name] or t.type]) for t in tensors)


def planned_types(pieces: Sequence[str]) -> dict[str, str]:
    """Read the log of a dry run.

    Args:
        pieces: of the log, in order.

    Returns:
        For each tensor the type that it would get, or "" where it would stay as it is.
    """
    kinds: dict[str, str] = {}
    name = ""
    for piece in pieces:
        if begun := begun_tensor(piece):
            name = begun
        elif name and (found := re.match(r"size = .*?(?:\((\w+)\))?\s*$", piece)):
            kinds[name] = (found[1] or "").upper()
            name = ""
    return kinds


def begun_tensor(piece: str) -> str:
    """The tensor that llama.cpp says it begins with, as in "[ 2/ 272] NAME - […"; "" elsewhere."""
    found = re.match(r"\[ *\d+/ *\d+\] (.*?) +- \[", piece)
    return found[1] if found else ""


def _check_kept(checked: Checked, wanted: Recipe, tensors: Sequence[PlannedTensor]) -> None:
    """Refuse a pattern that llama.cpp reads in another way, or that fits only what it never touches."""
    if wanted.main.name in FLOATS:  # where patterns do nothing, and a warning says so
        return
    for number, (pattern, kind) in enumerate(checked.keep):
        meant = [t for t in tensors if checked.kept_type(t.source.name) == checked.keep[number]]
        others = [t for t in meant if t.kind.name != kind.name]
        # Norms and routers are left as they are, and a part of a name often fits them too.
        changed = [t for t in others if t.kind.name != t.source.type]
        if changed or (others and len(others) == len(meant)):
            tensor = (changed or others)[0]
            raise UsageError(
                f"--keep {pattern}={kind.name} would do nothing for {tensor.source.name}: llama.cpp"
                f" makes it {tensor.kind.name}",
                hint="its expressions are ECMAScript's, and tensors of one dimension stay as they are",
            )


def _check_matrix(checked: Checked, wanted: Recipe, tensors: Sequence[PlannedTensor]) -> None:
    """Refuse what llama.cpp would refuse in the midst of its work."""
    needing = [
        t.source.name for t in tensors if needs_matrix(t.source.name, t.kind.name, wanted.name)
    ]
    hint = matrix_hint(checked.request)
    if needing and checked.matrix is None:
        raise UsageError(
            f"{wanted.name} needs an importance matrix: without one {len(needing)} tensors, from"
            f" {needing[0]} on, would be garbage",
            hint=f"{hint}, then pass it with --imatrix",
        )
    if missing := [n for n in needing if checked.matrix and n not in checked.matrix.sums]:
        raise UsageError(
            f"{checked.request.imatrix} has no entry for {missing[0]}, which {wanted.name} needs"
            f" ({len(missing)} tensors)",
            hint=f"{hint}; or keep such tensors in a type that needs none: --keep NAME=Q4_K",
        )


def _header_bytes(info: GGUFInfo, job: Job) -> int:
    """Of the result: the source's, and the entries that are added, the parent's checksum too."""
    entries: dict[str, str | int] = {
        "general.file_type": 0,
        "general.quantization_version": 0,
        KEYS["parent_sha256"]: "0" * 64,
        **dict(job.entries),
    }
    added = sum(
        _value_bytes(value) - _value_bytes(info.metadata[key])
        if key in info.metadata
        else 8 + len(key) + 4 + _value_bytes(value)
        for key, value in entries.items()
    )
    return _padded(min(tensor.offset for tensor in info.tensors) + added)


def _value_bytes(value: object) -> int:
    """Of a text, or of a number of four bytes."""
    return 8 + len(value.encode()) if isinstance(value, str) else 4


def _warnings(checked: Checked, file: PlannedFile) -> Iterator[str]:
    yield from (fallbacks := list(_fallbacks(checked, file)))
    if not fallbacks and file.recipe.main.name not in file.bytes_by_type:
        yield f"no tensor of this model becomes {file.recipe.main.name}"
    if checked.requantised_from:
        yield f"made from {checked.requantised_from}, whose losses stay in it"
    yield from _keep_warnings(checked, file)
    yield from _matrix_warnings(checked, file)
    if file.num_bytes >= checked.info.size and file.recipe.main.name not in FLOATS:
        yield "not smaller than its source"
    total = sum(file.bytes_by_type.values())
    for name, why in slow_types(file.bytes_by_type).items():
        if (share := file.bytes_by_type[name] / total) >= _SLOW_SHARE:
            yield f"{share:.0%} of it is {name}: {why}"
    yield from leftover_notes(file.path, "a quantisation")


def _keep_warnings(checked: Checked, file: PlannedFile) -> Iterator[str]:
    if checked.keep and file.recipe.main.name in FLOATS:
        yield f"--keep does nothing for {file.recipe.name}: all tensors get that type"
    elif untouched := [t.source.name for t in file.tensors if _is_untouched(checked, t)]:
        yield f"--keep does nothing for {len(untouched)} tensors, such as {untouched[0]}"


def _matrix_warnings(checked: Checked, file: PlannedFile) -> Iterator[str]:
    if (matrix := checked.matrix) is None:
        return
    if checked.is_foreign_matrix:
        yield (
            f"{checked.request.imatrix} was computed on another file than the source or what that was"
            " made from: its shapes fit, but it may be another model's"
        )
    made = [t for t in file.tensors if t.buffer_bytes and t.source.name not in matrix.sums]
    # Embeddings and output are not in most matrices, and do well without.
    if without := [t.source.name for t in made if t.source.name.startswith("blk.")]:
        yield f"the matrix says nothing of {len(without)} tensors, such as {without[0]}"


def _is_untouched(checked: Checked, tensor: PlannedTensor) -> bool:
    """Whether a pattern fits a matrix that llama.cpp never quantises: a router of experts."""
    kept = checked.kept_type(tensor.source.name)
    is_left = tensor.kind.name == tensor.source.type and len(tensor.source.shape) > 1
    return is_left and kept is not None and kept[1].name != tensor.kind.name


def _fallbacks(checked: Checked, file: PlannedFile) -> Iterator[str]:
    """Tensors that cannot have the recipe's type, because its blocks do not divide their rows."""
    block = file.recipe.main.block
    kinds = Counter(
        t.kind.name
        for t in file.tensors
        if t.buffer_bytes and t.source.shape[0] % block and not checked.is_kept(t.source.name)
    )
    if kinds:
        became = ", ".join(f"{number} became {name}" for name, number in kinds.most_common())
        yield (
            f"{kinds.total()} of {len(file.tensors)} tensors have rows that blocks of {block} do"
            f" not divide: {became}"
        )


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


def _buffer_bytes(available: int | None) -> int:
    """How much of a tensor llama.cpp may hold at a time; less is slower and changes no byte.

    Raises:
        MedlocalError: there is not even room for the least that makes sense.
    """
    if available is None:
        return _MOST_BUFFER_BYTES
    room = int(available * _SHARE) - _BASE_BYTES
    if room < _LEAST_BUFFER_BYTES:
        needed = (_BASE_BYTES + _LEAST_BUFFER_BYTES) / _SHARE
        raise MedlocalError(
            f"quantising needs {needed / 2**20:,.0f} MiB of memory, and"
            f" {available / 2**20:,.0f} MiB are free",
            hint="close other programs",
        )
    return min(room, _MOST_BUFFER_BYTES)


def _peak_bytes(checked: Checked, files: Sequence[PlannedFile], buffer_bytes: int) -> int:
    largest = max(t.buffer_bytes for file in files for t in file.tensors)
    matrix = checked.matrix
    # Once as read, once as llama.cpp copies it.
    sums = 2 * sum(s.nbytes for s in matrix.sums.values()) if matrix else 0
    return _BASE_BYTES + min(largest, buffer_bytes) + sums


def _require_room(plan: Plan) -> None:
    folder = plan.request.folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < plan.num_bytes:
        sizes = ", ".join(f"{f.recipe.name} {f.num_bytes / 2**20:,.0f}" for f in plan.files)
        raise MedlocalError(
            f"the results take {plan.num_bytes / 2**20:,.0f} MiB ({sizes}), and the disk that holds"
            f" {folder} has {free / 2**20:,.0f} MiB free",
            hint="make room, choose another folder with -o, or ask for fewer types",
        )
