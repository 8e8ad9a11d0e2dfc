"""What quantising will make, and what speaks against it, before any work."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medlocal.errors import MedlocalError, MissingError, RefusedError, UsageError
from medlocal.weights import quantization_plan
from medlocal.weights.importance import Entry, Importance, read_importance, write_importance
from medlocal.weights.quantization_plan import Plan, plan_quantisation, planned_types
from medlocal.weights.quantization_request import QuantizeRequest
from medlocal.weights.quantize import quantize
from tests.weights.float_llama import MODELS, FloatLlama, write_float_llama
from tests.weights.gguf_files import gguf_bytes, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, their matrices, and a Q8_0 of the plain one."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in MODELS.items():
        write_float_llama(folder / f"{name}.gguf", model)
        model.write_importance(folder / f"{name}.imatrix.gguf")
    list(quantize(plan_quantisation(QuantizeRequest(folder / "plain.gguf", ("Q8_0",), folder))))
    return folder


@pytest.fixture
def asked(folder: Path, tmp_path: Path) -> QuantizeRequest:
    return QuantizeRequest(folder / "plain.gguf", ("Q4_K_M",), tmp_path / "out")


def refused(kind: type[MedlocalError], request: QuantizeRequest) -> MedlocalError:
    """The error of a request; nothing may have been written."""
    with pytest.raises(kind) as caught:
        plan_quantisation(request)
    assert type(caught.value) is kind
    assert not request.folder.exists()
    return caught.value


def changed_matrix(folder: Path, path: Path, **change: Any) -> Path:
    """The plain model's matrix with other entries."""
    matrix = read_importance(folder / "plain.imatrix.gguf")
    entries = {**matrix.entries, **change.get("add", {})}
    entries = {n: e for n, e in entries.items() if not change.get("drop", lambda _: False)(n)}
    write_importance(path, Importance(entries, 3, 512))
    return path


