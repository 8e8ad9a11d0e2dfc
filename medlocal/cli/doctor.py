"""`medlocal doctor`: what this machine, this installation and this workspace are like."""

import os
import platform
import shutil
import sys
from typing import Any

from medlocal import __version__
from medlocal.cli.console import AsJson, mebibytes, print_facts, print_json, settings
from medlocal.errors import MedlocalError


def doctor(as_json: AsJson = False) -> None:
    """Check the machine: processor, memory, devices, llama.cpp's build, workspace, models."""
    here = settings()
    free = shutil.disk_usage(next(p for p in (here.home, *here.home.parents) if p.exists())).free
    facts: dict[str, Any] = {
        "medlocal": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": here.num_threads,
        "memory": mebibytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "home": str(here.home),
        "free_disk": mebibytes(free),
        "offline": here.offline,
        **_engine(),
        **_models(here),
        "problems": [],
    }
    facts["problems"] = _problems(facts)
    if as_json:
        print_json(facts)
    else:
        print_facts({k: _line(v) for k, v in facts.items() if k != "problems"})
        for problem in facts["problems"]:
            print(f"! {problem}")
    if facts["llama_cpp"] is None:
        raise MedlocalError("llama.cpp cannot be loaded", hint="make venv builds it")


def _engine() -> dict[str, Any]:
    try:
        from medlocal import libllama

        build, devices = libllama.build_info(), libllama.devices()
    except (ImportError, OSError, RuntimeError) as error:
        return {"llama_cpp": None, "llama_cpp_error": str(error), "devices": []}
    return {
        "llama_cpp": f"{build['commit']} (llama-cpp-python {build['llama_cpp_python']})",
        "llama_cpp_system": build["system"],
        "gpu_offload": build["gpu_offload"],
        "devices": [
            f"{d.name}: {d.description}, {mebibytes(d.free_bytes)} of {mebibytes(d.total_bytes)} free"
            for d in devices
        ],
    }


def _models(here: Any) -> dict[str, Any]:
    from medlocal.catalog import model_cards
    from medlocal.hub import pulled_model

    pulled = [card.id for card in model_cards().values() if pulled_model(card, here)]
    return {"models_here": pulled}


def _problems(facts: dict[str, Any]) -> list[str]:
    found = []
    if sys.maxsize < 2**32:
        found.append("this Python is 32-bit: large models cannot be mapped")
    if shutil.which("nvidia-smi") and facts.get("gpu_offload") == "no":
        found.append("there is an NVIDIA GPU, and llama.cpp was built without CUDA: run make venv")
    if not facts["models_here"]:
        found.append(
            "no model is here: `medlocal models pull smollm2-135m-instruct` gets a small one"
        )
    return found


def _line(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "yes" if value is True else "no" if value is False else str(value)
