"""The rates of a decoder are those of its clock, and measuring leaves no trace in its cache."""

from dataclasses import dataclass, replace

import pytest

from medlocal.engine import rates
from medlocal.engine.batching import Batch, Limits
from medlocal.engine.rates import Rates, measure_rates
from tests.fakes import ToyDecoder

LIMITS = Limits(num_cells=400, num_rows=16, num_ids=12, num_texts=8, num_outputs=10)


@dataclass
class TimedDecoder(ToyDecoder):
    """Every batch takes a second and a tenth for each row, on a clock of its own."""

    now: float = 0.0
    num_batches: int = 0

    def decode(self, batch: Batch) -> None:
        super().decode(batch)
        self.now += 1.0 + 0.1 * len(batch)
        self.num_batches += 1

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> TimedDecoder:
    timed = TimedDecoder(LIMITS)
    monkeypatch.setattr(rates, "time", timed)
    return timed


def test_a_prompt_is_read_in_full_batches(decoder: TimedDecoder) -> None:
    # 40 tokens in batches of 16, 16 and 8: three seconds and 40 tenths.
    assert measure_rates(decoder, 40, 4).prompt == pytest.approx(40 / 7.0)


def test_texts_grow_side_by_side(decoder: TimedDecoder) -> None:
    # 4 tokens per batch of 1.4 seconds.
    assert measure_rates(decoder, 40, 4).generation == pytest.approx(4 / 1.4)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (LIMITS, 9),  # 12 ids less the two reserved ones and the prompt's
        (replace(LIMITS, num_rows=6), 6),
        (replace(LIMITS, num_outputs=5), 5),
    ],
)
def test_there_are_no_more_texts_than_the_context_takes(
    decoder: TimedDecoder, limits: Limits, expected: int
) -> None:
    decoder.limits = limits
    assert measure_rates(decoder, 10, 30.0).concurrency == expected


@pytest.mark.parametrize(("wanted", "expected"), [(0.0, 1), (1.4, 1), (2.6, 3)])
def test_the_concurrency_of_a_run_is_rounded(
    decoder: TimedDecoder, wanted: float, expected: int
) -> None:
    assert measure_rates(decoder, 10, wanted).concurrency == expected


def test_a_prompt_is_at_most_half_of_the_cache(decoder: TimedDecoder) -> None:
    # 200 tokens: 12 batches of 16 and one of 8.
    assert measure_rates(decoder, 100_000, 1).prompt == pytest.approx(200 / (13 + 20.0))


def test_the_cache_is_empty_afterwards(decoder: TimedDecoder) -> None:
    measure_rates(decoder, 40, 4)
    assert decoder.num_used == 0


def test_every_repetition_reads_and_generates_once_more(decoder: TimedDecoder) -> None:
    measure_rates(decoder, 40, 4, repetitions=2)
    assert decoder.num_batches == 3 + 2 * (3 + 8)  # the first pass is not counted


def test_the_ideal_time_adds_up_both_kinds_of_tokens() -> None:
    assert Rates(prompt=100.0, generation=20.0, concurrency=4).ideal_seconds(300, 10) == 3.5
