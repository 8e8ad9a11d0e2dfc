"""What a question's stem says of itself: its sentences, whether it negates, which words must stand.

English and Spanish alike, because examinations mix them. Where a full stop may be that of an initial,
an abbreviation or the sign of a list, no sentence is taken to end: a place too few does no harm, one
too many tears a name apart. This module knows nothing of variants.
"""

import re
from collections.abc import Iterator

_BOUNDARY = re.compile(r"(?<=[.?!])\s+(?=[A-ZÁÉÍÓÚÑ¿¡])")
_SIGN_OF_LIST = re.compile(r"\(?(?:\d{1,2}|[ivxIVX]{1,4}|[A-Za-z])[.)](?=\s)")
_LIST_SIGN_BEFORE = re.compile(
    r"(?:^|\n|[.;:?!,)]\s+)[ \t]*\(?(?:\d{1,2}|[ivxIVX]{1,4}|[A-Za-z])[.)]$|(?<![\w/])[a-z]\.$"
)
"""The end of a list's sign: "3." at the beginning of a line or behind a sentence, "d." anywhere."""
_DOUBTFUL = re.compile(
    r"(?<![\w/])(?:[A-Z]|(?:[A-Z]\.\s?)+[A-Z]|[IVX]{2,4}|(?:[a-z]\.)+[a-z]|approx|aprox|art|ca|cf|Dr|Dra|Drs"
    r"|ej|etc|Fig|fig|Hep|No|Mr|Mrs|Ms|pág|Prof|resp|sp|spp|Sr|Sra|St|Staph|Strep|subsp|var|vol|vs)\.$"
)
"""A letter alone, initials, a roman number or an abbreviation: the sentence may go on behind its stop."""
_ASKING = re.compile(
    r"[¿¡]|(?:Which|What|Who|Whom|Whose|How|Where|When|Why|Select|Choose|Identify|Indicate|All of the"
    r"|Señal[ae]|Indi(?:que|ca)|Selecci|Elij|Marque|Cuál|Qué|Quién|Cómo)"
)
"""What begins a question for certain, even behind an abbreviation."""
_CAPITALS = re.compile(
    r"\b(?:EXCEPT|NOT|FALSE|INCORRECT|LEAST|WRONG|EXCEPTO|SALVO|FALS[AO]S?|INCORRECT[AO]S?|ERR[ÓO]NE[AO]S?"
    r"|NO|MENOS|NUNCA)\b"
)
_NEGATIVE = re.compile(
    # "No tratada" says what something is, as "untreated" does, and "y no a" what is not meant.
    r"\b(?:not|(?<!y )no(?! \w+[ai]d[oa]s?\b)|none|never|neither|nor|cannot|except(?:ion|ing)?|least|false|incorrect|untrue|wrong"
    r"|unlikely|excepto|excepci[oó]n|salvo|fals[oa]s?|incorrect[oa]s?|err[oó]ne[oa]s?|menos|nunca|tampoco"
    r"|ningun[oa]|ning[uú]n)\b|n['’]t\b",
    re.IGNORECASE,
)
_SHORT = 2
"""A last sentence with fewer words only says "which?" or "mark it": the question is the one before."""

_NEGATIONS = (
    "except exception excepting false least incorrect correct correctly untrue true wrong never none "
    "neither cannot unlikely without excepto excepción salvo falso falsa falsos falsas menos incorrecto "
    "incorrecta incorrectos incorrectas correcto correcta correctos correctas erróneo errónea erróneos "
    "erróneas cierto cierta ciertos ciertas verdadero verdadera verdaderos verdaderas nunca tampoco "
    "ninguno ninguna ningún"
)
_NUMBERS = (
    "four five seven eight nine eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million half twice "
    "once double triple three first second third fourth fifth cuatro cinco seis siete ocho nueve diez "
    "once doce trece catorce quince dieciséis diecisiete dieciocho diecinueve veinte treinta cuarenta "
    "cincuenta sesenta setenta ochenta noventa cien ciento doscientos trescientos mil millón medio media "
    "doble triple mitad primer primero primera segundo segunda tercer tercero tercera cuarto cuarta tres"
)
_UNITS = (
    "second seconds minute minutes hour hours hourly daily week weeks weekly month months monthly year "
    "years yearly percent percentage degrees gram grams milligram milligrams microgram micrograms "
    "kilogram kilograms liter liters litre litres milliliter milliliters meter meters centimeter "
    "centimeters segundo segundos minuto minutos hora horas días semana semanas semanal meses mensual "
    "años anual ciento grado grados gramo gramos miligramo miligramos microgramo microgramos kilogramo "
    "kilogramos litro litros mililitro mililitros metro metros centímetro centímetros"
)
KEPT_WORDS = frozenset(f"{_NEGATIONS} {_NUMBERS} {_UNITS}".split())
"""In lower case: a slip in one of these could turn the question round, or change an amount or a time."""


def boundaries(text: str) -> list[int]:
    """Where each sentence but the first begins."""
    return [found.end() for found in _BOUNDARY.finditer(text) if _ends_sentence(text, found)]


def _ends_sentence(text: str, found: re.Match[str]) -> bool:
    line = text[: found.start()]
    if _LIST_SIGN_BEFORE.search(line) or _SIGN_OF_LIST.match(text, found.end()):
        return False
    return _DOUBTFUL.search(line) is None or _ASKING.match(text, found.end()) is not None


def sentences_of(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence, with the space behind it."""
    starts = [0, *boundaries(text)]
    yield from zip(starts, [*starts[1:], len(text)], strict=True)


def question_of(stem: str) -> str:
    """The last sentence, and the one before it where the last only says what to do."""
    spans = list(sentences_of(stem))
    question = stem[spans[-1][0] :]
    if len(question.split()) < _SHORT and len(spans) > 1:
        return stem[spans[-2][0] :]
    return question


def asks_for_what_is_not(stem: str) -> bool:
    """Whether a stem asks for the exception: in capitals anywhere, or with a negation in its question."""
    return bool(_CAPITALS.search(stem) or _NEGATIVE.search(question_of(stem)))
