"""Where a plain text names options: every label and every option's words in it, with their places.

It tells labels from articles, initials, doses and vitamins by what stands around them, finds the
options' own words, and marks what the text denies. It does not know which mention is the answer:
`extract` decides that.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from medlocal.evals.option_words import Wording, find_wordings
from medlocal.evals.phrases import (
    AFFIRMED_AFTER,
    AFTER_LABEL,
    AFTER_PRONOUN,
    CONJUNCTION,
    DENIED_AFTER,
    DENIED_BEFORE,
    FILLER,
    FITS,
    NAME_GOES_ON,
    NAMED,
    NUMBER_LEAD,
    PART_OF_NAME,
    SAID,
)
from medlocal.evals.plain import plain
from medlocal.evals.variant import Variant

_ENUMERATING = re.compile(r"\s?[)\]]|\"\s?:|\.\s|\.?$|:|\s-\s|\.?\n")
_ARTICLE = re.compile(r"\bla $", re.IGNORECASE)
_GREEK = {
    "α": ("alpha", "alfa"),
    "β": ("beta",),
    "γ": ("gamma",),
    "δ": ("delta",),
    "ε": ("epsilon",),
    "ζ": ("zeta",),
    "η": ("eta",),
    "θ": ("theta",),
    "ι": ("iota",),
    "κ": ("kappa",),
}
"""What Greek letters are called in English and Spanish, without accents."""
_LONG = 4
"""Characters of an option's words that don't stand in a sentence by chance, as "no" and "5" do."""
_WORDS = {"en": frozenset("AI"), "es": frozenset("AEOUY")}
"""Letters that are also words. A label of no option is suspected of being a word of either language."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A place where a text has what may be a label."""

    start: int
    end: int
    core: str
    """As it is written, without brackets or signs."""
    slot: int | None
    """None = a label, but of no option here."""
    is_direct: bool
    """It is a label if it stands where an answer is expected."""
    is_lone: bool
    """It is a label wherever it stands."""
    is_named: bool
    """The word option, or one like it, stands before it."""
    is_enumerator: bool
    """A bracket, a full stop, a colon or the end of its line follows, as in a list of options."""


