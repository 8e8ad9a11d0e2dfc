"""`medlocal imatrix`: which weights matter for a user's own text, before quantising."""

import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocal.cli.console import (
    AsJson,
    narrate,
    print_facts,
    print_json,
    settings,
    transfer_bar,
)
from medlocal.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from medlocal.weights.imatrix import Collected, ImatrixProgress, ImatrixRequest

_LINE_SECONDS = 15.0
"""Between two lines of progress where stderr is no terminal."""
_MOST_NAMES = 8
"""Weights named in the report; the JSON names all."""


def imatrix(
    model: Annotated[
        str, typer.Argument(metavar="GGUF", help="Path to a GGUF, or id of a model card.")
    ],
    text: Annotated[
        list[str],
        typer.Option(
            "--text",
            help="A file of UTF-8 text, or a folder of .txt files, with its language before it: "
            "en:notes.txt. May be repeated; the language may be left out.",
        ),
    ],
    share: Annotated[
        list[str] | None,
        typer.Option(
            "--share",
            help="A language's share of the chunks, as es=0.5 or es=1/3; may be repeated. Languages "
            "without one divide the rest equally: by default all have the same share.",
        ),
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(help="Chunks at most; default: all that the text gives.")
    ] = None,
    chunk_tokens: Annotated[int, typer.Option(help="Tokens per chunk.")] = 512,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where to; default: NAME.imatrix.gguf in this folder."),
    ] = None,
    save_every: Annotated[int, typer.Option(help="Chunks between two checkpoints.")] = 200,
    with_output: Annotated[
        bool,
        typer.Option(
            "--with-output", help="Include the output matrix; llama.cpp's tool leaves it out."
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; default: what the settings say.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute an importance matrix from your own text, to quantise with.

    Languages are interleaved in their shares. The computation is on the GPU where there is one. It is
    kept every few hundred chunks: the same command carries on with it. The file is of llama.cpp's
    form, and its tools read it.

    Example: medlocal imatrix model.gguf --text en:notes_en.txt --text es:notas/ -o model.imatrix.gguf
    """
    from medlocal.hub import find_model
    from medlocal.weights.corpus import corpus_part
    from medlocal.weights.gate import admit
    from medlocal.weights.imatrix import ImatrixRequest, check_request, collect

    here = settings()
    path = find_model(model, here)
    parts, shares = tuple(map(corpus_part, text)), _shares(share or [])
    languages = list(dict.fromkeys(part.language or "the rest" for part in parts))
    if len(languages) > 1 and not shares:
        narrate(
            f"{' and '.join(languages)} have equal shares of the chunks; --share says otherwise"
        )
    if threads is not None and threads < 1:
        raise UsageError("--threads must be at least 1", hint="leave it out to use every core")
    request = ImatrixRequest(
        model=path,
        parts=parts,
        out=out or Path(f"{path.stem}.imatrix.gguf"),
        num_threads=threads or here.num_threads,
        shares=shares,
        chunk_tokens=chunk_tokens,
        max_chunks=chunks,
        save_every=save_every,
        with_output=with_output,
    )
    check_request(request)
    with transfer_bar() as progress:
        request = replace(request, model_sha256=admit(path, here, progress).sha256)
    try:
        with _watching(chunk_tokens) as (show, should_stop):
            collected = collect(request, show, should_stop)
    except Interrupted as stop:
        raise Interrupted(stop.message, hint=f"carry on: {_command(request)}") from stop
    _report(request, collected, as_json=as_json)


def _shares(texts: list[str]) -> dict[str, Fraction]:
    from medlocal.weights.corpus import language_code

    shares: dict[str, Fraction] = {}
    for text in texts:
        language, _, number = text.rpartition("=")
        language = language_code(language)
        try:
            share = Fraction(number)
        except (ValueError, ZeroDivisionError) as error:
            raise UsageError(
                f"--share {text!r} is no share", hint="write it as es=0.5 or es=1/3"
            ) from error
        if language in shares:
            raise UsageError(f"the share of {language} is stated twice", hint="state it once")
        shares[language] = share
    return shares


def _command(request: "ImatrixRequest") -> str:
    """The command that carries on, whatever the defaults were."""
    words = ["medlocal", "imatrix", str(request.model)]
    for part in request.parts:
        words += ["--text", f"{part.language}:{part.path}".lstrip(":")]
    for language, share in request.shares.items():
        words += ["--share", f"{language}={share}"]
    if request.max_chunks is not None:
        words += ["--chunks", str(request.max_chunks)]
    words += ["--chunk-tokens", str(request.chunk_tokens), "-o", str(request.out)]
    words += ["--save-every", str(request.save_every), "--threads", str(request.num_threads)]
    return shlex.join([*words, "--with-output"] if request.with_output else words)


@contextmanager
def _watching(
    chunk_tokens: int,
) -> "Iterator[tuple[Callable[[ImatrixProgress], None], Callable[[], bool]]]":
    """Show progress on stderr, and turn Ctrl-C into a clean stop; a second one stops at once."""
    stops: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if stops:
            raise KeyboardInterrupt
        stops.append(number)
        narrate("\nstopping after this chunk; what was computed is kept (again to stop at once)")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _live(chunk_tokens) as show:
            yield show, lambda: bool(stops)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _live(chunk_tokens: int) -> "Iterator[Callable[[ImatrixProgress], None]]":
    if not sys.stderr.isatty():
        yield _Lines(chunk_tokens)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("loading")

        def show(progress: "ImatrixProgress") -> None:
            line = describe(progress, chunk_tokens)
            bars.update(task, total=progress.total, completed=progress.done, description=line)

        yield show


class _Lines:
    """Progress where stderr is a file or a pipe: a line now and then."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        self._last = float("-inf")

    def __call__(self, progress: "ImatrixProgress") -> None:
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS or progress.done == progress.total:
            self._last = now
            narrate(describe(progress, self._chunk_tokens))


def describe(progress: "ImatrixProgress", chunk_tokens: int) -> str:
    """One line: chunks done and total, tokens/s, time left."""
    parts = [f"chunk {progress.done:,}/{progress.total:,}"]
    if progress.num_tokens:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if left := progress.seconds_left(chunk_tokens):
        parts.append(f"{_clock(left)} left")
    return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _report(request: "ImatrixRequest", collected: "Collected", *, as_json: bool) -> None:
    if as_json:
        print_json(to_json(request, collected))
        return
    matrix = collected.importance
    facts: dict[str, object] = {
        "importance matrix": collected.path,
        "chunks": f"{matrix.num_chunks:,} of {matrix.chunk_size:,} tokens",
    }
    if collected.resumed_at:
        facts["carried on from"] = f"chunk {collected.resumed_at:,}"
    for language, num_tokens in collected.num_tokens.items():
        share = float(matrix.shares[language])
        facts[f"text {language}".strip()] = f"{num_tokens:,} tokens, share {share:.3g}"
    facts["text sha256"] = matrix.corpus_sha256
    facts["weights"] = f"{len(matrix.entries):,}"
    if matrix.never_used:
        parts = [f"{name} ({count})" for name, count in matrix.never_used.items()]
        facts["experts never used"] = _shortened(parts)
    if collected.without_entry:
        facts["weights without entry"] = _shortened(collected.without_entry)
    print_facts(facts)
    _tell_limits(collected)


def _tell_limits(collected: "Collected") -> None:
    if collected.limited_by is None:
        return
    left = {name: n for name, n in collected.unused_chunks.items() if n}
    narrate(
        f"note: the {collected.limited_by} text ended first, so to keep the shares "
        + ", ".join(f"{n:,} chunks of {name or 'the other text'}" for name, n in left.items())
        + " were not used"
    )


def _shortened(names: "list[str] | tuple[str, ...]") -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def to_json(request: "ImatrixRequest", collected: "Collected") -> dict[str, Any]:
    """All that is known of a computed matrix, for programs."""
    matrix = collected.importance
    return {
        "path": str(collected.path),
        "model_sha256": request.model_sha256,
        "corpus_sha256": matrix.corpus_sha256,
        "chunks": matrix.num_chunks,
        "chunk_tokens": matrix.chunk_size,
        "resumed_at": collected.resumed_at,
        "shares": {name: float(share) for name, share in matrix.shares.items()},
        "tokens": dict(collected.num_tokens),
        "unused_chunks": dict(collected.unused_chunks),
        "limited_by": collected.limited_by,
        "weights": len(matrix.entries),
        "never_used": dict(matrix.never_used),
        "without_entry": list(collected.without_entry),
        "seconds": round(collected.seconds, 3),
    }
