"""The data sets of this machine: which are here, how one gets here, and its items.

A set that was pulled or imported lies in a folder of its own: a file of items in the stored form and,
written last, a receipt that names that file, its checksum, where it came from and every record that
was left out. Without a receipt a set is not here. What ships with medlocal is read where it lies.
This module knows nothing of prompts, models or runs.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medlocal.catalog import (
    DatasetCard,
    HubItems,
    ImportedItems,
    ShippedItems,
    data_root,
    dataset_cards,
)
from medlocal.data.importing import ImportPlan
from medlocal.data.importing import items as import_items
from medlocal.data.rows import Excluded
from medlocal.data.seen import Seen
from medlocal.data.stored import read_items, write_items
from medlocal.errors import MissingError, RefusedError, UsageError, unknown_name
from medlocal.evals.items import Item, load_items
from medlocal.files import atomic_write, disk_errors, exclusive, file_sha256, publish
from medlocal.settings import Settings

_RECEIPT = "receipt.json"
_FORM = 1
"""Of the receipt; another one is not read."""
_ASKED_FIRST = ("test", "validation", "dev", "train")
"""The split of an imported set that is asked: the first of these that it has."""
_EXAMPLES_FIRST = ("train", "validation", "dev")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a set was made from."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a set came from."""

    where: str
    """For people: a folder, a file, or a repository."""
    revision: str = ""
    """The commit that was read; "" = it has none, or it is not known."""
    files: tuple[SourceFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What lies in a set's folder."""

    id: str
    origin: Origin
    items_file: str
    sha256: str
    """Of the file of items."""
    counts: dict[str, dict[str, int]]
    """Items by language and split."""
    excluded: tuple[Excluded, ...]
    time: str
    """UTC, ISO 8601."""
    card: dict[str, Any]
    """The card of an imported set, which is nowhere else; {} for a pulled one."""


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What is known of a set that is here, beside its card."""

    sha256: str
    origin: Origin
    excluded: tuple[Excluded, ...]
    time: str


def set_folder(set_id: str, settings: Settings) -> Path:
    """The folder of one set, whether it is there or not."""
    return settings.data_dir / set_id


def known_sets(settings: Settings) -> dict[str, DatasetCard]:
    """The cards of all sets that ship, can be pulled, or were imported here, by id."""
    cards = dict(dataset_cards())
    for path in sorted(settings.data_dir.glob(f"*/{_RECEIPT}")):
        receipt = _read_receipt(path)
        if receipt is None or receipt.id in cards or receipt.id != path.parent.name:
            continue
        if card := _imported_card(receipt):
            cards[receipt.id] = card
    return cards


def known_set(set_id: str, settings: Settings) -> DatasetCard:
    """The card of that id; UsageError with the nearest ids where there is none."""
    cards = known_sets(settings)
    if set_id not in cards:
        raise unknown_name("data set", set_id, cards)
    return cards[set_id]


def is_here(card: DatasetCard, settings: Settings) -> bool:
    """True where the set's items can be read without a network."""
    if isinstance(card.source, ShippedItems):
        return True
    receipt = _receipt(card, settings)
    return receipt is not None and _items_file(receipt, settings).is_file()


def has_examples(card: DatasetCard, settings: Settings) -> bool:
    """True where a split is here that the card takes few-shot examples from."""
    return is_here(card, settings) and not set(card.examples).isdisjoint(splits_of(card, settings))


def pull_hint(card: DatasetCard) -> str:
    """What to do about a set that is not here."""
    if isinstance(card.source, ImportedItems):
        return f"medlocal data import {card.source.file} --id {card.id}"
    return f"medlocal data pull {card.id}, or with --from DIR on a machine without a network"


def read_set(
    card: DatasetCard,
    settings: Settings,
    languages: Collection[str],
    splits: Collection[str] | None = None,
) -> list[Item]:
    """The items of a set in some languages and splits, in the order of the source.

    Args:
        card: the set.
        settings: where sets are kept.
        languages: those of the card that are wanted; others of the collection have no items.
        splits: None = the one that the card says is asked.

    Raises:
        MissingError: the set is not here; the hint names the command that gets it.
        RefusedError: its file is not the one that was pulled.
        UsageError: its file is malformed.
    """
    splits = (card.split,) if splits is None else splits
    if isinstance(card.source, ShippedItems):
        if card.split not in splits:
            return []
        path = data_root() / "benchmarks" / card.source.file
        wanted = [language for language in card.languages if language in languages]
        return [i for lang in wanted for i in load_items(path, card.id, card.split, lang)]
    path = _sound_items(card, _needed_receipt(card, settings), settings)
    return [i for i in read_items(path) if i.language in languages and i.split in splits]


def splits_of(card: DatasetCard, settings: Settings) -> tuple[str, ...]:
    """The splits that a set has here, in alphabetical order.

    Raises:
        MissingError: it is not here.
    """
    if isinstance(card.source, ShippedItems):
        return (card.split,)
    counts = _needed_receipt(card, settings).counts.values()
    return tuple(sorted({split for of_language in counts for split in of_language}))


def set_facts(card: DatasetCard, settings: Settings) -> SetFacts:
    """Checksum, origin and exclusions of a set that is here.

    Raises:
        MissingError: it is not here.
        RefusedError: its file of items is not the one that was stored.
    """
    if isinstance(card.source, ShippedItems):
        path = data_root() / "benchmarks" / card.source.file
        return SetFacts(file_sha256(path), Origin("ships with medlocal"), (), "")
    receipt = _needed_receipt(card, settings)
    _sound_items(card, receipt, settings)
    return SetFacts(receipt.sha256, receipt.origin, receipt.excluded, receipt.time)


def store_set(
    set_id: str,
    results: Iterable[Item | Excluded],
    origin: Origin,
    settings: Settings,
    imported: DatasetCard | None = None,
) -> Receipt:
    """Keep a set; what was kept under its id before stays until the new one is complete.

    Args:
        set_id: its id.
        results: items and exclusions, written as they come.
        origin: where they come from.
        settings: where sets are kept.
        imported: the card of a user's own set, kept with it; None for a set with a shipped card.

    Raises:
        UsageError: there is no item, or an id stands twice in one split and language.
        MedlocalError: the disk is full or cannot be written.
    """
    folder = set_folder(set_id, settings)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".lock", lambda: None):
            for leftover in folder.glob(".*.part"):
                leftover.unlink()
            receipt = _write(set_id, results, origin, folder, imported)
            for stale in folder.glob("items-*.jsonl"):
                if stale.name != receipt.items_file:
                    stale.unlink()
    return receipt


