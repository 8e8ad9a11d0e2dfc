"""The one place that reads XLSX: rows of cells as a person sees them in the spreadsheet.

Numbers are given as text without the ".0" that a spreadsheet does not show, percentages with their
sign, and text with its line breaks. What a cell shows by another format (a decimal comma, a currency,
a fraction) is not followed. Dates and truth values stay what they are, because what the person typed
is gone: the caller refuses them. A formula is given as the value that was saved with it.
"""

import re
import warnings
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from medlocal.errors import MedlocalError, UsageError, unknown_name

MAX_ROWS = 1_048_576
"""Of a sheet, as Excel has it. openpyxl makes up the rows that a damaged file skips."""

_BATCH = 256
_OLD_FORM = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How files of Excel before 2007 begin, and encrypted ones of today."""
_PERCENT = re.compile(r"0(?:[.,](0+))?\s*%")
_ESCAPED = re.compile(r"_x005F_(?=x[0-9A-Fa-f]{4}_)|_x000D_")
"""How XLSX spells an underscore that begins no escape, and a carriage return."""


def sheet_rows(path: Path, sheet: str | None) -> Iterator[tuple[int, list[object]]]:
    """The rows of a sheet with their numbers from 1, empty ones among them.

    A cell is None, a text, a truth value, or a date or time of `datetime`.

    Args:
        path: the file.
        sheet: its name; None = the first.

    Raises:
        UsageError: it is no XLSX file, or a damaged one, or has no such sheet.
    """
    _require_workbook(path)
    number = 0
    try:
        with path.open("rb") as stream:
            rows = _open_sheet(path, stream, sheet)
            while batch := _next_rows(rows):
                for cells in batch:
                    number += 1
                    if number > MAX_ROWS:
                        raise UsageError(f"{path}: more than {MAX_ROWS:,} rows")
                    yield number, [_value(cell) for cell in cells]
    except MedlocalError:
        raise
    # A hostile or damaged file makes openpyxl raise almost anything; all of it means the same.
    except Exception as error:
        raise UsageError(
            f"{path}:{number + 1}: not an XLSX file that can be read: "
            f"{error or type(error).__name__}",
            hint="open it in a spreadsheet and save it again as XLSX",
        ) from error


def _require_workbook(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(len(_OLD_FORM))
    if head == _OLD_FORM:
        raise UsageError(
            f"{path}: an XLS file of before 2007, or one that is locked with a password",
            hint="save it as XLSX without a password",
        )
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: not an XLSX file", hint="save it as XLSX")


def _open_sheet(path: Path, stream: Any, sheet: str | None) -> Iterator[Any]:
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workbook = load_workbook(stream, read_only=True, data_only=True)
        names = [worksheet.title for worksheet in workbook.worksheets]
        if not names:
            raise UsageError(f"{path}: the file has no sheet of cells")
        if sheet is not None and sheet not in names:
            raise unknown_name(f"sheet (in {path})", sheet, names)
        chosen = workbook.worksheets[names.index(sheet) if sheet is not None else 0]
        # Some programs write a wrong size, by which openpyxl would cut the sheet off.
        chosen.reset_dimensions()
        return iter(chosen.iter_rows())


def _next_rows(rows: Iterator[Any]) -> list[Any]:
    # openpyxl warns of what it will not write back, which nobody asked it to. By batches, because
    # a filter of warnings must not stay in place while the caller works.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(islice(rows, _BATCH))


def _value(cell: Any) -> object:
    value = cell.value
    if isinstance(value, str):
        return _ESCAPED.sub(_unescaped, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if percent := _PERCENT.search(cell.number_format or ""):
        return f"{value * 100:.{len(percent[1] or '')}f}%"
    return number_text(value)


def _unescaped(match: re.Match[str]) -> str:
    return "\r" if match.group() == "_x000D_" else "_"


def number_text(value: float) -> str:
    """A number as a spreadsheet shows it: 15 digits, and 3 rather than 3.0."""
    return str(value) if isinstance(value, int) else f"{value:.15g}"
