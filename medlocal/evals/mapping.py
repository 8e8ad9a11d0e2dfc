"""From what an output names to the option it means, where the answer was to be transformed.

The extractor finds labels and options' words. Where the label after the right one was asked for, a
label means the option before it; where the wrong labels were, the one that is left out; and what was
to be written instead of a label is looked for as options' words are. Who gives the plain answer
instead of the transformed one is read all the same: the grade then says that the knowledge is there
and the form is not. This module knows nothing of outcomes.
"""

import re
from dataclasses import replace

from medlocal.evals.extract import ENCLOSED, Extraction, extract
from medlocal.evals.formats import left_out
from medlocal.evals.listing import find_list
from medlocal.evals.mentions import Mention, Page
from medlocal.evals.phrases import AFFIRMED_AFTER, CALLED_RIGHT, FILLER, NEXT_TO, SET_OFF, SUCCESSOR
from medlocal.evals.plain import plain
from medlocal.evals.variant import Variant

_NO_LABELS = tuple(chr(0xE000 + number) for number in range(10))
"""Signs that no text has: a bullet is no label, though every list has it."""
_ONE = frozenset({"una", "un"})
_PLACE_WORDS = "option|choice|answer|one|position|place|opcion|alternativa|respuesta|posicion|lugar"
_AT_POSITION = re.compile(
    r"\b(?:is|esta|se encuentra) (?:in|at|en) (?:(?:the|la|el) )?(?:position|place|posicion|lugar)\b",
    re.IGNORECASE,
)
_POSITION = re.compile(
    r"\b(?:(?:in|at|en) )?(?:(?:the|la|el) )?(?:position|place|posicion|lugar)(?: (?:number|numero))?"
    r"\s*:?\s*(?=\w)(?!of\b|de\b)",
    re.IGNORECASE,
)
"""What stands before the number of a place and says no more than the number."""
_ORDINALS = {
    "en": (
        *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"),
        "tenth",
    ),
    "es": (
        *("primer[oa]?", "segund[oa]", "tercer[oa]?", "cuart[oa]", "quint[oa]", "sext[oa]"),
        *("septim[oa]", "octav[oa]", "noven[oa]", "decim[oa]"),
    ),
}
_NEAR = 80
"""Characters before a label in which it may be called something."""
_EDGES = " \t\n.,;:!?()[]{}\"'-—–<>*`«»“”"
LISTS = frozenset({"several", "wrong_labels"})
"""Kinds of `Variant.asks` that are answered by several labels."""
LEFT_OUT = "left out by "
"""Begins `Extraction.how` where the option is the one that a list of wrong ones does not name."""


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
    if variant.asks in LISTS:
        return _find_list(text, variant, language, form)
    if variant.asks == "label_in_words":
        text = _with_cardinals(text, variant)
    if variant.asks != "text" and (slot := _whole_reply(text, variant)) is not None:
        return Extraction((slot,), (), True, "reply")
    replied = _find_reply(text, variant, language, form)
    if replied.explicit and _names_one(replied):
        return replied
    found = extract(text, variant, language, form)
    if variant.asks == "next_label":
        pair = None if _is_settled(found) else _pair(Page(plain(text), variant, language))
        return pair or _before(found, text, variant, language, form)
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
        spellings[0] |= _ONE
    named = [slot for slot, words in enumerate(spellings) if said in words]
    return named[0] if said and len(named) == 1 else None


def _with_cardinals(text: str, variant: Variant) -> str:
    """The text with "two" for "the second option" and for "position two", in the prompt's language.

    An ordinal number alone must be all that is said, or what an article or a verb leads to: "first, …"
    and "first-line" name no option.
    """
    text = _POSITION.sub("", _AT_POSITION.sub("is position ", plain(text)))
    ordinals = _ORDINALS[variant.prompt_language]
    for cardinal, ordinal in zip(variant.replies, ordinals, strict=False):
        named = rf"(?<!\w){ordinal}(?: (?:{_PLACE_WORDS}))(?!\w)"
        alone = rf"(?:(?<!\w)(?<=the )|(?<=la )|(?<=el )|(?<=is )|(?<=es )|(?<=[\"'>:])|(?<=: )|\A\W*){ordinal}"
        ends = r"(?=\W*\Z|[.;:\n\"'<)}]|,?\s+(?:because|since|porque|ya que|pues)\b)"
        text = re.sub(rf"{named}|{alone}{ends}", cardinal, text, flags=re.IGNORECASE)
    return text


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


def _is_settled(found: Extraction) -> bool:
    """Whether the answer was given in a form, which no word beside it makes another one."""
    return _names_one(found) and found.how in {*ENCLOSED, "answer line", "final answer"}


def _pair(page: Page) -> Extraction | None:
    """The option of the first of two labels that follow each other, if it is called the right one.

    "D (the correct one is C)", "C, so D", "after C comes D": whoever names both has answered with the
    second. Joined by "or" or a comma they are two answers.
    """
    lone = [m for m in page.mentions if m.is_lone and m.start not in page.denied]
    slots = {m.slot for m in lone if m.slot is not None}
    num_labels = len(page.variant.labels)
    if len(slots) != 2 or num_labels < 3:
        return None
    for right in slots:
        if (right + 1) % num_labels in slots and _is_right(page, lone, right):
            return Extraction((right,), (), True, "label after the right one", closed=True)
    return None


def _is_right(page: Page, lone: list[Mention], slot: int) -> bool:
    """Whether a label is called right, or the other one is said to come after it."""
    text = page.text
    for index, mention in enumerate(lone):
        behind = text[page.past_words(mention) :]
        if mention.slot == slot:
            before = text[max(0, mention.start - _NEAR) : mention.start]
            if (
                CALLED_RIGHT.search(before)
                or NEXT_TO.search(before)
                or AFFIRMED_AFTER.match(behind)
            ):
                return True
            following = lone[index + 1] if index + 1 < len(lone) else None
            if following and following.slot != slot:
                return (
                    SUCCESSOR.fullmatch(text[page.past_words(mention) : following.start])
                    is not None
                )
    return False


def _before(found: Extraction, text: str, variant: Variant, language: str, form: str) -> Extraction:
    """Of what was found, each label as the option before it, and each option's words as that option.

    What is found without the labels too was named by its words. Words that only explain the label
    before them ("C. Chloride") do not count.
    """
    page = Page(plain(text), variant, language)
    said = page.text
    for mention in reversed(page.mentions):
        words = page.own_words(mention.end, mention.slot)
        if words and SET_OFF.match(page.text, words.end):
            said = said[: words.start] + said[words.end :]
    worded = extract(said, _unlabelled(variant), language, form).slots
    slots = (s if s in worded else (s - 1) % len(variant.labels) for s in found.slots)
    return replace(found, slots=tuple(dict.fromkeys(slots)))


def _find_list(text: str, variant: Variant, language: str, form: str) -> Extraction:
    """The labels of a list; where the wrong ones were asked for, the one that they leave out."""
    found = find_list(text, variant, language, form)
    if variant.asks == "several" or found.out_of_set or len(found.slots) < 2:
        return found
    gap = left_out(variant, found.slots)
    return found if gap is None else replace(found, slots=(gap,), how=f"{LEFT_OUT}{found.how}")
