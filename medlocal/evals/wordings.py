"""What a model is told about the form of its answer, in words: per level, format and language.

Only texts and how they are filled in. What a form looks like and how an answer in it is read stand in
`formats`; what has to be written for each option stands in the variant.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from medlocal.errors import unknown_name
from medlocal.evals.replying import LIST_JOINT
from medlocal.evals.variant import BULLET, Variant

_T = TypeVar("_T")
_ROMAN = re.compile(r"[IVX]+|[ivx]+")

_WORDINGS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "strict": {
        "letter": {
            "en": "Answer with only {thing}.",
            "es": "Responde solo con {thing}.",
        },
        "phrase": {
            "en": "Answer with exactly this sentence, {mark} being {thing}:\n{form}",
            "es": "Responde exactamente con esta frase, siendo {mark} {thing}:\n{form}",
        },
        "json": {
            "en": "Answer with only this JSON, {mark} being {thing}:\n{form}",
            "es": "Responde solo con este JSON, siendo {mark} {thing}:\n{form}",
        },
        "tag": {
            "en": "Answer with only this XML, {mark} being {thing}:\n{form}",
            "es": "Responde solo con este XML, siendo {mark} {thing}:\n{form}",
        },
        "text": {
            "en": "Answer with only the text of the correct option, copied exactly, without the {noun}.",
            "es": "Responde solo con el texto de la opción correcta, copiado exactamente, sin {noun}.",
        },
        "reasoned": {
            "en": "Reason briefly, in no more than three sentences. Then finish with a last line in "
            "exactly this form, {mark} being {thing}:\n{form}",
            "es": "Razona brevemente, en no más de tres frases. Termina después con una última línea "
            "que tenga exactamente esta forma, siendo {mark} {thing}:\n{form}",
        },
    },
    "mentioned": {
        "letter": {"en": "Answer with {thing}.", "es": "Responde con {thing}."},
        "phrase": {
            "en": 'Answer with a sentence that says "{before}" and then {thing}.',
            "es": "Responde con una frase que diga «{before}» y después {thing}.",
        },
        "json": {
            "en": 'Answer in JSON, with a key "answer" that holds {thing}.',
            "es": "Responde en JSON, con una clave «answer» que contenga {thing}.",
        },
        "tag": {
            "en": 'Answer in XML, with a tag "answer" that holds {thing}.',
            "es": "Responde en XML, con una etiqueta «answer» que contenga {thing}.",
        },
        "text": {
            "en": "Answer with the text of the correct option.",
            "es": "Responde con el texto de la opción correcta.",
        },
        "reasoned": {
            "en": 'Reason briefly, then finish with a line that says "{last}" and then {thing}.',
            "es": "Razona brevemente y termina con una línea que diga «{last}» y después {thing}.",
        },
    },
}
"""The instruction, per level, format and language. None of them shows an option as the answer.

