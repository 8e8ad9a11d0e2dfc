"""The wheel builder, on made-up machines: a folder for /, a folder of scripts for PATH, a false pip.

No test compiles anything.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tools import build_llama
from tools.build_llama import BuildError, Host, Recipe, choose_backend, make_recipe

VERSION = build_llama.pinned_version(build_llama.ROOT / "pyproject.toml")
WHEEL = f"llama_cpp_python-{VERSION}-py3-none-linux_x86_64.whl"

FALSE_PIP = """
import json, os, sys, time
if "--version" in sys.argv:
    print("pip 23.0.1")
    sys.exit(int(os.environ.get("PIP_IS_BROKEN", "0")))
names = ("CMAKE_ARGS", "CMAKE_BUILD_PARALLEL_LEVEL", "CUDACXX", "CUDAFLAGS")
call = {"arguments": sys.argv[1:], **{name: os.environ.get(name) for name in names}}
with open(os.environ["PIP_CALLS"], "a", encoding="utf-8") as calls:
    calls.write(json.dumps(call) + "\\n")
print(os.environ.get("PIP_SAYS", "Successfully built"), flush=True)
time.sleep(float(os.environ.get("PIP_SECONDS", "0")))
folder = sys.argv[sys.argv.index("--wheel-dir") + 1]
with open(os.path.join(folder, os.environ["PIP_WHEEL"]), "w", encoding="utf-8") as wheel:
    wheel.write(os.environ.get("PIP_WHEEL_TEXT", "new"))
