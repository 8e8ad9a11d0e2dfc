"""Grades come from stored values alone, and grading again changes grades and nothing else."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medlocal.evals.answers import GRADER_VERSION
from medlocal.evals.formats import FORMATS
from medlocal.evals.plan import Job, PlanRequest, make_plan, take
from medlocal.run import make_spec, regrade, start_run
from medlocal.run.grading import grade, normalised, to_stored, variant_of
from medlocal.run.spec import crossings_of, read_items
from medlocal.store import Record, Store, StoredGrade, StoredJob
from tests.fakes import ToyBackend


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "medlocal.db") as opened:
        yield opened


def planned(form: str, arm: str, language: str = "es") -> Job:
    spec = make_spec("starter", "toy", languages=(language,))
    (crossing,) = crossings_of(spec)
    request = PlanRequest((replace(crossing, formats=(form,), arms=(arm,)),))
    (job,) = make_plan(request, take(read_items(spec), 1), {}).jobs
    return job


def judged(job: StoredJob, **record: object) -> StoredGrade:
    values: dict[str, object] = {
        "text": "", "finish": "stop", "token_ids": (), "logprobs": (), **record
    }  # fmt: skip
    return grade(job, Record(job.key, **values))  # type: ignore[arg-type]


class TestStoredJobs:
    def test_a_job_carries_what_is_needed_to_find_and_to_judge_it(self) -> None:
        job = planned("json", "grammar")
        item = job.variant.item
        stored = to_stored(job, "a-model")
        assert (stored.key, stored.model, stored.arm) == (job.key, "a-model", "grammar")
        assert (stored.dataset, stored.item_id, stored.group_id) == (
            "starter",
            item.id,
            f"starter/{item.id}",
        )
        assert (stored.language, stored.variant, stored.prompt) == ("es", "original", "plain")
        assert stored.messages == tuple((m.role, m.content) for m in job.messages)

    def test_the_variant_survives_json_without_the_rationale(self) -> None:
        job = planned("letter", "free")
        assert job.variant.item.rationale
        stored = to_stored(job, "m")
        read = replace(stored, payload=json.loads(json.dumps(dict(stored.payload))))
        item = replace(job.variant.item, rationale="")
        assert variant_of(read) == replace(job.variant, item=item)


class TestGrades:
    @pytest.mark.parametrize("form", FORMATS)
    def test_the_gold_answer_in_its_form_is_right(self, form: str) -> None:
        job = planned(form, "free")
        found = judged(to_stored(job, "m"), text=FORMATS[form].render(job.variant, "es"))
        gold = job.variant.gold
        assert (found.outcome, found.slot, found.content) == ("STRICT_VALID", gold, gold)
        assert found.correct
        assert (found.job_key, found.grader) == (job.key, GRADER_VERSION)

    def test_a_masked_answer_needs_a_mask_that_acted(self) -> None:
        job = to_stored(planned("letter", "grammar"), "m")
        applied, silent = (
            judged(job, text="A", stats={"constraint_applied": acted}) for acted in (True, False)
        )
        assert applied.outcome == "STRICT_VALID"
        assert silent.outcome == "CONSTRAINT_NOT_APPLIED"
        assert judged(job, text="A").outcome == "CONSTRAINT_NOT_APPLIED"

    @pytest.mark.parametrize(("form", "arm"), [("letter", "label"), ("text", "cloze")])
    def test_the_highest_score_is_the_answer(self, form: str, arm: str) -> None:
        job = to_stored(planned(form, arm), "m")
        scores = {"A": -3.0, "B": -2.0, "C": -math.inf, "D": -9.0}
        found = judged(job, finish="scored", stats={"scores": scores})
        assert (found.outcome, found.slot) == ("SCORED", 1)
        assert found.correct == (variant_of(job).gold == 1)

    @pytest.mark.parametrize(
        ("form", "arm"),
        [("letter", "free"), ("letter", "grammar"), ("letter", "label"), ("text", "cloze")],
    )
    def test_an_error_is_no_answer_in_any_arm(self, form: str, arm: str) -> None:
        stats = {"scores": {"A": -1.0}}
        job = to_stored(planned(form, arm), "m")
        found = judged(job, finish="error", error="the cache is full", stats=stats)
        assert (found.outcome, found.slot, found.correct) == ("ENGINE_ERROR", None, False)


@pytest.mark.parametrize(
    ("score", "text", "expected"),
    [(-6.0, "tos", -2.0), (-6.0, "ñ", -6.0), (-math.inf, "tos", -math.inf), (-6.0, "", -6.0)],
)
def test_a_cloze_score_is_per_character(score: float, text: str, expected: float) -> None:
    assert normalised(score, text) == expected


class TestRegrade:
    @pytest.fixture
    def run_id(self, store: Store) -> str:
        """A finished run of 24 answers."""
        backend = ToyBackend()
        return start_run(make_spec("starter", "toy", limit=2), store, backend, {}).run_id

    def test_the_same_grader_changes_nothing(self, store: Store, run_id: str) -> None:
        before = grades_of(store, run_id)
        done = regrade(store, run_id)
        assert (done.num_records, done.num_new) == (24, 0)
        assert done.changes == ()
        assert grades_of(store, run_id) == before

    def test_what_another_grader_said_is_put_right_and_told(
        self, store: Store, run_id: str
    ) -> None:
        before = grades_of(store, run_id)
        spoilt = [replace(g, outcome="REFUSAL", slot=None) for g in list(before.values())[:3]]
        store.put_grades(spoilt)
        done = regrade(store, run_id)
        assert grades_of(store, run_id) == before
        assert done.num_new == 0
        assert [change.before for change in done.changes] == spoilt
        assert [change.now for change in done.changes] == [before[g.job_key] for g in spoilt]

    def test_an_answer_without_a_grade_gets_one(self, store: Store, run_id: str) -> None:
        before = grades_of(store, run_id)
        store._database.execute("DELETE FROM grades")
        done = regrade(store, run_id)
        assert (done.num_records, len(done.changes), done.num_new) == (24, 0, 24)
        assert grades_of(store, run_id) == before

    def test_records_are_never_touched(self, store: Store, run_id: str) -> None:
        select = "SELECT * FROM records ORDER BY job_key"
        before = store._database.execute(select).fetchall()
        store._database.execute("UPDATE grades SET outcome = 'EMPTY'")
        regrade(store, run_id)
        assert store._database.execute(select).fetchall() == before

    def test_it_is_noted_in_the_run(self, store: Store, run_id: str) -> None:
        regrade(store, run_id)
        event = store.events(run_id)[-1]
        assert (event.kind, event.data) == ("regraded", {"grader": GRADER_VERSION, "changed": 0})

    def test_what_changed_is_told_against_an_earlier_version(
        self, store: Store, run_id: str
    ) -> None:
        now = grades_of(store, run_id)
        older = [replace(g, grader=GRADER_VERSION - 1, correct=False) for g in now.values()]
        older[0] = replace(older[0], outcome="EMPTY", slot=None, content=None)
        store._database.execute("DELETE FROM grades")
        store.put_grades(older)
        done = regrade(store, run_id)
        assert done.graders == (GRADER_VERSION - 1,)
        assert [change.before.outcome for change in done.changes] == ["EMPTY"]
        assert (done.num_new, done.num_right_before) == (0, 0)
        assert done.num_right_now == sum(grade.correct for grade in now.values())

    def test_the_grades_of_another_version_stay(self, store: Store, run_id: str) -> None:
        (key, *_) = grades_of(store, run_id)
        older = StoredGrade(key, GRADER_VERSION - 1, "EMPTY", None, None, False, "as it was")
        store.put_grades([older])
        regrade(store, run_id)
        assert store.grade(key, GRADER_VERSION - 1) == older

    def test_jobs_that_nobody_answered_are_passed_over(self, store: Store) -> None:
        run_id = store.create_run({})
        store.add_jobs(run_id, [to_stored(planned("letter", "free"), "m")])
        assert regrade(store, run_id).num_records == 0


def grades_of(store: Store, run_id: str) -> dict[str, StoredGrade]:
    found = store.results(run_id, GRADER_VERSION)
    return {result.job.key: result.grade for result in found if result.grade}