Short on purpose: an instruction is read once more for every question, what stands before it is not."""

_NOTHING_SAID = {"en": "Answer the question.", "es": "Responde a la pregunta."}
_EXAMPLE = {
    "en": "For example, if {supposed}:\n{example}",
    "es": "Por ejemplo, si {supposed}:\n{example}",
}
_SUPPOSED: Mapping[str, Mapping[str, str]] = {
    "en": {
        "mark": "{mark} were {thing}",
        "marks": "{first} and {second} were {thing}",
        "text": 'the text of the correct option were "{text}"',
        "place": "the correct option were the {place} one",
    },
    "es": {
        "mark": "{mark} representara {thing}",
        "marks": "{first} y {second} representaran {thing}",
        "text": "el texto de la opción correcta fuera «{text}»",
        "place": "la opción correcta fuera la {place}",
    },
}
"""What an example supposes, by what it is about."""
_SAMPLE_TEXT = {"en": "Blue", "es": "Azul"}
_SAMPLE_PLACE = {"en": ("eleventh", "eleven"), "es": ("undécima", "once")}
"""A place that no question has, as a place and as the word for it."""

_THINGS: Mapping[str, Mapping[str, str]] = {
    "label": {
        "en": "the {noun} of the correct option",
        "es": "{noun} de la opción correcta",
    },
    "text": {
        "en": "the text of the correct option, copied exactly",
        "es": "el texto de la opción correcta, copiado exactamente",
    },
    "several": {
        "en": "the {nouns} of all the options asked for, in order, with a comma and a space between them",
        "es": "{nouns} de todas las opciones que se piden, por orden, con una coma y un espacio de separación",
    },
    "next_label": {
        "en": "the {noun} of the option after the correct one (after {last} comes {first})",
        "es": "{noun} de la opción que viene después de la correcta (después de {last} viene {first})",
    },
    "reversed_text": {
        "en": "the text of the correct option written backwards, character by character",
        "es": "el texto de la opción correcta escrito al revés, carácter a carácter",
    },
    "upper_text": {
        "en": "the text of the correct option in capital letters",
        "es": "el texto de la opción correcta en mayúsculas",
    },
    "label_in_words": {
        "en": "the position of the correct option as a word (one, two, three…)",
        "es": "la posición de la opción correcta escrita con letras (uno, dos, tres…)",
    },
    "wrong_labels": {
        "en": "the {nouns} of all the incorrect options, in order, with a comma and a space between them",
        "es": "{nouns} de todas las opciones incorrectas, por orden, con una coma y un espacio de separación",
    },
    "appended": {
        "en": "the {noun} of the correct option with {addition} directly behind it",
        "es": "{noun} de la opción correcta con {addition} justo detrás, sin espacio",
    },
}
"""What is asked for, by `Variant.asks` and language."""

_NOUNS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "en": {
        "letter": ("letter", "letters"),
        "number": ("number", "numbers"),
        "roman": ("Roman numeral", "Roman numerals"),
        "label": ("label", "labels"),
        "bullet": ("bullet", "bullets"),
    },
    "es": {
        "letter": ("la letra", "las letras"),
        "number": ("el número", "los números"),
        "roman": ("el número romano", "los números romanos"),
        "label": ("la etiqueta", "las etiquetas"),
        "bullet": ("la viñeta", "las viñetas"),
    },
}
"""What a label is called, one and several of them."""


def told(variant: Variant, format_name: str, language: str, parts: Mapping[str, str]) -> str:
    """The instruction of a format for a variant, at the variant's level.

    Args:
        variant: what is asked.
        format_name: a key of the wordings.
        language: of the prompt.
        parts: `form`, the form around `mark`, which stands for what is asked for; `before`, what
            stands before it; `last`, how the last line of reasoning begins; `supposed` and `example`,
            the two parts of `sample`, the second in its form.

    Raises:
        UsageError: nothing is written in that language.
    """
    if variant.level == "none":
        return spoken(_NOTHING_SAID, language)
    said = {**parts, "noun": _noun(variant, language), "thing": _thing(variant, language)}
    level = "mentioned" if variant.level == "example" else variant.level
    text = spoken(_WORDINGS[level][format_name], language).format(**said)
    if variant.level == "example":
        text = f"{text}\n{spoken(_EXAMPLE, language).format(**said)}"
    return text


def _noun(variant: Variant, language: str) -> str:
    """What one label is called."""
    return spoken(_NOUNS, language)[_kind(variant.labels)][0]


def _thing(variant: Variant, language: str) -> str:
    """What is asked for, in words."""
    one, several = spoken(_NOUNS, language)[_kind(variant.labels)]
    addition = addition_of(variant)
    return spoken(_THINGS[variant.asks], language).format(
        noun=one, nouns=several, first=variant.labels[0], last=variant.labels[-1], addition=addition
    )


def _kind(labels: tuple[str, ...]) -> str:
    """What the labels are called. `(A)` is no letter: the model must write its brackets too."""
    if all(len(label) == 1 and label.isalpha() for label in labels):
        return "letter"
    if set(labels) == {BULLET}:
        return "bullet"
    if all(map(_ROMAN.fullmatch, labels)):
        return "roman"
    return "number" if all(label.isdecimal() for label in labels) else "label"


def mark(labels: tuple[str, ...], addition: str = "") -> str:
    """What stands for the label in the form that is shown; in no label, not even as its part.

    Beside roman numerals it is no X, which would be one itself.

    Args:
        labels: of the options.
        addition: what is to be written behind a label; "" = nothing.
    """
    taken = "".join((*labels, addition)).upper()
    free = "Z" if all(map(_ROMAN.fullmatch, labels)) else "XZ"
    return next((mark for mark in free if mark not in taken), "?")


def addition_of(variant: Variant) -> str:
    """What is to be written behind a label; "" = nothing."""
    return variant.replies[0].removeprefix(variant.labels[0]) if variant.asks == "appended" else ""


def sample(variant: Variant, language: str) -> tuple[str, str]:
    """What an example supposes, and what would have to be written then.

    It is about no option that is ever shown: a text that is none, a place that no question has, or
    signs that stand for labels.

    Raises:
        UsageError: nothing is written in that language.
    """
    text, place = spoken(_SAMPLE_TEXT, language), spoken(_SAMPLE_PLACE, language)
    supposed = spoken(_SUPPOSED, language)
    made = {"text": text, "reversed_text": text[::-1], "upper_text": text.upper()}
    if variant.asks in made:
        return supposed["text"].format(text=text), made[variant.asks]
    if variant.asks == "label_in_words":
        return supposed["place"].format(place=place[0]), place[1]
    thing = _thing(variant, language)
    first = mark(variant.labels, addition_of(variant))
    if variant.asks in {"several", "wrong_labels"}:
        taken = "".join((*variant.labels, first)).upper()
        second = next((sign for sign in "ZYW" if sign not in taken), "?")
        both = supposed["marks"].format(first=first, second=second, thing=thing)
        return both, LIST_JOINT.join((first, second))
    if variant.asks == "appended":
        thing = spoken(_THINGS["label"], language).format(noun=_noun(variant, language))
    return supposed["mark"].format(mark=first, thing=thing), first + addition_of(variant)


def spoken(texts: Mapping[str, _T], language: str) -> _T:
    """What a table holds for a language."""
    if language not in texts:
        raise unknown_name("language of a format", language, texts)
    return texts[language]
