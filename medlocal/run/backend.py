"""A model file made ready for a run: gate, template, identity, weights, context.

What a run needs of a model stands in `Backend`; `LlamaBackend` is the real one, and the tests have a
toy. Weights are loaded when the first job must be asked: a run that finds everything done loads none.
How much of the machine they take is `loading`'s to see to.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from medlocal import libllama
from medlocal.engine.batching import Decoder
from medlocal.engine.llama import ONE_KERNEL, ContextOptions
from medlocal.engine.sequence import Generate, Request
from medlocal.files import Progress, file_sha256, no_progress
from medlocal.libllama import OutOfMemoryError
from medlocal.run.asking import ASKING_VERSION, Asker
from medlocal.run.loading import Loading
from medlocal.settings import Settings
from medlocal.weights.gate import Gate, examine, pass_gate
from medlocal.weights.inspect import GGUFInfo, read_gguf
from medlocal.weights.measured_memory import machine_budgets
from medlocal.weights.memory import DeviceBudget
from medlocal.weights.model_shape import shape_of_gguf
from medlocal.weights.template import ChatTemplate, check_bos

EXACT_ROWS = 240
FAST_ROWS = 512
_KV_TYPE_BYTES = 2
_EXACT_CELLS, _FAST_CELLS = 3072, 8192
"""KV cells at which epochs are long enough."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a set of requests needs of a context."""

    longest: int
    """Cells of the longest prompt with all answers that begin at its end."""
    total: int
    """Cells if nothing were shared and nothing freed: more than this is never of use."""
    most_growth: int
    """Longest answer in tokens."""

    @classmethod
    def of(cls, requests: Sequence[Request]) -> "Needs":
        """Add up what requests need."""
        growth: dict[tuple[int, ...], int] = {}
        for request in requests:
            if isinstance(request.task, Generate):
                more = request.task.max_tokens
            else:
                more = sum(len(c) - 1 for c in request.task.continuations)
            growth[request.prompt] = growth.get(request.prompt, 0) + more
        needs = [len(prompt) + more for prompt, more in growth.items()]
        answers = [r.task.max_tokens for r in requests if isinstance(r.task, Generate)]
        return cls(max(needs, default=0), sum(needs), max(answers, default=0))


class Backend(Protocol):
    """A model that a run can ask."""

    @property
    def name(self) -> str:
        """How reports call it."""

    @property
    def mode(self) -> str:
        """`exact` or `fast`."""

    def identity(self) -> dict[str, object]:
        """What of the model and the engine determines an answer; part of every job key."""

    def asker(self) -> Asker:
        """What turns jobs into requests; loads the weights."""

    def context_limit(self) -> int:
        """Longest prompt with its answer, in tokens."""

    def decoder(self, needs: Needs) -> Decoder:
        """A context for the requests."""

    def smaller_decoder(self, error: OutOfMemoryError) -> Decoder:
        """A context that takes less than the last one, whose cache is lost.

        Raises:
            OutOfMemoryError: there is nothing left to give up; it is the one that was given.
        """

    @property
    def notices(self) -> Sequence[str]:
        """What was given up until now because memory ran out; a sentence each."""

    def facts(self) -> dict[str, object]:
        """What was really used, read back."""

    def close(self) -> None:
        """Free everything."""


