"""Packing llama.cpp's source: what is taken and what is left, on a made-up source distribution."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from tools import pack_llama
from tools.build_llama import BuildError
from tools.pack_llama import is_wanted, pack

LLAMA = "vendor/llama.cpp"
FILES = {
    ".git/modules/vendor/llama.cpp/HEAD": "0c1e57098bba43ac29e6e3b677cdceebdd22334f\n",
    "llama_cpp/__init__.py": 'from .llama_cpp import *\nfrom .llama import *\n\n__version__ = "9.9"\n',
    "llama_cpp/llama_cpp.py": "bindings = 1\n",
    f"{LLAMA}/ggml/CMakeLists.txt": 'if(NOT X)\n    set(GGML_BUILD_COMMIT "unknown")\nendif()\n',
    f"{LLAMA}/tools/CMakeLists.txt": "add_subdirectory(server)\n",
    f"{LLAMA}/src/llama.cpp": "int a;\n",
    f"{LLAMA}/docs/long.txt": "words\n",
}


def sdist(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"llama_cpp_python-9.9/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("llama/")] = file.read().decode()
    return found


@pytest.mark.parametrize(
    "name",
    [
        "ggml/src/ggml-cuda/mmq.cuh",
        "ggml/src/ggml-cuda/template-instances/mmq-instance-q4_k.cu",
        "ggml/src/ggml-cpu/arch/x86/quants.c",
        "ggml/src/ggml-version.h.in",
        "src/models/llama.cpp",
        "common/build-info.cpp.in",
        "tools/llama-bench/llama-bench.cpp",
        "vendor/nlohmann/json.hpp",
        "gguf-py/gguf/constants.py",
        "LICENSE",
    ],
)
def test_what_the_build_reads_is_packed(name: str) -> None:
    assert is_wanted(f"{LLAMA}/{name}")


@pytest.mark.parametrize(
    "name",
    [
        "ggml/src/ggml-vulkan/ggml-vulkan.cpp",
        "models/ggml-vocab-llama-bpe.gguf",
        "tools/server/server.cpp",
        "vendor/miniaudio/miniaudio.h",
        "docs/build.md",
        "tests/test-c.c",
    ],
)
def test_what_the_build_never_reads_is_left_out(name: str) -> None:
    assert not is_wanted(f"{LLAMA}/{name}")


def test_of_the_python_package_only_the_bindings_are_packed() -> None:
    assert is_wanted("llama_cpp/llama_cpp.py")
    assert not is_wanted("llama_cpp/llama.py")
    assert not is_wanted("llama_cpp/server/app.py")


def test_the_package_imports_nothing_but_the_bindings(tmp_path: Path) -> None:
    found = contents(pack(sdist(tmp_path / "s.tar.gz", FILES), tmp_path / "p.tar.gz"))
    assert found["llama_cpp/__init__.py"] == 'from .llama_cpp import *\n\n__version__ = "9.9"\n'


def test_the_build_knows_its_commit_without_git(tmp_path: Path) -> None:
    found = contents(pack(sdist(tmp_path / "s.tar.gz", FILES), tmp_path / "p.tar.gz"))
    assert 'set(GGML_BUILD_COMMIT "0c1e570")' in found[f"{LLAMA}/ggml/CMakeLists.txt"]


def test_build_files_name_only_what_is_there(tmp_path: Path) -> None:
    found = contents(pack(sdist(tmp_path / "s.tar.gz", FILES), tmp_path / "p.tar.gz"))
    assert "server" not in found[f"{LLAMA}/tools/CMakeLists.txt"]
    assert "add_subdirectory(llama-bench)" in found[f"{LLAMA}/tools/CMakeLists.txt"]
    assert f"{LLAMA}/docs/long.txt" not in found


def test_one_source_gives_one_archive(tmp_path: Path) -> None:
    backwards = dict(reversed(FILES.items()))
    made = [
        pack(sdist(tmp_path / f"{n}.tar.gz", files), tmp_path / f"{n}.pack")
        for n, files in enumerate((FILES, backwards))
    ]
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in made)
    assert first == second


def test_a_source_without_its_commit_is_refused(tmp_path: Path) -> None:
    files = {name: text for name, text in FILES.items() if not name.startswith(".git")}
    with pytest.raises(BuildError, match="is not the source"):
        pack(sdist(tmp_path / "s.tar.gz", files), tmp_path / "p.tar.gz")
    assert not (tmp_path / "p.tar.gz").exists()


def test_a_file_that_is_no_archive_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "s.tar.gz"
    broken.write_text("no archive", encoding="utf-8")
    assert pack_llama.main(["--sdist", str(broken), "-o", str(tmp_path / "p")]) == 1
    assert capsys.readouterr().err.startswith("pack_llama: ")
