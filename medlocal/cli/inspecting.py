"""`medlocal inspect`: all that a GGUF says of itself, and whether it may be loaded."""

import math
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli.console import (
    AsJson,
    mebibytes,
    print_json,
    print_table,
    settings,
    transfer_bar,
)
from medlocal.errors import MedlocalError, RefusedError

if TYPE_CHECKING:
    from medlocal.catalog import ModelCard
    from medlocal.files import Progress
    from medlocal.settings import Settings
    from medlocal.weights.inspect import GGUFInfo

_WIDTH = 100
"""Columns where stdout is no terminal."""
_NUM_SHOWN = 5
"""Elements of a list that are shown."""


def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Path to a GGUF, or id of a model card.")
    ],
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List every tensor, not only the groups.")
    ] = False,
    no_load: Annotated[
        bool,
        typer.Option(
            "--no-load", help="Leave out the first load by llama.cpp; the file is only read."
        ),
    ] = False,
    card: Annotated[
        str | None,
        typer.Option(
            help="Model card to compare the chat template with; default: the file's own, where it "
            "is known."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take a GGUF apart: what it is, how it is quantised, how it is spoken to, where it comes from.

    And let it through the gate that `medlocal run` uses: the header, the chat template, and the first
    load by llama.cpp in a process of its own, which is done once per file. A file that must not be
    loaded ends the command with exit code 4, after all that could be read of it.

    Example: medlocal inspect marmoka-Q4_K_M.gguf --card marmoka-es-llama-3.1-8b-instruct
    """
    from medlocal.catalog import model_card
    from medlocal.hub import file_sha256, find_model, is_path
    from medlocal.weights.importance import is_importance
    from medlocal.weights.inspect import read_gguf

    here = settings()
    if card is not None and not is_path(card):
        model_card(card)  # a mistyped name is told before the file is hashed and loaded
    path = find_model(model, here)
    info = read_gguf(path)
    if is_importance(info):
        raise RefusedError(
            f"{path} is an importance matrix, not a model",
            hint=f"see what is in it: medlocal models show {path}",
        )
    with transfer_bar() as progress:
        sha256 = file_sha256(path, progress, here.home / "hashes.json")
        gate, error = _gate(info, sha256, here, None if no_load else progress)
    found = _values(info, sha256, here)
    found["template"] |= _against_card(found, _card(card or model, found))
    found["gate"] = gate
    if not tensors:
        del found["every_tensor"]
    if as_json:
        print_json(_plain(found))
    else:
        _print(found)
    if error is not None:
        raise error


def _gate(
    info: "GGUFInfo", sha256: str, here: "Settings", progress: "Progress | None"
) -> tuple[dict[str, Any], MedlocalError | None]:
    """What the gate says, and the error to end with where it says no.

    Args:
        info: the file's header.
        sha256: of the file.
        here: whose memory the gate has.
        progress: told of the first load; None = there is to be none.
    """
    from medlocal.weights.anatomy import said
    from medlocal.weights.gate import CHECKS, examine, pass_gate

    try:
        if progress is None:
            warnings = examine(info)
            return {"state": "not loaded", "passed": CHECKS[:-1], "warnings": warnings}, None
        gate = pass_gate(info, sha256, here, progress)
        ends = [{"id": token, "text": said(lambda t=token: info.token(t))} for token in gate.ends]  # type: ignore[misc]
        return {"state": "passed", **asdict(gate), "ends": ends}, None
    except MedlocalError as error:
        state = "refused" if isinstance(error, RefusedError) else "failed"
        return {"state": state, "reason": error.message, "hint": error.hint}, error


def _values(info: "GGUFInfo", sha256: str, here: "Settings") -> dict[str, Any]:
    from medlocal.cli.models import file_way
    from medlocal.weights.anatomy import (
        rope_of,
        said,
        shape_of,
        template_facts,
        tensor_groups,
        tokenizer_of,
    )
    from medlocal.weights.gate import file_template

    template = said(lambda: file_template(info))
    return {
        "path": str(info.path),
        "bytes": info.size,
        "sha256": sha256,
        "architecture": said(lambda: info.architecture),
        "name": said(lambda: info.name),
        "parameters": info.num_parameters,
        "bits_per_weight": info.bits_per_weight,
        "quantisation": info.main_quantisation,
        "file_type": said(lambda: info.file_type),
        "licence": _licence(info),
        "shape": asdict(shape_of(info)),
        "rope": asdict(rope_of(info)),
        "tensors": [asdict(group) for group in tensor_groups(info)],
        "every_tensor": [asdict(tensor) for tensor in info.tensors],
        "tokenizer": asdict(tokenizer_of(info)),
        "template": asdict(template_facts(template)) if template else {},
        "way": said(lambda: file_way(info, sha256, here)) or {},
        "metadata": dict(info.metadata),
    }


def _licence(info: "GGUFInfo") -> str | None:
    names = ("general.license", "general.license.name", "general.license.link")
    return ", ".join(str(info.metadata[name]) for name in names if name in info.metadata) or None


def _card(name: str, found: Mapping[str, Any]) -> "ModelCard | None":
    """The card that the user named, or the one that the file says it comes from."""
    from medlocal.catalog import WheelSource, model_card, model_cards
    from medlocal.hub import is_path

    if not is_path(name):
        return model_card(name)
    for card in model_cards().values():
        if card.repo and card.repo == found["way"].get("source"):
            return card
        if isinstance(card.source, WheelSource) and card.source.sha256 == found["sha256"]:
            return card
    return None


def _against_card(found: Mapping[str, Any], card: "ModelCard | None") -> dict[str, Any]:
    """How the file's template and licence stand to its card's."""
    if card is None:
        return {"card": None, "against_card": "no card is known for this file"}
    pinned, own = card.template_sha256, found["template"].get("sha256")
    if not pinned:
        verdict = "the card pins no template"
    elif own is None:
        verdict = "the card pins one, and the file has none"
    else:
        verdict = "equal" if own == pinned else f"DIFFERS: the card pins {pinned}"
    return {"card": card.id, "against_card": verdict, "card_licence": card.licence}


# For people.


def _print(found: dict[str, Any]) -> None:
    _section("File", {name: found[name] for name in ("path", "bytes", "sha256")})
    _section("Model", _model_lines(found))
    if found["tensors"]:
        print("\nTensors")
        _print_groups(found["tensors"])
    if "every_tensor" in found:
        print()
        print_table(
            ("tensor", "type", "shape", "bytes", "at byte"),
            [
                (t["name"], t["type"], " × ".join(map(str, t["shape"])), f"{t['num_bytes']:,}",
                 f"{t['offset']:,}")
                for t in found["every_tensor"]
            ],
        )  # fmt: skip
    _section("Tokenizer", _tokenizer_lines(found))
    _print_template(found["template"])
    _section("Way", _way_lines(found["way"]))
    _print_metadata(found["metadata"])
    _print_gate(found["gate"])


def _print_groups(groups: Iterable[Mapping[str, Any]]) -> None:
    print_table(
        ("group", "types", "tensors", "size", "bits per weight"),
        [
            (g["name"], _types(g["types"]), g["num_tensors"], mebibytes(g["num_bytes"]),
             f"{g['bits_per_weight']:.2f}")
            for g in groups
        ],
    )  # fmt: skip


def _model_lines(found: Mapping[str, Any]) -> dict[str, Any]:
    shape, rope = found["shape"], found["rope"]
    heads = f"{_text(shape['num_heads'])}, {_text(shape['num_kv_heads'])} for keys and values"
    bits = found["bits_per_weight"]
    kind, claimed = found["quantisation"], found["file_type"]
    if kind and claimed:
        kind = f"{kind} (the file says {claimed})"
    return {
        "architecture": found["architecture"],
        "name": found["name"],
        "licence": found["licence"] or "not stated in the file",
        "card's licence": found["template"].get("card_licence"),
        "parameters": found["parameters"],
        "quantisation": kind,
        "bits per weight": f"{bits:.2f}" if bits else None,
        "layers": shape["num_layers"],
        "experts": shape["num_experts"],
        "embedding": shape["embedding_length"],
        "feed-forward": shape["feed_forward_length"],
        "heads": heads,
        "head length": _head(shape["head_length"]),
        "context": shape["context_length"],
        "KV cache": _per_token(shape["kv_bytes_per_token"]),
        "rope": _rope(rope),
    }


def _rope(rope: Mapping[str, Any]) -> str | None:
    """Base and scaling in one line."""
    if rope["base"] is None and rope["scaling"] is None:
        return None
    parts = [f"base {rope['base']:,.0f}"] if rope["base"] is not None else []
    if rope["scaling"] == "factors":
        parts.append("a factor for each frequency (the tensor rope_freqs)")
    elif rope["scaling"]:
        parts.append(f"{rope['scaling']} scaling")
    if rope["factor"] is not None:
        parts.append(f"factor {rope['factor']:g}")
    if rope["original_context"]:
        parts.append(f"trained at {rope['original_context']:,} tokens before")
    return ", ".join(parts if rope["scaling"] else [*parts, "not scaled"])


def _tokenizer_lines(found: Mapping[str, Any]) -> dict[str, Any]:
    tokenizer = found["tokenizer"]
    kinds = {"gpt2": "BPE", "llama": "SentencePiece"}
    kind = kinds.get(tokenizer["model"])
    special = {
        token["purpose"]: f"{token['id']:,} {_quoted(token['text'])}"
        for token in tokenizer["special"]
    }
    said, wants = tokenizer["add_bos"], tokenizer["wants_bos"]
    bos = f"{_text(wants)} ({'as the file says' if said is not None else 'by default'})"
    return {
        "model": f"{tokenizer['model']} ({kind})" if kind else tokenizer["model"],
        "pre-tokenizer": tokenizer["pre"],
        "tokens": tokenizer["num_tokens"],
        "merges": tokenizer["num_merges"] or None,
        **special,
        "ends of an answer": _ends(found),
        "prompt begins with BOS": bos,
        "text ends with EOS": tokenizer["add_eos"],
        "space put first": tokenizer["add_space_prefix"],
    }


def _ends(found: Mapping[str, Any]) -> str:
    """All tokens that end an answer: llama.cpp finds some by their text."""
    if ends := found["gate"].get("ends"):
        return ", ".join(f"{token['id']:,} {_quoted(token['text'])}" for token in ends)
    return "known after the first load"


def _print_template(template: Mapping[str, Any]) -> None:
    if "sha256" not in template:
        _section("Chat template", {"source": "none: a base model", "card": _against(template)})
        return
    _section(
        "Chat template",
        {
            "sha256": template["sha256"],
            "card": _against(template),
            "characters": template["num_characters"],
            "roles": ", ".join(template["roles"]) or "none: it fails",
        },
    )
    for finding in template["findings"]:
        mark = {"refused": "!!", "warning": "! ", "note": "  "}[finding["severity"]]
        _wrapped(f"it {finding['text']}", mark)
    if template["example"] is not None:
        print("  an example, as the model reads it:")
        for line in template["example"].split("\n"):
            _wrapped(line, "  |")


def _against(template: Mapping[str, Any]) -> str:
    verdict = str(template["against_card"])
    return f"{template['card']}: {verdict}" if template["card"] else verdict


def _way_lines(way: Mapping[str, Any]) -> dict[str, Any]:
    """How the file came to be, as far as it says so itself."""
    if not way:
        return {"stated": "what cannot be meant: `medlocal models show` says which key"}
    if not (way["source"] or way["version"] or way["imatrix_file"]):
        return {"stated": "nothing: neither medlocal nor an importance matrix left a mark"}
    matrix = (way["imatrix_file"], way["imatrix_dataset"])
    return {
        "source": way["source"],
        "revision": way["revision"],
        "sha256 of its weights": way["source_sha256"],
        "written by": f"medlocal {way['version']}" if way["version"] else None,
        "with llama.cpp": way["llama_commit"],
        "quantised from sha256": way["parent_sha256"],
        "which was quantised": way["requantised_from"],
        "importance matrix": ", measured on ".join(filter(None, matrix)) or None,
        "its languages' shares": way["corpus_shares"],
        "its chunks of text": way["imatrix_chunks"],
    }


def _print_metadata(metadata: Mapping[str, Any]) -> None:
    """Every key, each on one line: a value is cut where the screen ends."""
    width = max((len(name) for name in metadata), default=0)
    room = max(_columns() - width - 4, 30)
    _section("Metadata", {name: _short(value, room) for name, value in metadata.items()})


def _print_gate(gate: Mapping[str, Any]) -> None:
    print("\nGate")
    if gate["state"] in {"refused", "failed"}:
        _wrapped(f"{gate['state'].upper()}: {gate['reason']}", "!!")
        return
    _wrapped(f"passed: {', '.join(gate['passed'])}", "  ")
    if gate["state"] == "passed":
        _wrapped(
            f"first loaded {gate['when']} by llama.cpp {gate['commit']}, {gate['seconds']} s", "  "
        )
    else:
        _wrapped("not loaded, as --no-load demands", "  ")
    for warning in gate["warnings"]:
        if not warning.startswith("the chat template"):  # those stand with the template
            _wrapped(warning, "! ")


def _section(title: str, facts: Mapping[str, Any]) -> None:
    """A title and its facts, those that are not known left out; values fold at the screen's edge."""
    from medlocal.report.wording import printable

    facts = {name: value for name, value in facts.items() if value is not None}
    width = max((len(name) for name in facts), default=0)
    room = max(_columns() - width - 4, 20)
    print(f"{'' if title == 'File' else chr(10)}{title}")
    for name, value in facts.items():
        # A path or a hash is copied: it stays in one piece.
        lines = textwrap.wrap(
            printable(_text(value)), room, break_on_hyphens=False, break_long_words=False
        )
        for number, line in enumerate(lines or [""]):
            print(f"  {'' if number else name:<{width}}  {line}")


def _wrapped(text: str, mark: str) -> None:
    from medlocal.report.wording import printable

    lines = textwrap.wrap(
        printable(text), _columns() - len(mark) - 3, break_on_hyphens=False, drop_whitespace=False
    )
    for number, line in enumerate(lines or [""]):
        print(f"  {mark if number == 0 or '|' in mark else ' ' * len(mark)} {line}".rstrip())


def _columns() -> int:
    return shutil.get_terminal_size((_WIDTH, 24)).columns


def _types(types: Mapping[str, int]) -> str:
    if len(types) == 1:
        return next(iter(types))
    return ", ".join(f"{kind} ({number})" for kind, number in types.items())


def _head(lengths: tuple[int, int] | None) -> str | None:
    if lengths is None:
        return None
    key, value = lengths
    return f"{key:,}" if key == value else f"{key:,} for keys, {value:,} for values"


def _per_token(num_bytes: int | None) -> str | None:
    return None if num_bytes is None else f"{mebibytes(num_bytes)} per token in F16"


def _quoted(text: str | None) -> str:
    return "not in the vocabulary" if text is None else repr(text)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "not known" if value is None else str(value)


def _short(value: object, room: int) -> str:
    """A value of the metadata in one line."""
    from medlocal.weights.header import ArrayRef

    text = value if isinstance(value, str) else _text(value)
    if isinstance(value, tuple | ArrayRef):
        first = [repr(value[index]) for index in range(min(len(value), _NUM_SHOWN))]
        more = ", …" if len(value) > _NUM_SHOWN else ""
        text = f"{len(value):,} values: {', '.join(first)}{more}"
    text = " ".join(text.split())
    return text if len(text) <= room else f"{text[: room - 1]}…"


# For programs.


def _plain(value: object) -> Any:
    """What JSON can hold: long lists as their length and beginning, numbers that are none as text."""
    from medlocal.weights.header import ArrayRef

    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, ArrayRef):
        first = [_plain(value[index]) for index in range(min(len(value), _NUM_SHOWN))]
        return {"type": value.type, "count": len(value), "first": first}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value
