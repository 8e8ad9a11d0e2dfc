"""What a checkpoint says of itself, however it says it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.weights.checkpoint import Checkpoint
from medlocal.weights.general_keys import describe, file_name, general_entries
from medlocal.weights.inspect import read_gguf
from medlocal.weights.writer import pack_header

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from([
    *("name", "model_name", "author", "version", "finetune", "basename", "size_label", "license"),
    *("license_name", "license_link", "base_model", "base_models", "datasets", "tags", "language"),
    *("languages", "pipeline_tag", "model_creator", "model_type", "description", "url", "doi"),
])  # fmt: skip
sampling = st.sampled_from(["temperature", "top_k", "top_p", "min_p", "sequence", "mirostat"])


def checkpoint(card: dict[str, Any], generation: dict[str, Any], config: Any = None) -> Checkpoint:
    return Checkpoint(Path("x"), config or {}, generation, card, (), {})


def described(card: dict[str, Any], name: str = "Some-Model-7B-Instruct", **more: Any) -> Any:
    return describe(checkpoint(card, {}, more.get("config")), name, 7_000_000_000)


@settings(max_examples=300, deadline=None)
@given(
    card=st.dictionaries(names, values, max_size=6),
    generation=st.dictionaries(sampling, values, max_size=3),
    known_as=values,
)
def test_whatever_a_card_says_makes_a_header_that_can_be_read(
    tmp_path_factory: pytest.TempPathFactory,
    card: dict[str, Any],
    generation: dict[str, Any],
    known_as: Any,
) -> None:
    found = checkpoint(card, generation, {"_name_or_path": known_as})
    metadata = describe(found, "Some-Model", 1_000_000)
    path = tmp_path_factory.mktemp("header") / "out.gguf"
    path.write_bytes(pack_header(general_entries(metadata), []))
    assert read_gguf(path).architecture == "llama"
    assert Path(file_name(metadata, "bf16")).name == file_name(metadata, "bf16")


def test_a_name_is_taken_from_the_folder_where_nothing_says_one() -> None:
    metadata = described({})
    assert (metadata.name, metadata.basename) == ("Some Model 7B Instruct", "Some-Model")
    assert file_name(metadata, "q8_0") == "Some-Model-7B-Instruct-Q8_0.gguf"


def test_the_configurations_name_goes_before_the_folders() -> None:
    metadata = described({}, config={"_name_or_path": "owner/Other-Model-v2-7B"})
    assert (metadata.name, metadata.organization) == ("Other Model v2 7B", "Owner")


def test_a_name_of_signs_only_still_names_a_file() -> None:
    assert file_name(described({"name": "../..", "basename": "../.."}), "f16").endswith("F16.gguf")
