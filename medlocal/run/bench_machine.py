"""The machine that something was measured on, as far as it decides the figures. Reads, measures nothing."""

import os
import platform
import re
from pathlib import Path
from typing import Any

from medlocal import __version__, libllama
from medlocal.gpu_monitor import driver_version
from medlocal.settings import Settings


def describe_machine(settings: Settings) -> dict[str, Any]:
    """Processor, cores, memory, system, devices, NVIDIA's driver, llama.cpp's build; JSON values.

    `load_average` is the system's over the last minute: what else was at work just before.
    """
    build = libllama.build_info()
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": settings.num_threads,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "medlocal": __version__,
        "llama_cpp": build["commit"],
        "llama_cpp_python": build["llama_cpp_python"],
        "flags": build["system"],
        "devices": [
            {"name": d.name, "description": d.description, "kind": d.kind, "bytes": d.total_bytes}
            for d in libllama.devices()
        ],
        "driver": driver_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor calls itself; "" where the system does not say."""
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.M):
            return found[1].strip()
    return platform.processor()
