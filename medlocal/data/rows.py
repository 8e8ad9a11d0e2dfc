"""What the readers of data sets are written in: a source's rows, and what becomes of each.

A row holds one record in the columns that the set has on the Hugging Face Hub, wherever it was read:
original files are put into those columns first (`originals`), so that one reader per set makes the
items and both ways give the same ones. Nothing here opens a file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medlocal.evals.items import Item

PICTURE_MISSING = "picture missing"
TOO_FEW_OPTIONS = "fewer than two options"
NO_GOLD = "no gold"
ANNULLED = "annulled"
EMPTY_STEM = "empty stem"
EMPTY_OPTION = "empty option"
GOLD_TWICE = "gold stands twice among the options"
UNREADABLE = "unreadable"

REASONS = (
    PICTURE_MISSING,
    TOO_FEW_OPTIONS,
    NO_GOLD,
    ANNULLED,
    EMPTY_STEM,
    EMPTY_OPTION,
    GOLD_TWICE,
    UNREADABLE,
)
"""Why a record cannot be asked. It is left out and counted, never mended in silence."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a source."""

    values: Mapping[str, Any]
    """By the names of the columns on the Hub."""
    split: str
    """As the Hub calls it: `train`, `validation`, `test`, or MMLU's `dev`."""
    language: str
    config: str
    """The Hub's configuration, such as a subject of MMLU; "" where there is one only."""
    number: int
    """From 1, within its split and configuration."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """A record that cannot be asked."""

    id: str
    """As its item's would be."""
    split: str
    language: str
    reason: str
    """One of `REASONS`."""


Reader = Callable[[str, Iterable[Row]], Iterator[Item | Excluded]]
"""From the data set's id and its rows, in any order of splits and languages, to one result per row.

A row that is not in the columns the reader knows raises `UsageError`."""
