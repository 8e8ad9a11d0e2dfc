"""What a run needs of a context, and what a model file says before any weights are loaded."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal import libllama
from medlocal.engine.batching import Limits
from medlocal.engine.engine import Engine
from medlocal.engine.sequence import Generate, Request, Score
from medlocal.errors import MedlocalError, MissingError, RefusedError
from medlocal.libllama import Device
from medlocal.run.asking import ASKING_VERSION
from medlocal.run.backend import EXACT_ROWS, FAST_ROWS, LlamaBackend, Needs, choose_cells
from medlocal.settings import Settings
from medlocal.weights.memory import DeviceBudget
from tests.fakes import ListGrammar, ToyDecoder
from tests.weights.gguf_files import CHATML, write_model
from tests.weights.tiny_llama import string, tiny_llama, write_tiny_llama

law = settings(max_examples=60, deadline=None)

tokens = st.integers(0, 2)
grammars = st.sampled_from([None, ListGrammar(("A", "B")), ListGrammar(("is: A", "is: B"))])
tasks = st.builds(Generate, st.integers(1, 8), grammars) | st.builds(
    Score,
    st.lists(st.lists(tokens, min_size=1, max_size=4).map(tuple), min_size=1, max_size=3).map(
        tuple
    ),
)
requests = st.lists(
    st.tuples(st.lists(tokens, min_size=1, max_size=10).map(tuple), tasks), min_size=1, max_size=10
).map(lambda pairs: [Request(i, prompt, task) for i, (prompt, task) in enumerate(pairs)])


class TestNeeds:
    def test_answers_of_one_prompt_grow_behind_it_together(self) -> None:
        prompt = (1, 2, 3)
        needs = Needs.of([
            Request(0, prompt, Generate(10)),
            Request(1, prompt, Generate(4)),
            Request(2, prompt, Score(((1, 1, 1), (2,)))),
            Request(3, (1, 2, 3, 4), Generate(2)),
        ])  # fmt: skip
        # The last token of a continuation is read from the row before it and needs no cell.
        assert needs == Needs(longest=3 + 10 + 4 + 2, total=19 + 6, most_growth=10)

    def test_scores_do_not_count_as_growth(self) -> None:
        assert Needs.of([Request(0, (1,), Score(((1, 2, 3),)))]).most_growth == 0

    def test_nothing_to_ask_needs_nothing(self) -> None:
        assert Needs.of([]) == Needs(0, 0, 0)

    @given(requests)
    @law
    def test_the_longest_prompt_with_its_answers_fits_what_is_needed(
        self, asked: list[Request]
    ) -> None:
        # One cell more is what `choose_cells` leaves at least; a padded batch takes it.
        least = Needs.of(asked).longest + 1
        limits = Limits(least, num_rows=8, num_ids=40, num_texts=3, num_outputs=8, min_rows=2)
        answers = list(Engine(ToyDecoder(limits)).run(asked, least))
        assert {answer.finish for answer in answers} <= {"stop", "length", "scored"}

    def test_a_forced_beginning_needs_no_more_than_the_answer_it_begins(self) -> None:
        grammar = ListGrammar(("the first of the two", "the first of the few"))
        request = Request(0, (1, 2, 3), Generate(24, grammar))
        least = Needs.of([request]).longest + 1
        limits = Limits(least, num_rows=8, num_ids=8, num_texts=2, num_outputs=8, min_rows=2)
        (answer,) = Engine(ToyDecoder(limits)).run([request], least)
        assert answer.finish == "stop"


class TestChooseCells:
    @pytest.mark.parametrize(
        ("needs", "expected"),
        [
            # A short run takes what it can use at all, a long one what is comfortable.
            (Needs(longest=100, total=600, most_growth=20), 768),
            (Needs(longest=100, total=100_000, most_growth=20), 3072),
            # 24 answers of 256 tokens side by side behind one prompt.
            (Needs(longest=900, total=100_000, most_growth=256), 7168),
            # A prompt longer than what is comfortable still fits, with a cell for padding.
            (Needs(longest=5120, total=5120, most_growth=0), 5376),
            (Needs(longest=0, total=0, most_growth=0), 256),
        ],
    )
    def test_there_are_as_many_as_are_of_use(self, needs: Needs, expected: int) -> None:
        assert choose_cells(needs, num_texts=24, comfortable=3072) == expected

    @given(st.integers(1, 9000), st.integers(0, 90_000), st.integers(0, 300), st.integers(1, 64))
    @law
    def test_they_hold_the_longest_and_no_more_than_all(
        self, longest: int, more: int, growth: int, num_texts: int
    ) -> None:
        needs = Needs(longest, longest + more, growth)
        cells = choose_cells(needs, num_texts, 3072)
        assert cells % 256 == 0
        assert longest < cells
        assert cells <= needs.total + 256


CPU = Device("CPU", "some processor", "cpu", free_bytes=2**33, total_bytes=2**34)
GPU = Device("CUDA0", "some card", "gpu", free_bytes=2**33, total_bytes=2**34)
BUILD = {"commit": "abc123", "llama_cpp_python": "0.3", "system": "AVX2 = 1", "gpu_offload": "no"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_model(tmp_path / "little.gguf")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """A machine with one processor, to be changed; llama.cpp is not loaded."""
    found = [CPU]
    monkeypatch.setattr(libllama, "devices", lambda: found)
    monkeypatch.setattr(libllama, "build_info", lambda: BUILD)
    return found


def a_backend(path: Path, **changes: Any) -> LlamaBackend:
    return LlamaBackend("little", path, Settings(home=path.parent), **changes)


class TestLlamaBackend:
    def test_a_sound_file_passes_the_check(self, tmp_path: Path) -> None:
        a_backend(write_tiny_llama(tmp_path / "tiny.gguf")).check()

    def test_a_file_that_contradicts_itself_is_refused_by_the_check(self, path: Path) -> None:
        with pytest.raises(RefusedError, match="has the shape"):
            a_backend(path).check()

    def test_a_hostile_template_is_refused_by_the_check(self, tmp_path: Path) -> None:
        changes = {"tokenizer.chat_template": string(CHATML + "{{ messages.__class__ }}")}
        path = write_tiny_llama(tmp_path / "tiny.gguf", tiny_llama().changed(**changes))
        with pytest.raises(RefusedError, match="reaches for '__class__'"):
            a_backend(path).check()

    def test_a_file_that_is_not_there_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            a_backend(tmp_path / "none.gguf").check()

    def test_a_model_without_a_chat_template_is_refused(self, tmp_path: Path) -> None:
        recipe = tiny_llama().changed(tokenizer__chat_template=None)
        path = write_tiny_llama(tmp_path / "base.gguf", recipe)
        with pytest.raises(RefusedError, match="has no chat template"):
            a_backend(path).check()

    def test_a_processor_is_exact_and_a_card_is_fast(
        self, path: Path, machine: list[Device]
    ) -> None:
        assert (a_backend(path).mode, a_backend(path).num_rows) == ("exact", EXACT_ROWS)
        machine.append(GPU)
        assert (a_backend(path).mode, a_backend(path).num_rows) == ("fast", FAST_ROWS)

    @pytest.mark.parametrize("mode", ["exact", "fast"])
    def test_the_users_choice_of_mode_holds_on_any_machine(
        self, path: Path, machine: list[Device], mode: str
    ) -> None:
        machine.append(GPU)
        assert a_backend(path, wanted_mode=mode).mode == mode

    def test_exact_mode_on_a_processor_keeps_keys_and_values_in_unequal_types(
        self, path: Path, machine: list[Device]
    ) -> None:
        keys, values = a_backend(path, wanted_mode="exact").kv_types
        assert keys != values
        machine.append(GPU)
        assert a_backend(path, wanted_mode="exact").kv_types == ("f16", "f16")

    def test_an_exact_batch_of_a_k_quantised_model_has_eight_rows_at_least(
        self, path: Path
    ) -> None:
        assert a_backend(path, wanted_mode="exact").min_rows == 8
        assert a_backend(path, wanted_mode="fast").min_rows == 1

    def test_k_quants_are_repacked_in_fast_mode_only(self, path: Path) -> None:
        assert not a_backend(path, wanted_mode="exact").repacks
        assert a_backend(path, wanted_mode="fast").repacks

    @pytest.mark.parametrize(("wanted", "limit"), [(0, 512), (100, 100), (9000, 512)])
    def test_the_context_is_at_most_the_trained_one(
        self, path: Path, wanted: int, limit: int
    ) -> None:
        assert a_backend(path, wanted_context=wanted).context_limit() == limit

    @pytest.mark.usefixtures("machine")
    def test_the_identity_is_what_may_change_an_answer(self, path: Path) -> None:
        backend = a_backend(path, wanted_mode="exact")
        assert backend.identity() == {
            "model_sha256": backend.sha256,
            "llama_cpp": "abc123",
            "system": "AVX2 = 1",
            "devices": ["some processor"],
            "mode": "exact",
            "micro_batch": 240,
            "repack": False,
            "kv_types": ["bf16", "f16"],
            "sampling": "greedy",
            "asking": ASKING_VERSION,
        }

    @pytest.mark.usefixtures("machine")
    def test_the_context_length_is_no_part_of_the_identity(self, path: Path) -> None:
        # A resumed run may be given more room for what did not fit.
        assert a_backend(path, wanted_context=64).identity() == a_backend(path).identity()

    @pytest.mark.usefixtures("machine")
    def test_another_file_is_another_identity(self, path: Path, tmp_path: Path) -> None:
        other = write_model(tmp_path / "other.gguf", add_bos_token=True)
        assert a_backend(path).identity() != a_backend(other).identity()

    @pytest.mark.usefixtures("machine")
    def test_before_the_weights_are_loaded_only_the_machine_is_known(self, path: Path) -> None:
        assert a_backend(path, wanted_mode="fast").facts() == {
            "build": "llama.cpp abc123, llama-cpp-python 0.3",
            "system": "AVX2 = 1",
            "devices": ["CPU: some processor"],
            "mode": "fast",
            "repack": True,
        }

    def test_the_record_of_a_run_describes_the_file(self, path: Path) -> None:
        facts = a_backend(path).model_facts()
        assert (facts["id"], facts["path"]) == ("little", str(path))
        assert (facts["architecture"], facts["quantisation"]) == ("llama", "Q4_K")
        assert facts["parameters"] == 7 * 256 + 64 + 15
        assert facts["bytes"] == path.stat().st_size
        assert (facts["template"], facts["bos_token"], facts["eos_token"]) == (
            CHATML,
            "<s>",
            "</s>",
        )

    def test_a_cache_that_does_not_fit_the_memory_is_refused_before_it_is_made(
        self, path: Path
    ) -> None:
        little = [DeviceBudget("CPU", "cpu", 10_000, 0)]
        backend = a_backend(path, wanted_mode="exact", budgets=lambda: little)
        with pytest.raises(MedlocalError, match="cells of KV cache take") as caught:
            backend.decoder(Needs(longest=300, total=10_000, most_growth=20))
        assert caught.value.hint is not None
        assert "--context" in caught.value.hint

    @pytest.mark.parametrize(("card_bytes", "num_layers"), [(2**33, 2 + 1), (0, 0)])
    def test_in_exact_mode_the_layers_on_a_card_are_part_of_the_identity(
        self, path: Path, machine: list[Device], card_bytes: int, num_layers: int
    ) -> None:
        machine.append(GPU)
        card = DeviceBudget("CUDA0", "gpu", card_bytes, 0)
        budgets = [card, DeviceBudget("CPU", "cpu", 2**40, 0)]
        backend = a_backend(path, wanted_mode="exact", budgets=lambda: budgets)
        assert backend.identity()["gpu_layers"] == num_layers

    def test_in_fast_mode_another_number_of_layers_is_no_other_identity(
        self, path: Path, machine: list[Device]
    ) -> None:
        machine.append(GPU)
        assert "gpu_layers" not in a_backend(path, wanted_mode="fast").identity()

    @pytest.mark.usefixtures("machine")
    def test_a_padded_batch_has_room_behind_the_longest_prompt(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[int, int]] = []
        backend = a_backend(path, wanted_mode="exact")
        monkeypatch.setattr(backend.loading, "open", lambda *cells: asked.append(cells))
        backend.decoder(Needs(longest=3071, total=100_000, most_growth=0))
        # Eight rows at least: seven of padding behind 3,071 cells and one.
        assert asked == [(3328, 3079)]

    def test_closing_what_was_never_opened_does_nothing(self, path: Path) -> None:
        a_backend(path).close()
