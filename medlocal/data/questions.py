"""From one row of a user's table to a question, or to the reason why it is none.

Every text is checked before it is believed: mangled letters, the error values of a spreadsheet, dates
that it made of an option such as 1/2. What the answer means is left open here, because only the whole
file can decide it.
"""

import datetime
import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from medlocal.data.columns import ColumnMap, folded
from medlocal.data.encoding import mojibake
from medlocal.data.golds import (
    LABELLED,
    answer_texts,
    names_several,
    readings,
    same_words,
    spelled,
)
from medlocal.data.workbooks import number_text
from medlocal.evals.items import LANGUAGES, LETTERS, Item

SUBJECT, SPLIT = "unspecified", "test"
"""Of rows that do not say them."""

_NAMES_OF_LANGUAGES = {
    "en": "english ingles anglais inglese eng",
    "es": "spanish espanol castellano espagnol spagnolo spa",
    "fr": "french frances francais francese fra",
    "it": "italian italiano italien ita",
}
_LANGUAGE_OF = {
    name: code for code, names in _NAMES_OF_LANGUAGES.items() for name in (code, *names.split())
}
KNOWN_DUPLICATES = "duplicate_options"
"""The flag of an item whose source has equal options and is asked all the same."""
KNOWN_CELL_ERROR = "cell_error"
"""The flag of an item whose source has the error value of a spreadsheet among its options."""
_SHORT = ("id", "subject", "language", "difficulty", "group", "split", "flags")
"""Fields that stand in tables and lists, and so on one line."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_LINE_BREAK = re.compile(r"\r\n?")
_CELL_ERROR = re.compile(
    r"#(?:N/A|N/D|REF!|¡REF!|VALUE!|¡VALOR!|VALOR!|DIV/0!|¡DIV/0!|NAME\?|¿NOMBRE\?|NULL!|¡NULO!"
    r"|NUM!|¡NUM!|SPILL!|¡DESBORDAMIENTO!|CALC!|¡CALC!|GETTING_DATA|#+)"
)
"""What Excel shows for a formula that failed, in English and Spanish."""

# Not `ast.literal_eval`: it spends time and memory on whatever is written, and needs the commas.
_PYTHON_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_PYTHON_LIST = re.compile(rf"\[\s*(?:(?:{_PYTHON_TEXT.pattern})\s*(?:,\s*)?)*\]", re.DOTALL)
_PYTHON_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)


class BadRowError(Exception):
    """A row that is no question; the text says why, in plain words."""


class SeveralGoldsError(Exception):
    """A row that is sound but for its several right answers."""


@dataclass(frozen=True, slots=True)
class Question:
    """One sound row, whose answer is not read yet."""

    id: str
    has_own_id: bool
    """False: the id was made from what is asked."""
    language: str
    split: str
    stem: str
    options: tuple[str, ...]
    answer: str
    golds: Mapping[str, int]
    """Index of the gold by what the answer may mean; never empty."""
    subject: str
    group: str
    """Without the set's id."""
    context: str
    difficulty: str
    rationale: str
    flags: tuple[str, ...]

    def item(self, dataset: str, meaning: str) -> Item:
        """The item, now that it is known what the answers mean."""
        return Item(
            id=self.id,
            dataset=dataset,
            split=self.split,
            language=self.language,
            stem=self.stem,
            options=self.options,
            gold=self.golds[meaning],
            subject=self.subject,
            group=f"{dataset}/{self.group}",
            context=self.context,
            difficulty=self.difficulty,
            rationale=self.rationale,
            flags=self.flags,
        )


