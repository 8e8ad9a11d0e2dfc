"""What the commands print with: data on stdout, narration and progress bars on stderr."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from medlocal.files import Progress
from medlocal.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of a table.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Use no network, whatever the settings say.")
]


def settings(*, offline: bool = False) -> Settings:
    """The settings of this process; the switch can only turn the network off."""
    return load_settings(offline=True if offline else None)


def narrate(text: str) -> None:
    """Say something that is not data."""
    from medlocal.report.wording import printable

    print(printable(text, keep_lines=True), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Print one JSON value on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def stdout() -> "Console":
    """A console for tables and reports; plain text where stdout is no terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout; in a pipe it is as wide as its content."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from medlocal.report.wording import printable

    console = stdout()
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
        console.width = sum(widths) + 3 * len(widths)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, header in enumerate(headers):
        # The first column is what one copies: a name that is cut or folded cannot be.
        table.add_column(header, overflow="fold", no_wrap=number == 0)
    for line in cells:
        table.add_row(*map(Text, line))
    console.print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one per line."""
    from medlocal.report.wording import printable

    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"{name:<{width}}  {printable(str(value), keep_lines=True)}")


def mebibytes(num_bytes: float) -> str:
    """A size as people read it."""
    if num_bytes < 2**20:
        return f"{num_bytes / 2**10:,.1f} KiB"
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:,.2f} GiB"


def steps_told() -> Progress:
    """Progress that names each long step once, when it begins, and draws nothing."""
    told: set[str] = set()

    def tell(description: str, done: int, total: int | None) -> None:
        if description not in told:
            told.add(description)
            narrate(description)

    return tell


@contextmanager
def transfer_bar() -> Iterator[Progress]:
    """A progress bar for files on stderr; where that is no terminal, a line per task."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}
    with RichProgress(*columns, console=console, disable=not console.is_terminal) as bar:

        def show(description: str, done: int, total: int | None) -> None:
            if description not in tasks:
                tasks[description] = bar.add_task(description, total=total)
                if not console.is_terminal:
                    narrate(description)
            bar.update(tasks[description], completed=done, total=total)

        yield show
