"""From graded answers to rows of a table: compliance, accuracy, baselines, and the constraint's effect.

Pure. It knows outcomes and arms, and neither the store, nor how an answer was judged, nor how a table
looks. Two outcomes say that the model was not asked properly (`NOT_ASKED`): they are left out of
every denominator and counted beside. All others stay in it, whatever they are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean, median

import numpy as np

from medlocal.errors import MedlocalError
from medlocal.evals.answers import Outcome
from medlocal.evals.formats import ARMS, FORMATS, SCORED_ARMS
from medlocal.evals.stats import Rate, bootstrap_mean_difference, mcnemar, wilson
from medlocal.evals.variant import derive_seed

NOT_ASKED = frozenset({Outcome.ENGINE_ERROR, Outcome.CONSTRAINT_NOT_APPLIED})
"""Left out of every denominator."""
READABLE = frozenset({Outcome.STRICT_VALID, Outcome.LENIENT_VALID, Outcome.SCORED})
"""An option was chosen."""

_CONDITION = ("model", "dataset", "language", "variant", "verified", "prompt", "format")
# Where a name sorts before the alphabet does: the unperturbed variant first, then formats and arms in
# their own order.
_RANK = {name: rank for rank, name in enumerate(("original", *FORMATS, *ARMS), start=-1)}


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """One job with what its record was judged to be."""

    model: str
    dataset: str
    language: str
    variant: str
    prompt: str
    format: str
    arm: str
    item_id: str
    group_id: str
    """The source item, shared by parallel items: the cluster of the bootstrap."""
    num_options: int
    gold_slot: int
    """Where the right option was shown."""
    gold_content: int
    """Which of the item's own options is right."""
    outcome: Outcome
    content: int | None
    """The option chosen, as an index into the item's own options; None = none."""
    correct: bool
    stats: Mapping[str, object]
    """The record's measurements; `tax_nats` and `label_mass` are read here."""
    verified: bool = True
    """False: nobody checked that the variant's gold is still right. Never pooled with verified ones."""
    slot: int | None = None
    """Where the chosen option was shown; None = none."""
    meaning: str | None = None
    """The option chosen, comparable across the variants of an item: equal for equal content, also for
    an option that is none of the item's own; None = none was chosen, which equals nothing."""
    key: str = ""
    """Of the job."""
    question: str = ""
    """Equal where two models were asked the same words of the same variant."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One model × data set × language × variant × prompt × format × arm."""

    model: str
    dataset: str
    language: str
    variant: str
    verified: bool
    prompt: str
    format: str
    arm: str
    n: int
    """Answers in the denominator: all but the excluded ones."""
    excluded: int
    """Answers with an outcome in `NOT_ASKED`."""
    outcomes: Mapping[str, int]
    """Those that occur, in the order of judgement; they add up to n + excluded."""
    fcr_strict: Rate | None
    """Format compliance: the whole output is the form. None for the scored arms."""
    fcr_lenient: Rate | None
    """Format compliance: the form, or exactly one option could be read. None for the scored arms."""
    acc_strict: Rate
    acc_lenient: Rate
    """Equal to `acc_strict` for the scored arms."""
    acc_given_valid: Rate
    """Accuracy among the readable answers: to be shown beside `coverage` only."""
    coverage: float | None
    """Share of n that is readable; None where n is 0."""
    chance: float | None
    """What guessing would get: the mean of 1 / options. None where n is 0."""
    majority: float | None
    """What always choosing the most frequent gold slot would get. None where n is 0."""
    median_tax_nats: float | None
    """Median projection tax of the mask per answer; None where no answer has it."""
    mean_label_mass: float | None
    """Mean probability on all first tokens of a label, 0 to 1; None where no answer has it."""
    at_chance: bool
    """True where accuracy (lenient) is not shown to be above chance: see `is_at_chance`."""


@dataclass(frozen=True, slots=True)
class ConstraintEffect:
    """What the grammar did to accuracy: the free and the grammar arm, paired by item."""

    model: str
    dataset: str
    language: str
    variant: str
    verified: bool
    prompt: str
    format: str
    n: int
    """Items with an answer in both arms."""
    excluded: int
    """Items left out because one of their two answers is excluded."""
    b: int
    """Items that only the free arm got right."""
    c: int
    """Items that only the grammar arm got right."""
    p: float
    """Exact McNemar."""
    delta: float | None
    """Accuracy with the grammar minus accuracy without, (c - b) / n; None where n is 0."""
    low: float | None
    """95 % bootstrap bound, clustered by source item; None with fewer than two clusters."""
    high: float | None
    agreement: float | None
    """Share of n for which both arms chose the same option; an unreadable answer equals nothing."""


def score_rows(answers: Iterable[GradedAnswer]) -> list[ScoreRow]:
    """One row per condition and arm, in an order that does not depend on that of the answers."""
    groups = _grouped(answers, (*_CONDITION, "arm"))
    return [_score_row(group) for _, group in groups]


