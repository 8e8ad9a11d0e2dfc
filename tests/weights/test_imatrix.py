"""Computing importance matrices with llama.cpp, mostly of a tiny mixture of experts made here."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medlocal.errors import Interrupted, MedlocalError, RefusedError, UsageError
from medlocal.libllama import LlamaModel
from medlocal.weights import imatrix as imatrix_module
from medlocal.weights.activations import Activations, Collector
from medlocal.weights.arrays import read_arrays, write_arrays
from medlocal.weights.corpus import CorpusPart
from medlocal.weights.forward import Forward, ForwardOptions
from medlocal.weights.imatrix import (
    Collected,
    ImatrixProgress,
    ImatrixRequest,
    check_request,
    collect,
    without_entry,
)
from medlocal.weights.importance import Entry, Importance, read_importance
from medlocal.weights.inspect import read_gguf
from tests.weights.gguf_files import write_model
from tests.weights.tiny_mixture import write_tiny_mixture

DATA = Path(__file__).parents[1] / "data"
ENGLISH, SPANISH = DATA / "clinical_en.txt", DATA / "clinical_es.txt"
DENSE, EXPERTS = "blk.0.attn_q.weight", "blk.1.ffn_down_exps.weight"


@pytest.fixture(scope="session")
def tiny_mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_mixture(tmp_path_factory.mktemp("mixture") / "mixture.gguf")


@pytest.fixture
def request_tiny(tiny_mixture: Path, tmp_path: Path) -> ImatrixRequest:
    """Five chunks of 64 bytes, English and Spanish in turn."""
    return ImatrixRequest(
        model=tiny_mixture,
        model_sha256="00" * 32,
        parts=(CorpusPart("en", ENGLISH), CorpusPart("es", SPANISH)),
        out=tmp_path / "out.gguf",
        num_threads=2,
        chunk_tokens=64,
        max_chunks=5,
    )


def run(request: ImatrixRequest) -> Collected:
    return collect(request, lambda _: None, lambda: False)


def stopping_after(num_chunks: int) -> Callable[[], bool]:
    asked = iter(range(1, 1000))
    return lambda: next(asked) == num_chunks


def stop(request: ImatrixRequest, num_chunks: int) -> Interrupted:
    with pytest.raises(Interrupted) as stopped:
        collect(request, lambda _: None, stopping_after(num_chunks))
    return stopped.value


def assert_close(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Within 1e-3 of each entry; entries of nothing but rounding are measured by the largest."""
    np.testing.assert_allclose(
        found.ravel(), expected.ravel(), rtol=1e-3, atol=1e-6 * float(expected.max())
    )


# --- against llama.cpp's own tool


def test_experts_and_dense_weights_are_as_in_llama_cpps_own_tool(
    request_tiny: ImatrixRequest,
) -> None:
    golden = read_importance(DATA / "imatrix_tiny.imatrix")
    request = replace(
        request_tiny,
        parts=(CorpusPart("en", ENGLISH),),
        chunk_tokens=golden.chunk_size,
        max_chunks=golden.num_chunks,
        with_output=True,
    )

    found = run(request).importance

    assert found.entries.keys() == golden.entries.keys()
    for name, entry in golden.entries.items():
        np.testing.assert_array_equal(found.entries[name].counts, entry.counts, err_msg=name)
        assert_close(found.entries[name].sums, entry.sums)


@pytest.mark.weights
@pytest.mark.slow
def test_a_mixture_of_languages_is_the_sum_of_llama_cpps_own_matrices(
    demo_model: Path, tmp_path: Path
) -> None:
    golden = json.loads((DATA / "imatrix_demo.json").read_text(encoding="utf-8"))
    request = ImatrixRequest(
        model=demo_model,
        model_sha256="00" * 32,
        parts=(CorpusPart("en", ENGLISH), CorpusPart("es", SPANISH)),
        out=tmp_path / "out.gguf",
        num_threads=2,
        max_chunks=4,
    )

    found = run(request).importance

    assert found.entries.keys() == golden["en"].keys() == golden["es"].keys()
    for name, entry in found.entries.items():
        parts = [golden[language][name] for language in ("en", "es")]
        assert entry.counts.tolist() == [sum(part["count"] for part in parts)]
        assert_close(entry.sums.sum(dtype=np.float64), np.array(sum(p["sum"] for p in parts)))
        first = np.sum([part["first"] for part in parts], axis=0)
        assert_close(entry.sums.ravel()[: len(first)], first)
        # The largest entries of two texts may stand in different columns.
        most = [part["max"] for part in parts]
        assert max(most) * 0.999 <= entry.sums.max() <= sum(most) * 1.001


