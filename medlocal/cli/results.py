"""`medlocal runs`, `report`, `show` and `regrade`: what the store holds. No model is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli.console import AsJson, narrate, print_json, print_table, settings, stdout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medlocal.report.results import Report
    from medlocal.store import Record, Result, RunRow, Store, StoredGrade, StoredJob

Run = Annotated[str, typer.Argument(help="A run's id, its beginning, or `last`.")]


def runs(as_json: AsJson = False) -> None:
    """List the runs of this workspace, newest first."""
    from medlocal.store import Store

    with Store(settings().store_path) as store:
        rows = [_run_values(store, row) for row in store.runs()]
    if as_json:
        print_json(rows)
    elif not rows:
        narrate("no runs yet; `medlocal demo` makes one")
    else:
        # The id says when: it begins with the time in UTC.
        keys = ("run_id", "state", "suite", "model", "done", "jobs", "errors")
        print_table(("run", *keys[1:]), [[row[key] for key in keys] for row in rows])


def _run_values(store: "Store", row: "RunRow") -> dict[str, object]:
    from medlocal.run import RunSpec

    counts = store.counts(row.id)
    return {
        "run_id": row.id,
        "state": row.state.value + (" (crashed)" if row.crashed else ""),
        "suite": row.spec.get("suite"),
        "model": ", ".join(RunSpec.from_json(row.spec).models),
        "jobs": counts.jobs,
        "done": counts.done,
        "reused": counts.reused,
        "errors": counts.errors,
        "created": row.created[:19],
        "error": row.error,
    }


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs to report together; default: the last."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write to this file; its ending says what: .html (one page, no network), .md, .csv,"
            " .tex or .json.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what runs found: knowledge, format compliance and robustness, per language.

    Several runs of different models are reported side by side and compared. The HTML page holds
    everything, single questions too, and opens from a USB stick.

    Example: medlocal report last -o report.html
    """
    from medlocal.report.load import load_report
    from medlocal.report.tables import print_terminal, to_json
    from medlocal.store import Store

    if output is not None:
        _check_ending(output)
    with Store(settings().store_path) as store:
        run_ids = [store.run(name).id for name in runs or ["last"]]
        found = load_report(store, *run_ids)
        if output is not None:
            _write(output, found, store, run_ids)
            narrate(f"written: {output}")
    if as_json:
        print_json(to_json(found))
    elif output is None:
        print_terminal(found, stdout())


_ENDINGS = (".html", ".md", ".csv", ".tex", ".json")


def _check_ending(output: Path) -> None:
    from medlocal.errors import UsageError

    if output.suffix.lower() not in _ENDINGS:
        raise UsageError(
            f"{output}: a report is not written as {output.suffix or 'a file without an ending'}",
            hint=f"end the name in {', '.join(_ENDINGS)}; `medlocal export` writes single answers",
        )


def _write(output: Path, found: "Report", store: "Store", run_ids: "Sequence[str]") -> None:
    """Write a report in the form that the file's ending names."""
    import json

    from medlocal.files import atomic_write, disk_errors
    from medlocal.report import files, tables

    match output.suffix.lower():
        case ".html":
            from medlocal.report.browser import read_questions
            from medlocal.report.page import to_html

            text = to_html(found, read_questions(store, run_ids))
        case ".csv":
            text = files.scores_csv(found)
        case ".tex":
            text = files.scores_latex(found)
        case ".json":
            text = json.dumps(tables.to_json(found), ensure_ascii=False, indent=2) + "\n"
        case _:
            text = tables.to_markdown(found)
    with disk_errors(output.parent):
        if output.suffix.lower() == ".csv" and found.variants:
            beside = output.with_stem(f"{output.stem}-variants")
            atomic_write(beside, files.variants_csv(found))
            narrate(f"written: {beside}, each variant against the original")
        atomic_write(output, text)


def export(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs to export; default: the last."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file, or for lm-eval a folder. Needed."),
    ] = None,
    to: Annotated[
        str,
        typer.Option(help="csv, jsonl, parquet or lm-eval; default: what the file's ending says."),
    ] = "",
) -> None:
    """Write every answer of some runs: the prompt, the raw output, the grade and why.

    As csv, jsonl or parquet there is one row per answer. As lm-eval it is what lm-evaluation-harness
    writes: per-sample JSON lines and a results file, for the tools that read those.

    Example: medlocal export last -o answers.parquet
    """
    from medlocal.errors import UsageError
    from medlocal.report.answers import answer_rows, write_answers
    from medlocal.report.lm_eval import export_lm_eval
    from medlocal.store import Store

    kinds = ("csv", "jsonl", "parquet", "lm-eval")
    kind = to or (output.suffix.lower().removeprefix(".") if output else "")
    if output is None or kind not in kinds:
        raise UsageError(
            "where to, and as what?"
            if output is None
            else f"{kind or output} is no kind of export",
            hint=f"-o FILE ending in .csv, .jsonl or .parquet, or --to {'|'.join(kinds)}",
        )
    with Store(settings().store_path) as store:
        run_ids = [store.run(name).id for name in runs or ["last"]]
        if kind == "lm-eval":
            for path in export_lm_eval(store, run_ids, output):
                narrate(f"written: {path}")
            return
        number = write_answers(output, answer_rows(store, run_ids), kind)
    narrate(f"written: {output}, {number:,} answers")


