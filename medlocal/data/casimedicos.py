"""CasiMedicos: clinical cases of the Spanish MIR exams, from tokens back to questions.

The release has one token a line and a blank line after each sentence; tokens were split at white
space only, so that they are joined by single spaces and French keeps its space before a colon. A
case runs `QUESTION TYPE: …`, `CLINICAL CASE:`, the case and its question, the options `1- …` to
`5- …`, the marker of the right answer, and an explanation. Everything from the marker on gives the
answer away: it goes to `rationale`, which is never shown.

The four languages are parallel case by case, with the same golds. The same case stands up to five
times, in several splits, with the same question or another one: all of these share a group, by the
opening of the text in one reference language, so that no example can give an answer away.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlocal.data.overlap import OPENING, normalised
from medlocal.data.rows import NO_GOLD, TOO_FEW_OPTIONS, Excluded, Row
from medlocal.errors import MissingError, UsageError
from medlocal.evals.items import Item

_FOLDERS = {"es": "ES", "en": "EN", "fr": "FR", "it": "IT"}
"""In the order in which one is taken as the reference of groups and subjects."""
_FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
_MARKER = re.compile(
    r"(?:CORRECT ANSWER|BONNE RÉPONSE|RÉPONSE CORRECTE|RISPOSTA CORRETTA) ?: ?(\d*)"
)
_OPTION = re.compile(r"([1-5]) ?-? +(.*)|([1-5]) ?-(.*)")
"""In two Italian cases an option has lost its hyphen."""
_TYPE, _CASE = "QUESTION TYPE", "CLINICAL CASE"

Sentences = list[list[str]]


def original_files(folder: Path) -> list[Path]:
    """The files of a release that are there, all of whose names `read_original` needs."""
    paths = [folder / name / file for name in _FOLDERS.values() for file in _FILES.values()]
    return [path for path in paths if path.is_file()]


def read_original(folder: Path) -> Iterator[Row]:
    """Read the original release: `{EN,ES,FR,IT}/{train,dev,test}.tsv`, a token and its tag a line.

    Raises:
        MissingError: a file is not there or cannot be read.
        UsageError: a line is malformed; the message begins "FILE:LINE:".
    """
    for language, name in _FOLDERS.items():
        for split, file in _FILES.items():
            path = folder / name / file
            if not path.is_file():
                raise MissingError(f"there is no {path}", hint="give the folder of the release")
            for number, case in enumerate(_cases(path), start=1):
                text = [[token for token, _ in sentence] for sentence in case]
                labels = [[tag for _, tag in sentence] for sentence in case]
                values = {"id": str(number), "text": text, "labels": labels}
                yield Row(values, split, language, language, number)


def _cases(path: Path) -> Iterator[list[list[tuple[str, str]]]]:
    """The cases of a file, each as sentences of tokens with their tags."""
    case: list[list[tuple[str, str]]] = []
    for sentence in _sentences(path):
        if [token for token, _ in sentence[:2]] == ["QUESTION", "TYPE:"] and case:
            yield case
            case = []
        case.append(sentence)
    if case:
        yield case


def _sentences(path: Path) -> Iterator[list[tuple[str, str]]]:
    sentence: list[tuple[str, str]] = []
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}") from error
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            parts = raw.decode("utf-8").split()
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}:{number}: not UTF-8", hint="get the file again") from error
        if len(parts) >= 2:
            # The tag may be followed by a judgement of its quality.
            sentence.append((parts[0], parts[1]))
        elif parts:
            raise UsageError(f"{path}:{number}: a token without a tag", hint="get the file again")
        elif sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


@dataclass(frozen=True, slots=True)
class _Case:
    """A case taken apart."""

    row: Row
    kind: str
    """The question type."""
    stem: str
    options: tuple[str, ...]
    """Without those that are the word nan."""
    gold: int | None
    """Index into `options`; None = there is none of that number."""
    explanation: str

    @property
    def place(self) -> tuple[str, int]:
        """What its parallel cases have in common."""
        return self.row.split, self.row.number


def read_items(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    """Make items of cases; see the module for what is kept of one.

    Args:
        dataset: the set's id.
        rows: with the columns `id`, `text` and `labels`; the latter two as lists of sentences, or
            as texts that spell such lists.

    Raises:
        UsageError: a row has other columns, or its text is no case.
    """
    cases = [_take_apart(dataset, row) for row in rows]
    reference: dict[tuple[str, int], _Case] = {}
    for language in _FOLDERS:
        for case in cases:
            if case.row.language == language:
                reference.setdefault(case.place, case)
    for case in cases:
        yield _item(dataset, case, reference[case.place])


def _item(dataset: str, case: _Case, reference: _Case) -> Item | Excluded:
    row = case.row
    item_id = f"{row.split}-{row.number}"
    if len(case.options) < 2:
        return Excluded(item_id, row.split, row.language, TOO_FEW_OPTIONS)
    if case.gold is None:
        return Excluded(item_id, row.split, row.language, NO_GOLD)
    opening = normalised(reference.stem)[:OPENING]
    return Item(
        id=item_id,
        dataset=dataset,
        split=row.split,
        language=row.language,
        stem=case.stem,
        options=case.options,
        gold=case.gold,
        subject=reference.kind.lower(),
        group=f"{dataset}/case-{hashlib.sha256(opening.encode()).hexdigest()[:12]}",
        rationale=case.explanation,
        flags=("vignette",),
    )


def _take_apart(dataset: str, row: Row) -> _Case:
    where = f"{dataset}, {row.language}, {row.split}, case {row.number}"
    lines = [" ".join(tokens) for tokens in _tokens(where, row) if tokens]
    kind = lines[0].partition(":")[2].strip() if lines else ""
    marked = [at for at, line in enumerate(lines) if _MARKER.match(line)]
    if len(lines) < 2 or not lines[0].startswith(_TYPE) or not lines[1].startswith(_CASE):
        raise UsageError(f"{where}: does not begin with a question type and a clinical case")
    if not kind or not marked:
        raise UsageError(f"{where}: no question type, or no marker of the right answer")
    # The first sentence may follow its heading on the same line.
    body = [lines[1].partition(":")[2].strip(), *lines[2 : marked[0]]]
    question, options = _split_options(where, [line for line in body if line])
    key = _MARKER.match(lines[marked[0]])
    assert key is not None
    rest = lines[marked[0]][key.end() :].strip()
    return _Case(
        row=row,
        kind=kind,
        stem=" ".join(question),
        options=tuple(text for text in options if not _is_nan(text)),
        gold=_gold(options, key[1]),
        explanation=" ".join(filter(None, [rest, *lines[marked[0] + 1 :]])),
    )


def _tokens(where: str, row: Row) -> Sentences:
    if "text" not in row.values:
        found = ", ".join(map(str, row.values)) or "none"
        raise UsageError(f"{where}: column 'text' is missing; there are {found}")
    text: Any = row.values["text"]
    if isinstance(text, str):
        try:
            text = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise UsageError(f"{where}: text spells no list of sentences") from error
    sound = isinstance(text, list) and all(
        isinstance(sentence, list) and all(isinstance(token, str) for token in sentence)
        for sentence in text
    )
    if not sound:
        raise UsageError(f"{where}: text must be sentences of tokens")
    sentences: Sentences = text
    return sentences


def _split_options(where: str, body: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines before the last `1-`, and the options from there on, one for each number in turn.

    A line that begins with no number, or not with the next one, goes on with the option before it.
    """
    starts = [at for at, line in enumerate(body) if re.match(r"1 ?-", line)]
    if not starts or not starts[-1]:
        raise UsageError(f"{where}: there is no question, or no option 1")
    options: list[str] = []
    for line in body[starts[-1] :]:
        found = _OPTION.fullmatch(line)
        if found and int(found[1] or found[3]) == len(options) + 1:
            options.append((found[2] or found[4] or "").strip())
        else:
            options[-1] = f"{options[-1]} {line}".strip()
    return list(body[: starts[-1]]), options


def _gold(options: Sequence[str], number: str) -> int | None:
    """The index of the right option among those that are kept."""
    right = int(number) - 1 if number else -1
    if not 0 <= right < len(options) or _is_nan(options[right]):
        return None
    return right - sum(_is_nan(text) for text in options[:right])


def _is_nan(option: str) -> bool:
    return option.strip(" .").casefold() in {"nan", ""}
