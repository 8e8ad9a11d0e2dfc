"""Where sentences end, what a stem asks for, and which words are never mistyped."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.evals.items import Item
from medlocal.evals.perturb import NotApplicableError, apply
from medlocal.evals.stems import (
    KEPT_WORDS,
    asks_for_what_is_not,
    boundaries,
    question_of,
    sentences_of,
)

ITEM = Item(
    id="1",
    dataset="made",
    split="test",
    language="en",
    stem="Which is it?",
    options=("Rest", "Water", "Salt", "Sleep"),
    gold=0,
    subject="any",
    group="made/1",
)


@pytest.mark.parametrize(
    ("stem", "sentences"),
    [
        ("He is ill. Which drug?", ["He is ill. ", "Which drug?"]),
        ("Está enfermo. ¿Qué hay?", ["Está enfermo. ", "¿Qué hay?"]),
        ("Risk of transmission of Hep. B in a child is:", None),
        ("According to the formula given by G.V. Black, the angle is:", None),
        ("Según la teoría de J.A. Gray, las personas altas son:", None),
        ("Según la teoría de J. A. Gray, las personas son:", None),
        ("St. Anthony's fire refers to poisoning by:", None),
        ("Which belong to it?\nI. Taste\nII. Auditory system\nIII. Olfactory system", None),
        ("1. Early call; 2. Early care; 3. Recognition; 4. Post-resuscitation care", None),
        ("Steps a. Tube b. Mask c. Inflation of cuff d. Check of sounds", None),
        ("The level is on chromosome 18. The regulation of which is lost?", 2),
        ("The rate is 95 mm/h. What is best?", 2),
        ("Histology is shown in Image A. Which is it?", 2),
        ("It is negative by PCR. Which is it?", 2),
        ("She is at Tanner stage 1. Which of these?", 2),
    ],
)
def test_no_sentence_ends_inside_of_a_name_or_a_list(
    stem: str, sentences: list[str] | int | None
) -> None:
    found = [stem[start:end] for start, end in sentences_of(stem)]
    if isinstance(sentences, int):
        assert len(found) == sentences
    else:
        assert found == (sentences or [stem])


@pytest.mark.parametrize(
    "stem",
    [
        "Which cranial nerve?\nII. Auditory system\nIII. Olfactory system",
        "Risk of Hep. B in a child is:",
        "Según la teoría de J.A. Gray, es:",
    ],
)
def test_an_irrelevant_sentence_stands_before_what_cannot_be_divided(stem: str) -> None:
    shown = apply(replace(ITEM, stem=stem), "irrelevant_sentence").stem
    assert shown.endswith(f". {stem}")


@given(st.text(st.sampled_from("aB1. ?\nIVX¿d")))
def test_sentences_make_up_the_text(text: str) -> None:
    assert "".join(text[start:end] for start, end in sentences_of(text)) == text
    assert boundaries(text) == sorted(boundaries(text))


@pytest.mark.parametrize(
    "stem",
    [
        "Which of the following statements is false?",
        "Which of the following is not true about it?",
        "Which drug has no effect?",
        "Which pair does not give branches",
        "Which fiber is least susceptible?",
        "Which is the wrong statement:",
        "Which of these doesn't belong?",
        "¿Cuál de los siguientes no tiene efecto?:",
        "Señale el enunciado incorrecto:",
        "¿Cuáles son falsas?",
        "Todas son causas menos:",
        "Se da en todas las entidades, salvo una. ¿Cuál?",
        "Todas EXCEPTO una. Señálela:",
    ],
)
def test_a_stem_that_asks_for_what_is_not_so_is_known_in_either_case(stem: str) -> None:
    assert asks_for_what_is_not(stem)
    with pytest.raises(NotApplicableError, match="already asks for what is not so"):
        apply(replace(ITEM, stem=stem), "negated")


@pytest.mark.parametrize(
    "stem",
    [
        "She has no fever and is not pale. Which is it?",
        "No tiene fiebre. ¿Qué hay?",
        "¿Qué hallazgo es típico de la acidosis no tratada?",
        "¿Qué orienta a una parálisis y no a otra enfermedad?",
        "Which nodule is noted?",
    ],
)
def test_what_is_absent_does_not_make_a_question_negative(stem: str) -> None:
    assert not asks_for_what_is_not(stem)


def test_the_question_is_the_last_sentence_that_asks_something() -> None:
    assert question_of("He is ill. Which drug is best?") == "Which drug is best?"
    assert question_of("Es una de ellas. ¿Cuál?") == "Es una de ellas. ¿Cuál?"


KEPT = (
    "incorrecto incorrectas falsas falsos correcta except least never five seis weeks horas minutes "
    "semanas años months veinte thirty"
)


def test_words_that_turn_a_question_round_count_or_measure_are_never_mistyped() -> None:
    assert set(KEPT.split()) <= KEPT_WORDS
    item = replace(ITEM, stem=f"Considerable {KEPT} tenderness")
    for seed in range(40):
        shown = apply(item, "typos(0.5)", seed).stem
        assert re.search(rf"\s{KEPT}\s", shown)
