"""Watching GPUs through a false pynvml: all sensors, few of them, none at all."""

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from medlocal import gpu_monitor
from medlocal.gpu_monitor import Reading, Sampler, find_sensors, watch_gpus


class FalseNVMLError(Exception):
    """As pynvml raises it, for all that can be wrong."""


class FalseNvml:
    """A driver with two GPUs; the second can tell nothing but its name."""

    NVMLError = FalseNVMLError

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        """The driver is there."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.1"

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        return ("NVIDIA One", b"NVIDIA Two")[handle]

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return ("GPU-aaaa-1", "GPU-bbbb-2")[handle]

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 * 2**30, total=80 * 2**30),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=75, memory=10),
            "nvmlDeviceGetPowerUsage": 350_500,
            "nvmlDeviceGetTotalEnergyConsumption": 9_000,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x1 | 0x4 | 0x40,
        }
        if name not in answers:
            raise AttributeError(name)

        def ask(handle: int, *_: object) -> Any:
            if handle == 1:
                raise FalseNVMLError("not supported")
            return answers[name]

        return ask


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FalseNvml:
    made = FalseNvml()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made


class TestSensors:
    @pytest.mark.usefixtures("nvml")
    def test_a_gpu_tells_all_its_sensors(self) -> None:
        sensor = find_sensors()[0]
        assert (sensor.name, sensor.total_bytes) == ("NVIDIA One", 80 * 2**30)
        assert sensor.read() == Reading(3 * 2**30, 0.75, 350.5, 9.0, 61.0, 0x45)

    @pytest.mark.usefixtures("nvml")
    def test_a_gpu_without_sensors_tells_nothing(self) -> None:
        sensor = find_sensors()[1]
        assert (sensor.name, sensor.total_bytes) == ("NVIDIA Two", None)
        assert sensor.read() == Reading()

    @pytest.mark.usefixtures("nvml")
    @pytest.mark.parametrize(
        ("visible", "names"),
        [
            ("1", ["NVIDIA Two"]),
            ("GPU-aaaa", ["NVIDIA One"]),
            ("0,1", ["NVIDIA One", "NVIDIA Two"]),
            ("", []),
        ],
    )
    def test_only_the_gpus_that_cuda_may_use_are_read(
        self, monkeypatch: pytest.MonkeyPatch, visible: str, names: list[str]
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [sensor.name for sensor in find_sensors()] == names

    @pytest.mark.usefixtures("nvml")
    def test_the_driver_tells_its_version(self) -> None:
        assert gpu_monitor.driver_version() == "580.1"

    def test_without_the_package_there_is_nothing_to_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        assert find_sensors() == []
        assert watch_gpus() is None
        assert gpu_monitor.driver_version() is None

    def test_without_a_driver_there_is_nothing_to_read(
        self, nvml: FalseNvml, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def init() -> None:
            raise FalseNVMLError("driver not loaded")

        monkeypatch.setattr(nvml, "nvmlInit", init)
        assert watch_gpus() is None
        assert gpu_monitor.driver_version() is None


@dataclass
class Script:
    """A GPU that tells what it was given, the last again and again."""

    readings: Sequence[Reading]
    name: str = "a card"
    total_bytes: int | None = None
    num_read: int = 0
    was_read: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def read(self) -> Reading:
        reading = self.readings[min(self.num_read, len(self.readings) - 1)]
        self.num_read += 1
        self.was_read.release()
        return reading


def sampled(times: Sequence[float], *scripts: Script) -> Sampler:
    clock = iter(times)
    sampler = Sampler(scripts, clock=lambda: next(clock))
    for _ in times:
        sampler.sample()
    return sampler


class TestSampler:
    def test_the_counter_tells_the_energy_of_the_stretch(self) -> None:
        script = Script([Reading(joules=100.0, watts=9.0), Reading(joules=160.0, watts=9.0)])
        (use,) = sampled([0.0, 2.0], script).uses
        assert (use.joules, use.energy_source, use.seconds) == (60.0, "counter", 2.0)

    def test_without_a_counter_power_is_added_up_over_time(self) -> None:
        script = Script([Reading(watts=100.0), Reading(watts=300.0), Reading(watts=300.0)])
        (use,) = sampled([0.0, 1.0, 3.0], script).uses
        # Trapezoids: 1 s at 200 W on average, then 2 s at 300 W.
        assert (use.joules, use.energy_source) == (800.0, "integral")
        assert use.mean_watts == pytest.approx(700 / 3)

    def test_a_gpu_that_tells_nothing_used_nothing_that_is_known(self) -> None:
        (use,) = sampled([0.0, 1.0], Script([Reading()])).uses
        assert (use.busy, use.peak_bytes, use.joules, use.energy_source) == (None, None, None, "")
        assert use.throttled == ()

    def test_load_before_the_stretch_does_not_count(self) -> None:
        script = Script([Reading(busy=1.0), Reading(busy=0.5), Reading(busy=0.7)])
        (use,) = sampled([0.0, 1.0, 2.0], script).uses
        assert use.busy == pytest.approx(0.6)

    def test_peaks_and_reasons_are_of_the_whole_stretch(self) -> None:
        script = Script([
            Reading(used_bytes=5, celsius=40.0),
            Reading(used_bytes=9, celsius=70.0, throttle_bits=0x4),
            Reading(used_bytes=7, celsius=60.0, throttle_bits=0x41),
        ])  # fmt: skip
        (use,) = sampled([0.0, 1.0, 2.0], script).uses
        assert (use.peak_bytes, use.peak_celsius) == (9, 70.0)
        assert use.throttled == ("power limit", "temperature (hardware)")

    def test_every_gpu_has_figures_of_its_own(self) -> None:
        both = sampled([0.0, 1.0], Script([Reading(busy=0.2)]), Script([Reading(busy=0.9)])).uses
        assert [use.busy for use in both] == [0.2, 0.9]

    def test_a_thread_reads_until_the_block_ends(self) -> None:
        script = Script([Reading(busy=0.5)])
        with Sampler([script], interval=0.001) as sampler:
            for _ in range(5):
                assert script.was_read.acquire(timeout=30)
        num_read = script.num_read
        assert sampler.uses[0].num_readings == num_read >= 5
        assert not any(t.name == "gpu-monitor" and t.is_alive() for t in threading.enumerate())

    def test_figures_are_json_values(self) -> None:
        (use,) = sampled([0.0, 1.0], Script([Reading(busy=0.5, joules=1.0)])).uses
        assert use.to_json()["name"] == "a card"
        assert use.to_json()["busy"] == 0.5
