"""The peak is that of this process, whatever started it."""

import subprocess
import sys

MEBIBYTE = 2**20
_PEAK = "from medlocal.run.execute import peak_memory_bytes; print(peak_memory_bytes())"


def test_a_process_does_not_inherit_the_peak_of_the_one_that_started_it() -> None:
    parent = (
        f"import subprocess, sys; held = bytearray(500 * {MEBIBYTE});"
        f"print(subprocess.check_output([sys.executable, '-c', {_PEAK!r}], text=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, text=True, check=True
    )
    assert 10 * MEBIBYTE < int(done.stdout) < 300 * MEBIBYTE


def test_what_is_allocated_counts() -> None:
    code = f"held = bytearray(300 * {MEBIBYTE}); {_PEAK}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 300 * MEBIBYTE
