"""Loads and contexts that find less memory than was planned: on stand-ins, and once for real."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from medlocal.engine.batching import Batch, Limits
from medlocal.engine.llama import ContextOptions
from medlocal.errors import MedlocalError
from medlocal.libllama import OutOfMemoryError
from medlocal.run import loading
from medlocal.run.loading import Loading
from medlocal.weights.memory import DeviceBudget
from tests.weights.memory_shapes import CPU, device, toy
from tests.weights.tiny_llama import write_tiny_llama

OPTIONS = ContextOptions(4096, num_rows=8, num_ids=8, num_threads=1, num_outputs=8)


@dataclass
class Card:
    """The memory that there really is: layers of 100 MiB, cells of 16 KiB."""

    mib: ClassVar[int] = 1000
    loads: ClassVar[list["FakeModel"]] = []


@dataclass
class FakeModel:
    path: Path
    repack: bool
    gpu_layers: int
    split_mode: str
    tensor_split: tuple[float, ...]
    main_gpu: int
    handle: object = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.handle = None
        if self.mib > Card.mib:
            raise OutOfMemoryError("no memory for the weights")
        self.handle = object()
        Card.loads.append(self)

    @property
    def mib(self) -> int:
        return 100 * self.gpu_layers

    @property
    def layers_offloaded(self) -> int:
        return self.gpu_layers

    def reload(self, gpu_layers: int, tensor_split: tuple[float, ...]) -> None:
        self.gpu_layers, self.tensor_split = gpu_layers, tensor_split
        self.__post_init__()

    def close(self) -> None:
        self.handle = None


@dataclass
class FakeDecoder:
    model: FakeModel
    options: ContextOptions
    tried: list[Batch] = field(default_factory=list)

    def __post_init__(self) -> None:
        share = self.model.gpu_layers / 5
        if self.model.mib + share * self.options.num_cells / 64 > Card.mib:
            raise OutOfMemoryError("no memory for the cache")

    @property
    def limits(self) -> Limits:
        return self.options.limits

    def decode(self, batch: Batch) -> None:
        self.tried.append(batch)

    def logits(self, row: int) -> None:
        assert self.tried[-1].outputs[row]

    def clear(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(Card, "loads", [])
    if "real" not in request.node.name:
        monkeypatch.setattr(loading, "LlamaModel", FakeModel)
        monkeypatch.setattr(loading, "LlamaDecoder", FakeDecoder)


def a_loading(monkeypatch: pytest.MonkeyPatch, really: int, said: int, **changes: Any) -> Loading:
    """A model of five layers on a GPU that says it has more, or less, than it has; in MiB."""
    monkeypatch.setattr(Card, "mib", really)
    budgets: list[DeviceBudget] = [device(said), CPU]
    return Loading(Path("a.gguf"), toy(), OPTIONS, lambda: budgets, **changes)


class TestLoad:
    def test_what_was_planned_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = a_loading(monkeypatch, really=1000, said=1000)
        assert made.load().gpu_layers == 5
        assert made.notices == []

    def test_memory_that_is_not_there_costs_layers_and_a_notice(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = a_loading(monkeypatch, really=320, said=1000)
        assert made.load().gpu_layers == 3
        assert made.notices[-1].startswith("memory ran out with")
        assert made.notices[-1].endswith("going on with 3")

    def test_a_gpu_without_any_memory_leaves_all_to_the_cpu(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert a_loading(monkeypatch, really=50, said=1000).load().gpu_layers == 0

    def test_in_exact_mode_the_layers_stay_and_the_hint_says_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(OutOfMemoryError) as caught:
            a_loading(monkeypatch, really=320, said=1000, is_exact=True).load()
        assert caught.value.hint is not None
        assert "fast mode" in caught.value.hint

    def test_without_a_gpu_there_is_nothing_to_give_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Card, "mib", -1)
        with pytest.raises(OutOfMemoryError, match="no memory for the weights"):
            Loading(Path("a.gguf"), toy(), OPTIONS, lambda: [CPU]).load()


class TestOpen:
    def test_a_cache_that_was_planned_is_made_and_tried_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = a_loading(monkeypatch, really=1000, said=1000)
        made.load()
        decoder = made.open(4096, 100)
        assert decoder.limits.num_cells == 4096
        assert [len(batch) for batch in decoder.tried] == [8]  # type: ignore[attr-defined]
        assert made.notices == []

    def test_memory_that_is_not_there_costs_cells(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = a_loading(monkeypatch, really=520, said=1000)
        made.load()
        # 20 MiB are left beside the weights: 1,280 cells.
        assert made.open(4096, 100).limits.num_cells == 1024
        assert len(made.notices) == 2

    def test_where_no_cells_are_left_to_give_up_layers_are(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = a_loading(monkeypatch, really=505, said=1000)
        model = made.load()
        decoder = made.open(4096, 1000)
        assert decoder.limits.num_cells >= 1024
        assert model.gpu_layers < 5
        assert made.load() is model, "who holds the vocabulary keeps it"

    def test_in_exact_mode_it_ends_with_the_least_cells(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = a_loading(monkeypatch, really=505, said=1000, is_exact=True)
        made.load()
        with pytest.raises(OutOfMemoryError, match="no memory for the cache"):
            made.open(4096, 1000)

    def test_what_the_devices_have_left_decides_beforehand(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Card, "mib", 2000)
        left = [[device(1000), CPU], [device(34), CPU]]
        made = Loading(Path("a.gguf"), toy(), OPTIONS, lambda: left.pop(0))
        made.load()
        assert made.open(4096, 100).limits.num_cells == 2048
        assert made.notices == [
            "there is room for 2048 of the 4096 cells of KV cache that would be of use"
        ]

    def test_a_prompt_for_which_there_is_no_room_is_refused_with_the_figures(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Card, "mib", 2000)
        left = [[device(1000), CPU], [device(10), CPU]]
        made = Loading(Path("a.gguf"), toy(), OPTIONS, lambda: left.pop(0))
        made.load()
        with pytest.raises(MedlocalError, match="take 64 MiB on GPU 0, and 10 are free"):
            made.open(4096, 4000)

    def test_after_a_batch_without_memory_the_next_context_is_smaller(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = a_loading(monkeypatch, really=1000, said=1000)
        made.load()
        made.open(4096, 100)
        assert made.open_smaller(OutOfMemoryError("")).limits.num_cells == 2048
        assert made.open_smaller(OutOfMemoryError("")).limits.num_cells == 1024


REAL = """
import resource, sys
from pathlib import Path
from medlocal.engine.engine import Engine
from medlocal.engine.llama import ContextOptions
from medlocal.engine.sequence import Generate, Request
from medlocal.run.loading import Loading
from medlocal.weights.inspect import read_gguf
from medlocal.weights.memory import DeviceBudget
from medlocal.weights.model_shape import shape_of_gguf

path = Path(sys.argv[1])
options = ContextOptions(2**20, num_rows=240, num_ids=8, num_threads=1, num_outputs=8)
budgets = [DeviceBudget("CPU", "cpu", 2**40, 0)]
made = Loading(path, shape_of_gguf(read_gguf(path)), options, lambda: budgets, is_exact=True)
made.load()
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 300 * 2**20,) * 2)
decoder = made.open(2**20, 256)
answers = list(Engine(decoder).run([Request(0, (1, 2, 3), Generate(4))], 64))
print(decoder.limits.num_cells, len(made.notices), answers[0].finish)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's address space")
def test_a_real_cache_that_the_system_refuses_is_made_smaller(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cells, num_notices, finish = done.stdout.split()
    assert 256 <= int(cells) < 2**20
    # Each notice is a step down to half.
    assert 2**20 >> int(num_notices) == int(cells)
    assert finish in {"stop", "length"}
