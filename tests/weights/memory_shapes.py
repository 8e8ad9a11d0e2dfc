"""Shapes and devices that the tests of memory plans share, and llama.cpp's own answer for a shape."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from medlocal.catalog import HubSource, ModelCard
from medlocal.libllama import LOG, library
from medlocal.weights.header import TensorInfo
from medlocal.weights.memory import DeviceBudget, Kind, MemoryNeeds
from medlocal.weights.model_shape import ModelShape, shape_of_card
from medlocal.weights.type_sizes import write_outline

MIB = 2**20
FLASH = {True: 1, False: 0}


def card(repo: str, *, base: str = "", parameters: int | None = None) -> ModelCard:
    source = HubSource(repo=repo, revision="", files=("*",))
    return ModelCard(
        id=repo.split("/")[1].lower(), name=repo, repo=repo, base=base, role="general",
        languages=(), licence="", licence_read="", source=source, parameters=parameters,
    )  # fmt: skip


def known(repo: str) -> ModelShape:
    """The shape that a published model of that name is taken to have."""
    return shape_of_card(card(repo))


def toy(num_layers: int = 4, layer_mib: int = 100, *, tied: bool = False) -> ModelShape:
    """Blocks of `layer_mib`, an embedding of 50 MiB, an output of 60 MiB, which tied ones lack.

    A cell takes 4 KiB in each block: 1,024 elements of keys and as many of values, in F16. A row takes 8 KiB
    of logits and next to nothing else.
    """
    sizes = {"token_embd.weight": 50, **({} if tied else {"output.weight": 60})}
    sizes |= {f"blk.{n}.ffn_up.weight": layer_mib for n in range(num_layers)}
    tensors = [
        TensorInfo(name, (1024, size), "Q8_0", 0, size * MIB, size * MIB)
        for name, size in sizes.items()
    ]
    return ModelShape(
        name="toy", architecture="llama", hidden_size=1, feed_forward_size=1, query_size=128,
        key_sizes=(1024,) * num_layers, value_sizes=(1024,) * num_layers, head_sizes=(128, 128),
        vocab_size=2048, context_length=4096, tensors=tuple(tensors),
    )  # fmt: skip


def device(mib: int, kind: Kind = "gpu", name: str = "GPU 0") -> DeviceBudget:
    """A device with nothing to be kept free."""
    return DeviceBudget(name, kind, mib * MIB, 0)


CPU = device(100_000, "cpu", "CPU")


def in_q8_0(shape: ModelShape) -> ModelShape:
    """The same with its matrices in Q8_0, so that its outline is one of a quantised file."""
    tensors = [
        replace(t, type="Q8_0", num_bytes=t.num_elements // 32 * 34) if len(t.shape) > 1 else t
        for t in shape.tensors
    ]
    return replace(shape, tensors=tuple(tensors))


def reserved(shape: ModelShape, needs: list[MemoryNeeds], folder: Path) -> list[dict[str, float]]:
    """What llama.cpp reserves for a context on the CPU, in MiB, and nothing of it is allocated."""
    lib = library()
    params = lib.llama_model_default_params()
    params.no_alloc, params.load_mode = True, 0  # LLAMA_LOAD_MODE_NONE: nothing is mapped
    path = write_outline(shape, folder / "outline.gguf")
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    assert model, LOG.errors()
    try:
        return [_context(lib, model, each) for each in needs]
    finally:
        lib.llama_model_free(model)


def _context(lib: Any, model: Any, needs: MemoryNeeds) -> dict[str, float]:
    LOG.lines.clear()
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = needs.num_cells, needs.num_sequences, True
    params.n_batch = params.n_ubatch = needs.num_rows
    params.n_outputs_max, params.n_outputs_max_per_seq = needs.num_outputs, 0
    params.flash_attn_type = FLASH[needs.flash_attention]
    params.type_k = params.type_v = {"f16": 1, "q8_0": 8, "bf16": 30}[needs.kv_type]
    context = lib.llama_init_from_model(model, params)
    assert context, LOG.errors()
    lib.llama_free(context)
    compute = LOG.search(r"compute buffer size = *([\d.]+) MiB")
    cells = LOG.search(r"size = *([\d.]+) MiB \( *(\d+) cells")
    assert compute is not None
    assert cells is not None
    return {"compute": float(compute[1]), "kv": float(cells[1]), "cells": float(cells[2])}


def by_llama_cpp(tensor_split: tuple[float, ...], layers: range) -> list[int]:
    """The GPU that llama.cpp gives each layer: its rule in `load_tensors`, in single precision."""
    import numpy as np

    ends = np.cumsum(np.asarray(tensor_split, np.float32), dtype=np.float32)
    ends /= ends[-1]
    shares = [np.float32(n) / np.float32(len(layers)) for n in range(len(layers))]
    return [int(np.searchsorted(ends, share, side="right")) for share in shares]
