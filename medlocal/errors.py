"""The errors a user can meet, and the exit code that each one carries.

The tree is cut by what the caller can do about it, not by where it happened:

    MedlocalError                1   something failed; the message says what
    ├── UsageError               2   the request is wrong: unknown name, impossible combination, bad file
    ├── MissingError             3   a model, a data set or a tool is not here; the hint gets it
    ├── RefusedError             4   a check refused a file: checksum, unsafe GGUF, chat template
    └── Interrupted            130   stopped by the user; the hint resumes

A message says what and where; `hint` says what to do next. The command line prints both and exits
with the code. Nothing below the command line prints or exits.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar

_ALIKE = 0.7


class MedlocalError(Exception):
    """Something failed. The root of every error that medlocal raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        """What failed and where, in one sentence."""
        self.hint = hint
        """What to do next; None where there is nothing to be done."""

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  → {self.hint}"


class UsageError(MedlocalError):
    """The request itself is wrong."""

    exit_code = 2


class MissingError(MedlocalError):
    """Something needed is not on this machine."""

    exit_code = 3


class RefusedError(MedlocalError):
    """A file is here, and a check found that it must not be used."""

    exit_code = 4


class Interrupted(MedlocalError):  # noqa: N818 - a stop that was asked for is not an error
    """The user stopped the work; what was finished is kept."""

    exit_code = 130


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for a name that does not exist, with the nearest ones that do.

    Args:
        kind: what was looked for, as the user would say it ("suite", "model").
        name: what the user wrote.
        known: every name that would have been right.
    """
    names = sorted(set(known))
    near = sorted(names, key=lambda known_name: -_likeness(name, known_name))[:3]
    near = [near_name for near_name in near if _likeness(name, near_name) >= _ALIKE]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UsageError(f"no {kind} is called {name!r}", hint=hint)


def _likeness(name: str, known: str) -> float:
    """From 0 to 1; the beginning of a long name is as good as the whole, no name at all is not."""
    if not name:
        return 0.0
    beginning = known[: len(name)]
    return max(difflib.SequenceMatcher(None, name, text).ratio() for text in (known, beginning))
