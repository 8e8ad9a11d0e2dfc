"""How fast a decoder is by itself: what a run's efficiency is measured against.

Bare batches with nothing shared and nothing decided between them, on the decoder that the run used,
in the same process. It knows nothing of requests.
"""

import time
from dataclasses import dataclass
from statistics import median

from medlocal.engine.batching import NUM_RESERVED_IDS, PADDING, Batch, Decoder, pad

_TOKEN = 100
"""Any token will do: the arithmetic is the same for all."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens per second of a decoder, medians of the repetitions."""

    prompt: float
    """One prompt read in full batches."""
    generation: float
    """Texts growing side by side, one token each per batch."""
    concurrency: int
    """How many texts."""

    def ideal_seconds(self, num_prompt_tokens: int, num_generated: int) -> float:
        """The time that the tokens take at these rates, one kind after the other."""
        return num_prompt_tokens / self.prompt + num_generated / self.generation


def measure_rates(
    decoder: Decoder, prompt_length: int, concurrency: float, repetitions: int = 3
) -> Rates:
    """Measure a decoder whose cache is empty; it is empty again afterwards.

    Args:
        decoder: what to measure.
        prompt_length: tokens of the prompt; attention costs more in a longer one.
        concurrency: texts to generate side by side, as a run's `EngineStats.concurrency` says.
        repetitions: of both measurements.
    """
    limits = decoder.limits
    length = max(2, min(prompt_length, limits.num_cells // 2))
    most = min(limits.num_ids - NUM_RESERVED_IDS - 1, limits.num_rows, limits.num_outputs)
    num_texts = max(1, min(round(concurrency), most))
    _read_prompt(decoder, length)  # the first pass also pays for pages and threads
    prompt, generation = [], []
    for _ in range(repetitions):
        decoder.clear()
        prompt.append(length / _read_prompt(decoder, length))
        generation.append(_generate(decoder, length, num_texts))
    decoder.clear()
    return Rates(median(prompt), median(generation), num_texts)


def _read_prompt(decoder: Decoder, length: int) -> float:
    """Seconds to read one prompt."""
    started = time.perf_counter()
    for start in range(0, length, decoder.limits.num_rows):
        batch = Batch()
        end = min(start + decoder.limits.num_rows, length)
        for position in range(start, end):
            batch.add(_TOKEN, position, [NUM_RESERVED_IDS], position == end - 1)
        _compute(decoder, batch)
    return time.perf_counter() - started


def _generate(decoder: Decoder, length: int, num_texts: int, num_steps: int = 8) -> float:
    """Tokens per second of texts that grow from the same prompt."""
    ids = range(NUM_RESERVED_IDS + 1, NUM_RESERVED_IDS + 1 + num_texts)
    for sequence in ids:
        decoder.copy(NUM_RESERVED_IDS, sequence, 0, length)
    started = time.perf_counter()
    for step in range(num_steps):
        batch = Batch()
        for sequence in ids:
            batch.add(_TOKEN, length + step, [sequence], True)
        _compute(decoder, batch)
    return num_texts * num_steps / (time.perf_counter() - started)


def _compute(decoder: Decoder, batch: Batch) -> None:
    """Compute a batch, padded as a run's are; look at it, else a GPU would still be at work."""
    last = len(batch) - 1
    is_padded = pad(batch, decoder.limits)
    decoder.decode(batch)
    if is_padded:
        decoder.remove(PADDING)
    decoder.logits(last)
