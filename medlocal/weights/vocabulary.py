"""A checkpoint's tokenizer as a GGUF holds it: `read_vocabulary`, and the keys in their order.

The keys, their values and their order are those of llama.cpp's converter for Llama and Mistral; where
they cannot be, because the converter would write something that changes what the model reads or
where it stops, `Vocabulary.departures` names the key and the reason. This module only puts together
what others read: `byte_level` and `piece_table` the tokens, `special_tokens` the special ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medlocal.errors import RefusedError, UsageError
from medlocal.weights.byte_level import read_byte_level
from medlocal.weights.header import shown
from medlocal.weights.piece_table import read_merged_pieces, read_pieces
from medlocal.weights.special_tokens import ADD_KEYS, ID_KEYS, SpecialTokens, read_special_tokens
from medlocal.weights.token_table import TokenTable
from medlocal.weights.tokenizer_files import ChatTemplates, TokenizerFiles, read_tokenizer_files

_CODE_LLAMA_ROWS, _CODE_LLAMA_EOT = 32016, 32010
_GRANITE_ROWS = 49152
"""Vocabularies of this size get no BOS by llama.cpp's converter: Granite's and SmolLM's."""


@dataclass(frozen=True)
class Vocabulary:
    """All that a GGUF says about its tokenizer."""

    model: str
    """llama.cpp's name of the kind: "gpt2" is byte-level BPE, "llama" is SentencePiece."""
    pre: str
    """llama.cpp's name of the pre-tokenizer; "default" for SentencePiece, which has none."""
    tokens: tuple[str, ...] = field(repr=False)
    """By id, padded to `vocab_size` with `[PAD…]`."""
    token_types: tuple[int, ...] = field(repr=False)
    """By id: llama.cpp's numbers, 1 = normal … 6 = byte."""
    scores: tuple[float, ...] | None = field(repr=False)
    """By id; None for byte-level BPE."""
    merges: tuple[str, ...] | None = field(repr=False)
    """Best first; None for SentencePiece."""
    special_ids: Mapping[str, int]
    """bos, eos, unk, sep, pad, mask, eot and eom, as far as there are any, in order of writing."""
    adds: Mapping[str, bool]
    """Whether bos, eos and sep are put around a text, as far as it is said, in order of writing."""
    add_space_prefix: bool | None
    """Whether a text is read as if a space stood before it; None = llama.cpp's default."""
    chat_templates: Mapping[str, str] = field(repr=False)
    """Jinja by name; the usual one is `default`. Empty for a base model."""
    end_ids: tuple[int, ...]
    """Every token at which the checkpoint stops; llama.cpp stops at each of them too."""
    notes: tuple[str, ...] = ()
    """What a user should know: where llama.cpp will not do quite the same."""
    departures: Mapping[str, str] = field(default_factory=dict)
    """Keys whose value is not what llama.cpp's converter writes, each with the reason."""

    @property
    def add_bos(self) -> bool | None:
        """Whether a text begins with BOS; None = it is not said."""
        return self.adds.get("bos")

    @property
    def add_eos(self) -> bool | None:
        """Whether a text ends with EOS; None = it is not said."""
        return self.adds.get("eos")

    @property
    def chat_template(self) -> str | None:
        """The usual chat template, Jinja; None for a base model."""
        return self.chat_templates.get("default")

    def entries(self) -> list[tuple[str, Any, Any]]:
        """Key, value and `gguf.GGUFValueType` of all that is to be written, in order."""
        from gguf import GGUFValueType as Kind

        entries: list[tuple[str, Any, Any]] = []
        if self.add_space_prefix is not None:
            entries.append(("tokenizer.ggml.add_space_prefix", self.add_space_prefix, Kind.BOOL))
        entries.append(("tokenizer.ggml.model", self.model, Kind.STRING))
        entries.append(("tokenizer.ggml.pre", self.pre, Kind.STRING))
        arrays = {
            "tokens": self.tokens,
            "scores": self.scores,
            "token_type": self.token_types,
            "merges": self.merges,
        }
        for name, values in arrays.items():
            if values is not None:
                entries.append((f"tokenizer.ggml.{name}", list(values), Kind.ARRAY))
        for kind, token_id in self.special_ids.items():
            entries.append((ID_KEYS[kind], token_id, Kind.UINT32))
        for kind, adds in self.adds.items():
            entries.append((ADD_KEYS[kind], adds, Kind.BOOL))
        return entries + self._template_entries(Kind)

    def _template_entries(self, kinds: Any) -> list[tuple[str, Any, Any]]:
        names = [name for name in self.chat_templates if name and name != "default"]
        entries: list[tuple[str, Any, Any]] = [
            (f"tokenizer.chat_template.{name}", self.chat_templates[name], kinds.STRING)
            for name in names
        ]
        if names:
            entries.append(("tokenizer.chat_templates", names, kinds.ARRAY))
        if self.chat_template:  # the format has no empty texts
            entries.append(("tokenizer.chat_template", self.chat_template, kinds.STRING))
        return entries


