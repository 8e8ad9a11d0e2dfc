#!/usr/bin/env python3
"""Make the golden values that `medlocal quality` is tested against: what llama.cpp's own tool prints.

    python -m tools.golden_quality PATH/TO/llama-perplexity

from the project's root. It needs that program, built from the same llama.cpp as the installed
llama-cpp-python (`tools.build_upstream` builds it), and the demo model. From that model llama.cpp's
quantiser makes a reference in Q8_0 and a file in Q4_0, and the program measures the second against the
first on the beginning of each text that ships. It writes tests/data/quality_demo.json.

The program keeps the reference's log-probabilities in 16 bits, over a range of 16 nats: its divergences
are right to some 1e-4. Figures depend on the processor in their last digits. The rest of the project
never runs it.
"""

import argparse
import ctypes
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from medlocal import libllama
from medlocal.catalog import data_root, model_card
from medlocal.files import atomic_write
from medlocal.hub import pull_model
from medlocal.settings import load_settings

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "data" / "quality_demo.json"
CHUNK_TOKENS, NUM_CHUNKS, NUM_THREADS = 256, 8, 2
NAMES = {
    "Mean PPL(Q)": "perplexity",
    "Mean PPL(base)": "reference_perplexity",
    "Mean PPL(Q)/PPL(base)": "perplexity_ratio",
    "Mean    KLD": "kld",
    "Maximum KLD": "kld_max",
    "99.0%   KLD": "kld_99",
    "Median  KLD": "kld_median",
    "Mean    Δp": "dp_mean",
    "RMS Δp": "dp_rms",
    "Same top p": "same_top",
}
"""What the tool calls a figure, and its name here."""
_LINE = re.compile(r"^(?P<name>[^:]+?)\s*:\s*(?P<value>-?[\d.]+)\s*(?:±\s*(?P<error>[\d.]+))?\s*%?")


def parse(printed: str) -> dict[str, list[float]]:
    """The figures that the tool printed: a value, and its error where it has one; shares from 0 to 1."""
    found = {}
    for line in printed.splitlines():
        match = _LINE.match(line.strip())
        if match is None or (name := NAMES.get(match["name"])) is None:
            continue
        scale = 0.01 if name in {"dp_mean", "dp_rms", "same_top"} else 1.0
        values = [match["value"], match["error"]]
        found[name] = [round(scale * float(value), 8) for value in values if value]
    missing = set(NAMES.values()) - found.keys()
    if missing:
        raise ValueError(f"the tool did not print {', '.join(sorted(missing))}")
    return found


def quantise(source: Path, out: Path, name: str) -> Path:
    """Have llama.cpp write a file in another type."""
    lib = libllama.library()
    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{name}")
    params.allow_requantize = True
    paths = str(source).encode(), str(out).encode()
    if lib.llama_model_quantize(*paths, ctypes.byref(params)):
        raise RuntimeError(f"llama.cpp could not write {out}: {libllama.LOG.errors()}")
    return out


def run_tool(tool: Path, model: Path, *arguments: object) -> str:
    """What the tool prints on both of its outputs."""
    how = ("-c", CHUNK_TOKENS, "-b", CHUNK_TOKENS, "-t", NUM_THREADS)
    command = [str(part) for part in (tool, "-m", model, *how, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def measure(tool: Path, folder: Path, reference: Path, quantised: Path) -> dict[str, object]:
    """The tool's figures on each text that ships, with the text's checksum."""
    results: dict[str, object] = {}
    for language in ("en", "es"):
        text = data_root() / "benchmarks" / "texts" / f"{language}.txt"
        base = folder / f"{language}.logits"
        kept = ("--kl-divergence-base", base)
        run_tool(tool, reference, "-f", text, "--chunks", NUM_CHUNKS, *kept)
        printed = run_tool(tool, quantised, *kept, "--kl-divergence")
        base.unlink()
        digest = hashlib.sha256(text.read_bytes()).hexdigest()
        results[language] = {"text_sha256": digest, **parse(printed)}
        print(f"{language}: {results[language]}", file=sys.stderr)
    return results


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", type=Path, help="llama-perplexity")
    arguments = parser.parse_args()
    demo = pull_model(model_card("smollm2-135m-instruct"), load_settings()).path
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = quantise(demo, folder / "demo-Q8_0.gguf", "Q8_0")
        quantised = quantise(demo, folder / "demo-Q4_0.gguf", "Q4_0")
        results = measure(arguments.program, folder, reference, quantised)
    values = {
        "made_by": "tools.golden_quality",
        "llama_cpp": libllama.build_info()["commit"],
        "chunk_tokens": CHUNK_TOKENS,
        "num_chunks": NUM_CHUNKS,
        "num_threads": NUM_THREADS,
        "results": results,
    }
    atomic_write(GOLDEN, json.dumps(values, indent=2) + "\n")
    print(GOLDEN)


if __name__ == "__main__":
    main()
