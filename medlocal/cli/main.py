"""The command `medlocal`: its subcommands, and how errors leave the program."""

import os
import sys
from typing import Annotated, Any

import typer

from medlocal import __version__
from medlocal.cli import (
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
    regrading,
    results,
    running,
)
from medlocal.cli.console import narrate
from medlocal.errors import MedlocalError

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
        code = app(args=arguments, prog_name="medlocal", standalone_mode=False)
        sys.stdout.flush()
    except MedlocalError as error:
        narrate(f"error: {error}" if error.exit_code != 130 else str(error))
        return error.exit_code
    except _ClickException as error:
        error.show()
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        narrate("stopped")
        return 130
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as leaving:
        # Typer ends the program with 1 when the pipe breaks, and with its code for --help.
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":
            return _reader_gone()
        return leaving.code if isinstance(leaving.code, int) else 1
    return code if isinstance(code, int) else 0


def _reader_gone() -> int:
    """Whoever read our output has gone (`medlocal report | head`): that is no failure of ours."""
    sys.stdout = sys.__stdout__
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
