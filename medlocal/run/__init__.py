"""The run: the only place where a plan meets an engine and a store.

`spec` says what a run is, `grading` judges stored records, `asking` turns jobs into requests and
completions into records, `backend` is a model made ready, `preview` plans and says what it will take,
`execute` skips what is done, asks the rest and keeps it.
"""

from medlocal.run.backend import Backend, LlamaBackend
from medlocal.run.execute import Control, Progress, RunStopped, Summary, resume_run, start_run
from medlocal.run.grading import Regraded, regrade
from medlocal.run.preview import preview_run
from medlocal.run.spec import RunSpec, make_spec

__all__ = [
    "Backend",
    "Control",
    "LlamaBackend",
    "Progress",
    "Regraded",
    "RunSpec",
    "RunStopped",
    "Summary",
    "make_spec",
    "preview_run",
    "regrade",
    "resume_run",
    "start_run",
]
