"""The run store: what it keeps, hands out and refuses."""

import random
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.errors import MedlocalError, RefusedError, UsageError
from medlocal.store import Store, StoredJob
from tests.store_values import a_grade, a_job, a_record

JOBS = [a_job(number) for number in range(4)]
REORDERED = {"stem": "¿Año? ñ", "labels": ["A", "B"], "gold": 2}
"""The payload of `JOBS`, its keys in another order."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "medlocal.db") as opened:
        yield opened


@pytest.fixture
def run_id(store: Store) -> str:
    """A run of `JOBS`."""
    made = store.create_run({"suite": "quick"}, {"name": "demo"})
    store.add_jobs(made, JOBS)
    return made


class TestOpening:
    @pytest.mark.parametrize(
        ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)]
    )
    def test_settings_are_those_that_survive_power_loss(
        self, store: Store, pragma: str, value: object
    ) -> None:
        assert store._database.execute(f"PRAGMA {pragma}").fetchone() == (value,)

    def test_makes_the_folders_that_are_missing(self, tmp_path: Path) -> None:
        Store(tmp_path / "a" / "b" / "medlocal.db").close()
        assert (tmp_path / "a" / "b" / "medlocal.db").is_file()

    def test_what_was_written_is_there_when_opened_again(self, tmp_path: Path) -> None:
        path = tmp_path / "medlocal.db"
        with Store(path) as first:
            run_id = first.create_run({"suite": "quick"})
        with Store(path) as second:
            assert second.run(run_id).spec == {"suite": "quick"}

    def test_refuses_a_file_that_is_not_sqlite(self, tmp_path: Path) -> None:
        path = tmp_path / "medlocal.db"
        path.write_text("this is a text file, long enough for a header" * 30, encoding="utf-8")
        with pytest.raises(RefusedError, match="is not a SQLite database"):
            Store(path)
        assert path.read_text(encoding="utf-8").startswith("this is a text file")

    def test_refuses_a_database_of_another_program(self, tmp_path: Path) -> None:
        path = tmp_path / "medlocal.db"
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE runs (id)")
        other.close()
        with pytest.raises(RefusedError, match="not a run store of medlocal"):
            Store(path)

    def test_refuses_a_newer_schema(self, tmp_path: Path) -> None:
        path = tmp_path / "medlocal.db"
        Store(path).close()
        newer = sqlite3.connect(path)
        newer.execute("PRAGMA user_version = 2")
        newer.close()
        with pytest.raises(RefusedError, match="newer medlocal"):
            Store(path)

    def test_refuses_a_damaged_file(self, tmp_path: Path) -> None:
        path = tmp_path / "medlocal.db"
        with Store(path) as opened:
            run_id = opened.create_run({})
            opened.add_jobs(run_id, [a_job(n) for n in range(300)])
        damaged = bytearray(path.read_bytes())
        damaged[8192:] = random.Random(0).randbytes(len(damaged) - 8192)
        path.write_bytes(bytes(damaged))
        with pytest.raises(RefusedError, match="damaged"), Store(path) as opened:
            list(opened.jobs(run_id))

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(MedlocalError, match="cannot be made"):
            Store(tmp_path / "file" / "medlocal.db")

    def test_many_can_create_it_at_once(self, tmp_path: Path) -> None:
        for attempt in range(20):
            path = tmp_path / str(attempt) / "medlocal.db"
            barrier = threading.Barrier(6)

            def open_it(path: Path = path, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                with Store(path) as opened:
                    opened.create_run({})

            with ThreadPoolExecutor(6) as pool:
                for future in [pool.submit(open_it) for _ in range(6)]:
                    future.result()
            with Store(path) as opened:
                assert len(opened.runs()) == 6


class TestRuns:
    def test_an_id_reads_as_a_time_in_utc(self, store: Store) -> None:
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", store.create_run({}))

    def test_ids_sort_as_the_runs_were_made(self, store: Store) -> None:
        made = [store.create_run({}) for _ in range(30)]
        assert made == sorted(set(made))

    def test_a_new_run_is_planned(self, store: Store, run_id: str) -> None:
        row = store.run(run_id)
        assert (row.id, row.state, row.finished, row.crashed) == (run_id, "planned", None, False)
        assert (row.spec, row.model, row.engine) == ({"suite": "quick"}, {"name": "demo"}, {})

    def test_lists_the_newest_first(self, store: Store) -> None:
        made = [store.create_run({}) for _ in range(3)]
        assert [row.id for row in store.runs()] == made[::-1]

    def test_last_is_the_newest(self, store: Store) -> None:
        store.create_run({})
        newest = store.create_run({})
        assert store.run("last").id == newest

    def test_a_unique_beginning_is_enough(self, store: Store, run_id: str) -> None:
        assert store.run(run_id[:10]).id == run_id

    def test_an_ambiguous_beginning_lists_the_runs(self, store: Store) -> None:
        made = [store.create_run({}) for _ in range(2)]
        with pytest.raises(UsageError, match=f"several runs begin with '2': {made[0]}, {made[1]}"):
            store.run("2")

    @pytest.mark.parametrize("name", ["", "%", "20200101-000000-0000"])
    def test_an_unknown_name_is_an_error(self, store: Store, run_id: str, name: str) -> None:
        with pytest.raises(UsageError, match="no run is called"):
            store.run(name)

    def test_the_error_in_an_empty_store_says_so(self, store: Store) -> None:
        with pytest.raises(UsageError, match="holds no run yet"):
            store.run("last")

    def test_a_finished_run_notes_when(self, store: Store, run_id: str) -> None:
        store.set_state(run_id, "failed", "no memory")
        row = store.run(run_id)
        assert (row.state, row.error, row.finished is not None) == ("failed", "no memory", True)

    def test_a_resumed_run_is_no_longer_finished(self, store: Store, run_id: str) -> None:
        store.set_state(run_id, "failed", "no memory")
        with store.lock_run(run_id):
            store.set_state(run_id, "running")
            row = store.run(run_id)
        assert (row.state, row.error, row.finished) == ("running", "", None)

    def test_a_state_that_does_not_exist_is_refused(self, store: Store, run_id: str) -> None:
        with pytest.raises(ValueError, match="paused"):
            store.set_state(run_id, "paused")

    def test_engine_facts_are_replaced(self, store: Store, run_id: str) -> None:
        store.set_engine(run_id, {"mode": "exact"})
        store.set_engine(run_id, {"mode": "fast", "n_ubatch": 512})
        assert store.run(run_id).engine == {"mode": "fast", "n_ubatch": 512}

    def test_every_call_refuses_an_unknown_run(self, store: Store, run_id: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.set_state("x", "done"),
            lambda: store.set_engine("x", {}),
            lambda: store.add_jobs("x", []),
            lambda: store.pending("x"),
            lambda: store.counts("x"),
            lambda: list(store.jobs("x")),
            lambda: list(store.results("x", 1)),
            lambda: store.put("x", []),
            lambda: store.log_event("x", "y"),
            lambda: store.lock_run("x"),
        ]
        for call in calls:
            with pytest.raises(UsageError, match="no run is called 'x'"):
                call()

    def test_events_come_back_in_order_and_after_a_given_one(
        self, store: Store, run_id: str
    ) -> None:
        for kind in ("started", "memory", "stopped"):
            store.log_event(run_id, kind, {"note": "ñ"})
        first, *others = store.events(run_id)
        assert (first.kind, first.run_id, first.data) == ("started", run_id, {"note": "ñ"})
        assert [event.kind for event in others] == ["memory", "stopped"]
        assert store.events(run_id, after=first.id) == others


class TestJobs:
    def test_come_back_as_they_were(self, store: Store, run_id: str) -> None:
        assert list(store.jobs(run_id)) == JOBS

    def test_messages_shared_by_arms_are_stored_once(self, store: Store, run_id: str) -> None:
        store.add_jobs(run_id, [a_job(9, arm="grammar", messages=(("user", "otro"),))])
        stored = store._database.execute("SELECT count(*) FROM contents WHERE json LIKE '%user%'")
        assert stored.fetchone() == (2,)

    def test_equal_payloads_are_stored_once(self, store: Store, run_id: str) -> None:
        store.add_jobs(run_id, [a_job(8, payload=REORDERED), a_job(9, payload={"gold": 3})])
        stored = store._database.execute("SELECT json FROM contents WHERE json LIKE '%gold%'")
        assert sorted(stored) == [
            ('{"gold":2,"labels":["A","B"],"stem":"¿Año? ñ"}',),
            ('{"gold":3}',),
        ]

    def test_adding_again_adds_what_is_new_at_the_end(self, store: Store, run_id: str) -> None:
        assert store.add_jobs(run_id, [JOBS[2], a_job(9), a_job(9), a_job(8)]) == 2
        assert [job.key for job in store.jobs(run_id)][4:] == ["00000009", "00000008"]

    def test_are_all_added_or_none(self, store: Store, run_id: str) -> None:
        def broken() -> Iterator[StoredJob]:
            yield a_job(9)
            raise MemoryError

        with pytest.raises(MemoryError):
            store.add_jobs(run_id, broken())
        assert list(store.jobs(run_id)) == JOBS

    def test_a_key_that_stands_for_another_prompt_is_refused(
        self, store: Store, run_id: str
    ) -> None:
        with pytest.raises(UsageError, match="has another prompt than"):
            store.add_jobs(run_id, [a_job(0, messages=(("user", "changed"),))])

    def test_newer_facts_about_an_item_replace_the_older_ones(
        self, store: Store, run_id: str
    ) -> None:
        store.add_jobs(run_id, [a_job(0, payload={"gold": 3})])
        assert store.job(a_job(0).key).payload == {"gold": 3}

    def test_a_payload_in_another_order_is_the_same_payload(
        self, store: Store, run_id: str
    ) -> None:
        assert store.add_jobs(run_id, [a_job(0, payload=REORDERED)]) == 0

    def test_one_is_found_by_key_or_beginning(self, store: Store, run_id: str) -> None:
        store.add_jobs(run_id, [a_job(0xFE)])
        assert store.job("00000002") == JOBS[2]
        assert store.job("000000f") == a_job(0xFE)

    def test_an_ambiguous_beginning_is_refused(self, store: Store, run_id: str) -> None:
        with pytest.raises(UsageError, match="several jobs begin with '0000'"):
            store.job("0000")

    def test_an_unknown_key_names_its_neighbours_only(self, store: Store, run_id: str) -> None:
        store.add_jobs(run_id, [a_job(n) for n in range(100)])
        with pytest.raises(UsageError) as caught:
            store.job("00000031x")
        assert caught.value.hint is not None
        assert re.fullmatch(r"did you mean 00000031( or 0000003[023]){2}\?", caught.value.hint)

    def test_iterating_while_another_connection_and_this_one_write(
        self, store: Store, run_id: str
    ) -> None:
        """An open read would make this connection's write fail once the other has committed."""
        with Store(store.path) as other:
            for job in store.jobs(run_id):
                other.log_event(run_id, "elsewhere")
                store.put(run_id, [a_record(job)])
        assert store.counts(run_id).done == 4


