"""`medlocal data`: the data sets and suites that can be asked, and the user's own questions."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli import importing
from medlocal.cli.console import (
    AsJson,
    Offline,
    narrate,
    print_facts,
    print_json,
    print_table,
    settings,
    steps_told,
    transfer_bar,
)

if TYPE_CHECKING:
    from medlocal.catalog import DatasetCard
    from medlocal.data.checking import Report
    from medlocal.evals.items import Item
    from medlocal.evals.stats import Rate
    from medlocal.settings import Settings

app = typer.Typer(
    help="Data sets and suites: list, get, look at and check them; import your own questions.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


Dataset = Annotated[str, typer.Argument(help="Id of a data set; `medlocal data list` shows them.")]
Languages = Annotated[
    str | None, typer.Option("--languages", "--language", help="Comma-separated; default: all.")
]
Split = Annotated[
    str | None, typer.Option(help="Another split than the one that is asked, or all.")
]


@app.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List data sets, and the suites that ask them."""
    from medlocal.catalog import suite_cards
    from medlocal.data.library import is_here, known_sets

    here = settings()
    sets = []
    for card in known_sets(here).values():
        state = "here" if is_here(card, here) else "not here"
        sets.append({**_card_values(card), "state": state})
    suites = [asdict(card) for card in suite_cards().values()]
    if as_json:
        print_json({"datasets": sets, "suites": suites})
        return
    _print_cards("data set", ("id", "title", "languages", "num_items", "licence", "state"), sets)
    print()
    _print_cards("suite", ("id", "datasets", "languages", "formats", "arms"), suites)


def _print_cards(kind: str, keys: tuple[str, ...], cards: list[dict[str, Any]]) -> None:
    print_table((kind, *keys[1:]), [[_cell(card[key]) for key in keys] for card in cards])


