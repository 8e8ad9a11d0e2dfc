"""The order of the questions: every beginning is balanced, whatever the items are."""

import random
from collections import Counter
from collections.abc import Callable, Hashable

from hypothesis import given
from hypothesis import strategies as st

from medlocal.evals.items import Item
from medlocal.run.balance import balanced

BOUND = 3
"""Fewer items than this are too many or too few of any kind, in every beginning."""


def an_item(number: int, dataset: str, language: str, subject: str, gold: int) -> Item:
    return Item(
        id=str(number),
        dataset=dataset,
        split="test",
        language=language,
        stem="Which?",
        options=("a", "b", "c", "d"),
        gold=gold,
        subject=subject,
        group=f"{dataset}/{number}",
    )


SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["one", "two", "three"]),
        st.sampled_from([("en",), ("es",), ("en", "es")]),
        st.sampled_from(["heart", "lung", "skin", "eye"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=50,
).map(
    lambda drawn: [
        an_item(number, dataset, language, subject, gold)
        for number, (dataset, languages, subject, gold) in enumerate(drawn)
        for language in languages
    ]
)

KINDS: list[Callable[[Item], Hashable]] = [
    lambda item: item.dataset,
    lambda item: item.language,
    lambda item: (item.dataset, item.subject),
    lambda item: (item.language, item.gold),
    lambda item: item.gold,
]


def worst_deviation(items: list[Item], kind: Callable[[Item], Hashable]) -> float:
    """The most items by which any beginning has more or fewer of a kind than its share."""
    sizes, found, worst = Counter(map(kind, items)), Counter[Hashable](), 0.0
    for length, item in enumerate(items, start=1):
        found[kind(item)] += 1
        for name, size in sizes.items():
            worst = max(worst, abs(found[name] - length * size / len(items)))
    return worst


@given(SAMPLES)
def test_every_beginning_has_its_share_of_each_kind(items: list[Item]) -> None:
    order = balanced(items)
    assert all(worst_deviation(order, kind) < BOUND for kind in KINDS)


@given(SAMPLES)
def test_nothing_is_lost_and_nothing_asked_twice(items: list[Item]) -> None:
    assert Counter(balanced(items)) == Counter(items)


@given(SAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_the_input_changes_nothing(items: list[Item], shuffler: random.Random) -> None:
    shuffled = list(items)
    shuffler.shuffle(shuffled)
    assert balanced(shuffled) == balanced(items)


@given(SAMPLES)
def test_parallel_items_follow_each_other(items: list[Item]) -> None:
    groups = [item.group for item in balanced(items)]
    runs = [group for at, group in enumerate(groups) if at == 0 or groups[at - 1] != group]
    assert len(runs) == len(set(runs))


def test_letters_of_many_small_sets_do_not_add_up() -> None:
    """Each of 20 sets has A right twice and B once: set by set, the first 20 would all be A."""
    items = [
        an_item(3 * number + gold_at, f"set{number}", "en", "s", int(gold_at == 2))
        for number in range(20)
        for gold_at in range(3)
    ]
    golds = Counter(item.gold for item in balanced(items)[:30])
    assert golds == {0: 20, 1: 10}


def test_a_rare_set_comes_when_its_turn_has_come() -> None:
    items = [an_item(n, "large" if n else "small", "en", "s", 0) for n in range(11)]
    assert [item.dataset for item in balanced(items)].index("small") == 5
