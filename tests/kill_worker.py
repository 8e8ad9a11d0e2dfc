"""The process that `run/test_kill.py` kills: it performs a toy's run, or carries on with one.

    python -m tests.kill_worker      reads the home folders of runs from stdin, one per line

Every line is worked on by a fresh process, forked from this one, which has loaded all modules and
opened no store: a start takes milliseconds in place of a second. Its id and then its exit code are
printed, each on a line.
"""

import os
import sys
from pathlib import Path

from medlocal.run import execute, make_spec, resume_run, start_run
from medlocal.store import Store
from tests.fakes import ToyBackend

SPEC = make_spec(
    "starter",
    "toy",
    limit=2,
    formats=("letter", "text"),
    arms=("free", "grammar", "label", "cloze"),
)
BATCH_SECONDS = 0.006
"""So that the run's batches take the better part of a second."""
_COMMIT_SECONDS = 0.03
"""So that a run of a second has many commits to be killed in, as a long one has."""


def work(home: Path) -> None:
    """Carry on with the newest run of a workspace that has a plan, or begin one."""
    execute._COMMIT_SECONDS = _COMMIT_SECONDS
    backend = ToyBackend(delay=BATCH_SECONDS)
    with Store(home / "medlocal.db") as store:
        planned = [row.id for row in store.runs() if store.counts(row.id).jobs]
        if planned:
            resume_run(planned[0], store, backend)
        else:
            start_run(SPEC, store, backend, backend.model_facts())


def main() -> None:
    """Work on one home after the other."""
    import outlines.types.dsl  # noqa: F401 - loaded here once, and not in every process

    for line in sys.stdin:
        process = os.fork()
        if not process:
            work(Path(line.strip()))
            os._exit(0)
        os.write(1, b"%d\n" % process)
        _, status = os.waitpid(process, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
