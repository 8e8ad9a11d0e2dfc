"""Which answers the page holds, and how they are packed."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from medlocal.errors import UsageError
from medlocal.evals.answers import GRADER_VERSION
from medlocal.evals.items import Item
from medlocal.evals.perturb import apply
from medlocal.report.browser import Question, read_questions, to_json, visible
from medlocal.store import Record, Store, StoredGrade, StoredJob
from tests.report.page_values import HOSTILE, some_questions

OPTIONS = ("suero", "furosemida", "nitroglicerina", "metoprolol")


def an_item(number: int, language: str) -> Item:
    return Item(
        id=f"q{number}",
        dataset="starter",
        split="test",
        language=language,
        stem=f"¿Qué se da primero? ({number})",
        options=OPTIONS,
        gold=0,
        subject="cardiology",
        group=f"starter/q{number}",
    )


def a_job(item: Item, variant: str = "original", arm: str = "free", **changes: Any) -> StoredJob:
    shown = apply(item, variant)
    values = {**asdict(shown)}
    values["item"].pop("rationale")
    job = StoredJob(
        key=f"{item.language}-{item.id}-{variant}-{arm}",
        model="demo",
        dataset="starter",
        item_id=item.id,
        group_id=item.group,
        language=item.language,
        variant=shown.name,
        prompt="plain",
        format="letter",
        arm=arm,
        payload={"variant": values, "examples": []},
        messages=(("system", "Responda."), ("user", shown.stem)),
    )
    return replace(job, **changes)


def graded(job: StoredJob, content: int | None, outcome: str = "STRICT_VALID") -> StoredGrade:
    """The grade of an answer that means one of the item's options, or none of them."""
    variant: Any = job.payload["variant"]
    slot = None if content is None else list(variant["origin"]).index(content)
    return StoredGrade(job.key, GRADER_VERSION, outcome, slot, content, content == 0, "Said so.")


def fill(path: Path, answers: list[tuple[StoredJob, StoredGrade | None]]) -> tuple[Store, str]:
    store = Store(path / "medlocal.db")
    run = store.create_run({"suite": "quick", "model": "demo"})
    store.add_jobs(run, [job for job, _ in answers])
    records = [
        Record(
            job.key,
            text="A",
            finish="stop",
            token_ids=(),
            logprobs=(),
            stats={"scores": {"A": -0.5, "B": -1.5}} if job.arm == "label" else {},
        )
        for job, grade in answers
        if grade
    ]
    store.put(run, records, [grade for _, grade in answers if grade])
    return store, run


def a_study(path: Path, num_items: int = 3) -> tuple[Store, str]:
    """Two variants in two arms of some questions in two languages: four answers a question."""
    jobs = [
        a_job(an_item(number, language), variant, arm)
        for language in ("en", "es")
        for number in range(num_items)
        for variant in ("original", "rotate(1)")
        for arm in ("free", "label")
    ]
    return fill(path, [(job, graded(job, 0)) for job in jobs])


class TestRead:
    def test_an_answer_comes_with_what_was_asked_and_said(self, tmp_path: Path) -> None:
        job = a_job(an_item(1, "es"), "rotate(1)")
        store, run = fill(tmp_path, [(job, graded(job, 2))])
        (question,) = read_questions(store, [run])
        assert question == Question(
            key=job.key,
            model="demo",
            dataset="starter",
            item_id="q1",
            language="es",
            variant="rotate(1)",
            verified=True,
            prompt="plain",
            format="letter",
            arm="free",
            messages=(("system", "Responda."), ("user", "¿Qué se da primero? (1)")),
            options=(
                ("A", "metoprolol"),
                ("B", "suero"),
                ("C", "furosemida"),
                ("D", "nitroglicerina"),
            ),
            gold=1,
            reply="B",
            output="A",
            finish="stop",
            outcome="STRICT_VALID",
            answer=3,
            correct=False,
            reason="Said so.",
        )

    def test_scores_come_along(self, tmp_path: Path) -> None:
        job = a_job(an_item(1, "es"), arm="label")
        store, run = fill(tmp_path, [(job, graded(job, 0, "SCORED"))])
        assert read_questions(store, [run])[0].scores == (("A", -0.5), ("B", -1.5))

    def test_what_is_not_answered_is_left_out(self, tmp_path: Path) -> None:
        answered, waiting = a_job(an_item(1, "es")), a_job(an_item(2, "es"))
        store, run = fill(tmp_path, [(answered, graded(answered, 0)), (waiting, None)])
        assert [q.item_id for q in read_questions(store, [run])] == ["q1"]

    def test_a_job_of_two_runs_is_taken_once(self, tmp_path: Path) -> None:
        job = a_job(an_item(1, "es"))
        store, run = fill(tmp_path, [(job, graded(job, 0))])
        other = store.create_run({"suite": "quick", "model": "demo"})
        store.add_jobs(other, [job])
        assert len(read_questions(store, [run, other])) == 1

    def test_an_unknown_run_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            read_questions(Store(tmp_path / "medlocal.db"), ["20260101-000000-0000"])


