"""Memory that runs out in the middle of a run: on toys that fail when they are told to."""

from pathlib import Path

import pytest

from medlocal.engine.batching import Batch, Decoder, Limits
from medlocal.engine.engine import Engine
from medlocal.engine.sequence import Completion, Generate, Request, Score
from medlocal.libllama import OutOfMemoryError
from medlocal.run import Control, resume_run, start_run
from medlocal.run.recovering import run_with_less
from medlocal.run.spec import make_spec
from medlocal.store import RunState, Store
from tests.fakes import ToyBackend, ToyDecoder

LIMITS = Limits(256, num_rows=16, num_ids=24, num_texts=4, num_outputs=8)
REQUESTS = [
    *(Request(i, tuple(range(20 + i)), Generate(12)) for i in range(6)),
    *(Request(6 + i, tuple(range(20 + i)), Score(((1,), (2, 3)))) for i in range(6)),
]


class FailingDecoder(ToyDecoder):
    """Finds no memory for its n-th batch."""

    fails_at = 3
    num_batches = 0

    def decode(self, batch: Batch) -> None:
        self.num_batches += 1
        if self.num_batches == self.fails_at:
            raise OutOfMemoryError("no memory for a batch")
        super().decode(batch)


def answers(completions: list[Completion]) -> dict[int, tuple[object, ...]]:
    return {
        c.request.id: (c.finish, tuple(c.tokens), tuple(c.logprobs), tuple(c.scores))
        for c in completions
    }


def undisturbed() -> dict[int, tuple[object, ...]]:
    return answers(list(Engine(ToyDecoder(LIMITS)).run(REQUESTS, 200)))


@pytest.mark.parametrize("fails_at", [1, 2, 5, 9])
def test_every_request_is_answered_once_and_as_without_the_failure(fails_at: int) -> None:
    decoder = FailingDecoder(LIMITS)
    decoder.fails_at = fails_at
    engine = Engine(decoder)
    smaller = Limits(96, num_rows=16, num_ids=24, num_texts=2, num_outputs=8)
    done = list(run_with_less(engine, REQUESTS, 90, lambda _: ToyDecoder(smaller)))
    assert decoder.num_batches == fails_at
    assert len(done) == len(REQUESTS)
    assert answers(done) == undisturbed()


def test_it_goes_on_as_often_as_less_will_do() -> None:
    errors: list[OutOfMemoryError] = []

    def less(error: OutOfMemoryError) -> Decoder:
        errors.append(error)
        return FailingDecoder(LIMITS) if len(errors) < 4 else ToyDecoder(LIMITS)

    done = list(run_with_less(Engine(FailingDecoder(LIMITS)), REQUESTS, 200, less))
    assert len(errors) == 4
    assert answers(done) == undisturbed()


def test_where_nothing_less_will_do_the_error_is_the_callers() -> None:
    def less(error: OutOfMemoryError) -> Decoder:
        raise error

    with pytest.raises(OutOfMemoryError, match="no memory for a batch"):
        list(run_with_less(Engine(FailingDecoder(LIMITS)), REQUESTS, 200, less))


def test_the_figures_are_those_of_all_attempts_together() -> None:
    engine = Engine(FailingDecoder(LIMITS))
    decoders = [engine.decoder]

    def less(_: OutOfMemoryError) -> Decoder:
        decoders.append(ToyDecoder(LIMITS))
        return decoders[-1]

    list(run_with_less(engine, REQUESTS, 200, less))
    computed = sum(d.num_decoded for d in decoders if isinstance(d, ToyDecoder))
    # The batch that failed was counted as handed out, and not computed.
    assert 0 <= engine.stats.prefilled_tokens + engine.stats.decode_rows - computed <= 16
    assert engine.stats.num_requests == len(REQUESTS)


SPEC = make_spec("starter", "toy", limit=2)


def test_a_run_goes_on_with_less_and_says_so(tmp_path: Path) -> None:
    heard: list[str] = []
    backend = ToyBackend(fails_at=(4, 3))
    with Store(tmp_path / "medlocal.db") as store:
        control = Control(notice=heard.append)
        summary = start_run(SPEC, store, backend, backend.model_facts(), control)
        told = [e.data["notice"] for e in store.events(summary.run_id) if e.kind == "memory"]
    assert (summary.state, summary.errors) == ("done", 0)
    assert summary.done == summary.jobs
    assert len(backend.decoders) == 3
    assert heard == told == backend.notices
    assert len(heard) == 2


def test_the_answers_are_those_of_a_run_that_had_memory(tmp_path: Path) -> None:
    found = []
    for name, backend in (("short", ToyBackend(fails_at=(7,))), ("long", ToyBackend())):
        with Store(tmp_path / f"{name}.db") as store:
            run_id = start_run(SPEC, store, backend, backend.model_facts()).run_id
            records = [store.record(job.key) for job in store.jobs(run_id)]
        found.append([(r.job_key, r.text, r.finish, r.logprobs) for r in records if r])
    assert found[0] == found[1]


def test_a_run_without_anything_left_to_give_up_keeps_its_answers(tmp_path: Path) -> None:
    backend = ToyBackend(fails_at=(60, *[1] * 9))
    with Store(tmp_path / "medlocal.db") as store:
        with pytest.raises(OutOfMemoryError):
            start_run(SPEC, store, backend, backend.model_facts())
        run_id = store.run("last").id
        before = store.counts(run_id)
        assert store.run(run_id).state is RunState.FAILED
        assert 0 < before.done < before.jobs
        assert resume_run(run_id, store, ToyBackend()).done == before.jobs
