"""How much of a set stands in another one: the same stems, the same questions, shared 13-grams. Pure.

Texts are compared within one language, whatever the splits, and never two by two: stems are looked
up by their normalised text, 13-grams of words by a 64-bit hash in a sorted array, so that 12,000
against 8,000 items are a matter of seconds. It knows nothing of files, cards or models, and not
whether a model has seen either set: it says what two sets share, not what that does to a score.

Stems that lie inside other stems are not looked for apart: all the 13-grams of the inner one are
found in the outer one, and some of the outer one's in the inner.
"""

import re
import unicodedata
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from medlocal.evals.items import Item

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NGRAM = 13
"""Words of an n-gram: the most that T. B. Brown et al., Language Models are Few-Shot Learners (2020),
appendix C, take to find test questions in training text."""
OPENING = 120
"""Characters of a normalised stem that its opening has: it outlives a slip later in the stem."""
HALF, MOST = 0.5, 0.8
"""Shares of an item's n-grams at which it is counted again."""

STEM = "stem"
QUESTION = "question"
STEM_OPENING = "opening"
NGRAM_ANY = "13-grams, at least one"
NGRAM_HALF = "13-grams, half"
NGRAM_MOST = "13-grams, four in five"
RULES = (QUESTION, STEM, STEM_OPENING, NGRAM_MOST, NGRAM_HALF, NGRAM_ANY)
"""What counts as found: `question` is the stem with its context and its options in any order. The
stricter come first, but a short stem such as "Which is true?" is the same in many questions, and a
single 13-gram is also shared by vignettes that state vital signs in a set formula: 161 of MedQA's
1,273 test items share one with MMLU, and none of them half of its own."""

_WORD = re.compile(r"[^\W_]+")
_ACCENT = re.compile("[\u0300-\u036f]+")
"""Combining marks of the Latin script."""
_MULTIPLIER = 0x9E3779B97F4A7C15
"""Odd: multiplying by it loses no bits of 64. It is 2**64 over the golden ratio."""


@dataclass(frozen=True, slots=True)
class Shared:
    """How many items are found in the other set by one rule."""

    rule: str
    """One of `RULES`."""
    num_items: int
    """Items found."""
    num_distinct: int
    """Distinct ones among them: questions, openings, or else stems."""
    out_of: int
    """Distinct ones of the whole set; for the 13-grams, of the items that have one."""


@dataclass(frozen=True, slots=True)
class Match:
    """One item that is found, with the strictest rule that finds it."""

    item: str
    """`<split>/<id>`."""
    other: str
    """`<split>/<id>` of the first such item of the other set; for 13-grams, of the one with the most
    of them, where a 13-gram of several items counts for the first of these."""
    rule: str
    share: float | None
    """Of the item's 13-grams, those found anywhere in the other set; None where it has none."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What one set shares with another in one language."""

    other: str
    """The other set's id."""
    language: str
    num_items: int
    num_other_items: int
    num_without_ngrams: int
    """Items none of whose texts has 13 words."""
    shared: tuple[Shared, ...]
    """One for each of `RULES`, in their order."""
    matches: tuple[Match, ...]
    """In the order of the items."""


