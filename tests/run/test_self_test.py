"""What the determinism self-test counts as the same."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from medlocal.engine.sequence import Completion, Generate, Request, Score
from medlocal.run.self_test import SelfTest, self_test

TEXT = Request(0, (1, 2), Generate(4))
SCORE = Request(1, (1, 2), Score(((5,), (6,))))

WRITTEN = Completion(TEXT, "stop", tokens=[7, 8], logprobs=[-0.5, -0.25])
SCORED = Completion(SCORE, "scored", scores=[-1.0, -2.0])


def counts(
    first: Sequence[Completion],
    again: Callable[[Request, int], Completion],
    alone: Sequence[Request] = (),
) -> SelfTest:
    """The self-test with a model that answers as `again` says, given the number in the batch."""
    test = SelfTest()
    self_test(test, lambda asked: [again(r, len(asked)) for r in asked], first, alone)
    return test


def test_what_is_the_same_to_the_last_bit_is_counted_so() -> None:
    known = {0: WRITTEN, 1: SCORED}
    test = counts([WRITTEN, SCORED], lambda r, _: replace(known[r.id]), [TEXT])
    assert test.to_json() == {
        "together": {"n": 2, "same_answer": 2, "same_bits": 2},
        "alone": {"n": 1, "same_answer": 1, "same_bits": 1},
    }


def test_another_last_bit_is_the_same_answer_and_not_the_same_bits() -> None:
    test = counts([WRITTEN], lambda _r, _: replace(WRITTEN, logprobs=[-0.5, -0.2500001]))
    assert (test.together.same_answer, test.together.same_bits) == (1, 0)


@pytest.mark.parametrize(
    "other",
    [
        replace(WRITTEN, tokens=[7, 9]),
        replace(WRITTEN, finish="length"),
        replace(WRITTEN, tokens=[7]),
    ],
    ids=["token", "finish", "length"],
)
def test_another_text_is_another_answer(other: Completion) -> None:
    test = counts([WRITTEN], lambda _r, _: other)
    assert (test.together.n, test.together.same_answer, test.together.same_bits) == (1, 0, 0)


@pytest.mark.parametrize(("scores", "same"), [([-1.1, -2.0], 1), ([-2.0, -1.0], 0)])
def test_scores_say_the_same_where_the_best_is_the_same(scores: list[float], same: int) -> None:
    test = counts([SCORED], lambda _r, _: replace(SCORED, scores=scores))
    assert (test.together.same_answer, test.together.same_bits) == (same, 0)


def test_alone_means_one_request_at_a_time() -> None:
    """A model whose answers depend on what runs beside them is found out."""

    def again(request: Request, num_together: int) -> Completion:
        found = WRITTEN if request.id == 0 else SCORED
        return found if num_together == 2 else replace(found, finish="length")

    test = counts([WRITTEN, SCORED], again, [TEXT, SCORE])
    assert (test.together.n, test.together.same_answer) == (2, 2)
    assert (test.alone.n, test.alone.same_answer) == (2, 0)


def test_what_could_not_be_answered_is_left_out() -> None:
    failed = replace(SCORED, finish="error", error="too long")
    test = counts([WRITTEN, failed], lambda _r, _: replace(WRITTEN), [SCORE])
    assert (test.together.n, test.alone.n) == (1, 0)


def test_what_was_counted_stays_when_the_time_ends_it() -> None:
    test, asked = SelfTest(), []

    def ask(requests: Sequence[Request]) -> list[Completion]:
        asked.append(requests)
        if len(asked) == 3:
            raise TimeoutError
        return [replace(WRITTEN)]

    with pytest.raises(TimeoutError):
        self_test(test, ask, [WRITTEN], [TEXT, TEXT, TEXT])
    assert (test.together.n, test.alone.n) == (1, 1)
