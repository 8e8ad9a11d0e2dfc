"""The lenient extractor: which option an output means when it is not in the form that was asked for.

An output is read for statements ("the answer is …", "la opción correcta es …", JSON, a tag, a box, a
label at the beginning or on a line of its own), and the strongest kind of statement wins; of several of
one kind the last, because later wins over earlier. Only without any statement do labels and options'
words count wherever they stand. Nothing is ever guessed: two options are two, and none is none.

This module knows nothing of outcomes, of why a generation stopped, or of what is right.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from medlocal.evals import phrases
from medlocal.evals.mentions import Mention, Page
from medlocal.evals.option_words import Wording
from medlocal.evals.plain import plain
from medlocal.evals.variant import Variant

ENCLOSED = frozenset({"JSON", "tag", "box"})
"""The kinds of `Extraction.how` that are a form with an end of its own."""
FINAL = ENCLOSED | {"final answer", "answer statement", "answer line"}
"""The kinds of `Extraction.how` that state an answer in so many words."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a text names as its answer."""

    slots: tuple[int, ...] = ()
    """In the order of the text; more than one = undecided."""
    out_of_set: tuple[str, ...] = ()
    """Labels that no option has."""
    explicit: bool = False
    """It was stated, by an answer statement, JSON, a tag or a label at the beginning; False = it was
    only mentioned."""
    how: str = "nothing"
    """By what it was found, in words."""
    closed: bool = False
    """Something ends it: its form's bracket, a full stop, a new line or other words. False = it may have
    been about to go on."""


@dataclass(frozen=True, slots=True)
class _Statement:
    start: int
    end: int
    slots: tuple[int, ...]
    out_of_set: tuple[str, ...]
    rank: int
    """3 = final or in a form of its own, 2 = stated, 1 = somewhere in the sentence of a statement."""
    how: str
    closed: bool | None = None
    """Whether a form that encloses it was closed; None = none does."""


_OPENERS = (
    (phrases.BARE_HEAD, "answer statement"),
    (phrases.PLACEHOLDER, "answer statement"),
    (phrases.CHOICE, "choice"),
    (phrases.CONCLUSION, "conclusion"),
    (phrases.CORRECTION, "correction"),
)
"""What a label must follow at once to be an answer."""
_LOOSE = frozenset({"answer statement", "choice"})
"""Openers so clear that nothing need set the label off from what follows it."""


def extract(text: str, variant: Variant, language: str, form: str) -> Extraction:
    """Find what an output names as its answer, in English or Spanish, whichever it is written in.

    Args:
        text: the output as it came.
        variant: the labels and options that were shown.
        language: of the prompt; it tells which single letters are also words.
        form: name of the format that was asked for. In "text", an option's words come before a
            label that is spelt like them.
    """
    page = Page(plain(text), variant, language)
    if form == "text" and (slot := _whole_wording(page)) is not None:
        return Extraction((slot,), (), True, "option's words")
    # What follows a complete answer is a question that the model made up and answered itself. Three
    # are tried: the prompt may stand repeated before the answer, and a loop may repeat it for ever.
    for run_on in islice(phrases.RUN_ON.finditer(page.text), 3):
        before = _read_as(page.part(0, run_on.start()), form)
        if before.explicit and len(before.slots) == 1:
            return before
    return _read_as(page, form)


def closed_at(text: str, end: int) -> bool:
    """Whether what stands behind a place in a plain text ends the list of labels that ends there."""
    rest = text[end:].lstrip(" )]}\"'")
    return bool(rest) and phrases.GOES_ON.match(rest) is None


def _read_as(page: Page, form: str) -> Extraction:
    """Read a page; in "reasoned", its last line that opens as the answer's line alone, if it has one."""
    opened = list(phrases.ANSWER_LINE.finditer(page.text)) if form == "reasoned" else []
    if opened:
        found = _read(page.part(_start_of_last(page.text, opened), len(page.text)))
        if found.explicit and found.slots:
            return replace(found, how="answer line")
    return _read(page)


