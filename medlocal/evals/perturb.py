"""Perturbations: pure functions from an item and a seed to a variant of it.

A variant is what is shown: a stem, labels, options in an order. `origin` maps what is shown back to
the item's own options, so that answers are compared by content across variants, never by label. A
perturbation registers itself here with its name, its version and what it does to the gold, and is
reached through `apply` only: a plan names it, a suite lists it, and adding one touches this registry
and nothing else. This module knows nothing of prompts, formats or models.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from medlocal.errors import unknown_name
from medlocal.evals.items import LETTERS, Item, canonical_json


@dataclass(frozen=True, slots=True)
class Variant:
    """An item as it is shown after a perturbation."""

    item: Item
    name: str
    """Of the perturbation; "original" = none."""
    version: int
    """Of the perturbation: it rises whenever its output changes."""
    seed: int
    """What the perturbation drew from; 0 where it draws nothing."""
    stem: str
    labels: tuple[str, ...]
    """One per slot, all different."""
    options: tuple[str, ...]
    """The texts, in the order shown."""
    origin: tuple[int, ...]
    """Per slot, the index in `item.options` of what it shows; -1 = not one of the item's."""
    gold: int
    """The slot that is right."""
    verified: bool
    """False: the right answer may have changed and nobody checked. Never pooled with verified ones."""

    def __post_init__(self) -> None:
        if not len(self.labels) == len(self.options) == len(self.origin) >= 2:
            raise ValueError(f"variant {self.name!r}: labels, options and origin differ in length")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"variant {self.name!r}: a label stands twice in {self.labels}")
        own = [index for index in self.origin if index != -1]
        if len(set(own)) != len(own) or not set(own) <= set(range(len(self.item.options))):
            raise ValueError(f"variant {self.name!r}: origin {self.origin} does not fit the item")
        if not 0 <= self.gold < len(self.options):
            raise ValueError(f"variant {self.name!r}: gold slot {self.gold} is outside the options")

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


@dataclass(frozen=True, slots=True)
class Perturbation:
    """An entry of the registry."""

    name: str
    version: int
    """Rises whenever the output changes for any item: it is part of the job key."""
    family: str
    """Tests on the variants of one family are corrected together (Holm)."""
    gold: str
    """What happens to the gold, in words."""
    is_seeded: bool
    """False: the seed is ignored and recorded as 0, so that no two keys name one variant."""
    build: Callable[["Perturbation", Item, int], Variant]


_registry: dict[str, Perturbation] = {}

PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(_registry)
"""All perturbations by name, in the order in which they are defined."""

Build = Callable[[Perturbation, Item, int], Variant]


def _perturbation(
    name: str, *, version: int, family: str, gold: str, is_seeded: bool
) -> Callable[[Build], Build]:
    """Register the decorated function under a name."""

    def register(build: Build) -> Build:
        if name in _registry:
            raise ValueError(f"two perturbations are called {name!r}")
        _registry[name] = Perturbation(name, version, family, gold, is_seeded, build)
        return build

    return register


def apply(item: Item, name: str = "original", seed: int = 0) -> Variant:
    """Build the variant of an item.

    Args:
        item: the question.
        name: of the perturbation.
        seed: what it may draw from; see `derive_seed`.

    Raises:
        UsageError: no perturbation has that name.
    """
    if name not in PERTURBATIONS:
        raise unknown_name("perturbation", name, PERTURBATIONS)
    perturbation = PERTURBATIONS[name]
    return perturbation.build(perturbation, item, seed if perturbation.is_seeded else 0)


def derive_seed(*parts: str) -> int:
    """A seed that depends on all parts, the same on every machine and in every process.

    Returns:
        A whole number from 0 to 2**63 - 1, which SQLite and numpy both hold. The parts are hashed
        as a list: ("ab", "c") and ("a", "bc") give different seeds.
    """
    digest = hashlib.sha256(canonical_json(parts)).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@_perturbation("original", version=1, family="original", gold="stays in its slot", is_seeded=False)
def _original(perturbation: Perturbation, item: Item, seed: int) -> Variant:
    return Variant(
        item=item,
        name=perturbation.name,
        version=perturbation.version,
        seed=seed,
        stem=item.stem,
        labels=tuple(LETTERS[: len(item.options)]),
        options=item.options,
        origin=tuple(range(len(item.options))),
        gold=item.gold,
        verified=True,
    )
