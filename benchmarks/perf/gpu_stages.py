"""The measurements of `gpu.py`, one function per stage; each runs in a process of its own.

Every stage gets the same `Setting` and returns JSON values. A stage knows nothing of time limits or of
the other stages: what it throws, and when it is killed, is the caller's to record.
"""

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.perf.gpu_model import TYPES, write_model
from medlocal.engine.constraint import CompiledGrammar, TokenTable
from medlocal.engine.engine import Engine
from medlocal.engine.llama import ContextOptions
from medlocal.engine.rates import measure_rates
from medlocal.engine.sequence import Completion, Generate, Request, Score
from medlocal.gpu_monitor import watch_gpus
from medlocal.libllama import LlamaModel, OutOfMemoryError, library
from medlocal.run.loading import Loading
from medlocal.run.recovering import run_with_less
from medlocal.weights.inspect import read_gguf
from medlocal.weights.measured_memory import machine_budgets
from medlocal.weights.memory import DeviceBudget
from medlocal.weights.model_shape import shape_of_gguf

_SHARED_TOKENS = 40
"""With which every question begins."""
_OUTPUT_TOKENS = 8
"""Of a free answer and, at most, of a constrained one."""
_CONCURRENCIES = (1, 8, 32, 64)


@dataclass(frozen=True, slots=True)
class Setting:
    """What all stages share."""

    folder: Path
    """Where the models lie."""
    vocabulary: Path
    threads: int
    num_questions: int
    question_tokens: int
    bench: Path | None
    """llama-bench of the same build; None = there is none."""
    cpu: bool
    tiny: bool

    def model(self, kind: str) -> Path:
        """The file of a type."""
        return self.folder / f"{'tiny' if self.tiny else '8b'}-{kind}.gguf"

    @property
    def num_prompt(self) -> int:
        """Tokens of the prompt whose speed is measured."""
        return 64 if self.tiny else 512


def options(setting: Setting, num_cells: int = 8192, num_rows: int = 512) -> ContextOptions:
    """Of a context in fast mode, as a run makes it."""
    return ContextOptions(
        num_cells=num_cells, num_rows=num_rows, num_ids=192, num_threads=setting.threads,
        num_outputs=192, num_texts=64,
    )  # fmt: skip


Budgets = Callable[[], Sequence[DeviceBudget]]


def make_loading(
    setting: Setting, kind: str, wanted: ContextOptions, budgets: Budgets = machine_budgets
) -> Loading:
    """A model by the plan of memory, not loaded yet."""
    path = setting.model(kind)
    return Loading(path, shape_of_gguf(read_gguf(path)), wanted, budgets)


@contextmanager
def opened(setting: Setting, kind: str, wanted: ContextOptions) -> Iterator[Loading]:
    """A model loaded, with its context."""
    loading = make_loading(setting, kind, wanted)
    try:
        loading.load()
        loading.open(wanted.num_cells, 512)
        yield loading
    finally:
        loading.close()


def models(setting: Setting) -> dict[str, Any]:
    """Write the models."""
    found = {}
    for kind in TYPES:
        started = time.perf_counter()
        path = setting.model(kind)
        if not path.exists():
            write_model(path, kind, setting.vocabulary, tiny=setting.tiny)
        found[kind] = {"bytes": path.stat().st_size, "seconds": time.perf_counter() - started}
    return found


def rates(setting: Setting, kind: str) -> dict[str, Any]:
    """Prompt and generation speed, ours and llama-bench's at the same batch."""
    result: dict[str, Any] = {"llama_bench": bench(setting, kind)}
    started = time.perf_counter()
    with opened(setting, kind, options(setting)) as loading:
        assert loading.decoder is not None
        result["load_seconds"] = time.perf_counter() - started
        result["placement"] = placement(loading)
        ours = {}
        for concurrency in _CONCURRENCIES:
            with gpu_watch() as watch:
                found = measure_rates(loading.decoder, setting.num_prompt, concurrency, 5)
            ours[found.concurrency] = {"generation": found.generation, **watch}
            result.setdefault("prompt", found.prompt)
        result["generation_by_texts"] = ours
    theirs = result["llama_bench"].get("prompt")
    result["prompt_ratio"] = result["prompt"] / theirs if theirs else None
    return result


