"""Which column of a table holds what: recognised by its name, in English or Spanish, or as told.

Names are compared without accents, case, spaces and signs. Nothing is guessed: where two columns could
be the same thing, both are named and the user says which it is. This module sees names only, never a
value: what the answers mean is found out in `medlocal.data.golds`.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from medlocal.errors import UsageError, unknown_name
from medlocal.evals.items import LETTERS

_WORDS = {
    "question": (
        "question stem questionstem questiontext qtext query pregunta enunciado"
        " enunciadopregunta textopregunta texto text planteamiento"
    ),
    "options": (
        "options choices alternatives answerchoices answeroptions opciones alternativas"
        " opcionesrespuesta opcionesderespuesta"
    ),
    "answer": (
        "answer answerkey answeridx answerindex answertext correctanswer rightanswer gold"
        " goldanswer goldindex correct correctoption key cop label target respuesta"
        " respuestacorrecta correcta opcioncorrecta solucion clave"
    ),
    "answer_letter": "answerletter goldletter correctletter letra letracorrecta letrarespuesta",
    "id": (
        "id code number num no nr nro qid itemid questionid codigo numero idpregunta"
        " preguntaid codigopregunta numeropregunta uniqueid"
    ),
    "subject": (
        "subject subjectname topic specialty speciality category tema especialidad asignatura"
        " categoria materia"
    ),
    "language": "language lang idioma lengua",
    "context": (
        "context case casetext clinicalcase vignette passage contexto caso casoclinico vineta"
        " historiaclinica"
    ),
    "rationale": (
        "rationale explanation justification comment comments reasoning exp explicacion"
        " justificacion comentario comentarios razonamiento retroalimentacion feedback"
    ),
    "difficulty": "difficulty dificultad",
    "group": "group groupid caseid grupo idgrupo grupoid casoid idcaso",
    "split": "split particion",
    "flags": "flags etiquetas marcas",
}
NAMES = MappingProxyType({field: frozenset(words.split()) for field, words in _WORDS.items()})
"""What each field's column may be called, in the spelling of `folded`."""

_OPTION_FIELDS = tuple(f"option_{letter.lower()}" for letter in LETTERS)
FIELDS = (*NAMES, *_OPTION_FIELDS)
"""What `--map` can be told the column of."""

_OPTION = re.compile(
    r"(?P<prefix>opcion|option|opc|opt|op|choice|alternativa|alternative|alt|respuesta|resp"
    r"|answer|ans|ending|r)?(?P<label>[a-z]|[0-9]{1,2})"
)


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The column of each field; "" = there is none."""

    question: str
    answer: str
    option_columns: tuple[str, ...] = ()
    """From 2 to 10, in order; () where `options` holds them all."""
    options: str = ""
    """A column whose every value is a list of options."""
    answer_is_letter: bool = False
    """True: the column's name says that the answers are letters."""
    id: str = ""
    subject: str = ""
    language: str = ""
    context: str = ""
    rationale: str = ""
    difficulty: str = ""
    group: str = ""
    split: str = ""
    flags: str = ""

    def used(self) -> dict[str, tuple[str, ...]]:
        """The columns of each field that has any."""
        single = ("question", "answer", *(f for f in NAMES if f not in _NOT_SINGLE))
        fields = {field: (getattr(self, field),) for field in single if getattr(self, field)}
        return {**fields, "options": self.option_columns or (self.options,)}


_NOT_SINGLE = frozenset({"question", "options", "answer", "answer_letter"})


def folded(name: str) -> str:
    """A column's name without accents, case, spaces and signs: "Opción A)" is "opciona"."""
    decomposed = unicodedata.normalize("NFKD", name).casefold()
    return "".join(character for character in decomposed if character.isalnum())


def parse_map(texts: Iterable[str]) -> dict[str, str]:
    """What several `--map FIELD=COLUMN` say; a column "" = the table has none for the field.

    Raises:
        UsageError: one is not of that form, or names no field, or a field twice.
    """
    told: dict[str, str] = {}
    for text in texts:
        field, separator, column = text.partition("=")
        field = field.strip()
        if not separator:
            raise UsageError(
                f"--map {text!r} is not FIELD=COLUMN", hint="such as --map question=Pregunta"
            )
        if len(field) == 1 and field.upper() in LETTERS:
            field = f"option_{field.lower()}"
        if field not in FIELDS:
            raise unknown_name("field", field, FIELDS)
        if field in told:
            raise UsageError(f"--map names {field} twice")
        told[field] = column.strip()
    return told


def recognise(names: Sequence[str], overrides: Mapping[str, str]) -> ColumnMap:
    """Say which column is which.

    Args:
        names: the columns that there are.
        overrides: what the user said, by field; "" = there is no column for it.

    Raises:
        UsageError: a needed column is missing, two could be the same thing, or a name that the user
            gave is not there. The hint says what to write.
    """
    told = {field: _told_column(field, column, names) for field, column in overrides.items()}
    free = [name for name in names if name not in told.values()]
    columns, listed = _option_columns(told, free)
    found = {f: _single(f, told, free) for f in NAMES if f not in {"options", "answer_letter"}}
    found["answer"], is_letter = _answer(told, free, found["answer"])
    missing = [field for field in ("question", "answer") if not found[field]]
    if not columns and not listed:
        missing.append("options")
    if missing:
        raise _missing(missing, names)
    if "answer" not in told and "answer_letter" not in told:
        _require_no_option(found["answer"], columns)
    return ColumnMap(option_columns=columns, options=listed, answer_is_letter=is_letter, **found)


