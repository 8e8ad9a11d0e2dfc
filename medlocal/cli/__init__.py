"""The command line. `main` is what the `medlocal` command calls.

A command declares its options, validates, builds, calls and prints. stdout is data, stderr narration;
errors become a message, a hint and an exit code here and nowhere else.
"""

from medlocal.cli.main import main

__all__ = ["main"]
