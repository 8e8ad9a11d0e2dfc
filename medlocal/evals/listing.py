"""The labels of a list, where several were asked for or the wrong ones.

The extractor takes labels that stand apart for several answers, of which the first or the last counts.
Here they are one answer: labels that are called wrong, all but one, labels in a row at the beginning,
under a heading or behind the right one. This module does not know what the list was to be.
"""

import re
from collections.abc import Iterator

from medlocal.evals import phrases
from medlocal.evals.extract import ENCLOSED, Extraction, closed_at, extract
from medlocal.evals.formats import left_out
from medlocal.evals.mentions import Mention, Page
from medlocal.evals.option_words import Wording
from medlocal.evals.plain import plain
from medlocal.evals.variant import Variant

_BETWEEN_LABELS = re.compile(r"(?:\W|\b(?:and|or|y|e|o|u)\b)*", re.IGNORECASE)
_LIST_ENDS = re.compile(rf"[)\]}}\"']*\s*(?:$|[.;:(\[\n<]|[—–-]\s|{phrases.REASON})", re.IGNORECASE)
"""What begins behind a list that is not the subject of a sentence."""
_NEAR = 80
"""Characters before a label in which it may be left out."""
_ALL_BUT = re.compile(
    r"\b(?:all|every|any|tod[oa]s|cualquiera)\b[^.;:\n]{0,30}?\b(?:except|but|excepto|menos|salvo)\b"
    r"(?: (?:for|por|a))?[ ]*(?:(?:the|la|las)[ ]+)?(?:(?:options?|letters?|numbers?|opcion(?:es)?"
    r"|letras?|numeros?)[ ]+)?[\"'(\[]?$",
    re.IGNORECASE,
)
"""What ends before the labels that a list leaves out: "all options except"."""


def find_list(text: str, variant: Variant, language: str, form: str) -> Extraction:
    """What the labels of an output name together, in the order of the text.

    Args:
        text: the output as it came.
        variant: what was asked.
        language: of the prompt.
        form: name of the format.
    """
    text = _separated(text, variant)
    page = Page(plain(text), variant, language)
    listed = _called_wrong(page) or _all_but(page) or _in_lines(page) or _standing_alone(page)
    if listed is not None:
        return listed
    found = extract(text, variant, language, form)
    beside = _beside_the_right_one(page, found)
    return found if beside is None else beside


def _separated(text: str, variant: Variant) -> str:
    """The text, its lists of nothing but labels with a comma behind each: "ABD", "A B D", "a, b, d"."""
    if "".join(variant.labels).isdigit():
        # "1,3" is no decimal number where numbers are to be listed.
        text = re.sub(r"(?<=\d),(?=\d)", ", ", text)
    for labels in dict.fromkeys((variant.labels, tuple(map(str.lower, variant.labels)))):
        if len(set(labels)) == len(labels):
            text = _with_commas(text, labels, variant.labels)
    return text


def _with_commas(text: str, labels: tuple[str, ...], shown: tuple[str, ...]) -> str:
    """The same for labels in one spelling; what is nothing but a list stands alone or in a form."""
    one = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    joint = r"(?:\s*[,;/&][^\S\n]*|[^\S\n]+)(?:(?:and|or|y|e|o|u)[^\S\n]+)?"
    run = rf"(?:{one})(?:{joint}(?:{one}))+"
    if labels == shown and all(len(label) == 1 for label in labels):
        run = rf"{run}|(?:{one}){{2,}}"
    pattern = rf"(?P<before>\A\W*|[\"'>:]\s*)(?P<run>{run})(?=\s*(?:\Z|[.\"'<}}]))"

    def spelt_out(found: re.Match[str]) -> str:
        named = [
            labels.index(label) for label in re.findall(rf"(?:{one})(?!\w)|{one}", found["run"])
        ]
        is_written_out = re.search(r"\W", found["run"]) is not None
        if len(set(named)) < len(named) or (not is_written_out and named != sorted(named)):
            return found[0]
        return found["before"] + ", ".join(shown[slot] for slot in named)

    return re.sub(pattern, spelt_out, text)


