"""`convert` against llama.cpp's own converter and transformers, and on checkpoints that are not sound."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medlocal.errors import MedlocalError, MissingError, RefusedError, UsageError
from medlocal.files import Progress, no_progress
from medlocal.libllama import LlamaModel
from medlocal.weights import convert as convert_module
from medlocal.weights.convert import Converted, ConvertRequest, convert
from medlocal.weights.forward import Forward, ForwardOptions
from medlocal.weights.inspect import read_gguf
from medlocal.weights.provenance import read_provenance
from medlocal.weights.source import CheckpointSource
from tests.weights.gguf_summary import summarise
from tests.weights.tiny_checkpoints import (
    BY_NAME,
    DATA,
    RECIPES,
    make,
    probe_tokens,
    weights,
    write_json,
    write_weights,
)
from tools.golden_conversions import COMPUTED, POSITIONS

GOLDEN = json.loads((DATA / "golden.json").read_text(encoding="utf-8"))
TYPES = ("f32", "f16", "bf16", "q8_0", "auto")
MISTRAL, LLAMA31, PIECES = "Tiny-Mistral-7B-v0.1", "Tiny-Llama-3.1-8B-Instruct", "tiny-linear-rope"
OURS = {"medlocal.version", "medlocal.source", "medlocal.source.sha256"}
"""Keys that llama.cpp's converter does not write: where the file comes from."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every checkpoint, to be read only."""
    root = tmp_path_factory.mktemp("checkpoints")
    for recipe in RECIPES:
        make(recipe, root)
    return root


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """One sound checkpoint of the test's own, for it to damage."""
    return make(BY_NAME[PIECES], tmp_path)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the trial, a child process of a second: tests of the bytes need it not."""
    monkeypatch.setattr(convert_module, "check_converted", lambda *_: None)


def source(folder: Path) -> CheckpointSource:
    return CheckpointSource(folder, folder.name, folder.name)


def converted(folder: Path, out: Path, kind: str = "auto", **options: Any) -> Converted:
    return convert(ConvertRequest(source(folder), out, kind, **options))


def nothing_is_left(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if "gguf" in path.name]


# The oracles.


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", BY_NAME)
def test_tensors_and_keys_are_those_of_llama_cpps_converter(
    name: str, kind: str, checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    out = tmp_path / "out.gguf"
    converted(checkpoints / name, out, kind)
    found, expected = json.loads(json.dumps(summarise(out))), GOLDEN[name][kind]
    assert found["tensors"] == expected["tensors"]
    assert [key for key in found["keys"] if key[0] not in OURS] == expected["keys"]
    assert {key[0] for key in found["keys"]} >= OURS


def test_the_golden_values_hold_every_checkpoint_and_type() -> None:
    assert {name: tuple(kinds) for name, kinds in GOLDEN.items()} == dict.fromkeys(BY_NAME, TYPES)


def compute(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    """The logits of all positions, (positions, vocabulary), everything in single precision."""

    class SinglePrecision(Forward):
        def _params(self) -> Any:
            params = super()._params()
            params.type_k = params.type_v = 0  # F32; a cache in halves alone costs 0.01
            params.flash_attn_type = 0
            return params

    with (
        LlamaModel(path, repack=False, gpu_layers=0) as model,
        SinglePrecision(model, ForwardOptions(256, 2)) as forward,
    ):
        return np.concatenate([block.copy() for _, block in forward.blocks(tokens, 0)])


@pytest.mark.parametrize("name", COMPUTED)
def test_logits_are_those_of_transformers(
    name: str, checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    converted(checkpoints / name, tmp_path / "out.gguf", "f32")
    logits = compute(tmp_path / "out.gguf", probe_tokens(BY_NAME[name], COMPUTED[name]))
    positions = [position for position in POSITIONS if position < COMPUTED[name]]
    expected = np.load(DATA / "logits.npz")[name]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits[positions], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [LLAMA31, "tiny-llama-3.2-tied", "tiny-linear-rope"])
def test_stretched_positions_are_what_the_logits_depend_on(
    name: str, tmp_path: Path, untried: None
) -> None:
    recipe = BY_NAME[name]
    plain = {key: value for key, value in recipe.config.items() if key != "rope_scaling"}
    converted(make(replace(recipe, config=plain), tmp_path), tmp_path / "out.gguf", "f32")
    logits = compute(tmp_path / "out.gguf", probe_tokens(recipe, COMPUTED[name]))
    positions = [position for position in POSITIONS if position < COMPUTED[name]]
    differences = np.abs(logits[positions] - np.load(DATA / "logits.npz")[name]).max(axis=1)
    assert (differences[2:] > 0.02).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_every_checkpoint_passes_its_trial(name: str, checkpoints: Path, tmp_path: Path) -> None:
    made = converted(checkpoints / name, tmp_path / "out.gguf")
    assert made.path.is_file()


# What comes out.


def test_the_result_says_what_the_file_is(checkpoints: Path, tmp_path: Path, untried: None) -> None:
    made = converted(checkpoints / LLAMA31, tmp_path / "out.gguf", "q8_0")
    info = read_gguf(made.path)
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert made.size == made.path.stat().st_size == info.size
    assert made.num_parameters == info.num_parameters
    assert (made.architecture, made.type, made.num_vocab) == ("llama", "q8_0", 400)
    assert (made.pre, made.licence, made.languages) == ("llama-bpe", "llama3.1", ("es", "en"))
    assert info.chat_template is not None
    assert made.template_sha256 == hashlib.sha256(info.chat_template.encode()).hexdigest()


def test_the_file_says_where_it_comes_from(
    checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    folder = checkpoints / "tiny-sharded"
    origin = CheckpointSource(folder, "Tiny", "owner/tiny", "0123abc")
    made = convert(ConvertRequest(origin, tmp_path / "out.gguf"))
    provenance = read_provenance(read_gguf(made.path))
    lines = sorted(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in folder.glob("*.safetensors")
    )
    assert provenance.source_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (provenance.source, provenance.revision) == ("owner/tiny", "0123abc")
    assert (provenance.version, provenance.parent_sha256) == ("0.1.0", "")


def test_in_a_folder_the_file_is_named_by_model_and_type(
    checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    made = converted(checkpoints / LLAMA31, tmp_path, "bf16")
    assert made.path == tmp_path / "Tiny-Llama-3.1-113K-8b-Instruct-BF16.gguf"


def test_a_name_from_the_card_does_not_lead_out_of_the_folder(
    damaged: Path, tmp_path: Path, untried: None
) -> None:
    (damaged / "README.md").write_text("---\nmodel_name: ../../escaped\n---\n", encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    assert converted(damaged, out).path.parent == out


def test_auto_is_f16_where_the_weights_are_in_single_precision(
    checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    assert converted(checkpoints / "tiny-biases", tmp_path / "out.gguf").type == "f16"


def test_the_threads_do_not_change_the_bytes(
    checkpoints: Path, tmp_path: Path, untried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medlocal.weights.streaming._BLOCK_ELEMENTS", 700)
    made = [
        converted(checkpoints / LLAMA31, tmp_path / f"{number}.gguf", "q8_0", num_threads=number)
        for number in (1, 3, 8)
    ]
    assert len({one.sha256 for one in made}) == 1
    whole = summarise(made[0].path)["tensors"]
    assert json.loads(json.dumps(whole)) == GOLDEN[LLAMA31]["q8_0"]["tensors"]


def test_progress_counts_the_bytes_of_the_file(
    checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    told: list[tuple[str, int, int | None]] = []
    request = ConvertRequest(source(checkpoints / MISTRAL), tmp_path / "out.gguf")
    made = convert(request, lambda *values: told.append(values))
    written = [(done, total) for what, done, total in told if what == "writing out.gguf"]
    assert written[-1] == (made.size, made.size)
    assert [done for done, _ in written] == sorted(done for done, _ in written)


def test_a_window_that_llama_cpp_does_not_know_is_told(
    checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    (note,) = converted(checkpoints / MISTRAL, tmp_path / "out.gguf").notes
    assert "its last 32 tokens only" in note


def test_an_output_that_is_tied_and_there_is_told(
    checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    (note,) = converted(checkpoints / "tiny-tied-with-output", tmp_path / "out.gguf").notes
    assert "ties its output" in note


def test_a_broken_card_is_done_without(damaged: Path, tmp_path: Path, untried: None) -> None:
    (damaged / "README.md").write_text("---\nlicense: [mit\n---\n", encoding="utf-8")
    made = converted(damaged, tmp_path / "out.gguf")
    assert made.name == "Tiny Linear Rope"
    assert any("front matter" in note for note in made.notes)


def test_a_card_with_values_of_the_wrong_kinds_is_written_as_text(
    damaged: Path, tmp_path: Path, untried: None
) -> None:
    card = (
        "---\nversion: 1.0\nlicense: [mit, 7]\ntags: [1, null, a]\nlanguage: [no, es]\n"
        "base_model: [7, {name: 3}]\nname: 2024-01-01\n---\n"
    )
    (damaged / "README.md").write_text(card, encoding="utf-8")
    write_json(damaged / "generation_config.json", {"temperature": "hot", "top_k": 2**40})
    made = converted(damaged, tmp_path / "out.gguf")
    keys = read_gguf(made.path).metadata
    assert (keys["general.version"], keys["general.name"]) == ("1.0", "2024-01-01")
    assert keys["general.license"] == "mit,7"
    assert keys["general.tags"] == ("1", "a")
    assert "general.sampling.temp" not in keys


def test_a_licence_called_other_is_told_by_its_name(
    damaged: Path, tmp_path: Path, untried: None
) -> None:
    card = "---\nlicense: other\nlicense_name: llama3\n---\n"
    (damaged / "README.md").write_text(card, encoding="utf-8")
    assert converted(damaged, tmp_path / "out.gguf").licence == "llama3"


# What is not sound.


def refused(folder: Path, out: Path, kind: str = "auto", error: Any = RefusedError) -> str:
    with pytest.raises(error) as caught:
        converted(folder, out / "out.gguf", kind)
    assert nothing_is_left(out)
    assert caught.value.hint
    return str(caught.value.message)


def store(folder: Path, change: Callable[[dict[str, Any]], None], kind: str = "F32") -> None:
    """Write the weights again, changed."""
    tensors: dict[str, Any] = dict(weights(BY_NAME[PIECES]))
    change(tensors)
    write_weights(folder, tensors, kind)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_weight_that_is_no_number_is_named_with_its_place(
    damaged: Path, tmp_path: Path, value: str, kind: str
) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"

    def spoil(tensors: dict[str, Any]) -> None:
        tensors[name][37, 5] = float(value)

    store(damaged, spoil, "BF16")
    message = refused(damaged, tmp_path, kind)
    assert f"the tensor '{name}' holds {value} at [37, 5], which is no weight" in message


def test_a_weight_that_halves_cannot_hold_is_named(damaged: Path, tmp_path: Path) -> None:
    def enlarge(tensors: dict[str, Any]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][1, 2] = 1e6

    store(damaged, enlarge)
    message = refused(damaged, tmp_path, "f16")
    assert "'model.layers.0.mlp.up_proj.weight' holds 1e+06 at [1, 2], which f16" in message
    assert converted(damaged, tmp_path / "out.gguf", "bf16").type == "bf16"


def test_the_place_in_a_row_of_numbers_has_one_index(damaged: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors["model.norm.weight"][3] = np.nan

    store(damaged, spoil)
    assert "'model.norm.weight' holds nan at [3]" in refused(damaged, tmp_path)


def test_a_missing_tensor_is_named(damaged: Path, tmp_path: Path) -> None:
    store(damaged, lambda tensors: tensors.__delitem__("lm_head.weight"))
    assert "'lm_head.weight'" in refused(damaged, tmp_path)


def test_a_tensor_of_the_wrong_shape_is_named(damaged: Path, tmp_path: Path) -> None:
    def cut(tensors: dict[str, Any]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1]

    store(damaged, cut)
    message = refused(damaged, tmp_path)
    assert "'model.norm.weight' has the shape (63,), and the configuration says (64,)" in message


def test_integers_are_not_taken_for_weights(damaged: Path, tmp_path: Path) -> None:
    path = damaged / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"BF16"', b'"I16" ', 1))
    assert "is of type I16" in refused(damaged, tmp_path)


def test_an_unknown_architecture_is_refused_with_the_known_ones(
    damaged: Path, tmp_path: Path
) -> None:
    write_json(damaged / "config.json", {"architectures": ["FalconForCausalLM"]})
    message = refused(damaged, tmp_path)
    assert "'FalconForCausalLM'; known are LlamaForCausalLM and MistralForCausalLM" in message


def test_a_checkpoint_without_a_tokenizer_is_refused(damaged: Path, tmp_path: Path) -> None:
    (damaged / "tokenizer.model").unlink()
    assert "tokenizer" in refused(damaged, tmp_path, error=MissingError)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "tokenizer.model"])
def test_a_tokenizer_that_cannot_be_read_is_named(damaged: Path, tmp_path: Path, name: str) -> None:
    (damaged / name).unlink(missing_ok=True)
    (damaged / name).symlink_to("/proc/self/mem")  # whose first byte nobody can read
    with pytest.raises(MedlocalError) as caught:
        converted(damaged, tmp_path / "out.gguf")
    assert caught.value.message == f"{damaged / name}: Input/output error"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 0}, "/config.json: num_hidden_layers is 0"),
        ({"hidden_size": 128}, ": the tensor 'lm_head.weight' has the shape"),
    ],
)
def test_what_contradicts_itself_is_told_with_its_folder(
    damaged: Path, tmp_path: Path, change: dict[str, int], message: str
) -> None:
    config = json.loads((damaged / "config.json").read_bytes())
    write_json(damaged / "config.json", config | change)
    assert refused(damaged, tmp_path).startswith(f"{damaged}{message}")


def test_a_chat_template_that_fails_is_told(damaged: Path, tmp_path: Path, untried: None) -> None:
    config = json.loads((damaged / "tokenizer_config.json").read_bytes())
    write_json(damaged / "tokenizer_config.json", config | {"chat_template": "\n{% for"})
    (note,) = converted(damaged, tmp_path / "out.gguf").notes
    assert note.startswith(f"the chat template of {damaged} fails in line 2: ")
    assert note.endswith("; `medlocal run` will not ask the model in chat form")


def test_a_conversion_that_is_stopped_in_its_trial_does_not_wait_for_the_checksum(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = Event(), []

    def hash_for_long(path: Path, progress: Progress | None = None, _cache: object = None) -> str:
        if path.suffix == ".part":
            began.set()
            for _ in range(200):
                Event().wait(0.01)
                (progress or no_progress)("checking", 0, None)
            ended.append(path)
        return ""

    def stop(*_: object) -> None:
        assert began.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(convert_module, "file_sha256", hash_for_long)
    monkeypatch.setattr(convert_module, "check_converted", stop)
    with pytest.raises(KeyboardInterrupt):
        converted(damaged, tmp_path / "out.gguf")
    assert ended == []
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("kind", ["q4_0", "Q8_0 ", "float16", ""])
def test_an_unknown_type_is_refused(damaged: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match="cannot be converted to") as caught:
        converted(damaged, tmp_path / "out.gguf", kind)
    assert "f32, f16, q8_0, bf16 or auto" in str(caught.value.hint)


def test_a_file_that_is_there_is_replaced_only_where_it_is_wanted(
    damaged: Path, tmp_path: Path, untried: None
) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"another")
    with pytest.raises(UsageError, match="is there already"):
        converted(damaged, out)
    assert out.read_bytes() == b"another"
    converted(damaged, out, replace=True)
    assert out.read_bytes().startswith(b"GGUF")


@pytest.mark.parametrize("name", ["out", "out.bin", "nowhere/out.gguf"])
def test_a_place_that_cannot_be_meant_is_refused(damaged: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        converted(damaged, tmp_path / name)
    assert caught.value.hint


def test_a_refusal_does_not_wait_for_the_checksum(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(damaged / "config.json", {"architectures": ["FalconForCausalLM"]})
    asked: list[Path] = []

    def hash_for_ever(path: Path, progress: Progress, _cache: object) -> str:
        asked.append(path)
        while True:  # until the progress says that nobody waits any more
            progress("checking", 0, None)

    monkeypatch.setattr(convert_module, "file_sha256", hash_for_ever)
    assert "FalconForCausalLM" in refused(damaged, tmp_path)
    assert asked == [damaged / "model.safetensors"]


def test_a_disk_that_is_full_before_is_told_with_the_bytes_needed(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    message = refused(damaged, tmp_path, "f32", error=MedlocalError)
    num_bytes = 4 * sum(tensor.size for tensor in weights(BY_NAME[PIECES]).values())
    assert f"is full: {num_bytes:,} bytes are needed, and 1,000 are free" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_disk_that_fills_up_is_told(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def full(path: Path) -> Iterator[Any]:
        with open("/dev/full", "wb", buffering=0) as stream:
            yield stream

    monkeypatch.setattr(convert_module, "publish", full)
    assert "is full" in refused(damaged, tmp_path, error=MedlocalError)


def test_another_trouble_with_the_disk_is_told_in_the_systems_words(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "out.gguf")

    monkeypatch.setattr(convert_module, "publish", fail)
    with pytest.raises(MedlocalError, match=r"out\.gguf: Input/output error"):
        converted(damaged, tmp_path / "out.gguf")


def test_memory_that_runs_out_is_told(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise MemoryError

    monkeypatch.setattr("medlocal.weights.streaming.cast", fail)
    assert "not enough memory" in refused(damaged, tmp_path, error=MedlocalError)


def test_an_interrupted_conversion_leaves_nothing(damaged: Path, tmp_path: Path) -> None:
    def stop(description: str, done: int, total: int | None) -> None:
        if description.startswith("writing") and done > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(ConvertRequest(source(damaged), tmp_path / "out.gguf"), stop)
    assert nothing_is_left(tmp_path)


def test_a_killed_conversion_leaves_no_file_under_its_name(damaged: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from medlocal.weights.convert import ConvertRequest, convert\n"
        "from medlocal.weights.source import CheckpointSource\n"
        "def kill(description, done, total):\n"
        "    if description.startswith('writing') and done > 10_000:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder = Path(sys.argv[1])\n"
        "convert(ConvertRequest(CheckpointSource(folder, 'x', 'x'), Path(sys.argv[2])), kill)\n"
    )
    out = tmp_path / "out.gguf"
    done = subprocess.run([sys.executable, "-c", program, damaged, out], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()


def test_what_a_killed_conversion_left_is_told(
    damaged: Path, tmp_path: Path, untried: None
) -> None:
    left = tmp_path / ".out.gguf.0123abcd.part"
    left.write_bytes(b"GGUF")
    (note,) = converted(damaged, tmp_path / "out.gguf").notes
    assert note.startswith(f"{left} was left by a conversion that was killed")


def test_a_file_that_fails_its_trial_is_not_published(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object) -> None:
        assert path.read_bytes().startswith(b"GGUF")
        raise RefusedError("it is not what it should be", hint="none")

    monkeypatch.setattr(convert_module, "check_converted", fail)
    assert refused(damaged, tmp_path) == "it is not what it should be"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from medlocal.weights import convert as module\n"
        "from medlocal.weights.source import CheckpointSource\n"
        "module.check_converted = lambda *_: None\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(l.split()[1]) for l in lines if l.startswith('VmHWM'))\n"
        "for folder, out in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    source = module.CheckpointSource(Path(folder), 'x', 'x')\n"
        "    module.convert(module.ConvertRequest(source, Path(out), 'bf16'))\n"
        "    print(peak())\n"
    )
    small = make(BY_NAME[PIECES], tmp_path)
    large = tmp_path / "large"
    large.mkdir()
    recipe = BY_NAME[PIECES]
    wide = replace(recipe, name="wide", config={**recipe.config, "intermediate_size": 2**17})
    folder = make(wide, large)
    arguments = [small, tmp_path / "a.gguf", folder, tmp_path / "b.gguf"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    first, second = (int(line) for line in done.stdout.split())
    num_bytes = (folder / "model.safetensors").stat().st_size
    assert num_bytes > 96 * 2**20
    assert (second - first) * 1024 < num_bytes / 2


def test_nobody_need_be_told_of_the_progress(
    checkpoints: Path, tmp_path: Path, untried: None
) -> None:
    request = ConvertRequest(source(checkpoints / MISTRAL), tmp_path / "out.gguf")
    assert convert(request, no_progress).path.is_file()
