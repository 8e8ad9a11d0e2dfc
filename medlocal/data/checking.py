"""Checks of a data set: duplicates, gold letters, option lengths, token lengths, other sets. Pure.

Every check takes items and returns frozen dataclasses of plain values, which `dataclasses.asdict`
makes JSON of. Nothing is judged here and no item is left out: a set that repeats itself or favours a
letter is still a set. It knows neither files nor cards, and a tokenizer only as a function that
counts.
"""

import dataclasses
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medlocal.data.overlap import (
    Overlap,
    Texts,
    find_overlap,
    normalised,
    question_key,
    reference,
)
from medlocal.errors import UsageError
from medlocal.evals.items import LANGUAGES, LETTERS, Item

if TYPE_CHECKING:
    from medlocal.evals.stats import Rate

Count = Callable[[str], int]
"""The number of tokens of a text."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Items of one language that ask the same."""

    language: str
    items: tuple[str, ...]
    """`<split>/<id>`, two or more, in the order of the items."""
    num_splits: int
    """Splits that they stand in; with more than one, what is asked may have been learnt."""
    golds_agree: bool
    """True: the text of the right option is the same in all. For one question asked twice, False
    means that one of the golds is wrong."""


@dataclass(frozen=True, slots=True)
class GoldLetters:
    """Where the gold stands in one language and split."""

    language: str
    split: str
    num_items: int
    counts: Mapping[str, int]
    """By letter, from A to the last letter that any item has."""
    majority_letter: str
    """The most frequent one; of equals, the first."""
    majority: float
    """Share of the items that always answering it gets right."""
    chance: float
    """Share that guessing gets right on average: the mean of one over the number of options."""


@dataclass(frozen=True, slots=True)
class LengthBias:
    """Whether the gold's length gives it away, in one language and split.

    The interval is Wilson's for the nearest whole number of items.
    """

    language: str
    split: str
    longest: "Rate"
    """Share of the items that always choosing the longest option gets right, in characters; of m
    equally long ones each is chosen in one of m cases."""
    shortest: "Rate"
    """The same for the shortest."""
    chance: float
    """What both shares would be if length said nothing: the mean of one over the number of options."""


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Lengths in tokens of context, stem and options, without a prompt around them."""

    num_items: int
    median: float
    p95: int
    """The smallest length that 95 % of the items do not exceed."""
    longest: int
    longest_item: str
    """`<language>/<split>/<id>` of the first item of that length."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is checked of one set."""

    dataset: str
    same_stem: tuple[Duplicate, ...]
    """Items with the same normalised stem; their options may differ, and then they are two questions."""
    same_question: tuple[Duplicate, ...]
    """Items with the same stem, context and options, in whatever order the options stand."""
    gold_letters: tuple[GoldLetters, ...]
    length_bias: tuple[LengthBias, ...]
    token_lengths: Mapping[str, TokenLengths]
    """By language; empty where nothing was given that counts tokens."""
    overlaps: tuple[Overlap, ...]
    """One for each other set and language that both have."""


def check_items(
    items: Sequence[Item], others: Sequence[Item], count: Count | None = None
) -> Report:
    """Run all checks on one set.

    Args:
        items: of one set, in any number of splits and languages.
        others: of any other sets; those of the set itself are passed over.
        count: how many tokens a text has; None = lengths are not measured.

    Raises:
        UsageError: there is no item, or they are of several sets.
    """
    names = sorted({item.dataset for item in items})
    if len(names) != 1:
        raise UsageError(
            f"one set is checked at a time, not {len(names)}: {', '.join(names) or 'no item'}",
            hint="name one set, and the others to compare it with",
        )
    by_language = _by_language(items)
    lengths = (
        {}
        if count is None
        else {language: token_lengths(chosen, count) for language, chosen in by_language.items()}
    )
    return Report(
        dataset=names[0],
        same_stem=find_same_stem(items),
        same_question=find_same_question(items),
        gold_letters=count_gold_letters(items),
        length_bias=measure_length_bias(items),
        token_lengths=lengths,
        overlaps=find_overlaps(items, others),
    )


def find_same_stem(items: Sequence[Item]) -> tuple[Duplicate, ...]:
    """Groups of items of one language whose normalised stems are the same."""
    return _duplicates(items, lambda item: (normalised(item.stem),))


def find_same_question(items: Sequence[Item]) -> tuple[Duplicate, ...]:
    """Groups of items of one language with the same stem, context and options, all normalised."""
    return _duplicates(items, lambda item: question_key(item, normalised(item.stem)))


