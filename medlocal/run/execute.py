"""Carrying out a run: skip what is done, ask the rest, keep every answer, say how far it is.

Results are committed in small batches while the model works, so that a run killed at any moment
loses at most the batch in flight and continues from there. Nothing here prints.
"""

import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from medlocal.engine.batching import Decoder
from medlocal.engine.engine import Engine
from medlocal.engine.sequence import Completion, EngineStats, Request
from medlocal.errors import Interrupted, MedlocalError, RefusedError, UsageError
from medlocal.evals.items import canonical_json
from medlocal.evals.plan import Plan
from medlocal.libllama import OutOfMemoryError
from medlocal.run.asking import Asker
from medlocal.run.backend import Backend, Needs
from medlocal.run.estimate import Estimate
from medlocal.run.figures import efficiency, figures, together, with_sums
from medlocal.run.grading import grade, to_stored
from medlocal.run.pacing import TEST_ITEMS, Pace, TimeIsUp
from medlocal.run.preview import (
    by_item,
    distinct_requests,
    make_estimate,
    parts_of,
    plan_of,
    sendable,
)
from medlocal.run.progress import Progress, RunStopped, Summary, Watch
from medlocal.run.recovering import run_with_less
from medlocal.run.self_test import SelfTest, self_test
from medlocal.run.spec import RunSpec
from medlocal.store import FINISH_ERROR, Record, RunState, Store, StoredJob

__all__ = [
    "Control",
    "Progress",
    "RunStopped",
    "Summary",
    "peak_memory_bytes",
    "resume_run",
    "start_run",
]

_COMMIT_SECONDS = 1.0
_COMMIT_RECORDS = 64
_MIN_TOKENS_FOR_EFFICIENCY = 15_000
"""Measuring the bare rates takes about a thousand tokens: not worth it in a short run."""


@dataclass(frozen=True, slots=True)
class Control:
    """What the caller hears of a run, and how it stops it."""

    watch: Watch = lambda _: None
    announce: Callable[[Estimate], None] = lambda _: None
    """Told what the run will take, once, before the first job is asked."""
    planned: Callable[[Plan], None] = lambda _: None
    """Told the plan of a new run, with what was left out of it."""
    should_stop: Callable[[], bool] = lambda: False
    notice: Callable[[str], None] = lambda _: None
    """Told what the run does without, because memory ran out: a sentence, as soon as it is so."""
    pace: Pace | None = None
    """A time budget: questions are asked in the order of the plan, in blocks, each model until its time
    is up, with the determinism self-test. None = all at once, to the end."""
    measure: Callable[[Backend], Mapping[str, object]] = lambda _: {}
    """Looks at a model before it is asked; what it returns is kept with what the engine did."""


def start_run(
    spec: RunSpec,
    store: Store,
    backends: Backend | Sequence[Backend],
    models: Mapping[str, object] | Sequence[Mapping[str, object]],
    control: Control | None = None,
) -> Summary:
    """Plan a run, keep the plan, and carry it out, model after model.

    Args:
        spec: what to ask.
        store: where jobs and answers are kept.
        backends: the model, or several in the order in which they are asked. Their names differ.
        models: what is known of each model's file.
        control: None = nobody watches.

    Raises:
        RunStopped: the caller stopped it; the hint resumes it.
        MedlocalError: it failed; what was answered is kept.
    """
    control = control or Control()
    made = [backends] if not isinstance(backends, Sequence) else list(backends)
    facts = [models] if isinstance(models, Mapping) else list(models)
    _check_different(made)
    plans = []
    for backend in made:
        plans.append(plan_of(spec, backend.identity()))
        control.planned(plans[-1])
    known = [
        {**fact, "id": backend.name, "identity": backend.identity()}
        for backend, fact in zip(made, facts, strict=True)
    ]
    # One model stands there as it is; several stand beside each other.
    run_id = store.create_run(spec.to_json(), known[0] if len(known) == 1 else {"models": known})
    with store.lock_run(run_id):
        for backend, plan in zip(made, plans, strict=True):
            store.add_jobs(run_id, [to_stored(job, backend.name) for job in plan.jobs])
        parts = [parts_of(spec, plan) for plan in plans]
        return _carry_out(store, run_id, made, control, parts)


