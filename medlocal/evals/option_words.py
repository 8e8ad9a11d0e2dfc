"""Where a plain text has the options' own words.

Words are compared without case, accents and signs, and an option's words count as a whole or not at
all. Of all options only none-of-the-others may also be said in other words: nobody repeats it exactly.
This module knows nothing of labels, and not which of the words are the answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from medlocal.evals.phrases import NOTA, NOTA_ALONE
from medlocal.evals.plain import plain

_EDGES = " \t\n.,;:!?()[]{}\"'-—–<>"


@dataclass(frozen=True, slots=True)
class Wording:
    """A place where a text has an option's words."""

    start: int
    end: int
    slot: int
    is_nota: bool = False
    """They say that none of the others is right."""


def find_wordings(text: str, options: tuple[str, ...]) -> list[Wording]:
    """Where options' words stand, in the order of the text; never one inside another.

    Args:
        text: plain; see `plain`.
        options: as shown. Where two of them have the same words, the words name neither.
    """
    tokens = _tokens(text)
    nota = _nota_slot(options)
    wanted = [tuple(token for token, _, _ in _tokens(plain(option))) for option in options]
    if len(set(wanted)) < len(wanted):
        wanted = [words if wanted.count(words) == 1 else () for words in wanted]
    found = [
        Wording(tokens[at][1], tokens[at + len(words) - 1][2], slot, slot == nota)
        for slot, words in enumerate(wanted)
        for at in range(len(tokens) - len(words) + 1)
        if words and tuple(token for token, _, _ in tokens[at : at + len(words)]) == words
    ]
    if nota is not None:
        found += (Wording(start, end, nota, True) for start, end in _none_of_them(text))
    return _apart(found, [start for _, start, _ in tokens])


def _nota_slot(options: tuple[str, ...]) -> int | None:
    """The slot of the one option that says that none of the others is right."""
    slots = [
        slot for slot, option in enumerate(options) if NOTA.fullmatch(plain(option).strip(_EDGES))
    ]
    return slots[0] if len(slots) == 1 else None


def _none_of_them(text: str) -> Iterator[tuple[int, int]]:
    for found in NOTA.finditer(text):
        yield found.span()
    core = text.strip(_EDGES)
    if core.casefold() in NOTA_ALONE:
        yield text.index(core), text.index(core) + len(core)


def _apart(found: list[Wording], starts: list[int]) -> list[Wording]:
    """The wordings with most words, without those that overlap with one of them."""

    def num_words(wording: Wording) -> int:
        return sum(wording.start <= start < wording.end for start in starts)

    kept: list[Wording] = []
    for wording in sorted(found, key=lambda wording: -num_words(wording)):
        if not any(k.start < wording.end and wording.start < k.end for k in kept):
            kept.append(wording)
    return sorted(kept, key=lambda wording: wording.start)


def _tokens(text: str) -> list[tuple[str, int, int]]:
    """Case-folded words, numbers and the signs that change a meaning, with their places."""
    pattern = r"\d+(?:[.,]\d+)*|[^\W\d_]+|[<>≤≥=+%±/°]"
    return [
        (found[0].casefold().replace(",", "."), found.start(), found.end())
        for found in re.finditer(pattern, text)
    ]
