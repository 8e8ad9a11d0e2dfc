"""What an answer was judged to be: one outcome, by a fixed order, and the option it means.

The order is that of the study's metrics: the first outcome that holds is the one. `STRICT_VALID` is
the format's own grammar; `LENIENT_VALID` is `extract`, which is versioned with this module as one
grader. An answer is never guessed: whatever names no single option has no slot and counts as wrong.

This module knows nothing of engines, stores or tables. A record can be graded again without its model.
"""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from medlocal.evals.extract import FINAL, Extraction
from medlocal.evals.formats import Format, left_out
from medlocal.evals.mapping import LEFT_OUT, LISTS, find
from medlocal.evals.phrases import REFUSAL
from medlocal.evals.plain import plain
from medlocal.evals.variant import Variant

GRADER_VERSION = 3
"""Rises whenever any output could be judged differently, here or in what `extract` uses."""


class Outcome(StrEnum):
    """What became of an answer; the first eight of a generated one in the order of judgement."""

    ENGINE_ERROR = "ENGINE_ERROR"
    """The engine failed. Left out of accuracy and counted beside it."""
    CONSTRAINT_NOT_APPLIED = "CONSTRAINT_NOT_APPLIED"
    """The mask was asked for and did not act. Left out of accuracy and counted beside it."""
    TRUNCATED = "TRUNCATED"
    """Stopped by length before a complete answer."""
    EMPTY = "EMPTY"
    """White space, or nothing at all."""
    STRICT_VALID = "STRICT_VALID"
    """The whole output is in the language of the format's grammar and names one option (or, where
    several labels were asked for, a list of them)."""
    LENIENT_VALID = "LENIENT_VALID"
    """It is not, but the extractor finds exactly one label of the set (or a list, where asked for)."""
    AMBIGUOUS = "AMBIGUOUS"
    """More than one label was found where one was asked for."""
    OUT_OF_SET = "OUT_OF_SET"
    """A label was found that no option has."""
    REFUSAL = "REFUSAL"
    """The model declined to answer."""
    UNPARSEABLE = "UNPARSEABLE"
    """None of the others."""
    SCORED = "SCORED"
    """Nothing was generated: the option with the highest score is the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model generated, as far as judging it goes."""

    text: str
    finish: str
    """"stop" = the model ended it, "length" = it was cut, "error" = the engine failed."""
    arm: str = "free"
    """"free" or "grammar"."""
    constraint_applied: bool = False
    """The engine says that its mask acted; of no meaning in the free arm."""
    error: str = ""
    """The engine's message where it failed."""


@dataclass(frozen=True, slots=True)
class Grade:
    """The judgement of one record by one grader."""

    outcome: Outcome
    slot: int | None
    """Where the answer points in the variant; None = it names no single option."""
    content: int | None
    """Which option of the item that is, the same in every variant; -1 = none of the item's own."""
    correct: bool
    reason: str
    """Why, in one plain sentence."""
    grader: int
    """`GRADER_VERSION` of the grader."""


def grade_output(answer: Answer, variant: Variant, form: Format, language: str) -> Grade:
    """Judge a generated answer: the first outcome that holds, in the order of `Outcome`.

    Args:
        answer: what was generated.
        variant: what was asked.
        form: the format that was asked for.
        language: of the prompt.
    """
    is_valid = form.is_valid(answer.text, variant, language)
    if answer.finish == "error":
        detail = f": {answer.error}" if answer.error else ""
        return _grade(variant, Outcome.ENGINE_ERROR, f"The engine failed{detail}.")
    if broken := _unmasked(answer, is_valid):
        return _grade(variant, Outcome.CONSTRAINT_NOT_APPLIED, broken)
    # A valid text may name no single option: the grammar of "text" allows words that two of them share.
    slot = form.read(answer.text, variant, language)
    found = find(answer.text, variant, language, form.name) if slot is None else Extraction()
    is_complete = is_valid or _is_complete(found, form.name, is_list=variant.asks in LISTS)
    if answer.finish == "length" and not is_complete:
        return _grade(variant, Outcome.TRUNCATED, "The length ran out before a complete answer.")
    if not _is_visible(answer.text):
        return _grade(variant, Outcome.EMPTY, "The output is empty.")
    if slot is not None or (is_valid and variant.asks == "several"):
        reason = f"The whole output has the form {form.name!r}{_listed(variant, slot)}."
        return _grade(variant, Outcome.STRICT_VALID, reason, slot)
    return _grade_found(found, answer.text, variant)


