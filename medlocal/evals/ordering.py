"""Perturbations of order and labels: the same options in other slots, or under other labels.

What is asked stays as it is. `rotate` over every k is what the literature calls CircularEval. The
text of a stem is never looked at here, and of the options only whether one names others by their labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from medlocal.errors import UsageError
from medlocal.evals.crossreferences import names_labels
from medlocal.evals.items import LETTERS
from medlocal.evals.steps import perturbation
from medlocal.evals.variant import BULLET, Draw, NotApplicableError, Peers, Variant

_NUMBER_OF_OPTIONS = len(LETTERS)

LABELS: Mapping[str, tuple[str, ...]] = {
    "digits": ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10"),
    "roman": ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X"),
    "lower": tuple(LETTERS.lower()),
    "greek": ("α", "β", "γ", "δ", "ε", "ζ", "η", "θ", "ι", "κ"),
    "bullets": (BULLET,) * _NUMBER_OF_OPTIONS,
}
"""The labels of ten slots, by kind."""

WRAPPERS: Mapping[str, str] = {
    "(A)": "({label})",
    "A.": "{label}.",
    "A)": "{label})",
    "[A]": "[{label}]",
    "A:": "{label}:",
}
"""How a label is written before its option, by how it looks on an A."""

_BY_CONTENT = "slot to option by the order shown"


def moved(variant: Variant, order: Sequence[int]) -> Variant:
    """The variant with its options in another order; the labels stay where they are.

    Args:
        variant: before any change of labels, so that its replies are its labels.
        order: per new slot, the slot whose option comes there.

    Raises:
        NotApplicableError: an option names others by their labels, which would be others then.
    """
    _check_names_none(variant)
    return replace(
        variant,
        options=tuple(variant.options[slot] for slot in order),
        origin=tuple(variant.origin[slot] for slot in order),
        gold=list(order).index(variant.gold),
    )


def _check_names_none(variant: Variant) -> None:
    if names_labels(variant.options):
        raise NotApplicableError("an option names other options by their labels")


@perturbation(
    "shuffle",
    family="order",
    does="puts the options into another order, never the one they have",
    gold="moves with its option",
    back=_BY_CONTENT,
    is_seeded=True,
)
def _shuffle(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    same = list(range(len(variant.options)))
    order = draw.shuffled(same)
    while order == same:
        order = draw.shuffled(same)
    return moved(variant, order)


def _read_rotation(argument: str) -> str:
    if argument in tuple("123456789"):
        return argument
    raise UsageError(f"rotate({argument}): options rotate by 1 to 9 places")


@perturbation(
    "rotate",
    family="order",
    does="moves every option k slots down; the last ones come first",
    gold="moves with its option",
    back=_BY_CONTENT,
    arguments=("1", "2", "3"),
    reads=_read_rotation,
)
def _rotate(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return _rotated(variant, int(argument))


def _rotated(variant: Variant, places: int) -> Variant:
    num_options = len(variant.options)
    if places % num_options == 0:
        raise NotApplicableError(f"{num_options} options rotated by {places} stand as before")
    return moved(variant, [(slot - places) % num_options for slot in range(num_options)])


def _read_slot(argument: str) -> str:
    if len(argument) == 1 and argument.upper() in LETTERS:
        return argument.upper()
    raise UsageError(f"gold_at({argument}): a slot is a letter from A to {LETTERS[-1]}")


@perturbation(
    "gold_at",
    family="order",
    does="rotates the options until the right one stands in the given slot",
    gold="stands in that slot",
    back=_BY_CONTENT,
    arguments=("A", "B", "C", "D"),
    reads=_read_slot,
)
def _gold_at(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    # Rotated and not swapped: a swap leaves most options where they are, so that a model that always
    # answers A would name the same distractor again and again and look consistent.
    slot = LETTERS.index(argument)
    if slot >= len(variant.options):
        raise NotApplicableError(f"there is no slot {argument} with {len(variant.options)} options")
    places = (slot - variant.gold) % len(variant.options)
    return _rotated(variant, places) if places else variant


@perturbation(
    "labels",
    family="label",
    does="gives the options other labels; with bullets they have none, and their texts are asked for",
    gold="stays in its slot",
    back="label, or text, to slot",
    arguments=tuple(LABELS),
    shapes_answer=True,
)
def _labels(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    _check_names_none(variant)
    labels = LABELS[argument][: len(variant.options)]
    if argument != "bullets":
        return replace(variant, labels=labels, replies=labels)
    return replace(variant, labels=labels, replies=variant.options, asks="text", wrapper="{label}")


@perturbation(
    "label_style",
    family="label",
    does="writes the labels in another way; the answer is still the bare label",
    gold="stays in its slot",
    back="label to slot",
    arguments=tuple(WRAPPERS),
    shapes_answer=True,
)
def _label_style(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return replace(variant, wrapper=WRAPPERS[argument])
