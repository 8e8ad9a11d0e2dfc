"""What the timer counts and leaves out, on a decoder whose time is ours."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from medlocal.engine.batching import Batch, Limits
from medlocal.engine.sequence import Logits
from medlocal.engine.timing import Repeated, SpeedRequest, SpeedTest, SpeedTimer
from medlocal.errors import UsageError
from tests.fakes import BOS, NUM_VOCAB, ToyDecoder

SMALL = SpeedRequest(
    prompt_tokens=10, new_tokens=4, depths=(0, 16), sequences=(1, 3), repetitions=3
)
PROMPT, PROMPT_BEHIND = SpeedTest("prompt", 10, 0), SpeedTest("prompt", 10, 16)
TEXT, THREE_TEXTS = SpeedTest("generation", 4, 0), SpeedTest("generation", 4, 0, 3)


def zeros(history: tuple[int, ...]) -> Logits:
    return np.zeros(NUM_VOCAB, np.float32)


@dataclass
class TimedDecoder(ToyDecoder):
    """A toy that takes as long for a batch as it is told, and keeps what it was given."""

    seconds_of: Callable[[Batch], float] = len
    now: float = 0.0
    batches: list[Batch] = field(default_factory=list)

    def decode(self, batch: Batch) -> None:
        super().decode(batch)
        self.now += self.seconds_of(batch)
        self.batches.append(batch)


def timed(seconds_of: Callable[[Batch], float] = len, request: SpeedRequest = SMALL) -> SpeedTimer:
    limits = Limits(request.num_cells, 8, request.num_ids, num_texts=8, num_outputs=8)
    decoder = TimedDecoder(limits, zeros, seconds_of=seconds_of)
    return SpeedTimer(decoder, request, NUM_VOCAB, BOS, clock=lambda: decoder.now)


def decoder_of(timer: SpeedTimer) -> TimedDecoder:
    assert isinstance(timer.decoder, TimedDecoder)
    return timer.decoder


def test_a_prompts_speed_is_its_tokens_by_the_time_of_its_calls() -> None:
    row = timed(lambda batch: len(batch) / 50).measure(PROMPT)
    assert row.speed.values == pytest.approx((50, 50, 50))


def test_the_tokens_of_all_texts_count() -> None:
    row = timed(lambda batch: 0.5).measure(THREE_TEXTS)
    assert row.speed.values == pytest.approx((6, 6, 6))
    assert row.seconds_per_token == pytest.approx(0.5)


def test_what_lies_before_a_test_takes_no_time() -> None:
    def seconds(batch: Batch) -> float:
        return 1000 if batch.positions[0] < 16 else 0.1 * len(batch)

    row = timed(seconds).measure(PROMPT_BEHIND)
    assert row.speed.values == pytest.approx((10, 10, 10))


def test_the_first_pass_is_not_timed() -> None:
    timer = timed()
    decoder = decoder_of(timer)
    decoder.seconds_of = lambda batch: 1.0 if len(decoder.batches) >= 2 else 1000.0
    assert timer.measure(PROMPT).speed.values == pytest.approx((5, 5, 5))


def test_a_generations_first_pass_is_a_single_call() -> None:
    timer = timed()
    timer.measure(TEXT)
    assert len(decoder_of(timer).batches) == 1 + 3 * 4


def test_a_prompt_wants_the_logits_of_its_last_token_only() -> None:
    timer = timed()
    timer.measure(PROMPT)
    first, second = decoder_of(timer).batches[:2]
    assert (len(first), first.num_outputs) == (8, 0)
    assert second.outputs == [False, True]


def test_a_text_wants_the_logits_of_every_token() -> None:
    timer = timed()
    timer.measure(THREE_TEXTS)
    assert all(batch.outputs == [True, True, True] for batch in decoder_of(timer).batches)


def test_a_prompt_begins_with_bos_and_a_model_without_one_gets_any_token() -> None:
    timer = timed()
    timer.measure(PROMPT)
    assert decoder_of(timer).batches[0].tokens[0] == BOS
    other = timed()
    other.bos = None
    other.measure(PROMPT)
    assert {batch.tokens[0] for batch in decoder_of(other).batches} != {BOS}


def test_each_repetition_has_other_tokens() -> None:
    timer = timed()
    timer.measure(PROMPT)
    prompts = [tuple(batch.tokens) for batch in decoder_of(timer).batches[::2]]
    assert len(set(prompts)) == 4


def test_what_lies_before_is_computed_once_for_all_its_tests() -> None:
    timer = timed()
    for test in SMALL.tests[3:]:
        timer.measure(test)
    before = [b for b in decoder_of(timer).batches if b.positions[0] < 16]
    assert sum(map(len, before)) == 16


def test_every_text_sees_what_lies_before_it() -> None:
    seen: set[int] = set()

    def lengths(history: tuple[int, ...]) -> Logits:
        seen.add(len(history))
        return zeros(history)

    timer = timed()
    decoder_of(timer).logits_of = lengths
    timer.measure(SpeedTest("generation", 4, 16, 3))
    assert seen == {16, 17, 18, 19, 20}  # 16: the end of what was computed before


def test_a_repetition_leaves_nothing_to_the_next() -> None:
    timer = timed()
    timer.measure(PROMPT_BEHIND)
    timer.measure(SpeedTest("generation", 4, 16))
    assert decoder_of(timer).num_used == 16 + 4


def test_after_its_time_every_test_is_still_measured_once() -> None:
    hurried = SpeedRequest(10, 4, (0,), (1,), repetitions=5, seconds=5.0)
    timer = timed(request=hurried)
    assert [timer.measure(test).speed.n for test in hurried.tests] == [1, 1]


def test_the_first_token_is_there_when_the_prompt_was_read() -> None:
    request = SpeedRequest(10, 4, (0,), (1,), repetitions=2, num_first_tokens=5)
    first = timed(lambda batch: 0.25, request).first_tokens()
    assert first is not None
    assert first.values == pytest.approx((0.5,) * 5)


def test_the_first_of_the_first_tokens_is_not_timed() -> None:
    request = SpeedRequest(8, 4, (0,), (1,), repetitions=2, num_first_tokens=2)
    timer = timed(request=request)
    decoder = decoder_of(timer)
    decoder.seconds_of = lambda batch: 1.0 if decoder.batches else 1000.0
    first = timer.first_tokens()
    assert first is not None
    assert first.values == pytest.approx((1.0, 1.0))


def test_slow_first_tokens_are_measured_as_often_as_all_else() -> None:
    request = SpeedRequest(10, 4, (0,), (1,), repetitions=2, num_first_tokens=5)
    first = timed(lambda batch: 100.0, request).first_tokens()
    assert first is not None
    assert first.n == 2


def test_first_tokens_that_nobody_wants_are_not_measured() -> None:
    timer = timed(request=SpeedRequest(10, 4, num_first_tokens=0))
    assert timer.first_tokens() is None
    assert decoder_of(timer).batches == []


@dataclass
class Meter:
    """Counts 7 J per second of the decoder's time, of which 5 flow anyway."""

    decoder: TimedDecoder

    def joules(self) -> float:
        return 100 + 7 * self.decoder.now

    def idle_watts(self) -> float:
        return 5.0


