"""What is kept of the engine's work beside the answers: counts, times, efficiency.

Figures that add up do so over the blocks of a run and over the sessions of one that was resumed.
"""

from collections.abc import Mapping
from dataclasses import fields

from medlocal.engine.engine import Engine
from medlocal.engine.rates import measure_rates
from medlocal.engine.sequence import EngineStats

SUMS = (
    "total_prompt_tokens",
    "unique_prompt_tokens",
    "prefilled_tokens",
    "generated_tokens",
    "forced_tokens",
    "seconds",
)
"""Figures that add up over the sessions of a run that was resumed."""


def together(first: EngineStats, second: EngineStats) -> EngineStats:
    """The figures of two pieces of work as one."""
    return EngineStats(
        **{f.name: getattr(first, f.name) + getattr(second, f.name) for f in fields(EngineStats)}
    )


def figures(stats: EngineStats) -> dict[str, object]:
    """Counts and times, as a run keeps them."""
    return {
        "total_prompt_tokens": stats.total_prompt_tokens,
        "unique_prompt_tokens": stats.unique_prompt_tokens,
        "prefilled_tokens": stats.prefilled_tokens,
        "generated_tokens": stats.generated_tokens,
        "forced_tokens": stats.forced_tokens,
        "num_batches": stats.num_batches,
        "concurrency": round(stats.concurrency, 2),
        "seconds": round(stats.seconds, 3),
        "model_seconds": round(stats.decode_seconds, 3),
        "efficiency": None,
    }


def efficiency(engine: Engine, stats: EngineStats) -> dict[str, object]:
    """Ideal ÷ actual time, with rates measured now, on the same context."""
    length = stats.total_prompt_tokens // max(1, stats.num_requests)
    rates = measure_rates(engine.decoder, length, stats.concurrency or 1, repetitions=2)
    ideal = rates.ideal_seconds(stats.unique_prompt_tokens, stats.decode_rows)
    return {
        "prompt_rate": round(rates.prompt, 1),
        "generation_rate": round(rates.generation, 1),
        "generation_rate_concurrency": rates.concurrency,
        "efficiency": round(ideal / stats.seconds, 3),
    }


def with_sums(facts: Mapping[str, object], before: Mapping[str, object]) -> dict[str, object]:
    """The facts of this session, with those of the sessions before it added where they add up."""
    return {
        name: _add(value, before.get(name)) if name in SUMS else value
        for name, value in facts.items()
    }


def _add(value: object, before: object) -> object:
    if isinstance(value, int | float) and isinstance(before, int | float):
        return value + before
    return value
