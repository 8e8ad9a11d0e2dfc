"""What NVIDIA's GPUs do while something runs: memory, load, power, energy, temperature, throttling.

Read through NVML, NVIDIA's own library, by the optional package nvidia-ml-py (`medlocal[gpu]`). Where
the package, the driver or a sensor is not there, the answer is None and never an error: a measurement
must not fail because it could not be watched. This knows nothing of llama.cpp, and it only reads: no
setting of a GPU is ever changed.

NVML counts all that runs on a GPU, other programs' work too.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

INTERVAL_SECONDS = 0.1
"""Between two readings. The share of busy time that NVML tells covers at least the last 1/6 s."""
_JOIN_SECONDS = 5.0
_THROTTLE_REASONS: Mapping[int, str] = {
    0x2: "clocks set by an application",
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
"""NVML's bits of reasons why clocks are below what they could be; 0x1, idle, is none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU at one moment; a sensor that it lacks is None."""

    used_bytes: int | None = None
    """By all programs together."""
    busy: float | None = None
    """Share of the last moments in which anything was computed, from 0 to 1."""
    watts: float | None = None
    joules: float | None = None
    """Of its counter, which runs since the driver was loaded."""
    celsius: float | None = None
    throttle_bits: int = 0


class Sensor(Protocol):
    """One GPU that can be read."""

    @property
    def name(self) -> str:
        """As NVIDIA calls it."""

    @property
    def total_bytes(self) -> int | None:
        """Of its memory."""

    def read(self) -> Reading:
        """What it does now; never raises."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What one GPU did over a stretch of time."""

    name: str
    seconds: float
    num_readings: int
    busy: float | None
    """Mean share of time in which anything was computed, from 0 to 1."""
    peak_bytes: int | None
    """Most memory in use, of all programs together."""
    total_bytes: int | None
    mean_watts: float | None
    joules: float | None
    energy_source: str
    """`counter` (the GPU's own), `integral` (of the power that was read), or "" where neither is there."""
    peak_celsius: float | None
    throttled: tuple[str, ...]
    """Reasons for lower clocks that were seen at least once."""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def find_sensors() -> list[Sensor]:
    """The GPUs that this process may use and NVML can read; none is no error."""
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        number = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(number)]
    except pynvml.NVMLError:
        return []
    found = [_NvmlSensor(pynvml, handle, index) for index, handle in enumerate(handles)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [sensor for sensor in found if visible is None or sensor.is_named_in(visible)]


@dataclass(frozen=True)
class _NvmlSensor:
    """One GPU, read through pynvml."""

    nvml: Any
    handle: Any
    index: int

    @property
    def name(self) -> str:
        return self._text("nvmlDeviceGetName") or f"GPU {self.index}"

    @property
    def total_bytes(self) -> int | None:
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        return None if memory is None else int(memory.total)

    def is_named_in(self, visible: str) -> bool:
        """Whether CUDA_VISIBLE_DEVICES names it, by number or by the beginning of its UUID."""
        uuid = self._text("nvmlDeviceGetUUID")
        names = [part.strip() for part in visible.split(",")]
        return any(
            n == str(self.index) or (n.startswith("GPU-") and uuid.startswith(n)) for n in names
        )

    def read(self) -> Reading:
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        rates = self._ask("nvmlDeviceGetUtilizationRates")
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        celsius = self._ask("nvmlDeviceGetTemperature", 0)  # NVML_TEMPERATURE_GPU
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # its name before driver 535
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return Reading(
            used_bytes=None if memory is None else int(memory.used),
            busy=None if rates is None else rates.gpu / 100,
            watts=None if milliwatts is None else milliwatts / 1000,
            joules=None if millijoules is None else millijoules / 1000,
            celsius=None if celsius is None else float(celsius),
            throttle_bits=int(bits or 0),
        )

    def _ask(self, function: str, *more: object) -> Any:
        """What NVML answers; None where package, driver or GPU has no such sensor."""
        ask = getattr(self.nvml, function, None)
        if ask is None:
            return None
        try:
            return ask(self.handle, *more)
        except self.nvml.NVMLError:
            return None

    def _text(self, function: str) -> str:
        value = self._ask(function)
        return value.decode() if isinstance(value, bytes) else str(value or "")


@dataclass
class Sampler:
    """Reads GPUs at intervals in a thread of its own, as long as its `with` block lasts."""

    sensors: Sequence[Sensor]
    interval: float = INTERVAL_SECONDS
    clock: Callable[[], float] = time.perf_counter
    _readings: list[tuple[float, list[Reading]]] = field(default_factory=list, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self.sample()
        self._thread = threading.Thread(target=self._watch, name="gpu-monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if self._thread:
            self._thread.join(_JOIN_SECONDS)
        self.sample()

    def sample(self) -> None:
        """Read all GPUs once."""
        self._readings.append((self.clock(), [sensor.read() for sensor in self.sensors]))

    def _watch(self) -> None:
        while not self._stopped.wait(self.interval):
            self.sample()

    @property
    def uses(self) -> tuple[GpuUse, ...]:
        """What each GPU did from the first reading to the last."""
        times = [at for at, _ in self._readings]
        columns = zip(*(readings for _, readings in self._readings), strict=True)
        return tuple(
            _use(s, times, column) for s, column in zip(self.sensors, columns, strict=True)
        )


def watch_gpus(interval: float = INTERVAL_SECONDS) -> Sampler | None:
    """A sampler of this process's GPUs, to be entered; None where there is nothing to read."""
    sensors = find_sensors()
    return Sampler(sensors, interval) if sensors else None


def driver_version() -> str | None:
    """Of NVIDIA's driver; None without it."""
    with suppress(ImportError):
        import pynvml

        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            version = pynvml.nvmlSystemGetDriverVersion()
            return version.decode() if isinstance(version, bytes) else str(version)
    return None


def _use(sensor: Sensor, times: Sequence[float], readings: Sequence[Reading]) -> GpuUse:
    watts = [(at, r.watts) for at, r in zip(times, readings, strict=True) if r.watts is not None]
    joules, source = _energy(readings, watts)
    bits = 0
    for reading in readings:
        bits |= reading.throttle_bits
    # What is told at the first reading belongs to the time before it.
    busy = [r.busy for r in readings[1:] if r.busy is not None]
    return GpuUse(
        name=sensor.name,
        seconds=times[-1] - times[0],
        num_readings=len(readings),
        busy=sum(busy) / len(busy) if busy else None,
        peak_bytes=max((r.used_bytes for r in readings if r.used_bytes is not None), default=None),
        total_bytes=sensor.total_bytes,
        mean_watts=sum(w for _, w in watts) / len(watts) if watts else None,
        joules=joules,
        energy_source=source,
        peak_celsius=max((r.celsius for r in readings if r.celsius is not None), default=None),
        throttled=tuple(name for bit, name in _THROTTLE_REASONS.items() if bits & bit),
    )


def _energy(
    readings: Sequence[Reading], watts: Sequence[tuple[float, float]]
) -> tuple[float | None, str]:
    """Joules by the GPU's counter, else by the trapezoids under its power; and which of them."""
    first, last = readings[0].joules, readings[-1].joules
    if first is not None and last is not None:
        return last - first, "counter"
    if len(watts) > 1:
        pairs = itertools.pairwise(watts)
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs), "integral"
    return None, ""
