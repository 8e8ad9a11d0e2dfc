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
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from medlocal.errors import unknown_name
from medlocal.evals.perturb import Variant

_T = TypeVar("_T")
_GENERATED = frozenset({"free", "grammar"})

_WORDINGS: Mapping[str, Mapping[str, str]] = {
    "letter": {
        "en": "Answer with only the {noun} of the correct option.",
        "es": "Responde solo con {noun} de la opción correcta.",
    },
    "phrase": {
        "en": "Answer with exactly this sentence, {mark} being the {noun} of the correct option:\n{form}",
        "es": "Responde exactamente con esta frase, siendo {mark} {noun} de la opción correcta:\n{form}",
    },
    "json": {
        "en": "Answer with only this JSON, {mark} being the {noun} of the correct option:\n{form}",
        "es": "Responde solo con este JSON, siendo {mark} {noun} de la opción correcta:\n{form}",
    },
    "tag": {
        "en": "Answer with only this XML, {mark} being the {noun} of the correct option:\n{form}",
        "es": "Responde solo con este XML, siendo {mark} {noun} de la opción correcta:\n{form}",
    },
    "text": {
        "en": "Answer with only the text of the correct option, copied exactly, without the {noun}.",
        "es": "Responde solo con el texto de la opción correcta, copiado exactamente, sin {noun}.",
    },
    "reasoned": {
        "en": "Reason briefly, in no more than three sentences. Then finish with a last line in "
        "exactly this form, {mark} being the {noun} of the correct option:\n{form}",
        "es": "Razona brevemente, en no más de tres frases. Termina después con una última línea "
        "que tenga exactamente esta forma, siendo {mark} {noun} de la opción correcta:\n{form}",
    },
}
"""The instruction, per format and language. None of them shows an option as if it were the answer.

Short on purpose: an instruction is read once more for every question, what stands before it is not."""

_NOUNS: Mapping[str, Mapping[str, str]] = {
    "en": {"letter": "letter", "number": "number", "label": "label"},
    "es": {"letter": "la letra", "number": "el número", "label": "la etiqueta"},
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
    """Rises whenever the instruction, the grammar or the rendering changes."""
    max_tokens: ClassVar[int]
    """Where generation stops; a complete answer needs less, a talkative model is cut here."""
    arms: ClassVar[frozenset[str]]
    """The arms that this form can be asked through."""

    def instruction(self, variant: Variant, language: str) -> str:
        """What the model is told about the form of its answer. It favours no option."""
        mark = _mark(variant.labels)
        return _spoken(_WORDINGS[self.name], language).format(
            noun=_spoken(_NOUNS, language)[_kind(variant.labels)],
            mark=mark,
            form=self._fill(mark, language),
        )

    def pattern(self, variant: Variant, language: str) -> str:
        """The grammar as a regular expression that a whole answer must match.

        It ends in `$`, which changes nothing for a full match. Outlines' core needs it: it stops at
        the first alternative that matches, and drops tokens that end one byte behind a match, so
        that without it "2 mg" hides "2 mg/kg" and `i` hides `ii`.
        """
        from outlines.types.dsl import to_regex

        return f"{to_regex(self._term(variant, language))}$"

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
        """The gold label in its frame."""
        return self._fill(variant.labels[variant.gold], language)

    def place(self, language: str) -> str | None:
        """All that stands before the label: it is forced by the grammar and need not be sampled."""
        return _spoken(_FRAMES[self.name], language)[0].rstrip(" ")

    def _fill(self, label: str, language: str) -> str:
        before, after = _spoken(_FRAMES[self.name], language)
        return f"{before}{self._spell(label)}{after}"

    def _term(self, variant: Variant, language: str) -> Any:
        from outlines.types import Choice
        from outlines.types.dsl import Sequence, String

        before, after = _spoken(_FRAMES[self.name], language)
        labels = Choice([self._spell(label) for label in variant.labels])
        return Sequence([String(before), labels, String(after)])

    def _slot(self, text: str, variant: Variant, language: str) -> int | None:
        return [self._fill(label, language) for label in variant.labels].index(text)

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

    def render(self, variant: Variant, language: str) -> str:
        """The words of the gold option."""
        return variant.options[variant.gold]

    def _fill(self, label: str, language: str) -> str:
        return ""

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
        reason = _spoken(_REASON, language).format(option=option)
        return f"{reason}\n{self._fill(variant.labels[variant.gold], language)}"

    def closing(self, language: str) -> str:
        """The opening of the answer's line: valid after any reasoning that has begun."""
        return f"\n{_spoken(_LAST_LINE, language)}"

    def _fill(self, label: str, language: str) -> str:
        return f"{_spoken(_LAST_LINE, language)} {label}"

    def _term(self, variant: Variant, language: str) -> Any:
        from outlines.types import Choice, Regex, one_or_more
        from outlines.types.dsl import Sequence, String

        opening = _spoken(_LAST_LINE, language)
        # A line with the line breaks behind it, again and again: written so, the pattern of a line
        # stands in it once, and each of its states costs the engine a pass over the vocabulary.
        lines = one_or_more(Sequence([Regex(_line_without(opening)), one_or_more("\n")]))
        return Sequence([lines, String(f"{opening} "), Choice(list(variant.labels))])

    def _slot(self, text: str, variant: Variant, language: str) -> int | None:
        last = text[text.rindex("\n") + 1 :]
        return [self._fill(label, language) for label in variant.labels].index(last)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {form.name: form for form in (Letter(), Phrase(), Json(), Tag(), Text(), Reasoned())}
)
"""All formats by name."""


def _spoken(texts: Mapping[str, _T], language: str) -> _T:
    """What a table holds for a language."""
    if language not in texts:
        raise unknown_name("language of a format", language, texts)
    return texts[language]


def _kind(labels: tuple[str, ...]) -> str:
    """What the labels are called. `(A)` is no letter: the model must write its brackets too."""
    if all(len(label) == 1 and label.isalpha() for label in labels):
        return "letter"
    return "number" if all(label.isdecimal() for label in labels) else "label"


def _mark(labels: tuple[str, ...]) -> str:
    """What stands for the label in the form that is shown; in no label, not even as its part."""
    taken = "".join(labels).upper()
    return next((mark for mark in "XZ" if mark not in taken), "?")


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
