"""A set is here when its receipt says so, and what it holds is what was stored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medlocal.catalog import DatasetCard, ImportedItems, dataset_card
from medlocal.data.library import (
    Origin,
    counts_by_reason,
    is_here,
    known_set,
    known_sets,
    read_set,
    set_facts,
    set_folder,
    splits_of,
    store_set,
    unexpected,
)
from medlocal.data.rows import NO_GOLD, PICTURE_MISSING, Excluded
from medlocal.errors import MissingError, RefusedError, UsageError
from medlocal.evals.items import Item
from medlocal.settings import Settings

ITEM = Item(
    id="a",
    dataset="head-qa",
    split="test",
    language="es",
    stem="¿Cuál?",
    options=("Sí", "No"),
    gold=1,
    subject="nursing",
    group="head-qa/a",
)
ENGLISH = replace(ITEM, language="en", stem="Which?", options=("Yes", "No"))
TRAIN = replace(ITEM, id="b", split="train", group="head-qa/b")
PICTURE = Excluded("c", "test", "es", PICTURE_MISSING)
ORIGIN = Origin("/somewhere", "abc")


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def card() -> DatasetCard:
    return dataset_card("head-qa")


def test_a_set_is_not_here_until_it_is_stored(here: Settings, card: DatasetCard) -> None:
    assert not is_here(card, here)
    with pytest.raises(MissingError, match="head-qa is not on this machine") as caught:
        read_set(card, here, ("es",))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("medlocal data pull head-qa")
    store_set("head-qa", [ITEM], ORIGIN, here)
    assert is_here(card, here)


def test_what_ships_is_always_here(here: Settings) -> None:
    assert is_here(dataset_card("starter"), here)
    assert len(read_set(dataset_card("starter"), here, ("es",))) == 128


def test_items_come_back_by_language_and_split(here: Settings, card: DatasetCard) -> None:
    store_set("head-qa", [ITEM, ENGLISH, TRAIN, PICTURE], ORIGIN, here)
    assert read_set(card, here, ("es",)) == [ITEM]
    assert read_set(card, here, ("en", "es")) == [ITEM, ENGLISH]
    assert read_set(card, here, ("es",), ("train", "test")) == [ITEM, TRAIN]
    assert splits_of(card, here) == ("test", "train")


def test_what_was_left_out_is_counted_by_reason(here: Settings, card: DatasetCard) -> None:
    second = Excluded("d", "train", "es", NO_GOLD)
    store_set("head-qa", [PICTURE, ITEM, second], ORIGIN, here)
    facts = set_facts(card, here)
    assert facts.excluded == (PICTURE, second)
    assert facts.origin == ORIGIN
    assert counts_by_reason(facts.excluded, {"es"}, {"test"}) == {"picture missing": 1}
    assert counts_by_reason(facts.excluded, {"en"}, {"test"}) == {}


def test_a_set_that_is_not_as_the_card_expects_is_told(here: Settings, card: DatasetCard) -> None:
    store_set("head-qa", [ITEM, PICTURE], ORIGIN, here)
    assert unexpected(card, here) == [
        "head-qa es, test: 1 items and 1 left out; the card expects 2,675 and 67",
        "head-qa en, test: 0 items and 0 left out; the card expects 2,675 and 67",
    ]


def test_a_file_that_was_changed_is_refused(here: Settings, card: DatasetCard) -> None:
    receipt = store_set("head-qa", [ITEM], ORIGIN, here)
    path = set_folder("head-qa", here) / receipt.items_file
    path.write_bytes(path.read_bytes().replace(b"nursing", b"surgery"))
    with pytest.raises(RefusedError, match="SHA-256 is"):
        set_facts(card, here)


def test_storing_that_fails_keeps_what_was_there(here: Settings, card: DatasetCard) -> None:
    store_set("head-qa", [ITEM], ORIGIN, here)
    with pytest.raises(UsageError, match="stands twice"):
        store_set("head-qa", [TRAIN, TRAIN], ORIGIN, here)
    assert read_set(card, here, ("es",)) == [ITEM]
    assert [p.suffix for p in set_folder("head-qa", here).glob(".*.part")] == []


def test_a_set_without_an_item_is_refused(here: Settings) -> None:
    with pytest.raises(UsageError, match="no item in /somewhere can be asked"):
        store_set("head-qa", [PICTURE], ORIGIN, here)


def test_storing_again_leaves_one_file_of_items(here: Settings, card: DatasetCard) -> None:
    store_set("head-qa", [ITEM], ORIGIN, here)
    store_set("head-qa", [ENGLISH], ORIGIN, here)
    assert len(list(set_folder("head-qa", here).glob("items-*.jsonl"))) == 1
    assert read_set(card, here, ("en", "es")) == [ENGLISH]


def test_a_damaged_receipt_is_none(here: Settings, card: DatasetCard) -> None:
    store_set("head-qa", [ITEM], ORIGIN, here)
    path = set_folder("head-qa", here) / "receipt.json"
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps({**values, "form": 99}), encoding="utf-8")
    assert not is_here(card, here)
    path.write_bytes(b"{")
    assert not is_here(card, here)


def test_an_imported_set_is_known_by_its_own_card(here: Settings) -> None:
    mine = DatasetCard(
        id="ward",
        title="Ward round",
        languages=("es",),
        split="test",
        licence="not declared",
        citation="",
        num_items=1,
        source=ImportedItems("preguntas.xlsx"),
    )
    item = replace(ITEM, dataset="ward", group="ward/a")
    store_set("ward", [item], Origin("preguntas.xlsx"), here, mine)
    assert known_set("ward", here) == mine
    assert read_set(mine, here, ("es",)) == [item]
    assert "ward" in known_sets(here)
    with pytest.raises(UsageError, match="no data set is called 'wrad'") as caught:
        known_set("wrad", here)
    assert caught.value.hint == "did you mean ward?"
