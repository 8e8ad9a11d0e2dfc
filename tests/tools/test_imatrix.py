"""The tool is the command."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "imatrix.py"


def test_the_tool_takes_the_arguments_of_the_command() -> None:
    arguments = [sys.executable, str(TOOL), "none.gguf", "--text", "en:none.txt"]
    ended = subprocess.run(arguments, capture_output=True)
    assert ended.returncode == 3
    assert b"none.gguf" in ended.stderr
