"""How a number or a name is written in a report: units, intervals, signs. Pure, one place for all outputs."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from medlocal.evals.stats import Rate

ABSENT = "–"
"""Where a value does not apply or could not be computed."""
LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian"}

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs"})


def percent(share: float | None) -> str:
    """A share from 0 to 1 in percent with one decimal: "25.0 %"."""
    return ABSENT if share is None else f"{100 * share:.1f} %"


def bounds(rate: Rate) -> str:
    """The interval of a rate, in percent without the sign: "(17.5–34.3)"."""
    if rate.low is None or rate.high is None:
        return ABSENT
    return f"({100 * rate.low:.1f}–{100 * rate.high:.1f})"


def full_rate(rate: Rate) -> str:
    """A rate that stands in a sentence: "25.0 % (17.5–34.3, n = 100)"."""
    return f"{percent(rate.value)} {bounds(rate).rstrip(')')}, n = {rate.n:,})"


def rate_in_words(rate: Rate) -> str:
    """A rate whose n stands beside it: "25.0 % (17.5–34.3)"."""
    return f"{percent(rate.value)} {bounds(rate)}" if rate.n else ABSENT


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, with its sign: "+3.0", "−8.1", "0.0"."""
    if difference is None:
        return ABSENT
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def points_interval(low: float | None, high: float | None) -> str:
    """An interval of a difference, in percentage points: "−8.1 to +2.0".

    One that has a width never reads as if it had none: "−0.04 to +0.04".
    """
    if low is None or high is None:
        return ABSENT
    text = f"{points(low)} to {points(high)}"
    if text != "0.0 to 0.0" or high - low < 1e-6:
        return text
    return f"{100 * low:+.2g} to {100 * high:+.2g}".replace("-", "−")


def corrected_p(p: float, num_tests: int, of: str) -> str:
    """A p-value, and what it was corrected for: "p = 0.039", "p = 0.117 corrected for 3 data sets"."""
    return f"p {p_value(p)}" + (f" corrected for {num_tests:,} {of}" if num_tests > 1 else "")


def could_show(smallest: float | None) -> str:
    """What a test would have shown, where it shows no difference."""
    if smallest is None:
        return "too few questions to show any difference"
    size = points_size(smallest)
    return f"a true difference of {size} points or more would have been shown with 80 % power"


def points_size(difference: float) -> str:
    """The size of a difference above 0 in percentage points, never "0.0": "3.6", "0.04"."""
    text = f"{100 * difference:.1f}"
    return f"{100 * difference:.1g}" if text == "0.0" else text


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def p_value(p: float) -> str:
    """A p-value with its sign: "= 0.039", "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def language(code: str) -> str:
    """The language's name in English, or its code."""
    return LANGUAGES.get(code, code)


def share_range(shares: list[float]) -> str:
    """One share, or the range of several: "25.0 %", "20.0–25.0 %"."""
    low, high = min(shares), max(shares)
    if percent(low) == percent(high):
        return percent(low)
    return f"{100 * low:.1f}–{percent(high)}"


def clean(text: str) -> str:
    """One line of text without control and formatting characters: others wrote the names."""
    spaced = (" " if char.isspace() else char for char in text)
    return "".join(char for char in spaced if unicodedata.category(char) not in _UNPRINTABLE)


def printable(text: str, *, keep_lines: bool = False) -> str:
    """Text of a model without what could steer a terminal: C0, C1 and formatting characters.

    Args:
        text: anything.
        keep_lines: line feeds stay, tabs become spaces.
    """
    lines = text.replace("\t", "    ").split("\n") if keep_lines else [text]
    return "\n".join(clean(line) for line in lines)


def facts(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """(name, value) of everything in a nested mapping, named by the path to it, in its order."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            found += facts(value, f"{name} · ")
        elif str(key).endswith("bytes") and isinstance(value, int):
            found.append((clean(name.removesuffix("bytes").strip() or "size"), _mebibytes(value)))
        else:
            found.append((clean(name), fact(value)))
    return found


def fact(value: object) -> str:
    """One value as a person reads it: "1,234", "0.8125", "yes", "a, b"."""
    match value:
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
        case list() | tuple():
            return ", ".join(fact(part) for part in value) or "none"
        case Mapping():
            return ", ".join(f"{name} {text}" for name, text in facts(value)) or "none"
        case _:
            return clean(str(value))


def plain(value: object) -> Any:
    """The value as strict JSON knows it: mappings as dict, sequences as list, no NaN, no infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
