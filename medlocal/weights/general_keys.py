"""What a checkpoint says of itself (name, licence, languages, parents) as the keys under `general.`.

The names are taken apart by the `gguf` package's own heuristics, so that a file made here is
described as one that llama.cpp's converter makes. A model card is written by hand: values of a
kind that a key cannot hold are turned into text or left out, never a reason to fail.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from medlocal.weights.checkpoint import Checkpoint
from medlocal.weights.hyperparameters import GGUF_ARCHITECTURE
from medlocal.weights.writer import Entry

_SAMPLING = {
    "sequence": "sampling_sequence",
    "top_k": "sampling_top_k",
    "top_p": "sampling_top_p",
    "min_p": "sampling_min_p",
    "xtc_probability": "sampling_xtc_probability",
    "xtc_threshold": "sampling_xtc_threshold",
    "temperature": "sampling_temp",
    "penalty_last_n": "sampling_penalty_last_n",
    "repetition_penalty": "sampling_penalty_repeat",
    "penalty_repeat": "sampling_penalty_repeat",
    "mirostat": "sampling_mirostat",
    "mirostat_tau": "sampling_mirostat_tau",
    "mirostat_eta": "sampling_mirostat_eta",
}
"""Key of `generation_config.json` -> field of `gguf.Metadata`; of two for one field the later holds."""
_WHOLE = frozenset({"sampling_top_k", "sampling_penalty_last_n", "sampling_mirostat"})


def describe(checkpoint: Checkpoint, name: str, num_parameters: int) -> Any:
    """Gather what is known, as a `gguf.Metadata`.

    Args:
        checkpoint: whose card and configuration are read.
        name: the model's name where neither says one: its folder's, or its repository's.
        num_parameters: of all tensors that will be written.
    """
    from gguf import Metadata, size_label

    # The one value of the configuration that it reads, which may be of any kind.
    known_as = checkpoint.config.get("_name_or_path")
    config = {"_name_or_path": known_as} if isinstance(known_as, str) else {}
    metadata = Metadata.apply_metadata_heuristic(
        Metadata(), dict(checkpoint.card), config, Path(name), num_parameters
    )
    for key, target in _SAMPLING.items():
        if (value := _sampling(target, checkpoint.generation.get(key))) is not None:
            setattr(metadata, target, value)
    for field in fields(metadata):
        setattr(metadata, field.name, _writable(field.name, getattr(metadata, field.name)))
    metadata.name = metadata.name or name
    if metadata.size_label is None and num_parameters:
        metadata.size_label = size_label(num_parameters, num_parameters, 0, 0)
    return metadata


def general_entries(metadata: Any) -> list[Entry]:
    """The keys under `general.` in the order in which llama.cpp's converter writes them."""
    from gguf import GGUFType, GGUFWriter

    writer = GGUFWriter(None, GGUF_ARCHITECTURE)
    writer.add_type(GGUFType.MODEL)
    metadata.set_gguf_meta_model(writer)
    (pairs,) = writer.kv_data
    return [Entry(key, pair.value, int(pair.type)) for key, pair in pairs.items()]


def file_name(metadata: Any, type_name: str) -> str:
    """The name that llama.cpp's converter would give the file: "Llama-3.2-1B-Instruct-BF16.gguf"."""
    from gguf import naming_convention

    stem = naming_convention(
        metadata.name,
        metadata.basename,
        metadata.finetune,
        metadata.version,
        metadata.size_label,
        type_name,
    )
    # A card is a stranger's: its words name a file here, and must not lead out of the folder.
    kept = "".join(c if c.isalnum() or c in "._+-" else "-" for c in stem)
    return f"{kept.lstrip('.-')[-200:]}.gguf"


def _sampling(field: str, value: object) -> object:
    """A value that its key can hold; None = there is none."""
    if field == "sampling_sequence":
        return value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if field in _WHOLE:
        return value if isinstance(value, int) and -(2**31) <= value < 2**31 else None
    return value if abs(value) < 3e38 else None


def _writable(field: str, value: Any) -> Any:
    """The value of a field of `gguf.Metadata` as its key can hold it; None = left out."""
    if value is None or field.startswith("sampling_"):
        return value
    if field in {"tags", "languages"}:
        return [str(one) for one in value if one is not None]
    if field in {"base_models", "datasets"}:
        return [
            {str(k): str(v) for k, v in one.items()} if isinstance(one, Mapping) else {}
            for one in value
        ]
    if field == "license" and isinstance(value, list):
        return [str(one) for one in value]
    return str(value)
