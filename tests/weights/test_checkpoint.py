"""A checkpoint's folder, whole and not."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from medlocal.errors import MedlocalError, MissingError, RefusedError, UsageError
from medlocal.weights.checkpoint import read_checkpoint, read_json_object
from tests.weights.tiny_checkpoints import BY_NAME, make, write_json

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return make(BY_NAME["Tiny-Llama-3.1-8B-Instruct"], tmp_path)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return make(BY_NAME["tiny-sharded"], tmp_path)


def refusal(folder: Path, kind: Any = RefusedError) -> str:
    with pytest.raises(kind) as caught:
        read_checkpoint(folder)
    assert caught.value.hint
    return str(caught.value.message)


def change_index(folder: Path, **places: str | None) -> None:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    for name, place in places.items():
        key = name.replace("__", ".")
        if place is None:
            del index["weight_map"][key]
        else:
            index["weight_map"][key] = place
    write_json(folder / INDEX, index)


def test_configuration_card_and_tensors_are_read(single: Path) -> None:
    checkpoint = read_checkpoint(single)
    assert checkpoint.config["hidden_size"] == 64
    assert checkpoint.generation["eos_token_id"] == [385, 392, 393]
    assert checkpoint.card["license"] == "llama3.1"
    assert checkpoint.tensors["model.norm.weight"].shape == (64,)


def test_the_tensors_of_shards_come_file_by_file_and_by_name(sharded: Path) -> None:
    checkpoint = read_checkpoint(sharded)
    places = [(t.file.path.name, name) for name, t in checkpoint.tensors.items()]
    assert [file.path.name for file in checkpoint.files] == SHARDS
    assert places == sorted(places)
    assert len(places) == 21


def test_a_folder_without_a_card_or_generation_has_empty_ones(sharded: Path) -> None:
    checkpoint = read_checkpoint(sharded)
    assert (checkpoint.card, checkpoint.generation) == ({}, {})


def test_shards_are_read_without_an_index_too(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    assert len(read_checkpoint(sharded).tensors) == 21


def test_other_weights_beside_the_model_are_passed_over(single: Path) -> None:
    (single / "consolidated.safetensors").write_bytes(b"Mistral's own form")
    assert [file.path.name for file in read_checkpoint(single).files] == ["model.safetensors"]


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert "is no folder" in refusal(tmp_path / "nothing", UsageError)


def test_a_folder_without_a_configuration_is_missing_one(single: Path) -> None:
    (single / "config.json").unlink()
    assert "has no config.json" in refusal(single, MissingError)


def test_a_missing_shard_that_the_index_names_is_named(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    assert f"1 of the 3 shards of {sharded} missing: '{SHARDS[1]}'" in refusal(
        sharded, MissingError
    )


def test_a_missing_shard_is_known_by_the_others_names(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    (sharded / SHARDS[2]).unlink()
    assert f"'{SHARDS[2]}'" in refusal(sharded, MissingError)


def test_a_tensor_that_the_index_names_and_no_shard_has_is_named(sharded: Path) -> None:
    change_index(sharded, model__ghost__weight=SHARDS[0])
    message = refusal(sharded)
    assert "names tensors that are not where it says: 'model.ghost.weight'" in message


def test_a_tensor_in_another_shard_than_the_index_says_is_named(sharded: Path) -> None:
    places = json.loads((sharded / INDEX).read_text(encoding="utf-8"))["weight_map"]
    other = next(shard for shard in SHARDS if shard != places["model.norm.weight"])
    change_index(sharded, model__norm__weight=other)
    assert "'model.norm.weight'" in refusal(sharded)


def test_a_tensor_that_the_index_does_not_name_is_named(sharded: Path) -> None:
    change_index(sharded, model__norm__weight=None)
    assert "does not name tensors that are there: 'model.norm.weight'" in refusal(sharded)


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "x"])
def test_an_index_does_not_lead_out_of_the_folder(sharded: Path, place: str) -> None:
    change_index(sharded, model__norm__weight=place)
    assert "no name of a safetensors file" in refusal(sharded)


@pytest.mark.parametrize("content", [{}, {"weight_map": {}}, {"weight_map": [1]}])
def test_an_index_that_names_nothing_is_refused(sharded: Path, content: object) -> None:
    write_json(sharded / INDEX, content)
    assert "has no weight_map" in refusal(sharded)


def test_a_tensor_in_two_files_is_named_with_both(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    copy = sharded / "model.safetensors"
    copy.write_bytes((sharded / SHARDS[0]).read_bytes())
    message = refusal(sharded)
    assert f"is in {SHARDS[0]} and in model.safetensors" in message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "m.pth"])
def test_pickled_weights_are_refused_with_the_reason_and_the_way_out(
    single: Path, name: str
) -> None:
    (single / "model.safetensors").rename(single / name)
    with pytest.raises(RefusedError) as caught:
        read_checkpoint(single)
    assert f"'{name}': a pickle, which runs whatever code it holds" in caught.value.message
    assert "save_pretrained(NEW_FOLDER)" in str(caught.value.hint)


def test_pickled_weights_beside_sound_ones_are_passed_over(single: Path) -> None:
    (single / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    assert len(read_checkpoint(single).tensors) == 21


def test_an_adapter_is_told_from_a_model(single: Path) -> None:
    (single / "model.safetensors").rename(single / "adapter_model.safetensors")
    assert "LoRA adapter" in refusal(single)


def test_a_folder_without_weights_is_missing_them(single: Path) -> None:
    (single / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(single, MissingError)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_a_json_file_that_holds_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match="JSON"):
        read_json_object(path)


def test_a_card_that_is_no_card_is_done_without_and_told(single: Path) -> None:
    (single / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    checkpoint = read_checkpoint(single)
    assert checkpoint.card == {}
    assert "front matter" in checkpoint.notes[0]


# What cannot be read. The first byte of /proc/self/mem can be read by nobody, not even by root.


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_file_that_cannot_be_read_is_named(single: Path, name: str) -> None:
    (single / name).unlink(missing_ok=True)
    (single / name).symlink_to("/proc/self/mem")
    with pytest.raises(MedlocalError) as caught:
        read_checkpoint(single)
    assert caught.value.message == f"{single / name}: Input/output error"


def test_a_folder_that_may_not_be_entered_is_named(
    single: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", forbid)
    with pytest.raises(MedlocalError) as caught:
        read_checkpoint(single)
    assert caught.value.message == f"{single}/config.json: Permission denied"
    assert caught.value.hint == "change the permissions, or name another place"


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "generation_config.json", "tokenizer.json"]
)
def test_a_link_that_leads_nowhere_is_told_as_such(single: Path, name: str) -> None:
    """As in a snapshot of the Hub's cache that was copied without its blobs."""
    (single / name).unlink(missing_ok=True)
    (single / name).symlink_to("../../blobs/0123")
    with pytest.raises(MissingError) as caught:
        read_checkpoint(single)
    assert caught.value.message == (
        f"{single / name} is a link to ../../blobs/0123, and nothing is there"
    )
    assert caught.value.hint is not None
    assert "cp -rL" in caught.value.hint


def test_an_architecture_that_is_no_list_is_told_as_it_stands(single: Path) -> None:
    (single / "config.json").write_text('{"architectures": "LlamaForCausalLM"}', encoding="utf-8")
    with pytest.raises(RefusedError) as caught:
        read_checkpoint(single)
    assert caught.value.message == (
        f"{single}/config.json: architectures is 'LlamaForCausalLM', not a list of names"
    )
