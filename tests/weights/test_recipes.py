"""The types that there are to quantise to. The numbers are llama.cpp's (include/llama.h, ggml.h)."""

import pytest

from medlocal.errors import UsageError
from medlocal.weights.recipes import (
    is_quantised,
    needs_matrix,
    recipe,
    recipes,
    tensor_type,
    tensor_types,
)


def test_every_type_that_llama_quantize_offers_is_there() -> None:
    # The table of tools/quantize/quantize.cpp at 0c1e57098, but for Q2_0, which gguf cannot read.
    offered = """Q1_0 Q4_0 Q4_1 MXFP4_MOE Q5_0 Q5_1 IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ1_S IQ1_M TQ1_0 TQ2_0
        Q2_K Q2_K_S IQ3_XXS IQ3_S IQ3_M IQ3_XS Q3_K_S Q3_K_M Q3_K_L IQ4_NL IQ4_XS Q4_K_S Q4_K_M
        Q5_K_S Q5_K_M Q6_K Q8_0 F16 BF16 F32"""
    assert set(offered.split()) <= set(recipes()) <= {*offered.split(), "Q2_0"}


@pytest.mark.parametrize(
    ("name", "number", "main"),
    [
        ("F32", 0, "F32"), ("Q8_0", 7, "Q8_0"), ("Q2_K_S", 21, "Q2_K"), ("Q4_K_M", 15, "Q4_K"),
        ("IQ3_XS", 22, "IQ3_S"), ("IQ3_M", 27, "IQ3_S"), ("IQ2_S", 28, "IQ2_XS"),
        ("IQ2_M", 29, "IQ2_S"), ("IQ1_M", 31, "IQ1_M"), ("BF16", 32, "BF16"), ("TQ2_0", 37, "TQ2_0"),
        ("MXFP4_MOE", 38, "MXFP4"),
    ],
)  # fmt: skip
def test_a_recipe_has_llama_cpps_number_and_main_type(name: str, number: int, main: str) -> None:
    found = recipe(name)
    assert (found.name, found.number, found.main.name) == (name, number, main)


def test_names_are_understood_in_small_letters_and_as_llama_quantize_shortens_them() -> None:
    assert recipe("q4_k_m").name == "Q4_K_M"
    assert [recipe(name).name for name in ("Q3_K", "q4_k", "Q5_K")] == [
        "Q3_K_M",
        "Q4_K_M",
        "Q5_K_M",
    ]


def test_an_unknown_type_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no type of quantisation is called 'Q4KM'") as caught:
        recipe("q4km")
    assert "Q4_K_M" in str(caught.value.hint)


def test_a_type_that_llama_cpp_only_reads_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"NVFP4: llama\.cpp reads it and cannot make it"):
        recipe("NVFP4")


def test_a_tensor_type_knows_its_blocks() -> None:
    # ggml-common.h: 256 weights in 144 bytes, 32 in 34.
    assert (tensor_type("q4_K").block, tensor_type("Q4_K").block_bytes) == (256, 144)
    assert tensor_type("Q8_0").num_bytes(64) == 68
    assert tensor_type("bf16").num_bytes(3) == 6


def test_sizes_are_those_that_the_gguf_package_knows() -> None:
    import gguf

    known = {kind.name: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {name: (kind.block, kind.block_bytes) for name, kind in tensor_types().items()}
    shared = known.keys() & ours.keys() - {"Q8_1"}  # gguf counts its scale as two floats
    assert {name: ours[name] for name in shared} == {name: known[name] for name in shared}
    assert len(shared) > 30


@pytest.mark.parametrize("name", ["Q8_K", "Q8_1", "I32", "F64", "Q4_K_M", ""])
def test_what_weights_cannot_be_in_is_no_tensor_type(name: str) -> None:
    with pytest.raises(UsageError, match="no tensor type is called"):
        tensor_type(name)


def test_the_lowest_types_need_a_matrix() -> None:
    name = "blk.0.ffn_up.weight"
    needing = {kind for kind in tensor_types() if needs_matrix(name, kind, "Q4_K_M")}
    assert needing == {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"}


def test_q2_k_needs_a_matrix_in_its_small_recipe_only() -> None:
    assert needs_matrix("blk.0.ffn_up.weight", "Q2_K", "Q2_K_S")
    assert not needs_matrix("blk.0.ffn_up.weight", "Q2_K", "Q2_K")


def test_embeddings_and_output_need_no_matrix() -> None:
    for name in ("token_embd.weight", "output.weight"):
        assert not needs_matrix(name, "IQ2_XXS", "IQ2_XXS")


def test_floats_and_numbers_are_not_quantised() -> None:
    assert [name for name in ("F64", "F32", "F16", "BF16", "I32") if is_quantised(name)] == []
    assert is_quantised("Q8_0")
    assert is_quantised("IQ4_XS")
