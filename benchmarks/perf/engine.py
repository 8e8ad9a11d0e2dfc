"""Is the engine near what the machine can do, and what does it save over the usual way?

100 questions of the starter set behind one shared few-shot prefix, asked through three arms: label,
free and grammar. Two figures, measured in this process on the same model:

    efficiency   ideal ÷ actual time, ideal = distinct prompt tokens ÷ prompt rate
                 + generated tokens ÷ generation rate at the concurrency used; the prompt rate is
                 that of one prompt of mean length. Most distinct tokens stand deeper, behind the
                 shared prefix, where attention costs more: `efficiency_at_depth` takes the rate of a
                 prompt whose mean depth is theirs
    ratio        the same work with llama-cpp-python's `Llama`, one arm over all questions after
                 another as a user would script it, ÷ our time

The high-level side runs on every n-th question (`--peer-questions`), in the same order, with its own
prefix reuse on, and its time is scaled to all of them: it takes minutes. Prints a table for people;
the last line is JSON.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

from medlocal.catalog import data_root
from medlocal.engine.constraint import CompiledGrammar, TokenTable
from medlocal.engine.engine import Engine
from medlocal.engine.rates import measure_rates
from medlocal.engine.sequence import Generate, Request, Score
from medlocal.engine.tree import build_tree
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import load_items
from medlocal.evals.perturb import apply
from medlocal.evals.prompts import build_messages, load_prompts
from medlocal.hub import find_model
from medlocal.libllama import build_info
from medlocal.run.asking import Asker, Vocabulary
from medlocal.run.backend import LlamaBackend, Needs
from medlocal.run.execute import peak_memory_bytes
from medlocal.settings import load_settings

NUM_EXAMPLES = 3


def read_prompts(asker: Asker, language: str, num_questions: int) -> list[tuple[int, ...]]:
    """The tokens of the questions behind their shared examples."""
    root = data_root() / "benchmarks"
    items = load_items(root / "starter" / "items.jsonl", "starter", "test", language)
    style, form = load_prompts(root / "prompts")[language, "plain"], FORMATS["letter"]
    examples = [apply(item) for item in items[:NUM_EXAMPLES]]
    prompts = []
    for item in items[NUM_EXAMPLES : NUM_EXAMPLES + num_questions]:
        messages = build_messages(apply(item), style, form, examples)
        prompts.append(asker.prompt(tuple((m.role, m.content) for m in messages)))
    return prompts


def make_requests(model: Vocabulary, prompts: list[tuple[int, ...]]) -> dict[str, list[Request]]:
    """The three arms."""
    labels = tuple((t,) for text in (b"A", b"B", b"C", b"D") for t in model.tokenize(text))
    table = TokenTable(model.pieces, tuple(sorted(model.ends)), model.tokenize)
    grammar, most = CompiledGrammar("(A|B|C|D)$", table), FORMATS["letter"].max_tokens
    n = len(prompts)
    return {
        "label": [Request(i, p, Score(labels)) for i, p in enumerate(prompts)],
        "free": [Request(n + i, p, Generate(most)) for i, p in enumerate(prompts)],
        "grammar": [Request(2 * n + i, p, Generate(most, grammar)) for i, p in enumerate(prompts)],
    }


def measure_engine(backend: LlamaBackend, requests: list[Request]) -> dict[str, Any]:
    """Run the requests as a run does, then measure the bare rates on the same context."""
    decoder = backend.decoder(Needs.of(requests))
    engine = Engine(decoder)
    limit = max(r.num_cells for r in requests)
    list(engine.run(requests[:3], limit))  # the first batches also pay for pages and threads
    done = list(engine.run(requests, limit))
    assert len(done) == len(requests)
    stats = engine.stats
    length = sum(len(r.prompt) for r in requests) // len(requests)
    rates = measure_rates(decoder, length, stats.concurrency)
    deep = measure_rates(decoder, 2 * mean_depth(requests), stats.concurrency)
    ideal = rates.ideal_seconds(stats.unique_prompt_tokens, stats.decode_rows)
    ideal_at_depth = deep.ideal_seconds(stats.unique_prompt_tokens, stats.decode_rows)
    return {
        "mode": backend.mode,
        "seconds": stats.seconds,
        "total_prompt_tokens": stats.total_prompt_tokens,
        "unique_prompt_tokens": stats.unique_prompt_tokens,
        "prefilled_tokens": stats.prefilled_tokens,
        "generated_tokens": stats.generated_tokens,
        "concurrency": stats.concurrency,
        "prompt_rate": rates.prompt,
        "generation_rate": rates.generation,
        "efficiency": ideal / stats.seconds,
        "prompt_rate_at_depth": deep.prompt,
        "efficiency_at_depth": ideal_at_depth / stats.seconds,
        "share_outside_model": 1 - stats.decode_seconds / stats.seconds,
    }


def mean_depth(requests: list[Request]) -> int:
    """How many tokens stand before a distinct prompt token, on average."""
    tree = build_tree(list({r.prompt: None for r in requests}))
    depths = sum((node.start + node.end - 1) / 2 * node.length for node in tree.nodes)
    return round(depths / tree.num_tokens)


def measure_peer(path: Path, prompts: list[tuple[int, ...]], threads: int) -> dict[str, float]:
    """Seconds per question of the high-level `Llama`, one arm after another."""
    from llama_cpp import Llama, LlamaGrammar

    llm = Llama(str(path), n_ctx=2048, n_threads=threads, n_threads_batch=threads,
                logits_all=False, verbose=False)  # fmt: skip
    grammar = LlamaGrammar.from_string('root ::= "A" | "B" | "C" | "D"', verbose=False)
    labels = [llm.tokenize(text, add_bos=False)[0] for text in (b"A", b"B", b"C", b"D")]
    most = FORMATS["letter"].max_tokens

    def label(prompt: list[int]) -> None:
        # What a script does for the labels' log-probabilities: read the prompt, look at the logits.
        shared = 0
        for a, b in zip(llm._input_ids, prompt[:-1], strict=False):
            if a != b:
                break
            shared += 1
        llm.n_tokens = shared
        llm.eval(prompt[shared:])
        row = llm._ctx.get_logits_ith(-1)
        assert [row[t] for t in labels]

    def free(prompt: list[int]) -> None:
        llm.create_completion(prompt, max_tokens=most, temperature=0.0)

    def constrained(prompt: list[int]) -> None:
        llm.create_completion(prompt, max_tokens=most, temperature=0.0, grammar=grammar)

    seconds = {}
    for name, ask in (("label", label), ("free", free), ("grammar", constrained)):
        started = time.perf_counter()
        for prompt in prompts:
            ask(list(prompt))
        seconds[name] = (time.perf_counter() - started) / len(prompts)
    return seconds


def main() -> None:
    """Measure, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="card id or GGUF path")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--peer-questions", type=int, default=30, help="0 = leave the peer out")
    parser.add_argument("--language", default="en")
    parser.add_argument("--modes", default="exact,fast")
    arguments = parser.parse_args()
    settings = load_settings()
    path = find_model(arguments.model, settings)
    threads = settings.num_threads
    ours: list[dict[str, Any]] = []
    prompts: list[tuple[int, ...]] = []
    for mode in arguments.modes.split(","):
        backend = LlamaBackend(path.stem, path, settings, mode)
        asker = backend.asker()
        prompts = read_prompts(asker, arguments.language, arguments.questions)
        arms = make_requests(asker.vocabulary, prompts)
        ours.append(measure_engine(backend, [r for some in arms.values() for r in some]))
        backend.close()
    result = {
        "benchmark": "engine",
        "model": arguments.model,
        "file": path.name,
        "questions": len(prompts),
        "processor": _processor(),
        "threads": threads,
        "build": build_info()["commit"],
        "engine": ours,
    }
    if arguments.peer_questions:
        step = max(1, len(prompts) // arguments.peer_questions)
        peer = measure_peer(path, prompts[::step], threads)
        scaled = sum(peer.values()) * len(prompts)
        result["peer_seconds_per_question"] = peer
        result["peer_questions"] = len(prompts[::step])
        result["peer_seconds_scaled"] = scaled
        for row in ours:
            row["ratio_to_high_level"] = scaled / row["seconds"]
    result["peak_memory_bytes"] = peak_memory_bytes()
    _print(result)
    print(json.dumps(result))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _print(result: dict[str, Any]) -> None:
    print(f"{result['questions']} questions × 3 arms, {result['file']}, {result['processor']}, "
          f"{result['threads']} threads")  # fmt: skip
    names = ("mode", "seconds", "unique_prompt_tokens", "total_prompt_tokens", "generated_tokens",
             "concurrency", "prompt_rate", "generation_rate", "efficiency", "prompt_rate_at_depth",
             "efficiency_at_depth", "share_outside_model", "ratio_to_high_level")  # fmt: skip
    for name in names:
        values = [row.get(name) for row in result["engine"]]
        shown = [f"{v:12,.3f}" if isinstance(v, float) else f"{v!s:>12}" for v in values]
        print(f"{name:<22} {' '.join(shown)}")
    for arm, seconds in result.get("peer_seconds_per_question", {}).items():
        print(f"high level, {arm:<10} {seconds * 1000:8.0f} ms per question"
              f" (n = {result['peer_questions']})")  # fmt: skip


if __name__ == "__main__":
    main()
