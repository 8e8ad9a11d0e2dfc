"""Questions: what an item is, and how the project's own JSON Lines form is read.

An item is one multiple-choice question in one language. It knows nothing of prompts, answer formats
or models: a perturbation may change what is shown, never the item itself. The same question in two
languages is two items that share a `group`, which is what pairs them and what clusters them in the
statistics.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medlocal.errors import MissingError, UsageError, unknown_name

LETTERS = "ABCDEFGHIJ"
LANGUAGES = ("en", "es", "fr", "it")
"""Of items. Prompts and answer formats exist for the first two."""

_LINE_KEYS = ("id", "subject", "vignette", "difficulty", "gold", *LANGUAGES)
NOTA_VERIFIED = "nota_verified"
"""The flag of an item whose distractors were all found wrong by a reader: with its gold gone, none of
the others is right."""
_TEXT_KEYS = ("stem", "options", "rationale", NOTA_VERIFIED)


@dataclass(frozen=True, slots=True)
class Item:
    """One question in one language, with its options and its gold option."""

    id: str
    """Unique within its data set; parallel items carry the same one."""
    dataset: str
    split: str
    language: str
    """One of `LANGUAGES`."""
    stem: str
    options: tuple[str, ...]
    """From 2 to 10, in the order of the source."""
    gold: int
    """Index into `options`."""
    subject: str
    group: str
    """The source item, `<dataset>/<id>`: shared by its parallel items."""
    context: str = ""
    """A passage that the question is about; "" = none."""
    difficulty: str = ""
    """As the source says it; "" = it does not."""
    rationale: str = ""
    """Why the gold is right; "" = the source gives none. Never shown to a model."""
    flags: tuple[str, ...] = ()
    """Kinds that a report may count apart, such as "vignette"."""

    def __post_init__(self) -> None:
        needed = (self.id, self.dataset, self.split, self.stem, self.subject, self.group)
        if not all(text.strip() for text in (*needed, *self.options, *self.flags)):
            raise ValueError(f"item {self.id!r}: a text is empty")
        if self.language not in LANGUAGES:
            raise ValueError(f"item {self.id!r}: language {self.language!r} is not in {LANGUAGES}")
        if not 2 <= len(self.options) <= len(LETTERS):
            raise ValueError(f"item {self.id!r}: {len(self.options)} options, not 2 to 10")
        if not 0 <= self.gold < len(self.options):
            raise ValueError(f"item {self.id!r}: gold {self.gold} is outside its options")

    @property
    def content_sha256(self) -> str:
        """Hex digest of what determines the question: a corrected item has another one.

        The id, the subject and the rationale are left out: correcting them changes no answer.
        """
        asked = {
            "stem": self.stem,
            "context": self.context,
            "options": self.options,
            "gold": self.gold,
            "language": self.language,
        }
        return hashlib.sha256(canonical_json(asked)).hexdigest()


def canonical_json(value: object) -> bytes:
    """The one spelling of a JSON value, for hashing: sorted keys, UTF-8, no spaces, no NaN.

    Raises:
        TypeError: the value is not JSON.
        ValueError: it holds a NaN or an infinity, which JSON cannot spell.
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return text.encode("utf-8")


