"""What perturbations do to a model: each variant against the original, and all variants together.

Pure. It knows the families of variants and which of them are meant to leave the answer as it is, and
neither how a variant is made nor how a table looks. Answers are compared by the content chosen,
never by its label. Position bias and obedience to changed instructions have modules of their own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from medlocal.evals.pairing import (
    SUBJECT,
    Subject,
    accuracy,
    aligned,
    by_variant,
    grouped,
    holm_within,
    is_counted,
    is_same,
    seeded,
)
from medlocal.evals.perturb import ORIGINAL, parse_variant
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import Rate, bootstrap_mean_difference, mcnemar, wilson

_CONTROL = "hidden"

Pair = tuple[GradedAnswer, ...]
"""An item's answer in the original and in a variant."""


@dataclass(frozen=True, slots=True)
class VariantEffect(Subject):
    """A variant against the original, paired by item."""

    variant: str
    family: str
    """Of the variant: one of `FAMILIES`, or "two steps"."""
    verified: bool
    """False: nobody checked that these items' gold is still right."""
    n: int
    """Items with a counted answer in both."""
    excluded: int
    """Items with an answer in both, of which one at least is not counted."""
    unpaired: int
    """Items with an answer in the variant and none in the original."""
    accuracy: Rate
    """In the variant."""
    original: Rate
    """In the original, on the same items."""
    delta: float | None
    """Accuracy in the variant minus accuracy in the original; None where n is 0."""
    low: float | None
    """95 % bootstrap bound of delta, clustered by source item; None with fewer than two clusters."""
    high: float | None
    b: int
    """Items right in the original only: right to wrong."""
    c: int
    """Items right in the variant only: wrong to right."""
    wrong_to_other: int
    """Items wrong in both with another content; an invalid answer in either place is another one."""
    num_unread: int
    """Items of which the variant's answer chose nothing."""
    flip_rate: Rate
    """b + c + wrong_to_other of n."""
    p: float | None
    """Exact McNemar; None where n is 0."""
    p_holm: float | None
    """Corrected over the variants of one family in the subject, verified and unverified apart."""

    @property
    def right_to_wrong(self) -> int:
        """Items that the variant turned wrong."""
        return self.b

    @property
    def wrong_to_right(self) -> int:
        """Items that the variant turned right."""
        return self.c


@dataclass(frozen=True, slots=True)
class Robustness(Subject):
    """How a model holds out over all variants of an item that are meant to keep its answer."""

    variants: tuple[str, ...]
    """Those with a counted answer, the original among them if it was asked."""
    n: int
    """Items with at least two counted answers."""
    fewest: int
    """Counted answers of the item that has fewest; 0 where n is 0."""
    most: int
    """Counted answers of the item that has most; 0 where n is 0."""
    num_alone: int
    """Items left out because fewer than two of their answers count."""
    num_excluded: int
    """Answers that do not count, of all items."""
    reacc: Rate
    """Items right in all their variants."""
    recon: Rate
    """Items with the same content in all their variants, right or wrong."""
    worst: tuple[str, Rate] | None
    """The variant with the lowest accuracy, on its items. Its items may be others than those of the
    next variant, and the lowest of many rates is low by chance too. None where n is 0."""
    pairwise: float | None
    """Share of an item's unordered pairs of variants with the same content, its mean over items."""
    low: float | None
    """95 % bootstrap bound of `pairwise`, clustered by source item; None with fewer than two."""
    high: float | None


def variant_effects(answers: Iterable[GradedAnswer]) -> list[VariantEffect]:
    """Each perturbed variant against the original, on the items asked in both.

    One effect per subject, variant and state of verification that has a pair; subjects in their
    order, variants family by family.

    Raises:
        MedlocalError: an item was answered twice in one variant.
        UsageError: a variant's name is unknown.
    """
    effects = []
    for subject, group in grouped(answers, SUBJECT):
        variants = by_variant(group)
        original = variants.pop(ORIGINAL, {})
        for variant, found in variants.items():
            pairs = list(aligned([original, found]))
            alone = [answer for item, answer in found.items() if item not in original]
            for verified in (True, False):
                chosen = [pair for pair in pairs if _is_verified(pair) == verified]
                unpaired = sum(answer.verified == verified for answer in alone)
                if chosen:
                    effects.append(_effect(subject, variant, chosen, unpaired))
    adjusted = holm_within([(_family(effect), effect.p) for effect in effects])
    return [replace(effect, p_holm=p) for effect, p in zip(effects, adjusted, strict=True)]


def _family(effect: VariantEffect) -> tuple[object, ...]:
    return *(getattr(effect, name) for name in SUBJECT), effect.family, effect.verified


