"""Two things that need several conditions at once: the spread over prompts, and two steps together.

Pure. The spread says how much of an accuracy is owed to the wording of the prompt; the interaction,
whether two perturbations together do more harm than the sum of both. Nothing is known here of what
a prompt or a perturbation says.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from medlocal.evals.answers import Outcome
from medlocal.evals.formats import SCORED_ARMS
from medlocal.evals.pairing import (
    SUBJECT,
    ByItem,
    Subject,
    aligned,
    answered_twice,
    by_variant,
    grouped,
    has_enough_clusters,
    is_counted,
    seeded,
)
from medlocal.evals.perturb import ORIGINAL, parse_variant
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import (
    Interval,
    Rate,
    bootstrap_mean_difference,
    percentile_interval,
    resample_totals,
    wilson,
)

_PROMPTED = ("model", "dataset", "language", "format", "arm")


@dataclass(frozen=True, slots=True)
class Spread:
    """A rate under several prompts, all on the same items."""

    rates: Mapping[str, Rate]
    """By prompt, in alphabetical order."""
    mean: float
    """Of the prompts' rates."""
    sd: float
    """Their sample standard deviation (divided by the number of prompts less one); part of it is
    chance, and more so with fewer items."""
    worst: tuple[str, Rate]
    """Of prompts with the same rate, the first by name; so for `best`."""
    best: tuple[str, Rate]
    range: float
    """Best minus worst: never below 0, also for prompts that are equally good."""
    low: float | None
    """95 % bootstrap bound of the range, clustered by source item; None with fewer than two."""
    high: float | None


@dataclass(frozen=True, slots=True)
class PromptSpread:
    """The unperturbed items of a model × data set × language × format × arm under several prompts."""

    model: str
    dataset: str
    language: str
    format: str
    arm: str
    n: int
    """Items with a counted answer under every prompt."""
    excluded: int
    """Items answered under every prompt, of which one answer at least does not count."""
    incomplete: int
    """Items not asked under every prompt."""
    accuracy: Spread | None
    """None where n is 0."""
    compliance: Spread | None
    """Of strict format compliance; None where n is 0 and for arms that generate nothing."""


@dataclass(frozen=True, slots=True)
class Interaction(Subject):
    """Two perturbations together against the sum of what each does alone, on the same items."""

    variant: str
    """Of two steps."""
    first: str
    """The variant that has the first step only."""
    second: str
    verified: bool
    """False: in one of the variants nobody checked that these items' gold is still right."""
    n: int
    """Items with a counted answer in the original, in both single steps and in the two together."""
    excluded: int
    """Items with all four answers, of which one at least does not count."""
    delta_first: float | None
    """Accuracy with the first step minus accuracy in the original; None where n is 0."""
    delta_second: float | None
    delta_both: float | None
    interaction: float | None
    """delta_both - (delta_first + delta_second): below 0, the two together harm more than the sum.
    Near 0 or 100 % accuracy it is drawn towards the middle, because there is nothing left to lose."""
    low: float | None
    """95 % bootstrap bound of the interaction, clustered by source item; None where fewer than six
    source items differ from the sum: an interval from so few leaves out 0 too easily."""
    high: float | None


def prompt_spreads(answers: Iterable[GradedAnswer]) -> list[PromptSpread]:
    """The spread over prompts of the original's accuracy and format compliance.

    One per model × data set × language × format × arm that was asked with two prompts or more, on
    the items that have an answer under all of them.

    Raises:
        MedlocalError: an item was answered twice under one prompt.
    """
    originals = [a for a in answers if a.variant == ORIGINAL and a.verified]
    spreads = []
    for fields, group in grouped(originals, _PROMPTED):
        prompts = _by_prompt(group)
        if len(prompts) > 1:
            spreads.append(_prompt_spread(fields, prompts))
    return spreads


def _by_prompt(answers: Iterable[GradedAnswer]) -> dict[str, ByItem]:
    found: dict[str, ByItem] = {}
    for answer in answers:
        items = found.setdefault(answer.prompt, {})
        if answer.item_id in items:
            raise answered_twice(answer)
        items[answer.item_id] = answer
    return dict(sorted(found.items()))