def load_items(path: Path, dataset: str, split: str, language: str) -> list[Item]:
    """Read the items of one language from a file in the project's own form.

    One JSON object per line: `id`, `subject`, `gold` (the letter of an option), and per language an
    object with `stem`, `options` and, if there is one, `rationale`; `nota_verified` (true: somebody
    found every wrong option wrong in itself) becomes the flag `NOTA_VERIFIED`. `vignette` (true: the
    question tells of a patient) and `difficulty` may be left out. The other language may be missing too,
    but where it is there it is checked as well: a file is sound in all languages or refused.

    Raises:
        MissingError: there is no such file, or it cannot be read.
        UsageError: the language is unknown, the file holds no item, or a line is malformed; the
            message begins "FILE:LINE:".
    """
    if language not in LANGUAGES:
        raise unknown_name("language", language, LANGUAGES)
    items: list[Item] = []
    first_seen: dict[str, int] = {}
    for number, raw in _numbered_lines(path):
        line = _Line(f"{path}:{number}", raw)
        if (earlier := first_seen.setdefault(line.id, number)) != number:
            raise UsageError(f"{line.where}: id {line.id!r} was used before, on line {earlier}")
        items.append(line.item(dataset, split, language))
    if not items:
        raise UsageError(f"{path}: the file holds no item", hint="one JSON object per line")
    return items


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, counted from 1 as an editor does."""
    if not path.is_file():
        raise MissingError(f"{path}: there is no such file", hint="check the path in the card")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}") from error
    # Split before decoding: the number of a line that is not UTF-8 is known, and U+2028 inside a
    # text is not taken for the end of a line.
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if raw.strip():
            yield number, raw


class _Line:
    """One checked line of a file; every complaint says where it stands."""

    def __init__(self, where: str, raw: bytes) -> None:
        self.where = where
        self.values = self._object("the line", _parse(where, raw), _LINE_KEYS)
        self.id = self._text(self.values, "id")
        self.subject = self._text(self.values, "subject")
        self.difficulty = self._text(self.values, "difficulty", default="")
        self.is_vignette = self._boolean(self.values, "vignette")
        self.languages = {key: self._language(key) for key in LANGUAGES if key in self.values}

    def item(self, dataset: str, split: str, language: str) -> Item:
        """The item that the line holds in a language."""
        if language not in self.languages:
            raise UsageError(
                f"{self.where}: language {language!r} is missing",
                hint=f"add {language!r} with a stem and options, or ask for another language",
            )
        stem, options, rationale, is_verified = self.languages[language]
        flags = {"vignette": self.is_vignette, NOTA_VERIFIED: is_verified}
        return Item(
            id=self.id,
            dataset=dataset,
            split=split,
            language=language,
            stem=stem,
            options=options,
            gold=LETTERS.index(self._text(self.values, "gold")),
            subject=self.subject,
            group=f"{dataset}/{self.id}",
            difficulty=self.difficulty,
            rationale=rationale,
            flags=tuple(name for name, is_set in flags.items() if is_set),
        )

    def _language(self, language: str) -> tuple[str, tuple[str, ...], str, bool]:
        values = self._object(f"{language!r}", self.values[language], _TEXT_KEYS)
        options = self._options(values, language)
        labels = LETTERS[: len(options)]
        gold = self._text(self.values, "gold")
        # A set, because "AB" in "ABCD" is true of strings.
        if gold not in set(labels):
            raise UsageError(
                f"{self.where}: gold {gold!r} is not the label of an option of {language!r}",
                hint=f"one of {', '.join(labels)}",
            )
        stem = self._text(values, "stem", inside=language)
        rationale = self._text(values, "rationale", inside=language, default="")
        is_verified = self._boolean(values, NOTA_VERIFIED, inside=language)
        return stem, options, rationale, is_verified

    def _options(self, values: Mapping[str, object], language: str) -> tuple[str, ...]:
        options = values.get("options")
        if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
            raise UsageError(f"{self.where}: {language}.options must be a list of 2 to 10 texts")
        for option in options:
            self._check_text(option, f"an option of {language!r}")
        # Options that differ only in case or spacing cannot be told apart in a written answer.
        counts = Counter(" ".join(option.split()).casefold() for option in options)
        if twice := [text for text, count in counts.items() if count > 1]:
            raise UsageError(f"{self.where}: {language}.options holds {twice[0]!r} twice")
        return tuple(options)

    def _object(self, what: str, value: object, known: Collection[str]) -> dict[str, object]:
        if not isinstance(value, dict):
            raise UsageError(f"{self.where}: {what} must be a JSON object")
        for key in value:
            if key not in known:
                nearest = unknown_name("key", key, known)
                raise UsageError(
                    f"{self.where}: {what} has an unknown key {key!r}", hint=nearest.hint
                )
        return value

    def _text(
        self,
        values: Mapping[str, object],
        key: str,
        *,
        inside: str = "",
        default: str | None = None,
    ) -> str:
        name = f"{inside}.{key}" if inside else key
        if key in values:
            return self._check_text(values[key], name)
        if default is None:
            raise UsageError(f"{self.where}: {name!r} is missing")
        return default

    def _check_text(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            raise UsageError(f"{self.where}: {name} must be a text, not {type(value).__name__}")
        if not value.strip():
            raise UsageError(f"{self.where}: {name} is empty")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise UsageError(f"{self.where}: {name} holds half a character (a lone surrogate)")
        return value

    def _boolean(self, values: Mapping[str, object], key: str, *, inside: str = "") -> bool:
        value = values.get(key, False)
        if not isinstance(value, bool):
            name = f"{inside}.{key}" if inside else key
            raise UsageError(f"{self.where}: {name} must be true or false, not {value!r}")
        return value


def _parse(where: str, raw: bytes) -> object:
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unrepeated)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON that can be read: {error}") from error


def _unrepeated(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Refuse a repeated key, of which `json` would silently keep the last."""
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"key {key!r} twice")
        values[key] = value
    return values