def grade_scores(scores: Mapping[int, float], variant: Variant) -> Grade:
    """Judge an answer that was scored and not generated: the option with the highest score.

    Args:
        scores: log-probability by slot.
        variant: what was asked.
    """
    if not scores or any(math.isnan(score) for score in scores.values()):
        reason = "A score is not a number." if scores else "There are no scores."
        return _grade(variant, Outcome.ENGINE_ERROR, reason)
    best = max(scores.values())
    first, *others = sorted(slot for slot, score in scores.items() if score == best)
    label = variant.labels[first]
    reason = f"{label} has the highest score."
    if others:
        tied = ", ".join(variant.labels[slot] for slot in (first, *others))
        reason = f"{tied} have the same highest score; the first of them, {label}, is taken."
    return _grade(variant, Outcome.SCORED, reason, first)


def _unmasked(answer: Answer, is_valid: bool) -> str:
    """Why the mask can't have acted on an answer of the grammar arm; "" = it may have."""
    if answer.arm != "grammar":
        return ""
    if not answer.constraint_applied:
        return "The engine did not apply the grammar."
    if answer.finish == "stop" and not is_valid:
        return "The model ended an output that the grammar does not allow."
    return ""


def _is_complete(found: Extraction, form: str, *, is_list: bool) -> bool:
    """Whether a text that was cut had already given its answer.

    A list at the very end may have gone on. In "reasoned", a label at the beginning or on a line of
    its own may open the reasoning.
    """
    if not found.slots or found.out_of_set:
        return False
    is_given = found.closed if is_list else found.explicit and len(found.slots) == 1
    return is_given and (form != "reasoned" or found.how.removeprefix(LEFT_OUT) in FINAL)


def _is_visible(text: str) -> bool:
    return any(unicodedata.category(c) not in {"Cc", "Cf"} and not c.isspace() for c in text)


def _grade_found(found: Extraction, text: str, variant: Variant) -> Grade:
    """Judge what is not in the form, by what the extractor found."""
    # An option that is only mentioned in a refusal is what was refused.
    is_refused = not found.explicit and REFUSAL.search(plain(text)) is not None
    labels = [_told(variant, slot) for slot in found.slots] + list(found.out_of_set)
    if variant.asks == "several" and found.slots and not (is_refused or found.out_of_set):
        slot = left_out(variant, found.slots)
        reason = f"The output names {', '.join(labels)} ({found.how}){_listed(variant, slot)}."
        return _grade(variant, Outcome.LENIENT_VALID, reason, slot)
    if labels and not is_refused:
        if len(labels) > 1:
            reason = f"More than one answer: {', '.join(labels)} ({found.how})."
            return _grade(variant, Outcome.AMBIGUOUS, reason)
        if found.slots:
            reason = f"One answer: {labels[0]} ({found.how})."
            return _grade(variant, Outcome.LENIENT_VALID, reason, found.slots[0])
        reason = f"No option has the label {labels[0]} ({found.how})."
        return _grade(variant, Outcome.OUT_OF_SET, reason)
    if is_refused:
        return _grade(variant, Outcome.REFUSAL, "The model declines to answer.")
    return _grade(variant, Outcome.UNPARSEABLE, "No label and no option's words were found.")


def _told(variant: Variant, slot: int) -> str:
    """An option as the output names it: by its label, or by its place where that is not what it says."""
    is_label = variant.has_labels and variant.asks in {"label", "several", "wrong_labels"}
    return variant.labels[slot] if is_label else f"option {slot + 1}"


def _listed(variant: Variant, slot: int | None) -> str:
    """What a list of labels comes to; "" where no list was asked for."""
    if variant.asks != "several":
        return ""
    if slot is None:
        return " and does not leave exactly one option out"
    return f" and leaves {variant.labels[slot]} out"


def _grade(variant: Variant, outcome: Outcome, reason: str, slot: int | None = None) -> Grade:
    content = variant.content(slot)
    return Grade(outcome, slot, content, slot == variant.gold, reason, GRADER_VERSION)