def count_gold_letters(items: Sequence[Item]) -> tuple[GoldLetters, ...]:
    """The letters of the gold options per language and split, and what they alone would score."""
    return tuple(
        _gold_letters(language, split, chosen)
        for (language, split), chosen in _by_language_and_split(items).items()
    )


def measure_length_bias(items: Sequence[Item]) -> tuple[LengthBias, ...]:
    """How often the gold is the longest and the shortest option, per language and split."""
    return tuple(
        LengthBias(
            language=language,
            split=split,
            longest=_share_of_extreme(chosen, max),
            shortest=_share_of_extreme(chosen, min),
            chance=_chance(chosen),
        )
        for (language, split), chosen in _by_language_and_split(items).items()
    )


def token_lengths(items: Sequence[Item], count: Count) -> TokenLengths:
    """Measure the items' texts: context, stem and options, one a line.

    Args:
        items: one or more.
        count: how many tokens a text has.
    """
    lengths = [count("\n".join(filter(None, _texts(item)))) for item in items]
    longest = max(lengths)
    item = items[lengths.index(longest)]
    return TokenLengths(
        num_items=len(items),
        median=float(statistics.median(lengths)),
        p95=sorted(lengths)[math.ceil(0.95 * len(lengths)) - 1],
        longest=longest,
        longest_item=f"{item.language}/{reference(item)}",
    )


def find_overlaps(items: Sequence[Item], others: Sequence[Item]) -> tuple[Overlap, ...]:
    """What one set shares with each other one, language by language, over all splits.

    Args:
        items: of one set.
        others: of any sets; those of the set itself are passed over.
    """
    own_names = {item.dataset for item in items}
    by_name: dict[str, list[Item]] = defaultdict(list)
    for other in others:
        if other.dataset not in own_names:
            by_name[other.dataset].append(other)
    prepared: dict[str, Texts] = {}
    overlaps = []
    own = _by_language(items)
    for _, of_set in sorted(by_name.items()):
        for language, chosen in _by_language(of_set).items():
            if language in own:
                if language not in prepared:
                    prepared[language] = Texts(own[language])
                overlaps.append(find_overlap(prepared[language], Texts(chosen)))
    return tuple(overlaps)


def _duplicates(
    items: Sequence[Item], key: Callable[[Item], tuple[str, ...]]
) -> tuple[Duplicate, ...]:
    groups: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for item in items:
        groups[item.language, *key(item)].append(item)
    return tuple(
        Duplicate(
            language=group[0].language,
            items=tuple(reference(item) for item in group),
            num_splits=len({item.split for item in group}),
            golds_agree=len({normalised(item.options[item.gold]) for item in group}) == 1,
        )
        for group in groups.values()
        if len(group) > 1
    )


def _gold_letters(language: str, split: str, items: Sequence[Item]) -> GoldLetters:
    golds = Counter(LETTERS[item.gold] for item in items)
    letters = LETTERS[: max(len(item.options) for item in items)]
    majority_letter = max(letters, key=golds.__getitem__)
    return GoldLetters(
        language=language,
        split=split,
        num_items=len(items),
        counts={letter: golds[letter] for letter in letters},
        majority_letter=majority_letter,
        majority=golds[majority_letter] / len(items),
        chance=_chance(items),
    )


def _share_of_extreme(items: Sequence[Item], extreme: Callable[[Sequence[int]], int]) -> "Rate":
    from medlocal.evals.stats import wilson  # it loads numpy

    hits = 0.0
    for item in items:
        lengths = [len(option.strip()) for option in item.options]
        if lengths[item.gold] == extreme(lengths):
            hits += 1 / lengths.count(lengths[item.gold])
    return dataclasses.replace(wilson(round(hits), len(items)), value=hits / len(items))


def _chance(items: Sequence[Item]) -> float:
    return statistics.fmean(1 / len(item.options) for item in items)


def _texts(item: Item) -> tuple[str, ...]:
    return (item.context, item.stem, *item.options)


def _by_language(items: Sequence[Item]) -> dict[str, list[Item]]:
    """The languages that there are, in the order of `LANGUAGES`."""
    found = {language: [i for i in items if i.language == language] for language in LANGUAGES}
    return {language: chosen for language, chosen in found.items() if chosen}


def _by_language_and_split(items: Sequence[Item]) -> dict[tuple[str, str], list[Item]]:
    parts: dict[tuple[str, str], list[Item]] = {}
    for language, of_language in _by_language(items).items():
        for split in sorted({item.split for item in of_language}):
            parts[language, split] = [item for item in of_language if item.split == split]
    return parts
