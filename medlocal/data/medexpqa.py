"""MedExpQA: MIR cases with their explanations, in the columns that the set has on the Hub.

`full_answer`, `full_answer_no_ref`, `explanations` and `rag` give the answer away: the first goes to
`rationale`, which is never shown, and the others are not looked at. Whether an exam's question stands
under one year and number only is not known; copies of a case are therefore also told by their text.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from medlocal.data.copies import disputed, same_cases
from medlocal.data.rows import (
    EMPTY_OPTION,
    EMPTY_STEM,
    GOLD_TWICE,
    NO_GOLD,
    TOO_FEW_OPTIONS,
    UNREADABLE,
    Excluded,
    Row,
)
from medlocal.errors import UsageError
from medlocal.evals.items import LANGUAGES, Item

_COLUMNS = (
    "id",
    "year",
    "question_id_specific",
    "full_question",
    "options",
    "correct_option",
    "type",
)
_ABSENT = ("", "nan", "NaN", "None")
"""Spellings of a null; an option "None of them." is none of these."""
_REFERENCES = ("es", "en", *LANGUAGES)
"""Spanish is the original: its texts say which cases are the same, as long as they are there."""


def read_items(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    """Make items of rows.

    Parallel items share their id and their group, which they also share with other copies of their
    case: by year and number, or by the text in one language. A row that has another gold or number of
    options than its parallel in that language is left out; where copies contradict each other, all
    stay and carry the flag `gold_disputed`.

    Args:
        dataset: the set's id.
        rows: with the columns `id`, `year`, `question_id_specific`, `full_question`, `options`
            (texts by number, from "1"), `correct_option` (from 1) and `type`.

    Raises:
        UsageError: a row lacks a column, or one does not hold what it should.
    """
    results = [_take(dataset, row) for row in rows]
    reference: dict[tuple[str, str], Item] = {}
    for language in dict.fromkeys(_REFERENCES):
        for result in results:
            if isinstance(result, Item) and result.language == language:
                reference.setdefault((result.split, result.id), result)
    groups = _groups(reference.values())
    doubtful = disputed(
        {place: (groups[i.group], i.options, i.gold) for place, i in reference.items()}
    )
    for result in results:
        if isinstance(result, Excluded):
            yield result
        else:
            place = (result.split, result.id)
            flags = ("gold_disputed",) if place in doubtful else ()
            yield _shared(result, reference[place], groups, flags)


def _groups(items: Iterable[Item]) -> dict[str, str]:
    """For the group of each item the first one that tells the same case."""
    texts: dict[str, str] = {}
    for item in items:
        texts.setdefault(item.group, item.stem)
    names = sorted(texts)
    firsts = same_cases([texts[name] for name in names])
    return {name: names[first] for name, first in zip(names, firsts, strict=True)}


def _shared(
    item: Item, reference: Item, groups: Mapping[str, str], flags: tuple[str, ...]
) -> Item | Excluded:
    """An item with what it shares with its parallels."""
    if (item.gold, len(item.options)) != (reference.gold, len(reference.options)):
        return Excluded(item.id, item.split, item.language, UNREADABLE)
    return replace(
        item,
        group=groups[reference.group],
        subject=reference.subject,
        flags=(*item.flags, *flags),
    )


def _take(dataset: str, row: Row) -> Item | Excluded:
    cells = _Cells(f"{dataset}, {row.language}, {row.split}, row {row.number}", row)
    stem, numbered = cells.text("full_question"), cells.options()
    right = cells.whole("correct_option")
    year, number = cells.whole("year"), cells.whole("question_id_specific")
    own = cells.key("id")
    of_case = own if year is None or number is None else f"{year}-{number}"
    item_id = own if of_case == own else f"{of_case}-{own}"
    options = tuple(text for text in numbered if text)
    reason = _reason(stem, numbered, right or 0)
    if reason:
        return Excluded(item_id, row.split, row.language, reason)
    assert right is not None
    distinct = len(set(options)) == len(options)
    return Item(
        id=item_id,
        dataset=dataset,
        split=row.split,
        language=row.language,
        stem=stem,
        options=options,
        gold=right - 1,
        subject=cells.text("type").lower() or "unspecified",
        group=f"{dataset}/{of_case}",
        rationale=cells.text("full_answer") if "full_answer" in row.values else "",
        flags=("vignette",) if distinct else ("vignette", "duplicate_options"),
    )


def _reason(stem: str, numbered: list[str], right: int) -> str:
    """Why a question cannot be asked; "" = it can."""
    kept = [text for text in numbered if text]
    if not stem:
        return EMPTY_STEM
    if len(kept) < 2:
        return TOO_FEW_OPTIONS
    if not all(numbered[: len(kept)]):
        return EMPTY_OPTION
    if not 1 <= right <= len(kept):
        return NO_GOLD
    return GOLD_TWICE if kept.count(kept[right - 1]) > 1 else ""


@dataclass(frozen=True, slots=True)
class _Cells:
    """The checked columns of one row; every complaint says which row it is."""

    where: str
    row: Row

    def __post_init__(self) -> None:
        missing = [column for column in _COLUMNS if column not in self.row.values]
        if missing:
            found = ", ".join(map(str, self.row.values)) or "none"
            raise UsageError(
                f"{self.where}: column {', '.join(map(repr, missing))} is missing",
                hint=f"the columns must be {', '.join(_COLUMNS)}; there are {found}",
            )

    def text(self, column: str) -> str:
        return self._cleaned(self.row.values[column], column)

    def options(self) -> list[str]:
        """The options from number 1 on; "" for one that is absent."""
        options = self.row.values["options"]
        numbered = (
            {str(key): text for key, text in options.items()}
            if isinstance(options, Mapping)
            else {}
        )
        count = len(numbered)
        if not numbered or count > 9 or set(numbered) != {str(n + 1) for n in range(count)}:
            raise self._wrong("options", options, 'texts by number, from "1" on')
        return [self._cleaned(numbered[str(n + 1)], "options") for n in range(count)]

    def whole(self, column: str) -> int | None:
        """A whole number, written as one or as text; None for a null."""
        value = self.row.values[column]
        if _is_null(value):
            return None
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(column, value, "a whole number")
        return value

    def key(self, column: str) -> str:
        """A number or a short text that tells a row from others."""
        value = self.row.values[column]
        text = self._cleaned(str(value) if isinstance(value, int) else value, column)
        if not text:
            raise self._wrong(column, value, "a number")
        return text

    def _cleaned(self, value: Any, column: str) -> str:
        """A text without stray spaces; "" for a null and its spellings."""
        if _is_null(value):
            return ""
        if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
            raise self._wrong(column, value, "a text")
        lines = value.replace("\u200b", "").replace("\ufeff", "").split("\n")
        return "\n".join(" ".join(line.split()) for line in lines).strip()

    def _wrong(self, column: str, value: object, expected: str) -> UsageError:
        return UsageError(
            f"{self.where}: {column} must be {expected}, not {value!a:.60}",
            hint="the files are not this set's, or of a revision with other columns",
        )


def _is_null(value: object) -> bool:
    if isinstance(value, str):
        return value.strip() in _ABSENT
    return value is None or (isinstance(value, float) and math.isnan(value))
