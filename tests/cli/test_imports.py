"""What the command line does not load until it is needed: a fresh interpreter says so."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "datasets", "gguf", "huggingface_hub", "jinja2", "llama_cpp", "numpy", "outlines",
    "outlines_core", "rich", "scipy", "textual", "torch",
)  # fmt: skip


def loaded_by(code: str, home: Path) -> list[str]:
    """The heavy packages that are loaded after some code."""
    tell = f"import sys; print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tell}"],
        cwd=ROOT,
        env={"PATH": "", "MEDLOCAL_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize(
    "code",
    [
        "import medlocal",
        "import medlocal.cli",
        "from medlocal.cli.main import run; assert run(['--help']) == 0",
        "from medlocal.cli.main import run; assert run(['run', '--help']) == 0",
        "from medlocal.cli.main import run; assert run(['runs', '--json']) == 0",
    ],
)
def test_nothing_heavy_is_loaded_for(code: str, tmp_path: Path) -> None:
    assert loaded_by(code, tmp_path) == []


def test_a_run_is_planned_without_the_engine(tmp_path: Path) -> None:
    """The names are checked, and the model's file missed, before seconds go into loading."""
    code = "from medlocal.cli.main import run; run(['run', 'starter', '-m', '/none.gguf'])"
    assert not {"llama_cpp", "outlines", "datasets", "torch"} & set(loaded_by(code, tmp_path))
