"""Brand and generic names: in a text, the new name is one that a doctor could have written there."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.evals.agreement import agreeing_before, agreeing_behind, gender
from medlocal.evals.items import Item
from medlocal.evals.perturb import NotApplicableError, apply
from medlocal.evals.routes import ROUTES, may_be_given, named_routes
from medlocal.evals.wordlists import LANGUAGES, drug_terms, drugs

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
SEEDS = range(12)


def renamed(text: str, language: str = "en", seed: int = 0) -> str:
    """The text as an option of a question that names no drug."""
    item = replace(ITEM, language=language, options=(text, "b", "c", "d"))
    return apply(item, "drug_names", seed).options[0]


def stays(text: str, language: str = "en") -> bool:
    item = replace(ITEM, language=language, options=(text, "b", "c", "d"))
    for seed in SEEDS:
        try:
            apply(item, "drug_names", seed)
        except NotApplicableError:
            continue
        return False
    return True


class TestRoutes:
    @pytest.mark.parametrize(
        ("language", "text", "expected"),
        [
            ("en", "Intravenous hydrocortisone", "Intravenous Solu-Cortef"),
            ("es", "Hidrocortisona intravenosa", "Actocortina intravenosa"),
            ("en", "Oral hydrocortisone", "Oral Cortef"),
            ("es", "Hidrocortisona oral", "Hidroaltesona oral"),
            ("en", "Intravenous methylprednisolone", "Intravenous Solu-Medrol"),
            ("en", "Intravenous verapamil", "Intravenous Isoptin"),
            ("en", "Intravenous tranexamic acid", "Intravenous Cyklokapron"),
            ("es", "Nitroglicerina intravenosa", "Solinitrina intravenosa"),
            (
                "es",
                "Dispositivo intrauterino de levonorgestrel",
                "Dispositivo intrauterino de Mirena",
            ),
            ("es", "Parche de fentanilo", "Parche de Durogesic"),
            ("en", "Transdermal buprenorphine", "Transdermal Butrans"),
            ("en", "Sublingual nitroglycerin", "Sublingual Nitrostat"),
        ],
    )
    def test_only_a_brand_that_is_given_so_is_taken(
        self, language: str, text: str, expected: str
    ) -> None:
        assert {renamed(text, language, seed) for seed in SEEDS} == {expected}

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("en", "Intravenous nitroglycerin"),
            ("en", "Intramuscular methotrexate"),
            ("en", "Intravenous morphine via a patient-controlled pump"),
            ("es", "Paracetamol por vía intravenosa"),
            ("es", "Fenitoína intravenosa"),
            ("en", "Oral levonorgestrel"),
            ("en", "Emergency levonorgestrel"),
            ("en", "Subcutaneous testosterone"),
        ],
    )
    def test_a_name_stays_where_no_brand_is_known_to_be_given_so(
        self, language: str, text: str
    ) -> None:
        assert stays(text, language)

    def test_a_route_in_the_same_sentence_counts_and_one_elsewhere_does_not(self) -> None:
        near = replace(ITEM, stem="He gets intravenous nitroglycerin. Why?")
        with pytest.raises(NotApplicableError):
            apply(near, "drug_names")
        far = replace(ITEM, stem="He gets nitroglycerin. He has an intravenous line. Why?")
        assert apply(far, "drug_names").stem.startswith("He gets Nitrostat. ")

    def test_a_route_that_is_asked_about_counts_for_the_options(self) -> None:
        item = replace(
            ITEM, stem="Which intravenous drug?", options=("Verapamil now", "b", "c", "d")
        )
        assert {apply(item, "drug_names", seed).options[0] for seed in SEEDS} == {"Isoptin now"}

    def test_a_drug_keeps_one_name_that_fits_everywhere(self) -> None:
        item = replace(
            ITEM, options=("Oral verapamil", "Intravenous verapamil", "Verapamil slowly", "d")
        )
        for seed in SEEDS:
            assert apply(item, "drug_names", seed).options == (
                "Oral Isoptin",
                "Intravenous Isoptin",
                "Isoptin slowly",
                "d",
            )

    @pytest.mark.parametrize(
        ("routes", "named", "may"),
        [
            ((), (), True),
            ((), ("oral",), False),
            (("oral",), (), True),
            (("oral", "intravenous"), ("intravenous",), True),
            (("oral",), ("oral", "intravenous"), False),
            (("intramuscular",), ("parenteral",), True),
            (("oral",), ("parenteral",), False),
            (("intrauterine",), (), False),
            (("intrauterine",), ("intrauterine",), True),
        ],
    )
    def test_a_brand_may_stand_where_it_is_sold_for_all_that_is_named(
        self, routes: tuple[str, ...], named: tuple[str, ...], may: bool
    ) -> None:
        assert may_be_given(routes, named) is may

    @pytest.mark.parametrize(
        ("text", "routes"),
        [
            ("Give IV fluids", {"intravenous"}),
            ("ceftriaxona iv", {"intravenous"}),
            ("two tablets by mouth", {"oral"}),
            ("budesonida inhalada", {"inhaled"}),
            ("an intramuscular injection", {"intramuscular", "parenteral"}),
            ("diverse morals and five drives", set()),
        ],
    )
    def test_routes_are_named_by_whole_words(self, text: str, routes: set[str]) -> None:
        assert named_routes(text) == routes

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_after_intravenous_no_brand_stands_that_is_not_given_so(self, language: str) -> None:
        text = {"en": "Intravenous {}", "es": "{} por vía intravenosa"}[language]
        for term in drug_terms(language):
            if term.is_brand or not term.drug.brand[language]:
                continue
            brands = {b for b, routes in term.drug.routes.items() if "intravenous" in routes}
            option = text.format(term.text)
            if not stays(option, language):
                new = {renamed(option, language, seed) for seed in range(3)}
                assert new <= {text.format(brand) for brand in brands}, option

    def test_every_route_of_the_list_is_one_that_texts_name(self) -> None:
        assert {
            route for drug in drugs() for found in drug.routes.values() for route in found
        } <= set(ROUTES)


class TestSpanish:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Furosemida intravenosa", "Seguril intravenoso"),
            ("Ceftriaxona intravenosa", "Rocefalin intravenoso"),
            ("Lacosamida intravenosa", "Vimpat intravenoso"),
            ("Ciclofosfamida intravenosa", "Genoxal intravenoso"),
            ("La octreotida subcutánea", "El Sandostatin subcutáneo"),
            ("La furosemida está contraindicada aquí", "El Seguril está contraindicado aquí"),
            ("Metoprolol intravenoso", "Beloken intravenoso"),
            ("Iniciar furosemida rápidamente", "Iniciar Seguril rápidamente"),
            ("Lansoprazol y furosemida", "Opiren y Seguril"),
            ("Prednisona y azatioprina", "Dacortin e Imurel"),
            ("Furosemida e hidroxicloroquina", "Seguril y Dolquine"),
            ("Furosemida o lorazepam", "Seguril u Orfidal"),
            ("Mesilato de imatinib", "Mesilato de imatinib"),
            ("Besilato de amlodipino", "Besilato de amlodipino"),
            ("Fumarato de bisoprolol", "Fumarato de bisoprolol"),
            ("Decanoato de zuclopentixol y furosemida", "Decanoato de zuclopentixol y Seguril"),
        ],
    )
    def test_what_touches_a_name_agrees_with_it(self, text: str, expected: str) -> None:
        assert (text if stays(text, "es") else renamed(text, "es")) == expected

    def test_a_generic_name_takes_its_own_gender(self) -> None:
        assert renamed("El Seguril intravenoso", "es") == "La furosemida intravenosa"
        assert renamed("Dacortin e Imurel", "es") == "Prednisona y azatioprina"

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("furosemida", "f"),
            ("ácido zoledrónico", "m"),
            ("mononitrato de isosorbida", "m"),
            ("insulina glargina", "f"),
            ("anfotericina B", "f"),
            ("Seguril", "m"),
        ],
    )
    def test_the_gender_of_a_name_is_that_of_its_first_word(self, name: str, expected: str) -> None:
        assert gender(name) == expected

    @pytest.mark.parametrize(
        ("before", "name", "expected"),
        [
            ("Dalsy e ", "Opiren", "Dalsy y "),
            ("Dalsy y ", "Ibuprofeno", "Dalsy e "),
            ("Dalsy y ", "hierro", "Dalsy y "),
            ("Dalsy y ", "hidralazina", "Dalsy e "),
            ("Dalsy o ", "Orfidal", "Dalsy u "),
            ("Dalsy u ", "Seguril", "Dalsy o "),
            ("muy ", "Ibuprofeno", "muy "),
        ],
    )
    def test_conjunctions_follow_the_sound(self, before: str, name: str, expected: str) -> None:
        assert agreeing_before(before, name, "es", "m") == expected

    @given(st.text(max_size=20), st.sampled_from(LANGUAGES))
    def test_a_text_without_an_adjective_is_left_as_it_is(self, text: str, language: str) -> None:
        instead, end = agreeing_behind(f"x; {text}", 1, language, "f")
        assert (instead, end) == ("", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He takes DDAVP daily", "He takes desmopressin daily"),
        ("DDAVP helps", "Desmopressin helps"),
        ("TAKE FUROSEMIDE DAILY", "TAKE LASIX DAILY"),
        ("TAKE LASIX DAILY", "TAKE FUROSEMIDE DAILY"),
        (
            "Furosemide mesylate was given with enalapril",
            "Furosemide mesylate was given with Vasotec",
        ),
        ("Take an enalapril tablet", "Take a Vasotec tablet"),
    ],
)
def test_a_name_has_the_case_of_the_one_it_replaces(text: str, expected: str) -> None:
    assert renamed(text) == expected
