"""Files compared with a reference, with the demo model and what llama.cpp makes of it."""

import ctypes
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax, rel_entr

from medlocal import libllama
from medlocal.catalog import data_root
from medlocal.errors import RefusedError, UsageError
from medlocal.settings import Settings
from medlocal.weights.corpus import CorpusPart, LanguageText, read_texts
from medlocal.weights.distances import KeepOptions
from medlocal.weights.forward import Forward, ForwardOptions
from medlocal.weights.inspect import read_gguf
from medlocal.weights.quality import (
    MeasureRequest,
    check_request,
    measure,
    vocabulary_sha256,
)
from medlocal.weights.quality_results import Quality
from tests.weights.float_llama import FloatLlama, write_float_llama
from tests.weights.gguf_files import write_model

REPEATED = {
    "en": "The patient was admitted with fever, cough and a raised white cell count. " * 20,
    "es": "El paciente ingresó con fiebre, tos y leucocitosis de varios días de evolución. " * 20,
}
NUM_THREADS = 2


def texts(folder: Path, languages: Sequence[str] = ("en", "es")) -> tuple[LanguageText, ...]:
    parts = []
    for language in languages:
        path = folder / f"{language}.txt"
        path.write_text(REPEATED[language], encoding="utf-8")
        parts.append(CorpusPart(language, path))
    return read_texts(parts)


def quantise(source: Path, out: Path, name: str) -> Path:
    """Made by llama.cpp itself: what is measured here does not depend on how a file came about."""
    lib = libllama.library()
    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{name}")
    params.allow_requantize = True
    assert (
        lib.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) == 0
    )
    return out


def a_request(folder: Path, reference: Path, *quantised: Path) -> MeasureRequest:
    here = Settings(home=folder, threads=NUM_THREADS)
    return MeasureRequest(reference, quantised, texts(folder), here, 2, 64)


