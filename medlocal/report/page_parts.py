"""What a page is made of below its first screen: sections, parts, figures, and how rows are cut for them.

A figure is a plot with the table of its data. Figures show one condition (prompt, format, arm) of
several models or, where there is one model, its conditions side by side; which condition stands in
front is decided here, for all sections alike. Nothing is known here of HTML or of what a plot looks
like.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from medlocal.evals.formats import ARMS, FORMATS
from medlocal.evals.stats import Rate
from medlocal.report import wording
from medlocal.report.blocks import Cell, Table
from medlocal.report.overview import lead_of
from medlocal.report.plots import Estimate, Titled
from medlocal.report.results import Report


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot and what it shows in numbers."""

    svg: str
    caption: str
    table: Table

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", compact(self.table))


@dataclass(frozen=True, slots=True)
class Part:
    """Something under a heading of its own."""

    title: str
    """"" = it follows without a heading."""
    lines: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    more: tuple["Part", ...] = ()
    """To be opened by the reader, each under its title."""
    more_title: str = ""
    """Of all of `more` together; of a single one its own title is enough."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page that the contents name."""

    id: str
    title: str
    lead: str
    """How to read it."""
    parts: tuple[Part, ...]


@dataclass(slots=True)
class Names:
    """Gives every figure of a page a name of its own."""

    num_figures: int = field(default=0)

    def titled(self, title: str, description: str) -> Titled:
        """What the next figure is called."""
        self.num_figures += 1
        return Titled(f"plot-{self.num_figures}", title, description)


class Placed(Protocol):
    """What can be cut by language and data set."""

    @property
    def dataset(self) -> str:
        """Its data set."""

    @property
    def language(self) -> str:
        """Of its items."""


class Named(Protocol):
    """What has one prompt."""

    @property
    def prompt(self) -> str:
        """Its name."""


class Asked(Placed, Protocol):
    """What was asked of a model in a form."""

    @property
    def model(self) -> str:
        """Who was asked."""

    @property
    def format(self) -> str:
        """The form of the answer."""

    @property
    def arm(self) -> str:
        """How the answer was obtained."""


class Prompted(Asked, Named, Protocol):
    """What has a whole condition."""


_Placed = TypeVar("_Placed", bound=Placed)
_Asked = TypeVar("_Asked", bound=Asked)
_Prompted = TypeVar("_Prompted", bound=Prompted)

OTHERS = "in other formats and arms"

NOBODY_CHECKED = "Unverified: nobody checked that the right answer is still right"
"""Heads the rows that are set apart."""

Condition = tuple[str, str, str]
"""Prompt, format, arm."""

Drawn = Callable[[str, Sequence[_Prompted], Sequence[str], Sequence[Condition]], Figure]
"""From what to call it, the rows, and the models and conditions that stand side by side: a figure."""


def by_place(rows: Iterable[_Placed]) -> list[tuple[str, list[_Placed]]]:
    """The rows by language and data set, with what to call each: "Spanish", "Spanish · medqa"."""
    found: dict[tuple[str, str], list[_Placed]] = {}
    for row in rows:
        found.setdefault((row.language, row.dataset), []).append(row)
    is_one_set = len({dataset for _, dataset in found}) < 2
    return [(place(*key, is_one_set=is_one_set), found[key]) for key in sorted(found)]


def place(language: str, dataset: str, *, is_one_set: bool) -> str:
    """What to call a language and a data set; of a report's only set the name is left out."""
    name = wording.clean(wording.language(language))
    return name if is_one_set else f"{name} · {wording.clean(dataset)}"


def condition(row: Prompted) -> Condition:
    """Prompt, format and arm of a row."""
    return row.prompt, row.format, row.arm


def by_condition(
    rows: Iterable[_Prompted], wanted: Condition | None = None
) -> list[tuple[Condition, list[_Prompted]]]:
    """The rows by condition: first the one in front, then the others in the order of formats and arms.

    Args:
        rows: in any order.
        wanted: the condition to stand in front; where it does not occur, the one that has most rows.
    """
    found: dict[Condition, list[_Prompted]] = {}
    for row in rows:
        found.setdefault(condition(row), []).append(row)
    ordered = sorted(found, key=_rank)
    if wanted not in found and ordered:
        wanted = max(ordered, key=lambda key: len(found[key]))  # the first of several
    ordered.sort(key=lambda key: key != wanted)
    return [(key, found[key]) for key in ordered]


def part_by_condition(
    title: str, rows: Sequence[_Prompted], report: Report, draw: Drawn[_Prompted]
) -> Part:
    """One figure per condition, that of the overview open; of one model, its conditions together."""
    asked = [model for model in report.models if any(row.model == model for row in rows)]
    if len(asked) == 1:
        return _part_of_one(title, rows, asked[0], draw)
    prompt = main_prompt(rows)
    (front, first), *others = by_condition(rows, lead_condition(report, rows[0].language))
    figure = draw(f"{title}, {called(front, prompt)}", first, asked, [front])
    more = []
    for key, found in others:
        name = f"{title}, {called(key, prompt)}"
        more.append(Part(name, figures=(draw(name, found, asked, [key]),)))
    return Part(title, figures=(figure,), more=tuple(more), more_title=f"{title}, {OTHERS}")


