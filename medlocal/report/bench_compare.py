"""Two benchmarks side by side: how many times as fast, with an interval. Pure.

Only what was measured alike is compared: the same file, by its SHA-256, the same test, and the same
settings of llama.cpp. Another machine or another build of llama.cpp is no hindrance, for that is often
what is asked about; it is said.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from medlocal.engine.timing import Repeated
from medlocal.evals.stats import CONFIDENCE
from medlocal.report.bench_results import BenchModel, BenchResults

SETTINGS = (
    *("threads", "batch", "micro_batch", "flash_attention", "kv_types", "repack"),
    "layers_offloaded",
)
"""Of a model's facts, those that must be the same."""
_MACHINE = {
    "processor": "processor",
    "cores": "cores",
    "memory_bytes": "memory",
    "system": "system",
    "devices": "devices",
    "driver": "driver",
    "llama_cpp": "llama.cpp",
    "flags": "build flags",
}
"""Of a machine's description, what is told where it differs."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """New ÷ old."""

    value: float
    low: float | None
    """Of the 95 % interval; None where either was measured once only, and so is `high`."""
    high: float | None


@dataclass(frozen=True, slots=True)
class BenchChange:
    """One figure, earlier and now."""

    model: str
    what: str
    unit: str
    old: Repeated
    new: Repeated
    ratio: Ratio
    more_is_better: bool


@dataclass(frozen=True, slots=True)
class BenchComparison:
    """All that two benchmarks have in common, and what stands between them."""

    when: str
    """Of the earlier one."""
    changes: tuple[BenchChange, ...]
    notes: tuple[str, ...]


def ratio_of(new: Repeated, old: Repeated) -> Ratio:
    """How many times the old figure the new one is, as the ratio of their geometric means.

    The interval is Welch's for the difference of the logarithms' means, carried back: B. L. Welch, The
    generalization of "Student's" problem when several different population variances are involved,
    Biometrika 34 (1947) 28-35, with the degrees of freedom that he gives there. It tells how much
    the repetitions within two benchmarks vary, and not what another start of the program, another
    day or another load of the machine would add.
    """
    logs_new, logs_old = ([math.log(value) for value in found.values] for found in (new, old))
    difference = fmean(logs_new) - fmean(logs_old)
    if min(len(logs_new), len(logs_old)) < 2:
        return Ratio(math.exp(difference), None, None)
    shares = [variance(logs) / len(logs) for logs in (logs_new, logs_old)]
    error = math.sqrt(sum(shares))
    margin = _quantile(shares, (len(logs_new), len(logs_old))) * error if error else 0.0
    return Ratio(math.exp(difference), math.exp(difference - margin), math.exp(difference + margin))


def _quantile(shares: Sequence[float], sizes: Sequence[int]) -> float:
    """Student's t for the interval, at Welch's degrees of freedom."""
    from scipy.special import stdtrit

    spread = sum(share**2 / (n - 1) for share, n in zip(shares, sizes, strict=True))
    return float(stdtrit(sum(shares) ** 2 / spread, (1 + CONFIDENCE) / 2))


def compare_results(new: BenchResults, old: BenchResults) -> BenchComparison:
    """Compare what both have."""
    changes: list[BenchChange] = []
    notes = list(_machine_notes(new.machine, old.machine))
    by_hash = {model.sha256: model for model in old.models}
    for model in new.models:
        earlier = by_hash.get(model.sha256)
        if earlier is None:
            notes.append(
                f"{model.name} is not in the earlier result: no file there has its SHA-256"
            )
        elif differing := _differing(model.facts, earlier.facts):
            notes.append(f"{model.name} is not compared, for it ran otherwise: {differing}")
        else:
            changes += _changes(model, earlier)
            notes += _suite_notes(model, earlier)
    return BenchComparison(old.when, tuple(changes), tuple(notes))


def _machine_notes(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[str]:
    differing = [told for name, told in _MACHINE.items() if new.get(name) != old.get(name)]
    if differing:
        yield f"the two were not measured on the same machine and build: {', '.join(differing)} differ"


def _differing(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Which settings differ, and how; "" = none."""
    return ", ".join(
        f"{name.replace('_', ' ')} {old.get(name)} → {new.get(name)}"
        for name in SETTINGS
        if new.get(name) != old.get(name)
    )


def _changes(new: BenchModel, old: BenchModel) -> Iterator[BenchChange]:
    earlier = {row.test: row.speed for row in old.rows}
    for row in new.rows:
        if row.test in earlier:
            yield _change(
                new.name, row.test.name, "tokens/s", earlier[row.test], row.speed, more=True
            )
    if (
        (now := new.first_token)
        and (before := old.first_token)
        and new.first_token_prompt == old.first_token_prompt
    ):
        yield _change(new.name, "first token", "s", before, now, more=False)
    if new.load_seconds and old.load_seconds:
        loads = (Repeated((old.load_seconds,)), Repeated((new.load_seconds,)))
        yield _change(new.name, "load", "s", *loads, more=False)
    if new.memory and old.memory:
        peaks = (
            Repeated((float(old.memory.peak_bytes),)),
            Repeated((float(new.memory.peak_bytes),)),
        )
        yield _change(new.name, "peak memory", "bytes", *peaks, more=False)
    if new.suite and old.suite and _asked(new) == _asked(old):
        speeds = (old.suite.per_hour, new.suite.per_hour)
        yield _change(new.name, f"suite {new.suite.suite}", "answers/h", *speeds, more=True)


def _change(
    model: str, what: str, unit: str, old: Repeated, new: Repeated, *, more: bool
) -> BenchChange:
    return BenchChange(model, what, unit, old, new, ratio_of(new, old), more)


def _asked(model: BenchModel) -> tuple[object, ...]:
    """What must be alike for two suites to be compared."""
    suite = model.suite
    assert suite is not None
    return suite.suite, suite.limit, suite.datasets, suite.mode, suite.num_answers


def _suite_notes(new: BenchModel, old: BenchModel) -> Iterator[str]:
    if new.suite and old.suite and _asked(new) != _asked(old):
        yield f"{new.name}: the questions are not compared, for other ones were asked, or in another mode"
