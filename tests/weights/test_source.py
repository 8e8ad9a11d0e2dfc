"""What a user's word for a checkpoint means."""

from dataclasses import replace
from pathlib import Path

import pytest

from medlocal.errors import MissingError, UsageError
from medlocal.files import no_progress
from medlocal.settings import Settings
from medlocal.weights.source import CheckpointSource, find_checkpoint
from tests.hub.conftest import COMMIT, FakeHub

CARD = "marmoka-es-llama-3.1-8b-instruct"
REPO = "HiTZ/Marmoka-es-Llama-3.1-8B-Instruct"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return Settings(home=tmp_path / "home")


def find(text: str, settings: Settings, hub: FakeHub | None = None) -> CheckpointSource:
    return find_checkpoint(text, settings, no_progress, hub or FakeHub())


def test_a_folder_is_known_by_its_name(here: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "owner" / "My-Model-1B"
    folder.mkdir(parents=True)
    expected = CheckpointSource(folder, "My-Model-1B", "My-Model-1B")
    assert find(str(folder), here) == expected
    assert find("owner/My-Model-1B/", here) == expected
    assert find("owner/My-Model-1B/../My-Model-1B", here) == expected


def test_a_folder_of_the_hubs_cache_is_known_by_its_repository(
    here: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / f"models--meta-llama--Llama-3.2-1B/snapshots/{COMMIT}"
    folder.mkdir(parents=True)
    found = find(str(folder), here)
    assert (found.name, found.label) == ("Llama-3.2-1B", "meta-llama/Llama-3.2-1B")
    assert found.revision == COMMIT


def test_a_card_is_pulled_and_known_by_its_repository(here: Settings) -> None:
    found = find(CARD, here)
    assert found.folder == here.models_dir / CARD / "checkpoint"
    assert (found.name, found.label) == (REPO.split("/")[1], REPO)
    assert found.revision == COMMIT
    assert found.card is not None
    assert found.card.id == CARD


def test_a_repository_with_a_card_is_the_cards(here: Settings) -> None:
    found = find(REPO.lower(), here)
    assert found.card is not None
    assert found.card.id == CARD


def test_a_repository_without_a_card_is_pulled_all_the_same(here: Settings) -> None:
    found = find("someone/Some-Model", here)
    assert found.folder == here.models_dir / "someone--Some-Model" / "checkpoint"
    assert {path.name for path in found.folder.iterdir()} == {
        "README.md", "config.json", "model.safetensors",
    }  # fmt: skip
    assert (found.name, found.label, found.card) == ("Some-Model", "someone/Some-Model", None)


def test_nothing_is_fetched_twice(here: Settings) -> None:
    hub = FakeHub()
    find("someone/Some-Model", here, hub)
    find("someone/Some-Model", here, hub)
    assert hub.num_downloads == 1


def test_offline_a_repository_must_be_here(here: Settings, tmp_path: Path) -> None:
    offline = Settings(home=here.home, offline=True)
    with pytest.raises(MissingError, match="offline, and someone/Some-Model"):
        find("someone/Some-Model", offline)
    find("someone/Some-Model", here)
    assert find("someone/Some-Model", offline).revision == COMMIT


def test_the_way_out_names_no_card_that_is_not_there(here: Settings) -> None:
    hub = FakeHub(error=OSError("no route"))
    with pytest.raises(MissingError) as caught:
        find("someone/Some-Model", here, hub)
    assert "someone--Some-Model" not in str(caught.value.hint)
    assert "do the same again" in str(caught.value.hint)


def test_a_card_of_a_gguf_is_no_checkpoint(here: Settings) -> None:
    # The name fits one of the card's patterns, `tokenizer*`.
    with pytest.raises(UsageError, match="is a GGUF already"):
        find(CARD, here, FakeHub(files={"tokenizer.gguf": b"GGUF"}))


@pytest.mark.parametrize("word", ["./nothing", "/nothing/here", "~/nothing/here/at-all"])
def test_a_folder_that_is_not_there_is_missing(here: Settings, word: str) -> None:
    with pytest.raises(MissingError, match="there is no folder"):
        find(word, here)


def test_a_file_is_no_checkpoint(here: Settings, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="is a file") as caught:
        find("model.safetensors", here)
    assert "config.json" in str(caught.value.hint)


def test_a_word_that_is_nearly_a_card_is_answered_with_it(here: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        find("marmoka-es-llama-3.1-8b-instuct", here)
    assert CARD in str(caught.value.hint)


def test_a_folder_that_is_not_here_is_told_where_the_hub_does_not_help(
    here: Settings, tmp_path: Path
) -> None:
    with pytest.raises(MissingError) as caught:
        find("modelos/marmoka", replace(here, offline=True))
    assert caught.value.message == (
        f"offline, and modelos/marmoka is not on this machine: neither a folder {tmp_path}/modelos/"
        "marmoka nor a repository that was got before"
    )


def test_a_folder_that_is_not_here_is_told_where_the_hub_cannot_be_reached(
    here: Settings, tmp_path: Path
) -> None:
    with pytest.raises(MissingError) as caught:
        find("modelos/marmoka", here, FakeHub(error=OSError("no route")))
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(
        f"; where a folder is meant: there is no {tmp_path}/modelos/marmoka"
    )
