"""The rows of a table file, read one after another: CSV, TSV, JSON, JSON Lines, XLSX and Parquet.

A row is a mapping from column names to what stands there. Its number is where a person finds it: the
line in a text file, the row in a spreadsheet, the n-th entry in a JSON list or a Parquet file. No file
is held in memory. What a column means is not known here, and no value is judged: a file whose rows
cannot be told apart is refused as a whole.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medlocal.data.encoding import detect_encoding
from medlocal.data.json_stream import LONGEST, list_entries, parse_json
from medlocal.data.workbooks import sheet_rows
from medlocal.errors import MedlocalError, MissingError, UsageError

_BATCH = 512
_DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?")
"""What Excel writes and reads as the first line of a CSV file: the delimiter of the others."""

GUARDED = re.compile(r"'+[=+\-@\t\r]")
"""The beginning of a text that a spreadsheet would take for a formula, behind apostrophes."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row."""

    number: int
    """From 1, as a person counts in this kind of file; the names of the columns are counted too."""
    values: dict[str, object]
    """By column. Text, None, and whatever JSON, a spreadsheet or Parquet has beside these."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and how it is read."""

    path: Path
    kind: str
    """The ending, lower case."""
    encoding: str = ""
    """A name of Python's; "" = the file is no text."""
    sheet: str | None = None
    """Of a workbook; None = the first."""


def open_source(path: Path, encoding: str | None = None, sheet: str | None = None) -> Source:
    """Look at a file's ending, and at its encoding if it is text.

    Raises:
        MissingError: there is no such file, or it cannot be read.
        UsageError: its ending or encoding is not known, or it cannot have an encoding or a sheet.
    """
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise UsageError(
            f"{path}: no table ends in {kind or 'nothing'}", hint=f"known: {', '.join(_READERS)}"
        )
    if not path.is_file():
        raise MissingError(f"{path}: there is no such file", hint="check the path")
    if sheet is not None and kind != ".xlsx":
        raise UsageError(f"{path}: only an XLSX file has sheets", hint="leave out --sheet")
    if kind in {".xlsx", ".parquet"}:
        if encoding is not None:
            raise UsageError(f"{path}: not a text file", hint="leave out --encoding")
        return Source(path, kind, sheet=sheet)
    return Source(path, kind, detect_encoding(path, encoding))


def column_names(source: Source) -> tuple[str, ...]:
    """All columns, in the order in which they are met; JSON is read to its end for it.

    Raises:
        UsageError: the file is malformed, or has no columns.
    """
    if source.kind == ".parquet":
        names: dict[str, None] = dict.fromkeys(_parquet_names(source))
    elif source.kind in {".json", ".jsonl"}:
        names = {}
        for record in read_source(source):
            names.update(dict.fromkeys(record.values))
    else:
        with _explained(source):
            filled = (row for row in _grid(source) if _is_filled(row[1]))
            names = dict.fromkeys(_header(source, *next(filled, (1, ()))))
            names.pop("", None)
    if not names:
        raise UsageError(f"{source.path}: the file is empty", hint="one question a row, with names")
    return tuple(names)


def read_source(source: Source) -> Iterator[Record]:
    """The rows that are not empty, in order.

    CSV and TSV: an apostrophe before `=`, `+`, `-` or `@` at the beginning of a cell is taken away:
    that is how a text is kept from being taken for a formula, and how `exporting` writes it.

    Raises:
        MissingError: the file cannot be read.
        UsageError: it is malformed; the message begins "FILE:ROW:". The rows before have been given
            out.
    """
    with _explained(source):
        yield from _READERS[source.kind](source)


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Turn what the system says of a file into our errors."""
    try:
        yield
    except UnicodeError as error:  # it was whole when its encoding was found out
        raise UsageError(f"{source.path}: not in {source.encoding}: {error}") from error
    except OSError as error:
        raise MissingError(f"{source.path}: cannot be read: {error.strerror or error}") from error


def _is_filled(cells: Sequence[object]) -> bool:
    return any(cell is not None and str(cell).strip() for cell in cells)


# Grids: CSV, TSV and XLSX, whose first row that is not empty holds the names.


def _grid(source: Source) -> Iterator[tuple[int, Sequence[object]]]:
    if source.kind == ".xlsx":
        return sheet_rows(source.path, source.sheet)
    return _csv_rows(source)


def _grid_records(source: Source) -> Iterator[Record]:
    header: list[str] | None = None
    for number, cells in _grid(source):
        if not _is_filled(cells):
            continue
        if header is None:
            header = _header(source, number, cells)
            continue
        _require_names(source, number, header, cells)
        yield Record(number, {n: c for n, c in zip(header, cells, strict=False) if n})


def _header(source: Source, number: int, cells: Sequence[object]) -> list[str]:
    """The names; "" where a column has none, which is right only if all of its cells are empty."""
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    _require_distinct(f"{source.path}:{number}", names)
    return names


def _require_distinct(where: str, names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        if name and name in names[:at]:
            raise UsageError(f"{where}: two columns are called {name!r}", hint="rename one")


def _require_names(
    source: Source, number: int, header: Sequence[str], cells: Sequence[object]
) -> None:
    if source.kind != ".xlsx" and len(cells) < len(header):
        raise UsageError(
            f"{source.path}:{number}: {len(cells)} cells where the first row has {len(header)}",
            hint="a text with a line break in it must stand in double quotes",
        )
    for at, cell in enumerate(cells):
        named = at < len(header) and header[at]
        if not named and _is_filled([cell]):
            raise UsageError(
                f"{source.path}:{number}: cell {at + 1} stands under no name: {str(cell)[:40]!r}",
                hint="name the column, or put a text that holds the delimiter in double quotes",
            )


def _csv_rows(source: Source) -> Iterator[tuple[int, list[object]]]:
    delimiter = "\t" if source.kind == ".tsv" else _delimiter(source)
    for number, cells in _split_rows(source, delimiter):
        yield number, [cell[1:] if GUARDED.match(cell) else cell for cell in cells]


def _delimiter(source: Source) -> str:
    """What divides the names: the one of four that gives the most of them."""
    with _open_text(source, newline="") as stream:
        if told := _SEPARATOR_LINE.fullmatch(stream.readline(8)):
            return told[1]
    widths = {delimiter: _header_width(source, delimiter) for delimiter in _DELIMITERS}
    best = max(widths.values())
    found = [delimiter for delimiter, width in widths.items() if width == best]
    if best > 1 and len(found) > 1:
        raise UsageError(
            f"{source.path}:1: the names could be divided by {' or '.join(map(repr, found))}",
            hint="write sep=; (or the delimiter that it is) in a line above them",
        )
    return found[0]


def _header_width(source: Source, delimiter: str) -> int:
    try:
        return next((len(c) for _, c in _split_rows(source, delimiter) if _is_filled(c)), 0)
    except UsageError:
        return 0  # with this delimiter the quotes make no sense; if with none does, 0 is best


def _split_rows(source: Source, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every row and the line that it begins on."""
    with _open_text(source, newline="") as stream:
        lines = _lines(source.path, stream)
        reader = csv.reader(_without_separator(lines), delimiter=delimiter, strict=True)
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UsageError(
                    f"{source.path}:{number}: the row that begins here cannot be read: {error}",
                    hint='a text in double quotes must double those that it holds: ""',
                ) from error
            yield number, cells


