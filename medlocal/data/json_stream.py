"""The objects of a JSON list one after another, without holding the file in memory.

`json` reads whole documents only. Here it is given a window of the text that moves on, so that what is
held is one entry and not the list. The list is the whole document, or the only list in an object.
This module knows nothing of questions and columns.
"""

import json
from collections.abc import Iterator
from typing import IO

from medlocal.errors import UsageError

LONGEST = 8 << 20
"""Characters that one entry or line may have: a question has some thousands at most."""

_CHUNK = 1 << 18
_NEAR_END = 16
"""A fault so close to the end of the window may be a word or an escape that goes on beyond it."""


def parse_json(text: str) -> object:
    """Read one JSON value; NaN, which pandas writes for a missing one, is None.

    Raises:
        ValueError: it is not JSON, holds a key twice or a number that JSON has not.
        RecursionError: it is nested too deeply.
    """
    return _DECODER.decode(text)


def list_entries(stream: IO[str], where: str) -> Iterator[object]:
    """Give the entries of a list, or of the only list in an object, as they are read.

    Args:
        stream: text that stands at its beginning.
        where: the file, for messages.

    Raises:
        UsageError: it is not JSON, or there is no list, or more than one; the message begins
            "WHERE:LINE:". The entries before have been given out.
    """
    window = _Window(stream, where)
    if window.next() == "[":
        yield from _entries(window)
    elif window.next() == "{":
        yield from _only_list(window)
    else:
        raise window.fault("neither a list of questions nor an object that holds one")
    if window.next():
        raise window.fault("there is more after the end of the list")


def _only_list(window: "_Window") -> Iterator[object]:
    num_lists = 0
    window.take("{")
    while window.next() != "}":
        window.value()
        window.take(":")
        if window.next() == "[":
            num_lists += 1
            if num_lists > 1:
                raise window.fault("the object holds more than one list: which are the questions?")
            yield from _entries(window)
        else:
            window.value()
        if window.next() != "}":
            window.take(",")
    window.take("}")
    if not num_lists:
        raise window.fault("the object holds no list of questions")


def _entries(window: "_Window") -> Iterator[object]:
    window.take("[")
    if window.next() == "]":
        window.take("]")
        return
    while True:
        yield window.value()
        if window.next() == "]":
            window.take("]")
            return
        window.take(",")


def _unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a repeated key, of which `json` would silently keep the last."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return values


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unrepeated, parse_constant=_constant)


class _Window:
    """The part of the text that is held; what has been taken is dropped."""

    def __init__(self, stream: IO[str], where: str) -> None:
        self._stream = stream
        self._where = where
        self._text = ""
        self._at = 0
        self._line = 1
        self._has_ended = False

    def next(self) -> str:
        """The next character that is not blank, which stays; "" = the end."""
        while True:
            rest = self._text[self._at : self._at + _NEAR_END].lstrip(" \t\r\n")
            if rest:
                self._move(self._text.index(rest[0], self._at))
                return rest[0]
            self._move(min(self._at + _NEAR_END, len(self._text)))
            if self._at == len(self._text) and not self._more():
                return ""

    def take(self, sign: str) -> None:
        """Move over a sign that must be there."""
        if (found := self.next()) != sign:
            instead = repr(found) if found else "the file ends"
            raise self.fault(f"{sign!r} is expected, {instead} is there")
        self._move(self._at + 1)

    def value(self) -> object:
        """Read one value of any kind and move behind it."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._may_go_on(error) or not self._more():
                    raise self.fault(f"{error.msg}, column {error.colno}", error.pos) from error
                continue
            except (ValueError, RecursionError) as error:
                raise self.fault(str(error)) from error
            # A number that ends with the window may go on beyond it.
            if end < len(self._text) or not self._more():
                self._move(end)
                return value

    def fault(self, reason: str, at: int | None = None) -> UsageError:
        """The error for what stands here, or at another place of the window."""
        line = self._line + self._text.count("\n", self._at, at or self._at)
        return UsageError(f"{self._where}:{line}: not JSON that can be read: {reason}")

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        near_end = error.pos >= len(self._text) - _NEAR_END
        return near_end or error.msg.startswith("Unterminated string")

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        if self._has_ended:
            return False
        held = len(self._text) - self._at
        if held > LONGEST:
            raise self.fault(f"an entry of more than {LONGEST:,} characters")
        # As much again as is held: an entry of many chunks is not tried once for each of them.
        chunk = self._stream.read(max(_CHUNK, held))
        if "\0" in chunk:
            raise self.fault("it holds a NUL character")
        self._has_ended = not chunk
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _move(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to
