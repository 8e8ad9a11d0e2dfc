"""Between text and token ids: jobs become requests, completions become records.

Here a chat becomes the exact tokens that are sent, with one BOS; a format's grammar becomes a mask; a
label becomes all the tokens that can begin it. It knows the vocabulary through a small protocol and
nothing of batches, stores or files.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from medlocal.engine.constraint import CompiledGrammar, TokenTable
from medlocal.engine.sequence import Completion, Generate, Grammar, Request, Score
from medlocal.errors import RefusedError
from medlocal.evals.formats import FORMATS, Format
from medlocal.evals.variant import Variant
from medlocal.run.grading import normalised, score_names, variant_of
from medlocal.store import FINISH_ERROR, Record, StoredJob

ASKING_VERSION = 1
"""Part of every job key; rises whenever the same job would be sent as other tokens."""

_CANARY = "(qz7|kv9)(xw4|jq2)"
"""A text no model would write: if the mask acts, one of its four spellings comes out."""


class Vocabulary(Protocol):
    """What of a model turns text into tokens: `libllama.LlamaModel`, or a toy in the tests."""

    @property
    def pieces(self) -> Mapping[int, bytes]:
        """Text of every token that can stand in a text."""

    @property
    def ends(self) -> frozenset[int]:
        """End-of-generation tokens."""

    @property
    def control_texts(self) -> tuple[str, ...]:
        """How control tokens are spelled."""

    def tokenize(self, text: bytes, *, special: bool = False) -> list[int]:
        """Token ids without BOS."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens."""


class Template(Protocol):
    """The model's chat template."""

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """The chat as one text, up to where the answer begins."""


class BosCheck(Protocol):
    """Proves that a prompt has exactly one BOS, where the model wants one."""

    def __call__(self, token_ids: Sequence[int]) -> list[int]:
        """The ids to send."""


