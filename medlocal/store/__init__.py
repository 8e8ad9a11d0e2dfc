"""The run store: one SQLite file per workspace, crash-safe and resumable.

It keeps runs, jobs, records, grades and events, and knows nothing of evaluation or engines.
`types` are the values, `opening` the file, `lock` the one writer per run, `store` the rest.
"""

from medlocal.store.store import Store
from medlocal.store.types import (
    FINISH_ERROR,
    Counts,
    Event,
    PutCounts,
    Record,
    RecordSummary,
    Result,
    RunRow,
    RunState,
    StoredGrade,
    StoredJob,
)

__all__ = [
    "FINISH_ERROR",
    "Counts",
    "Event",
    "PutCounts",
    "Record",
    "RecordSummary",
    "Result",
    "RunRow",
    "RunState",
    "Store",
    "StoredGrade",
    "StoredJob",
]