def test_the_plan_says_what_each_tensor_becomes(asked: QuantizeRequest) -> None:
    (file,) = plan_quantisation(asked).files
    kinds = {tensor.source.name: tensor.kind.name for tensor in file.tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q4_K"
    assert kinds["output.weight"] == "Q6_K"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds.keys() == MODELS["plain"].shapes().keys()


def test_sizes_follow_from_shapes_and_types(asked: QuantizeRequest) -> None:
    (file,) = plan_quantisation(replace(asked, types=("Q8_0",))).files
    matrices = [np.prod(s) for s in MODELS["plain"].shapes().values() if len(s) > 1]
    norms = [np.prod(s) for s in MODELS["plain"].shapes().values() if len(s) == 1]
    # 34 bytes per 32 weights, 4 per norm, all multiples of 32; the header is some kilobytes.
    num_bytes = sum(matrices) * 34 // 32 + sum(norms) * 4
    assert 1_000 < file.num_bytes - num_bytes < 5_000
    expected = 8 * num_bytes / (sum(matrices) + sum(norms))
    assert file.bits_per_weight == pytest.approx(expected)


def test_several_types_are_planned_at_once_and_each_once(asked: QuantizeRequest) -> None:
    plan = plan_quantisation(replace(asked, types=("Q8_0", "q4_k", "Q4_K_M")))
    assert [file.path.name for file in plan.files] == ["plain-Q8_0.gguf", "plain-Q4_K_M.gguf"]
    assert plan.num_bytes == sum(file.num_bytes for file in plan.files)


def test_nothing_is_written_by_planning(asked: QuantizeRequest) -> None:
    plan_quantisation(asked)
    assert not asked.folder.exists()


def test_an_unknown_type_is_refused_with_the_nearest(asked: QuantizeRequest) -> None:
    error = refused(UsageError, replace(asked, types=("Q8_0", "Q4_KM")))
    assert "Q4_K_M" in str(error.hint)


def test_no_type_is_refused(asked: QuantizeRequest) -> None:
    refused(UsageError, replace(asked, types=()))


def test_a_source_that_is_not_there_is_missing(asked: QuantizeRequest, tmp_path: Path) -> None:
    refused(MissingError, replace(asked, source=tmp_path / "none.gguf"))


def test_a_damaged_source_is_refused(asked: QuantizeRequest, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(asked.source.read_bytes()[:-1000])
    assert "TRUNCATED" in refused(RefusedError, replace(asked, source=damaged)).message


def test_a_vocabulary_without_weights_is_refused(asked: QuantizeRequest, tmp_path: Path) -> None:
    (path := tmp_path / "vocabulary.gguf").write_bytes(gguf_bytes())
    assert "no tensors" in refused(RefusedError, replace(asked, source=path)).message


def test_a_model_that_llama_cpp_cannot_take_fails_with_its_words(
    asked: QuantizeRequest, tmp_path: Path
) -> None:
    source = write_model(tmp_path / "little.gguf", tokens=["a"], eot_token_id=None)
    error = refused(
        MedlocalError, replace(asked, source=source, types=("Q8_0",), allow_requantize=True)
    )
    assert "llama.cpp could not quantise" in error.message
    assert "llama.attention.layer_norm_rms_epsilon" in error.message


def test_a_result_that_is_there_is_not_replaced_unless_forced(
    folder: Path, asked: QuantizeRequest
) -> None:
    again = replace(asked, types=("Q8_0",), folder=folder)
    with pytest.raises(UsageError, match="is there already"):
        plan_quantisation(again)
    assert plan_quantisation(replace(again, force=True)).files[0].path.exists()


def test_the_source_is_never_its_own_result(asked: QuantizeRequest, tmp_path: Path) -> None:
    (tmp_path / "plain-Q8_0.gguf").symlink_to(asked.source)
    again = replace(asked, types=("Q8_0",), folder=tmp_path, force=True)
    with pytest.raises(UsageError, match="is the source itself"):
        plan_quantisation(again)


def test_a_quantised_source_is_refused(folder: Path, asked: QuantizeRequest) -> None:
    error = refused(RefusedError, replace(asked, source=folder / "plain-Q8_0.gguf"))
    assert "quantised already (Q8_0)" in error.message
    assert "--allow-requantize" in str(error.hint)


def test_a_float_file_made_from_a_quantised_one_is_refused_too(
    folder: Path, asked: QuantizeRequest, tmp_path: Path
) -> None:
    there = QuantizeRequest(folder / "plain-Q8_0.gguf", ("F16",), tmp_path, allow_requantize=True)
    (made,) = quantize(plan_quantisation(there))
    error = refused(RefusedError, replace(asked, source=made.path))
    assert "was made from a Q8_0 file" in error.message


def test_a_type_that_needs_a_matrix_is_refused_without_one(asked: QuantizeRequest) -> None:
    error = refused(UsageError, replace(asked, types=("IQ2_XXS",)))
    assert "IQ2_XXS needs an importance matrix" in error.message
    assert f"medlocal imatrix {asked.source}" in str(error.hint)


def test_keeping_a_tensor_in_such_a_type_needs_a_matrix_too(asked: QuantizeRequest) -> None:
    error = refused(UsageError, replace(asked, keep=("ffn_up=IQ2_XS",)))
    assert "2 tensors, from blk.0.ffn_up.weight on" in error.message


def test_a_matrix_changes_the_types_as_llama_cpp_has_it(
    folder: Path, asked: QuantizeRequest
) -> None:
    # With one, Q4_0 makes the ffn_down of the first eighth of the layers Q4_1.
    asked = replace(asked, source=folder / "grouped.gguf", types=("Q4_0",))
    (without,) = plan_quantisation(asked).files
    matrix = folder / "grouped.imatrix.gguf"
    (with_matrix,) = plan_quantisation(replace(asked, imatrix=matrix)).files
    assert "Q4_1" not in without.bytes_by_type
    assert "Q4_1" in with_matrix.bytes_by_type


def test_a_matrix_of_other_widths_is_refused(folder: Path, asked: QuantizeRequest) -> None:
    error = refused(RefusedError, replace(asked, imatrix=folder / "narrow.imatrix.gguf"))
    assert "blk.0.attn_q.weight has 256 columns, and 192 there" in error.message
    assert "medlocal imatrix" in str(error.hint)


def test_a_matrix_of_more_layers_is_refused(folder: Path, asked: QuantizeRequest) -> None:
    error = refused(RefusedError, replace(asked, imatrix=folder / "grouped.imatrix.gguf"))
    assert "no tensor of this model" in error.message or "columns" in error.message


def test_a_matrix_of_fewer_layers_is_refused(
    folder: Path, asked: QuantizeRequest, tmp_path: Path
) -> None:
    matrix = changed_matrix(
        folder, tmp_path / "m.gguf", drop=lambda name: name.startswith("blk.1.")
    )
    error = refused(RefusedError, replace(asked, imatrix=matrix))
    assert "no entry for 1 of its 2 layers" in error.message


def test_a_matrix_with_a_foreign_tensor_is_refused(
    folder: Path, asked: QuantizeRequest, tmp_path: Path
) -> None:
    entry = Entry(np.ones((1, 256), np.float32), np.array([7]))
    matrix = changed_matrix(folder, tmp_path / "m.gguf", add={"blk.7.attn_q.weight": entry})
    error = refused(RefusedError, replace(asked, imatrix=matrix))
    assert "blk.7.attn_q.weight, which is no tensor of this model" in error.message


def test_a_matrix_without_an_entry_that_is_needed_is_refused(
    folder: Path, asked: QuantizeRequest, tmp_path: Path
) -> None:
    matrix = changed_matrix(folder, tmp_path / "m.gguf", drop=lambda n: n == "blk.1.ffn_up.weight")
    error = refused(UsageError, replace(asked, imatrix=matrix, types=("IQ2_XXS",)))
    assert "no entry for blk.1.ffn_up.weight, which IQ2_XXS needs (1 tensors)" in error.message
    (file,) = plan_quantisation(replace(asked, imatrix=matrix)).files  # Q4_K_M does without
    assert file.warnings == ("the matrix says nothing of 1 tensors, such as blk.1.ffn_up.weight",)


def test_what_is_no_matrix_is_refused(folder: Path, asked: QuantizeRequest) -> None:
    refused(RefusedError, replace(asked, imatrix=folder / "plain.gguf"))
    refused(MissingError, replace(asked, imatrix=folder / "none.gguf"))


def test_tensors_are_kept_in_the_type_that_is_asked_for(asked: QuantizeRequest) -> None:
    asked = replace(
        asked,
        keep=("attn_v=Q8_0", r"^blk\.1\.ffn=q5_0"),
        output_type="F16",
        embedding_type="bf16",
    )
    (file,) = plan_quantisation(asked).files
    kinds = {tensor.source.name: tensor.kind.name for tensor in file.tensors}
    assert {kinds[f"blk.{layer}.attn_v.weight"] for layer in (0, 1)} == {"Q8_0"}
    assert {kinds[f"blk.1.ffn_{part}.weight"] for part in ("up", "gate", "down")} == {"Q5_0"}
    assert kinds["blk.0.ffn_up.weight"] == "Q4_K"
    assert (kinds["output.weight"], kinds["token_embd.weight"]) == ("F16", "BF16")


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("attn_v", "no PATTERN=TYPE"),
        ("=Q8_0", "no PATTERN=TYPE"),
        ("attn_v=Q9_0", "no tensor type is called 'Q9_0'"),
        ("attn_v=Q4_K_M", "no tensor type is called 'Q4_K_M'"),
        ("attn_x=Q8_0", "no tensor of .* has such a name"),
        ("attn_(=Q8_0", "no regular expression"),
    ],
)
def test_a_keep_that_cannot_be_meant_is_refused(
    asked: QuantizeRequest, keep: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_quantisation(replace(asked, keep=(keep,)))


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        (r"\Aoutput", r"\A"),
        (r"output\.weight\Z", r"\Z"),
        ("(?i)ATTN_V", "(?i"),
        ("(?<=attn_)v", "(?<="),
        ("(?P<part>attn_v)", "(?P<"),
        ("attn_v{,2}", "{,"),
    ],
)
def test_what_llama_cpp_would_read_in_another_way_is_refused(
    asked: QuantizeRequest, pattern: str, part: str
) -> None:
    error = refused(UsageError, replace(asked, keep=(f"{pattern}=Q8_0",)))
    assert error.message.startswith(f"--keep {pattern}: {part} means something else to llama.cpp")


