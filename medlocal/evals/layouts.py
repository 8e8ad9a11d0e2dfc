"""Layouts: prompts drawn from a grammar of headers, label wrappers, spacing and separators.

The same question can be laid out in thousands of ways that mean the same, and a model may answer
worse in some of them. A layout is one of those ways, drawn by its number. It adds the headers' words
and nothing else: its system text is the one of the prompt `plain`, and what is asked for stays the
instruction's business.

A number makes the same draws in every language, so that layouts are paired between languages; the
draws are hashes, so that they are the same on every machine and with every version of Python. This
module knows nothing of variants, formats or models.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TypeVar

from medlocal.errors import UsageError, unknown_name
from medlocal.evals.prompts import Prompt
from medlocal.evals.variant import derive_seed

_T = TypeVar("_T")

LAYOUT_VERSION = 1
"""Rises whenever a table below changes, since that changes what some numbers draw."""
MAX_LAYOUT = 2**31 - 1
"""The highest number of a layout; 0 is the lowest."""

SYSTEM: Mapping[str, str] = {
    "en": "You answer multiple-choice questions about medicine. Only one of the options is correct.",
    "es": "Respondes a preguntas de medicina de opción múltiple. Solo una de las opciones es correcta.",
}
"""The words of the written prompt `plain`: a layout differs from it in layout alone."""

_WRAPPERS = ("{label}.", "{label})", "({label})", "[{label}]", "{label}:", "{label} -", "<{label}>")
"""How a label is written."""

_GAPS = (" ", "  ", "\t")
"""Between a label and its option."""

_SEPARATORS = ("\n", "\n\n", " | ", "; ", "\t")
"""Between two options."""

_BLOCKS = ("\n", "\n\n", "\n\n\n", "\n\n---\n\n")
"""Between the passage, the question, the options and the instruction."""

_SPACINGS = tuple(
    (separator, block)
    for separator, block in product(_SEPARATORS, _BLOCKS)
    if separator.count("\n") <= block.count("\n")
)
"""A separator with a block. The last option never stands closer to the instruction than to the
option before it, which would set it apart from the others."""

_PLACES = ("last", "last", "last", "first")
"""Of the instruction. Mostly last: so people write, and formats share what stands before it."""

_HEADED: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"passage", "question"}),
    frozenset({"passage", "question", "options"}),
    frozenset({"passage", "question", "options", "instruction"}),
)
"""The parts that have a header."""

_FRAMES = ("{word}: ", "{word}:\n", "{word}\n", "### {word}\n", "**{word}**\n", "[{word}]\n")
"""How a header is written, up to where its part begins."""

_PARTS = ("passage", "question", "options", "instruction")

_WORDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("Passage", "Question", "Options", "Instructions"),
        ("PASSAGE", "QUESTION", "OPTIONS", "INSTRUCTIONS"),
        ("passage", "question", "options", "instructions"),
        ("Context", "Q", "Choices", "Task"),
    ),
    "es": (
        ("Texto", "Pregunta", "Opciones", "Instrucciones"),
        ("TEXTO", "PREGUNTA", "OPCIONES", "INSTRUCCIONES"),
        ("texto", "pregunta", "opciones", "instrucciones"),
        ("Contexto", "P", "Alternativas", "Tarea"),
    ),
}
"""The headers' words and their case, in the order of `_PARTS`; every row means the same in every
language."""

_NAME = re.compile(r"layout\((0|[1-9][0-9]*)\)")


def layout(number: int, language: str) -> Prompt:
    """The prompt of a number.

    Args:
        number: from 0 to `MAX_LAYOUT`.
        language: "en" or "es"; only words differ between the two.

    Raises:
        UsageError: there is no such number, or layouts don't speak the language.
    """
    if not 0 <= number <= MAX_LAYOUT:
        raise _no_layout(f"there is no layout {number}")
    if language not in _WORDS:
        raise unknown_name("language of a layout", language, _WORDS)

    separator, block = _draw(number, "spacing", _SPACINGS)
    headers = _headers(number, language, separator)
    parts = ["{question}", headers["options"] + "{options}"]
    instruction = headers["instruction"] + "{instruction}"
    is_last = _draw(number, "place", _PLACES) == "last"
    return Prompt(
        language=language,
        style=f"layout({number})",
        version=LAYOUT_VERSION,
        system=SYSTEM[language],
        question=headers["question"] + "{stem}",
        with_context=headers["passage"] + "{context}" + block + "{question}",
        option=_draw(number, "wrapper", _WRAPPERS) + _draw(number, "gap", _GAPS) + "{text}",
        separator=separator,
        user=block.join([*parts, instruction] if is_last else [instruction, *parts]),
    )


def _headers(number: int, language: str, separator: str) -> dict[str, str]:
    """What stands before each part; "" = nothing does."""
    headed, frame = _draw(number, "headed", _HEADED), _draw(number, "frame", _FRAMES)
    words = zip(_PARTS, _draw(number, "words", _WORDS[language]), strict=True)
    headers = {part: frame.format(word=word) if part in headed else "" for part, word in words}
    if "\n" in separator and headers["options"]:
        # Options that stand one below the other begin on a line of their own.
        headers["options"] = headers["options"].rstrip() + "\n"
    return headers


def _draw(number: int, what: str, choices: Sequence[_T]) -> _T:
    return choices[derive_seed("layout", str(number), what) % len(choices)]


def num_layouts() -> int:
    """How many different layouts the grammar spans; among more numbers than that, some share one.

    Every choice shows in the prompt, except that without headers their frame and words do not.
    """
    free = (_WRAPPERS, _GAPS, _SPACINGS, set(_PLACES))
    num_headers = 1 + (len(_HEADED) - 1) * len(_FRAMES) * len(_WORDS["en"])
    return math.prod(map(len, free)) * num_headers


def is_layout(style: str) -> bool:
    """Whether the name of a style means a layout, be it well formed or not: see `parse_layout`."""
    return style.startswith("layout")


def parse_layout(style: str) -> int:
    """The number in the name of a layout, such as 7 in "layout(7)". Every layout has one spelling.

    Raises:
        UsageError: the name is malformed, or there is no such number.
    """
    found = _NAME.fullmatch(style)
    # Digits are counted before they are read: Python refuses to read thousands of them.
    if found is None or len(found[1]) > len(str(MAX_LAYOUT)) or int(found[1]) > MAX_LAYOUT:
        raise _no_layout(f"no layout is called {style!r}")
    return int(found[1])


def _no_layout(message: str) -> UsageError:
    return UsageError(message, hint=f"write layout(N), with N from 0 to {MAX_LAYOUT}")
