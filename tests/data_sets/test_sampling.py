"""Stratified samples: exact size, shares, pairs and nesting, over random sets."""

import random
from collections import Counter
from collections.abc import Sequence
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.data.sampling import stratified
from medlocal.errors import UsageError
from medlocal.evals.items import Item


def make_item(
    item_id: str, dataset: str = "set", language: str = "en", subject: str = "s", gold: int = 0
) -> Item:
    return Item(
        id=item_id,
        dataset=dataset,
        split="test",
        language=language,
        stem="Which?",
        options=("a", "b", "c", "d"),
        gold=gold,
        subject=subject,
        group=f"{dataset}/{item_id}",
    )


SETS = st.lists(
    st.tuples(
        st.sampled_from(["one", "two", "three", "four"]),
        st.sampled_from([("en",), ("es",), ("en", "es"), ("en", "es", "fr")]),
        st.sampled_from(["heart", "lung", "skin"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=60,
).map(
    lambda drawn: [
        make_item(str(n), dataset, language, subject, gold)
        for n, (dataset, languages, subject, gold) in enumerate(drawn)
        for language in languages
    ]
)
PARALLEL = st.lists(
    st.tuples(st.sampled_from(["heart", "lung", "skin", "eye"]), st.integers(0, 3)),
    min_size=1,
    max_size=60,
).map(
    lambda drawn: [
        make_item(str(n), "set", language, subject, gold)
        for n, (subject, gold) in enumerate(drawn)
        for language in ("en", "es")
    ]
)


def is_rounded_share(count: int, share: float) -> bool:
    return floor(share + 1e-9) - count <= 0 <= ceil(share - 1e-9) - count


@given(SETS, st.integers(1, 200), st.integers(0, 3))
def test_the_size_is_exact_and_nothing_is_drawn_twice(
    items: list[Item], size: int, seed: int
) -> None:
    drawn = stratified(items, size, seed)
    assert len(set(drawn)) == len(drawn) == min(size, len(items))
    assert set(drawn) <= set(items)


@given(SETS, st.integers(1, 60), st.randoms(use_true_random=False))
def test_the_order_of_the_input_changes_nothing(
    items: list[Item], size: int, shuffler: random.Random
) -> None:
    shuffled = list(items)
    shuffler.shuffle(shuffled)
    assert stratified(shuffled, size, 7) == stratified(items, size, 7)


@given(SETS, st.integers(1, 60), st.integers(1, 60))
def test_a_larger_sample_continues_a_smaller_one(items: list[Item], size: int, more: int) -> None:
    assert stratified(items, size + more, 0)[:size] == stratified(items, size, 0)


@given(SETS)
def test_every_set_has_its_share_at_every_size(items: list[Item]) -> None:
    sizes = Counter(item.dataset for item in items)
    given_to: Counter[str] = Counter()
    for size, item in enumerate(stratified(items, len(items), 0), start=1):
        given_to[item.dataset] += 1
        for dataset, whole in sizes.items():
            assert is_rounded_share(given_to[dataset], size * whole / len(items))


@given(PARALLEL, st.integers(1, 120), st.integers(0, 3))
def test_languages_stay_paired_but_for_one_item(items: list[Item], size: int, seed: int) -> None:
    drawn = stratified(items, size, seed)
    languages_of_id: dict[str, int] = Counter(item.id for item in drawn)
    assert Counter(languages_of_id.values())[1] == len(drawn) % 2


@given(SETS, st.integers(1, 200))
def test_items_lack_parallels_once_per_set_and_combination_of_languages(
    items: list[Item], size: int
) -> None:
    parallels = Counter((item.dataset, item.id) for item in items)
    languages: dict[tuple[str, str], tuple[str, ...]] = {}
    for item in items:
        key = (item.dataset, item.id)
        languages[key] = (*languages.get(key, ()), item.language)
    drawn = Counter((item.dataset, item.id) for item in stratified(items, size, 0))
    torn = [(key[0], languages[key]) for key in drawn if drawn[key] < parallels[key]]
    assert len(torn) == len(set(torn))


@given(PARALLEL, st.integers(1, 60))
def test_every_subject_has_its_share_in_every_language(items: list[Item], num_pairs: int) -> None:
    num_pairs = min(num_pairs, len(items) // 2)
    drawn = stratified(items, 2 * num_pairs, 0)
    for language in ("en", "es"):
        sizes = Counter(item.subject for item in items if item.language == language)
        found = Counter(item.subject for item in drawn if item.language == language)
        for subject, size in sizes.items():
            assert is_rounded_share(found[subject], num_pairs * size / (len(items) // 2))


def many_subjects() -> list[Item]:
    """400 items of 40 subjects; in each of these A is the gold of 4, B of 3, C of 2 and D of 1."""
    golds = (0, 0, 0, 0, 1, 1, 1, 2, 2, 3)
    return [
        make_item(f"{subject}-{n}", subject=str(subject), gold=gold)
        for subject in range(40)
        for n, gold in enumerate(golds)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_gold_letters_keep_their_shares_where_subjects_give_one_item_each(seed: int) -> None:
    """Letter by letter within subjects, all 40 items would have the gold A."""
    golds = Counter(item.gold for item in stratified(many_subjects(), 40, seed))
    assert [abs(golds[gold] - share) <= 1 for gold, share in enumerate((16, 12, 8, 4))] == [
        True
    ] * 4


def test_gold_letters_keep_their_shares_within_a_subject() -> None:
    drawn = stratified(many_subjects(), 200, 0)
    for subject in range(40):
        golds = Counter(item.gold for item in drawn if item.subject == str(subject))
        assert golds[0] in {1, 2, 3}
        assert golds.total() == 5


def test_another_seed_draws_others() -> None:
    items = [make_item(str(n)) for n in range(100)]
    assert set(stratified(items, 20, 0)) != set(stratified(items, 20, 1))


def test_every_item_is_as_likely_as_any_other() -> None:
    items = [make_item(str(n), subject=str(n % 3), gold=n % 4) for n in range(24)]
    times: Counter[str] = Counter()
    for seed in range(400):
        times.update(item.id for item in stratified(items, 6, seed))
    # 100 of 400 each, with a standard deviation of about 9.
    assert len(times) == 24
    assert all(60 < count < 140 for count in times.values())


def test_items_of_one_case_are_drawn_apart() -> None:
    items: Sequence[Item] = [
        Item(
            id=item_id,
            dataset="set",
            split="test",
            language=language,
            stem="Which?",
            options=("a", "b"),
            gold=0,
            subject="s",
            group="set/case",
        )
        for item_id in ("first", "second")
        for language in ("en", "es")
    ]
    drawn = stratified(items, 2, 0)
    assert len({item.id for item in drawn}) == 1
    assert {item.language for item in drawn} == {"en", "es"}


@pytest.mark.parametrize("size", [0, -3])
def test_a_sample_without_items_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="1 item or more"):
        stratified([make_item("1")], size, 0)
