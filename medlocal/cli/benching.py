"""`medlocal bench`: how fast models are on this machine, and whether they are faster than they were."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli.console import AsJson, narrate, print_json, settings, stdout, steps_told
from medlocal.errors import Interrupted, RefusedError, UsageError
from medlocal.settings import Settings

if TYPE_CHECKING:
    from medlocal.report.bench_compare import BenchComparison
    from medlocal.report.bench_results import BenchResults
    from medlocal.run.spec import RunSpec

_ENDINGS = (".json", ".md")


def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL…", help="GGUFs, or ids of model cards.")
    ],
    suite: Annotated[
        str, typer.Option(help="The suite, or data set, whose questions are asked end to end.")
    ] = "quick",
    limit: Annotated[
        int | None, typer.Option(help="Questions per data set and language; default: all.")
    ] = None,
    no_suite: Annotated[
        bool, typer.Option("--no-suite", help="Measure the bare speed only; ask no questions.")
    ] = False,
    repetitions: Annotated[
        int, typer.Option(help="Of each test, after one that is not timed.")
    ] = 5,
    suite_repetitions: Annotated[
        int, typer.Option(help="Of the suite; from 2 on it is compared with an interval.")
    ] = 1,
    prompt_tokens: Annotated[int, typer.Option(help="Of the prompts; llama-bench's -p.")] = 512,
    new_tokens: Annotated[int, typer.Option(help="Generated per text; llama-bench's -n.")] = 128,
    depths: Annotated[
        str, typer.Option(help="Tokens before what is timed, one test each; llama-bench's -d.")
    ] = "0,2048",
    sequences: Annotated[
        str, typer.Option(help="Texts generated side by side, one test each.")
    ] = "1,8,32",
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output", "-o", help="Write to this file too, .json or .md; may be repeated."
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="An earlier result: its file, its name, or 'last' for the newest."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed, load time, memory and questions per hour of models, as llama-bench counts them.

    Each model is measured in a process of its own. The result is kept in $MEDLOCAL_HOME/bench, with
    the machine's description; Ctrl-C keeps what is finished. Leave the machine alone meanwhile.

    Example: medlocal bench smollm2-135m-instruct --limit 20 --compare last
    """
    from medlocal.engine.timing import SpeedRequest
    from medlocal.run.bench import BenchRequest, BenchWatch, bench_and_keep

    outputs = output or []
    _check_endings(outputs)
    here = settings()
    if suite_repetitions < 1:
        raise UsageError(f"--suite-repetitions must be 1 or more, not {suite_repetitions}")
    speed = SpeedRequest(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        depths=numbers(depths, "--depths"),
        sequences=numbers(sequences, "--sequences"),
        repetitions=repetitions,
    )
    files = _files(here, models)
    spec = None if no_suite else _spec(here, models, suite, limit)
    # Looked for before anything is measured: a name that is wrong should not cost minutes.
    earlier = _earlier(here, compare, files)
    request = BenchRequest(files, speed, spec, suite_repetitions)
    document, kept = bench_and_keep(request, here, BenchWatch(narrate, steps_told()))
    _show(document, earlier, outputs, as_json=as_json)
    narrate(f"kept: {kept}")
    if document["stopped"]:
        raise Interrupted("stopped; what was finished is kept", hint=f"it is in {kept}")


def numbers(text: str, option: str) -> tuple[int, ...]:
    """The whole numbers of an option: "0,2048".

    Raises:
        UsageError: they are none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r} is no list of whole numbers", hint="write it as 0,2048"
        ) from error


def _check_endings(outputs: Sequence[Path]) -> None:
    for output in outputs:
        if output.suffix.lower() not in _ENDINGS:
            raise UsageError(
                f"{output}: this is not written as {output.suffix or 'a file without an ending'}",
                hint=f"end the name in {' or '.join(_ENDINGS)}",
            )


def _files(here: Settings, models: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """Name and file of each model."""
    from medlocal.hub import find_model

    paths = [find_model(model, here) for model in models]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a model is named twice", hint="name each once")
    stems = [
        model if path.name != Path(model).name else path.stem
        for model, path in zip(models, paths, strict=True)
    ]
    # Two folders may hold files of one name: then the folder tells them apart.
    names = (
        stem if stems.count(stem) == 1 else f"{path.parent.name}/{stem}"
        for stem, path in zip(stems, paths, strict=True)
    )
    return tuple(zip(names, paths, strict=True))


def _spec(here: Settings, models: Sequence[str], suite: str, limit: int | None) -> "RunSpec":
    """What each model is asked; all of them can be."""
    from medlocal.cli import running
    from medlocal.run import make_spec

    spec = make_spec(suite, models[0], more_models=tuple(models[1:]), limit=limit, settings=here)
    running.tell_sets_left_out(here, spec)
    try:
        running.backends_of(here, spec)
    except RefusedError as error:
        raise RefusedError(
            error.message, hint="--no-suite measures the bare speed, which needs no chat template"
        ) from error
    return spec


def _earlier(
    here: Settings, compare: str | None, files: Sequence[tuple[str, Path]]
) -> "BenchResults | None":
    from medlocal.files import file_sha256
    from medlocal.report.bench_results import read_results
    from medlocal.run.bench import find_result

    if compare is None:
        return None
    hashes = [file_sha256(path, steps_told(), here.home / "hashes.json") for _, path in files]
    return read_results(find_result(compare, hashes, here))


def _show(
    document: dict[str, Any],
    earlier: "BenchResults | None",
    outputs: Sequence[Path],
    *,
    as_json: bool,
) -> None:
    """Write what was asked for and print the rest."""
    from medlocal.report.bench import print_bench
    from medlocal.report.bench_compare import compare_results
    from medlocal.report.bench_results import results_of

    results = results_of(document)
    comparison = compare_results(results, earlier) if earlier else None
    if comparison is not None:
        document = {**document, "comparison": asdict(comparison)}
    for output in outputs:
        _write(output, document, results, comparison)
    if as_json:
        print_json(document)
    else:
        print_bench(results, comparison, stdout())


def _write(
    output: Path,
    document: dict[str, Any],
    results: "BenchResults",
    comparison: "BenchComparison | None",
) -> None:
    import json

    from medlocal.files import atomic_write, disk_errors
    from medlocal.report.bench import bench_markdown

    if output.suffix.lower() == ".json":
        content = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    else:
        content = bench_markdown(results, comparison)
    with disk_errors(output.parent):
        atomic_write(output, content)
