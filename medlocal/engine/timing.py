"""How fast a decoder reads and writes, measured as llama.cpp's own benchmarks do it.

What is timed, what is left out, and how the figures are called follows llama.cpp's `tools/llama-bench`
and `tools/batched-bench` (commit 0c1e57098), so that a column here can be put beside one of theirs:

    pp512           `llama-bench -p 512`: one prompt, the logits of its last token only
    tg128           `llama-bench -n 128`: one token per call, each with logits, each awaited
    … @ d2048       the same behind 2,048 tokens that are computed before the clock starts
    tg128 x8        `llama-batched-bench -npl 8 -pps -kvu`: eight texts, one token of each per call,
                    behind a prompt that they share, in one cache

Before the repetitions the test is run once untimed: a prompt as a whole, of a generation one call. Tokens
are random, the first of a prompt is BOS where the model wants it. A text's next token is not the one
that the model would have chosen: choosing is the engine's work, and is measured with it.

It knows neither llama.cpp nor files: `run.speed` loads a model and times it with this.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev
from typing import Literal, Protocol

import numpy as np

from medlocal.engine.batching import NUM_RESERVED_IDS, Batch, Decoder
from medlocal.errors import UsageError

Kind = Literal["prompt", "generation"]
Clock = Callable[[], float]

MICRO_BATCH = 512
"""Rows of one call, llama-bench's `-ub`."""
UNSTABLE_VARIATION = 0.2
"""Coefficient of variation from which on a figure is marked."""
LEAST_ENERGY_SECONDS = 1.0
"""Below it a GPU's counter, which moves about ten times a second, says too little."""
_DEPTH_ID = NUM_RESERVED_IDS
"""The sequence that holds what a test lies behind; the texts of a test come after it."""
_FIRST_TOKEN_SECONDS = 20.0
"""That the measuring of first tokens may take, where there are `repetitions` of them already."""
_MAX_TEXTS = 256 - NUM_RESERVED_IDS - 1
"""llama.cpp has 256 sequence ids."""


@dataclass(frozen=True, slots=True)
class SpeedTest:
    """One figure to be measured."""

    kind: Kind
    num_tokens: int
    """Of the prompt, or of each text."""
    depth: int
    """Tokens before them."""
    num_texts: int = 1
    """Side by side."""

    @property
    def name(self) -> str:
        """As llama-bench calls it: "pp512", "tg128 @ d2048"; with several texts, "tg128 x8"."""
        short = {"prompt": "pp", "generation": "tg"}[self.kind]
        texts = f" x{self.num_texts}" if self.num_texts > 1 else ""
        return f"{short}{self.num_tokens}{texts}" + (f" @ d{self.depth}" if self.depth else "")

    @property
    def total_tokens(self) -> int:
        """Computed while the clock runs."""
        return self.num_tokens * self.num_texts


@dataclass(frozen=True, slots=True)
class SpeedRequest:
    """What is to be measured of a model."""

    prompt_tokens: int = 512
    new_tokens: int = 128
    """Of each text."""
    depths: tuple[int, ...] = (0, 2048)
    sequences: tuple[int, ...] = (1, 8, 32)
    """Texts side by side, one test each."""
    repetitions: int = 5
    num_first_tokens: int = 20
    """Prompts whose first token is timed, as many as fit in some 20 s; 0 = that is not measured."""
    seconds: float | None = None
    """After which no repetition is begun that is not the first of its test; None = no end."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, as UsageError."""
        whole = (self.prompt_tokens, self.new_tokens, self.repetitions, *self.sequences)
        if min(whole) < 1 or min((*self.depths, self.num_first_tokens)) < 0:
            raise UsageError(
                "tokens, sequences and repetitions must be at least 1, depths at least 0"
            )
        if not self.depths or not self.sequences:
            raise UsageError("at least one depth and one number of sequences must be measured")
        if max(self.sequences) > _MAX_TEXTS:
            raise UsageError(
                f"{max(self.sequences)} sequences side by side: there can be {_MAX_TEXTS} at most"
            )

    @property
    def tests(self) -> tuple[SpeedTest, ...]:
        """In the order in which they are measured."""
        return tuple(
            test
            for depth in dict.fromkeys(self.depths)
            for test in (
                SpeedTest("prompt", self.prompt_tokens, depth),
                *(SpeedTest("generation", self.new_tokens, depth, n) for n in dict.fromkeys(self.sequences)),
            )
        )  # fmt: skip

    @property
    def num_cells(self) -> int:
        """KV cells that the largest test takes."""
        return max(test.depth + test.total_tokens for test in self.tests)

    @property
    def num_ids(self) -> int:
        """Sequence ids that are used, those before them included."""
        return NUM_RESERVED_IDS + 1 + max(self.sequences)


