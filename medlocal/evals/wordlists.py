"""The word lists that perturbations draw from, and the places in a text that they must not touch.

The lists are data in `benchmarks/perturbations`: drugs by generic and brand name, irrelevant sentences,
keyboard neighbours. This module reads them and finds numbers, units, symbols, abbreviations and drug
names in a text. It does not know what a perturbation does with a name, a sentence or a letter, and it
knows nothing of items, variants or seeds. It sees spelling, not meaning: that "penicillin" in a text is
a class and not a drug it cannot tell.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from medlocal.catalog import data_root
from medlocal.errors import MissingError, UsageError, unknown_name
from medlocal.evals.routes import ROUTES

LANGUAGES = ("en", "es")
"""Those that the lists are written in."""


@dataclass(frozen=True, slots=True)
class Drug:
    """One active substance and what it is sold as. Not hashable: its names are mappings."""

    generic: Mapping[str, tuple[str, ...]]
    """By language; the first is the canonical name, the others are synonyms. Never empty."""
    brand: Mapping[str, tuple[str, ...]]
    """By language, in the United States (en) and in Spain (es), the best known first; () = none."""
    kind: str
    """Its class, in English."""
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By brand, what it is sold to be given by; a brand without an entry may be sold for any route."""


@dataclass(frozen=True, slots=True)
class DrugTerm:
    """One name of a drug in one language."""

    text: str
    """As it is written inside a sentence: generic names in lower case, brands with their capitals."""
    drug: Drug
    is_brand: bool


@lru_cache(maxsize=1)
def drugs() -> tuple[Drug, ...]:
    """All drugs, in the order of the file.

    Raises:
        MissingError: the file is not there.
        UsageError: it is not TOML, a key is unknown or missing, or a value has the wrong type.
    """
    path = _path("drugs.toml")
    return tuple(_drug(where, table) for where, table in _tables(path, "drug"))


@lru_cache(maxsize=2)
def drug_terms(language: str) -> tuple[DrugTerm, ...]:
    """Every name of every drug in a language, generic and brand, the longest first.

    In this order the first name that fits a place in a text is the most specific one: "insulin
    glargine" before "insulin".

    Raises:
        MissingError, UsageError: see `drugs`; the language is not one of `LANGUAGES`.
    """
    _check_language(language)
    terms = [
        DrugTerm(text, drug, is_brand)
        for drug in drugs()
        for is_brand, names in ((False, drug.generic), (True, drug.brand))
        for text in names[language]
    ]
    return tuple(sorted(terms, key=lambda term: (-len(term.text), term.text)))


@lru_cache(maxsize=2)
def sentences(language: str) -> tuple[str, ...]:
    """The irrelevant sentences; the same index is the same sentence in every language.

    Raises:
        MissingError, UsageError: see `drugs`; the language is not one of `LANGUAGES`.
    """
    _check_language(language)
    found = []
    for where, table in _tables(_path("sentences.toml"), "sentence"):
        _check_keys(where, table, LANGUAGES)
        found.append(_text(where, language, table[language]))
    return tuple(found)


@lru_cache(maxsize=2)
def neighbours(language: str) -> Mapping[str, tuple[str, ...]]:
    """The letters beside each lower-case letter on the language's keyboard.

    A letter without an entry, such as an accented vowel, is one that a typo leaves alone.

    Raises:
        MissingError, UsageError: see `drugs`; the language is not one of `LANGUAGES`.
    """
    _check_language(language)
    path = _path("keyboards.toml")
    keyboards = _read(path)
    _check_keys(str(path), keyboards, LANGUAGES)
    where, keyboard = f"{path}: [{language}]", keyboards[language]
    if not isinstance(keyboard, dict):
        raise UsageError(f"{where} must be a table", hint=f"write [{language}]")
    return MappingProxyType(
        {_letter(where, key, key): _letters(where, key, value) for key, value in keyboard.items()}
    )


def _letters(where: str, key: str, value: object) -> tuple[str, ...]:
    return tuple(_letter(where, key, letter) for letter in _texts(where, key, value, least=1))


def _letter(where: str, key: str, text: str) -> str:
    if len(text) != 1 or not text.isalpha() or text != text.lower():
        raise UsageError(f"{where}: {key}: {text!r} is not one lower-case letter")
    return text


_DRUG_KEYS = ("en", "es", "brand_en", "brand_es", "class")


