"""The page's plots in small panels: lines from free to grammar, and what happens by place. To SVG.

Like `plots`, it knows estimates and labels, and nothing of models or formats.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from medlocal.report.canvas import Canvas, shortened, wrapped
from medlocal.report.plots import (
    MARKERS,
    SMALL,
    WIDTH,
    Axis,
    Estimate,
    Titled,
    legend,
    legend_height,
    series_color,
    share_axis,
    ticks,
)

_DASHES: tuple[tuple[float, ...] | None, ...] = (None, (5, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5))
"""Of slopes, one after another."""
_RECALL, _GAP, _SHARE = 92.0, 18.0, 56.0
"""Heights of a slot panel's upper part, of what is between, and of its lower part."""


@dataclass(frozen=True, slots=True)
class Slots:
    """One panel of a slot plot."""

    recalls: tuple[Estimate, ...]
    gold_shares: tuple[float, ...]
    """() = nothing was chosen; as `chosen_shares`."""
    chosen_shares: tuple[float, ...]
    notes: tuple[str, ...] = ()
    """Lines below the panel."""


def slope_plot(
    titled: Titled,
    ends: tuple[str, str],
    panels: Sequence[tuple[str, Sequence[tuple[Estimate, Estimate] | None]]],
    series: Sequence[str],
) -> str:
    """Lines from one value to another, in panels side by side.

    Args:
        titled: what it is called.
        ends: what stands left and right in every panel.
        panels: (title, per series both estimates or None).
        series: their names.
    """
    per_row, height, left = 3, 190.0, 48.0
    width = (WIDTH - left) / per_row
    highest = max(
        [e.high or e.value or 0.0 for _, lines in panels for line in lines if line for e in line],
        default=1.0,
    )
    axis = Axis("", 0.0, min(1.0, math.ceil(highest * 5) / 5) or 0.2)
    top = legend_height(series) + 6
    num_rows = -(-len(panels) // per_row)
    canvas = Canvas(WIDTH, top + num_rows * (height + 74))
    legend(canvas, series)
    for number, (title, lines) in enumerate(panels):
        x = left + (number % per_row) * width
        y = top + (number // per_row) * (height + 74)
        canvas.text(x + 10, y + 12, shortened(title, width - 20), bold=True)
        scale = _levels(canvas, axis, (x + 10, y + 34), (width - 62, height))
        inner = x + 46, x + width - 88
        for end, at in zip(ends, inner, strict=True):
            canvas.text(at, y + 34 + height + 16, end, "muted", anchor="center")
        for index, line in enumerate(lines):
            if line is not None:
                _slope(canvas, line, inner, scale, index, len(series))
    return canvas.svg(titled.name, titled.title, titled.description)


def slot_plot(
    titled: Titled,
    columns: Sequence[tuple[str, str]],
    rows: Sequence[tuple[str, Sequence[Slots | None]]],
) -> str:
    """Per cell of a grid: accuracy by slot with whiskers, and below it how often each slot is chosen.

    Args:
        titled: what it is called.
        columns: their titles, in two lines.
        rows: (title, per column the slots or None).
    """
    left, top = 126.0, 78.0
    width = min(220.0, (WIDTH - left) / max(1, len(columns)))
    row_height = _RECALL + _GAP + _SHARE + 66
    canvas = Canvas(max(WIDTH, left + width * len(columns)), top + row_height * len(rows))
    _slot_legend(canvas)
    for number, lines in enumerate(columns):
        x = left + number * width + (width - 22) / 2
        for line, text in enumerate(lines):
            shown = shortened(text, width - 6, bold=True)
            canvas.text(x, 42 + 16 * line, shown, anchor="center", bold=True)
    shares = [s for _, cells in rows for cell in cells if cell for s in cell.chosen_shares]
    axes = share_axis(""), Axis("", 0.0, 0.5 if max(shares, default=0.0) <= 0.5 else 1.0)
    for index, (title, cells) in enumerate(rows):
        y = top + index * row_height
        for line, part in enumerate(wrapped(title, left - 52)):
            canvas.text(0, y + 2 + 16 * line, part, bold=True)
        for number, cell in enumerate(cells):
            if cell is not None:
                place = (left + number * width, y)
                _slots(canvas, cell, place, width - 22, axes)
        _slot_labels(canvas, (left, y), axes)
    return canvas.svg(titled.name, titled.title, titled.description)


def _levels(
    canvas: Canvas, axis: Axis, corner: tuple[float, float], size: tuple[float, float]
) -> Callable[[float], float]:
    """Horizontal lines of a panel, and the function from a value to its height."""

    def height_of(value: float) -> float:
        share = (value - axis.low) / (axis.high - axis.low)
        return corner[1] + size[1] * (1 - min(1.0, max(0.0, share)))

    for value, label in ticks(axis, size[1]):
        y = height_of(value)
        canvas.line([(corner[0], y), (corner[0] + size[0], y)], "grid")
        canvas.text(corner[0] - 4, y, label, "muted", anchor="right", size=SMALL)
    return height_of


def _slope(
    canvas: Canvas,
    line: tuple[Estimate, Estimate],
    xs: tuple[float, float],
    height_of: Callable[[float], float],
    number: int,
    num_series: int,
) -> None:
    shift = 9.0 * (number - (num_series - 1) / 2) if num_series > 1 else 0.0
    color, shape = series_color(number), MARKERS[number % len(MARKERS)]
    points = [
        (x + shift, height_of(estimate.value))
        for x, estimate in zip(xs, line, strict=True)
        if estimate.value is not None
    ]
    for start, end in pairwise(points):
        canvas.line([start, end], color, thick=2.0, dashes=_DASHES[number % len(_DASHES)])
    for (x, y), estimate in zip(points, line, strict=False):
        if estimate.low is not None and estimate.high is not None:
            canvas.line([(x, height_of(estimate.low)), (x, height_of(estimate.high))], color)
        canvas.marker(x, y, shape, color, size=8)


def _slot_legend(canvas: Canvas) -> None:
    canvas.marker(6, 12, "o", "series-0", size=8)
    canvas.line([(6, 4), (6, 20)], "series-0", thick=1.5)
    canvas.text(18, 12, "recall: right, where the right option stands there")
    canvas.box((366, 6), (12, 12), "part-4", rim="part-4-lines")
    canvas.text(384, 12, "share chosen")
    canvas.line([(486, 12), (504, 12)], "fg", thick=2.5)
    canvas.text(510, 12, "share where it is right")


def _heights(y: float, axes: tuple[Axis, Axis]) -> list[Callable[[float], float]]:
    """From a recall, and from a share, to where it stands, for a panel that begins at y."""
    floor = y + _RECALL + _GAP + _SHARE
    recalls, shares = axes
    return [
        lambda value: y + _RECALL * (1 - value / recalls.high),
        lambda value: floor - _SHARE * min(1.0, value / shares.high),
    ]


def _slot_labels(canvas: Canvas, place: tuple[float, float], axes: tuple[Axis, Axis]) -> None:
    for axis, height_of in zip(axes, _heights(place[1], axes), strict=True):
        for value in (0.0, axis.high / 2, axis.high):
            label = f"{100 * value:.0f} %"
            at = height_of(value)
            canvas.text(place[0] - 6, at, label, "muted", anchor="right", size=SMALL)


def _slots(
    canvas: Canvas,
    cell: Slots,
    place: tuple[float, float],
    width: float,
    axes: tuple[Axis, Axis],
) -> None:
    left, top = place
    recall_y, share_y = _heights(top, axes)
    for axis, height_of in zip(axes, (recall_y, share_y), strict=True):
        for value in (0.0, axis.high / 2, axis.high):
            canvas.line([(left, height_of(value)), (left + width, height_of(value))], "grid")
    step, floor = width / max(1, len(cell.recalls)), share_y(0.0)
    for number, recall in enumerate(cell.recalls):
        x = left + step * (number + 0.5)
        _recall(canvas, recall, x, recall_y)
        if cell.chosen_shares:
            y, half = share_y(cell.chosen_shares[number]), min(10.0, step / 3.2)
            canvas.box((x - half, y), (2 * half, floor - y), "part-4", rim="part-4-lines")
            y, half = share_y(cell.gold_shares[number]), min(13.0, step / 2.6)
            canvas.line([(x - half, y), (x + half, y)], "fg", thick=2.0)
        canvas.text(x, floor + 13, str(number + 1), "muted", anchor="center", size=SMALL)
    for line, note in enumerate(cell.notes):
        at = floor + 29 + 14 * line
        canvas.text(left + width / 2, at, note, "muted", anchor="center", size=SMALL)


def _recall(
    canvas: Canvas, recall: Estimate, x: float, height_of: Callable[[float], float]
) -> None:
    if recall.value is None:
        return
    if recall.low is not None and recall.high is not None:
        ends = [(x, height_of(recall.low)), (x, height_of(recall.high))]
        canvas.line(ends, "series-0", thick=1.5)
    canvas.marker(x, height_of(recall.value), "o", "series-0", size=8)
