"""How time is shared: between models, and between the blocks of one."""

from dataclasses import dataclass

import pytest

from medlocal.run.pacing import Pace, TimeIsUp


@dataclass
class Clock:
    """Shows the time that a test sets."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def a_pace(seconds: float, num_models: int = 1) -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(seconds, num_models, clock)
    pace.begin_model()
    return pace, clock


def test_the_time_of_one_model_is_all_there_is() -> None:
    pace, clock = a_pace(60)
    assert pace.seconds_left == 60
    clock.now += 59
    assert not pace.is_over
    clock.now += 1
    assert pace.is_over
    assert pace.seconds_left == 0


def test_the_clock_runs_before_the_first_model_begins() -> None:
    clock = Clock()
    pace = Pace(60, 2, clock)
    clock.now += 20
    pace.begin_model()
    assert pace.seconds_left == 20


def test_a_later_model_gets_what_an_earlier_one_left() -> None:
    pace, clock = a_pace(90, num_models=3)
    assert pace.seconds_left == 30
    clock.now += 10
    pace.begin_model()
    assert pace.seconds_left == 40
    clock.now += 40
    pace.begin_model()
    assert pace.seconds_left == 40


def test_a_model_that_took_too_long_takes_it_from_all_others_alike() -> None:
    pace, clock = a_pace(90, num_models=3)
    clock.now += 50
    pace.begin_model()
    assert pace.seconds_left == 20


def test_time_that_is_up_ends_the_model() -> None:
    pace, clock = a_pace(10)
    pace.check()
    clock.now += 10
    with pytest.raises(TimeIsUp):
        pace.check()


def test_the_first_block_is_one_item_because_nothing_is_known() -> None:
    assert a_pace(1000)[0].next_block() == 1


def test_no_block_is_begun_after_the_end() -> None:
    pace, clock = a_pace(10)
    clock.now += 10
    assert pace.next_block() == 0


def test_the_second_block_is_small_enough_to_be_repeated() -> None:
    pace, clock = a_pace(102)
    pace.next_block()
    clock.now += 2
    pace.block_done(1)
    assert pace.next_block() == 5  # a tenth of 100 s, at 2 s each


def test_the_second_block_is_never_larger_than_the_self_test() -> None:
    pace, clock = a_pace(10_000)
    pace.next_block()
    clock.now += 0.01
    pace.block_done(1)
    assert pace.next_block() == 16


def test_a_later_block_takes_a_third_of_what_is_left() -> None:
    pace, clock = a_pace(104)
    for items, seconds in ((1, 1), (3, 3)):
        pace.next_block()
        clock.now += seconds
        pace.block_done(items)
    assert pace.next_block() == 33


def test_one_more_item_is_tried_while_there_is_any_time() -> None:
    pace, clock = a_pace(20)
    pace.next_block()
    clock.now += 19
    pace.block_done(1)
    assert pace.next_block() == 1


def test_items_that_take_no_time_are_all_asked() -> None:
    pace, _ = a_pace(20)
    for _ in range(2):
        pace.next_block()
        pace.block_done(1)
    assert pace.next_block() >= 100_000


def test_the_self_test_is_due_after_the_second_block() -> None:
    pace, clock = a_pace(100)
    due = []
    for _ in range(3):
        pace.next_block()
        clock.now += 1
        pace.block_done(1)
        due.append(pace.is_test_due)
    assert due == [False, True, False]


def test_there_is_no_self_test_that_would_take_most_of_the_time_left() -> None:
    pace, clock = a_pace(100)
    for _ in range(2):
        pace.next_block()
        clock.now += 30
        pace.block_done(1)
    assert not pace.is_test_due


def test_the_next_model_begins_with_one_item_again() -> None:
    pace, clock = a_pace(200, num_models=2)
    pace.next_block()
    clock.now += 1
    pace.block_done(1)
    pace.begin_model()
    assert pace.next_block() == 1
