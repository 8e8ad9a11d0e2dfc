"""Answers that had to be transformed: is the knowledge wrong, or only the instruction not followed?

Pure. It knows the outcomes and which variants ask for a transformed answer, and neither how one is
asked for nor how it is read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from medlocal.evals.answers import Outcome
from medlocal.evals.formats import SCORED_ARMS
from medlocal.evals.pairing import (
    SUBJECT,
    ByItem,
    Subject,
    accuracy,
    by_variant,
    grouped,
    is_counted,
)
from medlocal.evals.perturb import ORIGINAL, parse_variant
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import Rate, wilson

Part = Literal["right", "wrong_form", "wrong_knowledge", "both_wrong", "unread"]


@dataclass(frozen=True, slots=True)
class AnswerSplit(Subject):
    """The answers to one variant, split by what is wrong with them; the shares add up to 1."""

    variant: str
    verified: bool
    n: int
    """Counted answers: one per item."""
    excluded: int
    """Answers that do not count."""
    original: Rate | None
    """Right answers to the original of the same items, as far as they count there; None for the
    original itself and where it was not asked."""
    right: Rate
    """Right knowledge in the right form. In the original: right, whatever the form."""
    wrong_form: Rate | None
    """Right knowledge in a wrong form. None for the original, where nothing is to be transformed."""
    wrong_knowledge: Rate
    """Right form, wrong knowledge. In the original: readable and wrong."""
    both_wrong: Rate | None
    """Readable, in neither the right form nor with the right knowledge. None for the original."""
    unread: Rate
    """No option could be read."""


def answer_splits(answers: Iterable[GradedAnswer]) -> list[AnswerSplit]:
    """One split per subject, variant whose last step changes the answer, and state of verification.

    Subjects with such a variant have a split of their original too, to compare with. Arms that
    generate nothing have none: there is no form to follow.

    Under `next_label`, who ignores the instruction writes the label of the right option, which reads
    as the option before it. That counts as right knowledge in a wrong form where the same item was
    right in the original, or was not asked there; elsewhere it may as well be wrong knowledge, and is
    counted so.

    Splitting errors into those of knowledge and those of instruction is the idea of R. Murthy et al.
    (IBM), KCIF: Knowledge-conditioned instruction following, arXiv 2410.12972. The rules are this
    project's.

    Raises:
        MedlocalError: an item was answered twice in one variant.
        UsageError: a variant's name is unknown.
    """
    splits = []
    for subject, group in grouped(answers, SUBJECT):
        if subject["arm"] in SCORED_ARMS:
            continue
        variants = by_variant(group)
        names = [name for name in variants if changes_answer(name)]
        original = variants.get(ORIGINAL, {})
        for name in [ORIGINAL, *names] if names and original else names:
            for verified in (True, False):
                found = {i: a for i, a in variants[name].items() if a.verified == verified}
                if found:
                    splits.append(_split(subject, name, found, original))
    return splits


def changes_answer(variant: str) -> bool:
    """Whether the last step of a variant asks for a transformed answer."""
    steps = parse_variant(variant).steps
    return bool(steps) and steps[-1].family == "answer"


def _split(
    subject: Mapping[str, str], variant: str, found: ByItem, original: ByItem
) -> AnswerSplit:
    counted = {item: answer for item, answer in found.items() if is_counted(answer)}
    is_original = variant == ORIGINAL
    parts = Counter(
        _plain_part(answer) if is_original else _part(answer, variant, original.get(item))
        for item, answer in counted.items()
    )
    shares = {part: wilson(parts[part], len(counted)) for part in get_args(Part)}
    return AnswerSplit(
        **subject,
        variant=variant,
        verified=next(iter(found.values())).verified,
        n=len(counted),
        excluded=len(found) - len(counted),
        original=None if is_original or not original else _right_before(counted, original),
        right=shares["right"],
        wrong_form=None if is_original else shares["wrong_form"],
        wrong_knowledge=shares["wrong_knowledge"],
        both_wrong=None if is_original else shares["both_wrong"],
        unread=shares["unread"],
    )


def _right_before(counted: ByItem, original: ByItem) -> Rate:
    before = [original[item] for item in counted if item in original]
    return accuracy([answer for answer in before if is_counted(answer)])


def _plain_part(answer: GradedAnswer) -> Part:
    if answer.correct:
        return "right"
    return "unread" if answer.meaning is None else "wrong_knowledge"


def _part(answer: GradedAnswer, variant: str, original: GradedAnswer | None) -> Part:
    if answer.outcome not in {Outcome.STRICT_VALID, Outcome.LENIENT_VALID}:
        return "unread"
    is_strict = answer.outcome == Outcome.STRICT_VALID
    if answer.correct:
        return "right" if is_strict else "wrong_form"
    if _is_gold_label(answer, variant) and _may_know(original):
        return "wrong_form"
    return "wrong_knowledge" if is_strict else "both_wrong"


def _is_gold_label(answer: GradedAnswer, variant: str) -> bool:
    """Whether the label after the right one was asked for and the right one was written."""
    asked = parse_variant(variant).steps[-1].perturbation.name
    return asked == "next_label" and answer.slot == (answer.gold_slot - 1) % answer.num_options


def _may_know(original: GradedAnswer | None) -> bool:
    return original is None or not is_counted(original) or original.correct
