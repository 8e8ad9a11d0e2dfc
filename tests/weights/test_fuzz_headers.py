"""Ten thousand damaged headers: each is refused by an error of ours, or loaded; none ends the process.

First all of them go through the checks in Python, in this process. What passes is loaded by llama.cpp
in children, many files to a child, each child started again behind a file that killed it: there the
gate's last step must say so, and the process that asked must live.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from medlocal.errors import MedlocalError, RefusedError
from medlocal.weights.first_load import LoadLimits, first_load
from medlocal.weights.gate import examine
from medlocal.weights.inspect import read_gguf
from tests.weights.mutations import base, mutant

NUM_MUTANTS = 10_000
MOST_SECONDS = 1.0
"""That Python may take for one header."""
MOST_CRASHES = 10
"""Files that pass in Python and kill llama.cpp, of all: gaps that only the child closes."""
_MEMORY, _SECONDS = 2**29, 20
_BATCH = 400


@dataclass(frozen=True)
class Verdicts:
    """What came of all mutants in Python."""

    passed: tuple[int, ...]
    """Numbers of those that llama.cpp may see."""
    refused: Counter[str]
    """Type of the error -> how many."""
    slowest: float
    """Seconds of the processor for one; the machine may be busy."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Every mutant through the checks that need no load."""
    passed, refused, slowest = [], Counter[str](), 0.0
    path = tmp_path_factory.mktemp("fuzz") / "mutant.gguf"
    for number in range(NUM_MUTANTS):
        path.unlink(missing_ok=True)  # a file system writes at once what is cut and written again
        path.write_bytes(mutant(number))
        start = time.process_time()
        try:
            examine(read_gguf(path))
            passed.append(number)
        except MedlocalError as error:
            refused[type(error).__name__] += 1
        slowest = max(slowest, time.process_time() - start)
    return Verdicts(tuple(passed), refused, slowest)


@pytest.mark.slow
def test_each_of_ten_thousand_headers_is_refused_by_us_or_passes(found: Verdicts) -> None:
    # Whatever else is raised leaves the fixture, and fails here.
    assert set(found.refused) == {"RefusedError"}
    assert len(found.passed) + found.refused.total() == NUM_MUTANTS
    assert len(found.passed) > NUM_MUTANTS // 10
    assert found.refused.total() > NUM_MUTANTS // 2


@pytest.mark.slow
def test_no_header_keeps_python_busy(found: Verdicts) -> None:
    assert found.slowest < MOST_SECONDS


def test_the_mutants_are_the_same_every_time() -> None:
    assert [mutant(number) for number in range(50)] == [mutant(number) for number in range(50)]
    assert sum(mutant(number) != base(number).to_bytes() for number in range(500)) > 450


@pytest.mark.slow
def test_none_that_passed_ends_the_process_that_asked(
    found: Verdicts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{number}.gguf" for number in found.passed]
    for number, path in zip(found.passed, paths, strict=True):
        path.write_bytes(mutant(number))
    ended, loaded, refused = load_all(paths)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{NUM_MUTANTS:,} headers: {NUM_MUTANTS - len(paths):,} refused in Python; by llama.cpp"
            f" {loaded:,} loaded, {refused:,} refused, {len(ended)} killed it:"
            f" {', '.join(f'{path.stem} ({how})' for path, how in ended.items())}\n"
        )
    assert loaded + refused + len(ended) == len(paths)
    assert loaded > 500
    assert len(ended) <= MOST_CRASHES
    for path in ended:
        with pytest.raises(RefusedError, match=r"llama\.cpp (crashed|did not come to an end)"):
            first_load(path, LoadLimits(_SECONDS, _MEMORY))


def load_all(paths: list[Path]) -> tuple[dict[Path, str], int, int]:
    """Load files in children: those that ended one and how, and how many were loaded and refused."""
    ended: dict[Path, str] = {}
    said: Counter[str] = Counter()
    while paths:
        batch = paths[:_BATCH]
        done = subprocess.run(
            [sys.executable, "-m", "tests.weights.load_worker", str(_MEMORY), str(_SECONDS)],
            input="\n".join(map(str, batch)),
            capture_output=True,
            text=True,
            timeout=_BATCH * _SECONDS,
            check=False,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},  # no debugger at a crash
        )
        lines = done.stdout.splitlines()
        said.update(lines[1::2])
        if done.returncode:
            assert done.returncode < 0, done.stderr
            assert len(lines) % 2 == 1, "the last file has no verdict"
            ended[Path(lines[-1])] = signal.Signals(-done.returncode).name
        paths = paths[len(lines[::2]) :]
    return ended, said["loaded"], said["refused"]