@app.command("pull")
def pull_data(
    dataset: Dataset,
    folder: Annotated[
        Path | None,
        typer.Option("--from", help="Folder with the set's original files or its Hub files."),
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Get a data set: from the Hugging Face Hub, its cache on this machine, or a folder of files."""
    from medlocal.data.library import known_set, unexpected
    from medlocal.data.pulling import pull_set

    here = settings(offline=offline)
    card = known_set(dataset, here)
    with transfer_bar() as progress:
        pull_set(card, here, folder, progress)
    for sentence in unexpected(card, here):
        narrate(f"note: {sentence}")
    values = _shown(card, here, card.languages, (card.split,))
    if as_json:
        print_json(values)
    else:
        left_out = sum(values["excluded"].values())
        narrate(f"{card.id}: {values['items']:,} items in {card.split}, {left_out:,} left out")


@app.command("show")
def show_data(
    dataset: Dataset,
    item: Annotated[str | None, typer.Option(help="Show this question in all languages.")] = None,
    languages: Languages = None,
    split: Split = None,
    as_json: AsJson = False,
) -> None:
    """Show a data set: items, exclusions, gold letters, licence, origin; or one of its questions."""
    from medlocal.data.library import known_set

    here = settings()
    card = known_set(dataset, here)
    chosen = _languages(card, languages)
    if item is not None:
        _show_item(_read(card, here, chosen, "all"), item, as_json=as_json)
        return
    values = {**_card_values(card), **_shown(card, here, chosen, _splits(card, here, split))}
    if as_json:
        print_json(values)
    else:
        _print_set(values)


def _print_set(values: dict[str, Any]) -> None:
    per_language, defects = values.pop("per_language"), values.pop("defects")
    origin, source, wrong = values.pop("origin"), values.pop("source"), values.pop("unexpected")
    values["expected per language"] = values.pop("num_items")
    values["expected to be left out"] = values.pop("num_excluded")
    print_facts({k: _line(v) for k, v in values.items() if v not in ("", (), [], {})})
    print_facts({f"source.{k}": _cell(v) for k, v in source.items() if k != "columns"})
    print_facts({f"origin.{k}": _cell(v) for k, v in origin.items() if k != "files" and v})
    for file in origin["files"]:
        print_facts(
            {"origin.file": f"{file['name']}, {file['size']:,} bytes, sha256 {file['sha256']}"}
        )
    for language, summary in per_language.items():
        print()
        print_facts({f"{language}.{k}": _line(v) for k, v in summary.items()})
    for sentence in (*wrong, *defects):
        print(f"! {sentence}")


def _shown(
    card: "DatasetCard", here: "Settings", languages: Sequence[str], splits: Sequence[str]
) -> dict[str, Any]:
    """What a researcher must know to trust a set: all counts are over the splits shown."""
    from medlocal.data.library import counts_by_reason, read_set, set_facts, unexpected

    facts = set_facts(card, here)
    items = read_set(card, here, languages, splits)
    excluded = counts_by_reason(facts.excluded, languages, splits)
    per_language = {}
    for language in languages:
        mine = [item for item in items if item.language == language]
        reasons = counts_by_reason(facts.excluded, (language,), splits)
        per_language[language] = {**_summary(mine), "excluded": reasons}
    return {
        "items": len(items),
        "excluded": excluded,
        "gold": _summary(items)["gold"],
        "languages": list(languages),
        "splits": list(splits),
        "licence": card.licence,
        "sha256": facts.sha256,
        "origin": {**asdict(facts.origin), "time": facts.time},
        "per_language": per_language,
        "unexpected": unexpected(card, here),
    }


def _summary(items: Sequence["Item"]) -> dict[str, Any]:
    from medlocal.evals.items import LETTERS

    return {
        "items": len(items),
        "groups": len({i.group for i in items}),
        "gold": _counted(LETTERS[i.gold] for i in items),
        "options": _counted(str(len(i.options)) for i in items),
        "subjects": _counted(i.subject for i in items),
        "difficulty": _counted(i.difficulty for i in items if i.difficulty),
        "flags": _counted(flag for i in items for flag in i.flags),
    }


def _counted(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _show_item(items: Sequence["Item"], name: str, *, as_json: bool) -> None:
    from medlocal.errors import unknown_name
    from medlocal.evals.items import LETTERS
    from medlocal.report.wording import printable

    found = [item for item in items if item.id == name]
    if not found:
        raise unknown_name("item", name, {item.id for item in items})
    if as_json:
        print_json([asdict(i) for i in found])
        return
    for i in found:
        parts = (i.id, i.split, i.subject, i.difficulty, *i.flags)
        print(printable(f"[{i.language}] " + " · ".join(filter(None, parts))))
        if i.context:
            print(printable(i.context, keep_lines=True) + "\n")
        print(printable(i.stem, keep_lines=True))
        for slot, text in enumerate(i.options):
            print(f"{'*' if slot == i.gold else ' '} {LETTERS[slot]}. {printable(text)}")
        print(f"  {printable(i.rationale, keep_lines=True)}\n" if i.rationale else "")


@app.command("check")
def check_data(
    dataset: Dataset,
    against: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated sets to look for overlap in; default: all that are here."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Count lengths in this model's tokens.")
    ] = None,
    languages: Languages = None,
    split: Annotated[str | None, typer.Option(help="One split; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a data set: duplicates, overlap with others, gold letters, option lengths, tokens.

    Overlap is looked for in all splits of the other sets.
    """
    from medlocal.data.checking import check_items
    from medlocal.data.library import is_here, known_set, known_sets

    here = settings()
    card = known_set(dataset, here)
    items = _read(card, here, _languages(card, languages), split or "all")
    if against is None:
        names = [name for name, other in known_sets(here).items() if is_here(other, here)]
    else:
        names = _names(against)
    others: list[Item] = []
    for name in names:
        if name != card.id:
            other = known_set(name, here)
            others.extend(_read(other, here, other.languages, "all"))
    with _token_counter(model, here) as count:
        report = check_items(items, others, count)
    if as_json:
        print_json(asdict(report))
    else:
        _print_check(report)


@contextmanager
def _token_counter(model: str | None, here: "Settings") -> Iterator[Callable[[str], int] | None]:
    """What counts tokens with a model's own vocabulary."""
    if model is None:
        yield None
        return
    from medlocal.hub import find_model
    from medlocal.libllama import LlamaModel
    from medlocal.weights.gate import admit

    path = find_model(model, here)
    admit(path, here, steps_told())
    with LlamaModel(path) as loaded:
        yield lambda text: len(loaded.tokenize(text.encode()))


def _print_check(report: "Report") -> None:
    for title, found in (("stem", report.same_stem), ("question", report.same_question)):
        wrong = sum(not duplicate.golds_agree for duplicate in found)
        print(f"same {title}: {len(found):,} groups of items, {wrong:,} with different golds")
    print()
    letters = [
        (g.language, g.split, g.num_items, _line(dict(g.counts)),
         f"{g.majority_letter} {g.majority:.1%}", f"{g.chance:.1%}")
        for g in report.gold_letters
    ]  # fmt: skip
    print_table(("language", "split", "items", "gold letters", "majority", "chance"), letters)
    print()
    lengths = [
        (b.language, b.split, _rate(b.longest), _rate(b.shortest), f"{b.chance:.1%}")
        for b in report.length_bias
    ]
    print_table(("language", "split", "gold is longest", "gold is shortest", "chance"), lengths)
    if report.token_lengths:
        print()
        tokens = [
            (language, t.num_items, t.median, t.p95, t.longest, t.longest_item)
            for language, t in report.token_lengths.items()
        ]
        print_table(("language", "items", "median tokens", "p95", "longest", "which"), tokens)
    _print_overlaps(report)


def _print_overlaps(report: "Report") -> None:
    rows = [
        (overlap.other, overlap.language, shared.rule, f"{shared.num_items:,}",
         f"{shared.num_distinct:,} of {shared.out_of:,}")
        for overlap in report.overlaps
        for shared in overlap.shared
        if shared.num_items
    ]  # fmt: skip
    print()
    if not report.overlaps:
        print("no other set with a language in common is here to look for overlap in")
    elif rows:
        headers = ("found in", "language", "by the same", "items", "distinct")
        print_table(headers, rows)
    else:
        print("no overlap with: " + ", ".join(sorted({o.other for o in report.overlaps})))


def _rate(rate: "Rate") -> str:
    from medlocal.report.wording import full_rate

    return full_rate(rate)


@app.command("export")
def export_data(
    dataset: Dataset,
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, XLSX or Parquet, by its ending.")],
    languages: Languages = None,
    split: Split = None,
) -> None:
    """Write a data set's questions to a file that `import` reads back as they are."""
    from medlocal.data.exporting import export_items
    from medlocal.data.library import known_set

    here = settings()
    card = known_set(dataset, here)
    items = _read(card, here, _languages(card, languages), split or card.split)
    export_items(items, file)
    narrate(f"{file}: {len(items):,} items")


def _read(
    card: "DatasetCard", here: "Settings", languages: Sequence[str], split: str
) -> list["Item"]:
    from medlocal.data.library import read_set

    return read_set(card, here, languages, _splits(card, here, split))


def _splits(card: "DatasetCard", here: "Settings", split: str | None) -> tuple[str, ...]:
    from medlocal.data.library import splits_of
    from medlocal.errors import unknown_name

    if split is None:
        return (card.split,)
    known = splits_of(card, here)
    if split != "all" and split not in known:
        raise unknown_name("split", split, [*known, "all"])
    return known if split == "all" else (split,)


def _languages(card: "DatasetCard", languages: str | None) -> tuple[str, ...]:
    from medlocal.errors import unknown_name

    chosen = _names(languages) if languages else card.languages
    for language in chosen:
        if language not in card.languages:
            raise unknown_name("language", language, card.languages)
    return tuple(chosen)


def _names(text: str) -> list[str]:
    from medlocal.errors import UsageError

    if names := [part.strip() for part in text.split(",") if part.strip()]:
        return names
    raise UsageError("an option that takes names was given none")


def _card_values(card: "DatasetCard") -> dict[str, Any]:
    return {**asdict(card), "source": {"kind": card.source.kind, **asdict(card.source)}}


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _line(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(count)}" for name, count in value.items()) or "none"
    return _cell(value)


app.command("import")(importing.import_data)
