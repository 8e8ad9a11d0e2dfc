"""From what an output names to the option it means, where the answer was to be transformed.

The extractor finds labels and options' words. Where the label after the right one was asked for, a
label means the option before it; where the wrong labels were, the one that is left out; and what was
to be written instead of a label is looked for as options' words are. Who gives the plain answer
instead of the transformed one is read all the same: the grade then says that the knowledge is there
and the form is not. This module knows nothing of outcomes.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from medlocal.evals.extract import Extraction, extract
from medlocal.evals.formats import left_out
from medlocal.evals.mentions import Mention, Page, Wording
from medlocal.evals.phrases import FILLER
from medlocal.evals.plain import plain
from medlocal.evals.variant import Variant

_NO_LABELS = tuple(chr(0xE000 + number) for number in range(10))
"""Signs that no text has: a bullet is no label, though every list has it."""
_EDGES = " \t\n.,;:!?()[]{}\"'-—–<>*`«»“”"
_LISTS = frozenset({"several", "wrong_labels"})
"""Kinds of `Variant.asks` that are answered by several labels."""
_BETWEEN_LABELS = re.compile(r"(?:\W|\b(?:and|or|y|e|o|u)\b)*", re.IGNORECASE)


def find(text: str, variant: Variant, language: str, form: str) -> Extraction:
    """What `extract` finds, as slots of the options that are meant.

    Args:
        text: the output as it came.
        variant: what was asked.
        language: of the prompt.
        form: name of the format.
    """
    if variant.asks == "label":
        return extract(text, variant, language, form)
    if not variant.has_labels:
        variant = _unlabelled(variant)
    if variant.asks in _LISTS:
        return _find_list(text, variant, language, form)
    if variant.asks != "text" and (slot := _whole_reply(text, variant)) is not None:
        return Extraction((slot,), (), True, "reply")
    replied = _find_reply(text, variant, language, form)
    if replied.explicit and _names_one(replied):
        return replied
    found = extract(text, variant, language, form)
    if variant.asks == "next_label":
        return _before(found, text, variant, language, form)
    # A number stands in many sentences that do not mean an option.
    can_be_mentioned = variant.asks != "label_in_words" and found == Extraction()
    return replied if can_be_mentioned and _names_one(replied) else found


def _unlabelled(variant: Variant) -> Variant:
    return replace(variant, labels=_NO_LABELS[: len(variant.labels)])


def _names_one(found: Extraction) -> bool:
    return len(found.slots) == 1 and not found.out_of_set


def _whole_reply(text: str, variant: Variant) -> int | None:
    """The slot of the one reply that the text is, whatever its case and the signs around it."""
    said = _bare(text)
    spellings = [{_bare(reply)} for reply in variant.replies]
    if variant.asks == "label_in_words":
        # "Option two", and "2": a place too, though not as a word.
        said = FILLER.sub("", said, count=1)
        spellings = [{*words, str(place)} for place, words in enumerate(spellings, start=1)]
    named = [slot for slot, words in enumerate(spellings) if said in words]
    return named[0] if said and len(named) == 1 else None


def _bare(text: str) -> str:
    return " ".join(plain(text).strip(_EDGES).split()).casefold()


def _find_reply(text: str, variant: Variant, language: str, form: str) -> Extraction:
    """What `extract` finds where only the replies are looked for; nothing where it finds them anyway.

    A label with something behind it is found as the label that it is, and all else as words.
    """
    if variant.asks == "appended":
        return extract(text, replace(variant, labels=variant.replies), language, form)
    if variant.asks in {"reversed_text", "label_in_words"}:
        told = replace(_unlabelled(variant), options=variant.replies)
        return extract(text, told, language, form)
    return Extraction()


def _before(found: Extraction, text: str, variant: Variant, language: str, form: str) -> Extraction:
    """Of what was found, each label as the option before it, and each option's words as that option.

    What is found without the labels too was named by its words.
    """
    worded = extract(text, _unlabelled(variant), language, form).slots
    slots = (s if s in worded else (s - 1) % len(variant.labels) for s in found.slots)
    return replace(found, slots=tuple(dict.fromkeys(slots)))


def _find_list(text: str, variant: Variant, language: str, form: str) -> Extraction:
    """The labels of a list; where the wrong ones were asked for, the one that they leave out."""
    if "".join(variant.labels).isdigit():
        # "1,3" is no decimal number where numbers are to be listed.
        text = re.sub(r"(?<=\d),(?=\d)", ", ", text)
    found = _listed(text, variant, language) or extract(text, variant, language, form)
    if variant.asks == "several" or found.out_of_set or len(found.slots) < 2:
        return found
    gap = left_out(variant, found.slots)
    return found if gap is None else replace(found, slots=(gap,), how=f"left out by {found.how}")


def _listed(text: str, variant: Variant, language: str) -> Extraction | None:
    """A list of two labels or more that is the text, its beginning, or what follows its heading.

    The extractor takes labels that stand one below the other for several answers, of which the
    first or the last counts. Labels that are called wrong are a list too if they leave one out.
    """
    page = Page(plain(text), variant, language)
    wrong = [m.slot for m in page.mentions if m.start in page.denied and m.slot is not None]
    if left_out(variant, wrong) is not None:
        return Extraction(tuple(dict.fromkeys(wrong)), (), False, "labels called wrong")
    for part in _parts(page.text):
        slots = _pure_list(Page(part, variant, language))
        if len(slots) > 1:
            return Extraction(slots, (), True, "list of labels")
    return None


def _parts(text: str) -> Iterator[str]:
    """The text, and its first paragraph; both without a heading, which ends in a colon."""
    behind = re.split(r":\s*\n", text, maxsplit=1)[-1].strip()
    yield behind
    yield re.split(r"\n\s*\n", behind, maxsplit=1)[0]


def _pure_list(page: Page) -> tuple[int, ...]:
    """The slots of a text of nothing but labels, their options' words, and what joins them."""
    rest = list(page.text)
    named: list[Mention | Wording] = [*page.mentions, *page.wordings]
    for place in named:
        rest[place.start : place.end] = " " * (place.end - place.start)
    if _BETWEEN_LABELS.fullmatch("".join(rest)) is None:
        return ()
    slots = [mention.slot for mention in page.mentions]
    return () if None in slots else tuple(dict.fromkeys(s for s in slots if s is not None))
