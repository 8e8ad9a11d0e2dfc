"""What a benchmark shows: one table per model, one for several side by side, one against an earlier result. Pure.

The figures were computed before; here they are laid out in blocks, for the terminal and for Markdown.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from medlocal.engine.timing import Repeated, SpeedRow
from medlocal.report import wording
from medlocal.report.bench_compare import BenchChange, BenchComparison
from medlocal.report.bench_results import BenchModel, BenchResults
from medlocal.report.blocks import Block, Cell, Heading, Lines, Table
from medlocal.report.tables import block_markdown, print_blocks

if TYPE_CHECKING:
    from rich.console import Console

UNSTABLE = "UNSTABLE"
_BUSY = 0.5
"""Load average from which on something else was at work."""
_ROW_HEADERS: tuple[Cell, ...] = (
    *(("test",), ("tokens/s",), ("± sd",), ("n",), ("ms per", "token")),
)
_ENERGY_HEADERS: tuple[Cell, ...] = (("J per", "token"), ("above", "idle"))
_MODEL_HEADERS: tuple[Cell, ...] = (
    *(("model",), ("size", "bits/weight"), ("load", "s"), ("pp", "tokens/s"), ("tg", "tokens/s")),
    *(("first token", "ms"), ("peak", "memory"), ("questions", "per hour")),
)
_CHANGE_HEADERS: tuple[Cell, ...] = (
    *(("model",), ("what",), ("before",), ("now",), ("ratio",), ("95 % interval",), ("",)),
)
_TERMS = (
    "pp: a prompt read, tg: a text generated token by token, @ d: behind so many tokens that are not"
    " timed, as `llama-bench -p -n -d` measures them; x8: eight texts side by side behind one shared"
    " prompt, all their tokens counted, as `llama-batched-bench -npl 8 -pps -kvu`.",
    f"{UNSTABLE}: a standard deviation of 20 % of the mean or more; not to be quoted. Questions: each"
    " counted once per form and arm.",
)


def bench_blocks(results: BenchResults, comparison: BenchComparison | None = None) -> list[Block]:
    """The report, in the order in which it is read."""
    found: list[Block] = [Heading("Benchmark", level=1), Lines(tuple(_machine_lines(results)))]
    if len(results.models) > 1:
        found.append(_models_table(results))
    for model in results.models:
        found += [Heading(wording.clean(model.name)), Lines(tuple(_model_lines(model)))]
        if model.rows:
            found.append(_rows_table(model))
    if comparison is not None:
        found += _comparison_blocks(comparison)
    return [*found, Heading("Terms"), Lines(_TERMS)]


def print_bench(
    results: BenchResults, comparison: BenchComparison | None, console: "Console"
) -> None:
    """Print the report for a terminal of 80 columns or more."""
    print_blocks(bench_blocks(results, comparison), console)


def bench_markdown(results: BenchResults, comparison: BenchComparison | None = None) -> str:
    """The report as Markdown."""
    blocks = bench_blocks(results, comparison)
    return "\n".join(line for block in blocks for line in [*block_markdown(block), ""])


def _machine_lines(results: BenchResults) -> Iterator[str]:
    machine = results.machine
    yield (
        f"{_told(machine, 'processor')}, {_told(machine, 'cores')} cores,"
        f" {_size(machine.get('memory_bytes') or 0)}, {_told(machine, 'system')}; {results.when}"
    )
    devices = [
        f"{d['name']}: {d['description']}" for d in machine.get("devices", ()) if d["kind"] != "cpu"
    ]
    yield f"devices beside the processor: {wording.clean(', '.join(devices)) or 'none'}"
    yield (
        f"llama.cpp {_told(machine, 'llama_cpp')} through llama-cpp-python"
        f" {_told(machine, 'llama_cpp_python')}, medlocal {_told(machine, 'medlocal')}"
    )
    yield f"build: {_told(machine, 'flags')}"
    if (load := machine.get("load_average", 0)) > _BUSY:
        yield f"! the machine was busy before: its load over the last minute was {load}"
    if results.is_stopped:
        yield "! stopped before all was measured: what is missing was not finished"


def _told(values: Any, name: str) -> str:
    return wording.clean(str(values.get(name) or "unknown"))


def _model_lines(model: BenchModel) -> Iterator[str]:
    bits = f", {model.bits_per_weight:.2f} bits per weight" if model.bits_per_weight else ""
    yield (
        f"{wording.clean(model.type)}, {_size(model.size_bytes)}{bits},"
        f" {model.num_parameters / 1e6:,.1f} million parameters, SHA-256 {model.sha256[:12]}…"
    )
    for name, why in model.slow_types.items():
        yield f"! slow type {wording.clean(name)}: {wording.clean(why)}"
    if model.facts:
        yield _setting_line(model)
    if model.load_seconds is not None:
        yield f"load: {model.load_seconds:.2f} s, from opening the file to the first token computed"
    if (first := model.first_token) is not None:
        yield (
            f"first token of the answer to a prompt of {model.first_token_prompt:,} tokens: p50"
            f" {_milliseconds(first.percentile(50))}, p95 {_milliseconds(first.percentile(95))}"
            f" (n = {first.n})"
        )
    yield from _memory_lines(model)
    yield from _gpu_lines(model)
    yield from _suite_lines(model)


def _setting_line(model: BenchModel) -> str:
    facts = model.facts
    kv_types = ", ".join(facts.get("kv_types") or ())
    return (
        f"threads {facts.get('threads')}, batch {facts.get('batch')}, micro-batch"
        f" {facts.get('micro_batch')}, flash attention"
        f" {'on' if facts.get('flash_attention') else 'off'}, keys and values {kv_types}, layers"
        f" offloaded {facts.get('layers_offloaded')}"
    )


def _memory_lines(model: BenchModel) -> Iterator[str]:
    memory = model.memory
    if memory is None:
        return
    yield (
        f"peak memory: {_size(memory.peak_bytes)} in the process; the model's own, each weight counted"
        f" once, {_size(memory.needed_bytes)}, planned {_size(memory.planned_bytes)} (taken ÷ planned"
        f" {memory.needed_bytes / memory.planned_bytes:.2f})"
    )
    if memory.planned_gpu_bytes:
        yield (
            f"GPU memory: {_size(memory.gpu_bytes)}, planned {_size(memory.planned_gpu_bytes)} (taken ÷"
            f" planned {memory.gpu_bytes / memory.planned_gpu_bytes:.2f})"
        )


def _gpu_lines(model: BenchModel) -> Iterator[str]:
    for gpu in model.gpus:
        parts = [f"busy {wording.percent(gpu.get('busy'))}"]
        if (watts := gpu.get("mean_watts")) is not None:
            parts.append(f"{watts:,.0f} W on average")
        if throttled := gpu.get("throttled"):
            parts.append(f"! lower clocks because of: {', '.join(throttled)}")
        yield f"{_told(gpu, 'name')} while the tests ran: {'; '.join(parts)}"


def _suite_lines(model: BenchModel) -> Iterator[str]:
    suite = model.suite
    if suite is None:
        return
    efficiency = (
        f", {100 * suite.efficiency:.0f} % of what the bare model can" if suite.efficiency else ""
    )
    yield (
        f"questions end to end: {_mean(suite.per_hour)} per hour (n = {suite.per_hour.n}), suite"
        f" {wording.clean(suite.suite)}, {suite.num_items:,} items asked {suite.num_answers:,} times,"
        f" {suite.mode} mode{efficiency}{_mark(suite.per_hour, ' ! ')}"
    )
    if suite.energy is not None:
        yield (
            f"energy: {suite.energy.joules:,.2f} J per question, {suite.energy.above_idle:,.2f} above idle"
        )


def _rows_table(model: BenchModel) -> Table:
    has_energy = any(row.energy for row in model.rows)
    return Table(
        title=f"Speed · {wording.clean(model.name)}",
        headers=(*_ROW_HEADERS, *(_ENERGY_HEADERS if has_energy else ()), ("",)),
        rows=tuple(_row_cells(row, has_energy=has_energy) for row in model.rows),
        num_names=1,
    )


def _row_cells(row: SpeedRow, *, has_energy: bool) -> tuple[Cell, ...]:
    mean, sd = _mean_sd(row.speed)
    energy = row.energy
    joules = (energy.joules, energy.above_idle) if energy else (None, None)
    return (
        (row.test.name,),
        (mean,),
        (sd,),
        (f"{row.speed.n}",),
        (f"{1000 * row.seconds_per_token:,.2f}",),
        *((wording.ABSENT if v is None else f"{v:.3g}",) for v in joules if has_energy),
        (_mark(row.speed),),
    )


def _models_table(results: BenchResults) -> Table:
    return Table(
        title="Models side by side",
        headers=_MODEL_HEADERS,
        rows=tuple(_model_cells(model) for model in results.models),
        num_names=1,
        note="pp and tg: one text, nothing before it. First token: p50.",
    )


def _model_cells(model: BenchModel) -> tuple[Cell, ...]:
    bits = f"{model.bits_per_weight:.2f}" if model.bits_per_weight else wording.ABSENT
    first = model.first_token
    return (
        (wording.clean(model.name),),
        (_size(model.size_bytes), bits),
        (wording.ABSENT if model.load_seconds is None else f"{model.load_seconds:.2f}",),
        _speed_cell(model, "prompt"),
        _speed_cell(model, "generation"),
        (wording.ABSENT if first is None else f"{1000 * first.percentile(50):,.0f}",),
        (_size(model.memory.peak_bytes) if model.memory else wording.ABSENT,),
        (f"{model.suite.per_hour.mean:,.0f}" if model.suite else wording.ABSENT,),
    )


def _speed_cell(model: BenchModel, kind: str) -> Cell:
    """The figure of one text with nothing before it."""
    for row in model.rows:
        if row.test.kind == kind and row.test.num_texts == 1 and not row.test.depth:
            return (_mean(row.speed), *((UNSTABLE,) if row.speed.is_unstable else ()))
    return (wording.ABSENT,)


def _comparison_blocks(comparison: BenchComparison) -> list[Block]:
    found: list[Block] = [Heading(f"Against the result of {comparison.when}")]
    if comparison.notes:
        found.append(Lines(tuple(f"! {wording.clean(note)}" for note in comparison.notes)))
    if not comparison.changes:
        return [*found, Lines(("nothing was measured alike in both",))]
    table = Table(
        title="Now ÷ before",
        headers=_CHANGE_HEADERS,
        rows=tuple(_change_cells(change) for change in comparison.changes),
        num_names=2,
        note="Intervals: Welch's, on the logarithms of the repetitions. They tell how these vary within"
        " the two benchmarks, not what another start or another load of the machine would add.",
    )
    return [*found, table]


def _change_cells(change: BenchChange) -> tuple[Cell, ...]:
    ratio = change.ratio
    interval = (
        wording.ABSENT
        if ratio.low is None or ratio.high is None
        else f"{ratio.low:.3f}–{ratio.high:.3f}"
    )
    is_unstable = change.old.is_unstable or change.new.is_unstable
    return (
        (wording.clean(change.model),),
        (wording.clean(change.what),),
        (_with_unit(change.old, change.unit),),
        (_with_unit(change.new, change.unit),),
        (f"{ratio.value:.3f}",),
        (interval,),
        (UNSTABLE if is_unstable else _verdict(change),),
    )


def _verdict(change: BenchChange) -> str:
    """In a word, where the interval leaves out 1."""
    ratio = change.ratio
    if ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return ""
    return "better" if (ratio.low > 1) == change.more_is_better else "worse"


def _with_unit(found: Repeated, unit: str) -> str:
    return _size(int(found.mean)) if unit == "bytes" else f"{_number(found.mean)} {unit}"


def _mean(found: Repeated) -> str:
    mean, sd = _mean_sd(found)
    return mean if found.sd is None else f"{mean} ± {sd}"


def _mean_sd(found: Repeated) -> tuple[str, str]:
    """Both to the same decimal."""
    decimals = _decimals(found.mean)
    sd = wording.ABSENT if found.sd is None else f"{found.sd:,.{decimals}f}"
    return f"{found.mean:,.{decimals}f}", sd


def _mark(found: Repeated, before: str = "") -> str:
    return f"{before}{UNSTABLE}" if found.is_unstable else ""


def _decimals(value: float) -> int:
    """So many that there are four digits, or all before the point: "1,043", "100.0", "86.91"."""
    return max(0, 3 - math.floor(math.log10(value)))


def _number(value: float) -> str:
    return f"{value:,.{_decimals(value)}f}"


def _milliseconds(seconds: float) -> str:
    return f"{_number(1000 * seconds)} ms"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:,.2f} GiB"
