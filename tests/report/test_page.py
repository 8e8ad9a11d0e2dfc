"""The report's page: what stands in the file, and what a reader's browser makes of it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medlocal.report.browser import visible
from medlocal.report.page import to_html
from medlocal.report.results import Report
from tests.report.page_values import HOSTILE, MODELS, a_report, some_questions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "medlocal" / "report" / "assets"
CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
VOID = frozenset({"meta", "link", "input", "br", "img"})


class Outline(HTMLParser):
    """What a test asks of a page's structure; elements that are not closed make it fail."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.headings: list[int] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.children: list[tuple[str, str]] = []
        """(parent, child) tags."""
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        self.children.append((self.stack[-1] if self.stack else "", tag))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return to_html(a_report(), some_questions())


@pytest.fixture(scope="module")
def outline(html: str) -> Outline:
    return Outline(html)


class TestFile:
    def test_every_element_is_closed(self, outline: Outline) -> None:
        assert outline.all("html") == [{"lang": "en"}]

    def test_there_is_one_first_heading_and_no_level_is_passed_over(self, outline: Outline) -> None:
        levels = outline.headings
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(deeper <= level + 1 for level, deeper in pairwise(levels))

    def test_every_plot_has_a_title_and_a_description(self, html: str) -> None:
        plots = re.findall(r"<svg .*?</svg>", html, flags=re.DOTALL)
        assert len(plots) >= 16  # eight sections in two languages
        for plot in plots:
            found = re.match(
                r'<svg class="plot" role="img" aria-labelledby="(\S+) (\S+)"[^>]*>'
                r'<title id="(\S+)">([^<]+)</title><desc id="(\S+)">([^<]+)</desc>',
                plot,
            )
            assert found is not None
            assert (found[1], found[2]) == (found[3], found[5])

    def test_no_id_stands_twice(self, outline: Outline) -> None:
        ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def test_every_table_has_a_caption_and_headers_with_a_scope(self, html: str) -> None:
        tables = re.findall(r"<table.*?</table>", html, flags=re.DOTALL)
        assert len(tables) > 20
        for table in tables:
            assert re.search(r"<caption[^>]*>\s*\S", table)
            assert all("scope=" in header for header in re.findall(r"<th\b[^>]*>", table))

    def test_nothing_outside_the_file_is_referred_to(self, outline: Outline) -> None:
        for _, attributes in outline.elements:
            for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
                assert attributes.get(name, "#").startswith(("#", "data:,"))

    def test_the_policy_lets_nothing_be_fetched(self, outline: Outline) -> None:
        (policy,) = [m["content"] for m in outline.all("meta") if "http-equiv" in m]
        assert policy.startswith("default-src 'none'; ")
        assert "http" not in policy

    def test_the_styles_load_nothing(self) -> None:
        for name in ("page.css", "dark.css"):
            text = (ASSETS / name).read_text(encoding="utf-8")
            assert "url(" not in text
            assert "@import" not in text

    def test_the_script_writes_no_markup(self) -> None:
        script = (ASSETS / "page.js").read_text(encoding="utf-8")
        for name in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "fetch(",
        ):
            assert name not in script

    def test_the_first_screen_says_which_model_in_which_language(self, html: str) -> None:
        overview = html.split('id="overview"')[1].split("</section>")[0]
        assert "English:" in overview
        assert "Spanish:" in overview
        assert "parsed" in overview
        assert "Guessing, majority" in overview

    def test_the_first_screen_has_guessing_and_the_majority_of_every_model(self) -> None:
        page = to_html(a_report(("one",), 4), ())
        cell = r'data-head="Guessing, majority">25\.0 %<small>(\d+\.\d) %</small></td>'
        assert len(re.findall(cell, page)) == 2  # languages

    def test_text_of_others_is_escaped(self) -> None:
        report = a_report(("<b>model</b> | \"x\" & 'y'",), 2)
        page = to_html(report, ())
        assert "<b>model" not in page
        assert "&lt;b&gt;model&lt;/b&gt; | " in page

    def test_hostile_output_does_not_end_the_data(self, html: str) -> None:
        data = html.split('id="data">')[1].split("</script>")[0]
        assert "<" not in data
        assert "onerror" in data

    def test_it_says_how_many_answers_are_left_out(self, html: str) -> None:
        total = sum(row.n + row.excluded for row in a_report().rows)
        assert f"This page shows 192 of {total:,} answers" in html

    def test_sections_without_data_are_left_out(self) -> None:
        full = a_report()
        bare = Report(full.runs, full.rows, ())
        ids = re.findall(r'<section id="(\w+)"', to_html(bare, ()))
        assert ids == ["overview", "accuracy", "levels", "method"]

    def test_a_report_without_answers_has_a_page(self) -> None:
        Outline(to_html(Report((), (), ()), ()))

    def test_one_model_has_a_page(self) -> None:
        Outline(to_html(a_report(MODELS[:1], 4), ()))

    @pytest.mark.slow
    def test_the_same_report_gives_the_same_bytes_in_another_process(self) -> None:
        code = (
            "import sys; from tests.report.page_values import *;"
            " from medlocal.report.page import to_html;"
            " page = to_html(a_report(MODELS[:1], 3), some_questions(MODELS[:1]));"
            " sys.stdout.buffer.write(page.encode())"
        )
        environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
        there = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env=environment,
            cwd=ROOT,
        )
        here = to_html(a_report(MODELS[:1], 3), some_questions(MODELS[:1]))
        # Line by line: pytest would take minutes to compare pages of a megabyte.
        lines = zip(here.splitlines(), there.stdout.decode().splitlines(), strict=True)
        different = [(mine[:200], other[:200]) for mine, other in lines if mine != other]
        assert different[:3] == []