def _check_different(backends: Sequence[Backend]) -> None:
    names = [backend.name for backend in backends]
    if len(set(names)) < len(names):
        raise UsageError("two models have the same name", hint="rename one of the files")
    # Answers belong to the file: two names for one file would share them.
    by_identity = {canonical_json(backend.identity()): backend.name for backend in backends}
    if len(by_identity) < len(names):
        raise UsageError(
            f"two of the models are the same file: {', '.join(names)}",
            hint="leave one out: their answers are the same",
        )


def resume_run(
    run_id: str,
    store: Store,
    backends: Backend | Sequence[Backend],
    control: Control | None = None,
) -> Summary:
    """Carry on with a run where it stopped; jobs that had an engine error are asked again.

    Raises:
        UsageError: the model file, the build or the mode is not the one that the run began with,
            or its process was killed before the plan was kept.
    """
    made = [backends] if not isinstance(backends, Sequence) else list(backends)
    if not store.counts(run_id).jobs:
        raise UsageError(f"run {run_id} was stopped before it was planned", hint="start it again")
    known = [model.get("identity") for model in store.run(run_id).models]
    if known != [backend.identity() for backend in made]:
        raise UsageError(
            f"run {run_id} was made with another model file, build, machine or mode",
            hint="start a new run: answers of both kinds must not be mixed",
        )
    with store.lock_run(run_id):
        return _carry_out(store, run_id, made, control or Control(), [{} for _ in made])


def _carry_out(
    store: Store,
    run_id: str,
    backends: Sequence[Backend],
    control: Control,
    parts: Sequence[Mapping[str, int]],
) -> Summary:
    """Ask one model after the other; the run is done when the last one is."""
    summary, seconds = None, 0.0
    for number, (backend, by_part) in enumerate(zip(backends, parts, strict=True), start=1):
        session = _Session(store, run_id, backend, control, by_part)
        session.only_one = len(backends) == 1
        session.is_last = number == len(backends)
        summary = session.carry_out()
        seconds += summary.seconds
    assert summary is not None, "a run has at least one model"
    return replace(summary, seconds=seconds)