def _start_of_last(text: str, opened: list[re.Match[str]]) -> int:
    """Where the last answer's line begins, or the first of several that stand one below the other."""
    start = opened[-1].start()
    for line in reversed(opened[:-1]):
        if "\n" in text[line.end() : start].strip():
            break
        start = line.start()
    return start


def _read(page: Page, *, is_enclosed: bool = False) -> Extraction:
    """Read a page.

    Args:
        page: the whole output, or what stands in JSON, a tag or a box in it.
        is_enclosed: the latter. Forms inside of forms are not opened, however deep a loop nests them.
    """
    if (whole := _whole(page)) is not None:
        return whole
    listed = _listed(page)
    statements = list(_statements(page, listed))
    if not is_enclosed:
        statements += _enclosed(page)
    statements = _after_correction(page, sorted(statements, key=lambda s: s.end))
    return _strongest(page, statements) if statements else _mentioned(page, listed)


def _whole(page: Page) -> Extraction | None:
    """The answer of a text that is nothing but one label or one option's words."""
    core = page.text.strip(" \t\n.,;:!?()[]{}\"'-—–<>")
    alone = [mention for mention in page.mentions if mention.core == core]
    if alone and alone[0].slot is not None:
        return Extraction((alone[0].slot,), (), True, "label alone")
    if (slot := _whole_wording(page)) is not None:
        return Extraction((slot,), (), True, "option's words")
    return Extraction((), (core,), True, "label alone") if alone else None


def _whole_wording(page: Page) -> int | None:
    for wording in page.wordings:
        rest = page.text[: wording.start] + page.text[wording.end :]
        if not re.search(r"\w", rest):
            return wording.slot
    return None


def _listed(page: Page) -> frozenset[int]:
    """Starts of the labels that only open the lines of a list of options.

    A list is three labels in a row or more, all of them, or two on lines of their own (or as the keys
    of JSON). A label that an answer statement names never continues a list, though it may begin one
    ("the correct answer: A) … B) …").
    """
    headed = {page.skip_filler(found.end()) for found in phrases.STATEMENT.finditer(page.text)}
    runs: list[list[Mention]] = []
    for mention in page.mentions:
        if not mention.is_enumerator or mention.slot is None or mention.start in page.denied:
            continue
        is_next = runs and mention.slot == (runs[-1][-1].slot or 0) + 1
        if is_next and mention.start not in headed:
            runs[-1].append(mention)
        else:
            runs.append([mention])
    lists = [run for run in runs if _is_list(page, run)]
    return frozenset(mention.start for run in lists for mention in run)


def _is_list(page: Page, run: list[Mention]) -> bool:
    if len(run) >= min(3, len(page.variant.labels)):
        return True
    on_lines = all(re.search(r"(?:(?:^|\n)[ (\[]*|[{,]\s*\")$", page.text[: m.start]) for m in run)
    return len(run) == 2 and on_lines


def _statements(page: Page, listed: frozenset[int]) -> Iterator[_Statement]:
    """All statements; of several that end at one place the most telling kind comes last."""
    yield from _leading(page, listed)
    yield from _own_lines(page, listed)
    yield from _turned(page)
    for pattern, how in _OPENERS:
        for found in pattern.finditer(page.text):
            if pattern is phrases.PLACEHOLDER and not _is_placeholder(page, found):
                continue
            index = _direct(page, page.skip_filler(found.end()), listed)
            if index is not None and (how in _LOOSE or _is_set_off(page, page.mentions[index])):
                yield _chained(page, index, found.start(), 2, how)
    for found in phrases.STATEMENT.finditer(page.text):
        yield from _stated(page, found, listed)
    yield from _verdict(page)


def _is_placeholder(page: Page, found: re.Match[str]) -> bool:
    """Whether a sign is no label and no part of a name, as the X of "factor X" is."""
    named = phrases.PART_OF_NAME.search(page.text[max(0, found.start() - 40) : found.start()])
    is_on_line = "\n" not in page.text[found.end() : page.skip_filler(found.end())]
    return found[0][0] not in page.variant.labels and named is None and is_on_line


