r"""Answer formats: what a model is told about the form of its answer, and one grammar per form.

A format's grammar is declared once, in Outlines' types, and turned into one regular expression. That
expression is the mask of the `grammar` arm, where the engine compiles it, and the strict judge of
the `free` arm, here. So two engines read it, Python's `re` and the Rust one in Outlines' core: only
constructs that mean the same in both for a whole text are used (literals, alternatives, groups, negated
classes, `*`, `+`, `?` and a last `$`; no `.`, `\d` or `\s`), and no counted repetition, which would
make a large automaton.

This module knows nothing of tokens, of the prompt around the instruction, or of what an output that
is not in the form may mean.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import Any, ClassVar

from medlocal.evals.replying import LIST_JOINT
from medlocal.evals.variant import Variant
from medlocal.evals.wordings import addition_of, mark, sample, spoken, told

ARMS = ("free", "grammar", "label", "cloze")
"""How an answer is obtained: greedy text, masked text, probability of labels, or of option texts."""
SCORED_ARMS = frozenset({"label", "cloze"})
"""Arms that generate nothing, so that there is no form to comply with."""
_GENERATED = frozenset({"free", "grammar"})
_SENTENCE = 64
"""Tokens of an answer whose form was not mentioned."""
_MAX_LIMIT = 192
"""Tokens at most for an answer that is made from an option's text; `reasoned` has more anyway."""
_MAX_TEXT = 320
"""The same for an option's text as it stands; the longest of the known data sets has 541 bytes."""
_AROUND = 16
"""Tokens of what may stand around an option's text."""
_NO_PLACE = {
    "label": "label scores the labels, which have no fixed place in this format",
    "cloze": "cloze scores the options' words, which this format does not ask for",
}

_FRAMES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "letter": {"en": ("", ""), "es": ("", "")},
    "phrase": {"en": ("The answer is ", ""), "es": ("La respuesta es ", "")},
    "json": {"en": ('{"answer": "', '"}'), "es": ('{"answer": "', '"}')},
    "tag": {"en": ("<answer>", "</answer>"), "es": ("<answer>", "</answer>")},
}
"""What stands before and after the label, per format and language."""

_LAST_LINE = {"en": "Answer:", "es": "Respuesta:"}
_REASON = {
    "en": "The option that best answers the question is this one: {option}",
    "es": "La opción que mejor responde a la pregunta es esta: {option}",
}


