"""A user's own questions: from the rows of a table to items, with every row that is not sound named.

A first pass looks at all rows, finds out what the answers mean and lists what is wrong; a second one
makes the items. Nothing of the file is kept between them, so that memory does not grow with it. Which
file endings there are is known to `tables`, which names a column may have to `columns`; nothing is
mended here beyond the spaces around a text and the spelling of line breaks.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medlocal.data.columns import ColumnMap, recognise
from medlocal.data.golds import LETTER, MEANINGS, GoldSurvey
from medlocal.data.questions import BadRowError, Question, Reading, SeveralGoldsError
from medlocal.data.seen import Seen
from medlocal.data.tables import Record, Source, column_names, open_source, read_source
from medlocal.errors import MissingError, UsageError, unknown_name
from medlocal.evals.items import LANGUAGES, Item

FIRST_ONLY = "first-only"
MAX_BAD = 10_000
"""Bad rows that are kept to be listed; all are counted."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user says of a file."""

    set_id: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """By field, as `columns.parse_map` gives them; the others are recognised."""
    language: str | None = None
    """Of the rows that do not say it; None = all must."""
    gold: str | None = None
    """One of `golds.MEANINGS`; None = it is found out."""
    multi: str | None = None
    """`FIRST_ONLY` = rows with several right answers are counted and skipped; None = they are bad."""
    encoding: str | None = None
    """Of a text file; None = it is found out."""
    sheet: str | None = None
    """Of a workbook; None = the first."""
    skip_bad: bool = False
    """True: the sound rows are imported where some are bad."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be imported."""

    file: str
    row: int
    """As `tables.Record.number` counts."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Summary:
    """What the first pass found."""

    rows: int
    items: int
    bad: int
    skipped_multiple: int
    """Rows with several right answers that are left out."""
    gold: str
    """What the answers mean, one of `golds.MEANINGS`; "" = no row is sound."""
    encoding: str
    """A name of Python's; "" = the file is no text."""
    columns: Mapping[str, tuple[str, ...]]
    """By field, those that are read."""
    unused: tuple[str, ...]
    """Columns that nothing was recognised in."""
    by_language: Mapping[str, int]
    """Items."""
    by_split: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """A file that was looked at, and what its items will be made by."""

    source: Source
    options: ImportOptions
    columns: ColumnMap
    summary: Summary
    bad: tuple[BadRow, ...]
    """The first `MAX_BAD` of them, in the order of the file."""
    signature: tuple[int, int]
    """Size and time of the file, by which a change between the two passes is seen."""


def plan_import(path: Path, options: ImportOptions) -> ImportPlan:
    """Look at all rows of a file. Bad ones are listed in the plan and raise nothing.

    Raises:
        MissingError: the file is not there or cannot be read.
        UsageError: the file as a whole cannot be read, its columns are not recognised, it has no
            row, what its answers mean is not clear, or an option is none; the message names the file
            and the hint says what to write.
    """
    _check(options)
    source = open_source(path, options.encoding, options.sheet)
    signature = _signature(source)
    names = column_names(source)
    columns = _columns(source, names, options)
    survey = _Survey(source, options, columns)
    for _ in survey.questions():
        pass
    if not survey.num_rows:
        raise UsageError(f"{path}: the file holds no question", hint="one question a row")
    meaning = survey.golds.meaning(str(path)) if survey.golds.num_answers else ""
    return ImportPlan(
        source, options, columns, survey.summary(meaning, names), tuple(survey.bad), signature
    )


def items(plan: ImportPlan) -> Iterator[Item]:
    """The items of the sound rows, in the order of the file.

    Raises:
        UsageError: at once, if there are bad rows and they were not to be skipped; at the end, if the
            file was changed since it was looked at.
    """
    summary = plan.summary
    if summary.bad and not plan.options.skip_bad:
        raise UsageError(
            f"{plan.source.path}: {summary.bad:,} of {summary.rows:,} rows cannot be imported,"
            " and so none was",
            hint=f"mend them, or add --skip-bad to import the other {summary.items:,}",
        )
    return _items(plan)


