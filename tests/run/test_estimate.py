"""What a run will take, told before it starts: counted by hand, on a toy model."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import norm

from medlocal.engine.rates import Rates
from medlocal.engine.sequence import Generate, Request, Score
from medlocal.evals.items import Item
from medlocal.run import Control, Progress, RunSpec, make_spec, preview, preview_run, start_run
from medlocal.run.estimate import Estimate, Showable, showable, token_counts
from medlocal.run.spec import Part
from medlocal.store import Store, StoredJob
from tests.fakes import BOS, ToyBackend, toy_tokens

FIRST = Item(
    id="1",
    dataset="starter",
    split="test",
    language="en",
    stem="Which is low?",
    options=("Sodium", "Potassium", "Chloride"),
    gold=1,
    subject="renal",
    group="starter/1",
)
SECOND = replace(FIRST, id="2", group="starter/2", stem="Which is high?", gold=0)


@pytest.fixture(autouse=True)
def _two_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "read_items", lambda spec: [FIRST, SECOND])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that does not wait for the disk."""
    with Store(tmp_path / "medlocal.db") as found:
        found._database.execute("PRAGMA synchronous = OFF")
        yield found


def a_spec(**changes: Any) -> RunSpec:
    asked = {"languages": ("en",), "formats": ("letter",), "arms": ("free",), **changes}
    return make_spec("starter", "toy", **asked)


def run(store: Store, spec: RunSpec, control: Control | None = None) -> ToyBackend:
    backend = ToyBackend()
    start_run(spec, store, backend, backend.model_facts(), control)
    return backend


def sent(store: Store) -> list[list[int]]:
    """The tokens of the prompts of the last run: a sign of beginning, then the toy's template."""
    jobs = store.jobs(store.run("last").id)
    chats = ("".join(f"{role}: {text}\n" for role, text in job.messages) for job in jobs)
    return [[BOS, *toy_tokens(f"{chat}\x02")] for chat in chats]


def an_estimate(**changes: Any) -> Estimate:
    estimate = Estimate(
        num_jobs=100,
        num_answered=0,
        by_part={"starter": 100},
        total_prompt_tokens=20_000,
        unique_prompt_tokens=5_000,
        least_output_tokens=40,
        most_output_tokens=400,
        rates=Rates(prompt=100.0, generation=20.0, concurrency=4),
        weights_bytes=0,
        kv_bytes=0,
        showable=(),
    )
    return replace(estimate, **changes)


class TestTokenCounts:
    def test_what_prompts_share_counts_once(self) -> None:
        """1 2 3 4 and 1 2 9: seven tokens, of which 1 2 are shared."""
        requests = [
            Request(0, (1, 2, 3, 4), Generate(16)),
            Request(1, (1, 2, 9), Generate(20)),
        ]
        assert token_counts(requests) == {
            "total_prompt_tokens": 7,
            "unique_prompt_tokens": 5,
            "least_output_tokens": 2,
            "most_output_tokens": 36,
        }

    def test_equal_requests_are_computed_once(self) -> None:
        """Three times the same: the prompt would be read three times if each were asked alone."""
        requests = [Request(number, (1, 2, 3), Generate(16)) for number in range(3)]
        counts = token_counts([*requests, Request(3, (1, 2, 3), Generate(20))])
        assert (counts["total_prompt_tokens"], counts["unique_prompt_tokens"]) == (12, 3)
        assert (counts["least_output_tokens"], counts["most_output_tokens"]) == (2, 36)

    def test_what_is_scored_has_no_output(self) -> None:
        counts = token_counts([Request(0, (1, 2), Score(((3,), (4,))))])
        assert (counts["least_output_tokens"], counts["most_output_tokens"]) == (0, 0)

    def test_nothing_to_ask_costs_nothing(self) -> None:
        assert set(token_counts([]).values()) == {0}


class TestSeconds:
    def test_from_the_rates(self) -> None:
        """5,000 distinct tokens at 100 a second, then 40 or 400 at 20 a second."""
        estimate = an_estimate()
        assert estimate.seconds == (52.0, 70.0)
        assert estimate.shared == 0.25

    def test_without_rates_there_is_no_time(self) -> None:
        assert an_estimate(rates=None).seconds is None

    def test_without_prompts_nothing_is_shared(self) -> None:
        assert an_estimate(total_prompt_tokens=0, unique_prompt_tokens=0).shared is None

    def test_a_program_reads_what_is_derived_too(self) -> None:
        values = json.loads(json.dumps(an_estimate().to_json()))
        assert (values["shared"], values["seconds"]) == (0.25, [52.0, 70.0])
        assert values["rates"] == {"prompt": 100.0, "generation": 20.0, "concurrency": 4}


