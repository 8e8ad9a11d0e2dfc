"""Whether a model prefers a place: accuracy by where the right option stands, and what it chooses.

Pure. It knows slots and the variants that move options, and nothing of what is asked. A preference
for a place shows only where the right option stands in several of them for the same items, which
the variants of order see to.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medlocal.evals.pairing import SUBJECT, Subject, by_variant, grouped, is_counted, seeded
from medlocal.evals.perturb import ORIGINAL, parse_variant
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import Rate, clustered_wilson, percentile_interval, resample_totals


@dataclass(frozen=True, slots=True)
class PositionBias(Subject):
    """The original and the variants that move options, by slot.

    Neither `rstd` nor `total_variation` is 0 for a model without bias: finite numbers of answers
    differ by chance, and both can only be positive. An interval that does not hold 0 proves nothing;
    compare models, or arms, on the same items.
    """

    num_slots: int
    """Options of the items counted: the most common number."""
    num_other: int
    """Items left out because they have another number of options."""
    n: int
    """Counted answers: up to as many per item as there are variants."""
    excluded: int
    """Answers to these items that do not count."""
    coverage: float | None
    """Share of n that chose a slot; None where n is 0."""
    recalls: tuple[Rate, ...]
    """Per slot, accuracy where the right option stands there. The bounds allow for the answers of
    one item being alike."""
    gold_shares: tuple[float, ...]
    """Per slot, how often the right option stands there, of the answers that chose a slot; () = none
    did."""
    chosen_shares: tuple[float, ...]
    """Per slot, how often it is chosen, of the same answers."""
    rstd: float | None
    """Standard deviation of the recalls over the slots that were gold; None with fewer than two."""
    rstd_low: float | None
    """95 % bootstrap bound, clustered by source item; None with fewer than two clusters."""
    rstd_high: float | None
    total_variation: float | None
    """Half the sum of |chosen share - gold share|: 0 = chosen as often as right, 1 = always elsewhere.
    None where no slot was chosen."""
    total_variation_low: float | None
    """95 % bootstrap bound, clustered by source item; None with fewer than two clusters."""
    total_variation_high: float | None


def position_bias(answers: Iterable[GradedAnswer]) -> list[PositionBias]:
    """Accuracy and choices by slot, over the original and the verified variants of order, per subject.

    Subjects of which no variant of order was asked are in too: the original alone shows how often
    each slot is chosen.

    `rstd` is the population form (divided by the number of slots) of the standard deviation of
    recalls. Source: C. Zheng, H. Zhou, F. Meng, J. Zhou and M. Huang, Large language models are not
    robust multiple choice selectors, ICLR 2024.

    Raises:
        MedlocalError: an item was answered twice in one variant.
        UsageError: a variant's name is unknown.
    """
    rows = []
    for subject, group in grouped(answers, SUBJECT):
        kept = [answer for answer in group if answer.verified and _moves_only(answer.variant)]
        variants = by_variant(kept).values()
        if ordered := [found[item] for found in variants for item in sorted(found)]:
            rows.append(_bias(subject, ordered))
    return rows


def _moves_only(variant: str) -> bool:
    return parse_variant(variant).family in {ORIGINAL, "order"}


def _bias(subject: Mapping[str, str], answers: Sequence[GradedAnswer]) -> PositionBias:
    num_slots = _usual_number(answers)
    kept = [answer for answer in answers if answer.num_options == num_slots]
    counted = [answer for answer in kept if is_counted(answer)]
    # The answers as (answers, gold slot, chosen slot); the last place of the latter is "none".
    cells = np.zeros((len(counted), num_slots, num_slots + 1))
    for cell, answer in zip(cells, counted, strict=True):
        cell[answer.gold_slot, num_slots if answer.slot is None else answer.slot] = 1
    counts, n = cells.sum(axis=0), len(counted)
    clusters = [answer.group_id for answer in counted]
    rng = seeded("position_bias", *subject.values())
    flat = cells.reshape(n, num_slots * (num_slots + 1))
    resampled = resample_totals(flat, clusters, rng).reshape(-1, num_slots, num_slots + 1)
    rstd = percentile_interval(_rstd(resampled))
    variation = percentile_interval(_total_variation(resampled))
    return PositionBias(
        **subject,
        num_slots=num_slots,
        num_other=len({a.item_id for a in answers} - {a.item_id for a in kept}),
        n=n,
        excluded=len(kept) - n,
        coverage=float(counts[:, :num_slots].sum()) / n if n else None,
        recalls=tuple(_recall(counted, slot) for slot in range(num_slots)),
        gold_shares=_shares(counts[:, :num_slots].sum(axis=1)),
        chosen_shares=_shares(counts[:, :num_slots].sum(axis=0)),
        rstd=_number(_rstd(counts)),
        rstd_low=rstd.low,
        rstd_high=rstd.high,
        total_variation=_number(_total_variation(counts)),
        total_variation_low=variation.low,
        total_variation_high=variation.high,
    )


def _usual_number(answers: Sequence[GradedAnswer]) -> int:
    """The number of options that most items have; of several, the smallest."""
    numbers = Counter({answer.item_id: answer.num_options for answer in answers}.values())
    return min(numbers, key=lambda number: (-numbers[number], number))


def _recall(answers: Sequence[GradedAnswer], slot: int) -> Rate:
    found = [answer for answer in answers if answer.gold_slot == slot]
    sizes = Counter(answer.group_id for answer in found)
    return clustered_wilson(sum(answer.correct for answer in found), list(sizes.values()))


def _rstd(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """From (..., gold, chosen or none) to (...); NaN where fewer than two slots were gold."""
    num_slots = counts.shape[-2]
    golds = counts.sum(axis=-1)
    hits = np.diagonal(counts[..., :num_slots], axis1=-2, axis2=-1)
    was_gold = golds > 0
    num_gold = np.maximum(was_gold.sum(axis=-1), 1)
    recalls = hits / np.maximum(golds, 1)
    mean = recalls.sum(axis=-1) / num_gold
    squares = np.where(was_gold, (recalls - mean[..., np.newaxis]) ** 2, 0).sum(axis=-1)
    return np.where(was_gold.sum(axis=-1) < 2, np.nan, np.sqrt(squares / num_gold))


def _total_variation(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """From (..., gold, chosen or none) to (...); NaN where no slot was chosen."""
    valid = counts[..., : counts.shape[-2]]
    apart = np.abs(valid.sum(axis=-2) - valid.sum(axis=-1)).sum(axis=-1)
    num_valid = valid.sum(axis=(-2, -1))
    return np.where(num_valid == 0, np.nan, apart / np.maximum(2 * num_valid, 1))


def _shares(counts: NDArray[np.float64]) -> tuple[float, ...]:
    total = float(counts.sum())
    return tuple(float(count) / total for count in counts) if total else ()


def _number(value: NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else float(value)
