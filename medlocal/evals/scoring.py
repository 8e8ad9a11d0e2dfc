"""From graded answers to rows of a table: compliance, accuracy, baselines, and the constraint's effect.

Pure. It knows outcomes and arms, and neither the store, nor how an answer was judged, nor how a table
looks. Two outcomes say that the model was not asked properly (`NOT_ASKED`): they are left out of
every denominator and counted beside. All others stay in it, whatever they are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean, median

import numpy as np

from medlocal.errors import MedlocalError
from medlocal.evals.answers import Outcome
from medlocal.evals.formats import ARMS, FORMATS, SCORED_ARMS
from medlocal.evals.paired import difference_interval
from medlocal.evals.stats import Interval, Rate, mcnemar, wilson
from medlocal.evals.summaries import mean_interval, median_interval
from medlocal.evals.variant import derive_seed

NOT_ASKED = frozenset({Outcome.ENGINE_ERROR, Outcome.CONSTRAINT_NOT_APPLIED})
"""Left out of every denominator."""
READABLE = frozenset({Outcome.STRICT_VALID, Outcome.LENIENT_VALID, Outcome.SCORED})
"""An option was chosen."""

NO_INTERVAL = Interval(None, None)

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
    messages: str = ""
    """Equal where the same words were asked, whatever the variant; "" = not known."""


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
    """Share of n that is readable; None where n is 0. For arms that generate, `fcr_lenient` is the same
    with its interval."""
    chance: float | None
    """What guessing would get: the mean of 1 / options. None where n is 0."""
    majority: float | None
    """What always choosing the most frequent gold slot would get. None where n is 0."""
    median_tax_nats: float | None
    """Median projection tax of the mask per answer; None where no answer has it."""
    mean_label_mass: float | None
    """Mean probability on all first tokens of a label, 0 to 1; None where no answer has it."""
    at_chance: bool
    """True where accuracy (lenient) is not shown to be above what knowing nothing gets: see `baseline`."""
    tax_interval: Interval = NO_INTERVAL
    """95 % interval of the median tax."""
    label_mass_interval: Interval = NO_INTERVAL
    """95 % interval of the mean label mass."""

    @property
    def baseline(self) -> float | None:
        """What the accuracy must be shown to be above; None where n is 0."""
        return baseline(self.chance, self.majority, self.n)


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
    accuracy_free: Rate
    """Of the n items, like `accuracy_grammar`: not that of all answers of the arm."""
    accuracy_grammar: Rate
    b: int
    """Items that only the free arm got right."""
    c: int
    """Items that only the grammar arm got right."""
    p: float | None
    """Exact McNemar; None where n is 0."""
    delta: float | None
    """Accuracy with the grammar minus accuracy without, (c - b) / n; None where n is 0."""
    low: float | None
    """95 % bound, clustered by source item: see `difference_interval`. None with fewer than two."""
    high: float | None
    agreement: Rate
    """Items for which both arms chose the same option; an unreadable answer equals nothing."""
    forced: Rate
    """Right with the grammar, of those of the n items whose free answer chose nothing. To choose
    blindly among the options would be right as often as `forced_chance` says."""
    forced_chance: float | None
    """Mean of 1 / options over the items of `forced`; None where there are none."""


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


def baseline(chance: float | None, majority: float | None, n: int) -> float | None:
    """What a model that knows nothing gets: chance, or the majority where that is shown to be above.

    In every sample some slot is right most often. That counts only where the interval of the
    majority's share lies above chance: elsewhere, to have chosen it is luck.

    Args:
        chance: what guessing gets.
        majority: what always choosing the most frequent gold slot gets; None = unknown.
        n: answers that both were computed from.
    """
    if chance is None or majority is None or not n:
        return chance
    low = wilson(round(majority * n), n).low
    return majority if low is not None and low > chance else chance


def is_at_chance(accuracy: Rate, level: float | None) -> bool:
    """Whether an accuracy is not shown to be above a level: its interval holds it or lies below.

    False where there is nothing to judge.

    Args:
        accuracy: of the answers that count.
        level: chance, or what else knowing nothing gets: see `baseline`.
    """
    return accuracy.low is not None and level is not None and accuracy.low <= level


def _score_row(answers: Sequence[GradedAnswer]) -> ScoreRow:
    condition = answers[0]
    asked = [answer for answer in answers if answer.outcome not in NOT_ASKED]
    n = len(asked)
    strict = [answer for answer in asked if answer.outcome == Outcome.STRICT_VALID]
    readable = [answer for answer in asked if answer.outcome in READABLE]
    is_scored = condition.arm in SCORED_ARMS
    acc_lenient = wilson(_num_right(readable), n)
    chance, majority = _chance(asked), _majority(asked)
    taxes, masses = (_measured(asked, name) for name in ("tax_nats", "label_mass"))
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
        majority=majority,
        median_tax_nats=median(taxes) if taxes else None,
        mean_label_mass=fmean(masses) if masses else None,
        at_chance=is_at_chance(acc_lenient, baseline(chance, majority, n)),
        tax_interval=median_interval(taxes),
        label_mass_interval=mean_interval(masses, 0.0, 1.0),
    )


def _effect(
    key: Sequence[object], pairs: Sequence[tuple[GradedAnswer, GradedAnswer]]
) -> ConstraintEffect:
    condition = pairs[0][0]
    kept = [pair for pair in pairs if not any(answer.outcome in NOT_ASKED for answer in pair)]
    n, clusters = len(kept), [free.group_id for free, _ in kept]
    rights = [(free.correct, grammar.correct) for free, grammar in kept]
    b, c = rights.count((True, False)), rights.count((False, True))
    free_right, grammar_right = [free for free, _ in rights], [grammar for _, grammar in rights]
    rng = np.random.default_rng(derive_seed("constraint_effect", *map(str, key)))
    interval = difference_interval(free_right, grammar_right, clusters, rng)
    forced = [grammar for free, grammar in kept if free.outcome not in READABLE]
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
        accuracy_free=wilson(sum(free_right), n),
        accuracy_grammar=wilson(sum(grammar_right), n),
        b=b,
        c=c,
        p=mcnemar(b, c) if n else None,
        delta=(c - b) / n if n else None,
        low=interval.low,
        high=interval.high,
        agreement=wilson(sum(_is_same(*pair) for pair in kept), n),
        forced=wilson(_num_right(forced), len(forced)),
        forced_chance=_chance(forced),
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


def _chance(answers: Sequence[GradedAnswer]) -> float | None:
    return fmean(1 / answer.num_options for answer in answers) if answers else None


def _majority(answers: Sequence[GradedAnswer]) -> float | None:
    if not answers:
        return None
    ((_, most),) = Counter(answer.gold_slot for answer in answers).most_common(1)
    return most / len(answers)


def _measured(answers: Iterable[GradedAnswer], name: str) -> list[float]:
    values = [answer.stats.get(name) for answer in answers]
    return [float(value) for value in values if isinstance(value, int | float)]
