"""What was lost on the tasks, read from a run of toys that answer as they are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medlocal.evals.stats import mcnemar
from medlocal.report.load import graded_answers
from medlocal.report.quality_tasks import Tasks, read_tasks
from medlocal.run import make_spec, start_run
from medlocal.store import Store
from tests.fakes import ToyBackend, saying

NUM_QUESTIONS = 6


def always(label: str) -> ToyBackend:
    return ToyBackend(saying(lambda _: label), name=f"toy-{label}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A reference that always says A, and two files that always say B and C."""
    path = tmp_path_factory.mktemp("tasks") / "medlocal.db"
    backends = [always(label) for label in "ABC"]
    spec = make_spec(
        "starter",
        backends[0].name,
        more_models=tuple(backend.name for backend in backends[1:]),
        limit=NUM_QUESTIONS,
        formats=("letter",),
        arms=("free", "grammar"),
    )
    with Store(path) as store:
        facts = [backend.model_facts() for backend in backends]
        return path, start_run(spec, store, backends, facts).run_id


@pytest.fixture(scope="module")
def tasks(run: tuple[Path, str]) -> Tasks:
    with Store(run[0]) as store:
        return read_tasks(store, run[1], {"toy-A": "ref", "toy-B": "toy-B", "toy-C": "third"})


def golds(run: tuple[Path, str], is_right: Callable[[str], bool]) -> int:
    """English questions whose gold is one that `is_right` says yes to."""
    with Store(run[0]) as store:
        return sum(
            is_right("ABCD"[answer.gold_slot])
            for answer in graded_answers(store, run[1])
            if (answer.model, answer.language, answer.arm) == ("toy-A", "en", "grammar")
        )


def test_every_file_has_a_row_per_language_and_arm_under_its_name_here(tasks: Tasks) -> None:
    found = {(row.name, row.comparison.language, row.comparison.arm) for row in tasks.rows}
    assert found == {
        (name, language, arm)
        for name in ("toy-B", "third")
        for language in ("en", "es")
        for arm in ("free", "grammar")
    }
    assert len(tasks.rows) == len(found)


def test_what_is_lost_and_gained_follows_from_the_golds(
    run: tuple[Path, str], tasks: Tasks
) -> None:
    """Who says A loses against a B exactly the questions whose gold is A, and gains those with B."""
    row = tasks.lead_row("toy-B", "en")
    assert row is not None
    assert (row.b, row.c) == (golds(run, "A".__eq__), golds(run, "B".__eq__))
    assert row.n == NUM_QUESTIONS
    assert row.p == mcnemar(row.b, row.c)
    assert row.delta == (row.c - row.b) / NUM_QUESTIONS


def test_the_lead_is_the_arm_that_tells_knowledge_best(tasks: Tasks) -> None:
    assert (tasks.leads["en"].format, tasks.leads["en"].arm) == ("letter", "grammar")


def test_the_references_own_score_stands_beside_chance(run: tuple[Path, str], tasks: Tasks) -> None:
    score = tasks.lead_score("en")
    assert score is not None
    assert score.accuracy.value == golds(run, "A".__eq__) / NUM_QUESTIONS
    assert score.chance == 0.25
    assert score.at_chance


def test_it_is_said_what_was_asked(run: tuple[Path, str], tasks: Tasks) -> None:
    assert (tasks.suite, tasks.datasets, tasks.run_id) == ("starter", ("starter",), run[1])


def test_a_language_that_was_not_asked_has_no_row(tasks: Tasks) -> None:
    assert tasks.lead_row("toy-B", "fr") is None
    assert tasks.lead_score("fr") is None
