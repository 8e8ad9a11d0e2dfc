"""One screen about model files that were looked at in a hurry, for a terminal and in Markdown. Pure.

One model has its languages side by side and fits 80 columns by 24 lines; several stand side by side, with
a line per language in each cell. What is known of them stands in `quick`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medlocal.evals.comparing import Comparison, OverallRow
from medlocal.report import wording
from medlocal.report.blocks import (
    AT_CHANCE_MARK,
    AT_CHANCE_NOTE,
    Block,
    Cell,
    Heading,
    Lines,
    Table,
    p_cell,
)
from medlocal.report.quick import QuickModel, QuickReport, warnings
from medlocal.report.tables import block_markdown, print_blocks

if TYPE_CHECKING:
    from rich.console import Console

_FEW_SETS = 3
"""Up to this many are named on the screen, which has little room; JSON names all."""
_UNSTABLE = "UNSTABLE"
_ARMS = ("label", "grammar", "free")
_COMPARED: tuple[Cell, ...] = (
    ("",), ("",), ("n",), ("points",), ("95 % interval",), ("p",), ("verdict",), ("shows",)
)  # fmt: skip
_COMPARED_NOTE = (
    "Points: difference in answers right. Shows: the smallest true difference in points that so many"
    " questions would have shown with 80 % power; – = none."
)


def quick_blocks(report: QuickReport) -> list[Block]:
    """The screen, in blocks."""
    found: list[Block] = [Heading(_title(report), level=1)]
    if len(report.models) == 1:
        (model,) = report.models
        found.append(
            Lines(tuple(f"{name}: {cell[0]}" for name, cell in _facts(model, is_long=True)))
        )
        found += [_table(report, _language_columns(report, model))] if model.asked else []
    else:
        found.append(_table(report, _model_columns(report)))
    found += [_comparison(report, pair) for pair in report.comparisons]
    return [*found, Lines(tuple(_closing(report)))]


def print_quick(report: QuickReport, console: "Console") -> None:
    """Print the screen: 80 columns by 24 lines for one model, wider for several."""
    print_blocks(quick_blocks(report), console)


def quick_markdown(report: QuickReport) -> str:
    """The screen as Markdown."""
    lines = (line for block in quick_blocks(report) for line in [*block_markdown(block), ""])
    return "\n".join(lines)


def _title(report: QuickReport) -> str:
    names = [wording.clean(str(_file(m).get("name", m.name))) for m in report.models]
    return f"Quick look at {wording.listed(names)}"


def _file(model: QuickModel) -> Mapping[str, Any]:
    file = model.facts.get("file", {})
    assert isinstance(file, Mapping)
    return file


def _facts(model: QuickModel, *, is_long: bool) -> list[tuple[str, Cell]]:
    """What does not depend on a language; in long form everything is in one line."""
    parts = [
        ("size", _file_parts(_file(model), is_long=is_long)),
        ("load", _load_parts(model)),
        *_speed_parts(model.facts.get("speed") or {}, is_long=is_long),
        ("exactness", _exactness(model.engine, is_long=is_long)),
    ]
    return [(name, (", ".join(told),) if is_long else told) for name, told in parts]


def _file_parts(file: Mapping[str, Any], *, is_long: bool) -> Cell:
    bits = file.get("bits_per_weight")
    parts = (_size(file.get("bytes")), f"{bits:.2f} bits/weight" if bits else wording.ABSENT)
    if not is_long:
        return parts
    weights = f"{file.get('parameters', 0) / 1e6:,.0f} M weights"
    return (*parts, wording.clean(str(file.get("quantisation"))), weights)


def _load_parts(model: QuickModel) -> Cell:
    speed = model.facts.get("speed") or {}
    seconds, memory = speed.get("load_seconds"), speed.get("memory") or {}
    parts = [wording.ABSENT if seconds is None else f"{seconds:.2f} s"]
    if (needed := memory.get("needed_bytes")) is not None:
        parts.append(f"memory {_size(needed)}")
    if memory.get("gpu_bytes"):
        parts.append(f"GPU memory {_size(memory['gpu_bytes'])}")
    if cache := model.engine.get("kv_bytes"):
        parts.append(f"{_size(cache)} of cache to ask")
    return tuple(parts)


def _speed_parts(speed: Mapping[str, Any], *, is_long: bool) -> list[tuple[str, Cell]]:
    """Tokens per second as llama-bench has them: mean ± sd."""
    told = {row["kind"]: _rate(row) for row in speed.get("rows", ())}
    names = ", ".join(str(row["name"]) for row in speed.get("rows", ()))
    cells = {kind: told.get(kind, "not measured") for kind in ("prompt", "generation")}
    if not is_long:
        return [(f"{kind}, tokens/s", (cell,)) for kind, cell in cells.items()]
    told_all = " and ".join(f"{kind} {cell}" for kind, cell in cells.items())
    return [("speed", (f"{told_all} tokens/s ({names})" if names else told_all,))]


def _rate(row: Mapping[str, Any]) -> str:
    measured = row["tokens_per_second"]
    shown = f"{measured['mean']:,.1f}"
    if measured["sd"] is not None:
        shown += f" ± {measured['sd']:,.1f}"
    return f"{shown} {_UNSTABLE}" if measured["unstable"] else shown


def _exactness(engine: Mapping[str, Any], *, is_long: bool) -> Cell:
    """How many answers were the same again, and how many to the last bit."""
    test = engine.get("self_test")
    if not test or not test["together"]["n"]:
        return ("not tested",)
    told = {"together": "twice", "alone": "alone"}
    parts = []
    for what, name in told.items():
        n, same, bits = (test[what][key] for key in ("n", "same_answer", "same_bits"))
        if n:
            parts.append(f"asked {name} {same}/{n} the same")
            if bits < n:
                parts[-1] += f" ({bits} to the last bit)"
    return (f"{engine.get('mode')} mode", *parts) if is_long else tuple(parts)


def _size(num_bytes: object) -> str:
    if not isinstance(num_bytes, int | float):
        return wording.ABSENT
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:,.1f} MiB"
    return f"{num_bytes / 2**30:,.2f} GiB"


_Column = tuple[Cell, Mapping[str, Cell]]
"""A header, and what stands in the rows by their names."""


def _language_columns(report: QuickReport, model: QuickModel) -> list[_Column]:
    return [
        ((wording.language(language),), dict(_scores(model, language)))
        for language in report.languages
    ]


def _model_columns(report: QuickReport) -> list[_Column]:
    """One column per model; below its facts the scores, a line per language in each cell."""
    names = short_names([model.name for model in report.models])
    columns: list[_Column] = []
    for model in report.models:
        cells = dict(_facts(model, is_long=False))
        for language in report.languages:
            for name, cell in _scores(model, language):
                cells[name] = (*cells.get(name, ()), f"{language} {cell[0]}")
        columns.append(((names[model.name],), cells))
    return columns


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the beginning that they share, cut where a word ends: "Q4_0", "Q8_0"."""
    columns = enumerate(zip(*names, strict=False))
    end = next((at for at, signs in columns if len(set(signs)) > 1), 0)
    start = max(names[0].rfind(sign, 0, end) for sign in "-./ ") + 1
    return {name: wording.clean(name[start:] or name) for name in names}