class TestChoice:
    def test_a_question_is_whole_or_not_there(self, tmp_path: Path) -> None:
        store, run = a_study(tmp_path)
        found = read_questions(store, [run], most=11)
        assert len(found) == 8  # two questions of four answers, the third would not fit
        counts = {(q.language, q.item_id) for q in found}
        assert len(counts) == 2

    def test_languages_are_balanced(self, tmp_path: Path) -> None:
        store, run = a_study(tmp_path)
        found = read_questions(store, [run], most=16)
        assert [sum(q.language == code for q in found) for code in ("en", "es")] == [8, 8]
        items = [{q.item_id for q in found if q.language == code} for code in ("en", "es")]
        assert items[0] == items[1]  # the same questions, in both languages

    def test_the_order_of_the_run_does_not_matter(self, tmp_path: Path) -> None:
        store, run = a_study(tmp_path)
        backwards = store.create_run({"suite": "quick", "model": "demo"})
        store.add_jobs(backwards, reversed(list(store.jobs(run))))
        one = {q.key for q in read_questions(store, [run], most=8)}
        assert one == {q.key for q in read_questions(store, [backwards], most=8)}

    def test_more_room_only_adds(self, tmp_path: Path) -> None:
        store, run = a_study(tmp_path)
        few, more = ({q.key for q in read_questions(store, [run], most=most)} for most in (8, 100))
        assert few < more
        assert len(more) == 24

    def test_where_few_questions_fit_the_condition_that_was_asked_most_comes_first(
        self, tmp_path: Path
    ) -> None:
        """Six questions, of each 12 answers: under `plain` two variants in two arms, and under eight
        others the original in one arm. Whole, room for 48 is four questions; in parts it is all six
        under `plain`, and then one after the other under `p0`, as long as there is room."""
        usual = [
            a_job(an_item(number, language), variant, arm)
            for language in ("en", "es")
            for number in range(3)
            for variant in ("original", "rotate(1)")
            for arm in ("free", "label")
        ]
        others = [
            replace(job, key=f"{job.key}-{n}", prompt=f"p{n}")
            for job in usual
            if (job.variant, job.arm) == ("original", "free")
            for n in range(8)
        ]
        store, run = fill(tmp_path, [(job, graded(job, 0)) for job in (*usual, *others)])
        found = read_questions(store, [run], most=48)
        numbers = Counter(question.prompt for question in found)
        assert (numbers["plain"], sum(numbers.values())) == (24, 48)
        assert numbers == {"plain": 24, "p0": 6, "p1": 6, "p2": 6, "p3": 6}


