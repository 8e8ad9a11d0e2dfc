"""The page's plots of points and lines: dots with whiskers, strips. From plain values to SVG.

It knows estimates, series and labels, and nothing of models, formats or what a share is a share of.
Everything is placed in pixels here, so that labels cannot overlap; nothing is told by colour alone:
every series has a marker of its own too. Filled areas are the business of `tiles`,
small panels that of `panels`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medlocal.report.canvas import (
    NUM_SERIES,
    Canvas,
    shortened,
    text_width,
)

WIDTH = 760
"""Pixels; on a narrower screen the figure scrolls, so that its text stays as large as the page's."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "p", "h", "<", ">")
SMALL = 11.0
"""Size of what is only needed at a second look."""
_HEAD = 30
"""Height of the row that names a group."""
_EDGE = 8
_BETWEEN = 40
"""From one panel to the next, so that what stands at their ends does not meet."""


@dataclass(frozen=True, slots=True)
class Titled:
    """What a figure is called, for those who cannot see it too."""

    name: str
    """Of the element, unique in the page: "plot-3"."""
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share, or a difference of shares, with its interval."""

    value: float | None
    """None = there is none, and nothing is drawn."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """What a panel measures."""

    title: str
    low: float
    high: float
    is_signed: bool = False
    """Differences, in points, about a line at 0; otherwise shares, in per cent."""


@dataclass(frozen=True, slots=True)
class DotRow:
    """One line of a dot plot."""

    label: str
    estimates: tuple[tuple[Estimate | None, ...], ...]
    """Per axis and series."""
    references: tuple[float | None, ...] = ()
    """Per axis, a value to compare with, such as chance; () = none."""


@dataclass(frozen=True, slots=True)
class StripRow:
    """One line of a strip plot."""

    label: str
    values: tuple[tuple[float, ...] | None, ...]
    """Per axis; None = it does not apply."""
    notes: tuple[tuple[tuple[str, str], ...], ...]
    """Per axis, lines of text beside it; the second part of a line is cut where there is no room."""


Groups = Sequence[tuple[str, Sequence[DotRow]]]
"""(title, rows); a group without a title has no row for it."""


def share_axis(title: str) -> Axis:
    """From 0 to 100 %."""
    return Axis(title, 0.0, 1.0)


def difference_axis(title: str, values: Sequence[float | None]) -> Axis:
    """About 0, as wide as the values need."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    steps = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
    limit = next((step for step in steps if step >= largest), math.ceil(largest))
    return Axis(title, -limit, limit, is_signed=True)


def series_color(number: int) -> str:
    """Of a series, counted from 0."""
    return f"series-{number % NUM_SERIES}"


def dot_plot(titled: Titled, axes: Sequence[Axis], groups: Groups, series: Sequence[str]) -> str:
    """Dots with whiskers, in rows, one panel per axis.

    Args:
        titled: what it is called.
        axes: of the panels, from left to right.
        groups: the rows.
        series: their names; in a row they stand one below the other.
    """
    step = 10.0 if len(series) > 1 else 0.0
    row_height = max(24.0, step * len(series) + 10)
    labels = [row.label for _, rows in groups for row in rows]
    left = min(300.0, max(map(text_width, labels), default=0.0)) + 14
    top = legend_height(series) + 44
    height = top + sum((_HEAD if title else 4) + row_height * len(rows) for title, rows in groups)
    canvas = Canvas(WIDTH, height + 30)
    legend(canvas, series)
    panels = _panels(axes, left)
    for panel in panels:
        _frame(canvas, panel, top, height)
    y = top
    for title, rows in groups:
        y = _head(canvas, title, y)
        for row in rows:
            middle = y + row_height / 2
            canvas.text(left - 12, middle, shortened(row.label, left - 14), anchor="right")
            for number, panel in enumerate(panels):
                _reference(canvas, panel, row, number, (y + 2, y + row_height - 2))
                _dots(canvas, panel, row.estimates[number], middle, step)
            y += row_height
            canvas.line([(0, y), (WIDTH, y)], "grid", thick=0.5)
    return canvas.svg(titled.name, titled.title, titled.description)


def strip_plot(
    titled: Titled, axes: Sequence[Axis], groups: Sequence[tuple[str, Sequence[StripRow]]]
) -> str:
    """Every value a dot, in rows, with the mean marked and words beside.

    Args:
        titled: what it is called.
        axes: of the panels, from left to right; each has notes on its right.
        groups: (title, rows).
    """
    row_height, notes = 40.0, 150.0
    labels = [row.label for _, rows in groups for row in rows]
    left = min(170.0, max(map(text_width, labels), default=0.0)) + 14
    top = 44.0
    height = top + sum((_HEAD if title else 4) + row_height * len(rows) for title, rows in groups)
    canvas = Canvas(WIDTH, height + 30)
    panels = _panels(axes, left, notes)
    for panel in panels:
        _frame(canvas, panel, top, height)
    y = top
    for title, rows in groups:
        y = _head(canvas, title, y)
        for row in rows:
            canvas.text(
                left - 12, y + row_height / 2, shortened(row.label, left - 14), anchor="right"
            )
            for panel, values, note in zip(panels, row.values, row.notes, strict=True):
                _strip(canvas, panel, values, y + row_height / 2)
                _note(canvas, note, (panel.right + 12, y + row_height / 2), notes)
            y += row_height
            canvas.line([(0, y), (WIDTH, y)], "grid", thick=0.5)
    return canvas.svg(titled.name, titled.title, titled.description)


