"""MedExpQA's rows become questions without anything that explains the answer."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.data.medexpqa import read_items
from medlocal.data.rows import (
    EMPTY_OPTION,
    EMPTY_STEM,
    GOLD_TWICE,
    NO_GOLD,
    TOO_FEW_OPTIONS,
    UNREADABLE,
    Excluded,
    Row,
)
from medlocal.errors import MedlocalError, UsageError
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
COLUMNS = "id, year, question_id_specific, full_question, options, correct_option, type"
CASE = "A boy of two years has had fever, a cough and a rash on both arms for three days. "


def a_row(language: str = "en", split: str = "test", **changes: Any) -> Row:
    return Row({**VALUES, **changes}, split, language, language, 1)


def one(**changes: Any) -> Item | Excluded:
    (result,) = read_items("medexpqa", [a_row(**changes)])
    return result


def items_of(*rows: Row) -> list[Item]:
    items = [result for result in read_items("medexpqa", rows) if isinstance(result, Item)]
    assert len(items) == len(rows)
    return items


class TestARow:
    def test_it_becomes_a_question(self) -> None:
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

    def test_nothing_that_explains_is_shown(self) -> None:
        (item,) = items_of(a_row())
        assert "SECRET" not in " ".join((item.stem, item.context, *item.options, item.subject))

    def test_the_explanations_need_not_be_there(self) -> None:
        kept = {column: VALUES[column] for column in COLUMNS.split(", ")}
        (item,) = items_of(Row(kept, "test", "en", "en", 1))
        assert item.rationale == ""

    @pytest.mark.parametrize("absent", [None, math.nan, "", " ", "nan", "NaN", "None"])
    def test_a_missing_fifth_option_is_absent_however_it_is_spelled(self, absent: object) -> None:
        (item,) = items_of(a_row(options={**VALUES["options"], "5": absent}))
        assert item.options == ("Flu.", "Sepsis.", "Otitis.", "Mumps.")

    def test_a_fifth_option_without_a_place_is_absent(self) -> None:
        four = {number: VALUES["options"][number] for number in "1234"}
        assert one(options=four) == one()

    @pytest.mark.parametrize("right", ["2", " 2 ", 2.0])
    def test_the_right_number_may_be_written_as_text_or_float(self, right: object) -> None:
        assert one(correct_option=right) == one()

    def test_lines_of_a_question_stay(self) -> None:
        (item,) = items_of(a_row(full_question="A boy. \n\tHb 3.\n What is it?\n"))
        assert item.stem == "A boy.\nHb 3.\nWhat is it?"

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"correct_option": 5}, NO_GOLD),
            ({"correct_option": 0}, NO_GOLD),
            ({"correct_option": None}, NO_GOLD),
            ({"full_question": " "}, EMPTY_STEM),
            ({"full_question": None}, EMPTY_STEM),
            ({"options": {"1": "Flu.", "2": None}}, TOO_FEW_OPTIONS),
            ({"options": {"1": "Flu.", "2": None, "3": "Otitis."}}, EMPTY_OPTION),
            ({"options": {"1": "Flu.", "2": "Otitis.", "3": "Otitis."}}, GOLD_TWICE),
        ],
    )
    def test_what_cannot_be_asked_is_left_out(self, changes: dict[str, Any], reason: str) -> None:
        assert one(**changes) == Excluded("2016-73-274", "test", "en", reason)

    def test_missing_columns_are_named_beside_those_there(self) -> None:
        with pytest.raises(
            UsageError, match="'options', 'correct_option', 'type' is miss"
        ) as caught:
            list(
                read_items("medexpqa", [Row(dict(list(VALUES.items())[:4]), "test", "en", "en", 7)])
            )
        assert caught.value.message.startswith("medexpqa, en, test, row 7: ")
        found = "id, year, question_id_specific, full_question"
        assert caught.value.hint == f"the columns must be {COLUMNS}; there are {found}"

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("options", "1. Flu"),
            ("options", ["Flu.", "Sepsis."]),
            ("options", {"A": "Flu.", "B": "Sepsis."}),
            ("options", {"1": 3, "2": "Sepsis."}),
            ("correct_option", "B"),
            ("correct_option", True),
            ("full_question", 3),
            ("full_question", "\ud800"),
            ("id", None),
            ("year", "MIR"),
        ],
    )
    def test_a_column_that_holds_something_else_is_refused(
        self, column: str, value: object
    ) -> None:
        with pytest.raises(UsageError, match=f"row 1: {column} must be"):
            one(**{column: value})


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.sampled_from(sorted(VALUES)), ANYTHING | st.dictionaries(ANYTHING, ANYTHING))
def test_any_value_raises_nothing_but_our_own_error(column: str, value: Any) -> None:
    try:
        one(**{column: value})
    except MedlocalError:
        return


class TestGroups:
    def test_parallel_rows_share_id_group_and_subject(self) -> None:
        spanish = a_row("es", full_question="Niño de 2 años. ¿Qué es?", type="DIGESTIVO")
        en, es = items_of(a_row(), spanish)
        assert (en.id, en.group, en.subject) == (es.id, es.group, "digestivo")

    @pytest.mark.parametrize(
        "changes", [{"correct_option": 1}, {"options": {**VALUES["options"], "5": "Asthma."}}]
    )
    def test_one_that_disagrees_with_the_spanish_is_left_out(self, changes: dict[str, Any]) -> None:
        english, spanish = read_items("medexpqa", [a_row("en", **changes), a_row("es")])
        assert english == Excluded("2016-73-274", "test", "en", UNREADABLE)
        assert isinstance(spanish, Item)

    def test_copies_share_a_group_by_year_and_number(self) -> None:
        first, second = items_of(a_row(), a_row(split="train", id=9, full_question="What is it?"))
        assert first.group == second.group
        assert first.id != second.id

    def test_copies_share_a_group_by_their_text(self) -> None:
        asked: dict[str, Any] = {"full_question": CASE + "What is it?"}
        copied: dict[str, Any] = {
            "full_question": CASE + "How is it treated?",
            "question_id_specific": 74,
            "id": 9,
        }
        first, second, other = items_of(
            a_row(**asked), a_row(split="train", **copied), a_row(year=2018, id=10)
        )
        assert first.group == second.group == "medexpqa/2016-73"
        assert other.group == "medexpqa/2018-73"

    def test_copies_that_contradict_each_other_are_flagged(self) -> None:
        first, second = items_of(a_row(), a_row(id=9, correct_option=3))
        assert first.flags == second.flags == ("vignette", "gold_disputed")

    def test_a_row_without_year_stands_alone(self) -> None:
        (item,) = items_of(a_row(year=None))
        assert (item.id, item.group) == ("274", "medexpqa/274")
