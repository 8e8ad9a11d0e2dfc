"""Sizes of a model in every type, against those that llama.cpp publishes and those that it writes."""

from pathlib import Path

import pytest

from medlocal.weights.inspect import read_gguf
from medlocal.weights.model_shape import ModelShape, shape_of_gguf
from medlocal.weights.quantize import QuantizeRequest, plan_quantisation, quantize
from medlocal.weights.type_sizes import TypeSize, type_sizes, write_outline
from tests.weights.float_llama import MODELS, write_float_llama
from tests.weights.memory_shapes import known

# GiB that the help of llama-quantize names for Llama-3-8B; its 2.96 for Q2_K_S is of an older recipe.
PUBLISHED = {
    "Q4_0": 4.34, "Q4_1": 4.78, "Q5_0": 5.21, "Q5_1": 5.65, "Q2_K": 2.96, "Q3_K_S": 3.41,
    "Q3_K_M": 3.74, "Q3_K_L": 4.03, "Q4_K_S": 4.37, "Q4_K_M": 4.58, "Q5_K_S": 5.21,
    "Q5_K_M": 5.33, "Q6_K": 6.14, "Q8_0": 7.96,
}  # fmt: skip


@pytest.fixture(scope="module")
def of_8b() -> dict[str, TypeSize]:
    return {size.type: size for size in type_sizes(known("meta-llama/Meta-Llama-3-8B"))}


def test_an_8b_model_is_as_large_as_llama_cpp_publishes(of_8b: dict[str, TypeSize]) -> None:
    found = {name: of_8b[name].shape.weights_bytes / 2**30 for name in PUBLISHED}
    assert found == pytest.approx(PUBLISHED, abs=0.02)


def test_the_largest_comes_first_and_bf16_is_the_model_as_it_was(
    of_8b: dict[str, TypeSize],
) -> None:
    sizes = [size.shape.weights_bytes for size in of_8b.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert next(iter(of_8b)) == "BF16"
    assert of_8b["BF16"].bits_per_weight == pytest.approx(16, abs=0.01)


def test_types_that_need_a_matrix_say_so(of_8b: dict[str, TypeSize]) -> None:
    needing = {name for name, size in of_8b.items() if size.needs_matrix}
    assert {"IQ1_S", "IQ2_XXS", "IQ3_XXS", "Q2_K_S"} <= needing
    assert not needing & {"Q4_K_M", "IQ4_XS", "Q2_K", "Q8_0"}


def test_types_that_make_no_sense_for_it_are_left_out(of_8b: dict[str, TypeSize]) -> None:
    assert not {"TQ1_0", "TQ2_0", "MXFP4_MOE", "F32"} & of_8b.keys()


def test_published_losses_stand_with_their_types(of_8b: dict[str, TypeSize]) -> None:
    assert of_8b["Q4_K_M"].published_perplexity == 0.1754
    assert of_8b["IQ4_XS"].published_perplexity is None


def test_a_gguf_is_foretold_to_be_what_quantising_makes_of_it(tmp_path: Path) -> None:
    source = tmp_path / "grouped.gguf"
    write_float_llama(source, MODELS["grouped"])
    told = {size.type: size for size in type_sizes(_shape(source), source)}
    plan = plan_quantisation(QuantizeRequest(source, ("Q4_K_M", "Q8_0"), tmp_path / "out"))
    for made in quantize(plan):
        sizes = {t.name: t.num_bytes for t in read_gguf(made.path).tensors}
        assert {t.name: t.num_bytes for t in told[made.type].shape.tensors} == sizes


def test_a_file_that_is_quantised_already_tells_the_same(tmp_path: Path) -> None:
    source = tmp_path / "plain.gguf"
    write_float_llama(source, MODELS["plain"])
    (made,) = quantize(plan_quantisation(QuantizeRequest(source, ("Q4_0",), tmp_path / "out")))
    before, after = (
        {size.type: size.shape.weights_bytes for size in type_sizes(_shape(path), path)}
        for path in (source, made.path)
    )
    assert after == before


def _shape(path: Path) -> ModelShape:
    return shape_of_gguf(read_gguf(path))


def test_an_outline_takes_no_room_for_its_weights(tmp_path: Path) -> None:
    shape = known("meta-llama/Llama-3.2-1B")
    path = write_outline(shape, tmp_path / "outline.gguf")
    info = read_gguf(path)
    assert info.num_parameters == 1_235_814_400
    assert path.stat().st_size > 2_400_000_000
    assert path.stat().st_blocks * 512 < 100_000