def _effect(
    subject: Mapping[str, str], variant: str, pairs: Sequence[Pair], unpaired: int
) -> VariantEffect:
    kept = [pair for pair in pairs if all(map(is_counted, pair))]
    n, (b, c, other) = len(kept), _flips(kept)
    differences = [int(new.correct) - int(old.correct) for old, new in kept]
    verified = _is_verified(pairs[0])
    rng = seeded("variant_effect", *subject.values(), variant, str(verified))
    interval = bootstrap_mean_difference(differences, [old.group_id for old, _ in kept], rng)
    return VariantEffect(
        **subject,
        variant=variant,
        family=parse_variant(variant).family,
        verified=verified,
        n=n,
        excluded=len(pairs) - n,
        unpaired=unpaired,
        accuracy=accuracy([new for _, new in kept]),
        original=accuracy([old for old, _ in kept]),
        delta=(c - b) / n if n else None,
        low=interval.low,
        high=interval.high,
        b=b,
        c=c,
        wrong_to_other=other,
        num_unread=sum(new.meaning is None for _, new in kept),
        flip_rate=wilson(b + c + other, n),
        p=mcnemar(b, c) if n else None,
        p_holm=None,
    )


def _is_verified(pair: Pair) -> bool:
    return all(answer.verified for answer in pair)


def _flips(pairs: Sequence[Pair]) -> tuple[int, int, int]:
    """Right to wrong, wrong to right, wrong to another wrong."""
    rights = Counter((old.correct, new.correct) for old, new in pairs)
    other = sum(not (o.correct or v.correct or is_same(o, v)) for o, v in pairs)
    return rights[True, False], rights[False, True], other


def robustness(answers: Iterable[GradedAnswer]) -> list[Robustness]:
    """Consistency over the original and all verified variants of one step, per subject.

    Three kinds are left out. Variants of the family "answer" measure whether an instruction is
    obeyed, which `obedience` does. `hidden` is a control: without the question, to give the same
    answer is no virtue. Variants of two steps would count their steps again, as many times as they
    were combined. Variants of the family "instruction" are in: the question is the same, and a user
    who says less of the form expects the same answer.

    Raises:
        MedlocalError: an item was answered twice in one variant.
        UsageError: a variant's name is unknown.
    """
    rows = []
    for subject, group in grouped(answers, SUBJECT):
        kept = [answer for answer in group if answer.verified and _keeps_answer(answer.variant)]
        variants = by_variant(kept)
        items: dict[str, list[GradedAnswer]] = {}
        for found in variants.values():
            for item_id, answer in found.items():
                items.setdefault(item_id, []).append(answer)
        if any(len(of_item) > 1 for of_item in items.values()):
            rows.append(_robustness(subject, tuple(variants), items))
    return rows


def _keeps_answer(variant: str) -> bool:
    steps = parse_variant(variant).steps
    return not steps or (
        len(steps) == 1 and steps[0].family != "answer" and steps[0].perturbation.name != _CONTROL
    )


def _robustness(
    subject: Mapping[str, str],
    variants: tuple[str, ...],
    items: Mapping[str, Sequence[GradedAnswer]],
) -> Robustness:
    counted = [list(filter(is_counted, items[item_id])) for item_id in sorted(items)]
    kept = [of_item for of_item in counted if len(of_item) > 1]
    n, used = len(kept), {answer.variant for of_item in kept for answer in of_item}
    sizes = [len(of_item) for of_item in kept] or [0]
    shares = [_share_of_pairs(of_item) for of_item in kept]
    rng = seeded("robustness", *subject.values())
    interval = bootstrap_mean_difference(shares, [of_item[0].group_id for of_item in kept], rng)
    return Robustness(
        **subject,
        variants=tuple(variant for variant in variants if variant in used),
        n=n,
        fewest=min(sizes),
        most=max(sizes),
        num_alone=len(counted) - n,
        num_excluded=sum(map(len, items.values())) - sum(map(len, counted)),
        reacc=wilson(sum(all(a.correct for a in of_item) for of_item in kept), n),
        recon=wilson(sum(share == 1 for share in shares), n),
        worst=_worst([answer for of_item in kept for answer in of_item]),
        pairwise=fmean(shares) if shares else None,
        low=interval.low,
        high=interval.high,
    )


def _share_of_pairs(answers: Sequence[GradedAnswer]) -> float:
    """The share of unordered pairs with the same content; 1 if and only if all have it."""
    alike = Counter(answer.meaning for answer in answers if answer.meaning is not None)
    num_same = sum(count * (count - 1) for count in alike.values())
    return num_same / (len(answers) * (len(answers) - 1))


def _worst(answers: Sequence[GradedAnswer]) -> tuple[str, Rate] | None:
    variants: dict[str, list[GradedAnswer]] = {}
    for answer in answers:
        variants.setdefault(answer.variant, []).append(answer)
    rates = [(variant, accuracy(found)) for variant, found in variants.items()]
    return min(rates, key=lambda entry: (entry[1].value, entry[0]), default=None)
