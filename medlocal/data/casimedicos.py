"""CasiMedicos: clinical cases of the Spanish MIR exams, from tokens back to questions.

The release has one token a line and a blank line after each sentence. Tokens were split at white
space and nowhere else, so that joining them by single spaces gives the text back, with the faults of
spacing that it had: those that one can be sure of are mended (`readable`), wording never is. A case
runs `QUESTION TYPE: …`, `CLINICAL CASE:`, the case and its question, the options `1- …` to `5- …`,
the marker of the right answer, and an explanation. Everything from the marker on gives the answer
away: it goes to `rationale`, which is never shown.

The four languages are parallel by place in their files. The same case stands up to five times, in
several splits, with slips of the pen between the copies: those share a group (`copies`), so that
no example can give an answer away. Where copies contradict each other, which no rule can settle, they
stay and carry the flag `gold_disputed`. What the tags say of arguments is read and not used here.
"""

import ast
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from medlocal.data.copies import disputed, same_cases
from medlocal.data.rows import (
    EMPTY_OPTION,
    EMPTY_STEM,
    GOLD_TWICE,
    NO_GOLD,
    TOO_FEW_OPTIONS,
    UNREADABLE,
    Excluded,
    Row,
)
from medlocal.errors import MissingError, UsageError
from medlocal.evals.items import Item

_FOLDERS = {"es": "ES", "en": "EN", "fr": "FR", "it": "IT"}
"""In the order in which one is taken as the reference: Spanish is the original."""
_FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
_AGAIN = "get the file again, from the release"

_CASE = re.compile(
    r"QUESTION TYPE ?:(?P<kind>[^\n]*)\nCLINICAL CASE ?:(?P<body>.*?)"
    r"(?:CORRECT ANSWER|BONNE RÉPONSE|RÉPONSE CORRECTE|RISPOSTA CORRETTA) ?: ?(?P<key>[0-9]*)"
    r"(?P<explanation>.*)",
    re.DOTALL,
)
"""The headings are in English in all languages, and so is the marker in the Spanish files and in the
French dev file; the other French files have both French ones."""
_TAG = re.compile(r"O|[BI]-\w+")
_NUMBER = r"{} ?-(?!\d)"
"""Of an option, at the beginning of its line; "2-3 weeks" is none."""

_ELISION = r"(?i:(?<!\w)(all|coll|dall|dell|nell|quell|sull|un|qu|[cdjlmnst])(['’]) (?=\w))"
_MENDED = (
    ("\u00ad ?|[\u200b\ufeff]", ""),  # a line's end inside a word; what has no width
    (r"\.{3,}(?: \.{3,})*", "..."),
    (r"(?<=[^\s.]) (?=[.,)\]](?!\d))|(?<=\d) (?=[.,]\d)", ""),
    (r"(?<=\w)\( ", " ("),
    (r"(?<=[(\[¿¡]) ", ""),
    (r"(?<=[\w.,;:…)%])(?=[¿¡])", " "),
    (r"(?<=[^\W\d_]{2}|.[%)])(,)(?=[^\W\d_(])", r"\1 "),
    (r"(?<=[^\W\d_]{3})(\.)(?=[A-ZÀ-Þ][a-zß-ÿ])", r"\1 "),
    (r"(?<=[^\W_])(?:/ | /)(?=[^\W_])", "/"),
    (r"(?<=\+)(?:/ | /)(?=\w)", " / "),  # a list of findings: "HBsAg + / HBeAg -"
    (r'(?<= )" ([^"]+) "', r'"\1"'),
)
_CLOSE = (r"(?<=\S) (?=[;:?!]+(?:[\s)»]|$))|(?<=«) | (?=»)", "")
_PERCENT = (r"(?<=\d) (?=%)", "")
_MENDED_IN = {
    "es": (_CLOSE,),  # which keeps a space before the percent sign, as French does
    "en": (_CLOSE, _PERCENT),
    "it": (_CLOSE, _PERCENT, (_ELISION, r"\1\2")),
    "fr": (
        (r"(?<=[^\s;:?!])(?=[;:?!](?:\s|$))|(?<=«)(?=\S)|(?<=[^\s])(?=»)", " "),
        (_ELISION, r"\1\2"),
    ),
}

Sentences = list[list[str]]
Place = tuple[str, int]
"""A split and a number in it, which parallel cases have in common."""


