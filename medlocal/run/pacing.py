"""A time budget: how long each model may take, and how many items are asked together in it. No model.

Several models share what is left evenly, so that a later one gets what an earlier one did not use.
Items are asked in blocks: a whole block is read and answered together, and only of whole blocks is the
order of the items kept. A block takes a fixed part of the time that is left, so that the last ones
are short and little is begun that cannot be finished.

It knows times and numbers; what an item is and how it is asked it does not know.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from medlocal.errors import Interrupted

TEST_ITEMS = 16
"""Items that the determinism self-test takes at most, parallel ones counted once."""
_TEST_SHARE = 1 / 10
"""Of the time left, for the block that the self-test repeats: with its two repetitions, the second of which
runs one request at a time, it takes some four times as much."""
_BLOCK_SHARE = 1 / 3
"""Of the time left, for any later block. What an item takes is judged by the block before; together with more
others it takes less, so that a block that grows is done earlier than that."""
_MOST_TEST_SHARE = 2 / 3
"""Of the time left, above which two more of the same block are too much for the self-test."""
_MANY = 1_000_000


class TimeIsUp(Interrupted):
    """The time of a model is over: its part of the run ends here, and the run goes on."""

    def __init__(self) -> None:
        super().__init__("the time is up")


@dataclass
class Pace:
    """The clock of a run with a time budget."""

    seconds: float
    """For all models together, from the moment in which this is made."""
    num_models: int = 1
    clock: Callable[[], float] = time.monotonic
    _end: float = field(init=False)
    _deadline: float = field(init=False)
    _block_seconds: float = field(default=0.0, init=False)
    _num_begun: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)
    _seconds_per_item: float | None = field(default=None, init=False)
    num_blocks: int = field(default=0, init=False)
    """That the model has answered in full."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self._end = self._deadline = self.clock() + self.seconds

    def begin_model(self) -> None:
        """Give the next model its share of the time that is left."""
        now = self.clock()
        num_left = max(1, self.num_models - self._num_begun)
        self._deadline = now + (self._end - now) / num_left
        self._num_begun += 1
        self._seconds_per_item = None
        self.num_blocks = 0

    @property
    def seconds_left(self) -> float:
        """Of the model's share; 0 where it is over."""
        return max(0.0, self._deadline - self.clock())

    @property
    def is_over(self) -> bool:
        """True where the model must not be asked any further."""
        return self.clock() >= self._deadline

    def check(self) -> None:
        """Raise TimeIsUp where the model's share is over."""
        if self.is_over:
            raise TimeIsUp

    def next_block(self) -> int:
        """How many items to ask together now; 0 where the time is over. `block_done` says when."""
        self._began = self.clock()
        if self.is_over:
            return 0
        if (each := self._seconds_per_item) is None:
            return 1
        share = _TEST_SHARE if self.num_blocks == 1 else _BLOCK_SHARE
        num_items = int(share * self.seconds_left / each) if each > 0 else _MANY
        return max(1, min(num_items, TEST_ITEMS if self.num_blocks == 1 else _MANY))

    def block_done(self, num_items: int) -> None:
        """The block of `next_block` was answered in full; the next one is sized by the time it took."""
        self._block_seconds = self.clock() - self._began
        self._seconds_per_item = self._block_seconds / num_items
        self.num_blocks += 1

    @property
    def is_test_due(self) -> bool:
        """True after the second block, the first of which it was known how long it takes."""
        return self.num_blocks == 2 and self.has_time_to_test

    @property
    def has_time_to_test(self) -> bool:
        """True where the last block may be repeated for the self-test."""
        return 2 * self._block_seconds <= _MOST_TEST_SHARE * self.seconds_left
