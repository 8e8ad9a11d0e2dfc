"""Which models are on this machine: a folder for each, and the receipt that says it is complete.

A receipt lists every file with its size and checksum, where it came from, and the source that the
card named then; without a receipt that matches its card nothing in the folder counts. Names in it
are relative, so that a folder pulled on one machine works where it is copied to. This module
never uses the network and does not look inside a file: `hub` gets models, `weights` reads them.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medlocal.catalog import ModelCard, WheelSource, model_card, model_cards
from medlocal.errors import MissingError, RefusedError, UsageError
from medlocal.files import Progress, atomic_write, disk_errors, file_sha256, no_progress
from medlocal.settings import Settings

_RECEIPT = "receipt.json"


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A model whose files are here."""

    id: str
    path: Path
    """The GGUF; the checkpoint's folder where there is no GGUF, or more than one."""
    sha256: str
    """Of the GGUF; for a folder, of the lines that `sha256sum` prints for its files by name."""
    size: int
    """Bytes of what `path` names."""
    source: str
    """Where it came from, for people."""
    revision: str
    """The commit or version that was got; "" for a file of one's own."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a receipt."""

    name: str
    """Relative to the receipt's root, with `/`."""
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was got for a model, from where and when."""

    id: str
    source: str
    revision: str
    root: str
    """Folder of the files: relative to the receipt's own, or absolute for files left in place."""
    files: tuple[FileEntry, ...]
    card_source: dict[str, object]
    """The card's source table at that time: a card that names another one is pulled again."""
    time: str
    """UTC, ISO 8601."""


def model_folder(card: ModelCard, settings: Settings) -> Path:
    """The folder of one model, whether it is there or not."""
    return settings.models_dir / card.id


def pulled_model(card: ModelCard, settings: Settings) -> PulledModel | None:
    """The model as it lies here, or None where it is not complete; sizes are checked, not bytes."""
    folder = model_folder(card, settings)
    receipt = current_receipt(card, settings)
    if receipt is None:
        return None
    root = folder / receipt.root
    if not all(_has_size(root / entry.name, entry.size) for entry in receipt.files):
        return None
    return _describe(receipt, root)


def find_model(name_or_path: str, settings: Settings) -> Path:
    """The GGUF that a user means: a path to any GGUF, or the id of a model that was pulled.

    Raises:
        UsageError: no model is called so, or the path is a folder.
        MissingError: the file is not there, or the model is not pulled, or it is a checkpoint.
    """
    if is_path(name_or_path):
        return _existing_file(name_or_path)
    card = model_card(name_or_path)
    pulled = pulled_model(card, settings)
    if pulled is None:
        raise MissingError(f"the model {card.id} is not on this machine", hint=pull_hint(card))
    if pulled.path.is_dir():
        raise _no_single_gguf(card, pulled.path)
    return pulled.path


def verify_model(
    card: ModelCard, settings: Settings, progress: Progress = no_progress
) -> PulledModel:
    """Read every byte of a pulled model again and compare with its receipt and its card.

    Raises:
        MissingError: the model is not pulled, or one of its files is gone.
        RefusedError: a file is not what was pulled.
    """
    receipt = current_receipt(card, settings)
    if receipt is None:
        raise MissingError(f"the model {card.id} is not on this machine", hint=pull_hint(card))
    root = model_folder(card, settings) / receipt.root
    for entry in receipt.files:
        _verify_file(card, root / entry.name, entry.sha256, progress)
    return _describe(receipt, root)


def current_receipt(card: ModelCard, settings: Settings) -> Receipt | None:
    """The receipt of a model, or None where there is none for the source its card names now."""
    receipt = read_receipt(model_folder(card, settings) / _RECEIPT)
    return receipt if receipt and receipt.card_source == source_record(card) else None


