"""Two models on the same questions: the difference, how sure it is, and the verdict in words.

Pure. It pairs answers and counts what has no partner. That paired jobs asked the same (content and
messages) is for the caller to make sure of, who knows what was sent; `same` is where it can say so.
Nothing is known here of how models differ, nor of tables and sentences.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medlocal.errors import UsageError
from medlocal.evals.answers import Outcome
from medlocal.evals.compared import Comparison, ComparisonRow, OverallRow, PooledRow, Verdict
from medlocal.evals.formats import SCORED_ARMS
from medlocal.evals.paired import difference_interval, sign_flip, smallest_shown
from medlocal.evals.pairing import (
    accuracy,
    answered_twice,
    grouped,
    holm_within,
    is_counted,
    is_same,
    keeps_answer,
    seeded,
)
from medlocal.evals.perturb import ORIGINAL, parse_variant
from medlocal.evals.prompts import USUAL_PROMPT
from medlocal.evals.scoring import GradedAnswer
from medlocal.evals.stats import SIGNIFICANCE, Interval, Rate, clustered_wilson, mcnemar, wilson

__all__ = ["Comparison", "ComparisonRow", "OverallRow", "PooledRow", "Verdict", "compare"]

Pair = tuple[GradedAnswer, GradedAnswer]
"""The first model's answer and the second's."""
Same = Callable[[GradedAnswer, GradedAnswer], bool]

_CONDITION = ("dataset", "language", "format", "arm")
_OVERALL = ("language", "format", "arm", "prompt")
_POOLED = ("language", "format", "arm")
_OTHER_LANGUAGE = "parallel"
"""A variant whose items are in another language than the one they are pooled under."""


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
    originals = [pair for pair in verified if pair[0].variant == ORIGINAL]
    kept = [pair for pair in verified if _is_pooled(pair[0].variant)]
    return Comparison(
        first=names[0],
        second=names[1],
        rows=_rows(names, originals),
        pooled=tuple(_pooled(names, *group) for group in _grouped(kept, _POOLED)),
        num_pairs=len(pairs),
        only_first=len(by_first) - len(partners),
        only_second=len(by_second) - len(partners),
        different=len(partners) - len(pairs),
        overall=tuple(_overall(names, *group) for group in _grouped(originals, _OVERALL)),
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


def _is_pooled(variant: str) -> bool:
    steps = parse_variant(variant).steps
    is_in_language = all(step.perturbation.name != _OTHER_LANGUAGE for step in steps)
    return is_in_language and keeps_answer(variant)


def _rows(names: tuple[str, str], pairs: Sequence[Pair]) -> tuple[ComparisonRow, ...]:
    rows = [_row(names, *group) for group in _grouped(pairs, _CONDITION)]
    families = [(row.language, row.format, row.arm) for row in rows]
    adjusted = holm_within([(f, row.p) for f, row in zip(families, rows, strict=True)])
    tests = Counter(f for f, row in zip(families, rows, strict=True) if row.p is not None)
    return tuple(
        replace(
            row,
            p_holm=p,
            verdict=_verdict(p, row.delta),
            num_tests=(num_tests := max(1, tests[family])),
            smallest=smallest_shown(row.n, row.b + row.c, num_tests=num_tests),
        )
        for family, row, p in zip(families, rows, adjusted, strict=True)
    )


def _verdict(p: float | None, delta: float | None) -> Verdict:
    if p is None or p >= SIGNIFICANCE or not delta:
        return "no difference shown"
    return "better" if delta > 0 else "worse"


def _row(names: tuple[str, str], fields: Mapping[str, str], pairs: Sequence[Pair]) -> ComparisonRow:
    numbers = Counter(first.prompt for first, _ in pairs)
    prompt = min(numbers, key=lambda name: (-numbers[name], name != USUAL_PROMPT, name))
    asked = [pair for pair in pairs if pair[0].prompt == prompt]
    kept = [pair for pair in asked if all(map(is_counted, pair))]
    n, (b, c) = len(kept), _discordant(kept)
    interval = _interval(kept, seeded("comparison", *names, *fields.values(), prompt))
    is_scored = fields["arm"] in SCORED_ARMS
    firsts, seconds = [first for first, _ in kept], [second for _, second in kept]
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
        smallest=None,
        num_tests=1,
    )


def _differences(pairs: Iterable[Pair]) -> list[int]:
    return [int(second.correct) - int(first.correct) for first, second in pairs]


def _discordant(pairs: Iterable[Pair]) -> tuple[int, int]:
    """How often only the first is right, and how often only the second."""
    differences = _differences(pairs)
    return differences.count(-1), differences.count(1)


def _clusters(pairs: Iterable[Pair]) -> list[str]:
    return [first.group_id for first, _ in pairs]


def _interval(pairs: Sequence[Pair], rng: np.random.Generator) -> Interval:
    firsts, seconds = ([pair[side].correct for pair in pairs] for side in (0, 1))
    return difference_interval(firsts, seconds, _clusters(pairs), rng)


def _compliance(answers: Sequence[GradedAnswer]) -> Rate:
    strict = [answer for answer in answers if answer.outcome == Outcome.STRICT_VALID]
    return wilson(len(strict), len(answers))


def _overall(
    names: tuple[str, str], fields: Mapping[str, str], pairs: Sequence[Pair]
) -> OverallRow:
    kept = [pair for pair in pairs if all(map(is_counted, pair))]
    n, (b, c), sizes = len(kept), _discordant(kept), Counter(_clusters(kept))
    interval = _interval(kept, seeded("overall_comparison", *names, *fields.values()))
    delta, p = ((c - b) / n, sign_flip(_differences(kept), _clusters(kept))) if n else (None, None)
    # Items of one cluster are worth one of them at worst (L. Kish, see `clustered_wilson`).
    worth = n / sum(size * size for size in sizes.values()) if n else 0.0
    return OverallRow(
        **fields,
        datasets=tuple(sorted({first.dataset for first, _ in kept})),
        n=n,
        excluded=len(pairs) - n,
        num_items=len(sizes),
        accuracy_first=_clustered_accuracy(kept, 0),
        accuracy_second=_clustered_accuracy(kept, 1),
        delta=delta,
        low=interval.low,
        high=interval.high,
        b=b,
        c=c,
        p=p,
        verdict=_verdict(p, delta),
        smallest=smallest_shown(int(worth * n), math.ceil(worth * (b + c))),
    )


def _clustered_accuracy(pairs: Sequence[Pair], side: int) -> Rate:
    rights = sum(pair[side].correct for pair in pairs)
    return clustered_wilson(rights, list(Counter(_clusters(pairs)).values()))


def _pooled(names: tuple[str, str], fields: Mapping[str, str], pairs: Sequence[Pair]) -> PooledRow:
    kept = [pair for pair in pairs if all(map(is_counted, pair))]
    n, differences, clusters = len(kept), _differences(kept), _clusters(kept)
    interval = _interval(kept, seeded("pooled_comparison", *names, *fields.values()))
    delta, p = (sum(differences) / n, sign_flip(differences, clusters)) if n else (None, None)
    return PooledRow(
        **fields,
        n=n,
        excluded=len(pairs) - n,
        num_items=len(set(clusters)),
        accuracy_first=_clustered_accuracy(kept, 0),
        accuracy_second=_clustered_accuracy(kept, 1),
        delta=delta,
        low=interval.low,
        high=interval.high,
        p=p,
        verdict=_verdict(p, delta),
    )
