"""What a model takes of each device's memory, and how many of its layers fit where. Pure.

A load has three large parts: weights, keys and values, and what llama.cpp reserves to compute one call.
Weights, keys and values are exact: they follow from the header. The rest is Llama's graph put into a
formula; held against what llama.cpp reserves on a CPU for the Llamas and Mistrals from 135M to 8B it
was 0.98 to 1.13 times as much (without flash attention and with short contexts from 0.92 on). Other
architectures have other graphs, and no GPU was measured.

Layers are placed as llama.cpp does it (`llama_model_base::load_tensors`): the output counts as one
more layer after the last, layers are offloaded from that end on, several GPUs get neighbouring ones,
and the embeddings stay on the CPU. Nothing here knows what memory a machine has: it is told.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from medlocal.errors import UsageError
from medlocal.weights.model_shape import ModelShape

Kind = Literal["cpu", "gpu"]

KV_TYPES: Mapping[str, tuple[int, int]] = {"f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34)}
"""Types of keys and values: elements and bytes of a block."""
MOST_SEQUENCES = 256
"""llama.cpp's own limit (`llama_max_parallel_sequences`)."""
CELLS_STEP = 256
"""llama.cpp pads the number of KV cells to a multiple of it."""
GPU_RESERVE_BYTES = 512 * 2**20
"""Kept free on a GPU: its driver's context, work space of matrix products, what fragments."""
CPU_RESERVE_BYTES = 256 * 2**20
"""Kept free in the CPU's memory: Python itself, vocabulary, work space of matrix products."""
RESERVE_SHARE = 0.05
"""Of what is free, kept free at least: the estimate's own error."""
_INDEX_BYTES = 32
"""Of each row: its token, its position, its cells, whether it is wanted."""
_INPUT_COPIES = 4
"""Of a graph's inputs, where llama.cpp computes on several GPUs in a pipeline."""


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """What is to be computed."""

    context: int
    """Tokens of one sequence."""
    num_sequences: int = 1
    """Side by side; they share one cache."""
    num_rows: int = 512
    """Of one call: the micro-batch."""
    num_outputs: int = 0
    """Rows of one call whose logits are wanted; 0 = all, as llama.cpp reserves unless it is told."""
    kv_type: str = "f16"
    """Of keys and values, a name in `KV_TYPES`."""
    flash_attention: bool = True
    """False: the scores of all heads are held at once, for every row and cell."""

    @property
    def num_cells(self) -> int:
        """KV cells, as llama.cpp pads them."""
        return _padded(self.context * self.num_sequences, CELLS_STEP)

    @property
    def reserved_rows(self) -> int:
        """Rows that llama.cpp reserves for: as many for each sequence."""
        return _padded(min(self.num_rows, self.num_cells), self.num_sequences)

    @property
    def reserved_outputs(self) -> int:
        """Rows of logits that llama.cpp reserves for, at least one for each sequence."""
        wanted = self.num_outputs or self.num_rows
        return max(min(wanted, self.num_rows, self.num_cells), self.num_sequences)


