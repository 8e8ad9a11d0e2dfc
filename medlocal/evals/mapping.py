"""From what an output names to the option it means, where the answer was to be transformed.

The extractor finds labels and options' words. Where the label after the right one was asked for, a
label means the option before it; where the wrong labels were, the one that is left out. Who gives
the plain answer instead of the transformed one is read all the same: the grade then says that the
knowledge is there and the form is not. This module knows nothing of outcomes.
"""

from dataclasses import replace

from medlocal.evals.extract import Extraction, extract
from medlocal.evals.formats import left_out
from medlocal.evals.plain import plain
from medlocal.evals.variant import Variant

_NO_LABELS = tuple(chr(0xE000 + number) for number in range(10))
"""Signs that no text has: a bullet is no label, though every list has it."""
_EDGES = " \t\n.,;:!?()[]{}\"'-—–<>*`«»“”"


def find(text: str, variant: Variant, language: str, form: str) -> Extraction:
    """What `extract` finds, as slots of the options that are meant.

    Args:
        text: the output as it came.
        variant: what was asked.
        language: of the prompt.
        form: name of the format.
    """
    if not variant.has_labels:
        variant = replace(variant, labels=_NO_LABELS[: len(variant.labels)])
    if variant.asks not in {"label", "text", "several"}:
        whole = _whole_reply(text, variant)
        if whole is not None:
            return Extraction((whole,), (), True, "reply")
    found = extract(text, variant, language, form)
    if variant.asks == "next_label" and "words" not in found.how:
        slots = (variant.slot_of(variant.labels[slot]) for slot in found.slots)
        return replace(found, slots=tuple(slot for slot in slots if slot is not None))
    if variant.asks == "wrong_labels" and len(found.slots) > 1:
        gap = left_out(variant, found.slots)
        return (
            found if gap is None else replace(found, slots=(gap,), how=f"all but one {found.how}")
        )
    return found


def _whole_reply(text: str, variant: Variant) -> int | None:
    """The slot of the one reply that the text is, whatever its case and the signs around it."""
    said = _bare(text)
    named = [slot for slot, reply in enumerate(variant.replies) if _bare(reply) == said]
    return named[0] if said and len(named) == 1 else None


def _bare(text: str) -> str:
    return " ".join(plain(text).strip(_EDGES).split()).casefold()
