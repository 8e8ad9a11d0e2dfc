"""In which encoding a text file is written: found out where that is sure, refused where it is not.

UTF-8 proves itself, UTF-16 and UTF-32 carry a mark. A file that is neither may be Windows-1252, which
Excel writes in Western Europe, or CP850 or Mac Roman, in which the same bytes are other letters:
"hipertensión" in CP850 is "hipertensi¢n" in Windows-1252. All bytes mean something in each of them,
so that nothing fails and the text is mangled. Windows-1252 is therefore accepted only where the text
that results is one that somebody writes. This module knows no tables and no columns.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from medlocal.errors import MissingError, UsageError

_MARKS = (
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHUNK = 1 << 20
_NOT_FOR_FILES = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined"}
)
"""Codecs of Python that no editor or spreadsheet writes."""
_ASK = (
    "name the one that reads right: --encoding windows-1252, cp850 or mac-roman; or save as UTF-8"
)

_LOW = "áéíóúüñàèìòùâêîôûëïçäöåøãœ"
_UP = "ÁÉÍÓÚÜÑÀÈÌÒÙÂÊÎÔÛËÏÇŒ"
_LETTER = f"A-Za-z{_LOW}{_UP}ß"
_SIGNS = "¿¡ºª«»€°µ±×÷·²³¹½¼¾–—‘’“”…•®™´‰\xa0\xad"
_UNITS = "g|l|L|m|M|mol|s|V|A|U|UI|IU|Gy|Sv|Ci|kat|eq|Eq|mm|W|J|N|F"

_IMPOSSIBLE = re.compile(rf"[^\x00-\x7f{_LOW}{_UP}ß{_SIGNS}]|[{_LOW}{_UP}]{{3}}")
"""What no text in English, Spanish, French or Italian holds, medical ones included."""

# Each alternative is what a Spanish letter of CP850 or Mac Roman looks like when its byte is read
# as Windows-1252. Right text holds them too, but then it also holds what _EVIDENCE finds.
_DOUBTS = (
    rf"[{_LOW}](?=[A-Z{_UP}])",  # SEGéN, RAZîN
    rf"(?<=[A-Z{_UP}]{{2}})[{_LOW}]",
    rf"(?<=[a-z{_LOW}])[{_UP}]",  # textoÓ: a closing quote of Mac Roman
    rf"(?<=[0-9])[{_LOW}{_UP}]|[{_LOW}{_UP}](?=[0-9])",  # 37øC
    rf"(?<![{_LETTER}])[{_LOW}{_UP}](?![{_LETTER}])",
    rf"(?<![{_LETTER}])[éüàèìòùâêîôûëïçäöåøã](?=[{_LETTER}])",  # élcera, çcido, êndice
    rf"(?<![{_LETTER}])[ÀÈÌÒÙÂÊÎÔÛËÏÇÜ](?=[a-z{_LOW}])",  # Àes: ¿ of Mac Roman
    rf"(?<![{_LETTER}])[{_UP}](?=[A-Z{_UP}][a-z{_LOW}])",
    rf"(?<=[{_LETTER}])[üïâîûäöøåã](?![{_LETTER}])",  # cmü: ³ of CP850
    rf"¡|(?<=[{_LETTER}0-9])¿|[œŒ]|\xad",
    rf"[®™](?=[{_LETTER}])|(?<![{_LETTER}0-9)])[®™]",
    rf"(?<=[{_LETTER}])µ|µ(?=[{_LETTER}])(?!(?:{_UNITS})(?![{_LETTER}]))",  # µcido
    rf"(?<![{_LETTER}0-9)])[²³¹]|[²³¹](?=[0-9])",  # PaO2 ²60: ≤ of Mac Roman
    rf"(?<=[{_LETTER}])[€‰×]|[€‰×](?=[{_LETTER}])",
    rf"(?<=[{_LETTER}0-9])¼",  # 1¼: º of Mac Roman
    rf"(?<=[{_LETTER}])[–…•]|[–…•](?=[{_LETTER}])|—|«|»",  # a–o, raz—n
    rf"(?<=[{_LETTER}])[‘’“]|[’”](?=[{_LETTER}])|(?<![{_LETTER}0-9])’",  # d’as
    rf"(?<=[{_LETTER}])\xa0|(?<![0-9])\xa0(?=[{_LETTER}])",  # f rmaco
)
_DOUBTFUL = re.compile("|".join(_DOUBTS))

_EVIDENCE = re.compile(rf"(?<=[a-z])[éíóèùìò](?![A-Z{_UP}0-9])|(?<![{_LETTER}0-9])¿(?=[{_LETTER}])")
"""What only Windows-1252 and Latin-1 give: in CP850 and Mac Roman these bytes are capitals or signs
that nobody writes inside a word."""

_ENGLISH = re.compile(r"\b(?:the|of|and|is|was|which|with|for|following|patient)\b", re.IGNORECASE)
_SPANISH = re.compile(r"\b(?:el|la|los|las|de|del|que|en|un|una|por|con|es)\b", re.IGNORECASE)

_ENGLISH_SIGNS = re.compile(
    rf"(?<=[a-z])’(?=(?:s|t|re|ve|ll|d|m)(?![{_LETTER}]))|(?<=s)’(?![{_LETTER}])"
    rf"|(?<=[{_LETTER}])…(?![{_LETTER}])"
)
"""Doubtful ones that English text holds without any accent beside them: patient’s."""

_MOJIBAKE = re.compile(
    "Ã[\x80-\xbf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"  # UTF-8 read as Windows-1252 or Latin-1
    "|Â[\x80-\xbf]"
    "|â(?:€|\x80)."
    "|ï»¿"
    "|√[≥±°©≠∫ëâ]|¬[ø°∫™]|├[│▒®¡í║]|┬┐"  # UTF-8 read as Mac Roman, and as CP850
)


def detect_encoding(path: Path, wanted: str | None = None) -> str:
    """The name of a codec that decodes the whole file, which is read in pieces.

    Args:
        path: the file.
        wanted: what the user says it is, which is believed where the file can be decoded so; None =
            it is found out.

    Returns:
        A name that `open` takes; "utf-8-sig", "utf-16" and "utf-32" drop the file's mark.

    Raises:
        MissingError: the file cannot be read.
        UsageError: nobody knows the encoding that is wanted, the file is not in it, or what it is
            in cannot be told for sure.
    """
    try:
        return _wanted(path, wanted) if wanted is not None else _detected(path)
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror or error}") from error


def mojibake(text: str) -> str | None:
    """The first place where a text was mangled before it was saved, such as "Ã³"; None = nowhere."""
    if text.isascii():
        return None
    found = _MOJIBAKE.search(text)
    return found.group() if found else None


def _wanted(path: Path, wanted: str) -> str:
    codec = _known_codec(wanted)
    if codec == "utf-8" and _marked(path) == "utf-8-sig":
        codec = "utf-8-sig"
    if line := _undecodable_line(path, codec):
        raise UsageError(f"{path}:{line}: the file is not in {wanted}", hint="leave out --encoding")
    return codec


def _known_codec(wanted: str) -> str:
    try:
        codec = codecs.lookup(wanted).name
        "a".encode(codec)  # of the codecs that Python knows, some are not of text
    except (LookupError, ValueError) as error:
        raise UsageError(f"no encoding is called {wanted!r}", hint=_ASK) from error
    if codec.replace("_", "-") in _NOT_FOR_FILES:
        raise UsageError(f"{wanted} is not an encoding of files", hint=_ASK)
    return codec


def _detected(path: Path) -> str:
    codec = _marked(path) or "utf-8"
    line = _undecodable_line(path, codec)
    if line and codec != "utf-8":
        raise UsageError(f"{path}:{line}: the file begins as {codec} and is damaged here")
    if codec == "utf-8" and (zero := _line_of_zero(path)):
        raise UsageError(
            f"{path}:{zero}: a NUL byte: the file is not text, or UTF-16 without its mark",
            hint="if it is text, try --encoding utf-16-le, or save it as UTF-8",
        )
    if line:
        first, _ = next(_accented_lines(path))
        if first < line:
            raise UsageError(
                f"{path}:{line}: the file is UTF-8 as far as this line, which is not",
                hint="was it put together from two files? Save it as UTF-8",
            )
        _require_windows_1252(path)
        return "cp1252"
    return codec


def _marked(path: Path) -> str | None:
    with path.open("rb") as stream:
        head = stream.read(4)
    return next((codec for mark, codec in _MARKS if head.startswith(mark)), None)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
    yield b""


def _undecodable_line(path: Path, codec: str) -> int:
    """The first line that is not in an encoding, from 1; 0 = all are."""
    decoder = codecs.getincrementaldecoder(codec)()
    num_lines = 0
    for chunk in _chunks(path):
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            return num_lines + error.object[: error.start].count(b"\n") + 1
        except UnicodeError:  # of the codecs that do not say where
            return num_lines + 1
        num_lines += chunk.count(b"\n")
    return 0


def _line_of_zero(path: Path) -> int:
    num_lines = 0
    for chunk in _chunks(path):
        if (at := chunk.find(0)) >= 0:
            return num_lines + chunk.count(b"\n", 0, at) + 1
        num_lines += chunk.count(b"\n")
    return 0


def _require_windows_1252(path: Path) -> None:
    """Raise UsageError where the text that results is not one that somebody writes."""
    doubt: tuple[int, bytes, int] | None = None
    is_sure = in_any_language = False
    english = spanish = 0
    for number, raw in _accented_lines(path):
        try:
            text = raw.decode("cp1252")
        except UnicodeDecodeError as error:
            raise _refused(path, number, raw, error.start) from error
        if found := _IMPOSSIBLE.search(text):
            raise _refused(path, number, raw, found.start())
        is_sure = is_sure or bool(_EVIDENCE.search(text))
        if not is_sure and (found := _DOUBTFUL.search(text)):
            doubt = doubt or (number, raw, found.start())
            # Replaced by as many characters, lest what stood apart come together.
            rest = _ENGLISH_SIGNS.sub(" ", text)
            in_any_language = in_any_language or bool(_DOUBTFUL.search(rest))
            english += len(_ENGLISH.findall(text))
            spanish += len(_SPANISH.findall(text))
    if doubt and not is_sure and (in_any_language or english <= 5 * spanish):
        raise _refused(path, *doubt)


def _accented_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not ASCII; of one that is longer than a chunk, its pieces."""
    number = 1
    with path.open("rb") as stream:
        while raw := stream.readline(_CHUNK):
            if not raw.isascii():
                yield number, raw
            number += raw.endswith(b"\n")


def _refused(path: Path, number: int, raw: bytes, at: int) -> UsageError:
    # One byte is one character in all three, so that `at` counts both.
    part = raw[max(0, at - 20) : at + 20].strip()
    read = {name: part.decode(name, "replace") for name in ("windows-1252", "cp850", "mac-roman")}
    ways = ", ".join(f"{text!r} in {name}" for name, text in read.items())
    return UsageError(
        f"{path}:{number}: the file is not UTF-8, and its encoding cannot be told: {ways}",
        hint=_ASK,
    )
