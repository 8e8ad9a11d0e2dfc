"""What a report is made of: the scores of one or more runs, gathered. Frozen values, no words.

Built by `load` from the store. How it is said stands in `overview`, `blocks` and `findings`; how it is laid
out in `tables` and `page`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from medlocal.evals.comparing import Comparison
from medlocal.evals.obedience import AnswerSplit
from medlocal.evals.position import PositionBias
from medlocal.evals.robustness import Robustness, VariantEffect
from medlocal.evals.scoring import ConstraintEffect, ScoreRow
from medlocal.evals.spread import Interaction, PromptSpread


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run that the report covers."""

    run: Mapping[str, object]
    """What is known of it: id, created, state, suite, model, counts."""
    engine: Mapping[str, object]
    """What the engine really used and did, as recorded."""


@dataclass(frozen=True, slots=True)
class ModelPair:
    """Two models on the questions that both answered."""

    first: str
    second: str
    comparison: Comparison
    """Of the second against the first."""
    notes: tuple[str, ...] = ()
    """What else differs between the two, such as the chat template."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report shows."""

    runs: tuple[RunFacts, ...]
    rows: tuple[ScoreRow, ...]
    effects: tuple[ConstraintEffect, ...]
    variants: tuple[VariantEffect, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    positions: tuple[PositionBias, ...] = ()
    splits: tuple[AnswerSplit, ...] = ()
    spreads: tuple[PromptSpread, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    pairs: tuple[ModelPair, ...] = ()
    """Every two models of the report that share questions."""

    @property
    def models(self) -> tuple[str, ...]:
        """In alphabetical order, as the rows are."""
        return tuple(dict.fromkeys(row.model for row in self.rows))
