"""`medlocal run` and `medlocal demo`: ask a model, live, and report."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli.console import (
    AsJson,
    Offline,
    narrate,
    print_json,
    settings,
    stdout,
    steps_told,
    transfer_bar,
)
from medlocal.errors import UsageError
from medlocal.settings import Settings

if TYPE_CHECKING:
    from medlocal.run import LlamaBackend, Progress, RunSpec, Summary
    from medlocal.store import Store

_DEMO_SUITE = "starter"
_LINE_SECONDS = 15.0
"""Between two lines of progress where stderr is no terminal."""

_Names = Annotated[str | None, typer.Option(help="Comma-separated; default: what the suite says.")]


def run(
    suite: Annotated[
        str | None, typer.Argument(help="A suite, or a data set. `medlocal data list` shows them.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Id of a model card, or path to a GGUF; may be repeated."
        ),
    ] = None,
    languages: _Names = None,
    formats: _Names = None,
    arms: _Names = None,
    prompts: _Names = None,
    variants: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; `medlocal perturbations` lists them. Default: the suite's."
        ),
    ] = None,
    datasets: Annotated[
        str | None, typer.Option("--dataset", "--datasets", help="Comma-separated data sets.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Questions per data set and language; default: all.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Few-shot examples before each question, 0 to 5.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the sample, of the choice of examples and of the perturbations."),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="exact: no answer depends on what was asked beside it; fast: larger batches. "
            "Default: exact on a CPU, fast on a GPU."
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(help="Longest prompt with its answer, in tokens; default: as trained."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the run would take.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(help="Carry on with a run: its id, or `last`.")
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Ask a model the questions of a suite and report.

    Answers are kept as they come: a run that was stopped or killed carries on with --resume, and a
    question that any earlier run asked in the same way is not asked again.

    Example: medlocal run starter --model smollm2-135m-instruct --languages es --limit 20
    """
    from medlocal.run import make_spec

    here = settings(offline=offline)
    if resume is not None:
        others = (suite, model, languages, formats, arms, prompts, variants, datasets, limit)
        if dry_run or any(v is not None for v in (*others, shots, seed, mode, context)):
            raise UsageError("--resume takes everything else from the run", hint="leave it out")
        _resume(here, resume, as_json=as_json)
        return
    if suite is None or not model:
        raise UsageError(
            "a suite and a model are needed",
            hint="for example: medlocal run starter --model smollm2-135m-instruct",
        )
    spec = make_spec(
        suite,
        model[0],
        more_models=tuple(model[1:]),
        languages=_names(languages),
        formats=_names(formats),
        arms=_names(arms),
        prompts=_names(prompts),
        variants=_names(variants),
        datasets=_names(datasets),
        limit=limit,
        shots=shots,
        seed=seed,
        mode=mode,
        context=context,
        settings=here,
    )
    tell_sets_left_out(here, spec)
    if dry_run:
        _preview(here, spec, as_json=as_json)
    else:
        _start(here, spec, as_json=as_json)


def _preview(here: Settings, spec: "RunSpec", *, as_json: bool) -> None:
    from medlocal.cli.planning import estimate_lines, tell_left_out
    from medlocal.run import preview_run
    from medlocal.store import Store

    with Store(here.store_path) as store:
        previews = {
            backend.name: preview_run(spec, store, backend) for backend in backends_of(here, spec)
        }
    if as_json:
        print_json({name: estimate.to_json() for name, (_, estimate) in previews.items()})
        return
    for name, (plan, estimate) in previews.items():
        tell_left_out(plan)
        print("\n".join([f"model: {name}", *estimate_lines(estimate)]))


def tell_sets_left_out(here: Settings, spec: "RunSpec") -> None:
    """Say which sets are not asked and why, and which are not what their cards expect."""
    from medlocal.data.library import is_here, known_set, unexpected

    for name in spec.left_out:
        if is_here(known_set(name, here), here):
            narrate(f"left out, because it has no examples here for --shots: {name}")
        else:
            narrate(
                f"left out, because it is not here: {name}; `medlocal data pull {name}` gets it"
            )
    for name in spec.datasets:
        for sentence in unexpected(known_set(name, here), here):
            narrate(f"note: {sentence}")


