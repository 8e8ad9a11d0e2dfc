"""The report as one HTML file that needs nothing else: no network, no other file, no program but a browser.

The first screen is `overview`'s; below it come the sections, then single answers. Everything that came
from models, data sets and runs is text here and stays text: the template escapes it, the answers
travel as JSON that cannot end its element, and the page's policy lets nothing be fetched. No figure
is computed here.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from medlocal.report import wording
from medlocal.report.browser import Question, to_json
from medlocal.report.overview import LanguageOverview, overview
from medlocal.report.page_instructions import levels_section, transforms_section
from medlocal.report.page_interactions import interactions_section
from medlocal.report.page_method import WORDS, method_section
from medlocal.report.page_models import comparison_section
from medlocal.report.page_parts import Names, Section
from medlocal.report.page_positions import positions_section
from medlocal.report.page_scores import accuracy_section, constraint_section, prompts_section
from medlocal.report.page_variants import variants_section
from medlocal.report.results import Report

if TYPE_CHECKING:
    from jinja2 import Template

_ASSETS = Path(__file__).parent / "assets"
_NUM_SENTENCES = 3
"""Of a language, on the first screen; the others stand below its table, folded."""

_SECTIONS: tuple[Callable[[Report, Names], Section | None], ...] = (
    accuracy_section,
    variants_section,
    constraint_section,
    positions_section,
    prompts_section,
    interactions_section,
    levels_section,
    transforms_section,
    comparison_section,
)


@dataclass(frozen=True, slots=True)
class _Shown:
    """How many of the answers are in the page."""

    num_shown: int
    num_all: int


def to_html(report: Report, questions: Iterable[Question]) -> str:
    """The report as one HTML page. The same report and answers give the same bytes.

    Args:
        report: what it shows; sections without data are left out.
        questions: single answers to browse, such as `browser.read_questions` gives them.
    """
    found, first_screen = tuple(questions), overview(report)
    given = Names()
    built = [make(report, given) for make in _SECTIONS]
    sections = [section for section in built if section is not None]
    num_all = sum(row.n + row.excluded for row in report.rows)
    text: str = _template().render(
        title=_title(report),
        facts=_head_facts(report),
        overview=first_screen,
        num_sentences=_NUM_SENTENCES,
        has_variants=any(line.robust for part in first_screen for line in part.lines),
        sections=sections,
        method=method_section(report),
        words=WORDS,
        answers=to_json(found) if found else "",
        shown=_Shown(len(found), max(num_all, len(found))),
        languages=json.dumps(wording.LANGUAGES),
        css=_asset("page.css"),
        dark=_asset("dark.css"),
        js=_asset("page.js"),
    )
    # The macros leave empty lines, and nothing should stand before the document type.
    return text.lstrip()


def _title(report: Report) -> str:
    """What was evaluated, in one line."""
    models = report.models
    codes = sorted({row.language for row in report.rows})
    languages = _listed([wording.clean(wording.language(code)) for code in codes])
    what = wording.clean(models[0]) if len(models) == 1 else f"{len(models)} language models"
    if not models:
        return "Nothing has been answered yet"
    return f"{what} on clinical questions in {languages}"


def _head_facts(report: Report) -> list[tuple[str, str]]:
    """(name, value) of what stands below the title."""
    days = sorted({str(facts.run.get("created", ""))[:10] for facts in report.runs} - {""})
    dates = "" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    sets = sorted({wording.clean(row.dataset) for row in report.rows})
    num_answers = sum(row.n + row.excluded for row in report.rows)
    found = [
        ("date", dates),
        ("data sets" if len(sets) > 1 else "data set", ", ".join(sets)),
        ("answers", f"{num_answers:,}"),
        ("models" if len(report.models) > 1 else "model", ", ".join(report.models)),
    ]
    return [(name, wording.clean(value)) for name, value in found if value]


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _bar(part: LanguageOverview, index: int) -> str:
    """The CSS variables of the little bar beside an accuracy."""
    line = part.lines[index]
    rate = line.knowledge
    shares = {"value": rate.value, "low": rate.low, "high": rate.high, "chance": line.chance}
    return ";".join(f"--{name}:{100 * x:.2f}%" for name, x in shares.items() if x is not None)


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": wording.percent,
        "bounds": wording.bounds,
        "clean": wording.clean,
        "language": wording.language,
    }
    environment.globals |= {"bar": _bar}
    return environment.from_string(_asset("page.html.j2"))