@pytest.mark.parametrize("pattern", ["attn_[(?P<]", r"(?:attn_v)", r"attn_v(?=\.)", r"attn_v\."])
def test_what_both_read_alike_is_taken(asked: QuantizeRequest, pattern: str) -> None:
    pattern = pattern.replace("[(?P<]", "[(?P<v]")
    (file,) = plan_quantisation(replace(asked, keep=(f"{pattern}=Q8_0",))).files
    kinds = {tensor.source.name: tensor.kind.name for tensor in file.tensors}
    assert (kinds["blk.0.attn_v.weight"], kinds["blk.0.attn_q.weight"]) == ("Q8_0", "Q4_K")


def test_a_pattern_that_fits_only_norms_would_do_nothing_and_is_refused(
    asked: QuantizeRequest,
) -> None:
    error = refused(UsageError, replace(asked, keep=(".*norm=Q8_0",)))
    assert "--keep .*norm=Q8_0 would do nothing for blk.0.attn_norm.weight" in error.message
    assert "llama.cpp makes it F32" in error.message


def test_a_pattern_that_the_two_kinds_of_expressions_read_differently_is_refused(
    asked: QuantizeRequest,
) -> None:
    # In Python \a is a bell, and so is [^\a] everything here; in ECMAScript it is an a.
    error = refused(UsageError, replace(asked, keep=(r"\.[^\a]ttn_v=Q8_0",)))
    assert "would do nothing for blk.0.attn_v.weight: llama.cpp makes it Q" in error.message


