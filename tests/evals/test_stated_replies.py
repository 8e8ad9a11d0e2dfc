"""Answers that say more than was asked: the right label beside its successor, lists with a remainder.

One question with four options, of which C is right, in English and Spanish. Every expectation is what
a reader of the output would say that it means.
"""

from dataclasses import replace

import pytest

from medlocal.evals.answers import Answer, Grade, grade_output
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item
from medlocal.evals.perturb import NotApplicableError, apply

ENGLISH = Item(
    id="1",
    dataset="made",
    split="test",
    language="en",
    stem="Which diagnosis explains the murmur?",
    options=("Aortic stenosis", "Septal defect", "Hypertrophic cardiomyopathy", "Valve stenosis"),
    gold=2,
    subject="cardiology",
    group="made/1",
)
SPANISH = replace(
    ENGLISH,
    language="es",
    stem="¿Qué diagnóstico explica el soplo?",
    options=(
        "Estenosis aórtica",
        "Comunicación interventricular",
        "Miocardiopatía hipertrófica",
        "Estenosis pulmonar",
    ),
)
STRICT, LENIENT, AMBIGUOUS = "STRICT_VALID", "LENIENT_VALID", "AMBIGUOUS"
OUT, NOTHING, CUT = "OUT_OF_SET", "UNPARSEABLE", "TRUNCATED"


def judged(
    text: str,
    name: str,
    language: str,
    form: str = "letter",
    finish: str = "stop",
    item: Item = ENGLISH,
) -> Grade:
    asked = SPANISH if language == "es" and item is ENGLISH else item
    return grade_output(Answer(text, finish), apply(asked, name), FORMATS[form], language)


def place(grade: Grade) -> str:
    """The option that was meant, by the letter of its place; "" = none."""
    return "" if grade.slot is None else "ABCD"[grade.slot]


class TestTheLabelAfterTheRightOne:
    """Asked for the label after the right one, D is right here."""

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("es", "La respuesta correcta es la C.\nD"),
            ("es", "Opción correcta: C. Letra siguiente: D."),
            ("es", "Correcta: C. Siguiente: D"),
            ("en", "C, so D"),
            ("es", "Después de C viene D."),
            ("es", "Después de la C viene la D, así que respondo D."),
            ("en", "The letter after C is D."),
            ("es", "D (la correcta es C)"),
            ("es", "D, ya que la correcta es la C"),
            ("en", "D (after C)"),
            ("en", "D, because the correct option is C."),
            ("es", "C → D"),
            ("en", "C -> D"),
            ("en", "C is correct, D comes after it."),
            ("en", "C is correct. D"),
            ("en", "The correct option is C.\n\nThe next letter: D"),
            ("es", "La correcta es la C y la siguiente es la D."),
        ],
    )
    def test_the_right_label_may_be_named_too(self, language: str, text: str) -> None:
        grade = judged(text, "next_label", language)
        assert (grade.outcome, place(grade)) == (LENIENT, "C")

    @pytest.mark.parametrize("labels", ["digits", "roman", "greek", "lower"])
    def test_so_it_is_under_other_labels(self, labels: str) -> None:
        name = f"labels({labels})+next_label"
        _, _, right, after = apply(SPANISH, name).labels
        text = f"La opción correcta es la {right}, luego la siguiente es la {after}."
        assert place(judged(text, name, "es")) == "C"

    def test_after_the_last_label_comes_the_first(self) -> None:
        item = replace(ENGLISH, gold=3)
        for text in ("D → A", "D is correct, so the answer is A.", "After D comes A."):
            assert place(judged(text, "next_label", "en", item=item)) == "D"

    def test_a_key_of_json_may_name_the_right_one(self) -> None:
        text = '{"answer": "D", "correct_option": "C"}'
        assert place(judged(text, "next_label", "en", "json")) == "C"

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("en", "The murmur increases, so the correct option is C.\nAnswer: D."),
            ("en", "The correct option is C.\n\n**Answer: D**"),
            ("es", "La respuesta correcta es la C.\n\n**Respuesta: D**"),
            ("es", "No es la B ni la A. La correcta es la C.\nRespuesta: D."),
        ],
    )
    def test_in_reasoning_the_last_line_is_the_answer(self, language: str, text: str) -> None:
        grade = judged(text, "next_label", language, "reasoned")
        assert (grade.outcome, place(grade)) == (LENIENT, "C")

    @pytest.mark.parametrize("text", ["C or D", "C, D", "C/D", "A or C", "C and D", "B, C and D"])
    def test_two_labels_in_one_breath_are_two_answers(self, text: str) -> None:
        assert judged(text, "next_label", "en").outcome == AMBIGUOUS

    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("D would decrease it. The answer is C.", "B"),
            ("D is wrong. The answer is C.", "B"),
            ("<answer>C</answer> and not D", "B"),
            ("The correct option is B, and the letter after it is D.", "C"),
        ],
    )
    def test_a_label_that_is_no_successor_or_not_called_one_leaves_the_answer_alone(
        self, text: str, meant: str
    ) -> None:
        assert place(judged(text, "next_label", "en")) == meant