def _note(
    canvas: Canvas, lines: Sequence[tuple[str, str]], place: tuple[float, float], room: float
) -> None:
    for number, (words, name) in enumerate(lines):
        y = place[1] + 14 * (number - (len(lines) - 1) / 2)
        name = shortened(name, room - 8 - text_width(f"{words} ", SMALL), SMALL)
        canvas.text(place[0], y, f"{words} {name}", "muted", size=SMALL)


def legend_height(series: Sequence[str]) -> float:
    """Of the lines that `legend` writes; one series needs none."""
    return 26.0 * len(_legend_lines(series)) if len(series) > 1 else 0.0


def legend(canvas: Canvas, series: Sequence[str]) -> None:
    """What each marker stands for, at the top of the sheet."""
    if len(series) < 2:
        return
    for line, entries in enumerate(_legend_lines(series)):
        for x, number, name in entries:
            middle = 12 + 26 * line
            canvas.marker(
                x + 6, middle, MARKERS[number % len(MARKERS)], series_color(number), size=8
            )
            canvas.text(x + 18, middle, name)


def _legend_lines(series: Sequence[str]) -> list[list[tuple[float, int, str]]]:
    lines: list[list[tuple[float, int, str]]] = [[]]
    x = 0.0
    for number, name in enumerate(series):
        name = shortened(name, WIDTH - 30)
        needed = text_width(name) + 18
        if lines[-1] and x + needed > WIDTH:
            lines.append([])
            x = 0.0
        lines[-1].append((x, number, name))
        x += needed + 18
    return lines


@dataclass(frozen=True, slots=True)
class _Panel:
    axis: Axis
    left: float
    right: float

    def x(self, value: float) -> float:
        share = (value - self.axis.low) / (self.axis.high - self.axis.low)
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)


def _panels(axes: Sequence[Axis], left: float, notes: float = 0.0) -> list[_Panel]:
    """Panels of one width, each with room for notes on its right."""
    width = (WIDTH - left - _BETWEEN * len(axes)) / len(axes) - notes
    lefts = [left + _EDGE + number * (width + notes + _BETWEEN) for number in range(len(axes))]
    return [_Panel(axis, x, x + width) for axis, x in zip(axes, lefts, strict=True)]


def ticks(axis: Axis, room: float) -> list[tuple[float, str]]:
    """Where an axis of so many pixels has lines, and what stands at them."""
    if axis.is_signed:
        values = [axis.low, axis.low / 2, 0.0, axis.high / 2, axis.high]
        return [(value, _signed(value)) for value in values]
    span = axis.high - axis.low
    step = 0.25 if span > 0.8 else 0.2 if span > 0.4 else 0.1
    step *= 1 if room > 50 * span / step else 2
    values = [axis.low + step * number for number in range(int(span / step + 1.001))]
    return [(value, f"{100 * value:.0f} %") for value in values]


def _signed(value: float) -> str:
    return f"{100 * value:+.3g}".replace("-", "−") if value else "0"


def _frame(canvas: Canvas, panel: _Panel, top: float, bottom: float) -> None:
    """The panel's title, its lines, and what they stand for above and below."""
    room = panel.right - panel.left + 10
    canvas.text(panel.left, top - 32, shortened(panel.axis.title, room), bold=True)
    for value, label in ticks(panel.axis, panel.right - panel.left):
        is_zero = panel.axis.is_signed and value == 0
        x = panel.x(value)
        canvas.line([(x, top - 4), (x, bottom)], "muted" if is_zero else "grid")
        for y in (top - 14, bottom + 14):
            canvas.text(x, y, label, "muted", anchor="center", size=SMALL)


def _head(canvas: Canvas, title: str, y: float) -> float:
    if not title:
        return y + 4
    canvas.text(0, y + 18, shortened(title, WIDTH), bold=True)
    canvas.line([(0, y + _HEAD), (WIDTH, y + _HEAD)], "grid", thick=0.5)
    return y + _HEAD


def _reference(
    canvas: Canvas, panel: _Panel, row: DotRow, number: int, ends: tuple[float, float]
) -> None:
    value = row.references[number] if row.references else None
    if value is not None:
        x = panel.x(value)
        canvas.line([(x, ends[0]), (x, ends[1])], "fg", thick=1.2, dashes=(2, 2))


def _dots(
    canvas: Canvas,
    panel: _Panel,
    estimates: Sequence[Estimate | None],
    middle: float,
    step: float,
) -> None:
    for number, estimate in enumerate(estimates):
        if estimate is None or estimate.value is None:
            continue
        y = middle + step * (number - (len(estimates) - 1) / 2)
        color = series_color(number)
        if estimate.low is not None and estimate.high is not None:
            ends = [(panel.x(estimate.low), y), (panel.x(estimate.high), y)]
            canvas.line(ends, color, thick=1.5)
        shape = MARKERS[number % len(MARKERS)]
        canvas.marker(panel.x(estimate.value), y, shape, color, size=8)


def _strip(canvas: Canvas, panel: _Panel, values: Sequence[float] | None, y: float) -> None:
    if not values:
        return
    ends = [(panel.x(min(values)), y), (panel.x(max(values)), y)]
    canvas.line(ends, "series-0", thick=1.0)
    # Equal values would hide each other: they are stacked, alternately above and below.
    heights: dict[int, int] = {}
    for value in sorted(values):
        x = panel.x(value)
        rank = heights[round(x / 6)] = heights.get(round(x / 6), -1) + 1
        shift = 5.0 * ((rank + 1) // 2) * (1 if rank % 2 else -1)
        canvas.marker(x, y + max(-15.0, min(15.0, shift)), "o", "series-0", size=7)
    mean = panel.x(sum(values) / len(values))
    canvas.line([(mean, y - 13), (mean, y + 13)], "fg", thick=2.0)