def test_a_pattern_that_llama_cpp_cannot_read_is_told_as_a_wrong_request(
    asked: QuantizeRequest,
) -> None:
    error = refused(UsageError, replace(asked, keep=(r"attn_v\N{FULL STOP}weight=Q8_0",)))
    assert "llama.cpp cannot read" in error.message
    assert "regular expression" in error.message


def test_a_router_stays_as_it_is_and_the_plan_says_so(folder: Path, asked: QuantizeRequest) -> None:
    asked = replace(asked, source=folder / "experts.gguf", keep=("ffn=Q8_0",))
    (file,) = plan_quantisation(asked).files
    assert "--keep does nothing for 2 tensors, such as blk.0.ffn_gate_inp.weight" in file.warnings
    kinds = {tensor.source.name: tensor.kind.name for tensor in file.tensors}
    assert kinds["blk.0.ffn_up_exps.weight"] == "Q8_0"


def test_the_outputs_own_option_goes_before_a_pattern(asked: QuantizeRequest) -> None:
    (file,) = plan_quantisation(replace(asked, keep=("output=Q8_0",), output_type="F16")).files
    kinds = {tensor.source.name: tensor.kind.name for tensor in file.tensors}
    assert (kinds["output.weight"], kinds["blk.0.attn_output.weight"]) == ("F16", "Q8_0")


FOREIGN = "was computed on another file than the source or what that was made from"


@pytest.mark.parametrize(
    ("of", "parent", "is_warned"),
    [
        ("another", "", True),
        ("another", "another still", True),
        ("the source", "", False),
        ("another", "the source", False),  # on a Q8_0 of it
        ("", "", False),  # other makers' do not say
    ],
)
def test_a_matrix_of_another_model_is_warned_of(
    folder: Path, asked: QuantizeRequest, tmp_path: Path, of: str, parent: str, is_warned: bool
) -> None:
    sums = {"": "", "the source": hashlib.sha256(asked.source.read_bytes()).hexdigest()}
    entries = read_importance(folder / "plain.imatrix.gguf").entries
    named = [sums.get(name, 64 * name[-1:]) for name in (of, parent)]
    write_importance(
        tmp_path / "m.gguf",
        Importance(entries, 3, 512, model_sha256=named[0], model_parent_sha256=named[1]),
    )
    (file,) = plan_quantisation(replace(asked, imatrix=tmp_path / "m.gguf")).files
    assert [FOREIGN in warning for warning in file.warnings] == [True] * is_warned


def test_a_matrix_of_the_sources_parent_is_right_for_it(
    folder: Path, asked: QuantizeRequest, tmp_path: Path
) -> None:
    parent = hashlib.sha256((folder / "plain.gguf").read_bytes()).hexdigest()
    entries = read_importance(folder / "plain.imatrix.gguf").entries
    write_importance(tmp_path / "m.gguf", Importance(entries, 3, 512, model_sha256=parent))
    (file,) = plan_quantisation(
        replace(
            asked, source=folder / "plain-Q8_0.gguf", imatrix=tmp_path / "m.gguf",
            allow_requantize=True,
        )
    ).files  # fmt: skip
    assert file.warnings == ("made from Q8_0, whose losses stay in it",)


@pytest.mark.parametrize("option", ["keep", "output_type", "embedding_type"])
def test_a_type_whose_blocks_do_not_divide_the_rows_is_refused(
    folder: Path, asked: QuantizeRequest, option: str
) -> None:
    chosen: dict[str, Any] = {option: ("attn_v=Q6_K",) if option == "keep" else "Q6_K"}
    error = refused(UsageError, replace(asked, source=folder / "narrow.gguf", **chosen))
    assert "rows of 192, which Q6_K's blocks of 256 do not divide" in error.message


def test_a_pattern_does_nothing_for_floats_and_the_plan_says_so(asked: QuantizeRequest) -> None:
    (file,) = plan_quantisation(replace(asked, types=("F16",), keep=("attn_v=Q8_0",))).files
    assert file.warnings == ("--keep does nothing for F16: all tensors get that type",)


