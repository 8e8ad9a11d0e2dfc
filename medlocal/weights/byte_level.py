"""The token table of a byte-level BPE tokenizer: Llama 3, Mistral Nemo, SmolLM.

`tokenizer.json` is given to the `tokenizers` library, as transformers does, and the ids are those
that the library gives: the file's own ids are checked against them. Added tokens keep their text as
it is written; llama.cpp looks for it in the text before anything else.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medlocal.errors import RefusedError
from medlocal.weights import pretokenizers
from medlocal.weights.header import PULL_AGAIN, shown
from medlocal.weights.token_table import (
    NORMAL,
    Rows,
    TokenTable,
    added_type,
    check_table,
    vocab_size,
)
from medlocal.weights.tokenizer_files import AddedToken, TokenizerFiles

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
_SPACE_LETTER = "Ġ"
"""Stands for a space where a text may hold none."""


def load_library(files: TokenizerFiles) -> Any:
    """`tokenizer.json` and what `tokenizer_config.json` lays over it, as a `tokenizers.Tokenizer`.

    Raises:
        RefusedError: the library refuses it, or gives other ids than the files say.
    """
    from tokenizers import AddedToken as LibraryToken
    from tokenizers import Tokenizer

    tokens = files.in_library  # looked at first: it knows better what is wrong
    with broken(files.library_path):
        library = Tokenizer.from_file(str(files.library_path))
        _check_ids(library, tokens, files.library_path)
        library.add_tokens(
            [
                LibraryToken(token.text, special=token.special, normalized=token.normalized)
                for token in files.in_config
            ]
        )
        _check_ids(library, files.in_config, files.config_path)
        library.add_special_tokens(
            [
                LibraryToken(text, special=True, normalized=False)
                for text in dict.fromkeys(files.named.values())
                if library.token_to_id(text) is not None
            ]
        )
    return library


@contextmanager
def broken(path: Path) -> Iterator[None]:
    """Turn whatever the `tokenizers` library raises over a file into a refusal of the file.

    Raises:
        RefusedError: the library failed.
    """
    try:
        yield
    except RefusedError:
        raise
    except BaseException as error:
        # The library is written in Rust, whose panics come as a BaseException of no public type.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RefusedError(
            f"{path} cannot be read as a tokenizer: {shown(str(error))}", hint=PULL_AGAIN
        ) from error


def about_added(library: Any, files: TokenizerFiles) -> list[str]:
    """A note where added tokens are looked for in a way that llama.cpp does not have."""
    choosy = [
        str(token.content)
        for token in library.get_added_tokens_decoder().values()
        if token.lstrip or token.rstrip or token.single_word
    ]
    if not choosy:
        return []
    return [
        f"{files.library_path}: {len(choosy)} added tokens, such as {shown(choosy[0])}, take the"
        " spaces beside them in, or stand between words only; llama.cpp finds them anywhere and"
        " leaves the spaces"
    ]


def read_byte_level(
    files: TokenizerFiles, config: Mapping[str, object], pre: str | None
) -> TokenTable:
    """Read the table.

    Args:
        files: the checkpoint's, with a `tokenizer.json` of the kind BPE.
        config: `config.json`.
        pre: llama.cpp's name of the pre-tokenizer; None = find it by what it does.

    Raises:
        RefusedError: something in it is damaged, or llama.cpp has nothing that does the same.
        UsageError: llama.cpp has no pre-tokenizer of that name.
    """
    library = load_library(files)
    model = _model(files)
    rows, notes, departures = _rows(library, files, config)
    if pre is None:
        with broken(files.library_path):
            known = pretokenizers.recognise(library, files.library_path, _structure(files))
        pre, notes = known.name, [*notes, *filter(None, [known.note])]
    else:
        pre = pretokenizers.named(pre)
    notes += [*about_added(library, files), *_about_normalizer(library, files)]
    table = TokenTable(
        model="gpt2",
        pre=pre,
        tokens=tuple(rows.tokens),
        types=tuple(rows.types),
        merges=_merges(model, files.library_path),
        notes=tuple(notes),
        departures=departures,
    )
    return check_table(table, files.library_path)


def _model(files: TokenizerFiles) -> Mapping[str, object]:
    """The model in `tokenizer.json`, once it is sure that llama.cpp has its kind."""
    library = files.library or {}
    model, decoder = library.get("model"), library.get("decoder")
    if not isinstance(model, dict):
        raise files.refused(files.library_path, f"its model is {shown(model)}")
    if '"ByteLevel"' not in json.dumps(decoder):
        raise _unknown_kind(files, f"BPE with the decoder {shown(decoder)}")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _unknown_kind(files, f"BPE with a {key}")
    return model


def _unknown_kind(files: TokenizerFiles, kind: str) -> RefusedError:
    return files.refused(
        files.library_path,
        f"a tokenizer of the kind {kind}",
        "byte-level BPE and SentencePiece's BPE can be converted: those of Llama and Mistral",
    )


def _rows(
    library: Any, files: TokenizerFiles, config: Mapping[str, object]
) -> tuple[Rows, list[str], dict[str, str]]:
    ids = library.get_vocab(with_added_tokens=True)
    added = library.get_added_tokens_decoder()
    num_ids = 1 + max(ids.values(), default=-1)
    rows = Rows(vocab_size(config, num_ids, files.library_path))
    taken: dict[int, str] = {}
    notes, departures = _missing(ids, files), {}
    for text, token_id in ids.items():
        if (other := taken.setdefault(token_id, text)) != text:
            what = f"the tokens {shown(other)} and {shown(text)} have the same id {token_id}"
            raise files.refused(files.library_path, what)
        if (token := added.get(token_id)) is None or token.content != text:
            rows.put(token_id, text, NORMAL)
            continue
        written, is_other = _written(library, token_id, token)
        rows.put(token_id, *added_type(written, token.special))
        if is_other:
            departures["tokenizer.ggml.tokens"] = (
                "llama.cpp's converter decodes added tokens as if their letters stood for bytes,"
                " and so loses those that hold letters such as ñ or é; here they stay as they are"
            )
    return rows, notes, departures


def _written(library: Any, token_id: int, token: Any) -> tuple[str, bool]:
    """An added token's text, and whether llama.cpp's converter would write another.

    The converter decodes those that are looked for in the text as it is. That makes a text of letters
    that stand for bytes ("Ġ" for a space), but breaks one that has such letters of its own.
    """
    text = str(token.content)
    if token.normalized:
        return text, False
    decoded = str(library.decode([token_id], skip_special_tokens=False))
    return (text, True) if _UNREADABLE in decoded else (decoded, False)


def _missing(ids: Mapping[str, int], files: TokenizerFiles) -> list[str]:
    """Notes on what the vocabulary lacks."""
    from tokenizers.pre_tokenizers import ByteLevel

    notes = [
        f"{files.config_path}: the {kind}_token {shown(text)} is not in the vocabulary"
        for kind, text in files.named.items()
        if text not in ids
    ]
    if num_missing := sum(letter not in ids for letter in ByteLevel.alphabet()):
        notes.append(
            f"{files.library_path}: {num_missing} of the 256 bytes have no token: texts that hold"
            " them lose them"
        )
    return notes


def _check_ids(library: Any, tokens: tuple[AddedToken, ...], path: Path) -> None:
    for token in tokens:
        if token.text and (given := library.token_to_id(token.text)) != token.id:
            raise RefusedError(
                f"{path}: the added token {shown(token.text)} has the id {token.id}, and is token"
                f" {given} once the tokenizer is loaded",
                hint="two files of the tokenizer do not belong together, or one was edited by hand:"
                " get the tokenizer again",
            )


def _merges(model: Mapping[str, object], path: Path) -> tuple[str, ...]:
    """The merges as one text each; the library has checked that they lead to tokens.

    Raises:
        RefusedError: there are none, without which llama.cpp does not load a vocabulary.
    """
    merges = model.get("merges")
    if not isinstance(merges, list) or not merges:
        raise RefusedError(f"{path} has no merges", hint=PULL_AGAIN)
    return tuple(
        merge if isinstance(merge, str) else f"{_unspaced(merge[0])} {_unspaced(merge[1])}"
        for merge in merges
    )


def _unspaced(part: str) -> str:
    return part.replace(" ", _SPACE_LETTER)


def _about_normalizer(library: Any, files: TokenizerFiles) -> list[str]:
    """A note where texts are normalised, which llama.cpp does not do for BPE.

    Raises:
        RefusedError: they are changed by more than Unicode's canonical composition.
    """
    import unicodedata

    if library.normalizer is None:
        return []
    path, changes = files.library_path, False
    with broken(path):
        for text in pretokenizers.probes():
            if (normal := library.normalizer.normalize_str(text)) == text:
                continue
            changes = True
            if normal != unicodedata.normalize("NFC", text):
                raise files.refused(
                    path,
                    f"its normalizer makes {normal!r} of {text!r}, which llama.cpp's BPE does not",
                    "llama.cpp would read other tokens than the model was trained on",
                )
    if not changes:
        return []
    return [
        f"{path} composes letters and accents before it cuts a text (NFC), llama.cpp does not: a"
        " text in decomposed letters becomes other tokens"
    ]


def _structure(files: TokenizerFiles) -> str:
    """How the file describes its pre-tokenizer, for a message."""
    text = json.dumps((files.library or {}).get("pre_tokenizer"), ensure_ascii=False)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= 600 else f"{text[:600]}…"
