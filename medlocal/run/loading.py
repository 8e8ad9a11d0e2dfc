"""A model's weights and its context, in what memory there really is.

A plan says what fits, from what the devices say they have free. They may have less: another program
takes some between the question and the load, memory is in pieces, an estimate is off. Then the load or
the context fails, and is tried again with less, a few times, each with a notice that says so.

This knows llama.cpp's loads and contexts; what the model is asked, and what its answers' identity is
made of, is the backend's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from medlocal.engine.batching import NUM_RESERVED_IDS, Batch, Decoder
from medlocal.engine.llama import ContextOptions, LlamaDecoder
from medlocal.errors import MedlocalError
from medlocal.libllama import LlamaModel, OutOfMemoryError
from medlocal.run.room import (
    LoadPlan,
    fitting_cells,
    needs_of,
    plan_load,
    with_fewer_layers,
    with_less,
)
from medlocal.weights.memory import DeviceBudget
from medlocal.weights.model_shape import ModelShape

_TOKEN = 100
"""Any token will do to try a context out."""


@dataclass
class Loading:
    """One model: loaded, given a context, and either again with less."""

    path: Path
    """A GGUF that has passed the gate."""
    shape: ModelShape
    options: ContextOptions
    """Of the context that the weights are to leave room for."""
    budgets: Callable[[], Sequence[DeviceBudget]]
    """What the devices have free when it is asked."""
    repack: bool = True
    is_exact: bool = False
    """Only cells are given up: what else there is may be part of an answer's identity."""
    notices: list[str] = field(default_factory=list)
    """What was given up; a sentence each."""
    model: LlamaModel | None = field(default=None, init=False)
    decoder: LlamaDecoder | None = field(default=None, init=False)
    _least_cells: int = field(default=0, init=False)

    @cached_property
    def plan(self) -> LoadPlan:
        """Where the layers go, by what is free when it is first asked for."""
        return plan_load(self.shape, needs_of(self.options), self.budgets())

    def load(self) -> LlamaModel:
        """Load the weights as planned, and with fewer layers on the GPUs where these have less.

        Raises:
            OutOfMemoryError: not even the CPU's memory holds them, or the layers must stay.
            RefusedError: llama.cpp cannot load the file.
        """
        while self.model is None:
            plan = self.plan
            try:
                self.model = LlamaModel(
                    self.path,
                    repack=self.repack,
                    gpu_layers=plan.gpu_layers,
                    split_mode=plan.split_mode,
                    tensor_split=plan.tensor_split,
                    main_gpu=plan.main_gpu,
                )
            except OutOfMemoryError as error:
                self._plan_fewer_layers(error)
        return self.model

    def open(self, num_cells: int, least_cells: int) -> Decoder:
        """Make a context, with as many cells as there is room for.

        Args:
            num_cells: wanted.
            least_cells: without which nothing can be asked.

        Raises:
            MedlocalError: there is not even room for these.
        """
        self._least_cells = min(least_cells, num_cells)
        self.options = replace(self.options, num_cells=num_cells)
        return self._open(self._fitting())

    def open_smaller(self, error: OutOfMemoryError) -> Decoder:
        """Make a context that takes less than the last one; its cache is lost.

        Raises:
            OutOfMemoryError: there is nothing left to give up; it is the one that was given.
        """
        assert self.decoder is not None, "there was a context"
        options = self.decoder.options
        self.close_context()
        return self._open(self._with_less(options, error))

    def close_context(self) -> None:
        """Free the context alone."""
        if self.decoder:
            self.decoder.close()
            self.decoder = None

    def close(self) -> None:
        """Free context and weights."""
        self.close_context()
        if self.model:
            self.model.close()
            self.model = None

    def _open(self, options: ContextOptions) -> Decoder:
        while True:
            try:
                assert self.model is not None, "the weights are loaded before"
                self.decoder = LlamaDecoder(self.model, options)
                if self.model.layers_offloaded:
                    _try_out(self.decoder)
                return self.decoder
            except OutOfMemoryError as error:
                self.close_context()
                options = self._with_less(options, error)

    def _fitting(self) -> ContextOptions:
        """The options with as many cells as there is room for beside the loaded weights."""
        budgets = self.budgets()
        cells = fitting_cells(self.plan.memory, budgets, self.options, self._least_cells)
        options = replace(self.options, num_cells=cells)
        free = {budget.name: budget.free_bytes for budget in budgets}
        for part in self.plan.memory.with_needs(needs_of(options)).per_device:
            if part.kv_bytes > free.get(part.device.name, part.kv_bytes):
                raise MedlocalError(
                    f"{cells} cells of KV cache take {part.kv_bytes / 2**20:,.0f} MiB on"
                    f" {part.device.name}, and {free[part.device.name] / 2**20:,.0f} are free",
                    hint="free memory, or ask for shorter prompts with --context",
                )
        if cells < self.options.num_cells:
            self.notices.append(
                f"there is room for {cells} of the {self.options.num_cells} cells of KV cache"
                " that would be of use"
            )
        return options

    def _with_less(self, options: ContextOptions, error: OutOfMemoryError) -> ContextOptions:
        """Give up cells; where there are no more to give up, layers on the GPU."""
        smaller = with_less(options, self._least_cells, is_exact=self.is_exact)
        if smaller is None:
            self._reload_with_fewer_layers(error)
            return self.options
        self.notices.append(
            f"memory ran out with {options.num_cells} cells of KV cache and {options.num_texts}"
            f" answers side by side: going on with {smaller.num_cells} and {smaller.num_texts}"
        )
        return smaller

    def _reload_with_fewer_layers(self, error: OutOfMemoryError) -> None:
        assert self.model is not None
        self._plan_fewer_layers(error)
        while not self.model.handle or self.model.gpu_layers != self.plan.gpu_layers:
            try:
                self.model.reload(self.plan.gpu_layers, self.plan.tensor_split)
            except OutOfMemoryError as again:
                self._plan_fewer_layers(again)

    def _plan_fewer_layers(self, error: OutOfMemoryError) -> None:
        """Change the plan; where that is impossible, raise the error."""
        before = self.plan.gpu_layers
        fewer = None if self.is_exact else with_fewer_layers(self.plan)
        if fewer is None:
            if self.is_exact and before:
                error.hint = "free memory on the GPU, or ask in fast mode: it may use fewer layers"
            raise error
        self.plan = fewer
        self.notices.append(
            f"memory ran out with {before} layers on the GPU: going on with {fewer.gpu_layers}"
        )


def _try_out(decoder: Decoder) -> None:
    """Compute one full call, so that what a GPU takes for it only now is missed before any question."""
    limits = decoder.limits
    batch = Batch()
    for position in range(min(limits.num_rows, limits.num_cells)):
        is_wanted = batch.num_outputs < limits.num_outputs
        batch.add(_TOKEN, position, [NUM_RESERVED_IDS], is_wanted)
    decoder.decode(batch)
    decoder.logits(0)
    decoder.clear()