def jobs(dataset: str, language: str, num_items: int) -> list[StoredJob]:
    """Jobs of as many items, each asked in two arms."""
    return [
        StoredJob(
            key=f"{dataset}-{language}-{number}-{arm}",
            model="toy",
            dataset=dataset,
            item_id=str(number),
            group_id=str(number),
            language=language,
            variant="original",
            prompt="plain",
            format="letter",
            arm=arm,
            payload={},
            messages=(),
        )
        for number in range(num_items)
        for arm in ("free", "grammar")
    ]


def required(difference: float, discordance: float = 0.2) -> float:
    """Items that show a difference: ((z₀.₉₇₅·√d + z₀.₈·√(d − δ²)) / δ)², by scipy's quantiles."""
    alpha, beta = norm.ppf(0.975), norm.ppf(0.8)
    spread = alpha * math.sqrt(discordance) + beta * math.sqrt(discordance - difference**2)
    return float((spread / difference) ** 2)


class TestShowable:
    def test_by_hand(self) -> None:
        """At 20 % discordance 128 questions show 11.0 points."""
        (shown,) = showable(jobs("starter", "es", 128))
        assert (shown.dataset, shown.language, shown.n) == ("starter", "es", 128)
        assert shown.difference == pytest.approx(0.1097255, abs=1e-6)
        assert required(shown.difference or 0) == pytest.approx(128)

    def test_a_few_questions_show_nothing(self) -> None:
        """20 would show 26.4 points, more than the 20 that two models could differ by."""
        assert required(0.2) > 20
        assert showable(jobs("starter", "en", 20)) == (Showable("starter", "en", 20, None),)

    def test_sets_and_languages_are_apart(self) -> None:
        found = showable([*jobs("b", "en", 40), *jobs("a", "es", 50), *jobs("a", "en", 60)])
        assert [(s.dataset, s.language, s.n) for s in found] == [
            ("a", "en", 60),
            ("a", "es", 50),
            ("b", "en", 40),
        ]
        assert found[2].difference == pytest.approx(0.1923181, abs=1e-6)


class TestPreview:
    def test_two_jobs_by_hand(self, store: Store, tmp_path: Path) -> None:
        """The toy's tokens are bytes: the two prompts share what they begin with."""
        plan, estimate = preview_run(a_spec(), store, ToyBackend())
        assert len(plan.jobs) == 2
        assert (estimate.num_jobs, estimate.num_answered) == (2, 0)
        assert estimate.by_part == {"starter": 2}
        with Store(tmp_path / "other" / "medlocal.db") as other:
            run(other, a_spec())
            first, second = sent(other)
        shared = next(
            at for at, two in enumerate(zip(first, second, strict=False)) if len({*two}) > 1
        )
        assert 0 < shared < len(first)
        assert estimate.total_prompt_tokens == len(first) + len(second)
        assert estimate.unique_prompt_tokens == len(first) + len(second) - shared
        assert (estimate.least_output_tokens, estimate.most_output_tokens) == (2, 32)
        assert (estimate.rates, estimate.seconds) == (None, None)
        assert estimate.showable == (Showable("starter", "en", 2, None),)

    def test_nothing_is_asked_and_nothing_is_kept(self, store: Store) -> None:
        backend = ToyBackend()
        preview_run(a_spec(), store, backend)
        assert store.runs() == []
        (count,) = store._database.execute("SELECT count(*) FROM records").fetchone()
        assert count == 0
        assert backend.num_decoded == 0
        assert not backend.is_open

    def test_what_was_answered_is_not_counted_again(self, store: Store) -> None:
        run(store, a_spec(limit=1))
        _, estimate = preview_run(a_spec(), store, ToyBackend())
        assert (estimate.num_jobs, estimate.num_answered) == (2, 1)
        assert estimate.total_prompt_tokens == estimate.unique_prompt_tokens > 0
        assert estimate.most_output_tokens == 16

    def test_where_all_was_answered_no_context_is_made(self, store: Store) -> None:
        run(store, a_spec())
        backend = ToyBackend()
        _, estimate = preview_run(a_spec(), store, backend)
        assert (estimate.num_jobs, estimate.num_answered) == (2, 2)
        assert (estimate.total_prompt_tokens, estimate.shared) == (0, None)
        assert backend.decoders == []

    def test_an_error_is_no_answer(self, store: Store) -> None:
        backend = ToyBackend(context=10)
        start_run(a_spec(), store, backend, backend.model_facts())
        assert preview_run(a_spec(), store, ToyBackend())[1].num_answered == 0

    def test_rates_are_measured_where_there_is_enough_to_ask(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preview, "_MIN_TOKENS_FOR_RATES", 1)
        backend = ToyBackend()
        _, estimate = preview_run(a_spec(), store, backend)
        assert estimate.rates is not None
        assert estimate.seconds is not None
        least, most = estimate.seconds
        assert 0 < least < most
        assert backend.num_decoded > 0
        assert backend.decoders[0].num_used == 0, "the cache is empty again"

    def test_no_context_is_made_for_what_is_too_long_to_be_asked(self, store: Store) -> None:
        backend = ToyBackend(context=10)
        _, estimate = preview_run(a_spec(), store, backend)
        assert estimate.num_jobs == 2
        assert backend.decoders == []

    def test_a_job_that_two_parts_ask_for_counts_for_the_first(self, store: Store) -> None:
        spec = a_spec()
        parts = (
            Part("words", ("plain",), ("letter",), ("free",), ("original", "upper")),
            Part("places", ("plain",), ("letter",), ("free",), ("original", "rotate(1)")),
        )
        _, estimate = preview_run(replace(spec, parts=parts), store, ToyBackend())
        assert estimate.by_part == {"words": 4, "places": 2}
        assert estimate.num_jobs == 6