def _verdict(page: Page) -> Iterator[_Statement]:
    """The one label that is answered with yes where every label has its yes or no."""
    verdicts = {
        mention: verdict
        for mention in page.mentions
        if mention.slot is not None
        and (verdict := phrases.VERDICT.match(page.text, page.past_words(mention)))
    }
    right = [mention for mention, verdict in verdicts.items() if verdict["yes"]]
    slots = {mention.slot for mention in verdicts}
    if len(right) == 1 and len(slots) == len(verdicts) == len(page.variant.labels):
        last = max(verdict.end() for verdict in verdicts.values())
        yield _Statement(right[0].start, last, _slots(right), (), 2, "turned statement")


def _enclosed(page: Page) -> Iterator[_Statement]:
    """What stands in JSON, in a tag or in a box is read as if it were the whole output."""
    for pattern, how in ((phrases.JSON, "JSON"), (phrases.TAG, "tag"), (phrases.BOX, "box")):
        for found in pattern.finditer(page.text):
            name = next((n for n, value in found.groupdict().items() if value and n != "tag"), None)
            if name is None:
                continue
            inner = _read(page.part(*found.span(name)), is_enclosed=True)
            if inner.slots or inner.out_of_set:
                closed = _is_form_closed(page.text, found, name)
                yield _Statement(*found.span(), inner.slots, inner.out_of_set, 3, how, closed)


def _is_form_closed(text: str, found: re.Match[str], name: str) -> bool:
    """Whether a form has its own end behind its value."""
    behind = found[0][found.end(name) - found.start() :]
    # A value of JSON without quotes ends where the next sign of JSON stands.
    return bool(behind.strip()) or (
        name == "bare" and text[found.end() :].strip()[:1] in {",", "}"}
    )


def _stated(page: Page, found: re.Match[str], listed: frozenset[int]) -> Iterator[_Statement]:
    """What follows "the answer is": a label, an option's words, or something later in the sentence."""
    if any(found.start("gap") <= m.start < found.end("gap") and m.is_lone for m in page.mentions):
        return  # "option B is …" is the statement turned round
    is_final = bool(found["final"] or found["final_after"])
    rank, how = (3, "final answer") if is_final else (2, "answer statement")
    position = page.skip_filler(found.end())
    if (index := _direct(page, position, listed)) is not None:
        yield _chained(page, index, found.start(), rank, how)
        return
    article = re.compile(r"(?:an?|una?)\s+", re.IGNORECASE).match(page.text, position)
    wording = page.wording_at(position) or (page.wording_at(article.end()) if article else None)
    if wording is not None and _is_said(page, wording):
        yield _worded(page, wording, found.start(), rank, how)
        return
    end = page.sentence_end(position)
    labels = [m for m in _lone(page, listed) if position <= m.start < end]
    words = [w for w in _long_wordings(page) if position <= w.start < end]
    if slots := _slots(labels or words):
        yield _Statement(found.start(), end, slots, (), rank - 1, how)


def _direct(page: Page, position: int, listed: frozenset[int]) -> int | None:
    """Index of the mention that begins at a position, if it is an answer there."""
    index = page.mention_at(position)
    if index is None or position in page.denied or position in listed:
        return None
    # "The answer is 10" means the option whose words are 10, not a label that no option has.
    is_words = page.mentions[index].slot is None and page.wording_at(position) is not None
    return None if is_words else index


def _chained(page: Page, index: int, start: int, rank: int, how: str) -> _Statement:
    chain = page.chain(index)
    end = chain[-1].end
    outside = tuple(dict.fromkeys(m.core for m in chain if m.slot is None))
    # "B or", and there the text was cut: the alternative is missing.
    is_dangling = phrases.DANGLING.fullmatch(page.text, end) is not None
    return _Statement(start, end, _slots(chain), outside, 1 if is_dangling else rank, how)


