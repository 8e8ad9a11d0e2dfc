"""What a load really takes: the buffers that llama.cpp says it made, and the process's own memory.

A model is loaded in this process, with a context of the planned size, and one full call is computed,
so that nothing is left that would only be taken later. Several GPUs are filled as llama.cpp does it by
itself. The weights are not repacked for this
processor: repacked ones lie in a buffer of their own beside the mapped file, whose pages the system
then takes back when it needs them, and the two together would look like twice the weights.

The file must have passed the gate before.
"""

import contextlib
import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medlocal.errors import MedlocalError
from medlocal.libllama import (
    LOG,
    Buffer,
    LlamaModel,
    available_memory,
    devices,
    library,
    read_buffers,
)
from medlocal.weights.memory import DeviceBudget, MemoryNeeds, MemoryPlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KV_NUMBERS = {"f16": 1, "q8_0": 8, "bf16": 30}
"""ggml's numbers of the types."""
_FLASH_ATTENTION = {True: 1, False: 0}
"""llama.cpp's `llama_flash_attn_type`."""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """The process's memory, as Linux counts it."""

    peak_growth_bytes: int
    """Most that was resident, less what was before the load."""
    anonymous_growth_bytes: int
    """At the end: what was allocated."""
    mapped_bytes: int
    """At the end: pages of files, which the system takes back where it needs them."""


@dataclass(frozen=True)
class MeasuredMemory:
    """One load."""

    buffers: tuple[Buffer, ...]
    layers_offloaded: int
    process: ProcessMemory | None
    """None where the system does not say."""

    def part_bytes(self, part: str) -> int:
        """Of "weights", "kv" or "compute", on all devices."""
        return sum(buffer.num_bytes for buffer in self.buffers if buffer.part == part)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One part, as it was planned and as it was."""

    part: str
    predicted_bytes: int
    measured_bytes: int

    @property
    def ratio(self) -> float | None:
        """Predicted ÷ measured; None where nothing was measured."""
        return self.predicted_bytes / self.measured_bytes if self.measured_bytes else None


def measure_load(path: Path, plan: MemoryPlan, num_threads: int) -> MeasuredMemory:
    """Load a model as planned and compute one full call.

    Raises:
        RefusedError: llama.cpp cannot load the file.
        MedlocalError: there is not enough memory for the context, or it cannot be computed.
    """
    library()  # what it takes by itself is not the model's
    before = _process_status(reset_peak=True)
    with LlamaModel(path, repack=False, gpu_layers=plan.gpu_layers) as model:
        buffers = model.buffers
        LOG.lines.clear()
        context = _context(model, plan.needs, num_threads)
        try:
            buffers += read_buffers(text for _, text in LOG.lines)
            _compute(context, model, plan.needs)
            after = _process_status()
        finally:
            library().llama_free(context)
        return MeasuredMemory(buffers, model.layers_offloaded, _growth(before, after))


def machine_budgets() -> list[DeviceBudget]:
    """What this machine has free now: its GPUs as llama.cpp sees them, and the CPU's memory.

    Where the system says how much programs can have without swapping, that is taken for the CPU's:
    llama.cpp calls all of it free. A GPU without memory of its own is none here.
    """
    found = devices()
    gpus = [DeviceBudget.of(d.name, "gpu", d.free_bytes) for d in found if d.kind == "gpu"]
    free = available_memory() or max((d.free_bytes for d in found if d.kind == "cpu"), default=0)
    return [*gpus, DeviceBudget.of("CPU", "cpu", free)]


def compare(plan: MemoryPlan, measured: MeasuredMemory) -> tuple[Comparison, ...]:
    """Put what was planned beside what was measured, part by part."""
    return tuple(
        Comparison(
            part,
            sum(getattr(device, f"{part}_bytes") for device in plan.per_device),
            measured.part_bytes(part),
        )
        for part in ("weights", "kv", "compute")
    )


def _context(model: LlamaModel, needs: MemoryNeeds, num_threads: int) -> Any:
    lib = library()
    params = lib.llama_context_default_params()
    params.n_ctx = needs.num_cells
    params.n_batch = params.n_ubatch = min(needs.num_rows, needs.num_cells)
    params.n_seq_max = needs.num_sequences
    params.n_outputs_max = needs.reserved_outputs
    params.n_outputs_max_per_seq = 0
    params.n_threads = params.n_threads_batch = num_threads
    params.flash_attn_type = _FLASH_ATTENTION[needs.flash_attention]
    params.kv_unified = True
    params.type_k = params.type_v = _KV_NUMBERS[needs.kv_type]
    params.no_perf = True
    context = lib.llama_init_from_model(model.handle, params)
    if not context:
        raise MedlocalError(
            f"no context of {needs.num_cells:,} cells for {model.path}: {LOG.errors()}",
            hint="free memory, or choose a smaller context with --context",
        )
    return context


def _compute(context: Any, model: LlamaModel, needs: MemoryNeeds) -> None:
    """One call of as many rows as fit, the last of them with logits."""
    lib = library()
    num_rows = min(needs.num_rows, needs.num_cells)
    arrays: dict[str, NDArray[np.generic]] = {
        "token": np.arange(num_rows, dtype=np.int32) % model.num_vocab,
        "pos": np.arange(num_rows, dtype=np.int32),
        "n_seq_id": np.ones(num_rows, np.int32),
        "logits": (np.arange(num_rows) >= num_rows - needs.reserved_outputs).astype(np.int8),
    }
    sequence = np.zeros(1, np.int32)
    arrays["seq_id"] = np.full(num_rows, sequence.ctypes.data, np.uint64)
    kinds = dict(lib.llama_batch._fields_)
    pointers = {name: ctypes.cast(array.ctypes.data, kinds[name]) for name, array in arrays.items()}
    if code := lib.llama_decode(context, lib.llama_batch(n_tokens=num_rows, **pointers)):
        raise MedlocalError(
            f"llama.cpp could not compute a call of {num_rows} rows (code {code}): {LOG.errors()}"
        )


def _process_status(*, reset_peak: bool = False) -> dict[str, int] | None:
    """Linux's counts of this process's memory, in bytes; None elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    if reset_peak:
        # Where that is forbidden, an earlier peak is counted too.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    found = re.findall(r"^(Vm\w+|Rss\w+):\s+(\d+) kB", status.read_text(encoding="utf-8"), re.M)
    return {name: int(number) * 1024 for name, number in found}


def _growth(before: dict[str, int] | None, after: dict[str, int] | None) -> ProcessMemory | None:
    if before is None or after is None:
        return None
    return ProcessMemory(
        peak_growth_bytes=after["VmHWM"] - before["VmRSS"],
        anonymous_growth_bytes=after["RssAnon"] - before["RssAnon"],
        mapped_bytes=after["RssFile"] - before["RssFile"],
    )
