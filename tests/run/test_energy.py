"""GPUs' counters become joules per token or question."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from medlocal.engine.timing import EnergyCount
from medlocal.gpu_monitor import Reading
from medlocal.run.energy import GpuMeter, find_meter


@dataclass
class ToySensor:
    """A GPU that shows one reading after the other, and the last one again and again."""

    readings: Iterator[Reading]
    name: str = "toy"
    total_bytes: int | None = None
    last: Reading = field(default_factory=Reading)

    def read(self) -> Reading:
        self.last = next(self.readings, self.last)
        return self.last


def sensor(*readings: Reading) -> ToySensor:
    return ToySensor(iter(readings))


def no_wait(seconds: float) -> None:
    pass


def test_the_power_with_nothing_to_do_is_the_mean_over_all_gpus() -> None:
    first = sensor(*(Reading(joules=1.0, watts=60.0 + number) for number in range(11)))
    second = sensor(Reading(joules=1.0, watts=40.0))
    meter = find_meter([first, second], no_wait)
    assert meter is not None
    assert meter.idle_watts() == pytest.approx(65.5 + 40)


def test_counters_add_up() -> None:
    meter = GpuMeter([sensor(Reading(joules=5.0)), sensor(Reading(joules=7.5))], 0.0)
    assert meter.joules() == 12.5


def test_a_gpu_without_a_counter_is_not_guessed_at() -> None:
    assert find_meter([sensor(Reading(joules=1.0)), sensor(Reading(watts=50.0))], no_wait) is None


def test_without_a_gpu_there_is_no_meter() -> None:
    assert find_meter([], no_wait) is None


def test_energy_is_shared_and_idle_power_is_taken_off() -> None:
    meter = GpuMeter([sensor(Reading(joules=100.0), Reading(joules=400.0))], 50.0)
    times = iter((0.0, 2.0))
    energy = EnergyCount(meter, lambda: next(times)).per_unit(100)
    assert energy is not None
    assert (energy.joules, energy.above_idle) == pytest.approx((3.0, 2.0))


def test_too_short_a_time_says_nothing() -> None:
    meter = GpuMeter([sensor(Reading(joules=100.0), Reading(joules=101.0))], 50.0)
    times = iter((0.0, 0.9))
    assert EnergyCount(meter, lambda: next(times)).per_unit(100) is None