@dataclass(frozen=True, slots=True)
class DeviceBudget:
    """A device and the memory that may be taken of it."""

    name: str
    kind: Kind
    free_bytes: int
    reserve_bytes: int
    """Of them, to be left free."""

    @classmethod
    def of(cls, name: str, kind: Kind, free_bytes: int) -> "DeviceBudget":
        """A device with the usual reserve."""
        least = GPU_RESERVE_BYTES if kind == "gpu" else CPU_RESERVE_BYTES
        return cls(name, kind, free_bytes, max(least, int(RESERVE_SHARE * free_bytes)))

    @property
    def usable_bytes(self) -> int:
        """What may be taken; 0 where there is less than the reserve."""
        return max(0, self.free_bytes - self.reserve_bytes)


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What one device gets."""

    device: DeviceBudget
    layers: range
    """The output is the one after the last block."""
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    """Reserved to compute one call; estimated."""
    logits_bytes: int = 0
    """Of the rows that a call returns; on the CPU only."""

    @property
    def needed_bytes(self) -> int:
        """All together."""
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.logits_bytes

    @property
    def fits(self) -> bool:
        """Whether the device has that, its reserve left free."""
        return self.needed_bytes <= self.device.usable_bytes


@dataclass(frozen=True)
class MemoryPlan:
    """Where a model's layers go, and what that takes."""

    shape: ModelShape
    needs: MemoryNeeds
    per_device: tuple[DevicePlan, ...]
    """GPUs in their order, then the CPU."""

    @property
    def gpu_layers(self) -> int:
        """llama.cpp's `n_gpu_layers`: those offloaded, the output among them."""
        return sum(len(p.layers) for p in self.per_device if p.device.kind == "gpu")

    @property
    def num_layers(self) -> int:
        """Layers that could be offloaded, the output among them."""
        return self.shape.num_layers + 1

    @property
    def tensor_split(self) -> tuple[float, ...]:
        """llama.cpp's `tensor_split`: for each GPU the number of its layers; () without one.

        Shares of one would be added up in single precision, and a layer on the edge would be elsewhere.
        """
        return tuple(float(len(p.layers)) for p in self.per_device if p.device.kind == "gpu")

    @property
    def has_gpu(self) -> bool:
        """Whether there is a GPU at all."""
        return any(part.device.kind == "gpu" for part in self.per_device)

    @property
    def fits(self) -> bool:
        """Whether every device has what it is to hold."""
        return all(part.fits for part in self.per_device)

    @property
    def fits_best(self) -> bool:
        """Whether it fits and no layer is left to the CPU that a GPU could have computed."""
        return self.fits and (not self.has_gpu or self.gpu_layers == self.num_layers)

    @property
    def needed_bytes(self) -> int:
        """On all devices."""
        return sum(part.needed_bytes for part in self.per_device)

    @property
    def usable_bytes(self) -> int:
        """Of all devices."""
        return sum(part.device.usable_bytes for part in self.per_device)

    def with_needs(self, needs: MemoryNeeds) -> "MemoryPlan":
        """The same layers on the same devices for other needs, whether they fit or not."""
        gpus = [part for part in self.per_device if part.device.kind == "gpu"]
        (cpu,) = (part for part in self.per_device if part.device.kind == "cpu")
        layers = range(len(cpu.layers), self.num_layers)
        offloaded = _Offloaded(self.shape, needs, tuple(g.device for g in gpus), layers)
        num_used = sum(len(gpu.layers) > 0 for gpu in gpus)
        plans = (offloaded.plan_of(gpu.device, gpu.layers, num_used) for gpu in gpus)
        rest = _cpu_plan(self.shape, needs, cpu.device, cpu.layers)
        return MemoryPlan(self.shape, needs, (*plans, rest))

    @cached_property
    def largest_context(self) -> int:
        """`context_with` as many layers offloaded as planned."""
        return self.context_with(self.gpu_layers)

    def context_with(self, gpu_layers: int) -> int:
        """Tokens of each sequence that there is room for with so many layers offloaded.

        At most as many as the model was trained for; 0 = there is no room for any.
        """
        devices = [part.device for part in self.per_device]

        def has_room(context: int) -> bool:
            needs = replace(self.needs, context=context)
            found = _place(self.shape, needs, devices, gpu_layers)
            return found is not None and found.fits

        trained, step = self.shape.context_length, max(1, CELLS_STEP // self.needs.num_sequences)
        if has_room(trained):
            return trained
        low, high = 0, math.ceil(trained / step)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if has_room(middle * step) else (low, middle)
        return low * step


def plan_memory(
    shape: ModelShape, needs: MemoryNeeds, devices: Sequence[DeviceBudget]
) -> MemoryPlan:
    """Offload as many layers as fit.

    Args:
        shape: of the model.
        needs: what is to be computed.
        devices: one CPU and any number of GPUs, in llama.cpp's order.

    Raises:
        UsageError: the needs are not possible with this model.
    """
    _check(shape, needs)
    num_gpus = sum(device.kind == "gpu" for device in devices)
    most = shape.num_layers + 1 if num_gpus else 0
    for gpu_layers in range(most, 0, -1):
        if plan := _place(shape, needs, devices, gpu_layers):
            return plan
    plan = _place(shape, needs, devices, 0)
    assert plan is not None, "without layers on a GPU nothing can fail to fit there"
    return plan


def compute_bytes(shape: ModelShape, needs: MemoryNeeds, *, blocks: bool, output: bool) -> int:
    """What llama.cpp reserves on a device to compute one call; estimated by Llama's graph.

    All tensors of a step that live at once, in F32: the feed-forward has three of its inner size
    beside four of the model's; attention has queries and keys before and after they are turned, and
    without flash attention the scores. The mask of all cells is there for every block. The output comes
    after them, in the same room.

    Args:
        shape: of the model.
        needs: what is to be computed.
        blocks: whether the device holds any block.
        output: whether it computes the output.
    """
    rows, cells = needs.reserved_rows, needs.num_cells
    hidden, inner, queries = shape.hidden_size, shape.feed_forward_size, shape.query_size
    keys = max(shape.key_sizes)
    mask = rows * cells * (2 if needs.flash_attention else 4)
    scores = 0 if needs.flash_attention else 4 * rows * cells * queries // shape.head_sizes[0]
    attention = 4 * rows * (3 * hidden + 2 * queries + 2 * keys) + scores
    feed_forward = 4 * rows * (3 * inner + 3 * hidden + max(hidden, queries))
    mask += _INDEX_BYTES * rows
    steps = [mask + max(attention, feed_forward)] if blocks else []
    steps += [4 * (needs.reserved_outputs * shape.vocab_size + 4 * rows * hidden)] if output else []
    return max(steps, default=0)


def kv_bytes(shape: ModelShape, needs: MemoryNeeds, layer: int) -> int:
    """Of one layer's keys and values, for all cells."""
    block, block_bytes = KV_TYPES[needs.kv_type]
    elements = shape.key_sizes[layer] + shape.value_sizes[layer]
    return elements // block * block_bytes * needs.num_cells


def _check(shape: ModelShape, needs: MemoryNeeds) -> None:
    if min(needs.context, needs.num_sequences, needs.num_rows) < 1:
        raise UsageError(
            "context, sequences and rows must be at least 1",
            hint="as in --context 8192 --sequences 1 --rows 512",
        )
    if needs.num_sequences > MOST_SEQUENCES:
        raise UsageError(
            f"{needs.num_sequences:,} sequences are more than llama.cpp's {MOST_SEQUENCES}",
            hint=f"--sequences {MOST_SEQUENCES} is the most",
        )
    if needs.kv_type not in KV_TYPES:
        raise UsageError(
            f"no type of keys and values is called {needs.kv_type!r}",
            hint=f"known: {', '.join(KV_TYPES)}",
        )
    block, _ = KV_TYPES[needs.kv_type]
    if any(size % block for size in shape.head_sizes):
        raise UsageError(
            f"{shape.name} has heads of {shape.head_sizes[0]} elements, which {needs.kv_type}'s"
            f" blocks of {block} do not divide",
            hint="take f16 for its keys and values",
        )


def _place(
    shape: ModelShape, needs: MemoryNeeds, devices: Sequence[DeviceBudget], gpu_layers: int
) -> MemoryPlan | None:
    """A plan with exactly so many layers on GPUs; None where these have no room for them."""
    first = shape.num_layers + 1 - gpu_layers
    gpus = tuple(device for device in devices if device.kind == "gpu")
    (cpu,) = (device for device in devices if device.kind == "cpu")
    offloaded = _Offloaded(shape, needs, gpus, range(first, shape.num_layers + 1))
    for cuts in (offloaded.by_share(), offloaded.by_filling()):
        if (plans := offloaded.plans(cuts)) is not None:
            return MemoryPlan(shape, needs, (*plans, _cpu_plan(shape, needs, cpu, range(first))))
    return None


@dataclass(frozen=True, slots=True)
class _Offloaded:
    """The layers that GPUs are to hold among them."""

    shape: ModelShape
    needs: MemoryNeeds
    gpus: tuple[DeviceBudget, ...]
    layers: range

    def by_share(self) -> list[range]:
        """Neighbouring layers for each GPU, so that each is as full as the others."""
        sizes = [self._layer_bytes(layer) for layer in self.layers]
        room = sum(gpu.usable_bytes for gpu in self.gpus)
        cuts, start, taken, until = [], 0, 0.0, 0
        for gpu in self.gpus:
            until += gpu.usable_bytes
            end = start
            # A layer goes where its middle lies.
            while end < len(sizes) and (taken + sizes[end] / 2) * room <= until * sum(sizes):
                taken += sizes[end]
                end += 1
            cuts.append(self.layers[start:end])
            start = end
        return cuts

    def by_filling(self) -> list[range]:
        """Neighbouring layers, one GPU filled after the other; some may be left over."""
        cuts, start = [], 0
        for gpu in self.gpus:
            end = start
            while end < len(self.layers) and (
                self.plan_of(gpu, self.layers[start : end + 1], len(self.gpus)).fits
            ):
                end += 1
            cuts.append(self.layers[start:end])
            start = end
        return cuts

    def plans(self, cuts: Sequence[range]) -> tuple[DevicePlan, ...] | None:
        """The plan of each GPU; None where one has no room, or layers are left over."""
        num_used = sum(len(cut) > 0 for cut in cuts)
        plans = tuple(
            self.plan_of(gpu, cut, num_used) for gpu, cut in zip(self.gpus, cuts, strict=True)
        )
        is_whole = sum(map(len, cuts)) == len(self.layers)
        return plans if is_whole and all(p.fits or not p.layers for p in plans) else None

    def plan_of(self, gpu: DeviceBudget, layers: range, num_used: int) -> DevicePlan:
        """What a GPU takes for its layers, one of `num_used` GPUs that have any."""
        if not layers:
            return DevicePlan(gpu, layers, 0, 0, 0)
        shape, needs = self.shape, self.needs
        has_output = shape.num_layers in layers
        blocks = [layer for layer in layers if layer < shape.num_layers]
        compute = compute_bytes(shape, needs, blocks=bool(blocks), output=has_output)
        if self.layers.start > 0:
            # Long prompts are computed here with the CPU's weights too, a copy of one tensor at a time.
            compute += shape.largest_tensor_bytes
        elif num_used > 1:
            compute += (_INPUT_COPIES - 1) * _input_bytes(shape, needs)
        return DevicePlan(
            device=gpu,
            layers=layers,
            weights_bytes=sum(_weights(shape, layers)) + (shape.tied_bytes if has_output else 0),
            kv_bytes=sum(kv_bytes(shape, needs, layer) for layer in blocks),
            compute_bytes=compute,
        )

    def _layer_bytes(self, layer: int) -> int:
        """What a layer takes beside what is reserved for computing."""
        shape = self.shape
        if layer == shape.num_layers:
            return shape.output_bytes + shape.tied_bytes
        return shape.layer_bytes[layer] + kv_bytes(shape, self.needs, layer)


def _cpu_plan(
    shape: ModelShape, needs: MemoryNeeds, cpu: DeviceBudget, layers: range
) -> DevicePlan:
    has_output = shape.num_layers in layers
    blocks = [layer for layer in layers if layer < shape.num_layers]
    compute = compute_bytes(shape, needs, blocks=bool(blocks), output=has_output)
    return DevicePlan(
        device=cpu,
        layers=layers,
        weights_bytes=shape.embedding_bytes + sum(_weights(shape, layers)),
        kv_bytes=sum(kv_bytes(shape, needs, layer) for layer in blocks),
        compute_bytes=max(compute, _input_bytes(shape, needs)),
        logits_bytes=4 * needs.reserved_outputs * shape.vocab_size,
    )


def _weights(shape: ModelShape, layers: range) -> Iterator[int]:
    for layer in layers:
        yield shape.layer_bytes[layer] if layer < shape.num_layers else shape.output_bytes


def _input_bytes(shape: ModelShape, needs: MemoryNeeds) -> int:
    """Of what the CPU hands to a graph: embeddings of the rows and the mask."""
    rows = needs.reserved_rows
    return 4 * rows * shape.hidden_size + 2 * rows * needs.num_cells


def _padded(number: int, step: int) -> int:
    return math.ceil(number / step) * step
