#!/usr/bin/env python3
"""Pack what a machine without network needs to build llama.cpp with CUDA: one small archive.

Out of llama-cpp-python's source distribution at the pinned version come llama.cpp's library with its CPU
and CUDA backends, `llama-bench`, the `gguf` package, and llama-cpp-python's bindings to the C interface;
left out are the other backends, the models, the documents, the other tools, and the Python modules that need further
packages. `benchmarks/perf/gpu.sh` builds from it. The same source gives the same archive, byte for byte.

llama.cpp asks git for its commit, which an archive has not: it is written into the build file instead.

Needs pip where no --sdist is named. stdout is the archive's path; stderr is narration.

    python -m tools.pack_llama [--sdist FILE] [-o llama-pack.tar.gz]
"""

import argparse
import gzip
import io
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tools.build_llama import ROOT, BuildError, pinned_version
from tools.build_llama import say as narrate
from tools.build_upstream import fetch_sdist

_SOURCE = "vendor/llama.cpp"
_WHOLE = (
    "cmake", "common", "ggml/cmake", "ggml/include", "gguf-py/gguf", "include", "src", "tools/llama-bench",
)  # fmt: skip
"""Folders of llama.cpp that are taken with all they hold."""
_VENDORED = ("cpp-httplib", "nlohmann", "sheredom")
_BACKENDS = ("ggml-cpu", "ggml-cuda")
_FILES = ("CMakeLists.txt", "LICENSE", "ggml/CMakeLists.txt")
_BINDINGS = ("llama_cpp.py", "_ctypes_extensions.py", "_ggml.py", "py.typed")
_SUFFIXES = frozenset({
    ".c", ".cc", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".txt", ".cmake", ".in", ".inc", ".py", ".typed",
    ".m", ".S",
})  # fmt: skip
_NAMES = frozenset({"LICENSE", "LICENSE.md"})
_REPLACED = {
    f"{_SOURCE}/tools/CMakeLists.txt": "find_package(Threads REQUIRED)\nllama_add_compile_flags()\n"
    "add_subdirectory(llama-bench)\n",
    f"{_SOURCE}/vendor/CMakeLists.txt": "".join(f"add_subdirectory({n})\n" for n in _VENDORED),
}
"""Build files that name what is left out."""
_NO_COMMIT = 'set(GGML_BUILD_COMMIT "unknown")'


def is_wanted(name: str) -> bool:
    """Whether a file of the source distribution is packed, by its path below the top folder."""
    path = PurePosixPath(name)
    if path.suffix not in _SUFFIXES and path.name not in _NAMES:
        return False
    if name in {f"{_SOURCE}/{file}" for file in _FILES} or name == "LICENSE.md":
        return True
    if path.parts[:1] == ("llama_cpp",):
        return len(path.parts) == 2 and path.name in _BINDINGS
    inside = name.removeprefix(f"{_SOURCE}/")
    if inside == name:
        return False
    if inside.startswith("ggml/src/"):
        parts = inside.split("/")
        return len(parts) == 3 or parts[2] in _BACKENDS
    vendored = tuple(f"vendor/{folder}/" for folder in _VENDORED)
    return inside.startswith((*(f"{folder}/" for folder in _WHOLE), *vendored))


def packed_files(sdist: Path) -> Iterator[tuple[str, bytes]]:
    """The files of the archive, in order.

    Raises:
        BuildError: the source distribution is not as it is known to be.
    """
    commit, version, files = "", "", dict(_REPLACED)
    kept: dict[str, bytes] = {name: text.encode() for name, text in files.items()}
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if not member.isfile() or not (content := archive.extractfile(member)):
                continue
            if name == f".git/modules/{_SOURCE}/HEAD":
                commit = content.read().decode().strip()
            elif name == "llama_cpp/__init__.py":
                version = content.read().decode()
            elif is_wanted(name) and name not in kept:
                kept[name] = content.read()
    build_file = f"{_SOURCE}/ggml/CMakeLists.txt"
    text = kept.get(build_file, b"").decode()
    if not commit or _NO_COMMIT not in text or "__version__" not in version:
        raise BuildError(f"{sdist} is not the source of llama-cpp-python that this tool knows")
    kept[build_file] = text.replace(_NO_COMMIT, f'set(GGML_BUILD_COMMIT "{commit[:7]}")').encode()
    # llama-cpp-python's own imports its high-level classes, which need packages that are not used here.
    line = next(line for line in version.splitlines() if line.startswith("__version__"))
    kept["llama_cpp/__init__.py"] = f"from .llama_cpp import *\n\n{line}\n".encode()
    yield from sorted(kept.items())


def pack(sdist: Path, target: Path) -> Path:
    """Write the archive; it is there whole or not at all.

    Raises:
        BuildError: the source distribution is not as it is known to be.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in packed_files(sdist):
            member = tarfile.TarInfo(f"llama/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    scratch = target.with_name(f".{target.name}.part")
    scratch.write_bytes(gzip.compress(raw.getvalue(), compresslevel=9, mtime=0))
    return scratch.replace(target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--sdist", type=Path, help="the source distribution; without it pip gets it"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("llama-pack.tar.gz"))
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            version = pinned_version(ROOT / "pyproject.toml")
            sdist = options.sdist or fetch_sdist(version, Path(scratch))
            print(pack(sdist, options.output))
    except (BuildError, OSError, tarfile.TarError) as error:
        narrate(f"pack_llama: {error}")
        return error.exit_code if isinstance(error, BuildError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
