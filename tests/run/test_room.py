"""Where layers go and what is given up when memory runs out: on paper, with round figures."""

from dataclasses import replace

import pytest

from medlocal.engine.llama import ContextOptions
from medlocal.run.room import (
    LoadPlan,
    fitting_cells,
    needs_of,
    padded,
    plan_load,
    with_fewer_layers,
    with_less,
)
from medlocal.weights.memory import MemoryNeeds, plan_memory
from tests.weights.memory_shapes import CPU, device, toy

SMALL = MemoryNeeds(context=256, num_rows=8)
"""4 MiB of keys and values of four blocks, and next to nothing to compute."""
OPTIONS = ContextOptions(4096, num_rows=8, num_ids=8, num_threads=1, num_outputs=8)


class TestPlanLoad:
    def test_a_gpu_with_room_for_all_layers_gets_them(self) -> None:
        load = plan_load(toy(), SMALL, [device(1000), CPU])
        assert (load.gpu_layers, load.split_mode) == (5, "layer")

    def test_without_a_gpu_nothing_is_offloaded(self) -> None:
        load = plan_load(toy(), SMALL, [CPU])
        assert (load.gpu_layers, load.tensor_split) == (0, ())

    def test_of_several_gpus_the_roomiest_takes_a_model_that_it_can_hold(self) -> None:
        gpus = [device(600, name="CUDA0"), device(900, name="CUDA1"), device(700, name="CUDA2")]
        load = plan_load(toy(), SMALL, [*gpus, CPU])
        assert (load.gpu_layers, load.split_mode, load.main_gpu) == (5, "none", 1)
        assert load.tensor_split == ()

    def test_a_model_too_large_for_one_gpu_is_split_by_what_each_has(self) -> None:
        gpus = [device(350, name="CUDA0"), device(250, name="CUDA1")]
        load = plan_load(toy(), SMALL, [*gpus, CPU])
        assert (load.gpu_layers, load.split_mode) == (5, "layer")
        # Three blocks of 101 MiB on the one, the last and the output of 60 MiB on the other.
        assert load.tensor_split == (3.0, 2.0)


class TestWithFewerLayers:
    def test_at_least_one_layer_less_is_offloaded(self) -> None:
        load = plan_load(toy(), SMALL, [device(1000), CPU])
        fewer = with_fewer_layers(load)
        assert fewer is not None
        assert fewer.gpu_layers < load.gpu_layers

    def test_it_ends_with_the_cpu_alone_after_a_few_steps(self) -> None:
        load: LoadPlan | None = plan_load(toy(30, 10), SMALL, [device(1000), CPU])
        layers = []
        while load is not None:
            layers.append(load.gpu_layers)
            load = with_fewer_layers(load)
        assert layers[0] == 31
        assert layers[-1] == 0
        assert layers == sorted(set(layers), reverse=True)
        assert len(layers) <= 20

    def test_where_nothing_is_offloaded_there_is_nothing_to_give_up(self) -> None:
        assert with_fewer_layers(plan_load(toy(), SMALL, [CPU])) is None


class TestFittingCells:
    @staticmethod
    def cells(gpu_mib: int, least: int = 256) -> int:
        plan = plan_memory(toy(), needs_of(OPTIONS), [device(1000), CPU])
        assert plan.gpu_layers == 5
        return fitting_cells(plan, [device(gpu_mib), CPU], OPTIONS, least)

    def test_all_are_taken_where_there_is_room_beside_the_weights(self) -> None:
        # 16 KiB a cell in four blocks: 64 MiB.
        assert self.cells(66) == 4096

    def test_as_many_as_fit_are_taken_in_steps_of_256(self) -> None:
        # 2,048 cells take 32 MiB; the 2,304 of the next step 36.
        assert self.cells(34) == 2048

    def test_the_least_is_tried_although_the_plan_has_no_room_for_it(self) -> None:
        assert self.cells(1, least=1000) == 1024


class TestWithLess:
    def test_in_exact_mode_only_cells_are_given_up(self) -> None:
        smaller = with_less(OPTIONS, 100, is_exact=True)
        assert smaller == replace(OPTIONS, num_cells=2048)

    def test_in_fast_mode_fewer_answers_grow_side_by_side_too(self) -> None:
        options = replace(OPTIONS, num_ids=192, num_texts=64, num_outputs=192)
        smaller = with_less(options, 100, is_exact=False)
        assert smaller == replace(options, num_cells=2048, num_ids=96, num_texts=32, num_outputs=96)

    def test_the_micro_batch_is_never_given_up(self) -> None:
        options: ContextOptions | None = replace(OPTIONS, num_rows=512, num_ids=192)
        while options is not None:
            assert options.num_rows == 512
            options = with_less(options, 100, is_exact=False)

    @pytest.mark.parametrize("is_exact", [True, False])
    def test_the_longest_prompt_keeps_its_room(self, is_exact: bool) -> None:
        options, last = OPTIONS, OPTIONS
        while (smaller := with_less(options, 700, is_exact=is_exact)) is not None:
            options, last = smaller, smaller
        assert last.num_cells == 768


def test_cells_are_rounded_up_as_llama_cpp_does_it() -> None:
    assert [padded(n) for n in (1, 256, 257)] == [256, 256, 512]
