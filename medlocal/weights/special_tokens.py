"""Which tokens begin a text, end it, end a turn or fill a gap, from everything that names one.

`tokenizer_config.json` names them by text, `config.json` and `generation_config.json` by id,
`tokenizer.json` shows by example what is put around a text. The rules are those of llama.cpp's
converter (gguf-py's SpecialVocab), with what it leaves out: every token at which the checkpoint stops
writing must stop llama.cpp too, which knows one `eos`, one `eot`, one `eom` and some texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medlocal.errors import RefusedError
from medlocal.weights.header import shown
from medlocal.weights.inspect import GGUFInfo
from medlocal.weights.token_table import TokenTable
from medlocal.weights.tokenizer_files import KINDS, TokenizerFiles

ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
}
"""The key of each kind of token, spelled as llama.cpp spells it."""

ADD_KEYS = {
    "bos": "tokenizer.ggml.add_bos_token",
    "eos": "tokenizer.ggml.add_eos_token",
    "sep": "tokenizer.ggml.add_sep_token",
}

# From llama-vocab.cpp: tokens that end a generation because of their text; the first also make an
# `eot` where no key names one.
_END_OF_TURN = frozenset({
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"),
    *("<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"),
})  # fmt: skip
_ENDS = _END_OF_TURN | {
    *("<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "</s>", "<|eom_id|>", "[EOS]", "<eos>"),
    *("<turn|>", "<|tool_response>", "[e~["),
}  # fmt: skip


@dataclass
class SpecialTokens:
    """The special tokens of one checkpoint, while they are being put together."""

    ids: dict[str, int] = field(default_factory=dict)
    """By kind: the keys of `ID_KEYS`. In the order in which they are written."""
    adds: dict[str, bool] = field(default_factory=dict)
    """Whether each is put around a text: the keys of `ADD_KEYS`. In the order of writing."""
    ends: tuple[int, ...] = ()
    """Every token at which the checkpoint stops writing."""
    notes: list[str] = field(default_factory=list)
    departures: dict[str, str] = field(default_factory=dict)
    """Keys that llama.cpp's converter would not write so, with the reason."""


def read_special_tokens(
    files: TokenizerFiles,
    table: TokenTable,
    config: Mapping[str, object],
    generation: Mapping[str, object],
) -> SpecialTokens:
    """Find the special tokens and what is put around a text.

    Raises:
        RefusedError: an id is none, or one that must be known is nowhere, or llama.cpp has no way
            to stop at a token at which the checkpoint stops.
    """
    special = SpecialTokens()
    names = dict(files.named)
    _read_frame(files, names, special)
    _read_flags(files, special)
    _take_named(files, names, table, special)
    _take_numbered(files.folder / "config.json", config, table, special)
    _take_missing(names, table, (config, generation), special)
    _check_needed(files.folder, table, special)
    special.ends = _stops(files.folder, table, (generation, config), special)
    _make_stop(files.folder, table, special)
    return special


