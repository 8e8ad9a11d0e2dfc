"""The words around a name that agree with it: articles, conjunctions, and an adjective behind it.

When one name takes another's place, English "a" may become "an", and in Spanish "la" may become "el",
"e" may become "y", and "intravenosa" may become "intravenoso". Only what touches the name is changed.
This module knows nothing of drugs.
"""

import re
from typing import Literal

Gender = Literal["m", "f"]

_ARTICLES = {
    ("es", "m"): (
        (re.compile(r"\bde la\s+$", re.IGNORECASE), "del "),
        (re.compile(r"\ba la\s+$", re.IGNORECASE), "al "),
        (re.compile(r"\bla\s+$", re.IGNORECASE), "el "),
        (re.compile(r"\buna\s+$", re.IGNORECASE), "un "),
    ),
    ("es", "f"): (
        (re.compile(r"\bdel\s+$", re.IGNORECASE), "de la "),
        (re.compile(r"\bal\s+$", re.IGNORECASE), "a la "),
        (re.compile(r"\bel\s+$", re.IGNORECASE), "la "),
        (re.compile(r"\bun\s+$", re.IGNORECASE), "una "),
    ),
    ("en", "vowel"): ((re.compile(r"\ba\s+$", re.IGNORECASE), "an "),),
    ("en", "consonant"): ((re.compile(r"\ban\s+$", re.IGNORECASE), "a "),),
}
_CONJUNCTION = re.compile(r"(?<!\w)([yeou])(\s+)$", re.IGNORECASE)
_CLOSE_VOWEL = re.compile(r"h?[ií](?!e)", re.IGNORECASE)
_OPEN_VOWEL = re.compile(r"h?[oó]", re.IGNORECASE)
_ADJECTIVE = re.compile(
    r"(\s+(?:(?:no )?(?:es|está|estaba|estaría|fue|ha sido|será|debe ser) )?(?:muy |más )?"
    r"(?:administrad|asociad|combinad|continu|contraindicad|crónic|diari|elevad|empíric|endovenos"
    r"|indicad|inhalad|intravenos|inyectad|liposomad|mantenid|micronizad|nebulizad|pautad|pegilad"
    r"|prescrit|previ|profiláctic|sistémic|subcutáne|suspendid|tópic|transdérmic|únic))([oa])(?![\w])",
    re.IGNORECASE,
)
"""What stands between a name and the vowel of an adjective that agrees with it."""


def gender(name: str) -> Gender:
    """The gender of a substance's name in Spanish, which is that of its first word."""
    return "f" if name.split()[0].casefold().endswith("a") else "m"


def agreeing_before(before: str, name: str, language: str, kind: Gender) -> str:
    """The text before a name, its last article or conjunction agreeing with it.

    Args:
        before: the text up to the name.
        name: what comes next.
        language: "en" or "es".
        kind: gender of the name; of no meaning in English.
    """
    form: str = kind
    if language == "en":
        form = "vowel" if name[0].casefold() in "aeio" else "consonant"
    for pattern, article in _ARTICLES[language, form]:
        if found := pattern.search(before):
            word = article.capitalize() if found[0][0].isupper() else article
            return before[: found.start()] + word
    found = _CONJUNCTION.search(before) if language == "es" else None
    if found is None:
        return before
    word = _conjunction(found[1].casefold(), name)
    return before[: found.start()] + (word.upper() if found[1].isupper() else word) + found[2]


def _conjunction(word: str, name: str) -> str:
    """The conjunction in its form before the sound that follows: y or e, o or u."""
    if word in {"y", "e"}:
        return "e" if _CLOSE_VOWEL.match(name) else "y"
    return "u" if _OPEN_VOWEL.match(name) else "o"


def agreeing_behind(text: str, end: int, language: str, kind: Gender) -> tuple[str, int]:
    """The adjective behind a name in the name's gender.

    Args:
        text: in which the name, or the one that it replaces, ends.
        end: where it ends.
        language: "en" or "es".
        kind: gender of the name.

    Returns:
        What stands there instead, and where the rest of the text begins; ("", end) = no adjective.
    """
    found = _ADJECTIVE.match(text, end) if language == "es" else None
    if found is None:
        return "", end
    vowel = "a" if kind == "f" else "o"
    return found[1] + (vowel.upper() if found[2].isupper() else vowel), found.end()
