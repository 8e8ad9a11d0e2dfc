"""The loop on a toy decoder that checks every cell it reads."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.engine.batching import Limits
from medlocal.engine.engine import Engine
from medlocal.engine.sequence import Completion, Generate, Request, Score
from tests.fakes import (
    END,
    NUM_VOCAB,
    ListGrammar,
    ToyDecoder,
    random_logits,
    saying,
    toy_text,
    toy_tokens,
)

LIMITS = Limits(num_cells=64, num_rows=8, num_ids=16, num_texts=5, num_outputs=8, min_rows=2)
GRAMMARS = (
    None,
    ListGrammar(("A", "B", "C", "D")),
    ListGrammar(('{"a": "x"}', '{"a": "yy"}')),
    ListGrammar(("same",)),
)


def answer(requests: list[Request], limits: Limits = LIMITS) -> dict[int, Completion]:
    engine = Engine(ToyDecoder(limits))
    return {c.request.id: c for c in engine.run(requests, 64)}


def alone(request: Request) -> Completion:
    """The oracle: one request on a decoder of its own, one token at a time, nothing shared."""
    limits = Limits(num_cells=64, num_rows=64, num_ids=8, num_texts=1, num_outputs=64, min_rows=2)
    return answer([request], limits)[request.id]


tokens = st.integers(0, 2)
prompts = st.lists(tokens, min_size=1, max_size=12).map(tuple)
generate = st.builds(Generate, st.integers(1, 12), st.sampled_from(GRAMMARS))
score = st.builds(
    Score,
    st.lists(st.lists(tokens, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4).map(
        tuple
    ),
)
request_lists = st.lists(st.tuples(prompts, generate | score), min_size=1, max_size=14).map(
    lambda pairs: [Request(i, prompt, task) for i, (prompt, task) in enumerate(pairs)]
)


@given(request_lists)
@settings(max_examples=150, deadline=None)
def test_answers_together_equal_answers_alone(requests: list[Request]) -> None:
    together = answer(requests)
    assert sorted(together) == [r.id for r in requests]
    for request in requests:
        assert together[request.id] == alone(request)


@given(request_lists)
@settings(max_examples=50, deadline=None)
def test_the_cache_is_empty_after_a_run(requests: list[Request]) -> None:
    decoder = ToyDecoder(LIMITS)
    list(Engine(decoder).run(requests, 64))
    assert decoder.num_used == 0


def paths(request: Request) -> list[tuple[int, ...]]:
    """What must be read before a request's last answers: its prompt and what is certain after it."""
    if isinstance(request.task, Score):
        return [request.prompt + c[:-1] for c in request.task.continuations]
    forced = request.task.grammar.start().forced() if request.task.grammar else ()
    return [request.prompt + (forced if len(forced) < request.task.max_tokens else ())]


@given(request_lists)
@settings(max_examples=50, deadline=None)
def test_every_shared_token_is_computed_once_when_all_fits(requests: list[Request]) -> None:
    limits = Limits(2000, num_rows=8, num_ids=64, num_texts=60, num_outputs=8, min_rows=1)
    engine = Engine(ToyDecoder(limits))
    list(engine.run(requests, 2000))
    prefixes = {p[:k] for r in requests for p in paths(r) for k in range(1, len(p) + 1)}
    assert engine.stats.prefilled_tokens == engine.stats.unique_prompt_tokens == len(prefixes)


def test_greedy_generation_takes_the_most_probable_token() -> None:
    (completion,) = answer([Request(7, (1, 2, 3), Generate(6))]).values()
    history: tuple[int, ...] = (1, 2, 3)
    for token in completion.tokens:
        assert token == int(random_logits(history).argmax())
        history += (token,)
    assert completion.finish in {"stop", "length"}