# --- what is computed


def test_the_report_says_what_was_computed(request_tiny: ImatrixRequest) -> None:
    collected = run(request_tiny)

    assert collected.num_tokens == {"en": 3 * 64, "es": 2 * 64}
    assert (collected.resumed_at, collected.limited_by) == (0, None)
    assert collected.without_entry == ()
    matrix = collected.importance
    assert matrix.datasets == ("en:clinical_en.txt", "es:clinical_es.txt")
    assert matrix.shares == {"en": Fraction(1, 2), "es": Fraction(1, 2)}
    assert matrix.entries[DENSE].counts.tolist() == [5 * 64]
    assert matrix.entries[EXPERTS].counts.sum() == 2 * 5 * 64
    # The last expert of each layer is never chosen, in each of its three matrices.
    assert len(matrix.never_used) == 6
    assert matrix.entries[EXPERTS].counts[-1] == 0


def test_what_is_published_is_what_was_computed(request_tiny: ImatrixRequest) -> None:
    collected = run(request_tiny)

    found = read_importance(request_tiny.out)

    assert (found.model_sha256, found.model_parent_sha256) == ("00" * 32, "")
    assert found.corpus_sha256 == collected.importance.corpus_sha256
    for name, entry in collected.importance.entries.items():
        np.testing.assert_array_equal(found.entries[name].sums, entry.sums)
    assert not request_tiny.partial.exists()


def test_the_output_matrix_is_left_out_unless_asked_for(request_tiny: ImatrixRequest) -> None:
    without = run(request_tiny).importance.entries
    other = replace(request_tiny, out=request_tiny.out.with_name("b.gguf"), with_output=True)

    assert run(other).importance.entries.keys() - without.keys() == {"output.weight"}


def test_a_chunk_longer_than_a_batch_is_collected_whole(request_tiny: ImatrixRequest) -> None:
    matrix = run(replace(request_tiny, chunk_tokens=521, max_chunks=2)).importance

    assert matrix.entries[DENSE].counts.tolist() == [2 * 521]


