"""Plots: what stands in the SVG, where it stands, and that it is the same every time."""

import re
import warnings
import xml.etree.ElementTree as ElementTree

import pytest

from medlocal.report.canvas import Canvas, shortened, text_width, wrapped
from medlocal.report.panels import Slots, slope_plot, slot_plot
from medlocal.report.plots import (
    WIDTH,
    Axis,
    DotRow,
    Estimate,
    StripRow,
    Titled,
    difference_axis,
    dot_plot,
    share_axis,
    strip_plot,
    ticks,
)
from medlocal.report.tiles import (
    BarGroup,
    Cell,
    CellGroup,
    bar_plot,
    difference_color,
    difference_scale,
    heat_map,
    share_color,
    share_scale,
)

TITLED = Titled("plot-1", "A title", "What it shows.")
SERIES = tuple(f"model-{number}" for number in range(4))
LONG = "nota_replaces_gold+irrelevant_sentence"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of every text, as wide as it may become."""
    found = []
    for element in ElementTree.fromstring(svg).iter("text"):
        style = element.get("style", "")
        size = float(re.search(r"font-size:([\d.]+)px", style)[1])  # type: ignore[index]
        width = text_width(element.text or "", size, bold="font-weight:700" in style)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[
            re.search(r"text-anchor:(\w+)", style)[1]  # type: ignore[index]
        ]
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        found.append((x - shift * width, y - 0.75 * size, x + (1 - shift) * width, y))
    return found


def overlaps(svg: str) -> list[tuple[str, str]]:
    """Pairs of texts of which one lies on the other."""
    placed = list(zip(texts(svg), boxes(svg), strict=True))
    return [
        (text, other)
        for at, (text, (a, b, c, d)) in enumerate(placed)
        for other, (e, f, g, h) in placed[at + 1 :]
        if a < g and e < c and b < h and f < d
    ]


def lines(svg: str, color: str) -> list[str]:
    """The paths of a colour."""
    paths = ElementTree.fromstring(svg).iter("path")
    return [p.get("d", "") for p in paths if f"stroke:var(--{color})" in p.get("style", "")]


def is_inside(svg: str) -> bool:
    width = float(ElementTree.fromstring(svg).get("width", 0))
    return all(left >= -1 and right <= width + 1 for left, _, right, _ in boxes(svg))


def dots(num_series: int, num_rows: int, *, name: str = "plot-1") -> str:
    estimates = tuple(Estimate(0.5, 0.25, 0.75) for _ in range(num_series))
    rows = [DotRow(f"{LONG}{n}", (estimates, estimates), (0.25, None)) for n in range(num_rows)]
    axes = [share_axis("Right"), share_axis("Exactly in the form")]
    titled = Titled(name, "A title", "What it shows.")
    return dot_plot(titled, axes, [("a group", rows)], SERIES[:num_series])


class TestCanvas:
    def test_colors_are_variables_of_the_page(self) -> None:
        canvas = Canvas(100, 50)
        canvas.line([(0, 10), (100, 10)], "series-2")
        canvas.box((0, 0), (10, 10), "part-1", rim="part-1-lines", hatch="//")
        svg = canvas.svg("plot-1", "t", "d")
        assert "var(--series-2)" in svg
        assert "var(--part-1-lines)" in svg
        assert not re.search(r"#[0-9a-f]{6}", svg)

    def test_places_are_pixels_from_the_upper_left(self) -> None:
        canvas = Canvas(100, 50)
        canvas.line([(10, 20), (90, 40)])
        assert lines(canvas.svg("plot-1", "t", "d"), "fg") == ["M 10 20 L 90 40"]

    def test_the_same_drawing_gives_the_same_bytes(self) -> None:
        assert dots(3, 4) == dots(3, 4)

    def test_two_drawings_share_no_id(self) -> None:
        one, other = (
            set(re.findall(r'id="([^"]*)"', dots(1, 1, name=name))) for name in ("plot-1", "plot-2")
        )
        assert len(one) > 2  # the title, the description and the marker
        assert not one & other

    def test_the_page_brings_the_font(self) -> None:
        assert "font-family" not in dots(1, 1)

    def test_the_style_of_the_page_is_left_alone(self) -> None:
        assert "<style" not in dots(1, 1)

    def test_what_a_name_says_stays_as_it_is(self) -> None:
        canvas = Canvas(300, 50)
        name = 'a$b$ <i> "#1" 2.0251 url(#x) &amp;'
        canvas.text(0, 10, name)
        assert texts(canvas.svg("plot-1", "t", "d")) == [name]

    def test_signs_without_a_glyph_are_no_warning(self) -> None:
        canvas = Canvas(100, 50)
        canvas.text(0, 10, "模型")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert texts(canvas.svg("plot-1", "t", "d")) == ["模型"]

    def test_control_characters_are_dropped(self) -> None:
        canvas = Canvas(100, 50)
        canvas.text(0, 10, "a\x00\x1bb\u202e")
        assert texts(canvas.svg("plot-1", "t\x07", "d\x00")) == ["ab"]

    def test_the_settings_of_a_user_change_nothing(self) -> None:
        import matplotlib

        before = dots(1, 1)
        with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "font.size": 30}):
            assert dots(1, 1) == before


class TestText:
    def test_what_fits_is_not_shortened(self) -> None:
        assert shortened("short", 100) == "short"

    def test_the_middle_is_left_out(self) -> None:
        short = shortened("smollm2-135m-instruct", 80)
        assert short.startswith("smo")
        assert short.endswith("uct")
        assert "…" in short
        assert text_width(short) <= 80

    def test_names_are_wrapped_behind_signs(self) -> None:
        assert wrapped("smollm2-135m-instruct", 80) == ["smollm2-", "135m-", "instruct"]

    def test_what_does_not_fit_into_the_lines_is_shortened(self) -> None:
        found = wrapped("a-very-long-name-of-many-parts-and-more-of-them", 60)
        assert len(found) == 3
        assert "…" in found[-1]


class TestAxes:
    def test_a_difference_axis_is_as_wide_as_needed(self) -> None:
        assert difference_axis("d", [0.02, -0.17, None]) == Axis("d", -0.2, 0.2, is_signed=True)

    def test_a_difference_axis_of_nothing_is_narrow(self) -> None:
        assert difference_axis("d", []).high == 0.05

    def test_ticks_of_shares(self) -> None:
        assert [label for _, label in ticks(share_axis(""), 300)] == [
            "0 %", "25 %", "50 %", "75 %", "100 %",
        ]  # fmt: skip

    def test_where_there_is_little_room_there_are_fewer(self) -> None:
        assert [label for _, label in ticks(share_axis(""), 120)] == ["0 %", "50 %", "100 %"]

    def test_ticks_of_differences_have_signs(self) -> None:
        axis = difference_axis("", [0.15])
        assert [label for _, label in ticks(axis, 300)] == ["−20", "−10", "0", "+10", "+20"]


class TestDots:
    def test_a_whisker_goes_from_bound_to_bound(self) -> None:
        axis = Axis("x", 0.0, 1.0)
        row = DotRow("", ((Estimate(0.5, 0.25, 0.75),),))
        svg = dot_plot(TITLED, [axis], [("", [row])], ["one"])
        (whisker,) = lines(svg, "series-0")
        left, right = (float(x) for x in re.findall(r"[ML] ([\d.]+)", whisker))
        grid = sorted({float(re.findall(r"M ([\d.]+)", d)[0]) for d in lines(svg, "grid")} - {0.0})
        assert (left, right) == (grid[1], grid[3])  # 25 % and 75 % of 0, 25, 50, 75 and 100 %

    def test_what_is_missing_is_not_drawn(self) -> None:
        row = DotRow("", ((None, Estimate(None)),))
        svg = dot_plot(TITLED, [share_axis("x")], [("", [row])], ["one", "other"])
        assert not lines(svg, "series-0") + lines(svg, "series-1")

    def test_every_series_has_a_marker_of_its_own(self) -> None:
        svg = dots(4, 1)
        used = {u.get("href") for u in ElementTree.fromstring(svg).iter("use")}
        assert len(used) == 4

    def test_one_series_needs_no_legend(self) -> None:
        assert SERIES[0] not in texts(dots(1, 1))

    @pytest.mark.parametrize("num_series", [1, 4])
    def test_no_label_lies_on_another(self, num_series: int) -> None:
        svg = dots(num_series, 45)
        assert overlaps(svg) == []
        assert is_inside(svg)


class TestStrips:
    def plot(self) -> str:
        notes = (("best 60 %", "instruction_first"), ("worst 35 %", "consult_note"))
        row = StripRow("letter · grammar", ((0.4, 0.4, 0.6), None), (notes, ()))
        return strip_plot(TITLED, [share_axis("Right"), share_axis("Form")], [("m", [row] * 3)])

    def test_every_value_has_a_dot(self) -> None:
        uses = list(ElementTree.fromstring(self.plot()).iter("use"))
        assert len(uses) == 3 * 3

    def test_equal_values_do_not_hide_each_other(self) -> None:
        uses = list(ElementTree.fromstring(self.plot()).iter("use"))[:3]
        assert len({(u.get("x"), u.get("y")) for u in uses}) == 3

    def test_no_label_lies_on_another(self) -> None:
        assert overlaps(self.plot()) == []
        assert is_inside(self.plot())


class TestPanels:
    def test_a_slope_joins_its_ends(self) -> None:
        line = (Estimate(0.0), Estimate(1.0))
        svg = slope_plot(TITLED, ("free", "grammar"), [("letter", [line])], ["one"])
        (path,) = lines(svg, "series-0")
        (_, low), (_, high) = (map(float, xy) for xy in re.findall(r"([\d.]+) ([\d.]+)", path))
        assert low - high == 190  # the height of the panel

    def test_slopes_of_six_formats_and_four_models_are_told_apart(self) -> None:
        line = (Estimate(0.4, 0.3, 0.5), Estimate(0.6, 0.5, 0.7))
        panels = [
            (name, [line] * 4) for name in ("letter", "phrase", "json", "tag", "text", "reasoned")
        ]
        svg = slope_plot(TITLED, ("free", "grammar"), panels, SERIES)
        assert overlaps(svg) == []
        assert is_inside(svg)

    def test_slots_of_four_models_in_six_ways(self) -> None:
        cell = Slots(
            tuple(Estimate(0.5, 0.4, 0.6) for _ in range(5)),
            (0.2,) * 5,
            (0.6, 0.1, 0.1, 0.1, 0.1),
            ("RStd 12.3", "TV 40.0"),
        )
        columns = [("reasoned", "grammar")] * 6
        svg = slot_plot(TITLED, columns, [("smollm2-135m-instruct", [cell] * 6)] * 4)
        assert overlaps(svg) == []
        assert is_inside(svg)

    def test_slots_that_nobody_chose_have_no_bars(self) -> None:
        cell = Slots((Estimate(0.0, 0.0, 0.5),) * 4, (), ())
        svg = slot_plot(TITLED, [("letter", "free")], [("m", [cell, None])])
        assert texts(svg).count("1") == 1


class TestTiles:
    def test_the_number_stands_in_the_cell(self) -> None:
        cell = Cell("−12.5*", difference_color(-0.125))
        svg = heat_map(TITLED, ["m"], [CellGroup("order", (("shuffle", (cell, None)),))], [])
        assert "−12.5*" in texts(svg)
        assert "var(--heat-minus-2)" in svg
        assert "var(--heat-minus-2-ink)" in svg

    def test_steps_of_differences(self) -> None:
        shown = [difference_color(d) for d in (-0.5, -0.2, -0.1, -0.05, 0.0, 0.024, 0.025, 0.3)]
        assert [name.removeprefix("heat-") for name in shown] == [
            "minus-4", "minus-3", "minus-2", "minus-1", "zero", "zero", "plus-1", "plus-4",
        ]  # fmt: skip

    def test_steps_of_shares(self) -> None:
        assert [share_color(s) for s in (0.0, 0.2, 0.99, 1.0)] == [
            "level-0", "level-1", "level-5", "level-5",
        ]  # fmt: skip

    def test_the_scales_name_their_bounds(self) -> None:
        assert [words for _, words in difference_scale()][:2] == ["−30 or less", "−30 to −15"]
        assert share_scale()[0][1] == "0–17 %"

    def test_no_label_lies_on_another_with_45_variants_and_4_models(self) -> None:
        cells = tuple(Cell("−12.5*", "heat-zero") for _ in range(4))
        rows = tuple((f"{LONG}{number}", cells) for number in range(45))
        columns = ["Llama-3.2-3B-Instruct-Q4_K_M"] * 4
        svg = heat_map(TITLED, columns, [CellGroup("two steps", rows)], difference_scale())
        assert overlaps(svg) == []
        assert is_inside(svg)
        assert float(ElementTree.fromstring(svg).get("width", 0)) == WIDTH

    def test_a_bar_is_divided_by_its_shares(self) -> None:
        group = BarGroup("m", (("next_label", (0.5, 0.25, 0.0, 0.0, 0.25), "n = 20"),))
        svg = bar_plot(TITLED, ["right", "b", "c", "d", "unread"], [group])
        assert [text for text in texts(svg) if text in {"50", "25", "0"}] == ["50", "25", "25"]

    def test_parts_of_a_bar_differ_by_pattern_too(self) -> None:
        group = BarGroup("m", (("next_label", (0.2, 0.2, 0.2, 0.2, 0.2), "n = 20"),))
        svg = bar_plot(TITLED, ["right", "b", "c", "d", "unread"], [group])
        assert len(list(ElementTree.fromstring(svg).iter("pattern"))) == 3
        assert overlaps(svg) == []
        assert is_inside(svg)
