"""Sums of squared activations, collected while llama.cpp computes.

`Activations` does the sums on plain arrays; `Collector` is the callback that finds the products with
weights in the graph and hands their inputs over. Which products count, and what is summed, is as in
llama.cpp's own tool (tools/imatrix/imatrix.cpp): inputs of the layers' matrices, each row squared and
added up per column; for a matrix of experts only the rows that were sent to the expert. Neither knows
where the text comes from nor where the sums are kept.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medlocal.errors import MedlocalError
from medlocal.weights.graph import GraphTensor, check_layout, weight_name
from medlocal.weights.importance import Entry

Floats = NDArray[np.float32]

_FEWEST_ROWS = 16
"""llama.cpp's tool leaves out products of fewer rows: those of single tokens."""
OUTPUT = "output.weight"


@dataclass
class Activations:
    """Running sums per weight, in float64: a sum of millions of squares keeps its digits."""

    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """(matrices, columns); a weight of several matrices that all see each row has one flat one."""
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """(matrices,)"""

    def add(self, name: str, squares: Floats, num_rows: int) -> None:
        """Add what a weight of no experts was multiplied with.

        Args:
            name: of the weight.
            squares: of its inputs, summed over rows: (columns of all its matrices,).
            num_rows: that were summed, per matrix.

        Raises:
            MedlocalError: a sum is not finite.
        """
        sums, counts = self._of(name, 1, squares.size)
        sums += squares.reshape(sums.shape)
        counts += num_rows
        _check_finite(name, sums)

    def add_routed(
        self, name: str, inputs: Floats, experts: NDArray[np.int32], num_experts: int
    ) -> None:
        """Add what a weight of experts was multiplied with.

        Args:
            name: of the weight.
            inputs: (tokens, 1 or choices, columns): one row for all of a token's experts, or one each.
            experts: chosen for each token, (tokens, choices).
            num_experts: that there are.

        Raises:
            MedlocalError: an expert that does not exist, or a sum that is not finite.
        """
        if experts.size and not (experts.min() >= 0 and experts.max() < num_experts):
            raise MedlocalError(f"llama.cpp sent a token to an expert that {name} does not have")
        sums, counts = self._of(name, num_experts, inputs.shape[2])
        for expert in np.unique(experts):
            tokens, choices = np.nonzero(experts == expert)
            rows = inputs[tokens, choices % inputs.shape[1]]
            sums[expert] += _squares(rows)
            counts[expert] += len(rows)
        _check_finite(name, sums)

    def entries(self) -> dict[str, Entry]:
        """The sums as an importance matrix keeps them."""
        return {
            name: Entry(sums.astype(np.float32), self.counts[name].copy())
            for name, sums in self.sums.items()
        }

    def _of(
        self, name: str, num_matrices: int, num_columns: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        if name not in self.sums:
            self.sums[name] = np.zeros((num_matrices, num_columns))
            self.counts[name] = np.zeros(num_matrices, np.int64)
        sums, counts = self.sums[name], self.counts[name]
        if sums.shape[0] != num_matrices or sums.shape[1] != num_columns:
            raise MedlocalError(
                f"{name} is used with {num_matrices} x {num_columns} inputs, and before with"
                f" {sums.shape[0]} x {sums.shape[1]}",
                hint="the partial file may be of another model: remove it and start again",
            )
        return sums, counts


class Collector:
    """The callback for llama.cpp's computation.

    Call `next_graph` after each computation. From the second on it ends behind the last product
    that is wanted: the logits, a tenth of a small model's work, are not computed.
    """

    def __init__(self, activations: Activations, *, with_output: bool = False) -> None:
        """Check that llama.cpp's tensors can be read.

        Args:
            activations: where the sums are added.
            with_output: collect for the output matrix too, where the model has one of its own.

        Raises:
            MedlocalError: they are laid out in another way.
        """
        check_layout()
        self.activations = activations
        self._with_output = with_output
        self._taken: list[str] = []
        self._first: list[str] | None = None

    def __call__(self, address: int, ask: bool) -> bool:
        """Say whether a tensor's inputs are wanted (`ask`), or take them and say whether to go on."""
        tensor = GraphTensor(address)
        if ask:
            return self._wants(tensor)
        self._take(tensor)
        return self._first is None or len(self._taken) < len(self._first)

    def next_graph(self) -> None:
        """Say that a computation is over.

        Raises:
            MedlocalError: it had other products than the first one, so that its sums are in doubt.
        """
        if self._first is None:
            self._first = self._taken
        if not self._taken or self._taken != self._first:
            raise MedlocalError(
                f"llama.cpp computed {len(self._taken)} products with weights, and"
                f" {len(self._first)} before",
                hint="this kind of model is not supported yet",
            )
        self._taken = []

    def _wants(self, tensor: GraphTensor) -> bool:
        operation = tensor.operation
        if operation not in {"MUL_MAT", "MUL_MAT_ID"} or not tensor.source(1).is_float32:
            return False
        if operation == "MUL_MAT_ID":
            return True
        if tensor.source(1).shape[1] < _FEWEST_ROWS:
            return False
        name = weight_name(tensor.source(0).name)
        return name.startswith("blk.") or (self._with_output and name == OUTPUT)

    def _take(self, tensor: GraphTensor) -> None:
        weight, source = tensor.source(0), tensor.source(1)
        name = weight_name(weight.name)
        self._taken.append(name)
        if tensor.operation == "MUL_MAT_ID":
            experts = tensor.source(2).values()[0, 0]
            inputs = source.values()[0]
            self.activations.add_routed(name, inputs, experts, weight.shape[2])
            return
        matrices = weight.shape[3], weight.shape[2]
        num_rows = (
            source.shape[1] * source.shape[2] * source.shape[3] // (matrices[0] * matrices[1])
        )
        self.activations.add(name, sum_squares(source.values(), matrices), num_rows)


def sum_squares(inputs: Floats, matrices: tuple[int, int]) -> Floats:
    """Sum the squares of a product's inputs over its rows.

    Args:
        inputs: (fourth, third, rows, columns), where third and fourth are multiples of the weight's.
        matrices: the weight's fourth and third dimension.

    Returns:
        (fourth x third x columns of the weight,): flat, as llama.cpp keeps it.
    """
    fourth, third = matrices
    sums = np.zeros((fourth, third, inputs.shape[-1]), np.float32)
    for outer in range(inputs.shape[0]):
        for inner in range(inputs.shape[1]):
            sums[outer % fourth, inner % third] += _squares(inputs[outer, inner])
    return sums.ravel()


def _squares(rows: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # looked for afterwards, in the sums
        return np.asarray(np.square(rows).sum(axis=0))


def _check_finite(name: str, sums: NDArray[np.float64]) -> None:
    if not np.isfinite(sums).all():
        raise MedlocalError(
            f"the inputs of {name} are not finite numbers",
            hint="the model's weights are damaged, or overflow: try it in another type",
        )