def read_receipt(path: Path) -> Receipt | None:
    """Read a receipt, whatever its card says now; one that is damaged is none."""
    with disk_errors(path):
        if not path.exists():
            return None
        content = path.read_bytes()
    try:
        values = json.loads(content)
        files = tuple(FileEntry(**entry) for entry in values.pop("files"))
        return Receipt(**values, files=files)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Publish a receipt: the last thing a pull does."""
    text = json.dumps(dataclasses.asdict(receipt), indent=2, ensure_ascii=False)
    atomic_write(folder / _RECEIPT, text + "\n")


def stale_files(folder: Path, receipt: Receipt) -> list[Path]:
    """Files that an earlier receipt of the folder put here and the new one does not know.

    Left there, a shard of an older revision would be read together with the newer ones.
    """
    earlier = read_receipt(folder / _RECEIPT)
    if earlier is None or Path(earlier.root).is_absolute():
        return []
    current = {Path(receipt.root) / entry.name for entry in receipt.files}
    names = [Path(earlier.root) / entry.name for entry in earlier.files]
    return [folder / name for name in names if name not in current]


def source_record(card: ModelCard) -> dict[str, object]:
    """A card's source as JSON reads it back: lists for tuples."""
    record = {"kind": card.source.kind, **dataclasses.asdict(card.source)}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in record.items()}


def pull_hint(card: ModelCard) -> str:
    """What to do about a model that is not here."""
    return f"medlocal models pull {card.id}"


def checksum_error(path: Path, expected: str, found: str, hint: str) -> RefusedError:
    """The error for a file whose checksum is not the one it must have."""
    return RefusedError(f"{path}: SHA-256 is {found}, expected {expected}", hint=hint)


def _describe(receipt: Receipt, root: Path) -> PulledModel:
    main = _main_gguf(entry.name for entry in receipt.files)
    chosen = [entry for entry in receipt.files if main in {None, entry.name}]
    return PulledModel(
        id=receipt.id,
        path=root if main is None else root / main,
        sha256=chosen[0].sha256 if main else _folder_sha256(chosen),
        size=sum(entry.size for entry in chosen),
        source=receipt.source,
        revision=receipt.revision,
    )


def _main_gguf(names: Iterable[str]) -> str | None:
    """The one GGUF among the names; None where there is none, or several to choose from."""
    ggufs = [name for name in names if name.endswith(".gguf")]
    return ggufs[0] if len(ggufs) == 1 else None


def _folder_sha256(entries: Iterable[FileEntry]) -> str:
    lines = sorted((entry.name, f"{entry.sha256}  {entry.name}\n") for entry in entries)
    return hashlib.sha256("".join(line for _, line in lines).encode()).hexdigest()


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _verify_file(card: ModelCard, path: Path, expected: str, progress: Progress) -> None:
    if not path.is_file():
        raise MissingError(f"{path} is gone", hint=pull_hint(card))
    with disk_errors(path):
        found = file_sha256(path, progress)
    # The card is the authority where it names a checksum; a receipt lies beside the file and
    # could have been changed with it.
    demanded = card.source.sha256 if isinstance(card.source, WheelSource) else expected
    for wanted in (expected, demanded):
        if found != wanted:
            raise checksum_error(path, wanted, found, f"remove the file, then {pull_hint(card)}")


def is_path(text: str) -> bool:
    """True where a user's word for a model is a path, not the id of a card."""
    return os.sep in text or text.endswith(".gguf")


def _no_single_gguf(card: ModelCard, folder: Path) -> MissingError:
    if ggufs := sorted(folder.rglob("*.gguf")):
        return MissingError(
            f"{card.id} was pulled as {len(ggufs)} GGUF files",
            hint=f"give the path of one, as {ggufs[0]}",
        )
    return MissingError(
        f"{card.id} is a checkpoint, and llama.cpp reads GGUF: {folder}",
        hint=f"`medlocal convert {card.id} {card.id}.gguf` makes one; its path works wherever an id does",
    )


def _existing_file(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give the path of a GGUF file")
    ids = [card.id for card in model_cards().values() if card.repo.lower() == text.lower()]
    hint = f"did you mean the model {ids[0]}?" if ids else "give the path of a GGUF file"
    raise MissingError(f"there is no file {path}", hint=hint)
