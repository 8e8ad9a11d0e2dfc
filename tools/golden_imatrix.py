#!/usr/bin/env python3
"""Make the golden importance matrices that the tests compare with, by llama.cpp's own llama-imatrix.

    python -m tools.golden_imatrix PATH/TO/llama-imatrix

from the project's root. It needs that program, built from the same llama.cpp as the installed
llama-cpp-python (`tools.build_upstream` builds it), and the demo model. It writes, in tests/data/:

- imatrix_tiny.imatrix and imatrix_tiny.dat: the whole matrix of the tests' tiny mixture of experts, in
  the GGUF form and in the older one;
- imatrix_demo.json: of the demo model's matrix for an English and a Spanish text, per weight the sum,
  the largest and the first entries.

The rest of the project never runs llama-imatrix.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf

from medlocal.hub import find_model
from medlocal.settings import load_settings
from tests.weights.tiny_mixture import write_tiny_mixture

DATA = Path(__file__).parents[1] / "tests" / "data"
DEMO = "smollm2-135m-instruct"
TINY_TEXT = "clinical_en.txt"
DEMO_TEXTS = {"en": ("clinical_en.txt", 2), "es": ("clinical_es.txt", 2)}
"""A text and its chunks of 512 tokens for each language."""
NUM_FIRST = 3


def compute(program: Path, model: Path, out: Path, *options: str) -> None:
    """Run llama-imatrix where the texts lie, so that it writes down their bare names."""
    command = [str(program), "-m", str(model), "-o", str(out), "--no-ppl", *options]
    subprocess.run(command, cwd=DATA, check=True, stdout=subprocess.DEVNULL)


def rounded(value: float) -> float:
    """A number to the seven digits of float32."""
    return float(f"{value:.7g}")


def summary(path: Path) -> dict[str, dict[str, object]]:
    """Sum, largest and first entries of each weight's sums, read by the gguf package."""
    values: dict[str, dict[str, object]] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        name, _, kind = tensor.name.rpartition(".")
        if kind == "in_sum2":
            sums = tensor.data.ravel()
            first = [rounded(value) for value in sums[:NUM_FIRST]]
            total, most = rounded(sums.sum(dtype="float64")), rounded(sums.max())
            values.setdefault(name, {}).update(sum=total, max=most, first=first)
        else:
            values.setdefault(name, {})["count"] = int(tensor.data.ravel()[0])
    return values


def main(arguments: list[str]) -> int:
    """Make all the files anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("program", type=Path, help="llama-imatrix")
    program = parser.parse_args(arguments).program.absolute()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tiny = write_tiny_mixture(folder / "tiny.gguf")
        options = ("-f", TINY_TEXT, "-c", "128", "--chunks", "8", "--process-output")
        compute(program, tiny, folder / "tiny_imatrix.gguf", *options)
        legacy = ("--output-format", "dat")
        compute(program, tiny, folder / "tiny_imatrix.dat", *options, *legacy)
        demo = find_model(DEMO, load_settings())
        golden = {}
        for language, (text, num_chunks) in DEMO_TEXTS.items():
            out = folder / f"{language}.gguf"
            compute(program, demo, out, "-f", text, "-c", "512", "--chunks", str(num_chunks))
            golden[language] = summary(out)
        # Not called .gguf there: those are weights, which are kept out of the repository.
        for kind, name in (("gguf", "imatrix_tiny.imatrix"), ("dat", "imatrix_tiny.dat")):
            shutil.copyfile(folder / f"tiny_imatrix.{kind}", DATA / name)
    lines = ",\n".join(
        f"{json.dumps(language)}: {{\n"
        + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in weights.items())
        + "\n}"
        for language, weights in golden.items()
    )
    (DATA / "imatrix_demo.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
