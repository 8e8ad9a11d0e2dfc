"""Toys that stand in for a model: the engine, the run and the command line work without weights.

`ToyDecoder` keeps a KV cache cell by cell as llama.cpp does, and fails where the engine would have
read a wrong one: every row must see exactly the tokens of its own path, each once, in cells that
lie in the order of their positions. Its logits are a function of those tokens alone. `ToyBackend`
is a whole model made ready for a run: that decoder, a vocabulary of bytes and a chat template.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from medlocal.engine.batching import Batch, Decoder, Limits
from medlocal.engine.sequence import Logits, TokenIds
from medlocal.libllama import OutOfMemoryError
from medlocal.run.asking import Asker
from medlocal.run.backend import Needs, choose_cells
from medlocal.weights.template import check_bos

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

    _head: int = field(default=0, init=False)
    """Where the next free cell is looked for first."""

    def __post_init__(self) -> None:
        self._rows: dict[int, Logits] = {}
        self.clear()

    def decode(self, batch: Batch) -> None:
        limits = self.limits
        assert limits.min_rows <= len(batch) <= limits.num_rows, len(batch)
        assert sum(batch.outputs) == batch.num_outputs <= limits.num_outputs
        assert not batch.num_outputs or batch.num_outputs >= limits.min_rows
        self.num_decoded += len(batch)
        placed = [self._place(batch, row) for row in range(len(batch))]
        self._rows = {}
        views = {i: self._view(i) for i in {i for ids in batch.ids for i in ids}}
        for row, wanted in enumerate(batch.outputs):
            ids, end = batch.ids[row], batch.positions[row] + 1
            if wanted or len(ids) > 1:
                histories = {views[i][:end] for i in ids}
                assert len(histories) == 1, "a row's ids see different tokens"
            if wanted:
                self._rows[row] = self.logits_of(views[ids[0]][:end])
        assert len(placed) == len(set(placed))

    def _place(self, batch: Batch, row: int) -> int:
        num_cells = len(self._cells)
        order = ((self._head + i) % num_cells for i in range(num_cells))
        cell = next((c for c in order if not self._cells[c].ids), None)
        assert cell is not None, "the KV cache is full"
        self._cells[cell] = _Cell(batch.tokens[row], batch.positions[row], set(batch.ids[row]))
        for sequence in batch.ids[row]:
            self._cells_of.setdefault(sequence, set()).add(cell)
        self._head = cell + 1
        return cell

    def _view(self, sequence: int) -> tuple[int, ...]:
        """The tokens that a sequence sees, in the order of the cells, each position once."""
        assert 0 <= sequence < self.limits.num_ids
        seen = [self._cells[number] for number in sorted(self._cells_of[sequence])]
        positions = [cell.position for cell in seen]
        assert positions == list(range(len(seen))), f"sequence {sequence} sees {positions}"
        return tuple(cell.token for cell in seen)

    def logits(self, row: int) -> Logits:
        return self._rows[row]

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        for number in list(self._cells_of.get(source, ())):
            if start <= self._cells[number].position < end:
                self._cells[number].ids.add(target)
                self._cells_of.setdefault(target, set()).add(number)

    def remove(self, sequence: int) -> None:
        for number in self._cells_of.pop(sequence, ()):
            self._cells[number].ids.discard(sequence)
            if not self._cells[number].ids:
                self._head = min(self._head, number)

    def clear(self) -> None:
        self._cells = [_Cell() for _ in range(self.limits.num_cells)]
        self._cells_of: dict[int, set[int]] = {}
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


@dataclass(frozen=True)
class ToyVocabulary:
    """A vocabulary of the 256 bytes, and of longer tokens where a test wants some."""

    longer: tuple[bytes, ...] = ()
    """Their ids begin at `NUM_VOCAB`, behind the toy's own."""
    mute: bytes = b""
    """Bytes that can be read and never written: a grammar that needs one cannot be compiled."""
    control_texts: tuple[str, ...] = ("<|end|>",)
    ends: frozenset[int] = frozenset({END})

    @cached_property
    def pieces(self) -> Mapping[int, bytes]:
        written = {byte: bytes([byte]) for byte in range(NUM_BYTES) if byte not in self.mute}
        return written | {NUM_VOCAB + i: piece for i, piece in enumerate(self.longer)}

    def tokenize(self, text: bytes, *, special: bool = False) -> list[int]:
        """The longest token that fits, again and again."""
        tokens = []
        while text:
            fitting = [i for i, piece in enumerate(self.longer) if text.startswith(piece)]
            best = max(fitting, key=lambda i: len(self.longer[i]), default=None)
            tokens.append(text[0] if best is None else NUM_VOCAB + best)
            text = text[1 if best is None else len(self.longer[best]) :]
        return tokens

    def detokenize(self, tokens: Sequence[int]) -> str:
        return b"".join(self.pieces.get(t, b"") for t in tokens).decode("utf-8", "replace")