@dataclass(frozen=True)
class Repeated:
    """A figure that was measured several times."""

    values: tuple[float, ...]
    """At least one."""

    @property
    def n(self) -> int:
        """How many times."""
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        """Their mean; of speeds, as llama-bench takes it, the mean of the tokens per second."""
        return fmean(self.values)

    @cached_property
    def sd(self) -> float | None:
        """Standard deviation with n - 1; None for a single value."""
        return stdev(self.values) if self.n > 1 else None

    @property
    def variation(self) -> float | None:
        """Coefficient of variation, sd ÷ mean; None for a single value."""
        return None if self.sd is None or not self.mean else self.sd / self.mean

    @property
    def is_unstable(self) -> bool:
        """Whether the figure moves so much that it should not be quoted."""
        return self.variation is not None and self.variation >= UNSTABLE_VARIATION

    def percentile(self, percent: float) -> float:
        """The value below which so many percent lie, interpolated linearly."""
        return float(np.percentile(self.values, percent))


class EnergyMeter(Protocol):
    """Counts what the machine's GPUs use."""

    def joules(self) -> float:
        """Energy used since some fixed moment, by all of them."""

    def idle_watts(self) -> float:
        """Power that all of them draw with nothing to do."""


@dataclass(frozen=True, slots=True)
class Energy:
    """What GPUs used, per token or per question."""

    joules: float
    above_idle: float
    """Of them, those that they would not have used with nothing to do."""


class EnergyCount:
    """The energy from now on."""

    def __init__(self, meter: EnergyMeter | None, clock: Clock = time.perf_counter) -> None:
        self._meter, self._clock = meter, clock
        self._joules = meter.joules() if meter else 0.0
        self._started = clock()

    def per_unit(self, num_units: int) -> Energy | None:
        """Until now, shared among tokens or questions; None without a meter, or after too short a time."""
        seconds = self._clock() - self._started
        if self._meter is None or seconds < LEAST_ENERGY_SECONDS:
            return None
        joules = self._meter.joules() - self._joules
        above = max(0.0, joules - self._meter.idle_watts() * seconds)
        return Energy(joules / num_units, above / num_units)


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """What was measured of a test."""

    test: SpeedTest
    speed: Repeated
    """Tokens per second, of all texts together."""
    energy: Energy | None = None
    """Per token; None where nothing counts it, or the test was over too soon."""

    @property
    def seconds_per_token(self) -> float:
        """Between two tokens of one text."""
        return self.test.num_texts / self.speed.mean


