"""A run that is killed at any moment, again and again, ends with the answers of one that was not."""

import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from medlocal.evals.answers import GRADER_VERSION
from medlocal.store import Record, RunState, Store, StoredGrade
from tests.kill_worker import BATCH_SECONDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NUM_JOBS = 24
Answers = dict[str, tuple[Record | None, StoredGrade | None]]


@dataclass
class Worker:
    """Starts processes that work on a run; see `tests/kill_worker.py`."""

    server: subprocess.Popen[str]

    def work(self, home: Path, kill_after: float | None = None) -> int:
        """Let a fresh process work on a run, and return its exit code.

        Args:
            home: of the run.
            kill_after: seconds after which it is killed, if it is still there.
        """
        assert self.server.stdin
        assert self.server.stdout
        print(home, file=self.server.stdin, flush=True)
        process = int(self.server.stdout.readline())
        if kill_after is not None:
            finished, _, _ = select.select([self.server.stdout], [], [], kill_after)
            if not finished:
                with suppress(ProcessLookupError):  # it has finished since
                    os.kill(process, signal.SIGKILL)
        return int(self.server.stdout.readline())


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    command = [sys.executable, "-m", "tests.kill_worker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server:
        yield Worker(server)
        assert server.stdin
        server.stdin.close()
        assert server.wait(10) == 0


@dataclass(frozen=True)
class Undisturbed:
    """A run that was never killed."""

    answers: Answers
    least_seconds: float
    """What its batches take on the fastest machine."""


@pytest.fixture(scope="module")
def undisturbed(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    home = tmp_path_factory.mktemp("undisturbed")
    assert worker.work(home) == 0
    answers = answers_in(home)
    assert len(answers) == NUM_JOBS
    assert all(record and judged for record, judged in answers.values())
    with Store(home / "medlocal.db") as store:
        num_batches = store.run("last").engine["num_batches"]
    assert isinstance(num_batches, int)
    return Undisturbed(answers, num_batches * BATCH_SECONDS)


def answers_in(home: Path) -> Answers:
    with Store(home / "medlocal.db") as store:
        if not store.runs():
            return {}
        jobs = [job.key for job in store.jobs(store.run("last").id)]
        return {key: (store.record(key), store.grade(key, GRADER_VERSION)) for key in jobs}


@pytest.mark.parametrize("seed", range(20))
def test_a_killed_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, worker: Worker, undisturbed: Undisturbed, seed: int
) -> None:
    draw = random.Random(seed)
    moments = [draw.uniform(0.0, undisturbed.least_seconds) for _ in range(1 + seed % 2)]
    codes = [worker.work(tmp_path, moment) for moment in moments]
    assert codes[0] == -signal.SIGKILL, "the run had finished: the kill proved nothing"
    assert set(codes) <= {-signal.SIGKILL, 0}
    kept = {key: answer for key, answer in answers_in(tmp_path).items() if answer[0]}
    assert all(kept[key] == undisturbed.answers[key] for key in kept)

    assert worker.work(tmp_path) == 0
    assert answers_in(tmp_path) == undisturbed.answers
    with Store(tmp_path / "medlocal.db") as store:
        row = store.run("last")
        assert (row.state, row.crashed) == (RunState.DONE, False)
        counts = store.counts(row.id)
        assert (counts.jobs, counts.done, counts.reused) == (NUM_JOBS, NUM_JOBS, 0)
        (num_records,) = store._database.execute("SELECT count(*) FROM records").fetchone()
        assert num_records == NUM_JOBS
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store._database.execute("PRAGMA foreign_key_check").fetchall() == []
