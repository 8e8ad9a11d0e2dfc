"""`medlocal data`: the data sets and suites that can be asked."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli.console import AsJson, print_facts, print_json, print_table

if TYPE_CHECKING:
    from medlocal.catalog import DatasetCard
    from medlocal.evals.items import Item

app = typer.Typer(
    help="Data sets and suites: list them, look at their questions.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List data sets, and the suites that ask them."""
    from medlocal.catalog import dataset_cards, suite_cards

    sets = [asdict(card) for card in dataset_cards().values()]
    suites = [asdict(card) for card in suite_cards().values()]
    if as_json:
        print_json({"datasets": sets, "suites": suites})
        return
    _print_cards("data set", ("id", "title", "languages", "num_items", "licence"), sets)
    print()
    _print_cards("suite", ("id", "datasets", "languages", "formats", "arms"), suites)


def _print_cards(kind: str, keys: tuple[str, ...], cards: list[dict[str, Any]]) -> None:
    print_table((kind, *keys[1:]), [[_cell(card[key]) for key in keys] for card in cards])


@app.command("show")
def show_data(
    dataset: Annotated[str, typer.Argument(help="Id of a data set.")],
    item: Annotated[str | None, typer.Option(help="Show this question in all languages.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a data set: its size, subjects, gold letters and licence; or one of its questions."""
    from medlocal.catalog import dataset_card

    card = dataset_card(dataset)
    items = _items(card)
    if item is not None:
        _show_item(items, item, as_json=as_json)
        return
    values = {**asdict(card), "per_language": {k: _summary(v) for k, v in items.items()}}
    if as_json:
        print_json(values)
        return
    per_language = values.pop("per_language")
    print_facts({k: _cell(v) for k, v in values.items()})
    for language, summary in per_language.items():
        print()
        print_facts({f"{language}.{k}": _counts(v) for k, v in summary.items()})


def _items(card: "DatasetCard") -> dict[str, list["Item"]]:
    from medlocal.catalog import data_root
    from medlocal.evals.items import load_items

    path = data_root() / "benchmarks" / card.file
    return {lang: load_items(path, card.id, card.split, lang) for lang in card.languages}


def _summary(items: list["Item"]) -> dict[str, Any]:
    from medlocal.evals.items import LETTERS

    return {
        "items": len(items),
        "gold": dict(sorted(Counter(LETTERS[i.gold] for i in items).items())),
        "subjects": dict(sorted(Counter(i.subject for i in items).items())),
        "difficulty": dict(sorted(Counter(i.difficulty for i in items).items())),
        "flags": dict(sorted(Counter(flag for i in items for flag in i.flags).items())),
    }


def _show_item(items: dict[str, list["Item"]], name: str, *, as_json: bool) -> None:
    from medlocal.errors import unknown_name
    from medlocal.evals.items import LETTERS

    found = [i for per_language in items.values() for i in per_language if i.id == name]
    if not found:
        raise unknown_name("item", name, {i.id for some in items.values() for i in some})
    if as_json:
        print_json([asdict(i) for i in found])
        return
    for i in found:
        print(f"[{i.language}] {i.id} · {i.subject} · {i.difficulty}\n{i.stem}")
        for slot, text in enumerate(i.options):
            print(f"{'*' if slot == i.gold else ' '} {LETTERS[slot]}. {text}")
        print(f"  {i.rationale}\n")


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _counts(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return str(value)