class TestAnnouncing:
    def test_a_run_is_announced_once_before_the_first_job_is_asked(self, store: Store) -> None:
        heard: list[str | Estimate] = []

        def watch(progress: Progress) -> None:
            heard.append(progress.phase)

        run(store, a_spec(), Control(watch=watch, announce=heard.append))
        (announced,) = [at for at, said in enumerate(heard) if isinstance(said, Estimate)]
        assert heard.index("asking") > announced
        assert heard.count("loading") == 1

    def test_it_is_told_what_the_preview_tells(self, store: Store) -> None:
        heard: list[Estimate] = []
        _, expected = preview_run(a_spec(), store, ToyBackend())
        run(store, a_spec(), Control(announce=heard.append))
        assert heard == [expected]

    def test_a_run_that_has_nothing_to_ask_announces_nothing(self, store: Store) -> None:
        run(store, a_spec())
        heard: list[Estimate] = []
        run(store, a_spec(), Control(announce=heard.append))
        assert heard == []


class TestTwins:
    """With the gold moved to where it stands, the question is the original under another name."""

    ONE = a_spec(limit=1)

    def both(self, store: Store) -> RunSpec:
        """The first item's spec with its twin."""
        (job,) = preview.plan_of(self.ONE, ToyBackend().identity()).jobs
        return a_spec(limit=1, variants=("original", f"gold_at({'ABC'[job.variant.gold]})"))

    def test_they_are_computed_once_and_answered_twice(self, store: Store, tmp_path: Path) -> None:
        with Store(tmp_path / "other" / "medlocal.db") as other:
            alone = run(other, self.ONE)
        twins = run(store, self.both(store))
        assert twins.num_decoded == alone.num_decoded > 0
        first, second = [store.record(job.key) for job in store.jobs(store.run("last").id)]
        assert first is not None
        assert second is not None
        assert first.job_key != second.job_key
        assert (first.text, first.token_ids) == (second.text, second.token_ids)

    def test_they_are_estimated_so(self, store: Store) -> None:
        alone = preview_run(self.ONE, store, ToyBackend())[1]
        twins = preview_run(self.both(store), store, ToyBackend())[1]
        assert (twins.num_jobs, alone.num_jobs) == (2, 1)
        assert twins.total_prompt_tokens == 2 * alone.total_prompt_tokens
        assert twins.unique_prompt_tokens == alone.unique_prompt_tokens
        assert twins.most_output_tokens == alone.most_output_tokens == 16
