"""Which types of tensors llama.cpp computes slowly on this machine.

For most types llama.cpp multiplies whole matrices at a time, with the processor's vector units; for a
few it only has a product of two rows, and for one not even that in vectors. Which is which was read in
its sources at commit 0c1e57098 (ggml-cpu: repack.cpp, tiled/tiled.cpp, llamafile/sgemm.cpp,
arch-fallback.h), how much it costs was measured by benchmarks/perf/kernels.py on an AMD EPYC with
AVX-512 (results/kernels-2026-11-25-epyc-2-cores.json). Nothing is said of machines of which nothing is known: GPUs, which have their own kernels,
processors without AVX2, and ARM.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from medlocal.libllama import build_info, devices


@dataclass(frozen=True, slots=True)
class SlowKernel:
    """What computing with a type costs on x86 with AVX2 or AVX-512."""

    prompt: float
    """Speed of a prompt of 256 tokens, as a share of Q4_0's."""
    generation: float
    """Speed of one token at a time, as a share of Q4_0's."""
    why: str
    with_amx: bool = True
    """Slow where the processor has AMX, too."""


_ROWS = "llama.cpp multiplies it row by row on this processor"
_TABLES = "llama.cpp looks its values up in tables"
_SLOW: Mapping[str, SlowKernel] = {
    "Q4_1": SlowKernel(0.24, 0.61, _ROWS, with_amx=False),  # amx/common.h has a kernel for it
    "Q5_1": SlowKernel(0.22, 0.55, _ROWS),
    "TQ1_0": SlowKernel(0.28, 0.71, _ROWS),
    "Q1_0": SlowKernel(0.33, 0.88, _ROWS),
    "NVFP4": SlowKernel(0.19, 0.50, _ROWS),
    "Q2_0": SlowKernel(0.02, 0.07, "llama.cpp has no vector code for it on this processor"),
    "IQ3_S": SlowKernel(1.23, 0.27, _TABLES),
    "IQ3_XXS": SlowKernel(1.23, 0.31, _TABLES),
}
"""All types that compute prompts or generate at a third of Q4_0's speed, or less. TQ2_0 is not among
them, although it has only a product of rows: that one is quick enough (0.53 and 1.31)."""
_SLOW_BELOW = 0.34


def slow_types(names: Iterable[str]) -> dict[str, str]:
    """Of some tensor types, those that this machine computes slowly, each with the reason."""
    has_gpu = any(device.kind != "cpu" for device in devices())
    return slow_on(build_info()["system"], has_gpu, names)


def slow_on(system: str, has_gpu: bool, names: Iterable[str]) -> dict[str, str]:
    """Of some tensor types, those that a machine computes slowly, each with the reason.

    Args:
        system: what llama.cpp says of the processor: "CPU : AVX2 = 1 | …".
        has_gpu: whether the weights will lie on a GPU.
        names: of tensor types, as "Q4_1".
    """
    features = set(re.findall(r"(\w+) = 1", system))
    if has_gpu or "AVX2" not in features:
        return {}
    return {
        name: _told(slow)
        for name in names
        if (slow := _SLOW.get(name)) and (slow.with_amx or "AMX_INT8" not in features)
    }


def _told(slow: SlowKernel) -> str:
    shares = {"prompts": slow.prompt, "generated text": slow.generation}
    speeds = [f"{what} at {share:.0%}" for what, share in shares.items() if share < _SLOW_BELOW]
    return f"{slow.why} ({' and '.join(speeds)} of Q4_0's speed)"
