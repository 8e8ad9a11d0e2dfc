"""The registry of perturbations: what each is called, what it does to the gold, how answers map back.

A perturbation changes one variant into another. It registers itself here with its name, version and
family, and takes its draws from a seed and nothing else. A name may carry an argument, as in
`rotate(2)`. This module knows how steps are named and ordered, and not what any of them does.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from medlocal.errors import UsageError, unknown_name
from medlocal.evals.variant import Draw, Peers, Variant

FAMILIES = ("language", "option", "question", "order", "label", "instruction", "answer")
"""In the order in which two steps are taken: content first, then order, then labels, then the answer."""

JOINT = "+"
"""Stands between the names of two steps."""

_NAME = re.compile(r"(?P<name>[a-z_]+)(?:\((?P<argument>.+)\))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Perturbation:
    """An entry of the registry."""

    name: str
    version: int
    """Rises whenever the output changes for any item: it is part of the job key."""
    family: str
    """One of `FAMILIES`. Tests on the variants of one family are corrected together (Holm)."""
    does: str
    """What changes, in words."""
    gold: str
    """What happens to the gold, in words."""
    back: str
    """How an answer is mapped back to the item's own options, in words."""
    is_seeded: bool
    """False: the seed is ignored and recorded as 0, so that no two keys name one variant."""
    shapes_answer: bool
    """True: few-shot examples must be changed in the same way, or their answers contradict it."""
    needs_peers: bool
    """True: it takes something from the set's other items."""
    arguments: tuple[str, ...]
    """Those that may stand in the brackets, or examples where `reads` takes others; () = none."""
    reads: Callable[[str], str] | None
    """Checks an argument and returns its one spelling; None = only `arguments` may stand there."""
    change: "Change"


Change = Callable[[Variant, str, Draw, Peers], Variant]
"""From a variant, the argument, the draws and the set's other items to the changed variant.

It raises `NotApplicableError` where it makes no sense of the item. It sets neither name, version nor
seed, and never `verified` to True."""

_registry: dict[str, Perturbation] = {}

REGISTERED: Mapping[str, Perturbation] = MappingProxyType(_registry)
"""The perturbations of the modules that were imported, in the order in which that happened; for all of
them in a fixed order see `perturb.PERTURBATIONS`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One perturbation with its argument."""

    perturbation: Perturbation
    argument: str
    """"" = it takes none."""

    @property
    def name(self) -> str:
        """As it is written: `rotate(2)`."""
        return (
            f"{self.perturbation.name}({self.argument})"
            if self.argument
            else self.perturbation.name
        )

    @property
    def family(self) -> str:
        """Of the perturbation."""
        return self.perturbation.family


def perturbation(
    name: str,
    *,
    family: str,
    does: str,
    gold: str,
    back: str,
    version: int = 1,
    is_seeded: bool = False,
    shapes_answer: bool = False,
    needs_peers: bool = False,
    arguments: tuple[str, ...] = (),
    reads: Callable[[str], str] | None = None,
) -> Callable[[Change], Change]:
    """Register the decorated function under a name; the arguments are the fields of `Perturbation`."""

    def register(change: Change) -> Change:
        if name in _registry or family not in FAMILIES:
            raise ValueError(f"perturbation {name!r} of {family!r}: taken, or no such family")
        _registry[name] = Perturbation(
            name=name,
            version=version,
            family=family,
            does=does,
            gold=gold,
            back=back,
            is_seeded=is_seeded,
            shapes_answer=shapes_answer,
            needs_peers=needs_peers,
            arguments=arguments,
            reads=reads,
            change=change,
        )
        return change

    return register


def parse_step(text: str) -> Step:
    """Read the name of one perturbation, with its argument.

    Raises:
        UsageError: there is none of that name, or it does not take that argument.
    """
    found = _NAME.fullmatch(text)
    name, argument = (found["name"], found["argument"] or "") if found else (text, "")
    if name not in REGISTERED:
        raise unknown_name("perturbation", name, ["original", *REGISTERED])
    known = REGISTERED[name]
    return Step(known, _checked(known, text, argument))


def _checked(known: Perturbation, text: str, argument: str) -> str:
    if not known.arguments:
        if argument:
            raise UsageError(f"perturbation {known.name!r} takes no argument, not {argument!r}")
        return ""
    if known.reads is not None and argument:
        return known.reads(argument)
    if argument not in known.arguments:
        raise UsageError(
            f"perturbation {text!r}: {argument!r} cannot stand in the brackets",
            hint="write "
            + ", ".join(f"{known.name}({known_one})" for known_one in known.arguments),
        )
    return argument
