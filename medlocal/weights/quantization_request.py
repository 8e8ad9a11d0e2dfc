"""What is asked of quantising, checked against the files that are there, before any work.

Whatever can be refused by looking at names and headers is refused here: an unknown type, a file in
the way, a source that is quantised already, a pattern that fits no tensor, another model's importance
matrix. What llama.cpp makes of the request is `quantization_plan`'s. Nothing is written.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlocal.errors import RefusedError, UsageError
from medlocal.files import Progress, file_sha256, no_progress
from medlocal.weights.header import TensorInfo
from medlocal.weights.inspect import GGUFInfo, read_gguf
from medlocal.weights.provenance import read_provenance
from medlocal.weights.recipes import Recipe, TensorType, is_quantised, recipe, tensor_type

if TYPE_CHECKING:
    from medlocal.weights.importance import Importance

MOST_THREADS = 512
"""ggml's own limit (GGML_MAX_N_THREADS); far beyond it the system gives no more, and C++ aborts."""
_MISSING_SHARE = 0.1
"""Of the layers that a matrix may say nothing of: those that only draft tokens are not computed."""
_ECMASCRIPT_LACKS = re.compile(
    r"\[\^?(?:\\.|[^\]\\])*\]|(?P<lacking>\\[AZ]|\(\?(?![:=!])(?:<[=!]|P?<|.?)|\{,)|\\."
)
"""Finds, past sets of characters and escapes, what Python's expressions have and ECMAScript's do not."""


@dataclass(frozen=True, slots=True)
class QuantizeRequest:
    """What is to be made of a GGUF."""

    source: Path
    types: tuple[str, ...]
    """Recipes, such as "Q4_K_M"."""
    folder: Path
    """For the results; made if it is not there."""
    imatrix: Path | None = None
    """An importance matrix of the same model."""
    keep: tuple[str, ...] = ()
    """"PATTERN=TYPE": tensors whose names the regular expression is found in get that type."""
    output_type: str | None = None
    """Tensor type of output.weight; None = as the recipe has it."""
    embedding_type: str | None = None
    """Tensor type of token_embd.weight; None = as the recipe has it."""
    num_threads: int = 1
    allow_requantize: bool = False
    """Round numbers again that were rounded to a few levels already."""
    force: bool = False
    """Replace results that are there."""
    hash_cache: Path | None = None
    """Where checksums are remembered; None = nowhere."""


@dataclass(frozen=True)
class Checked:
    """A request that nothing speaks against, with what was read to find that out."""

    request: QuantizeRequest
    info: GGUFInfo
    recipes: tuple[Recipe, ...]
    paths: tuple[Path, ...]
    """Of the results, one per recipe."""
    keep: tuple[tuple[str, TensorType], ...]
    """Patterns and the types that tensors of such names get."""
    matrix: "Importance | None"
    requantised_from: str
    """Main types of the quantised files on the source's way, its own last; "" where there are none."""
    is_foreign_matrix: bool = False
    """The matrix says that it was computed on another file than the source and its parent."""

    def kept_type(self, name: str) -> tuple[str, TensorType] | None:
        """The pattern by which the user chose the type of this tensor, and the type."""
        chosen = {
            "output.weight": self.request.output_type,
            "token_embd.weight": self.request.embedding_type,
        }
        if chosen.get(name):  # llama.cpp lets their own options go first
            return None
        return next((kept for kept in self.keep if re.search(kept[0], name)), None)

    def is_kept(self, name: str) -> bool:
        """Whether a pattern of the user's chose the type of this tensor."""
        return self.kept_type(name) is not None


def check_request(request: QuantizeRequest, progress: Progress = no_progress) -> Checked:
    """Check a request.

    Args:
        request: what is asked.
        progress: told of the source's bytes that were hashed, where its matrix names its model.

    Raises:
        MissingError: there is no such GGUF or matrix.
        RefusedError: a file must not be used: damaged, quantised already, another model's matrix.
        UsageError: an unknown type, a pattern that fits nothing, a result that is there already.
    """
    if not 1 <= request.num_threads <= MOST_THREADS:
        raise UsageError(
            f"{request.num_threads:,} threads: between 1 and {MOST_THREADS} are possible",
            hint=f"this machine has {os.cpu_count()} cores; fewer with --threads",
        )
    info = read_gguf(request.source)
    if not info.tensors:
        raise RefusedError(f"{info.path} has no tensors, only a vocabulary")
    wanted = tuple(dict.fromkeys(recipe(name) for name in request.types))
    if not wanted:
        raise UsageError("no type is named", hint="name one or several, such as Q4_K_M Q8_0")
    paths = tuple(request.folder / f"{request.source.stem}-{r.name}.gguf" for r in wanted)
    _check_folder(request.folder)
    _check_targets(request, paths)
    matrix = _matrix(request, info)
    return Checked(
        request=request,
        info=info,
        recipes=wanted,
        paths=paths,
        keep=_keep(request, info),
        matrix=matrix,
        requantised_from=_requantised_from(request, info),
        is_foreign_matrix=matrix is not None and _is_foreign(matrix, request, info, progress),
    )


def matrix_hint(request: QuantizeRequest) -> str:
    """How to get an importance matrix for the source."""
    return f"make one: medlocal imatrix {request.source} --text en:FILE --text es:FILE"