def read_vocabulary(
    folder: Path,
    config: Mapping[str, object],
    generation: Mapping[str, object],
    pre: str | None = None,
) -> Vocabulary:
    """Read a checkpoint's tokenizer.

    Args:
        folder: the checkpoint's.
        config: its `config.json`.
        generation: its `generation_config.json`; empty where there is none.
        pre: llama.cpp's name of the pre-tokenizer; None = find it by what it does.

    Raises:
        MissingError: there is no tokenizer.
        RefusedError: something in it is damaged, contradicts the rest, or has nothing in llama.cpp
            that does the same.
        UsageError: `pre` is no pre-tokenizer of llama.cpp, or the tokenizer has none.
    """
    files = read_tokenizer_files(folder)
    table = _read_table(files, config, pre)
    special = read_special_tokens(files, table, config, generation)
    _add_known_habits(table, special)
    templates = files.templates
    prefix = _space_prefix(files)
    departures = {**table.departures, **special.departures, **_departing(templates)}
    if prefix is not None:
        departures.pop("tokenizer.ggml.add_space_prefix", None)
    return Vocabulary(
        model=table.model,
        pre=table.pre,
        tokens=table.tokens,
        token_types=table.types,
        scores=table.scores,
        merges=table.merges,
        special_ids=special.ids,
        adds=special.adds,
        add_space_prefix=table.add_space_prefix if prefix is None else prefix,
        chat_templates=templates.sources,
        end_ids=special.ends,
        notes=(*table.notes, *special.notes, *templates.notes),
        departures=departures,
    )


def _read_table(files: TokenizerFiles, config: Mapping[str, object], pre: str | None) -> TokenTable:
    model = (files.library or {}).get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    falls_back = isinstance(model, dict) and model.get("byte_fallback") is True
    if files.pieces is None and not falls_back:
        if kind != "BPE":
            raise files.refused(
                files.library_path,
                f"a tokenizer of the kind {shown(kind)}",
                "byte-level BPE and SentencePiece's BPE can be converted: those of Llama and Mistral",
            )
        return read_byte_level(files, config, pre)
    if pre is not None:
        raise UsageError(
            f"{files.folder} has a SentencePiece tokenizer, which has no pre-tokenizer",
            hint="leave out --pre",
        )
    return read_merged_pieces(files, config) if files.pieces is None else read_pieces(files, config)


def _add_known_habits(table: TokenTable, special: SpecialTokens) -> None:
    """What llama.cpp's converter does for two families that it knows by their size."""
    if (
        len(table.tokens) == _CODE_LLAMA_ROWS
        and table.tokens[_CODE_LLAMA_EOT].lstrip("▁ ") == "<EOT>"
    ):
        special.ids.setdefault("eot", _CODE_LLAMA_EOT)
    if len(table.tokens) == _GRANITE_ROWS:
        if special.adds.get("bos"):
            special.departures[ADD_KEYS["bos"]] = (
                "llama.cpp's converter takes a vocabulary of this size for Granite's and leaves out"
                " the BOS that this tokenizer writes"
            )
        else:
            special.adds["bos"] = False


def _space_prefix(files: TokenizerFiles) -> bool | None:
    value = files.config.get("add_prefix_space")
    if value is not None and not isinstance(value, bool):
        raise RefusedError(
            f"{files.config_path}: add_prefix_space is {shown(value)}, neither true nor false",
            hint="get the tokenizer again, or correct the file",
        )
    return value


def _departing(templates: ChatTemplates) -> dict[str, str]:
    departures = {}
    if len([name for name in templates.sources if name != "default"]) > 1:
        departures["tokenizer.chat_templates"] = (
            "llama.cpp's converter lists the names in an order that changes from run to run"
        )
    if templates.is_unseen and templates.sources:
        departures["tokenizer.chat_template"] = (
            "llama.cpp's converter does not look for a template's own file where"
            " tokenizer_config.json is missing or has an empty one"
        )
    return departures
