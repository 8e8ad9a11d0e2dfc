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
    from pathlib import Path

    from medlocal.catalog import ModelCard
    from medlocal.settings import Settings
    from medlocal.weights.inspect import GGUFInfo

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
    """Show all that is known of a model, and the whole way of its file: from where, made by what.

    The way stands in the GGUF's own metadata, where medlocal or llama.cpp's quantiser made it, and in
    the receipt of what was pulled. `medlocal inspect` shows what is in the file.
    """
    from medlocal.catalog import model_card
    from medlocal.hub import is_path

    here = settings()
    if is_path(model):
        _print_shown(_file_values(model, with_way=True), as_json=as_json)
        return
    card = model_card(model)
    _print_shown({**_values(card, here), **_pulled_values(card, here)}, as_json=as_json)


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


def file_way(info: "GGUFInfo", sha256: str, here: "Settings") -> dict[str, Any]:
    """How a file came to be, as its metadata says, and what of it was proved here.

    Args:
        info: of the file.
        sha256: of the file.
        here: whose memory the gate has.
    """
    from medlocal.weights.gate import gate_memory, remembered_gates
    from medlocal.weights.provenance import read_provenance

    way = asdict(read_provenance(info))
    passed = [gate for gate in remembered_gates(gate_memory(here)) if gate.sha256 == sha256]
    return {
        **{name: value or None for name, value in way.items()},
        "quantisation": info.main_quantisation,
        "file_type": info.file_type,
        "sha256": sha256,
        "gate": [f"passed {gate.when} with llama.cpp {gate.commit}" for gate in passed],
    }


def _file_values(model: str, *, with_way: bool = False) -> dict[str, Any]:
    """What a GGUF's own header says, and its checksum.

    Raises:
        MissingError, RefusedError: there is no such file, or its header is not sound.
    """
    from medlocal.hub import file_sha256, find_model
    from medlocal.weights.importance import is_importance
    from medlocal.weights.inspect import read_gguf

    here = settings()
    path = find_model(model, here)
    info = read_gguf(path)
    with transfer_bar() as progress:
        sha256 = file_sha256(path, progress)
    file = {"path": str(path), "bytes": info.size, "sha256": sha256}
    if is_importance(info):
        return {**file, **_matrix_values(path)}
    way = {"way": file_way(info, sha256, here)} if with_way else {}
    return {
        **file,
        "architecture": info.architecture,
        "quantisation": info.main_quantisation,
        "file_type": info.file_type,
        "parameters": info.num_parameters,
        "context_length": info.context_length,
        "has_chat_template": bool(info.chat_template),
        **way,
    }


def _matrix_values(path: "Path") -> dict[str, Any]:
    """What a file says that is an importance matrix and no model."""
    from medlocal.weights.importance import read_importance, shares_to_texts

    matrix = read_importance(path)
    return {
        "kind": "an importance matrix, not a model",
        "weights": len(matrix.entries),
        "chunks": matrix.num_chunks,
        "chunk_tokens": matrix.chunk_size,
        "texts": list(matrix.datasets),
        "shares": list(shares_to_texts(matrix.shares)),
        "corpus_sha256": matrix.corpus_sha256,
        "model_sha256": matrix.model_sha256 or None,
    }


def _pulled_values(card: "ModelCard", here: "Settings") -> dict[str, Any]:
    """What lies here of a model: when it was got, its files, and the way of its GGUF."""
    from medlocal.hub import pulled_model
    from medlocal.hub.receipts import current_receipt
    from medlocal.weights.inspect import read_gguf

    pulled, receipt = pulled_model(card, here), current_receipt(card, here)
    if pulled is None or receipt is None:
        return {"pulled": None, "way": None}
    got = {"source": receipt.source, "revision": receipt.revision, "time": receipt.time}
    files = {entry.name: f"sha256 {entry.sha256}" for entry in receipt.files}
    is_file = pulled.path.is_file()
    way = file_way(read_gguf(pulled.path), pulled.sha256, here) if is_file else None
    return {"pulled": {**got, "files": files}, "way": way}


def _print_shown(values: dict[str, Any], *, as_json: bool) -> None:
    """Facts, those of a table under its name; what the file does not say of its way is left out."""
    if as_json:
        print_json(values)
        return
    facts: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            facts |= _flat(name, value)
        elif name not in {"pulled", "way"}:
            facts[name] = _cell(value)
    print_facts(facts)


def _flat(name: str, table: dict[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(f"{name}.{key}", value)
        elif name != "way" or value:
            flat[f"{name}.{key}"] = _cell(value)
    return flat


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
