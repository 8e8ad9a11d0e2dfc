"""The choice of few-shot examples: its laws over random pools, and a choice worked out by hand."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.data.fewshot import NUM_CANDIDATES, ExamplePool
from medlocal.errors import UsageError
from medlocal.evals.items import Item


def choose_examples(item: Item, pool: Sequence[Item], k: int) -> tuple[Item, ...]:
    return ExamplePool(pool).choose(item, k)


def make_item(
    number: int,
    language: str = "en",
    *,
    gold: int | None = None,
    dataset: str = "set",
    split: str = "train",
    stem: str | None = None,
) -> Item:
    return Item(
        id=f"{split}-{number}",
        dataset=dataset,
        split=split,
        language=language,
        stem=stem or f"question {number}?",
        options=("a", "b", "c", "d"),
        gold=number % 4 if gold is None else gold,
        subject="s",
        group=f"{dataset}/{split}-{number}",
    )


ASKED = make_item(0, split="test", stem="asked")
KS = st.integers(0, 5)
NUMBERS = st.lists(st.integers(0, 400), unique=True, min_size=7, max_size=40)


def numbers(examples: tuple[Item, ...]) -> list[int]:
    return [int(example.id.removeprefix("train-")) for example in examples]


def test_the_choice_is_that_of_sha256() -> None:
    """Written out, so that another machine or version that chooses otherwise is found out."""

    def rank(number: int) -> bytes:
        ids = [f"set/train-{number}", "train", f"train-{number}"]
        texts = [json.dumps(part, separators=(",", ":")) for part in ([0, ASKED.group], ids)]
        return hashlib.sha256("".join(texts).encode()).digest()

    ranked = sorted(range(20), key=rank)
    pool = [make_item(number, gold=ranked.index(number) % 4) for number in range(20)]
    assert numbers(choose_examples(ASKED, pool, 4)) == sorted(ranked[:4])


@given(NUMBERS, KS, st.integers(0, 50))
def test_examples_are_distinct_and_in_the_order_of_the_pool(
    pool_numbers: list[int], k: int, asked: int
) -> None:
    pool = [make_item(number) for number in pool_numbers]
    chosen = choose_examples(make_item(asked, split="test"), pool, k)
    assert len(set(chosen)) == k
    assert list(chosen) == [example for example in pool if example in chosen]


@given(NUMBERS, KS)
def test_neither_an_item_nor_one_of_its_group_stands_before_it(
    pool_numbers: list[int], k: int
) -> None:
    pool = ExamplePool(make_item(number) for number in pool_numbers)
    for number in pool_numbers:
        asked = make_item(number, stem="told otherwise")
        assert asked.group not in {example.group for example in pool.choose(asked, k)}


def test_copies_of_the_question_under_another_id_are_not_shown() -> None:
    asked = make_item(0, split="test", stem=f"{'A long vignette. ' * 20}Which one?")
    copies = [make_item(7, stem=asked.stem.upper()), make_item(8, stem=asked.stem + " Witch one?")]
    pool = [*copies, *(make_item(number) for number in range(1, 6))]
    assert numbers(choose_examples(asked, pool, 5)) == [1, 2, 3, 4, 5]


def test_only_the_items_own_set_and_language_are_shown() -> None:
    pool = [
        make_item(1, "es"),
        make_item(2),
        make_item(3, dataset="other"),
        make_item(4),
    ]
    assert numbers(choose_examples(ASKED, pool, 2)) == [2, 4]


@given(NUMBERS, KS, st.integers(0, 50))
def test_parallel_items_get_parallel_examples(pool_numbers: list[int], k: int, asked: int) -> None:
    pool = ExamplePool(make_item(n, language) for language in ("en", "es") for n in pool_numbers)
    english, spanish = (
        pool.choose(make_item(asked, language, split="test"), k) for language in ("en", "es")
    )
    assert [example.id for example in english] == [example.id for example in spanish]


def test_pools_larger_than_what_is_kept_are_parallel_too() -> None:
    pool_numbers = range(3 * NUM_CANDIDATES)
    pool = ExamplePool(make_item(n, language) for language in ("en", "es") for n in pool_numbers)
    english, spanish = (
        pool.choose(make_item(0, language, split="test"), 5) for language in ("en", "es")
    )
    assert numbers(english) == numbers(spanish)


@given(NUMBERS.flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(drawn))), KS)
def test_the_order_of_the_pool_changes_only_the_order_shown(
    orders: tuple[list[int], list[int]], k: int
) -> None:
    chosen = [choose_examples(ASKED, [make_item(n) for n in order], k) for order in orders]
    assert set(chosen[0]) == set(chosen[1])


@given(NUMBERS, KS, st.data())
def test_an_example_that_was_not_chosen_may_be_missing(
    pool_numbers: list[int], k: int, data: st.DataObject
) -> None:
    pool = [make_item(number) for number in pool_numbers]
    chosen = choose_examples(ASKED, pool, k)
    missing = data.draw(st.sampled_from([example for example in pool if example not in chosen]))
    assert choose_examples(ASKED, [e for e in pool if e is not missing], k) == chosen


@given(st.lists(st.integers(0, 3), min_size=5, max_size=12), st.integers(2, 5))
def test_gold_letters_are_not_all_the_same_where_that_can_be(golds: list[int], k: int) -> None:
    pool = [make_item(number, gold=gold) for number, gold in enumerate(golds)]
    letters = {example.gold for example in choose_examples(ASKED, pool, k)}
    assert (len(letters) > 1) == (len(set(golds)) > 1)


def test_every_example_of_a_small_pool_is_used() -> None:
    pool = ExamplePool(make_item(number) for number in range(10))
    used = Counter(
        number
        for asked in range(500)
        for number in numbers(pool.choose(make_item(asked, split="test", stem="asked"), 3))
    )
    # 1,500 choices over 10 examples: 150 each, with a standard deviation of about 10.
    assert len(used) == 10
    assert all(110 < times < 190 for times in used.values())


def test_another_seed_chooses_others() -> None:
    pool = [make_item(number) for number in range(200)]
    assert ExamplePool(pool, seed=1).choose(ASKED, 5) != ExamplePool(pool).choose(ASKED, 5)


@pytest.mark.parametrize("k", [-1, 6])
def test_more_than_five_or_fewer_than_none_are_refused(k: int) -> None:
    with pytest.raises(UsageError, match="from 0 to 5"):
        choose_examples(ASKED, [make_item(number) for number in range(10)], k)


def test_a_pool_that_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="set, en: 3 few-shot examples are needed and 2 are here"):
        choose_examples(ASKED, [make_item(1), make_item(2), make_item(3, "es")], 3)


def test_none_are_chosen_from_an_empty_pool_where_none_are_asked_for() -> None:
    assert choose_examples(ASKED, [], 0) == ()