def test_a_score_is_the_sum_of_log_probabilities() -> None:
    (completion,) = answer([Request(0, (9, 8), Score(((5,), (5, 6))))]).values()

    def log_probability(history: tuple[int, ...], token: int) -> float:
        logits = random_logits(history).astype(np.float64)
        return float(logits[token] - np.log(np.exp(logits).sum()))

    first = log_probability((9, 8), 5)
    assert completion.finish == "scored"
    assert completion.scores == pytest.approx(
        [first, first + log_probability((9, 8, 5), 6)], abs=1e-5
    )


def test_a_grammar_allows_nothing_else_and_ends_the_text() -> None:
    grammar = ListGrammar(("tic", "tac"))
    (completion,) = answer([Request(0, (1,), Generate(9, grammar))]).values()
    assert toy_text(completion.tokens) in {"tic", "tac"}
    assert completion.finish == "stop"


def test_forced_tokens_change_no_answer_and_no_probability() -> None:
    texts = ('{"answer": "A"}', '{"answer": "B"}')
    forced, sampled = (
        answer([Request(0, (4, 4), Generate(20, ListGrammar(texts, forces=forces)))])[0]
        for forces in (True, False)
    )
    assert forced.num_forced == len('{"answer": "') + len('"}')
    assert sampled.num_forced == 0
    assert forced.tokens == sampled.tokens
    assert forced.logprobs == sampled.logprobs
    assert forced.feasible == sampled.feasible


def test_feasible_mass_is_the_probability_of_the_allowed_tokens() -> None:
    (completion,) = answer([Request(0, (3,), Generate(4, ListGrammar(("A", "B"))))]).values()
    p = np.exp(random_logits((3,)).astype(np.float64))
    expected = (p[ord("A")] + p[ord("B")]) / p.sum()
    assert completion.feasible[0] == pytest.approx(expected, rel=1e-5)
    assert len(completion.feasible) == len(completion.tokens) + 1  # and one for the ending


def test_a_text_that_does_not_end_stops_at_its_length() -> None:
    decoder = ToyDecoder(LIMITS, saying(lambda _: "no end in sight at all"))
    (completion,) = Engine(decoder).run([Request(0, tuple(toy_tokens("?\x02")), Generate(5))], 64)
    assert toy_text(completion.tokens) == "no en"
    assert completion.finish == "length"


def test_a_grammar_that_is_complete_at_the_length_counts_as_stopped() -> None:
    (completion,) = answer([Request(0, (1,), Generate(1, ListGrammar(("A", "B"))))]).values()
    assert completion.finish == "stop"
    assert len(completion.tokens) == 1


def test_a_prompt_longer_than_the_context_is_an_error_of_that_request_only() -> None:
    long = Request(0, tuple(range(70)), Generate(5))
    short = Request(1, (1, 2), Generate(5))
    done = answer([long, short])
    assert done[0].finish == "error"
    assert "70 tokens" in done[0].error
    assert done[1].finish in {"stop", "length"}


def test_logits_that_are_not_finite_are_an_error() -> None:
    decoder = ToyDecoder(LIMITS, lambda _: np.full(NUM_VOCAB, math.nan, np.float32))
    requests = [Request(0, (1,), Generate(3)), Request(1, (1,), Score(((2,),)))]
    assert {c.finish for c in Engine(decoder).run(requests, 64)} == {"error"}


def test_closing_the_iterator_empties_the_cache() -> None:
    decoder = ToyDecoder(LIMITS)
    requests = [Request(i, (1, i), Generate(5)) for i in range(8)]
    running = Engine(decoder).run(requests, 64)
    next(running)
    running.close()
    assert decoder.num_used == 0


def test_the_end_token_is_not_part_of_the_text() -> None:
    decoder = ToyDecoder(LIMITS, saying(lambda _: "yes"))
    (completion,) = Engine(decoder).run([Request(0, tuple(toy_tokens("?\x02")), Generate(9))], 64)
    assert toy_text(completion.tokens) == "yes"
    assert completion.finish == "stop"
    assert END not in completion.tokens
