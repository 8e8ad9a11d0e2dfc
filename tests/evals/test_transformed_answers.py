"""Answers that had to be transformed, and lists of labels, judged from the output: cases with a reason.

One question with four options, of which B is right, in English and Spanish. The cases were written
from the order of the outcomes and from what each perturbation asks for.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from medlocal.evals.answers import Answer, grade_output
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item
from medlocal.evals.perturb import apply

ENGLISH = Item(
    id="1",
    dataset="made",
    split="test",
    language="en",
    stem="Which electrolyte is low?",
    options=("Sodium", "Potassium", "Chloride", "Calcium"),
    gold=1,
    subject="renal",
    group="made/1",
)
SPANISH = replace(
    ENGLISH,
    language="es",
    stem="¿Qué electrolito está bajo?",
    options=("Sodio", "Potasio", "Cloruro", "Calcio"),
)

STRICT, LENIENT, AMBIGUOUS = "STRICT_VALID", "LENIENT_VALID", "AMBIGUOUS"
OUT, REFUSAL, NOTHING = "OUT_OF_SET", "REFUSAL", "UNPARSEABLE"
CUT, EMPTY = "TRUNCATED", "EMPTY"

Case = tuple[str, str, str, str]
"""What was written, its outcome, the option that it means by its place in letters ("" = none), why."""

CASES: dict[tuple[str, str, str], list[Case]] = {
    ("next_label", "letter", "en"): [
        ("C", STRICT, "B", "C comes after B"),
        ("D", STRICT, "C", "D comes after C"),
        ("A", STRICT, "D", "after the last label comes the first"),
        ("B", STRICT, "A", "the right label itself is the one after A"),
        ("The answer is C", LENIENT, "B", "a sentence where a letter was asked for"),
        ("**C**", LENIENT, "B", "dressed"),
        ("c", LENIENT, "B", "in another case"),
        ("C. Chloride", LENIENT, "B", "the next label, with the words of its option"),
        ("Potassium", LENIENT, "B", "words mean their own option: right, not transformed"),
        ("The answer is Potassium.", LENIENT, "B", "words in a statement too"),
        ("Potassium (C)", LENIENT, "B", "both say the same"),
        ("Potassium is correct, so the answer is C.", LENIENT, "B", "both say the same"),
        ("B is correct, so the next letter is C.", LENIENT, "B", "the last statement counts"),
        ("A or C", AMBIGUOUS, "", "two labels"),
        ("E", OUT, "", "no option has it, nor does it come after one"),
    ],
    ("next_label", "json", "en"): [
        ('{"answer": "C"}', STRICT, "B", "C comes after B"),
        ('{"answer":"C"}', LENIENT, "B", "a space is missing"),
        ('{"answer": "Potassium"}', LENIENT, "B", "words mean their own option"),
    ],
    ("next_label", "tag", "es"): [
        ("<answer>C</answer>", STRICT, "B", "C comes after B"),
        ("<answer>Potasio</answer>", LENIENT, "B", "words mean their own option"),
    ],
    ("next_label", "letter", "es"): [
        ("respuesta: C.", LENIENT, "B", "a statement"),
        ("La correcta es la B, así que la letra es la C.", LENIENT, "B", "the last one counts"),
        ("No puedo responder a eso.", REFUSAL, "", "declined"),
    ],
    ("labels(digits)+next_label", "letter", "en"): [
        ("3", STRICT, "B", "3 comes after 2"),
        ("1", STRICT, "D", "after 4 comes 1"),
        ("The answer is 3.", LENIENT, "B", "a statement"),
        ("C", OUT, "", "the labels are numbers"),
    ],
    ("text_not_label", "letter", "en"): [
        ("Potassium", STRICT, "B", "the words of B"),
        ("potassium.", LENIENT, "B", "not copied exactly"),
        ("B", LENIENT, "B", "right, and a label where words were asked for"),
        ("B. Potassium", LENIENT, "B", "both"),
        ("The answer is C", LENIENT, "C", "a label in a statement"),
        ("Sodium or Potassium", AMBIGUOUS, "", "the words of two"),
        ("Magnesium", NOTHING, "", "the words of none"),
        ("E", OUT, "", "no option has it"),
        ("", EMPTY, "", "nothing was written"),
    ],
    ("text_not_label", "phrase", "es"): [
        ("La respuesta es Potasio", STRICT, "B", "the sentence with the words of B"),
        ("La respuesta es potasio.", LENIENT, "B", "neither case nor end as told"),
        ("La respuesta es B", LENIENT, "B", "a label where words were asked for"),
    ],
    ("reversed_text", "letter", "en"): [
        ("muissatoP", STRICT, "B", "Potassium backwards"),
        ("muissatop", LENIENT, "B", "in another case"),
        ("**muissatoP**", LENIENT, "B", "dressed"),
        ("The text backwards: muissatoP", LENIENT, "B", "only one reply stands in it"),
        ("Potassium -> muissatoP", LENIENT, "B", "both say the same"),
        ("Potassium", LENIENT, "B", "right, not transformed"),
        ("B", LENIENT, "B", "right, not transformed"),
        ("muissatP", NOTHING, "", "a slip makes it no option's text"),
    ],
    ("reversed_text", "phrase", "en"): [
        ("The answer is muissatoP", STRICT, "B", "the sentence"),
        ("The answer is muissatoP.", LENIENT, "B", "a full stop is a second form"),
    ],
    ("reversed_text", "json", "es"): [
        ('{"answer": "oisatoP"}', STRICT, "B", "Potasio backwards"),
        ('{"answer":"oisatoP"}', LENIENT, "B", "a space is missing"),
        ('{"answer":"Potasio"}', LENIENT, "B", "right, not transformed"),
    ],
    ("reversed_text", "reasoned", "en"): [
        ("It is low.\nAnswer: muissatoP", STRICT, "B", "the last line"),
        ("Potassium is low.\nAnswer: muidoS.", LENIENT, "A", "the answer and not the reasoning"),
    ],
    ("labels(bullets)+reversed_text", "tag", "es"): [
        ("<answer>oisatoP</answer>", STRICT, "B", "Potasio backwards"),
        ("<answer> oisatoP </answer>", LENIENT, "B", "spaces inside"),
        ("<answer>B</answer>", OUT, "", "bullets have no letters"),
    ],
    ("upper_text", "letter", "en"): [
        ("POTASSIUM", STRICT, "B", "in capitals"),
        ("Potassium", LENIENT, "B", "right, not transformed"),
        ("POTASSIUM.", LENIENT, "B", "a full stop more"),
        ("B", LENIENT, "B", "right, not transformed"),
        ("MAGNESIUM", NOTHING, "", "the words of none"),
    ],
    ("upper_text", "json", "es"): [
        ('{"answer": "POTASIO"}', STRICT, "B", "in capitals"),
        ('{"answer": "potasio"}', LENIENT, "B", "right, not transformed"),
    ],
    ("label_in_words", "letter", "en"): [
        ("two", STRICT, "B", "the second option"),
        ("Two.", LENIENT, "B", "case and full stop"),
        ("Option two", LENIENT, "B", "a word more"),
        ("2", LENIENT, "B", "its place, and not as a word"),
        ("B", LENIENT, "B", "right, not transformed"),
        ("two (Potassium)", LENIENT, "B", "both say the same"),
        ("The answer is two.", LENIENT, "B", "a statement"),
        ("The best one is B.", LENIENT, "B", "one is no place here"),
        ("There are three possibilities.", NOTHING, "", "three is no place here"),
        ("five", NOTHING, "", "there is no fifth option"),
    ],
    ("label_in_words", "tag", "en"): [
        ("<answer>two</answer>", STRICT, "B", "the second option"),
        ("<answer> two </answer>", LENIENT, "B", "spaces inside"),
    ],
    ("label_in_words", "letter", "es"): [
        ("dos", STRICT, "B", "the second option"),
        ("La opción dos", LENIENT, "B", "two words more"),
        ("La respuesta correcta es la dos.", LENIENT, "B", "a statement"),
        ("two", NOTHING, "", "a word of the other language"),
    ],
    ("append(!)", "letter", "en"): [
        ("B!", STRICT, "B", "the label with its addition"),
        ("B", LENIENT, "B", "right, without the addition"),
        ("B !", LENIENT, "B", "not directly behind it"),
        ("The answer is B!", LENIENT, "B", "a statement"),
        ("Potassium!", LENIENT, "B", "words and not the label"),
        ("E!", OUT, "", "no option has it"),
        ("A! or B!", AMBIGUOUS, "", "two labels"),
    ],
    ("append(-END)", "json", "en"): [
        ('{"answer": "B-END"}', STRICT, "B", "the label with its addition"),
        ('{"answer":"B-END"}', LENIENT, "B", "a space is missing"),
        ("Answer: B-END", LENIENT, "B", "no JSON"),
        ('{"answer": "B"}', LENIENT, "B", "right, without the addition"),
    ],
    ("append(#)", "phrase", "es"): [
        ("La respuesta es B#", STRICT, "B", "the label with its addition"),
        ("La respuesta es B#.", LENIENT, "B", "a full stop more"),
    ],
    ("sorted_wrong_labels", "letter", "en"): [
        ("A, C, D", STRICT, "B", "all but B"),
        ("A, B, C", STRICT, "D", "all but D"),
        ("A,C,D", LENIENT, "B", "other spaces"),
        ("D, C, A", LENIENT, "B", "not in order"),
        ("A, C and D", LENIENT, "B", "another joint"),
        ("A\nC\nD", LENIENT, "B", "one below the other"),
        ("A) Sodium\nC) Chloride\nD) Calcium", LENIENT, "B", "with the options' words"),
        ("The incorrect options are:\n- A\n- C\n- D", LENIENT, "B", "under a heading"),
        ("A\nC\nD\n\nPotassium is low.", LENIENT, "B", "with a reason behind it"),
        ("The incorrect options are A, C and D.", LENIENT, "B", "in a sentence"),
        ("A, C and D are incorrect.", LENIENT, "B", "what is called wrong is what was asked for"),
        ("B is correct; A, C and D are wrong.", LENIENT, "B", "so it is beside the right one"),
        ("B", LENIENT, "B", "the right label and not the wrong ones"),
        ("A and C", AMBIGUOUS, "", "two are left out"),
        ("A, B, C, D", AMBIGUOUS, "", "none is left out"),
        ("A, C, D, E", AMBIGUOUS, "", "E is no option: the list is none of ours"),
        ("I cannot answer that.", REFUSAL, "", "declined"),
    ],
    ("sorted_wrong_labels", "json", "es"): [
        ('{"answer": "A, C, D"}', STRICT, "B", "all but B"),
        ('{"answer": ["A", "C", "D"]}', LENIENT, "B", "a list of JSON"),
    ],
    ("labels(digits)+sorted_wrong_labels", "json", "en"): [
        ('{"answer": "1, 3, 4"}', STRICT, "B", "all but 2"),
        ('{"answer": "1,3,4"}', LENIENT, "B", "no decimal numbers"),
    ],
    ("labels(roman)+sorted_wrong_labels", "phrase", "es"): [
        ("La respuesta es I, III, IV", STRICT, "B", "all but II"),
        ("I, III y IV", LENIENT, "B", "no sentence"),
    ],
    ("labels(bullets)", "letter", "en"): [
        ("Potassium", STRICT, "B", "the words of B"),
        ("• Potassium", LENIENT, "B", "with its bullet"),
        ("The answer is potassium.", LENIENT, "B", "a statement"),
        ("•", NOTHING, "", "every option has this bullet"),
        ("B", OUT, "", "no option has a letter"),
    ],
    ("labels(bullets)", "json", "es"): [
        ('{"answer": "Potasio"}', STRICT, "B", "the words of B"),
        ('{"answer":"potasio"}', LENIENT, "B", "not copied exactly"),
    ],
    ("negated", "letter", "en"): [
        ("A, C, D", STRICT, "B", "leaves B out"),
        ("A, B, D", STRICT, "C", "leaves C out"),
        ("A, C", STRICT, "", "the form, and two options are left out"),
        ("A, B, C, D", STRICT, "", "the form, and no option is left out"),
        ("B", STRICT, "", "a list of one leaves three out"),
        ("D, B, A", LENIENT, "C", "not in order"),
        ("A and B", LENIENT, "", "two options are left out"),
        ("A.", LENIENT, "", "a list of one"),
        ("A\nC\nD", LENIENT, "B", "one below the other"),
        ("Sodium, Chloride and Calcium", LENIENT, "B", "by their words"),
        ("B is correct. A, C and D are not.", LENIENT, "B", "what is called wrong was asked for"),
        ("A, C, E", AMBIGUOUS, "", "E is no option: the list is none of ours"),
        ("E", OUT, "", "no option has it"),
        ("I cannot answer that.", REFUSAL, "", "declined"),
        (" \n", EMPTY, "", "white space"),
    ],
    ("negated", "phrase", "es"): [
        ("La respuesta es A, C, D", STRICT, "B", "leaves B out"),
        ("La respuesta es A, C y D.", LENIENT, "B", "another joint"),
        ("A, C y D no responden correctamente.", LENIENT, "B", "no sentence as told"),
    ],
}


def every_case() -> Iterator[object]:
    for (name, form, language), cases in CASES.items():
        for number, case in enumerate(cases, start=1):
            asked = f"{name}-{form}-{language}-{number}"
            yield pytest.param(name, form, language, case, id=asked)


@pytest.mark.parametrize(("name", "form", "language", "case"), list(every_case()))
def test_an_answer_is_judged_by_the_first_outcome_that_holds(
    name: str, form: str, language: str, case: Case
) -> None:
    text, outcome, place, why = case
    variant = apply(ENGLISH if language == "en" else SPANISH, name)
    judged = grade_output(Answer(text, "stop"), variant, FORMATS[form], language)
    slot = "ABCD".index(place) if place else None
    assert (judged.outcome, judged.slot) == (outcome, slot), why
    assert (judged.content, judged.correct) == (slot, place == "B"), why


@pytest.mark.parametrize(
    ("name", "text", "outcome", "why"),
    [
        ("sorted_wrong_labels", "A, C, D", STRICT, "the whole form stands there"),
        ("sorted_wrong_labels", "A, C", CUT, "the list may have gone on"),
        ("sorted_wrong_labels", "A, C and D", CUT, "in no form, it may have gone on too"),
        ("sorted_wrong_labels", "", CUT, "cut comes before empty"),
        ("negated", "A, C, D", STRICT, "the whole form stands there"),
        ("negated", "The answer is A, C, D", CUT, "in no form, it may have gone on"),
        ("negated", "A, C,", CUT, "the list was about to go on"),
        ("next_label", "C", STRICT, "the whole form stands there"),
        ("next_label", "The answer is C because", LENIENT, "the answer was given before the cut"),
        ("next_label", "Potassium is the", CUT, "the answer may have followed"),
        ("reversed_text", "muissa", CUT, "a part of a reply is none"),
        ("reversed_text", "The answer is muissatoP,", LENIENT, "given before the cut"),
        ("label_in_words", "The answer is two.", LENIENT, "given before the cut"),
        ("append(-END)", "B-E", CUT, "a part of a reply is none"),
        ("text_not_label", "Potass", CUT, "a part of the words is none"),
    ],
)
def test_an_answer_that_the_length_cut(name: str, text: str, outcome: str, why: str) -> None:
    judged = grade_output(Answer(text, "length"), apply(ENGLISH, name), FORMATS["letter"], "en")
    assert judged.outcome == outcome, why


@pytest.mark.parametrize("name", ["next_label", "reversed_text", "sorted_wrong_labels", "negated"])
def test_what_the_mask_cannot_have_let_through_was_not_masked(name: str) -> None:
    variant = apply(ENGLISH, name)
    judged = grade_output(Answer("Hm.", "stop", "grammar", True), variant, FORMATS["letter"], "en")
    assert judged.outcome == "CONSTRAINT_NOT_APPLIED"
    failed = grade_output(Answer("C", "error", "grammar"), variant, FORMATS["letter"], "en")
    assert failed.outcome == "ENGINE_ERROR"


def test_the_reason_names_the_option_where_the_output_does_not() -> None:
    variant = apply(ENGLISH, "next_label")
    judged = grade_output(Answer("The answer is C.", "stop"), variant, FORMATS["letter"], "en")
    assert judged.reason == "One answer: option 2 (answer statement)."


def test_the_reason_of_a_list_says_what_it_leaves_out() -> None:
    variant = apply(ENGLISH, "negated")
    judged = grade_output(Answer("A\nC\nD", "stop"), variant, FORMATS["letter"], "en")
    assert judged.reason == "The output names A, C, D (list of labels) and leaves B out."
