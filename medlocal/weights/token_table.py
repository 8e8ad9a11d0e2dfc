"""The table of tokens that a GGUF holds, whatever kind of tokenizer it was read from.

Each kind fills a table its own way; here is what they share: the types, the padding, and the checks
without which llama.cpp ends the process when it loads the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medlocal.errors import RefusedError
from medlocal.weights.header import shown
from medlocal.weights.tokenizer_files import MAX_TOKENS, is_unicode

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""llama.cpp's types of tokens; SentencePiece numbers its own alike."""

_ALWAYS_SPECIAL = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})


@dataclass(frozen=True)
class TokenTable:
    """Every id's token, with what belongs to the table as a whole."""

    model: str
    """llama.cpp's name of the kind: "gpt2" is byte-level BPE, "llama" is SentencePiece."""
    pre: str
    """llama.cpp's name of the pre-tokenizer."""
    tokens: tuple[str, ...]
    """By id, padded to the rows of the embeddings."""
    types: tuple[int, ...]
    """By id."""
    scores: tuple[float, ...] | None = None
    """By id; None for byte-level BPE."""
    merges: tuple[str, ...] | None = None
    """Two texts with a space between, best first; None for SentencePiece."""
    add_space_prefix: bool | None = None
    """Whether a text begins with a space that is not written; None = llama.cpp's default."""
    notes: tuple[str, ...] = ()
    """What a user should know: what will not be exactly as in the checkpoint."""
    departures: Mapping[str, str] = field(default_factory=dict)
    """Names of arrays whose values are not those of llama.cpp's converter, with the reason."""


class Rows:
    """A table being filled: padding at first, then row by row."""

    def __init__(self, num_tokens: int, padding_score: float = 0.0) -> None:
        self.tokens = [f"[PAD{token_id}]" for token_id in range(num_tokens)]
        self.types = [UNUSED] * num_tokens
        self.scores = [padding_score] * num_tokens

    def put(self, token_id: int, text: str, kind: int, score: float = 0.0) -> None:
        """Fill one row."""
        self.tokens[token_id] = text
        self.types[token_id] = kind
        self.scores[token_id] = score


def looks_special(text: str) -> bool:
    """True for a text that nobody writes: many checkpoints do not mark these as special."""
    return (
        text in _ALWAYS_SPECIAL
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def added_type(text: str, special: bool) -> tuple[str, int]:
    """The text and type of an added token, as llama.cpp wants them.

    One that users may write is looked for in the text as it is, before spaces become "▁".
    """
    if special or looks_special(text):
        return text, CONTROL
    return text.replace("▁", " "), USER_DEFINED


def vocab_size(config: Mapping[str, object], num_tokens: int, origin: Path) -> int:
    """The rows of the table: as many as the embeddings have.

    Args:
        config: the checkpoint's `config.json`.
        num_tokens: how many the tokenizer has, the highest id plus 1.
        origin: the tokenizer's file, for the message.

    Raises:
        RefusedError: the tokenizer has more, or the configuration says nothing sensible.
    """
    rows = config.get("vocab_size", num_tokens)
    if type(rows) is not int or not 0 < rows <= MAX_TOKENS:
        raise RefusedError(
            f"config.json beside {origin}: vocab_size is {shown(rows)}",
            hint="it must be the number of rows of the embeddings",
        )
    if num_tokens > rows:
        raise RefusedError(
            f"{origin} has {num_tokens:,} tokens, and config.json's vocab_size is {rows:,}: the"
            " last ones have no row in the embeddings",
            hint="the tokenizer belongs to another model, or the embeddings were not resized for"
            " its added tokens: take the tokenizer that the weights were trained with",
        )
    return rows


def check_table(table: TokenTable, origin: Path) -> TokenTable:
    """The table as it is, once it is sure that llama.cpp can load it.

    Raises:
        RefusedError: two ids have one text (llama.cpp would end the process), or a text is not
            Unicode.
    """
    first: dict[str, int] = {}
    for token_id, text in enumerate(table.tokens):
        # llama.cpp reads a text up to a zero byte, and has a name of its own for one without text.
        name = text.partition("\0")[0] or f"[EMPTY_{token_id}]"
        if (other := first.setdefault(name, token_id)) != token_id:
            raise RefusedError(
                f"{origin}: the tokens {other} and {token_id} have the same text {shown(name)}",
                hint="llama.cpp knows a token by its text: give one of the two another",
            )
    if not is_unicode("".join(table.tokens)):
        raise _not_unicode(table.tokens, origin)
    return table


def _not_unicode(tokens: Sequence[str], origin: Path) -> RefusedError:
    token_id = next(number for number, text in enumerate(tokens) if not is_unicode(text))
    return RefusedError(
        f"{origin}: token {token_id} is {shown(tokens[token_id])}, which is no text"
    )
