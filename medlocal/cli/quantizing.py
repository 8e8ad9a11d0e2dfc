"""`medlocal quantize`: smaller files of a model, in the types that llama.cpp has."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli.console import (
    AsJson,
    mebibytes,
    narrate,
    print_json,
    print_table,
    settings,
    transfer_bar,
)
from medlocal.errors import Interrupted, MedlocalError, UsageError

if TYPE_CHECKING:
    from medlocal.weights.quantize import Plan, Quantised, QuantizeRequest


def quantize(
    model: Annotated[
        str, typer.Argument(metavar="GGUF", help="Path to a GGUF, or id of a model card.")
    ],
    types: Annotated[
        list[str],
        typer.Argument(
            metavar="TYPE",
            help="One or several: Q2_K to Q6_K with _S, _M or _L, Q4_0 to Q8_0, IQ1_S to IQ4_XS, "
            "TQ1_0, TQ2_0, MXFP4_MOE, F16, BF16, F32. An unknown one lists them all.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for NAME-TYPE.gguf; default: this one.")
    ] = Path(),
    imatrix: Annotated[
        Path | None,
        typer.Option(
            help="Importance matrix of this model, by `medlocal imatrix` or llama.cpp's tool. "
            "The smallest types need one."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=TYPE",
            help="Tensors with this in their name get that type, as attn_v=Q8_0; a regular "
            "expression. May be repeated: the first that fits counts.",
        ),
    ] = None,
    output_type: Annotated[
        str | None, typer.Option(help="Type of the output matrix, as Q6_K or F16.")
    ] = None,
    token_embedding_type: Annotated[
        str | None, typer.Option(help="Type of the token embeddings.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; default: what the settings say.")
    ] = None,
    allow_requantize: Annotated[
        bool,
        typer.Option(
            "--allow-requantize",
            help="Take a file that is quantised already. What was lost stays lost; the result says "
            "so in its metadata.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace results that are there already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Quantise a GGUF to one type or several.

    What the results will be like is said before: sizes, tensors that need another type, types that
    this machine computes slowly. A result is there whole or not at all, and tells its source, its
    importance matrix and the llama.cpp that made it.

    Example: medlocal quantize model-bf16.gguf Q4_K_M IQ3_XXS --imatrix model.imatrix.gguf -o quantised
    """
    from medlocal.hub import find_model
    from medlocal.weights.quantize import QuantizeRequest, plan_quantisation

    here = settings()
    if threads is not None and threads < 1:
        raise UsageError("--threads must be at least 1", hint="leave it out to use every core")
    request = QuantizeRequest(
        source=find_model(model, here),
        types=tuple(types),
        folder=out.expanduser(),
        imatrix=imatrix.expanduser() if imatrix else None,
        keep=tuple(keep or ()),
        output_type=output_type,
        embedding_type=token_embedding_type,
        num_threads=threads or here.num_threads,
        allow_requantize=allow_requantize,
        force=force,
        hash_cache=here.home / "hashes.json",
    )
    with transfer_bar() as progress:
        plan = plan_quantisation(request, progress)
    for line in plan_lines(plan):
        narrate(line)
    made = _make(plan)
    if as_json:
        print_json([to_json(each) for each in made])
    else:
        # What is to be known of each was said above, and its type stands in its name: 80 columns
        # hold no more.
        headers = ("path", "size", "bits per weight", "of source", "seconds")
        print_table(headers, map(_row, made))


def plan_lines(plan: "Plan") -> list[str]:
    """What will be made, a line for each file and its warnings."""
    lines = []
    for file in plan.files:
        size = f"{mebibytes(file.num_bytes)}, {file.bits_per_weight:.2f} bits per weight"
        lines.append(f"{file.recipe.name}: {size} (predicted)")
        lines += [f"  ! {warning}" for warning in file.warnings]
    lines.append(f"memory: {mebibytes(plan.peak_bytes)} at most, besides the source's pages")
    return lines


def _make(plan: "Plan") -> "list[Quantised]":
    """Make all files; where that ends early, say which are there and how to go on."""
    from medlocal.weights.quantize import quantize as make

    made: list[Quantised] = []
    try:
        with transfer_bar() as progress:
            made.extend(make(plan, progress))
    except KeyboardInterrupt:
        command = resume_command(
            plan.request, [file.recipe.name for file in plan.files[len(made) :]]
        )
        raise Interrupted(f"stopped; {_told(made)}", hint=f"carry on: {command}") from None
    except MedlocalError:
        if made:
            narrate(_told(made))
        raise
    return made


def _told(made: "list[Quantised]") -> str:
    return "made: " + (", ".join(str(each.path) for each in made) or "nothing")


def resume_command(request: "QuantizeRequest", types: list[str]) -> str:
    """The command that makes the rest."""
    words = ["medlocal", "quantize", str(request.source), *types, "-o", str(request.folder)]
    words += ["--imatrix", str(request.imatrix)] if request.imatrix else []
    for keep in request.keep:
        words += ["--keep", keep]
    words += ["--output-type", request.output_type] if request.output_type else []
    words += ["--token-embedding-type", request.embedding_type] if request.embedding_type else []
    words += ["--threads", str(request.num_threads)]
    words += ["--allow-requantize"] if request.allow_requantize else []
    return shlex.join([*words, "--force"] if request.force else words)


def _row(made: "Quantised") -> tuple[object, ...]:
    return (
        made.path,
        mebibytes(made.num_bytes),
        f"{made.bits_per_weight:.2f}",
        f"{made.ratio:.0%}",
        f"{made.seconds:.1f}",
    )


def to_json(made: "Quantised") -> dict[str, Any]:
    """All that is known of a result, for programs."""
    return {**asdict(made), "path": str(made.path), "seconds": round(made.seconds, 3)}