@dataclass
class SpeedTimer:
    """Times tests on one decoder, whose cache is this object's alone."""

    decoder: Decoder
    request: SpeedRequest
    num_vocab: int
    bos: int | None = None
    """What a prompt begins with; None = with any token."""
    clock: Clock = time.perf_counter
    meter: EnergyMeter | None = None
    _depth: int | None = field(default=None, init=False)
    """What the cache holds before a test; None = nothing is known."""

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._started = self.clock()

    def measure(self, test: SpeedTest) -> SpeedRow:
        """Time one test of the request."""
        self._fill(test.depth)
        self._rewind(test)
        batches = self._batches(test)
        self._compute(batches if test.kind == "prompt" else batches[:1])
        speeds: list[float] = []
        count = EnergyCount(self.meter, self.clock)
        while len(speeds) < self.request.repetitions and not (speeds and self._is_late):
            self._rewind(test)
            speeds.append(test.total_tokens / self._compute(self._batches(test)))
        energy = count.per_unit(test.total_tokens * len(speeds))
        return SpeedRow(test, Repeated(tuple(speeds)), energy)

    def first_tokens(self) -> Repeated | None:
        """Seconds from a prompt's token ids to the id of the first token of the answer.

        Each prompt is another one, and nothing of it is in the cache; the first is not timed. None where
        it is not wanted.
        """
        test = SpeedTest("prompt", self.request.prompt_tokens, 0)
        self._fill(0)
        self._rewind(test)
        if self.request.num_first_tokens:
            self._compute(self._batches(test))
        most, least = self.request.num_first_tokens, self.request.repetitions
        taken: list[float] = []
        while len(taken) < most and (
            not taken
            or (not self._is_late and (len(taken) < least or sum(taken) < _FIRST_TOKEN_SECONDS))
        ):
            self._rewind(test)
            batches = self._batches(test)
            started = self.clock()
            self._compute(batches)
            self.decoder.logits(len(batches[-1]) - 1).argmax()
            taken.append(self.clock() - started)
        return Repeated(tuple(taken)) if taken else None

    @property
    def _is_late(self) -> bool:
        limit = self.request.seconds
        return limit is not None and self.clock() - self._started > limit

    def _fill(self, depth: int) -> None:
        """Have the cache hold so many tokens and nothing else."""
        if self._depth != depth:
            self.decoder.clear()
            self._compute(self._prompt(_DEPTH_ID, depth, 0))
            self._depth = depth

    def _rewind(self, test: SpeedTest) -> None:
        """Take away what the last test computed, and put each text behind the depth."""
        for sequence in range(_DEPTH_ID + 1, _DEPTH_ID + 1 + max(self.request.sequences)):
            self.decoder.remove(sequence)
        for sequence in _ids(test):
            if test.depth:
                self.decoder.copy(_DEPTH_ID, sequence, 0, test.depth)

    def _batches(self, test: SpeedTest) -> list[Batch]:
        """The calls of a test, made before the clock starts."""
        if test.kind == "prompt":
            return self._prompt(_DEPTH_ID + 1, test.num_tokens, test.depth)
        batches = []
        for step in range(test.num_tokens):
            batch = Batch()
            for sequence in _ids(test):
                batch.add(self._token(step), test.depth + step, [sequence], True)
            batches.append(batch)
        return batches

    def _prompt(self, sequence: int, length: int, depth: int) -> list[Batch]:
        batches = []
        for start in range(0, length, self.decoder.limits.num_rows):
            batch = Batch()
            for step in range(start, min(start + self.decoder.limits.num_rows, length)):
                batch.add(self._token(step), depth + step, [sequence], step == length - 1)
            batches.append(batch)
        return batches

    def _token(self, step: int) -> int:
        if step == 0 and self.bos is not None:
            return self.bos
        return int(self._random.integers(self.num_vocab))

    def _compute(self, batches: Sequence[Batch]) -> float:
        """Seconds until the last of the logits can be read, which a GPU must have finished for."""
        started = self.clock()
        for batch in batches:
            self.decoder.decode(batch)
            if batch.outputs[-1]:
                self.decoder.logits(len(batch) - 1)
        return self.clock() - started


def _ids(test: SpeedTest) -> range:
    """The sequences of a test's texts."""
    return range(_DEPTH_ID + 1, _DEPTH_ID + 1 + test.num_texts)
