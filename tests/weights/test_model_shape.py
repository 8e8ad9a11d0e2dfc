"""Shapes read from files and folders, and those that are assumed of published models."""

from pathlib import Path

import pytest

from medlocal.catalog import model_card
from medlocal.errors import MissingError, RefusedError
from medlocal.weights.inspect import read_gguf
from medlocal.weights.model_shape import shape_of_card, shape_of_checkpoint, shape_of_gguf
from tests.weights.float_llama import MODELS, write_float_llama
from tests.weights.gguf_files import gguf_bytes
from tests.weights.memory_shapes import card, known
from tests.weights.tiny_checkpoints import RECIPES, make
from tests.weights.tiny_llama import write_tiny_llama


@pytest.mark.parametrize(
    ("repo", "parameters"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
    ],
)
def test_known_shapes_have_the_published_number_of_parameters(repo: str, parameters: int) -> None:
    assert known(repo).num_parameters == parameters


def test_a_card_s_number_of_parameters_tells_its_shape() -> None:
    shape = shape_of_card(model_card("marmoka-es-llama-3.1-8b-instruct"))
    assert (shape.num_layers, shape.vocab_size, shape.context_length) == (32, 128_256, 131_072)
    assert shape.assumptions == (
        "marmoka-es-llama-3.1-8b-instruct is not here: the shape of Llama 3.1 8B is assumed, in BF16,"
        " because its card says 8,030,261,312 parameters",
    )


def test_else_its_name_does() -> None:
    (assumption,) = shape_of_card(card("BioMistral/BioMistral-7B")).assumptions
    assert "Mistral 7B is assumed" in assumption
    assert assumption.endswith("because of the name BioMistral/BioMistral-7B")


@pytest.mark.parametrize(
    "unknown",
    [card("someone/Something-13B"), card("meta-llama/Llama-3.1-8B", parameters=7 * 10**9)],
)
def test_what_no_card_tells_is_not_guessed(unknown: object) -> None:
    with pytest.raises(MissingError, match="does not tell its shape"):
        shape_of_card(unknown)  # type: ignore[arg-type]


def test_a_gguf_s_dimensions_are_its_header_s(tmp_path: Path) -> None:
    shape = shape_of_gguf(read_gguf(write_tiny_llama(tmp_path / "tiny.gguf")))
    assert (shape.hidden_size, shape.feed_forward_size, shape.vocab_size) == (32, 64, 264)
    assert (shape.key_sizes, shape.value_sizes, shape.query_size) == ((16, 16), (16, 16), 32)


def test_a_gguf_s_weights_are_where_llama_cpp_puts_them(tmp_path: Path) -> None:
    shape = shape_of_gguf(read_gguf(write_tiny_llama(tmp_path / "tiny.gguf")))
    # Q8_0: 34 bytes for 32, and tensors begin at multiples of 32. F32 blocks: queries and outputs 32 × 32, keys and values 32 × 16,
    # three of 32 × 64 and two norms of 32.
    embedding = 8992  # 264 × 34 is 8,976
    assert shape.embedding_bytes == embedding
    assert shape.layer_bytes == (4 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32),) * 2
    assert (shape.output_bytes, shape.tied_bytes) == (32 * 4, embedding)


def test_all_experts_that_are_used_compute_a_token(tmp_path: Path) -> None:
    path = tmp_path / "experts.gguf"
    model = next(m for m in MODELS.values() if m.num_experts)
    write_float_llama(path, model)
    shape = shape_of_gguf(read_gguf(path))
    assert shape.feed_forward_size == 2 * model.inner


def test_a_vocabulary_without_weights_has_no_shape(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(gguf_bytes())
    with pytest.raises(RefusedError, match="no tensors"):
        shape_of_gguf(read_gguf(path))


def test_a_checkpoint_is_counted_as_it_would_be_converted(tmp_path: Path) -> None:
    recipe = next(r for r in RECIPES if not r.has_biases and r.has_output)
    shape = shape_of_checkpoint(make(recipe, tmp_path))
    config = {"hidden_size": 64, "intermediate_size": 96, **recipe.config}
    hidden = config["hidden_size"]
    assert (shape.hidden_size, shape.feed_forward_size) == (hidden, config["intermediate_size"])
    matrix = next(t for t in shape.tensors if t.name == "blk.0.ffn_down.weight")
    assert (matrix.shape, matrix.type) == ((config["intermediate_size"], hidden), "BF16")
    assert matrix.num_bytes == 2 * hidden * config["intermediate_size"]
    assert "converted to BF16" in shape.assumptions[0]
