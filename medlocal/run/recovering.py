"""Asking on when memory runs out in the middle: the unanswered is asked again with less.

The engine knows nothing of it: what it was told to answer and has not is given to it once more, on a
context that takes less. Answers that were complete stay; a text in the making is begun anew, so that
no answer is put together from two contexts.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import fields

from medlocal.engine.batching import Decoder
from medlocal.engine.engine import Engine
from medlocal.engine.sequence import Completion, EngineStats, Request
from medlocal.libllama import OutOfMemoryError


def run_with_less(
    engine: Engine,
    requests: Sequence[Request],
    max_context: int,
    less: Callable[[OutOfMemoryError], Decoder],
) -> Generator[Completion, None, None]:
    """Answer all requests as `Engine.run` does, as often as memory runs out and less will do.

    The engine's figures are those of all attempts together; what was computed twice counts twice.

    Args:
        engine: its decoder is exchanged when memory runs out.
        requests: with distinct ids.
        max_context: longest prompt with its answer, in tokens.
        less: makes a decoder that takes less; raises where there is nothing left to give up.
    """
    unanswered = {request.id: request for request in requests}
    before = EngineStats()
    while True:
        try:
            with closing(engine.run(list(unanswered.values()), max_context)) as completions:
                for completion in completions:
                    del unanswered[completion.request.id]
                    yield completion
            return
        except OutOfMemoryError as error:
            engine.decoder = less(error)
        finally:
            before = engine.stats = _together(before, engine.stats)


def _together(first: EngineStats, second: EngineStats) -> EngineStats:
    """The sums of two runs; of the tree, which the second began again, the larger one."""
    sums = {f.name: getattr(first, f.name) + getattr(second, f.name) for f in fields(EngineStats)}
    for name in ("num_requests", "total_prompt_tokens", "unique_prompt_tokens"):
        sums[name] = max(getattr(first, name), getattr(second, name))
    return EngineStats(**sums)
