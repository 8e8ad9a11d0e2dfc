"""`medlocal models`: the cards, and getting and checking what they describe."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli.console import (
    AsJson,
    Offline,
    mebibytes,
    narrate,
    print_facts,
    print_json,
    print_table,
    settings,
    transfer_bar,
)

if TYPE_CHECKING:
    from medlocal.catalog import ModelCard
    from medlocal.settings import Settings

app = typer.Typer(
    help="Model cards: list them, get their files, check them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ModelOrPath = Annotated[str, typer.Argument(help="Id of a model card, or path to a GGUF.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that have a card, and which are on this machine."""
    from medlocal.catalog import model_cards

    here = settings()
    rows = [_values(card, here) for card in model_cards().values()]
    if as_json:
        print_json(rows)
        return
    keys = ("id", "role", "languages", "parameters", "licence", "state")
    print_table(keys, [[_cell(row[key]) for key in keys] for row in rows])


@app.command("show")
def show_model(model: ModelOrPath, as_json: AsJson = False) -> None:
    """Show all that is known of a model, and where it was read."""
    from medlocal.catalog import model_card
    from medlocal.hub import is_path

    if is_path(model):
        _print_file(_file_values(model), as_json=as_json)
        return
    values = _values(model_card(model), settings())
    if as_json:
        print_json(values)
    else:
        source = values.pop("source")
        print_facts({k: _cell(v) for k, v in values.items()})
        print_facts({f"source.{k}": _cell(v) for k, v in source.items()})


@app.command("pull")
def pull(model: ModelOrPath, as_json: AsJson = False, offline: Offline = False) -> None:
    """Get a model's files. Nothing is fetched twice, and a checksum that does not fit is refused.

    A GGUF given by its path is here already: its header is checked and its checksum printed.
    """
    from medlocal.catalog import model_card
    from medlocal.hub import is_path, pull_model

    if is_path(model):
        _print_file(_file_values(model), as_json=as_json)
        return
    with transfer_bar() as progress:
        pulled = pull_model(model_card(model), settings(offline=offline), progress)
    if as_json:
        print_json({**asdict(pulled), "path": str(pulled.path)})
    else:
        narrate(f"{pulled.id}: {mebibytes(pulled.size)}, sha256 {pulled.sha256}")
        print(pulled.path)


@app.command("verify")
def verify(model: ModelOrPath, as_json: AsJson = False) -> None:
    """Hash a model's files again and compare with its card and with what was pulled.

    A GGUF given by its path has nothing to be compared with: its header is checked and its checksum
    printed.
    """
    from medlocal.catalog import model_card
    from medlocal.hub import is_path, verify_model

    if is_path(model):
        _print_file(_file_values(model), as_json=as_json)
        return
    with transfer_bar() as progress:
        verified = verify_model(model_card(model), settings(), progress)
    if as_json:
        print_json({**asdict(verified), "path": str(verified.path)})
    else:
        print(f"{verified.id}: as expected, sha256 {verified.sha256}")


def _file_values(model: str) -> dict[str, Any]:
    """What a GGUF's own header says, and its checksum.

    Raises:
        MissingError, RefusedError: there is no such file, or its header is not sound.
    """
    from medlocal.hub import file_sha256, find_model
    from medlocal.weights.inspect import read_gguf

    path = find_model(model, settings())
    info = read_gguf(path)
    with transfer_bar() as progress:
        sha256 = file_sha256(path, progress)
    return {
        "path": str(path),
        "bytes": info.size,
        "sha256": sha256,
        "architecture": info.architecture,
        "quantisation": info.main_quantisation,
        "parameters": info.num_parameters,
        "context_length": info.context_length,
        "has_chat_template": bool(info.chat_template),
    }


def _print_file(values: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(values)
    else:
        print_facts({k: _cell(v) for k, v in values.items()})


def _values(card: "ModelCard", here: "Settings") -> dict[str, Any]:
    from medlocal.hub import pulled_model

    pulled = pulled_model(card, here)
    source = {"kind": type(card.source).__name__.removesuffix("Source").lower()}
    values = {**asdict(card), "source": {**source, **asdict(card.source)}}
    values["state"] = "here" if pulled else "not here"
    values["path"] = str(pulled.path) if pulled else None
    return values


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "unknown"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
