"""A sheet to draw on in pixels, which becomes an SVG that takes its colours and its font from the page.

Matplotlib draws; what it writes is then reduced to what a page needs. Colours are named here and
turned into CSS variables, so that one drawing serves light, dark and print. The same calls give the
same bytes: no date, no random id, no setting of the user's own matplotlib. Nothing is known here of
what is drawn.
"""

import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, Literal

from medlocal.report import wording

FONT_SIZE = 12.0
"""Of all text, in pixels, unless it is said otherwise."""
_WIDTHS = {
    **dict.fromkeys("ijlI|.,:;'!()[]{}/· ", 0.40),
    **dict.fromkeys("mwMW@%", 0.97),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ", 0.74),
}
_WIDTH = 0.63
"""Of signs in ems, those of a wide font (DejaVu Sans): the page's own is not known here."""

NUM_SERIES = 8
"""Colours there are for series; the markers go on changing after them."""
HEAT = ("minus-4", "minus-3", "minus-2", "minus-1", "zero", "plus-1", "plus-2", "plus-3", "plus-4")
"""Steps of the two-sided scale."""
LEVELS = tuple(f"level-{number}" for number in range(6))
"""Steps of the one-sided scale."""
PARTS = tuple(f"part-{number}" for number in range(5))
"""What a bar is divided into."""

_COLORS = (
    "fg", "muted", "grid", "bg", "accent",
    *(f"series-{number}" for number in range(NUM_SERIES)),
    *(f"heat-{step}" for step in HEAT), *(f"heat-{step}-ink" for step in HEAT),
    *LEVELS, *(f"{level}-ink" for level in LEVELS),
    *PARTS, *(f"{part}-ink" for part in PARTS), *(f"{part}-lines" for part in PARTS),
)  # fmt: skip
# Matplotlib wants real colours; these stand for the names until the drawing is written.
_SENTINELS = {name: f"#0a5c{number:02x}" for number, name in enumerate(_COLORS)}
_NAMES = {sentinel: f"var(--{name})" for name, sentinel in _SENTINELS.items()}
_REFERENCE = re.compile(r'(?:url\(|href=")#([^")]*)')

_SETTINGS: Mapping[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medlocal",
    "text.parse_math": False,  # a model may have a dollar sign in its name
    "font.size": FONT_SIZE,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that what is measured is the same
    "hatch.linewidth": 1.2,
}

Anchor = Literal["left", "center", "right"]


