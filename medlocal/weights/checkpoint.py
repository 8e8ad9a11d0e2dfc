"""A checkpoint folder as Hugging Face lays it out: its configuration, its weights by name, its card.

`read_checkpoint` reads every JSON file and every safetensors header and proves that they belong
together: shards that the index names are there, and hold the tensors that it says. The weights
themselves stay on the disk until somebody reads their rows. This module does not know what the
tensors mean (`llama_layout` does), nor what a tokenizer is (`vocabulary` does).
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medlocal.errors import MissingError, RefusedError, UsageError
from medlocal.files import disk_errors
from medlocal.weights.header import shown
from medlocal.weights.safetensors import (
    PULL_AGAIN,
    SafetensorsFile,
    StoredTensor,
    open_safetensors,
)

_INDEX = "model.safetensors.index.json"
_MAX_JSON_BYTES = 64 * 2**20
_MAX_README_BYTES = 8 * 2**20
_NEEDED = (".json", ".safetensors", ".model", ".jinja")
"""Ends of names that a checkpoint's meaning depends on."""
_NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")
_MAKE_SAFETENSORS = (
    "look for a revision of it with *.safetensors; or, where you trust whoever made it and on a"
    " machine with torch: transformers.AutoModelForCausalLM.from_pretrained(FOLDER)"
    ".save_pretrained(NEW_FOLDER), and copy the tokenizer's files beside it"
)