def _part_of_one(title: str, rows: Sequence[_Prompted], model: str, draw: Drawn[_Prompted]) -> Part:
    """Conditions that were asked little stand apart: side by side with the others they leave holes."""
    counts = Counter(map(condition, rows))
    most = max(counts.values())
    figures = []
    for is_full in (True, False):
        chosen = [row for row in rows if (2 * counts[condition(row)] >= most) == is_full]
        name = f"{title}, {wording.clean(model)}"
        name += "" if is_full else f", {OTHERS}"
        if chosen:
            figures.append((name, draw(name, chosen, [model], conditions(chosen))))
    more = tuple(Part(name, figures=(figure,)) for name, figure in figures[1:])
    return Part(title, figures=(figures[0][1],), more=more)


def lead_condition(report: Report, language: str) -> Condition | None:
    """The condition by which the overview tells what models know."""
    lead = lead_of(report.rows, language)
    return (lead.prompt, lead.format, lead.arm) if lead else None


def in_order(rows: Iterable[_Asked], models: Sequence[str]) -> list[_Asked]:
    """By model, in the order of the report, then by format and arm."""
    return sorted(
        rows, key=lambda row: (models.index(row.model), *_rank(("", row.format, row.arm)))
    )


def main_prompt(rows: Iterable[Named]) -> str:
    """The prompt that most rows have; of several, the first by name. "" = there are no rows."""
    counts = Counter(row.prompt for row in rows)
    return min(counts, key=lambda name: (-counts[name], name), default="")


def called(key: Condition, prompt: str) -> str:
    """A condition in words: "letter · free", with its prompt where it is not the usual one."""
    parts = key[1:] if key[0] == prompt else (key[1], key[2], key[0])
    return " · ".join(map(wording.clean, parts))


def conditions(rows: Iterable[Prompted]) -> list[Condition]:
    """Those that occur, in their order."""
    return sorted({condition(row) for row in rows}, key=_rank)


def estimate(rate: Rate | None) -> Estimate | None:
    """A rate as a plot takes it."""
    return None if rate is None else Estimate(rate.value, rate.low, rate.high)


def rate_cell(rate: Rate | None) -> Cell:
    """A rate in a table: the value, and below it the interval."""
    if rate is None or rate.value is None:
        return (wording.ABSENT,)
    return wording.percent(rate.value), wording.bounds(rate)


def points_cell(value: float | None, low: float | None, high: float | None) -> Cell:
    """A difference in a table: points, and below them the interval."""
    if value is None:
        return (wording.ABSENT,)
    if low is None or high is None:
        return (wording.points(value),)
    return wording.points(value), f"({wording.points_interval(low, high)})"


def p_cell(p: float | None) -> Cell:
    """A p-value in a table."""
    return (wording.ABSENT if p is None else wording.p_value(p).removeprefix("= "),)


def names(*texts: str) -> tuple[Cell, ...]:
    """Cells that hold words."""
    return tuple((wording.clean(text),) for text in texts)


def heads(texts: str) -> tuple[Cell, ...]:
    """A table's headers, with " | " between them."""
    return tuple((text,) for text in texts.split(" | "))


def compact(table: Table) -> Table:
    """The table without the columns of words that say the same in every row: its title says it once."""
    if len(table.rows) < 2:
        return table
    columns = range(table.num_names)
    same = [at for at in columns if len({row[at] for row in table.rows}) == 1]
    same = same[1:] if len(same) == table.num_names else same
    kept = [at for at in range(len(table.headers)) if at not in same]
    words = {" ".join(table.headers[at]): " ".join(table.rows[0][at]) for at in same}
    told = [f"{head}: {word}" for head, word in words.items() if word not in table.title]
    return replace(
        table,
        title=f"{table.title} ({', '.join(told)})" if told else table.title,
        headers=tuple(table.headers[at] for at in kept),
        rows=tuple(tuple(row[at] for at in kept) for row in table.rows),
        num_names=table.num_names - len(same),
    )


def count_range(numbers: Iterable[int]) -> str:
    """One number or the range of several: "20", "18–20"."""
    found = sorted(set(numbers)) or [0]
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,}–{found[-1]:,}"


def _rank(key: Condition) -> tuple[int, int, str]:
    prompt, form, arm = key
    formats, arms = tuple(FORMATS), ARMS
    return (
        formats.index(form) if form in formats else len(formats),
        arms.index(arm) if arm in arms else len(arms),
        prompt,
    )