def show(
    job: Annotated[str, typer.Argument(help="A job's key, or its beginning; see --list.")] = "",
    list_run: Annotated[
        str | None, typer.Option("--list", help="List the jobs of this run instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one job: the prompt as sent, the raw output, its tokens, the outcome and why.

    Example: medlocal show --list last, then medlocal show KEY
    """
    from medlocal.errors import UsageError
    from medlocal.evals.answers import GRADER_VERSION
    from medlocal.store import Store

    with Store(settings().store_path) as store:
        if list_run is not None:
            _list_jobs(store, store.run(list_run).id, as_json=as_json)
            return
        if not job:
            raise UsageError("which job?", hint="`medlocal show --list last` lists them")
        found = store.job(job)
        record = store.record(found.key)
        judged = store.grade(found.key, GRADER_VERSION)
        values = _job_values(found, record, judged, store.run_of(found.key))
    if as_json:
        print_json(values)
    else:
        _print_job(values)


def _list_jobs(store: "Store", run_id: str, *, as_json: bool) -> None:
    from medlocal.evals.answers import GRADER_VERSION

    names = ("key", "item", "language", "variant", "prompt", "format", "arm", "outcome", "correct")
    rows = [_listed(result) for result in store.results(run_id, GRADER_VERSION)]
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    headers = ("key", "item", "", "format", "arm", "outcome", "right")
    print_table(headers, [(*row[:3], *row[5:8], _yes(row[8])) for row in rows])


def _listed(result: "Result") -> tuple[Any, ...]:
    job, grade = result.job, result.grade
    how = (job.language, job.variant, job.prompt, job.format, job.arm)
    verdict = (grade.outcome, grade.correct) if grade else (None, None)
    return (job.key[:12], job.item_id, *how, *verdict)


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _job_values(
    job: "StoredJob",
    record: "Record | None",
    judged: "StoredGrade | None",
    run: "RunRow | None",
) -> dict[str, Any]:
    variant: Mapping[str, Any] = job.payload["variant"]  # type: ignore[assignment]
    values: dict[str, Any] = {
        "key": job.key,
        "model": job.model,
        "dataset": job.dataset,
        "item": job.item_id,
        "language": job.language,
        "variant": job.variant,
        "prompt_style": job.prompt,
        "format": job.format,
        "arm": job.arm,
        "gold": variant["labels"][variant["gold"]],
        "messages": [list(message) for message in job.messages],
        "prompt": _prompt_as_sent(job, run),
    }
    if record:
        pieces = record.stats.get("pieces") or [""] * len(record.token_ids)
        assert isinstance(pieces, list)
        tokens = zip(record.token_ids, pieces, record.logprobs, strict=True)
        stats = {k: v for k, v in record.stats.items() if k != "pieces"}
        values |= {
            "output": record.text,
            "finish": record.finish,
            "error": record.error,
            "tokens": [{"id": t, "text": p, "logprob": lp} for t, p, lp in tokens],
            "stats": stats,
        }
    if judged:
        chosen = None if judged.slot is None else variant["labels"][judged.slot]
        values |= {
            "outcome": judged.outcome,
            "answer": chosen,
            "correct": judged.correct,
            "why": judged.reason,
            "grader": judged.grader,
        }
    return values


def _prompt_as_sent(job: "StoredJob", run: "RunRow | None") -> str | None:
    """The chat through the template that the run recorded; None where no run recorded one."""
    from medlocal.weights.template import ChatTemplate

    if run is None:
        return None
    model = run.model_named(job.model)
    if not isinstance(source := model.get("template"), str):
        return None
    bos, eos = (str(model.get(name) or "") for name in ("bos_token", "eos_token"))
    return ChatTemplate(source, bos, eos).render(job.messages)


def _print_job(values: dict[str, Any]) -> None:
    from medlocal.report.wording import printable

    head = (
        "key",
        "model",
        "dataset",
        "item",
        "language",
        "variant",
        "prompt_style",
        "format",
        "arm",
    )
    for name in head:
        print(f"{name:<13} {printable(str(values[name]))}")
    print("\n--- prompt as sent ---")
    prompt = values["prompt"]
    text = prompt or "\n".join(f"[{role}] {content}" for role, content in values["messages"])
    print(printable(text, keep_lines=True))
    if "finish" not in values:
        print("\n(not asked yet)")
        return
    print("--- output ---")
    print(printable(values["output"], keep_lines=True) or f"({values['error'] or 'no text'})")
    if values["tokens"]:
        print("--- tokens, with the model's probability of each ---")
        print(
            " ".join(
                f"{printable(repr(t['text']))}:{_share(t['logprob'])}" for t in values["tokens"]
            )
        )
    print("--- measured ---")
    for name, value in values["stats"].items():
        print(f"{name:<18} {value}")
    if "outcome" in values:
        print("--- judged ---")
        right = "right" if values["correct"] else "not right"
        print(f"{values['outcome']}, answer {values['answer']}, gold {values['gold']}: {right}")
        print(f"why: {values['why']} (grader {values['grader']})")


def _share(logprob: float) -> str:
    import math

    return f"{math.exp(logprob):.3f}"
