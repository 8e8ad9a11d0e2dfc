"""From a grammar to allowed tokens, on the model's own vocabulary.

A pattern (a regular expression, as Outlines writes it from a choice, a regex or a JSON schema) is
compiled by `outlines_core` into an automaton over token ids. Outlines' own llama.cpp model is not
used: without numba it generates unconstrained and says nothing. Where the pattern allows a few texts
only and they are given, no automaton is needed: compiling one looks at the whole vocabulary for every
character of every text, and there is a pattern for every question that asks for an option's words.
This module does not know which format a pattern belongs to, and it never calls the model.

Where the text that must follow is certain, its tokens are *forced*: they are given to the model
together instead of being sampled one by one. The forced tokens are the ones the model's tokenizer
makes of that text, less the last one where a longer token could stand in its place (`"` before a
label may continue as `"C`): there the model chooses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from medlocal.engine.sequence import TokenIds
from medlocal.errors import MedlocalError

_MAX_FORCED_BYTES = 2048


@dataclass(frozen=True)
class TokenTable:
    """What a grammar must know of a vocabulary."""

    pieces: Mapping[int, bytes]
    """Text of every token that can stand in a text; control tokens are left out."""
    ends: tuple[int, ...]
    """End-of-generation tokens, ascending; at least one."""
    tokenize: Callable[[bytes], Sequence[int]]
    """The model's tokenizer, without special tokens."""

    @cached_property
    def ids(self) -> Mapping[bytes, Sequence[int]]:
        """Tokens by their text."""
        ids: dict[bytes, list[int]] = {}
        for token, piece in self.pieces.items():
            if piece:
                ids.setdefault(piece, []).append(token)
        return ids

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token."""
        return max(map(len, self.ids))

    @cached_property
    def core(self) -> Any:
        """The vocabulary as `outlines_core` wants it."""
        from outlines_core import Vocabulary

        return Vocabulary(self.ends[0], self.ids)


@dataclass(frozen=True, slots=True)
class _State:
    """One state of the automaton, with what was found out about it."""

    allowed: TokenIds
    forced: tuple[int, ...]
    after_forced: int


class _Texts:
    """An automaton of a few texts: a state is what was written of them so far.

    Its methods are those of `outlines_core.Index`, and it allows what that would allow.

    Raises:
        ValueError: the vocabulary cannot spell one of the texts.
    """

    def __init__(self, texts: Sequence[str], table: TokenTable) -> None:
        self._table = table
        self._open = {text.encode(): self._places(text.encode()) for text in texts}
        for text, places in self._open.items():
            if 0 not in places:
                raise ValueError(f"no tokens spell {text.decode()!r}")
        self._states: dict[bytes, int] = {b"": 0}
        self._begun = [b""]

    def _places(self, text: bytes) -> frozenset[int]:
        """Where in a text tokens can go on to its end."""
        places = {len(text)}
        for start in range(len(text) - 1, -1, -1):
            ends = range(start + 1, min(len(text), start + self._table.longest) + 1)
            if any(end in places and text[start:end] in self._table.ids for end in ends):
                places.add(start)
        return frozenset(places)

    def get_initial_state(self) -> int:
        return 0

    def is_final_state(self, state: int) -> bool:
        return self._begun[state] in self._open

    def get_allowed_tokens(self, state: int) -> list[int]:
        begun = self._begun[state]
        start = len(begun)
        following = {
            text[start:end]
            for text, places in self._open.items()
            if text.startswith(begun)
            for end in places
            if start < end <= start + self._table.longest
        }
        return [token for piece in following for token in self._table.ids.get(piece, ())]

    def get_next_state(self, state: int, token: int) -> int | None:
        piece = self._table.pieces.get(token)
        if not piece:
            return None
        begun = self._begun[state] + piece
        if not any(t.startswith(begun) and len(begun) in p for t, p in self._open.items()):
            return None
        if begun not in self._states:
            self._states[begun] = len(self._begun)
            self._begun.append(begun)
        return self._states[begun]


@dataclass(eq=False)
class CompiledGrammar:
    """A pattern on one vocabulary. Shared by all its sequences; states are looked at once.

    Equal only to itself: it grows while it is used, and requests are told apart by their grammar.
    """

    pattern: str
    table: TokenTable
    closing: tuple[int, ...] = ()
    """Tokens that lead to the end of the text when the length runs out."""
    texts: tuple[str, ...] = ()
    """All that the pattern allows, where that is a few texts; () = what it allows is not listed."""
    _index: Any = field(init=False, repr=False)
    _states: dict[int, _State] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        try:
            self._index = self._compile()
        except (ValueError, RuntimeError) as error:
            raise MedlocalError(
                f"the grammar {self.pattern[:80]!r} cannot be compiled for this model's "
                f"vocabulary: {error}",
                hint="leave the grammar arm out (--arms free,label), or choose another format",
            ) from error

    def _compile(self) -> Any:
        if self.texts:
            return _Texts(self.texts, self.table)
        from outlines_core import Index

        return Index(self.pattern, self.table.core)

    def start(self) -> "GrammarConstraint":
        """A constraint at the beginning of a text."""
        return GrammarConstraint(self, self._index.get_initial_state())

    def is_final(self, state: int) -> bool:
        """True where the text so far is complete."""
        return bool(self._index.is_final_state(state))

    def next_state(self, state: int, token: int) -> int | None:
        """The state after a token; None where the token is not allowed."""
        following: int | None = self._index.get_next_state(state, token)
        return following

    def look(self, state: int) -> _State:
        """What may, and what must, follow a state."""
        if (known := self._states.get(state)) is None:
            forced, after = self._force(state)
            known = self._states[state] = _State(self._allowed(state), forced, after)
        return known

    def _texts(self, state: int) -> list[int]:
        """Allowed tokens that are text."""
        return [t for t in self._index.get_allowed_tokens(state) if t in self.table.pieces]

    def _allowed(self, state: int) -> TokenIds:
        ids = self._texts(state)
        if self.is_final(state):
            ids.extend(self.table.ends)
        return np.unique(np.asarray(ids, dtype=np.int32))

    def _force(self, state: int) -> tuple[tuple[int, ...], int]:
        text = self._forced_text(state)
        if not text:
            return (), state
        tokens = list(self.table.tokenize(text))
        if self.walk(state, tokens) is None:
            # Some tokenizers put a space before any text; the automaton then knows better.
            tokens = self._longest_tokens(state, text)
        if self._can_be_longer(state, tokens):
            tokens.pop()
        after = self.walk(state, tokens)
        assert after is not None
        return tuple(tokens), after

    def _forced_text(self, state: int) -> bytes:
        """The text that every way out of a state begins with."""
        text = b""
        while not self.is_final(state) and len(text) < _MAX_FORCED_BYTES:
            ids = self._texts(state)
            pieces = [self.table.pieces[t] for t in ids]
            if not pieces or not (shared := _common_prefix(min(pieces), max(pieces))):
                break
            fitting = [
                (len(p), t) for p, t in zip(pieces, ids, strict=True) if shared[: len(p)] == p
            ]
            if not fitting:
                break
            length, token = max(fitting)
            following = self.next_state(state, token)
            assert following is not None
            text += shared[:length]
            state = following
        return text

    def walk(self, state: int, tokens: Sequence[int]) -> int | None:
        """The state after some tokens; None where one of them is not allowed."""
        for token in tokens:
            following = self.next_state(state, token)
            if following is None:
                return None
            state = following
        return state

    def _longest_tokens(self, state: int, text: bytes) -> list[int]:
        tokens: list[int] = []
        while text:
            fitting = [t for t in self._texts(state) if text.startswith(self.table.pieces[t])]
            if not fitting:
                break
            token = max(fitting, key=lambda t: len(self.table.pieces[t]))
            following = self.next_state(state, token)
            assert following is not None
            tokens.append(token)
            text = text[len(self.table.pieces[token]) :]
            state = following
        return tokens

    def _can_be_longer(self, state: int, tokens: Sequence[int]) -> bool:
        """True where another token could begin with the last forced one."""
        if not tokens:
            return False
        before = self.walk(state, tokens[:-1])
        assert before is not None
        last = self.table.pieces[tokens[-1]]
        return any(
            len(piece) > len(last) and piece.startswith(last)
            for piece in (self.table.pieces[t] for t in self._texts(before))
        )


@dataclass
class GrammarConstraint:
    """One sequence inside a compiled grammar."""

    grammar: CompiledGrammar
    state: int

    def allowed(self) -> TokenIds:
        """Tokens that may come next."""
        return self.grammar.look(self.state).allowed

    def forced(self) -> tuple[int, ...]:
        """Tokens that must come next whatever the model says."""
        return self.grammar.look(self.state).forced

    def closing(self) -> tuple[int, ...]:
        """Tokens that end the text from here; () where the end has begun or none is known."""
        tokens = self.grammar.closing
        return tokens if self.grammar.walk(self.state, tokens) is not None else ()

    def advance(self, token: int) -> None:
        """Take the token as generated."""
        following = self.grammar.next_state(self.state, token)
        assert following is not None, f"token {token} was not allowed"
        self.state = following

    def accepting(self) -> bool:
        """True where the text so far is complete."""
        return self.grammar.is_final(self.state)


def _common_prefix(a: bytes, b: bytes) -> bytes:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return a[:n]
