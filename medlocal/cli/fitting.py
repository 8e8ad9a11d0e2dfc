"""`medlocal fit`: whether a model has room on this machine, or on another, and in which type it would."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
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
from medlocal.errors import UsageError

if TYPE_CHECKING:
    from medlocal.settings import Settings
    from medlocal.weights.measured_memory import MeasuredMemory
    from medlocal.weights.memory import DeviceBudget, MemoryPlan
    from medlocal.weights.model_shape import ModelShape
    from medlocal.weights.type_sizes import TypeSize

DEFAULT_CONTEXT = 8192
_UNITS = {
    "": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_SHOWN_TYPES = 6
"""Of those that fit, from the largest down."""
_SAME_MODEL = 1e-3
"""Within which two counts of parameters, one of them from rounded figures, are the same."""
_PARTS = ("weights", "kv", "compute", "logits")
_TABLE_DEVICES = 4
"""Side by side in one table: as many as 80 columns hold."""
_PART_NAMES = {"kv": "keys and values", "compute": "to compute", "logits": "logits"}


def fit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A GGUF, a checkpoint's folder, or the id of a model card."
        ),
    ],
    vram: Annotated[
        list[str] | None,
        typer.Option(
            help="Free memory of a GPU, as 8GiB; repeated, of several; 0 = none. Default: this"
            " machine's GPUs."
        ),
    ] = None,
    ram: Annotated[
        str | None,
        typer.Option(help="Free memory beside it, as 16GiB. Default: what is free here now."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(help="Tokens of one sequence; default: 8192, or what it was trained for."),
    ] = None,
    sequences: Annotated[int, typer.Option(help="Sequences side by side.")] = 1,
    rows: Annotated[int, typer.Option(help="Tokens computed in one call, at most.")] = 512,
    kv: Annotated[str, typer.Option(help="Type of keys and values: f16, bf16 or q8_0.")] = "f16",
    quality: Annotated[
        Path | None,
        typer.Option(
            help="What `medlocal quality -o FILE.json` measured of this model: its costs stand in"
            " the table."
        ),
    ] = None,
    all_types: Annotated[
        bool, typer.Option("--all-types", help="List every type, not only the largest that fit.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Load it as planned, and compare with what it takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Plan a model's memory: what goes to which device, what is left, which quantisation would fit.

    Weights, keys and values are exact; what llama.cpp reserves to compute is estimated. A part of each
    device is kept free. That a model does not fit is an answer too: the exit code is 0.

    Example: medlocal fit marmoka-es-llama-3.1-8b-instruct --vram 8GiB --context 16384
    """
    from medlocal.weights.memory import MemoryNeeds, plan_memory
    from medlocal.weights.type_sizes import type_sizes

    here = settings()
    budgets = _budgets(vram or [], ram)
    shape, path = _find(model, here)
    costs = _measured_costs(quality, shape) if quality else {}
    needs = MemoryNeeds(
        context=min(DEFAULT_CONTEXT, shape.context_length) if context is None else context,
        num_sequences=sequences,
        num_rows=rows,
        kv_type=kv,
    )
    plan = plan_memory(shape, needs, budgets)
    sizes = type_sizes(shape, path)
    plans = {s.type: plan_memory(s.shape, needs, budgets) for s in sizes}
    measured = _measure(plan, path, vram or ram, here) if measure else None
    if as_json:
        print_json(_to_json(plan, sizes, plans, costs, measured))
        return
    for note in notes(plan):
        narrate(note)
    _print_plan(plan)
    print(f"\n{verdict(plan, best_type(sizes, plans))}\n")
    _print_types(sizes, plans, costs, all_types=all_types)
    if measured is not None:
        _print_measured(plan, measured)


