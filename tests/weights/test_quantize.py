"""Quantising: the bytes are llama.cpp's own, and a result is there whole or not at all."""

import hashlib
import json
import os
import platform
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from medlocal.errors import MedlocalError
from medlocal.files import Progress
from medlocal.libllama import LlamaModel
from medlocal.weights import quantize as quantize_module
from medlocal.weights.forward import Forward, ForwardOptions
from medlocal.weights.importance import read_importance, write_importance
from medlocal.weights.inspect import read_gguf
from medlocal.weights.provenance import read_provenance
from medlocal.weights.quantize import Quantised, QuantizeRequest, plan_quantisation, quantize
from medlocal.weights.quantizer import Quantizer
from medlocal.weights.recipes import recipes
from tests.weights.float_llama import CASES, MODELS, Case, write_float_llama
from tools.golden_quantisations import tensors_sha256

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "quantisations.json").read_bytes())
LOW = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models and their matrices."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in MODELS.items():
        write_float_llama(folder / f"{name}.gguf", model)
        model.write_importance(folder / f"{name}.imatrix.gguf")
    return folder


@pytest.fixture
def asked(folder: Path, tmp_path: Path) -> QuantizeRequest:
    return QuantizeRequest(folder / "plain.gguf", ("Q4_K_M",), tmp_path / "out", num_threads=2)


def make(request: QuantizeRequest, progress: Progress | None = None) -> list[Quantised]:
    plan = plan_quantisation(request)
    return list(quantize(plan, progress) if progress else quantize(plan))


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Quantised]:
    """Makes the cases: all types of one model at once, when the first is asked for."""
    out, done = tmp_path_factory.mktemp("made"), dict[Case, Quantised]()

    def get(case: Case) -> Quantised:
        if case not in done:
            alike = [c for c in CASES if replace(c, recipe=case.recipe) == case]
            matrix = folder / f"{case.model}.imatrix.gguf" if case.with_matrix else None
            request = QuantizeRequest(
                folder / f"{case.model}.gguf", tuple(c.recipe for c in alike),
                out / f"{case.model}-{case.with_matrix}-{bool(case.keep)}", matrix, case.keep,
                case.output_type, case.embedding_type, num_threads=2,
            )  # fmt: skip
            done.update(zip(alike, make(request), strict=True))
        return done[case]

    return get


only_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="elsewhere compilers round a product and a sum at once"
)


@only_x86
def test_the_models_are_those_that_the_golden_checksums_were_made_of(folder: Path) -> None:
    assert {name: tensors_sha256(folder / f"{name}.gguf") for name in MODELS} == GOLDEN["sources"]


@only_x86
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_bytes_are_those_of_llama_quantize(
    case: Case, made: Callable[[Case], Quantised]
) -> None:
    assert tensors_sha256(made(case).path) == GOLDEN["cases"][case.name]


@only_x86
def test_the_bytes_of_a_quick_type_are_those_of_llama_quantize(asked: QuantizeRequest) -> None:
    (made,) = make(asked)
    assert tensors_sha256(made.path) == GOLDEN["cases"]["plain-Q4_K_M"]


def test_no_golden_case_is_left_out() -> None:
    assert GOLDEN["cases"].keys() == {case.name for case in CASES}
    assert {case.recipe for case in CASES} == recipes().keys() - {"F32", "Q2_0"}


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.model == "plain"], ids=str)
def test_a_result_of_every_type_loads_and_computes(
    case: Case, made: Callable[[Case], Quantised]
) -> None:
    with (
        LlamaModel(made(case).path, gpu_layers=0) as model,
        Forward(model, ForwardOptions(8, 1)) as forward,
    ):
        ((_, logits),) = forward.blocks([3, 4, 5, 6], 0)
        assert logits.shape == (4, 64)
        assert bool((abs(logits) < 1e4).all())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_size_is_what_the_plan_said(case: Case, made: Callable[[Case], Quantised]) -> None:
    done = made(case)
    assert done.num_bytes == done.path.stat().st_size
    assert abs(done.predicted_bytes - done.num_bytes) <= 64


def test_several_types_come_one_after_the_other(asked: QuantizeRequest) -> None:
    made = make(replace(asked, types=("Q8_0", "Q4_0", "BF16")))
    assert [each.path.name for each in made] == [
        "plain-Q8_0.gguf", "plain-Q4_0.gguf", "plain-BF16.gguf"
    ]  # fmt: skip
    assert [read_gguf(each.path).file_type for each in made] == ["Q8_0", "Q4_0", "BF16"]
    assert sorted(path.name for path in asked.folder.iterdir()) == sorted(
        each.path.name for each in made
    )
    assert made[0].ratio == pytest.approx(made[0].num_bytes / asked.source.stat().st_size)
    assert made[0].bits_per_weight == pytest.approx(8.5, abs=0.05)  # 34 bytes for 32 weights


def test_the_number_of_threads_changes_no_byte(asked: QuantizeRequest, tmp_path: Path) -> None:
    one, three = (
        make(replace(asked, num_threads=threads, folder=tmp_path / str(threads)))[0].path
        for threads in (1, 3)
    )
    assert one.read_bytes() == three.read_bytes()


