"""`medlocal quick`: what a model file is worth, on one screen and within a time budget."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocal.cli.console import (
    AsJson,
    Offline,
    narrate,
    print_json,
    settings,
    stdout,
    steps_told,
)
from medlocal.errors import RefusedError, UsageError
from medlocal.settings import Settings

if TYPE_CHECKING:
    from medlocal.report.quick import QuickReport
    from medlocal.run import Progress, RunStopped
    from medlocal.run.pacing import Pace
    from medlocal.run.quick import Look

_ENDINGS = (".md", ".json")


def quick(
    model: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="GGUF files, or ids of model cards."),
    ],
    minutes: Annotated[
        float, typer.Option(help="For everything that is done with all models together.")
    ] = 2.0,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A model to hold the others against, on the same questions."
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output", "-o", help="Write to this file too, .md or .json; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Look at a model that was just made or downloaded: size, speed, form, accuracy, warnings.

    The questions are those of the suite `quick`, in an order of which every beginning is balanced, so
    that they stand for the whole whenever the time runs out; how many it were is said with every
    figure's interval. What was answered is kept: the same command goes on from there.

    Example: medlocal quick model-Q4_K_M.gguf --against model-Q8_0.gguf --minutes 4
    """
    from medlocal.report.quick import quick_json
    from medlocal.report.quick_screen import print_quick
    from medlocal.run.pacing import Pace

    began = time.monotonic()
    outputs = output or []
    _check(minutes, outputs)
    names = [*model, *([against] if against else [])]
    if len(set(names)) < len(names):
        raise UsageError(
            "a model is named twice", hint="name each once, and another one after --against"
        )
    here = settings(offline=offline)
    pace = Pace(60 * minutes, num_models=len(names))
    report, stop = _look_at(here, pace, names, against)
    report = replace(report, minutes=minutes, seconds=time.monotonic() - began)
    for path in outputs:
        _write(path, report)
        narrate(f"written: {path}")
    if as_json:
        print_json(quick_json(report))
    else:
        print_quick(report, stdout())
    if stop is not None:
        raise stop


def _check(minutes: float, outputs: Sequence[Path]) -> None:
    if not 0 < minutes < float("inf"):
        raise UsageError(f"--minutes must be more than 0, not {minutes:g}")
    for path in outputs:
        if path.suffix.lower() not in _ENDINGS:
            raise UsageError(
                f"{path}: this is not written as {path.suffix or 'a file without an ending'}",
                hint=f"end the name in {' or '.join(_ENDINGS)}",
            )


def _look_at(
    here: Settings, pace: "Pace", names: Sequence[str], against: str | None
) -> "tuple[QuickReport, RunStopped | None]":
    """Measure and ask every model; the second value is there where the user stopped it."""
    from medlocal.hub import find_model
    from medlocal.report.quick import QuickModel, QuickReport
    from medlocal.run.quick import Look
    from medlocal.weights.inspect import read_gguf

    look = Look(pace, here, steps_told())
    infos = {name: read_gguf(find_model(name, here)) for name in names}
    bare = [name for name, info in infos.items() if info.chat_template is None]
    if against in bare:
        raise RefusedError(
            f"{infos[against].path}: no chat template: nothing can be held against it",
            hint="`medlocal inspect` shows what the file has",
        )
    models = []
    for name in bare:
        pace.begin_model()
        models.append(QuickModel(infos[name].path.stem, look.look(infos[name])))
    asked = [name for name in names if name not in bare]
    if not asked:
        return QuickReport(tuple(models)), None
    report, stop = _ask(here, look, asked, against)
    return replace(report, models=(*report.models, *models)), stop


def _ask(
    here: Settings, look: "Look", names: Sequence[str], against: str | None
) -> "tuple[QuickReport, RunStopped | None]":
    """Ask the models the suite's questions, and read what they answered from the store."""
    from medlocal.cli import running
    from medlocal.report.quick import QuickReport, compared, read_models
    from medlocal.run import RunStopped, start_run
    from medlocal.run.quick import quick_spec
    from medlocal.store import Store

    spec = quick_spec(names, here)
    running.tell_sets_left_out(here, spec)
    backends = running.backends_of(here, spec)
    facts = [backend.model_facts() for backend in backends]
    stop = None
    with Store(here.store_path) as store:
        with running.watching() as control:

            def watch(progress: "Progress") -> None:
                # What is left of all questions says nothing here: the time ends it.
                is_asking = progress.phase == "asking"
                control.watch(replace(progress, phase="answering") if is_asking else progress)

            paced = replace(control, pace=look.pace, measure=look, watch=watch)
            try:
                run_id = start_run(spec, store, backends, facts, paced).run_id
            except RunStopped as stopped:
                run_id, stop = stopped.run_id, stopped
        models, answers = read_models(store, run_id)
        reference = backends[-1].name if against else None
        pairs = compared(answers, reference) if reference else ()
    return QuickReport(models, pairs, run_id, datasets=spec.datasets), stop


def _write(output: Path, report: "QuickReport") -> None:
    """Write what the file's ending names."""
    import json

    from medlocal.files import atomic_write, disk_errors
    from medlocal.report.quick import quick_json
    from medlocal.report.quick_screen import quick_markdown

    if output.suffix.lower() == ".json":
        content = json.dumps(quick_json(report), ensure_ascii=False, indent=2) + "\n"
    else:
        content = quick_markdown(report)
    with disk_errors(output.parent):
        atomic_write(output, content)
