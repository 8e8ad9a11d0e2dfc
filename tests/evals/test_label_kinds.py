"""An answer is read alike whatever kind of label the options have.

Sentences as models write them, filled with the label of an option under each kind of label: no kind
may be read better or worse than another, or a perturbation of labels would measure the reader.
"""

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
    stem="Which skin disease is it?",
    options=("Zoster", "Yaws", "Xanthoma", "Vitiligo"),
    gold=2,
    subject="skin",
    group="made/1",
)
KINDS = ("original", "labels(digits)", "labels(roman)", "labels(lower)", "labels(greek)")
TEMPLATES = {
    "es": (
        *("{}", "{}.", "({})", "**{}**", "La {}", "La {}.", "Es la {}", "Es la {}."),
        *("Es la {}, porque es antigua", "Opción {}", "La opción {}.", "Sería la {}"),
        *("Creo que es la {}", "Creo que la {}", "Por tanto, la {}.", "Por tanto, es la {}."),
        *("La correcta es la {}", "La {} es la correcta", "La {} es correcta, porque es antigua"),
        *("{}, porque es antigua", "{} porque es antigua", "{} es la respuesta", "Respuesta: {}"),
        *("Respuesta {}", "Elijo {}", "Elijo la {}", "Me quedo con la {}", "Yo marcaría la {}"),
        *("Sin duda, la {}", "Claramente {}", "{} (la antigua)", "Se trata de la {}"),
        *("El diagnóstico más probable es {}", "Descarto las demás; queda la {}.", "Así que la {}"),
        *("Entonces {}", "La respuesta, en mi opinión, es la {}", "Corresponde a la {}"),
        *("Corresponde a la opción {}", "La que mejor encaja es la {}", "Queda la {}"),
        *("Solo encaja la {}", "Diría la {}", "Probablemente la {}", "A ver... la {}"),
        *("Considero que la respuesta correcta es la opción {}, ya que es antigua", "Solución {}"),
        *("La letra es {}", "{}\n\nLa lesión es antigua.", "La lesión es antigua.\n{}"),
        *(
            "{} - opción correcta",
            "Correcta: {}",
            "Mi respuesta es {}",
            "Tras dos semanas, es la {}",
        ),
    ),
    "en": (
        *("{}", "{}.", "({})", "**{}**", "It is {}", "It's {}.", "It's {}, because it is old"),
        *("Option {}", "Option {}.", "I think it is {}", "I think {}", "I would say {}"),
        *("Therefore, {}.", "Therefore it is {}.", "The correct one is {}", "{} is correct"),
        *("{} is correct, because it is old", "{} because it is old", "{}, because it is old"),
        *("{} is the answer", "Answer: {}", "Answer {}", "I choose {}", "I pick {}.", "#{}"),
        *("I'd go with {}", "Definitely {}", "Clearly {}", "{} (the old one)", "No. {}", "{}!"),
        *("The most likely diagnosis is {}", "Only {} fits", "Only {} remains.", "That leaves {}."),
        *(
            "So {}",
            "So it's {}",
            "The answer, in my opinion, is {}",
            "This corresponds to option {}",
        ),
        *("The best fit is {}", "Probably {}", "The letter is {}", "{}\n\nThe lesion is old."),
        *("The lesion is old.\n{}", "Correct: {}", "My answer is {}", "It has to be {}."),
        *("Must be {}", "This is {}", "{} fits best", "{} would be the best choice", "Choice {}"),
        *("After two weeks, it is {}.", "I believe {} is the right one.", "Solution {}"),
    ),
}
CASES = [(language, template) for language, found in TEMPLATES.items() for template in found]
PRONOUN = {"{} would be the best choice"}
"""Where an I could be the pronoun, it is not taken for the first roman number."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("language", "template"), CASES)
def test_a_sentence_means_the_third_option_under_every_kind_of_label(
    language: str, template: str, kind: str
) -> None:
    variant = apply(replace(ENGLISH, language=language), kind)
    text = template.format(variant.labels[2])
    judged = grade_output(Answer(text, "stop"), variant, FORMATS["letter"], language)
    assert (judged.slot, judged.correct) == (2, True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("language", "template"), CASES)
def test_it_means_the_first_option_too_though_a_and_i_are_words(
    language: str, template: str, kind: str
) -> None:
    variant = apply(replace(ENGLISH, language=language), kind)
    text = template.format(variant.labels[0])
    judged = grade_output(Answer(text, "stop"), variant, FORMATS["letter"], language)
    is_pronoun = kind == "labels(roman)" and template in PRONOUN
    assert judged.slot == (None if is_pronoun else 0)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "It is 3 mg."),
        ("en", "Give 2 tablets, so 4 in all days of the week."),
        ("en", "The dose is 2 mg and the interval 4 hours."),
        ("en", "A gestation of 3 is usual"),
        ("en", "There are only 2 causes and 3 signs."),
        ("es", "Queda 1 mg."),
        ("es", "Se toman 2 comprimidos durante 4 días."),
        ("es", "Dura de 2 a 3 semanas."),
        ("es", "Es 3 veces mayor que la 2 del otro brazo"),
    ],
)
def test_numbers_that_count_something_are_no_labels(language: str, text: str) -> None:
    variant = apply(replace(ENGLISH, language=language), "labels(digits)")
    assert grade_output(Answer(text, "stop"), variant, FORMATS["letter"], language).slot is None


@pytest.mark.parametrize(
    ("language", "text", "slot"),
    [
        ("en", "alpha", 0),
        ("es", "La respuesta es alfa.", 0),
        ("es", "Es la delta", 3),
        ("en", "Option gamma", 2),
        ("en", "A beta blocker is used.", None),
        ("en", "Interferon alpha is given, and gamma globulin.", None),
        ("es", "La epoetina alfa no encaja aquí", None),
    ],
)
def test_a_greek_letter_may_be_called_by_its_name(
    language: str, text: str, slot: int | None
) -> None:
    variant = apply(replace(ENGLISH, language=language), "labels(greek)")
    assert grade_output(Answer(text, "stop"), variant, FORMATS["letter"], language).slot == slot