def _check_folder(folder: Path) -> None:
    """Refuse a folder that could not be made or written to: an hour later would be too late."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UsageError(f"{there} is no folder", hint="name a folder for the results with -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"nothing can be written in {there}", hint="choose another folder with -o")


def _check_targets(request: QuantizeRequest, paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            continue
        if path.samefile(request.source):
            raise UsageError(f"{path} is the source itself", hint="choose another folder with -o")
        if not request.force:
            raise UsageError(
                f"{path} is there already",
                hint="replace it with --force, or choose a folder with -o",
            )


def _requantised_from(request: QuantizeRequest, info: GGUFInfo) -> str:
    """The types of the source's way, its own last; "" where its numbers are as they were trained."""
    num_bytes: Counter[str] = Counter()
    for tensor in info.tensors:
        if is_quantised(tensor.type):
            num_bytes[tensor.type] += tensor.num_bytes
    main = num_bytes.most_common(1)[0][0] if num_bytes else ""
    before = read_provenance(info).requantised_from
    if (main or before) and not request.allow_requantize:
        state = f"is quantised already ({main})" if main else f"was made from a {before} file"
        raise RefusedError(
            f"{info.path} {state}: what was lost does not come back, and the rest is rounded twice",
            hint="quantise the F32, F16 or BF16 file, or pass --allow-requantize",
        )
    return ", ".join(filter(None, (before, main)))


def _keep(request: QuantizeRequest, info: GGUFInfo) -> tuple[tuple[str, TensorType], ...]:
    """The patterns with their types, checked against the model's tensors."""
    keep = []
    for text in request.keep:
        pattern, separator, name = text.rpartition("=")
        if not (separator and pattern):
            raise UsageError(f"--keep {text}: no PATTERN=TYPE", hint="as in --keep attn_v=Q8_0")
        keep.append((pattern, kind := tensor_type(name)))
        _check_columns(info, _matching(info, pattern), kind, f"--keep {text}")
    for option, tensor_name, chosen in (
        ("--output-type", "output.weight", request.output_type),
        ("--token-embedding-type", "token_embd.weight", request.embedding_type),
    ):
        if chosen:
            tensors = [tensor for tensor in info.tensors if tensor.name == tensor_name]
            _check_columns(info, tensors, tensor_type(chosen), f"{option} {chosen}")
    return tuple(keep)


def _matching(info: GGUFInfo, pattern: str) -> list[TensorInfo]:
    lacking = (found["lacking"] for found in _ECMASCRIPT_LACKS.finditer(pattern))
    if part := next(filter(None, lacking), None):
        raise UsageError(
            f"--keep {pattern}: {part} means something else to llama.cpp, or nothing",
            hint="its expressions are ECMAScript's: ^ and $ for the ends, [Aa] for either case",
        )
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--keep {pattern}: no regular expression: {error}") from error
    if not (found := [tensor for tensor in info.tensors if compiled.search(tensor.name)]):
        raise UsageError(
            f"--keep {pattern}: no tensor of {info.path} has such a name",
            hint="parts of names are enough: attn_v, ffn_down, blk.0., output.weight",
        )
    return found


def _check_columns(
    info: GGUFInfo, tensors: Iterable[TensorInfo], kind: TensorType, option: str
) -> None:
    for tensor in tensors:
        if len(tensor.shape) > 1 and tensor.shape[0] % kind.block:
            raise UsageError(
                f"{option}: {tensor.name} of {info.path} has rows of {tensor.shape[0]:,}, which"
                f" {kind.name}'s blocks of {kind.block} do not divide",
                hint="Q8_0 has blocks of 32, F16 and BF16 have none",
            )


def _matrix(request: QuantizeRequest, info: GGUFInfo) -> "Importance | None":
    """The importance matrix, which must be this model's."""
    if request.imatrix is None:
        return None
    from medlocal.weights.importance import read_importance

    matrix = read_importance(request.imatrix)
    tensors = {tensor.name: tensor for tensor in info.tensors}
    for name, sums in matrix.sums.items():
        if (tensor := tensors.get(name)) is None:
            raise _foreign(request, f"it has an entry for {name}, which is no tensor of this model")
        if sums.size != (num_columns := tensor.shape[0] * _num_matrices(tensor)):
            raise _foreign(request, f"{name} has {num_columns:,} columns, and {sums.size:,} there")
    layers = {_layer(t.name) for t in info.tensors if len(t.shape) > 1} - {None}
    missing = layers - {_layer(name) for name in matrix.sums}
    if len(missing) > _MISSING_SHARE * len(layers):
        raise _foreign(request, f"it has no entry for {len(missing)} of its {len(layers)} layers")
    return matrix


def _is_foreign(
    matrix: "Importance", request: QuantizeRequest, info: GGUFInfo, progress: Progress
) -> bool:
    """Whether the matrix names a model that is neither the source nor next to it on its way.

    One that was computed on the BF16 is right for what was made from it, and the other way round.
    """
    models = {matrix.model_sha256, matrix.model_parent_sha256} - {""}
    if not models or read_provenance(info).parent_sha256 in models:
        return False
    return file_sha256(request.source, progress, request.hash_cache) not in models


def _num_matrices(tensor: TensorInfo) -> int:
    """1, or the number of experts."""
    return tensor.shape[2] if len(tensor.shape) > 2 else 1


def _layer(name: str) -> int | None:
    """The layer that a tensor belongs to; None for one that belongs to none."""
    return int(found[1]) if (found := re.match(r"blk\.(\d+)\.", name)) else None


def _foreign(request: QuantizeRequest, why: str) -> RefusedError:
    return RefusedError(
        f"{request.imatrix} is not an importance matrix of {request.source}: {why}",
        hint=matrix_hint(request),
    )