class TestRecords:
    def test_come_back_as_they_were(self, store: Store, run_id: str) -> None:
        store.put(run_id, [a_record(JOBS[1])])
        assert store.record(JOBS[1].key) == a_record(JOBS[1])

    def test_none_before_the_answer(self, store: Store, run_id: str) -> None:
        assert store.record(JOBS[1].key) is None

    @settings(max_examples=40, deadline=None)
    @given(
        text=st.text(),
        tokens=st.lists(
            st.tuples(st.integers(0, 2**31 - 1), st.floats(max_value=0, width=32, allow_nan=False))
        ),
        number=st.floats(allow_nan=False),
    )
    def test_any_text_token_and_number_survives(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        text: str,
        tokens: list[tuple[int, float]],
        number: float,
    ) -> None:
        record = a_record(
            JOBS[0],
            text=text,
            token_ids=tuple(token for token, _ in tokens),
            logprobs=tuple(logprob for _, logprob in tokens),
            stats={"number": number, text: [text]},
        )
        with Store(tmp_path_factory.mktemp("store") / "medlocal.db") as opened:
            run_id = opened.create_run({})
            opened.add_jobs(run_id, JOBS)
            opened.put(run_id, [record])
            assert opened.record(JOBS[0].key) == record

    def test_an_answer_is_never_changed(self, store: Store, run_id: str) -> None:
        store.put(run_id, [a_record(JOBS[0])], [a_grade(JOBS[0])])
        later = [a_record(JOBS[0], text="B"), a_record(JOBS[1])]
        grades = [a_grade(JOBS[0], slot=0, correct=False), a_grade(JOBS[1])]
        counts = store.put(run_id, later, grades)
        assert (counts.written, counts.replaced, counts.ignored) == (1, 0, 1)
        assert store.record(JOBS[0].key) == a_record(JOBS[0])
        assert [result.grade for result in store.results(run_id, 1)][:2] == [
            a_grade(JOBS[0]),
            a_grade(JOBS[1]),
        ]

    def test_an_error_gives_way_to_an_answer_and_is_kept_as_an_event(
        self, store: Store, run_id: str
    ) -> None:
        failed = a_record(JOBS[0], finish="error", error="decode failed", text="")
        store.put(
            run_id,
            [failed],
            [
                a_grade(JOBS[0], outcome="ENGINE_ERROR"),
            ],
        )
        counts = store.put(run_id, [a_record(JOBS[0])])
        assert (counts.written, counts.replaced, counts.ignored) == (0, 1, 0)
        assert store.record(JOBS[0].key) == a_record(JOBS[0])
        assert next(store.results(run_id, 1)).grade is None
        (event,) = store.events(run_id)
        assert (event.kind, event.data["job_key"], event.data["error"], event.data["made_by"]) == (
            "error_replaced",
            JOBS[0].key,
            "decode failed",
            run_id,
        )

    def test_a_batch_is_kept_whole_or_not_at_all(self, store: Store, run_id: str) -> None:
        stranger = a_record(a_job(99))
        with pytest.raises(MedlocalError, match="FOREIGN KEY"):
            store.put(run_id, [a_record(JOBS[0]), stranger], [a_grade(JOBS[0])])
        assert store.counts(run_id).pending == 4

    def test_pending_is_what_has_no_record_in_order(self, store: Store, run_id: str) -> None:
        store.put(run_id, [a_record(JOBS[2]), a_record(JOBS[0], finish="error", error="x")])
        assert store.pending(run_id) == [JOBS[1].key, JOBS[3].key]
        assert store.pending(run_id, retry_errors=True) == [JOBS[n].key for n in (0, 1, 3)]

    def test_counts_tell_what_another_run_had_answered(self, store: Store, run_id: str) -> None:
        store.put(run_id, [a_record(JOBS[0]), a_record(JOBS[1], finish="error", error="x")])
        second = store.create_run({})
        store.add_jobs(second, [*JOBS, a_job(9)])
        store.put(second, [a_record(JOBS[2])])
        counts = store.counts(second)
        assert (counts.jobs, counts.done, counts.reused, counts.errors) == (5, 2, 1, 1)
        assert counts.pending == 2

    def test_counts_of_a_run_without_jobs_are_zero(self, store: Store) -> None:
        counts = store.counts(store.create_run({}))
        assert (counts.jobs, counts.done, counts.reused, counts.errors) == (0, 0, 0, 0)


