"""The process in which `test_fuzz_headers` has llama.cpp load many files, one after the other.

    python -m tests.weights.load_worker MEMORY SECONDS     reads paths from stdin, one per line

Before each file its path is printed, and after it "loaded" or "refused": a path without a verdict is
the file that ended the process. One that takes longer than SECONDS ends it with SIGALRM.
"""

import signal
import sys
from pathlib import Path

from medlocal.errors import MedlocalError
from medlocal.weights import first_load


def main(memory_bytes: int, seconds: int) -> None:
    """Load what stdin names, as the gate's child does."""
    first_load.bound(3600, memory_bytes)
    for line in sys.stdin:
        path = line.strip()
        say(path)
        signal.alarm(seconds)
        try:
            first_load.load(Path(path), tell=lambda step: None)
            say("loaded")
        except MedlocalError:
            say("refused")
        signal.alarm(0)


def say(text: str) -> None:
    """One line, out before anything else can happen."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
