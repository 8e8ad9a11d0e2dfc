"""Two models on the same questions: the difference, how sure it is, and the verdict in words.

Pure. It pairs answers and counts what has no partner. That paired jobs asked the same (content and
messages) is for the caller to make sure of, who knows what was sent; `same` is where it can say so.
Nothing is known here of how models differ, nor of tables and sentences.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from medlocal.errors import UsageError
from medlocal.evals.answers import Outcome
from medlocal.evals.formats import SCORED_ARMS
from medlocal.evals.pairing import (
    accuracy,
    answered_twice,
    grouped,
    holm_within,
    is_counted,
    is_same,
    seeded,
)
from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.prompts import USUAL_PROMPT
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import (
    ASSUMED_DISCORDANCE,
    SIGNIFICANCE,
    Interval,
    Rate,
    bootstrap_mean_difference,
    mcnemar,
    smallest_detectable_difference,
    wilson,
)

_FEWEST_CLUSTERS = 6
"""Source items that must differ before an interval alone says that models do: all of five on one side
have a chance of 2 / 2^5, above 5 %, and yet a percentile interval that leaves out 0."""

Verdict = Literal["better", "worse", "no difference shown"]
"""Of the second model against the first."""
Pair = tuple[GradedAnswer, GradedAnswer]
"""The first model's answer and the second's."""
Same = Callable[[GradedAnswer, GradedAnswer], bool]

_CONDITION = ("dataset", "language", "format", "arm")
_POOLED = ("language", "format", "arm")


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """The unperturbed items of a data set × language × format × arm, under one prompt."""

    dataset: str
    language: str
    format: str
    arm: str
    prompt: str
    """Of the prompts that both were asked with, the one with most pairs; the usual one of equals."""
    n: int
    """Items with a counted answer of both models."""
    excluded: int
    """Items answered by both, of which one answer at least does not count."""
    accuracy_first: Rate
    accuracy_second: Rate
    delta: float | None
    """Accuracy of the second minus that of the first; None where n is 0."""
    low: float | None
    """95 % bootstrap bound of delta, clustered by source item; None with fewer than two clusters."""
    high: float | None
    b: int
    """Items that only the first got right: right to wrong."""
    c: int
    """Items that only the second got right: wrong to right."""
    p: float | None
    """Exact McNemar; None where n is 0."""
    p_holm: float | None
    """Corrected over the data sets of a language × format × arm."""
    fcr_first: Rate | None
    """Strict format compliance; None for arms that generate nothing."""
    fcr_second: Rate | None
    agreement: Rate
    """Items for which both chose the same content; an invalid answer equals nothing."""
    verdict: Verdict
    """By `p_holm` at 5 %."""
    smallest: float | None
    """The smallest difference that n items show with 80 % power at the 5 % level, uncorrected, at the
    discordance observed, or `ASSUMED_DISCORDANCE` where there was none. None = none that is possible."""

    @property
    def right_to_wrong(self) -> int:
        """Items that the first got right and the second did not."""
        return self.b

    @property
    def wrong_to_right(self) -> int:
        """Items that the second got right and the first did not."""
        return self.c


@dataclass(frozen=True, slots=True)
class PooledRow:
    """All verified pairs of a language × format × arm: all data sets, variants and prompts.

    There is no McNemar test here: the pairs of one item are not independent. Every pair weighs the
    same, so that items with more variants weigh more.
    """

    language: str
    format: str
    arm: str
    n: int
    """Pairs that count."""
    excluded: int
    """Pairs of which one answer at least does not count."""
    num_items: int
    """Source items that the n pairs come from: the clusters."""
    accuracy_first: float | None
    """None where n is 0."""
    accuracy_second: float | None
    delta: float | None
    """Accuracy of the second minus that of the first."""
    low: float | None
    """95 % bootstrap bound of delta, clustered by source item; None with fewer than two clusters."""
    high: float | None
    verdict: Verdict
    """By whether the interval leaves out 0, where at least six source items differ."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second model against the first."""

    first: str
    """Name of the model; "" = it has no answers."""
    second: str
    rows: tuple[ComparisonRow, ...]
    pooled: tuple[PooledRow, ...]
    num_pairs: int
    """Questions that both answered and that are the same."""
    only_first: int
    """Answers of the first model that have no partner."""
    only_second: int
    different: int
    """Pairs left out because `same` says that they were not asked the same."""


def compare(
    first: Iterable[GradedAnswer], second: Iterable[GradedAnswer], same: Same | None = None
) -> Comparison:
    """Compare two models on the questions that both answered.

    Answers are partners if they agree in data set, language, item, variant, its verification,
    prompt, format and arm.

    Args:
        first: answers of one model: the general one, or the one that is not quantised.
        second: answers of another, or of the same in another run.
        same: says of two partners whether they were asked the same; None = all were.

    Raises:
        UsageError: one of the two has answers of several models.
        MedlocalError: one of the two answered a question twice.
    """
    firsts, seconds = list(first), list(second)
    names = _model(firsts), _model(seconds)
    by_first, by_second = _by_question(firsts), _by_question(seconds)
    partners = [(by_first[key], by_second[key]) for key in by_first if key in by_second]
    pairs = [pair for pair in partners if same is None or same(*pair)]
    verified = sorted((pair for pair in pairs if pair[0].verified), key=lambda pair: _key(pair[0]))
    return Comparison(
        first=names[0],
        second=names[1],
        rows=_rows(names, verified),
        pooled=tuple(_pooled(names, *group) for group in _grouped(verified, _POOLED)),
        num_pairs=len(pairs),
        only_first=len(by_first) - len(partners),
        only_second=len(by_second) - len(partners),
        different=len(partners) - len(pairs),
    )


