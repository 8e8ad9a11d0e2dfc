"""Variants map what is shown back to the item's own options."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import UsageError
from medlocal.evals.items import Item
from medlocal.evals.perturb import PERTURBATIONS, Variant, apply, derive_seed

ITEM = Item(
    id="1",
    dataset="demo",
    split="test",
    language="en",
    stem="Which?",
    options=("one", "two", "three"),
    gold=2,
    subject="counting",
    group="demo/1",
)


def test_the_original_shows_the_item_as_it_is() -> None:
    assert apply(ITEM) == Variant(
        item=ITEM,
        name="original",
        version=1,
        seed=0,
        stem="Which?",
        labels=("A", "B", "C"),
        options=("one", "two", "three"),
        origin=(0, 1, 2),
        gold=2,
        verified=True,
    )


def test_labels_run_to_j_for_ten_options() -> None:
    item = replace(ITEM, options=tuple("0123456789"))
    assert apply(item).labels == ("A", "B", "C", "D", "E", "F", "G", "H", "I", "J")


def test_a_perturbation_that_draws_nothing_records_no_seed() -> None:
    assert apply(ITEM, "original", seed=7) == apply(ITEM, "original")


def test_an_unknown_perturbation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        apply(ITEM, "orignal")
    assert caught.value.message == "no perturbation is called 'orignal'"
    assert caught.value.hint == "did you mean original?"


def test_content_maps_a_slot_to_the_option_shown_there() -> None:
    shuffled = replace(apply(ITEM), options=("three", "one", "two"), origin=(2, 0, 1), gold=0)
    assert [shuffled.content(slot) for slot in range(3)] == [2, 0, 1]


def test_content_of_no_answer_is_nothing() -> None:
    assert apply(ITEM).content(None) is None


def test_content_of_a_text_that_is_not_the_items_is_minus_one() -> None:
    with_nota = replace(apply(ITEM), options=("one", "two", "None of these"), origin=(0, 1, -1))
    assert with_nota.content(2) == -1


@pytest.mark.parametrize("slot", [-1, 3])
def test_content_of_a_slot_that_does_not_exist_is_a_programmer_error(slot: int) -> None:
    with pytest.raises(IndexError):
        apply(ITEM).content(slot)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_gold_slot_of_a_verified_variant_shows_the_gold_option(name: str) -> None:
    variant = apply(ITEM, name, seed=11)
    assert variant.content(variant.gold) == ITEM.gold


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_registered_perturbation_says_what_it_is(name: str) -> None:
    entry, variant = PERTURBATIONS[name], apply(ITEM, name, seed=11)
    assert (entry.name, entry.name, entry.version) == (name, variant.name, variant.version)
    assert entry.family
    assert entry.gold


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": ("A", "B")},
        {"options": ("one", "two")},
        {"labels": ("A", "B", "B")},
        {"origin": (0, 1, 1)},
        {"origin": (0, 1, 3)},
        {"origin": (0, 1, -2)},
        {"gold": 3},
        {"gold": -1},
    ],
)
def test_a_variant_that_does_not_fit_its_item_is_a_programmer_error(
    wrong: dict[str, object],
) -> None:
    with pytest.raises(ValueError, match="variant 'original'"):
        replace(apply(ITEM), **wrong)  # type: ignore[arg-type]


def test_a_seed_is_the_head_of_the_hash_of_its_parts() -> None:
    # printf '["demo/1","shuffle","0"]' | sha256sum begins with these 16 digits.
    assert derive_seed("demo/1", "shuffle", "0") == 0x2327AD6B772DBC0D >> 1


def test_parts_that_join_to_the_same_text_give_different_seeds() -> None:
    assert derive_seed("ab", "c") != derive_seed("a", "bc")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_seed_fits_a_signed_64_bit_integer(parts: list[str]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63