@dataclass
class Asker:
    """Makes requests for one model."""

    vocabulary: Vocabulary
    template: Template
    check_bos: BosCheck
    _prompts: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = field(default_factory=dict)
    _grammars: dict[tuple[str, str], CompiledGrammar] = field(default_factory=dict)

    def request(self, number: int, job: StoredJob) -> Request:
        """The request of a job.

        Args:
            number: the request's id.
            job: with its messages.

        Raises:
            RefusedError: the chat cannot be sent as it is.
            MedlocalError: the grammar cannot be compiled for this vocabulary.
        """
        form, variant = FORMATS[job.format], variant_of(job)
        prompt = self.prompt(job.messages)
        if job.arm == "label":
            place = form.place(variant.prompt_language)
            assert place is not None, f"{form.name} has no place for a label"
            if place:
                prompt = (*prompt, *self.vocabulary.tokenize(place.encode()))
            flat = [tokens for options in self.labels(variant) for tokens in options]
            return Request(number, prompt, Score(tuple(flat)))
        if job.arm == "cloze":
            texts = [tuple(self.vocabulary.tokenize(o.encode())) for o in variant.options]
            return Request(number, prompt, Score(tuple(texts)))
        grammar: Grammar | None = None
        if job.arm == "grammar":
            grammar = self._grammar(form, variant, variant.prompt_language)
        return Request(number, prompt, Generate(form.limit(variant), grammar))

    def prompt(self, messages: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        """The tokens of a chat; equal chats give the same object.

        Raises:
            RefusedError: a text in it spells a control token: sent as it is, it could end the
                question and speak with the template's voice.
        """
        if (known := self._prompts.get(messages)) is not None:
            return known
        for role, content in messages:
            if self._control and (found := self._control.search(content)):
                raise RefusedError(f"the {role} text spells the control token {found[0]!r}")
        text = self.template.render(messages)
        tokens = tuple(self.check_bos(self.vocabulary.tokenize(text.encode(), special=True)))
        return self._prompts.setdefault(messages, tokens)

    def labels(self, variant: Variant) -> list[list[tuple[int, ...]]]:
        """Per slot, the token sequences that begin its reply, with and without a space before."""
        return [self._label(label.encode()) for label in variant.replies]

    def canary(self, number: int) -> Request:
        """A request whose answer proves that the mask acts.

        Twice it leaves a choice between two unlikely texts, which only a mask can hold the model to.
        """
        prompt = tuple(self.check_bos(self.vocabulary.tokenize(b"Answer:")))
        return Request(number, prompt, Generate(12, CompiledGrammar(_CANARY, self._table)))

    def is_alive(self, completion: Completion) -> bool:
        """True where the canary's forced unlikely text came out."""
        text = self.vocabulary.detokenize(completion.tokens)
        return completion.finish == "stop" and re.fullmatch(_CANARY, text) is not None

    def record(self, job: StoredJob, completion: Completion, *, alive: bool) -> Record:
        """What the store keeps of a completion.

        Args:
            job: what was asked.
            completion: what came back.
            alive: the canary of this run came out; without it no constraint counts as applied.
        """
        stats: dict[str, object] = {"num_prompt_tokens": len(completion.request.prompt)}
        if completion.error:
            return Record(job.key, "", FINISH_ERROR, (), (), completion.error, stats)
        if completion.finish == "scored":
            stats.update(self._scored(job, completion.scores))
        elif job.arm == "grammar":
            stats.update(_mask_stats(completion))
            stats["constraint_applied"] = alive and bool(completion.feasible)
        if completion.tokens:
            stats["pieces"] = [self.vocabulary.detokenize([t]) for t in completion.tokens]
        return Record(
            job_key=job.key,
            text=self.vocabulary.detokenize(completion.tokens),
            finish=completion.finish,
            token_ids=tuple(completion.tokens),
            logprobs=tuple(completion.logprobs),
            stats=stats,
        )

    @cached_property
    def _table(self) -> TokenTable:
        v = self.vocabulary
        return TokenTable(v.pieces, tuple(sorted(v.ends)), v.tokenize)

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        texts = self.vocabulary.control_texts
        return re.compile("|".join(map(re.escape, texts))) if texts else None

    @cached_property
    def _by_text(self) -> dict[bytes, list[int]]:
        """Tokens by their text without a space before it."""
        found: dict[bytes, list[int]] = {}
        for token, piece in self.vocabulary.pieces.items():
            found.setdefault(piece.removeprefix(b" "), []).append(token)
        return found

    def _label(self, label: bytes) -> list[tuple[int, ...]]:
        if tokens := self._by_text.get(label):
            return [(token,) for token in sorted(tokens)]
        spellings = (label, b" " + label)
        return list({tuple(self.vocabulary.tokenize(s)): None for s in spellings})

    def _grammar(self, form: Format, variant: Variant, language: str) -> CompiledGrammar:
        key = (form.pattern(variant, language), form.closing(language))
        if key not in self._grammars:
            pattern, closing = key
            ending = tuple(self.vocabulary.tokenize(closing.encode())) if closing else ()
            texts = form.texts(variant, language)
            self._grammars[key] = CompiledGrammar(pattern, self._table, ending, texts)
        return self._grammars[key]

    def _scored(self, job: StoredJob, scores: Sequence[float]) -> dict[str, object]:
        variant = variant_of(job)
        if job.arm == "cloze":
            parts = zip(score_names(variant, "cloze"), scores, variant.options, strict=True)
            per_label = {label: normalised(score, text) for label, score, text in parts}
            return {"scores": per_label, "sums": list(scores)}
        remaining = iter(scores)
        per_label = {
            label: _log_sum(next(remaining) for _ in spellings)
            for label, spellings in zip(variant.replies, self.labels(variant), strict=True)
        }
        return {"scores": per_label, "label_mass": sum(map(math.exp, per_label.values()))}


def _mask_stats(completion: Completion) -> dict[str, object]:
    """Mask pressure: Z per step and the projection tax −Σ ln Z in nats."""
    tax = sum(-math.log(z) if z > 0 else math.inf for z in completion.feasible)
    feasible = [round(z, 6) for z in completion.feasible]
    return {"feasible": feasible, "tax_nats": tax, "num_forced": completion.num_forced}


def _log_sum(values: Iterable[float]) -> float:
    """Ln Σ exp(value), the log-probability that any of the spellings comes."""
    numbers = list(values)
    top = max(numbers)
    return top + math.log(sum(math.exp(v - top) for v in numbers)) if top > -math.inf else top
