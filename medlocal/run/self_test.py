"""The determinism self-test: whether the same request gets the same answer, whatever runs beside it.

Requests that were answered together are answered together once more, and some of them one at a time.
Compared are the answers (the tokens, or the continuation that is most probable) and, apart from them,
everything to the last bit. In exact mode all must be identical; in fast mode the share says what a
difference between two runs may come from.

It knows requests and completions, not what is asked.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from medlocal.engine.sequence import Completion, Request


@dataclass
class Repeats:
    """How often a second answer was the first one."""

    n: int = 0
    same_answer: int = 0
    """The same tokens; of a scored request, the same most probable continuation."""
    same_bits: int = 0
    """Every log-probability the same float, too."""

    def add(self, first: Completion, second: Completion) -> None:
        """Compare two answers to one request."""
        self.n += 1
        self.same_answer += _answer(first) == _answer(second)
        self.same_bits += _bits(first) == _bits(second)


@dataclass
class SelfTest:
    """What the self-test found, as far as there was time for it."""

    together: Repeats = field(default_factory=Repeats)
    """The same requests a second time, beside the same others."""
    alone: Repeats = field(default_factory=Repeats)
    """One request at a time against many at once."""

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self)


Ask = Callable[[Sequence[Request]], Iterable[Completion]]
"""Answers requests together."""


def self_test(
    test: SelfTest, ask: Ask, first: Iterable[Completion], alone: Iterable[Request]
) -> None:
    """Answer requests again and count what is the same, into `test`.

    What it has counted stays there when the time ends it in the middle.

    Args:
        test: takes the counts.
        ask: what gave the first answers.
        first: answers to requests that were asked together. What the engine could not answer is
            left out.
        alone: those of their requests that are to be asked one at a time.
    """
    answered = {completion.request.id: completion for completion in first if not completion.error}
    _compare(test.together, answered, ask([completion.request for completion in answered.values()]))
    for request in alone:
        if request.id in answered:
            _compare(test.alone, answered, ask([request]))


def _compare(
    repeats: Repeats, answered: Mapping[int, Completion], again: Iterable[Completion]
) -> None:
    for completion in again:
        repeats.add(answered[completion.request.id], completion)


def _answer(completion: Completion) -> object:
    scores = completion.scores
    return completion.finish, completion.tokens, scores and scores.index(max(scores))


def _bits(completion: Completion) -> object:
    # Text, because a NaN equals no other and an error has none.
    return repr((_answer(completion), completion.logprobs, completion.scores, completion.feasible))
