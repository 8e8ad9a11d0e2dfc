"""`medlocal compare`: two models, or two runs, on the questions that both answered."""

from typing import TYPE_CHECKING, Annotated

import typer

from medlocal.cli.console import AsJson, print_json, settings, stdout
from medlocal.errors import UsageError

if TYPE_CHECKING:
    from medlocal.evals.scoring import GradedAnswer
    from medlocal.store import Store


def compare(
    run_a: Annotated[
        str, typer.Argument(help="A run of the model to compare with: its id, or `last`.")
    ],
    run_b: Annotated[
        str | None, typer.Argument(help="A run of the other model; default: the same run.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Two names, comma-separated, where a run holds several models."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two models on equal questions: the adapted with its base, the quantised with the full.

    The second is judged against the first, per data set and language: better, worse, or no difference
    shown, with the smallest difference that could have been shown. Questions that only one of the two
    was asked, or was asked in other words, are left out and counted.

    Example: medlocal compare 20260101-120000-ab12 last
    """
    from medlocal.evals.comparing import compare as compare_answers
    from medlocal.report.load import is_same_question, template_notes
    from medlocal.report.results import ModelPair
    from medlocal.report.tables import pair_to_json, print_pair
    from medlocal.store import Store

    with Store(settings().store_path) as store:
        rows = [store.run(run_a), store.run(run_b or run_a)]
        wanted = _two(models)
        if run_b is None and not wanted:
            wanted = _only_two(store, rows[0].id)
        first, second = (
            _answers(store, row.id, wanted[side] if wanted else "") for side, row in enumerate(rows)
        )
        comparison = compare_answers(first, second, is_same_question)
        notes = template_notes(comparison.first, comparison.second, rows)
    names = [comparison.first, comparison.second]
    if names[0] == names[1]:
        names = [f"{name} (run {row.id})" for name, row in zip(names, rows, strict=True)]
    pair = ModelPair(names[0], names[1], comparison, notes)
    if as_json:
        print_json(pair_to_json(pair))
    else:
        print_pair(pair, stdout())


def _two(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if len(names) != 2:
        raise UsageError(
            f"--models takes two names, not {len(names)}", hint="--models BASE,ADAPTED"
        )
    return names[0], names[1]


def _only_two(store: "Store", run_id: str) -> tuple[str, str]:
    found = list(dict.fromkeys(job.model for job in store.jobs(run_id)))
    if len(found) != 2:
        raise UsageError(
            f"run {run_id} holds {len(found)} models: {', '.join(found)}",
            hint="name a second run, or two of its models with --models A,B",
        )
    return found[0], found[1]


def _answers(store: "Store", run_id: str, model: str) -> "list[GradedAnswer]":
    """The graded answers of a run, of one of its models where one is named."""
    from medlocal.errors import unknown_name
    from medlocal.report.load import graded_answers

    answers = list(graded_answers(store, run_id))
    found = list(dict.fromkeys(answer.model for answer in answers))
    if model and model not in found:
        raise unknown_name(f"model of run {run_id}", model, found)
    if not answers:
        raise UsageError(
            f"run {run_id} has no graded answer", hint=f"medlocal regrade {run_id}, or resume it"
        )
    return [answer for answer in answers if model in {"", answer.model}]