class Format(ABC):
    """The form that an answer must have, in English and in Spanish.

    Every method that takes a language raises `UsageError` for one that the formats don't speak.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Rises whenever an answer would be another one though messages, grammar and limit are the same:
    those stand in a job's key as they are."""
    max_tokens: ClassVar[int]
    """Where the generation of a label's answer stops; a complete answer needs less, a talkative model
    is cut here."""
    arms: ClassVar[frozenset[str]]
    """The arms that this form can be asked through, where the variant allows it."""

    def misfit(self, arm: str) -> str:
        """Why this form is never asked through an arm; "" = it is."""
        if arm in self.arms:
            return ""
        return _NO_PLACE.get(arm, f"{arm} is no way to get an answer in this format")

    def unfit(self, variant: Variant, arm: str) -> str:
        """Why a variant cannot be asked in this form through an arm; "" = it can."""
        if why := self.misfit(arm):
            return why
        if arm == "label" and variant.asks not in {"label", "next_label"}:
            return "label scores single labels, and the answer is none here"
        if self.name == "text" and variant.asks not in {"label", "text"}:
            return "the format asks for an option's text, the variant for something else"
        return ""

    def limit(self, variant: Variant) -> int:
        """Tokens after which generation stops: room for the longest reply, at most `_MAX_LIMIT`."""
        # Who is not told of a form answers in a sentence, which must not be cut before its point.
        least = self.max_tokens if variant.level != "none" else max(self.max_tokens, _SENTENCE)
        if variant.asks == "label":
            return least
        longest = max(len(reply.encode()) for reply in variant.replies)
        if variant.asks == "several":
            longest = len(LIST_JOINT.join(variant.labels).encode())
        # Backwards, most tokens hold one or two letters; a label is already within the limit.
        needed = self.max_tokens + max(0, longest - 2) * 2 // 3
        return max(least, min(_MAX_LIMIT, needed))

    def instruction(self, variant: Variant, language: str) -> str:
        """What the model is told about the form of its answer. It favours no option."""
        symbol = mark(variant.labels, addition_of(variant))
        supposed, example = sample(variant if self.name != "text" else _by_text(variant), language)
        parts = {
            "mark": symbol,
            "form": self._fill(symbol, language),
            "before": self._before(language),
            "last": spoken(_LAST_LINE, language),
            "supposed": supposed,
            "example": self._fill(example, language),
        }
        return told(variant, self.name, language, parts)

    def _before(self, language: str) -> str:
        """What stands before the label, as the instruction quotes it; "" = it does not."""
        return ""

    def pattern(self, variant: Variant, language: str) -> str:
        """The grammar as a regular expression that a whole answer must match.

        It ends in `$`, which changes nothing for a full match. Outlines' core needs it: it stops at
        the first alternative that matches, and drops tokens that end one byte behind a match, so
        that without it "2 mg" hides "2 mg/kg" and `i` hides `ii`.
        """
        from outlines.types.dsl import to_regex

        return f"{to_regex(self._term(variant, language))}$"

    def texts(self, variant: Variant, language: str) -> tuple[str, ...]:
        """All valid texts, where they are few; () = they cannot be listed."""
        return ()

    def is_valid(self, text: str, variant: Variant, language: str) -> bool:
        """Whether the whole text, to its last space, is in the language of the grammar."""
        return re.fullmatch(self.pattern(variant, language), text) is not None

    def read(self, text: str, variant: Variant, language: str) -> int | None:
        """The slot that a strictly valid text names; None = the text is not valid."""
        return (
            self._slot(text, variant, language) if self.is_valid(text, variant, language) else None
        )

    @abstractmethod
    def render(self, variant: Variant, language: str) -> str:
        """The gold answer in this form, as a few-shot turn shows it."""

    def place(self, language: str) -> str | None:
        """How every valid text begins, up to the answer and without a space at the end.

        None = the answer has no fixed place. The space is left out because in most vocabularies it
        belongs to the first token of what follows.
        """
        return None

    def closing(self, language: str) -> str:
        """What must open the last line of a text that the length is about to cut; "" = nothing."""
        return ""

    @abstractmethod
    def _fill(self, label: str, language: str) -> str:
        """The form, without what is free in it, around a label."""

    @abstractmethod
    def _term(self, variant: Variant, language: str) -> Any:
        """The grammar as a term of Outlines' types, which take half a second to import."""

    @abstractmethod
    def _slot(self, text: str, variant: Variant, language: str) -> int | None:
        """What `read` returns for a valid text."""


class _Framed(Format):
    """A label between two fixed texts."""

    arms = _GENERATED | {"label"}

    def render(self, variant: Variant, language: str) -> str:
        """The gold answer in its frame."""
        return self._fill(_gold_reply(variant), language)

    def texts(self, variant: Variant, language: str) -> tuple[str, ...]:
        """Every reply in the frame."""
        return tuple(self._fill(reply, language) for reply in _valid_replies(variant))

    def place(self, language: str) -> str | None:
        """All that stands before the label: it is forced by the grammar and need not be sampled."""
        return self._before(language)

    def _before(self, language: str) -> str:
        return spoken(_FRAMES[self.name], language)[0].rstrip(" ")

    def _fill(self, label: str, language: str) -> str:
        before, after = spoken(_FRAMES[self.name], language)
        return f"{before}{self._spell(label)}{after}"

    def _term(self, variant: Variant, language: str) -> Any:
        from outlines.types.dsl import Sequence, String

        before, after = spoken(_FRAMES[self.name], language)
        return Sequence([String(before), _reply_term(variant, self._spell), String(after)])

    def _slot(self, text: str, variant: Variant, language: str) -> int | None:
        before, after = spoken(_FRAMES[self.name], language)
        said = text[len(before) : len(text) - len(after)]
        return _slot_of(variant, said, self._spell)

    def _spell(self, label: str) -> str:
        """How a label is written inside the frame."""
        return label


