"""llama.cpp's quantiser in its child process."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medlocal.errors import MedlocalError
from medlocal.weights.inspect import read_gguf
from medlocal.weights.quantizer import Job, Quantizer
from tests.weights.float_llama import MODELS, write_float_llama

Q4_K_M, IQ3_XXS = 15, 23


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_float_llama(tmp_path_factory.mktemp("plain") / "plain.gguf", MODELS["plain"])


def job(source: Path, target: Path | None, recipe: int = Q4_K_M) -> Job:
    return Job(str(source), str(target or ""), recipe, num_threads=1, max_buffer_bytes=2**30)


def ignore(_level: int, _piece: str) -> None:
    pass


def test_a_job_makes_a_file_and_its_log_is_heard(plain: Path, tmp_path: Path) -> None:
    pieces: list[str] = []
    with Quantizer() as quantizer:
        quantizer.run(job(plain, tmp_path / "out.gguf"), lambda _, piece: pieces.append(piece))
    assert read_gguf(tmp_path / "out.gguf").file_type == "Q4_K_M"
    begun = [piece for piece in pieces if piece.startswith("[")]
    assert len(begun) == len(MODELS["plain"].shapes())
    assert begun[0].startswith("[   1/  21] output.weight ")


def test_a_dry_run_writes_nothing(plain: Path, tmp_path: Path) -> None:
    with Quantizer() as quantizer:
        quantizer.run(job(plain, None), ignore)
    assert list(tmp_path.iterdir()) == []


def test_metadata_is_set_as_text_and_as_numbers(plain: Path, tmp_path: Path) -> None:
    entries = (("medlocal.source", "ñ" * 63), ("quantize.imatrix.chunks_count", 88))
    with Quantizer() as quantizer:
        made = dataclasses.replace(job(plain, tmp_path / "out.gguf"), entries=entries)
        quantizer.run(made, ignore)
    metadata = read_gguf(tmp_path / "out.gguf").metadata
    assert {key: metadata[key] for key, _ in entries} == dict(entries)


def test_what_llama_cpp_refuses_is_told_in_its_words(plain: Path, tmp_path: Path) -> None:
    with Quantizer() as quantizer:
        with pytest.raises(MedlocalError, match="requires an importance matrix"):
            quantizer.run(job(plain, tmp_path / "out.gguf", IQ3_XXS), ignore)
        quantizer.run(job(plain, None), ignore)  # and the child does the next job


def test_a_tensor_with_nan_is_refused_by_name(tmp_path: Path) -> None:
    path = write_float_llama(tmp_path / "nan.gguf", MODELS["plain"])
    offset = next(t.offset for t in read_gguf(path).tensors if t.name == "blk.1.ffn_up.weight")
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(np.float32("nan").tobytes())
    with Quantizer() as quantizer, pytest.raises(MedlocalError, match=r"blk\.1\.ffn_up\.weight"):
        quantizer.run(job(path, tmp_path / "out.gguf"), ignore)


def test_a_child_that_is_killed_is_told_as_such(plain: Path, tmp_path: Path) -> None:
    with Quantizer() as quantizer:
        os.kill(quantizer.process_id, signal.SIGKILL)
        with pytest.raises(MedlocalError, match="was killed: most likely the memory ran out"):
            quantizer.run(job(plain, tmp_path / "out.gguf"), ignore)


def test_an_assertion_of_llama_cpp_ends_the_child_and_not_this_process(
    plain: Path, tmp_path: Path
) -> None:
    q8_k = 15  # activations only: nothing quantises weights to it
    wrong = dataclasses.replace(job(plain, tmp_path / "out.gguf"), keep=(("attn_q", q8_k),))
    with Quantizer() as quantizer, pytest.raises(MedlocalError, match=r"SIGABRT.*GGML_ASSERT"):
        quantizer.run(wrong, ignore)


def test_what_the_listener_raises_ends_the_child(plain: Path, tmp_path: Path) -> None:
    def stop(_level: int, piece: str) -> None:
        if piece.startswith("["):
            raise KeyboardInterrupt

    with Quantizer() as quantizer:
        with pytest.raises(KeyboardInterrupt):
            quantizer.run(job(plain, tmp_path / "out.gguf"), stop)
        with pytest.raises(ProcessLookupError):
            os.kill(quantizer.process_id, 0)


def test_the_child_ends_in_the_midst_of_its_work_when_its_parent_does(tmp_path: Path) -> None:
    model = MODELS["grouped"]
    source = write_float_llama(tmp_path / "source.gguf", model)
    matrix = model.write_importance(tmp_path / "matrix.gguf")
    long = dataclasses.replace(job(source, tmp_path / "out.gguf", IQ3_XXS), imatrix=str(matrix))
    command = [sys.executable, "-m", "medlocal.weights.quantizer"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(dataclasses.asdict(long)).encode() + b"\n")
        child.stdin.flush()
        assert b"loaded meta data" in child.stdout.readline()
        child.stdin.close()  # as the system does for a parent that is gone
        rest = child.stdout.read()
        assert child.wait(60) == 1
    assert b'"failed"' not in rest
