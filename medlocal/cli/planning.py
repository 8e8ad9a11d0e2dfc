"""What a run will take, in lines for people; and `medlocal perturbations`."""

from typing import TYPE_CHECKING, Annotated

import typer

from medlocal.cli.console import AsJson, mebibytes, narrate, print_json, print_table

if TYPE_CHECKING:
    from medlocal.evals.plan import Plan
    from medlocal.run.estimate import Estimate


def tell_estimate(estimate: "Estimate") -> None:
    """Say on stderr what a run will take."""
    for line in estimate_lines(estimate):
        narrate(line)


def estimate_lines(estimate: "Estimate") -> list[str]:
    """Jobs, tokens, time, memory, and the smallest difference that can be shown."""
    parts = ", ".join(f"{name} {number:,}" for name, number in estimate.by_part.items())
    jobs = f"jobs: {estimate.num_jobs:,}" + (f" ({parts})" if len(estimate.by_part) > 1 else "")
    if estimate.num_answered:
        jobs += f", of which {estimate.num_answered:,} are answered already"
    lines = [jobs]
    if estimate.shared is not None:
        lines.append(
            f"prompt tokens: {estimate.total_prompt_tokens:,}, of which"
            f" {estimate.unique_prompt_tokens:,} are distinct and computed ({estimate.shared:.2f});"
            f" output tokens: {estimate.least_output_tokens:,} to {estimate.most_output_tokens:,}"
        )
    if estimate.seconds and estimate.rates:
        least, most = estimate.seconds
        lines.append(
            f"time: {_duration(least)} to {_duration(most)}, as short or as long as its answers are,"
            f" at {estimate.rates.prompt:,.0f} prompt tokens/s and {estimate.rates.generation:,.0f}"
            f" output tokens/s measured on this machine"
        )
    if estimate.weights_bytes:
        weights, cache = mebibytes(estimate.weights_bytes), mebibytes(estimate.kv_bytes)
        lines.append(f"memory: {weights} of weights, {cache} of KV cache")
    for shown in estimate.showable:
        least_shown = "none" if shown.difference is None else f"{100 * shown.difference:.1f} points"
        lines.append(
            f"smallest difference between two models that {shown.n:,} questions of {shown.dataset}"
            f" ({shown.language}) show: {least_shown}"
        )
    if estimate.showable:
        lines.append("(80 % power, 5 % level, if one in five questions is answered differently)")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def tell_left_out(plan: "Plan") -> None:
    """Say on stderr which questions a plan does not ask, and why."""
    from medlocal.evals.perturb import ORIGINAL

    for (variant, why), number in plan.passed_over.items():
        narrate(f"not asked: {variant} of {number:,} questions: {why}")
    for (form, arm, why), variants in plan.unfit.items():
        names = ", ".join(variants) if len(variants) < 5 else f"{len(variants)} variants"
        which = "" if variants == (ORIGINAL,) else f" ({names})"
        narrate(f"not asked: {form} through {arm}{which}: {why}")


def perturbations(
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Show which two may be combined, and why others not.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the perturbations: what each does, what happens to the gold, how answers map back.

    A variant is named by one of them, as in `rotate(1)`, or by two of different families joined by
    a plus, as in `typos(0.05)+shuffle`.

    Example: medlocal run starter -m smollm2-135m-instruct --variants "original,shuffle,typos(0.1)"
    """
    from medlocal.evals.perturb import PERTURBATIONS, refused_pairs

    if pairs:
        refused = [(first, second, why) for first, second, why in refused_pairs()]
        if as_json:
            print_json([dict(zip(("first", "second", "why"), row, strict=True)) for row in refused])
            return
        print_table(("refused", "with", "why"), refused)
        narrate("every other pair of different families is allowed")
        return
    keys = ("name", "arguments", "family", "does", "gold", "back")
    rows = [
        (p.name, " ".join(p.arguments), p.family, p.does, p.gold, p.back)
        for p in PERTURBATIONS.values()
    ]
    if as_json:
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    print_table(("name", "in brackets", "family", "does", "gold", "answers map back"), rows)
