"""The files that describe a checkpoint's tokenizer, read and checked for type, and nothing more.

`tokenizer.json` is what the `tokenizers` library runs, `tokenizer_config.json` what transformers lays
over it, `added_tokens.json` what older versions wrote. They come from strangers: whatever is used of
them is checked here for type, and by whoever uses it for sense. What the tokens mean is not known
here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import ascii_letters, digits

from medlocal.errors import MissingError, RefusedError
from medlocal.files import disk_errors
from medlocal.weights.checkpoint import read_json_object
from medlocal.weights.header import PULL_AGAIN, shown

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""The special tokens that transformers knows by name."""

MAX_TOKENS = 1 << 22
"""Of a vocabulary: 16 times the largest that is in use. Ids beyond are damage, not data."""

_MAX_TEMPLATE_BYTES = 1 << 20
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token beside the vocabulary proper."""

    id: int
    text: str
    special: bool
    """Left out of a decoded text; no part of a user's text becomes one."""
    normalized: bool
    """Looked for in the normalised text, not in the text as it is."""


@dataclass(frozen=True)
class ChatTemplates:
    """A checkpoint's chat templates."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """Jinja by name; the usual one is `default`."""
    notes: tuple[str, ...] = ()
    is_unseen: bool = False
    """True where llama.cpp's converter does not look where they were found."""


