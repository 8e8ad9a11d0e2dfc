"""What a plan says goes where, by hand-computed cases, by laws, and by llama.cpp's own reservations."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.errors import UsageError
from medlocal.libllama import library
from medlocal.weights.memory import (
    MOST_SEQUENCES,
    DeviceBudget,
    MemoryNeeds,
    compute_bytes,
    plan_memory,
)
from medlocal.weights.model_shape import ModelShape
from tests.weights.memory_shapes import (
    CPU,
    MIB,
    by_llama_cpp,
    device,
    in_q8_0,
    known,
    reserved,
    toy,
)

# 256 cells of 4 KiB are 1 MiB in each block; what is reserved to compute 8 rows is under 1 MiB.
NEEDS = MemoryNeeds(context=256, num_rows=8)


def test_more_sequences_than_llama_cpp_has_are_refused() -> None:
    assert library().llama_max_parallel_sequences() == MOST_SEQUENCES
    with pytest.raises(UsageError, match=r"257 sequences are more than llama\.cpp's 256"):
        plan_memory(toy(), replace(NEEDS, num_sequences=257), [CPU])
    assert plan_memory(toy(), replace(NEEDS, num_sequences=256), [CPU]).needs.num_sequences == 256


def test_everything_goes_to_a_gpu_that_has_room_but_the_embeddings() -> None:
    plan = plan_memory(toy(), NEEDS, [device(500), CPU])
    gpu, cpu = plan.per_device
    assert (plan.gpu_layers, plan.num_layers) == (5, 5)
    assert (gpu.weights_bytes, gpu.kv_bytes) == (460 * MIB, 4 * MIB)
    assert (cpu.weights_bytes, cpu.kv_bytes, len(cpu.layers)) == (50 * MIB, 0, 0)
    assert plan.fits_best


def test_the_output_goes_first_and_the_last_blocks_after_it() -> None:
    plan = plan_memory(toy(), NEEDS, [device(400), CPU])
    gpu, cpu = plan.per_device
    # 60 + 2 × 101 MiB, and 100 MiB to copy one of the CPU's tensors to at a time.
    assert (gpu.layers, cpu.layers) == (range(2, 5), range(2))
    assert (gpu.weights_bytes, cpu.weights_bytes) == (260 * MIB, 250 * MIB)
    assert (gpu.kv_bytes, cpu.kv_bytes) == (2 * MIB, 2 * MIB)
    assert plan.fits
    assert not plan.fits_best


def test_a_gpu_with_hardly_any_room_gets_nothing() -> None:
    plan = plan_memory(toy(), NEEDS, [device(50), CPU])
    assert plan.gpu_layers == 0
    assert plan.fits
    assert plan.per_device[1].weights_bytes == 510 * MIB


def test_tied_embeddings_are_there_twice_when_the_output_is_offloaded() -> None:
    on_gpu, cpu = plan_memory(toy(tied=True), NEEDS, [device(1000), CPU]).per_device
    assert (on_gpu.weights_bytes, cpu.weights_bytes) == (450 * MIB, 50 * MIB)
    (alone,) = plan_memory(toy(tied=True), NEEDS, [CPU]).per_device
    assert alone.weights_bytes == 450 * MIB


def test_two_gpus_share_by_what_they_have() -> None:
    plan = plan_memory(toy(12), NEEDS, [device(4000), device(2000, name="GPU 1"), CPU])
    first, second, _ = plan.per_device
    # 12 × 101 + 60 MiB: a third of it is 424 MiB.
    assert (first.layers, second.layers) == (range(8), range(8, 13))
    assert plan.tensor_split == (8, 5)


def test_a_layer_goes_where_its_middle_lies() -> None:
    # 101 + 101 + 101 + 60 MiB: half of it, 181.5 MiB, lies in the second half of the second block.
    plan = plan_memory(toy(3), NEEDS, [device(1000), device(1000, name="GPU 1"), CPU])
    assert [part.layers for part in plan.per_device[:2]] == [range(2), range(2, 4)]


def test_two_gpus_are_filled_where_sharing_would_not_do() -> None:
    # By their shares the first would get two blocks of 101 MiB, for which it has no room.
    plan = plan_memory(toy(4), NEEDS, [device(195), device(370, name="GPU 1"), CPU])
    assert [part.layers for part in plan.per_device[:2]] == [range(1), range(1, 5)]


def test_a_pipeline_of_two_gpus_holds_its_inputs_four_times() -> None:
    # Eight rows: mask 8 × 256 in F16 and 32 bytes each; 3 hidden, 2 × 128 of queries and 2 × 1,024 of
    # keys in F32; three more copies of the mask and of one hidden element in F32.
    plan = plan_memory(toy(), NEEDS, [device(1000), device(1000, name="GPU 1"), CPU])
    alone = 8 * 256 * 2 + 8 * 32 + 8 * 4 * (3 + 256 + 2048)
    assert plan.per_device[0].compute_bytes == alone + 3 * (8 * 256 * 2 + 8 * 4)


def test_the_cpu_hands_the_inputs_to_a_gpu_that_computes_all() -> None:
    cpu = plan_memory(toy(), NEEDS, [device(500), CPU]).per_device[1]
    assert cpu.compute_bytes == 8 * 256 * 2 + 8 * 4


def test_what_the_cpu_cannot_hold_does_not_fit() -> None:
    plan = plan_memory(toy(), NEEDS, [device(400), device(200, "cpu", "CPU")])
    assert not plan.fits
    assert [part.fits for part in plan.per_device] == [True, False]


def test_the_largest_context_is_that_for_which_there_is_room() -> None:
    # 460 MiB of weights and less than 1 MiB to compute leave 39 MiB: 9 times 1 MiB in four blocks.
    plan = plan_memory(toy(), NEEDS, [device(500), CPU])
    assert plan.largest_context == 9 * 256


def test_no_context_is_larger_than_what_the_model_was_trained_for() -> None:
    assert plan_memory(toy(), NEEDS, [device(5000), CPU]).largest_context == 4096


def test_there_is_no_context_where_the_weights_alone_do_not_fit() -> None:
    assert plan_memory(toy(), NEEDS, [device(400, "cpu", "CPU")]).largest_context == 0


def test_other_needs_leave_the_layers_where_they_are() -> None:
    plan = plan_memory(toy(), NEEDS, [device(250, name="A"), device(300, name="B"), CPU])
    more = plan.with_needs(replace(NEEDS, context=1024))
    assert [part.layers for part in more.per_device] == [part.layers for part in plan.per_device]
    assert [part.weights_bytes for part in more.per_device] == [
        part.weights_bytes for part in plan.per_device
    ]
    # Four times the cells: 4 MiB in each block.
    blocks = [sum(layer < 4 for layer in part.layers) for part in more.per_device]
    assert [part.kv_bytes for part in more.per_device] == [4 * n * MIB for n in blocks]
    assert sum(blocks) == 4


def test_what_was_planned_is_what_the_same_needs_take() -> None:
    plan = plan_memory(toy(8), NEEDS, [device(250), device(200), CPU])
    assert 0 < plan.gpu_layers < plan.num_layers
    assert plan.with_needs(NEEDS) == plan


def test_needs_that_do_not_fit_where_the_layers_are_do_not_fit() -> None:
    plan = plan_memory(toy(), NEEDS, [device(470), CPU])
    assert plan.fits
    assert not plan.with_needs(replace(NEEDS, context=4096)).fits


def test_sequences_share_the_room_for_their_contexts() -> None:
    needs = replace(NEEDS, num_sequences=4)
    plan = plan_memory(toy(), needs, [device(500), CPU])
    assert plan.per_device[0].kv_bytes == 16 * MIB
    assert plan.largest_context == 9 * 64


@pytest.mark.parametrize(
    ("kv_type", "mib"), [("f16", 32 * 8192 / 256), ("bf16", 1024), ("q8_0", 1024 * 34 / 64)]
)
def test_keys_and_values_of_an_8b_model(kv_type: str, mib: float) -> None:
    # 8 heads of 128 in 32 layers, keys and values: 128 KiB per token in F16.
    needs = MemoryNeeds(context=8192, kv_type=kv_type)
    plan = plan_memory(known("meta-llama/Llama-3.1-8B-Instruct"), needs, [CPU])
    assert plan.per_device[0].kv_bytes == mib * MIB


def test_cells_are_padded_as_llama_cpp_pads_them() -> None:
    assert MemoryNeeds(context=1000, num_sequences=3).num_cells == 3072
    assert MemoryNeeds(context=8192).num_cells == 8192


def test_a_part_of_each_device_is_kept_free() -> None:
    assert DeviceBudget.of("GPU", "gpu", 8 * 2**30).usable_bytes == 7680 * MIB
    assert DeviceBudget.of("GPU", "gpu", 80 * 2**30).usable_bytes == 76 * 2**30
    assert DeviceBudget.of("CPU", "cpu", 100 * MIB).usable_bytes == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 0}, "at least 1"),
        ({"num_sequences": 0}, "at least 1"),
        ({"kv_type": "q4_0"}, "no type of keys and values is called 'q4_0'"),
    ],
)
def test_impossible_needs_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_memory(toy(), replace(NEEDS, **changes), [CPU])  # type: ignore[arg-type]


def test_heads_that_a_block_does_not_divide_cannot_be_held_in_8_bits() -> None:
    shape = replace(toy(), head_sizes=(80, 80))
    with pytest.raises(UsageError, match="heads of 80 elements"):
        plan_memory(shape, replace(NEEDS, kv_type="q8_0"), [CPU])


@settings(max_examples=60, deadline=None)
@given(
    gpus=st.lists(st.integers(0, 3000), max_size=3),
    num_layers=st.integers(1, 20),
    tied=st.booleans(),
)
def test_every_layer_is_somewhere_and_no_gpu_is_overfull(
    gpus: list[int], num_layers: int, tied: bool
) -> None:
    devices = [device(mib, name=f"GPU {n}") for n, mib in enumerate(gpus)]
    plan = plan_memory(toy(num_layers, tied=tied), NEEDS, [*devices, CPU])
    *on_gpus, cpu = plan.per_device
    placed = [layer for part in (cpu, *on_gpus) for layer in part.layers]
    assert placed == list(range(num_layers + 1))
    assert all(part.fits for part in on_gpus)


@settings(max_examples=60, deadline=None)
@given(gpus=st.lists(st.integers(200, 3000), min_size=2, max_size=4), num_layers=st.integers(1, 40))
def test_llama_cpp_would_place_the_layers_so(gpus: list[int], num_layers: int) -> None:
    devices = [device(mib, name=f"GPU {n}") for n, mib in enumerate(gpus)]
    plan = plan_memory(toy(num_layers), NEEDS, [*devices, CPU])
    offloaded = range(num_layers + 1 - plan.gpu_layers, num_layers + 1)
    if offloaded:
        planned = [n for n, part in enumerate(plan.per_device[:-1]) for _ in part.layers]
        assert by_llama_cpp(plan.tensor_split, offloaded) == planned


@settings(max_examples=40, deadline=None)
@given(mib=st.integers(0, 1500), more=st.integers(0, 500))
def test_more_memory_never_holds_less(mib: int, more: int) -> None:
    small = plan_memory(toy(), NEEDS, [device(mib), CPU])
    large = plan_memory(toy(), NEEDS, [device(mib + more), CPU])
    assert large.gpu_layers >= small.gpu_layers


SHAPES = {
    "8b": known("meta-llama/Llama-3.1-8B-Instruct"),
    "3b": known("meta-llama/Llama-3.2-3B-Instruct"),
    "1b": known("meta-llama/Llama-3.2-1B-Instruct"),
    "mistral": known("mistralai/Mistral-7B-Instruct-v0.1"),
    "llama-2": known("meta-llama/Llama-2-7b-hf"),
}
WITH_FLASH_ATTENTION = [
    MemoryNeeds(context=512),
    MemoryNeeds(context=2048),
    MemoryNeeds(context=8192),
    MemoryNeeds(context=8192, num_outputs=1),
    MemoryNeeds(context=32_768, num_outputs=1),
    MemoryNeeds(context=8192, num_rows=2048, num_outputs=1),
    MemoryNeeds(context=8192, kv_type="q8_0", num_outputs=1),
    MemoryNeeds(context=85, num_sequences=96, num_rows=240, num_outputs=96),
]
WITHOUT = [
    replace(needs, flash_attention=False)
    for needs in WITH_FLASH_ATTENTION
    if needs.kv_type == "f16"
]


@pytest.mark.parametrize("name", SHAPES)
def test_what_llama_cpp_reserves_to_compute_is_foretold(name: str, tmp_path: Path) -> None:
    ratios = _ratios(SHAPES[name], WITH_FLASH_ATTENTION, tmp_path)
    assert min(ratios) >= 0.98, ratios
    assert max(ratios) <= 1.13, ratios


@pytest.mark.parametrize("name", SHAPES)
def test_and_so_it_is_without_flash_attention(name: str, tmp_path: Path) -> None:
    ratios = _ratios(SHAPES[name], WITHOUT, tmp_path)
    assert min(ratios) >= 0.92, ratios
    assert max(ratios) <= 1.13, ratios


@pytest.mark.parametrize("name", SHAPES)
def test_keys_and_values_are_those_that_llama_cpp_makes(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    found = reserved(in_q8_0(shape), WITH_FLASH_ATTENTION, tmp_path)
    for needs, made in zip(WITH_FLASH_ATTENTION, found, strict=True):
        (cpu,) = plan_memory(shape, needs, [CPU]).per_device
        assert made["cells"] == needs.num_cells
        assert cpu.kv_bytes / MIB == pytest.approx(made["kv"], abs=0.01)


def _ratios(shape: ModelShape, needs: list[MemoryNeeds], folder: Path) -> list[float]:
    """Foretold ÷ reserved."""
    made = reserved(in_q8_0(shape), needs, folder)
    told = [compute_bytes(shape, each, blocks=True, output=True) / MIB for each in needs]
    return [one / other["compute"] for one, other in zip(told, made, strict=True)]