class Canvas:
    """A sheet of some pixels; x grows to the right, y downwards.

    Every colour is one of the names above, such as "fg" or "series-2". Later things lie on top of
    earlier ones.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._strokes: list[Callable[[Any, int], object]] = []

    def line(
        self,
        points: Sequence[tuple[float, float]],
        color: str = "fg",
        *,
        thick: float = 1.0,
        dashes: tuple[float, ...] | None = None,
    ) -> None:
        """A line through the points."""
        xs, ys = [x for x, _ in points], [y for _, y in points]
        style = {"color": _SENTINELS[color], "linewidth": thick, "clip_on": False}
        style |= {"dashes": dashes} if dashes else {"solid_capstyle": "round"}
        self._strokes.append(lambda axes, order: axes.plot(xs, ys, zorder=order, **style))

    def marker(
        self, x: float, y: float, shape: str, color: str = "fg", *, size: float = 7.0
    ) -> None:
        """A sign at a point, with a rim in the colour of the ground.

        Args:
            x: where its middle is.
            y: the same.
            shape: one of matplotlib's markers.
            color: of its inside.
            size: its width in pixels.
        """
        rim = color if shape in {"x", "+", "|", "_"} else "bg"
        style = {
            "marker": shape,
            "markersize": size,
            "color": _SENTINELS[color],
            "markeredgecolor": _SENTINELS[rim],
            "markeredgewidth": 1.6 if rim == color else 0.8,
            "linestyle": "none",
            "clip_on": False,
        }
        self._strokes.append(lambda axes, order: axes.plot([x], [y], zorder=order, **style))

    def box(
        self,
        corner: tuple[float, float],
        size: tuple[float, float],
        color: str,
        *,
        rim: str | None = None,
        hatch: str = "",
    ) -> None:
        """A filled rectangle.

        Args:
            corner: upper left.
            size: width and height.
            color: of its inside.
            rim: colour of its edge; of the lines of its hatch too. None = no edge.
            hatch: one of matplotlib's patterns; "" = plain.
        """
        from matplotlib.patches import Rectangle

        style: dict[str, Any] = {
            "facecolor": _SENTINELS[color],
            "edgecolor": _SENTINELS[rim] if rim else "none",
            "linewidth": 1.0 if rim else 0.0,
            "hatch": hatch or None,
            "clip_on": False,
        }
        self._strokes.append(
            lambda axes, order: axes.add_patch(Rectangle(corner, *size, zorder=order, **style))
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        color: str = "fg",
        *,
        anchor: Anchor = "left",
        bold: bool = False,
        size: float = FONT_SIZE,
    ) -> None:
        """One line of text whose middle is at the height y."""
        shown = wording.clean(text)
        style = {
            "color": _SENTINELS[color],
            "ha": anchor,
            "va": "center_baseline",
            "weight": "bold" if bold else "normal",
            "size": size,
            "clip_on": False,
        }
        self._strokes.append(lambda axes, order: axes.text(x, y, shown, zorder=order, **style))

    def svg(self, name: str, title: str, description: str) -> str:
        """The drawing as an element for an HTML page, closed to everything outside of itself.

        Args:
            name: of the element, in ASCII; no other drawing of the page may have it.
            title: what a screen reader calls it.
            description: what it shows, in words.
        """
        from matplotlib.figure import Figure

        file = StringIO()
        with _settings():
            figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
            figure.patch.set_visible(False)
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            axes.set_autoscale_on(False)
            axes.set_xlim(0, self.width)
            axes.set_ylim(self.height, 0)
            for order, stroke in enumerate(self._strokes):
                stroke(axes, order)
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return _themed(file.getvalue(), name, {"title": title, "desc": description})


def text_width(text: str, size: float = FONT_SIZE, *, bold: bool = False) -> float:
    """Pixels that a text needs at most in most fonts."""
    return sum(_WIDTHS.get(sign, _WIDTH) for sign in text) * size * (1.12 if bold else 1.0)


def shortened(text: str, width: float, size: float = FONT_SIZE, *, bold: bool = False) -> str:
    """The text, with its middle left out where it does not fit into so many pixels."""
    shown, kept = text, len(text)
    while text_width(shown, size, bold=bold) > width and kept > 2:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def wrapped(text: str, width: float, size: float = FONT_SIZE, *, lines: int = 3) -> list[str]:
    """A bold text in lines of at most so many pixels, cut behind hyphens, dots and the like."""
    found = [""]
    for part in re.findall(r"[^\-_.\s/+]*[\-_.\s/+]?", text):
        if found[-1] and text_width((found[-1] + part).rstrip(), size, bold=True) > width:
            found.append("")
        found[-1] += part
    found = [line.strip(" ·") for line in found if line.strip(" ·")] or [""]
    if len(found) > lines:
        found = [*found[: lines - 1], "".join(found[lines - 1 :])]
    return [shortened(line, width, size, bold=True) for line in found]


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    defaults: Mapping[Any, Any] = matplotlib.rcParamsDefault
    kept = {key: value for key, value in defaults.items() if not key.startswith("backend")}
    with matplotlib.rc_context({**kept, **_SETTINGS}), warnings.catch_warnings():
        # The text is drawn by the browser, which has other fonts than matplotlib.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _themed(svg: str, name: str, texts: Mapping[str, str]) -> str:
    """What matplotlib wrote, as an element of a page."""
    written = ElementTree.fromstring(svg)
    width, height = written.attrib["viewBox"].split()[2:]
    drawn = ElementTree.Element("svg", {"class": "plot", "role": "img"})
    drawn.attrib |= {"aria-labelledby": f"{name}-title {name}-desc", "width": width}
    drawn.attrib |= {"height": height, "viewBox": written.attrib["viewBox"]}
    for tag, text in texts.items():
        ElementTree.SubElement(drawn, tag, {"id": f"{name}-{tag}"}).text = wording.clean(text)
    wanted = set(_REFERENCE.findall(svg))
    for child in written:
        _copy(child, drawn, name, wanted)
    return ElementTree.tostring(drawn, encoding="unicode")


def _copy(
    element: ElementTree.Element, parent: ElementTree.Element, name: str, ids: set[str]
) -> None:
    """Copy an element into a parent, without what a page has no use for."""
    tag = element.tag.rpartition("}")[2]
    if tag in {"metadata", "style"}:  # the style would be that of the whole page
        return
    attributes = dict(_attributes(element, name, ids))
    copy = parent
    if tag != "g" or attributes:
        copy = ElementTree.SubElement(parent, tag, attributes)
        copy.text = element.text if tag == "text" else None
    for child in element:
        _copy(child, copy, name, ids)


def _attributes(
    element: ElementTree.Element, name: str, ids: set[str]
) -> Iterator[tuple[str, str]]:
    for key, value in element.items():
        key = key.rpartition("}")[2]
        if key == "id":
            if value in ids:
                yield key, f"{name}-{value}"
        elif key in {"fill", "stroke"}:
            yield "style", f"{key}:{_shown(value, name)}"
        elif key != "transform" or not value.startswith(("rotate(-0 ", "rotate(0 ")):
            yield key, _shown(value, name)


def _shown(value: str, name: str) -> str:
    """An attribute with the page's colours, this drawing's own ids, and tenths of a pixel."""
    value = " ".join(value.split())
    value = re.sub(r"#[0-9a-f]{6}\b", lambda found: _NAMES.get(found[0], found[0]), value)
    value = re.sub(r" ?font-family: [^;]*;?", "", value)
    value = re.sub(r"(\.\d)\d+", r"\1", value)
    value = re.sub(r"; ?|: ", lambda found: found[0].strip(), value)
    return re.sub(r"(^|url\()#", rf"\1#{name}-", value)
