"""Loading a model: where its layers are asked for, and how a failure for want of memory is told."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medlocal import libllama
from medlocal.errors import RefusedError, UsageError
from medlocal.libllama import LlamaModel, Log, OutOfMemoryError
from tests.weights.tiny_llama import write_tiny_llama

ERROR = 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "tiny.gguf")


@pytest.mark.parametrize(
    "line",
    [
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.00 MiB on device 0: cudaMalloc failed:"
        " out of memory",
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 4096",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "llama_model_load: error loading model: mmap failed: Cannot allocate memory",
    ],
)
def test_llama_cpps_ways_to_say_that_memory_ran_out_are_known(line: str) -> None:
    log = Log()
    log._take(ERROR, line.encode(), None)
    assert log.is_out_of_memory


def test_another_failure_is_no_lack_of_memory() -> None:
    log = Log()
    log._take(ERROR, b"llama_model_load: error loading model: tensor 'x' not found", None)
    assert not log.is_out_of_memory


class FakeLibrary:
    """A llama.cpp that says why it loads nothing, and keeps what it was asked."""

    LLAMA_SPLIT_MODE_NONE, LLAMA_SPLIT_MODE_LAYER, LLAMA_SPLIT_MODE_ROW = 0, 1, 2

    def __init__(self, says: str) -> None:
        self.says = says
        self.splits: list[float] = []
        self.params = SimpleNamespace(tensor_split=None)

    def llama_model_default_params(self) -> Any:
        return self.params

    def llama_max_devices(self) -> int:
        return 4

    def llama_model_load_from_file(self, _: bytes, params: Any) -> None:
        if params.tensor_split:
            self.splits = [params.tensor_split[n] for n in range(4)]
        libllama.LOG._take(ERROR, self.says.encode(), None)


def refused(monkeypatch: pytest.MonkeyPatch, says: str, **changes: Any) -> FakeLibrary:
    lib = FakeLibrary(says)
    monkeypatch.setattr(libllama, "library", lambda: lib)
    with pytest.raises((RefusedError, OutOfMemoryError)):
        LlamaModel(Path("a.gguf"), **changes)
    return lib


def test_a_load_that_finds_no_memory_may_be_tried_with_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lib = FakeLibrary("unable to allocate CUDA0 buffer")
    monkeypatch.setattr(libllama, "library", lambda: lib)
    with pytest.raises(OutOfMemoryError, match=r"weights of a\.gguf: unable to allocate CUDA0"):
        LlamaModel(Path("a.gguf"))


def test_a_file_that_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lib = FakeLibrary("tensor 'x' not found")
    monkeypatch.setattr(libllama, "library", lambda: lib)
    with pytest.raises(RefusedError, match=r"could not load a\.gguf: tensor 'x' not found"):
        LlamaModel(Path("a.gguf"))


def test_the_parts_of_the_gpus_are_read_as_far_as_there_could_be_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lib = refused(monkeypatch, "no", gpu_layers=5, tensor_split=(3.0, 2.0))
    assert lib.splits == [3.0, 2.0, 0.0, 0.0]
    assert (lib.params.n_gpu_layers, lib.params.split_mode) == (5, 1)


def test_without_parts_llama_cpp_splits_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(monkeypatch, "no").params.tensor_split is None


def test_one_gpu_can_be_named_to_hold_all(monkeypatch: pytest.MonkeyPatch) -> None:
    params = refused(monkeypatch, "no", split_mode="none", main_gpu=2).params
    assert (params.split_mode, params.main_gpu) == (0, 2)


def test_more_parts_than_llama_cpp_has_places_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libllama, "library", lambda: FakeLibrary(""))
    with pytest.raises(UsageError, match="5 parts for GPUs, and this"):
        LlamaModel(Path("a.gguf"), tensor_split=(1.0,) * 5)


def test_where_the_weights_lie_is_read_back(path: Path) -> None:
    with LlamaModel(path, repack=False, gpu_layers=0) as model:
        assert model.layers_offloaded == 0
        assert {b.part for b in model.buffers} == {"weights"}
        total = sum(b.num_bytes for b in model.buffers)
        # The log tells MiB with two decimals, and a mapped buffer goes from page to page.
        assert total == pytest.approx(model.size_bytes, abs=0.02 * 2**20)


def test_loaded_again_it_is_the_same_model_to_whoever_holds_it(path: Path) -> None:
    with LlamaModel(path, tensor_split=(1.0,)) as model:
        before = model.tokenize(b"fever")
        model.reload(0)
        assert model.handle
        assert model.tokenize(b"fever") == before
