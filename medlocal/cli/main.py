"""The command `medlocal`: its subcommands, and how errors leave the program."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from medlocal import __version__
from medlocal.cli import (
    benching,
    comparing,
    converting,
    data,
    doctor,
    fitting,
    importance,
    inspecting,
    models,
    planning,
    quality,
    quantizing,
    quick,
    regrading,
    results,
    running,
)
from medlocal.cli.console import narrate
from medlocal.errors import Interrupted, MedlocalError
from medlocal.files import disk_error

# Typer carries click inside it since 0.26, and beside it before: this finds the one it uses.
_ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="medlocal",
    help="Is this clinical language model, in this quantisation, better than the general one, "
    "in English and in Spanish? Evaluates GGUF models on this machine, with llama.cpp.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something is missing, 4 a check refused a "
    "file, 130 stopped and resumable. Files are kept in $MEDLOCAL_HOME "
    "(default ~/.local/share/medlocal).",
)
app.command("run")(running.run)
app.command("demo")(running.demo)
app.command("quick")(quick.quick)
app.command("runs")(results.runs)
app.command("report")(results.report)
app.command("compare")(comparing.compare)
app.command("export")(results.export)
app.command("show")(results.show)
app.command("regrade")(regrading.regrade)
app.command("perturbations")(planning.perturbations)
app.command("convert")(converting.convert)
app.command("imatrix")(importance.imatrix)
app.command("quantize")(quantizing.quantize)
app.command("quality")(quality.quality)
app.command("bench")(benching.bench)
app.command("inspect")(inspecting.inspect)
app.command("fit")(fitting.fit)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    offline: Annotated[
        bool, typer.Option("--offline", help="Use no network, whatever the settings say.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that hold for every command."""
    if offline:
        os.environ["MEDLOCAL_OFFLINE"] = "1"


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        with _ended_like_ctrl_c():
            code = app(args=arguments, prog_name="medlocal", standalone_mode=False)
            sys.stdout.flush()
    except MedlocalError as error:
        return _told(error)
    except _ClickException as error:
        error.show()
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _told(_stopped(arguments))
    except BrokenPipeError:
        return _reader_gone()
    except (MemoryError, ImportError, OSError) as error:
        return _told(_denied(error))
    except SystemExit as leaving:
        # Typer ends the program with 1 when the pipe breaks, and with its code for --help.
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":
            return _reader_gone()
        return leaving.code if isinstance(leaving.code, int) else 1
    if code == Interrupted.exit_code:  # what Typer makes of Ctrl-C
        return _told(_stopped(arguments))
    return code if isinstance(code, int) else 0


def _told(error: MedlocalError) -> int:
    text = f"error: {error}" if error.exit_code != Interrupted.exit_code else str(error)
    try:
        narrate(text)
    except (ImportError, MemoryError):  # to tell that memory has run out takes memory too
        print(*(_plain(line) for line in text.split("\n")), sep="\n", file=sys.stderr)
    return error.exit_code


def _plain(line: str) -> str:
    """A line that steers no terminal, whatever names it holds."""
    return "".join(c if c.isprintable() else " " for c in line)


def _stopped(arguments: list[str]) -> Interrupted:
    command = shlex.join(["medlocal", *arguments])
    return Interrupted("stopped", hint=f"do the same again: {command}")


def _denied(error: Exception) -> MedlocalError:
    """The error for what the system denied where no command reckoned with it."""
    if isinstance(error, MemoryError):
        return MedlocalError(
            "there is not enough memory", hint="close other programs, and look at `ulimit -v`"
        )
    if isinstance(error, OSError):
        return disk_error(error, Path.cwd())
    return MedlocalError(
        f"a part of the program cannot be loaded: {error}",
        hint="free memory and look at `ulimit -v`; where that is not it, install medlocal again",
    )


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: whoever ends the program so wants no half files left either."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reader_gone() -> int:
    """Whoever read our output has gone (`medlocal report | head`): that is no failure of ours."""
    sys.stdout = sys.__stdout__
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