def test_tensors_that_cannot_have_the_type_are_counted(
    folder: Path, asked: QuantizeRequest
) -> None:
    asked = replace(asked, source=folder / "narrow.gguf", types=("Q4_K_M",))
    (file,) = plan_quantisation(asked).files
    # By llama.cpp's rules: Q5_0 instead of Q4_K; Q8_0 instead of Q6_K for attn_v and ffn_down of the
    # second layer; and output, which is Q8_0 from the start.
    assert file.warnings[0] == (
        "16 of 21 tensors have rows that blocks of 256 do not divide: 13 became Q5_0, 3 became Q8_0"
    )


def test_a_model_without_experts_gets_no_mxfp4_and_the_plan_says_so(
    asked: QuantizeRequest,
) -> None:
    (file,) = plan_quantisation(replace(asked, types=("MXFP4_MOE",))).files
    assert "no tensor of this model becomes MXFP4" in file.warnings


def test_a_slow_type_is_warned_of(asked: QuantizeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization_plan, "slow_types", lambda names: {"Q4_1": "it is slow"})
    slow, quick = plan_quantisation(replace(asked, types=("Q4_1", "Q4_0"))).files
    assert slow.warnings == ("98% of it is Q4_1: it is slow",)
    assert quick.warnings == ()


def test_a_result_that_is_larger_than_its_source_is_warned_of(
    folder: Path, asked: QuantizeRequest
) -> None:
    source = folder / "plain-Q8_0.gguf"
    asked = replace(asked, source=source, types=("Q8_0", "Q4_0"), allow_requantize=True)
    same, smaller = plan_quantisation(asked).files
    assert "not smaller than its source" in same.warnings
    assert "not smaller than its source" not in smaller.warnings


def planned(asked: QuantizeRequest, monkeypatch: pytest.MonkeyPatch, available: int) -> Plan:
    monkeypatch.setattr(quantization_plan, "available_memory", lambda: available)
    return plan_quantisation(asked)


def test_a_full_disk_is_found_before_and_the_sizes_are_said(
    asked: QuantizeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    error = refused(MedlocalError, replace(asked, types=("Q8_0", "F16")))
    assert "(Q8_0 1, F16 3)" in error.message
    assert "0 MiB free" in error.message


def test_little_memory_makes_the_buffer_smaller(
    asked: QuantizeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty = planned(asked, monkeypatch, 64 * 2**30).files[0].job.max_buffer_bytes
    little = planned(asked, monkeypatch, 400 * 2**20).files[0].job.max_buffer_bytes
    assert plenty == 8 * 2**30  # llama.cpp's own limit
    assert 64 * 2**20 < little < 400 * 2**20


def test_no_memory_is_refused(asked: QuantizeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MedlocalError, match="of memory, and 50 MiB are free"):
        planned(asked, monkeypatch, 50 * 2**20)


def test_the_memory_needed_grows_with_the_largest_tensor(
    tmp_path: Path, asked: QuantizeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = FloatLlama(num_tokens=20_000, num_layers=1)
    large = write_float_llama(tmp_path / "large.gguf", wide)
    small_plan = planned(asked, monkeypatch, 2**33)
    large_plan = planned(replace(asked, source=large), monkeypatch, 2**33)
    # The source is F32 and needs no unpacking; its embeddings become Q4_K, 144 bytes per 256.
    largest = 20_000 * 256 * 210 // 256  # the output's Q6_K
    assert large_plan.peak_bytes - small_plan.peak_bytes == largest - 256 * 512 * 210 // 256


def test_a_dry_run_is_read_piece_by_piece() -> None:
    pieces = [
        "llama_model_loader: loaded meta data\n",
        "[   1/   3] output.weight                - [ 256, 64, 1, 1], type =    f32, ",
        "size =     0.06 MiB ->     0.01 MiB (q6_K)\n",
        "[   2/   3] blk.0.attn_norm.weight       - [ 256,  1, 1, 1], type =    f32, ",
        "size =    0.001 MiB\n",
        "[   3/   3] blk.0.ffn_up.weight          - [ 256, 64, 1, 1], type =    f32, ",
        "size =     0.06 MiB ->     0.01 MiB (iq2_xxs)\n",
        "llama_model_quantize_impl: quant size  =     0.02 MiB (3.00 BPW)\n",
    ]
    assert planned_types(pieces) == {
        "output.weight": "Q6_K",
        "blk.0.attn_norm.weight": "",
        "blk.0.ffn_up.weight": "IQ2_XXS",
    }