class TestPlacesInWords:
    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("es", "tercera"),
            ("es", "La tercera"),
            ("es", "La tercera."),
            ("es", "Tercera opción"),
            ("es", "el tercero"),
            ("es", "posición tres"),
            ("es", "Posición: tres"),
            ("es", "La respuesta es la tercera"),
            ("es", "La opción correcta es la tercera."),
            ("es", "La opción correcta está en la posición tres."),
            ("en", "third"),
            ("en", "Third."),
            ("en", "The third option"),
            ("en", "The third one."),
            ("en", "position three"),
            ("en", "Position 3"),
            ("en", "The correct option is in position three."),
            ("en", "The correct option is the third one."),
        ],
    )
    def test_an_ordinal_or_a_numbered_place_means_its_option(
        self, language: str, text: str
    ) -> None:
        grade = judged(text, "label_in_words", language)
        assert (grade.outcome, place(grade)) == (LENIENT, "C")

    @pytest.mark.parametrize(
        ("text", "form"), [('{"answer": "tercera"}', "json"), ("una", "letter")]
    )
    def test_in_a_form_or_feminine_too(self, text: str, form: str) -> None:
        assert place(judged(text, "label_in_words", "es", form)) == ("C" if form == "json" else "A")

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("en", "First, the murmur increases."),
            ("en", "It is a first-line drug."),
            ("en", "The answer is the first-line drug."),
            ("en", "On the second day it was gone."),
            ("es", "Primero hay que auscultar."),
            ("es", "En segundo lugar, el soplo aumenta."),
            ("es", "Es el tratamiento de primera línea."),
            ("es", "third"),
        ],
    )
    def test_an_ordinal_of_something_else_names_no_option(self, language: str, text: str) -> None:
        assert judged(text, "label_in_words", language).outcome == NOTHING


LISTS = ("negated", "sorted_wrong_labels")


