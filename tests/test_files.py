import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import MedlocalError
from medlocal.files import (
    CHUNK,
    atomic_write,
    bytes_under,
    disk_errors,
    exclusive,
    file_sha256,
    leftover_notes,
    leftovers,
    publish,
    require_room,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of "abc": the first test vector of FIPS 180-2."""


def age(path: Path, seconds: int = 10) -> None:
    """Make a file look as if it had been written a while ago."""
    then = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(then, then))


def test_a_written_file_is_there_alone(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.txt", "ñ")

    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xb1"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(RuntimeError), publish(path) as stream:  # noqa: PT012 - the write comes first
        stream.write(b"new")
        raise RuntimeError

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_nothing_stands_under_the_final_name_before_the_end(tmp_path: Path) -> None:
    with publish(tmp_path / "a.txt") as stream:
        stream.write(b"new")
        stream.flush()
        assert not (tmp_path / "a.txt").exists()
        assert [name.endswith(".part") for name in os.listdir(tmp_path)] == [True]


def test_a_published_file_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "a.txt", b"")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_the_bytes_reach_the_disk_before_the_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def record_replace(old: Path, new: Path) -> None:
        steps.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)

    atomic_write(tmp_path / "a.txt", b"x")

    assert steps == ["file", "replace", "folder"]


def test_the_checksum_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")

    assert file_sha256(tmp_path / "abc") == ABC


@given(content=st.binary(max_size=200))
def test_the_checksum_is_that_of_the_whole_content(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("hash") / "file"
    path.write_bytes(content)

    assert file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_progress_ends_at_the_size(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * (CHUNK + 1))
    seen: list[tuple[str, int, int | None]] = []

    file_sha256(path, lambda *report: seen.append(report))

    assert seen == [
        ("checking large", CHUNK, CHUNK + 1),
        ("checking large", CHUNK + 1, CHUNK + 1),
    ]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really read for their checksum."""
    from medlocal import files

    seen: list[Path] = []
    read = files._read_sha256

    def record(path: Path, progress: files.Progress) -> str:
        seen.append(path)
        return read(path, progress)

    monkeypatch.setattr(files, "_read_sha256", record)
    # The change time cannot be set back, so a file made by a test is always young.
    monkeypatch.setattr(files, "_SETTLED_NS", 0)
    return seen


def test_a_remembered_checksum_is_not_computed_again(tmp_path: Path, reads: list[Path]) -> None:
    path, cache = tmp_path / "abc", tmp_path / "home" / "hashes.json"
    path.write_bytes(b"abc")

    assert file_sha256(path, cache=cache) == ABC
    assert file_sha256(path, cache=cache) == ABC
    assert reads == [path]


def test_a_changed_file_is_read_again_though_size_and_time_are_the_same(
    tmp_path: Path, reads: list[Path]
) -> None:
    path, cache = tmp_path / "abc", tmp_path / "hashes.json"
    path.write_bytes(b"xyz")
    before = path.stat()
    file_sha256(path, cache=cache)
    path.write_bytes(b"abc")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert file_sha256(path, cache=cache) == ABC


def test_a_replaced_file_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    path, cache = tmp_path / "abc", tmp_path / "hashes.json"
    path.write_bytes(b"xyz")
    file_sha256(path, cache=cache)
    atomic_write(path, b"abc")

    assert file_sha256(path, cache=cache) == ABC


def test_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    path, cache = tmp_path / "abc", tmp_path / "hashes.json"
    path.write_bytes(b"abc")
    age(path)  # the modification time is old, the change time is not

    file_sha256(path, cache=cache)

    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', "\x00"])
def test_a_damaged_cache_is_an_empty_one(tmp_path: Path, reads: list[Path], content: str) -> None:
    path, cache = tmp_path / "abc", tmp_path / "hashes.json"
    path.write_bytes(b"abc")
    cache.write_text(content)

    assert file_sha256(path, cache=cache) == ABC
    assert json.loads(cache.read_text())[str(path)][-1] == ABC


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A file where a folder would have to be: nothing can be read or written below it."""
    (tmp_path / "home").write_bytes(b"")
    return tmp_path / "home"


def test_a_cache_that_cannot_be_written_costs_no_answer(
    tmp_path: Path, no_folder: Path, reads: list[Path]
) -> None:
    (tmp_path / "abc").write_bytes(b"abc")

    assert file_sha256(tmp_path / "abc", cache=no_folder / "hashes.json") == ABC
    assert reads == [tmp_path / "abc"]


def test_a_cache_that_cannot_be_read_is_an_empty_one(tmp_path: Path, reads: list[Path]) -> None:
    path, cache = tmp_path / "abc", tmp_path / "hashes.json"
    path.write_bytes(b"abc")
    cache.symlink_to("/proc/self/mem")  # its first byte can be read by nobody

    assert file_sha256(path, cache=cache) == ABC
    assert reads == [path]


def test_what_killed_writers_left_is_found_by_the_name_of_the_file(tmp_path: Path) -> None:
    for name in (".a[1].gguf.0123abcd.part", ".a1.gguf.0123abcd.part", ".a[1].gguf.x"):
        (tmp_path / name).write_bytes(b"")

    assert leftovers(tmp_path / "a[1].gguf") == [tmp_path / ".a[1].gguf.0123abcd.part"]
    assert leftover_notes(tmp_path / "a[1].gguf", "a conversion") == [
        f"{tmp_path}/.a[1].gguf.0123abcd.part was left by a conversion that was killed, or is being"
        " written by another one: where none runs, remove it"
    ]


def test_a_place_that_is_not_there_is_told_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.txt"

    with pytest.raises(MedlocalError) as info, disk_errors(tmp_path):
        atomic_write(path, b"")

    assert info.value.message == f"{path}: No such file or directory"


def test_a_place_that_may_not_be_written_to_is_told_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(part: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(part))

    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(MedlocalError) as info, disk_errors(tmp_path):
        atomic_write(tmp_path / "a.txt", b"")

    assert info.value.message == f"{tmp_path}/a.txt: Permission denied"
    assert info.value.hint == "change the permissions, or name another place"


def test_a_file_that_grows_too_large_is_named(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from medlocal.files import atomic_write, disk_errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with disk_errors(Path('elsewhere')): atomic_write(Path(sys.argv[1]), bytes(9999))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert f"MedlocalError: {tmp_path}/large: File too large" in done.stderr
    assert "ulimit -f" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_lock_makes_the_second_wait(tmp_path: Path) -> None:
    lock, waiting = tmp_path / "lock", threading.Event()
    order: list[str] = []

    def second() -> None:
        with exclusive(lock, waiting.set):
            order.append("second")

    with exclusive(lock, lambda: order.append("waited")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from medlocal.files import exclusive\n"
        "with exclusive(Path(sys.argv[1]), lambda: None): os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False)
    waited: list[bool] = []

    with exclusive(tmp_path / "lock", lambda: waited.append(True)):
        assert waited == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_folder_and_the_way_out(tmp_path: Path, number: int) -> None:
    with pytest.raises(MedlocalError) as info, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))

    assert info.value.message == f"the disk that holds {tmp_path} is full"
    assert "MEDLOCAL_HOME" in str(info.value.hint)


def test_a_full_disk_is_told_with_the_way_out_that_the_caller_knows(tmp_path: Path) -> None:
    with pytest.raises(MedlocalError) as info, disk_errors(tmp_path, "choose another -o"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert info.value.hint == "choose another -o"


def test_another_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"

    with pytest.raises(MedlocalError, match="a/b: No such file"), disk_errors(tmp_path):
        path.read_bytes()


def test_room_is_what_the_disk_has_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)

    require_room(tmp_path, 100)
    with pytest.raises(MedlocalError, match="is full: 1,001 bytes are needed, and 100 are free"):
        require_room(tmp_path, 1001)
    with pytest.raises(MedlocalError) as info:
        require_room(tmp_path, 101, "choose another -o")
    assert info.value.hint == "choose another -o"


def test_bytes_are_counted_in_all_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"12345")
    (tmp_path / "two").write_bytes(b"678")
    (tmp_path / "gone").symlink_to("nowhere")

    assert bytes_under(tmp_path) == 8
