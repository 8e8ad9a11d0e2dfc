"""The starter set keeps what its README promises."""

import unicodedata
from collections import Counter
from collections.abc import Callable

import pytest

from medlocal.catalog import ShippedItems, data_root, dataset_card
from medlocal.evals.items import LETTERS, Item, load_items
from medlocal.evals.perturb import apply

LANGUAGES = ("en", "es")


@pytest.fixture(scope="module")
def starter() -> dict[str, list[Item]]:
    """The items of each language, as the card says where they are."""
    card = dataset_card("starter")
    assert isinstance(card.source, ShippedItems)
    path = data_root() / "benchmarks" / card.source.file
    return {language: load_items(path, "starter", card.split, language) for language in LANGUAGES}


def normalised(text: str) -> str:
    """Letters and digits only, without accents and case."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in decomposed if character.isalnum())


def test_the_card_agrees_with_the_file(starter: dict[str, list[Item]]) -> None:
    card = dataset_card("starter")
    counts = {language: len(items) for language, items in starter.items()}
    assert set(card.languages) == set(counts)
    assert counts == dict.fromkeys(LANGUAGES, card.num_items)


def test_there_are_at_least_120_items(starter: dict[str, list[Item]]) -> None:
    assert len(starter["en"]) >= 120


def test_every_item_is_there_in_both_languages(starter: dict[str, list[Item]]) -> None:
    groups = {language: [item.group for item in items] for language, items in starter.items()}
    assert groups["en"] == groups["es"]


def test_pairs_agree_in_everything_but_words(starter: dict[str, list[Item]]) -> None:
    def frame(item: Item) -> tuple[object, ...]:
        return item.gold, item.subject, item.difficulty, item.flags, len(item.options)

    assert list(map(frame, starter["en"])) == list(map(frame, starter["es"]))


def test_every_item_has_four_options(starter: dict[str, list[Item]]) -> None:
    assert {len(item.options) for items in starter.values() for item in items} == {4}


def test_the_gold_letters_are_balanced_within_one(starter: dict[str, list[Item]]) -> None:
    counts = Counter(LETTERS[item.gold] for item in starter["en"])
    assert set(counts) == set("ABCD")
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_stem_is_used_twice(starter: dict[str, list[Item]], language: str) -> None:
    counts = Counter(normalised(item.stem) for item in starter[language])
    assert [stem for stem, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("extreme", [max, min], ids=["longest", "shortest"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_length_of_an_option_does_not_give_the_gold_away(
    starter: dict[str, list[Item]], language: str, extreme: Callable[[list[int]], int]
) -> None:
    # What a guesser scores who always picks the extreme, and at random among those that share it:
    # 25 % where length says nothing.
    score = 0.0
    for item in starter[language]:
        lengths = [len(text) for text in item.options]
        if lengths[item.gold] == extreme(lengths):
            score += 1 / lengths.count(extreme(lengths))
    assert 0.15 <= score / len(starter[language]) <= 0.35


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_item_has_a_rationale(starter: dict[str, list[Item]], language: str) -> None:
    assert [item.id for item in starter[language] if not item.rationale] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_has_space_around_it_or_doubled_within(
    starter: dict[str, list[Item]], language: str
) -> None:
    texts = [t for item in starter[language] for t in (item.stem, item.rationale, *item.options)]
    assert [text for text in texts if text != " ".join(text.split())] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_in_composed_unicode(starter: dict[str, list[Item]], language: str) -> None:
    # "ñ" written as n and a combining tilde is other tokens to a model.
    texts = [t for item in starter[language] for t in (item.stem, item.rationale, *item.options)]
    assert [text for text in texts if not unicodedata.is_normalized("NFC", text)] == []


def test_there_are_at_least_ten_subjects(starter: dict[str, list[Item]]) -> None:
    assert len({item.subject for item in starter["en"]}) >= 10


def test_there_are_at_least_40_vignettes(starter: dict[str, list[Item]]) -> None:
    assert sum("vignette" in item.flags for item in starter["en"]) >= 40


def test_every_difficulty_is_a_known_one(starter: dict[str, list[Item]]) -> None:
    assert {item.difficulty for item in starter["en"]} == {"easy", "medium", "hard"}


def test_every_spanish_question_is_opened(starter: dict[str, list[Item]]) -> None:
    def is_opened(stem: str) -> bool:
        # Cut at each "?": every piece but the last has its own "¿".
        return all(piece.count("¿") == 1 for piece in stem.split("?")[:-1])

    assert [item.id for item in starter["es"] if not is_opened(item.stem)] == []


def test_every_stem_asks_something_or_is_completed_by_its_options(
    starter: dict[str, list[Item]],
) -> None:
    ends = {item.stem[-1] for items in starter.values() for item in items}
    assert ends <= {"?", ":"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_98_questions_have_only_distractors_that_are_wrong_in_themselves(
    starter: dict[str, list[Item]], language: str
) -> None:
    variants = [apply(item, "nota_replaces_gold") for item in starter[language]]
    assert Counter(variant.verified for variant in variants) == {True: 98, False: 30}
