"""`medlocal quality`: what quantised files lost against a reference file, on texts and on tasks."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocal.cli.console import AsJson, narrate, print_json, settings, stdout
from medlocal.errors import Interrupted, RefusedError, UsageError
from medlocal.files import Progress
from medlocal.settings import Settings

if TYPE_CHECKING:
    from medlocal.report.quality import QualityReport
    from medlocal.report.quality_tasks import Tasks
    from medlocal.run import LlamaBackend, RunSpec
    from medlocal.weights.corpus import CorpusPart
    from medlocal.weights.quality import MeasureRequest
    from medlocal.weights.quality_results import Quality

_LINE_SECONDS = 15.0
"""Between two lines of progress where stderr is no terminal."""
_SHIPPED = ("en", "es")
"""Languages of the texts that come with medlocal."""
_ENDINGS = (".svg", ".png", ".csv", ".json", ".md")


def quality(
    reference: Annotated[
        str,
        typer.Argument(metavar="REF", help="The reference: a GGUF in BF16 or F16, or a card's id."),
    ],
    quantised: Annotated[
        list[str],
        typer.Argument(metavar="QUANT…", help="GGUFs of the same model, ours or anybody's."),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="Text to measure on, LANGUAGE:FILE or LANGUAGE:FOLDER of .txt files; may be"
            " repeated. Default: the short texts that come with medlocal; your own, of the kind"
            " that the model is for, tells more.",
        ),
    ] = None,
    chunks: Annotated[
        int, typer.Option(help="Chunks of each language's text, at most; 0 = all.")
    ] = 32,
    chunk_tokens: Annotated[
        int, typer.Option(help="Tokens of a chunk, of which the second half is scored.")
    ] = 512,
    suite: Annotated[str, typer.Option(help="The suite, or data set, for the tasks.")] = "quick",
    limit: Annotated[
        int | None, typer.Option(help="Questions per data set and language; default: all.")
    ] = None,
    no_tasks: Annotated[
        bool, typer.Option("--no-tasks", help="Measure on texts only; ask no questions.")
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="Write to this file too; may be repeated. .svg and .png are the plot of quality"
            " against size, .csv, .json and .md the figures.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what each quantisation of a model costs, per language.

    On texts: the KL divergence from the reference, how often the most likely token is the same, the
    change in the probability of the text's own tokens, and the ratio of the perplexities. On tasks:
    the answers lost and gained. The reference's part is computed once and kept.

    Example: medlocal quality model-BF16.gguf model-Q8_0.gguf model-Q4_K_M.gguf -o quality.svg
    """
    from medlocal.hub import find_model
    from medlocal.report.quality import QualityReport
    from medlocal.weights.quality import check_request

    here, outputs = settings(), output or []
    _check_outputs(outputs)
    paths = [find_model(name, here) for name in (reference, *quantised)]
    request = _request(here, paths, text or [], chunks, chunk_tokens)
    check_request(request)
    spec = None if no_tasks else _spec(here, (reference, *quantised), request, suite, limit)
    backends = [] if spec is None else _backends_of(here, spec)
    measured = _measure(request)
    tasks = None if spec is None else _ask(here, spec, backends)
    report = QualityReport(measured, tasks)
    try:
        _print(report, as_json=as_json)
    finally:  # whoever reads our output may have gone; the files are wanted all the same
        for path in outputs:
            _write(path, report)
            narrate(f"written: {path}")


def _print(report: "QualityReport", *, as_json: bool) -> None:
    from medlocal.report.quality import print_quality
    from medlocal.report.quality_files import quality_json

    if as_json:
        print_json(quality_json(report))
    else:
        print_quality(report, stdout())


def _check_outputs(outputs: list[Path]) -> None:
    """Refuse files that could not be written, before hours of measuring."""
    for output in outputs:
        if output.suffix.lower() not in _ENDINGS:
            raise UsageError(
                f"{output}: this is not written as {output.suffix or 'a file without an ending'}",
                hint=f"end the name in {', '.join(_ENDINGS)}",
            )
        if output.is_dir():
            raise UsageError(f"{output} is a folder", hint="name a file with -o")
        if not output.parent.is_dir():
            raise UsageError(
                f"there is no folder {output.parent}", hint="make it, or write elsewhere with -o"
            )
        try:
            with tempfile.TemporaryFile(dir=output.parent):
                pass
        except OSError as error:
            raise UsageError(
                f"nothing can be written in {output.parent}: {error.strerror or error}",
                hint="write elsewhere with -o",
            ) from error


def _request(
    here: Settings, paths: list[Path], texts: list[str], chunks: int, chunk_tokens: int
) -> "MeasureRequest":
    from medlocal.weights.corpus import read_texts
    from medlocal.weights.quality import MeasureRequest

    if chunks < 0:
        raise UsageError(f"--chunks must be 0 or more, not {chunks}")
    parts = [_part(text) for text in texts] or _shipped_texts()
    return MeasureRequest(
        reference=paths[0],
        quantised=tuple(paths[1:]),
        texts=read_texts(parts),
        settings=here,
        max_chunks=chunks or None,
        chunk_tokens=chunk_tokens,
    )


