"""Brand names for generic names of drugs, and generic names for brands.

Whole words only, in the case of what they replace. A name is left alone where it is what is asked
for: an option that is nothing but the name, every name where the stem asks for a drug's name, and a
name that is followed by its salt, which no brand has. The drugs themselves stand in `wordlists`.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from medlocal.evals.variant import Draw
from medlocal.evals.wordlists import DrugTerm, drug_terms

_ASKS_FOR_NAME = re.compile(
    r"\b(?:(?:generic|brand|trade|proprietary|chemical|commercial) names?"
    r"|nombres? (?:comercial|genérico|químico)(?:e?s)?|marcas? comercial(?:es)?|principios? activos?"
    r"|denominación común)\b",
    re.IGNORECASE,
)
_SALT = re.compile(
    r"\s+(?:sodium|potassium|calcium|sul(?:f|ph)ate|hydrochloride|phosphate|tartrate|succinate"
    r"|maleate|fumarate|besylate|mesylate|acetate|citrate|bromide|lactate)\b"
    r"|\s+(?:sódic[oa]|potásic[oa]|cálcic[oa])\b",
    re.IGNORECASE,
)
_PREFIXED_SALT = re.compile(
    r"\b(?:sulfato|clorhidrato|hidrocloruro|fosfato|tartrato|succinato|maleato|acetato|citrato"
    r"|bromuro|lactato)\s+de\s+$",
    re.IGNORECASE,
)
_ARTICLES = {
    # A brand is masculine in Spanish, and so are most generic names that do not end in "a".
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


def rename_drugs(
    stem: str, options: Sequence[str], language: str, draw: Draw
) -> tuple[str, tuple[str, ...]]:
    """The stem and the options with every drug under its other name.

    A drug keeps one new name throughout; of several brands one is drawn.

    Args:
        stem: of the question.
        options: as shown. One that is a drug's name and nothing else stays as it is.
        language: of the texts, "en" or "es"; it decides which brands are taken.
        draw: what chooses between brands.

    Returns:
        Both as they were where no drug with another name stands in them.
    """
    if _ASKS_FOR_NAME.search(stem):
        return stem, tuple(options)
    chosen: dict[tuple[str, bool], str] = {}

    def renamed(text: str) -> str:
        return _renamed(text, language, draw, chosen)

    names = {term.text.casefold() for term in drug_terms(language)}
    return renamed(stem), tuple(
        option if option.strip(" .").casefold() in names else renamed(option) for option in options
    )


def _renamed(text: str, language: str, draw: Draw, chosen: dict[tuple[str, bool], str]) -> str:
    terms = _terms(language)
    explained = [found.span() for found in _explained(language).finditer(text)]
    done, at = "", 0
    for found in _pattern(language).finditer(text):
        term = terms[found[0].casefold()]
        if _SALT.match(text, found.end()) or _PREFIXED_SALT.search(text[: found.start()]):
            continue
        if any(start <= found.start() < end for start, end in explained):
            continue
        others = term.drug.generic[language] if term.is_brand else term.drug.brand[language]
        if not others:
            continue
        key = (term.drug.generic[language][0], term.is_brand)
        # The first generic name is the usual one; of brands any may be meant.
        if key not in chosen:
            chosen[key] = others[0] if term.is_brand else draw.pick(others)
        before = done + text[at : found.start()]
        name = _cased(chosen[key], found[0], is_brand=not term.is_brand, before=before)
        done = _agreeing(before, name, language, is_brand=not term.is_brand) + name
        at = found.end()
    return done + text[at:]


def _cased(name: str, replaced: str, *, is_brand: bool, before: str) -> str:
    """A name in the case of the one that it replaces; a brand always has its capital."""
    if replaced.isupper() and len(replaced) > 3:
        return name.upper()
    # A brand has its capital anywhere: only its place tells whether a generic name needs one there.
    begins = not before.strip() or re.search(r"[.?!:]\s+$|[¿¡(]\s*$|\n$", before) is not None
    return name[:1].upper() + name[1:] if begins and not is_brand else name


def _agreeing(before: str, name: str, language: str, *, is_brand: bool) -> str:
    """The text before a name, its last article agreeing with it."""
    if language == "es":
        kind = "m" if is_brand or not name.casefold().endswith("a") else "f"
    else:
        kind = "vowel" if name[0].casefold() in "aeio" else "consonant"
    for pattern, article in _ARTICLES[language, kind]:
        if found := pattern.search(before):
            word = article.capitalize() if found[0][0].isupper() else article
            return before[: found.start()] + word
    return before


@lru_cache
def _terms(language: str) -> dict[str, DrugTerm]:
    return {term.text.casefold(): term for term in drug_terms(language)}


def _names(language: str) -> str:
    # The longest first, so that a name of two words is not taken for its first one.
    names: Iterable[str] = sorted(_terms(language), key=len, reverse=True)
    return "|".join(map(re.escape, names))


@lru_cache
def _pattern(language: str) -> re.Pattern[str]:
    """Whole names, which are no part of a combination or of another word."""
    return re.compile(rf"(?<![\w/-])(?:{_names(language)})(?![\w/-])", re.IGNORECASE)


@lru_cache
def _explained(language: str) -> re.Pattern[str]:
    """A name with another one in brackets: swapped, it would explain itself."""
    names = _names(language)
    return re.compile(rf"(?<!\w)(?:{names})\s*\((?:{names})\)", re.IGNORECASE)
