"""MedExpQA: MIR cases with their explanations, in the columns that the set has on the Hub.

`full_answer`, `full_answer_no_ref`, `explanations` and `rag` give the answer away: the first goes to
`rationale`, which is never shown, and the others are not looked at.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from medlocal.data.rows import EMPTY_STEM, NO_GOLD, TOO_FEW_OPTIONS, Excluded, Row
from medlocal.errors import UsageError
from medlocal.evals.items import Item

_COLUMNS = (
    "id",
    "year",
    "question_id_specific",
    "full_question",
    "options",
    "correct_option",
    "type",
)
_ABSENT = {"", "nan", "none"}


def read_items(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    """Make items of rows.

    Raises:
        UsageError: a row lacks a column, or one does not hold what it should.
    """
    for row in rows:
        yield _item(dataset, row)


def _item(dataset: str, row: Row) -> Item | Excluded:
    where = f"{dataset}, {row.language}, {row.split}, row {row.number}"
    for column in _COLUMNS:
        if column not in row.values:
            raise UsageError(f"{where}: column {column!r} is missing", hint=", ".join(_COLUMNS))
    values = row.values
    numbered = _options(where, values["options"])
    stem, kind = _text(values["full_question"]), _text(values["type"])
    right = str(values["correct_option"]).strip()
    item_id = f"{values['year']}-{values['question_id_specific']}-{values['id']}"
    reason = _reason(stem, numbered, right)
    if reason:
        return Excluded(item_id, row.split, row.language, reason)
    return Item(
        id=item_id,
        dataset=dataset,
        split=row.split,
        language=row.language,
        stem=stem,
        options=tuple(numbered.values()),
        gold=list(numbered).index(right),
        subject=kind.lower() or "unspecified",
        group=f"{dataset}/{values['year']}-{values['question_id_specific']}",
        rationale=_text(values.get("full_answer")),
        flags=("vignette",),
    )


def _reason(stem: str, numbered: Mapping[str, str], right: str) -> str:
    if not stem:
        return EMPTY_STEM
    if len(numbered) < 2:
        return TOO_FEW_OPTIONS
    return "" if right in numbered else NO_GOLD


def _options(where: str, options: Any) -> dict[str, str]:
    """The options by number, without those that are absent."""
    if not isinstance(options, Mapping):
        raise UsageError(f"{where}: options must be texts by number, not {options!r:.60}")
    numbered = {str(number): _text(text) for number, text in sorted(options.items())}
    return {number: text for number, text in numbered.items() if text}


def _text(value: Any) -> str:
    """A text without stray spaces; "" for null, NaN and their spellings."""
    if value is None or isinstance(value, float):
        return ""
    text = "\n".join(" ".join(line.split()) for line in str(value).split("\n")).strip()
    return "" if text.casefold() in _ABSENT else text
