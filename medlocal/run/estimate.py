"""What a run will take, before it starts: jobs, tokens, time, memory, and what it can show.

Tokens are counted on the prompts as they will be sent; the time comes from rates measured now, on this
machine with this model. How long free answers get is the model's
business, so that the time is a range. Nothing is asked here and nothing is printed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medlocal.engine.batching import Decoder
from medlocal.engine.rates import Rates, measure_rates
from medlocal.engine.sequence import Generate, Request
from medlocal.engine.tree import build_tree
from medlocal.evals.stats import ASSUMED_DISCORDANCE, smallest_detectable_difference
from medlocal.store import StoredJob

_LONGEST_SAMPLE = 128
"""Tokens of the prompt that the rates are measured on."""


@dataclass(frozen=True, slots=True)
class Showable:
    """What the questions of one data set in one language can show."""

    dataset: str
    language: str
    n: int
    """Questions."""
    difference: float | None
    """Smallest difference in accuracy between two models that is found with 80 % power at the 5 %
    level, where a share of `ASSUMED_DISCORDANCE` is answered differently; None = none can be."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A run before it starts."""

    num_jobs: int
    num_answered: int
    """Of them, those that need not be asked: an earlier run answered them, or (rarely) the chat cannot be
    sent because it spells a control token."""
    by_part: Mapping[str, int]
    """Jobs by the suite that asks for them first."""
    total_prompt_tokens: int
    """Of the jobs still to be asked, as if each were asked alone."""
    unique_prompt_tokens: int
    """Of them, those that must be computed: what prompts share counts once."""
    least_output_tokens: int
    """If every answer took one token. Equal requests are computed once, and count once."""
    most_output_tokens: int
    """If every answer took all the tokens it may."""
    rates: Rates | None
    """None = not measured, because there is too little to ask."""
    weights_bytes: int
    kv_bytes: int
    showable: tuple[Showable, ...]

    @property
    def shared(self) -> float | None:
        """Distinct ÷ total prompt tokens; None where nothing is to be asked."""
        return (
            self.unique_prompt_tokens / self.total_prompt_tokens
            if self.total_prompt_tokens
            else None
        )

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Least and most time that the work takes; None without rates."""
        if self.rates is None:
            return None
        outputs = (self.least_output_tokens, self.most_output_tokens)
        least, most = (self.rates.ideal_seconds(self.unique_prompt_tokens, n) for n in outputs)
        return least, most

    def to_json(self) -> dict[str, Any]:
        """JSON values, the derived ones included."""
        return {**asdict(self), "shared": self.shared, "seconds": self.seconds}


def token_counts(requests: Sequence[Request]) -> dict[str, int]:
    """The token counts of an `Estimate`, by its fields' names."""
    distinct = {(request.prompt, request.task) for request in requests}
    tasks = [task for _, task in distinct if isinstance(task, Generate)]
    prompts = list({prompt for prompt, _ in distinct})
    return {
        "total_prompt_tokens": sum(len(request.prompt) for request in requests),
        "unique_prompt_tokens": build_tree(prompts).num_tokens if prompts else 0,
        "least_output_tokens": len(tasks),
        "most_output_tokens": sum(task.max_tokens for task in tasks),
    }


def showable(jobs: Iterable[StoredJob]) -> tuple[Showable, ...]:
    """What the questions of the jobs can show, per data set and language."""
    groups: dict[tuple[str, str], set[str]] = {}
    for job in jobs:
        groups.setdefault((job.dataset, job.language), set()).add(job.item_id)
    return tuple(
        Showable(*key, len(items), smallest_detectable_difference(len(items), ASSUMED_DISCORDANCE))
        for key, items in sorted(groups.items())
    )


def quick_rates(decoder: Decoder, requests: Sequence[Request]) -> Rates:
    """Measure the rates once, on a prompt of the length that is usual here."""
    lengths = sorted(len(request.prompt) for request in requests)
    length = min(lengths[len(lengths) // 2], _LONGEST_SAMPLE)
    return measure_rates(decoder, length, concurrency=1e9, repetitions=1)