def _worded(page: Page, wording: Wording, start: int, rank: int, how: str) -> _Statement:
    """A statement in an option's words; a label right behind them says it better than they do."""
    sign = phrases.LABEL_SIGN.match(page.text, wording.end)
    if sign and (index := _direct(page, page.skip_filler(sign.end()), frozenset())) is not None:
        return _chained(page, index, start, rank, how)
    joined = [wording]
    for other in page.wordings:
        gap = page.text[joined[-1].end : max(other.start, joined[-1].end)]
        # Said behind an option, none-of-the-others is said of the others.
        if (
            other.start > wording.start
            and not other.is_nota
            and (phrases.CONJUNCTION.fullmatch(gap) or not re.search(r"\w", gap))
        ):
            joined.append(other)
    return _Statement(start, joined[-1].end, _slots(joined), (), rank, how)


def _turned(page: Page) -> Iterator[_Statement]:
    """What stands before its verdict: "C is the correct answer", "la opción B es la más adecuada"."""
    labels = [m for m in page.mentions if m.is_lone or (m.slot is None and m.core.isupper())]
    named: list[Mention | Wording] = sorted(
        [*labels, *page.wordings], key=lambda named: named.start
    )
    ends = [*(m.start for m in labels), len(page.text)]
    for place in named:
        end = page.past_words(place) if isinstance(place, Mention) else place.end
        stop = min(at for at in ends if at >= end or at == len(page.text))
        found = phrases.AFFIRMED_AFTER.match(page.text[end:stop])
        if found and place.start not in page.denied:
            together = page.joined_to(place) if isinstance(place, Mention) else [place]
            outside = tuple(m.core for m in together if isinstance(m, Mention) and m.slot is None)
            end += found.end()
            yield _Statement(place.start, end, _slots(together), outside, 2, "turned statement")


def _own_lines(page: Page, listed: frozenset[int]) -> Iterator[_Statement]:
    for line in re.finditer(r"^.+$", page.text, re.MULTILINE):
        index = _direct(page, page.skip_filler(line.start()), listed)
        if index is None or _is_foreign_number(page.mentions[index]):
            continue
        if not re.search(r"\w", page.text[page.mentions[index].end : line.end()]):
            yield _chained(page, index, line.start(), 2, "label on its own line")


def _leading(page: Page, listed: frozenset[int]) -> Iterator[_Statement]:
    position = page.skip_filler(0)
    index = _direct(page, position, listed)
    if index is not None:
        mention = page.mentions[index]
        # A number or a letter of no option must look like a label: "1. First, …", "I, as an AI".
        if mention.slot is not None or (mention.is_enumerator and not mention.core.isdigit()):
            yield _chained(page, index, 0, 2, "leading label")
        return
    wording = page.wording_at(position)
    if (
        wording
        and wording.start not in page.denied
        and phrases.SET_OFF.match(page.text, wording.end)
    ):
        said = _worded(page, wording, 0, 2, "option's words")
        # Words that a label of no option heads stand behind that label, as behind one of the set.
        yield replace(said, end=position) if page.is_headed(wording) else said


def _after_correction(page: Page, statements: list[_Statement]) -> list[_Statement]:
    """Only what was stated after the last word that takes something back, if anything was."""
    words = [*phrases.CORRECTION.finditer(page.text), *phrases.SECOND_THOUGHT.finditer(page.text)]
    for word in sorted(words, key=lambda found: -found.start()):
        later = [s for s in statements if s.start >= word.start() and s.slots and s.rank >= 2]
        if later:
            return later
    return statements


def _strongest(page: Page, statements: list[_Statement]) -> Extraction:
    """The last statement of the strongest kind.

    A label of no option counts only where no option is stated: it may be the placeholder of the
    instruction, repeated. Different answers stated in one breath are several.
    """
    pool = [s for s in statements if s.slots and s.rank >= 2] or statements
    rank = max(s.rank for s in pool)
    *earlier, last = (s for s in pool if s.rank == rank)
    slots, start = last.slots, last.start
    for statement in reversed(earlier):
        between = page.text[statement.end : max(start, statement.end)]
        if len(last.slots) != 1 or len(statement.slots) != 1 or re.search(r"\w", between):
            break
        slots, start = (*statement.slots, *slots), statement.start
    slots = tuple(dict.fromkeys(slots))
    closed = _is_closed(page, last) if last.closed is None else last.closed
    if doubts := _doubts(page, last.end, slots):
        return Extraction((*slots, *doubts), last.out_of_set, False, f"{last.how}, then taken back")
    return Extraction(slots, last.out_of_set, rank >= 2, last.how, closed)