class TestGradesAndResults:
    def test_results_hold_job_grade_and_what_tables_need(self, store: Store, run_id: str) -> None:
        store.put(run_id, [a_record(JOBS[1])], [a_grade(JOBS[1])])
        first, (job, grade, record), *_ = store.results(run_id, grader=1)
        assert first == (replace(JOBS[0], messages=()), None, None)
        assert (job, grade) == (replace(JOBS[1], messages=()), a_grade(JOBS[1]))
        assert record is not None
        assert (record.made_by, record.finish, record.num_tokens) == (run_id, "stop", 3)
        assert record.stats == {"tax_nats": 1.5, "scores": {"A": -1.25, "B": -2.5}}

    def test_graders_keep_apart(self, store: Store, run_id: str) -> None:
        store.put(run_id, [a_record(JOBS[0])], [a_grade(JOBS[0])])
        second = a_grade(JOBS[0], grader=2, outcome="REFUSAL", slot=None, content=None)
        assert store.put_grades([second]) == 1
        graded = [next(store.results(run_id, grader)).grade for grader in (1, 2, 3)]
        assert graded == [a_grade(JOBS[0]), second, None]

    def test_the_same_grader_replaces_its_grade(self, store: Store, run_id: str) -> None:
        store.put(run_id, [a_record(JOBS[0])], [a_grade(JOBS[0])])
        store.put_grades([a_grade(JOBS[0], correct=False)])
        assert next(store.results(run_id, 1)).grade == a_grade(JOBS[0], correct=False)

    def test_twenty_thousand_jobs_go_in_and_out(self, store: Store) -> None:
        run_id = store.create_run({})
        jobs = [a_job(n, messages=(("user", f"question {n // 4}"),)) for n in range(20_000)]
        store.add_jobs(run_id, jobs)
        for start in range(0, len(jobs), 500):
            batch = jobs[start : start + 500]
            store.put(run_id, map(a_record, batch), map(a_grade, batch))
        assert store.counts(run_id).done == 20_000
        assert [job.key for job, _, _ in store.results(run_id, 1)] == [job.key for job in jobs]
        assert store.pending(run_id) == []