sys.exit(int(os.environ.get("PIP_STATUS", "0")))
"""


@dataclass(frozen=True)
class Machine:
    """A machine to build on, made of files."""

    folder: Path

    def host(self, **environ: str) -> Host:
        """The machine, with these variables in its environment."""
        own = {
            "PATH": str(self.folder / "bin"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTHONPATH": str(self.folder / "site"),
            "PIP_CALLS": str(self.folder / "calls"),
            "PIP_WHEEL": WHEEL,
        }
        return Host(own | environ, self.folder / "root", (str(self.folder / "site"),))

    def program(self, name: str, script: str = "") -> None:
        """Put a program on PATH."""
        self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def without(self, *names: str) -> None:
        """Remove programs from PATH."""
        for name in names:
            (self.folder / "bin" / name).unlink()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the machine."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def cuda(self, *, capabilities: str = "9.0", release: str = "13.0") -> None:
        """Give the machine a GPU, its compiler and its driver."""
        self.write("root/usr/lib/x86_64-linux-gnu/libcuda.so", "")
        self.program("nvcc", f"echo release {release}")
        self.program(
            "nvidia-smi",
            f'test "$1" = -L && echo "GPU 0: NVIDIA" || printf "{capabilities}\\n"',
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What pip was called with, for each wheel that it was asked for."""
        path = self.folder / "calls"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    @property
    def wheels(self) -> list[Path]:
        """Every wheel in the cache, published or not."""
        return sorted((self.folder / "cache").rglob("*.whl"))

    def keep_wheel(self) -> Path:
        """Put a wheel where a CPU build would."""
        folder = build_llama.wheels_dir(self.host().environ) / self.recipe().key
        return self.write(str(folder.relative_to(self.folder) / WHEEL), "kept")

    def recipe(self, backend: str = "cpu", architectures: str | None = None, **env: str) -> Recipe:
        """What this machine would build."""
        return make_recipe(VERSION, backend, architectures, self.host(**env))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a compiler and pip, and no GPU."""
    made = Machine(tmp_path)
    made.program("cc")
    made.program("c++", "echo 'c++ 12.2.0'; echo 'a copyright'")
    made.write("root/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu avx2\nbogomips\t: 4600.00\n")
    made.write("site/pip/__init__.py", "")
    made.write("site/pip/__main__.py", FALSE_PIP)
    return made


class TestVersion:
    def test_is_the_pinned_one(self, tmp_path: Path) -> None:
        pyproject = tmp_path / "pyproject.toml"
        pyproject.write_text(
            '[project]\ndependencies = ["numpy>=1", "llama-cpp-python==1.2.3"]\n', encoding="utf-8"
        )
        assert build_llama.pinned_version(pyproject) == "1.2.3"

    def test_must_be_pinned(self, tmp_path: Path) -> None:
        pyproject = tmp_path / "pyproject.toml"
        pyproject.write_text(
            '[project]\ndependencies = ["llama-cpp-python>=1.2.3"]\n', encoding="utf-8"
        )
        with pytest.raises(BuildError, match="no dependency reads llama-cpp-python==VERSION"):
            build_llama.pinned_version(pyproject)


class TestKey:
    def test_names_version_and_backend(self, machine: Machine) -> None:
        assert re.fullmatch(rf"{re.escape(VERSION)}-cpu-[0-9a-f]{{12}}", machine.recipe().key)

    def test_is_the_same_for_the_same_machine(self, machine: Machine) -> None:
        before = machine.recipe().key
        machine.write("root/proc/cpuinfo", "flags : avx2 fpu\nbogomips : 4599.98\n")
        assert machine.recipe().key == before

    def test_changes_with_the_instruction_sets(self, machine: Machine) -> None:
        before = machine.recipe().key
        machine.write("root/proc/cpuinfo", "flags : fpu avx2 avx512f\n")
        assert machine.recipe().key != before

    def test_changes_with_the_parts_of_an_arm_processor(self, machine: Machine) -> None:
        machine.write("root/proc/cpuinfo", "Features : asimd\nCPU part : 0xd40\n")
        before = machine.recipe().key
        machine.write("root/proc/cpuinfo", "Features : asimd\nCPU part : 0xd4f\n")
        assert machine.recipe().key != before

    def test_changes_with_the_compiler(self, machine: Machine) -> None:
        before = machine.recipe().key
        machine.program("c++", "echo 'c++ 13.1.0'")
        assert machine.recipe().key != before

    @pytest.mark.parametrize(
        ("variable", "value"), [("CMAKE_ARGS", "-DGGML_OPENMP=OFF"), ("CXXFLAGS", "-O2")]
    )
    def test_changes_with_what_the_user_tells_the_compiler(
        self, machine: Machine, variable: str, value: str
    ) -> None:
        assert machine.recipe(**{variable: value}).key != machine.recipe().key

    def test_changes_with_the_version(self, machine: Machine) -> None:
        recipe = machine.recipe()
        assert replace(recipe, version="0.0.1").key != recipe.key

    def test_changes_with_the_cuda_compiler_for_cuda_only(self, machine: Machine) -> None:
        machine.cuda(release="12.4")
        cpu, cuda = machine.recipe().key, machine.recipe("cuda").key
        machine.cuda(release="13.0")
        assert machine.recipe().key == cpu
        assert machine.recipe("cuda").key != cuda

    def test_changes_with_the_gpu(self, machine: Machine) -> None:
        machine.cuda(capabilities="8.0")
        before = machine.recipe("cuda").key
        machine.cuda(capabilities="9.0")
        assert machine.recipe("cuda").key != before

    def test_can_be_had_without_a_compiler(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        machine.without("cc", "c++")
        assert build_llama.main(["--print-key"], machine.host()) == 0
        assert capsys.readouterr().out == f"{machine.recipe().key}\n"


class TestBackend:
    def test_is_cpu_without_a_gpu(self, machine: Machine) -> None:
        machine.program("nvcc")
        assert choose_backend("auto", machine.host()) == ("cpu", "no NVIDIA GPU found")

    def test_is_cpu_where_the_gpus_tool_fails(self, machine: Machine) -> None:
        machine.program("nvcc")
        machine.program("nvidia-smi", "echo 'GPU access failed'; exit 9")
        assert choose_backend("auto", machine.host())[0] == "cpu"

    def test_is_cpu_without_nvcc_and_says_what_is_lost(self, machine: Machine) -> None:
        machine.cuda()
        machine.without("nvcc")
        backend, why = choose_backend("auto", machine.host())
        assert backend == "cpu"
        assert "no nvcc: install the CUDA toolkit" in why

    def test_is_cuda_with_both(self, machine: Machine) -> None:
        machine.cuda()
        assert choose_backend("auto", machine.host())[0] == "cuda"

    @pytest.mark.parametrize("file", ["dev/nvidia0", "proc/driver/nvidia/version"])
    def test_is_cuda_where_only_the_drivers_files_tell_of_a_gpu(
        self, machine: Machine, file: str
    ) -> None:
        machine.program("nvcc")
        machine.write(f"root/{file}", "")
        assert choose_backend("auto", machine.host())[0] == "cuda"

    def test_finds_nvcc_where_nvidias_packages_put_it(self, machine: Machine) -> None:
        machine.cuda()
        machine.without("nvcc")
        nvcc = machine.write("root/usr/local/cuda/bin/nvcc", "#!/bin/sh\n")
        nvcc.chmod(0o755)
        assert choose_backend("auto", machine.host())[0] == "cuda"

    def test_cpu_can_be_asked_for_beside_a_gpu(self, machine: Machine) -> None:
        machine.cuda()
        assert choose_backend("cpu", machine.host()) == ("cpu", "asked for")

    def test_cuda_needs_nvcc(self, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        assert build_llama.main(["--backend", "cuda"], machine.host()) == 3
        assert capsys.readouterr().err == (
            "build_llama: nvcc is missing: install NVIDIA's CUDA toolkit\n"
        )


class TestArchitectures:
    def test_are_those_of_the_gpus_each_once(self, machine: Machine) -> None:
        machine.cuda(capabilities="12.0\\n8.6\\n8.6")
        assert build_llama.choose_architectures(None, machine.host()) == "86;120"

    def test_are_native_where_nothing_tells_them(self, machine: Machine) -> None:
        machine.cuda(capabilities="[N/A]")
        assert build_llama.choose_architectures(None, machine.host()) == "native"

    def test_can_be_named_without_a_gpu(self, machine: Machine) -> None:
        assert build_llama.choose_architectures("80;90", machine.host()) == "80;90"

    def test_must_be_named_without_a_gpu(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        machine.program("nvcc")
        assert build_llama.main(["--backend", "cuda"], machine.host()) == 2
        assert "--cuda-architectures 90" in capsys.readouterr().err


class TestBuild:
    def test_publishes_the_wheel_and_prints_its_path_alone(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert build_llama.main([], machine.host()) == 0
        [wheel] = machine.wheels
        assert capsys.readouterr().out == f"{wheel}\n"
        assert wheel.parent.name == machine.recipe().key

    def test_keeps_the_log_and_the_recipe_beside_the_wheel(self, machine: Machine) -> None:
        build_llama.main([], machine.host(PIP_SAYS="[1/140] c++"))
        [wheel] = machine.wheels
        assert wheel.with_name("build.log").read_text(encoding="utf-8") == "[1/140] c++\n"
        recipe = json.loads(wheel.with_name("recipe.json").read_text(encoding="utf-8"))
        assert recipe["machine"]["cpu"] == "avx2 fpu"

    def test_asks_pip_for_the_pinned_source_and_never_for_its_cache(self, machine: Machine) -> None:
        build_llama.main([], machine.host())
        [call] = machine.calls
        arguments = " ".join(call["arguments"])
        assert arguments.startswith(f"wheel llama-cpp-python=={VERSION} ")
        assert "--no-binary llama-cpp-python --no-cache-dir" in arguments
        assert "--no-index" not in arguments

    def test_uses_every_core_unless_told_otherwise(self, machine: Machine) -> None:
        build_llama.main([], machine.host())
        build_llama.main(["--force"], machine.host(CMAKE_BUILD_PARALLEL_LEVEL="1"))
        used = [call["CMAKE_BUILD_PARALLEL_LEVEL"] for call in machine.calls]
        assert used == [str(len(os.sched_getaffinity(0))), "1"]

    def test_for_the_cpu_says_nothing_of_cuda(self, machine: Machine) -> None:
        build_llama.main([], machine.host())
        assert "CUDA" not in machine.calls[0]["CMAKE_ARGS"]

    def test_for_cuda_names_compiler_and_gpus(self, machine: Machine) -> None:
        machine.cuda(capabilities="9.0")
        build_llama.main([], machine.host())
        [call] = machine.calls
        cuda = "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90 -DGGML_CUDA_NCCL=OFF"
        assert call["CMAKE_ARGS"].endswith(cuda)
        assert call["CUDACXX"] == str(machine.folder / "bin/nvcc")

    def test_without_the_drivers_library_does_without_what_must_be_linked_to_it(
        self, machine: Machine
    ) -> None:
        machine.program("nvcc", "echo release 13.0")
        build_llama.main(["--backend", "cuda", "--cuda-architectures", "90"], machine.host())
        assert "-DGGML_CUDA_NO_VMM=ON" in machine.calls[0]["CMAKE_ARGS"].split()

    def test_the_toolkits_stub_of_the_driver_is_enough_to_link(self, machine: Machine) -> None:
        machine.program("nvcc", "echo release 13.0")
        machine.write("root/usr/local/cuda/targets/x86_64-linux/lib/stubs/libcuda.so", "")
        build_llama.main(["--backend", "cuda", "--cuda-architectures", "90"], machine.host())
        assert "VMM" not in machine.calls[0]["CMAKE_ARGS"]

    def test_takes_from_a_python_package_cublas_alone(self, machine: Machine) -> None:
        machine.cuda()
        for name in ("cublas_v2.h", "cublas_api.h", "cublasLt.h", "cuda_runtime.h"):
            machine.write(f"site/nvidia/cu13/include/{name}", "")
        library = machine.write("site/nvidia/cu13/lib/libcublas.so.13", "")
        lt = machine.write("site/nvidia/cu13/lib/libcublasLt.so.13", "")
        build_llama.main([], machine.host(CUDAFLAGS="-lineinfo"))
        [call] = machine.calls
        assert {f"-DCUDA_cublas_LIBRARY={library}", f"-DCUDA_cublasLt_LIBRARY={lt}"} <= set(
            call["CMAKE_ARGS"].split()
        )
        flags, include = call["CUDAFLAGS"].split()
        headers = Path(include.removeprefix("-I"))
        assert flags == "-lineinfo"
        assert {header.name for header in headers.iterdir()} == {
            "cublas_v2.h",
            "cublas_api.h",
            "cublasLt.h",
        }

    def test_prefers_the_toolkits_own_cublas(self, machine: Machine) -> None:
        machine.cuda()
        machine.write("root/usr/local/cuda/targets/x86_64-linux/include/cublas_v2.h", "")
        machine.write("site/nvidia/cu13/include/cublas_v2.h", "")
        build_llama.main([], machine.host())
        assert machine.calls[0]["CUDAFLAGS"] is None

    def test_gives_the_users_options_the_last_word(self, machine: Machine) -> None:
        build_llama.main([], machine.host(CMAKE_ARGS="-DGGML_NATIVE=OFF"))
        options = machine.calls[0]["CMAKE_ARGS"].split()
        assert options.index("-DGGML_NATIVE=OFF") > options.index("-DGGML_NATIVE=ON")

    def test_offline_takes_everything_from_the_wheelhouse(self, machine: Machine) -> None:
        house = machine.write("my packages/x.whl", "").parent
        assert build_llama.main(["--wheelhouse", str(house)], machine.host()) == 0
        assert machine.calls[0]["arguments"][-3:] == ["--no-index", "--find-links", str(house)]

    def test_refuses_a_wheelhouse_that_is_not_there(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            build_llama.main(["--wheelhouse", str(machine.folder / "none")], machine.host())
        assert "no such folder" in capsys.readouterr().err

    def test_shows_signs_of_life(
        self,
        machine: Machine,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(build_llama, "HEARTBEAT_SECONDS", 0.2)
        build_llama.main([], machine.host(PIP_SAYS="[ 42%] Building", PIP_SECONDS="0.5"))
        assert re.search(
            r"^building llama.cpp, 0:0\d, 42%, about \d+ min on \d+ cores$",
            capsys.readouterr().err,
            flags=re.MULTILINE,
        )


class TestMissingTools:
    @pytest.mark.parametrize("missing", [("cc",), ("c++",), ("cc", "c++")])
    def test_no_compiler(
        self, machine: Machine, capsys: pytest.CaptureFixture[str], missing: tuple[str, ...]
    ) -> None:
        machine.without(*missing)
        assert build_llama.main([], machine.host()) == 3
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == "build_llama: a C++ compiler is missing: apt install g++"
        assert machine.calls == []

    def test_a_compiler_may_be_named_with_its_launcher(self, machine: Machine) -> None:
        machine.without("c++")
        machine.program("ccache")
        assert build_llama.main([], machine.host(CXX="ccache clang++-19")) == 0

    def test_no_pip(self, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        assert build_llama.main([], machine.host(PIP_IS_BROKEN="1")) == 3
        assert capsys.readouterr().err.endswith(
            "has no pip: apt install python3-venv, then make venv\n"
        )


class TestKeptWheel:
    def test_is_used_and_nothing_is_built(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        kept = machine.keep_wheel()
        assert build_llama.main([], machine.host(PIP_IS_BROKEN="1")) == 0
        assert capsys.readouterr().out == f"{kept}\n"
        assert machine.calls == []

    def test_is_not_used_for_another_backend(self, machine: Machine) -> None:
        machine.keep_wheel()
        machine.cuda()
        build_llama.main([], machine.host())
        assert len(machine.calls) == 1

    def test_is_replaced_when_forced(self, machine: Machine) -> None:
        kept = machine.keep_wheel()
        assert build_llama.main(["--force"], machine.host()) == 0
        assert kept.read_text(encoding="utf-8") == "new"

    def test_outlives_a_forced_build_that_fails(self, machine: Machine) -> None:
        kept = machine.keep_wheel()
        assert build_llama.main(["--force"], machine.host(PIP_STATUS="1")) == 1
        assert machine.wheels == [kept]
        assert kept.read_text(encoding="utf-8") == "kept"


class TestFailedBuild:
    def test_leaves_nothing_that_looks_like_a_wheel(self, machine: Machine) -> None:
        assert build_llama.main([], machine.host(PIP_STATUS="1")) == 1
        assert machine.wheels == []

    def test_shows_the_logs_last_lines_and_its_path(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = "\n".join(f"line {n}" for n in range(1, 21))
        build_llama.main([], machine.host(PIP_STATUS="1", PIP_SAYS=said))
        shown = capsys.readouterr().err.partition("did not build:\n")[2].splitlines()
        [log] = (machine.folder / "cache").rglob("build.log")
        assert shown == [*(f"  line {n}" for n in range(6, 21)), f"the whole log: {log}"]

    def test_shows_the_compilers_words_and_not_pips(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = "  fatal error: no such file\n  error: subprocess-exited-with-error\n\n  x See above"
        build_llama.main([], machine.host(PIP_STATUS="1", PIP_SAYS=said))
        shown = capsys.readouterr().err
        assert "fatal error: no such file" in shown
        assert "See above" not in shown

    def test_for_cuda_tells_how_to_do_without(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        machine.cuda()
        build_llama.main([], machine.host(PIP_STATUS="1"))
        assert capsys.readouterr().err.endswith("make venv BACKEND=cpu\n")

    def test_a_cache_that_cannot_be_written_is_named(
        self, machine: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        machine.write("cache", "a file where the folder should be")
        assert build_llama.main([], machine.host()) == 1
        assert str(machine.folder / "cache") in capsys.readouterr().err


def test_no_wheel_is_seen_before_it_is_whole(machine: Machine) -> None:
    """What pip is still writing lies under a name that the cache does not look for."""
    build_llama.main([], machine.host())
    folder = Path(machine.calls[0]["arguments"][-1])
    assert folder.parent == machine.wheels[0].parent
    assert folder.name.startswith(".building-")
    assert not folder.exists()


def test_two_at_once_build_once(machine: Machine) -> None:
    environ = dict(machine.host(PIP_SECONDS="0.5").environ)
    command = [sys.executable, build_llama.__file__, "--backend", "cpu"]
    both = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(machine.calls) == 1
    assert printed == [f"{machine.wheels[0]}\n"] * 2