def _called_wrong(page: Page) -> Extraction | None:
    """The labels that are called wrong, if they leave one out."""
    wrong = [m for m in page.mentions if m.start in page.denied and m.slot is not None]
    slots = _slots(wrong)
    if left_out(page.variant, slots) is None:
        return None
    return Extraction(slots, (), False, "labels called wrong", closed_at(page.text, wrong[-1].end))


def _all_but(page: Page) -> Extraction | None:
    """Every label but those behind "all except"."""
    for index, mention in enumerate(page.mentions):
        if mention.slot is None or not _ALL_BUT.search(
            page.text[max(0, mention.start - _NEAR) : mention.start]
        ):
            continue
        chain = page.chain(index)
        spared = {m.slot for m in chain}
        slots = tuple(slot for slot in range(len(page.variant.labels)) if slot not in spared)
        return Extraction(slots, (), True, "all labels but", closed_at(page.text, chain[-1].end))
    return None


def _in_lines(page: Page) -> Extraction | None:
    """The labels that open two lines or more, from the beginning or under a heading."""
    opened: list[Mention] = []
    for line in re.finditer(r"^.*\S.*$", page.text, re.MULTILINE):
        index = page.mention_at(page.skip_filler(line.start()))
        mention = None if index is None else page.mentions[index]
        if mention and mention.slot is not None and mention.is_enumerator:
            opened.append(mention)
        elif opened:
            return _rows(opened, closed=True)
        elif not line[0].rstrip().endswith(":"):
            return None
    return _rows(opened, closed=False)


def _rows(opened: list[Mention], *, closed: bool) -> Extraction | None:
    slots = _slots(opened)
    return Extraction(slots, (), True, "list of labels", closed) if len(slots) > 1 else None


def _standing_alone(page: Page) -> Extraction | None:
    """A list of two labels or more that is the text, its beginning, or what follows its heading."""
    for part in _parts(page.text):
        inner = Page(part, page.variant, page.language)
        places = _leading_list(inner)
        labels = [place for place in places if isinstance(place, Mention)]
        if len(_slots(labels)) > 1 and all(label.slot is not None for label in labels):
            closed = not page.text.endswith(part) or (
                # A label whose option's words are still missing was cut inside of them.
                isinstance(places[-1], Mention) == (len(labels) == len(places))
                and closed_at(part, places[-1].end)
            )
            return Extraction(_slots(labels), (), True, "list of labels", closed)
    return None


def _parts(text: str) -> Iterator[str]:
    """The text, and its first paragraph; both without a heading, which ends in a colon."""
    behind = re.split(r":\s*\n", text, maxsplit=1)[-1].strip()
    yield behind
    yield re.split(r"\n\s*\n", behind, maxsplit=1)[0]


def _leading_list(page: Page) -> list[Mention | Wording]:
    """The labels and their options' words at the beginning, with nothing but joints between them.

    As many of them as end where a list may end: "A, B, D. C is correct" begins with three.
    """
    places: list[Mention | Wording] = []
    named: list[Mention | Wording] = [*page.mentions, *page.wordings]
    end = 0
    for place in sorted(named, key=lambda place: place.start):
        if not _BETWEEN_LABELS.fullmatch(page.text[end : place.start]):
            break
        places.append(place)
        end = place.end
    while places and not _LIST_ENDS.match(page.text, places[-1].end):
        places.pop()
    return places


def _beside_the_right_one(page: Page, found: Extraction) -> Extraction | None:
    """The one row of labels beside the label that was found, if that stands in none: "C, so A, B, D"."""
    if len(found.slots) != 1 or found.out_of_set or found.how in ENCLOSED:
        return None
    chains: list[list[Mention]] = []
    end = 0
    for index, mention in enumerate(page.mentions):
        if mention.is_direct and mention.start >= end:
            chains.append(page.chain(index))
            end = chains[-1][-1].end
    rows = [c for c in chains if len(_slots(c)) > 1 and all(m.slot is not None for m in c)]
    apart = [row for row in rows if found.slots[0] not in _slots(row)]
    if len(rows) != 1 or not apart:
        return None
    closed = closed_at(page.text, apart[0][-1].end)
    return Extraction(_slots(apart[0]), (), found.explicit, "labels beside the right one", closed)


def _slots(labels: list[Mention]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(m.slot for m in labels if m.slot is not None))
