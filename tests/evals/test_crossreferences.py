"""Options that speak of other options are left where they are."""

from dataclasses import replace

import pytest

from medlocal.evals.crossreferences import names_labels, speaks_of_options
from medlocal.evals.items import Item
from medlocal.evals.perturb import NotApplicableError, apply

ITEM = Item(
    id="1",
    dataset="made",
    split="test",
    language="en",
    stem="Which is it?",
    options=("Sodium", "Potassium", "Chloride", "Calcium"),
    gold=0,
    subject="any",
    group="made/1",
)


@pytest.mark.parametrize(
    "option",
    [
        *("None", "None.", "Both", "Both.", "All", "Neither", "Ninguna", "Ambas.", "Todas"),
        *("None of above", "All of above", "all the above", "Any of the above", "None of these"),
        *("Both AB", "Both 1 and 2", "Both A and B", "A and B", "A y C son correctas"),
        *("All of the above", "Todas las anteriores", "Ambas son ciertas", "Ninguna es correcta"),
        *("Option 1 and 2", "Opciones A y B", "Respuesta B"),
    ],
)
def test_an_option_that_speaks_of_others_is_known(option: str) -> None:
    assert speaks_of_options(option) or names_labels(("x", "y", "z", option))
    item = replace(ITEM, options=("Sodium", "Potassium", "Chloride", option))
    for name in ("nota_added", "nota_replaces_gold", "drop_distractor", "negated"):
        with pytest.raises(NotApplicableError, match="already speaks of the other options"):
            apply(item, name)


@pytest.mark.parametrize(
    "option",
    [
        *("All-trans retinoic acid", "Both efficacy and toxicity", "Acute lymphoid leukemia (ALL)"),
        *("Anterior cerebral artery", "AB", "1,500 units", "Tibialis anterior", "All compressed"),
        *(
            "Dar respuesta a los pacientes",
            "Agitación con respuestas a estímulos",
            "None is seen now",
        ),
    ],
)
def test_an_option_that_only_sounds_so_is_not_one(option: str) -> None:
    assert not speaks_of_options(option)
    assert not names_labels(("Sodium", "Potassium", "Chloride", option))


@pytest.mark.parametrize(
    "options",
    [
        ("Maxillary", "Mandibular", "Lingual", "Both AB"),
        ("Taken up", "Converted", "Both 1 and 2", "Stored"),
        ("Sodium", "Potassium", "Chloride", "A and C"),
        ("Sodio", "Potasio", "A y B son correctas", "Cloro"),
        ("Sodium", "Potassium", "Chloride", "Both (A) & (C)"),
        ("Ethmoid", "Tongue", "Sphenoid", "Option 1 and 2"),
    ],
)
def test_an_option_that_names_labels_keeps_all_options_and_labels_in_place(
    options: tuple[str, ...],
) -> None:
    assert names_labels(options)
    item = replace(ITEM, options=options)
    for name in ("shuffle", "rotate(1)", "gold_at(C)", "labels(digits)", "labels(bullets)"):
        with pytest.raises(NotApplicableError, match="names other options by their labels"):
            apply(item, name)
    assert apply(item, "label_style((A))").options == options


@pytest.mark.parametrize(
    "options",
    [
        ("1 and 2", "2 and 3", "1 and 3", "1, 2 and 3"),
        ("1 only", "2 only", "1 and 2", "1, 2, and 3"),
        ("A,B", "A,C", "B,C", "ABC"),
        ("a,c,d,b", "b,c,a,d", "d,a,c,b", "c,a,b,d"),
        ("A", "B", "AB", "O"),
        ("1", "2", "1,5", "2 and 3"),
        ("Sodium", "All of the above", "Chloride", "None"),
    ],
)
def test_options_made_of_a_lists_own_signs_may_move(options: tuple[str, ...]) -> None:
    assert not names_labels(options)
    assert sorted(apply(replace(ITEM, options=options), "shuffle").options) == sorted(options)