def test_energy_is_that_of_the_timed_tokens() -> None:
    timer = timed(lambda batch: 0.5)
    timer.meter = Meter(decoder_of(timer))
    row = timer.measure(TEXT)
    assert row.energy is not None
    assert (row.energy.joules, row.energy.above_idle) == pytest.approx((3.5, 1.0))


def test_without_a_meter_there_is_no_energy() -> None:
    assert timed().measure(TEXT).energy is None


@pytest.mark.parametrize(
    ("test", "name"),
    [
        (SpeedTest("prompt", 512, 0), "pp512"),
        (SpeedTest("generation", 128, 0), "tg128"),
        (SpeedTest("prompt", 512, 2048), "pp512 @ d2048"),
        (SpeedTest("generation", 128, 2048), "tg128 @ d2048"),
        (SpeedTest("generation", 128, 0, 8), "tg128 x8"),
    ],
)
def test_tests_are_called_as_llama_bench_calls_them(test: SpeedTest, name: str) -> None:
    assert test.name == name


def test_the_usual_tests_are_those_of_the_two_benchmarks() -> None:
    assert [test.name for test in SpeedRequest().tests] == [
        "pp512", "tg128", "tg128 x8", "tg128 x32",
        "pp512 @ d2048", "tg128 @ d2048", "tg128 x8 @ d2048", "tg128 x32 @ d2048",
    ]  # fmt: skip


def test_the_cache_holds_the_largest_test() -> None:
    assert SpeedRequest().num_cells == 2048 + 32 * 128


def test_the_standard_deviation_has_n_less_one() -> None:
    found = Repeated((2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0))
    assert found.mean == 5
    assert found.sd == pytest.approx((32 / 7) ** 0.5)


def test_one_value_has_no_standard_deviation_and_is_not_called_unstable() -> None:
    found = Repeated((3.0,))
    assert (found.sd, found.variation, found.is_unstable) == (None, None, False)


@pytest.mark.parametrize(("low", "is_unstable"), [(80.0, True), (81.0, False)])
def test_from_a_fifth_of_the_mean_on_a_figure_is_unstable(low: float, is_unstable: bool) -> None:
    assert Repeated((low, 100.0, 200.0 - low)).is_unstable is is_unstable


def test_percentiles_are_interpolated() -> None:
    found = Repeated((1.0, 2.0, 3.0, 4.0, 5.0))
    assert found.percentile(50) == 3
    assert found.percentile(95) == pytest.approx(4.8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"repetitions": 0}, {"prompt_tokens": 0}, {"new_tokens": 0}, {"depths": (-1,)},
        {"depths": ()}, {"sequences": ()}, {"sequences": (0,)}, {"sequences": (254,)},
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SpeedRequest(**wrong)  # type: ignore[arg-type]