def read_original(folder: Path) -> Iterator[Row]:
    """Read the original release: `{EN,ES,FR,IT}/{train,dev,test}.tsv`, a token and its tag a line.

    Yields:
        One row a case, in the Hub's columns: `id` from 1 in the order of the file, `text` and `labels`
        as lists of sentences, which are lists of tokens and of their tags.

    Raises:
        MissingError: a file is not there or cannot be read.
        UsageError: a line is malformed; the message begins "FILE:LINE:".
    """
    for language, name in _FOLDERS.items():
        for split, file in _FILES.items():
            for number, case in enumerate(_cases(folder / name / file), start=1):
                text = [[token for token, _ in sentence] for sentence in case]
                labels = [[tag for _, tag in sentence] for sentence in case]
                values = {"id": number, "text": text, "labels": labels}
                yield Row(values, split, language, language, number)


def _cases(path: Path) -> Iterator[list[list[tuple[str, str]]]]:
    """The cases of a file, each as sentences of tokens with their tags."""
    case: list[list[tuple[str, str]]] = []
    for line, sentence in _sentences(path):
        begins = [token for token, _ in sentence[:2]] == ["QUESTION", "TYPE:"]
        if not begins and not case:
            raise UsageError(f"{path}:{line}: the file does not begin with a case", hint=_AGAIN)
        if begins and case:
            yield case
            case = []
        case.append(sentence)
    if case:
        yield case


def _sentences(path: Path) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The sentences of a file, each with the number of its first line."""
    sentence: list[tuple[str, str]] = []
    first = 1
    # Split before decoding, so that the number of a line that is not UTF-8 is known.
    for number, raw in enumerate(_content(path).split(b"\n"), start=1):
        try:
            parts = re.split(r"[ \t]+", raw.decode("utf-8").strip(" \t\r"))
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}:{number}: not UTF-8", hint=_AGAIN) from error
        if parts == [""]:
            if sentence:
                yield first, sentence
            sentence, first = [], number + 1
        # Judgements of quality and notes of corrections may follow the tag.
        elif len(parts) > 1 and _TAG.fullmatch(parts[1]):
            sentence.append((parts[0], parts[1]))
        else:
            raise UsageError(f"{path}:{number}: not a token and its tag", hint=_AGAIN)
    if sentence:
        yield first, sentence


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise MissingError(f"there is no {path}", hint="give the folder of the release")
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Case:
    """A case taken apart."""

    split: str
    language: str
    number: int
    kind: str
    """The question type."""
    stem: str
    options: tuple[str, ...]
    """Without those that are the word nan."""
    gold: int
    """Index into `options`; -1 = none of them has the number that the marker gives."""
    explanation: str
    reason: str = ""
    """Why it cannot be asked; "" = it can."""

    @property
    def id(self) -> str:
        return f"{self.split}-{self.number}"

    @property
    def place(self) -> Place:
        """What its parallel cases have in common."""
        return self.split, self.number


def read_items(dataset: str, rows: Iterable[Row]) -> Iterator[Item | Excluded]:
    """Make items of cases; see the module for what is kept of one.

    Parallel cases share their id, their group and their subject, which is as the reference language
    has it. A case that has another gold or number of options than its reference is left out.

    Args:
        dataset: the set's id.
        rows: with the column `text`, as a list of sentences or as a text that spells such a list.

    Raises:
        UsageError: a row has other columns, or its text is no list of sentences.
    """
    cases = [_take_apart(dataset, row) for row in rows]
    reference: dict[Place, _Case] = {}
    for language in _FOLDERS:
        for case in cases:
            if case.language == language and not case.reason:
                reference.setdefault(case.place, case)
    groups = _groups(reference)
    doubtful = disputed(
        {place: (groups[place], case.options, case.gold) for place, case in reference.items()}
    )
    for case in cases:
        place = case.place
        if reason := case.reason or _disagreement(case, reference[place]):
            yield Excluded(case.id, case.split, case.language, reason)
        else:
            group, subject = f"{dataset}/case-{groups[place]}", reference[place].kind.lower()
            yield _item(dataset, case, group, subject, is_disputed=place in doubtful)


def _groups(reference: Mapping[Place, _Case]) -> dict[Place, str]:
    """The id of the first case that tells what a case tells."""
    places = sorted(reference)
    firsts = same_cases([reference[place].stem for place in places])
    return {place: reference[places[first]].id for place, first in zip(places, firsts, strict=True)}


def _disagreement(case: _Case, reference: _Case) -> str:
    """Why a case is not the parallel of its reference; "" = it may be."""
    same = (case.gold, len(case.options)) == (reference.gold, len(reference.options))
    return "" if same else UNREADABLE


def _item(dataset: str, case: _Case, group: str, subject: str, *, is_disputed: bool) -> Item:
    """The item of a case, with what it shares with its parallels."""
    flags = ["vignette"]
    if is_disputed:
        flags.append("gold_disputed")
    if len(set(case.options)) < len(case.options):
        flags.append("duplicate_options")
    return Item(
        id=case.id,
        dataset=dataset,
        split=case.split,
        language=case.language,
        stem=case.stem,
        options=case.options,
        gold=case.gold,
        subject=subject,
        group=group,
        rationale=case.explanation,
        flags=tuple(flags),
    )


def _take_apart(dataset: str, row: Row) -> _Case:
    language = row.language
    case = _CASE.fullmatch(_text(f"{dataset}, {language}, {row.split}, case {row.number}", row))
    question, numbered = _split_options(case["body"]) if case else ("", {})
    # The release spells a missing option nan; the numbers of the others stay.
    kept = {n: readable(option, language) for n, option in numbered.items() if not _is_nan(option)}
    taken = _Case(
        split=row.split,
        language=language,
        number=row.number,
        kind=readable(case["kind"], language) if case else "",
        stem=readable(question, language),
        options=tuple(kept.values()),
        gold=list(kept).index(case["key"]) if case and case["key"] in kept else -1,
        explanation=readable(case["explanation"], language) if case else "",
    )
    return replace(taken, reason=_reason(taken, is_whole=bool(numbered and taken.kind)))


def _reason(case: _Case, *, is_whole: bool) -> str:
    """Why a case cannot be asked; "" = it can."""
    if not is_whole:
        return UNREADABLE
    if not case.stem:
        return EMPTY_STEM
    if len(case.options) < 2:
        return TOO_FEW_OPTIONS
    if not all(case.options):
        return EMPTY_OPTION
    if case.gold < 0:
        return NO_GOLD
    return GOLD_TWICE if case.options.count(case.options[case.gold]) > 1 else ""


def _text(where: str, row: Row) -> str:
    """The sentences of a row, one a line."""
    sentences = _sentences_of(where, row)
    lines = (" ".join(" ".join(tokens).split()) for tokens in sentences)
    text = "\n".join(line for line in lines if line)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"{where}: text holds half a character (a lone surrogate)", hint=_AGAIN)
    return text


def _sentences_of(where: str, row: Row) -> Sentences:
    if "text" not in row.values:
        found = ", ".join(map(str, row.values)) or "none"
        raise UsageError(
            f"{where}: column 'text' is missing",
            hint=f"the columns must be id, text and labels; there are {found}",
        )
    text: Any = row.values["text"]
    if isinstance(text, str):
        text = _spelled(where, text)
    sound = isinstance(text, list) and all(
        isinstance(sentence, list) and all(isinstance(token, str) for token in sentence)
        for sentence in text
    )
    if not sound:
        raise UsageError(f"{where}: text must be sentences, each a list of tokens", hint=_AGAIN)
    sentences: Sentences = text
    return sentences


def _spelled(where: str, text: str) -> object:
    """What a text spells that holds a Python list, as in the Hub's columns."""
    try:
        with warnings.catch_warnings():
            # Python warns of what it cannot make sense of in a text that is no list.
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise UsageError(f"{where}: text spells no list of sentences", hint=_AGAIN) from error


