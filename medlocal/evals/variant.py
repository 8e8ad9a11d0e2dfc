"""What is shown of an item: the variant, and the draws that a perturbation makes.

A variant is a stem, labels, options in an order, and what has to be written to name each of them.
`origin` maps what is shown back to the item's own options, so that answers are compared by content
across variants, never by label. This module knows nothing of what perturbations there are, nor of
prompts, formats or models.
"""

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from medlocal.errors import MedlocalError
from medlocal.evals.items import LETTERS, Item, canonical_json

T = TypeVar("T")

Asks = Literal[
    "label", "text", "several", "next_label", "reversed_text", "upper_text", "label_in_words",
    "wrong_labels", "appended",
]  # fmt: skip
"""What the answer must be: the label or the text of the right option, the labels of several options,
or something made from one of them."""

LEVELS = ("none", "mentioned", "example", "strict")
"""How much is said of the form of the answer: nothing, its name, its name with an example, a demand."""

BULLET = "•"
"""Stands before every option where options have no labels."""


class NotApplicableError(MedlocalError):
    """A perturbation that makes no sense of an item; the message says why. The item is passed over."""


@dataclass(frozen=True, slots=True)
class Variant:
    """An item as it is shown after a perturbation."""

    item: Item
    name: str
    """Of the perturbation, or of two of them joined by "+"; "original" = none."""
    version: str
    """Of the perturbation, or of both of them joined by "+": one rises whenever its output changes."""
    seed: int
    """What the perturbation drew from; 0 where it draws nothing."""
    stem: str
    labels: tuple[str, ...]
    """One per slot, all different; or the bullet in every slot, where options have no labels."""
    options: tuple[str, ...]
    """The texts, in the order shown."""
    origin: tuple[int, ...]
    """Per slot, the index in `item.options` of what it shows or stands for; -1 = not one of the item's."""
    gold: int
    """The slot that is right."""
    verified: bool
    """False: the right answer may have changed and nobody checked. Never pooled with verified ones."""
    context: str = ""
    """The passage shown; "" = none."""
    replies: tuple[str, ...] = ()
    """Per slot, what must be written to name it; () = the labels."""
    asks: Asks = "label"
    """What the instruction has to ask for, so that the replies are its answers."""
    wrapper: str = ""
    """How a label is written before its option, as "({label})"; "" = as the prompt does it."""
    level: str = "strict"
    """How much is said of the form of the answer; one of `LEVELS`."""
    language: str = ""
    """Of stem and options; "" = the item's."""
    prompt_language: str = ""
    """Of the prompt and its instruction; "" = the item's."""

    def __post_init__(self) -> None:
        for name, default in (
            ("replies", self.labels),
            ("language", self.item.language),
            ("prompt_language", self.item.language),
        ):
            object.__setattr__(self, name, getattr(self, name) or default)
        lengths = {len(self.labels), len(self.options), len(self.origin), len(self.replies)}
        if lengths != {len(self.options)} or len(self.options) < 2:
            raise ValueError(
                f"variant {self.name!r}: labels, options, origin and replies differ in length"
            )
        if self.has_labels and len(set(self.labels)) != len(self.labels):
            raise ValueError(f"variant {self.name!r}: a label stands twice in {self.labels}")
        own = [index for index in self.origin if index != -1]
        if len(set(own)) != len(own) or not set(own) <= set(range(len(self.item.options))):
            raise ValueError(f"variant {self.name!r}: origin {self.origin} does not fit the item")
        if not 0 <= self.gold < len(self.options):
            raise ValueError(f"variant {self.name!r}: gold slot {self.gold} is outside the options")

    @property
    def has_labels(self) -> bool:
        """False where every option stands behind the same bullet."""
        return set(self.labels) != {BULLET}

    def content(self, slot: int | None) -> int | None:
        """What an answered slot means: the index in `item.options`, or -1 for a text of no option.

        Args:
            slot: where the answer points; None = there is no answer, which means nothing.

        Raises:
            IndexError: there is no such slot. A negative slot is never counted from the end.
        """
        if slot is None:
            return None
        if slot < 0:
            raise IndexError(f"slot {slot} of a variant with {len(self.origin)}")
        return self.origin[slot]


def original(item: Item) -> Variant:
    """The unperturbed variant."""
    num_options = len(item.options)
    return Variant(
        item=item,
        name="original",
        version="1",
        seed=0,
        stem=item.stem,
        labels=tuple(LETTERS[:num_options]),
        options=item.options,
        origin=tuple(range(num_options)),
        gold=item.gold,
        verified=True,
        context=item.context,
    )


def derive_seed(*parts: str) -> int:
    """A seed that depends on all parts, the same on every machine and in every process.

    Returns:
        A whole number from 0 to 2**63 - 1, which SQLite and numpy both hold. The parts are hashed
        as a list: ("ab", "c") and ("a", "bc") give different seeds.
    """
    digest = hashlib.sha256(canonical_json(parts)).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Draw:
    """Random choices that are the same on every machine and with every version of Python.

    Of `random.Random` only `random()` is promised never to change; so nothing else of it is used.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, num_choices: int) -> int:
        """A whole number from 0 to num_choices - 1."""
        return int(self._random.random() * num_choices)

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[self.below(len(choices))]

    def shuffled(self, values: Iterable[T]) -> list[T]:
        """The values in a random order (Fisher and Yates)."""
        drawn = list(values)
        for last in range(len(drawn) - 1, 0, -1):
            other = self.below(last + 1)
            drawn[last], drawn[other] = drawn[other], drawn[last]
        return drawn


@dataclass(frozen=True, slots=True)
class Peers:
    """The other items of a set, which some perturbations take something from."""

    _translations: Mapping[tuple[str, str], Item] = field(default_factory=dict)
    _subjects: Mapping[tuple[str, str, str], tuple[Item, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Iterable[Item]) -> "Peers":
        """Index all items of the sets; a limit must not have cut them, or it would change variants."""
        translations: dict[tuple[str, str], Item] = {}
        subjects: dict[tuple[str, str, str], list[Item]] = {}
        for item in items:
            translations[item.group, item.language] = item
            subjects.setdefault((item.dataset, item.subject, item.language), []).append(item)
        return cls(
            translations,
            {
                key: tuple(sorted(found, key=lambda item: (item.group, item.content_sha256)))
                for key, found in subjects.items()
            },
        )

    def translation(self, item: Item, language: str) -> Item | None:
        """The same question in another language; None = the set has none."""
        return self._translations.get((item.group, language))

    def of_subject(self, item: Item, language: str) -> Iterator[Item]:
        """The other questions of the set on the same subject in a language, in a fixed order."""
        for other in self._subjects.get((item.dataset, item.subject, language), ()):
            if other.group != item.group:
                yield other


NO_PEERS = Peers()
