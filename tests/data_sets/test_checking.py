"""The checks of a set, on made-up questions whose answers can be counted by hand."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from medlocal.data.checking import (
    Duplicate,
    GoldLetters,
    TokenLengths,
    check_items,
    count_gold_letters,
    find_overlaps,
    find_same_question,
    find_same_stem,
    measure_length_bias,
    token_lengths,
)
from medlocal.data.originals import ORIGINALS
from medlocal.data.readers import READERS
from medlocal.errors import UsageError
from medlocal.evals.items import Item


def make_item(
    item_id: str,
    stem: str = "Which one?",
    options: Sequence[str] = ("a", "b"),
    gold: int = 0,
    *,
    split: str = "test",
    language: str = "en",
    dataset: str = "set",
) -> Item:
    return Item(
        id=item_id,
        dataset=dataset,
        split=split,
        language=language,
        stem=stem,
        options=tuple(options),
        gold=gold,
        subject="s",
        group=f"{dataset}/{item_id}",
    )


class TestDuplicates:
    def test_the_same_stem_with_other_options_is_not_the_same_question(self) -> None:
        items = [make_item("1", options=("a", "b")), make_item("2", "which ONE", ("a", "c"))]
        assert find_same_stem(items) == (Duplicate("en", ("test/1", "test/2"), 1, True),)
        assert find_same_question(items) == ()

    def test_options_in_another_order_are_the_same_question(self) -> None:
        items = [
            make_item("1", options=("a", "b"), gold=0),
            make_item("2", options=("B.", "A."), gold=1),
        ]
        assert find_same_question(items) == (Duplicate("en", ("test/1", "test/2"), 1, True),)

    def test_golds_that_contradict_each_other_are_told(self) -> None:
        items = [make_item("1", gold=0), make_item("2", gold=1)]
        assert find_same_question(items) == (Duplicate("en", ("test/1", "test/2"), 1, False),)

    def test_splits_are_counted(self) -> None:
        items = [make_item("1"), make_item("2", split="train"), make_item("3", split="train")]
        assert find_same_question(items)[0].num_splits == 2

    def test_parallel_items_are_none(self) -> None:
        assert find_same_stem([make_item("1"), make_item("1", language="es")]) == ()


class TestGoldLetters:
    def test_each_language_and_split_is_counted(self) -> None:
        items = [
            make_item("1", language="es"),
            make_item("2", options="abcd", gold=2),
            make_item("3", options="abcd", gold=2),
            make_item("4", gold=1),
            make_item("5", options="abcd", gold=3, split="train"),
        ]
        counts = {"A": 0, "B": 1, "C": 2, "D": 0}
        assert count_gold_letters(items) == (
            GoldLetters("en", "test", 3, counts, "C", 2 / 3, (1 / 4 + 1 / 4 + 1 / 2) / 3),
            GoldLetters("en", "train", 1, {"A": 0, "B": 0, "C": 0, "D": 1}, "D", 1.0, 0.25),
            GoldLetters("es", "test", 1, {"A": 1, "B": 0}, "A", 1.0, 0.5),
        )

    @pytest.mark.shared_data
    @pytest.mark.parametrize(
        ("name", "counts"),
        [
            ("medqa", {"A": 353, "B": 309, "C": 346, "D": 265}),
            ("medmcqa", {"A": 1348, "B": 1085, "C": 925, "D": 825}),
        ],
    )
    def test_agrees_with_what_is_known_of_a_set(
        self, shared_data: Path, name: str, counts: dict[str, int]
    ) -> None:
        results = READERS[name](name, ORIGINALS[name](shared_data))
        (letters,) = count_gold_letters([item for item in results if isinstance(item, Item)])
        assert letters.counts == counts

    def test_of_two_majorities_the_first_letter_is_named(self) -> None:
        items = [make_item("1", gold=1), make_item("2", gold=0)]
        assert count_gold_letters(items)[0].majority_letter == "A"


class TestLengthBias:
    def test_equally_long_options_share_the_hit(self) -> None:
        items = [
            make_item("1", options=("long", "s", "t"), gold=0),
            make_item("2", options=("long", "size", "t"), gold=1),
            make_item("3", options=("x", "y", "z"), gold=2),
            make_item("4", options=("x", "yy", "zzz"), gold=0),
        ]
        (bias,) = measure_length_bias(items)
        assert bias.longest.value == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
        assert bias.shortest.value == pytest.approx((1 / 3 + 1) / 4)
        assert bias.chance == pytest.approx(1 / 3)

    def test_the_interval_is_wilsons(self) -> None:
        items = [make_item(str(n), options=("ab", "c"), gold=int(n >= 7)) for n in range(10)]
        (bias,) = measure_length_bias(items)
        oracle = binomtest(7, 10).proportion_ci(confidence_level=0.95, method="wilson")
        assert (bias.longest.low, bias.longest.high) == pytest.approx((oracle.low, oracle.high))

    @settings(deadline=None)  # the first example loads numpy
    @given(
        st.lists(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=2, max_size=5), min_size=1)
    )
    def test_over_all_golds_the_longest_scores_chance(self, options: list[list[str]]) -> None:
        """With every option the gold once, length cannot say anything."""
        items = [
            make_item(f"{n}-{gold}", options=texts, gold=gold)
            for n, texts in enumerate(options)
            for gold in range(len(texts))
        ]
        (bias,) = measure_length_bias(items)
        assert bias.longest.value == pytest.approx(bias.chance)
        assert bias.shortest.value == pytest.approx(bias.chance)


class TestTokenLengths:
    def test_stem_context_and_options_are_measured_together(self) -> None:
        item = dataclasses.replace(
            make_item("1", "two words", ("x", "y z")), context="some context"
        )
        assert token_lengths([item], lambda text: len(text.split())) == TokenLengths(
            num_items=1, median=7.0, p95=7, longest=7, longest_item="en/test/1"
        )

    def test_the_95th_percentile_leaves_one_in_twenty_above(self) -> None:
        items = [make_item(str(n), "w " * n) for n in range(1, 101)]
        lengths = token_lengths(items, lambda text: text.count("w"))
        assert (lengths.median, lengths.p95, lengths.longest) == (50.5, 95, 100)
        assert lengths.longest_item == "en/test/100"


class TestCheckItems:
    def test_languages_are_compared_each_with_itself(self) -> None:
        items = [make_item("1"), make_item("1", language="es")]
        others = [make_item("9", dataset="other", language="es")]
        overlaps = find_overlaps(items, others)
        assert [(found.other, found.language) for found in overlaps] == [("other", "es")]

    def test_the_set_itself_is_not_another_one(self) -> None:
        assert find_overlaps([make_item("1")], [make_item("1")]) == ()

    def test_the_report_brings_all_checks_together(self) -> None:
        items = [make_item("1"), make_item("2")]
        report = check_items(items, [make_item("9", dataset="other")], count=len)
        assert report.dataset == "set"
        assert report.same_stem == find_same_stem(items)
        assert report.same_question == find_same_question(items)
        assert report.gold_letters == count_gold_letters(items)
        assert report.length_bias == measure_length_bias(items)
        assert report.token_lengths == {"en": token_lengths(items, len)}
        assert [len(found.matches) for found in report.overlaps] == [2]

    def test_without_a_tokenizer_no_length_is_measured(self) -> None:
        assert check_items([make_item("1")], []).token_lengths == {}

    def test_the_report_is_json(self) -> None:
        items = [make_item("1"), make_item("2")]
        report = check_items(items, [make_item("9", dataset="other")], count=len)
        values = json.loads(json.dumps(dataclasses.asdict(report)))
        assert values["same_stem"][0]["items"] == ["test/1", "test/2"]

    @pytest.mark.parametrize("items", [[], [make_item("1"), make_item("1", dataset="other")]])
    def test_no_set_and_two_sets_are_refused(self, items: list[Item]) -> None:
        with pytest.raises(UsageError, match="one set is checked at a time"):
            check_items(items, [])
