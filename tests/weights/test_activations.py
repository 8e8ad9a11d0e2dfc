"""What is summed for an importance matrix: hand-computed cases on made-up activations."""

from typing import Any

import numpy as np
import pytest

from medlocal.errors import MedlocalError
from medlocal.weights.activations import Activations, sum_squares

NAME = "blk.0.ffn_up.weight"


def floats(values: Any) -> Any:
    return np.array(values, np.float32)


def test_squares_are_summed_per_column_over_rows() -> None:
    activations = Activations()

    activations.add(NAME, sum_squares(floats([[[[1, 2, 3], [4, 5, 6]]]]), (1, 1)), 2)

    assert activations.sums[NAME].tolist() == [[17, 29, 45]]
    assert activations.counts[NAME].tolist() == [2]


def test_computations_add_up() -> None:
    activations = Activations()
    for rows in ([[1, 2, 3], [4, 5, 6]], [[0, 1, 2]]):
        activations.add(NAME, sum_squares(floats([[rows]]), (1, 1)), len(rows))

    entry = activations.entries()[NAME]

    assert entry.sums.tolist() == [[17, 30, 49]]
    assert entry.counts.tolist() == [3]
    assert entry.sums.dtype == np.float32


def test_inputs_in_several_planes_are_rows_of_a_flat_weight() -> None:
    assert sum_squares(floats([[[[1, 2]], [[3, 4]]]]), (1, 1)).tolist() == [10, 20]


def test_each_plane_of_a_weight_has_its_own_columns() -> None:
    # A weight of two planes, inputs of four: planes 0 and 2 meet the first, 1 and 3 the second.
    inputs = floats([[[[1, 0]], [[2, 0]], [[3, 0]], [[4, 1]]]])

    assert sum_squares(inputs, (1, 2)).tolist() == [10, 0, 20, 1]


def test_an_expert_sums_the_rows_sent_to_it() -> None:
    activations = Activations()
    inputs = floats([[[1, 2]], [[3, 4]], [[5, 6]]])  # one row for all of a token's experts
    chosen = np.array([[0, 2], [2, 0], [2, 0]], np.int32)

    activations.add_routed(NAME, inputs, chosen, 4)

    assert activations.sums[NAME].tolist() == [[35, 56], [0, 0], [35, 56], [0, 0]]
    assert activations.counts[NAME].tolist() == [3, 0, 3, 0]


def test_an_expert_can_have_rows_of_its_own() -> None:
    activations = Activations()
    inputs = floats([[[1], [10]], [[2], [20]]])  # one row per token and chosen expert
    chosen = np.array([[0, 1], [1, 0]], np.int32)

    activations.add_routed(NAME, inputs, chosen, 2)

    assert activations.sums[NAME].tolist() == [[1 + 400], [100 + 4]]
    assert activations.counts[NAME].tolist() == [2, 2]


def test_an_expert_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(MedlocalError, match=f"an expert that {NAME} does not have"):
        Activations().add_routed(NAME, floats([[[1]]]), np.array([[2]], np.int32), 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_inputs_that_are_not_finite_are_named(value: float) -> None:
    with pytest.raises(MedlocalError, match=f"the inputs of {NAME}"):
        Activations().add(NAME, sum_squares(floats([[[[1, value]]]]), (1, 1)), 1)


def test_a_weight_cannot_change_its_columns() -> None:
    activations = Activations()
    activations.add(NAME, floats([1, 2]), 1)

    with pytest.raises(MedlocalError, match=r"1 x 3 inputs, and before with 1 x 2"):
        activations.add(NAME, floats([1, 2, 3]), 1)


def test_millions_of_small_squares_keep_their_digits() -> None:
    activations = Activations()
    activations.add(NAME, floats([2**24]), 1)
    for _ in range(8):
        activations.add(NAME, floats([0.5]), 1)  # each alone is lost in float32

    assert activations.entries()[NAME].sums.tolist() == [[2**24 + 4]]
