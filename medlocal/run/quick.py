"""A quick look at model files within a time budget: what is measured of each, and in which order it is asked.

Per model, in its share of the time: the gate, its speed in a process of its own, then the quick suite in a
balanced order, block by block, with the determinism self-test between. What was answered is kept, and
another look goes on from there. How a run is carried out stands in `execute`, what is shown of it in
`report.quick`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medlocal.engine.timing import SpeedRequest, SpeedRow
from medlocal.errors import UsageError
from medlocal.files import Progress, no_progress
from medlocal.run.backend import LlamaBackend
from medlocal.run.pacing import Pace, TimeIsUp
from medlocal.run.spec import RunSpec, make_spec
from medlocal.run.speed import Speeds, SpeedWatch, measure_speed
from medlocal.settings import Settings
from medlocal.weights.gate import admit, examine
from medlocal.weights.inspect import GGUFInfo
from medlocal.weights.kernels import slow_types

SUITE = "quick"
FACTS = "quick"
"""Under which name a run keeps what was measured of a model, beside what the engine did."""
_SPEED_SHARE = 0.1
"""Of a model's time, after which no speed is measured a second time."""
_SHORT_SECONDS = 30.0
"""A model with less time than this has its speed measured on less."""
_SLOW_SHARE = 0.05
"""Of the file's bytes, from which on a type without a fast kernel is worth a warning."""


def quick_spec(models: Sequence[str], settings: Settings) -> RunSpec:
    """What is asked: the quick suite of what is on this machine, the same of every model.

    Args:
        models: ids of cards or paths, in the order in which they are asked; distinct.
        settings: where data sets are kept.

    Raises:
        UsageError: there is no model, or one is named twice.
        MissingError: no data set of the suite is here.
    """
    if not models:
        raise UsageError("a model is needed", hint="medlocal quick model.gguf")
    more = tuple(models[1:])
    spec = make_spec(SUITE, models[0], more_models=more, settings=settings)
    return replace(spec, is_balanced=True)


@dataclass(frozen=True, slots=True)
class Look:
    """What looks at one model after the other, before each is asked."""

    pace: Pace
    settings: Settings
    progress: Progress = no_progress

    def __call__(self, backend: object) -> dict[str, object]:
        """Measure a model's speed in its share of the time; facts of the file beside it.

        Raises:
            RefusedError: the file must not be loaded.
        """
        assert isinstance(backend, LlamaBackend), "speed is measured of a file"
        return {FACTS: self.look(backend.info)}

    def look(self, info: GGUFInfo) -> dict[str, object]:
        """The same for a file that may have no chat template."""
        facts: dict[str, object] = {
            "file": file_facts(info),
            "gate_warnings": list(examine(info)),
        }
        if self.pace.is_over:
            return facts
        admit(info.path, self.settings, self.progress)
        self.progress(f"speed of {info.path.name}", 0, None)
        return {**facts, "speed": self._speeds(info).to_json()}

    def _speeds(self, info: GGUFInfo) -> Speeds:
        rows: list[SpeedRow] = []
        request = speed_request(self.pace.seconds_left)

        def step(name: str, number: int, total: int) -> None:
            self.pace.check()

        try:
            watch = SpeedWatch(step=step, row=rows.append)
            return measure_speed(info.path, request, self.settings, watch)
        except TimeIsUp:
            return Speeds(request, tuple(rows))


def speed_request(seconds_left: float) -> SpeedRequest:
    """What is measured of a model's speed where so many seconds are left for all that is done with it."""
    is_short = seconds_left < _SHORT_SECONDS
    return SpeedRequest(
        prompt_tokens=64 if is_short else 128,
        new_tokens=16 if is_short else 32,
        depths=(0,),
        sequences=(1,),
        num_first_tokens=0,
        seconds=_SPEED_SHARE * seconds_left,
    )


def file_facts(info: GGUFInfo) -> dict[str, object]:
    """Size and types of a file, and which of its types this machine computes slowly."""
    num_bytes: dict[str, int] = {}
    for tensor in info.tensors:
        num_bytes[tensor.type] = num_bytes.get(tensor.type, 0) + tensor.num_bytes
    return {
        "name": info.path.name,
        "bytes": info.size,
        "bits_per_weight": info.bits_per_weight,
        "parameters": info.num_parameters,
        "quantisation": info.main_quantisation,
        "has_template": info.chat_template is not None,
        "slow": dict(_slow(num_bytes)),
    }


def _slow(num_bytes: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    total = sum(num_bytes.values())
    for name, why in slow_types(num_bytes).items():
        if (share := num_bytes[name] / total) >= _SLOW_SHARE:
            yield name, f"{share:.0%} of it is {name}: {why}"
