"""What perturbations do to a model: each variant against the original, and all variants together.

Pure. It knows the families of variants and which of them are meant to leave the answer as it is, and
neither how a variant is made nor how a table looks. Answers are compared by the content chosen,
never by its label. Position bias and obedience to changed instructions have modules of their own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from medlocal.evals.paired import difference_interval
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
    keeps_answer,
    seeded,
)
from medlocal.evals.perturb import ORIGINAL, parse_variant
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import Interval, Rate, bootstrap_mean_difference, mcnemar, wilson

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
    num_verbatim: int
    """Items left out because the variant asks them word for word as the original does, such as
    `gold_at(B)` of an item whose gold stands at B: nothing was perturbed."""
    accuracy: Rate
    """In the variant."""
    original: Rate
    """In the original, on the same items."""
    chance: float | None
    """Accuracy of guessing in the variant, which may have more or fewer options; None where n is 0."""
    original_chance: float | None
    """Accuracy of guessing in the original."""
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
    """Items wrong in both with another content, or with a content in one place only."""
    num_unread: int
    """Items of which the variant's answer chose nothing."""
    num_unread_both: int
    """Items of which neither answer chose anything: they have no content that could flip."""
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
    """Items asked in at least two ways whose answers all count. An item with an answer that does not
    count is left out: on the answers that are left it would pass more easily."""
    fewest: int
    """Different ways in which the item that has fewest was asked; 0 where n is 0. Variants that ask an
    item word for word alike are one way."""
    most: int
    """Different ways in which the item that has most was asked; 0 where n is 0."""
    num_alone: int
    """Items left out because they were asked in one way only."""
    num_incomplete: int
    """Items left out because an answer of theirs does not count."""
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
    """Share of an item's unordered pairs of different questions with the same content, its mean over
    items."""
    low: float | None
    """95 % bootstrap bound of `pairwise`, clustered by source item; None with fewer than two. Where
    all items have the share 0 or all have 1, a bootstrap cannot move: then Wilson's over the items."""
    high: float | None