def parse_size(text: str, option: str) -> int:
    """Bytes of a size as people write it: 8GiB and 8G are 8 x 2^30, 8GB is 8 x 10^9.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if found is None or found[2].upper() not in _UNITS or (found[2] == "" and text.strip() != "0"):
        raise UsageError(
            f"{option} {text}: that is no size", hint="write it as 8GiB, 8G, 8192MiB or 8GB"
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _budgets(vram: list[str], ram: str | None) -> "list[DeviceBudget]":
    """The devices that were named, and this machine's in place of those that were not."""
    from medlocal.weights.measured_memory import machine_budgets
    from medlocal.weights.memory import DeviceBudget

    found: list[DeviceBudget] = [] if vram and ram else machine_budgets()
    gpus = [budget for budget in found if budget.kind == "gpu"]
    cpus = [budget for budget in found if budget.kind == "cpu"]
    if vram:
        sizes = [size for text in vram if (size := parse_size(text, "--vram"))]
        gpus = [DeviceBudget.of(f"GPU {n}", "gpu", size) for n, size in enumerate(sizes)]
    if ram:
        cpus = [DeviceBudget.of("CPU", "cpu", parse_size(ram, "--ram"))]
    return [*gpus, *cpus]


def _find(model: str, here: "Settings") -> "tuple[ModelShape, Path | None]":
    """The model's shape, and its GGUF where there is one."""
    from medlocal.catalog import model_card, model_cards
    from medlocal.hub import find_model, is_path, pulled_model
    from medlocal.weights.inspect import read_gguf
    from medlocal.weights.model_shape import shape_of_card, shape_of_checkpoint, shape_of_gguf

    folder = Path(model).expanduser()
    if model not in model_cards() and folder.is_dir():
        return shape_of_checkpoint(folder), None
    if not is_path(model):
        card = model_card(model)
        pulled = pulled_model(card, here)
        if pulled is None:
            return shape_of_card(card), None
        if pulled.path.is_dir() and not list(pulled.path.rglob("*.gguf")):
            return shape_of_checkpoint(pulled.path), None
    path = find_model(model, here)
    return shape_of_gguf(read_gguf(path)), path


def _measured_costs(path: Path, shape: "ModelShape") -> dict[str, str]:
    """What `medlocal quality` measured, by type, in words.

    Raises:
        UsageError: the file is not its report, or about another model.
    """
    try:
        files = json.loads(path.expanduser().read_text(encoding="utf-8"))["files"]
        counts = {8 * f["loaded_bytes"] / f["bits_per_weight"] for f in files}
        costs = {
            f["type"]: ", ".join(
                f"{language} ×{found['perplexity_ratio']['value']:.3f}"
                for language, found in f["languages"].items()
            )
            for f in files
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--quality {path}: no report of `medlocal quality`: {error}",
            hint="write one: medlocal quality REF QUANT… -o FILE.json",
        ) from error
    if any(abs(count - shape.num_parameters) > _SAME_MODEL * count for count in counts):
        raise UsageError(
            f"--quality {path} is about a model of {max(counts):,.0f} parameters, and {shape.name}"
            f" has {shape.num_parameters:,}"
        )
    return costs


def _measure(
    plan: "MemoryPlan", path: Path | None, budget: object, here: "Settings"
) -> "MeasuredMemory":
    """Load the model, which the gate let through."""
    from medlocal.hub import file_sha256
    from medlocal.weights.gate import pass_gate
    from medlocal.weights.inspect import read_gguf
    from medlocal.weights.measured_memory import measure_load

    if path is None:
        raise UsageError(
            "--measure loads a GGUF, and there is none",
            hint="pull it, or convert it first: medlocal convert",
        )
    if budget:
        raise UsageError("--measure loads on this machine: leave out --vram and --ram")
    if not plan.fits:
        raise UsageError("--measure: it does not fit, and loading it would end badly")
    with transfer_bar() as progress:
        sha256 = file_sha256(path, progress, here.home / "hashes.json")
        pass_gate(read_gguf(path), sha256, here, progress)
    return measure_load(path, plan, here.num_threads)


def notes(plan: "MemoryPlan") -> Iterator[str]:
    """What one must know to believe the plan."""
    yield from plan.shape.assumptions
    if (context := plan.needs.context) > (trained := plan.shape.context_length):
        yield f"a context of {context:,} tokens is longer than the {trained:,} it was trained for"
    if plan.shape.architecture != "llama":
        yield (
            f"what is reserved to compute is estimated as for a Llama, and this is a"
            f" {plan.shape.architecture}; keys and values are the most that it can need"
        )
    if plan.has_gpu:
        yield "for GPUs the estimate of what is reserved to compute was not measured"


