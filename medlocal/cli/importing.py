"""`medlocal data import`: a user's own questions become a set, or every bad row is told."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocal.cli.console import AsJson, narrate, print_json, settings

if TYPE_CHECKING:
    from medlocal.catalog import DatasetCard
    from medlocal.data.importing import ImportPlan
    from medlocal.settings import Settings


def import_data(
    file: Annotated[
        Path, typer.Argument(help="CSV, TSV, JSON, JSONL, XLSX or Parquet, one question a row.")
    ],
    set_id: Annotated[
        str | None, typer.Option("--id", help="Id of the set; default: the file's name.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="FIELD=COLUMN where a column's name says nothing; repeatable."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Of all questions, where no column says it: en, es, fr, it.")
    ] = None,
    gold: Annotated[
        str | None,
        typer.Option(help="What the answers are: letter, zero-based, one-based or text."),
    ] = None,
    multi: Annotated[
        str | None,
        typer.Option(
            help="first-only: questions with several right answers are counted and skipped; "
            "default: they are refused."
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Import the sound rows where some are bad.")
    ] = False,
    encoding: Annotated[
        str | None, typer.Option(help="Of a text file; default: found out.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Of an XLSX file; default: the first.")] = None,
    title: Annotated[str | None, typer.Option(help="For people; default: the id.")] = None,
    licence: Annotated[str, typer.Option(help="Of the questions.")] = "not declared",
    as_json: AsJson = False,
) -> None:
    """Import your own questions. Columns are recognised in English and Spanish.

    Every bad row is listed with its reason, and nothing is imported unless --skip-bad is given.

    Example: medlocal data import preguntas.xlsx --language es, then
    medlocal run preguntas --model MODEL
    """
    from medlocal.data.columns import parse_map
    from medlocal.data.importing import ImportOptions, plan_import
    from medlocal.data.library import keep_import, known_sets

    here = settings()
    options = ImportOptions(
        set_id=_new_set_id(set_id or file.stem, here),
        columns=parse_map(mapping or ()),
        language=language,
        gold=gold,
        multi=multi,
        encoding=encoding,
        sheet=sheet,
        skip_bad=skip_bad,
    )
    plan = plan_import(file, options)
    for bad in plan.bad:
        narrate(str(bad))
    if plan.summary.bad > len(plan.bad):
        narrate(f"and {plan.summary.bad - len(plan.bad):,} more")
    if as_json:
        rows = [asdict(bad) for bad in plan.bad]
        print_json({"id": options.set_id, **asdict(plan.summary), "bad_rows": rows})
    before = known_sets(here).get(options.set_id)
    card = keep_import(plan, title or options.set_id, licence, here)
    if before is not None:
        narrate(f"{card.id} was replaced; it came from {asdict(before.source)['file']}")
    if not as_json:
        _tell_import(card, plan)


def _tell_import(card: "DatasetCard", plan: "ImportPlan") -> None:
    from medlocal.run.spec import read_prompts

    summary = plan.summary
    for field, columns in summary.columns.items():
        narrate(f"{field}: {', '.join(columns)}")
    if summary.unused:
        narrate(f"not read: {', '.join(summary.unused)}")
    if summary.encoding:
        narrate(f"encoding: {summary.encoding}")
    narrate(f"answers are read as: {summary.gold}")
    narrate(
        f"{card.id}: {summary.items:,} of {summary.rows:,} rows imported, {summary.bad:,} bad,"
        f" {summary.skipped_multiple:,} with several right answers"
    )
    if len(summary.by_split) > 1:
        narrate(f"the split that is asked: {card.split}; there are: {_counted(summary.by_split)}")
    if {language for language, _ in read_prompts()}.isdisjoint(card.languages):
        narrate(
            f"there are no prompts in {', '.join(card.languages)}: it can be looked at, not asked"
        )
    else:
        narrate(f"next: medlocal run {card.id} --model MODEL")


def _new_set_id(name: str, here: "Settings") -> str:
    """The id of a set of one's own; a file's name becomes one without accents, spaces and signs."""
    from medlocal.catalog import dataset_cards, suite_cards
    from medlocal.errors import UsageError

    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    made = re.sub(r"[^a-z0-9]+", "-", folded).strip("-")
    if not made:
        raise UsageError(f"{name!r} makes no id", hint="give one with --id")
    if made != name:
        narrate(f"the id of the set: {made}")
    if made in {*dataset_cards(), *suite_cards()}:
        raise UsageError(f"{made} is a set or suite of medlocal's own", hint="give another --id")
    return made


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