def luminance(color: str) -> float:
    """Relative luminance, as WCAG 2.2 defines it."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


class TestColors:
    @pytest.fixture(params=["light", "dark"])
    def colors(self, request: pytest.FixtureRequest) -> dict[str, str]:
        css = (ASSETS / "page.css").read_text(encoding="utf-8")
        text = css[: css.index("}")]
        if request.param == "dark":
            text = (ASSETS / "dark.css").read_text(encoding="utf-8")
        return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text))

    def test_both_sets_name_the_same_colors(self) -> None:
        css = (ASSETS / "page.css").read_text(encoding="utf-8")
        dark = (ASSETS / "dark.css").read_text(encoding="utf-8")
        names = re.findall(r"--([\w-]+): ", css[: css.index("}")])
        assert sorted(names) == sorted(re.findall(r"--([\w-]+): ", dark))

    def test_contrast_by_hand(self) -> None:
        assert contrast("#000000", "#ffffff") == pytest.approx(21)
        assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)

    def test_text_is_readable(self, colors: dict[str, str]) -> None:
        for ground in ("bg", "raised"):
            for ink in ("fg", "muted", "accent"):
                assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)

    def test_text_on_colored_areas_is_readable(self, colors: dict[str, str]) -> None:
        inked = [name for name in colors if f"{name}-ink" in colors]
        assert len(inked) == 9 + 6 + 5
        for name in inked:
            assert contrast(colors[name], colors[f"{name}-ink"]) >= 4.5, name

    def test_series_stand_out_from_the_ground(self, colors: dict[str, str]) -> None:
        for number in range(8):
            assert contrast(colors[f"series-{number}"], colors["bg"]) >= 3, number


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    if not CHROMIUM.exists():
        if os.environ.get("MEDLOCAL_REQUIRE_WEIGHTS"):
            pytest.fail(f"{CHROMIUM} is not here, and this machine must have it")
        pytest.skip(f"{CHROMIUM} is not here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report ñ.html"
    file.write_text(html, encoding="utf-8")
    return file


@pytest.fixture
def requests() -> list[str]:
    """What the page asked for beside itself."""
    return []


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of."""
    return []