def _without_separator(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        # An empty line in its place: the numbers of the others stay right.
        yield "\n" if number == 0 and _SEPARATOR_LINE.fullmatch(line) else line


def _open_text(source: Source, newline: str) -> IO[str]:
    return source.path.open(encoding=source.encoding, newline=newline)


def _lines(path: Path, stream: IO[str]) -> Iterator[str]:
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise UsageError(f"{path}:{number}: a line of more than {LONGEST:,} characters")
        if "\0" in line:
            raise UsageError(f"{path}:{number}: a NUL character", hint="is it a text file?")
        yield line


# JSON and Parquet, whose rows carry their names.


def _json_lines(source: Source) -> Iterator[Record]:
    # Not universal newlines: U+2028 or a lone carriage return ends no line of JSON.
    with _open_text(source, newline="\n") as stream:
        for number, line in enumerate(_lines(source.path, stream), start=1):
            if line.strip():
                yield _object(source.path, number, _parsed(source.path, number, line))


def _parsed(path: Path, number: int, line: str) -> object:
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}:{number}: not JSON that can be read: {error}") from error


def _object(path: Path, number: int, value: object) -> Record:
    if not isinstance(value, dict):
        raise UsageError(
            f"{path}:{number}: a question must be an object, not {type(value).__name__}"
        )
    return Record(number, value)


def _json_records(source: Source) -> Iterator[Record]:
    if _holds_json_lines(source):
        yield from _json_lines(source)
        return
    with _open_text(source, newline="\n") as stream:
        for number, value in enumerate(list_entries(stream, str(source.path)), start=1):
            yield _object(source.path, number, value)


def _holds_json_lines(source: Source) -> bool:
    """True for JSON Lines under the name of JSON, as some sets are published."""
    with _open_text(source, newline="\n") as stream:
        filled = (line for line in _lines(source.path, stream) if line.strip())
        first, second = next(filled, ""), next(filled, "")
    try:
        return second.lstrip().startswith("{") and isinstance(parse_json(first), dict)
    except (ValueError, RecursionError):
        return False


def _parquet_names(source: Source) -> list[str]:
    import pyarrow.parquet as pq

    with _parquet_errors(source.path, 1), pq.ParquetFile(source.path) as file:
        names = list(file.schema_arrow.names)
    _require_distinct(str(source.path), names)
    return names


def _parquet_records(source: Source) -> Iterator[Record]:
    import pyarrow.parquet as pq

    _parquet_names(source)  # pyarrow would keep the last of two columns of one name
    number = 0
    with _parquet_errors(source.path, 1):
        file = pq.ParquetFile(source.path)
    with file:
        batches = file.iter_batches(batch_size=_BATCH, use_threads=False)
        while True:
            with _parquet_errors(source.path, number + 1):
                rows = next((batch.to_pylist() for batch in batches), None)
            if rows is None:
                return
            for values in rows:
                number += 1
                yield Record(number, values)


@contextmanager
def _parquet_errors(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except MedlocalError:
        raise
    # Beside its own errors pyarrow raises those of Python for types and texts that make no sense.
    except Exception as error:
        raise UsageError(
            f"{path}:{number}: not a Parquet file that can be read: {error}"
        ) from error


_READERS: dict[str, Callable[[Source], Iterator[Record]]] = {
    ".csv": _grid_records,
    ".tsv": _grid_records,
    ".json": _json_records,
    ".jsonl": _json_lines,
    ".xlsx": _grid_records,
    ".parquet": _parquet_records,
}
