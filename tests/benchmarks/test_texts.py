"""The texts that ship: long enough to measure on, and in the language that they are said to be in."""

import re
from pathlib import Path

import pytest

from medlocal.catalog import data_root
from medlocal.weights.corpus import CorpusPart, read_texts

FOLDER = data_root() / "benchmarks" / "texts"
FREQUENT = {"en": ("the", "and", "with", "was"), "es": ("de", "la", "que", "con")}
"""Words that every text of a language is full of, and that the other language does not have."""


def path(language: str) -> Path:
    return FOLDER / f"{language}.txt"


@pytest.fixture(params=["en", "es"])
def language(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def words(language: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", path(language).read_text(encoding="utf-8").lower())


def test_it_has_about_6000_words(language: str) -> None:
    assert 5_500 < len(words(language)) < 7_500


def test_it_is_in_its_language(language: str) -> None:
    found = words(language)
    shares = {
        name: sum(map(found.count, frequent)) / len(found) for name, frequent in FREQUENT.items()
    }
    other = "es" if language == "en" else "en"
    assert shares[language] > 0.08
    assert shares[other] < 0.01


def test_no_paragraph_stands_there_twice(language: str) -> None:
    paragraphs = path(language).read_text(encoding="utf-8").split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs) > 60


def test_it_is_read_as_a_text_of_one_language() -> None:
    texts = read_texts([CorpusPart(name, path(name)) for name in FREQUENT])
    assert [text.language for text in texts] == ["en", "es"]