def bench(setting: Setting, kind: str, **changes: str) -> dict[str, Any]:
    """llama-bench's figures; without the program, why there are none.

    Its threads wait for each other as ours do. On a machine with anything else at work it would spin, and
    was 100 times slower than the same program told to sleep: no ratio to that means anything.

    Args:
        setting: of the stage.
        kind: of the model.
        changes: of its options; one that is named twice would be measured both ways.
    """
    if setting.bench is None:
        return {"error": "no llama-bench was built"}
    library()  # decides how threads wait, in the environment that the program inherits
    given = {
        "p": str(setting.num_prompt), "n": "32", "b": "512", "ub": "512", "fa": "1", "r": "3",
        "ngl": "0" if setting.cpu else "99", "t": str(setting.threads), "o": "json", **changes,
    }  # fmt: skip
    command = [str(setting.bench), "-m", str(setting.model(kind))]
    for name, value in given.items():
        command += [f"-{name}", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    if done.returncode:
        return {"error": (done.stderr or done.stdout)[-500:]}
    rows = [row for row in json.loads(done.stdout) if row["n_depth"] == 0]
    speeds = {"prompt" if row["n_prompt"] else "generation": row["avg_ts"] for row in rows}
    speeds["waiting"] = os.environ.get("OMP_WAIT_POLICY", "as OpenMP does it by itself")
    return {**speeds, "rows": [{k: row.get(k) for k in _BENCH_KEYS} for row in rows]}


_BENCH_KEYS = (
    "build_commit", "gpu_info", "n_batch", "n_ubatch", "n_gpu_layers", "flash_attn", "type_k", "type_v",
    "n_prompt", "n_gen", "avg_ts", "stddev_ts",
)  # fmt: skip


def work(setting: Setting, kind: str) -> dict[str, Any]:
    """Label, free and grammar work on all questions: each alone, then the three together."""
    with opened(setting, kind, options(setting)) as loading:
        model = loading.model
        assert model is not None
        arms = requests(setting, model)
        result: dict[str, Any] = {"placement": placement(loading), "missing": missing_arms(arms)}
        engine = engine_of(loading)
        started = time.perf_counter()
        # At first use kernels are chosen, memory is taken and the grammar compiled.
        list(engine.run([some[0] for some in arms.values()], 4096))
        result["first_use_seconds"] = time.perf_counter() - started
        together = [request for some in arms.values() for request in some]
        for name, asked in (*arms.items(), ("together", together)):
            result[name] = timed(engine, asked)
        measured = measure_rates(engine.decoder, setting.question_tokens, 64, 3)
        result["prompt_rate"], result["generation_rate"] = measured.prompt, measured.generation
        for name in (*arms, "together"):
            done = result[name]
            ideal = measured.ideal_seconds(done["unique_prompt_tokens"], done["decode_rows"])
            done["efficiency"] = ideal / done["seconds"]
        return result


def timed(engine: Engine, asked: Sequence[Request]) -> dict[str, Any]:
    """Ask, and tell how long it took and what the GPUs did meanwhile."""
    with gpu_watch() as watch:
        done = list(engine.run(asked, 4096))
    stats = engine.stats
    return {
        "requests": len(asked),
        "answered": sum(c.finish != "error" for c in done),
        "seconds": stats.seconds,
        "questions_per_second": len(asked) / stats.seconds,
        "unique_prompt_tokens": stats.unique_prompt_tokens,
        "prefilled_tokens": stats.prefilled_tokens,
        "decode_rows": stats.decode_rows,
        "concurrency": stats.concurrency,
        "share_outside_model": 1 - stats.decode_seconds / stats.seconds,
        **watch,
    }


def shapes(setting: Setting, kind: str) -> dict[str, Any]:
    """The same label work with other numbers of cells and rows: what a plan's constants should be."""
    found = {}
    for num_cells, num_rows in (
        (2048, 512), (4096, 512), (8192, 512), (16384, 512), (8192, 1024), (8192, 2048),
    ):  # fmt: skip
        with opened(setting, kind, options(setting, num_cells, num_rows)) as loading:
            assert loading.model is not None
            some = replace(setting, num_questions=min(300, setting.num_questions))
            asked = requests(some, loading.model)["label"]
            engine = engine_of(loading)
            list(engine.run(asked[:8], 4096))
            found[f"{num_cells} cells, {num_rows} rows"] = timed(engine, asked)
    return found


def types(setting: Setting, kind: str) -> dict[str, Any]:
    """What flash attention and the type of keys and values do to the speed."""
    found: dict[str, Any] = {}
    for attention, kv in (("1", "f16"), ("0", "f16"), ("1", "q8_0"), ("1", "bf16")):
        found[f"llama-bench, flash attention {attention}, {kv}"] = bench(
            setting, kind, fa=attention, ctk=kv, ctv=kv
        )
    for pair in (("f16", "f16"), ("bf16", "bf16"), ("bf16", "f16")):
        wanted = replace(options(setting), kv_types=pair)
        with opened(setting, kind, wanted) as loading:
            assert loading.decoder is not None
            measured = measure_rates(loading.decoder, setting.num_prompt, 32, 3)
            found["ours, " + " and ".join(pair)] = {
                "prompt": measured.prompt,
                "generation": measured.generation,
                "facts": placement(loading),
            }
    return found


def identical(setting: Setting, kind: str) -> dict[str, Any]:
    """The share of answers that are the same one at a time and all together, in fast mode."""
    some = replace(setting, num_questions=min(64, setting.num_questions))
    with opened(setting, kind, options(setting)) as loading:
        assert loading.model is not None
        arms = requests(some, loading.model)
        asked = arms["label"] + arms["free"]
        engine = engine_of(loading)
        together = {c.request.id: c for c in engine.run(asked, 4096)}
        alone = {c.request.id: c for r in asked for c in engine.run([r], 4096)}
    same_label = [best(together[r.id]) == best(alone[r.id]) for r in arms["label"]]
    same_text = [together[r.id].tokens == alone[r.id].tokens for r in arms["free"]]
    pairs = [(together[r.id].scores, alone[r.id].scores) for r in arms["label"]]
    return {
        "n": len(same_label),
        "same_label": sum(same_label) / len(same_label),
        "same_text": sum(same_text) / len(same_text),
        "largest_score_difference": max(float(np.abs(np.subtract(*p)).max()) for p in pairs),
    }


def best(completion: Completion) -> int:
    """The label with the highest score."""
    return int(np.argmax(completion.scores))


def recovery(setting: Setting, kind: str) -> dict[str, Any]:
    """Memory that runs out: at the load, at the context, and what the answers are afterwards."""
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        if not setting.cpu:
            stack.callback(hog_memory(setting, kind).close)
        loading = make_loading(setting, kind, options(setting), boundless)
        stack.callback(loading.close)
        started = time.perf_counter()
        planned = loading.plan.gpu_layers
        model = loading.load()
        result["load"] = {
            "layers_planned_at_first": planned,
            "layers_offloaded": model.layers_offloaded,
            "notices": list(loading.notices),
        }
        if setting.cpu:
            limit_address_space(400 * 2**20)
        # 64 GiB of keys and values of the 8B shape: more than the GPU has left.
        loading.open(2**19, 1024)
        result["context"] = {"notices": loading.notices[len(result["load"]["notices"]) :]}
        some = replace(setting, num_questions=min(40, setting.num_questions))
        asked = requests(some, model)["label"]
        done = list(run_with_less(engine_of(loading), asked, 1000, loading.open_smaller))
        result["answered"] = sum(c.finish == "scored" for c in done)
        result["asked"] = len(asked)
        result["in_the_middle"] = fail_once(loading, asked)
        result["seconds"] = time.perf_counter() - started
        result["placement"] = placement(loading)
    return result


def fail_once(loading: Loading, asked: Sequence[Request]) -> dict[str, Any]:
    """Tell the engine in the middle that there is no memory, and see all answered on less."""
    decoder = loading.decoder
    assert decoder is not None
    num_tokens = sum(len(request.prompt) - _SHARED_TOKENS for request in asked)
    middle = num_tokens // decoder.limits.num_rows // 2
    compute, calls = decoder.decode, iter(range(10**9))

    def decode(batch: Any) -> None:
        if next(calls) == middle:
            raise OutOfMemoryError("pretended, to see the run go on")
        compute(batch)

    decoder.decode = decode  # type: ignore[method-assign]
    before = len(loading.notices)
    done = list(run_with_less(engine_of(loading), asked, 1000, loading.open_smaller))
    return {
        "answered": sum(c.finish == "scored" for c in done),
        "notices": loading.notices[before:],
    }


def hog_memory(setting: Setting, kind: str) -> Loading:
    """Take nearly all of the first GPU's memory, as another program would; closed by the caller."""
    wanted = options(setting)
    loading = make_loading(setting, kind, wanted)
    loading.load()
    cell_bytes = read_gguf(setting.model(kind)).kv_bytes_per_token()
    free = next(budget.free_bytes for budget in machine_budgets() if budget.kind == "gpu")
    left = max(2 * 2**30, loading.shape.weights_bytes // 2)
    loading.open((free - left - 2**30) // cell_bytes // 256 * 256, 1024)
    return loading


def boundless() -> list[DeviceBudget]:
    """What devices would say that have more memory than they have."""
    return [replace(b, free_bytes=2**44, reserve_bytes=0) for b in machine_budgets()]


def limit_address_space(more_bytes: int) -> None:
    """Let this process have so much more memory and no more: a small machine."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def requests(setting: Setting, model: LlamaModel) -> dict[str, list[Request]]:
    """The questions through three arms; two where no grammar can be compiled here."""
    rng = np.random.default_rng(7)
    low, high = min(1000, model.num_vocab // 4), min(50_000, model.num_vocab)
    start = rng.integers(low, high, _SHARED_TOKENS).tolist()
    rest = setting.question_tokens - _SHARED_TOKENS
    n = setting.num_questions
    prompts = [tuple(start + rng.integers(low, high, rest).tolist()) for _ in range(n)]
    labels = tuple((token,) for text in b"ABCD" for token in model.tokenize(bytes([text])))
    arms = {
        "label": [Request(i, p, Score(labels)) for i, p in enumerate(prompts)],
        "free": [Request(n + i, p, Generate(_OUTPUT_TOKENS)) for i, p in enumerate(prompts)],
    }
    try:
        table = TokenTable(model.pieces, tuple(sorted(model.ends)), model.tokenize)
        grammar = CompiledGrammar("(A|B|C|D)$", table)
    except ImportError:
        return arms
    task = Generate(_OUTPUT_TOKENS, grammar)
    return {**arms, "grammar": [Request(2 * n + i, p, task) for i, p in enumerate(prompts)]}


def missing_arms(arms: Mapping[str, object]) -> list[str]:
    """What could not be asked, and why."""
    return [] if "grammar" in arms else ["grammar: outlines_core is not installed"]


def engine_of(loading: Loading) -> Engine:
    """An engine on the context that is open."""
    assert loading.decoder is not None
    return Engine(loading.decoder)


def placement(loading: Loading) -> dict[str, Any]:
    """Where weights and cache lie, read back."""
    model, decoder = loading.model, loading.decoder
    assert model is not None
    return {
        "layers_planned": loading.plan.gpu_layers,
        "layers_offloaded": model.layers_offloaded,
        "weights_buffers": {b.name: b.num_bytes for b in model.buffers},
        "planned_bytes": {p.device.name: p.needed_bytes for p in loading.plan.memory.per_device},
        "context": decoder.facts() if decoder else None,
        "notices": list(loading.notices),
    }


@contextmanager
def gpu_watch() -> Iterator[dict[str, Any]]:
    """A dictionary that says, after the block, what the GPUs did in it; empty without NVML."""
    found: dict[str, Any] = {}
    sampler = watch_gpus(0.05)
    if sampler is None:
        yield found
        return
    with sampler:
        yield found
    found["gpus"] = [use.to_json() for use in sampler.uses]


STAGES: Mapping[str, tuple[Callable[[Setting], dict[str, Any]], int]] = {
    "models": (models, 150),
    "rates Q4_K_M": (partial(rates, kind="Q4_K_M"), 60),
    "work Q4_K_M": (partial(work, kind="Q4_K_M"), 150),
    "rates BF16": (partial(rates, kind="BF16"), 75),
    "work BF16": (partial(work, kind="BF16"), 150),
    "recovery": (partial(recovery, kind="Q8_0"), 90),
    "identical": (partial(identical, kind="Q4_K_M"), 40),
    "rates Q8_0": (partial(rates, kind="Q8_0"), 60),
    "types": (partial(types, kind="Q4_K_M"), 60),
    "shapes": (partial(shapes, kind="Q4_K_M"), 90),
}
"""In order of worth, with the seconds that each may take at most: what time is left for is done."""
