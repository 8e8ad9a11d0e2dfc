"""What answers mean: decided by all of them together, or asked."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.data.golds import GoldSurvey, names_several, readings
from medlocal.errors import UsageError

DRUGS = ("Aspirina", "Ibuprofeno", "Enalapril", "Ninguna")


def meaning(*rows: tuple[str, Sequence[str]]) -> str:
    survey = GoldSurvey()
    for number, (answer, options) in enumerate(rows, start=2):
        survey.add(number, answer, readings(answer, options), options)
    return survey.meaning("f.csv")


class TestReadings:
    @pytest.mark.parametrize("answer", ["B", "b", "B)", "(B)", "b.", "[B]", "B:", "B) Ibuprofeno"])
    def test_a_letter_may_be_written_in_many_ways(self, answer: str) -> None:
        assert readings(answer, DRUGS) == {"letter": 1}

    @pytest.mark.parametrize("answer", ["ibuprofeno", "  IBUPROFENO ", "Ibuprofeno"])
    def test_the_words_of_an_option_are_known_without_case_and_spaces(self, answer: str) -> None:
        assert readings(answer, DRUGS) == {"text": 1}

    def test_capitals_count_where_two_options_differ_by_them_only(self) -> None:
        genotypes = ("tt", "Tt", "TT")
        assert readings("TT", genotypes) == {"text": 2}
        assert readings("tT", genotypes) == {}

    def test_words_that_two_options_share_name_neither(self) -> None:
        assert readings("x", ("x", "y", "x")) == {}

    def test_accents_composed_or_not_are_the_same(self) -> None:
        assert readings("razo\u0301n", ("Razón", "x")) == {"text": 0}

    def test_a_number_is_read_from_zero_and_from_one(self) -> None:
        assert readings("2", DRUGS) == {"zero-based": 2, "one-based": 1}
        assert readings("2.0", DRUGS) == {"zero-based": 2, "one-based": 1}
        assert readings("0", DRUGS) == {"zero-based": 0}
        assert readings("4", DRUGS) == {"one-based": 3}

    @pytest.mark.parametrize("answer", ["E", "5", "-1", "1.5", "B) Aspirina", "aspirin", "²", "Ω"])
    def test_what_is_no_option_has_no_reading(self, answer: str) -> None:
        assert readings(answer, DRUGS) == {}


class TestSeveral:
    @pytest.mark.parametrize(
        "answer",
        ["A,C", "A y C", "A;B", "A / B", "a, b y c", "1,3", "1 y 2", "A and C", "AC", "(A) (C)",
         "A+B", "A e D", "Aspirina; Enalapril", "aspirina, ibuprofeno"],
    )  # fmt: skip
    def test_several_answers_are_told_from_a_wrong_one(self, answer: str) -> None:
        assert names_several(answer, DRUGS)

    @pytest.mark.parametrize("answer", ["A", "E", "Paracetamol", "CA", "AZ", "A,", "Aspirina"])
    def test_one_answer_is_not_several(self, answer: str) -> None:
        assert not names_several(answer, DRUGS)


class TestMeaning:
    def test_letters(self) -> None:
        assert meaning(("A", DRUGS), ("d)", DRUGS)) == "letter"

    def test_words(self) -> None:
        assert meaning(("Aspirina", DRUGS), ("ninguna", DRUGS)) == "text"

    def test_a_zero_means_counting_from_zero(self) -> None:
        assert meaning(("2", DRUGS), ("0", DRUGS)) == "zero-based"

    def test_the_number_of_options_means_counting_from_one(self) -> None:
        assert meaning(("2", DRUGS), ("4", DRUGS)) == "one-based"
        assert meaning(("2", DRUGS), ("3", DRUGS[:3])) == "one-based"

    def test_neither_is_asked(self) -> None:
        with pytest.raises(UsageError) as caught:
            meaning(("2", DRUGS), ("1", DRUGS))
        assert caught.value.message == (
            "f.csv: the answers can be read in more than one way: in row 2, '2' is 'Enalapril' if"
            " they are numbers counted from 0 and 'Ibuprofeno' if they are numbers counted from 1"
        )
        assert caught.value.hint == "say which: --gold zero-based|one-based"

    def test_both_are_a_conflict(self) -> None:
        with pytest.raises(UsageError) as caught:
            meaning(("2", DRUGS), ("0", DRUGS), ("4", DRUGS))
        assert caught.value.message == (
            "f.csv: the answers cannot all be read in one way: row 3 says '0', so they are not"
            " numbers counted from 1; row 4 says '4', so they are not numbers counted from 0"
        )

    def test_letters_and_words_in_one_file_are_a_conflict(self) -> None:
        with pytest.raises(UsageError, match="row 3 says 'Aspirina', so they are not letters"):
            meaning(("A", DRUGS), ("Aspirina", DRUGS))

    def test_options_that_are_numbers_are_asked(self) -> None:
        with pytest.raises(UsageError) as caught:
            meaning(("2", ("1", "2", "3", "4")))
        assert caught.value.hint == "say which: --gold zero-based|one-based|text"

    def test_numbers_that_are_words_in_every_row_are_words(self) -> None:
        assert meaning(("20", ("10", "20")), ("5", ("5", "6"))) == "text"

    def test_one_row_whose_options_are_numbers_is_settled_by_the_others(self) -> None:
        assert meaning(("2", ("1", "2", "3")), ("0", DRUGS)) == "zero-based"

    def test_options_that_are_letters_are_asked_only_where_it_matters(self) -> None:
        assert meaning(("A", ("A", "B", "AB", "O"))) == "letter"
        with pytest.raises(UsageError, match=r"'A' is 'O' if they are letters and 'A' if"):
            meaning(("A", ("O", "A", "B", "AB")))

    @given(
        rows=st.lists(
            st.integers(2, 10).flatmap(
                lambda n: st.tuples(st.just(n), st.integers(0, n - 1))
            ),
            min_size=1,
            max_size=20,
        ),
        base=st.sampled_from([0, 1]),
    )  # fmt: skip
    def test_numbers_are_read_right_or_asked(self, rows: list[tuple[int, int]], base: int) -> None:
        told = [(str(gold + base), [f"option {i}" for i in range(n)]) for n, gold in rows]
        is_told = any(gold == (0 if base == 0 else n - 1) for n, gold in rows)
        if is_told:
            assert meaning(*told) == ("one-based" if base else "zero-based")
        else:
            with pytest.raises(UsageError, match="more than one way"):
                meaning(*told)
