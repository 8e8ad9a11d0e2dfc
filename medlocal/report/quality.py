"""What quantised files lost against their reference: a table per language, for a terminal and in Markdown.

Everything was measured elsewhere (`weights.quality` on texts, `quality_tasks` on tasks). Here the two are put
side by side and said; the plot is `quality_plot`'s, every figure in full `quality_files`'. The errors
shown are those from the spread of the chunks' means, not those that take tokens for independent.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medlocal.evals.comparing import ComparisonRow
from medlocal.evals.stats import Rate, wilson
from medlocal.report import wording
from medlocal.report.blocks import AT_CHANCE_MARK, Block, Cell, Heading, Lines, Table, p_cell
from medlocal.report.quality_tasks import ReferenceScore, Tasks
from medlocal.report.tables import block_markdown, print_blocks
from medlocal.weights.divergence import Divergence, Estimated
from medlocal.weights.quality_results import FileFacts, Measured, Quality, TextFacts

if TYPE_CHECKING:
    from rich.console import Console

_HEADERS: tuple[Cell, ...] = (
    ("file",),
    ("type,", "size,", "bits/weight"),
    ("mean KL", "divergence"),
    ("median,", "99 %"),
    ("same top", "token"),
    ("Δp RMS",),
    ("perplexity", "ratio"),
    ("lost", "gained", "p"),
)
_TASK_HEADERS: tuple[Cell, ...] = (
    ("language",),
    ("file",),
    ("form", "arm"),
    ("n",),
    ("reference",),
    ("file's",),
    ("points",),
    ("lost,", "gained"),
    ("p",),
)
_NOTES = (
    "KL divergence from the reference in nats per token, 0 = the same. Same top token: share of tokens for"
    " which both find the same one most likely. Δp: difference in the probability of the text's own"
    " next token. Perplexity ratio: 1 = the text is as likely as to the reference; its level is never"
    " compared between different models.",
    "±: standard error from the spread of the chunks' means, since the tokens of a chunk are not"
    " independent; brackets: 95 %. llama.cpp takes tokens for independent: its errors are in CSV and JSON.",
)
_TASK_NOTE = (
    "Lost: right with the reference and wrong with the file; gained: the other way round. p: exact"
    " McNemar, for each row by itself."
)


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Everything that is known of what was lost."""

    quality: Quality
    tasks: Tasks | None
    """None = the tasks were left out."""


def with_error(value: float, error: float | None) -> Cell:
    """A value over its error, both as precise as the error is: ("0.491", "± 0.046")."""
    if error is None:
        return (_signed(f"{value:.4g}"), wording.ABSENT)
    decimals = 1 - math.floor(math.log10(error)) if error > 0 else 6
    decimals = min(6, max(0, decimals))
    return (_signed(f"{value:.{decimals}f}"), f"± {error:.{decimals}f}")


def _signed(shown: str) -> str:
    """A number with a minus as long as its digits, and a nought without one."""
    if not shown.startswith("-"):
        return shown
    return ("−" if float(shown) else "") + shown[1:]


def same_top_rate(found: Divergence) -> Rate:
    """The share with an interval that is too narrow neither for few tokens nor for few chunks.

    It spans the Wilson interval of the tokens, which is right where nearly all are the same, and
    that of the chunks' means, which knows that the tokens of a chunk are not independent.
    """
    rate = wilson(found.num_same_top, found.num_positions)
    low, high = found.same_top.low, found.same_top.high
    if rate.low is None or rate.high is None or low is None or high is None:
        return rate
    return Rate(rate.value, max(0.0, min(low, rate.low)), min(1.0, max(high, rate.high)), rate.n)


def quality_blocks(report: QualityReport) -> list[Block]:
    """The report in blocks: a table per language, then what was lost on the tasks in every form."""
    quality = report.quality
    reference = quality.reference
    found: list[Block] = [
        Heading("What quantisation lost", level=1),
        Lines((f"reference: {wording.clean(reference.name)}, {_about(reference)}", *_NOTES)),
    ]
    for text in quality.texts:
        found += [Heading(_language(text.language)), Lines(tuple(_facts(report, text)))]
        found.append(_table(report, text))
    if report.tasks is not None:
        found += _task_blocks(report.tasks)
    return found


def print_quality(report: QualityReport, console: "Console") -> None:
    """Print the report for a terminal of 80 columns or more."""
    print_blocks(quality_blocks(report), console)


def quality_markdown(report: QualityReport) -> str:
    """The report as Markdown."""
    lines = (line for block in quality_blocks(report) for line in [*block_markdown(block), ""])
    return "\n".join(lines)


def _about(file: FileFacts) -> str:
    return (
        f"{wording.clean(file.type)}, {_size(file.size_bytes)}, {file.bits_per_weight:.2f} bits per"
        f" weight, {_size(file.loaded_bytes)} of weights in memory"
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:,.2f} GiB"


def _language(code: str) -> str:
    return wording.clean(wording.language(code)) or "The text"


