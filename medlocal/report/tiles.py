"""The page's plots of areas: maps of coloured cells, and divided bars. From plain values to SVG.

The number stands in every cell and every part of a bar, and parts differ by their pattern too: the
colour only helps to find it. It knows steps of a scale and labels, and nothing of what they measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from medlocal.report.canvas import (
    HEAT,
    LEVELS,
    PARTS,
    Canvas,
    shortened,
    text_width,
    wrapped,
)
from medlocal.report.plots import SMALL, WIDTH, Titled

_BOUNDS = (0.025, 0.075, 0.15, 0.30)
"""Where the steps of the two-sided scale change, as shares."""
_ROW = 24.0
_HEAD = 32.0
_HATCHES = ("", "///", "..", "xx", "")


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a map."""

    text: str
    color: str
    """A name that `canvas` knows, which has a "-ink" for the text on it."""


@dataclass(frozen=True, slots=True)
class CellGroup:
    """Rows of a map that belong together."""

    title: str
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    """(label, a cell per column or None)."""


@dataclass(frozen=True, slots=True)
class BarGroup:
    """Bars that belong together."""

    title: str
    rows: tuple[tuple[str, tuple[float, ...], str], ...]
    """(label, shares that add up to 1, words on the right)."""


def difference_color(difference: float) -> str:
    """The step of a difference of shares on the two-sided scale."""
    step = sum(abs(difference) >= bound for bound in _BOUNDS)
    return f"heat-{HEAT[4 - step if difference < 0 else 4 + step]}"


def share_color(share: float) -> str:
    """The step of a share on the one-sided scale."""
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def difference_scale() -> list[tuple[str, str]]:
    """(color, words) of each step of the two-sided scale, from worst to best."""
    bounds = [f"{100 * bound:g}" for bound in _BOUNDS]
    better = [f"+{a} to +{b}" for a, b in pairwise(bounds)]
    worse = [f"−{b} to −{a}" for a, b in reversed(list(pairwise(bounds)))]
    words = [
        f"−{bounds[-1]} or less",
        *worse,
        f"below ±{bounds[0]}",
        *better,
        f"+{bounds[-1]} or more",
    ]
    return [(f"heat-{step}", text) for step, text in zip(HEAT, words, strict=True)]


def share_scale() -> list[tuple[str, str]]:
    """(color, words) of each step of the one-sided scale."""
    bounds = [round(100 * number / len(LEVELS)) for number in range(len(LEVELS) + 1)]
    return [(level, f"{a}–{b} %") for level, (a, b) in zip(LEVELS, pairwise(bounds), strict=True)]


def heat_map(
    titled: Titled,
    columns: Sequence[str],
    groups: Sequence[CellGroup],
    scale: Sequence[tuple[str, str]],
) -> str:
    """A table of coloured cells with a number in each.

    Args:
        titled: what it is called.
        columns: their titles, which are wrapped.
        groups: the rows.
        scale: (color, words), explained below the map.
    """
    labels = [label for group in groups for label, _ in group.rows]
    left = min(290.0, max(map(text_width, labels), default=0.0)) + 14
    width = max(68.0, min(110.0, (WIDTH - left) / max(1, len(columns))))
    heads = [wrapped(column, width - 4, SMALL) for column in columns]
    top = 8.0 + 15 * max(map(len, heads), default=1)
    height = top + sum((_HEAD if g.title else 0) + _ROW * len(g.rows) for g in groups)
    canvas = Canvas(max(WIDTH, left + width * len(columns)), height + 56)
    for number, lines in enumerate(heads):
        for line, text in enumerate(lines):
            x, y = left + width * (number + 0.5), top - 15 * (len(lines) - line) + 4
            canvas.text(x, y, text, anchor="center", bold=True, size=SMALL)
    y = top
    for group in groups:
        if group.title:
            canvas.text(0, y + 20, shortened(group.title, canvas.width), bold=True)
            y += _HEAD
        for label, cells in group.rows:
            canvas.text(left - 10, y + _ROW / 2, shortened(label, left - 12), anchor="right")
            _cells(canvas, cells, (left, y), width)
            y += _ROW
    _scale(canvas, scale, height + 28)
    return canvas.svg(titled.name, titled.title, titled.description)


