"""Toys that stand in for a model: the engine, the run and the command line work without weights.

`ToyDecoder` keeps a KV cache cell by cell as llama.cpp does, and fails where the engine would have
read a wrong one: every row must see exactly the tokens of its own path, each once, in cells that
lie in the order of their positions. Its logits are a function of those tokens alone.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from medlocal.engine.batching import Batch, Limits
from medlocal.engine.sequence import Logits, TokenIds

NUM_BYTES = 256
END = 256
"""The toy's end-of-generation token; 0 … 255 are the bytes themselves."""
BOS = 257
NUM_VOCAB = 258

LogitsOf = Callable[[tuple[int, ...]], Logits]


def random_logits(history: tuple[int, ...]) -> Logits:
    """Logits that depend on every token before them and on nothing else."""
    digest = hashlib.sha256(repr(history).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    logits = rng.normal(0.0, 2.0, NUM_VOCAB).astype(np.float32)
    logits[END] += 2.0
    return logits


def saying(answer: Callable[[str], str]) -> LogitsOf:
    """Logits of a model that answers a prompt with a text of our choice, byte by byte.

    Args:
        answer: from the text before the answer (it ends with the byte 0x02) to the answer.
    """

    def logits_of(history: tuple[int, ...]) -> Logits:
        logits = np.zeros(NUM_VOCAB, np.float32)
        if 2 not in history:
            return logits
        at = len(history) - 1 - history[::-1].index(2)
        text = answer(toy_text(history[:at])).encode()
        said = bytes(t for t in history[at + 1 :] if t < NUM_BYTES)
        following = text[len(said)] if text[: len(said)] == said and len(said) < len(text) else END
        logits[following] = 20.0
        return logits

    return logits_of


def toy_tokens(text: str | bytes) -> list[int]:
    """The byte tokenizer."""
    return list(text.encode() if isinstance(text, str) else text)


def toy_text(tokens: Sequence[int]) -> str:
    """Its inverse; END and BOS have no text."""
    return bytes(t for t in tokens if t < NUM_BYTES).decode("utf-8", "replace")


@dataclass(slots=True)
class _Cell:
    token: int = -1
    position: int = -1
    ids: set[int] = field(default_factory=set)


@dataclass
class ToyDecoder:
    """A decoder without a model."""

    limits: Limits
    logits_of: LogitsOf = random_logits
    ends: frozenset[int] = frozenset({END})
    num_decoded: int = 0
    """Rows computed so far, padding included."""

    def __post_init__(self) -> None:
        self._cells = [_Cell() for _ in range(self.limits.num_cells)]
        self._rows: dict[int, Logits] = {}
        self._head = 0

    def decode(self, batch: Batch) -> None:
        limits = self.limits
        assert limits.min_rows <= len(batch) <= limits.num_rows, len(batch)
        assert sum(batch.outputs) <= limits.num_outputs
        self.num_decoded += len(batch)
        placed = [self._place(batch, row) for row in range(len(batch))]
        self._rows = {}
        for row, wanted in enumerate(batch.outputs):
            histories = {self._history(i, batch.positions[row]) for i in batch.ids[row]}
            assert len(histories) == 1, "a row's ids see different tokens"
            if wanted:
                self._rows[row] = self.logits_of(histories.pop())
        assert len(placed) == len(set(placed))

    def _place(self, batch: Batch, row: int) -> int:
        order = [*range(self._head, len(self._cells)), *range(self._head)]
        cell: int | None = next((c for c in order if not self._cells[c].ids), None)
        assert cell is not None, "the KV cache is full"
        self._cells[cell] = _Cell(batch.tokens[row], batch.positions[row], set(batch.ids[row]))
        self._head = cell + 1
        return cell

    def _history(self, sequence: int, position: int) -> tuple[int, ...]:
        assert 0 <= sequence < self.limits.num_ids
        seen = [cell for cell in self._cells if sequence in cell.ids and cell.position <= position]
        positions = [cell.position for cell in seen]
        assert positions == list(range(position + 1)), f"sequence {sequence} sees {positions}"
        return tuple(cell.token for cell in seen)

    def logits(self, row: int) -> Logits:
        return self._rows[row]

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        for cell in self._cells:
            if source in cell.ids and start <= cell.position < end:
                cell.ids.add(target)

    def remove(self, sequence: int) -> None:
        for number, cell in enumerate(self._cells):
            if sequence in cell.ids:
                cell.ids.discard(sequence)
                if not cell.ids:
                    self._head = min(self._head, number)

    def clear(self) -> None:
        self._cells = [_Cell() for _ in self._cells]
        self._head = 0

    @property
    def num_used(self) -> int:
        """Cells in use."""
        return sum(bool(cell.ids) for cell in self._cells)


@dataclass
class ListGrammar:
    """A grammar that accepts the texts of a list, on byte tokens, and forces what is certain."""

    texts: tuple[str, ...]
    forces: bool = True
    closing_text: str = ""

    def start(self) -> "ListConstraint":
        return ListConstraint(self, tuple(t.encode() for t in self.texts))


@dataclass
class ListConstraint:
    grammar: ListGrammar
    texts: tuple[bytes, ...]
    at: int = 0

    def allowed(self) -> TokenIds:
        ids = {t[self.at] for t in self.texts if len(t) > self.at}
        return np.array(sorted(ids | ({END} if self.accepting() else set())), np.int32)

    def forced(self) -> tuple[int, ...]:
        if not self.grammar.forces:
            return ()
        rest = [t[self.at :] for t in self.texts]
        shared = []
        for column in zip(*rest, strict=False):
            if len(set(column)) > 1:
                break
            shared.append(column[0])
        return tuple(shared)

    def closing(self) -> tuple[int, ...]:
        return ()

    def advance(self, token: int) -> None:
        self.texts = tuple(t for t in self.texts if len(t) > self.at and t[self.at] == token)
        assert self.texts, "the token was not allowed"
        self.at += 1

    def accepting(self) -> bool:
        return any(len(t) == self.at for t in self.texts)
