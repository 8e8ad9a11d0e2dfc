"""Which types of tensors does llama.cpp compute quickly on this processor?

A Llama with random weights (2 layers, 1024 wide) is quantised so that all its layers are of one type,
once for every type, and then computes 256 tokens in one piece (prompt) and one token at a time
(generation). Measured is this process's processor time on one thread, which other programs disturb
less than the clock; the types take turns, and each one's best round counts. `weights/kernels.py` holds
what follows from it. Needs one processor, 1 GB of disk and a few minutes.

    python -m benchmarks.perf.kernels      from the project's root

Prints a table for people; the last line is JSON.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from medlocal.libllama import LlamaModel, build_info
from medlocal.weights.forward import Forward, ForwardOptions
from medlocal.weights.importance import Entry, Importance, write_importance
from medlocal.weights.quantize import QuantizeRequest, plan_quantisation, quantize
from medlocal.weights.recipes import FLOATS, recipes
from tests.weights.float_llama import FloatLlama, write_float_llama

MODEL = FloatLlama(width=1024, inner=2816, num_heads=16, num_kv_heads=16, tied=True)
NUM_PROMPT, NUM_GENERATED = 256, 24


def make_files(folder: Path) -> dict[str, Path]:
    """A file for every type of tensor."""
    source = write_float_llama(folder / "model.gguf", MODEL)
    entries = {name: Entry(s, np.array([1])) for name, s in MODEL.importance().items()}
    write_importance(folder / "matrix.gguf", Importance(entries, 1, 512))
    mains = {recipe.main.name for recipe in recipes().values()}
    files = {}
    for kind in sorted(mains | {"NVFP4"}):
        recipe, keep = (kind, ()) if kind in FLOATS else ("Q8_0", (f"^blk={kind}",))
        request = QuantizeRequest(
            source, (recipe,), folder / kind, folder / "matrix.gguf", keep, force=True
        )
        files[kind] = next(iter(quantize(plan_quantisation(request)))).path
    return files


def measure(path: Path) -> tuple[float, float]:
    """Processor seconds per token: of a prompt, and generated."""
    tokens = [3 + i % 60 for i in range(NUM_PROMPT)]
    with LlamaModel(path, gpu_layers=0) as model:
        spent = []
        for num_rows, num_tokens in ((NUM_PROMPT, NUM_PROMPT), (1, NUM_GENERATED)):
            options = ForwardOptions(NUM_PROMPT, num_threads=1, num_rows=num_rows)
            with Forward(model, options) as forward:
                list(forward.blocks(tokens[:num_tokens], None))  # pages and caches
                began = time.process_time()
                list(forward.blocks(tokens[:num_tokens], None))
                spent.append((time.process_time() - began) / num_tokens)
    return spent[0], spent[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        measured = [{kind: measure(path) for kind, path in files.items()} for _ in range(rounds)]
    best = {
        kind: [1 / min(of_round[kind][arm] for of_round in measured) for arm in (0, 1)]
        for kind in files
    }
    reference = best["Q4_0"]
    print(f"{'type':8} {'prompt':>9} {'of Q4_0':>8} {'generation':>11} {'of Q4_0':>8}")
    for kind, (prompt, generation) in sorted(best.items(), key=lambda pair: -pair[1][0]):
        print(
            f"{kind:8} {prompt:9.0f} {prompt / reference[0]:8.2f} {generation:11.0f}"
            f" {generation / reference[1]:8.2f}"
        )
    result = {
        "benchmark": "kernels", "machine": platform.processor() or platform.machine(),
        "build": build_info()["commit"], "system": build_info()["system"], "rounds": rounds, "unit": "tokens per second of one core",
        "rates": {kind: {"prompt": p, "generation": g} for kind, (p, g) in best.items()},
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