def _prompt_spread(fields: Mapping[str, str], prompts: Mapping[str, ByItem]) -> PromptSpread:
    complete = list(aligned(list(prompts.values())))
    kept = [answers for answers in complete if all(map(is_counted, answers))]
    rights = [[answer.correct for answer in answers] for answers in kept]
    forms = [[a.outcome == Outcome.STRICT_VALID for a in answers] for answers in kept]
    clusters = [answers[0].group_id for answers in kept]
    key, names = tuple(fields.values()), tuple(prompts)
    is_scored = fields["arm"] in SCORED_ARMS
    return PromptSpread(
        **fields,
        n=len(kept),
        excluded=len(complete) - len(kept),
        incomplete=len(set().union(*prompts.values())) - len(complete),
        accuracy=_spread(("accuracy", *key), names, rights, clusters),
        compliance=None if is_scored else _spread(("compliance", *key), names, forms, clusters),
    )


def _spread(
    key: Sequence[str],
    prompts: Sequence[str],
    hits: Sequence[Sequence[bool]],
    clusters: Sequence[str],
) -> Spread | None:
    """The spread of one rate.

    Args:
        key: of the interval.
        prompts: their names.
        hits: (items, prompts).
        clusters: of the items.
    """
    n = len(hits)
    if n == 0:
        return None
    rates = {name: wilson(sum(row[at] for row in hits), n) for at, name in enumerate(prompts)}
    values = {name: rate.value or 0.0 for name, rate in rates.items()}
    worst, best = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    columns = np.column_stack([np.asarray(hits, dtype=np.float64), np.ones(n)])
    totals = resample_totals(columns, clusters, seeded("prompt_spread", *key))
    interval = percentile_interval(np.ptp(totals[:, :-1], axis=1) / totals[:, -1])
    return Spread(
        rates=rates,
        mean=fmean(values.values()),
        sd=stdev(values.values()),
        worst=(worst, rates[worst]),
        best=(best, rates[best]),
        range=values[best] - values[worst],
        low=interval.low,
        high=interval.high,
    )


def interactions(answers: Iterable[GradedAnswer]) -> list[Interaction]:
    """What two steps do together beyond what each does alone, per subject and variant of two steps.

    Δ_AB - (Δ_A + Δ_B) on the items that were asked in all four variants, which is the mean over items
    of AB - A - B + original. Items of which a variant is unverified make a row of their own.

    Raises:
        MedlocalError: an item was answered twice in one variant.
        UsageError: a variant's name is unknown.
    """
    rows = []
    for subject, group in grouped(answers, SUBJECT):
        variants = by_variant(group)
        for variant in variants:
            steps = parse_variant(variant).steps
            names = (ORIGINAL, *(step.name for step in steps), variant)
            if len(steps) != 2 or not all(name in variants for name in names):
                continue
            quartets = list(aligned([variants[name] for name in names]))
            for verified in (True, False):
                chosen = [four for four in quartets if all(a.verified for a in four) == verified]
                if chosen:
                    rows.append(_interaction(subject, names, chosen, verified))
    return rows


def _interaction(
    subject: Mapping[str, str],
    names: Sequence[str],
    quartets: Sequence[tuple[GradedAnswer, ...]],
    verified: bool,
) -> Interaction:
    _, first, second, both = names
    kept = [four for four in quartets if all(map(is_counted, four))]
    n = len(kept)
    # (items, variants), in the order original, first, second, both
    rights = np.array([[answer.correct for answer in four] for four in kept], dtype=np.int64)
    sums = rights.reshape(n, len(names)).sum(axis=0)
    extra = rights.reshape(n, len(names)) @ np.array([1, -1, -1, 1])
    clusters = [four[0].group_id for four in kept]
    rng = seeded("interaction", *subject.values(), both, str(verified))
    interval = Interval(None, None)
    if has_enough_clusters(extra.tolist(), clusters):
        interval = bootstrap_mean_difference(extra, clusters, rng)
    deltas = [int(total - sums[0]) / n if n else None for total in sums[1:]]
    return Interaction(
        **subject,
        variant=both,
        first=first,
        second=second,
        verified=verified,
        n=n,
        excluded=len(quartets) - n,
        delta_first=deltas[0],
        delta_second=deltas[1],
        delta_both=deltas[2],
        interaction=int(extra.sum()) / n if n else None,
        low=interval.low,
        high=interval.high,
    )
