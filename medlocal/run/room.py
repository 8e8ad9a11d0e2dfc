"""Where a model's layers go for a run, how much room its context has, and what is next when memory ran out.

Between the plan of memory, which counts bytes, and the backend, which loads: pure, nothing is loaded
and no device is asked here. Two things are given up in turn when memory runs out, the one that costs
nothing first: cells of the cache (and, in fast mode, texts side by side), then layers on a GPU.
The rows of one call never change: the micro-batch is part of an answer's identity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from medlocal.engine.llama import ContextOptions
from medlocal.libllama import SplitMode
from medlocal.weights.memory import (
    CELLS_STEP,
    DeviceBudget,
    MemoryNeeds,
    MemoryPlan,
    plan_memory,
)
from medlocal.weights.model_shape import ModelShape

_SHARES = (0.85, 0.7, 0.5, 0.3, 0.15, 0.0)
"""Of what was planned for the GPUs, tried one after the other until a layer less is offloaded."""
_LEAST_TEXTS, _LEAST_IDS, _LEAST_OUTPUTS = 4, 64, 32
"""Below these the memory saved is not worth the time."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How a model is to be loaded."""

    memory: MemoryPlan
    split_mode: SplitMode = "layer"
    main_gpu: int = 0
    """Where `split_mode` is "none": the GPU that holds all, in llama.cpp's order."""

    @property
    def gpu_layers(self) -> int:
        """Layers to offload, the output among them."""
        return self.memory.gpu_layers

    @property
    def tensor_split(self) -> tuple[float, ...]:
        """For each GPU its layers; () where one holds all."""
        return self.memory.tensor_split if self.split_mode == "layer" else ()


def plan_load(shape: ModelShape, needs: MemoryNeeds, budgets: Sequence[DeviceBudget]) -> LoadPlan:
    """Offload as many layers as fit, to one GPU where one has room for all.

    Texts pass through the layers one after the other, so that a second GPU makes nothing faster and
    costs the way between them: it is used for its memory only.

    Args:
        shape: of the model.
        needs: of its context.
        budgets: one CPU and any number of GPUs, in llama.cpp's order.
    """
    gpus = [budget for budget in budgets if budget.kind == "gpu"]
    if len(gpus) > 1:
        largest = max(gpus, key=lambda gpu: gpu.usable_bytes)
        rest = [budget for budget in budgets if budget.kind == "cpu"]
        alone = plan_memory(shape, needs, [largest, *rest])
        if alone.fits_best:
            return LoadPlan(alone, "none", gpus.index(largest))
    return LoadPlan(plan_memory(shape, needs, budgets))


def with_fewer_layers(load: LoadPlan) -> LoadPlan | None:
    """The next plan to try when there was less memory on the GPUs than they said.

    Returns:
        None where no layer is offloaded any more.
    """
    plan = load.memory
    for share in _SHARES if plan.gpu_layers else ():
        devices = [
            replace(part.device, free_bytes=int(share * part.needed_bytes), reserve_bytes=0)
            if part.device.kind == "gpu"
            else part.device
            for part in plan.per_device
        ]
        smaller = plan_memory(plan.shape, plan.needs, devices)
        if smaller.gpu_layers < plan.gpu_layers:
            return replace(load, memory=smaller)
    return None


def needs_of(options: ContextOptions) -> MemoryNeeds:
    """What a context takes, as the plan of memory counts it."""
    return MemoryNeeds(
        context=options.num_cells,
        # llama.cpp reserves a whole number of rows for each sequence id.
        num_rows=-(-options.num_rows // options.num_ids) * options.num_ids,
        num_outputs=max(options.num_outputs, options.num_ids),
    )


def fitting_cells(
    plan: MemoryPlan, budgets: Sequence[DeviceBudget], options: ContextOptions, least: int
) -> int:
    """The most cells that there is room for beside the loaded weights, at most those wanted.

    Args:
        plan: where the layers are.
        budgets: what the devices have left now that the weights are loaded.
        options: of the context, with the cells that are wanted.
        least: cells without which nothing can be asked; they are returned where there is room for
            fewer, since the plan keeps a reserve and llama.cpp has the last word.
    """
    usable = {budget.name: budget.usable_bytes for budget in budgets}

    def has_room(cells: int) -> bool:
        parts = plan.with_needs(needs_of(replace(options, num_cells=cells))).per_device
        return all(p.needed_bytes - p.weights_bytes <= usable.get(p.device.name, 0) for p in parts)

    return _largest(has_room, least, options.num_cells)


def _largest(has_room: Callable[[int], bool], least: int, most: int) -> int:
    """The largest number of cells with room, in llama.cpp's steps, between `least` and `most`."""
    if has_room(most):
        return most
    low, high = padded(least) // CELLS_STEP, most // CELLS_STEP
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if has_room(middle * CELLS_STEP) else (low, middle)
    return low * CELLS_STEP


def with_less(options: ContextOptions, least: int, *, is_exact: bool) -> ContextOptions | None:
    """A context that takes less than one for which memory ran out.

    Args:
        options: those that were too much.
        least: cells without which nothing can be asked.
        is_exact: cells only; else fewer texts grow side by side, too.

    Returns:
        None where there is nothing left to give up.
    """
    smaller = replace(options, num_cells=max(padded(least), padded(options.num_cells // 2)))
    if not is_exact:
        smaller = replace(
            smaller,
            num_texts=_halved(options.num_texts, _LEAST_TEXTS),
            num_ids=_halved(options.num_ids, _LEAST_IDS),
            num_outputs=_halved(options.num_outputs, _LEAST_OUTPUTS),
        )
    # Where memory for a least cache was refused, padding must not ask for more.
    smaller = replace(smaller, num_cells=min(smaller.num_cells, options.num_cells))
    return None if smaller == options else smaller


def padded(cells: int) -> int:
    """A number of cells as llama.cpp rounds it up."""
    return -(-cells // CELLS_STEP) * CELLS_STEP


def _halved(number: int, least: int) -> int:
    return max(number // 2, min(number, least))
