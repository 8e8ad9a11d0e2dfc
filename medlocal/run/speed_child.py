"""The process in which `speed` measures: it loads one file, times it, and tells each result as it comes.

The file has passed the gate already. Nothing but this measurement happens here, so that the peak of memory
and the time of the load are the model's; the modules that are needed are imported before either is looked at.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medlocal import libllama
from medlocal.engine.batching import NUM_RESERVED_IDS, Batch
from medlocal.engine.llama import ContextOptions, LlamaDecoder
from medlocal.engine.timing import MICRO_BATCH, SpeedRequest, SpeedTimer
from medlocal.run.child import Message, Tell, serve
from medlocal.run.energy import find_meter, gpus_watched
from medlocal.run.execute import peak_memory_bytes
from medlocal.run.speed import FIRST_TOKEN, PeakMemory
from medlocal.weights.inspect import read_gguf
from medlocal.weights.measured_memory import machine_budgets
from medlocal.weights.memory import MemoryNeeds, MemoryPlan, plan_memory
from medlocal.weights.model_shape import shape_of_gguf


def measure(asked: Message, tell: Tell) -> None:
    """Load a model and time all tests of a request.

    Args:
        asked: "path", "num_threads" and "request", the fields of a `SpeedRequest`.
        tell: told "loaded", "step" (a name, before it is measured), "first_token", "row", "memory", "gpus".

    Raises:
        MedlocalError: it cannot be loaded, or memory ran out.
    """
    request = _request(asked["request"])
    path = Path(asked["path"])
    info = read_gguf(path)
    options = context_options(request, asked["num_threads"])
    plan = plan_memory(shape_of_gguf(info), _needs(options), machine_budgets())
    libllama.library()  # what it takes by itself is not the model's
    meter = find_meter()
    resident, free = peak_memory_bytes(), _free_gpu_bytes()
    with gpus_watched() as gpus:
        started = time.perf_counter()
        with load(path, plan) as model:
            decoder = LlamaDecoder(model, options)
            _compute_one(decoder)
            seconds = time.perf_counter() - started
            tell(loaded={"load_seconds": seconds, "facts": _facts(model, decoder)})
            bos = model.bos if info.wants_bos else None
            timer = SpeedTimer(decoder, request, model.num_vocab, bos, meter=meter)
            for message in _results(timer):
                tell(**message, memory=asdict(_peak(plan, model, resident, free)))
            decoder.close()
    tell(gpus=gpus)


def _results(timer: SpeedTimer) -> Iterator[Message]:
    """The first tokens and the rows, each announced before it is measured."""
    if timer.request.num_first_tokens:
        yield {"step": FIRST_TOKEN}
        first = timer.first_tokens()
        yield {"first_token": list(first.values) if first else None}
    for test in timer.request.tests:
        yield {"step": test.name}
        yield {"row": asdict(timer.measure(test))}


def context_options(request: SpeedRequest, num_threads: int) -> ContextOptions:
    """A context as llama-bench makes it, large enough for every test."""
    return ContextOptions(
        num_cells=request.num_cells,
        num_rows=MICRO_BATCH,
        num_ids=request.num_ids,
        num_threads=num_threads,
        num_outputs=max(request.sequences),
        num_texts=max(request.sequences),
    )


def load(path: Path, plan: MemoryPlan) -> libllama.LlamaModel:
    """All layers on GPUs where they fit, as llama-bench does it; else as many as fit."""
    if plan.fits_best or not plan.has_gpu:
        return libllama.LlamaModel(path)
    return libllama.LlamaModel(path, gpu_layers=plan.gpu_layers, tensor_split=plan.tensor_split)


def _request(values: Message) -> SpeedRequest:
    frozen: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
    }
    return SpeedRequest(**frozen)


def _needs(options: ContextOptions) -> MemoryNeeds:
    # llama.cpp reserves an output for every sequence id.
    return MemoryNeeds(
        context=options.num_cells,
        num_rows=options.num_rows,
        num_outputs=max(options.num_outputs, options.num_ids),
    )


def _compute_one(decoder: LlamaDecoder) -> None:
    """The weights of a mapped file are read when they are first needed: that is part of a load."""
    batch = Batch()
    batch.add(0, 0, [NUM_RESERVED_IDS], True)
    decoder.decode(batch)
    decoder.logits(0)
    decoder.clear()


def _facts(model: libllama.LlamaModel, decoder: LlamaDecoder) -> dict[str, Any]:
    return {
        **decoder.facts(),
        "repack": model.repack,
        "layers_offloaded": model.layers_offloaded,
    }


def _free_gpu_bytes() -> int:
    return sum(device.free_bytes for device in libllama.devices() if device.kind == "gpu")


def _peak(plan: MemoryPlan, model: libllama.LlamaModel, resident: int, free: int) -> PeakMemory:
    peak = peak_memory_bytes()
    parts = plan.per_device
    return PeakMemory(
        peak_bytes=peak,
        growth_bytes=peak - resident,
        copied_bytes=sum(
            buffer.num_bytes
            for buffer in model.buffers
            if buffer.part == "weights" and not buffer.name.endswith("_Mapped")
        ),
        planned_bytes=sum(p.needed_bytes for p in parts if p.device.kind == "cpu"),
        gpu_bytes=free - _free_gpu_bytes(),
        planned_gpu_bytes=sum(p.needed_bytes for p in parts if p.device.kind == "gpu"),
    )


if __name__ == "__main__":
    serve(measure)