class Page:
    """A plain text and everything in it that names an option."""

    def __init__(self, text: str, variant: Variant, language: str) -> None:
        self.text = text
        """Plain; see `plain`."""
        self.variant = variant
        self.language = language
        self.wordings = find_wordings(text, variant.options)
        """Where options' words stand, in the order of the text; never one inside another."""
        self._overruled: dict[int, int] = {}
        self.mentions = self._find_mentions()
        """What may be labels, in the order of the text."""
        self.denied = self._find_denied()
        """Starts of the mentions and wordings that the text denies."""

    def part(self, start: int, end: int) -> "Page":
        """The page that a piece of the text makes by itself."""
        return Page(self.text[start:end].strip(), self.variant, self.language)

    def skip_filler(self, position: int) -> int:
        """Where the label, or the option's words, would stand after an opening that ends at a position."""
        found = FILLER.match(self.text, position)
        position = found.end() if found else position
        return self._overruled.get(position, position)

    def mention_at(self, position: int) -> int | None:
        """Index of the mention that begins at a position; None = none does."""
        return next((i for i, m in enumerate(self.mentions) if m.start == position), None)

    def wording_at(self, position: int) -> Wording | None:
        """The option's words that begin at a position."""
        return next((w for w in self.wordings if w.start == position), None)

    def chain(self, index: int) -> list[Mention]:
        """A mention and those that "and", "or" or a comma joins to it, without the denied ones."""
        chained = [self.mentions[index]]
        for mention in self.mentions[index + 1 :]:
            gap = self.text[chained[-1].end : mention.start]
            if not (mention.is_direct and CONJUNCTION.fullmatch(gap)):
                break
            if mention.start not in self.denied:
                chained.append(mention)
        return chained

    def joined_to(self, mention: Mention) -> list[Mention]:
        """A mention after all those that are joined to it from before, without the denied ones."""
        joined = [mention]
        for earlier in reversed(self.mentions[: self.mentions.index(mention)]):
            if not self._are_joined(earlier, joined[0]):
                break
            joined.insert(0, earlier)
        return [m for m in joined if m.start not in self.denied]

    def past_words(self, mention: Mention) -> int:
        """Where a mention ends, with its option's words: the verdict on "A) Aspirin" stands there."""
        return self.behind_words(mention.end, mention.slot)

    def is_headed(self, wording: Wording) -> bool:
        """Whether a label of no option heads an option's words, as in "C. Aspirin" under bullets."""
        return wording.start in self._overruled.values()

    def behind_words(self, end: int, slot: int | None) -> int:
        """Where an option's words end that begin right behind a place; that place, where none do."""
        near = (w.end for w in self.wordings if w.slot == slot and 0 <= w.start - end < 5)
        return next(near, end)

    def sentence_end(self, position: int) -> int:
        """Where the sentence, or the line, around a position ends."""
        found = re.compile(r"[.!?;](?=\s|$)|\n").search(self.text, position)
        return found.start() if found else len(self.text)

    def _find_mentions(self) -> list[Mention]:
        labels = _label_set(self.variant.labels)
        judged = []
        for found in labels.pattern.finditer(self.text):
            if (words := self._words_behind_foreign(labels, found)) is not None:
                self._overruled[found.start()] = words.start
            else:
                judged.append(self._judge(labels, found))
        kept: list[Mention] = []
        for mention in (m for m in judged if m.is_direct):
            # "hepatitis B or C": what is joined to a name is one too.
            if kept and not kept[-1].is_lone and self._are_joined(kept[-1], mention):
                mention = replace(mention, is_lone=False)
            kept.append(mention)
        return kept

    def _judge(self, labels: "_LabelSet", found: re.Match[str]) -> Mention:
        """Tell a label from a letter, by what stands around it."""
        start, end, core = found.start(), found.end(), found[0]
        slot = labels.slots.get(core.casefold())
        before, after = self.text[max(0, start - 40) : start], self.text[end:]
        is_named = NAMED.search(before) is not None
        is_exact = core in labels.cores if slot is not None else core.isupper() or core.isdigit()
        is_exact = is_exact or core.casefold() in labels.names
        is_clear = (
            (is_exact and not labels.is_weak(core))
            or is_named
            or _standing(after) == "closed"
            or self._is_number_of_label(before, end, slot)
        )
        is_called = slot is not None and (
            is_named or (is_exact and _ARTICLE.search(before) is not None)
        )
        is_direct = not self._is_inside_words(start, end) and (
            self.own_words(end, slot) is not None or self._is_set(found, is_exact, is_called)
        )
        is_lone = is_direct and is_clear and slot is not None and not PART_OF_NAME.search(before)
        is_enumerator = _ENUMERATING.match(after) is not None
        return Mention(start, end, core, slot, is_direct, is_lone, is_named, is_enumerator)

    def _is_inside_words(self, start: int, end: int) -> bool:
        """Whether a candidate is only a part of an option's words, as the C of "Vitamin C" is."""
        around = (w for w in self.wordings if w.start <= start and end <= w.end)
        return any(w.end - w.start > end - start for w in around)

    def _is_number_of_label(self, before: str, end: int, slot: int | None) -> bool:
        """Whether what stands around a number, or a letter's name, makes it a label: no unit follows."""
        after = self.text[self.behind_words(end, slot) :]
        if FITS.match(after):
            return True
        if NUMBER_LEAD.search(before) and SAID.match(after):
            return True
        is_amount = re.search(r"\b(?:of|de|at|than|que|a|by|por|en|in)\s*$", before, re.IGNORECASE)
        return AFFIRMED_AFTER.match(after) is not None and not is_amount

    def _words_behind_foreign(self, labels: "_LabelSet", found: re.Match[str]) -> Wording | None:
        """The option's words right behind a label of no option, as in "C. Aspirin" under bullets."""
        start, end, core = found.start(), found.end(), found[0]
        is_foreign = core.casefold() not in labels.slots and (core.isupper() or core.isdigit())
        if not is_foreign or self._is_inside_words(start, end):
            return None
        near = (w for w in self.wordings if w.start > end)
        words = next(near, None)
        if words is None or self.text[end : words.start].strip(" .):]-—–\"'"):
            return None
        return words if words.end - words.start >= _LONG else None

    def own_words(self, end: int, slot: int | None) -> Wording | None:
        """The words of a label's own option right behind it, as in "A Aortic dissection"."""
        near = (
            w
            for w in self.wordings
            if w.slot == slot and w.start > end and not self.text[end : w.start].strip(" -(:.)")
        )
        return next(near, None)

    def _is_set(self, found: re.Match[str], is_exact: bool, is_called: bool) -> bool:
        """Whether a candidate is set as a label is, and not as a word or a part of a name.

        Args:
            found: the candidate.
            is_exact: it is spelt as its label is, or as labels are.
            is_called: "option" or the like, or Spanish "la", stands before it.
        """
        after = self.text[found.end() :]
        standing = _standing(after)
        if standing == "none" or NAME_GOES_ON.match(after):
            return False
        if found[0] in {"I", "i"} and NAMED.search(self.text[: found.start()]) is None:
            return AFTER_PRONOUN.match(after) is not None
        if standing != "bare":
            return standing != "comma" or is_exact
        word = (re.findall(r"\w+", after) or [""])[0]
        if not (is_exact or is_called):
            return word.casefold() in {"because", "porque", "since"}
        if (is_exact and is_called) or AFTER_LABEL.fullmatch(word):
            return True
        is_weak = _label_set(self.variant.labels).is_weak(found[0])
        return not is_weak and not self._may_be_word(found[0])

    def _may_be_word(self, core: str) -> bool:
        is_own = core.casefold() in _label_set(self.variant.labels).slots
        words = _WORDS[self.language] if is_own else _WORDS["en"] | _WORDS["es"]
        return core.upper() in words

    def _find_denied(self) -> frozenset[int]:
        denied = {m.start for m in self.mentions if self._is_denied(m.start, m.end, m.slot)}
        for left, right in zip(self.mentions, self.mentions[1:], strict=False):
            # "not A or B": what is joined to a denied label is denied with it.
            if left.start in denied and self._are_joined(left, right):
                denied.add(right.start)
        for left, right in reversed(list(zip(self.mentions, self.mentions[1:], strict=False))):
            # "A, B and D are incorrect".
            if right.start in denied and self._are_joined(left, right):
                denied.add(left.start)
        denied |= {w.start for w in self.wordings if self._is_denied(w.start, w.end, None)}
        return frozenset(denied)

    def _is_denied(self, start: int, end: int, slot: int | None) -> bool:
        if DENIED_BEFORE.search(self.text[max(0, start - 60) : start]):
            return True
        end = self.behind_words(end, slot)
        following = (m.start for m in self.mentions if m.start > end and m.is_lone)
        stop = min(next(following, len(self.text)), end + 120)
        return DENIED_AFTER.match(self.text[end:stop].lstrip(")].: -")) is not None

    def _are_joined(self, left: Mention, right: Mention) -> bool:
        return CONJUNCTION.fullmatch(self.text[left.end : right.start]) is not None