def _part(text: str) -> "CorpusPart":
    from medlocal.weights.corpus import corpus_part

    if not (part := corpus_part(text)).language:
        raise UsageError(
            f"--text {text!r} does not say its language", hint="write it as en:FILE or es:FOLDER"
        )
    return part


def _shipped_texts() -> "list[CorpusPart]":
    from medlocal.catalog import data_root
    from medlocal.weights.corpus import CorpusPart

    folder = data_root() / "benchmarks" / "texts"
    return [CorpusPart(language, folder / f"{language}.txt") for language in _SHIPPED]


def _spec(
    here: Settings,
    models: tuple[str, ...],
    request: "MeasureRequest",
    suite: str,
    limit: int | None,
) -> "RunSpec":
    """What is asked: the suite, in those of the texts' languages in which it can be asked."""
    from dataclasses import replace

    from medlocal.run import make_spec

    spec = make_spec(suite, models[0], more_models=models[1:], limit=limit, settings=here)
    measured = [text.language for text in request.texts]
    common = tuple(language for language in spec.languages if language in measured)
    return replace(spec, languages=common or spec.languages)


def _backends_of(here: Settings, spec: "RunSpec") -> "list[LlamaBackend]":
    from medlocal.cli import running

    try:
        return running.backends_of(here, spec)
    except RefusedError as error:
        raise RefusedError(
            error.message, hint="--no-tasks measures on texts only, which needs no chat template"
        ) from error


def _measure(request: "MeasureRequest") -> "Quality":
    from medlocal.weights.quality import measure

    began = time.perf_counter()
    try:
        with _live() as progress:
            measured = measure(request, progress)
    except KeyboardInterrupt:
        hint = "the same command carries on: what was computed of the reference is kept"
        raise Interrupted("stopped", hint=hint) from None
    positions = sum(text.num_positions for text in measured.texts)
    narrate(
        f"measured on {positions:,} tokens in {time.perf_counter() - began:.0f} s; the reference"
        f" {'was computed before' if measured.num_reused else 'is kept'}, {request.folder}:"
        f" {measured.reference_bytes:,.0f} bytes per token"
    )
    return measured


def _ask(here: Settings, spec: "RunSpec", backends: "list[LlamaBackend]") -> "Tasks":
    """Ask every file the suite's questions, and read what was lost from the store."""
    from medlocal.cli import running
    from medlocal.report.quality_tasks import read_tasks
    from medlocal.run import RunStopped, start_run
    from medlocal.store import Store

    running.tell_sets_left_out(here, spec)
    facts = [backend.model_facts() for backend in backends]
    with Store(here.store_path) as store:
        try:
            with running.watching() as control:
                summary = start_run(spec, store, backends, facts, control)
        except RunStopped as stop:
            hint = "the same command carries on: what was measured and answered is kept"
            raise Interrupted(stop.message, hint=hint) from stop
        narrate(f"run {summary.run_id}: {summary.state} in {summary.seconds:.0f} s")
        names = {backend.name: backend.path.stem for backend in backends}
        return read_tasks(store, summary.run_id, names)


def _write(output: Path, report: "QualityReport") -> None:
    """Write what the file's ending names."""
    import json

    from medlocal.files import atomic_write, disk_errors
    from medlocal.report.quality import quality_markdown
    from medlocal.report.quality_files import quality_csv, quality_json
    from medlocal.report.quality_plot import quality_plot

    content: str | bytes
    match kind := output.suffix.lower():
        case ".svg" | ".png":
            content = quality_plot(report, kind[1:])
        case ".csv":
            content = quality_csv(report)
        case ".json":
            content = json.dumps(quality_json(report), ensure_ascii=False, indent=2) + "\n"
        case _:
            content = quality_markdown(report)
    with disk_errors(output, "make room, or write elsewhere with -o"):
        atomic_write(output, content)


@contextmanager
def _live() -> Iterator[Progress]:
    """A bar on stderr with the time left; where that is no terminal, a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    began = time.perf_counter()
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("…")

        def show(description: str, done: int, total: int | None) -> None:
            said = describe(description, done, total, time.perf_counter() - began)
            bars.update(task, description=said, completed=done, total=total)

        yield show


class _Lines:
    """Progress where stderr is a file or a pipe."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._last = 0.0
        self._description = ""

    def __call__(self, description: str, done: int, total: int | None) -> None:
        now = time.perf_counter()
        if description == self._description and now - self._last < _LINE_SECONDS:
            return
        self._last, self._description = now, description
        narrate(describe(description, done, total, now - self._began))


def describe(description: str, done: int, total: int | None, seconds: float) -> str:
    """One line: which file and text, tokens computed of all, tokens/s, time left."""
    if total is None:
        return description
    parts = [description, f"{done:,}/{total:,} tokens"]
    if done and seconds:
        left = round((total - done) * seconds / done)
        parts += [f"{done / seconds:,.0f} tokens/s", f"{left // 60}:{left % 60:02} left"]
    return " · ".join(parts)