@dataclass
class _Session:
    """One process at work on one run, under its lock."""

    store: Store
    run_id: str
    backend: Backend
    control: Control
    by_part: Mapping[str, int] = field(default_factory=dict)
    only_one: bool = True
    """The run has no other model."""
    is_last: bool = True
    _buffer: list[tuple[StoredJob, Record]] = field(default_factory=list)
    _committed: float = 0.0
    _started: float = 0.0
    _done: int = 0
    _total: int = 0
    _errors: int = 0
    _correct: int = 0
    _graded: int = 0
    _answered: int = 0
    _alive: bool = False
    _engine: Engine | None = None
    _num_told: int = 0
    """Of the backend's notices."""
    _past: EngineStats = field(default_factory=EngineStats)
    """Of the blocks that are over."""
    _looked: Mapping[str, object] = field(default_factory=dict)
    """What `Control.measure` found."""
    _test: SelfTest | None = None
    _twins: dict[tuple[object, ...], list[StoredJob]] = field(default_factory=dict)
    """By prompt and task, the jobs that one answer is for."""

    def carry_out(self) -> Summary:
        began = time.perf_counter()
        self.store.set_state(self.run_id, RunState.RUNNING)
        try:
            self._work()
        except TimeIsUp:
            self._commit()
        except (Interrupted, KeyboardInterrupt) as error:
            self.store.set_state(self.run_id, RunState.INTERRUPTED)
            raise self._interrupted() from error
        except BaseException as error:
            # On a full disk this fails too: the first error is the one to be told.
            with suppress(MedlocalError):
                self.store.set_state(self.run_id, RunState.FAILED, str(error) or repr(error))
            raise
        finally:
            self.backend.close()
        if self.is_last:
            is_done = not self.store.counts(self.run_id).pending
            self.store.set_state(self.run_id, RunState.DONE if is_done else RunState.INTERRUPTED)
            self._say("done")
        return self._summary(time.perf_counter() - began)

    def _work(self) -> None:
        pending = set(self.store.pending(self.run_id, retry_errors=True))
        counts = self.store.counts(self.run_id)
        self._done, self._total = counts.done, counts.jobs
        self._say("loading")
        if pace := self.control.pace:
            pace.begin_model()
        if looked := self.control.measure(self.backend):
            self._looked = looked
            self._keep(looked)
        if not pending and not pace:
            return
        if pace:
            pace.check()
        asker = self.backend.asker()
        self._tell_notices()
        all_jobs = [job for job in self.store.jobs(self.run_id) if job.model == self.backend.name]
        jobs = [job for job in all_jobs if job.key in pending]
        requests = self._requests(asker, jobs)
        if requests:
            self._ask(asker, jobs, requests, all_jobs)
        elif pace:
            self._test_again(asker, all_jobs)
        self._commit()

    def _requests(self, asker: Asker, jobs: list[StoredJob]) -> list[Request]:
        """Tokenise all jobs; one that cannot be sent becomes an error of its own."""
        requests = []
        for number, job in enumerate(jobs):
            try:
                requests.append(asker.request(number, job))
            except RefusedError as error:
                self._take(job, Record(job.key, "", FINISH_ERROR, (), (), error.message))
        return requests

    def _ask(
        self,
        asker: Asker,
        jobs: list[StoredJob],
        requests: list[Request],
        all_jobs: list[StoredJob],
    ) -> None:
        # Variants and levels may come to the same words: what is asked twice is computed once.
        for request in requests:
            self._twins.setdefault((request.prompt, request.task), []).append(jobs[request.id])
        distinct = distinct_requests(requests)
        limit = self.backend.context_limit()
        fitting = [r for r in distinct if r.num_cells <= limit]
        canary = [asker.canary(-1)] if any(job.arm == "grammar" for job in jobs) else []
        decoder = self.backend.decoder(Needs.of([*fitting, *canary]))
        self._tell_notices()
        pace = self.control.pace
        if pace is None:
            self.control.announce(
                make_estimate(self.backend, all_jobs, requests, self.by_part, decoder)
            )
        engine = self._engine = Engine(decoder, self._tick)
        self._started = self._committed = time.perf_counter()
        liveness = "not reached"
        try:
            liveness = self._prove_masks(engine, asker, canary)
            self._started = time.perf_counter()
            if pace is None:
                for _ in self._answer(engine, asker, distinct, limit):
                    pass
            else:
                self._answer_paced(pace, engine, asker, by_item(distinct, jobs))
        except (Interrupted, KeyboardInterrupt):
            self._keep_facts(engine, liveness, measured=False)
            raise
        self._commit()
        self._say("measuring")
        self._keep_facts(engine, liveness, measured=pace is None)

    def _answer(
        self, engine: Engine, asker: Asker, requests: Sequence[Request], limit: int
    ) -> Iterator[Completion]:
        """Ask distinct requests together, and keep each answer before it is handed on."""
        try:
            for completion in run_with_less(engine, requests, limit, self._less):
                for job in self._twins[completion.request.prompt, completion.request.task]:
                    self._take(job, asker.record(job, completion, alive=self._alive))
                yield completion
        finally:
            engine.stats.total_prompt_tokens = sum(
                len(r.prompt) * len(self._twins[r.prompt, r.task]) for r in requests
            )
            self._past = together(self._past, engine.stats)
            engine.stats = EngineStats()

    def _answer_paced(
        self, pace: Pace, engine: Engine, asker: Asker, items: Sequence[Sequence[Request]]
    ) -> None:
        """Ask some items after the others until the time is up; the self-test comes early."""
        limit, at = self.backend.context_limit(), 0
        while at < len(items) and (size := pace.next_block()):
            block = items[at : at + size]
            at += len(block)
            answers = list(self._answer(engine, asker, [r for i in block for r in i], limit))
            pace.block_done(len(block))
            is_last_chance = self._test is None and at == len(items) and pace.has_time_to_test
            if pace.is_test_due or is_last_chance:
                self._run_test(engine, answers, block)

    def _run_test(
        self, engine: Engine, first: Sequence[Completion], items: Sequence[Sequence[Request]]
    ) -> None:
        """The determinism self-test; alone, an item is asked one of its forms, each form in turn."""
        self._say("testing")
        self._test = SelfTest()
        alone = [requests[n % len(requests)] for n, requests in enumerate(items)]
        limit = self.backend.context_limit()
        self_test(
            self._test, lambda asked: run_with_less(engine, asked, limit, self._less), first, alone
        )
        engine.stats = EngineStats()

    def _test_again(self, asker: Asker, jobs: list[StoredJob]) -> None:
        """The self-test where everything has been answered before: on the first questions."""
        requests = list(sendable(asker, jobs))
        limit = self.backend.context_limit()
        fitting = [r for r in distinct_requests(requests) if r.num_cells <= limit]
        items = by_item(fitting, jobs)[:TEST_ITEMS]
        asked = [request for item in items for request in item]
        if not asked:
            return
        engine = self._engine = Engine(self.backend.decoder(Needs.of(asked)), self._tick)
        try:
            first = list(run_with_less(engine, asked, limit, self._less))
            self._run_test(engine, first, items)
        finally:
            if self._test is not None:
                self._keep({"self_test": self._test.to_json()})

    def _prove_masks(self, engine: Engine, asker: Asker, canary: list[Request]) -> str:
        """Let the canary sing: without it, a mask that silently does nothing would look obeyed."""
        if not canary:
            return "not needed"
        (completion,) = run_with_less(engine, canary, canary[0].num_cells, self._less)
        engine.stats = EngineStats()
        self._alive = asker.is_alive(completion)
        return "ok" if self._alive else "failed"

    def _less(self, error: OutOfMemoryError) -> Decoder:
        """Go on with less memory, and keep what there is: it cost time, and memory is short."""
        self._commit()
        decoder = self.backend.smaller_decoder(error)
        self._tell_notices()
        return decoder

    def _tell_notices(self) -> None:
        """Say and keep what was given up since the last time."""
        for sentence in self.backend.notices[self._num_told :]:
            self.control.notice(sentence)
            self.store.log_event(self.run_id, "memory", {"notice": sentence})
        self._num_told = len(self.backend.notices)

    def _take(self, job: StoredJob, record: Record) -> None:
        self._buffer.append((job, record))
        if record.finish == FINISH_ERROR:
            self._errors += 1
        else:
            self._done += 1
            self._answered += 1
        if len(self._buffer) >= _COMMIT_RECORDS:
            self._commit()

    def _tick(self) -> None:
        """After every batch of the engine."""
        if self._buffer and time.perf_counter() - self._committed >= _COMMIT_SECONDS:
            self._commit()
        self._say("asking")
        if self.control.should_stop():
            self._commit()
            raise Interrupted("stopped")
        if self.control.pace:
            self.control.pace.check()

    def _commit(self) -> None:
        grades = [grade(job, record) for job, record in self._buffer]
        self.store.put(self.run_id, [record for _, record in self._buffer], grades)
        self._correct += sum(g.correct for g in grades)
        self._graded += len(grades)
        self._buffer = []
        self._committed = time.perf_counter()

    def _keep_facts(self, engine: Engine, liveness: str, *, measured: bool) -> None:
        """Keep what the engine used and did; `measured` = there is time to measure its rates."""
        stats = self._past
        facts = {**self._looked, **self.backend.facts(), **figures(stats), "liveness": liveness}
        work = stats.prefilled_tokens + stats.decode_rows
        if measured and work >= _MIN_TOKENS_FOR_EFFICIENCY:
            facts |= efficiency(engine, stats)
        facts["peak_memory_bytes"] = peak_memory_bytes()
        if self._test is not None:
            facts["self_test"] = self._test.to_json()
        self._keep(facts)

    def _keep(self, facts: Mapping[str, object]) -> None:
        """Keep facts of this model's session beside those of the sessions before it."""
        kept = self.store.run(self.run_id).engine
        before = kept if self.only_one else kept.get(self.backend.name, {})
        assert isinstance(before, Mapping)
        known = {**before, **with_sums(facts, before)}
        self.store.set_engine(
            self.run_id, known if self.only_one else {**kept, self.backend.name: known}
        )

    def _say(self, phase: str) -> None:
        now = self._engine.stats if self._engine else EngineStats()
        stats = together(self._past, now)
        seconds = time.perf_counter() - self._started if self._started else 0.0
        self.control.watch(
            Progress(
                run_id=self.run_id,
                phase=phase,
                done=self._done,
                total=self._total,
                errors=self._errors,
                correct=self._correct,
                graded=self._graded,
                seconds=seconds,
                num_tokens=stats.prefilled_tokens + stats.decode_rows,
                answered=self._answered,
            )
        )

    def _summary(self, seconds: float) -> Summary:
        counts = self.store.counts(self.run_id)
        state = self.store.run(self.run_id).state.value
        return Summary(
            self.run_id, state, counts.jobs, counts.done, counts.reused, counts.errors, seconds
        )

    def _interrupted(self) -> RunStopped:
        counts = self.store.counts(self.run_id)
        kept = f"{counts.done} of {counts.jobs} answers are kept"
        return RunStopped(self.run_id, f"run {self.run_id} was stopped; {kept}")


def peak_memory_bytes() -> int:
    """Most memory that this process has held, the mapped model file included."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: there a process inherits the peak of the one that started it.
        found = re.search(
            r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii", errors="replace")
        )
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