def demo(
    limit: Annotated[
        int | None, typer.Option(help="Questions per language; default: all 128.")
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Get the small demo model and evaluate it on the starter set, in English and Spanish.

    The model has 135 million parameters and is expected to be at chance: the demo shows what is
    measured and how, on real answers of a real model.
    """
    from medlocal.catalog import model_cards
    from medlocal.hub import pull_model
    from medlocal.run import make_spec

    here = settings(offline=offline)
    card = next(card for card in model_cards().values() if card.demo)
    with transfer_bar() as progress:
        pulled = pull_model(card, here, progress)
    narrate(f"{card.id} is at {pulled.path}")
    _start(here, make_spec(_DEMO_SUITE, card.id, limit=limit), as_json=as_json)


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise UsageError("an option that takes names was given none")
    return names


def backends_of(here: Settings, spec: "RunSpec") -> "list[LlamaBackend]":
    """The models of a spec, their files checked and nothing loaded yet."""
    return [_backend(here, spec, model) for model in spec.models]


def _backend(here: Settings, spec: "RunSpec", model: str) -> "LlamaBackend":
    from medlocal.hub import find_model
    from medlocal.run import LlamaBackend

    path = find_model(model, here)
    name = model if path.name != Path(model).name else path.stem
    backend = LlamaBackend(name, path, here, spec.mode, spec.context, progress=steps_told())
    backend.check()
    for warning in backend.warnings:
        narrate(f"! {name}: {warning}")
    return backend


def _start(here: Settings, spec: "RunSpec", *, as_json: bool) -> None:
    from medlocal.run import RunStopped, start_run
    from medlocal.store import Store

    backends = backends_of(here, spec)
    facts = [backend.model_facts() for backend in backends]
    with Store(here.store_path) as store, watching() as control:
        try:
            summary = start_run(spec, store, backends, facts, control)
        except RunStopped as stop:
            _finish(here, store, _stopped(store, stop.run_id), as_json=as_json)
            raise
        _finish(here, store, summary, as_json=as_json)


def _resume(here: Settings, name: str, *, as_json: bool) -> None:
    from medlocal.run import RunSpec, RunStopped, resume_run
    from medlocal.store import Store

    with Store(here.store_path) as store:
        run_id = store.run(name).id
        backends = backends_of(here, RunSpec.from_json(store.run(run_id).spec))
        with watching() as control:
            try:
                summary = resume_run(run_id, store, backends, control)
            except RunStopped:
                _finish(here, store, _stopped(store, run_id), as_json=as_json)
                raise
            _finish(here, store, summary, as_json=as_json)


def _stopped(store: "Store", run_id: str) -> "Summary":
    from medlocal.run import Summary

    counts = store.counts(run_id)
    state = store.run(run_id).state.value
    return Summary(run_id, state, counts.jobs, counts.done, counts.reused, counts.errors, 0.0)


def _finish(here: Settings, store: "Store", summary: "Summary", *, as_json: bool) -> None:
    """Write the Markdown report and print what was asked for."""
    from medlocal.files import atomic_write
    from medlocal.report.load import load_report
    from medlocal.report.tables import print_terminal, to_markdown

    report = load_report(store, summary.run_id)
    path = here.reports_dir / f"{summary.run_id}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, to_markdown(report))
    if as_json:
        values = asdict(summary)
        values["seconds"] = round(summary.seconds, 3)
        print_json({**values, "report": str(path)})
    elif summary.state == "done":
        print_terminal(report, stdout(), is_brief=True)
    narrate(
        f"run {summary.run_id}: {summary.state}, {summary.done} of {summary.jobs} answers"
        f" ({summary.reused} reused, {summary.errors} errors) in {summary.seconds:.1f} s"
    )
    narrate(f"report: {path}")


@contextmanager
def watching() -> Iterator[Any]:
    """Show progress on stderr, and turn Ctrl-C into a clean stop; a second one stops at once."""
    from medlocal.cli.planning import tell_estimate, tell_left_out
    from medlocal.run import Control

    stops: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if stops:
            raise KeyboardInterrupt
        stops.append(number)
        narrate("\nstopping after this batch; what was answered is kept (again to stop at once)")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _live() as show:
            yield Control(show, tell_estimate, tell_left_out, lambda: bool(stops), notice=narrate)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _live() -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("…")

        def show(progress: "Progress") -> None:
            done = progress.done + progress.errors
            bars.update(task, total=progress.total, completed=done, description=describe(progress))

        yield show


class _Lines:
    """Progress where stderr is a file or a pipe: a line now and then."""

    def __init__(self) -> None:
        self._last = 0.0
        self._phase = ""

    def __call__(self, progress: "Progress") -> None:
        now = time.monotonic()
        if progress.phase == self._phase and now - self._last < _LINE_SECONDS:
            return
        self._last, self._phase = now, progress.phase
        narrate(describe(progress))


def describe(progress: "Progress") -> str:
    """One line: done and total, questions per hour, tokens/s, time left, running accuracy."""
    parts = [f"{progress.phase} {progress.done + progress.errors:,}/{progress.total:,}"]
    if progress.errors:
        parts.append(f"{progress.errors:,} errors")
    if (per_hour := progress.jobs_per_hour) is not None:
        parts.append(f"{per_hour:,.0f} questions/h")
    if progress.seconds and progress.num_tokens:
        parts.append(f"{progress.num_tokens / progress.seconds:,.0f} tokens/s")
    if progress.phase == "asking" and (left := progress.seconds_left) is not None:
        parts.append(f"{_clock(left)} left")
    if progress.graded:
        parts.append(f"{progress.correct / progress.graded:.1%} right of {progress.graded:,}")
    return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
