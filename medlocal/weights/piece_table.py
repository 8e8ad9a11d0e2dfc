"""The token table of a SentencePiece tokenizer: Llama 2, Mistral 7B.

It is read from `tokenizer.model`; where a checkpoint was saved without it, from the `tokenizer.json`
that was made of one. There the scores are gone, and the order of the merges says the same: llama.cpp
joins the neighbours whose union has the highest score, the library those whose merge comes first.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medlocal.errors import RefusedError
from medlocal.weights.byte_level import about_added, broken, load_library
from medlocal.weights.header import shown
from medlocal.weights.sentencepieces import PieceModel, read_piece_model
from medlocal.weights.token_table import (
    BYTE,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    Rows,
    TokenTable,
    added_type,
    check_table,
    vocab_size,
)
from medlocal.weights.tokenizer_files import AddedToken, TokenizerFiles

_SPACE = "▁"
_PADDING_SCORE, _ADDED_SCORE = -10000.0, -1000.0
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_SPACING_TEXTS = ("a b", "a  b", "El niño bebió.", "a\nb", "120/80")


def read_pieces(files: TokenizerFiles, config: Mapping[str, object]) -> TokenTable:
    """Read the table from `tokenizer.model`.

    Raises:
        RefusedError: it is damaged, or llama.cpp has nothing that does the same.
    """
    assert files.pieces is not None
    model = read_piece_model(files.pieces)
    _check_twin(model, files)
    rows = Rows(vocab_size(config, len(model.pieces), files.pieces), _PADDING_SCORE)
    for token_id, piece in enumerate(model.pieces):
        kind = NORMAL if piece.type == USER_DEFINED else piece.type
        rows.put(token_id, piece.text, kind, piece.score)
    notes, departures = _about_spaces(model, files.pieces)
    notes += [*_add(rows, files, departures), *_about_whole(model, rows, files.pieces)]
    table = TokenTable(
        model="llama",
        pre="default",
        tokens=tuple(rows.tokens),
        types=tuple(rows.types),
        scores=tuple(rows.scores),
        add_space_prefix=None if model.adds_space_prefix else False,
        notes=tuple(notes),
        departures=departures,
    )
    return _checked(table, files.pieces)


def read_merged_pieces(files: TokenizerFiles, config: Mapping[str, object]) -> TokenTable:
    """Read the table from a `tokenizer.json` that was made of a `tokenizer.model`.

    Raises:
        RefusedError: it is damaged, or llama.cpp has nothing that does the same.
    """
    path = files.library_path
    library = load_library(files)
    ids = library.get_vocab(with_added_tokens=True)
    added = library.get_added_tokens_decoder()
    size = vocab_size(config, 1 + max(ids.values(), default=-1), path)
    rows = Rows(size, _PADDING_SCORE)
    scores = _scores(files, library)
    for text, token_id in ids.items():
        if (token := added.get(token_id)) is not None and token.content == text:
            rows.put(token_id, *added_type(text, token.special), _ADDED_SCORE)
        elif _BYTE_TOKEN.fullmatch(text):
            rows.put(token_id, text, BYTE)
        else:
            rows.put(token_id, text, NORMAL, scores[text])
    adds_prefix, notes = _spacing(library, files)
    notes += about_added(library, files)
    table = TokenTable(
        model="llama",
        pre="default",
        tokens=tuple(rows.tokens),
        types=tuple(rows.types),
        scores=tuple(rows.scores),
        add_space_prefix=None if adds_prefix else False,
        notes=tuple(notes),
        departures={
            "tokenizer.ggml.scores": (
                "llama.cpp's converter gives all tokens the same score, with which llama.cpp joins"
                " letters from left to right; here the scores follow the order of the merges"
            )
        },
    )
    return _checked(table, path)


def _check_twin(model: PieceModel, files: TokenizerFiles) -> None:
    """Refuse a `tokenizer.json` beside it that numbers the tokens otherwise."""
    library = (files.library or {}).get("model")
    ids = library.get("vocab") if isinstance(library, dict) else None
    if not isinstance(ids, dict):
        return
    for token_id, piece in enumerate(model.pieces):
        if piece.type == NORMAL and (other := ids.get(piece.text)) != token_id:
            raise files.refused(
                files.folder,
                f"{shown(piece.text)} is token {token_id} in tokenizer.model and {shown(other)} in"
                " tokenizer.json: they are two tokenizers",
                "take the one away that the model was not trained with",
            )


def _add(rows: Rows, files: TokenizerFiles, departures: dict[str, str]) -> list[str]:
    """Lay the added tokens of three files over the pieces; notes on those that have no row."""
    notes = []
    for token in (*files.in_older_file, *files.in_config, *files.in_library):
        if token.id >= len(rows.tokens):
            notes.append(
                f"the added token {shown(token.text)} has the id {token.id}, for which the model"
                " has no row: it is left out"
            )
        elif token in files.in_library:
            if rows.types[token.id] == UNUSED and rows.tokens[token.id] != token.text:
                rows.put(token.id, *added_type(token.text, token.special), _ADDED_SCORE)
                departures["tokenizer.ggml.tokens"] = (
                    "llama.cpp's converter does not look for added tokens in tokenizer.json where"
                    " there is a tokenizer.model"
                )
        else:
            rows.put(token.id, *_overlaid(token, files), _ADDED_SCORE)
    return list(dict.fromkeys(notes))


def _overlaid(token: AddedToken, files: TokenizerFiles) -> tuple[str, int]:
    if token in files.in_config:
        return added_type(token.text, token.special)
    return token.text, USER_DEFINED  # added_tokens.json does not say more


def _about_whole(model: PieceModel, rows: Rows, path: Path) -> list[str]:
    """A note on pieces that are found whole in a text, before anything is merged.

    llama.cpp can look for a text so, but then reads a space after it that is not there: as usual
    tokens, which its converter makes of them, they do less harm.
    """
    whole = [
        piece.text
        for token_id, piece in enumerate(model.pieces)
        if piece.type == USER_DEFINED and rows.types[token_id] == NORMAL
    ]
    if not whole:
        return []
    return [
        f"{path}: {len(whole)} pieces, such as {shown(whole[0])}, are found whole in a text; llama.cpp"
        " makes them by merging, where merging leads to them"
    ]


def _about_spaces(model: PieceModel, path: Path) -> tuple[list[str], dict[str, str]]:
    """Notes on what llama.cpp does otherwise, and the key that it needs and would not get."""
    notes, departures = [], {}
    if not model.adds_space_prefix:
        departures["tokenizer.ggml.add_space_prefix"] = (
            "the tokenizer.model adds no space before a text, which llama.cpp's converter does not"
            " look for"
        )
    if model.collapses_spaces:
        notes.append(f"{path} reads several spaces as one, llama.cpp as several")
    if model.normalizes:
        notes.append(
            f"{path} replaces some letters by others before it cuts a text (as NFKC does: ½, ²,"
            " full-width forms), llama.cpp does not"
        )
    return notes, departures


def _checked(table: TokenTable, path: Path) -> TokenTable:
    """The table, once it is sure that llama.cpp can cut any text with it."""
    there = set(table.tokens)
    if missing := [n for n in range(256) if f"<0x{n:02X}>" not in there and chr(n) not in there]:
        raise RefusedError(
            f"{path}: {len(missing)} of the 256 bytes have no token, and llama.cpp ends the process"
            " when a text holds a letter outside the vocabulary",
            hint="models with such a tokenizer cannot be run safely by llama.cpp",
        )
    return check_table(table, path)


def _scores(files: TokenizerFiles, library: Any) -> dict[str, float]:
    """The score that each token had in SentencePiece, by its text.

    SentencePiece numbers the tokens that it makes by merging, and after them the letters that it
    begins with; a score is that number's negative.
    """
    model = (files.library or {})["model"]
    assert isinstance(model, dict)  # the library has read it
    merged = dict.fromkeys(
        "".join(merge) if isinstance(merge, list) else merge.replace(" ", "")
        for merge in model["merges"]
    )
    added = {token.content for token in library.get_added_tokens_decoder().values()}
    own = library.get_vocab(with_added_tokens=False)
    letters = [text for text in own if text not in added and not _BYTE_TOKEN.fullmatch(text)]
    letters.sort(key=own.__getitem__)
    return {text: float(-rank) for rank, text in enumerate(dict.fromkeys([*merged, *letters]))}


def _spacing(library: Any, files: TokenizerFiles) -> tuple[bool, list[str]]:
    """Whether a text is read as if a space stood before it, by trying; and notes.

    Raises:
        RefusedError: spaces are treated in a way that llama.cpp does not have.
    """
    path = files.library_path
    with broken(path):
        read = {text: _as_read(library, text) for text in _SPACING_TEXTS}
        after_space = _as_read(library, " a")
    plain = {text: [text.replace(" ", _SPACE)] for text in _SPACING_TEXTS}
    prefixed = {text: [_SPACE + pieces[0]] for text, pieces in plain.items()}
    if read not in (plain, prefixed):
        text = next(t for t in _SPACING_TEXTS if read[t] not in (plain[t], prefixed[t]))
        raise files.refused(
            path,
            f"it makes {read[text]} of {text!r} before merging, and llama.cpp {prefixed[text]}",
            "models with such a tokenizer cannot be converted here",
        )
    notes = []
    if read == prefixed and after_space != [f"{_SPACE}{_SPACE}a"]:
        notes.append(
            f"{path} adds no space before a text that begins with one, llama.cpp always does"
        )
    return read == prefixed, notes


def _as_read(library: Any, text: str) -> list[str]:
    """What BPE gets of a text: its pieces after normalising and cutting."""
    if library.normalizer is not None:
        text = library.normalizer.normalize_str(text)
    if library.pre_tokenizer is None:
        return [text]
    return [piece for piece, _ in library.pre_tokenizer.pre_tokenize_str(text)]
