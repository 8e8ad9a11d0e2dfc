"""Quality against size: one plot of what each quantised file lost, with its intervals, as SVG or PNG.

It stands for itself, on paper or in a talk, and so has its colours in it: those of the report's page,
in light. The same report gives the same bytes. What the figures mean is not known here.
"""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlocal.report import wording
from medlocal.report.canvas import text_width
from medlocal.report.plots import MARKERS, series_color
from medlocal.report.quality import QualityReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAGE = Path(__file__).parent / "assets" / "page.css"
_WIDTH, _HEIGHT = 7.6, 4.8
"""Inches."""
_MARGINS = {"left": 0.115, "right": 0.97, "bottom": 0.13}
"""Of the axes, as shares of the figure; their upper edge leaves room for the labels."""
_LARGE = 2 * 2**30
"""From this size on, in bytes, gibibytes are easier to read."""
_LABEL_SIZE = 9.0
_LINE = 0.045
"""Height of a line of labels, as a share of the figure."""
_SPAN = 1.12
"""Of the axis of sizes, in largest sizes: the label of the largest needs room on its right."""
_HEAD = 0.9
"""What lies above is the title's, as a share of the figure's height."""
_GAP = 0.015
"""Between the axes and the first line of labels."""
_DODGE = 7.0
"""Points between the markers of two languages at the same size."""
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medlocal",
    "text.parse_math": False,  # a file may have a dollar sign in its name
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def quality_plot(report: QualityReport, kind: str) -> bytes:
    """Mean divergence, with its 95 % interval, against the size of the file; one series per language.

    Args:
        report: what was measured.
        kind: `svg` or `png`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    colors = _colors()
    defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
    kept = {key: value for key, value in defaults.items() if not key.startswith("backend")}
    file = BytesIO()
    with matplotlib.rc_context({**kept, **_SETTINGS}):
        figure = Figure(figsize=(_WIDTH, _HEIGHT), facecolor=colors["bg"])
        lines = _label_lines(report)
        top = _HEAD - _GAP - _LINE * (max(lines) + 1)
        axes = figure.subplots(gridspec_kw={**_MARGINS, "top": top})
        axes.set_facecolor(colors["bg"])
        floor = _set_scales(axes, report)
        for number, text in enumerate(report.quality.texts):
            _draw_series(axes, report, text.language, number, floor)
        _draw_labels(axes, report, lines)
        _draw_frame(axes, report)
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=160, metadata=metadata)
    return file.getvalue()


def _colors() -> dict[str, str]:
    """The page's colours in light: the first set in its style sheet."""
    light = _PAGE.read_text(encoding="utf-8").partition("}")[0]
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", light))


def _unit(report: QualityReport) -> tuple[str, int]:
    """What sizes are shown in, by the largest of them."""
    files = [report.quality.reference, *(measured.file for measured in report.quality.files)]
    largest = max(file.size_bytes for file in files)
    return ("GiB", 2**30) if largest >= _LARGE else ("MiB", 2**20)


def _sizes(report: QualityReport) -> list[float]:
    """Of the reference, then of the files, in the plot's unit."""
    files = [report.quality.reference, *(measured.file for measured in report.quality.files)]
    return [file.size_bytes / _unit(report)[1] for file in files]


