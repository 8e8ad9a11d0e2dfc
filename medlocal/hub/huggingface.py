"""A repository of the Hugging Face Hub: listed, fetched, and checked against its listing.

huggingface_hub is reached through one small class and imported only when something is fetched.
It resumes what was interrupted, but where the Hub cannot be reached it may return a folder that
is half there; so the listing is asked for first, and every file is compared with it.
"""

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medlocal.catalog import HubSource, ModelCard
from medlocal.errors import MedlocalError, MissingError
from medlocal.files import Progress, bytes_under, disk_full, file_sha256, require_room
from medlocal.hub.receipts import FileEntry, checksum_error, pull_hint


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository, as the Hub lists it."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    """Empty for small files: the Hub keeps them in git, without a SHA-256."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]


class HubClient(Protocol):
    """What a pull needs of the Hub; a test brings its own."""

    def list_files(self, source: HubSource) -> Listing:
        """List the repository at the source's revision, or at `main` where it names none."""

    def download(self, source: HubSource, commit: str, folder: Path, progress: Progress) -> None:
        """Bring the files that match the source's patterns into the folder, resuming."""


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """The Hub itself."""

    endpoint: str | None = None
    """Its address; None = the one that huggingface_hub is set to."""

    def list_files(self, source: HubSource) -> Listing:
        """List the repository at the source's revision, or at `main` where it names none."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint)
        info = api.model_info(source.repo, revision=source.revision or None, files_metadata=True)
        files = tuple(
            RemoteFile(f.rfilename, f.size or 0, f.lfs.sha256 if f.lfs else "")
            for f in info.siblings or ()
        )
        return Listing(str(info.sha), files)

    def download(self, source: HubSource, commit: str, folder: Path, progress: Progress) -> None:
        """Bring the files that match the source's patterns into the folder, resuming."""
        from huggingface_hub import snapshot_download

        snapshot_download(
            source.repo,
            revision=commit,
            allow_patterns=list(source.files),
            local_dir=folder,
            endpoint=self.endpoint,
            tqdm_class=bar_type(f"fetching {source.repo}", progress),
        )


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where a repository's files go and who is told about it."""

    folder: Path
    progress: Progress
    hash_cache: Path


def fetch_repository(
    client: HubClient, card: ModelCard, source: HubSource, checkout: Checkout
) -> tuple[str, list[FileEntry]]:
    """Bring the files that a source names into a folder, which the caller has locked.

    Returns:
        The commit, and the files that were asked for.

    Raises:
        MissingError: the repository is gated, private or not there, or the Hub out of reach, or
            nothing in it matches, or files are missing at the end.
        RefusedError: a file is not the one that the Hub lists.
    """
    remote = Remote(
        url=repository_url(source),
        revision=source.revision,
        again=pull_hint(card),
        correct=f"correct the card of {card.id}",
        unreachable=f"with the network back, {pull_hint(card)}: it goes on where it stopped",
    )
    with hub_errors(remote, checkout.folder):
        listing = client.list_files(source)
    wanted = _choose(listing, source)
    checkout.folder.mkdir(exist_ok=True)
    num_bytes = sum(file.size for file in wanted)
    require_room(checkout.folder, num_bytes - bytes_under(checkout.folder))
    with hub_errors(remote, checkout.folder):
        client.download(source, listing.commit, checkout.folder, checkout.progress)
    return listing.commit, [_check(card, file, checkout) for file in wanted]


def repository_url(source: HubSource) -> str:
    """The repository's page, for people."""
    return f"https://huggingface.co/{source.repo}"


def _choose(listing: Listing, source: HubSource) -> list[RemoteFile]:
    """The files that match the source's patterns, as the Hub's own client matches them."""
    wanted = [
        file
        for file in listing.files
        if any(fnmatch.fnmatchcase(file.name, pattern) for pattern in source.files)
    ]
    if not any(file.name.endswith((".safetensors", ".gguf")) for file in wanted):
        raise MissingError(
            f"{repository_url(source)} has no .safetensors and no .gguf among"
            f" {', '.join(source.files)} (commit {listing.commit})",
            hint="name the right files in the model's card; other weight formats are not read",
        )
    return sorted(wanted, key=lambda file: file.name)


def _check(card: ModelCard, file: RemoteFile, checkout: Checkout) -> FileEntry:
    path = checkout.folder / file.name
    if not path.is_file() or path.stat().st_size != file.size:
        raise MissingError(f"{path} did not come, or not whole", hint=pull_hint(card))
    found = file_sha256(path, checkout.progress, checkout.hash_cache)
    if file.sha256 and found != file.sha256:
        # Removed, because the Hub's client takes a file that is there for a good one.
        path.unlink()
        raise checksum_error(path, file.sha256, found, f"it was removed; {pull_hint(card)}")
    return FileEntry(file.name, found, file.size)


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository, as an error about it speaks of it."""

    url: str
    revision: str
    again: str
    """The command that does the same again."""
    correct: str
    """What to do where the name or the revision is wrong."""
    unreachable: str
    """What to do where it cannot be reached."""


@contextmanager
def hub_errors(remote: Remote, folder: Path) -> Iterator[None]:
    """Say what the user can do about an error of huggingface_hub.

    Raises:
        MissingError: the repository is gated, private or not there, or cannot be reached.
        MedlocalError: the disk that holds `folder` is full.
    """
    from huggingface_hub import errors

    url = remote.url
    try:
        yield
    except MedlocalError:
        raise
    except errors.GatedRepoError as error:
        raise MissingError(
            f"{url} is gated and this machine has not been let in",
            hint=f"accept the licence at {url} and run `hf auth login`, then {remote.again}",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise MissingError(
            f"{url} does not exist, or is private",
            hint=f"{remote.correct}; for a private one run `hf auth login`",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingError(
            f"{url} has no revision {remote.revision!r}", hint=remote.correct
        ) from error
    # Everything else, because the versions of the library that we allow stand on three HTTP
    # libraries without a common error, and its Rust part raises plain RuntimeErrors.
    except Exception as error:
        if "No space left on device" in str(error):
            raise disk_full(folder) from error
        raise MissingError(
            f"{url} could not be fetched: {type(error).__name__}: {first_line(error)}",
            hint=remote.unreachable,
        ) from error


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), "")


def bar_type(description: str, progress: Progress) -> Any:
    """A progress bar class for huggingface_hub that draws nothing and tells `progress`."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # the base is untyped
        """One of the library's bars: some count files, some bytes sent, one bytes on the disk."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            name = kwargs.get("name") or ""
            self._counts = kwargs.get("unit") == "B" and not name.endswith(".transfer")
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            # A disabled bar does not count by itself.
            if self._counts:
                self.n += n or 0
                progress(description, int(self.n), int(self.total) if self.total else None)

    return Bar