def best_type(sizes: "Sequence[TypeSize]", plans: "Mapping[str, MemoryPlan]") -> str | None:
    """Of the types that fit, the one whose published loss is least, else the largest; None = none fits."""
    fitting = [size for size in sizes if plans[size.type].fits_best]
    told = [(cost, s.type) for s in fitting if (cost := s.published_perplexity) is not None]
    lossless = [size.type for size in fitting if size.type == "BF16"]
    return next(
        iter((*lossless, *(name for _, name in sorted(told)), *(s.type for s in fitting))), None
    )


def verdict(plan: "MemoryPlan", best: str | None) -> str:
    """The answer in a sentence, and what to do where it is no.

    Args:
        plan: of the model as it is.
        best: the type to be advised; None = there is none.
    """
    gpus = [p.device.name for p in plan.per_device if p.device.kind == "gpu" and p.layers]
    context = f"room for a context of {plan.largest_context:,} tokens"
    if plan.needs.num_sequences > 1:
        context += f" in each of {plan.needs.num_sequences} sequences"
    if plan.fits_best:
        where = " and ".join(gpus) or "the CPU's memory"
        return f"fits: all {plan.num_layers} layers (the output is one) in {where}, with {context}"
    if plan.fits:
        where = f" ({' and '.join(gpus)})" if gpus else ""
        return (
            f"fits in part: {plan.gpu_layers} of {plan.num_layers} layers on the GPU{where}, the CPU's"
            f" memory holds the rest, with {context}\n{_advice(plan, best)}"
        )
    return (
        f"does not fit: it needs {mebibytes(plan.needed_bytes)}, and {mebibytes(plan.usable_bytes)}"
        f" can be taken\n{_advice(plan, best)}"
    )


def _advice(plan: "MemoryPlan", best: str | None) -> str:
    """What would make it fit as a whole."""
    from medlocal.weights.memory import plan_memory

    devices = [part.device for part in plan.per_device]
    ways = []
    context = plan.context_with(plan.num_layers if plan.has_gpu else 0)
    if 0 < context < plan.needs.context:
        ways.append(f"a context of {context:,} tokens (--context {context})")
    if plan.needs.kv_type != "q8_0" and not any(size % 32 for size in plan.shape.head_sizes):
        halved = replace(plan.needs, kv_type="q8_0")
        if plan_memory(plan.shape, halved, devices).fits_best:
            ways.append("keys and values in 8 bits (--kv q8_0)")
    if best is not None:
        ways.append(f"the quantisation {best}")
    return "to make all of it fit: " + ("; or ".join(ways) if ways else "more memory")


def _print_plan(plan: "MemoryPlan") -> None:
    """A column for each device: there are fewer of them than of figures."""
    parts = [_PART_NAMES.get(name, name) for name in _PARTS]
    names = ("free", "kept free", "layers", *parts, "needed", "fits")
    for start in range(0, len(plan.per_device), _TABLE_DEVICES):
        shown = plan.per_device[start : start + _TABLE_DEVICES]
        columns = [
            (
                mebibytes(part.device.free_bytes),
                mebibytes(part.device.reserve_bytes),
                f"{len(part.layers)} of {plan.num_layers}",
                *(_size(getattr(part, f"{name}_bytes")) for name in _PARTS),
                mebibytes(part.needed_bytes),
                "yes" if part.fits else "NO",
            )
            for part in shown
        ]
        headers = ("memory", *(part.device.name for part in shown))
        print_table(headers, zip(names, *columns, strict=True))


def _size(num_bytes: int) -> str:
    return mebibytes(num_bytes) if num_bytes else ""