@dataclass(frozen=True, slots=True)
class _LabelSet:
    slots: dict[str, int]
    """Slot by case-folded core. Empty where cores don't tell the labels apart, as with bullets."""
    cores: frozenset[str]
    names: frozenset[str]
    """What Greek labels are also called, such as "gamma"."""
    pattern: re.Pattern[str]

    def is_weak(self, core: str) -> bool:
        """Whether a label is also an amount or a part of many names, and needs more to be clear."""
        return core.isdigit() or core.casefold() in self.names


@lru_cache(maxsize=256)
def _label_set(labels: tuple[str, ...]) -> _LabelSet:
    cores = [re.sub(r"^\W+|\W+$", "", plain(label)) for label in labels]
    slots = {core.casefold(): slot for slot, core in enumerate(cores)}
    if len(slots) < len(labels) or "" in slots:
        slots, cores = {}, []
    called = {name: slot for core, slot in slots.items() for name in _GREEK.get(core, ())}
    written = sorted([*cores, *called], key=len, reverse=True)
    # Any letter and any small number may be meant as a label, of this set or of another.
    foreign = [r"[ivx]{1,4}"] if all(re.fullmatch(r"[ivx]+", core) for core in slots) else []
    either = "|".join([*map(re.escape, written), *foreign, r"[a-z]", r"\d{1,2}"])
    pattern = rf"(?<![\w°+])(?<!\w['.-])(?<!\w\()(?<!n/)(?!n/a\b)(?:{either})(?![\w+°]|['-]\w|[.,]\d|\s?%)"
    return _LabelSet(
        slots | called, frozenset(cores), frozenset(called), re.compile(pattern, re.IGNORECASE)
    )


def _standing(tail: str) -> str:
    """How a label candidate is set off from what follows it."""
    if re.match(r"\s?[)\]}\"']", tail):
        return "closed"
    if re.match(r"\s*(?:$|\n|->|=>|→|⇒|[—–|/=&\\<]|-\s)|[.;!?](?!\w)|:|[^\w\s,]+(?=\s|$)", tail):
        return "stop"
    if re.match(r"\s*\([^()\n]*\)\s*(?:$|[\n.,;:])", tail):
        return "stop"
    if tail.startswith(","):
        return "comma"
    return "bare" if re.match(r"\s+\S", tail) else "none"
