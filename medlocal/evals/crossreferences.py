"""Options that speak of other options: "none of the above", "both A and C", "all".

Such an option means something else when another one comes, goes or gets another label. This module
reads options and knows nothing of what is done with them.
"""

import re
from collections.abc import Sequence

_LABEL = r"(?:(?-i:[A-J])|[a-e]|[1-9])"
_MANY = r"none|both|all|neither|any|ningun[oa]|amb[oa]s|tod[oa]s|cualquiera"
_SPEAKS = re.compile(
    rf"^(?:{_MANY})\W*$"
    r"|\b(?:none|all|both|neither|any) of (?:the|these|them|above)\b|\b(?:none|all|any) (?:of )?(?:the )?above\b"
    r"|\b(?:ningun[oa]|tod[oa]s|amb[oa]s|cualquiera)(?: de)?"
    r" (?:las|los|ell[oa]s|est[oa]s|anteriores|es|son)\b"
    r"|\b(?:options?|answers?|opci[oó]n|opciones|respuestas?) (?-i:[A-J]|[1-9])(?!\w)"
    r"|\b[A-E] (?:and|y|e|or|o) [A-E]\b"
    rf"|\b(?:both|ambas|ambos) (?:{_LABEL} (?:and|y|&) {_LABEL}|(?-i:[A-E]{{2,4}}))(?!\w)",
    re.IGNORECASE,
)
_LEAD = (
    r"(?:(?:both|ambas|ambos|todas|all|las|los|the|respuestas?|answers?|options?|opciones|opci[oó]n|only"
    r"|solo|s[oó]lo|either|neither|are|son)\s+)*"
)
_REST = (
    r"(?:\s+(?:(?:are|is|son|es)\s+)?(?:(?:both|all|ambas|todas)\s+)?(?:correct\w*|true|right|ciert\w*"
    r"|verdader\w*|fals\w*|only|solo|s[oó]lo))?"
)
_JOINT = r"(?:\s*(?:,\s+|&|\+)\s*(?:(?:and|y)\s+)?|\s+(?:and|or|y|e|o|ni|nor)\s+)"
_ONE_LABEL = rf"\(?{_LABEL}\)?"
_NAMES_LABELS = re.compile(
    rf"\W*(?:{_LEAD}{_ONE_LABEL}(?:{_JOINT}{_ONE_LABEL})+{_REST}"
    rf"|(?:both|ambas|ambos)\s+(?-i:[A-E]{{2,4}})"
    rf"|(?:options?|answers?|opci[oó]n|opciones|respuestas?)\s+(?-i:[A-J]|[1-9]){_REST})\W*",
    re.IGNORECASE,
)
_LIKE_LABELS = re.compile(
    rf"\W*{_LEAD}{_ONE_LABEL}(?:(?:{_JOINT}|\s*,\s*|\s+){_ONE_LABEL})*{_REST}\W*|\W*[A-E]{{2,5}}\W*",
    re.IGNORECASE,
)
"""An option of labels only, of whatever is listed in the question."""


def speaks_of_options(option: str) -> bool:
    """Whether an option speaks of the other options."""
    return _SPEAKS.search(option) is not None


def names_labels(options: Sequence[str]) -> bool:
    """Whether one of the options names others by their labels, as "Both 1 and 2" and "A and C" do.

    Where most options are made of labels, these are those of a list in the question ("1 and 2", "2 and
    3", "1, 2 and 3"), which moves with none of the options.
    """
    if not any(_NAMES_LABELS.fullmatch(option) for option in options):
        return False
    num_like = sum(_LIKE_LABELS.fullmatch(option) is not None for option in options)
    return num_like <= len(options) // 2