class Reading:
    """How the rows of one file are read."""

    def __init__(self, columns: ColumnMap, language: str, meaning: str | None) -> None:
        self._columns = columns
        self._language = language
        """Of rows that do not say it; "" = all must."""
        self._meaning = meaning
        """What the answers mean; None = that is open."""

    def question(self, values: Mapping[str, object]) -> Question:
        """The question that a row holds.

        Raises:
            BadRowError: it holds none.
            SeveralGoldsError: it has more than one right answer, and is sound otherwise.
        """
        texts = {field: self._text(values, field) for field in _FIELDS}
        if not texts["question"]:
            raise BadRowError("the question is empty")
        flags = _flags(values.get(self._columns.flags))
        options = self._options(values, flags)
        identity = texts["id"] or _made_id(texts["context"], texts["question"], options)
        language = self._language_of(texts["language"])
        answer, golds = self._golds(values, options)
        return Question(
            id=identity,
            has_own_id=bool(texts["id"]),
            language=language,
            split=sys.intern(texts["split"] or SPLIT),
            stem=texts["question"],
            options=options,
            answer=answer,
            golds=golds,
            subject=sys.intern(texts["subject"] or SUBJECT),
            group=texts["group"] or identity,
            context=texts["context"],
            difficulty=texts["difficulty"],
            rationale=texts["rationale"],
            flags=flags,
        )

    def _text(self, values: Mapping[str, object], field: str) -> str:
        column: str = getattr(self._columns, field)
        if not column:
            return ""
        text = _text(column, values.get(column))
        if field in _SHORT and "\n" in text:
            raise BadRowError(f"{column}: holds a line break")
        return text

    def _language_of(self, text: str) -> str:
        if not text:
            if not self._language:
                raise BadRowError(f"{self._columns.language}: the language is missing")
            return self._language
        # The region is left out: "es-ES" and "es_MX" are Spanish.
        name = folded(re.split("[-_]", text)[0])
        if name not in _LANGUAGE_OF:
            raise BadRowError(
                f"{self._columns.language}: {text!r} is none of {', '.join(LANGUAGES)}"
            )
        return _LANGUAGE_OF[name]

    def _options(self, values: Mapping[str, object], flags: Sequence[str]) -> tuple[str, ...]:
        columns = self._columns.option_columns
        read = _any_text if KNOWN_CELL_ERROR in flags else _text
        if columns:
            options = [read(column, values.get(column)) for column in columns]
        else:
            options = _listed(self._columns.options, values.get(self._columns.options), read)
        return _checked_options(options, flags)

    def _golds(
        self, values: Mapping[str, object], options: Sequence[str]
    ) -> tuple[str, Mapping[str, int]]:
        """The answer as it is written, and what it may be."""
        column = self._columns.answer
        answers = _answers(column, values.get(column))
        if not answers or not answers[0]:
            raise BadRowError("the answer is empty")
        if len(answers) > 1:
            raise SeveralGoldsError(f"several right answers: {', '.join(answers)}")
        answer = answers[0]
        found = readings(answer, options)
        if not found and names_several(answer, options):
            raise SeveralGoldsError(f"several right answers: {answer!r}")
        if self._meaning is not None:
            found = {m: slot for m, slot in found.items() if m == self._meaning}
        if not found:
            raise BadRowError(self._no_gold(answer, options))
        return answer, found

    def _no_gold(self, answer: str, options: Sequence[str]) -> str:
        if len(same_words(answer, options)) > 1:
            return f"the answer {answer[:60]!r} is the words of more than one option"
        last = len(options)
        expected = {
            "letter": f"a letter from A to {LETTERS[last - 1]}",
            "zero-based": f"a number from 0 to {last - 1}",
            "one-based": f"a number from 1 to {last}",
            "text": "the words of one of the options",
        }
        wanted = expected.get(self._meaning or "", f"one of the {last} options")
        return f"the answer {answer[:60]!r} is not {wanted}"


_FIELDS = ("question", "id", "subject", "language", "context", "rationale", "difficulty", "group",
           "split")  # fmt: skip


def _text(column: str, value: object) -> str:
    """The text of a cell, which is no error value of a spreadsheet."""
    text = _any_text(column, value)
    if _CELL_ERROR.fullmatch(text):
        raise BadRowError(f"{column}: holds the error value {text} of a spreadsheet")
    return text


