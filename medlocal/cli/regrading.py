"""`medlocal regrade`: judge stored answers again, and show what changed."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from medlocal.cli.console import AsJson, narrate, print_json, print_table, settings

if TYPE_CHECKING:
    from medlocal.run.grading import Change, Regraded
    from medlocal.store import StoredGrade

_SHOWN = 20
"""Single answers that are shown; the JSON has all."""


def regrade(
    run: Annotated[str, typer.Argument(help="A run's id, its beginning, or `last`.")] = "last",
    as_json: AsJson = False,
) -> None:
    """Judge the stored answers of a run again with this version's grader; no model is needed.

    What changed is shown against the newest earlier grades, which are kept beside the new ones.
    """
    from medlocal.run import regrade as grade_again
    from medlocal.store import Store

    with Store(settings().store_path) as store:
        done = grade_again(store, store.run(run).id)
    if as_json:
        print_json(_values(done))
        return
    _print(done)


def _values(done: "Regraded") -> dict[str, object]:
    return {
        "records": done.num_records,
        "changed": len(done.changes),
        "new": done.num_new,
        "graders": list(done.graders),
        "right_before": done.num_right_before,
        "right_now": done.num_right_now,
        "changes": [
            {
                "key": change.job.key,
                "before": _verdict(change.before),
                "now": _verdict(change.now),
                "right_before": change.before.correct,
                "right_now": change.now.correct,
                "why": change.now.reason,
            }
            for change in done.changes
        ],
    }


def _print(done: "Regraded") -> None:
    narrate(
        f"{done.num_records:,} answers judged, {len(done.changes):,} changed, {done.num_new:,} new"
    )
    if done.graders:
        versions = ", ".join(map(str, done.graders))
        narrate(
            f"right before (grader {versions}): {done.num_right_before:,};"
            f" right now: {done.num_right_now:,} of the same answers"
        )
    if not done.changes:
        return
    counts = Counter((c.before.outcome, c.now.outcome) for c in done.changes)
    gains = Counter((c.before.correct, c.now.correct) for c in done.changes)
    print_table(
        ("before", "now", "answers"),
        [(*outcomes, f"{number:,}") for outcomes, number in counts.most_common()],
    )
    narrate(f"of these, {gains[False, True]:,} became right and {gains[True, False]:,} wrong")
    print_table(
        ("job", "format", "arm", "before", "now", "why"),
        [_row(change) for change in done.changes[:_SHOWN]],
    )
    if len(done.changes) > _SHOWN:
        narrate(f"and {len(done.changes) - _SHOWN:,} more; --json has all of them")


def _row(change: "Change") -> tuple[str, ...]:
    job = change.job
    verdicts = (_verdict(change.before), _verdict(change.now))
    return (job.key[:12], job.format, job.arm, *verdicts, change.now.reason)


def _verdict(judged: "StoredGrade") -> str:
    option = "no option" if judged.slot is None else f"option {judged.slot + 1}"
    return f"{judged.outcome}, {option}"
