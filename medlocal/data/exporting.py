"""Items as a table that other programs read, and that `importing` gives the same items from.

The names of the columns are those that importing recognises by itself. Spreadsheets take a text that
begins with `=`, `+`, `-` or `@` for a formula: XLSX says of every cell that it is text; CSV and TSV,
which cannot, get an apostrophe before it, which importing takes away again. The set's id is not
written: it is given at the import.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from medlocal.data.tables import GUARDED
from medlocal.data.workbooks import MAX_ROWS
from medlocal.errors import UsageError
from medlocal.evals.items import LETTERS, Item
from medlocal.files import disk_errors, publish

_BEFORE = ("id", "group", "split", "language", "subject", "context", "question")
_BEHIND = ("answer_letter", "difficulty", "rationale", "flags")
_BATCH = 512

_LONGEST_CELL = 32_767
"""Characters, in Excel."""
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LIKE_AN_ESCAPE = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")
"""An underscore that XLSX would take for the beginning of a character's number."""


def export_items(items: Sequence[Item], path: Path) -> None:
    """Write items to a file of the kind that its ending says, which appears once it is whole.

    Args:
        items: of one set, in any languages and splits; at least one.
        path: ends in .csv, .tsv, .jsonl, .xlsx or .parquet. CSV and TSV are UTF-8 with a mark, by
            which Excel knows it.

    Raises:
        UsageError: the ending is another one, there is no item, or a text cannot stand in such a
            file.
        MedlocalError: the disk is full or cannot be written.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path}: unknown ending", hint=f"known: {', '.join(_WRITERS)}")
    if not items:
        raise UsageError(f"{path}: there is no item to write")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(
            f"{path}: {what}", hint="give the path of a file in a folder that is there"
        )
    for item in items:
        _require_flags(item)
    with disk_errors(path.parent), publish(path) as stream:
        try:
            write(stream, items)
        except UnicodeEncodeError as error:
            raise UsageError(f"{path}: a text holds half a character (a lone surrogate)") from error


def _require_flags(item: Item) -> None:
    if wrong := [flag for flag in item.flags if ";" in flag or "\n" in flag]:
        raise UsageError(f"item {item.id!r}: flag {wrong[0]!r} cannot be written in a list")


def _values(item: Item) -> dict[str, Any]:
    """By column, the options and flags as lists."""
    return {
        "id": item.id,
        "group": item.group.removeprefix(f"{item.dataset}/"),
        "split": item.split,
        "language": item.language,
        "subject": item.subject,
        "context": item.context,
        "question": item.stem,
        "options": list(item.options),
        "answer_letter": LETTERS[item.gold],
        "difficulty": item.difficulty,
        "rationale": item.rationale,
        "flags": list(item.flags),
    }


def _rows(items: Sequence[Item]) -> Iterator[list[str]]:
    """The names, then the items, with a column for each option."""
    letters = LETTERS[: max(len(item.options) for item in items)]
    yield [*_BEFORE, *(f"option_{letter.lower()}" for letter in letters), *_BEHIND]
    for item in items:
        values = _values(item) | {"flags": ";".join(item.flags)}
        padding = [""] * (len(letters) - len(item.options))
        behind = [values[name] for name in _BEHIND]
        yield [*(values[name] for name in _BEFORE), *item.options, *padding, *behind]


def _write_csv(stream: IO[bytes], items: Sequence[Item]) -> None:
    _write_delimited(stream, items, ",")


def _write_tsv(stream: IO[bytes], items: Sequence[Item]) -> None:
    _write_delimited(stream, items, "\t")


def _write_delimited(stream: IO[bytes], items: Sequence[Item], delimiter: str) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        writer = csv.writer(text, delimiter=delimiter)
        for row in _rows(items):
            writer.writerow([f"'{c}" if GUARDED.match(f"'{c}") else c for c in row])
        text.flush()
    finally:
        text.detach()  # the stream is closed by who opened it


def _write_jsonl(stream: IO[bytes], items: Sequence[Item]) -> None:
    for item in items:
        values = {name: value for name, value in _values(item).items() if value}
        stream.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")


def _write_xlsx(stream: IO[bytes], items: Sequence[Item]) -> None:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    if len(items) >= MAX_ROWS:
        raise UsageError(f"{len(items):,} items: a sheet has {MAX_ROWS:,} rows")
    # All of them before the first is written: openpyxl cannot give up a sheet half way.
    for row in _rows(items):
        for text in row:
            _spelled(row[0], text)
    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet("items")
    sheet.freeze_panes = "A2"
    for row in _rows(items):
        cells = []
        for text in row:
            cell = WriteOnlyCell(sheet, _spelled(row[0], text))
            # Said of every cell: openpyxl takes "=…" for a formula and "#N/A" for an error, and
            # Excel a text that is edited for a number or a date.
            cell.data_type = "s"
            cell.number_format = "@"
            cells.append(cell)
        sheet.append(cells)
    workbook.save(stream)


def _spelled(item_id: str, text: str) -> str:
    """A text as XLSX spells it."""
    if found := _NOT_IN_XML.search(text):
        raise UsageError(
            f"item {item_id!r}: XLSX cannot hold the character U+{ord(found[0]):04X}",
            hint="write JSONL or Parquet",
        )
    spelled = _LIKE_AN_ESCAPE.sub("_x005F_", text).replace("\r", "_x000D_")
    if len(spelled) > _LONGEST_CELL:
        raise UsageError(
            f"item {item_id!r}: a text of {len(text):,} characters; a cell of XLSX holds"
            f" {_LONGEST_CELL:,}",
            hint="write JSONL or Parquet",
        )
    return spelled


def _write_parquet(stream: IO[bytes], items: Sequence[Item]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    listed = {"options", "flags"}
    schema = pa.schema([
        (name, pa.list_(pa.string()) if name in listed else pa.string())
        for name in (*_BEFORE, "options", *_BEHIND)
    ])  # fmt: skip
    with pq.ParquetWriter(stream, schema) as writer:
        for start in range(0, len(items), _BATCH):
            batch = [_values(item) for item in items[start : start + _BATCH]]
            writer.write_table(pa.Table.from_pylist(batch, schema))


_WRITERS: dict[str, Callable[[IO[bytes], Sequence[Item]], None]] = {
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".jsonl": _write_jsonl,
    ".xlsx": _write_xlsx,
    ".parquet": _write_parquet,
}
