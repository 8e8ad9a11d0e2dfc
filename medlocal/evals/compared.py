"""What the comparison of two models says: per data set, over all of them, over all variants. Frozen values.

How it is computed stands in `comparing` and `paired`; nothing is computed here.
"""

from dataclasses import dataclass
from typing import Literal

from medlocal.evals.stats import Rate

Verdict = Literal["better", "worse", "no difference shown"]
"""Of the second model against the first."""


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
    """95 % bound of delta, clustered by source item: see `difference_interval`. None with fewer than
    two clusters."""
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
    """The smallest true difference that n items would have shown with 80 % power, by the test that gave
    the verdict: see `smallest_shown`. None = n is too small to show any."""
    num_tests: int = 1
    """Data sets that `p_holm` and `smallest` are corrected for; 1 = there is nothing to correct."""

    @property
    def right_to_wrong(self) -> int:
        """Items that the first got right and the second did not."""
        return self.b

    @property
    def wrong_to_right(self) -> int:
        """Items that the second got right and the first did not."""
        return self.c


@dataclass(frozen=True, slots=True)
class OverallRow:
    """The unperturbed items of all data sets together, in one language × format × arm × prompt.

    One test of one question: which model is better in this condition. What each data set says of it
    alone stands in its `ComparisonRow`, after a correction for their number.
    """

    language: str
    format: str
    arm: str
    prompt: str
    datasets: tuple[str, ...]
    """Those with a pair that counts, in alphabetical order."""
    n: int
    """Items with a counted answer of both models."""
    excluded: int
    """Items answered by both, of which one answer at least does not count."""
    num_items: int
    """Source items that the n items come from: the clusters."""
    accuracy_first: Rate
    accuracy_second: Rate
    delta: float | None
    """Accuracy of the second minus that of the first; None where n is 0."""
    low: float | None
    """95 % bound of delta, clustered by source item: see `difference_interval`. None with fewer than
    two clusters."""
    high: float | None
    b: int
    """Items that only the first got right."""
    c: int
    """Items that only the second got right."""
    p: float | None
    """See `sign_flip`: exact, clustered by source item. None where n is 0."""
    verdict: Verdict
    """By `p` at 5 %."""
    smallest: float | None
    """The smallest true difference that this test would have shown with 80 % power: see
    `smallest_shown`. None = there are too few items to show any."""


@dataclass(frozen=True, slots=True)
class PooledRow:
    """Pairs of a language × format × arm over all data sets, prompts and variants that keep the answer.

    The pairs are verified ones of the original and of single steps (see `keeps_answer`), in the
    language of the row. Every pair weighs the same, so that items with more variants weigh more.
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
    accuracy_first: Rate
    """Its interval allows for the clusters: see `clustered_wilson`."""
    accuracy_second: Rate
    delta: float | None
    """Accuracy of the second minus that of the first; None where n is 0."""
    low: float | None
    """95 % bound of delta, clustered by source item: see `difference_interval`. None with fewer than
    two clusters."""
    high: float | None
    p: float | None
    """See `sign_flip`: exact, clustered by source item. None where n is 0."""
    verdict: Verdict
    """By `p` at 5 %."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second model against the first."""

    first: str
    """Name of the model; "" = it has no answers."""
    second: str
    rows: tuple[ComparisonRow, ...]
    pooled: tuple[PooledRow, ...]
    num_pairs: int
    """Answers to one question in one condition that both gave, and that are to the same words."""
    only_first: int
    """Answers of the first model that have no partner."""
    only_second: int
    different: int
    """Pairs left out because `same` says that they were not asked the same."""
    overall: tuple[OverallRow, ...] = ()
    """What `rows` say together, and so for every prompt."""
