"""Stratified samples: a few items that stand for many, the same ones on every machine. Pure.

A sample is drawn one item after the other, so that a larger one continues a smaller one. Every draw
goes down a tree: first to a data set, then to those of its items that stand in the same languages,
then to a subject, then to a gold letter, each time where the share is owed. What is drawn is an item
with its parallel ones, one after the other, so that the languages stay paired: where the sample
ends, at most one item of each set and combination of languages lacks some of its parallels.

It knows items only, not what is asked about them nor what a suite is.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from medlocal.errors import UsageError
from medlocal.evals.items import LANGUAGES, Item, canonical_json

T = TypeVar("T")

_Unit = tuple[Item, ...]
"""An item with its parallel ones, in the order of `LANGUAGES`."""
_Rank = Callable[..., str]
"""From the parts of a name to its place in an order that depends on the seed only."""


def stratified(items: Sequence[Item], size: int, seed: int) -> list[Item]:
    """Draw items, stratified by data set, languages, subject and gold letter.

    Args:
        items: from any number of sets and languages, in any order.
        size: how many; all of them where there are fewer.
        seed: another one draws others.

    Returns:
        The items in the order drawn: the first n are the sample of size n. Every data set has its
        share by number of items, rounded up or down. Where all items of a set stand in the same
        languages, these differ by one item at most, and each subject has its share of the set's
        items, rounded up or down, in each language, give or take the one that is not complete. Gold
        letters are kept near their shares of the set and of the subject, both at once.

    Raises:
        UsageError: the size is below 1.
    """
    if size < 1:
        raise UsageError(f"a sample has 1 item or more, not {size}")
    rank = _ranking(seed)
    by_set = _divided(_units(items), lambda unit: unit[0].dataset, rank)
    drawn = _apportioned([(_num_items(units), _from_set(units, rank)) for units in by_set])
    return list(islice(drawn, size))


def _from_set(units: Sequence[_Unit], rank: _Rank) -> Iterator[Item]:
    """All items of one set. Those that stand in other languages than most are a stratum of their own."""
    by_languages = _divided(units, lambda unit: " ".join(item.language for item in unit), rank)
    return _apportioned(
        [(_num_items(part), _flattened(_from_parallel(part, rank), rank)) for part in by_languages]
    )


def _from_parallel(units: Sequence[_Unit], rank: _Rank) -> Iterator[_Unit]:
    """All units of one set that stand in the same languages; subject and gold are the first one's."""
    balance = _Balance(units)
    by_subject = _divided(units, lambda unit: unit[0].subject, rank)
    return _apportioned([(len(part), _from_subject(part, balance, rank)) for part in by_subject])


def _from_subject(units: Sequence[_Unit], whole: "_Balance", rank: _Rank) -> Iterator[_Unit]:
    """All units of one subject, each time one with the gold letter that is furthest behind.

    Behind in the subject and in the whole together: in the subject alone, the many subjects that
    give a sample one item or two would all give it their most frequent letter.
    """
    own = _Balance(units)
    by_letter = _divided(units, lambda unit: str(unit[0].gold), rank)
    left = {
        part[0][0].gold: sorted(part, key=lambda unit: _place(unit, rank)) for part in by_letter
    }
    while left:
        gold = max(left, key=lambda letter: own.owed(letter) + whole.owed(letter))
        unit = left[gold].pop()
        if not left[gold]:
            del left[gold]
        own.add(gold)
        whole.add(gold)
        yield unit


class _Balance:
    """How many of each gold letter were drawn, against the letter's share of the units."""

    def __init__(self, units: Sequence[_Unit]) -> None:
        self._sizes = Counter(unit[0].gold for unit in units)
        self._num_units = len(units)
        self._drawn: Counter[int] = Counter()
        self._num_drawn = 0

    def owed(self, gold: int) -> float:
        """By how much the letter would be behind, were the next one drawn another."""
        share = self._sizes[gold] / self._num_units
        return (self._num_drawn + 1) * share - self._drawn[gold]

    def add(self, gold: int) -> None:
        """Count one that was drawn."""
        self._drawn[gold] += 1
        self._num_drawn += 1


def _apportioned(strata: Sequence[tuple[int, Iterator[T]]]) -> Iterator[T]:
    """Merge streams so that, after every draw, each had its share of the draws, rounded up or down.

    This is the quota method, which adds one seat at a time and never takes one away, as largest
    remainders do when a house grows. Source: M. L. Balinski and H. P. Young, The Quota Method of
    Apportionment, American Mathematical Monthly 82 (1975) 701-730.

    Args:
        strata: how many draws each stream has, and the stream; of equals the first is served first.
    """
    sizes = [size for size, _ in strata]
    total = sum(sizes)
    given = [0] * len(strata)
    for seats in range(1, total + 1):
        # One that already has its share is not rounded up any further.
        eligible = (i for i, size in enumerate(sizes) if given[i] * total < size * seats)
        chosen = max(eligible, key=lambda i: sizes[i] / (given[i] + 1))
        given[chosen] += 1
        yield next(strata[chosen][1])


def _flattened(units: Iterable[_Unit], rank: _Rank) -> Iterator[Item]:
    for unit in units:
        # Not always from the same language: it would have one item more in every set.
        start = int(_place(unit, rank)[-4:], 16) % len(unit)
        yield from (*unit[start:], *unit[:start])


def _units(items: Iterable[Item]) -> list[_Unit]:
    parallel: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for item in items:
        # Items of one case share a group; the id tells them apart.
        parallel[item.dataset, item.split, item.group, item.id].append(item)
    order = {language: place for place, language in enumerate(LANGUAGES)}
    return [
        tuple(sorted(unit, key=lambda item: order[item.language])) for unit in parallel.values()
    ]


def _divided(
    units: Iterable[_Unit], name: Callable[[_Unit], str], rank: _Rank
) -> list[list[_Unit]]:
    """The strata, in an order that favours no name over all seeds."""
    strata: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[name(unit)].append(unit)
    return [strata[key] for key in sorted(strata, key=rank)]


def _num_items(units: Iterable[_Unit]) -> int:
    return sum(map(len, units))


def _place(unit: _Unit, rank: _Rank) -> str:
    first = unit[0]
    return rank(first.dataset, first.split, first.group, first.id)


def _ranking(seed: int) -> _Rank:
    def rank(*parts: str) -> str:
        return hashlib.sha256(canonical_json([seed, *parts])).hexdigest()

    return rank
