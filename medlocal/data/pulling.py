"""Getting a data set here: from a folder of original or Hub files, from the Hub's cache, or the Hub.

Whichever way, the rows have the Hub's columns and the set's one reader makes the items, so that they
are the same. Nothing of a set is kept unless all of its rows could be read.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medlocal.catalog import DatasetCard, HubItems
from medlocal.data.hub_rows import (
    cached_commit,
    fetch_hub,
    hub_files,
    read_hub_cache,
    read_hub_folder,
)
from medlocal.data.library import Origin, Receipt, SourceFile, store_set
from medlocal.data.originals import ORIGINALS, has_original, original_files
from medlocal.data.readers import READERS
from medlocal.data.rows import Row
from medlocal.errors import MissingError, UsageError
from medlocal.files import Progress, disk_errors, file_sha256, no_progress
from medlocal.settings import Settings


def pull_set(
    card: DatasetCard,
    settings: Settings,
    folder: Path | None = None,
    progress: Progress = no_progress,
) -> Receipt:
    """Get a set, or get it again.

    Args:
        card: the set.
        settings: where sets are kept, and whether the network may be used.
        folder: where its files lie on this machine; None = fetch them from the Hub, or, offline, take
            what the Hub's library has cached.
        progress: told what is being fetched.

    Raises:
        MissingError: the files are not there, or cannot be fetched.
        UsageError: the set is not one that is pulled, or a file does not hold what it should.
        MedlocalError: the disk is full.
    """
    source = card.source
    if not isinstance(source, HubItems):
        raise UsageError(f"{card.id} is here already: it was not pulled but {_came(card)}")
    reading = disk_errors(folder or settings.data_dir)
    with reading, _rows(card, source, settings, folder, progress) as (rows, origin):
        return store_set(card.id, READERS[source.reader](card.id, rows), origin, settings)


def _came(card: DatasetCard) -> str:
    return {"shipped": "ships with medlocal", "imported": "was imported"}[card.source.kind]


@contextmanager
def _rows(
    card: DatasetCard,
    source: HubItems,
    settings: Settings,
    folder: Path | None,
    progress: Progress,
) -> Iterator[tuple[Iterator[Row], Origin]]:
    if folder is not None:
        yield _from_folder(card, source, folder)
    elif settings.offline:
        wanted = (source.repo, configs_of(source), source.revision)
        commit = cached_commit(*wanted)
        yield read_hub_cache(*wanted), Origin(f"the Hub's cache here, {source.repo}", commit)
    else:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix=".fetching-") as scratch:
            checkout = Path(scratch)
            commit = fetch_hub(source, checkout, progress)
            rows, files = _hub_layout(card, source, checkout)
            yield rows, Origin(f"https://huggingface.co/datasets/{source.repo}", commit, files)


def configs_of(source: HubItems) -> list[tuple[str, str]]:
    """The Hub's configurations of a set, each with its language."""
    return list(zip(source.configs, source.config_languages, strict=True))


def _hub_layout(
    card: DatasetCard, source: HubItems, folder: Path
) -> tuple[Iterator[Row], tuple[SourceFile, ...]]:
    configs = configs_of(source)
    # Files that name no split belong to the one that is asked.
    rows = read_hub_folder(folder, configs, unnamed_split=card.split)
    return rows, _source_files(hub_files(folder, configs), folder)


def _from_folder(card: DatasetCard, source: HubItems, folder: Path) -> tuple[Iterator[Row], Origin]:
    if not folder.is_dir():
        raise MissingError(
            f"there is no folder {folder}", hint="give the folder of the set's files"
        )
    if source.reader in ORIGINALS and has_original(source.reader, folder):
        files = _source_files(original_files(source.reader, folder), folder)
        rows = ORIGINALS[source.reader](folder)
    else:
        rows, files = _hub_layout(card, source, folder)
    return rows, Origin(str(folder.absolute()), "", files)


def _source_files(files: list[Path], folder: Path) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(path.relative_to(folder).as_posix(), file_sha256(path), path.stat().st_size)
        for path in files
    )