@dataclass(frozen=True)
class ToyTemplate:
    """A chat template that a model file could hold; the byte 0x02 ends the prompt."""

    source: str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\x02"

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        return "".join(f"{role}: {content}\n" for role, content in messages) + "\x02"


TOY_LIMITS = Limits(0, 0, num_ids=64, num_texts=12, num_outputs=48, min_rows=2)


@dataclass
class ToyBackend:
    """A model for whole runs, without weights. Every field is there to be changed by a test."""

    logits_of: LogitsOf = random_logits
    name: str = "toy"
    mode: str = "exact"
    build: str = "toy-1"
    micro_batch: int = 48
    context: int = 4096
    """Longest prompt with its answer, in tokens. No part of the identity, as with a real model."""
    delay: float = 0.0
    """Seconds that every batch takes."""
    limits: Limits = TOY_LIMITS
    """Where there are 0 cells, they are chosen as for a real model; rows are the micro-batch."""
    vocabulary: ToyVocabulary = field(default_factory=ToyVocabulary)
    template: ToyTemplate = field(default_factory=ToyTemplate)
    decoders: list[ToyDecoder] = field(default_factory=list)
    """Every context that was made; empty where nothing had to be asked."""
    is_open: bool = False
    """Weights are loaded."""
    fails_at: tuple[int, ...] = ()
    """For each context in turn, the batch that finds no memory, from 1 on; 0 = none."""
    notices: list[str] = field(default_factory=list)
    _least_cells: int = field(default=0, init=False)

    def check(self) -> None:
        """Nothing can be wrong with a toy."""

    def identity(self) -> dict[str, object]:
        return {
            "model_sha256": hashlib.sha256(self.name.encode()).hexdigest(),
            "build": self.build,
            "mode": self.mode,
            "micro_batch": self.micro_batch,
        }

    def asker(self) -> Asker:
        self.is_open = True
        return Asker(self.vocabulary, self.template, partial(check_bos, bos_id=BOS, add_bos=True))

    def context_limit(self) -> int:
        return self.context

    def decoder(self, needs: Needs) -> Decoder:
        cells = self.limits.num_cells or choose_cells(needs, self.limits.num_texts, 1024)
        limits = replace(self.limits, num_cells=cells, num_rows=self.micro_batch)
        self._least_cells = needs.longest + limits.min_rows
        return self._made(limits)

    def smaller_decoder(self, error: OutOfMemoryError) -> Decoder:
        """Half the cells, as long as the longest prompt has room."""
        limits = self.decoders[-1].limits
        cells = max(limits.num_cells // 2, self._least_cells)
        if cells >= limits.num_cells:
            raise error
        self.notices.append(f"going on with {cells} cells")
        return self._made(replace(limits, num_cells=cells))

    def _made(self, limits: Limits) -> Decoder:
        fails_at = dict(enumerate(self.fails_at)).get(len(self.decoders), 0)
        decoder = _SlowDecoder(limits, self.logits_of, delay=self.delay, fails_at=fails_at)
        self.decoders.append(decoder)
        return decoder

    @property
    def num_decoded(self) -> int:
        """Rows computed in all contexts."""
        return sum(decoder.num_decoded for decoder in self.decoders)

    def facts(self) -> dict[str, object]:
        return {"build": self.build, "mode": self.mode, "devices": ["none: a toy"]}

    def model_facts(self) -> Mapping[str, object]:
        facts = {"id": self.name, "path": "", "quantisation": "none"}
        return {**facts, "template": self.template.source, "bos_token": "", "eos_token": ""}

    def close(self) -> None:
        self.is_open = False


@dataclass
class _SlowDecoder(ToyDecoder):
    delay: float = 0.0
    fails_at: int = 0
    num_batches: int = 0

    def decode(self, batch: Batch) -> None:
        self.num_batches += 1
        if self.num_batches == self.fails_at:
            raise OutOfMemoryError("there is no memory for a batch")
        if self.delay:
            time.sleep(self.delay)
        super().decode(batch)
