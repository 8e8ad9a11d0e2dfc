"""How far a run is, and how it ended, as its caller hears it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from medlocal.errors import Interrupted


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    run_id: str
    phase: str
    """`loading`, `asking`, `testing` (that equal requests get equal answers), `measuring` or `done`."""
    done: int
    total: int
    errors: int
    correct: int
    """Of the answers of this session."""
    graded: int
    seconds: float
    """Since this session began to ask."""
    num_tokens: int
    """Rows computed in this session, of prompts and of answers."""
    answered: int
    """Jobs answered in this session."""

    @property
    def jobs_per_hour(self) -> float | None:
        """Questions asked per hour, each once per form and arm; None before the first."""
        return 3600 * self.answered / self.seconds if self.answered and self.seconds else None

    @property
    def seconds_left(self) -> float | None:
        """At the rate of this session; None before the first answer."""
        if not self.answered:
            return None
        return (self.total - self.done - self.errors) * self.seconds / self.answered


Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended."""

    run_id: str
    state: str
    jobs: int
    done: int
    reused: int
    errors: int
    seconds: float


class RunStopped(Interrupted):
    """A run was stopped by its caller; what was answered is kept."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message, hint=f"medlocal run --resume {run_id}")
        self.run_id = run_id
        """The run that was stopped."""