@dataclass
class LlamaBackend:
    """A GGUF file on llama.cpp."""

    name: str
    path: Path
    settings: Settings
    wanted_mode: str = ""
    """`exact`, `fast`, or "" = exact on a CPU, fast on a GPU."""
    wanted_context: int = 0
    """0 = what the model was trained with."""
    progress: Progress = no_progress
    budgets: Callable[[], Sequence[DeviceBudget]] = machine_budgets
    """What the devices have free when it is asked: one CPU and any number of GPUs."""
    notices: list[str] = field(default_factory=list, init=False)
    """What was given up because memory ran out; a sentence each."""

    @cached_property
    def info(self) -> GGUFInfo:
        """The header, checked before llama.cpp sees the file."""
        return read_gguf(self.path)

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template; a model without one cannot be asked."""
        return ChatTemplate.from_gguf(self.info)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What the file's checks found that is no reason to refuse it; no weight is read for it."""
        return examine(self.info)

    @cached_property
    def gate(self) -> Gate:
        """The proof that llama.cpp may load the file here: the first time, a load in a child process."""
        return pass_gate(self.info, self.sha256, self.settings, self.progress)

    @cached_property
    def sha256(self) -> str:
        """Of the file; remembered, because large files take long."""
        return file_sha256(self.path, self.progress, self.settings.home / "hashes.json")

    @cached_property
    def has_gpu(self) -> bool:
        """True where llama.cpp sees a GPU."""
        return any(device.kind == "gpu" for device in libllama.devices())

    @cached_property
    def loading(self) -> Loading:
        """The weights and the context, in what memory there is."""
        return Loading(
            self.path,
            shape_of_gguf(self.info),
            self._options(),
            self.budgets,
            repack=self.repacks,
            is_exact=self.is_exact,
            notices=self.notices,
        )

    @cached_property
    def mode(self) -> str:
        """`exact` or `fast`."""
        return self.wanted_mode or ("fast" if self.has_gpu else "exact")

    @property
    def is_exact(self) -> bool:
        """True where a result does not depend on what else was asked beside it."""
        return self.mode == "exact"

    @property
    def num_rows(self) -> int:
        """The micro-batch."""
        return EXACT_ROWS if self.is_exact else FAST_ROWS

    @property
    def kv_types(self) -> tuple[str, str]:
        """Of keys and values: in exact mode on a CPU, those with one attention kernel."""
        # A GPU has no kernel for unequal types and would leave the attention to the CPU.
        return ONE_KERNEL if self.is_exact and not self.has_gpu else ("f16", "f16")

    @property
    def repacks(self) -> bool:
        """Repacked K-quants give other bits when a prompt is split elsewhere."""
        return not (self.is_exact and self.info.has_super_blocks)

    @property
    def min_rows(self) -> int:
        """Rows from which on llama.cpp takes one kernel for the matrix products on a CPU."""
        if not self.is_exact:
            return 1
        return 8 if self.info.has_super_blocks else 2

    def check(self) -> None:
        """Do the checks that need no load, before any job is planned.

        Raises:
            MissingError, RefusedError: the file is not there or must not be used.
        """
        assert self.template
        assert self.warnings is not None

    def identity(self) -> dict[str, object]:
        """The file, the build and the mode: another of these may give another answer.

        In exact mode so are the layers on a GPU, whose last bits are not the CPU's. In fast mode the
        last bits hang on what else was asked anyway, so that fewer layers are no other identity.
        """
        build = libllama.build_info()
        has_layers = self.is_exact and self.has_gpu
        return {
            "model_sha256": self.sha256,
            "llama_cpp": build["commit"],
            "system": build["system"],
            "devices": [d.description for d in libllama.devices()],
            "mode": self.mode,
            "micro_batch": self.num_rows,
            "repack": self.repacks,
            "kv_types": list(self.kv_types),
            "sampling": "greedy",
            "asking": ASKING_VERSION,
            **({"gpu_layers": self.loading.plan.gpu_layers} if has_layers else {}),
        }

    def asker(self) -> Asker:
        """Load the weights, once the gate let the file through.

        Tokenising and masks need only their vocabulary.

        Raises:
            RefusedError: llama.cpp crashed on the file, hung or refused it.
            OutOfMemoryError: there is too little memory.
        """
        assert self.gate
        bos = partial(check_bos, bos_id=self.info.bos_id, add_bos=self.info.wants_bos)
        return Asker(self.loading.load(), self.template, bos)

    def context_limit(self) -> int:
        """What the user set, at most what the model was trained with."""
        trained = self.info.context_length
        return min(self.wanted_context or trained, trained)

    def decoder(self, needs: Needs) -> Decoder:
        """Make the context that fits the requests and the memory.

        Raises:
            MedlocalError: there is no room for the longest prompt with its answers.
        """
        options = self._options()
        # A batch that is padded up to `min_rows` needs cells of its own.
        least = needs.longest + options.min_rows
        needs = replace(needs, longest=least - 1)
        cells = choose_cells(needs, options.num_texts, options.num_cells)
        return self.loading.open(cells, least)

    def smaller_decoder(self, error: OutOfMemoryError) -> Decoder:
        """Make a context that takes less than the last one.

        Raises:
            OutOfMemoryError: there is nothing left to give up; it is the one that was given.
        """
        return self.loading.open_smaller(error)

    def _options(self) -> ContextOptions:
        """Of a context with as many cells as are usually of use."""
        return ContextOptions(
            num_cells=_EXACT_CELLS if self.is_exact else _FAST_CELLS,
            num_rows=self.num_rows,
            num_ids=96 if self.is_exact else 192,
            num_threads=self.settings.num_threads,
            num_outputs=96 if self.is_exact else 192,
            min_rows=self.min_rows,
            num_texts=24 if self.is_exact else 64,
            kv_types=self.kv_types,
        )

    def facts(self) -> dict[str, object]:
        """Build, devices, layers and context, as llama.cpp says them."""
        build = libllama.build_info()
        facts: dict[str, object] = {
            "build": f"llama.cpp {build['commit']}, llama-cpp-python {build['llama_cpp_python']}",
            "system": build["system"],
            "devices": [f"{d.name}: {d.description}" for d in libllama.devices()],
            "mode": self.mode,
            "repack": self.repacks,
        }
        if "loading" in vars(self):
            facts |= self._memory_facts()
        if "gate" in vars(self):
            facts["gate"] = {"passed": self.gate.when, "warnings": list(self.gate.warnings)}
        return facts

    def _memory_facts(self) -> dict[str, object]:
        """Where weights and cache lie, planned and read back, and what had to be given up."""
        facts: dict[str, object] = {}
        loading = self.loading
        if model := loading.model:
            facts["layers_offloaded"] = model.layers_offloaded
            facts["weights_bytes"] = model.size_bytes
            facts["weights_buffers"] = {b.name: b.num_bytes for b in model.buffers}
            if self.has_gpu:
                facts["layers_planned"] = loading.plan.gpu_layers
                facts["split_mode"] = loading.plan.split_mode
                facts["tensor_split"] = list(loading.plan.tensor_split)
        if decoder := loading.decoder:
            facts |= decoder.facts()
            cells = decoder.options.num_cells
            facts["kv_bytes"] = cells * self.info.kv_bytes_per_token(_KV_TYPE_BYTES)
        if self.notices:
            facts["given_up"] = list(self.notices)
        return facts

    def model_facts(self) -> Mapping[str, object]:
        """The file, for the run's record."""
        return {
            "id": self.name,
            "path": str(self.path),
            "sha256": self.sha256,
            "architecture": self.info.architecture,
            "quantisation": self.info.main_quantisation,
            "parameters": self.info.num_parameters,
            "bytes": self.info.size,
            # With these the prompt as it was sent can be shown when the file is gone.
            "template": self.template.source,
            "bos_token": self.template.bos_token,
            "eos_token": self.template.eos_token,
        }

    def close(self) -> None:
        """Free context and weights."""
        if "loading" in vars(self):
            self.loading.close()


def choose_cells(needs: Needs, num_texts: int, comfortable: int) -> int:
    """KV cells for a run.

    Enough that `num_texts` answers can grow side by side, since an epoch must hold them all; no more
    than is of use, since attention looks at every cell that an epoch has used.

    Args:
        needs: of the requests.
        num_texts: answers side by side.
        comfortable: cells at which epochs are long enough.
    """
    wanted = max(comfortable, needs.longest + num_texts * needs.most_growth)
    cells = max(needs.longest + 1, min(wanted, needs.total + 1))
    return math.ceil(cells / 256) * 256
