"""Single answers for the page's browser: which of them are shown, and how they are packed.

Texts are stored once: most lines of a prompt are those of another prompt, and the system turn is that
of all. Which answers are taken depends on nothing but their items' ids and their number. An item comes
with all that was asked of it or not at all; where too few items would fit, with all its variants and
arms under one prompt and in one form, so that whatever is to be read side by side is there. How the page
shows them is not known here.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from medlocal.evals.answers import GRADER_VERSION
from medlocal.evals.pairing import is_counted, is_same
from medlocal.evals.perturb import ORIGINAL
from medlocal.evals.scoring import GradedAnswer
from medlocal.report import wording
from medlocal.report.answers import replies, stored_variant
from medlocal.report.load import graded_answers
from medlocal.store import Record, Store, StoredGrade, StoredJob

MOST = 10_000
"""Answers that a page holds."""
FEWEST_ITEMS = 10
"""Items of a language that a page has room for before it leaves out parts of them."""

_Placed = tuple[tuple[int, ...], str, str, str]
"""Part, language, hash of the source item, item."""

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

FLIPS = ("right→wrong", "wrong→right", "wrong→other")
"""Against the original of the same item, prompt, format and arm."""


@dataclass(frozen=True, slots=True)
class Question:
    """One answer with everything that a reader needs to judge it."""

    key: str
    """Of the job."""
    model: str
    dataset: str
    item_id: str
    language: str
    variant: str
    verified: bool
    prompt: str
    format: str
    arm: str
    messages: tuple[tuple[str, str], ...]
    """(role, content) in order."""
    options: tuple[tuple[str, str], ...]
    """(label, text) per slot."""
    gold: int
    """The slot that is right."""
    reply: str
    """What must be written to be right."""
    output: str
    """As it came: it may hold anything. "" for arms that generate nothing."""
    finish: str
    outcome: str
    answer: int | None
    """The slot chosen; None = none."""
    correct: bool
    reason: str
    scores: tuple[tuple[str, float], ...] = ()
    """(name, log-probability), for arms that score."""
    flip: str = ""
    """One of `FLIPS`; "" = the same as in the original, or there is nothing to compare with."""


def read_questions(
    store: Store, run_ids: Sequence[str], *, most: int = MOST
) -> tuple[Question, ...]:
    """The graded answers of some runs, as far as there is room for them.

    Items are taken in the order of a hash of their source item, by turns from every language; the
    first that does not fit ends it. Where fewer than `FEWEST_ITEMS` of a language fit, items are taken
    under the prompt and in the form that was asked most, then under the next. A job of several runs is
    taken once.

    Args:
        store: the workspace's.
        run_ids: full ids.
        most: answers to take at most.

    Raises:
        UsageError: there is no such run.
    """
    graded = {a.key: a for run_id in run_ids for a in graded_answers(store, run_id)}
    flips = _flips(graded.values())
    chosen = _chosen(graded.values(), most)
    found = []
    for run_id in run_ids:
        for job in store.jobs(run_id):
            if job.key in chosen:
                chosen.remove(job.key)
                record, grade = store.record(job.key), store.grade(job.key, GRADER_VERSION)
                assert record is not None, "what is graded was answered"
                assert grade is not None
                found.append(_question(job, grade, record, flips.get(job.key, "")))
    return tuple(found)


def to_json(questions: Iterable[Question]) -> str:
    """The answers as JSON that may stand inside a `script` element: there is no "<" in it.

    `texts` are lines; wherever a text is meant there is a number, or a list of numbers of lines.
    `asked` holds [data set, item, language, variant, verified, prompt, format, messages as pairs of
    role and text, options as pairs of label and text, gold slot, reply], `answers` [key, number in
    `asked`, model, arm, output, finish, outcome, slot or null, correct, reason, scores as pairs of
    name and number, flip], grouped so that those of one question follow each other. Characters that
    cannot be seen are written as U+ and their number.
    """
    texts, asked = _Texts(), dict[tuple[object, ...], int]()
    rows: list[list[object]] = []
    answers: list[list[object]] = []
    for question in sorted(questions, key=_place):
        row = _asked(question)
        if row not in asked:
            asked[row] = len(asked)
            rows.append(_packed_question(question, texts))
        answers.append([question.key, asked[row], *_packed_answer(question, texts)])
    answers.sort(key=lambda answer: answer[1])  # type: ignore[arg-type,return-value]
    packed = {"texts": list(texts.numbers), "asked": rows, "answers": answers}
    text = json.dumps(packed, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def visible(text: str) -> str:
    """The text with every character that cannot be seen, or would steer what is shown, spelled out.

    An escape becomes "[U+001B]"; line feeds and spaces of any width stay, tabs become spaces.
    """
    lines = text.replace("\r\n", "\n").expandtabs(4)
    return lines if lines.isprintable() else "".join(map(_visible, lines))


def _visible(char: str) -> str:
    is_shown = char == "\n" or unicodedata.category(char) not in _INVISIBLE
    return char if is_shown else f"[U+{ord(char):04X}]"


class _Texts:
    """Numbers the lines of texts, in the order in which they come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, text: str) -> int | list[int]:
        """The number of a line, or the numbers of several."""
        lines = [self.numbers.setdefault(x, len(self.numbers)) for x in visible(text).split("\n")]
        return lines[0] if len(lines) == 1 else lines