def _is_closed(page: Page, last: _Statement) -> bool:
    """Whether something ends a statement, were it the beginning of a list."""
    if len(last.slots) != 1:
        return closed_at(page.text, last.end)
    # Behind one label even a full stop may be the label's own, with the next one to come.
    end = page.behind_words(last.end, last.slots[0])
    return re.compile(r"[)\]}\"'.]*[^\S\n]*\n").match(page.text, end) is not None


def _doubts(page: Page, end: int, slots: tuple[int, ...]) -> tuple[int, ...]:
    """Slots that are named after a word that takes the answer back."""
    word = phrases.CORRECTION.search(page.text, end)
    if word is None:
        return ()
    later = [m for m in _lone(page, frozenset()) if m.start >= word.start()]
    return tuple(slot for slot in _slots(later) if slot not in slots)


def _mentioned(page: Page, listed: frozenset[int]) -> Extraction:
    """What a text without any statement names: "option C", else a label, else an option's words."""
    lone = _lone(page, listed)
    named = [i for i, m in enumerate(page.mentions) if m.is_named and _is_offered(page, m, listed)]
    if named:
        chains = [mention for index in named for mention in page.chain(index)]
        outside = tuple(dict.fromkeys(m.core for m in chains if m.slot is None))
        return Extraction(_slots(chains), outside, False, "option named")
    if lone:
        return Extraction(_slots(lone), (), False, "label mentioned")
    if listed:
        labels = [m for m in page.mentions if m.start in listed]
        return Extraction(_slots(labels), (), False, "options listed")
    if words := _long_wordings(page):
        return Extraction(
            _slots(_without_remark(page, words)), (), False, "option's words mentioned"
        )
    return Extraction()


def _without_remark(page: Page, words: list[Wording]) -> list[Wording]:
    """The wordings, where others were named before none-of-the-others: either it alone or all but it.

    Behind "but" or "so" it is the answer, elsewhere it is said of the other options.
    """
    nota = next((w for w in words if w.is_nota), None)
    if nota is None or words[0].slot == nota.slot:
        return words
    is_answer = phrases.TURNING.search(page.text[: nota.start]) is not None
    return [w for w in words if w.is_nota == is_answer]


def _is_offered(page: Page, mention: Mention, listed: frozenset[int]) -> bool:
    is_foreign = mention.slot is None and mention.core.isupper()
    free = mention.start not in page.denied and mention.start not in listed
    return free and (mention.is_lone or is_foreign)


def _lone(page: Page, listed: frozenset[int]) -> list[Mention]:
    skipped = page.denied | listed
    return [m for m in page.mentions if m.is_lone and m.start not in skipped]


def _long_wordings(page: Page) -> list[Wording]:
    return [w for w in page.wordings if _is_long(w) and w.start not in page.denied]


def _is_said(page: Page, wording: Wording) -> bool:
    is_whole = _is_long(wording) or phrases.SET_OFF.match(page.text, wording.end) is not None
    return is_whole and wording.start not in page.denied


def _is_set_off(page: Page, mention: Mention) -> bool:
    return mention.is_lone and phrases.SAID.match(page.text, page.past_words(mention)) is not None


def _is_long(wording: Wording) -> bool:
    """Long enough not to stand in a sentence by chance, as "no" and "5" do."""
    return wording.end - wording.start >= 4


def _is_foreign_number(mention: Mention) -> bool:
    return mention.slot is None and mention.core.isdigit()


def _slots(places: Iterable[Mention | Wording]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(place.slot for place in places if place.slot is not None))
