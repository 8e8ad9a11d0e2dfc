"""Graded answers brought together: by subject, by variant and by item, for statistics of pairs.

What is compared is formed item by item, because not every variant applies to every item. This module
knows which answers count and which of them say the same, and computes no statistic but the Holm
correction within families. Nothing in it depends on the order in which answers come.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from medlocal.errors import MedlocalError
from medlocal.evals.formats import ARMS, FORMATS
from medlocal.evals.perturb import ORIGINAL, TWO_STEPS, parse_variant
from medlocal.evals.scoring import NOT_ASKED, GradedAnswer
from medlocal.evals.stats import Rate, holm, wilson
from medlocal.evals.steps import FAMILIES
from medlocal.evals.variant import derive_seed

_ORDERS = {"format": tuple(FORMATS), "arm": ARMS}
"""Fields whose names have an order of their own; others are in alphabetical order."""
_FAMILIES = (ORIGINAL, *FAMILIES, TWO_STEPS)
_CONTROL = "hidden"

_FEWEST_CLUSTERS = 6

ByItem = dict[str, GradedAnswer]
"""Item id to answer."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was asked of whom and how; only the items and their variants differ within one."""

    model: str
    dataset: str
    language: str
    """Of the items. A variant in another language belongs to the item that it was made from."""
    prompt: str
    format: str
    arm: str


SUBJECT = ("model", "dataset", "language", "prompt", "format", "arm")
"""The fields of `Subject`, in their order."""


def grouped(
    answers: Iterable[GradedAnswer], names: Sequence[str]
) -> list[tuple[dict[str, str], list[GradedAnswer]]]:
    """The answers by the values of some fields, two or more, in the order of those values.

    Formats, arms and families of variants come in their own order, all else alphabetically.

    Returns:
        (field to value, the answers that have these values) for each group.
    """
    values_of = attrgetter(*names)
    groups: dict[tuple[str, ...], list[GradedAnswer]] = {}
    for answer in answers:
        groups.setdefault(values_of(answer), []).append(answer)
    found = [(dict(zip(names, values, strict=True)), group) for values, group in groups.items()]
    return sorted(found, key=lambda group: [_place(*field) for field in group[0].items()])


def by_variant(answers: Iterable[GradedAnswer]) -> dict[str, ByItem]:
    """The answers of one subject by variant and item; the original first, then family by family.

    Raises:
        MedlocalError: an item was answered twice in one variant.
        UsageError: there is no variant of that name.
    """
    found: dict[str, ByItem] = {}
    for answer in answers:
        items = found.setdefault(answer.variant, {})
        if answer.item_id in items:
            raise answered_twice(answer)
        items[answer.item_id] = answer
    return dict(sorted(found.items(), key=lambda entry: _place("variant", entry[0])))


def answered_twice(answer: GradedAnswer) -> MedlocalError:
    """The error of an item that has two answers where one is meant."""
    return MedlocalError(
        f"item {answer.item_id} was answered twice by {answer.model} in the {answer.arm} arm"
        f" ({answer.variant}, {answer.prompt}, {answer.format}, {answer.language})"
    )


def aligned(items: Sequence[ByItem]) -> Iterator[tuple[GradedAnswer, ...]]:
    """The answers of each item that stands in all of the mappings, in alphabetical order of items."""
    first, *others = items
    for item_id in sorted(first):
        if all(item_id in other for other in others):
            yield tuple(found[item_id] for found in items)


def is_counted(answer: GradedAnswer) -> bool:
    """Whether an answer stands in denominators: the model was asked as it should be."""
    return answer.outcome not in NOT_ASKED


def is_same(first: GradedAnswer, second: GradedAnswer) -> bool:
    """Whether two answers chose the same content; an invalid answer equals nothing."""
    return first.meaning is not None and first.meaning == second.meaning


def keeps_answer(variant: str) -> bool:
    """Whether a variant is the original, or one step that is meant to leave the right answer as it is.

    Three kinds are not. Variants of the family "answer" change what has to be written. `hidden` is a
    control, which nobody can answer. Variants of two steps would count their steps again, as many
    times as they were combined.

    Raises:
        UsageError: there is no variant of that name.
    """
    steps = parse_variant(variant).steps
    return not steps or (
        len(steps) == 1 and steps[0].family != "answer" and steps[0].perturbation.name != _CONTROL
    )


def accuracy(answers: Sequence[GradedAnswer]) -> Rate:
    """The share of right answers; each of another item, or its interval is too narrow."""
    return wilson(sum(answer.correct for answer in answers), len(answers))


def has_enough_clusters(differences: Sequence[float], clusters: Sequence[str]) -> bool:
    """Whether at least six source items differ, so that an interval may leave out 0.

    As with the sign test, of which five differences in one direction have p = 0.0625.
    """
    sums: dict[str, float] = {}
    for cluster, difference in zip(clusters, differences, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + difference
    return sum(total != 0 for total in sums.values()) >= _FEWEST_CLUSTERS


def seeded(what: str, *key: str) -> np.random.Generator:
    """A generator for one interval: it does not depend on what else is computed."""
    return np.random.default_rng(derive_seed(what, *key))


def holm_within(tests: Sequence[tuple[Hashable, float | None]]) -> list[float | None]:
    """P-values adjusted within families.

    Args:
        tests: (family, p-value); None = there was nothing to test, which counts as no test.

    Returns:
        The adjusted p-values in the order given; None for None.
    """
    adjusted: list[float | None] = [None] * len(tests)
    families: dict[Hashable, list[tuple[int, float]]] = {}
    for at, (family, p) in enumerate(tests):
        if p is not None:
            families.setdefault(family, []).append((at, p))
    for members in families.values():
        for (at, _), p in zip(members, holm([p for _, p in members]), strict=True):
            adjusted[at] = p
    return adjusted


def _place(name: str, value: str) -> tuple[int, str]:
    if name == "variant":
        return _FAMILIES.index(parse_variant(value).family), value
    order = _ORDERS.get(name, ())
    return (order.index(value) if value in order else len(order)), value
