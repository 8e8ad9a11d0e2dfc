"""From a checkpoint folder to one GGUF file, without torch and without holding the weights.

First everything is planned and checked (`checkpoint`, `llama_layout`, `vocabulary`): what the file
will hold is known to the byte before it is begun. Then the weights are streamed (`streaming`), and
the file is hashed, loaded and tried (`converted`) before it gets its name; what goes wrong leaves
nothing under that name.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, TYPE_CHECKING, Any

from medlocal import __version__
from medlocal.errors import MedlocalError, RefusedError, UsageError
from medlocal.files import (
    Progress,
    disk_errors,
    file_sha256,
    leftover_notes,
    no_progress,
    publish,
    require_room,
)
from medlocal.weights.casting import BLOCK
from medlocal.weights.checkpoint import Checkpoint, read_checkpoint
from medlocal.weights.converted import Expected, check_converted
from medlocal.weights.general_keys import describe, file_name, general_entries
from medlocal.weights.hyperparameters import (
    GGUF_ARCHITECTURE,
    ROPE_FACTORS,
    Hyperparameters,
    read_hyperparameters,
    rope_factors,
)
from medlocal.weights.llama_layout import Placement, place
from medlocal.weights.provenance import Provenance, fitted
from medlocal.weights.source import CheckpointSource
from medlocal.weights.streaming import PlannedTensor, StreamedFile
from medlocal.weights.template import ChatTemplate
from medlocal.weights.writer import STRING, UINT32, Entry, TensorEntry, pack_header, padding

if TYPE_CHECKING:
    from medlocal.weights.vocabulary import Vocabulary

FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
"""What a file can be converted to -> llama.cpp's number of the recipe (`general.file_type`)."""
_AUTO = {"BF16": "bf16", "F16": "f16"}
_QUANTIZATION_VERSION = 2
"""ggml's, of the quantised types' layouts."""
_SOURCE_BYTES = 120
_ROOM_HINT = "make room, or name a place on another disk; nothing was left behind"


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """What to convert, into what."""

    source: CheckpointSource
    out: Path
    """A file, or a folder in which the file is named after the model and the type."""
    type: str = "auto"
    """A name in `FILE_TYPES`; "auto" = the checkpoint's own 16-bit type, f16 where it has none."""
    pre: str | None = None
    """The pre-tokenizer, where it is not to be recognised."""
    replace: bool = False
    """True: a file that is there already is replaced."""
    num_threads: int = 2
    hash_cache: Path | None = None
    """A JSON file of known checksums; None = every weight file is read for its checksum."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What came out."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    name: str
    """As the file says it."""
    architecture: str
    type: str
    """A name in `FILE_TYPES`."""
    num_parameters: int
    """Elements of all tensors, rope factors included: as llama.cpp counts them."""
    num_tensors: int
    num_vocab: int
    pre: str
    template_sha256: str
    """Of the chat template in UTF-8; "" = there is none."""
    licence: str
    """As the checkpoint's card declares it; "" = it does not."""
    languages: tuple[str, ...]
    notes: tuple[str, ...]
    """What the user should know of it."""


@dataclass(frozen=True)
class _Plan:
    """A file that is known and not yet written."""

    path: Path
    tensors: tuple[PlannedTensor, ...]
    entries: tuple[Entry, ...]
    """All but where the file comes from, which takes reading the weights."""
    expected: Expected
    result: Callable[[int, str], Converted]
    """What came out, given its size and checksum."""


def convert(request: ConvertRequest, progress: Progress = no_progress) -> Converted:
    """Convert a checkpoint.

    Args:
        request: what to convert, into what.
        progress: told what is being done, in bytes; may be called from another thread.

    Raises:
        UsageError: the type is unknown, or the file is there already.
        MissingError: a file of the checkpoint is missing.
        RefusedError: the checkpoint is damaged, of an unknown kind, or holds a weight that is no
            number; or the new file is not what it should be.
        MedlocalError: the disk is full or cannot be read or written, or memory is full.
    """
    folder = request.source.folder
    try:
        checkpoint = read_checkpoint(folder)

        def checksum(told: Progress) -> str:
            return _source_sha256(request, checkpoint, told)

        with disk_errors(folder, _ROOM_HINT), _meanwhile(checksum, progress) as hashing:
            plan = _plan(request, checkpoint)
            with disk_errors(plan.path.parent, _ROOM_HINT):
                return _write(request, plan, hashing, progress)
    except MemoryError as error:
        raise MedlocalError(
            f"there is not enough memory to convert {folder}",
            hint="close other programs, or convert with one thread: MEDLOCAL_THREADS=1",
        ) from error


