"""MedExpQA's rows become questions without anything that explains the answer."""

import math
from typing import Any

import pytest

from medlocal.data.medexpqa import read_items
from medlocal.data.rows import EMPTY_STEM, NO_GOLD, TOO_FEW_OPTIONS, Excluded, Row
from medlocal.errors import UsageError
from medlocal.evals.items import Item

VALUES: dict[str, Any] = {
    "id": 274,
    "year": 2016,
    "question_id_specific": 73,
    "full_question": "A boy of 2 years.  What is it?",
    "options": {"1": "Flu.", "2": "Sepsis.", "3": "Otitis.", "4": "Mumps.", "5": None},
    "correct_option": 2,
    "type": "DIGESTIVE SYSTEM",
    "full_answer": "SECRET: it is 2.",
    "full_answer_no_ref": "SECRET",
    "explanations": {"2": {"exist": True, "text": "SECRET"}},
    "rag": {"x": "SECRET"},
    "lang": "en",
}


def one(language: str = "en", **changes: Any) -> Item | Excluded:
    (result,) = read_items("medexpqa", [Row({**VALUES, **changes}, "test", language, language, 1)])
    return result


def test_a_row_becomes_a_question() -> None:
    assert one() == Item(
        id="2016-73-274",
        dataset="medexpqa",
        split="test",
        language="en",
        stem="A boy of 2 years. What is it?",
        options=("Flu.", "Sepsis.", "Otitis.", "Mumps."),
        gold=1,
        subject="digestive system",
        group="medexpqa/2016-73",
        rationale="SECRET: it is 2.",
        flags=("vignette",),
    )


def test_nothing_that_explains_is_shown() -> None:
    item = one()
    assert isinstance(item, Item)
    assert "SECRET" not in " ".join((item.stem, item.context, *item.options, item.subject))


@pytest.mark.parametrize("absent", [None, math.nan, "", "nan", "NaN", "None"])
def test_a_missing_fifth_option_is_absent_however_it_is_spelled(absent: object) -> None:
    item = one(options={**VALUES["options"], "5": absent})
    assert isinstance(item, Item)
    assert len(item.options) == 4


def test_parallel_rows_share_id_and_group() -> None:
    english, spanish = one(), one("es", full_question="Niño de 2 años. ¿Qué es?")
    assert isinstance(english, Item)
    assert isinstance(spanish, Item)
    assert (english.id, english.group) == (spanish.id, spanish.group)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"correct_option": 5}, NO_GOLD),
        ({"correct_option": None}, NO_GOLD),
        ({"full_question": " "}, EMPTY_STEM),
        ({"options": {"1": "Flu.", "2": None}}, TOO_FEW_OPTIONS),
    ],
)
def test_what_cannot_be_asked_is_excluded(changes: dict[str, Any], reason: str) -> None:
    assert one(**changes) == Excluded("2016-73-274", "test", "en", reason)


def test_a_missing_column_is_named() -> None:
    values = {k: v for k, v in VALUES.items() if k != "options"}
    with pytest.raises(UsageError, match="column 'options' is missing"):
        list(read_items("medexpqa", [Row(values, "test", "en", "en", 1)]))


def test_options_that_are_no_texts_by_number_are_refused() -> None:
    with pytest.raises(UsageError, match="options must be texts by number"):
        one(options="1. Flu")
