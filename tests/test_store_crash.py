"""One writer at a time, and what survives a full disk, a failing write and kill -9."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medlocal.errors import MedlocalError
from medlocal.store import Record, Store
from tests.store_values import a_grade, a_job, a_record

ROOT = Path(__file__).parents[1]
JOBS = [a_job(number) for number in range(4)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "medlocal.db") as opened:
        yield opened


@pytest.fixture
def run_id(store: Store) -> str:
    """A run of `JOBS`."""
    made = store.create_run({})
    store.add_jobs(made, JOBS)
    return made


class TestOneWriter:
    def test_a_second_writer_is_told_which_process_holds_the_run(
        self, store: Store, run_id: str
    ) -> None:
        holder = _python(
            store.path,
            """
            with Store(path) as store, store.lock_run("last"):
                print("locked", flush=True)
                sys.stdin.read()
            """,
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            with (
                pytest.raises(MedlocalError, match=f"worked on by process {holder.pid}"),
                store.lock_run(run_id),
            ):
                pass
            holder.kill()

    def test_two_runs_can_be_written_at_once(self, store: Store, run_id: str) -> None:
        with store.lock_run(run_id), store.lock_run(store.create_run({})):
            pass

    def test_a_lock_can_be_taken_again(self, store: Store, run_id: str) -> None:
        for _ in range(2):
            with store.lock_run(run_id):
                pass

    def test_a_running_run_is_shown_so_while_its_lock_is_held(
        self, store: Store, run_id: str
    ) -> None:
        with store.lock_run(run_id), Store(store.path) as reader:
            store.set_state(run_id, "running")
            assert [(row.state, row.crashed) for row in reader.runs()] == [("running", False)]
        assert [(row.state, row.crashed) for row in store.runs()] == [("interrupted", True)]

    def test_looking_does_not_turn_a_writer_away(self, store: Store, run_id: str) -> None:
        store.set_state(run_id, "running")
        stop = threading.Event()

        def look() -> None:
            with Store(store.path) as reader:
                while not stop.is_set():
                    reader.runs()

        with ThreadPoolExecutor(2) as pool:
            watchers = [pool.submit(look) for _ in range(2)]
            for _ in range(30):
                with store.lock_run(run_id):
                    pass
            stop.set()
            for watcher in watchers:
                watcher.result()

    def test_a_reader_sees_finished_batches_only(self, store: Store, run_id: str) -> None:
        def half_then_look() -> Iterator[Record]:
            yield a_record(JOBS[0])
            with Store(store.path) as reader:
                assert reader.counts(run_id).done == 0
            yield a_record(JOBS[1])

        store.put(run_id, half_then_look())
        with Store(store.path) as reader:
            assert reader.counts(run_id).done == 2


class TestFailures:
    def test_a_full_disk_loses_the_batch_in_flight_only(self, store: Store, run_id: str) -> None:
        store.put(run_id, [a_record(JOBS[0])], [a_grade(JOBS[0])])
        (num_pages,) = store._database.execute("PRAGMA page_count").fetchone()
        store._database.execute(f"PRAGMA max_page_count = {num_pages + 4}")
        with pytest.raises(MedlocalError, match="no space is left") as caught:
            store.put(run_id, [a_record(JOBS[1]), a_record(JOBS[2], text="x" * 100_000)])
        assert caught.value.hint is not None
        assert f"free space on {store.path.parent}" in caught.value.hint
        assert f"`medlocal run --resume {run_id}`" in caught.value.hint
        assert store.pending(run_id) == [job.key for job in JOBS[1:]]
        store._database.execute("PRAGMA max_page_count = 1000000")
        assert store.put(run_id, [a_record(JOBS[2])]).written == 1

    def test_a_failing_write_is_explained(self, store: Store, run_id: str) -> None:
        """The limit on the size of files makes the kernel itself refuse the write."""
        limited = _python(
            store.path,
            """
            import resource
            from medlocal.errors import MedlocalError
            with Store(path) as store:
                run_id = store.run("last").id
                job = next(store.jobs(run_id))
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
                try:
                    store.put(run_id, [Record(job.key, "x" * 1_000_000, "stop", (), ())])
                except MedlocalError as error:
                    print(type(error).__name__, error.message)
            """,
        )
        out, _ = limited.communicate()
        assert re.match(rb"MedlocalError (no space is left|reading or writing .* failed)", out)
        assert store.counts(run_id).done == 0

    def test_a_locked_store_is_explained(self, store: Store, run_id: str) -> None:
        store._database.execute("PRAGMA busy_timeout = 20")
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MedlocalError, match=r"another process keeps .* locked"):
            store.put(run_id, [a_record(JOBS[0])])
        other.close()

    @pytest.mark.parametrize("seed", range(6))
    def test_kill_nine_loses_no_finished_batch_and_leaves_no_part_of_one(
        self, tmp_path: Path, seed: int
    ) -> None:
        path = tmp_path / "medlocal.db"
        with Store(path) as store:
            run_id = store.create_run({})
            store.add_jobs(run_id, [a_job(n) for n in range(10_000)])
        writer = _python(
            path,
            """
            with Store(path) as store, store.lock_run("last"):
                run_id = store.run("last").id
                store.set_state(run_id, "running")
                keys = store.pending(run_id)
                for start in range(0, len(keys), 16):
                    batch = keys[start : start + 16]
                    records = [Record(key, "y" * 500, "stop", (1,) * 50, (0.0,) * 50) for key in batch]
                    grades = [StoredGrade(key, 1, "EMPTY", None, None, False, "") for key in batch]
                    store.put(run_id, records, grades)
                    os.write(1, b"%d\\n" % (start + 16))
            """,
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.0, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        confirmed = writer.stdout.read().split()
        assert writer.wait() == -signal.SIGKILL
        writer.communicate()
        with Store(path) as store:
            check = store._database.execute("PRAGMA integrity_check").fetchone()
            row, done = store.run(run_id), store.counts(run_id).done
            graded = sum(grade is not None for _, grade, _ in store.results(run_id, 1))
            with store.lock_run(run_id):
                pending = store.pending(run_id)
        assert check == ("ok",)
        assert (row.state, row.crashed) == ("interrupted", True)
        assert done < 10_000, "the writer had finished: the kill proved nothing"
        assert done % 16 == 0
        assert done >= int(confirmed[-1] if confirmed else 16)
        assert graded == done
        assert pending == [f"{n:08x}" for n in range(done, 10_000)]


def _python(path: Path, body: str) -> subprocess.Popen[bytes]:
    head = "import os, sys\nfrom pathlib import Path\nfrom medlocal.store import *\n"
    code = f"{head}path = Path({str(path)!r})\n{textwrap.dedent(body)}"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe)