class TestRefused:
    """Before anything is loaded."""

    def test_a_file_with_another_vocabulary(self, tmp_path: Path) -> None:
        reference = write_model(tmp_path / "a.gguf")
        other = write_model(
            tmp_path / "b.gguf", tokens=["<s>", "</s>", "<|eot|>", "a", "n", "Ġthe", "?"]
        )
        with pytest.raises(RefusedError, match="another vocabulary"):
            check_request(a_request(tmp_path, reference, other))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"inner": 256}, "its blk.0.ffn_down.weight is 256 × 256 there, and 512 × 256 in the"),
            ({"num_layers": 1}, "its blk.1.attn_k.weight is not there, and 256 × 256 in the"),
            ({"tied": True}, "its output.weight is not there, and 256 × 64 in the reference"),
        ],
    )
    def test_a_file_of_another_model_with_the_same_vocabulary(
        self, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        reference = write_float_llama(tmp_path / "a.gguf")
        other = write_float_llama(tmp_path / "b.gguf", replace(FloatLlama(), **change))
        with pytest.raises(RefusedError, match="is no quantisation of") as found:
            check_request(a_request(tmp_path, reference, other))
        assert message in found.value.message

    def test_two_files_of_one_name(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        reference = write_model(tmp_path / "a.gguf")
        other = write_model(tmp_path / "other" / "a.gguf")
        with pytest.raises(UsageError, match="same name"):
            check_request(a_request(tmp_path, reference, other))

    def test_chunks_that_are_longer_than_the_context(self, tmp_path: Path) -> None:
        paths = [write_model(tmp_path / name) for name in ("a.gguf", "b.gguf")]
        request = replace(a_request(tmp_path, *paths), chunk_tokens=513)
        with pytest.raises(UsageError, match="longer than the 512") as found:
            check_request(request)
        assert found.value.hint == "choose shorter ones: --chunk-tokens 512"

    @pytest.mark.parametrize("changes", [{"chunk_tokens": 16}, {"max_chunks": 1}])
    def test_chunks_that_are_too_short_or_too_few(
        self, tmp_path: Path, changes: dict[str, int]
    ) -> None:
        paths = [write_model(tmp_path / name) for name in ("a.gguf", "b.gguf")]
        with pytest.raises(UsageError):
            check_request(replace(a_request(tmp_path, *paths), **changes))  # type: ignore[arg-type]


def test_the_vocabularys_checksum_tells_where_tokens_end(tmp_path: Path) -> None:
    """Without lengths, "ab" "c" would be "a" "bc"."""
    tokens = ["<s>", "</s>", "<|eot|>", "ab", "c", "Ġthe", "?"]
    one = write_model(tmp_path / "a.gguf", tokens=tokens)
    other = write_model(tmp_path / "b.gguf", tokens=[*tokens[:3], "a", "bc", *tokens[5:]])
    assert vocabulary_sha256(read_gguf(one)) != vocabulary_sha256(read_gguf(other))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quality")


@pytest.fixture(scope="module")
def files(folder: Path, demo_model: Path) -> tuple[Path, Path]:
    return (
        quantise(demo_model, folder / "demo-Q8_0.gguf", "Q8_0"),
        quantise(demo_model, folder / "demo-Q4_0.gguf", "Q4_0"),
    )


@pytest.fixture(scope="module")
def measured(folder: Path, files: tuple[Path, Path]) -> Quality:
    return measure(a_request(folder, *files))


@pytest.mark.weights
@pytest.mark.slow
class TestMeasured:
    """On the demo model."""

    def test_a_copy_has_lost_nothing(self, folder: Path, files: tuple[Path, Path]) -> None:
        copy = folder / "copy.gguf"
        copy.symlink_to(files[0])
        found = measure(a_request(folder, files[0], copy)).files[0].by_language["es"]
        assert found.kld.value == pytest.approx(0, abs=1e-6)
        assert found.same_top.value == 1
        assert found.perplexity_ratio.value == pytest.approx(1, abs=1e-6)
        assert found.dp_rms.value == pytest.approx(0, abs=1e-6)

    def test_the_divergence_is_that_of_the_full_distributions(
        self, folder: Path, files: tuple[Path, Path], measured: Quality
    ) -> None:
        chunks = self._chunks(folder, files[0])
        p, q = (self._log_p(path, chunks) for path in files)
        exact = rel_entr(np.exp(p), np.exp(q)).sum(axis=1)
        found = measured.files[0].by_language["en"]
        assert found.num_positions == len(exact) == 62
        assert 0 < found.kld_reference_error < 0.02 * exact.mean()
        assert abs(found.kld.value - exact.mean()) < 4 * found.kld_reference_error
        assert found.kld_lower <= exact.mean() <= found.kld_upper
        assert found.same_top.value == np.mean(p.argmax(axis=1) == q.argmax(axis=1))

    def _chunks(self, folder: Path, path: Path) -> list[list[int]]:
        with libllama.LlamaModel(path) as model:
            tokens = model.tokenize((folder / "en.txt").read_bytes())
        return [tokens[:64], tokens[64:128]]

    def _log_p(self, path: Path, chunks: list[list[int]]) -> NDArray[np.float64]:
        """All log-probabilities of the second half of each chunk, without the last position."""
        rows = []
        with (
            libllama.LlamaModel(path) as model,
            Forward(model, ForwardOptions(64, NUM_THREADS)) as forward,
        ):
            for chunk in chunks:
                for _, logits in forward.blocks(chunk, 32):
                    rows.append(log_softmax(logits[:-1].astype(np.float64), axis=1))
        return np.concatenate(rows)

    def test_the_files_are_described(self, measured: Quality, files: tuple[Path, Path]) -> None:
        file = measured.files[0].file
        assert (file.name, file.type, file.size_bytes) == (
            "demo-Q4_0",
            "Q4_0",
            files[1].stat().st_size,
        )
        assert 4.5 < file.bits_per_weight < 6
        assert 0.9 * file.size_bytes < file.loaded_bytes < file.size_bytes
        assert (measured.reference.type, measured.texts[0].num_chunks) == ("Q8_0", 2)

    def test_a_reference_is_made_once_and_gives_the_same_again(
        self, folder: Path, files: tuple[Path, Path], measured: Quality
    ) -> None:
        told: list[str] = []
        again = measure(
            a_request(folder, *files), lambda description, done, total: told.append(description)
        )
        assert again.num_reused == 2
        assert again.files == measured.files
        assert not any("Q8_0" in description for description in told)

    def test_what_is_kept_does_not_change_what_is_exact(
        self, folder: Path, files: tuple[Path, Path], measured: Quality
    ) -> None:
        few = replace(a_request(folder, *files), keep=KeepOptions(most=16))
        found, expected = (m.files[0].by_language["es"] for m in (measure(few), measured))
        assert found.perplexity_ratio == expected.perplexity_ratio
        assert found.same_top == expected.same_top
        assert found.dp_rms == expected.dp_rms
        assert found.kld_reference_error > expected.kld_reference_error

    def test_a_text_of_one_chunk_is_too_short(self, folder: Path, files: tuple[Path, Path]) -> None:
        short = folder / "short.txt"
        short.write_text("Two chunks are needed.", encoding="utf-8")
        request = replace(a_request(folder, *files), texts=read_texts([CorpusPart("en", short)]))
        with pytest.raises(UsageError, match="two chunks of 64"):
            measure(request)

    def test_progress_ends_at_its_total(self, folder: Path, files: tuple[Path, Path]) -> None:
        told: list[tuple[int, int | None]] = []
        measure(
            replace(a_request(folder, *files), max_chunks=3),
            lambda description, done, total: told.append((done, total)),
        )
        # three chunks of 64 tokens in two languages, on the reference and on one file
        assert told[-1] == (768, 768)
        assert [done for done, _ in told] == sorted(done for done, _ in told)


GOLDEN = json.loads(
    (Path(__file__).parents[1] / "data" / "quality_demo.json").read_text(encoding="utf-8")
)
"""What llama.cpp's own tool printed; `tools.golden_quality` makes it."""


@pytest.fixture(scope="module")
def as_golden(folder: Path, files: tuple[Path, Path]) -> Quality:
    shipped = data_root() / "benchmarks" / "texts"
    parts = [CorpusPart(language, shipped / f"{language}.txt") for language in ("en", "es")]
    return measure(
        MeasureRequest(
            files[0],
            files[1:],
            read_texts(parts),
            Settings(home=folder, threads=GOLDEN["num_threads"]),
            max_chunks=GOLDEN["num_chunks"],
            chunk_tokens=GOLDEN["chunk_tokens"],
        )
    )


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "es"])
class TestAgainstUpstream:
    """llama.cpp's own tool on the same text, files, chunks and threads."""

    def test_the_text_is_the_one_that_the_tool_was_given(self, language: str) -> None:
        text = data_root() / "benchmarks" / "texts" / f"{language}.txt"
        digest = hashlib.sha256(text.read_bytes()).hexdigest()
        assert digest == GOLDEN["results"][language]["text_sha256"], "make the golden values again"

    @pytest.mark.parametrize(
        "name", ["kld", "perplexity", "reference_perplexity", "perplexity_ratio", "dp_mean",
                 "dp_rms", "same_top"],
    )  # fmt: skip
    def test_a_mean_is_well_within_the_error_that_the_tool_prints(
        self, as_golden: Quality, language: str, name: str
    ) -> None:
        value, error = GOLDEN["results"][language][name]
        divergence = as_golden.files[0].by_language[language]
        found = getattr(divergence, name)
        drawn = 4 * divergence.kld_reference_error if name == "kld" else 0.0
        assert abs(found.value - value) < 0.1 * error + drawn
        assert found.token_error == pytest.approx(error, rel=0.02)

    def test_the_median_and_the_tail_are_the_tools(self, as_golden: Quality, language: str) -> None:
        """They are of single positions, at which the draws weigh more than in the mean."""
        golden, found = GOLDEN["results"][language], as_golden.files[0].by_language[language]
        assert found.kld_median == pytest.approx(golden["kld_median"][0], rel=0.03)
        assert found.kld_99 == pytest.approx(golden["kld_99"][0], rel=0.05)
        assert found.kld_max == pytest.approx(golden["kld_max"][0], rel=0.05)

    def test_the_divergence_that_the_tool_finds_lies_between_the_bounds(
        self, as_golden: Quality, language: str
    ) -> None:
        found = as_golden.files[0].by_language[language]
        assert found.kld_lower < GOLDEN["results"][language]["kld"][0] < found.kld_upper
