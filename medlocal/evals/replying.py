"""Perturbations of the answer: something must be made of it, or less is said of its form.

The question stays as it is. What has to be written for each option stands in the variant's replies;
how it is asked for is the formats' business, which know the kinds by name (`Variant.asks`).
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import replace

from medlocal.errors import UsageError
from medlocal.evals.steps import perturbation
from medlocal.evals.variant import Asks, Draw, NotApplicableError, Peers, Variant

_GOLD = "stays; its reply is another one"
_BACK = "reply to slot"
_FEWEST = 3
"""Options of which the wrong ones are a list: of two, the wrong label could be meant for the right one."""
LIST_JOINT = ", "
"""Between two labels of an answer that has several."""

_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "en": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "es": ("uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez"),
}


def _asking(variant: Variant, asks: Asks, replies: tuple[str, ...]) -> Variant:
    if len(set(replies)) != len(replies):
        raise NotApplicableError("two options would have the same reply")
    return replace(variant, asks=asks, replies=replies)


def _transforming(variant: Variant, asks: Asks, replies: tuple[str, ...]) -> Variant:
    """The same where the replies are made from the options' texts."""
    if replies[variant.gold] == variant.options[variant.gold]:
        raise NotApplicableError("the text of the right option would stay as it is")
    return _asking(variant, asks, replies)


@perturbation(
    "next_label",
    family="answer",
    does="asks for the label after that of the right option; after the last comes the first",
    gold=_GOLD,
    back="the label before the one written, to slot",
    shapes_answer=True,
)
def _next_label(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return _asking(variant, "next_label", (*variant.labels[1:], variant.labels[0]))


@perturbation(
    "text_not_label",
    family="answer",
    does="asks for the text of the right option and not for its label",
    gold=_GOLD,
    back="text to slot",
    shapes_answer=True,
)
def _text_not_label(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return _asking(variant, "text", variant.options)


@perturbation(
    "reversed_text",
    family="answer",
    does="asks for the text of the right option, written backwards",
    gold=_GOLD,
    back="text read backwards, to slot",
    shapes_answer=True,
)
def _reversed_text(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    # Composed first: a combining accent must not end up on the letter before it.
    backwards = (unicodedata.normalize("NFC", option)[::-1] for option in variant.options)
    return _transforming(variant, "reversed_text", tuple(backwards))


@perturbation(
    "upper_text",
    family="answer",
    does="asks for the text of the right option in capital letters",
    gold=_GOLD,
    back="text to slot",
    shapes_answer=True,
)
def _upper_text(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return _transforming(variant, "upper_text", tuple(option.upper() for option in variant.options))


@perturbation(
    "label_in_words",
    family="answer",
    does="asks for the place of the right option as a word",
    gold=_GOLD,
    back="the number that the word means, to slot",
    shapes_answer=True,
)
def _label_in_words(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    words = _NUMBERS[variant.prompt_language][: len(variant.options)]
    return _asking(variant, "label_in_words", words)


@perturbation(
    "sorted_wrong_labels",
    family="answer",
    does="asks for the labels of all wrong options, in order",
    gold=_GOLD,
    back="the one label that is left out, to slot",
    shapes_answer=True,
)
def _sorted_wrong_labels(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    if len(variant.labels) < _FEWEST:
        raise NotApplicableError("of fewer than three options only one label is wrong: no list")
    slots = range(len(variant.labels))
    replies = (LIST_JOINT.join(variant.labels[s] for s in slots if s != right) for right in slots)
    return _asking(variant, "wrong_labels", tuple(replies))


def _read_appendix(argument: str) -> str:
    if argument.isprintable() and len(argument) <= 12 and not set(argument) & set(",+ {}"):
        return argument
    raise UsageError(
        f"append({argument}): up to 12 signs without space, comma, plus or brace",
        hint="for example append(!)",
    )


@perturbation(
    "append",
    family="answer",
    does="asks for the label of the right option with something written behind it",
    gold=_GOLD,
    back="label before the addition, to slot",
    arguments=("!", "#", "-END"),
    reads=_read_appendix,
    shapes_answer=True,
)
def _append(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return _asking(variant, "appended", tuple(label + argument for label in variant.labels))


@perturbation(
    "instruction",
    family="instruction",
    does="says less of the form: nothing, its name, or its name with an example",
    gold="stays in its slot",
    back="label to slot",
    arguments=("none", "mentioned", "example"),
    shapes_answer=True,
)
def _instruction(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return replace(variant, level=argument)