def bar_plot(titled: Titled, parts: Sequence[str], groups: Sequence[BarGroup]) -> str:
    """Bars of one length, each divided into the same parts.

    Args:
        titled: what it is called.
        parts: their names, five at most, in order.
        groups: the bars.
    """
    labels = [label for group in groups for label, _, _ in group.rows]
    left = min(230.0, max(map(text_width, labels), default=0.0)) + 14
    right = 62.0
    lines = _part_lines(parts)
    top = 28.0 * len(lines) + 6
    height = top + sum((_HEAD if g.title else 6) + 28.0 * len(g.rows) for g in groups)
    canvas = Canvas(WIDTH, height + 8)
    for line, entries in enumerate(lines):
        for x, number, name in entries:
            _part(canvas, number, (x, 5 + 28.0 * line), (18, 14))
            canvas.text(x + 26, 12 + 28.0 * line, name)
    y = top
    for group in groups:
        if group.title:
            canvas.text(0, y + 19, shortened(group.title, WIDTH), bold=True)
        y += _HEAD if group.title else 6
        for label, shares, note in group.rows:
            canvas.text(left - 10, y + 14, shortened(label, left - 12), anchor="right")
            _bar(canvas, shares, (left, y + 3), (WIDTH - left - right, 22))
            canvas.text(WIDTH, y + 14, note, "muted", anchor="right", size=SMALL)
            y += 28
    return canvas.svg(titled.name, titled.title, titled.description)


def _cells(
    canvas: Canvas, cells: Sequence[Cell | None], corner: tuple[float, float], width: float
) -> None:
    for number, cell in enumerate(cells):
        if cell is None:
            continue
        x, y = corner[0] + width * number, corner[1]
        canvas.box((x + 1, y + 1), (width - 2, _ROW - 2), cell.color)
        ink = f"{cell.color}-ink"
        canvas.text(x + width / 2, y + _ROW / 2, cell.text, ink, anchor="center")


def _scale(canvas: Canvas, scale: Sequence[tuple[str, str]], y: float) -> None:
    width = min(84.0, canvas.width / max(1, len(scale)))
    for number, (color, words) in enumerate(scale):
        canvas.box((number * width, y - 10), (width - 2, 20), color)
        x = (number + 0.5) * width - 1
        canvas.text(x, y, shortened(words, width, 10), f"{color}-ink", anchor="center", size=10)


def _part_lines(parts: Sequence[str]) -> list[list[tuple[float, int, str]]]:
    lines: list[list[tuple[float, int, str]]] = [[]]
    x = 0.0
    for number, name in enumerate(parts):
        needed = text_width(name) + 26
        if lines[-1] and x + needed > WIDTH:
            lines.append([])
            x = 0.0
        lines[-1].append((x, number, name))
        x += needed + 14
    return lines


def _part(
    canvas: Canvas, number: int, corner: tuple[float, float], size: tuple[float, float]
) -> None:
    canvas.box(corner, size, PARTS[number], rim=f"{PARTS[number]}-lines", hatch=_HATCHES[number])


def _bar(
    canvas: Canvas,
    shares: Sequence[float],
    corner: tuple[float, float],
    size: tuple[float, float],
) -> None:
    x = corner[0]
    for number, share in enumerate(shares):
        width = share * size[0]
        if width > 0:
            _part(canvas, number, (x, corner[1]), (width, size[1]))
            text = f"{100 * share:.0f}"
            needed = text_width(text, SMALL) + 6
            if width >= needed + 4:
                middle = x + width / 2
                box = (middle - needed / 2, corner[1] + 4)
                canvas.box(box, (needed, size[1] - 8), PARTS[number])
                ink = f"{PARTS[number]}-ink"
                canvas.text(middle, corner[1] + size[1] / 2, text, ink, anchor="center", size=SMALL)
        x += width
