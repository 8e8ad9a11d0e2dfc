"""Brand names for generic names of drugs, and generic names for brands.

Whole words only, in the case of what they replace. A name is left alone where it is what is asked
for: an option that is nothing but the name, every name where the stem asks for a drug's name, and a
name that is followed by its salt, which no brand has. So is a generic name beside the name of a route
that no brand is known to be sold for: "intravenous" before a brand of tablets would make an answer
that cannot be right. The drugs themselves stand in `wordlists`, the words of routes in `routes`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from medlocal.evals.agreement import agreeing_before, agreeing_behind, gender
from medlocal.evals.routes import may_be_given, named_routes
from medlocal.evals.stems import sentences_of
from medlocal.evals.variant import Draw
from medlocal.evals.wordlists import DrugTerm, drug_terms

_ASKS_FOR_NAME = re.compile(
    r"\b(?:(?:generic|brand|trade|proprietary|chemical|commercial) names?"
    r"|nombres? (?:comercial|genérico|químico)(?:e?s)?|marcas? comercial(?:es)?|principios? activos?"
    r"|denominación común)\b",
    re.IGNORECASE,
)
_SALT = re.compile(
    r"\s+(?:sodium|potassium|calcium|magnesium|sul(?:f|ph)ate|hydrochloride|hydrobromide|phosphate"
    r"|tartrate|succinate|maleate|fumarate|bes[yi]late|mes[yi]late|acetate|citrate|bromide|lactate"
    r"|gluconate|nitrate|(?:di)?propionate|valerate|furoate|decanoate|palmitate|pamoate|acetonide"
    r"|axetil|disoproxil|medoxomil|etexilate|xinafoate)\b"
    r"|\s+(?:sódic[oa]|disódic[oa]|potásic[oa]|cálcic[oa]|magnésic[oa]|axetil[oa]?|disoproxilo"
    r"|medoxomilo|etexilato)\b",
    re.IGNORECASE,
)
_PREFIXED_SALT = re.compile(
    r"\b(?:(?:hemi|di)?sulfato|clorhidrato|hidrocloruro|bromhidrato|fosfato|tartrato|succinato|maleato"
    r"|fumarato|besilato|mesilato|acetato|citrato|bromuro|lactato|gluconato|(?:di|mono)?nitrato"
    r"|(?:di)?propionato|valerato|furoato|decanoato|palmitato|pamoato|acetónido|xinafoato)\s+de\s+$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a name stands that may be exchanged."""

    start: int
    end: int
    term: DrugTerm


def rename_drugs(
    stem: str, options: Sequence[str], language: str, draw: Draw
) -> tuple[str, tuple[str, ...]]:
    """The stem and the options with every drug under its other name.

    A drug keeps one new name throughout: of its brands that are sold for all routes that stand beside
    its name, one is drawn. Where there is none it keeps its generic name.

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
    names = {term.text.casefold() for term in drug_terms(language)}
    texts = [stem, *options]
    places = [
        [] if number and text.strip(" .").casefold() in names else list(_places(text, language))
        for number, text in enumerate(texts)
    ]
    chosen = _chosen(texts, places, language, draw)
    renamed = [
        _renamed(text, found, language, chosen) for text, found in zip(texts, places, strict=True)
    ]
    return renamed[0], tuple(renamed[1:])


def _places(text: str, language: str) -> Iterator[_Place]:
    terms = _terms(language)
    explained = [found.span() for found in _explained(language).finditer(text)]
    for found in _pattern(language).finditer(text):
        if _SALT.match(text, found.end()) or _PREFIXED_SALT.search(text[: found.start()]):
            continue
        if any(start <= found.start() < end for start, end in explained):
            continue
        yield _Place(*found.span(), terms[found[0].casefold()])


def _chosen(
    texts: Sequence[str], places: Sequence[Sequence[_Place]], language: str, draw: Draw
) -> dict[tuple[str, bool], str]:
    """The new name per drug and kind of its old one; a drug without an entry keeps its name."""
    named: dict[tuple[str, bool], set[str]] = {}
    terms: dict[tuple[str, bool], DrugTerm] = {}
    asked = _routes_asked(texts[0])
    for number, (text, found) in enumerate(zip(texts, places, strict=True)):
        for place in found:
            key = _key(place.term, language)
            terms[key] = place.term
            routes = _routes_beside(text, place) if number == 0 else named_routes(text) or asked
            named.setdefault(key, set()).update(routes)
    chosen = {}
    for key, term in terms.items():
        if term.is_brand:
            # The first generic name is the usual one; of brands any may be meant.
            chosen[key] = term.drug.generic[language][0]
            continue
        brands = [
            brand
            for brand in term.drug.brand[language]
            if may_be_given(term.drug.routes.get(brand, ()), named[key])
        ]
        if brands:
            chosen[key] = draw.pick(brands)
    return chosen


def _key(term: DrugTerm, language: str) -> tuple[str, bool]:
    return term.drug.generic[language][0], term.is_brand


def _routes_beside(text: str, place: _Place) -> frozenset[str]:
    """The routes that the sentence around a name speaks of."""
    for start, end in sentences_of(text):
        if start <= place.start < end:
            return named_routes(text[start:end])
    return frozenset()


def _routes_asked(stem: str) -> frozenset[str]:
    """The routes that the last sentence asks about: "which intravenous drug"."""
    start, end = list(sentences_of(stem))[-1]
    return named_routes(stem[start:end])


def _renamed(
    text: str, places: Sequence[_Place], language: str, chosen: dict[tuple[str, bool], str]
) -> str:
    done, at = "", 0
    for place in places:
        new = chosen.get(_key(place.term, language))
        if new is None:
            continue
        before = done + text[at : place.start]
        name = _cased(new, text[place.start : place.end], place.term, before)
        kind = gender(name)
        if not place.term.is_brand and kind == "f":
            # A brand in -a is said in either gender: it takes that of the name that it replaces.
            kind = gender(place.term.text)
        done = agreeing_before(before, name, language, kind) + name
        adjective, at = agreeing_behind(text, place.end, language, kind)
        done += adjective
    return done + text[at:]


def _cased(name: str, replaced: str, term: DrugTerm, before: str) -> str:
    """A name in the case of the one that it replaces; a brand always has its capital."""
    if replaced.isupper() and replaced != term.text and len(replaced) > 3:
        return name.upper()
    # A brand has its capital anywhere: only its place tells whether a generic name needs one there.
    begins = not before.strip() or re.search(r"[.?!:]\s+$|[¿¡(]\s*$|\n$", before) is not None
    return name[:1].upper() + name[1:] if begins and term.is_brand else name


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