def _model(answers: Sequence[GradedAnswer]) -> str:
    models = sorted({answer.model for answer in answers})
    if len(models) > 1:
        raise UsageError(
            f"answers of several models cannot be compared as one: {', '.join(models)}",
            hint="compare two models at a time",
        )
    return models[0] if models else ""


def _key(answer: GradedAnswer) -> tuple[str, ...]:
    condition = (answer.dataset, answer.language, answer.item_id, answer.variant)
    return *condition, str(answer.verified), answer.prompt, answer.format, answer.arm


def _by_question(answers: Iterable[GradedAnswer]) -> dict[tuple[str, ...], GradedAnswer]:
    found: dict[tuple[str, ...], GradedAnswer] = {}
    for answer in answers:
        if (key := _key(answer)) in found:
            raise answered_twice(answer)
        found[key] = answer
    return found


def _grouped(
    pairs: Sequence[Pair], names: Sequence[str]
) -> list[tuple[dict[str, str], list[Pair]]]:
    partner = {_key(first): second for first, second in pairs}
    groups = grouped([first for first, _ in pairs], names)
    return [(fields, [(a, partner[_key(a)]) for a in found]) for fields, found in groups]


def _rows(names: tuple[str, str], pairs: Sequence[Pair]) -> tuple[ComparisonRow, ...]:
    originals = [pair for pair in pairs if pair[0].variant == ORIGINAL]
    rows = [_row(names, *group) for group in _grouped(originals, _CONDITION)]
    families = [(row.language, row.format, row.arm) for row in rows]
    adjusted = holm_within([(f, row.p) for f, row in zip(families, rows, strict=True)])
    return tuple(
        replace(row, p_holm=p, verdict=_verdict(p is not None and p < SIGNIFICANCE, row.delta))
        for row, p in zip(rows, adjusted, strict=True)
    )


def _verdict(is_shown: bool, delta: float | None) -> Verdict:
    if not is_shown or not delta:
        return "no difference shown"
    return "better" if delta > 0 else "worse"


def _row(names: tuple[str, str], fields: Mapping[str, str], pairs: Sequence[Pair]) -> ComparisonRow:
    numbers = Counter(first.prompt for first, _ in pairs)
    prompt = min(numbers, key=lambda name: (-numbers[name], name != USUAL_PROMPT, name))
    asked = [pair for pair in pairs if pair[0].prompt == prompt]
    kept = [pair for pair in asked if all(map(is_counted, pair))]
    n, differences = len(kept), _differences(kept)
    b, c = differences.count(-1), differences.count(1)
    rng = seeded("comparison", *names, *fields.values(), prompt)
    interval = bootstrap_mean_difference(differences, [first.group_id for first, _ in kept], rng)
    is_scored = fields["arm"] in SCORED_ARMS
    firsts, seconds = [first for first, _ in kept], [second for _, second in kept]
    discordance = (b + c) / n if b + c else ASSUMED_DISCORDANCE
    return ComparisonRow(
        **fields,
        prompt=prompt,
        n=n,
        excluded=len(asked) - n,
        accuracy_first=accuracy(firsts),
        accuracy_second=accuracy(seconds),
        delta=(c - b) / n if n else None,
        low=interval.low,
        high=interval.high,
        b=b,
        c=c,
        p=mcnemar(b, c) if n else None,
        p_holm=None,
        fcr_first=None if is_scored else _compliance(firsts),
        fcr_second=None if is_scored else _compliance(seconds),
        agreement=wilson(sum(is_same(*pair) for pair in kept), n),
        verdict="no difference shown",
        smallest=smallest_detectable_difference(n, discordance),
    )


def _differences(pairs: Iterable[Pair]) -> list[int]:
    return [int(second.correct) - int(first.correct) for first, second in pairs]


def _compliance(answers: Sequence[GradedAnswer]) -> Rate:
    strict = [answer for answer in answers if answer.outcome == Outcome.STRICT_VALID]
    return wilson(len(strict), len(answers))


def _pooled(names: tuple[str, str], fields: Mapping[str, str], pairs: Sequence[Pair]) -> PooledRow:
    kept = [pair for pair in pairs if all(map(is_counted, pair))]
    n, differences = len(kept), _differences(kept)
    clusters = [first.group_id for first, _ in kept]
    rng = seeded("pooled_comparison", *names, *fields.values())
    interval = bootstrap_mean_difference(differences, clusters, rng)
    sums: Counter[str] = Counter()
    for cluster, difference in zip(clusters, differences, strict=True):
        sums[cluster] += difference
    can_show = sum(total != 0 for total in sums.values()) >= _FEWEST_CLUSTERS
    delta = sum(differences) / n if n else None
    return PooledRow(
        **fields,
        n=n,
        excluded=len(pairs) - n,
        num_items=len(sums),
        accuracy_first=accuracy([first for first, _ in kept]).value,
        accuracy_second=accuracy([second for _, second in kept]).value,
        delta=delta,
        low=interval.low,
        high=interval.high,
        verdict=_verdict(can_show and _leaves_out_0(interval), delta),
    )


def _leaves_out_0(interval: Interval) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return interval.low > 0 or interval.high < 0