def _set_scales(axes: "Axes", report: QualityReport) -> float:
    """Sizes from 0, divergences on a logarithmic scale.

    Returns:
        The lowest divergence that is drawn: what is not above it lies on the axis.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    found = [d for measured in report.quality.files for d in measured.by_language.values()]
    means = [d.kld.value for d in found if d.kld.value > 0]
    lows = [d.kld.low for d in found if d.kld.low is not None and d.kld.low > 0]
    highs = [d.kld.high for d in found if d.kld.high is not None and d.kld.high > 0]
    # An interval that reaches 0 has no lower end on this scale, and must not stretch it.
    floor = min((*means, *(low for low in lows if low > min(means) / 10)), default=1e-4) / 1.6
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(floor, 1.6 * max((*means, *highs), default=1.0))
    axes.set_xlim(0, _SPAN * max(_sizes(report)))
    return floor


def _draw_series(
    axes: "Axes", report: QualityReport, language: str, number: int, floor: float
) -> None:
    from matplotlib.transforms import offset_copy

    color = _colors()[series_color(number)]
    shift = _DODGE * (number - (len(report.quality.texts) - 1) / 2)
    place = offset_copy(axes.transData, axes.get_figure(root=True), x=shift, y=0, units="points")
    sizes = _sizes(report)[1:]
    for order, (x, measured) in enumerate(zip(sizes, report.quality.files, strict=True)):
        kld = measured.by_language[language].kld
        if kld.low is not None and kld.high is not None:
            ends = [max(floor, kld.low), max(floor, kld.high)]
            axes.plot([x, x], ends, color=color, linewidth=1.4, transform=place, zorder=2)
        axes.plot(
            [x],
            [max(floor, kld.value)],
            marker=MARKERS[number % len(MARKERS)],
            color=color,
            markeredgecolor=_colors()["bg"],
            markersize=5.5,
            linestyle="none",
            clip_on=False,
            transform=place,
            zorder=3,
            label=wording.language(language) or "text" if order == 0 else None,
        )


def _label_lines(report: QualityReport) -> list[int]:
    """On which line above the axes each label stands, the reference's first, so that none overlap."""
    sizes, labels = _sizes(report), _labels(report)
    room = 72 * _WIDTH * (_MARGINS["right"] - _MARGINS["left"]) / (_SPAN * max(sizes))
    lines, ends = [0] * len(sizes), list[float]()
    for at in sorted(range(len(sizes)), key=sizes.__getitem__):
        half = text_width(labels[at], _LABEL_SIZE) / 2 + 3
        left, right = sizes[at] * room - half, sizes[at] * room + half
        line = next((n for n, end in enumerate(ends) if end <= left), len(ends))
        ends[line : line + 1] = [right]
        lines[at] = line
    return lines


def _labels(report: QualityReport) -> list[str]:
    """The types, or the names where types are not told apart by them."""
    files = [measured.file for measured in report.quality.files]
    are_types = len({file.type for file in files}) == len(files)
    shown = [file.type if are_types else file.name for file in files]
    return [f"reference: {report.quality.reference.type}", *shown]


def _draw_labels(axes: "Axes", report: QualityReport, lines: Sequence[int]) -> None:
    """A label above the axes for every file, and a line from it down through what it names."""
    colors = _colors()
    height = axes.get_position().height
    for at, (x, label, line) in enumerate(zip(_sizes(report), _labels(report), lines, strict=True)):
        y = 1 + (_GAP + _LINE * line) / height
        axes.plot(
            [x, x],
            [0, y],
            color=colors["muted" if at == 0 else "grid"],
            linewidth=0.8,
            linestyle=(0, (3, 2)) if at == 0 else "-",
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            zorder=1,
        )
        axes.text(
            x,
            y,
            wording.clean(label),
            ha="center",
            va="bottom",
            size=_LABEL_SIZE,
            color=colors["fg"],
            transform=axes.get_xaxis_transform(),
            # A line that belongs to a label further up passes behind this one.
            bbox={"facecolor": colors["bg"], "edgecolor": "none", "pad": 0.8},
            zorder=4,
        )


def _draw_frame(axes: "Axes", report: QualityReport) -> None:
    colors = _colors()
    axes.grid(axis="y", which="major", color=colors["grid"], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"size of the file in {_unit(report)[0]}", color=colors["muted"])
    axes.set_ylabel("KL divergence, nats per token", color=colors["muted"])
    axes.tick_params(colors=colors["muted"], which="both")
    for spine in axes.spines.values():
        spine.set_color(colors["line"])
    counts = ", ".join(
        f"{wording.language(t.language) or 'text'} {t.num_positions:,} tokens"
        for t in report.quality.texts
    )
    title = f"What quantisation lost against {report.quality.reference.name}"
    axes.figure.suptitle(
        wording.clean(title), x=0.02, y=0.985, ha="left", size=11, weight="bold", color=colors["fg"]
    )
    axes.figure.text(
        0.02, 0.91, f"mean and 95 % interval; {counts}", size=_LABEL_SIZE, color=colors["muted"]
    )
    if len(report.quality.texts) > 1:
        axes.legend(frameon=False, labelcolor=colors["fg"], loc="best")
