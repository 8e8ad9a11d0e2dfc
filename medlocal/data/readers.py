"""One reader per data set: from rows in the Hub's columns to items, or to why there is none.

A reader knows the columns of its set and the defects that were found in it, and nothing of where the
rows come from. Texts are cleaned of stray spaces only. Columns that give the answer away end in
`rationale`, which is never shown, or are not looked at.

Options that read the same, found by comparing whole texts with their capitals (tt and TT are two
genotypes): an item with some keeps its place and the flag `duplicate_options`. Where the gold itself
stands twice no letter is right, and the item is left out.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medlocal.data import casimedicos, medexpqa
from medlocal.data.rows import (
    ANNULLED,
    EMPTY_OPTION,
    EMPTY_STEM,
    GOLD_TWICE,
    NO_GOLD,
    PICTURE_MISSING,
    TOO_FEW_OPTIONS,
    Excluded,
    Reader,
    Row,
)
from medlocal.errors import UsageError
from medlocal.evals.items import LETTERS, Item

_DIGITS = 12
"""Hexadecimal digits of a hash that an id is made of: two of 200,000 questions share them in 1 of
14,000 cases, and then the options are hashed too."""

_PICTURE = re.compile(
    r"""
    \b(?:[Ff]igures?|[Ii]mages?)\ [A-H1-9]\b
  | \b(?:in|see|to)\ (?:the\ )?(?:first\ |accompanying\ )?
        (?:image|picture|photo|photograph|exhibit|graph)\b
  # "is shown." ends a sentence; before a table of results it ends a line.
  | \b(?:is|are|and|as)\ shown\b(?:\ below)?(?:[.,](?!\s*\n)|\ with\b)
  | \b(?:by|with)\ the\ (?:\w+\ )?arrows?\b
  | \b(?:dashed|dotted)\ line\b
  | \bpicture(?:d\ below|\ shows)\b
    """,
    re.VERBOSE,
)
"""MedQA stems that point at a picture. Checked by reading all stems of the test split that hold a word
for a picture, an arrow or something shown: it finds those 108 that point at one, and no other."""

_SUMMARY = re.compile(
    r'Please refer to the summary above to answer this question.*?(?:"\n"(.+))?', re.S
)
"""MedQA stems about a research summary, which stands after the question, or is lost."""

_CELL_ERROR = re.compile(r"#(?:N/A|REF!|VALUE!|DIV/0!|NAME\?|NULL!|NUM!)")
"""What is left of an option that a spreadsheet took for a formula."""

_STEPS = {"step1": "usmle step 1", "step2&3": "usmle step 2 and 3"}
_DECISIONS = ("yes", "no", "maybe")
_NURSING = {"nursery": "nursing"}
"""HEAD-QA's translation of *enfermería*."""


