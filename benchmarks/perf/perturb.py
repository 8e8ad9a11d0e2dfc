"""What does the prefix tree save on the perturbation benchmark?

The jobs of a suite (`full` by default) on a few questions per language, asked twice in this process on
the same model, with the same engine, batches and KV cache:

    with the tree      as a run asks them: every shared token is computed once, and jobs that come to
                       the same words through the same arm are asked once
    without the tree   every job has a first token of its own, so that no two prompts share anything:
                       one token more in each, which is also what makes some answers differ. It is
                       measured on every n-th job (`--every`) and scaled to all of them: where
                       nothing is shared, time is in proportion to the jobs

Both times are of the engine's whole loop. The share of distinct prompt tokens is that of the plan.
Prints a table for people; the last line is JSON.
"""

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from medlocal.engine.engine import Engine
from medlocal.engine.sequence import EngineStats, Request
from medlocal.hub import find_model
from medlocal.libllama import build_info
from medlocal.run import make_spec
from medlocal.run.backend import LlamaBackend, Needs
from medlocal.run.estimate import token_counts
from medlocal.run.execute import peak_memory_bytes
from medlocal.run.grading import to_stored
from medlocal.run.preview import distinct_requests, plan_of
from medlocal.settings import load_settings


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--suite", default="full")
    parser.add_argument("--limit", type=int, default=4, help="questions per language")
    parser.add_argument("--every", type=int, default=4, help="without the tree: every n-th job")
    options = parser.parse_args()
    settings = load_settings()
    backend = LlamaBackend(options.model, find_model(options.model, settings), settings)
    spec = make_spec(options.suite, options.model, limit=options.limit, settings=settings)
    plan = plan_of(spec, backend.identity())
    asker = backend.asker()
    requests = [
        asker.request(number, to_stored(job, backend.name)) for number, job in enumerate(plan.jobs)
    ]
    counts = token_counts(requests)
    alone = [
        replace(request, prompt=(number + 1, *request.prompt))
        for number, request in enumerate(requests)
        if number % options.every == 0
    ]
    tree = _ask(backend, distinct_requests(requests))
    none = _ask(backend, alone)
    result = {
        "suite": options.suite,
        "limit": options.limit,
        "model": options.model,
        "mode": backend.mode,
        "jobs": len(requests),
        "total_prompt_tokens": counts["total_prompt_tokens"],
        "unique_prompt_tokens": counts["unique_prompt_tokens"],
        "unique_share": counts["unique_prompt_tokens"] / counts["total_prompt_tokens"],
        "with_tree": tree,
        "without_tree": none,
        "every": options.every,
        "ratio": none["seconds"] * len(requests) / len(alone) / tree["seconds"],
        "peak_memory_bytes": peak_memory_bytes(),
        "machine": _processor(),
        "python": platform.python_version(),
        "llama_cpp": build_info()["commit"],
    }
    backend.close()
    _print(result)
    print(json.dumps(result))


def _ask(backend: LlamaBackend, requests: Sequence[Request]) -> dict[str, Any]:
    engine = Engine(backend.decoder(Needs.of(requests)))
    for completion in engine.run(requests, backend.context_limit()):
        assert not completion.error, completion.error
    return _figures(engine.stats)


def _figures(stats: EngineStats) -> dict[str, Any]:
    return {
        "requests": stats.num_requests,
        "seconds": stats.seconds,
        "model_seconds": stats.decode_seconds,
        "prefilled_tokens": stats.prefilled_tokens,
        "generated_rows": stats.decode_rows,
        "batches": stats.num_batches,
    }


def _processor() -> str:
    from pathlib import Path

    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _print(result: dict[str, Any]) -> None:
    print(f"{result['suite']}, {result['jobs']:,} jobs, {result['model']}, {result['mode']} mode")
    print(
        f"prompt tokens {result['total_prompt_tokens']:,}, distinct"
        f" {result['unique_prompt_tokens']:,}: {result['unique_share']:.3f}"
    )
    print(f"{'':<18}{'requests':>10}{'seconds':>10}{'prefilled':>12}{'generated':>12}")
    for name in ("with_tree", "without_tree"):
        row = result[name]
        print(
            f"{name.replace('_', ' '):<18}{row['requests']:>10,}{row['seconds']:>10.1f}"
            f"{row['prefilled_tokens']:>12,}{row['generated_rows']:>12,}"
        )
    print(f"without ÷ with     {result['ratio']:>10.2f}  per job")


if __name__ == "__main__":
    main()
