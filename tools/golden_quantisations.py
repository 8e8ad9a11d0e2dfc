#!/usr/bin/env python3
"""Make the golden checksums of quantised tensors that the tests compare with, by llama-quantize.

    python -m tools.golden_quantisations PATH/TO/llama-quantize

from the project's root. It needs llama.cpp's own program, built for x86-64 from the same llama.cpp as
the installed llama-cpp-python (whose source distribution holds it: cmake --build … --target
llama-quantize). It quantises the tests' small float models to every type, with and without an
importance matrix, and writes tests/data/quantisations.json: for each case the SHA-256 over its
tensors' names, types, shapes and bytes.

The rest of the project never runs llama-quantize.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf

from tests.weights.float_llama import CASES, MATRIX_NAME, MODELS, Case, write_float_llama

OUT = Path(__file__).parents[1] / "tests" / "data" / "quantisations.json"


def tensors_sha256(path: Path) -> str:
    """Over all tensors in the order of their names, read by the gguf package."""
    digest = hashlib.sha256()
    for tensor in sorted(gguf.GGUFReader(path).tensors, key=lambda tensor: tensor.name):
        shape = [int(length) for length in tensor.shape]
        digest.update(f"{tensor.name} {tensor.tensor_type.name} {shape}\n".encode())
        digest.update(tensor.data.tobytes())
    return digest.hexdigest()


def quantize(program: Path, folder: Path, case: Case) -> str:
    """Run llama-quantize on one case, and give the checksum of what it made."""
    command = [str(program)]
    if case.with_matrix:
        command += ["--imatrix", str(folder / f"{case.model}.{MATRIX_NAME}")]
    for keep in case.keep:
        command += ["--tensor-type", keep]
    if case.output_type:
        command += ["--output-tensor-type", case.output_type]
    if case.embedding_type:
        command += ["--token-embedding-type", case.embedding_type]
    out = folder / "out.gguf"
    command += [str(folder / f"{case.model}.gguf"), str(out), case.recipe, "2"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return tensors_sha256(out)


def main(arguments: list[str]) -> int:
    """Make all checksums anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("program", type=Path, help="llama-quantize")
    program = parser.parse_args(arguments).program.absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model_name, model in MODELS.items():
            write_float_llama(folder / f"{model_name}.gguf", model)
            model.write_importance(folder / f"{model_name}.{MATRIX_NAME}")
        sources = {name: tensors_sha256(folder / f"{name}.gguf") for name in MODELS}
        cases = {case.name: quantize(program, folder, case) for case in CASES}
    OUT.write_text(json.dumps({"sources": sources, "cases": cases}, indent=1) + "\n", "utf-8")
    print(OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