def constraint_effects(answers: Iterable[GradedAnswer]) -> list[ConstraintEffect]:
    """One effect per condition in which items were asked in both the free and the grammar arm.

    The bootstrap's seed is derived from the condition: its interval does not depend on what else
    was scored.

    Raises:
        MedlocalError: an item was answered twice in one arm of one condition.
    """
    effects = []
    for key, group in _grouped(answers, _CONDITION):
        free, grammar = (_by_item(group, arm) for arm in ("free", "grammar"))
        pairs = [(free[item], grammar[item]) for item in sorted(free.keys() & grammar.keys())]
        if pairs:
            effects.append(_effect(key, pairs))
    return effects


def is_at_chance(accuracy: Rate, chance: float | None) -> bool:
    """Whether an accuracy is not shown to be above guessing: its interval holds chance or lies below.

    False where there is nothing to judge.
    """
    return accuracy.low is not None and chance is not None and accuracy.low <= chance


def _score_row(answers: Sequence[GradedAnswer]) -> ScoreRow:
    condition = answers[0]
    asked = [answer for answer in answers if answer.outcome not in NOT_ASKED]
    n = len(asked)
    strict = [answer for answer in asked if answer.outcome == Outcome.STRICT_VALID]
    readable = [answer for answer in asked if answer.outcome in READABLE]
    is_scored = condition.arm in SCORED_ARMS
    acc_lenient = wilson(_num_right(readable), n)
    chance = fmean(1 / answer.num_options for answer in asked) if asked else None
    return ScoreRow(
        model=condition.model,
        dataset=condition.dataset,
        language=condition.language,
        variant=condition.variant,
        verified=condition.verified,
        prompt=condition.prompt,
        format=condition.format,
        arm=condition.arm,
        n=n,
        excluded=len(answers) - n,
        outcomes=_count_outcomes(answers),
        fcr_strict=None if is_scored else wilson(len(strict), n),
        fcr_lenient=None if is_scored else wilson(len(readable), n),
        acc_strict=acc_lenient if is_scored else wilson(_num_right(strict), n),
        acc_lenient=acc_lenient,
        acc_given_valid=wilson(_num_right(readable), len(readable)),
        coverage=len(readable) / n if n else None,
        chance=chance,
        majority=_majority(asked),
        median_tax_nats=_summarise(median, asked, "tax_nats"),
        mean_label_mass=_summarise(fmean, asked, "label_mass"),
        at_chance=is_at_chance(acc_lenient, chance),
    )


def _effect(
    key: Sequence[object], pairs: Sequence[tuple[GradedAnswer, GradedAnswer]]
) -> ConstraintEffect:
    condition = pairs[0][0]
    kept = [pair for pair in pairs if not any(answer.outcome in NOT_ASKED for answer in pair)]
    n = len(kept)
    differences = [int(grammar.correct) - int(free.correct) for free, grammar in kept]
    b, c = differences.count(-1), differences.count(1)
    rng = np.random.default_rng(derive_seed("constraint_effect", *map(str, key)))
    interval = bootstrap_mean_difference(differences, [free.group_id for free, _ in kept], rng)
    return ConstraintEffect(
        model=condition.model,
        dataset=condition.dataset,
        language=condition.language,
        variant=condition.variant,
        verified=condition.verified,
        prompt=condition.prompt,
        format=condition.format,
        n=n,
        excluded=len(pairs) - n,
        b=b,
        c=c,
        p=mcnemar(b, c),
        delta=(c - b) / n if n else None,
        low=interval.low,
        high=interval.high,
        agreement=sum(_is_same(*pair) for pair in kept) / n if n else None,
    )


def _is_same(first: GradedAnswer, second: GradedAnswer) -> bool:
    is_readable = first.outcome in READABLE and second.outcome in READABLE
    return is_readable and first.content is not None and first.content == second.content


def _grouped(
    answers: Iterable[GradedAnswer], names: Sequence[str]
) -> list[tuple[tuple[object, ...], list[GradedAnswer]]]:
    key_of = attrgetter(*names)
    groups: dict[tuple[object, ...], list[GradedAnswer]] = {}
    for answer in answers:
        groups.setdefault(key_of(answer), []).append(answer)
    return sorted(
        groups.items(), key=lambda group: [(_RANK.get(str(p), 0), str(p)) for p in group[0]]
    )


def _by_item(answers: Iterable[GradedAnswer], arm: str) -> dict[str, GradedAnswer]:
    found: dict[str, GradedAnswer] = {}
    for answer in answers:
        if answer.arm != arm:
            continue
        if answer.item_id in found:
            raise MedlocalError(
                f"item {answer.item_id} was answered twice by {answer.model} in the {arm} arm"
                f" ({answer.variant}, {answer.prompt}, {answer.format}, {answer.language})"
            )
        found[answer.item_id] = answer
    return found


def _num_right(answers: Iterable[GradedAnswer]) -> int:
    return sum(answer.correct for answer in answers)


def _count_outcomes(answers: Iterable[GradedAnswer]) -> Mapping[str, int]:
    counts = Counter(answer.outcome for answer in answers)
    return {name.value: counts[name] for name in Outcome if counts[name]}


def _majority(answers: Sequence[GradedAnswer]) -> float | None:
    if not answers:
        return None
    ((_, most),) = Counter(answer.gold_slot for answer in answers).most_common(1)
    return most / len(answers)


def _summarise(
    statistic: Callable[[list[float]], float], answers: Iterable[GradedAnswer], name: str
) -> float | None:
    values = [answer.stats.get(name) for answer in answers]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return statistic(numbers) if numbers else None
