"""Copies of one clinical case: which texts tell the same one, and which copies contradict another. Pure.

The MIR collections hold cases several times, each explained by another physician, with slips of the
pen between the copies and now and then another right answer. Texts of one language only are compared.
It knows nothing of rows and splits, nor which of two golds is right.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain, combinations
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

_SHARED, _LEAST = 0.4, 10
"""Copies share this much of the shorter one's runs of three words, and at least this many. Measured on
CasiMedicos: copies from 0.58 on in Spanish and 0.44 in translation, different cases up to 0.26 and
0.38. A question without a case, which could end any stem, is too short to share so many."""


def same_cases(texts: Sequence[str]) -> list[int]:
    """For each text the index of the first one that tells the same case, which may be its own.

    Two do that have the same words but for accents and case, or share most of their runs of words;
    and so do all that are linked by such pairs.
    """
    runs = [_runs(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, of_text in enumerate(runs):
        for run in of_text:
            holders[run].append(index)
    shared = Counter(pair for held in holders.values() for pair in combinations(held, 2))
    first = list(range(len(texts)))
    for (one, other), count in shared.items():
        fewest = min(len(runs[one]), len(runs[other]))
        if runs[one] == runs[other] or count >= max(_LEAST, _SHARED * fewest):
            low, high = sorted((_root(first, one), _root(first, other)))
            first[high] = low
    return [_root(first, index) for index in range(len(texts))]


def disputed(copies: Mapping[Key, tuple[str, Sequence[str], int]]) -> set[Key]:
    """The questions whose gold another copy has among its options too, and does not take.

    Args:
        copies: by any key, the group of a question, its options and the index of its gold.
    """
    members: dict[str, list[tuple[Key, list[tuple[str, ...]], int]]] = defaultdict(list)
    for key, (group, options, gold) in copies.items():
        members[group].append((key, [tuple(_words(text)) for text in options], gold))
    found: set[Key] = set()
    for one, other in chain.from_iterable(combinations(group, 2) for group in members.values()):
        (key, offered, gold), (other_key, others, other_gold) = one, other
        right, other_right = offered[gold], others[other_gold]
        if right != other_right and (right in others or other_right in offered):
            found |= {key, other_key}
    return found


def _root(first: Sequence[int], index: int) -> int:
    while first[index] != index:
        index = first[index]
    return index


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    """Every three words in a row; all of the words where there are fewer."""
    words = _words(text)
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"[^\W_]+", "".join(c for c in folded if not unicodedata.combining(c)))
