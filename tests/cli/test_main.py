"""How a command ends that neither succeeds nor fails as foreseen."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medlocal.cli.main import run
from tests.processes import heed_ctrl_c


def ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `medlocal fit "a b"`, where that raises."""

    def fail(*_: object, **__: object) -> None:
        raise error

    # By its name the package has the function `main`, not the module.
    monkeypatch.setattr(sys.modules[run.__module__], "app", fail)
    return run(["fit", "a b"])


def test_ctrl_c_names_the_command_that_does_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == "stopped\n  → do the same again: medlocal fit 'a b'\n"


def test_ctrl_c_inside_a_command_is_told_too(tmp_path: Path) -> None:
    """Typer makes an exit code of it, before anybody here could."""
    code = (
        "import os, signal, sys\n"
        "from medlocal.cli import main\n"
        "import medlocal.weights.inspect as inspect\n"
        "def stop(path): os.kill(os.getpid(), getattr(signal, os.environ['SIGNAL']))\n"
        "inspect.read_gguf = stop\n"
        "main()\n"
    )
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    for name in ("SIGINT", "SIGTERM"):
        done = subprocess.run(
            [sys.executable, "-c", code, "inspect", str(path)],
            env={"PATH": "", "SIGNAL": name, "MEDLOCAL_HOME": str(tmp_path)},
            preexec_fn=heed_ctrl_c,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 130
        assert done.stderr.strip() == f"stopped\n  → do the same again: medlocal inspect {path}"


def test_a_command_leaves_the_signals_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert ends_with(KeyboardInterrupt(), monkeypatch) == 130
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MemoryError(),
            "error: there is not enough memory\n  → close other programs, and look at `ulimit -v`\n",
        ),
        (
            ImportError("libx.so: failed to map segment from shared object"),
            "error: a part of the program cannot be loaded: libx.so: failed to map segment from"
            " shared object\n  → free memory and look at `ulimit -v`; where that is not it, install"
            " medlocal again\n",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x/y"),
            "error: x/y: Permission denied\n  → change the permissions, or name another place\n",
        ),
    ],
)
def test_what_the_system_denies_is_told_in_a_line(
    error: BaseException,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ends_with(error, monkeypatch) == 1
    assert capsys.readouterr().err == message


def test_what_cannot_be_told_for_want_of_memory_is_told_more_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "medlocal.report.wording", None)  # importing it fails
    assert ends_with(PermissionError(errno.EACCES, "no", "x\x1b[2J"), monkeypatch) == 1
    assert capsys.readouterr().err == (
        "error: x [2J: no\n  → change the permissions, or name another place\n"
    )