def _plan(request: ConvertRequest, checkpoint: Checkpoint) -> _Plan:
    from medlocal.weights.vocabulary import read_vocabulary

    with _named(checkpoint.folder):
        parameters = read_hyperparameters(checkpoint.config)
        placements = place(parameters, checkpoint.tensors)
    file_type = _file_type(request.type, placements)
    tensors = _tensors(parameters, placements, file_type)
    num_parameters = sum(tensor.num_elements for tensor in tensors)
    metadata = describe(checkpoint, request.source.name, num_parameters)
    path = _out_path(request, file_name(metadata, file_type))
    vocabulary = read_vocabulary(
        checkpoint.folder, checkpoint.config, checkpoint.generation, request.pre
    )
    entries = (
        *general_entries(metadata),
        *parameters.entries(FILE_TYPES[file_type]),
        Entry("general.quantization_version", _QUANTIZATION_VERSION, UINT32),
        *(Entry(*entry) for entry in vocabulary.entries()),
    )
    notes = (
        *checkpoint.notes,
        *vocabulary.notes,
        *_notes(parameters, placements),
        *_template_notes(checkpoint.folder, vocabulary),
    )

    def result(size: int, sha256: str) -> Converted:
        return Converted(
            path=path,
            size=size,
            sha256=sha256,
            name=metadata.name,
            architecture=GGUF_ARCHITECTURE,
            type=file_type,
            num_parameters=num_parameters,
            num_tensors=len(tensors),
            num_vocab=len(vocabulary.tokens),
            pre=vocabulary.pre,
            template_sha256=_sha256(vocabulary.chat_template),
            licence=_licence(metadata),
            languages=tuple(metadata.languages or ()),
            notes=(*notes, *leftover_notes(path, "a conversion")),
        )

    return _Plan(path, tensors, entries, _expected(request, checkpoint, vocabulary), result)


def _write(
    request: ConvertRequest, plan: _Plan, checksum: Future[str], progress: Progress
) -> Converted:
    size = sum(tensor.num_bytes + padding(tensor.num_bytes) for tensor in plan.tensors)
    require_room(plan.path.parent, size, _ROOM_HINT)
    provenance = Provenance(
        version=__version__,
        source=fitted(request.source.label, _SOURCE_BYTES),
        revision=request.source.revision,
        source_sha256=checksum.result(),
    )
    entries = [Entry(key, value, STRING) for key, value in provenance.entries().items()]
    header = pack_header([*plan.entries, *entries], [_announced(t) for t in plan.tensors])
    size += len(header)
    with publish(plan.path) as stream:
        file = StreamedFile(stream, plan.path.name, size, progress)
        file.write(header, plan.tensors, request.num_threads)
        stream.flush()
        sha256 = _try(stream, plan, request.num_threads, progress)
    return plan.result(size, sha256)


def _try(stream: IO[bytes], plan: _Plan, num_threads: int, progress: Progress) -> str:
    """Try the written file; a child process is busy with that while it goes to the disk and is hashed.

    Returns:
        The file's SHA-256.
    """
    path = Path(stream.name)

    def settle(told: Progress) -> str:
        os.fsync(stream.fileno())  # `publish` does it too, and then has nothing left to wait for
        return file_sha256(path, told)

    with _meanwhile(settle, no_progress) as hashing:
        progress(f"trying {plan.path.name}", 0, None)
        check_converted(path, plan.expected, num_threads)
        sha256 = hashing.result()
    progress(f"trying {plan.path.name}", 1, 1)
    return sha256


def _expected(
    request: ConvertRequest, checkpoint: Checkpoint, vocabulary: "Vocabulary"
) -> Expected:
    return Expected(
        folder=checkpoint.folder,
        num_vocab=len(vocabulary.tokens),
        is_sentencepiece=vocabulary.model == "llama",
        special_ids=dict(vocabulary.special_ids),
        ends=vocabulary.end_ids,
        forced_pre=request.pre,
    )


def _file_type(asked: str, placements: Sequence[Placement]) -> str:
    if asked in FILE_TYPES:
        return asked
    if asked != "auto":
        raise UsageError(
            f"a checkpoint cannot be converted to {asked!r}",
            hint=f"{', '.join(FILE_TYPES)} or auto; other types are made by `medlocal quantize`",
        )
    kinds = (p.source.type for p in placements if len(p.source.shape) > 1)
    return next((_AUTO[kind] for kind in kinds if kind in _AUTO), "f16")