def _facts(report: QualityReport, text: TextFacts) -> Iterator[str]:
    """What stands above a language's table."""
    measured = report.quality.files[0].by_language[text.language]
    value, error = with_error(
        measured.reference_perplexity.value, measured.reference_perplexity.chunk_error
    )
    yield (
        f"{text.num_positions:,} tokens predicted, in {text.num_chunks:,} chunks of"
        f" {text.chunk_tokens:,}; perplexity of the reference {value} {error}"
    )
    yield (
        f"the reference is kept in {report.quality.reference_bytes:,.0f} bytes per token, not in full: of"
        f" the mean divergence's error, at most {_reference_error(report, text):.1g} is from that"
    )
    score = report.tasks.lead_score(text.language) if report.tasks else None
    if score is not None:
        yield _score_line(score)


def _reference_error(report: QualityReport, text: TextFacts) -> float:
    return max(f.by_language[text.language].kld_reference_error for f in report.quality.files)


def _score_line(score: ReferenceScore) -> str:
    said = (
        f"tasks ({score.format}/{score.arm}): the reference gets"
        f" {wording.full_rate(score.accuracy)} right, guessing {wording.percent(score.chance)}, the most"
        f" frequent label {wording.percent(score.majority)}"
    )
    if score.at_chance:
        return f"{said}. {AT_CHANCE_MARK} Not shown to be above chance: what is lost or gained is chance too"
    return said


def _table(report: QualityReport, text: TextFacts) -> Table:
    has_tasks = report.tasks is not None and text.language in report.tasks.leads
    files = sorted(report.quality.files, key=lambda measured: -measured.file.size_bytes)
    width = len(_HEADERS) if has_tasks else len(_HEADERS) - 1
    return Table(
        title=f"Against the reference, {_language(text.language)}",
        headers=_HEADERS[:width],
        rows=tuple(_row(report, measured, text.language)[:width] for measured in files),
        num_names=1,
        note=_TASK_NOTE if has_tasks else "",
    )


def _row(report: QualityReport, measured: Measured, language: str) -> tuple[Cell, ...]:
    file, found = measured.file, measured.by_language[language]
    rate = same_top_rate(found)
    return (
        (wording.clean(file.name),),
        (wording.clean(file.type), _size(file.size_bytes), f"{file.bits_per_weight:.2f}"),
        with_error(found.kld.value, found.kld.chunk_error),
        (f"{found.kld_median:.3g}", f"{found.kld_99:.3g}"),
        (wording.percent(rate.value), wording.bounds(rate)),
        _percent_error(found.dp_rms),
        with_error(found.perplexity_ratio.value, found.perplexity_ratio.chunk_error),
        _flip_cell(report, file.name, language),
    )


def _percent_error(found: Estimated) -> Cell:
    error = None if found.chunk_error is None else 100 * found.chunk_error
    value, said = with_error(100 * found.value, error)
    return (f"{value} %", said)


def _flip_cell(report: QualityReport, name: str, language: str) -> Cell:
    row = report.tasks.lead_row(name, language) if report.tasks else None
    if report.tasks is None or row is None:
        return (wording.ABSENT,)
    score = report.tasks.lead_score(language)
    mark = f" {AT_CHANCE_MARK}" if score is not None and score.at_chance else ""
    return (f"{row.b:,}{mark}", f"{row.c:,}{mark}", *p_cell(row.p))


def _task_blocks(tasks: Tasks) -> list[Block]:
    at_chance = {(s.language, s.format, s.arm) for s in tasks.reference if s.at_chance}
    rows = sorted(tasks.rows, key=lambda row: row.comparison.language)
    table = Table(
        title="Every language, form and arm",
        headers=_TASK_HEADERS,
        rows=tuple(
            _task_row(row.name, row.comparison, _key(row.comparison) in at_chance) for row in rows
        ),
        num_names=2,
        note=f"{AT_CHANCE_MARK} the reference is not shown to be above chance. Intervals: 95 %,"
        " clustered by question.",
    )
    about = f"suite {wording.clean(tasks.suite)}, data sets {', '.join(tasks.datasets)}, run {tasks.run_id}"
    return [Heading("Tasks"), Lines((about,)), table]


def _key(row: ComparisonRow) -> tuple[str, str, str]:
    return row.language, row.format, row.arm


def _task_row(name: str, row: ComparisonRow, is_at_chance: bool) -> tuple[Cell, ...]:
    mark = f" {AT_CHANCE_MARK}" if is_at_chance else ""
    return (
        (wording.language(row.language),),
        (wording.clean(name),),
        (wording.clean(row.format), row.arm),
        (f"{row.n:,}",),
        (wording.percent(row.accuracy_first.value) + mark,),
        (wording.percent(row.accuracy_second.value),),
        (wording.points(row.delta), wording.points_interval(row.low, row.high)),
        (f"{row.b:,} {row.c:,}",),
        p_cell(row.p),
    )
