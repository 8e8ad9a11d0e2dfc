"""Few-shot examples: which solved questions stand before an item. Pure.

The choice hangs on the item's group, not on its language, so that parallel items get parallel
examples where the pool has them; and on nothing but hashes, so that it is the same on every machine.
This module does not know which splits examples come from (a set's card does) nor how one is shown
(prompts do).
"""

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medlocal.catalog import MAX_SHOTS
from medlocal.data.overlap import OPENING, normalised
from medlocal.errors import UsageError
from medlocal.evals.items import Item, canonical_json

NUM_CANDIDATES = 256
"""Examples of a language that are kept to choose from: a choice from 200,000 costs what one from 256
does, a fraction of a millisecond."""


_BEGINNING = 30
"""Characters of a normalised stem by which a copy with the same options is known."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    item: Item
    place: int
    """In the pool."""
    opening: str
    """Of its stem: see `_opening`."""
    parallel_key: bytes
    """What its parallel items have in common."""


class ExamplePool:
    """The items that examples are taken from, prepared for any number of choices.

    Of each data set and language `NUM_CANDIDATES` are kept, those whose hash with the seed comes
    first: in parallel pools these are parallel.
    """

    def __init__(self, items: Iterable[Item], seed: int = 0) -> None:
        self._seed = seed
        pools: dict[tuple[str, str], list[tuple[int, Item]]] = defaultdict(list)
        for place, item in enumerate(items):
            pools[item.dataset, item.language].append((place, item))
        self._candidates = {name: self._narrowed(pool) for name, pool in pools.items()}

    def choose(self, item: Item, k: int) -> tuple[Item, ...]:
        """The examples of one item.

        They are of the item's set and language. None is of its group, nor a copy of it under another
        id, which would give its answer away: a copy is known by the first words of its stem, so that
        one which was translated or typed in anew may pass. The first k in the order of a hash with
        the item's group are taken; where their gold letters would all be the same, the last gives
        way to the next one with another letter, if there is one.

        Args:
            item: what is asked.
            k: how many, 0 to 5.

        Returns:
            The examples in the pool's own order, so that equal choices make equal prefixes.

        Raises:
            UsageError: k is not from 0 to 5, or the pool has fewer that may be shown.
        """
        if not 0 <= k <= MAX_SHOTS:
            raise UsageError(f"{k} few-shot examples: from 0 to {MAX_SHOTS} can be shown")
        if k == 0:
            return ()
        opening = _opening(item)
        ranked = self._ranked(
            item.group,
            [
                candidate
                for candidate in self._candidates.get((item.dataset, item.language), ())
                if candidate.item.group != item.group
                and candidate.opening != opening
                # A slip in the opening, or a short stem with other words at its end.
                and not (
                    candidate.opening[:_BEGINNING] == opening[:_BEGINNING]
                    and set(candidate.item.options) == set(item.options)
                )
            ],
        )
        if len(ranked) < k:
            raise UsageError(
                f"{item.dataset}, {item.language}: {k} few-shot examples are needed and"
                f" {len(ranked)} are here that may be shown before {item.id!r}",
                hint=f"ask for {len(ranked)}",
            )
        chosen = sorted(_with_two_letters(ranked, k), key=lambda candidate: candidate.place)
        return tuple(candidate.item for candidate in chosen)

    def _narrowed(self, pool: Iterable[tuple[int, Item]]) -> list[_Candidate]:
        keyed = ((item, place, _parallel_key(item)) for place, item in pool)
        start = hashlib.sha256(canonical_json([self._seed]))
        first = heapq.nsmallest(
            NUM_CANDIDATES, keyed, key=lambda entry: (_rank(start, entry[2]), entry[1])
        )
        return [_Candidate(item, place, _opening(item), key) for item, place, key in first]

    def _ranked(self, group: str, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """The candidates in the order of their hash with an item's group."""
        start = hashlib.sha256(canonical_json([self._seed, group]))
        return sorted(candidates, key=lambda c: (_rank(start, c.parallel_key), c.place))


def _with_two_letters(ranked: Sequence[_Candidate], k: int) -> list[_Candidate]:
    """The first k, with another last one where that avoids a single gold letter."""
    *kept, last = ranked[:k]
    letters = {candidate.item.gold for candidate in kept}
    if len(letters) == 1:
        others = (candidate for candidate in ranked[k - 1 :] if candidate.item.gold not in letters)
        last = next(others, last)
    return [*kept, last]


def _opening(item: Item) -> str:
    """What two copies of a question have in common, even with a slip later in one of them."""
    return normalised(item.stem)[:OPENING]


def _parallel_key(item: Item) -> bytes:
    # Items of one case share a group; the id tells them apart.
    return canonical_json([item.group, item.split, item.id])


def _rank(start: "hashlib._Hash", key: bytes) -> bytes:
    hashed = start.copy()
    hashed.update(key)
    return hashed.digest()
