"""Is a file that was just converted what the checkpoint is? Tried before it gets its name.

llama.cpp loads it, must know as many tokens as the checkpoint, begin and end where it does, cut
clinical sentences in English and Spanish exactly as the checkpoint's own tokenizer does and put them
together again, and compute finite numbers for one of them. It runs in a child process: llama.cpp is
C++ that answers some broken files by ending the process, and the memory of a loaded model is gone
with the child.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medlocal.errors import MedlocalError, RefusedError
from medlocal.weights.header import shown

_MOST_TOLD = 3
_NOT_FINITE = "it computes numbers that are not finite for an ordinary sentence"
_SAY_SO = (
    "this is medlocal's fault or an unknown kind of checkpoint: please report it with the message"
)

Encode = Callable[[str], Sequence[int]]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a converted file must show."""

    folder: Path
    """Of the checkpoint, for its tokenizer."""
    num_vocab: int
    """Tokens, padding included."""
    is_sentencepiece: bool
    special_ids: Mapping[str, int]
    """"bos", "eos", "eot", … as far as the checkpoint has them."""
    ends: tuple[int, ...]
    """Tokens that end a generation."""
    forced_pre: str | None = None
    """The pre-tokenizer, where the user named it; None = it was recognised."""


def check_converted(path: Path, expected: Expected, num_threads: int) -> None:
    """Try a file in a child process.

    Raises:
        RefusedError: it is not what it should be; the message says in what.
    """
    request = dataclasses.asdict(expected) | {"path": str(path), "folder": str(expected.folder)}
    command = [sys.executable, "-P", "-m", __name__]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
        "CUDA_VISIBLE_DEVICES": "",  # a processor tells as much, and is always there
        "GGML_NO_BACKTRACE": "1",
    }
    done = subprocess.run(
        command,
        input=json.dumps(request | {"num_threads": num_threads}).encode(),
        env=environment,
        capture_output=True,
        check=False,
    )
    told = _differences_told(done)
    if told == [_NOT_FINITE]:
        # Every weight is a finite number, and the file holds them: they are what is wrong.
        raise RefusedError(
            f"{expected.folder}: with these weights llama.cpp computes numbers that are not finite"
            " for an ordinary sentence; the converted file was removed",
            hint="the checkpoint is damaged, or its weights are too large to compute with: get it"
            " again, or ask its maker",
        )
    if told:
        more = f" (and {len(told) - _MOST_TOLD} more)" if told[_MOST_TOLD:] else ""
        raise RefusedError(
            f"the converted file is not what the checkpoint is, and was removed:"
            f" {'; '.join(told[:_MOST_TOLD])}{more}",
            hint=_SAY_SO
            if expected.forced_pre is None
            else f"the tokenizer is not {expected.forced_pre}'s: name another one, or leave it out",
        )


def _differences_told(done: "subprocess.CompletedProcess[bytes]") -> list[str]:
    words = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
    if done.returncode == -signal.SIGKILL:
        raise MedlocalError(
            "the trial of the converted file was killed",
            hint="most likely memory ran out: free some and do the same again",
        )
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return [f"llama.cpp ended with {name} while it was tried: {words}"]
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise MedlocalError(
            f"the converted file could not be tried (exit code {done.returncode}): {words}",
            hint="`medlocal doctor` says whether llama.cpp can be loaded at all",
        ) from error
    return [str(difference) for difference in told]


def differences(path: Path, expected: Expected, num_threads: int) -> Iterator[str]:
    """Load a file here, and say in what it differs from what it should be."""
    from medlocal.libllama import LlamaModel

    try:
        model = LlamaModel(path, repack=False, gpu_layers=0)
    except RefusedError as error:
        yield error.message
        return
    with model:
        if model.num_vocab != expected.num_vocab:
            yield f"it has {model.num_vocab:,} tokens and not {expected.num_vocab:,}"
        yield from _special_differences(model, expected)
        yield from _token_differences(model, expected)
        yield from _number_differences(model, num_threads)


def _special_differences(model: Any, expected: Expected) -> Iterator[str]:
    from medlocal.libllama import library

    lib = library()
    vocabulary = lib.llama_model_get_vocab(model.handle)
    for name in ("bos", "eos", "eot"):
        found = int(getattr(lib, f"llama_vocab_{name}")(vocabulary))
        if (wanted := expected.special_ids.get(name)) is not None and found != wanted:
            yield f"its {name.upper()} is token {found} and not {wanted}"
    if missing := sorted(set(expected.ends) - model.ends):
        yield f"the checkpoint ends at token {missing[0]}, and it does not"


def _token_differences(model: Any, expected: Expected) -> Iterator[str]:
    """Sentences that are cut otherwise than by the checkpoint's own tokenizer, or come out changed."""
    from medlocal.weights.sentences import SENTENCES

    encode, decode = _original(expected)
    for text in SENTENCES:
        ours, theirs = model.tokenize(text.encode()), list(encode(text))
        if ours != theirs:
            place = next(
                (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                min(len(ours), len(theirs)),
            )
            yield (
                f"{shown(text)} becomes {ours[place : place + 4]} at its token {place}, and"
                f" {theirs[place : place + 4]} in the checkpoint's own tokenizer"
            )
        elif model.detokenize(ours) != text == decode(theirs):
            yield f"{shown(text)} comes back as {shown(model.detokenize(ours))}"


def _original(expected: Expected) -> tuple[Encode, Decode]:
    """The checkpoint's own tokenizer, without the tokens that it would add around a text."""
    model_file, json_file = (
        expected.folder / name for name in ("tokenizer.model", "tokenizer.json")
    )
    if expected.is_sentencepiece and model_file.is_file():
        from sentencepiece import SentencePieceProcessor

        pieces = SentencePieceProcessor(model_file=str(model_file))
        return pieces.encode, lambda ids: str(pieces.decode(list(ids)))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(json_file))
    return (
        lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
        lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False)),
    )


def _number_differences(model: Any, num_threads: int) -> Iterator[str]:
    from medlocal.weights.forward import Forward, ForwardOptions
    from medlocal.weights.sentences import SENTENCES

    tokens = model.tokenize(SENTENCES[0].encode())[:32]
    if model.bos is not None:
        tokens = [model.bos, *tokens]
    with Forward(model, ForwardOptions(len(tokens), num_threads)) as forward:
        for _, logits in forward.blocks(tokens, 0):
            if not np.isfinite(logits).all():
                yield _NOT_FINITE
                return


def main() -> None:
    """What the child does: read what is expected from stdin, print what differs as JSON."""
    request = json.load(sys.stdin)
    path, num_threads = Path(request.pop("path")), request.pop("num_threads")
    request["folder"] = Path(request["folder"])
    request["ends"] = tuple(request["ends"])
    print(json.dumps(list(differences(path, Expected(**request), num_threads))))  # noqa: T201


if __name__ == "__main__":
    main()