def _read_frame(files: TokenizerFiles, names: dict[str, str], special: SpecialTokens) -> None:
    """What `tokenizer.json` puts around a text; corrects the names by it."""
    if files.library is None:
        return
    for kind, other in (("bos", "cls"), ("eos", "sep")):
        if other in names:
            names.setdefault(kind, names[other])
    if not (processor := files.library.get("post_processor")):
        return
    steps = processor.get("processors", [processor]) if isinstance(processor, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        what = f"post_processor is {shown(processor)}"
        raise files.refused(files.library_path, what)
    for step in steps:
        if step.get("type") == "ByteLevel":
            special.adds.setdefault("bos", False)
            special.adds.setdefault("eos", False)
        elif step.get("type") == "TemplateProcessing":
            _read_template(step, names, special)
        else:
            raise files.refused(
                files.library_path,
                f"what is put around a text is described by {shown(step.get('type'))}",
                "models whose texts are framed this way cannot be converted here",
            )


def _read_template(
    step: Mapping[str, object], names: dict[str, str], special: SpecialTokens
) -> None:
    single, pair = _parts(step.get("single")), _parts(step.get("pair"))
    first = single[0][0] if len(single) > 1 else None
    last = single[-1][0] if len(single) > 1 else None
    if first:
        if names.setdefault("bos", first) != first:
            special.notes.append(
                f"a text begins with {shown(first)}, says tokenizer.json, and not with the BOS of"
                f" tokenizer_config.json, {shown(names['bos'])}: the first is taken"
            )
            special.departures[ID_KEYS["bos"]] = "the token that tokenizer.json begins a text with"
            names["bos"] = first
        special.adds["bos"] = True
    if last:
        if (usual := names.get("eos", last)) != last:
            names["eot"] = usual
        names["eos"] = last
        special.adds["eos"] = True
    between = _between(pair, first, last)
    if between:
        ends = {names.get("sep"), names.get("eos")}
        adds = (between[0] in ends and not last) or (len(between) == 2 and between[1] in ends)
        special.adds["sep"] = adds
        if adds and "eos" in names:
            names.setdefault("sep", names["eos"])


def _between(
    pair: Sequence[tuple[str | None, str | None]], first: str | None, last: str | None
) -> list[str | None]:
    """The special tokens between two texts that are read together."""
    inner = list(pair)
    if inner and first and inner[0][0] == first:
        inner = inner[1:]
    if inner and last and inner[-1][0] == last:
        inner = inner[:-1]
    if len(inner) < 2 or (inner[0][1], inner[-1][1]) != ("A", "B"):
        return []
    return [token for token, _ in inner[1:-1]]


def _parts(template: object) -> list[tuple[str | None, str | None]]:
    """Of each part of a template: the special token that it is, or the name of the text."""
    parts = template if isinstance(template, list) else []
    return [(_id_of(part, "SpecialToken"), _id_of(part, "Sequence")) for part in parts]


def _id_of(part: object, kind: str) -> str | None:
    inner = part.get(kind) if isinstance(part, dict) else None
    name = inner.get("id") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None


def _read_flags(files: TokenizerFiles, special: SpecialTokens) -> None:
    """What `tokenizer_config.json` says of the same, where `tokenizer.json` does not."""
    for kind in ADD_KEYS:
        wanted = files.config.get(f"add_{kind}_token")
        if isinstance(wanted, bool) and special.adds.setdefault(kind, wanted) != wanted:
            special.notes.append(
                f"{files.config_path} says add_{kind}_token {wanted}, tokenizer.json does the"
                " opposite: the second is taken"
            )


def _take_named(
    files: TokenizerFiles, names: Mapping[str, str], table: TokenTable, special: SpecialTokens
) -> None:
    """The ids of tokens named by text, where they are among the added ones of `tokenizer.json`."""
    if not files.config:
        return
    ids: dict[str, int] = {}
    for token in files.in_library:
        ids.setdefault(token.text, token.id)
    for kind in (*KINDS, "eot"):
        if (text := names.get(kind)) in ids and text is not None:
            _take(kind, ids[text], files.library_path, table, special)


def _take_numbered(
    path: Path, config: Mapping[str, object], table: TokenTable, special: SpecialTokens
) -> None:
    for kind in KINDS:
        value = config.get(f"{kind}_token_id")
        if kind not in special.ids and type(value) is int:
            _take(kind, value, path, table, special)


def _take(kind: str, token_id: int, path: Path, table: TokenTable, special: SpecialTokens) -> None:
    if 0 <= token_id < len(table.tokens):
        if kind in ID_KEYS:
            special.ids[kind] = token_id
        return
    if kind in {"bos", "eos", "eot"}:
        raise _outside(path, kind, token_id, table)
    special.notes.append(
        f"{path}: the {kind} token {token_id} is outside the {len(table.tokens):,} tokens and is"
        " left out"
    )


def _outside(path: Path, kind: str, token_id: int, table: TokenTable) -> RefusedError:
    return RefusedError(
        f"{path}: the {kind} token has the id {token_id}, outside the {len(table.tokens):,} tokens",
        hint="the file belongs to another model: get the checkpoint again",
    )


def _take_missing(
    names: Mapping[str, str],
    table: TokenTable,
    configs: Sequence[Mapping[str, object]],
    special: SpecialTokens,
) -> None:
    """BOS and EOS from where llama.cpp's converter does not look."""
    for kind in ("bos", "eos"):
        if kind in special.ids:
            continue
        if (text := names.get(kind)) is not None and text in table.tokens:
            special.ids[kind] = table.tokens.index(text)
        elif found := [n for config in configs for n in _ids(config.get(f"{kind}_token_id"))]:
            if not 0 <= found[0] < len(table.tokens):
                continue  # told by whoever looks for the ends
            special.ids[kind] = found[0]
        else:
            continue
        special.departures[ID_KEYS[kind]] = (
            f"llama.cpp's converter does not look where this checkpoint names its {kind.upper()}"
        )


def _check_needed(folder: Path, table: TokenTable, special: SpecialTokens) -> None:
    """Refuse what would make llama.cpp take token 11 of a BPE vocabulary for BOS or EOS."""
    if "eos" not in special.ids:
        raise RefusedError(
            f"{folder} names no token that ends a text",
            hint='name it in tokenizer_config.json: "eos_token": "</s>", say',
        )
    if "bos" in special.ids or table.model != "gpt2":
        return
    if special.adds.get("bos"):
        raise RefusedError(
            f"{folder} wants a BOS before every text and names none",
            hint='name it in tokenizer_config.json: "bos_token": "<s>", say',
        )
    if "bos" not in special.adds and _begins_by_default(table):
        special.adds["bos"] = False
        special.departures[ADD_KEYS["bos"]] = "there is no BOS, and llama.cpp would write token 11"


def _begins_by_default(table: TokenTable) -> bool:
    """True where llama.cpp begins a text by BOS unless the file says otherwise."""
    keys = {"tokenizer.ggml.model": table.model, "tokenizer.ggml.pre": table.pre}
    return GGUFInfo(Path(), 3, 0, keys, ()).wants_bos


def _stops(
    folder: Path,
    table: TokenTable,
    configs: Sequence[Mapping[str, object]],
    special: SpecialTokens,
) -> tuple[int, ...]:
    """Every token at which the checkpoint stops, those of generation_config.json first."""
    stops = []
    for name, config in zip(("generation_config.json", "config.json"), configs, strict=True):
        value = config.get("eos_token_id")
        found = _ids(value)
        if value is not None and not found and value != []:
            raise RefusedError(
                f"{folder / name}: eos_token_id is {shown(value)}, not a token's number or a list",
                hint="get the checkpoint again, or correct the file",
            )
        for token_id in found:
            if not 0 <= token_id < len(table.tokens):
                raise _outside(folder / name, "eos", token_id, table)
        stops.extend(found)
    stops.extend(special.ids[kind] for kind in ("eos", "eot") if kind in special.ids)
    return tuple(dict.fromkeys(stops))


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    numbers = [each for each in values if type(each) is int]
    return numbers if len(numbers) == len(values) else []


def _make_stop(folder: Path, table: TokenTable, special: SpecialTokens) -> None:
    """Name the tokens at which llama.cpp would not stop by itself, as `eot` and `eom`."""
    # An `eot` that llama.cpp finds by its text has other uses, so it is left to be found.
    finds_eot = not _END_OF_TURN.isdisjoint(table.tokens)
    for kind in ("eom", "eot") if finds_eot else ("eot", "eom"):
        missing = [t for t in special.ends if t not in stopping(table.tokens, special.ids)]
        if missing and kind not in special.ids:
            special.ids[kind] = missing[0]
            special.departures[ID_KEYS[kind]] = (
                "the checkpoint stops at this token, and llama.cpp would not without being told"
            )
    stopped = stopping(table.tokens, special.ids)
    if missing := [token for token in special.ends if token not in stopped]:
        names = ", ".join(f"{token} ({shown(table.tokens[token])})" for token in missing)
        raise RefusedError(
            f"{folder} stops at {len(special.ends)} tokens, and a GGUF has no place for {names}",
            hint="take those out of eos_token_id in generation_config.json at which the model need"
            " not stop",
        )


def stopping(tokens: Sequence[str], ids: Mapping[str, int]) -> frozenset[int]:
    """The tokens at which llama.cpp stops, from the texts and keys of a file.

    The rules of `llama_vocab::impl::load`, except for tokens of filling in the middle.
    """
    stops = {ids[kind] for kind in ("eos", "eot", "eom") if kind in ids}
    stops |= {token_id for token_id, text in enumerate(tokens) if text in _ENDS}
    texts = {tokens[token_id] for token_id in stops}
    calls = {"<|call|>", "<|calls|>"} & texts
    spared = set()
    if calls and ("<|flush|>" in texts or "<|return|>" in texts):
        spared.add("<|end|>")
    if {"<|tool_response>", "<|plamo:eos|>"} & texts:
        spared.add("</s>")
    return frozenset(token_id for token_id in stops if tokens[token_id] not in spared)
