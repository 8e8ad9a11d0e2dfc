"""What the answers of a file mean: letters, numbers from 0, numbers from 1, or the option's own words.

One answer can often be read in several ways: "2" is the third option counted from 0, the second
counted from 1, and perhaps an option that says 2. The whole file decides: a meaning holds only if
every answer can be read by it. Where more than one is left and they differ, the user is asked. This
module sees answers and options, never files or columns.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

from medlocal.errors import UsageError
from medlocal.evals.items import LETTERS

LETTER, ZERO_BASED, ONE_BASED, TEXT = "letter", "zero-based", "one-based", "text"
MEANINGS = (LETTER, ZERO_BASED, ONE_BASED, TEXT)

_SAID = {
    LETTER: "letters",
    ZERO_BASED: "numbers counted from 0",
    ONE_BASED: "numbers counted from 1",
    TEXT: "the options' own words",
}
_LETTER = re.compile(r"[(\[]?\s*([A-Ja-j])\s*[)\].:]?")
LABELLED = re.compile(r"[(\[]?([A-Ja-j])[)\].:]+\s*(\S.*)", re.DOTALL)
"""A letter and, behind it, the words of its option."""
_NUMBER = re.compile(r"([0-9]{1,2})(?:\.0+)?")
_ONE = r"[(\[]?(?:[A-Ja-j]|[0-9]{1,2})[)\].]?"
_BETWEEN = r"(?:\s*[,;/+&|]\s*|\s+(?:y|e|o|u|and|or|et|ou)\s+|\s+)"
_SEVERAL = re.compile(rf"{_ONE}(?:{_BETWEEN}{_ONE})+", re.IGNORECASE)
_CAPITALS = re.compile(rf"[{LETTERS}]{{2,}}")


def spelled(text: str) -> str:
    """A text as two options are compared: composed, without extra spaces. tt is not TT."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def normalised(text: str) -> str:
    """A text as an answer is compared with an option where it need not have its capitals."""
    return spelled(text).casefold()


def readings(answer: str, options: Sequence[str]) -> dict[str, int]:
    """Every way to read an answer, with the index of the option that it then is; {} = there is none."""
    found: dict[str, int] = {}
    if (slot := _slot_of_letter(answer, options)) is not None:
        found[LETTER] = slot
    if match := _NUMBER.fullmatch(answer):
        number = int(match[1])
        if number < len(options):
            found[ZERO_BASED] = number
        if 1 <= number <= len(options):
            found[ONE_BASED] = number - 1
    same = same_words(answer, options)
    if len(same) == 1:
        found[TEXT] = same[0]
    return found


def same_words(answer: str, options: Sequence[str]) -> list[int]:
    """The options that an answer is the words of; those with other capitals only if none has them."""
    for spelling in (spelled, normalised):
        wanted = spelling(answer)
        if same := [slot for slot, option in enumerate(options) if spelling(option) == wanted]:
            return same
    return []


def names_several(answer: str, options: Sequence[str]) -> bool:
    """True where an answer that cannot be read as one option names more than one."""
    if _SEVERAL.fullmatch(answer) or _is_run_of_letters(answer, options):
        return True
    known = {normalised(option) for option in options}
    for separator in (";", "|", "\n", ","):
        parts = [normalised(part) for part in answer.split(separator) if part.strip()]
        if len(parts) > 1 and known.issuperset(parts):
            return True
    return False


def answer_texts(value: str) -> list[str]:
    """The answers in a cell: several only where it holds a list in the spelling of JSON."""
    if value.startswith("["):
        try:
            entries = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
        if isinstance(entries, list) and all(isinstance(entry, str | int) for entry in entries):
            return [str(entry).strip() for entry in entries]
    return [value]


@dataclass(slots=True)
class GoldSurvey:
    """What the answers seen so far leave possible."""

    possible: set[str] = field(default_factory=lambda: set(MEANINGS))
    num_answers: int = 0
    _refuted: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The first answer that cannot be read in a meaning."""
    _differing: dict[tuple[str, str], "_Difference"] = field(default_factory=dict)
    """The first answer by which two meanings differ."""

    def add(
        self, number: int, answer: str, found: Mapping[str, int], options: Sequence[str]
    ) -> None:
        """Take in the answer of row `number`, which has at least one reading."""
        self.num_answers += 1
        for meaning in self._left():
            if meaning in found:
                continue
            self._refuted[meaning] = (number, answer)
            self.possible.discard(meaning)
        for one, other in combinations(self._left(), 2):
            if found[one] != found[other] and (one, other) not in self._differing:
                self._differing[one, other] = _Difference(
                    number, answer, options[found[one]], options[found[other]]
                )

    def meaning(self, where: str) -> str:
        """The one meaning of all answers.

        Args:
            where: the file, for messages.

        Raises:
            UsageError: no meaning holds for all answers, or more than one does and it matters.
        """
        left = self._left()
        if not left:
            raise self._conflict(where)
        for pair in combinations(left, 2):
            if difference := self._differing.get(pair):
                raise difference.error(where, pair, left)
        return left[0]

    def _left(self) -> list[str]:
        return [meaning for meaning in MEANINGS if meaning in self.possible]

    def _conflict(self, where: str) -> UsageError:
        # Oldest first, and of those only what is a surprise: the last two to go.
        refuted = sorted(self._refuted.items(), key=lambda entry: entry[1][0])[-2:]
        reasons = "; ".join(
            f"row {number} says {answer!r}, so they are not {_SAID[meaning]}"
            for meaning, (number, answer) in refuted
        )
        return UsageError(
            f"{where}: the answers cannot all be read in one way: {reasons}",
            hint="mend the file, or say what holds, by which the other rows are bad: "
            f"--gold {'|'.join(MEANINGS)}",
        )


@dataclass(frozen=True, slots=True)
class _Difference:
    """An answer that is one option in one meaning and another one in another."""

    number: int
    answer: str
    first: str
    second: str

    def error(self, where: str, pair: tuple[str, str], left: Sequence[str]) -> UsageError:
        one, other = pair
        return UsageError(
            f"{where}: the answers can be read in more than one way: in row {self.number},"
            f" {self.answer!r} is {self.first[:60]!r} if they are {_SAID[one]}"
            f" and {self.second[:60]!r} if they are {_SAID[other]}",
            hint=f"say which: --gold {'|'.join(left)}",
        )


def _slot_of_letter(answer: str, options: Sequence[str]) -> int | None:
    match = _LETTER.fullmatch(answer) or LABELLED.fullmatch(answer)
    if match is None:
        return None
    slot = LETTERS.index(match[1].upper())
    if slot >= len(options):
        return None
    words = match[2] if match.re is LABELLED else ""
    return slot if not words or normalised(words) == normalised(options[slot]) else None


def _is_run_of_letters(answer: str, options: Sequence[str]) -> bool:
    """True for "AC" where there are three options or more."""
    if not _CAPITALS.fullmatch(answer):
        return False
    in_order = all(one < other for one, other in pairwise(answer))
    return in_order and LETTERS.index(answer[-1]) < len(options)