def keep_import(plan: ImportPlan, title: str, licence: str, settings: Settings) -> DatasetCard:
    """Import the sound rows of a file that was looked at, in place of a set of the same id.

    Raises:
        UsageError: rows are bad and were not to be skipped, or the file was changed since.
        MedlocalError: the disk is full or cannot be written.
    """
    summary, path = plan.summary, plan.source.path.absolute()
    sound = import_items(plan)
    if not summary.items:
        raise UsageError(f"{path}: no row can be imported", hint="see the rows listed")
    asked = next(s for s in (*_ASKED_FIRST, *summary.by_split) if s in summary.by_split)
    card = DatasetCard(
        id=plan.options.set_id,
        title=title,
        languages=tuple(summary.by_language),  # type: ignore[arg-type]  # of LANGUAGES
        split=asked,
        licence=licence,
        citation="",
        num_items=max(1, summary.by_split[asked] // len(summary.by_language)),
        source=ImportedItems(str(path)),
        examples=tuple(s for s in _EXAMPLES_FIRST if s in summary.by_split and s != asked),
    )
    file = SourceFile(path.name, file_sha256(path), path.stat().st_size)
    store_set(card.id, sound, Origin(str(path), "", (file,)), settings, card)
    return card


def counts_by_reason(
    excluded: Iterable[Excluded], languages: Collection[str], splits: Collection[str]
) -> dict[str, int]:
    """How many records were left out for each reason."""
    reasons = (e.reason for e in excluded if e.language in languages and e.split in splits)
    return dict(sorted(Counter(reasons).items()))


def unexpected(card: DatasetCard, settings: Settings) -> list[str]:
    """Where a set that is here differs from what its card expects of it, in sentences."""
    if not isinstance(card.source, HubItems):
        return []
    receipt = _needed_receipt(card, settings)
    said = []
    for language in card.languages:
        num_items = receipt.counts.get(language, {}).get(card.split, 0)
        excluded = sum(counts_by_reason(receipt.excluded, {language}, {card.split}).values())
        if (num_items, excluded) != (card.num_items, card.num_excluded):
            said.append(
                f"{card.id} {language}, {card.split}: {num_items:,} items and {excluded:,} left"
                f" out; the card expects {card.num_items:,} and {card.num_excluded:,}"
            )
    return said


def _write(
    set_id: str,
    results: Iterable[Item | Excluded],
    origin: Origin,
    folder: Path,
    imported: DatasetCard | None,
) -> Receipt:
    excluded: list[Excluded] = []
    counts: dict[str, dict[str, int]] = {}
    draft = folder / "items.jsonl"
    with publish(draft) as stream:
        if not write_items(stream, _items(results, excluded, counts)):
            raise UsageError(f"{set_id}: no item in {origin.where} can be asked")
    sha256 = file_sha256(draft)
    # Named by its content: a receipt never points at a file that is being replaced.
    name = f"items-{sha256[:12]}.jsonl"
    draft.replace(folder / name)
    receipt = Receipt(
        id=set_id,
        origin=origin,
        items_file=name,
        sha256=sha256,
        counts=counts,
        excluded=tuple(excluded),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        card=_card_values(imported) if imported else {},
    )
    values = {"form": _FORM, **dataclasses.asdict(receipt)}
    atomic_write(folder / _RECEIPT, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    return receipt


def _items(
    results: Iterable[Item | Excluded],
    excluded: list[Excluded],
    counts: dict[str, dict[str, int]],
) -> Iterator[Item]:
    """Pass on the items; note what was left out, and count the rest."""
    with Seen() as seen:
        for number, result in enumerate(results, start=1):
            if isinstance(result, Excluded):
                excluded.append(result)
                continue
            key = (result.language, result.split, result.id)
            if seen.add("\0".join(key), number):
                raise UsageError(f"{result.dataset}: id {result.id!r} stands twice in {key[:2]}")
            of_language = counts.setdefault(result.language, {})
            of_language[result.split] = of_language.get(result.split, 0) + 1
            yield result


def _receipt(card: DatasetCard, settings: Settings) -> Receipt | None:
    return _read_receipt(set_folder(card.id, settings) / _RECEIPT)


def _needed_receipt(card: DatasetCard, settings: Settings) -> Receipt:
    if (receipt := _receipt(card, settings)) is None:
        raise MissingError(f"the data set {card.id} is not on this machine", hint=pull_hint(card))
    return receipt


def _items_file(receipt: Receipt, settings: Settings) -> Path:
    return set_folder(receipt.id, settings) / receipt.items_file


def _sound_items(card: DatasetCard, receipt: Receipt, settings: Settings) -> Path:
    """The file of items, if it is the one that was stored."""
    path = _items_file(receipt, settings)
    if not path.is_file():
        raise MissingError(f"{path} is gone", hint=pull_hint(card))
    if (found := file_sha256(path)) != receipt.sha256:
        raise RefusedError(
            f"{path}: SHA-256 is {found}, expected {receipt.sha256}", hint=pull_hint(card)
        )
    return path


def _read_receipt(path: Path) -> Receipt | None:
    """Read a receipt; one that is damaged or of another form is none."""
    try:
        values = json.loads(path.read_bytes())
        if values.pop("form") != _FORM:
            return None
        origin = values.pop("origin")
        files = tuple(SourceFile(**entry) for entry in origin.pop("files"))
        excluded = tuple(Excluded(**entry) for entry in values.pop("excluded"))
        for of_language in values["counts"].values():
            of_language.items()  # a mapping, or the receipt is damaged
        return Receipt(**values, origin=Origin(**origin, files=files), excluded=excluded)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _card_values(card: DatasetCard) -> dict[str, Any]:
    assert isinstance(card.source, ImportedItems)
    values = dataclasses.asdict(card)
    return {**values, "source": card.source.file}


def _imported_card(receipt: Receipt) -> DatasetCard | None:
    """The card that a receipt keeps; None where it keeps none, or a damaged one."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in receipt.card.items()
    }
    try:
        return DatasetCard(**{**values, "source": ImportedItems(values["source"])})
    except (KeyError, TypeError, ValueError):
        return None
