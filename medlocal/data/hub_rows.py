"""Rows of a data set in the Hub's layout: from a folder, from what is cached here, from the Hub.

The `datasets` library reads the files; which file belongs to which configuration and split is settled
here, because the library cannot say it of part of a repository: it wants every file that the README
names, and takes a `dev` split for a second validation split. Its builders are used as they are, since
`load_dataset` tells the Hub of every load where it can. Nothing here knows what the columns mean;
pictures are handed on as stored, never decoded.
"""

import fnmatch
import glob
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NoReturn

from medlocal.catalog import HubItems
from medlocal.data.rows import Row
from medlocal.errors import MissingError, UsageError
from medlocal.files import Progress, bytes_under, no_progress, require_room
from medlocal.hub.huggingface import Remote, bar_type, first_line, hub_errors

Splits = dict[str, list[Path]]
"""The files of one configuration, by split."""

_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json")
"""What is read. Of a configuration that is there in several forms, the first of these."""

_NOT_DATA = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
)
"""What the library writes beside the data."""

_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""How the library reads a split from the name of a file or folder."""

_PULL_AGAIN = "pull it with the network back"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BATCH = 256
"""Rows turned into Python objects at a time."""


def read_hub_folder(
    folder: Path, configs: Sequence[tuple[str, str]], unnamed_split: str = "train"
) -> Iterator[Row]:
    """Read a folder laid out as a repository of the Hub, or as part of one, row by row.

    Args:
        folder: it holds parquet, arrow, json or jsonl: split by the `configs` of its README.md, or by
            the names of its files and folders.
        configs: configurations with their languages.
        unnamed_split: the split of files that name none.

    Raises:
        MissingError: a configuration has no file there.
        UsageError: the README or a file cannot be read.
    """
    found = [_config_splits(folder, config, configs, unnamed_split) for config, _ in configs]
    return _rows(configs, found)


def hub_files(folder: Path, configs: Sequence[tuple[str, str]] = ()) -> list[Path]:
    """The files that `read_hub_folder` reads; without configurations, all that it could read.

    Raises:
        MissingError: there is none.
        UsageError: the README cannot be read.
    """
    if not configs:
        return _data_files(folder) or _none_found(folder, "")
    splits = [_config_splits(folder, config, configs, "train") for config, _ in configs]
    return sorted({path for found in splits for paths in found.values() for path in paths})


def read_hub_cache(
    repo: str, configs: Sequence[tuple[str, str]], revision: str = "", home: Path | None = None
) -> Iterator[Row]:
    """Read what `datasets` or `huggingface_hub` have cached of a repository. Opens no socket.

    Args:
        repo: "owner/name".
        configs: configurations with their languages; all are read from one commit.
        revision: a commit is wanted as it is; any other name, or none, means the latest cached.
        home: the folder that HF_HOME names; None = where the two libraries are set to look.

    Raises:
        MissingError: it is not cached, or not all of it, or at another commit only.
        UsageError: a cached file cannot be read.
    """
    _, found = _cached(repo, configs, revision, home)
    return read_hub_folder(found, configs) if isinstance(found, Path) else _rows(configs, found)


def cached_commit(
    repo: str, configs: Sequence[tuple[str, str]], revision: str = "", home: Path | None = None
) -> str:
    """The commit that `read_hub_cache` reads; the same arguments and errors."""
    return _cached(repo, configs, revision, home)[0]


def fetch_hub(
    source: HubItems, folder: Path, progress: Progress = no_progress, endpoint: str | None = None
) -> str:
    """Bring the files that a card names from the Hub into a folder, resuming what is there.

    Args:
        source: repository, revision and patterns.
        folder: where they go, in the repository's layout.
        progress: told how far it has come.
        endpoint: the Hub's address; None = the one that huggingface_hub is set to.

    Returns:
        The commit.

    Raises:
        MissingError: the repository is gated, private or not there, or cannot be reached, or nothing
            in it matches, or a file did not come whole.
        MedlocalError: the disk is full.
    """
    from huggingface_hub import HfApi, snapshot_download

    remote = Remote(
        url=_url(source),
        revision=source.revision,
        again="do the same again",
        correct="correct the set's card",
        unreachable=f"{_PULL_AGAIN}, or give a folder with --from DIR",
    )
    with hub_errors(remote, folder):
        api = HfApi(endpoint=endpoint)
        info = api.dataset_info(source.repo, revision=source.revision or None, files_metadata=True)
        sizes = {
            file.rfilename: file.size or 0
            for file in info.siblings or ()
            if any(fnmatch.fnmatchcase(file.rfilename, pattern) for pattern in source.files)
        }
        if not sizes:
            raise MissingError(
                f"{_url(source)} has no file {' or '.join(source.files)} (commit {info.sha})",
                hint="correct the set's card",
            )
        folder.mkdir(parents=True, exist_ok=True)
        require_room(folder, sum(sizes.values()) - bytes_under(folder))
        snapshot_download(
            source.repo,
            repo_type="dataset",
            revision=info.sha,
            allow_patterns=list(source.files),
            local_dir=folder,
            endpoint=endpoint,
            tqdm_class=bar_type(f"fetching {source.repo}", progress),
        )
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise MissingError(f"{path} did not come, or not whole", hint=_PULL_AGAIN)
    return str(info.sha)


def _rows(configs: Sequence[tuple[str, str]], found: Sequence[Splits]) -> Iterator[Row]:
    for (config, language), splits in zip(configs, found, strict=True):
        name = "" if config == "default" else config
        for split, paths in splits.items():
            for number, values in enumerate(_values(paths), start=1):
                yield Row(values, split, language, name, number)


def _values(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of files of one format, in the order of the files."""
    # The builder notes things down in its cache folder; the user's own is not to fill up.
    with tempfile.TemporaryDirectory(prefix="medlocal-") as scratch, _reading(paths):
        stream = _builder(paths, scratch).as_streaming_dataset(split="train")
        if paths[0].suffix.startswith(".json"):
            # Row by row, because only so the library undoes its wrapping of columns of mixed type.
            yield from stream
        else:
            # As tables: fourteen times as quick, and pictures stay as they are stored.
            for table in stream.with_format("arrow").iter(batch_size=_BATCH):
                yield from table.to_pylist()