def _told_column(field: str, column: str, names: Sequence[str]) -> str:
    if not column or column in names:
        return column
    alike = [name for name in names if folded(name) == folded(column)]
    if len(alike) != 1:
        raise unknown_name(f"column (for {field})", column, names)
    return alike[0]


def _single(field: str, told: Mapping[str, str], free: Sequence[str]) -> str:
    if field in told:
        return told[field]
    found = [name for name in free if folded(name) in NAMES[field]]
    if len(found) > 1:
        raise UsageError(
            f"more than one column could be the {field}: {_listed(found)}",
            hint=f"say which: --map {_quoted(field, found[0])}",
        )
    return found[0] if found else ""


def _answer(told: Mapping[str, str], free: Sequence[str], plain: str) -> tuple[str, bool]:
    """The column of the answer, and whether its name says that it holds letters."""
    if "answer" in told:
        return plain, folded(plain) in NAMES["answer_letter"]
    letter = _single("answer_letter", told, free)
    if plain and letter and "answer_letter" not in told:
        raise UsageError(
            f"more than one column could be the answer: {_listed([plain, letter])}",
            hint=f"say which: --map {_quoted('answer', letter)}",
        )
    return (letter, True) if letter else (plain, False)


def _option_columns(told: Mapping[str, str], free: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The columns that hold one option each, or else the one that holds a list of them."""
    if any(told.get(field) for field in _OPTION_FIELDS):
        return _told_options(told), ""
    listed = _single("options", told, free)
    if "options" in told and listed:
        return (), listed
    families = _families(free)
    if len(families) + bool(listed) > 1:
        ways = [*([listed] if listed else []), *(" ".join(family) for family in families)]
        raise UsageError(
            f"more than one set of columns could be the options: {'; '.join(ways)}",
            hint="say which: --map options=COLUMN for a list, or --map A=COLUMN --map B=COLUMN …",
        )
    return (families[0], "") if families else ((), listed)


def _told_options(told: Mapping[str, str]) -> tuple[str, ...]:
    if told.get("options"):
        raise UsageError("--map names one column of all options and columns of single ones")
    columns = [told.get(field, "") for field in _OPTION_FIELDS]
    while not columns[-1]:
        columns.pop()
    if len(columns) < 2 or not all(columns):
        raise UsageError("--map must name the columns of all options, from A on, at least two")
    return tuple(columns)


def _families(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Columns that are lettered or numbered alike, from the first letter or number on."""
    members: dict[tuple[str, bool], dict[int, str]] = {}
    for name in names:
        if not (match := _OPTION.fullmatch(folded(name))):
            continue
        prefix, label = match["prefix"] or "", match["label"]
        slot = int(label) if label.isdigit() else ord(label) - ord("a")
        if not prefix and not label.isdigit() and slot >= len(LETTERS):
            continue  # a column that is called n or q
        family = members.setdefault((prefix, label.isdigit()), {})
        if slot in family:
            raise UsageError(
                f"two columns could be the same option: {_listed([family[slot], name])}"
            )
        family[slot] = name
    families = []
    for (_, is_numbered), family in members.items():
        first = min(family)
        if len(family) > 1 and (first == 0 or (is_numbered and first == 1)):
            families.append(_in_order(family))
    return families


def _in_order(family: Mapping[int, str]) -> tuple[str, ...]:
    slots = sorted(family)
    columns = tuple(family[slot] for slot in slots)
    if slots != list(range(slots[0], slots[0] + len(slots))):
        raise UsageError(
            f"the options have a gap: {_listed(columns)}",
            hint="name all of them: --map A=COLUMN --map B=COLUMN …",
        )
    if len(slots) > len(LETTERS):
        raise UsageError(f"{len(slots)} columns of options: at most {len(LETTERS)} can be asked")
    return columns


def _require_no_option(answer: str, options: Sequence[str]) -> None:
    """Refuse "respuesta" beside "respuesta_1", "respuesta_2": is it the answer, or another option?"""
    prefixes = {match["prefix"] for o in options if (match := _OPTION.fullmatch(folded(o)))}
    if folded(answer) in prefixes:
        raise UsageError(
            f"{answer!r} could be the answer or one of the options {_listed(options)}",
            hint=f"if it is the answer: --map {_quoted('answer', answer)}",
        )


def _missing(fields: Sequence[str], names: Sequence[str]) -> UsageError:
    ways = {
        "question": "--map question=Pregunta",
        "answer": "--map answer=Correcta",
        "options": "--map A=Columna1 --map B=Columna2 … or --map options=Opciones",
    }
    return UsageError(
        f"no column for the {' and the '.join(fields)} among: {_listed(names)}",
        hint=f"the first row must hold the names; say which, such as "
        f"{' '.join(ways[field] for field in fields)}",
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _quoted(field: str, column: str) -> str:
    return f"{field}={column}" if column.isalnum() else f"'{field}={column}'"
