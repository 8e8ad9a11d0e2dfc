"""Everything that must be measured on a GPU, in one go and within a time: one JSON of results.

    prompt and generation speed   ours and llama-bench's of the same build, at the same batch
    label, free and grammar       1,273 questions of 250 tokens: each arm alone and the three together,
                                  with the GPU's busy share, power and energy
    recovery                      memory runs out at the load, at the context and in the middle
    types, shapes                 flash attention, types of keys and values, cells and rows of a context
    identical                     answers that are the same alone and among others

Models have the shape of Llama 3.1 8B and random weights, made here (`gpu_model`). Every stage is a process
with a limit of its own: one that fails, hangs or is killed is recorded, and the next goes on. Without a
GPU, `--cpu --tiny` runs the same stages on small shapes. `gpu.sh` builds llama.cpp first and calls this.

    python -m benchmarks.perf.gpu --cpu --tiny
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.perf.gpu_stages import STAGES, Setting
from medlocal.files import atomic_write
from medlocal.gpu_monitor import driver_version, find_sensors
from medlocal.libllama import build_info, devices

_VOCABULARY = Path(__file__).parents[3] / "shared/data/llama_vocab/ggml-vocab-llama-bpe.gguf"
_LEAST_SECONDS = 10
"""A stage that has less is not begun."""
_TAIL = 1500
_MARK = "@result "
"""Before a stage's result, in what it prints."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cpu", action="store_true", help="no GPU is here, or none is to be used")
    parser.add_argument("--tiny", action="store_true", help="small shapes and few questions")
    parser.add_argument("--vocab", type=Path, default=_VOCABULARY, help="GGUF with a vocabulary")
    parser.add_argument("--folder", type=Path, default=Path("gpu-models"), help="for the models")
    parser.add_argument("--bench", type=Path, help="llama-bench of the same build")
    parser.add_argument("--seconds", type=float, default=540, help="for all stages together")
    parser.add_argument("--stages", default=",".join(STAGES), help="names, separated by commas")
    parser.add_argument("--note", type=json.loads, default={}, help="JSON to be kept with it")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def setting_of(options: argparse.Namespace) -> Setting:
    """What the stages share."""
    return Setting(
        folder=options.folder,
        vocabulary=options.vocab,
        threads=len(os.sched_getaffinity(0)),
        num_questions=12 if options.tiny else 1273,
        question_tokens=60 if options.tiny else 250,
        bench=options.bench,
        cpu=options.cpu,
        tiny=options.tiny,
    )


def run_stage(name: str, arguments: list[str], limit: float) -> dict[str, Any]:
    """Run one stage in a process of its own; what it found, or why it found nothing."""
    command = [sys.executable, "-m", "benchmarks.perf.gpu", *arguments, "--stage", name]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    state = out = said = ""
    try:
        out, said = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        state = "too slow"
    finally:
        # With all that it started: a stage may be waiting for a program of llama.cpp's.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if state:
        out, said = process.communicate()
    found = [line for line in out.splitlines() if line.startswith(_MARK)]
    seconds = round(time.perf_counter() - started, 1)
    if state or process.returncode or not found:
        state = state or f"failed ({process.returncode})"
        return {"state": state, "seconds": seconds, "error": (said or out)[-_TAIL:]}
    return {"state": "done", "seconds": seconds, "result": json.loads(found[-1][len(_MARK) :])}


def machine(_: Setting) -> dict[str, Any]:
    """What it was measured on. A stage too: asking a GPU takes some of its memory."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "devices": [asdict(device) for device in devices()],
        "gpus": [{"name": s.name, "bytes": s.total_bytes} for s in find_sensors()],
        "driver": driver_version(),
        "cores": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "build": build_info(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run all stages that there is time for; the exit status: 0 where every one was done."""
    options = parse(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if options.stage:
        stage = machine if options.stage == "machine" else STAGES[options.stage][0]
        print(_MARK + json.dumps(stage(setting_of(options))))
        return 0
    ends = time.perf_counter() + options.seconds
    options.folder.mkdir(parents=True, exist_ok=True)
    stages: dict[str, dict[str, Any]] = {}
    result = {
        "benchmark": "gpu",
        "machine": run_stage("machine", given, 60),
        "note": options.note,
        "stages": stages,
    }
    for name in options.stages.split(","):
        left = ends - time.perf_counter()
        if left < _LEAST_SECONDS:
            stages[name] = {"state": "no time left"}
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        stages[name] = run_stage(name, given, min(left, STAGES[name][1]))
        print(f"{name}: {told(result['stages'][name])}", flush=True)
        # After every stage: what was found is kept, whatever happens to this process.
        atomic_write(options.output, json.dumps(result, indent=1))
    atomic_write(options.output, json.dumps(result, indent=1))
    print(json.dumps(result))
    return 0 if all(s["state"] == "done" for s in stages.values()) else 1


def told(stage: dict[str, Any]) -> str:
    """A stage in one line for people."""
    if stage["state"] != "done":
        return f"{stage['state']}: {stage.get('error', '').strip().splitlines()[-1:]}"
    found = stage["result"]
    names = ("prompt", "prompt_ratio", "same_label", "same_text", "answered", "asked")
    parts = [
        f"{name} {found[name]:,.3g}" for name in names if isinstance(found.get(name), int | float)
    ]
    for arm in ("label", "free", "grammar", "together"):
        if isinstance(done := found.get(arm), dict):
            busy = [
                f"{gpu['busy']:.0%} busy" for gpu in done.get("gpus", []) if gpu["busy"] is not None
            ]
            parts.append(" ".join([f"{arm} {done['seconds']:.1f} s", *busy]))
    return f"done in {stage['seconds']} s. " + ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
