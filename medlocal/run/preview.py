"""A run before it starts: its plan, and the estimate of what it will take.

Between the spec and the carrying out: `execute` asks what is planned here, and `preview_run` asks
nothing. Nothing is printed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from medlocal.engine.batching import Decoder
from medlocal.engine.sequence import Request
from medlocal.errors import RefusedError
from medlocal.evals.plan import Plan, PlanRequest, make_plan, take
from medlocal.run.asking import Asker
from medlocal.run.backend import Backend, Needs
from medlocal.run.balance import balanced
from medlocal.run.estimate import (
    Estimate,
    quick_rates,
    showable,
    token_counts,
)
from medlocal.run.grading import to_stored
from medlocal.run.spec import RunSpec, crossings_of, examples_of, read_items, read_peers
from medlocal.store import Store, StoredJob

_MIN_TOKENS_FOR_RATES = 5_000
"""Distinct prompt tokens below which a run is over before its time is estimated."""


def plan_of(spec: RunSpec, identity: Mapping[str, object]) -> Plan:
    """The plan of a spec for one model."""
    request = PlanRequest(crossings_of(spec), examples_of(spec), spec.seed, read_peers(spec))
    items = take(read_items(spec), spec.limit)
    return make_plan(request, balanced(items) if spec.is_balanced else items, identity)


def preview_run(spec: RunSpec, store: Store, backend: Backend) -> tuple[Plan, Estimate]:
    """What `start_run` would take, without asking or keeping anything.

    Args:
        spec: what would be asked.
        store: whose answers need not be asked again.
        backend: the model; it is closed afterwards.
    """
    plan = plan_of(spec, backend.identity())
    jobs = [to_stored(job, backend.name) for job in plan.jobs]
    try:
        asker = backend.asker()
        answered = store.answered(job.key for job in jobs)
        new = [job for job in jobs if job.key not in answered]
        requests = list(sendable(asker, new))
        limit = backend.context_limit()
        fitting = [r for r in distinct_requests(requests) if r.num_cells <= limit]
        decoder = backend.decoder(Needs.of(fitting)) if fitting else None
        return plan, make_estimate(backend, jobs, requests, parts_of(spec, plan), decoder)
    finally:
        backend.close()


def parts_of(spec: RunSpec, plan: Plan) -> dict[str, int]:
    """Jobs by the name of the part that asks for them first."""
    counts: dict[str, int] = {}
    for part, number in zip(spec.parts, plan.num_by_crossing, strict=True):
        counts[part.name] = counts.get(part.name, 0) + number
    return counts


def sendable(asker: Asker, jobs: Iterable[StoredJob]) -> Iterator[Request]:
    """The requests of jobs, numbered by their places, without those that cannot be sent."""
    for number, job in enumerate(jobs):
        with suppress(RefusedError):
            yield asker.request(number, job)


def distinct_requests(requests: Iterable[Request]) -> list[Request]:
    """One request of every kind: equal prompts with equal tasks have one answer."""
    return list({(request.prompt, request.task): request for request in requests}.values())


def by_item(requests: Iterable[Request], jobs: Sequence[StoredJob]) -> list[list[Request]]:
    """Requests by the item that they ask, parallel items together, in the order of the first."""
    found: dict[tuple[str, ...], list[Request]] = {}
    for request in requests:
        job = jobs[request.id]
        found.setdefault((job.dataset, job.group_id, job.item_id), []).append(request)
    return list(found.values())


def make_estimate(
    backend: Backend,
    jobs: Sequence[StoredJob],
    requests: Sequence[Request],
    by_part: Mapping[str, int],
    decoder: Decoder | None,
) -> Estimate:
    """What the jobs will take.

    Args:
        backend: the model, its decoder made.
        jobs: all of the run.
        requests: those still to be asked.
        by_part: jobs by the suite that asks for them.
        decoder: what the rates are measured on, where none are known; None = nothing is to be asked.
    """
    counts = token_counts(requests)
    is_worth_it = counts["unique_prompt_tokens"] >= _MIN_TOKENS_FOR_RATES
    rates = quick_rates(decoder, requests) if decoder and is_worth_it else None
    facts = backend.facts()
    return Estimate(
        num_jobs=len(jobs),
        num_answered=len(jobs) - len(requests),
        by_part=by_part,
        rates=rates,
        weights_bytes=_whole(facts.get("weights_bytes")),
        kv_bytes=_whole(facts.get("kv_bytes")),
        showable=showable(jobs),
        **counts,
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