@pytest.mark.parametrize("name", LISTS)
class TestLists:
    """Asked for what is wrong, A, B and D are right here."""

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("es", "A, B, D (la correcta es la C)"),
            ("es", "A, B, D. La C es la correcta."),
            ("en", "A, B, D. C is correct."),
            ("en", "A, B, D because C is the only one that fits."),
            ("es", "Todas menos la C"),
            ("es", "Todas excepto la C."),
            ("es", "Todas las opciones salvo la C"),
            ("en", "All options except C."),
            ("en", "All but C"),
            ("en", "Every option except for option C"),
            ("es", "La respuesta correcta es C, por lo que las que no responden son A, B y D."),
            ("en", "C is correct, so A, B and D"),
            ("en", "ABD"),
            ("en", "A B D"),
            ("es", "a, b, d"),
            ("es", "a, b y d"),
        ],
    )
    def test_a_list_is_read_whatever_joins_or_follows_it(
        self, name: str, language: str, text: str
    ) -> None:
        grade = judged(text, name, language)
        assert (grade.outcome, place(grade)) == (LENIENT, "C")

    @pytest.mark.parametrize("value", ["ABD", "A B D", "A,B,D", "a, b, d", "All except C"])
    def test_so_it_is_inside_of_json(self, name: str, value: str) -> None:
        assert place(judged(f'{{"answer": "{value}"}}', name, "en", "json")) == "C"

    @pytest.mark.parametrize("text", ["1 2 4", "124", "1,2,4", "1, 2 y 4", "Todas menos la 3"])
    def test_so_it_is_with_numbers(self, name: str, text: str) -> None:
        asked = name.replace("negated", "negated+labels(digits)").replace(
            "sorted", "labels(digits)+sorted"
        )
        assert place(judged(text, asked, "es")) == "C"

    @pytest.mark.parametrize("text", ["A bad idea.", "DAD", "Both", "Cab"])
    def test_a_word_of_such_letters_is_no_list(self, name: str, text: str) -> None:
        assert judged(text, name, "en").outcome == NOTHING

    @pytest.mark.parametrize(
        ("form", "text"),
        [
            ("json", '{"answer": "A, B, D"}\n\nExplanation: the murmur'),
            ("tag", "<answer>A, B, D</answer>\nThe murmur"),
            ("letter", "A, B, D\n\nThe correct option is C because"),
            ("letter", "A, B, D\n\nExplanation: the murmur"),
            ("letter", "A, B, D. C is the correct one because"),
            ("letter", "A, B and D. The"),
            ("letter", "A\nB\nD\n\nThe correct"),
            ("phrase", "The answer is A, B, D. The murmur"),
        ],
    )
    def test_a_list_that_was_closed_before_the_cut_is_complete(
        self, name: str, form: str, text: str
    ) -> None:
        grade = judged(text, name, "en", form, "length")
        assert (grade.outcome, place(grade)) == (LENIENT, "C")

    @pytest.mark.parametrize(
        ("form", "text"),
        [
            ("letter", "A, B and D"),
            ("letter", "A, B,"),
            ("letter", "A\nB"),
            ("letter", "A, B and"),
            ("phrase", "The answer is A and B"),
            ("json", '{"answer": "A, B'),
            ("tag", "<answer>A, B"),
            ("reasoned", "A, B and D look wrong.\n\nThe murmur"),
        ],
    )
    def test_a_list_at_the_very_end_may_have_gone_on(self, name: str, form: str, text: str) -> None:
        assert judged(text, name, "en", form, "length").outcome == CUT


def test_a_list_that_leaves_two_out_is_ambiguous_though_the_cut_came_later() -> None:
    grade = judged(
        "A, B\n\nThe correct option is C because", "sorted_wrong_labels", "en", "letter", "length"
    )
    assert grade.outcome == AMBIGUOUS


def test_with_two_options_nothing_tells_the_wrong_label_from_the_right_one() -> None:
    item = replace(ENGLISH, options=("Yes", "No"), gold=1)
    with pytest.raises(NotApplicableError, match="fewer than three options"):
        apply(item, "sorted_wrong_labels")
    three = replace(ENGLISH, options=("Yes", "No", "Maybe"), gold=1)
    with pytest.raises(NotApplicableError, match="fewer than three options"):
        apply(three, "drop_distractor+sorted_wrong_labels")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("reversed_text", '{"answer": "acif\\u00f3rtrepih a\\u00edtapoidracoiM"}'),
        ("text_not_label", '{"answer": "Miocardiopat\\u00eda hipertr\\u00f3fica"}'),
        ("upper_text", '{"answer": "MIOCARDIOPAT\\u00cdA HIPERTR\\u00d3FICA"}'),
    ],
)
def test_letters_may_be_written_as_escapes_of_json(name: str, text: str) -> None:
    assert place(judged(text, name, "es", "json")) == "C"