def _print_types(
    sizes: "tuple[TypeSize, ...]",
    plans: "Mapping[str, MemoryPlan]",
    costs: Mapping[str, str],
    *,
    all_types: bool,
) -> None:
    from medlocal.weights.type_sizes import PUBLISHED_FOR, PUBLISHED_IN

    best = best_type(sizes, plans)
    fitting = [s for s in sizes if plans[s.type].fits_best][:_SHOWN_TYPES]
    marks: dict[str, list[str]] = {}
    if fitting and best:
        marks.setdefault(fitting[0].type, []).append("the largest")
        marks.setdefault(best, []).append("the least loss")
    first = sizes.index(fitting[0]) if fitting else len(sizes)
    shown = sizes if all_types else (*sizes[max(0, first - 2) : first], *fitting)
    rows = [
        (
            size.type,
            mebibytes(size.shape.weights_bytes),
            f"{size.bits_per_weight:.2f}",
            _fits(plans[size.type], marks.get(size.type, ())),
            f"{plans[size.type].largest_context:,}" if plans[size.type].fits else "",
            *([costs.get(size.type, "")] if costs else []),
            "" if (cost := size.published_perplexity) is None else f"{cost:+.4f}",
            "needs an imatrix" if size.needs_matrix else "",
        )
        for size in shown
    ]
    measured = ["measured: perplexity"] if costs else []
    published = f"published for {PUBLISHED_FOR}: perplexity"
    headers = ("type", "weights", "bits/weight", "fits", "context", *measured, published, "")
    print_table(headers, rows)
    narrate(
        f"published: {PUBLISHED_IN}, of {PUBLISHED_FOR} and not of this model; what a type costs this"
        " one: medlocal quality" + ("" if all_types else "; all types: --all-types")
    )


def _fits(plan: "MemoryPlan", marks: Sequence[str]) -> str:
    if plan.fits_best:
        return ", ".join(("yes", *marks))
    if plan.fits:
        return f"{plan.gpu_layers} of {plan.num_layers} layers"
    return "no"


def _print_measured(plan: "MemoryPlan", measured: "MeasuredMemory") -> None:
    from medlocal.weights.measured_memory import compare

    print()
    rows = [
        (
            _PART_NAMES.get(c.part, c.part),
            mebibytes(c.predicted_bytes),
            mebibytes(c.measured_bytes),
            "" if c.ratio is None else f"{c.ratio:.3f}",
        )
        for c in compare(plan, measured)
    ]
    print_table(("part", "predicted", "measured", "ratio"), rows)
    if (process := measured.process) is not None:
        narrate(
            f"the process grew by {mebibytes(process.peak_growth_bytes)} at most, of which"
            f" {mebibytes(process.mapped_bytes)} are pages of the file, which the system takes back"
            " where it needs them"
        )


def _to_json(
    plan: "MemoryPlan",
    sizes: "tuple[TypeSize, ...]",
    plans: "Mapping[str, MemoryPlan]",
    costs: Mapping[str, str],
    measured: "MeasuredMemory | None",
) -> dict[str, Any]:
    """All that was found, for programs; sizes in bytes."""
    from medlocal.weights.measured_memory import compare
    from medlocal.weights.type_sizes import PUBLISHED_FOR, PUBLISHED_IN

    best = best_type(sizes, plans)
    largest = next((s.type for s in sizes if plans[s.type].fits_best), None)
    return {
        "model": plan.shape.name,
        "parameters": plan.shape.num_parameters,
        "notes": list(notes(plan)),
        "needs": asdict(plan.needs),
        "verdict": verdict(plan, best).split("\n"),
        **_plan_json(plan),
        "devices": [
            {
                **asdict(part.device),
                "layers": list(part.layers),
                **{f"{name}_bytes": getattr(part, f"{name}_bytes") for name in _PARTS},
                "needed_bytes": part.needed_bytes,
                "fits": part.fits,
            }
            for part in plan.per_device
        ],
        "types": [
            {
                "type": size.type,
                "weights_bytes": size.shape.weights_bytes,
                "bits_per_weight": size.bits_per_weight,
                "needs_imatrix": size.needs_matrix,
                "is_largest_that_fits": size.type == largest,
                "is_advised": size.type == best,
                "measured_perplexity": costs.get(size.type),
                "published_perplexity": size.published_perplexity,
                **_plan_json(plans[size.type]),
            }
            for size in sizes
        ],
        "published": {"for": PUBLISHED_FOR, "in": PUBLISHED_IN},
        "measured": None
        if measured is None
        else {
            **asdict(measured),
            "parts": [{**asdict(c), "ratio": c.ratio} for c in compare(plan, measured)],
        },
    }


def _plan_json(plan: "MemoryPlan") -> dict[str, Any]:
    return {
        "fits": plan.fits,
        "fits_best": plan.fits_best,
        "num_layers": plan.num_layers,
        "gpu_layers": plan.gpu_layers,
        "tensor_split": list(plan.tensor_split),
        "needed_bytes": plan.needed_bytes,
        "largest_context": plan.largest_context,
    }
