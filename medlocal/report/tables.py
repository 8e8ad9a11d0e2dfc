"""The report of a run: one frozen value, and its three outputs: JSON, Markdown and the terminal.

It is built from scores and from what the run recorded; it computes no figure of its own and reads no
store. What is said stands in `blocks` and `findings`; here it is only laid out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from medlocal.evals.scoring import ConstraintEffect, ScoreRow
from medlocal.report import blocks, wording
from medlocal.report.blocks import Block, Cell, Heading, Lines, Table
from medlocal.report.findings import findings

if TYPE_CHECKING:  # rich is loaded when something is printed
    from rich.console import Console
    from rich.table import Table as RichTable

_RATES = ("fcr_strict", "fcr_lenient", "acc_strict", "acc_lenient")
_MIN_COLUMNS = 80
"""In a narrower terminal the lines of a table overflow: cut off, a number would be another one."""
_MARKDOWN_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|#"})


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report shows."""

    run: Mapping[str, object]
    """What is known of the run: id, state, counts, spec."""
    rows: tuple[ScoreRow, ...]
    effects: tuple[ConstraintEffect, ...]
    engine: Mapping[str, object]
    """What the engine really used and did, as recorded."""


def build_report(
    run: Mapping[str, object],
    rows: Sequence[ScoreRow],
    effects: Sequence[ConstraintEffect],
    engine: Mapping[str, object],
) -> Report:
    """Gather a report. The order of rows and effects is kept."""
    return Report(dict(run), tuple(rows), tuple(effects), dict(engine))


def to_json(report: Report) -> dict[str, object]:
    """The report as JSON values, with the keys `run`, `rows`, `constraint_effect` and `engine`.

    Shares run from 0 to 1. A rate is {"value", "low", "high"}, with nulls where it does not apply;
    the size of its denominator is the row's `n`, and `num_valid` for `acc_given_valid`.
    """
    effects = [wording.plain(asdict(effect)) for effect in report.effects]
    return {
        "run": wording.plain(report.run),
        "rows": [_json_row(row) for row in report.rows],
        "constraint_effect": effects,
        "engine": wording.plain(report.engine),
    }


def to_markdown(report: Report) -> str:
    """The report as Markdown, with a newline at its end."""
    return "\n".join(line for block in _layout(report) for line in [*_markdown(block), ""])


def print_terminal(report: Report, console: "Console") -> None:
    """Print the report, for 80 columns or more; nothing is said by colour or weight alone."""
    from rich.segment import Segments
    from rich.text import Text

    for block in _layout(report):
        match block:
            case Heading():
                console.print(
                    Text(block.text, style="bold" if block.level > 1 else "bold underline")
                )
            case Lines():
                for line in block.lines:
                    console.print(Text(f"- {line}"))
                console.print()
            case Table():
                console.print(Text(block.title, style="bold"))
                options = console.options.update_width(max(console.width, _MIN_COLUMNS))
                segments = Segments(console.render(_rich_table(block), options))
                console.print(segments, crop=False, end="")
                if block.note:
                    console.print(Text(block.note))
                console.print()


def _layout(report: Report) -> list[Block]:
    run_id = report.run.get("id")
    title = "Report" if run_id is None else f"Report of run {wording.clean(str(run_id))}"
    parts: list[Block] = [Heading(title, level=1), blocks.run_lines(report.run)]
    parts += [Heading("Scores"), *blocks.score_tables(report.rows)]
    if not report.rows:
        parts.append(Lines(("No answer has been graded yet.",)))
    if report.effects:
        parts += [Heading("Effect of the constraint"), *blocks.effect_tables(report.effects)]
    parts += [Heading("In words"), *findings(report.rows, report.effects)]
    parts += [Heading("Terms"), Lines(blocks.LEGEND)]
    return [*parts, Heading("Engine"), blocks.engine_lines(report.engine)]


def _json_row(row: ScoreRow) -> dict[str, object]:
    values = asdict(row)
    for name in _RATES:
        rate = values[name] or {}
        values[name] = {part: rate.get(part) for part in ("value", "low", "high")}
    values["num_valid"] = values["acc_given_valid"].pop("n")
    plain: dict[str, object] = wording.plain(values)
    return plain


def _markdown(block: Block) -> list[str]:
    match block:
        case Heading():
            return [f"{'#' * block.level} {_escaped(block.text)}"]
        case Lines():
            return [f"- {_escaped(line)}" for line in block.lines]
        case Table():
            num_columns = len(block.headers)
            rule = ["---" if index < block.num_names else "---:" for index in range(num_columns)]
            rows = [_joined(block.headers), rule, *map(_joined, block.rows)]
            note = ["", _escaped(block.note)] if block.note else []
            return [
                f"### {_escaped(block.title)}",
                "",
                *(f"| {' | '.join(row)} |" for row in rows),
                *note,
            ]


def _joined(cells: Sequence[Cell]) -> list[str]:
    return [_escaped(" ".join(cell)) for cell in cells]


def _escaped(text: str) -> str:
    return text.translate(_MARKDOWN_SIGNS)


def _rich_table(block: Table) -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    for index, header in enumerate(block.headers):
        is_number = index >= block.num_names
        table.add_column(
            Text("\n".join(header)),
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    for row in block.rows:
        table.add_row(*(Text("\n".join(cell)) for cell in row))
    return table