def _items(plan: ImportPlan) -> Iterator[Item]:
    num_items = 0
    for question in _Survey(plan.source, plan.options, plan.columns).questions():
        if plan.summary.gold not in question.golds:
            break  # it had that reading when the file was looked at
        num_items += 1
        yield question.item(plan.options.set_id, plan.summary.gold)
    if (num_items, _signature(plan.source)) != (plan.summary.items, plan.signature):
        raise UsageError(
            f"{plan.source.path}: the file was changed while it was imported",
            hint="import it again",
        )


def _check(options: ImportOptions) -> None:
    if not options.set_id.strip():
        raise UsageError("the set needs an id", hint="such as --id preguntas")
    if options.language is not None and options.language not in LANGUAGES:
        raise unknown_name("language", options.language, LANGUAGES)
    if options.gold is not None and options.gold not in MEANINGS:
        raise unknown_name("meaning of an answer", options.gold, MEANINGS)
    if options.multi not in {None, FIRST_ONLY}:
        raise unknown_name("way with several right answers", str(options.multi), [FIRST_ONLY])


def _signature(source: Source) -> tuple[int, int]:
    try:
        status = source.path.stat()
    except OSError as error:
        raise MissingError(f"{source.path}: cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def _columns(source: Source, names: tuple[str, ...], options: ImportOptions) -> ColumnMap:
    try:
        columns = recognise(names, options.columns)
    except UsageError as error:
        raise UsageError(f"{source.path}: {error.message}", hint=error.hint) from error
    if not columns.language and options.language is None:
        raise UsageError(
            f"{source.path}: no column says which language the questions are in",
            hint=f"say it: --language {'|'.join(LANGUAGES)}",
        )
    return columns


class _Survey:
    """One pass over a file."""

    def __init__(self, source: Source, options: ImportOptions, columns: ColumnMap) -> None:
        self._source = source
        self._options = options
        self._columns = columns
        self._reading = Reading(columns, options.language or "", self._meaning_told())
        self.golds = GoldSurvey()
        self.bad: list[BadRow] = []
        self.num_rows = 0
        self._num_bad = 0
        self._num_several = 0
        self._languages: Counter[str] = Counter()
        self._splits: Counter[str] = Counter()

    def questions(self) -> Iterator[Question]:
        """The sound rows; what is wrong with the others is noted."""
        with Seen() as seen:
            for record in read_source(self._source):
                self.num_rows += 1
                try:
                    question = self._question(record, seen)
                except SeveralGoldsError as error:
                    self._note_several(record, str(error))
                except BadRowError as error:
                    self._note_bad(record, str(error))
                else:
                    yield question

    def summary(self, meaning: str, names: tuple[str, ...]) -> Summary:
        """What was found, once all rows have been seen."""
        used = self._columns.used()
        read = {name for columns in used.values() for name in columns}
        return Summary(
            rows=self.num_rows,
            items=self.num_rows - self._num_bad - self._num_several,
            bad=self._num_bad,
            skipped_multiple=self._num_several,
            gold=meaning,
            encoding=self._source.encoding,
            columns=used,
            unused=tuple(name for name in names if name not in read),
            by_language={code: n for code in LANGUAGES if (n := self._languages[code])},
            by_split=dict(sorted(self._splits.items())),
        )

    def _meaning_told(self) -> str | None:
        """What the answers mean, by what the user or the column's name says."""
        return self._options.gold or (LETTER if self._columns.answer_is_letter else None)

    def _question(self, record: Record, seen: Seen) -> Question:
        question = self._reading.question(record.values)
        key = (question.language, question.split, question.id)
        if earlier := seen.add("\0".join(key), record.number):
            what = f"id {question.id!r}" if question.has_own_id else "the same question and options"
            raise BadRowError(f"{what} stands in row {earlier} already")
        self.golds.add(record.number, question.answer, question.golds, question.options)
        self._languages[question.language] += 1
        self._splits[question.split] += 1
        return question

    def _note_several(self, record: Record, reason: str) -> None:
        if self._options.multi == FIRST_ONLY:
            self._num_several += 1
        else:
            self._note_bad(record, f"{reason}; --multi {FIRST_ONLY} would count and skip such rows")

    def _note_bad(self, record: Record, reason: str) -> None:
        self._num_bad += 1
        if len(self.bad) < MAX_BAD:
            self.bad.append(BadRow(str(self._source.path), record.number, reason))