def _split_options(body: str) -> tuple[str, dict[str, str]]:
    """The text before the last line that begins with `1-`, and the options from there on.

    A line without the next number goes on with the option before it. No options where the numbers do
    not follow one another.
    """
    lines = [line for line in body.strip().split("\n") if line]
    starts = [at for at, line in enumerate(lines) if re.match(_NUMBER.format(1), line)]
    if not starts:
        return "", {}
    options: dict[str, str] = {}
    for line in _with_every_number("\n".join(lines[starts[-1] :])).split("\n"):
        numbered = re.match(_NUMBER.format("([1-9])"), line)
        if numbered is None:
            options[str(len(options))] += f" {line}"
        elif numbered[1] == str(len(options) + 1):
            options[numbered[1]] = line[numbered.end() :]
        else:
            return "", {}
    return " ".join(lines[: starts[-1]]), options


def _with_every_number(options: str) -> str:
    """Give back to an option the line break or the hyphen that it lost, where one place only fits."""
    for number, lost in product("2345", (" {} ?- ", "(?m:^{} )")):
        is_there = re.search(f"(?m:^{_NUMBER.format(number)})", options)
        if not is_there and len(re.findall(lost.format(number), options)) == 1:
            options = re.sub(lost.format(number), f"\n{number}- ", options).replace("\n\n", "\n")
    return options


def _is_nan(option: str) -> bool:
    return option.strip(" .").casefold() == "nan"


def readable(text: str, language: str) -> str:
    """One paragraph without the faults of spacing that can be told from meant spaces."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    text = text.replace("ﬁ", "fi").replace("ﬂ", "fl")
    for pattern, mended in (*_MENDED, *_MENDED_IN.get(language, ())):
        text = re.sub(pattern, mended, text)
    return text.strip()
