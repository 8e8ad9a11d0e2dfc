"""The plain types of the engine: what is asked of it, and what it answers.

Token ids only. This module knows nothing of text, of questions, of llama.cpp or of the KV cache;
everything else in the engine is written in its terms.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
"""One row of the model's output, shape (num_vocab,), before softmax."""

TokenIds = NDArray[np.int32]
"""Distinct token ids, ascending."""


class Constraint(Protocol):
    """The state of one sequence inside a grammar. A new one is made for every sequence."""

    def allowed(self) -> TokenIds:
        """Tokens that may come next; end-of-generation tokens are among them where it accepts."""

    def forced(self) -> tuple[int, ...]:
        """Tokens that must come next whatever the model says; () where there is a choice."""

    def closing(self) -> tuple[int, ...]:
        """Tokens that bring the text to its end when the length runs out; () where none exist."""

    def advance(self, token: int) -> None:
        """Take the token as generated. The token must have been allowed."""

    def accepting(self) -> bool:
        """True where the text so far is complete."""


class Grammar(Protocol):
    """A compiled grammar, shared by all sequences that must obey it."""

    def start(self) -> Constraint:
        """A constraint at the beginning of a text."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Greedy generation after the prompt."""

    max_tokens: int
    """Most tokens to generate; at least 1."""
    grammar: Grammar | None = None
    """None = the model is free."""


@dataclass(frozen=True, slots=True)
class Score:
    """The log-probability of each continuation after the prompt. Nothing is generated."""

    continuations: tuple[tuple[int, ...], ...]
    """Token ids, at least one each. Single tokens cost nothing beyond the prompt."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask of the model."""

    id: int
    """The caller's number, unique within a run of the engine."""
    prompt: tuple[int, ...]
    """Token ids, with BOS where the model wants it; at least one. Equal prompts are computed once."""
    task: Generate | Score

    @property
    def num_cells(self) -> int:
        """KV cells that the request needs at most, its prompt included."""
        if isinstance(self.task, Generate):
            return len(self.prompt) + self.task.max_tokens
        return len(self.prompt) + max(len(c) for c in self.task.continuations) - 1


@dataclass(slots=True)
class Completion:
    """What came back for one request."""

    request: Request
    finish: str
    """`stop` (the model or the grammar ended it), `length`, `scored`, or `error`."""
    tokens: list[int] = field(default_factory=list)
    """Generated token ids, without the end-of-generation token."""
    logprobs: list[float] = field(default_factory=list)
    """Natural log of the model's own probability of each token, before any mask."""
    feasible: list[float] = field(default_factory=list)
    """Z_t: the model's probability on the allowed tokens, one per step, the ending step included."""
    num_forced: int = 0
    """How many of `tokens` the grammar forced."""
    scores: list[float] = field(default_factory=list)
    """Summed natural log-probability of each continuation of a `Score`."""
    error: str = ""
    """Why the engine could not answer; "" where it could."""


@dataclass(slots=True)
class EngineStats:
    """What a run of the engine did, in tokens and seconds."""

    num_requests: int = 0
    total_prompt_tokens: int = 0
    """Prompt tokens of all requests, as if each were asked alone."""
    unique_prompt_tokens: int = 0
    """Nodes of the prefix tree: what must be computed at least once."""
    prefilled_tokens: int = 0
    """Prompt tokens really computed: the unique ones, and prefixes computed again."""
    generated_tokens: int = 0
    """Tokens of all generated outputs, forced ones included."""
    forced_tokens: int = 0
    num_batches: int = 0
    decode_rows: int = 0
    """Rows given to the model for generated tokens."""
    decode_batches: int = 0
    """Batches that held at least one such row; rows ÷ batches is the concurrency."""
    decode_seconds: float = 0.0
    """Time inside llama.cpp."""
    seconds: float = 0.0
    """Time of the whole loop."""

    @property
    def concurrency(self) -> float:
        """Mean number of generated tokens computed together; 0 where nothing was generated."""
        return self.decode_rows / self.decode_batches if self.decode_batches else 0.0