@dataclass(frozen=True)
class Checkpoint:
    """One folder, read and checked."""

    folder: Path
    config: Mapping[str, object]
    """`config.json`."""
    generation: Mapping[str, object]
    """`generation_config.json`; empty where there is none."""
    card: Mapping[str, object]
    """The front matter of `README.md`; empty where there is none."""
    files: tuple[SafetensorsFile, ...]
    """The weight files, by name."""
    tensors: Mapping[str, StoredTensor]
    """By name, file after file."""
    notes: tuple[str, ...] = ()
    """What could not be read and is done without."""


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read all of a checkpoint but its weights and its tokenizer.

    Raises:
        UsageError: it is no folder.
        MissingError: it has no configuration or no weights, or a shard is not there.
        RefusedError: something in it is damaged or contradicts the rest, or the weights are
            pickled.
        MedlocalError: the system does not let something be read.
    """
    with disk_errors(folder):
        return _read_checkpoint(folder)


def _read_checkpoint(folder: Path) -> Checkpoint:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name a checkpoint's folder")
    _check_links(folder)
    if not (folder / "config.json").is_file():
        raise MissingError(
            f"{folder} has no config.json, so what its weights mean is not known",
            hint="name the folder that holds config.json and *.safetensors",
        )
    config = read_json_object(folder / "config.json")
    _check_architectures(folder / "config.json", config)
    generation_path = folder / "generation_config.json"
    generation = read_json_object(generation_path) if generation_path.is_file() else {}
    card, notes = _read_card(folder)
    files, tensors = _read_weights(folder)
    return Checkpoint(folder, config, generation, card, files, tensors, notes)


def read_json_object(path: Path) -> dict[str, object]:
    """Read a JSON file that holds an object.

    Raises:
        RefusedError: it does not, or is too large to be meant.
        MedlocalError: the system does not let it be read.
    """
    with disk_errors(path):
        if (size := path.stat().st_size) > _MAX_JSON_BYTES:
            raise RefusedError(f"{path} has {size:,} bytes, and may have {_MAX_JSON_BYTES:,}")
        content = path.read_bytes()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise RefusedError(f"{path} is not JSON: {error}", hint=PULL_AGAIN) from error
    if not isinstance(value, dict):
        raise RefusedError(f"{path} does not hold a JSON object", hint=PULL_AGAIN)
    return value


def _check_links(folder: Path) -> None:
    """Refuse links that lead nowhere: the file would be missed, or silently done without."""
    for path in sorted(folder.iterdir()):
        if path.suffix in _NEEDED and path.is_symlink() and not path.exists():
            raise MissingError(
                f"{path} is a link to {os.readlink(path)}, and nothing is there",
                hint="a folder of the Hub's cache links to files outside it: copy it with `cp -rL`",
            )


def _check_architectures(path: Path, config: Mapping[str, object]) -> None:
    named = config.get("architectures", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise RefusedError(
            f"{path}: architectures is {shown(named)}, not a list of names",
            hint="correct the file, or get it again",
        )


def _read_card(folder: Path) -> tuple[Mapping[str, object], tuple[str, ...]]:
    """The model card's front matter, read as llama.cpp's converter reads it.

    One that is broken is a reason to do without, not to fail: it names and describes, no more.
    """
    from gguf import Metadata  # a quarter of a second

    readme = folder / "README.md"
    if not readme.is_file():
        return {}, ()
    if readme.stat().st_size > _MAX_README_BYTES:
        return {}, (f"{readme} is too large for a model card and was not read",)
    try:
        return Metadata.load_model_card(folder), ()
    except Exception as error:  # YAML's own errors come in many kinds, and none is worth a failure
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return {}, (f"the front matter of {readme} could not be read: {reason}",)


def _read_weights(
    folder: Path,
) -> tuple[tuple[SafetensorsFile, ...], Mapping[str, StoredTensor]]:
    index = folder / _INDEX
    places = _read_index(index) if index.is_file() else {}
    names = sorted(set(places.values())) or _weight_files(folder)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise MissingError(
            f"{len(missing)} of the {len(names)} shards of {folder} missing: {_few(missing)}",
            hint=PULL_AGAIN,
        )
    files = tuple(open_safetensors(folder / name) for name in names)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in file.tensors.items():
            if name in tensors:
                raise RefusedError(
                    f"{folder}: the tensor {shown(name)} is in {tensors[name].file.path.name} and"
                    f" in {file.path.name}",
                    hint="files of two checkpoints lie in one folder: get it again into an empty one",
                )
            tensors[name] = tensor
    if places:
        _check_index(index, places, tensors)
    return files, tensors


def _read_index(path: Path) -> dict[str, str]:
    """The file of each tensor."""
    places = read_json_object(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise RefusedError(f"{path} has no weight_map", hint=PULL_AGAIN)
    for tensor, name in places.items():
        # A name with a folder in it would lead out of the checkpoint.
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise RefusedError(
                f"{path}: {shown(tensor)} is said to be in {shown(name)}, which is no name of a"
                " safetensors file",
                hint=PULL_AGAIN,
            )
    return places


def _check_index(
    path: Path, places: Mapping[str, str], tensors: Mapping[str, StoredTensor]
) -> None:
    absent = [name for name, file in places.items() if not _is_in(tensors.get(name), file)]
    if absent:
        raise RefusedError(
            f"{path} names tensors that are not where it says: {_few(absent)}",
            hint=PULL_AGAIN,
        )
    if unnamed := tensors.keys() - places.keys():
        raise RefusedError(
            f"{path} does not name tensors that are there: {_few(unnamed)}",
            hint="files of two checkpoints lie in one folder: get it again into an empty one",
        )


def _is_in(tensor: StoredTensor | None, file: str) -> bool:
    return tensor is not None and tensor.file.path.name == file


def _weight_files(folder: Path) -> list[str]:
    """The weight files of a folder without an index."""
    # Not a glob, which finds nothing where a folder may not be listed, and says no word.
    names = os.listdir(folder)
    found = sorted(n for n in names if n.startswith("model") and n.endswith(".safetensors"))
    if not found:
        raise _no_weights(folder)
    parts = [match for name in found if (match := _NUMBERED.fullmatch(name))]
    wanted = {
        f"{m[1]}-{number:0{len(m[2])}}-of-{m[3]}.safetensors"
        for m in parts
        if int(m[3]) <= 10_000  # a name that counts to a billion is not believed
        for number in range(1, int(m[3]) + 1)
    }
    return sorted({*found, *wanted})


def _no_weights(folder: Path) -> MissingError | RefusedError:
    if pickled := sorted(p.name for p in folder.glob("*.bin")) + sorted(
        p.name for p in folder.glob("*.pt*")
    ):
        return RefusedError(
            f"{folder} has its weights as {_few(pickled)}: a pickle, which runs whatever code it"
            " holds as soon as it is read",
            hint=_MAKE_SAFETENSORS,
        )
    if (folder / "adapter_model.safetensors").is_file():
        return RefusedError(
            f"{folder} holds a LoRA adapter, not a model",
            hint="merge it into its base (peft: merge_and_unload) and convert what comes out",
        )
    return MissingError(
        f"{folder} has no model.safetensors and no {_INDEX}", hint="name a checkpoint's folder"
    )


def _few(names: Iterable[str], most: int = 4) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(shown(name) for name in ordered[:most]) + more
