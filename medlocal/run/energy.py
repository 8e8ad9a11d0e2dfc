"""The energy of a machine's NVIDIA GPUs, for measurements that share it among tokens or questions.

The GPUs' own counters are read, through `gpu_monitor`; where one of them has none, nothing is counted. What
they draw with nothing to do is measured first, before any model is loaded. Other programs on the same GPUs
are counted too.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from medlocal.gpu_monitor import Sensor, find_sensors, watch_gpus

_NUM_IDLE_READINGS = 10
_IDLE_INTERVAL = 0.1
"""Seconds between them."""


@dataclass(frozen=True)
class GpuMeter:
    """Counts what all of some GPUs use: an `engine.timing.EnergyMeter`."""

    sensors: Sequence[Sensor]
    watts: float
    """That all of them draw with nothing to do."""

    def joules(self) -> float:
        """Energy used since the driver was loaded, by all of them."""
        return sum(sensor.read().joules or 0.0 for sensor in self.sensors)

    def idle_watts(self) -> float:
        """Power that all of them draw with nothing to do."""
        return self.watts


def find_meter(
    sensors: Sequence[Sensor] | None = None, sleep: Callable[[float], None] = time.sleep
) -> GpuMeter | None:
    """A meter of this process's GPUs; None where there is none, or one has no counter.

    It takes a second, in which the GPUs must have nothing to do.

    Args:
        sensors: of the GPUs; None = those that are found.
        sleep: waits between two readings.
    """
    found = find_sensors() if sensors is None else sensors
    if not found or any(sensor.read().joules is None for sensor in found):
        return None
    powers = []
    for _ in range(_NUM_IDLE_READINGS):
        sleep(_IDLE_INTERVAL)
        powers.append(sum(sensor.read().watts or 0.0 for sensor in found))
    return GpuMeter(found, fmean(powers))


@contextmanager
def gpus_watched() -> Iterator[list[dict[str, Any]]]:
    """What each GPU does meanwhile, put into the list at the end; nothing where none can be read."""
    uses: list[dict[str, Any]] = []
    sampler = watch_gpus()
    if sampler is None:
        yield uses
        return
    with sampler:
        yield uses
    uses += [use.to_json() for use in sampler.uses]
