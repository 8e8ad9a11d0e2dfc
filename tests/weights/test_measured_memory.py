"""What a load is said to take: reading llama.cpp's log, and a real load of the demo model."""

from pathlib import Path

import pytest

from medlocal.libllama import Buffer, read_buffers
from medlocal.weights.inspect import read_gguf
from medlocal.weights.measured_memory import (
    MeasuredMemory,
    compare,
    machine_budgets,
    measure_load,
)
from medlocal.weights.memory import MemoryNeeds, plan_memory
from medlocal.weights.model_shape import shape_of_gguf
from tests.weights.memory_shapes import CPU, MIB, device, toy
from tests.weights.tiny_llama import write_tiny_llama

LOG = """\
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
load_tensors:        CUDA0 model buffer size =  4155.99 MiB
llama_context:  CUDA_Host  output buffer size =     0.49 MiB
llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB
llama_kv_cache: size = 1024.00 MiB (  8192 cells,  32 layers,  1/1 seqs), K (f16):  512.00 MiB
sched_reserve:      CUDA0 compute buffer size =   258.50 MiB
sched_reserve:  CUDA_Host compute buffer size =    24.01 MiB"""


def test_the_log_names_each_buffer_its_part_and_its_size() -> None:
    buffers = read_buffers(LOG.splitlines())
    assert [(b.name, b.part, b.num_bytes / MIB) for b in buffers] == [
        ("CPU_Mapped", "weights", pytest.approx(281.81, abs=1e-6)),
        ("CUDA0", "weights", pytest.approx(4155.99, abs=1e-6)),
        ("CUDA0", "kv", 1024),
        ("CUDA0", "compute", 258.5),
        ("CUDA_Host", "compute", pytest.approx(24.01, abs=1e-6)),
    ]
    assert [b.is_host for b in buffers] == [True, False, False, False, True]


def test_a_part_is_compared_over_all_devices() -> None:
    plan = plan_memory(toy(), MemoryNeeds(context=256, num_rows=8), [device(500), CPU])
    buffers = (Buffer("CPU", "weights", 50 * MIB), Buffer("CUDA0", "weights", 410 * MIB))
    weights, kv, _ = compare(plan, MeasuredMemory(buffers, 5, None))
    assert (weights.predicted_bytes, weights.measured_bytes) == (510 * MIB, 460 * MIB)
    assert weights.ratio == 510 / 460
    assert (kv.measured_bytes, kv.ratio) == (0, None)


def test_this_machine_has_a_cpu_and_memory() -> None:
    *gpus, cpu = machine_budgets()
    assert (cpu.name, cpu.kind) == ("CPU", "cpu")
    assert all(gpu.kind == "gpu" for gpu in gpus)
    assert 0 < cpu.usable_bytes < cpu.free_bytes


def test_a_tiny_model_is_loaded_as_planned(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    needs = MemoryNeeds(context=512, num_sequences=2, num_rows=64)
    plan = plan_memory(shape_of_gguf(read_gguf(path)), needs, [CPU])
    measured = measure_load(path, plan, 1)
    weights, kv, compute = compare(plan, measured)
    # 1,024 cells in two layers with 16 elements of keys and as many of values, in F16; the log has two
    # decimals of a MiB.
    assert kv.predicted_bytes == 1024 * 2 * 32 * 2
    assert kv.measured_bytes == pytest.approx(kv.predicted_bytes, abs=0.006 * MIB)
    assert weights.measured_bytes == pytest.approx(weights.predicted_bytes, abs=0.006 * MIB)
    assert compute.measured_bytes == pytest.approx(compute.predicted_bytes, rel=0.2)
    assert measured.layers_offloaded == 0


@pytest.mark.weights
@pytest.mark.parametrize(
    "needs",
    [
        MemoryNeeds(context=2048),
        MemoryNeeds(context=500, num_sequences=3, num_rows=240, num_outputs=24),
        MemoryNeeds(context=4096, num_outputs=1, kv_type="q8_0"),
        MemoryNeeds(context=1024, num_outputs=1, flash_attention=False),
    ],
)
def test_the_demo_model_takes_what_was_planned(demo_model: Path, needs: MemoryNeeds) -> None:
    plan = plan_memory(shape_of_gguf(read_gguf(demo_model)), needs, [CPU])
    measured = measure_load(demo_model, plan, 1)
    weights, kv, compute = compare(plan, measured)
    assert weights.ratio == pytest.approx(1, abs=0.001)
    assert kv.ratio == pytest.approx(1, abs=0.001)
    assert compute.ratio == pytest.approx(1, abs=0.13)


@pytest.mark.weights
def test_the_process_grows_by_little_more_than_was_planned(demo_model: Path) -> None:
    plan = plan_memory(shape_of_gguf(read_gguf(demo_model)), MemoryNeeds(context=2048), [CPU])
    process = measure_load(demo_model, plan, 1).process
    if process is None:
        pytest.skip("the system does not say what a process takes")
    # All that the CPU is to be left with covers vocabulary and work space.
    assert process.peak_growth_bytes < plan.needed_bytes + 128 * MIB
    assert process.mapped_bytes > 0.9 * plan.per_device[0].weights_bytes
