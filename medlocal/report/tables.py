"""Three outputs of a report: JSON, Markdown and the terminal.

No figure is computed here and no store is read. What is said stands in `overview`, `blocks`, `sections`
and `findings`; here it is only laid out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.scoring import ConstraintEffect, ScoreRow
from medlocal.report import blocks, pairs, sections, wording
from medlocal.report.blocks import Block, Cell, Heading, Lines, Table
from medlocal.report.findings import findings
from medlocal.report.overview import leads_of, overview
from medlocal.report.results import ModelPair, Report, RunFacts

if TYPE_CHECKING:  # rich is loaded when something is printed
    from _typeshed import DataclassInstance
    from rich.console import Console
    from rich.table import Table as RichTable

_RATES = ("fcr_strict", "fcr_lenient", "acc_strict", "acc_lenient")
_FEW_PROMPTS = 2
"""Up to this many, the scores of every prompt are shown."""
_MIN_COLUMNS = 80
"""In a narrower terminal the lines of a table overflow: cut off, a number would be another one."""
_MARKDOWN_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|#"})


def to_json(report: Report) -> dict[str, object]:
    """The report as JSON values.

    `runs` has what is known of each run and what its engine did; `run` and `engine` are those of the
    first. `rows` and `constraint_effect` are the scores; `variants`, `robustness`, `positions`,
    `answer_splits`, `prompt_spreads`, `interactions` and `comparisons` are there where they were
    asked for. Shares run from 0 to 1. A rate is {"value", "low", "high"}, with nulls where it does
    not apply; in `rows` the size of its denominator is the row's `n`, and `num_valid` for
    `acc_given_valid`; elsewhere it stands in the rate.
    """
    first = report.runs[0] if report.runs else RunFacts({}, {})
    return {
        "run": wording.plain(first.run),
        "rows": [_json_row(row) for row in report.rows],
        "constraint_effect": _plain_all(report.effects),
        "engine": wording.plain(first.engine),
        "runs": _plain_all(report.runs),
        "variants": _plain_all(report.variants),
        "robustness": _plain_all(report.robustness),
        "positions": _plain_all(report.positions),
        "answer_splits": _plain_all(report.splits),
        "prompt_spreads": _plain_all(report.spreads),
        "interactions": _plain_all(report.interactions),
        "comparisons": _plain_all(report.pairs),
    }


def _plain_all(values: Sequence["DataclassInstance"]) -> list[object]:
    return [wording.plain(asdict(value)) for value in values]


def to_markdown(report: Report) -> str:
    """The report as Markdown, with a newline at its end."""
    return "\n".join(line for block in _layout(report) for line in [*block_markdown(block), ""])


def print_terminal(report: Report, console: "Console", *, is_brief: bool = False) -> None:
    """Print the report, for 80 columns or more; nothing is said by colour or weight alone.

    Args:
        report: what to print.
        console: where.
        is_brief: of a report with variants or many prompts, only what sums them up. Others are whole.
    """
    if not is_brief or not _is_varied(report):
        print_blocks(_layout(report), console)
        return
    parts = [*_head(report), *_sums(report)]
    more = (
        "`medlocal report` shows each variant; `medlocal report -o report.html` shows everything."
    )
    print_blocks([*parts, Lines((more,))], console)


def print_pair(pair: ModelPair, console: "Console") -> None:
    """Print the comparison of two models, as `print_terminal` does."""
    print_blocks(pairs.pair_blocks([pair]), console)


def pair_to_json(pair: ModelPair) -> object:
    """The comparison of two models as JSON values."""
    return wording.plain(asdict(pair))


def print_blocks(parts: Iterable[Block], console: "Console") -> None:
    """Print the blocks of a report on a terminal."""
    from rich.segment import Segments
    from rich.text import Text

    for block in parts:
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
    rows, effects = _usual(report)
    parts = _head(report)
    parts += [Heading("Scores"), *blocks.score_tables(rows)]
    if not report.rows:
        parts.append(Lines(("No answer has been graded yet.",)))
    parts += _part("Effect of the constraint", blocks.effect_tables(effects))
    parts += _part("Each variant against the original", sections.variant_tables(report))
    parts += _sums(report)
    parts += _part("Two steps", sections.interaction_tables(report))
    parts += [Heading("In words"), *findings(rows, effects)]
    parts += [Heading("Terms"), Lines(blocks.LEGEND)]
    for facts in report.runs:
        parts += [Heading("Engine"), blocks.engine_lines(facts.engine)]
    return parts


def _head(report: Report) -> list[Block]:
    """What is to be read first."""
    ids = [wording.clean(str(facts.run.get("id"))) for facts in report.runs if facts.run.get("id")]
    name = f"Report of run {ids[0]}" if len(ids) == 1 else f"Report of runs {', '.join(ids)}"
    parts: list[Block] = [Heading(name if ids else "Report", level=1)]
    parts += [blocks.run_lines(facts.run) for facts in report.runs]
    return [*parts, *_part("Overview", sections.overview_blocks(overview(report)))]


def _sums(report: Report) -> list[Block]:
    """What sums up variants, prompts and models."""
    return [
        *_part("All variants together", sections.robustness_tables(report)),
        *_part("Position bias", sections.position_tables(report)),
        *_part("Prompts", sections.spread_tables(report)),
        *_part("How much is said of the form", sections.level_tables(report)),
        *_part("Transformed answers", sections.split_tables(report)),
        *_part("Models compared", pairs.pair_blocks(report.pairs)),
    ]


def _is_varied(report: Report) -> bool:
    variants = {row.variant for row in report.rows}
    return len(variants) > 1 or len({row.prompt for row in report.rows}) > _FEW_PROMPTS


def _part(title: str, found: Sequence[Block]) -> list[Block]:
    return [Heading(title), *found] if found else []


def _usual(report: Report) -> tuple[list[ScoreRow], list[ConstraintEffect]]:
    """The scores that a person reads in full: the unperturbed questions under the usual prompt.

    Where neither variants nor prompts were varied, that is all of them.
    """
    prompts = {language: lead.prompt for language, lead in leads_of(report.rows).items()}

    def is_usual(row: ScoreRow | ConstraintEffect) -> bool:
        return row.variant == ORIGINAL and row.prompt == prompts.get(row.language, row.prompt)

    if not _is_varied(report):
        return list(report.rows), list(report.effects)
    return [r for r in report.rows if is_usual(r)], [e for e in report.effects if is_usual(e)]


def _json_row(row: ScoreRow) -> dict[str, object]:
    values = asdict(row)
    for name in _RATES:
        rate = values[name] or {}
        values[name] = {part: rate.get(part) for part in ("value", "low", "high")}
    values["num_valid"] = values["acc_given_valid"].pop("n")
    plain: dict[str, object] = wording.plain(values)
    return plain


def block_markdown(block: Block) -> list[str]:
    """The lines of a block in Markdown."""
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