@pytest.fixture
def page(
    chromium: "Browser", path: Path, requests: list[str], complaints: list[str]
) -> Iterator["Page"]:
    """The page, opened from a file, with everything that it should not do written down."""
    opened = chromium.new_page(viewport={"width": 1280, "height": 800})
    opened.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))

    def watch(route, request) -> None:  # type: ignore[no-untyped-def]
        if request.url.startswith(path.as_uri()):
            route.continue_()
        else:
            requests.append(request.url)
            route.abort()

    opened.route("**/*", watch)
    opened.goto(path.as_uri())
    yield opened
    opened.close()
    assert requests == []
    assert complaints == []


def cells(page: "Page", column: str) -> list[str]:
    """A column of the list of answers, as shown."""
    heads = page.locator("#heads th").all_text_contents()
    found = page.locator(f"#rows tr > :nth-child({heads.index(column) + 1})")
    return list(found.all_text_contents())


def choose(page: "Page", name: str, value: str) -> None:
    page.locator(f"#selects select[name={name}]").select_option(value)


def count(page: "Page") -> str:
    return page.locator("#count").text_content() or ""


@pytest.mark.browser
class TestBrowser:
    def test_nothing_is_fetched_and_nothing_complained_of(self, page: "Page") -> None:
        page.locator("#method").scroll_into_view_if_needed()
        assert count(page) == "192 answers"

    def test_the_first_screen_has_the_verdicts_of_both_languages(self, page: "Page") -> None:
        for number in range(2):
            box = page.locator(".verdicts article").nth(number).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] < 800

    def test_the_list_has_fifty_answers_a_page(self, page: "Page") -> None:
        assert page.locator("#rows tr").count() == 50
        assert page.locator("#page").text_content() == "Page 1 of 4"
        page.locator("#next").click()
        page.locator("#next").click()
        page.locator("#next").click()
        assert page.locator("#rows tr").count() == 42
        assert page.locator("#next").is_disabled()

    def test_an_outcome_can_be_chosen(self, page: "Page") -> None:
        wanted = sum(q.outcome == "LENIENT_VALID" for q in some_questions())
        choose(page, "outcome", "LENIENT_VALID")
        assert set(cells(page, "Outcome")) == {"lenient valid"}
        assert count(page) == f"{wanted} of 192 answers"

    def test_a_flip_can_be_chosen(self, page: "Page") -> None:
        wanted = sum(q.flip == "right→wrong" for q in some_questions())
        choose(page, "flip", "right→wrong")
        assert cells(page, "Flip") == ["right→wrong"] * wanted

    def test_filters_work_together(self, page: "Page") -> None:
        choose(page, "language", "es")
        choose(page, "model", MODELS[2])
        choose(page, "right", "wrong")
        assert set(cells(page, "Language")) == {"Spanish"}
        assert set(cells(page, "Model")) == {MODELS[2]}
        assert set(cells(page, "Result")) == {"wrong"}

    def test_text_is_found_with_its_accents(self, page: "Page") -> None:
        page.locator("#search").fill("NIÑOS")
        page.get_by_text(" of 192 answers").wait_for()
        assert set(cells(page, "Language")) == {"Spanish"}
        assert count(page) == "96 of 192 answers"

    def test_what_nothing_has_is_not_found(self, page: "Page") -> None:
        page.locator("#search").fill("ninguna pregunta dice esto")
        page.get_by_text("0 of 192 answers").wait_for()
        assert page.locator("#rows tr").count() == 0

    def test_filters_can_be_cleared(self, page: "Page") -> None:
        choose(page, "language", "es")
        page.locator("#reset").click()
        page.get_by_text("192 answers", exact=True).wait_for()

    def test_the_count_is_told_to_screen_readers(self, page: "Page") -> None:
        assert page.locator("#count").get_attribute("aria-live") == "polite"

    def test_the_address_keeps_the_filters(self, page: "Page") -> None:
        choose(page, "language", "es")
        choose(page, "flip", "any")
        shown = count(page)
        page.reload()
        assert count(page) == shown
        assert page.locator("select[name=language]").input_value() == "es"

    def test_a_question_shows_the_answers_of_all_arms_and_models(self, page: "Page") -> None:
        choose(page, "variant", "shuffle")
        page.locator("#rows button").first.click()
        titles = page.locator("#question .card h4").all_text_contents()
        wanted = [f"{model} · {arm}" for model in MODELS for arm in ("free", "grammar")]
        assert sorted(titles) == sorted(wanted)
        assert page.locator("#question .options li").count() == 4
        assert page.locator("#question .gold .is-gold").text_content() == "✓ right option"
        assert page.locator("#question pre").first.text_content() == (
            "You answer multiple-choice questions about medicine. Only one option is correct."
        )

    def test_a_question_opens_in_its_other_variants(self, page: "Page") -> None:
        choose(page, "variant", "shuffle")
        page.locator("#rows button").first.click()
        page.locator("#other-variants").select_option(label="negated")
        assert "· negated ·" in (page.locator("#question-title").text_content() or "")

    def test_a_question_is_opened_and_left_by_keyboard(self, page: "Page") -> None:
        button = page.locator("#rows button").nth(2)
        button.focus()
        page.keyboard.press("Enter")
        assert page.locator("#question").is_visible()
        assert page.evaluate("document.activeElement.id") == "question-title"
        page.keyboard.press("Escape")
        assert not page.locator("#question").is_visible()
        assert page.evaluate("document.activeElement.closest('tr').rowIndex") == 3

    def test_the_command_of_an_answer_can_be_copied(self, page: "Page") -> None:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("#rows button").first.click()
        page.locator(".card .command button").first.click()
        page.get_by_text("Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied in {f"medlocal show {question.key}" for question in some_questions()}

    def test_hostile_output_is_text(self, page: "Page") -> None:
        page.locator("#search").fill("onerror")
        page.get_by_text("1 of 192 answers").wait_for()
        page.locator("#rows button").first.click()
        shown = page.locator(".card.chosen pre").text_content()
        assert shown == visible(HOSTILE)
        assert "\u202e" not in (shown or "")
        assert "[U+202E]" in (shown or "")
        assert page.locator("main img, dialog img, dialog b").count() == 0
        assert page.title() != "hacked"

    def test_tab_leads_to_the_filters(self, page: "Page") -> None:
        page.locator("#answers-title").click()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == "language"

    def test_the_first_tab_skips_to_the_report(self, page: "Page") -> None:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")

    def test_dark_and_light_differ_and_the_button_changes_them(self, page: "Page") -> None:
        def ground() -> object:
            return page.evaluate("getComputedStyle(document.body).backgroundColor")

        light = ground()
        page.locator("#theme").click()
        assert ground() == "rgb(20, 23, 26)" != light
        page.locator("#theme").click()
        assert ground() == light
        page.emulate_media(color_scheme="dark")
        assert ground() == light  # the reader's choice holds

    def test_a_dark_system_gets_a_dark_page(self, chromium: "Browser", path: Path) -> None:
        opened = chromium.new_page(color_scheme="dark")
        opened.goto(path.as_uri())
        shown = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        opened.close()
        assert shown == "rgb(20, 23, 26)"

    def test_print_shows_what_is_folded_and_no_browser(self, page: "Page") -> None:
        page.emulate_media(media="print", color_scheme="dark")
        assert not page.locator("#answers").is_visible()
        assert not page.locator(".side").is_visible()
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        table = page.locator("details:not([open]) table").first
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert table.count() == 1

    def test_nothing_is_wider_than_a_phone(self, page: "Page") -> None:
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 400

    def test_without_scripts_everything_but_the_browser_is_there(
        self, chromium: "Browser", path: Path
    ) -> None:
        context = chromium.new_context(java_script_enabled=False)
        opened = context.new_page()
        opened.goto(path.as_uri())
        assert opened.locator("#variants svg").first.is_visible()
        assert opened.locator("#answers noscript").is_visible()
        assert not opened.locator("#browser").is_visible()
        context.close()

    def test_one_answer_has_no_filters_to_choose_from(
        self, chromium: "Browser", tmp_path: Path
    ) -> None:
        file = tmp_path / "one.html"
        question = replace(some_questions()[1], flip="")
        file.write_text(to_html(Report((), (), ()), [question]), encoding="utf-8")
        opened = chromium.new_page()
        opened.goto(file.as_uri())
        assert opened.locator("#selects select").count() == 0
        assert count(opened) == "1 answer"
        opened.close()