def _any_text(column: str, value: object) -> str:
    """A cell as text, without the spaces around it and with one kind of line break; "" = empty."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _shown(column, value)
    text = _LINE_BREAK.sub("\n", text).strip()
    if text.isascii() and text.isprintable() and not text.startswith("#"):
        return text
    if found := _UNPRINTABLE.search(text):
        raise BadRowError(
            f"{column}: holds a character that cannot be shown, U+{ord(found[0]):04X}"
        )
    if "\ufffd" in text:
        raise BadRowError(f"{column}: a letter was lost before the file was saved (\ufffd)")
    if mangled := mojibake(text):
        raise BadRowError(
            f"{column}: letters were mangled before the file was saved, such as {mangled!r}"
        )
    return text


def _shown(column: str, value: object) -> str:
    """What a person sees of a value that is not text."""
    if isinstance(value, bool):
        raise BadRowError(
            f"{column}: holds true or false: format the column as text and write the words"
        )
    if isinstance(value, float) and math.isnan(value):
        return ""  # how pandas writes an empty cell
    if isinstance(value, int | float | Decimal) and math.isfinite(value):
        return number_text(value) if isinstance(value, int | float) else str(value)
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        raise BadRowError(
            f"{column}: holds a date or a time, which a spreadsheet makes of texts such as 1/2:"
            " format the column as text and write it again"
        )
    raise BadRowError(f"{column}: holds {type(value).__name__} where text is needed")


def _checked_options(options: list[str], flags: Sequence[str]) -> tuple[str, ...]:
    """The options, of which no two may be the same unless the row says that it knows.

    Capitals count, as they do in the sets that are read: tt and TT are two genotypes.
    """
    while options and not options[-1]:
        options.pop()
    if "" in options:
        letter = LETTERS[min(options.index(""), len(LETTERS) - 1)]
        raise BadRowError(f"option {letter} is empty and one behind it is not")
    if not 2 <= len(options) <= len(LETTERS):
        raise BadRowError(f"{len(options)} options: from 2 to {len(LETTERS)} can be asked")
    counts = Counter(map(spelled, options))
    twice = [option for option in options if counts[spelled(option)] > 1]
    if twice and KNOWN_DUPLICATES not in flags:
        raise BadRowError(f"two options are the same: {twice[0][:60]!r}")
    return tuple(options)


def _listed(column: str, value: object, read: Callable[[str, object], str]) -> list[str]:
    """The options of a column that holds them all."""
    entries = _entries(value) if isinstance(value, str) else value
    if entries is None:
        return []
    if isinstance(entries, Mapping):
        return _labelled(column, entries, read)
    if not isinstance(entries, list | tuple):
        raise BadRowError(f"{column}: holds {type(entries).__name__} where a list is needed")
    options = [read(column, entry) for entry in entries]
    return options if isinstance(value, list | tuple) else _without_labels(options)


def _entries(text: str) -> object:
    """A list that is written as text: in the spelling of JSON or Python, or divided by a sign."""
    text = text.strip()
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return _written_by_python(text)
    separator = next((s for s in ("\n", "|", ";") if s in text), None)
    return text.split(separator) if separator else [text]


def _written_by_python(text: str) -> list[str]:
    """A list as pandas and numpy write one into a CSV file: ['a', 'b'] or ['a' 'b']."""
    if not _PYTHON_LIST.fullmatch(text):
        raise BadRowError(f"the options are not a list that can be read: {text[:60]!r}")
    quoted = (match.group()[1:-1] for match in _PYTHON_TEXT.finditer(text))
    return [_PYTHON_ESCAPE.sub(_unescaped, inside) for inside in quoted]


def _unescaped(match: re.Match[str]) -> str:
    spelled = match[1]
    if spelled[0] in "xu":
        return chr(int(spelled[1:], 16))
    return {"n": "\n", "t": "\t", "r": "\r"}.get(spelled, spelled)


def _labelled(
    column: str, entries: Mapping[object, object], read: Callable[[str, object], str]
) -> list[str]:
    """Options under their letters or numbers: {"A": …, "B": …}."""
    for labels in (LETTERS, LETTERS.lower(), "0123456789", [*"123456789", "10"]):
        wanted = list(labels[: len(entries)])
        if {str(key) for key in entries} == set(wanted):
            by_label = {str(key): value for key, value in entries.items()}
            return [read(column, by_label[label]) for label in wanted]
    raise BadRowError(f"{column}: the options are not under A, B, C … or 1, 2, 3 …")


def _without_labels(options: list[str]) -> list[str]:
    """Take away "A)", "B)" … where every line of a written list begins with its own."""
    matches = [LABELLED.fullmatch(option) for option in options]
    labels = "".join(match[1].upper() if match else " " for match in matches)
    if labels != LETTERS[: len(options)]:
        return options
    return [match[2] for match in matches if match]


def _answers(column: str, value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [_text(column, entry) for entry in value]
    return answer_texts(_text(column, value))


def _flags(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(";")
    if not isinstance(value, list | tuple):
        return ()
    return tuple(text for entry in value if (text := _text("flags", entry)))


def _made_id(context: str, stem: str, options: Sequence[str]) -> str:
    """An id from what is asked: it stays when rows are moved or an answer is corrected."""
    asked = json.dumps([context, stem, *options], ensure_ascii=False).encode()
    return hashlib.sha256(asked).hexdigest()[:16]