class TestFlips:
    @pytest.mark.parametrize(
        ("before", "after", "flip"),
        [
            (0, 0, ""),
            (0, 1, "right→wrong"),
            (0, None, "right→wrong"),
            (1, 0, "wrong→right"),
            (1, 2, "wrong→other"),
            (1, 1, ""),
            (1, None, "wrong→other"),
            (None, None, "wrong→other"),  # an answer that cannot be read equals nothing
        ],
    )
    def test_a_flip_is_told_against_the_original(
        self, tmp_path: Path, before: int | None, after: int | None, flip: str
    ) -> None:
        old, new = a_job(an_item(1, "es")), a_job(an_item(1, "es"), "rotate(1)")
        store, run = fill(tmp_path, [(old, graded(old, before)), (new, graded(new, after))])
        found = {q.variant: q.flip for q in read_questions(store, [run])}
        assert found == {"original": "", "rotate(1)": flip}

    def test_another_arm_is_no_original(self, tmp_path: Path) -> None:
        old = a_job(an_item(1, "es"), arm="label")
        new = a_job(an_item(1, "es"), "rotate(1)", "free")
        store, run = fill(tmp_path, [(old, graded(old, 0, "SCORED")), (new, graded(new, 1))])
        assert {q.flip for q in read_questions(store, [run])} == {""}

    def test_an_engine_error_flips_nothing(self, tmp_path: Path) -> None:
        old, new = a_job(an_item(1, "es")), a_job(an_item(1, "es"), "rotate(1)")
        broken = graded(new, None, "ENGINE_ERROR")
        store, run = fill(tmp_path, [(old, graded(old, 0)), (new, broken)])
        assert {q.flip for q in read_questions(store, [run])} == {""}


class TestJson:
    def packed(self, questions: list[Question]) -> Any:
        return json.loads(to_json(questions))

    def test_answers_to_one_question_share_it(self) -> None:
        packed = self.packed(some_questions())
        assert len(packed["answers"]) == 192
        assert len(packed["asked"]) == 32  # two items, two languages, eight conditions, six answers

    def test_answers_to_one_question_follow_each_other(self) -> None:
        numbers = [answer[1] for answer in self.packed(some_questions())["answers"]]
        assert numbers == sorted(numbers)

    def test_a_line_is_stored_once(self) -> None:
        texts = self.packed(some_questions())["texts"]
        assert len(texts) == len(set(texts))
        system = "You answer multiple-choice questions about medicine. Only one option is correct."
        assert texts.count(system) == 1

    def test_texts_come_back(self) -> None:
        question = some_questions()[1]
        packed = self.packed([question])

        def text(at: int | list[int]) -> str:
            numbers = [at] if isinstance(at, int) else at
            return "\n".join(packed["texts"][number] for number in numbers)

        (asked,), (answer,) = packed["asked"], packed["answers"]
        assert [(text(r), text(c)) for r, c in asked[7]] == list(question.messages)
        assert [(text(n), text(t)) for n, t in asked[8]] == list(question.options)
        assert (answer[0], text(answer[2]), text(answer[4])) == (
            question.key,
            question.model,
            question.output,
        )

    def test_nothing_can_end_the_element_it_stands_in(self) -> None:
        question = replace(some_questions()[0], item_id="<!--<script>", reply="</SCRIPT >")
        assert "<" not in to_json([question])

    def test_scores_that_are_not_finite_are_null(self) -> None:
        question = replace(some_questions()[0], scores=(("A", float("-inf")), ("B", -0.12345)))
        (answer,) = self.packed([question])["answers"]
        assert [score for _, score in answer[10]] == [None, -0.1235]

    def test_the_order_of_the_answers_does_not_matter(self) -> None:
        questions = some_questions()
        assert to_json(questions) == to_json(reversed(questions))


class TestVisible:
    def test_plain_text_stays(self) -> None:
        text = "La opción es: «C» – 25 %\n\nñandú 模型 🩺"
        assert visible(text) == text

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("\x1b[31mred", "[U+001B][31mred"),
            ("a\x00b", "a[U+0000]b"),
            ("\u202eabc", "[U+202E]abc"),
            ("zero\u200bwidth", "zero[U+200B]width"),
            ("half \ud83d", "half [U+D83D]"),
            ("line\u2028line", "line[U+2028]line"),
            ("a\tb", "a   b"),
            ("a\r\nb", "a\nb"),
            ("a\rb", "a[U+000D]b"),
        ],
    )
    def test_what_cannot_be_seen_is_spelled_out(self, text: str, shown: str) -> None:
        assert visible(text) == shown

    def test_hostile_output_has_no_hidden_sign(self) -> None:
        shown = visible(HOSTILE)
        assert "[U+202E]" in shown
        assert "[U+0007]" in shown
        assert shown.isprintable()
