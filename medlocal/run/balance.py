"""The order in which items are asked where the time may run out: every beginning of it is balanced. Pure.

A sample that is asked only in part should be a small one of the same kind: each data set, language,
subject and right letter with its share. The next item is always the one that leaves the sum of the
squared distances from all those shares smallest, an item together with its parallel ones. Rejected:
the order in which `data.sampling` draws, which keeps each data set's share exactly and lets the letters
of many small sets add up to six items too many.

It knows items only; how long they take and how many are asked together is `pacing`'s business.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

from medlocal.evals.items import Item
from medlocal.evals.plan import take

_Unit = tuple[Item, ...]
"""An item with its parallel ones."""
_Category = tuple[str, ...]


def balanced(items: Iterable[Item]) -> list[Item]:
    """Items in an order of which every beginning is balanced.

    Of any number of them from the front, every data set, language, subject of a data set, and letter
    in a language has its share of the whole, give or take fewer than three items where an item stands in
    two languages at most: found over random sets, not proved. Parallel items follow each other.

    Args:
        items: in any order: it changes nothing. The time grows with their number times the number
            of their kinds: this is for samples of up to some thousands.
    """
    units = _units(take(items, None))
    shares = Counter(category for unit in units for category in _categories(unit))
    kinds: dict[tuple[_Category, ...], deque[_Unit]] = {}
    for unit in units:
        kinds.setdefault(_categories(unit), deque()).append(unit)
    counts: Counter[_Category] = Counter()
    order: list[Item] = []
    while kinds:
        kind = _nearest(kinds, counts, shares, len(order))
        order += kinds[kind].popleft()
        counts.update(kind)
        if not kinds[kind]:
            del kinds[kind]
    return order


def _nearest(
    kinds: Mapping[tuple[_Category, ...], Sequence[_Unit]],
    counts: Mapping[_Category, int],
    shares: Mapping[_Category, int],
    num_asked: int,
) -> tuple[_Category, ...]:
    """The kind of unit after which all counts together are nearest to their shares.

    In whole numbers, all distances times the number of items: equal ones are equal on every machine, and
    the first of them is taken.
    """
    sizes = {len(units[0]) for units in kinds.values()}
    num_items = sum(share for category, share in shares.items() if category[0] == "language")
    distances = {
        size: {c: num_items * counts[c] - (num_asked + size) * share for c, share in shares.items()}
        for size in sizes
    }
    apart = {size: sum(d * d for d in found.values()) for size, found in distances.items()}

    def cost(kind: tuple[_Category, ...]) -> int:
        size = len(kinds[kind][0])
        added = Counter(kind)
        return apart[size] + sum(
            2 * distances[size][category] * num_items * n + (num_items * n) ** 2
            for category, n in added.items()
        )

    return min(kinds, key=cost)


def _units(items: Iterable[Item]) -> list[_Unit]:
    found: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        found.setdefault((item.dataset, item.split, item.group, item.id), []).append(item)
    return [tuple(unit) for unit in found.values()]


def _categories(unit: _Unit) -> tuple[_Category, ...]:
    """All shares that a unit adds to, each as often as it has items there."""
    return tuple(
        category
        for item in unit
        for category in (
            ("dataset", item.dataset),
            ("language", item.language),
            ("subject", item.dataset, item.subject),
            ("gold", item.language, str(item.gold)),
        )
    )
