"""Quantise a GGUF to one type or several: each result checked, then published whole, or not at all.

llama.cpp does it in a child process (`quantizer`), from a plan that was made before
(`quantization_plan`). It checks its own blocks for numbers that are none; what is checked here is that
the file can be read back and is what was asked for. Whether it is any good is `quality`'s to say.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medlocal.errors import MedlocalError
from medlocal.files import Progress, disk_errors, file_sha256, no_progress, publish
from medlocal.weights.inspect import GGUFInfo, read_gguf
from medlocal.weights.provenance import KEYS
from medlocal.weights.quantization_plan import (
    Plan,
    PlannedFile,
    begun_tensor,
    plan_quantisation,
)
from medlocal.weights.quantization_request import QuantizeRequest
from medlocal.weights.quantizer import Job, Quantizer

__all__ = ["Plan", "PlannedFile", "Quantised", "QuantizeRequest", "plan_quantisation", "quantize"]

_ROOM_HINT = "make room, or choose another folder with -o"


@dataclass(frozen=True, slots=True)
class Quantised:
    """A file that was made."""

    type: str
    """The recipe: "Q4_K_M"."""
    path: Path
    num_bytes: int
    predicted_bytes: int
    """What the plan said."""
    bits_per_weight: float
    ratio: float
    """Of its size to the source's."""
    seconds: float
    warnings: tuple[str, ...]
    """What its maker should know of it, a sentence each."""


def quantize(plan: Plan, progress: Progress = no_progress) -> Iterator[Quantised]:
    """Make the files of a plan, one after the other; those that are done stay, whatever follows.

    Args:
        plan: made by `plan_quantisation`.
        progress: told of the source's bytes that were hashed, and of those that were quantised.

    Raises:
        MedlocalError: llama.cpp failed, or its process ended; the disk is full; the result is not
            what was asked for. Nothing is under that file's name then.
    """
    source, folder = plan.request.source, plan.request.folder
    with disk_errors(folder, _ROOM_HINT):
        parent = file_sha256(source, progress, plan.request.hash_cache)
        folder.mkdir(parents=True, exist_ok=True)
    with Quantizer() as quantizer:
        maker = _Maker(plan, quantizer, parent, progress)
        for file in plan.files:
            yield maker.make(file)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the files of a plan."""

    plan: Plan
    quantizer: Quantizer
    parent: str
    """SHA-256 of the source."""
    progress: Progress

    def make(self, file: PlannedFile) -> Quantised:
        began = time.monotonic()
        entries = ((KEYS["parent_sha256"], self.parent), *file.job.entries)
        with disk_errors(file.path, _ROOM_HINT), publish(file.path) as stream:
            # The part is llama.cpp's to write; the stream is there to put it on the disk.
            part = Path(stream.name)
            self.run(replace(file.job, target=str(part), entries=entries), file)
            made = read_gguf(part)
            _check(self.plan, file, made)
        return Quantised(
            type=file.recipe.name,
            path=file.path,
            num_bytes=made.size,
            predicted_bytes=file.num_bytes,
            bits_per_weight=made.bits_per_weight or 0.0,
            ratio=made.size / self.plan.info.size,
            seconds=time.monotonic() - began,
            warnings=file.warnings,
        )

    def run(self, job: Job, file: PlannedFile) -> None:
        """Have llama.cpp write the part, and tell how far it is."""
        sizes = {tensor.name: tensor.num_bytes for tensor in self.plan.info.tensors}
        total, done = sum(sizes.values()), 0
        description = f"quantising to {file.recipe.name}"
        self.progress(description, 0, total)

        def listen(_level: int, piece: str) -> None:
            nonlocal done
            if name := begun_tensor(piece):
                self.progress(description, done, total)
                done += sizes.get(name, 0)

        try:
            self.quantizer.run(job, listen)
        except MedlocalError as error:
            if "iostream error" not in error.message:  # all that C++ says of a write that failed
                raise
            raise MedlocalError(
                f"{file.path} could not be written: the disk is full, or a file may not be so large",
                hint=_ROOM_HINT,
            ) from error
        self.progress(description, total, total)


def _check(plan: Plan, file: PlannedFile, made: GGUFInfo) -> None:
    """Compare what was made with what was to be made."""
    wanted = {t.source.name: (t.source.shape, t.kind.name) for t in file.tensors}
    found = {tensor.name: (tensor.shape, tensor.type) for tensor in made.tensors}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise MedlocalError(
                f"{plan.info.path} was quantised to {file.recipe.name}, but {name} is"
                f" {found.get(name, 'not there')} instead of {wanted.get(name, 'not there')}"
            )
    if made.metadata.get("general.file_type") != file.recipe.number:
        raise MedlocalError(
            f"{plan.info.path} was quantised to {file.recipe.name}, but the result says"
            f" {made.file_type}"
        )
