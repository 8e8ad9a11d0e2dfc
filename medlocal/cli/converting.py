"""`medlocal convert`: a checkpoint in Hugging Face form becomes one GGUF file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from medlocal.cli.console import (
    AsJson,
    Offline,
    mebibytes,
    narrate,
    print_facts,
    print_json,
    settings,
    transfer_bar,
)

if TYPE_CHECKING:
    from medlocal.catalog import ModelCard
    from medlocal.weights.convert import Converted
    from medlocal.weights.source import CheckpointSource


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A checkpoint's folder, the id of a model card, or owner/name on the Hugging Face Hub.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="A .gguf file, or a folder: the file is then named by its model."
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--type", help="f32, f16, bf16, q8_0, or auto: the checkpoint's own, else f16."
        ),
    ] = "auto",
    pre: Annotated[
        str | None,
        typer.Option(help="llama.cpp's name of the pre-tokenizer, where it is not recognised."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Convert a Llama or Mistral checkpoint to GGUF, without torch.

    The file is tried before it gets its name: llama.cpp loads it, its tokenizer must cut clinical
    sentences as the checkpoint's own does, and what it computes must be numbers. Ends with what the
    file is, and with what its model card says otherwise.

    Example: medlocal convert HiTZ/Marmoka-es-Llama-3.1-8B-Instruct . --type bf16
    """
    from medlocal.weights.convert import ConvertRequest
    from medlocal.weights.convert import convert as convert_checkpoint
    from medlocal.weights.source import find_checkpoint

    here = settings(offline=offline)
    with transfer_bar() as progress:
        found = find_checkpoint(source, here, progress)
        request = ConvertRequest(
            source=found,
            out=out,
            type=kind.lower(),
            pre=pre,
            replace=force,
            num_threads=here.num_threads,
            hash_cache=here.home / "hashes.json",
        )
        converted = convert_checkpoint(request, progress)
    for note in converted.notes:
        narrate(f"note: {note}")
    differences = card_differences(found, converted)
    if as_json:
        print_json({**asdict(converted), "path": str(converted.path), "card": differences})
        return
    print_facts(_facts(converted))
    if found.card and differences:
        print(_diff(found.card, differences))


def card_differences(
    source: "CheckpointSource", converted: "Converted"
) -> dict[str, dict[str, Any]]:
    """What a model's card says otherwise than the file: key -> `card` and `file`.

    A card is only ever changed by its maker: this is for reading, or for taking over by hand. What
    the file does not say is no difference.
    """
    from medlocal.catalog import Language

    if (card := source.card) is None:
        return {}
    learned: dict[str, Any] = {
        "parameters": converted.num_parameters,
        "template_sha256": converted.template_sha256,
        "licence": converted.licence,
        "languages": [one for one in converted.languages if one in get_args(Language)],
    }
    said = {**asdict(card), "languages": list(card.languages)}
    differences = {
        key: {"card": said[key], "file": value}
        for key, value in learned.items()
        if value and value != said[key]
    }
    if "licence" in differences:
        where = f"README.md of {source.label}"
        where += f" at {source.revision}" if source.revision else ""
        differences["licence_read"] = {"card": card.licence_read, "file": where}
    return differences


def _facts(converted: "Converted") -> dict[str, object]:
    return {
        "path": converted.path,
        "size": f"{mebibytes(converted.size)} ({converted.size:,} bytes)",
        "sha256": converted.sha256,
        "name": converted.name,
        "architecture": converted.architecture,
        "parameters": f"{converted.num_parameters:,}",
        "type": converted.type,
        "vocabulary": f"{converted.num_vocab:,} tokens",
        "pre-tokenizer": converted.pre,
        "template_sha256": converted.template_sha256 or "no chat template",
        "licence": converted.licence or "not declared",
        "languages": ", ".join(converted.languages) or "not declared",
    }


def _diff(card: "ModelCard", differences: dict[str, dict[str, Any]]) -> str:
    """The lines of a card's file that differ, as a diff shows them."""
    lines = ["", f"--- models/{card.id}.toml", "+++ what was converted"]
    for key, values in differences.items():
        if values["card"] not in (None, ""):
            lines.append(f"-{key} = {_toml(values['card'])}")
        lines.append(f"+{key} = {_toml(values['file'])}")
    return "\n".join(lines)


def _toml(value: object) -> str:
    # TOML's strings and lists are written as JSON's; its numbers may have underscores.
    return f"{value:_}" if isinstance(value, int) else json.dumps(value, ensure_ascii=False)