def _medqa(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    ids = _HashedIds()
    for row in rows:
        cells = _Cells(dataset, row)
        stem, lettered = cells.text("question"), cells.mapping("options")
        letters = sorted(letter for letter, option in lettered.items() if option is not None)
        options = [cells.cleaned(lettered[letter], "options") for letter in letters]
        answer = cells.text("answer_idx")
        item_id = ids.make(f"{row.split}-", stem, options)
        about = _SUMMARY.fullmatch(stem)
        yield _judge(
            cells,
            _Draft(
                id=item_id,
                stem=stem,
                options=options,
                gold=letters.index(answer) if answer in letters else None,
                subject=_STEPS.get(cells.text("meta_info"), "usmle"),
                key=f"summary-{_digits(about[1])}" if about and about[1] else item_id,
                flags=_medqa_flags(stem, about),
            ),
        )


def _medqa_flags(stem: str, about: re.Match[str] | None) -> tuple[str, ...]:
    picture = ("mentions_picture",) if _PICTURE.search(stem) else ()
    return (*picture, "mentions_summary") if about and not about[1] else picture


def _medmcqa(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    for row in rows:
        cells = _Cells(dataset, row)
        yield _judge(
            cells,
            _Draft(
                id=cells.text("id"),
                stem=cells.text("question"),
                options=[cells.text(f"op{letter}") for letter in "abcd"],
                gold=cells.index("cop", 4),
                subject=cells.text("subject_name").lower() or "unknown",
                rationale=cells.text("exp", ""),
            ),
            # The field reports on all 4,183 questions, with the four whose gold stands twice.
            keeps_gold_twice=True,
        )


def _mmlu(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    for row in rows:
        cells = _Cells(dataset, row)
        subject = cells.text("subject")
        yield _judge(
            cells,
            _Draft(
                id=f"{subject}-{row.split}-{row.number}",
                stem=cells.text("question"),
                options=[cells.cleaned(text, "choices") for text in cells.sequence("choices")],
                gold=cells.index("answer", 4),
                subject=subject.replace("_", " ").lower(),
            ),
        )


def _pubmedqa(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    ids = _HashedIds()
    for row in rows:
        cells = _Cells(dataset, row)
        stem, decision = cells.text("QUESTION"), cells.text("final_decision")
        if decision not in ("", *_DECISIONS):
            raise cells.wrong("final_decision", decision, "yes, no or maybe")
        yield _judge(
            cells,
            _Draft(
                id=ids.make("", stem, _DECISIONS),
                stem=stem,
                options=_DECISIONS,
                gold=_DECISIONS.index(decision) if decision else None,
                subject="biomedical research",
                context=_abstract(cells),
                rationale=cells.text("LONG_ANSWER", ""),
            ),
        )


def _abstract(cells: "_Cells") -> str:
    """The parts of the abstract, each after its heading where it has one; not its conclusion."""
    parts = [cells.cleaned(text, "CONTEXTS") for text in cells.sequence("CONTEXTS")]
    labels = [cells.cleaned(text, "LABELS") for text in cells.sequence("LABELS")]
    if len(labels) != len(parts):
        return "\n".join(parts)
    labels = ["" if label == "UNLABELLED" else label for label in labels]
    pairs = zip(labels, parts, strict=True)
    return "\n".join(f"{label}: {part}" if label else part for label, part in pairs)


def _head_qa(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    # No item refers to another: all 165 "Pregunta vinculada a la imagen nº1" need a picture, often
    # two questions one, and no question without a picture speaks of the one before it.
    for row in rows:
        cells = _Cells(dataset, row)
        aids, options = _head_qa_answers(cells)
        right, category = cells.number("ra"), cells.text("category").lower()
        yield _judge(
            cells,
            _Draft(
                id=f"{cells.text('name')}-{cells.key('qid')}",
                stem=cells.text("qtext"),
                options=options,
                gold=aids.index(right) if right is not None and right in aids else None,
                subject=_NURSING.get(category, category),
                reason=PICTURE_MISSING
                if cells.has_picture("image")
                # Of version 2 of the set: 0 = annulled by the examiners.
                else (ANNULLED if right == 0 else ""),
            ),
        )


def _head_qa_answers(cells: "_Cells") -> tuple[list[int | None], list[str]]:
    """Numbers and texts, from a list of answers or, in older copies, from two lists."""
    answers = cells.value("answers")
    if isinstance(answers, Mapping):
        columns = [answers.get("aid"), answers.get("atext")]
        if not all(isinstance(column, Sequence) for column in columns):
            raise cells.wrong("answers", answers, "lists of aid and atext")
        answers = [{"aid": aid, "atext": text} for aid, text in zip(*columns, strict=False)]
    if not isinstance(answers, list) or not all(isinstance(a, Mapping) for a in answers):
        raise cells.wrong("answers", answers, "a list of aid and atext")
    numbers = [cells.whole(answer.get("aid"), "answers") for answer in answers]
    return numbers, [cells.cleaned(answer.get("atext"), "answers") for answer in answers]


def _careqa(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    taken: set[tuple[str, str, str]] = set()
    for row in rows:
        cells = _Cells(dataset, row)
        category = cells.text("category").lower()
        # Not the unique_id: whether it is the same in both languages is not documented, and items
        # pair by their id.
        key = f"{cells.key('year')}-{category}-{cells.key('exam_id')}"
        place = (row.language, row.split, key)
        right = cells.number("cop")
        if right is not None and not 0 <= right <= 4:
            raise cells.wrong("cop", right, "from 1 to 4")
        yield _judge(
            cells,
            _Draft(
                id=f"{key}-{cells.text('unique_id')}" if place in taken else key,
                stem=cells.text("question"),
                options=[cells.text(f"op{number}") for number in range(1, 5)],
                gold=right - 1 if right else None,
                subject=category,
                key=key,
            ),
        )
        taken.add(place)


READERS: Mapping[str, Reader] = {
    "medqa": _medqa,
    "medmcqa": _medmcqa,
    "mmlu": _mmlu,
    "pubmedqa": _pubmedqa,
    "head-qa": _head_qa,
    "careqa": _careqa,
    "casimedicos": casimedicos.read_items,
    "medexpqa": medexpqa.read_items,
}
"""By the name that a card gives."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a row says, before it is judged."""

    id: str
    stem: str
    options: Sequence[str]
    gold: int | None
    """Index into `options`; None = the row has none."""
    subject: str
    key: str = ""
    """Shared by the items of one case; "" = the id."""
    context: str = ""
    rationale: str = ""
    flags: tuple[str, ...] = ()
    reason: str = ""
    """Why it cannot be asked, where the columns of its set say so."""


def _judge(cells: "_Cells", draft: _Draft, *, keeps_gold_twice: bool = False) -> Item | Excluded:
    row = cells.row
    for name, text in (("id", draft.id), ("subject", draft.subject)):
        if not text.strip():
            raise cells.wrong(name, text, "a text")
    if len(draft.options) > len(LETTERS):
        raise cells.wrong("options", len(draft.options), f"at most {len(LETTERS)}")
    reason = draft.reason or _reason(draft)
    if reason and not (reason == GOLD_TWICE and keeps_gold_twice):
        return Excluded(draft.id, row.split, row.language, reason)
    assert draft.gold is not None
    flags = draft.flags
    if len(set(draft.options)) < len(draft.options):
        flags += ("duplicate_options",)
    if any(map(_CELL_ERROR.fullmatch, draft.options)):
        flags += ("cell_error",)
    return Item(
        id=draft.id,
        dataset=cells.dataset,
        split=row.split,
        language=row.language,
        stem=draft.stem,
        options=tuple(draft.options),
        gold=draft.gold,
        subject=draft.subject,
        group=f"{cells.dataset}/{draft.key or draft.id}",
        context=draft.context,
        rationale=draft.rationale,
        flags=(*flags, "gold_twice") if reason else flags,
    )


def _reason(draft: _Draft) -> str:
    """Why a draft cannot be asked; "" = it can."""
    if not draft.stem:
        return EMPTY_STEM
    if len(draft.options) < 2:
        return TOO_FEW_OPTIONS
    if not all(draft.options):
        return EMPTY_OPTION
    if draft.gold is None:
        return NO_GOLD
    return GOLD_TWICE if draft.options.count(draft.options[draft.gold]) > 1 else ""


class _HashedIds:
    """Ids for sets that have none, made of the question."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def make(self, prefix: str, stem: str, options: Sequence[str]) -> str:
        """A new id; of two equal questions the second one's is made of its options too."""
        made = prefix + _digits(stem)
        if made in self._taken:
            made = prefix + _digits("\n".join((stem, *options)))
        while made in self._taken:
            made += "-again"
        self._taken.add(made)
        return made


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


class _Cells:
    """The checked columns of one row; every complaint says which row it is."""

    def __init__(self, dataset: str, row: Row) -> None:
        self.dataset = dataset
        self.row = row

    def value(self, column: str) -> Any:
        if column not in self.row.values:
            raise UsageError(
                f"{self._where()}: column {column!r} is missing;"
                f" there are {', '.join(map(str, self.row.values)) or 'none'}",
                hint="the files are not this set's, or of a revision with other columns",
            )
        return self.row.values[column]

    def text(self, column: str, missing: str | None = None) -> str:
        """A cleaned text, "" for a null; `missing` where there is no such column."""
        if missing is not None and column not in self.row.values:
            return missing
        return self.cleaned(self.value(column), column)

    def cleaned(self, value: object, column: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(column, value, "a text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            expected = "without half a character (a lone surrogate)"
            raise self.wrong(column, value, expected) from error
        return _clean(value)

    def number(self, column: str) -> int | None:
        return self.whole(self.value(column), column)

    def key(self, column: str) -> int:
        """A whole number that an id is made of."""
        if (value := self.number(column)) is None:
            raise self.wrong(column, value, "a whole number")
        return value

    def whole(self, value: object, column: str) -> int | None:
        """A whole number, written as one or as text; None for a null."""
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
            return int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self.wrong(column, value, "a whole number")
        return value

    def index(self, column: str, count: int) -> int | None:
        """An index below `count`; None for a null and for -1, which says that it is not public."""
        value = self.number(column)
        if value is not None and not -1 <= value < count:
            raise self.wrong(column, value, f"from 0 to {count - 1}")
        return None if value == -1 else value

    def mapping(self, column: str) -> Mapping[str, Any]:
        value = self.value(column)
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.wrong(column, value, "options by letter")
        return value

    def sequence(self, column: str) -> list[Any]:
        value = self.value(column)
        if not isinstance(value, list):
            raise self.wrong(column, value, "a list")
        return value

    def has_picture(self, column: str) -> bool:
        """True for a path or stored bytes, which are not looked at."""
        value = self.value(column)
        return any(value.values()) if isinstance(value, Mapping) else bool(value)

    def wrong(self, column: str, value: object, expected: str) -> UsageError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return UsageError(
            f"{self._where()}: {column} must be {expected}, not {shown}",
            hint="the files are not this set's, or of a revision with other columns",
        )

    def _where(self) -> str:
        config = f"{self.row.config}, " if self.row.config else ""
        return f"{self.dataset}, {config}{self.row.split}, row {self.row.number}"


def _clean(text: str) -> str:
    """Without spaces at the ends of lines, runs of them, and those of no width."""
    lines = text.replace("\u200b", "").replace("\ufeff", "").split("\n")
    return "\n".join(" ".join(line.split()) for line in lines).strip()