class Texts:
    """The items of one set and one language, prepared to be compared with any number of others."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)
        self.stems = [normalised(item.stem) for item in items]
        self.openings = [stem[:OPENING] for stem in self.stems]
        self.questions = [
            question_key(item, stem) for item, stem in zip(items, self.stems, strict=True)
        ]
        self.grams, self.owners = _ngrams(items)
        """Hashes (num_grams,) and the index of the item of each, which does not decrease."""


def find_overlap(texts: Texts, others: Texts) -> Overlap:
    """What items share with those of another set; both of one language, and neither empty."""
    shares, nearest = _ngram_shares(texts, others)
    half, most = (_at_least(threshold, shares, nearest) for threshold in (HALF, MOST))
    found = {
        QUESTION: _found(texts.questions, others.questions),
        STEM: _found(texts.stems, others.stems),
        STEM_OPENING: _found(texts.openings, others.openings),
        NGRAM_MOST: most,
        NGRAM_HALF: half,
        NGRAM_ANY: nearest,
    }
    with_ngrams = [
        None if share is None else stem for stem, share in zip(texts.stems, shares, strict=True)
    ]
    keys: dict[str, Sequence[object]] = dict.fromkeys(RULES, with_ngrams)
    keys |= {QUESTION: texts.questions, STEM: texts.stems, STEM_OPENING: texts.openings}
    return Overlap(
        other=others.items[0].dataset,
        language=texts.items[0].language,
        num_items=len(texts.items),
        num_other_items=len(others.items),
        num_without_ngrams=shares.count(None),
        shared=tuple(_shared(rule, keys[rule], found[rule]) for rule in RULES),
        matches=tuple(_matches(texts, others, found, shares)),
    )


def normalised(text: str) -> str:
    """A text without what differs between two copies of it.

    Compatibility forms (NFKC) and case are folded, and accents too: copies of one exam drop them at
    will. Only letters and digits stay: "HLA-DQ 8" is "hladq8". Between two digits a space stands for
    whatever was there, so that 1.5 is not 15. Signs go: "< 4" and "> 4" become the same. A text that
    has neither letters nor digits stays as it is but for spacing.
    """
    # A space stays only where digits stand on both sides.
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(_words(text))) or "".join(text.split())


def question_key(item: Item, stem: str) -> tuple[str, ...]:
    """What two items have in common that ask the same: stem, context, and options in any order.

    Args:
        item: the item.
        stem: its normalised stem.
    """
    return (stem, normalised(item.context), *sorted(map(normalised, item.options)))


def reference(item: Item) -> str:
    """How reports name an item of a set and language: `<split>/<id>`."""
    return f"{item.split}/{item.id}"


def _words(text: str) -> list[str]:
    """Runs of letters and digits, folded as `normalised` says."""
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    return _WORD.findall(_ACCENT.sub("", folded))


def _found(keys: Sequence[object], others: Sequence[object]) -> list[int | None]:
    """For each key the first place where the other set has it; None where it has not."""
    places: dict[object, int] = {}
    for place, key in enumerate(others):
        places.setdefault(key, place)
    return [places.get(key) for key in keys]


def _at_least(
    threshold: float, shares: Sequence[float | None], nearest: Sequence[int | None]
) -> list[int | None]:
    return [
        place if share is not None and share >= threshold else None
        for share, place in zip(shares, nearest, strict=True)
    ]


def _shared(rule: str, keys: Sequence[object], found: Sequence[int | None]) -> Shared:
    """Count; a key of None is that of an item which the rule does not apply to."""
    kept = [key for key, place in zip(keys, found, strict=True) if place is not None]
    return Shared(rule, len(kept), len(set(kept)), len(set(keys) - {None}))


def _matches(
    texts: Texts,
    others: Texts,
    found: Mapping[str, Sequence[int | None]],
    shares: Sequence[float | None],
) -> Iterator[Match]:
    for number, item in enumerate(texts.items):
        for rule in RULES:
            if (place := found[rule][number]) is not None:
                other = reference(others.items[place])
                yield Match(reference(item), other, rule, shares[number])
                break


def _ngram_shares(texts: Texts, others: Texts) -> tuple[list[float | None], list[int | None]]:
    """Per item, the share of its n-grams that the others have, and which other counts for the most.

    Both are None for an item without n-grams, the second also where none of them is found.
    """
    import numpy as np

    num_items, num_others = len(texts.items), len(others.items)
    # An n-gram of several other items counts for the first of them.
    known, first = np.unique(others.grams, return_index=True)
    places = np.searchsorted(known, texts.grams)
    is_known = np.zeros(len(texts.grams), dtype=bool)
    inside = places < len(known)
    is_known[inside] = known[places[inside]] == texts.grams[inside]
    totals = np.bincount(texts.owners, minlength=num_items)
    hits = np.bincount(texts.owners[is_known], minlength=num_items)
    shares = [
        float(hit / total) if total else None for hit, total in zip(hits, totals, strict=True)
    ]
    pairs = texts.owners[is_known] * num_others + others.owners[first[places[is_known]]]
    pairs, counts = np.unique(pairs, return_counts=True)
    nearest: list[int | None] = [None] * num_items
    # In order of rising counts, the last one written is the best; of equals, the first other.
    for index in np.lexsort((-pairs, counts)):
        owner, other = divmod(int(pairs[index]), num_others)
        nearest[owner] = other
    return shares, nearest


def _ngrams(items: Sequence[Item]) -> tuple["NDArray[np.uint64]", "NDArray[np.int64]"]:
    """Hashes of the n-grams of all texts, and the index of the item that each belongs to.

    An n-gram lies within the stem, the context or one option, so that the order of the options does
    not matter. Its hash is a polynomial modulo 2**64 in the hashes of its words.
    """
    import numpy as np

    words, sizes, owners = _hashed_words(items)
    segments = np.repeat(np.arange(len(sizes)), np.array(sizes, dtype=np.int64))
    hashes = np.array(words, dtype=np.uint64)
    num_grams = max(0, len(hashes) - NGRAM + 1)  # those that cross from text to text included
    grams = np.zeros(num_grams, dtype=np.uint64)
    for place in range(NGRAM):
        grams = grams * np.uint64(_MULTIPLIER) + hashes[place : place + num_grams]
    is_within = segments[:num_grams] == segments[len(segments) - num_grams :]
    owner_of = np.array(owners, dtype=np.int64)
    return grams[is_within], owner_of[segments[:num_grams][is_within]]


def _hashed_words(items: Sequence[Item]) -> tuple["array[int]", "array[int]", "array[int]"]:
    """The hashes of all words in a row; the number of words and the item's index of each text."""
    words, sizes, owners = array("Q"), array("q"), array("q")
    hashed: dict[str, int] = {}
    for owner, item in enumerate(items):
        for text in (item.stem, item.context, *item.options):
            found = _words(text)
            for word in found:
                if word not in hashed:
                    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                    hashed[word] = int.from_bytes(digest, "little")
                words.append(hashed[word])
            sizes.append(len(found))
            owners.append(owner)
    return words, sizes, owners
