#!/usr/bin/env python3
"""Build llama-cpp-python's wheel for this machine once, keep it, and print where it lies.

llama-cpp-python is published as source only, and compiling llama.cpp takes minutes. The wheel is
therefore kept outside any checkout, in `${XDG_CACHE_HOME:-~/.cache}/medlocal/wheels/<key>/`, with
the log of its build and the recipe that the key was hashed from. The code is compiled for the very
processor that it is built on, so the key covers whatever decides that code: a home folder shared
by different machines holds one wheel for each kind of them.

This runs before anything is installed: the standard library only, and nothing of medlocal's. It
knows how the wheel is built, not how it is installed or used. stdout is the wheel's path alone;
stderr is narration. Exit codes: 0 done, 1 the build failed, 2 wrong usage, 3 something is missing.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PACKAGE = "llama-cpp-python"
ROOT = Path(__file__).resolve().parent.parent

# Stated although it is the default: with SOURCE_DATE_EPOCH in the environment ggml would quietly
# build for a generic processor. medlocal reads text, so the library for images is left out, which
# is a quarter of the build; and nothing here may open a connection, so neither is OpenSSL linked.
CPU_ARGS = (
    "-DGGML_NATIVE=ON",
    "-DLLAVA_BUILD=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)
COMPILERS = {"CC": ("cc", "gcc", "clang"), "CXX": ("c++", "g++", "clang++")}
"""For each variable that names a compiler, the names that CMake tries without it."""
FLAG_VARIABLES = ("CFLAGS", "CXXFLAGS", "CUDAFLAGS", "LDFLAGS")
CORE_MINUTES = {"cpu": 9, "cuda": 40}
"""What a build costs, roughly: measured on 2 cores for the CPU, estimated for CUDA."""
HEARTBEAT_SECONDS = 30.0
TAIL_LINES, TAIL_WIDTH = 15, 160


class BuildError(Exception):
    """There will be no wheel; the message says why, in words for the user."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Host:
    """The machine as a build sees it: its environment and its files."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    """Where `proc`, `dev`, `usr` and `lib` are."""
    packages: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    """Folders of Python packages: NVIDIA publishes its libraries as such, too."""

    def which(self, *names: str) -> str | None:
        """The full path of the first of these programs that is on PATH."""
        found = (shutil.which(name, path=self.environ.get("PATH")) for name in names)
        return next(filter(None, found), None)

    def output(self, *command: str) -> str:
        """What a command prints; "" where it is missing or fails."""
        try:
            done = subprocess.run(
                command, env=self.environ, capture_output=True, text=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    def compiler(self, variable: str) -> tuple[str, ...]:
        """The command of the compiler that CMake will take for `CC` or `CXX`; () if there is none.

        The variable may hold more than a name, as in "ccache g++".
        """
        named = tuple(shlex.split(self.environ.get(variable, "")))
        program = self.which(*(named[:1] or COMPILERS[variable]))
        return (program, *named[1:]) if program else ()

    def nvcc(self) -> str | None:
        """The CUDA compiler: the one that is named, on PATH, or where NVIDIA's packages put it."""
        installed = self.root / "usr/local/cuda/bin/nvcc"
        return self.which(*filter(None, (self.environ.get("CUDACXX"), "nvcc", str(installed))))

    def has_gpu(self) -> bool:
        """Whether an NVIDIA GPU is here, by its tool or, in a container without it, by its files."""
        files = (self.root / "dev/nvidia0", self.root / "proc/driver/nvidia")
        return "GPU " in self.output("nvidia-smi", "-L") or any(file.exists() for file in files)

    def compute_capabilities(self) -> str:
        """Those of the GPUs, as CMake writes them ("80;90"); "" if nothing here can tell."""
        text = self.output("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
        found = re.findall(r"^(\d+)\.(\d+)$", text, flags=re.MULTILINE)
        return ";".join(sorted({major + minor for major, minor in found}, key=int))

    def toolkits(self) -> list[Path]:
        """The folders of CUDA toolkits that nvcc may belong to."""
        nvcc = self.nvcc()
        named = (self.environ.get("CUDA_HOME"), self.environ.get("CUDA_PATH"))
        found = [Path(name) for name in named if name] + [self.root / "usr/local/cuda"]
        return [Path(nvcc).resolve().parent.parent, *found] if nvcc else found

    def has_driver_library(self) -> bool:
        """Whether a program can be linked against the driver: its library, or the toolkit's stub."""
        found = [*self.root.glob("usr/lib*/libcuda.so"), *self.root.glob("usr/lib/*/libcuda.so")]
        for stub in ("lib*/stubs/libcuda.so", "targets/*/lib/stubs/libcuda.so"):
            found += [path for toolkit in self.toolkits() for path in toolkit.glob(stub)]
        return bool(found)

    def cublas_package(self) -> Path | None:
        """The folder of the Python package that has cuBLAS, where the toolkit has none; else None."""
        header = "include/cublas_v2.h"
        for own in (self.root / "usr", *self.toolkits()):
            if (own / header).exists() or any(own.glob(f"targets/*/{header}")):
                return None
        found = (sorted(Path(folder or ".").glob(f"nvidia/*/{header}")) for folder in self.packages)
        return next((headers[0].parent.parent.resolve() for headers in found if headers), None)

    def cpu_features(self) -> str:
        """What `-march=native` goes by: the instruction sets and, on ARM, the parts."""
        wanted = {"flags", "Features", "CPU implementer", "CPU part"}
        try:
            text = (self.root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return platform.processor()
        pairs = (line.partition(":") for line in text.splitlines())
        return " ".join(sorted({w for k, _, v in pairs if k.strip() in wanted for w in v.split()}))


@dataclass(frozen=True)
class Recipe:
    """All that decides a wheel's machine code. Equal recipes give interchangeable wheels."""

    version: str
    backend: str
    """Where the layers run: "cpu", or "cuda" beside it."""
    cmake_args: str
    """CMake's options, the user's own last, so that they win."""
    machine: Mapping[str, str]
    """Processor, platform and compilers."""

    @property
    def key(self) -> str:
        """The folder's name in the cache."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.version}-{self.backend}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def pinned_version(pyproject: Path) -> str:
    """The version of llama-cpp-python that the project pins.

    Raises:
        BuildError: it pins none.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    for requirement in project["dependencies"]:
        if found := re.fullmatch(rf"{PACKAGE}\s*==\s*([\w.+!]+)", requirement):
            return found[1]
    raise BuildError(f"{pyproject}: no dependency reads {PACKAGE}==VERSION")


def choose_backend(wanted: str, host: Host) -> tuple[str, str]:
    """What to build for, and why, in a few words.

    Raises:
        BuildError: CUDA was asked for, and its compiler is not here.
    """
    nvcc = host.nvcc()
    if wanted == "cuda" and not nvcc:
        raise BuildError("nvcc is missing: install NVIDIA's CUDA toolkit", 3)
    if wanted != "auto":
        return wanted, "asked for"
    if not host.has_gpu():
        return "cpu", "no NVIDIA GPU found"
    if not nvcc:
        return "cpu", "an NVIDIA GPU is here, but no nvcc: install the CUDA toolkit to use it"
    return "cuda", f"an NVIDIA GPU and {nvcc} found"


def choose_architectures(wanted: str | None, host: Host) -> str:
    """The GPUs to compile for, as CMAKE_CUDA_ARCHITECTURES.

    Raises:
        BuildError: none are named and no GPU is here to be asked.
    """
    if found := wanted or host.compute_capabilities():
        return found
    if host.has_gpu():
        return "native"
    raise BuildError("no GPU here to compile for: name one, as in --cuda-architectures 90", 2)


def make_recipe(version: str, backend: str, architectures: str | None, host: Host) -> Recipe:
    """Put together what decides the wheel that this machine would build."""
    args = list(CPU_ARGS)
    machine = {name: host.environ[name] for name in FLAG_VARIABLES if host.environ.get(name)}
    machine["platform"] = sysconfig.get_platform()
    machine["libc"] = "-".join(platform.libc_ver())
    machine["cpu"] = host.cpu_features()
    if compiler := host.compiler("CXX"):
        machine["compiler"] = first_line(host.output(*compiler, "--version"))
    if backend == "cuda":
        gpus = choose_architectures(architectures, host)
        args += cuda_args(gpus, host)
        machine["nvcc"] = host.output(host.nvcc() or "nvcc", "--version")
        if gpus == "native":  # the GPU is known to CMake only, so the wheel is this machine's alone
            machine["node"] = platform.node()
    args += host.environ.get("CMAKE_ARGS", "").split()
    return Recipe(version, backend, " ".join(args), machine)


def cuda_args(architectures: str, host: Host) -> list[str]:
    """CMake's options for CUDA, with a way round what this machine's toolkit lacks."""
    # NCCL is for one text computed by several GPUs at once; here each has layers of its own.
    args = ["-DGGML_CUDA=ON", f"-DCMAKE_CUDA_ARCHITECTURES={architectures}", "-DGGML_CUDA_NCCL=OFF"]
    if not host.has_driver_library():
        # llama.cpp's pool of virtual memory is the one thing that needs the driver at link time.
        args.append("-DGGML_CUDA_NO_VMM=ON")
    if package := host.cublas_package():
        found = {
            name: sorted(package.glob(f"lib/lib{name}.so*")) for name in ("cublas", "cublasLt")
        }
        args += [f"-DCUDA_{name}_LIBRARY={files[0]}" for name, files in found.items() if files]
    return args


def take_headers(package: Path, folder: Path) -> Path:
    """Link a package's cuBLAS headers into a folder, and no others: they would mix with nvcc's."""
    folder.mkdir(parents=True, exist_ok=True)
    for header in package.glob("include/cublas*.h"):
        (folder / header.name).unlink(missing_ok=True)
        (folder / header.name).symlink_to(header)
    return folder


def first_line(text: str) -> str:
    """The first line of a text; "" of an empty one."""
    return text.partition("\n")[0]


def wheels_dir(environ: Mapping[str, str]) -> Path:
    """Where wheels are kept."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "medlocal" / "wheels"


def find_wheel(folder: Path) -> Path | None:
    """The wheel in a folder; None if there is none."""
    return next(folder.glob(f"{PACKAGE.replace('-', '_')}-*.whl"), None)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, so that of two builds at once one waits and then finds the other's wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"the same wheel is being built already; waiting (log: {folder / 'build.log'})")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Builder:
    """Gets the wheel of one recipe into its folder."""

    recipe: Recipe
    host: Host
    wheelhouse: Path | None = None
    """Folder of the source distribution and the build's tools; None = the package index."""

    @property
    def folder(self) -> Path:
        """Where the wheel is kept, with its log and its recipe."""
        return wheels_dir(self.host.environ) / self.recipe.key

    @property
    def log(self) -> Path:
        """All that pip and the compilers said."""
        return self.folder / "build.log"

    def get(self, *, force: bool = False) -> Path:
        """The kept wheel, or a new one.

        Args:
            force: build although there is one.

        Raises:
            BuildError: a tool is missing or the build failed.
        """
        if not force and (wheel := find_wheel(self.folder)):
            return wheel
        self.check_tools()
        with locked(self.folder):
            if not force and (wheel := find_wheel(self.folder)):
                return wheel
            return self.build()

    def check_tools(self) -> None:
        """Refuse to start what cannot end. CMake and Ninja are not asked for: pip brings them.

        Raises:
            BuildError: a tool is missing; the message names the package that has it.
        """
        if not (self.host.compiler("CC") and self.host.compiler("CXX")):
            raise BuildError("a C++ compiler is missing: apt install g++", 3)
        if not self.host.output(sys.executable, "-m", "pip", "--version"):
            hint = "apt install python3-venv, then make venv"
            raise BuildError(f"{sys.executable} has no pip: {hint}", 3)

    def build(self) -> Path:
        """Compile, and publish the wheel in one step once it is whole.

        Raises:
            BuildError: pip failed; the message ends with the log's last lines.
        """
        recipe = json.dumps(asdict(self.recipe), indent=2)
        (self.folder / "recipe.json").write_text(recipe + "\n", encoding="utf-8")
        # In the same folder, so that the rename stays within one file system.
        with tempfile.TemporaryDirectory(prefix=".building-", dir=self.folder) as scratch:
            code = self.run(self.command(scratch))
            wheel = find_wheel(Path(scratch))
            if code or not wheel:
                raise BuildError(self.failure())
            return publish(wheel, self.folder)

    def failure(self) -> str:
        """Why there is no wheel: the log's last lines, and what can be done."""
        said = [f"  {line}" for line in last_lines(self.log)]
        lines = ["llama.cpp did not build:", *said, f"the whole log: {self.log}"]
        if self.recipe.backend == "cuda":
            lines.append("to do without the GPU: make venv BACKEND=cpu")
        return "\n".join(lines)

    def command(self, target: str) -> list[str]:
        """The call of pip that leaves a wheel in `target`."""
        pip = [sys.executable, "-m", "pip", "wheel", f"{PACKAGE}=={self.recipe.version}"]
        # Without --no-cache-dir pip may hand out a wheel that it built before, for another backend:
        # its own cache does not look at CMAKE_ARGS. --verbose shows the compiler at work.
        pip += ["--no-deps", "--no-binary", PACKAGE, "--no-cache-dir", "--verbose"]
        pip += ["--progress-bar", "off", "--disable-pip-version-check", "--wheel-dir", target]
        if self.wheelhouse:
            pip += ["--no-index", "--find-links", str(self.wheelhouse.resolve())]
        return pip

    def environment(self) -> dict[str, str]:
        """The environment that the build runs in."""
        environ = dict(self.host.environ)
        environ["CMAKE_ARGS"] = self.recipe.cmake_args
        environ.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(num_cores()))
        if self.recipe.backend == "cuda" and (nvcc := self.host.nvcc()):
            environ["CUDACXX"] = nvcc
            if package := self.host.cublas_package():
                headers = take_headers(package, self.folder / "headers")
                environ["CUDAFLAGS"] = f"{environ.get('CUDAFLAGS', '')} -I{headers}".strip()
        return environ

    def run(self, command: Sequence[str]) -> int:
        """Run a command into the log, with a sign of life now and then; its exit status."""
        minutes = max(1, round(CORE_MINUTES[self.recipe.backend] / num_cores()))
        usual = f"about {minutes} min on {num_cores()} cores"
        say(f"building llama.cpp for {self.recipe.backend}, {usual} (log: {self.log})")
        start = time.monotonic()
        with (
            self.log.open("wb") as out,
            subprocess.Popen(
                command,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            while True:
                try:
                    return process.wait(timeout=HEARTBEAT_SECONDS)
                except subprocess.TimeoutExpired:
                    clock = "{}:{:02}".format(*divmod(round(time.monotonic() - start), 60))
                    say(f"building llama.cpp, {clock}{progress(self.log)}, {usual}")
                except BaseException:
                    process.terminate()
                    raise


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def progress(log: Path) -> str:
    """How far the compilation is: ", 42%" from Make, ", 57/140" from Ninja, "" before it starts."""
    steps = re.findall(rb"\[ *(\d+%|\d+/\d+)\]", log.read_bytes())
    return f", {steps[-1].decode()}" if steps else ""


def last_lines(log: Path) -> list[str]:
    """The end of a failed build's log, without the paragraphs that pip puts after the reason.

    Lines are cut: a compiler's command line alone can fill a screen.
    """
    text = log.read_text(encoding="utf-8", errors="replace")
    reason = text.partition("error: subprocess-exited-with-error")[0]
    lines = (reason if reason.strip() else text).splitlines()
    return [line[:TAIL_WIDTH] for line in lines if line.strip()][-TAIL_LINES:]


def publish(wheel: Path, folder: Path) -> Path:
    """Move a finished wheel into its folder: it is there whole, or not at all, after a crash too."""
    with wheel.open("rb") as handle:
        os.fsync(handle.fileno())
    published = wheel.replace(folder / wheel.name)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return published


def say(message: str) -> None:
    """Narrate."""
    print(message, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=first_line(__doc__ or ""))
    parser.add_argument(
        "--backend",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: cuda where an NVIDIA GPU and nvcc are found, else cpu",
    )
    parser.add_argument(
        "--cuda-architectures",
        metavar="LIST",
        help="compute capabilities, as in 80;90 (default: those of this machine's GPUs)",
    )
    parser.add_argument(
        "--wheelhouse",
        type=Path,
        metavar="DIR",
        help="build offline, from the source distribution and the wheels in DIR",
    )
    parser.add_argument("--force", action="store_true", help="build although a wheel is kept")
    parser.add_argument(
        "--print-key", action="store_true", help="print the wheel's key in the cache, and stop"
    )
    options = parser.parse_args(arguments)
    if options.wheelhouse and not options.wheelhouse.is_dir():
        parser.error(f"--wheelhouse {options.wheelhouse}: no such folder")
    return options


def main(arguments: Sequence[str] | None = None, host: Host | None = None) -> int:
    """Run the tool; the exit status."""
    options = parse(arguments)
    host = host or Host()
    try:
        backend, why = choose_backend(options.backend, host)
        version = pinned_version(ROOT / "pyproject.toml")
        recipe = make_recipe(version, backend, options.cuda_architectures, host)
        if options.print_key:
            print(recipe.key)
            return 0
        say(f"llama.cpp backend: {backend} ({why})")
        print(Builder(recipe, host, options.wheelhouse).get(force=options.force))
    except (BuildError, OSError) as error:
        say(f"build_llama: {error}")
        return error.exit_code if isinstance(error, BuildError) else 1
    except KeyboardInterrupt:
        say("build_llama: stopped before the wheel was done")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