@dataclass(frozen=True)
class TokenizerFiles:
    """What a checkpoint's folder says about its tokenizer."""

    folder: Path
    library: Mapping[str, object] | None
    """`tokenizer.json`; None where there is none."""
    config: Mapping[str, object]
    """`tokenizer_config.json`; empty where there is none."""
    pieces: Path | None
    """`tokenizer.model`, where it is SentencePiece's."""

    @property
    def library_path(self) -> Path:
        """Where `tokenizer.json` lies."""
        return self.folder / "tokenizer.json"

    @property
    def config_path(self) -> Path:
        """Where `tokenizer_config.json` lies."""
        return self.folder / "tokenizer_config.json"

    @cached_property
    def named(self) -> Mapping[str, str]:
        """The text of each special token that `tokenizer_config.json` names."""
        texts = {
            kind: self._text(f"{kind}_token", self.config.get(f"{kind}_token")) for kind in KINDS
        }
        return {kind: text for kind, text in texts.items() if text is not None}

    @cached_property
    def in_library(self) -> tuple[AddedToken, ...]:
        """The added tokens of `tokenizer.json`, in its order."""
        entries = (self.library or {}).get("added_tokens") or []
        if not isinstance(entries, list):
            raise self.refused(self.library_path, f"added_tokens is {shown(entries)}, not a list")
        return tuple(
            self._added(self.library_path, f"added_tokens[{n}]", entry)
            for n, entry in enumerate(entries)
        )

    @cached_property
    def in_config(self) -> tuple[AddedToken, ...]:
        """The added tokens of `tokenizer_config.json`, by id."""
        entries = self.config.get("added_tokens_decoder") or {}
        if not isinstance(entries, dict):
            what = f"added_tokens_decoder is {shown(entries)}, not an object"
            raise self.refused(self.config_path, what)
        added = []
        for key, entry in entries.items():
            number = int(key) if re.fullmatch(r"[0-9]{1,9}", key) else None
            place = f"added_tokens_decoder[{shown(key)}]"
            added.append(self._added(self.config_path, place, entry, number))
        return tuple(sorted(added, key=lambda token: token.id))

    @cached_property
    def in_older_file(self) -> tuple[AddedToken, ...]:
        """The added tokens of `added_tokens.json`, which does not say what they are."""
        path = self.folder / "added_tokens.json"
        if not path.is_file():
            return ()
        added = []
        for text, token_id in read_json_object(path).items():
            self._check_id(path, shown(text), token_id)
            assert isinstance(token_id, int)
            added.append(AddedToken(token_id, text, special=False, normalized=True))
        return tuple(added)

    @cached_property
    def templates(self) -> ChatTemplates:
        """The chat templates, wherever they are kept."""
        inside, beside = self.config.get("chat_template"), dict(self._templates_beside())
        if inside is None:
            return ChatTemplates(
                beside, is_unseen=not self.config or "chat_template" in self.config
            )
        sources, notes = self._templates_inside(inside)
        if beside and beside != sources:
            notes = (
                *notes,
                f"{self.config_path} holds a chat template and {self.folder} another beside it: the"
                " first is used",
            )
        return ChatTemplates(sources, notes)

    def refused(self, path: Path, what: str, hint: str = PULL_AGAIN) -> RefusedError:
        """The error for a file that says something that cannot be meant."""
        return RefusedError(f"{path}: {what}", hint=hint)

    def _text(self, key: str, entry: object) -> str | None:
        """A token as transformers writes it: its text, or an object that holds it."""
        text = entry.get("content") if isinstance(entry, Mapping) else entry
        if text is not None and not isinstance(text, str):
            raise self.refused(self.config_path, f"{key} is {shown(entry)}, not a token's text")
        return text or None

    def _added(
        self, path: Path, place: str, entry: object, number: int | None = None
    ) -> AddedToken:
        if not isinstance(entry, dict) or not isinstance(text := entry.get("content"), str):
            raise self.refused(path, f"{place} is {shown(entry)}, not a token")
        number = entry.get("id") if number is None else number
        self._check_id(path, place, number)
        assert isinstance(number, int)
        special, normalized = entry.get("special", False), entry.get("normalized")
        normalized = not special if normalized is None else normalized
        if not isinstance(special, bool) or not isinstance(normalized, bool):
            raise self.refused(path, f"{place}: special and normalized must be true or false")
        return AddedToken(number, text, special, normalized)

    def _check_id(self, path: Path, place: str, number: object) -> None:
        if type(number) is not int or not 0 <= number < MAX_TOKENS:
            raise self.refused(path, f"{place} has the id {shown(number)}, which no token can have")

    def _templates_inside(self, value: object) -> tuple[dict[str, str], tuple[str, ...]]:
        if isinstance(value, str):
            return {"default": self._template(self.config_path, value)}, ()
        if not isinstance(value, list):
            note = f"{self.config_path}: chat_template is {shown(value)}, which no template can be"
            return {}, (note,)
        sources = {}
        for number, choice in enumerate(value):
            name = choice.get("name") if isinstance(choice, dict) else None
            if not isinstance(name, str):
                place = f"chat_template[{number}] is {shown(choice)}, not a template with a name"
                raise self.refused(self.config_path, place)
            sources[_plain(name)] = self._template(self.config_path, choice.get("template"))
        return sources, ()

    def _templates_beside(self) -> Iterator[tuple[str, str]]:
        """Name and source of the templates in files of their own."""
        one, old = self.folder / "chat_template.jinja", self.folder / "chat_template.json"
        if one.is_file():
            yield "default", self._template(one, _read_text(one))
            for path in sorted((self.folder / "additional_chat_templates").glob("*.jinja")):
                yield _plain(path.stem), self._template(path, _read_text(path))
        elif old.is_file() and (source := read_json_object(old).get("chat_template")) is not None:
            yield "default", self._template(old, source)

    def _template(self, path: Path, source: object) -> str:
        if not isinstance(source, str):
            raise self.refused(path, f"a chat template is {shown(source)}, not a text")
        if not is_unicode(source) or len(source) > _MAX_TEMPLATE_BYTES:
            raise self.refused(
                path, "a chat template is no Unicode text of at most a million signs"
            )
        return source


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Read the small files; `tokenizer.model` is looked at, not read.

    Raises:
        MissingError: there is no tokenizer.
        RefusedError: one of the files is damaged.
        MedlocalError: the system does not let one be read.
    """
    with disk_errors(folder):
        return _read_files(folder)


def _read_files(folder: Path) -> TokenizerFiles:
    library, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    pieces = folder / "tokenizer.model"
    has_pieces = pieces.is_file() and not _is_tiktoken(pieces)
    if not has_pieces and not library.is_file():
        raise _no_tokenizer(folder)
    return TokenizerFiles(
        folder,
        read_json_object(library) if library.is_file() else None,
        read_json_object(config) if config.is_file() else {},
        pieces if has_pieces else None,
    )


def is_unicode(text: str) -> bool:
    """False for a text with half a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_tiktoken(path: Path) -> bool:
    """True for the form in which Meta publishes Llama 3's vocabulary, under the same file name."""
    with disk_errors(path), path.open("rb") as file:
        return _TIKTOKEN.match(file.read(512)) is not None


def _no_tokenizer(folder: Path) -> MissingError:
    there = [
        name
        for name in ("tekken.json", "tokenizer.model", "vocab.json", "tokenizer.model.v3")
        if (folder / name).is_file()
    ]
    besides = f"; it has {' and '.join(there)}, which say too little" if there else ""
    return MissingError(
        f"{folder} has no tokenizer: neither tokenizer.json nor SentencePiece's tokenizer.model"
        f"{besides}",
        hint="copy the tokenizer's files from the checkpoint that it was trained from",
    )


def _plain(name: str) -> str:
    return "".join(c if c in ascii_letters + digits else "_" for c in name)


def _read_text(path: Path) -> str:
    try:
        with disk_errors(path):
            if path.stat().st_size > _MAX_TEMPLATE_BYTES:
                raise RefusedError(f"{path} is larger than any chat template", hint=PULL_AGAIN)
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path} is not UTF-8: {error}", hint=PULL_AGAIN) from error
