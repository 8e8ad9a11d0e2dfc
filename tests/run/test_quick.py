"""Runs with a time budget, on toys and a clock of the test's own; the same on the demo model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from medlocal.engine.batching import Batch, Decoder, Limits
from medlocal.engine.sequence import Logits
from medlocal.errors import UsageError
from medlocal.evals.items import Item
from medlocal.evals.plan import take
from medlocal.run import Control, RunSpec, RunStopped, Summary, preview, start_run
from medlocal.run.backend import Backend, Needs
from medlocal.run.balance import balanced
from medlocal.run.pacing import Pace, TimeIsUp
from medlocal.run.quick import Look, file_facts, quick_spec, speed_request
from medlocal.run.spec import make_spec, read_items
from medlocal.settings import load_settings
from medlocal.store import Store
from medlocal.weights.inspect import read_gguf
from tests.fakes import ToyBackend, random_logits
from tests.weights.gguf_files import write_model

NUM_ITEMS = 12
"""Of `SPEC`, each in two languages and through three arms."""


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class TimedDecoder:
    """A decoder whose batches take time on the test's clock, and none on the wall's."""

    inner: Decoder
    clock: Clock
    seconds: float

    @property
    def limits(self) -> Limits:
        return self.inner.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.inner.limits = limits

    @property
    def ends(self) -> frozenset[int]:
        return self.inner.ends

    @ends.setter
    def ends(self, ends: frozenset[int]) -> None:
        self.inner.ends = ends

    def decode(self, batch: Batch) -> None:
        self.clock.now += self.seconds
        self.inner.decode(batch)

    def logits(self, row: int) -> Logits:
        return self.inner.logits(row)

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        self.inner.copy(source, target, start, end)

    def remove(self, sequence: int) -> None:
        self.inner.remove(sequence)

    def clear(self) -> None:
        self.inner.clear()


@dataclass
class TimedBackend(ToyBackend):
    clock: Clock = field(default_factory=Clock)
    seconds_per_batch: float = 0.0

    def decoder(self, needs: Needs) -> Decoder:
        return TimedDecoder(super().decoder(needs), self.clock, self.seconds_per_batch)


@cache
def _all_items() -> tuple[Item, ...]:
    return tuple(read_items(make_spec("starter", "toy", languages=("en", "es"))))


@pytest.fixture(autouse=True)
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "read_items", lambda spec: list(_all_items()))


SPEC = replace(make_spec("starter", "toy", limit=NUM_ITEMS, formats=("letter",)), is_balanced=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "medlocal.db") as found:
        yield found


def looked(pace: Pace, clock: Clock, seconds: float) -> Callable[[Backend], Mapping[str, object]]:
    """A measurement that takes some seconds, where there is any time."""

    def measure(backend: Backend) -> Mapping[str, object]:
        clock.now += 0 if pace.is_over else seconds
        return {"quick": {"of": backend.name}}

    return measure


@dataclass
class Setting:
    """A run with a budget."""

    store: Store
    seconds: float
    seconds_per_batch: float = 1.0
    names: tuple[str, ...] = ("toy",)
    measuring: float = 0.0
    changes: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def run(self, spec: RunSpec = SPEC) -> Summary:
        self.backends = [
            TimedBackend(
                name=name,
                clock=self.clock,
                seconds_per_batch=self.seconds_per_batch,
                **self.changes,
            )
            for name in self.names
        ]
        pace = Pace(self.seconds, len(self.names), self.clock)
        control = Control(pace=pace, measure=looked(pace, self.clock, self.measuring))
        facts = [backend.model_facts() for backend in self.backends]
        return start_run(spec, self.store, self.backends, facts, control)

    def num_answered(self, run_id: str, model: str = "toy") -> int:
        jobs = [job for job in self.store.jobs(run_id) if job.model == model]
        return sum(self.store.record(job.key) is not None for job in jobs)


class TestTheBudget:
    @hypothesis_settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        seconds=st.floats(0.5, 200),
        batch=st.floats(0.01, 20),
        measuring=st.floats(0, 0.4),
        num_models=st.integers(1, 2),
    )
    def test_no_more_than_the_budget_and_one_batch_is_taken(
        self, store: Store, seconds: float, batch: float, measuring: float, num_models: int
    ) -> None:
        setting = Setting(store, seconds, batch, ("toy", "other")[:num_models], measuring * seconds)
        # Another build: nothing is there from the example before.
        setting.changes["build"] = f"{seconds} {batch}"
        setting.run(replace(SPEC, limit=2))
        # A batch or a measurement is not begun after the end, and not ended in the middle.
        assert setting.clock.now <= seconds + max(batch, measuring * seconds)

    def test_it_ends_with_what_was_answered_kept(self, store: Store) -> None:
        setting = Setting(store, seconds=120)
        summary = setting.run()
        assert summary.state == "interrupted"
        assert 0 < summary.done < summary.jobs == 6 * NUM_ITEMS
        assert setting.num_answered(summary.run_id) == summary.done
        assert 119 <= setting.clock.now <= 121

    def test_where_there_is_time_for_all_it_is_done_before_the_end(self, store: Store) -> None:
        setting = Setting(store, seconds=1e6)
        summary = setting.run()
        assert (summary.state, summary.done) == ("done", 6 * NUM_ITEMS)
        assert setting.clock.now < 1e5

    def test_measuring_takes_from_it(self, store: Store) -> None:
        setting = Setting(store, seconds=60, measuring=60)
        summary = setting.run()
        assert (summary.state, summary.done) == ("interrupted", 0)
        assert setting.clock.now == 60
        assert not setting.backends[0].decoders

    def test_models_get_the_same_time(self, store: Store) -> None:
        setting = Setting(store, seconds=240, names=("toy", "other"))
        summary = setting.run()
        first, second = (setting.num_answered(summary.run_id, name) for name in setting.names)
        assert first > 0
        assert abs(first - second) <= 6, "they differ by one item at most"

    def test_the_same_again_goes_on_from_there(self, store: Store) -> None:
        first = Setting(store, seconds=120).run()
        second = Setting(store, seconds=1e6).run()
        assert (second.state, second.done) == ("done", 6 * NUM_ITEMS)
        assert second.reused == first.done

    def test_what_it_began_can_be_resumed_without_an_end(self, store: Store) -> None:
        from medlocal.run import resume_run

        first = Setting(store, seconds=120).run()
        ended = resume_run(first.run_id, store, ToyBackend())
        assert (ended.state, ended.done) == ("done", 6 * NUM_ITEMS)

    def test_answers_are_those_of_a_run_without_a_budget(
        self, store: Store, tmp_path: Path
    ) -> None:
        run_id = Setting(store, seconds=1e6).run().run_id
        with Store(tmp_path / "other.db") as other:
            backend = ToyBackend()
            start_run(SPEC, other, backend, backend.model_facts())
            for job in store.jobs(run_id):
                mine, theirs = store.record(job.key), other.record(job.key)
                assert mine is not None
                assert theirs is not None
                assert (mine.text, mine.logprobs) == (theirs.text, theirs.logprobs)

    def test_the_user_can_stop_it_before(self, store: Store) -> None:
        clock = Clock()
        backend = TimedBackend(clock=clock, seconds_per_batch=1)
        batches = iter(range(30))
        control = Control(
            pace=Pace(1e6, clock=clock), should_stop=lambda: next(batches, None) is None
        )
        with pytest.raises(RunStopped, match="answers are kept"):
            start_run(SPEC, store, backend, backend.model_facts(), control)
        assert store.run("last").state == "interrupted"


class TestTheOrder:
    def test_questions_are_asked_in_the_balanced_one(self, store: Store) -> None:
        """However early the end, the items answered in full are the first ones of the order."""
        setting = Setting(store, seconds=150)
        run_id = setting.run().run_id
        whole: dict[str, bool] = {}
        for job in store.jobs(run_id):
            is_there = store.record(job.key) is not None
            whole[job.item_id] = whole.get(job.item_id, True) and is_there
        limited = take(_all_items(), NUM_ITEMS)
        assert list(whole) == list(dict.fromkeys(item.id for item in balanced(limited)))
        answered = [item for item, is_whole in whole.items() if is_whole]
        assert 1 < len(answered) < NUM_ITEMS
        assert list(whole)[: len(answered)] == answered

    def test_parallel_items_are_asked_together(self, store: Store) -> None:
        setting = Setting(store, seconds=150)
        run_id = setting.run().run_id
        whole: dict[tuple[str, str], bool] = {}
        for job in store.jobs(run_id):
            key = job.item_id, job.language
            whole[key] = whole.get(key, True) and store.record(job.key) is not None
        num_by_language = [
            sum(is_whole for (_, language), is_whole in whole.items() if language == asked)
            for asked in ("en", "es")
        ]
        assert abs(num_by_language[0] - num_by_language[1]) <= 1


class TestWhatIsKept:
    def test_the_self_test_finds_an_exact_model_exact(self, store: Store) -> None:
        run_id = Setting(store, seconds=1e6).run().run_id
        test = store.run(run_id).engine["self_test"]
        assert isinstance(test, dict)
        # The second block has all other items, since the time is long: three forms of each language.
        assert test["together"] == {"n": 66, "same_answer": 66, "same_bits": 66}
        assert test["alone"] == {"n": 11, "same_answer": 11, "same_bits": 11}

    def test_the_self_test_finds_a_model_that_is_not(self, store: Store) -> None:
        """Its logits depend on how often it was asked."""
        times = iter(range(10**9))

        def drifting(history: tuple[int, ...]) -> Logits:
            return random_logits((*history, next(times)))

        run_id = Setting(store, seconds=1e6, changes={"logits_of": drifting}).run().run_id
        test = store.run(run_id).engine["self_test"]
        assert isinstance(test, dict)
        assert test["together"]["same_bits"] == test["alone"]["same_bits"] == 0

    def test_the_self_test_is_not_counted_as_work(self, store: Store) -> None:
        run_id = Setting(store, seconds=1e6).run().run_id
        records = [store.record(job.key) for job in store.jobs(run_id)]
        facts = store.run(run_id).engine
        assert facts["generated_tokens"] == sum(len(r.token_ids) for r in records if r)
        assert facts["total_prompt_tokens"] == sum(
            int(str(r.stats["num_prompt_tokens"])) for r in records if r
        )

    def test_where_all_is_known_the_first_questions_are_tested(self, store: Store) -> None:
        Setting(store, seconds=1e6).run()
        again = Setting(store, seconds=1e6)
        summary = again.run()
        assert (summary.state, summary.reused) == ("done", 6 * NUM_ITEMS)
        test = store.run(summary.run_id).engine["self_test"]
        assert isinstance(test, dict)
        assert test["together"]["n"] == test["together"]["same_bits"] == 6 * NUM_ITEMS

    def test_what_was_measured_is_kept_per_model(self, store: Store) -> None:
        run_id = Setting(store, seconds=100, names=("toy", "other")).run().run_id
        engine = store.run(run_id).engine
        for name in ("toy", "other"):
            facts = engine[name]
            assert isinstance(facts, dict)
            assert facts["quick"] == {"of": name}
            assert facts["liveness"] == "ok"

    def test_what_was_measured_is_kept_where_nothing_was_asked(self, store: Store) -> None:
        run_id = Setting(store, seconds=10, measuring=20).run().run_id
        assert store.run(run_id).engine == {"quick": {"of": "toy"}}


class TestTheSpec:
    def test_it_is_the_quick_suite_in_a_balanced_order(self) -> None:
        spec = quick_spec(["one", "two"], load_settings())
        assert (spec.suite, spec.models, spec.is_balanced) == ("quick", ("one", "two"), True)
        assert (spec.arms, spec.languages) == (("free", "grammar", "label"), ("en", "es"))

    def test_it_is_read_back_as_it_was(self) -> None:
        spec = quick_spec(["one"], load_settings())
        assert RunSpec.from_json(spec.to_json()) == spec

    def test_a_spec_from_before_there_was_an_order_has_none(self) -> None:
        values = SPEC.to_json()
        del values["is_balanced"]
        assert not RunSpec.from_json(values).is_balanced

    def test_no_model_is_wrong_usage(self) -> None:
        with pytest.raises(UsageError, match="a model is needed"):
            quick_spec([], load_settings())


class TestTheLook:
    @pytest.mark.parametrize(("left", "prompt", "new"), [(120.0, 128, 32), (10.0, 64, 16)])
    def test_less_is_measured_where_there_is_less_time(
        self, left: float, prompt: int, new: int
    ) -> None:
        request = speed_request(left)
        assert [test.name for test in request.tests] == [f"pp{prompt}", f"tg{new}"]
        assert request.seconds == pytest.approx(left / 10)

    def test_a_file_is_told_by_its_size_and_its_types(self, tmp_path: Path) -> None:
        path = write_model(tmp_path / "m.gguf")
        facts = file_facts(read_gguf(path))
        assert facts["bytes"] == path.stat().st_size
        assert facts["has_template"] is True

    def test_a_file_without_a_template_is_told(self, tmp_path: Path) -> None:
        path = write_model(tmp_path / "m.gguf", chat_template=None)
        assert file_facts(read_gguf(path))["has_template"] is False


@pytest.mark.weights
@pytest.mark.slow
def test_a_real_look_measures_the_demo_model(demo_model: Path, workspace: Path) -> None:
    settings = load_settings()
    pace = Pace(20)
    pace.begin_model()
    facts: Any = Look(pace, settings).look(read_gguf(demo_model))
    rows = {row["kind"]: row["tokens_per_second"]["mean"] for row in facts["speed"]["rows"]}
    assert rows["prompt"] > rows["generation"] > 1
    assert 0 < facts["speed"]["load_seconds"] < 20
    memory = facts["speed"]["memory"]
    assert facts["file"]["bytes"] < memory["needed_bytes"] < 4 * facts["file"]["bytes"]
    assert "Q4_1" in facts["file"]["slow"] or not facts["file"]["slow"]


@pytest.mark.weights
@pytest.mark.slow
def test_a_look_that_has_no_time_left_measures_no_speed(demo_model: Path, workspace: Path) -> None:
    pace = Pace(0.001)
    pace.begin_model()
    facts = Look(pace, load_settings()).look(read_gguf(demo_model))
    assert pace.is_over
    assert "speed" not in facts
    with pytest.raises(TimeIsUp):
        pace.check()