def _tensors(
    parameters: Hyperparameters, placements: Sequence[Placement], file_type: str
) -> tuple[PlannedTensor, ...]:
    tensors = [
        PlannedTensor(p.name, p.source.shape, _tensor_type(p, file_type.upper()), p)
        for p in placements
    ]
    if (factors := rope_factors(parameters)) is not None:
        tensors.insert(0, PlannedTensor(ROPE_FACTORS, factors.shape, "F32", None, factors))
    return tuple(tensors)


def _tensor_type(placement: Placement, wanted: str) -> str:
    """The type of one tensor: norms and biases are small, and always kept in single precision."""
    if len(placement.source.shape) < 2:
        return "F32"
    if wanted == "Q8_0" and placement.source.shape[-1] % BLOCK:
        return "F16"  # as llama.cpp's converter does with rows that blocks do not divide
    return wanted


def _announced(tensor: PlannedTensor) -> TensorEntry:
    from gguf import GGMLQuantizationType

    kind = int(GGMLQuantizationType[tensor.type])
    return TensorEntry(tensor.name, tensor.shape[::-1], kind, tensor.num_bytes)


def _out_path(request: ConvertRequest, name: str) -> Path:
    out = request.out.expanduser()
    if not out.is_dir() and out.suffix != ".gguf":
        raise UsageError(
            f"{out} is neither a folder nor a name that ends with .gguf",
            hint="make the folder, or name the file",
        )
    path = out / name if out.is_dir() else out
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hint="make it, or name another")
    if path.exists() and not request.replace:
        raise UsageError(f"{path} is there already", hint="--force replaces it")
    return path


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Put the checkpoint's folder before what is found in it by whoever knows no folder."""
    try:
        yield
    except RefusedError as error:
        is_of_file = error.message.startswith("config.json: ")
        message = f"{folder}{'/' if is_of_file else ': '}{error.message}"
        raise RefusedError(message, hint=error.hint) from error


@contextmanager
def _meanwhile(work: Callable[[Progress], str], progress: Progress) -> Iterator[Future[str]]:
    """Hash something in another thread, which ends with the block however that ends."""
    is_over = Event()

    def told(description: str, done: int, total: int | None) -> None:
        if is_over.is_set():
            raise CancelledError
        progress(description, done, total)

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(work, told)
        finally:
            is_over.set()


def _source_sha256(request: ConvertRequest, checkpoint: Checkpoint, progress: Progress) -> str:
    """SHA-256 over the sorted lines "sha256  name" of the weight files."""

    def line(path: Path) -> str:
        return f"{file_sha256(path, progress, request.hash_cache)}  {path.name}\n"

    with ThreadPoolExecutor(request.num_threads) as pool:
        lines = sorted(pool.map(line, (file.path for file in checkpoint.files)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _notes(parameters: Hyperparameters, placements: Sequence[Placement]) -> Iterator[str]:
    window = parameters.sliding_window
    if window is not None and window < parameters.context_length:
        yield (
            f"the model attends to its last {window:,} tokens only, and llama.cpp's Llama to all:"
            " longer prompts are computed otherwise than it was trained for"
        )
    if parameters.tied and any(p.name == "output.weight" for p in placements):
        yield (
            "the checkpoint ties its output to its embeddings and holds an output all the same,"
            " which was kept, as llama.cpp's converter does"
        )


def _template_notes(folder: Path, vocabulary: "Vocabulary") -> Iterator[str]:
    """Whether the chat template can be used: it is written as it is, whatever it is."""
    if not vocabulary.chat_template:
        return
    ids = (vocabulary.special_ids.get(kind) for kind in ("bos", "eos"))
    bos, eos = ("" if token_id is None else vocabulary.tokens[token_id] for token_id in ids)
    try:
        ChatTemplate(vocabulary.chat_template, bos, eos, str(folder)).merges_system  # noqa: B018 - the trial that a run makes
    except RefusedError as error:
        yield f"{error.message}; `medlocal run` will not ask the model in chat form"


def _licence(metadata: Any) -> str:
    """The declared licence; where that is "other", the name that was given to it."""
    named = metadata.license
    licence = ", ".join(named) if isinstance(named, list) else str(named or "")
    return str(metadata.license_name) if licence == "other" and metadata.license_name else licence


def _sha256(text: str | None) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