def _builder(paths: Sequence[Path], scratch: str) -> Any:
    import datasets
    from datasets.packaged_modules.arrow.arrow import Arrow
    from datasets.packaged_modules.json.json import Json
    from datasets.packaged_modules.parquet.parquet import Parquet

    # What goes wrong is told by our own error, and nothing below the command line prints.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    kinds = {".parquet": Parquet, ".arrow": Arrow}
    # Escaped, because the library takes a path for a pattern.
    files = [glob.escape(str(path.absolute())) for path in paths]
    return kinds.get(paths[0].suffix, Json)(cache_dir=scratch, data_files={"train": files})


@contextmanager
def _reading(paths: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    # Everything, because pyarrow, pandas, fsspec and the library each raise errors of their own.
    except Exception as error:
        names = ", ".join(path.name for path in paths)
        raise UsageError(
            f"{paths[0].parent}: {names} cannot be read: {type(error).__name__}:"
            f" {first_line(error)}",
            hint="fetch the file again",
        ) from error


def _config_splits(
    folder: Path, config: str, configs: Sequence[tuple[str, str]], unnamed_split: str
) -> Splits:
    """The files of one configuration in a folder, by split, in one format."""
    if named := _readme_splits(folder, config):
        return named
    files = _data_files(folder)
    chosen = _files_of(files, folder, config)
    if not chosen and (config == "default" or len(configs) == 1):
        chosen = files
    if not chosen:
        _none_found(folder, config)
    return _by_split(_one_format(chosen), folder, unnamed_split)


def _none_found(folder: Path, config: str) -> NoReturn:
    of = f" of configuration {config!r}" if config else ""
    raise MissingError(
        f"{folder} holds no {', '.join(_SUFFIXES)} file{of}",
        hint="give the folder of the set's original files, or of its repository on the Hub",
    )


def _data_files(folder: Path) -> list[Path]:
    """All files that could be read, hidden folders left out."""
    found = (
        path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES
        and path.name not in _NOT_DATA
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    return sorted(found)


def _files_of(files: Sequence[Path], folder: Path, config: str) -> list[Path]:
    """The files that a configuration names: by a folder or file of its name, or by a word."""
    paths = [path.relative_to(folder) for path in files]
    word = re.compile(rf"(?<![a-z0-9]){re.escape(config.lower())}(?![a-z0-9])")
    exact = [path for path in paths if config in (*path.parts, path.stem)]
    near = [path for path in paths if word.search(path.as_posix().lower())]
    return [folder / path for path in exact or near]


def _one_format(files: Sequence[Path]) -> list[Path]:
    best = min((_SUFFIXES.index(path.suffix) for path in files), default=0)
    return [path for path in files if path.suffix == _SUFFIXES[best]]


def _by_split(files: Sequence[Path], folder: Path, unnamed_split: str) -> Splits:
    splits: Splits = {}
    for path in files:
        split = _split_of(path.relative_to(folder)) or unnamed_split
        splits.setdefault(split, []).append(path)
    return splits


def _split_of(path: PurePath) -> str:
    """The split that a file names, or the nearest folder above it; "" = none."""
    for part in (path.stem, *reversed(path.parent.parts)):
        shard = _SHARD.fullmatch(part)
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_WORDS:
                # A shard's name is the library's own: `dev` is then no validation split.
                return shard[1] if shard else _SPLIT_WORDS[word]
    return ""


def _readme_splits(folder: Path, config: str) -> Splits:
    """What the README's `configs` say of one; {} where it says nothing, or names no file here."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    entries = _readme_configs(readme)
    named = [entry for entry in entries if entry.get("config_name") == config]
    data_files = named[0].get("data_files") if named else None
    if not isinstance(data_files, list):
        return {}
    splits: Splits = {}
    for entry in data_files:
        if not isinstance(entry, dict) or not isinstance(entry.get("split"), str):
            return {}
        patterns = entry.get("path")
        patterns = patterns if isinstance(patterns, list) else [patterns]
        paths = [path for pattern in patterns for path in _matching(folder, pattern)]
        if paths:
            splits[entry["split"]] = _one_format(paths)
    return splits


def _readme_configs(readme: Path) -> list[Mapping[str, Any]]:
    from huggingface_hub import DatasetCard

    with readme.open("rb") as stream:
        if not stream.read(10).lstrip(b"\xef\xbb\xbf").startswith(b"---"):
            return []  # a text without a head: the library would warn of it
    try:
        configs = DatasetCard.load(readme, ignore_metadata_errors=True).data.to_dict()
    # The library's own, yaml's and the decoder's errors have nothing in common.
    except Exception as error:
        raise UsageError(
            f"{readme}: its head cannot be read: {first_line(error)}",
            hint="fetch the file again, or remove it: the names of the files then say the splits",
        ) from error
    entries = configs.get("configs")
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _matching(folder: Path, pattern: object) -> list[Path]:
    # Nothing outside the folder, whatever a README says.
    if not isinstance(pattern, str) or ".." in pattern or not pattern.strip("/"):
        return []
    return [path for path in sorted(folder.glob(pattern.strip("/"))) if path.suffix in _SUFFIXES]


def _cached(
    repo: str, configs: Sequence[tuple[str, str]], revision: str, home: Path | None
) -> tuple[str, list[Splits] | Path]:
    """The commit, and the files of each configuration or the folder of a repository's files."""
    wanted = revision if _COMMIT.fullmatch(revision) else ""
    built = _built(repo, [config for config, _ in configs], home)
    for commit, folders in built.items():
        if commit == (wanted or commit):
            return commit, [_built_splits(folder) for folder in folders]
    if (snapshot := _snapshot(repo, revision, home)) is not None:
        return snapshot.name, snapshot
    others = f" at commit {wanted}; it is at {', '.join(built)}" if wanted and built else ""
    raise MissingError(
        f"{repo} ({', '.join(config for config, _ in configs)}) is not in the Hub's cache on this"
        f" machine{others}",
        hint=_PULL_AGAIN + ", or give a folder with --from DIR",
    )


def _built(repo: str, configs: Sequence[str], home: Path | None) -> dict[str, list[Path]]:
    """What `datasets` built: by commit, the newest first, a folder for each configuration.

    A commit at which a configuration is missing is left out: commits are never mixed.
    """
    import datasets
    from datasets.naming import camelcase_to_snakecase

    root = home / "datasets" if home else Path(datasets.config.HF_DATASETS_CACHE)
    owner, _, name = repo.rpartition("/")
    root /= f"{owner}___{camelcase_to_snakecase(name)}"
    by_config = [
        {info.parent.name: info.parent for info in root.glob(f"{config}/*/*/dataset_info.json")}
        for config in map(glob.escape, configs)
    ]
    commits = set.intersection(*map(set, by_config)) if by_config else set()
    newest = sorted(commits, key=lambda commit: -by_config[0][commit].stat().st_mtime)
    return {commit: [folders[commit] for folders in by_config] for commit in newest}


def _built_splits(folder: Path) -> Splits:
    """The arrow files that `datasets` built, by split; its note beside them names the splits."""
    info = folder / "dataset_info.json"
    try:
        names = [str(name) for name in json.loads(info.read_bytes())["splits"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{info} cannot be read: {first_line(error)}") from error
    paths = sorted(folder.glob("*.arrow"))
    ends = {name: re.compile(rf".*-{re.escape(name)}(-\d{{5}}-of-\d{{5}})?") for name in names}
    splits = {name: [p for p in paths if end.fullmatch(p.stem)] for name, end in ends.items()}
    if not all(splits.values()):
        raise MissingError(f"{folder}: the files of a split are gone", hint=_PULL_AGAIN)
    return splits


def _snapshot(repo: str, revision: str, home: Path | None) -> Path | None:
    """The folder in which `huggingface_hub` keeps a repository's files; None = it has none."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(
            repo,
            repo_type="dataset",
            revision=revision or None,
            cache_dir=home / "hub" if home else None,
            local_files_only=True,
        )
    except errors.LocalEntryNotFoundError:
        return None
    return Path(folder)


def _url(source: HubItems) -> str:
    return f"https://huggingface.co/datasets/{source.repo}"
