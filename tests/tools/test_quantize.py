"""The tool is the command."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "quantize.py"


def test_the_tool_takes_the_arguments_of_the_command() -> None:
    ended = subprocess.run([sys.executable, str(TOOL), "none.gguf", "Q8_0"], capture_output=True)
    assert ended.returncode == 3
    assert b"none.gguf" in ended.stderr