def _drug(where: str, table: Mapping[str, object]) -> Drug:
    routes = table.get("routes", {})
    table = {key: value for key, value in table.items() if key != "routes"}
    _check_keys(where, table, _DRUG_KEYS)
    generic = {lang: _texts(where, lang, table[lang], least=1) for lang in LANGUAGES}
    brand_keys = {lang: f"brand_{lang}" for lang in LANGUAGES}
    brand = {lang: _texts(where, key, table[key], least=0) for lang, key in brand_keys.items()}
    kind = _text(where, "class", table["class"])
    brands = [name for names in brand.values() for name in names]
    return Drug(
        MappingProxyType(generic),
        MappingProxyType(brand),
        kind,
        MappingProxyType(_routes(where, routes, brands)),
    )


def _routes(where: str, routes: object, brands: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The routes by brand, checked: every key is a brand of the drug, every route one that we know."""
    if not isinstance(routes, dict):
        raise UsageError(f"{where}: routes must be a table, not {routes!r}")
    known = {}
    for brand, values in routes.items():
        if brand not in brands:
            raise unknown_name(f"brand (in {where}: routes)", brand, brands)
        known[brand] = _texts(where, f"routes of {brand}", values, least=1)
        for route in known[brand]:
            if route not in ROUTES:
                raise unknown_name(f"route (in {where}: routes of {brand})", route, ROUTES)
    return known


def _path(name: str) -> Path:
    return data_root() / "benchmarks" / "perturbations" / name


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingError(
            f"{path}: cannot be read: {error.strerror}", hint="install medlocal again"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", hint="mend the file") from error


def _tables(path: Path, key: str) -> Iterator[tuple[str, dict[str, object]]]:
    """The tables of the file's one list, each with its place for a message, counted from 1."""
    content = _read(path)
    _check_keys(str(path), content, (key,))
    tables = content[key]
    if not isinstance(tables, list):
        raise UsageError(f"{path}: {key} must be a list of tables", hint=f"write [[{key}]]")
    for number, table in enumerate(tables, start=1):
        where = f"{path}: {key} {number}"
        if not isinstance(table, dict):
            raise UsageError(f"{where} must be a table, not {table!r}")
        yield where, table


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise unknown_name("language of the word lists", language, LANGUAGES)


def _check_keys(where: str, table: Iterable[str], known: tuple[str, ...]) -> None:
    """Refuse a table with a key too many or too few."""
    keys = list(table)
    for key in keys:
        if key not in known:
            raise unknown_name(f"key (in {where})", key, known)
    if missing := [key for key in known if key not in keys]:
        raise UsageError(f"{where}: {' and '.join(missing)} missing", hint="add to the file")


def _texts(where: str, key: str, value: object, *, least: int) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{where}: {key} must be a list, not {value!r}")
    if len(value) < least:
        raise UsageError(f"{where}: {key} must not be empty")
    return tuple(_text(where, key, text) for text in value)


def _text(where: str, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: {key} must be a text, not {value!r}")
    if not value or value != value.strip():
        raise UsageError(f"{where}: {key} must be a text without spaces around it, not {value!r}")
    return value


_UNITS = (
    "mg mcg µg μg ug ng pg kg mL ml µL μL uL dL dl fL fl mmol µmol μmol umol nmol pmol mol mEq meq "
    "mOsm mosm mmHg cmH2O kPa hPa bpm lpm rpm mm cm µm μm nm km cc mV mA mU IU UI kcal kJ Hz kHz MHz "
    "mGy cGy Gy mSv kDa lb lbs oz"
)
"""Units wherever they stand as a word. The micro sign (U+00B5) and the Greek mu (U+03BC) both occur."""
_UNITS_AFTER_NUMBER = "g L l m U J K s h d min hr hrs sec seg ms wk mo ft"
"""Units only after a number or beside a slash: elsewhere they are words or their remains."""


def _any_of(words: str) -> str:
    return "|".join(sorted(map(re.escape, words.split()), key=len, reverse=True))


_DIGIT = r"[\d²³¹⁰⁴-⁹₀-₉½¼¾⅓⅔]"
_EVERYWHERE = rf"(?:mm Hg|{_any_of(_UNITS)})"
_AFTER_NUMBER = rf"(?:{_any_of(_UNITS + ' ' + _UNITS_AFTER_NUMBER)})"
_PER = r"(?:\s?/\s?[^\W_]+)"
_SYMBOLS = re.compile(
    "|".join(
        (
            # A unit, and what it is counted per: mmHg, mg/kg/día.
            rf"(?<!\w){_EVERYWHERE}{_PER}*(?!\w)",
            # A short unit shows itself by its slash: g/dL, U/L, L/min.
            rf"(?<!\w){_AFTER_NUMBER}/{_AFTER_NUMBER}{_PER}*(?!\w)",
            # A unit after a number, from the number's last digit on: 48 h, 5 %, 20 /min, 38 °C, 10-mg.
            rf"{_DIGIT}[^\S\n]?(?:[%‰]|/?-?(?:mm Hg|{_AFTER_NUMBER}){_PER}*(?!\w)|[°º]\s?[CF]?(?!\w))",
            r"[°º][CF](?!\w)",
            # The letter x for "times": 5 x 10^9.
            rf"(?<={_DIGIT})\s?x\s?(?={_DIGIT})",
            # An ion or an antigen with its charge or sign: Na+, Ca++, K⁺, Cl-, Rh-.
            r"(?<!\w)(?:[A-Z][a-z]?[+⁺]{1,3}|(?:Cl|Br|HS|Rh)[-−⁻](?!\w))",
            # A Greek letter alone: upper case would make another sign of it.
            r"(?<![^\W_])[\u0370-\u03ff](?![^\W_])",
        )
    )
)
_TOKENS = re.compile(
    r"[<>≤≥≈~±+\-−–×]*(?<![^\W_])"
    # A short prefix belongs to its number: IL-6, beta-2, SARS-CoV-2. What follows does not: 63-year-old.
    r"(?:[^\W\d_]{1,5}-)*"
    rf"[^\W_]+(?:[.,:·^/'’×]+[+\-−]?(?={_DIGIT}|[ºª])[^\W_]+|/[^\W_]+)*"
    # Signs at the end: CD4+, HCO3-.
    r"(?:[+⁺]+|[-−⁻](?!\w))?"
)
_WORDS = re.compile(r"[^\W\d_]+")


def symbol_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Numbers with their signs and units, units alone, words with digits, ions and single Greek letters.

    Returns:
        (start, end) pairs in order; they neither overlap nor touch.
    """
    spans = [match.span() for match in _SYMBOLS.finditer(text)]
    spans += [m.span() for m in _TOKENS.finditer(text) if any(map(str.isnumeric, m[0]))]
    return _merge(spans)


def protected_spans(text: str, language: str) -> tuple[tuple[int, int], ...]:
    """Where a text must keep every character, whatever a typo or a change of case does around it.

    Those are numbers with their signs and units, words that mix letters and digits, words with a
    capital after their first letter (ECG, pH, HbA1c), ions, single Greek letters, and drug names. A
    text in capitals is protected wherever it has words of two letters.

    Args:
        text: composed characters (NFC); an accent of its own would end a word.
        language: of the text. Names of drugs in the other language are protected too: an exam in
            Spanish names a drug in English, and the reverse.

    Returns:
        (start, end) pairs in order; they neither overlap nor touch.

    Raises:
        MissingError, UsageError: see `drugs`; the language is not one of `LANGUAGES`.
    """
    _check_language(language)
    spans = list(symbol_spans(text))
    words, phrases = _drug_names()
    spans += [
        match.span()
        for match in _WORDS.finditer(text)
        if any(map(str.isupper, match[0][1:])) or _is_drug(match[0].lower(), words)
    ]
    spans += [match.span() for match in phrases.finditer(text)]
    return _merge(spans)


def _is_drug(word: str, names: frozenset[str]) -> bool:
    """Whether a word in lower case is a drug's name or its plural."""
    return word in names or word.removesuffix("s") in names


@lru_cache(maxsize=1)
def _drug_names() -> tuple[frozenset[str], re.Pattern[str]]:
    """The names that are one word, in lower case, and a pattern of all the others."""
    names = {term.text for language in LANGUAGES for term in drug_terms(language)}
    words = {name for name in names if _WORDS.fullmatch(name)}
    phrases = sorted(names - words, key=len, reverse=True)
    pattern = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
    return (
        frozenset(word.lower() for word in words),
        # Without any phrase, a pattern that fits nowhere.
        re.compile(rf"(?<!\w)(?:{pattern or '(?!)'})s?(?!\w)", re.IGNORECASE),
    )


def _merge(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)