def test_a_language_that_ends_first_is_named(request_tiny: ImatrixRequest, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_bytes(SPANISH.read_bytes()[:60])
    parts = (CorpusPart("en", ENGLISH), CorpusPart("es", short))

    collected = run(replace(request_tiny, parts=parts, max_chunks=None))

    assert collected.limited_by == "es"
    assert collected.num_tokens == {"en": 128, "es": 64}
    assert collected.unused_chunks["es"] == 0
    assert collected.unused_chunks["en"] > 50


def test_progress_counts_chunks_and_this_calls_tokens(request_tiny: ImatrixRequest) -> None:
    stop(request_tiny, 2)
    told: list[ImatrixProgress] = []

    collect(request_tiny, told.append, lambda: False)

    assert [(p.done, p.total, p.num_tokens) for p in told] == [
        (3, 5, 64),
        (4, 5, 128),
        (5, 5, 192),
    ]


def test_time_left_is_told_from_the_speed_so_far() -> None:
    progress = ImatrixProgress(done=30, total=50, num_tokens=10 * 512, seconds=64.0)

    assert progress.tokens_per_second == 80
    assert progress.seconds_left(512) == 128


def test_matrices_without_entry_are_named(tmp_path: Path) -> None:
    info = read_gguf(write_model(tmp_path / "model.gguf"))
    entry = Entry(np.ones((1, 5), np.float32), np.array([1]))

    assert without_entry(info, Importance({}, 1, 16)) == ("blk.0.ffn_up.weight",)
    assert without_entry(info, Importance({"blk.0.ffn_up.weight": entry}, 1, 16)) == ()


# --- the callback


def compute(model: Path, collector: Collector, num_chunks: int, *, tell: bool) -> None:
    with (
        LlamaModel(model) as loaded,
        Forward(loaded, ForwardOptions(num_tokens=64, num_threads=2), collector) as forward,
    ):
        for number in range(num_chunks):
            for _ in forward.blocks(range(10 * number, 10 * number + 64), 0):
                if tell:
                    collector.next_graph()


def test_ending_a_computation_early_changes_no_sum(tiny_mixture: Path) -> None:
    early, whole = Activations(), Activations()

    compute(tiny_mixture, Collector(early), 3, tell=True)
    compute(tiny_mixture, Collector(whole), 3, tell=False)

    assert early.sums.keys() == whole.sums.keys()
    for name, sums in whole.sums.items():
        np.testing.assert_array_equal(early.sums[name], sums, err_msg=name)


def test_a_computation_with_other_products_is_an_error(tiny_mixture: Path) -> None:
    collector = Collector(Activations())
    compute(tiny_mixture, collector, 1, tell=True)

    with pytest.raises(MedlocalError, match="computed 0 products with weights, and 16 before"):
        collector.next_graph()


def test_weights_that_are_no_numbers_are_named(tiny_mixture: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    shutil.copyfile(tiny_mixture, broken)
    tensor = next(t for t in read_gguf(broken).tensors if t.name == "blk.0.attn_norm.weight")
    with broken.open("r+b") as stream:
        stream.seek(tensor.offset)
        stream.write(np.array([np.nan], np.float32).tobytes())

    with pytest.raises(MedlocalError, match=r"the inputs of blk\.0\.attn_.\.weight are not finite"):
        compute(broken, Collector(Activations()), 1, tell=True)


# --- stopping and going on


def test_stopping_keeps_a_checkpoint_and_says_how_to_go_on(request_tiny: ImatrixRequest) -> None:
    error = stop(request_tiny, 2)

    assert error.message == (
        f"stopped after 2 of 5 chunks, which are kept in {request_tiny.partial}"
    )
    assert request_tiny.partial.exists()
    assert not request_tiny.out.exists()


@pytest.mark.parametrize("after", [1, 2, 4])
def test_resumed_equals_uninterrupted_bit_for_bit(request_tiny: ImatrixRequest, after: int) -> None:
    whole = replace(request_tiny, out=request_tiny.out.with_name("whole.gguf"))
    run(whole)

    stop(request_tiny, after)
    resumed = run(request_tiny)

    assert resumed.resumed_at == after
    assert request_tiny.out.read_bytes() == whole.out.read_bytes()


def test_a_checkpoint_goes_on_to_more_chunks(request_tiny: ImatrixRequest) -> None:
    longer = replace(request_tiny, max_chunks=7)
    whole = replace(longer, out=request_tiny.out.with_name("whole.gguf"))
    run(whole)

    stop(request_tiny, 3)
    run(longer)

    assert longer.out.read_bytes() == whole.out.read_bytes()


def test_a_checkpoint_is_kept_every_so_often(request_tiny: ImatrixRequest) -> None:
    request = replace(request_tiny, save_every=2)
    kept: list[int] = []

    def look(progress: ImatrixProgress) -> None:
        # Told before the checkpoint of its own chunk is written.
        if request.partial.exists():
            kept.append(int(read_gguf(request.partial).metadata["imatrix.chunk_count"]))  # type: ignore[call-overload]
        else:
            kept.append(0)

    collect(request, look, lambda: False)

    assert kept == [0, 0, 2, 2, 4]


def test_a_process_that_is_killed_loses_what_came_after_the_checkpoint(
    request_tiny: ImatrixRequest,
) -> None:
    whole = replace(request_tiny, out=request_tiny.out.with_name("whole.gguf"))
    run(whole)
    request = replace(request_tiny, save_every=2)

    def die(progress: ImatrixProgress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(request, die, lambda: False)

    assert run(request).resumed_at == 2
    assert request.out.read_bytes() == whole.out.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_sha256": "11" * 32}, r"another model \(SHA-256\): 0000.*, and now 1111"),
        ({"parts": (CorpusPart("en", ENGLISH),)}, r"another text \(SHA-256\)"),
        ({"shares": {"es": Fraction(1, 4)}}, "another shares: .*es=1/2.*, and now .*es=1/4"),
        ({"chunk_tokens": 32}, "another tokens per chunk: 64, and now 32"),
        ({"with_output": True}, "another choice about the output matrix"),
        ({"max_chunks": 2}, "has 3 chunks, more than the 2 wanted"),
    ],
)
def test_a_checkpoint_of_another_computation_is_refused(
    request_tiny: ImatrixRequest, change: dict[str, Any], message: str
) -> None:
    stop(request_tiny, 3)

    with pytest.raises(RefusedError, match=message):
        run(replace(request_tiny, **change))


def test_a_finished_matrix_is_no_checkpoint(request_tiny: ImatrixRequest) -> None:
    run(request_tiny)
    request_tiny.out.rename(request_tiny.partial)

    with pytest.raises(RefusedError, match="is no checkpoint of an importance matrix"):
        run(request_tiny)


def test_a_checkpoint_without_all_its_counts_is_refused(request_tiny: ImatrixRequest) -> None:
    stop(request_tiny, 3)
    info, arrays = read_arrays(request_tiny.partial)
    del arrays[f"{DENSE}.counts"]
    write_arrays(request_tiny.partial, dict(info.metadata), arrays)  # type: ignore[arg-type]

    with pytest.raises(RefusedError, match=f"has no counts that fit {DENSE}"):
        run(request_tiny)


def test_a_damaged_checkpoint_is_told_as_one(request_tiny: ImatrixRequest) -> None:
    stop(request_tiny, 3)
    request_tiny.partial.write_bytes(request_tiny.partial.read_bytes()[:-100])

    with pytest.raises(
        RefusedError, match=r"the checkpoint .*out\.gguf\.partial is damaged"
    ) as found:
        run(request_tiny)

    assert found.value.hint == "remove it to start again, or write elsewhere with -o"


def test_a_checkpoint_is_no_importance_matrix(request_tiny: ImatrixRequest) -> None:
    stop(request_tiny, 3)

    with pytest.raises(RefusedError, match=r"its general\.type is 'imatrix, unfinished'"):
        read_importance(request_tiny.partial)


# --- requests that cannot be met


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_tokens": 15}, "chunks of 15 tokens are too short"),
        ({"chunk_tokens": 1025}, r"chunks of 1,025 tokens are longer than the 1,024"),
        ({"max_chunks": 0}, "a number of chunks must be at least 1"),
        ({"num_threads": 513}, "513 threads: between 1 and 512 are possible"),
        ({"save_every": 0}, "a number of chunks must be at least 1"),
        ({"parts": ()}, "no text is named"),
        ({"shares": {"fr": Fraction(1, 2)}}, "a share is stated for fr"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    request_tiny: ImatrixRequest, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(replace(request_tiny, **change))


def test_a_result_that_is_there_is_not_overwritten(request_tiny: ImatrixRequest) -> None:
    request_tiny.out.write_bytes(b"precious")

    with pytest.raises(UsageError, match="is there already"):
        run(request_tiny)

    assert request_tiny.out.read_bytes() == b"precious"


def test_a_folder_that_is_not_there_is_said_before_anything_is_computed(
    request_tiny: ImatrixRequest,
) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        run(replace(request_tiny, out=request_tiny.out.parent / "none" / "out.gguf"))


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_computed(
    request_tiny: ImatrixRequest,
) -> None:
    with pytest.raises(UsageError, match="nothing can be written in /proc"):
        check_request(replace(request_tiny, out=Path("/proc/out.gguf")))


def test_a_full_disk_is_said_before_with_a_hint_about_the_results_place(
    request_tiny: ImatrixRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(MedlocalError, match="is full") as full:
        check_request(request_tiny)
    assert full.value.hint == "make room, or write to another disk with -o"


# --- a result that cannot be written


def test_a_result_that_cannot_be_written_is_kept_and_written_by_the_same_command(
    request_tiny: ImatrixRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(request_tiny, out=request_tiny.out.with_name("whole.gguf"))
    run(whole)

    def fail(path: Path, importance: Importance) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(imatrix_module, "write_importance", fail)
        with pytest.raises(MedlocalError) as failed:
            run(request_tiny)

    assert failed.value.message == (
        f"{request_tiny.out} could not be written: Permission denied; all 5 chunks are kept in"
        f" {request_tiny.partial}"
    )
    assert run(request_tiny).resumed_at == 5
    assert request_tiny.out.read_bytes() == whole.out.read_bytes()