def variant_effects(answers: Iterable[GradedAnswer]) -> list[VariantEffect]:
    """Each perturbed variant against the original, on the items asked in both, in different words.

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
            asked = list(aligned([original, found]))
            pairs = [pair for pair in asked if not _is_verbatim(*pair)]
            alone = [answer for item, answer in found.items() if item not in original]
            for verified in (True, False):
                chosen = [pair for pair in pairs if _is_verified(pair) == verified]
                if chosen:
                    effect = _effect(subject, variant, chosen)
                    unpaired = sum(answer.verified == verified for answer in alone)
                    num_verbatim = sum(_is_verified(p) == verified for p in asked) - len(chosen)
                    found_effect = replace(effect, unpaired=unpaired, num_verbatim=num_verbatim)
                    effects.append(found_effect)
    adjusted = holm_within([(_family(effect), effect.p) for effect in effects])
    return [replace(effect, p_holm=p) for effect, p in zip(effects, adjusted, strict=True)]


def _family(effect: VariantEffect) -> tuple[object, ...]:
    return *(getattr(effect, name) for name in SUBJECT), effect.family, effect.verified


def _effect(subject: Mapping[str, str], variant: str, pairs: Sequence[Pair]) -> VariantEffect:
    kept = [pair for pair in pairs if all(map(is_counted, pair))]
    n, (b, c, other) = len(kept), _flips(kept)
    before, after = [old.correct for old, _ in kept], [new.correct for _, new in kept]
    verified = _is_verified(pairs[0])
    rng = seeded("variant_effect", *subject.values(), variant, str(verified))
    interval = difference_interval(before, after, [old.group_id for old, _ in kept], rng)
    return VariantEffect(
        **subject,
        variant=variant,
        family=parse_variant(variant).family,
        verified=verified,
        n=n,
        excluded=len(pairs) - n,
        unpaired=0,
        num_verbatim=0,
        accuracy=accuracy([new for _, new in kept]),
        original=accuracy([old for old, _ in kept]),
        chance=guessing([new for _, new in kept]),
        original_chance=guessing([old for old, _ in kept]),
        delta=(c - b) / n if n else None,
        low=interval.low,
        high=interval.high,
        b=b,
        c=c,
        wrong_to_other=other,
        num_unread=sum(new.meaning is None for _, new in kept),
        num_unread_both=sum(map(_are_unread, kept)),
        flip_rate=wilson(b + c + other, n),
        p=mcnemar(b, c) if n else None,
        p_holm=None,
    )


def _is_verified(pair: Pair) -> bool:
    return all(answer.verified for answer in pair)


def _flips(pairs: Sequence[Pair]) -> tuple[int, int, int]:
    """Right to wrong, wrong to right, wrong to another wrong."""
    rights = Counter((old.correct, new.correct) for old, new in pairs)
    stayed_wrong = [pair for pair in pairs if not any(answer.correct for answer in pair)]
    other = sum(not (is_same(*pair) or _are_unread(pair)) for pair in stayed_wrong)
    return rights[True, False], rights[False, True], other


def _are_unread(pair: Pair) -> bool:
    return all(answer.meaning is None for answer in pair)


def _is_verbatim(first: GradedAnswer, second: GradedAnswer) -> bool:
    """Whether both answers are to the same words."""
    return bool(first.messages) and first.messages == second.messages


def guessing(answers: Sequence[GradedAnswer]) -> float | None:
    """The accuracy of choosing an option at random; None without answers."""
    return fmean(1 / answer.num_options for answer in answers) if answers else None


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
        kept = [answer for answer in group if answer.verified and keeps_answer(answer.variant)]
        variants = by_variant(kept)
        items: dict[str, list[GradedAnswer]] = {}
        for found in variants.values():
            for item_id, answer in found.items():
                items.setdefault(item_id, []).append(answer)
        if any(len(of_item) > 1 for of_item in items.values()):
            rows.append(_robustness(subject, tuple(variants), items))
    return rows


def _robustness(
    subject: Mapping[str, str],
    variants: tuple[str, ...],
    items: Mapping[str, Sequence[GradedAnswer]],
) -> Robustness:
    asked = {item_id: _asked_differently(items[item_id]) for item_id in sorted(items)}
    several = {item_id: of_item for item_id, of_item in asked.items() if len(of_item) > 1}
    whole = [i for i, of_item in several.items() if all(map(is_counted, of_item))]
    kept = [several[item_id] for item_id in whole]
    named = [answer for item_id in whole for answer in items[item_id]]
    n, used = len(kept), {answer.variant for answer in named}
    sizes = [len(of_item) for of_item in kept] or [0]
    shares = [_share_of_pairs(of_item) for of_item in kept]
    interval = _share_interval(subject, kept, shares)
    return Robustness(
        **subject,
        variants=tuple(variant for variant in variants if variant in used),
        n=n,
        fewest=min(sizes),
        most=max(sizes),
        num_alone=len(asked) - len(several),
        num_incomplete=len(several) - n,
        num_excluded=sum(not is_counted(a) for of_item in items.values() for a in of_item),
        reacc=wilson(sum(all(a.correct for a in of_item) for of_item in kept), n),
        recon=wilson(sum(share == 1 for share in shares), n),
        worst=_worst(named),
        pairwise=fmean(shares) if shares else None,
        low=interval.low,
        high=interval.high,
    )


def _asked_differently(answers: Sequence[GradedAnswer]) -> list[GradedAnswer]:
    """The answers to an item, one for each wording; where nothing is known of the words, all."""
    return list(
        {answer.messages or answer.variant: answer for answer in reversed(answers)}.values()
    )


def _share_interval(
    subject: Mapping[str, str], kept: Sequence[Sequence[GradedAnswer]], shares: Sequence[float]
) -> Interval | Rate:
    clusters = [of_item[0].group_id for of_item in kept]
    if len(set(clusters)) > 1 and set(shares) in ({0.0}, {1.0}):
        n = len(set(clusters))
        return wilson(n if shares[0] else 0, n)
    return bootstrap_mean_difference(shares, clusters, seeded("robustness", *subject.values()))


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
