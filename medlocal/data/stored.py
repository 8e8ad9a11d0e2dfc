"""The form in which a set that was pulled or imported lies on the disk: one item to a line of JSON.

Every field of an item stands under its own name, `gold` as the index from 0 and `options` as a list;
a field that holds its default is left out. It differs from the form in which questions are written
by hand (`medlocal.evals.items`) in that nothing is derived: what was written is read back, field by
field. This module knows no data set and no folder, and neither direction holds a file in memory.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from medlocal.errors import MissingError, UsageError, unknown_name
from medlocal.evals.items import Item

_FIELDS = tuple(dataclasses.fields(Item))
_KNOWN = frozenset(field.name for field in _FIELDS)
_NEEDED = frozenset(f.name for f in _FIELDS if f.default is dataclasses.MISSING)
_LISTS = ("options", "flags")
_REPEATED = ("dataset", "split", "language", "subject", "difficulty")
"""Fields whose few values stand in every line: one string of each is kept for all items."""


def write_items(stream: IO[bytes], items: Iterable[Item]) -> int:
    """Write items as they come; returns how many there were.

    Raises:
        UsageError: a text holds half a character (a lone surrogate), which UTF-8 cannot spell.
    """
    num_items = 0
    for item in items:
        line = json.dumps(_values(item), ensure_ascii=False, separators=(",", ":"))
        try:
            stream.write(line.encode() + b"\n")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"item {item.id!r}: a text holds half a character (a lone surrogate)"
            ) from error
        num_items += 1
    return num_items


def read_items(path: Path) -> Iterator[Item]:
    """Read items one after another, in the order of the file; blank lines are skipped.

    Raises:
        MissingError: there is no such file, or it cannot be read.
        UsageError: a line is malformed, or its id was used before in the same language and split;
            the message begins "FILE:LINE:". The items before that line have been given out.
    """
    seen: dict[tuple[str, str], set[str]] = {}
    for number, raw in _numbered_lines(path):
        where = f"{path}:{number}"
        item = _item(where, _parse(where, raw))
        ids = seen.setdefault((item.language, item.split), set())
        if item.id in ids:
            raise UsageError(
                f"{where}: id {item.id!r} was used before in {item.split}, {item.language}"
            )
        ids.add(item.id)
        yield item


def _values(item: Item) -> dict[str, Any]:
    """The fields that differ from their defaults; none of the needed ones has one."""
    pairs = ((field, getattr(item, field.name)) for field in _FIELDS)
    return {field.name: value for field, value in pairs if value != field.default}


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        # Bytes, not text: U+2028 inside a question does not end a line.
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if raw.strip():
                    yield number, raw
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(where: str, raw: bytes) -> dict[str, Any]:
    try:
        values = json.loads(raw.decode(), object_pairs_hook=_unrepeated)
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON that can be read: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{where}: must be a JSON object")
    return values


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a repeated key, of which `json` would silently keep the last."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _item(where: str, values: dict[str, Any]) -> Item:
    for name in values:
        if name not in _KNOWN:
            hint = unknown_name("field", name, _KNOWN).hint
            raise UsageError(f"{where}: an item has no field {name!r}", hint=hint)
    if missing := _NEEDED - values.keys():
        raise UsageError(f"{where}: {', '.join(sorted(missing))} is missing")
    for name, value in values.items():
        values[name] = _checked(f"{where}: {name}", name, value)
    try:
        return Item(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _checked(where: str, name: str, value: object) -> object:
    if name == "gold":
        # Not isinstance: for Python, true is a whole number.
        if type(value) is not int:
            raise UsageError(f"{where} must be a whole number")
        return value
    if name in _LISTS:
        if not isinstance(value, list):
            raise UsageError(f"{where} must be a list of texts")
        return tuple(_text(where, text) for text in value)
    text = _text(where, value)
    return sys.intern(text) if name in _REPEATED else text


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} must be text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} holds half a character (a lone surrogate)") from error
    return value