def test_the_size_of_the_buffer_changes_no_byte(
    asked: QuantizeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_quantisation(asked)
    (whole,) = quantize(plan)
    small = replace(plan.files[0].job, max_buffer_bytes=5000)  # a few rows
    files = (replace(plan.files[0], job=small, path=tmp_path / "small.gguf"),)
    (pieces,) = quantize(replace(plan, files=files))
    assert pieces.path.read_bytes() == whole.path.read_bytes()


def test_what_is_kept_is_kept(asked: QuantizeRequest) -> None:
    (made,) = make(replace(asked, keep=("attn_v=Q8_0",), output_type="F16", embedding_type="BF16"))
    types = {tensor.name: tensor.type for tensor in read_gguf(made.path).tensors}
    assert {types[f"blk.{layer}.attn_v.weight"] for layer in (0, 1)} == {"Q8_0"}
    assert (types["output.weight"], types["token_embd.weight"]) == ("F16", "BF16")
    assert types["blk.0.attn_q.weight"] == "Q4_K"


def test_the_result_tells_its_way(folder: Path, asked: QuantizeRequest) -> None:
    matrix = folder / "plain.imatrix.gguf"
    (made,) = make(replace(asked, imatrix=matrix))
    said = read_provenance(read_gguf(made.path))
    assert said.version == "0.1.0"
    assert said.parent_sha256 == hashlib.sha256(asked.source.read_bytes()).hexdigest()
    assert said.llama_commit.startswith("0c1e570")
    assert said.requantised_from == ""
    assert said.imatrix_file == str(matrix).encode()[:127].decode()
    assert (said.imatrix_dataset, said.imatrix_entries, said.imatrix_chunks) == ("notes.txt", 14, 3)


def test_the_source_of_the_source_is_kept(asked: QuantizeRequest, tmp_path: Path) -> None:
    (first,) = make(replace(asked, types=("BF16",)))
    marked = tmp_path / "marked.gguf"
    with Quantizer() as quantizer:
        job = replace(plan_quantisation(replace(asked, source=first.path)).files[0].job)
        entries = (("medlocal.source", "HiTZ/Marmoka"), ("medlocal.source.revision", "abc"))
        quantizer.run(replace(job, recipe=1, target=str(marked), entries=entries), lambda *_: None)
    (made,) = make(replace(asked, source=marked))
    said = read_provenance(read_gguf(made.path))
    assert (said.source, said.revision) == ("HiTZ/Marmoka", "abc")


def test_requantising_is_said_in_the_result(asked: QuantizeRequest, tmp_path: Path) -> None:
    (first,) = make(replace(asked, types=("Q8_0",)))
    again = replace(asked, source=first.path, folder=tmp_path / "again", allow_requantize=True)
    (made,) = make(again)
    assert read_provenance(read_gguf(made.path)).requantised_from == "Q8_0"
    assert made.warnings[0] == "made from Q8_0, whose losses stay in it"


def test_a_matrix_is_not_said_to_be_of_a_file_that_was_made_without_one(
    folder: Path, asked: QuantizeRequest, tmp_path: Path
) -> None:
    matrix = read_importance(folder / "plain.imatrix.gguf")
    ours = replace(matrix, corpus_sha256="ab" * 32, shares={"es": Fraction(1)})
    write_importance(tmp_path / "m.gguf", ours)
    (first,) = make(replace(asked, types=("IQ3_S",), imatrix=tmp_path / "m.gguf"))
    said = read_provenance(read_gguf(first.path))
    assert (said.corpus_sha256, said.corpus_shares) == ("ab" * 32, "es=1")
    (second,) = make(replace(asked, source=first.path, types=("Q4_0",), allow_requantize=True))
    said = read_provenance(read_gguf(second.path))
    assert (said.imatrix_file, said.imatrix_dataset, said.corpus_sha256) == ("", "", "")
    assert (said.imatrix_entries, said.imatrix_chunks, said.corpus_shares) == (0, 0, "")
    assert abs(second.predicted_bytes - second.num_bytes) <= 64


def test_what_a_new_matrix_does_not_say_is_not_the_old_ones(
    folder: Path, asked: QuantizeRequest, tmp_path: Path
) -> None:
    theirs = folder / "plain.imatrix.gguf"
    write_importance(tmp_path / "m.gguf", replace(read_importance(theirs), corpus_sha256="ab" * 32))
    (first,) = make(replace(asked, types=("Q8_0",), imatrix=tmp_path / "m.gguf"))
    again = replace(asked, source=first.path, imatrix=theirs, allow_requantize=True)
    said = read_provenance(read_gguf(make(again)[0].path))
    assert (said.corpus_sha256, said.imatrix_dataset) == ("", "notes.txt")


def test_all_types_on_the_way_are_remembered(asked: QuantizeRequest) -> None:
    source, warnings = asked.source, []
    for name in ("IQ3_S", "Q4_0", "F16", "Q8_0"):
        again = replace(asked, source=source, types=(name,), allow_requantize=True)
        (made,) = make(again)
        source = made.path
        warnings.append(made.warnings)
    assert read_provenance(read_gguf(source)).requantised_from == "IQ3_S, Q4_0"
    # What its types are like to compute with is said too, and depends on the processor.
    assert [[w for w in told if w.startswith("made from")] for told in warnings] == [
        [],
        ["made from IQ3_S, whose losses stay in it"],
        ["made from IQ3_S, Q4_0, whose losses stay in it"],
        ["made from IQ3_S, Q4_0, whose losses stay in it"],
    ]


def test_all_texts_of_a_matrix_are_named_as_far_as_there_is_room(
    folder: Path, asked: QuantizeRequest, tmp_path: Path
) -> None:
    matrix = read_importance(folder / "plain.imatrix.gguf")
    several = ("en:notes_en.txt", "es:notas")
    many = tuple(f"en:notes_{number}.txt" for number in range(20))
    for name, datasets, expected in (
        ("a", several, "en:notes_en.txt, es:notas"),
        ("b", many, "en:notes_0.txt and 19 more"),
    ):
        write_importance(tmp_path / f"{name}.gguf", replace(matrix, datasets=datasets))
        again = replace(
            asked, types=("Q8_0",), folder=tmp_path / name, imatrix=tmp_path / f"{name}.gguf"
        )
        said = read_provenance(read_gguf(make(again)[0].path))
        assert said.imatrix_dataset == expected


def test_a_result_is_replaced_when_forced(asked: QuantizeRequest) -> None:
    asked.folder.mkdir()
    target = asked.folder / "plain-Q4_K_M.gguf"
    target.write_bytes(b"old")
    make(replace(asked, force=True))
    assert read_gguf(target).file_type == "Q4_K_M"


def test_progress_goes_through_all_bytes_of_the_source(asked: QuantizeRequest) -> None:
    told: list[tuple[str, int, int | None]] = []
    make(asked, lambda *step: told.append(step))
    steps = [step for step in told if step[0] == "quantising to Q4_K_M"]
    total = sum(tensor.num_bytes for tensor in read_gguf(asked.source).tensors)
    done = [step[1] for step in steps]
    assert {step[2] for step in steps} == {total}
    assert (done[0], done[-1]) == (0, total)
    assert done == sorted(done)
    assert len(steps) == 2 + len(MODELS["plain"].shapes())


class Watched(Quantizer):
    """Remembers the child, to be killed."""

    latest: "Watched"

    def __init__(self) -> None:
        super().__init__()
        Watched.latest = self


@pytest.fixture
def long(folder: Path, tmp_path: Path) -> QuantizeRequest:
    """A quick file, then one that takes seconds."""
    return QuantizeRequest(
        folder / "grouped.gguf",
        ("Q8_0", "IQ3_XXS"),
        tmp_path / "out",
        folder / "grouped.imatrix.gguf",
    )


def test_a_child_that_is_killed_leaves_nothing_and_what_was_made_before(
    long: QuantizeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_module, "Quantizer", Watched)

    def kill(description: str, done: int, total: int | None) -> None:
        if description == "quantising to IQ3_XXS":
            os.kill(Watched.latest.process_id, signal.SIGKILL)

    results = quantize(plan_quantisation(long), kill)
    assert next(results).path.name == "grouped-Q8_0.gguf"
    with pytest.raises(MedlocalError, match="was killed: most likely the memory ran out"):
        next(results)
    assert [path.name for path in long.folder.iterdir()] == ["grouped-Q8_0.gguf"]


def test_stopping_leaves_nothing_and_ends_the_child(
    long: QuantizeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_module, "Quantizer", Watched)

    def stop(description: str, done: int, total: int | None) -> None:
        if description == "quantising to IQ3_XXS" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(long, stop)
    assert [path.name for path in long.folder.iterdir()] == ["grouped-Q8_0.gguf"]
    with pytest.raises(ProcessLookupError):
        os.kill(Watched.latest.process_id, 0)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No process of ours may write a file beyond 100 KiB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_fills_up_leaves_nothing(asked: QuantizeRequest) -> None:
    with pytest.raises(MedlocalError, match="could not be written: the disk is full"):
        make(asked)
    assert list(asked.folder.iterdir()) == []


def test_a_result_that_is_not_what_was_planned_is_not_published(asked: QuantizeRequest) -> None:
    plan = plan_quantisation(asked)
    wrong = replace(plan.files[0], job=replace(plan.files[0].job, keep=(("attn_q", 8),)))  # Q8_0
    with pytest.raises(
        MedlocalError, match=r"blk\.0\.attn_q\.weight is .*Q8_0.* instead of .*Q4_K"
    ):
        list(quantize(replace(plan, files=(wrong,))))
    assert list(asked.folder.iterdir()) == []


def test_a_result_of_another_recipe_is_not_published(asked: QuantizeRequest) -> None:
    plan = plan_quantisation(replace(asked, types=("Q6_K",)))
    other = recipes()["Q5_K_M"]
    wrong = replace(plan.files[0], recipe=other)
    with pytest.raises(MedlocalError, match="quantised to Q5_K_M, but the result says Q6_K"):
        list(quantize(replace(plan, files=(wrong,))))
    assert list(asked.folder.iterdir()) == []