def _scores(model: QuickModel, language: str) -> Iterator[tuple[str, Cell]]:
    """The rows of a language: how many, how right, in which form."""
    if (asked := model.asked.get(language)) is None:
        return
    yield "questions", (f"{asked.counted:,} of {asked.planned:,}",)
    rows = {arm: row for arm in _ARMS if (row := model.row(language, arm))}
    for arm, row in rows.items():
        mark = f" {AT_CHANCE_MARK}" if row.at_chance else ""
        yield f"right, {arm}", (wording.rate_in_words(row.acc_lenient) + mark,)
    for row in list(rows.values())[:1]:
        known = f"{wording.percent(row.chance)}, {wording.percent(row.majority)}"
        yield "chance, majority", (known,)
    if free := rows.get("free"):
        for name, rate in (("form strict", free.fcr_strict), ("form readable", free.fcr_lenient)):
            if rate is not None:
                yield name, (wording.rate_in_words(rate),)
    if (grammar := rows.get("grammar")) and grammar.median_tax_nats is not None:
        low, high = grammar.tax_interval.low, grammar.tax_interval.high
        bounds = "" if low is None or high is None else f" ({low:.2f}–{high:.2f})"
        yield "mask tax, nats", (f"{grammar.median_tax_nats:.2f}{bounds}",)
    if (label := rows.get("label")) and label.mean_label_mass is not None:
        yield "label mass", (wording.percent(label.mean_label_mass),)


def _table(report: QuickReport, columns: Sequence[_Column]) -> Table:
    names = dict.fromkeys(name for _, cells in columns for name in cells)
    is_marked = any(row.at_chance for model in report.models for row in model.rows)
    return Table(
        title=_asked_title(report.datasets),
        headers=(("",), *(header for header, _ in columns)),
        rows=tuple(
            ((name,), *(cells.get(name, (wording.ABSENT,)) for _, cells in columns))
            for name in names
        ),
        num_names=1,
        note=AT_CHANCE_NOTE if is_marked else "",
    )


def _asked_title(datasets: Sequence[str]) -> str:
    if not datasets:
        return "Files"
    few = len(datasets) <= _FEW_SETS
    return f"Letter answers, {wording.listed(datasets) if few else f'{len(datasets)} data sets'}"


def _comparison(report: QuickReport, comparison: Comparison) -> Table:
    """The verdicts on a model, a row per language and arm."""
    names = short_names([model.name for model in report.models])
    return Table(
        title=f"{names[comparison.second]} against {names[comparison.first]}, the same questions",
        headers=_COMPARED,
        rows=tuple(_compared_row(row) for row in comparison.overall),
        num_names=2,
        note=_COMPARED_NOTE,
    )


def _compared_row(row: OverallRow) -> tuple[Cell, ...]:
    smallest = wording.ABSENT if row.smallest is None else wording.points_size(row.smallest)
    return (
        (wording.language(row.language),),
        (row.arm,),
        (f"{row.n:,}",),
        (wording.points(row.delta),),
        (wording.points_interval(row.low, row.high),),
        p_cell(row.p),
        (row.verdict,),
        (smallest,),
    )


def _closing(report: QuickReport) -> Iterator[str]:
    names = short_names([model.name for model in report.models])
    for model in report.models:
        name = "" if len(report.models) == 1 else f"{names[model.name]}: "
        yield from (f"! {name}{wording.clean(text)}" for text in warnings(model))
    if report.run_id:
        taken, given = _clock(report.seconds), _clock(60 * report.minutes)
        yield f"run {report.run_id}: {taken} of {given}" + (
            "; every question was asked"
            if report.is_complete
            else "; the same command goes on from here"
        )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