class Letter(_Framed):
    """`C`."""

    name = "letter"
    max_tokens = 16


class Phrase(_Framed):
    """`The answer is C`, `La respuesta es C`; a full stop would be a second form, so there is none."""

    name = "phrase"
    max_tokens = 20


class Json(_Framed):
    """`{"answer": "C"}`, with the same key in both languages.

    Not declared as a JSON schema: the regular expression of a schema leaves the spaces open, or puts
    one everywhere. With a single spelling all that comes before the label is forced; an output with
    other spaces is the lenient extractor's business.
    """

    name = "json"
    max_tokens = 20

    def _spell(self, label: str) -> str:
        return json.dumps(label, ensure_ascii=False)[1:-1]


class Tag(_Framed):
    """`<answer>C</answer>`, with the same tag in both languages."""

    name = "tag"
    max_tokens = 20


class Text(Format):
    """The words of an option, exactly as shown."""

    name = "text"
    max_tokens = 64
    arms = _GENERATED | {"cloze"}

    def limit(self, variant: Variant) -> int:
        """Room for the longest option and some words around it.

        Read forwards, a token holds two bytes or more of any language that a vocabulary knows.
        """
        longest = max(len(option.encode()) for option in variant.options)
        return max(self.max_tokens, min(_MAX_TEXT, longest // 2 + _AROUND))

    def texts(self, variant: Variant, language: str) -> tuple[str, ...]:
        """The options."""
        return tuple(dict.fromkeys(variant.options))

    def render(self, variant: Variant, language: str) -> str:
        """The words of the gold option."""
        return variant.options[variant.gold]

    def _fill(self, label: str, language: str) -> str:
        return label

    def _term(self, variant: Variant, language: str) -> Any:
        from outlines.types import Choice

        return Choice(list(variant.options))

    def _slot(self, text: str, variant: Variant, language: str) -> int | None:
        # Where two options have the same words, the words name neither.
        return variant.options.index(text) if variant.options.count(text) == 1 else None


class Reasoned(Format):
    """Lines of reasoning, some of which may be empty, then a last line `Answer: C`, `Respuesta: C`.

    No line before the last begins with `Answer:`. So the grammar closes behind the label: a masked
    model must stop there and can't take its answer back, and `closing` may follow any reasoning.
    """

    name = "reasoned"
    max_tokens = 256
    arms = _GENERATED

    def render(self, variant: Variant, language: str) -> str:
        """The gold answer after a sentence that only says which option it is.

        An item's rationale is never shown to a model, and an invented one would teach it nonsense.
        """
        option = " ".join(variant.options[variant.gold].split())
        reason = spoken(_REASON, language).format(option=option)
        return f"{reason}\n{self._fill(_gold_reply(variant), language)}"

    def closing(self, language: str) -> str:
        """The opening of the answer's line: valid after any reasoning that has begun."""
        return f"\n{spoken(_LAST_LINE, language)}"

    def _fill(self, label: str, language: str) -> str:
        return f"{spoken(_LAST_LINE, language)} {label}"

    def _term(self, variant: Variant, language: str) -> Any:
        from outlines.types import Regex, one_or_more
        from outlines.types.dsl import Sequence, String

        opening = spoken(_LAST_LINE, language)
        # A line with the line breaks behind it, again and again: written so, the pattern of a line
        # stands in it once, and each of its states costs the engine a pass over the vocabulary.
        lines = one_or_more(Sequence([Regex(_line_without(opening)), one_or_more("\n")]))
        return Sequence([lines, String(f"{opening} "), _reply_term(variant, str)])

    def _slot(self, text: str, variant: Variant, language: str) -> int | None:
        last = text[text.rindex("\n") + 1 :]
        return _slot_of(variant, last.removeprefix(self._fill("", language)), str)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {form.name: form for form in (Letter(), Phrase(), Json(), Tag(), Text(), Reasoned())}
)
"""All formats by name."""


def _by_text(variant: Variant) -> Variant:
    """The variant where a form asks for the option's text, whatever the variant asks for."""
    return replace(variant, asks="text")


def reads_several(variant: Variant, said: str) -> tuple[int, ...]:
    """The slots that a list of labels names, such as "A, C"; () = it is no list of labels in order."""
    labels = said.split(LIST_JOINT)
    slots = [variant.labels.index(label) for label in labels if label in variant.labels]
    return tuple(slots) if len(slots) == len(labels) and slots == sorted(set(slots)) else ()


def left_out(variant: Variant, slots: Collection[int]) -> int | None:
    """The one slot that is not among some; None where that is no single one."""
    others = [slot for slot in range(len(variant.labels)) if slot not in slots]
    return others[0] if len(others) == 1 else None


def _slot_of(variant: Variant, said: str, spell: Callable[[str], str]) -> int | None:
    if variant.asks == "several":
        return left_out(variant, reads_several(variant, said))
    named = [slot for slot, reply in enumerate(variant.replies) if spell(reply) == said]
    return named[0] if len(named) == 1 else None


def _gold_reply(variant: Variant) -> str:
    if variant.asks != "several":
        return variant.replies[variant.gold]
    return LIST_JOINT.join(
        label for slot, label in enumerate(variant.labels) if slot != variant.gold
    )


def _valid_replies(variant: Variant) -> tuple[str, ...]:
    """All that may be written: the replies, or every list of some of the labels in order."""
    if variant.asks != "several":
        return tuple(dict.fromkeys(variant.replies))
    return tuple(
        LIST_JOINT.join(chosen)
        for number in range(1, len(variant.labels) + 1)
        for chosen in combinations(variant.labels, number)
    )


def _reply_term(variant: Variant, spell: Callable[[str], str]) -> Any:
    """What may be written: one of the replies, or some of the labels in order."""
    from outlines.types import Choice, Regex

    if variant.asks != "several":
        return Choice([spell(reply) for reply in variant.replies])
    # Label by label, each followed by any of those behind it: for A, B, C it is `A(, B)?(, C)?` and
    # so on, which has one state per label and place and not one per subset.
    labels = [re.escape(spell(label)) for label in variant.labels]
    rest = [f"({LIST_JOINT}{label})?" for label in labels]
    lists = [label + "".join(rest[at + 1 :]) for at, label in enumerate(labels)]
    return Regex(f"({'|'.join(lists)})")


def _line_without(opening: str) -> str:
    r"""A pattern for the lines that are not empty and do not begin with an opening.

    Automata have no look-ahead, so it is spelt out: such a line leaves the opening at one of its
    characters, or ends inside it. For "Abc": `([^A\n]|A([^b\n]|b([^c\n])))[^\n]*|A(b)?`. What follows
    is written once, behind the bracket: with a rest of the line behind every character, Outlines'
    core takes seven times as long for each of them.

    Args:
        opening: two characters or more that mean themselves inside and outside of a class.
    """
    leaves, inside = rf"[^{opening[-1]}\n]", ""
    for character in reversed(opening[:-1]):
        leaves = rf"[^{character}\n]|{character}({leaves})"
        inside = f"{character}({inside})?" if inside else character
    return rf"({leaves})[^\n]*|{inside}"