def _place(question: Question) -> tuple[str, ...]:
    is_changed = "1" if question.variant != ORIGINAL else "0"
    item = (question.dataset, question.item_id, question.language, is_changed, question.variant)
    return *item, question.prompt, question.format, question.model, question.arm


def _asked(question: Question) -> tuple[object, ...]:
    """What the answers of one question share, so that they stand side by side."""
    names = (question.dataset, question.item_id, question.language, question.variant)
    form = (question.verified, question.prompt, question.format, question.messages)
    return *names, *form, question.options, question.gold, question.reply


def _packed_question(question: Question, texts: _Texts) -> list[object]:
    names = (question.dataset, question.item_id, question.language, question.variant)
    return [
        *map(texts.of, names),
        int(question.verified),
        texts.of(question.prompt),
        texts.of(question.format),
        [[texts.of(role), texts.of(content)] for role, content in question.messages],
        [[texts.of(label), texts.of(text)] for label, text in question.options],
        question.gold,
        texts.of(question.reply),
    ]


def _packed_answer(question: Question, texts: _Texts) -> list[object]:
    scores = [[texts.of(name), wording.plain(round(s, 4))] for name, s in question.scores]
    return [
        *(texts.of(name) for name in (question.model, question.arm, question.output)),
        texts.of(question.finish),
        texts.of(question.outcome),
        question.answer,
        int(question.correct),
        texts.of(question.reason),
        scores,
        texts.of(question.flip),
    ]


def _chosen(answers: Collection[GradedAnswer], most: int) -> set[str]:
    """The keys of those that are taken."""
    whole = _fitting(answers, most, lambda answer: ())
    items = {(answer.language, answer.item_id) for answer in answers if answer.key in whole}
    languages = {answer.language for answer in answers}
    if len(whole) == len(answers) or len(items) >= FEWEST_ITEMS * len(languages):
        return whole
    # Of a question that was asked a thousand times over, its variants under one prompt and in one form
    # are what is read side by side; the condition with most answers comes first.
    numbers = Counter((answer.prompt, answer.format) for answer in answers)
    ranks = {
        name: rank for rank, name in enumerate(sorted(numbers, key=lambda n: (-numbers[n], n)))
    }
    return _fitting(answers, most, lambda answer: (ranks[answer.prompt, answer.format],))


def _fitting(
    answers: Iterable[GradedAnswer], most: int, part_of: Callable[[GradedAnswer], tuple[int, ...]]
) -> set[str]:
    """The keys of the items, or of the parts of items, that fit; parts in the order of their numbers."""
    groups: dict[_Placed, list[str]] = {}
    for answer in answers:
        digest = hashlib.sha256(answer.group_id.encode("utf-8")).hexdigest()
        place = (part_of(answer), answer.language, digest, answer.item_id)
        groups.setdefault(place, []).append(answer.key)
    chosen: set[str] = set()
    for place in _by_turns(sorted(groups)):
        if len(chosen) + len(groups[place]) > most:
            break
        chosen |= set(groups[place])
    return chosen


def _by_turns(places: Sequence[_Placed]) -> Iterator[_Placed]:
    """Part by part: the first item of every language, then the second of every language, and so on.

    Args:
        places: sorted.
    """
    ranked = []
    for _, group in groupby(places, key=lambda place: place[:2]):
        ranked += [(place[0], rank, place) for rank, place in enumerate(group)]
    for *_, place in sorted(ranked):
        yield place


def _flips(answers: Collection[GradedAnswer]) -> dict[str, str]:
    """By job key, how an answer differs from that to the original; keys without a flip are left out."""
    originals = {_condition(a): a for a in answers if a.variant == ORIGINAL}
    found = {}
    for answer in answers:
        old = originals.get(_condition(answer))
        if old is not None and old is not answer and (flip := _flip(old, answer)):
            found[answer.key] = flip
    return found


def _condition(answer: GradedAnswer) -> tuple[str, ...]:
    item = (answer.model, answer.dataset, answer.language, answer.item_id)
    return *item, answer.prompt, answer.format, answer.arm


def _flip(old: GradedAnswer, new: GradedAnswer) -> str:
    if not (is_counted(old) and is_counted(new)) or (old.correct and new.correct):
        return ""
    if old.correct or new.correct:
        return FLIPS[0] if old.correct else FLIPS[1]
    return "" if is_same(old, new) else FLIPS[2]


def _question(job: StoredJob, grade: StoredGrade, record: Record, flip: str) -> Question:
    variant = stored_variant(job)
    scores = record.stats.get("scores")
    assert scores is None or isinstance(scores, Mapping)
    return Question(
        key=job.key,
        model=job.model,
        dataset=job.dataset,
        item_id=job.item_id,
        language=job.language,
        variant=job.variant,
        verified=variant["verified"],
        prompt=job.prompt,
        format=job.format,
        arm=job.arm,
        messages=job.messages,
        options=tuple(zip(variant["labels"], variant["options"], strict=True)),
        gold=variant["gold"],
        reply=replies(variant)[variant["gold"]],
        output=record.text or record.error,
        finish=record.finish,
        outcome=grade.outcome,
        answer=grade.slot,
        correct=grade.correct,
        reason=grade.reason,
        scores=tuple((str(name), float(score)) for name, score in (scores or {}).items()),
        flip=flip,
    )
