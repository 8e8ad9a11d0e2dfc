"""A job becomes the exact tokens that are sent, and what comes back becomes a record."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from medlocal.engine.batching import Limits
from medlocal.engine.constraint import CompiledGrammar
from medlocal.engine.engine import Engine
from medlocal.engine.sequence import Completion, Generate, Logits, Request, Score
from medlocal.errors import MedlocalError, RefusedError
from medlocal.evals.formats import FORMATS
from medlocal.evals.plan import Job, PlanRequest, make_plan, take
from medlocal.run.asking import Asker
from medlocal.run.grading import to_stored, variant_of
from medlocal.run.spec import crossings_of, make_spec, read_items
from medlocal.store import Record, StoredJob
from tests.fakes import (
    BOS,
    END,
    NUM_VOCAB,
    LogitsOf,
    ToyBackend,
    ToyDecoder,
    ToyVocabulary,
    random_logits,
    toy_text,
    toy_tokens,
)

SPACED = tuple(b" " + letter.encode() for letter in "ABCD")
"""Tokens of a label with the space before it, as real vocabularies have them."""


def an_asker(vocabulary: ToyVocabulary | None = None) -> Asker:
    return ToyBackend(vocabulary=vocabulary or ToyVocabulary()).asker()


@cache
def planned(form: str, arm: str, language: str) -> Job:
    spec = make_spec("starter", "toy", languages=(language,))
    (crossing,) = crossings_of(spec)
    request = PlanRequest((replace(crossing, formats=(form,), arms=(arm,)),))
    (job,) = make_plan(request, take(read_items(spec), 1), {}).jobs
    return job


def a_job(form: str, arm: str, language: str = "en", **changes: object) -> StoredJob:
    return replace(to_stored(planned(form, arm, language), "toy"), **changes)  # type: ignore[arg-type]


def recorded(asker: Asker, job: StoredJob, *, alive: bool = True, **answer: object) -> Record:
    """What is kept when the engine answers a job so."""
    values: dict[str, object] = {"request": asker.request(0, job), "finish": "stop", **answer}
    return asker.record(job, Completion(**values), alive=alive)  # type: ignore[arg-type]


class TestPrompts:
    def test_a_prompt_is_the_chat_with_one_bos(self) -> None:
        job = a_job("letter", "free")
        (_, system), (_, user) = job.messages
        expected = [BOS, *toy_tokens(f"system: {system}\nuser: {user}\n\x02")]
        assert an_asker().prompt(job.messages) == tuple(expected)

    def test_equal_chats_are_tokenised_once(self) -> None:
        asker = an_asker()
        first = asker.prompt(a_job("letter", "free").messages)
        assert asker.prompt(a_job("letter", "grammar").messages) is first

    def test_a_text_that_spells_a_control_token_is_refused(self) -> None:
        messages = (("system", "Be brief."), ("user", "What does <|end|> mean?"))
        with pytest.raises(RefusedError, match=r"the user text spells .* '<\|end\|>'"):
            an_asker().prompt(messages)

    def test_the_signs_of_a_control_token_mean_themselves(self) -> None:
        # As a pattern, `<|end|>` would also be found in "<", "end" and ">".
        an_asker().prompt((("user", "Is 3 < 4 at the end of the day > noon?"),))

    def test_a_vocabulary_without_control_tokens_refuses_nothing(self) -> None:
        an_asker(ToyVocabulary(control_texts=())).prompt((("user", "<|end|>"),))


class TestRequests:
    def test_a_free_answer_is_generated_without_a_mask(self) -> None:
        job = a_job("json", "free")
        asker = an_asker()
        assert asker.request(5, job) == Request(5, asker.prompt(job.messages), Generate(20))

    def test_a_constrained_answer_has_the_same_prompt_and_the_formats_mask(self) -> None:
        asker = an_asker()
        free = asker.request(0, a_job("json", "free"))
        masked = asker.request(1, a_job("json", "grammar"))
        assert masked.prompt is free.prompt
        assert isinstance(masked.task, Generate)
        assert isinstance(masked.task.grammar, CompiledGrammar)
        assert toy_text(masked.task.grammar.start().forced()) == '{"answer": "'

    def test_a_grammar_is_compiled_once_for_all_its_questions(self) -> None:
        asker = an_asker()
        tasks = [asker.request(n, a_job("json", "grammar", lang)).task for n, lang in pairs()]
        assert all(isinstance(task, Generate) for task in tasks)
        assert len({id(task.grammar) for task in tasks if isinstance(task, Generate)}) == 1

    def test_each_language_closes_its_reasoning_in_its_own_words(self) -> None:
        asker = an_asker()
        closings = []
        for number, language in pairs():
            task = asker.request(number, a_job("reasoned", "grammar", language)).task
            assert isinstance(task, Generate)
            assert isinstance(task.grammar, CompiledGrammar)
            closings.append(toy_text(task.grammar.closing))
        assert closings == ["\nAnswer:", "\nRespuesta:"]

    @pytest.mark.parametrize(
        ("form", "place"),
        [("letter", ""), ("phrase", "La respuesta es"), ("json", '{"answer": "'), ("tag", "<answer>")],
    )  # fmt: skip
    def test_labels_are_scored_at_their_place(self, form: str, place: str) -> None:
        job = a_job(form, "label", "es")
        asker = an_asker()
        request = asker.request(0, job)
        assert request.prompt == (*asker.prompt(job.messages), *toy_tokens(place))
        assert request.task == Score(tuple((ord(letter),) for letter in "ABCD"))

    def test_options_are_scored_in_their_own_words(self) -> None:
        job = a_job("text", "cloze", "es")
        task = an_asker().request(0, job).task
        assert isinstance(task, Score)
        assert tuple(map(toy_text, task.continuations)) == variant_of(job).options

    def test_a_grammar_that_the_vocabulary_cannot_spell_is_an_error(self) -> None:
        asker = an_asker(ToyVocabulary(mute=b"{"))
        with pytest.raises(MedlocalError, match="cannot be compiled"):
            asker.request(0, a_job("json", "grammar"))
        asker.request(0, a_job("json", "free"))


def pairs() -> list[tuple[int, str]]:
    return list(enumerate(("en", "es")))


class TestLabels:
    def test_a_label_is_looked_for_with_and_without_a_space_before_it(self) -> None:
        labels = an_asker(ToyVocabulary(SPACED)).labels(planned("letter", "label", "en").variant)
        assert labels == [[(ord(c),), (NUM_VOCAB + i,)] for i, c in enumerate("ABCD")]

    def test_a_label_that_is_no_token_is_spelt(self) -> None:
        variant = planned("letter", "label", "en").variant
        labels = ("I", "II", "III", "IV")
        spelt = an_asker().labels(replace(variant, labels=labels, replies=labels))
        assert spelt[0] == [(ord("I"),)]
        assert [tuple(map(toy_text, found)) for found in spelt[1:]] == [
            ("II", " II"),
            ("III", " III"),
            ("IV", " IV"),
        ]

    def test_the_score_of_a_label_is_the_probability_of_all_its_spellings(self) -> None:
        asker = an_asker(ToyVocabulary(SPACED))
        job = a_job("letter", "label")
        shares = [0.25, 0.125, 0.0625, 0.0625, 0.125, 0.0, 0.0, 0.0]  # A, " A", B, " B", …
        scores = [math.log(p) if p else -math.inf for p in shares]
        record = recorded(asker, job, finish="scored", scores=scores)
        assert record.finish == "scored"
        assert (record.text, record.token_ids, record.logprobs) == ("", (), ())
        found = record.stats["scores"]
        assert isinstance(found, dict)
        assert {label: math.exp(score) for label, score in found.items()} == pytest.approx(
            {"A": 0.375, "B": 0.125, "C": 0.125, "D": 0.0}
        )
        assert record.stats["label_mass"] == pytest.approx(0.625)

    def test_the_engine_reads_the_same_scores_as_the_models_own_row(self) -> None:
        vocabulary = ToyVocabulary(SPACED)
        asker = an_asker(vocabulary)
        job = a_job("phrase", "label")
        request = asker.request(0, job)
        completion = run(wide_logits, request)
        record = asker.record(job, completion, alive=False)
        row = wide_logits(request.prompt).astype(np.float64)
        p = np.exp(row) / np.exp(row).sum()
        expected = {c: math.log(p[ord(c)] + p[NUM_VOCAB + i]) for i, c in enumerate("ABCD")}
        assert record.stats["scores"] == pytest.approx(expected, abs=1e-5)
        mass = sum(p[ord(c)] + p[NUM_VOCAB + i] for i, c in enumerate("ABCD"))
        assert record.stats["label_mass"] == pytest.approx(mass, abs=1e-6)


def wide_logits(history: tuple[int, ...]) -> Logits:
    """Random logits of a vocabulary that has the spaced labels too."""
    extra = random_logits((*history, 0))[: len(SPACED)]
    return np.concatenate([random_logits(history), extra])


def run(logits_of: LogitsOf, request: Request) -> Completion:
    limits = Limits(4096, num_rows=64, num_ids=16, num_texts=4, num_outputs=64)
    (completion,) = Engine(ToyDecoder(limits, logits_of)).run([request], 4096)
    return completion


class TestRecords:
    def test_cloze_scores_are_per_character_and_the_sums_are_kept(self) -> None:
        job = a_job("text", "cloze", "es")
        options = variant_of(job).options
        sums = [-1.0, -2.0, -3.0, -math.inf]
        record = recorded(an_asker(), job, finish="scored", scores=sums)
        per_character = [score / len(text) for score, text in zip(sums, options, strict=True)]
        assert record.stats["scores"] == dict(zip("ABCD", per_character, strict=True))
        assert record.stats["sums"] == sums
        assert "label_mass" not in record.stats

    def test_mask_pressure_is_the_sum_of_what_the_masks_cut_off(self) -> None:
        record = self.masked(feasible=[0.5, 0.25, 1.0], num_forced=1)
        assert record.stats["tax_nats"] == pytest.approx(math.log(2) + math.log(4))
        assert record.stats["feasible"] == [0.5, 0.25, 1.0]
        assert record.stats["num_forced"] == 1

    def test_a_mask_that_allows_only_the_impossible_costs_without_bound(self) -> None:
        assert self.masked(feasible=[0.5, 0.0]).stats["tax_nats"] == math.inf

    def test_a_constraint_counts_as_applied_when_the_canary_came_out(self) -> None:
        assert self.masked(feasible=[0.5]).stats["constraint_applied"] is True
        assert self.masked(feasible=[0.5], alive=False).stats["constraint_applied"] is False
        assert self.masked(feasible=[]).stats["constraint_applied"] is False

    def masked(self, *, alive: bool = True, **answer: object) -> Record:
        job = a_job("letter", "grammar")
        return recorded(an_asker(), job, alive=alive, tokens=[66], logprobs=[-1.0], **answer)

    def test_a_free_answer_has_no_mask_to_speak_of(self) -> None:
        job, asker = a_job("letter", "free"), an_asker()
        record = recorded(asker, job, tokens=toy_tokens("sí"), logprobs=[-0.5] * 3)
        assert (record.job_key, record.text, record.finish) == (job.key, "sí", "stop")
        assert record.token_ids == tuple(toy_tokens("sí"))
        assert record.stats == {
            "num_prompt_tokens": len(asker.prompt(job.messages)),
            # A character's bytes are no text by themselves.
            "pieces": ["s", "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"],
        }

    def test_an_error_is_kept_with_its_reason_and_no_answer(self) -> None:
        job, asker = a_job("letter", "grammar"), an_asker()
        record = recorded(asker, job, finish="error", tokens=[65], error="no room")
        assert (record.finish, record.error, record.text) == ("error", "no room", "")
        assert record.token_ids == ()
        assert record.stats == {"num_prompt_tokens": len(asker.prompt(job.messages))}


class TestCanary:
    def test_a_mask_that_acts_brings_it_out_of_any_model(self) -> None:
        asker = an_asker()
        completion = run(random_logits, asker.canary(-1))
        assert completion.request.id == -1
        assert completion.request.prompt[0] == BOS
        assert asker.is_alive(completion)

    @pytest.mark.parametrize("text", ["qz7xw4", "qz7jq2", "kv9xw4", "kv9jq2"])
    def test_each_of_its_texts_proves_the_mask(self, text: str) -> None:
        assert an_asker().is_alive(self.sung(text))

    @pytest.mark.parametrize(
        ("text", "finish"),
        [("Answer: B", "stop"), ("qz7", "stop"), ("qz7xw4 ", "stop"), ("", "stop"),
         ("qz7xw4", "length"), ("", "error")],
    )  # fmt: skip
    def test_anything_else_proves_nothing(self, text: str, finish: str) -> None:
        assert not an_asker().is_alive(self.sung(text, finish))

    def sung(self, text: str, finish: str = "stop") -> Completion:
        return Completion(an_asker().canary(-1), finish, tokens=toy_tokens(text))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("language", ["en", "es"])
def test_a_masked_toy_answers_every_format_in_its_form(form: str, language: str) -> None:
    job = a_job(form, "grammar", language)
    asker = an_asker()
    completion = run(random_logits, asker.request(0, job))
    record = asker.record(job, completion, alive=True)
    assert record.finish == "stop"
    assert FORMATS[form].is_valid(record.text, variant_of(job), language)
    assert END not in record.token_ids


def test_a_template_is_given_the_turns_as_they_stand() -> None:
    given: list[Sequence[tuple[str, str]]] = []

    class Watching:
        def render(self, messages: Sequence[tuple[str, str]]) -> str:
            given.append(messages)
            return "\x02"

    job = a_job("letter", "free")
    asker = Asker(ToyVocabulary(), Watching(), lambda token_ids: list(token_ids))
    assert asker.prompt(job.messages) == (2,)
    assert given == [job.messages]
