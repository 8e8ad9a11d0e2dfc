"""Perturbed items: one step, or two steps of different families, by name.

A plan names variants, a suite lists them; adding a perturbation touches the module of its kind and
nothing else. Which two steps may follow each other is data, and a refused pair says why. This module
knows nothing of prompts, formats or models.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from medlocal.catalog import data_root
from medlocal.errors import MissingError, UsageError
from medlocal.evals import ordering, replying, rewriting
from medlocal.evals.items import Item
from medlocal.evals.steps import FAMILIES, JOINT, REGISTERED, Perturbation, Step, parse_step
from medlocal.evals.variant import NO_PEERS, Draw, NotApplicableError, Peers, Variant, derive_seed
from medlocal.evals.variant import original as _original

__all__ = [
    "ORIGINAL",
    "PERTURBATIONS",
    "NotApplicableError",
    "Peers",
    "Variant",
    "VariantName",
    "apply",
    "derive_seed",
    "example_of",
    "parse_variant",
]

ORIGINAL = "original"
TWO_STEPS = "two steps"
"""The family of variants of two steps."""
PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    dict(sorted(REGISTERED.items(), key=lambda entry: FAMILIES.index(entry[1].family)))
)
"""All perturbations by name, family by family; "original" is none of them."""
_KINDS = (ordering, replying, rewriting)
"""Imported for what they register."""


@dataclass(frozen=True, slots=True)
class VariantName:
    """What the name of a variant says."""

    steps: tuple[Step, ...]
    """In the order in which they are taken; none for the original."""

    @property
    def name(self) -> str:
        """The one spelling of the name."""
        return JOINT.join(step.name for step in self.steps) or ORIGINAL

    @property
    def version(self) -> str:
        """Of its steps."""
        return JOINT.join(str(step.perturbation.version) for step in self.steps) or "1"

    @property
    def family(self) -> str:
        """Of its step; "original", or "two steps"."""
        if len(self.steps) > 1:
            return TWO_STEPS
        return self.steps[0].family if self.steps else ORIGINAL

    @property
    def needs_peers(self) -> bool:
        """True where a step takes something from the set's other items."""
        return any(step.perturbation.needs_peers for step in self.steps)

    @property
    def is_seeded(self) -> bool:
        """True where another seed may give another variant."""
        return any(step.perturbation.is_seeded for step in self.steps)


@lru_cache(maxsize=4096)
def parse_variant(text: str) -> VariantName:
    """Read the name of a variant: `original`, one perturbation, or two joined by "+" in any order.

    Raises:
        UsageError: a name is unknown, or the two do not go together; the message says why.
    """
    if text == ORIGINAL:
        return VariantName(())
    steps = [parse_step(part) for part in text.split(JOINT)]
    if len(steps) > 2:
        raise UsageError(f"variant {text!r}: two steps at most")
    steps.sort(key=lambda step: FAMILIES.index(step.family))
    if len(steps) == 2 and (why := refusal(steps[0], steps[1])):
        raise UsageError(f"variant {text!r}: {why}", hint="see `medlocal perturbations --pairs`")
    return VariantName(tuple(steps))


def apply(item: Item, name: str = ORIGINAL, seed: int = 0, peers: Peers = NO_PEERS) -> Variant:
    """Build a variant of an item.

    Every step draws from a seed of its own, made from the source item, the step and `seed`: a step
    draws the same alone and as one of two, and the same in both languages of an item.

    Args:
        item: the question.
        name: of the variant; see `parse_variant`.
        seed: of the run; another one gives other draws.
        peers: the set's other items, for the perturbations that take something from them.

    Raises:
        UsageError: no variant has that name.
        NotApplicableError: it makes no sense of this item; the message says why.
    """
    named = parse_variant(name)
    variant = _original(item)
    for step in named.steps:
        variant = _taken(variant, step, seed, peers)
    return replace(
        variant, name=named.name, version=named.version, seed=seed if named.is_seeded else 0
    )


def example_of(item: Item, name: str, seed: int = 0, peers: Peers = NO_PEERS) -> Variant:
    """A few-shot example for questions in a variant: its answer has the form that they ask for.

    Only the steps that shape answers are taken; the example's content stays as it is. Where the parallel
    item is asked, the example is the parallel one too: it must speak the language of the prompt.

    Raises:
        NotApplicableError: a step makes no sense of the example.
    """
    variant = _original(item)
    for step in parse_variant(name).steps:
        if step.perturbation.shapes_answer:
            try:
                variant = _taken(variant, step, seed, peers)
            except NotApplicableError as refused:
                raise NotApplicableError(f"of an example: {refused.message}") from refused
    return variant


def _taken(variant: Variant, step: Step, seed: int, peers: Peers) -> Variant:
    draw = Draw(derive_seed(variant.item.group, step.name, str(seed)))
    return step.perturbation.change(variant, step.argument, draw, peers)


def refusal(first: Step, second: Step) -> str:
    """Why one step may not follow another; "" = it may. See `pairs.toml`."""
    if first.family == second.family:
        return f"both change the {first.family}: two steps must be of different families"
    for rule in _refused():
        if rule.fits(first, second):
            return rule.why
    return ""


@dataclass(frozen=True, slots=True)
class _Rule:
    """A line of the table: names of steps, of perturbations or of families, and why not."""

    first: frozenset[str]
    second: frozenset[str]
    why: str

    def fits(self, first: Step, second: Step) -> bool:
        ahead, behind = (
            {step.name, step.perturbation.name, step.family} for step in (first, second)
        )
        return bool(
            (ahead & self.first and behind & self.second)
            or (ahead & self.second and behind & self.first)
        )


def refused_pairs() -> list[tuple[str, str, str]]:
    """The table of pairs that do not go together: (names, other names, why) per line of it."""
    return [
        (", ".join(sorted(rule.first)), ", ".join(sorted(rule.second)), rule.why)
        for rule in _refused()
    ]


@lru_cache(maxsize=1)
def _refused() -> tuple[_Rule, ...]:
    """The table of pairs, checked: every name in it is one of ours."""
    path = data_root() / "benchmarks" / "perturbations" / "pairs.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    return tuple(_rule(str(path), rule) for rule in values.get("refused", []))


def _rule(where: str, values: Mapping[str, object]) -> _Rule:
    first, second, why = (values.get(key) for key in ("first", "second", "why"))
    if not (isinstance(first, list) and isinstance(second, list) and isinstance(why, str) and why):
        raise UsageError(f"{where}: a refused pair needs the lists first and second, and why")
    for name in (*first, *second):
        if name not in FAMILIES and name not in PERTURBATIONS:
            parse_step(name)
    return _Rule(frozenset(first), frozenset(second), why)
