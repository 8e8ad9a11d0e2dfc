"""The word lists hold what they promise, and what must not be touched is found in a text."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import MissingError, UsageError
from medlocal.evals import wordlists
from medlocal.evals.wordlists import (
    LANGUAGES,
    DrugTerm,
    drug_terms,
    drugs,
    neighbours,
    protected_spans,
    sentences,
)

PAIRS = [
    ("en", "furosemide", "Lasix"),
    ("en", "acetaminophen", "Tylenol"),
    ("en", "paracetamol", "Tylenol"),
    ("en", "albuterol", "Proventil"),
    ("en", "warfarin", "Coumadin"),
    ("en", "rituximab", "Rituxan"),
    ("es", "furosemida", "Seguril"),
    ("es", "paracetamol", "Gelocatil"),
    ("es", "metamizol", "Nolotil"),
    ("es", "acenocumarol", "Sintrom"),
    ("es", "ácido acetilsalicílico", "Adiro"),
    ("es", "lorazepam", "Orfidal"),
    ("es", "alprazolam", "Trankimazin"),
    ("es", "bisoprolol", "Emconcor"),
    ("es", "levotiroxina", "Eutirox"),
    ("es", "rituximab", "MabThera"),
]

ORDINARY_WORDS = {"actos", "concerta", "emend", "luminal", "sonata", "versed", "calan", "aleve"}

# What the starter set's questions name and what is sold under a brand in the United States.
STARTER_DRUGS = (
    "acetaminophen amitriptyline amlodipine bupivacaine capecitabine ceftriaxone cyclophosphamide "
    "dabigatran dexamethasone doxazosin fluorouracil fluoxetine haloperidol ibuprofen lansoprazole "
    "linezolid octreotide olanzapine prednisone rasburicase risperidone sertraline simvastatin "
    "vancomycin"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of word lists in place of the shipped ones."""
    cached = (drugs, drug_terms, sentences, neighbours)
    for function in cached:
        function.cache_clear()
    monkeypatch.setattr(wordlists, "data_root", lambda: tmp_path)
    lists = tmp_path / "benchmarks" / "perturbations"
    lists.mkdir(parents=True)
    yield lists
    for function in cached:
        function.cache_clear()


def _names(language: str) -> dict[str, DrugTerm]:
    return {term.text: term for term in drug_terms(language)}


def _protected(text: str, language: str) -> list[str]:
    return [text[start:end] for start, end in protected_spans(text, language)]


class TestDrugs:
    @pytest.mark.parametrize("language", LANGUAGES)
    def test_at_least_150_drugs_have_a_brand(self, language: str) -> None:
        assert sum(bool(drug.brand[language]) for drug in drugs()) >= 150

    @pytest.mark.parametrize(("language", "generic", "brand"), PAIRS)
    def test_a_generic_name_has_its_brand(self, language: str, generic: str, brand: str) -> None:
        term = _names(language)[generic]

        assert term.drug.brand[language][0] == brand
        assert not term.is_brand

    def test_a_brand_leads_to_its_drug(self) -> None:
        term = _names("es")["Seguril"]

        assert term.is_brand
        assert term.drug.generic == {"en": ("furosemide",), "es": ("furosemida",)}
        assert term.drug.brand == {"en": ("Lasix",), "es": ("Seguril",)}
        assert term.drug.kind == "loop diuretic"

    def test_no_two_drugs_share_a_name_in_any_language(self) -> None:
        names = Counter(
            name
            for drug in drugs()
            for name in {
                name.lower()
                for names in (drug.generic, drug.brand)
                for language in LANGUAGES
                for name in names[language]
            }
        )

        assert [name for name, count in names.items() if count > 1] == []

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_no_name_stands_twice(self, language: str) -> None:
        texts = [term.text.lower() for term in drug_terms(language)]

        assert len(set(texts)) == len(texts)

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_a_name_inside_another_drugs_name_has_no_brand(self, language: str) -> None:
        """ "insulin" lies in "insulin glargine": exchanged on its own it would spoil the other."""
        terms = drug_terms(language)
        longer = [term for term in terms if re.search(r"[\s-]", term.text)]
        inside = [
            (term.text, outer.text)
            for term in terms
            if term.is_brand or term.drug.brand[language]
            for outer in longer
            if outer.drug is not term.drug
            and re.search(rf"(?<!\w){re.escape(term.text)}(?!\w)", outer.text, re.IGNORECASE)
        ]

        assert inside == []

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_generic_names_are_lower_case_and_brands_begin_with_a_capital(
        self, language: str
    ) -> None:
        terms = drug_terms(language)
        # A letter of its own keeps its capital: N-acetylcysteine, amphotericin B.
        generics = [re.sub(r"\b[A-Z]\b", "", term.text) for term in terms if not term.is_brand]

        assert [text for text in generics if text != text.lower()] == []
        assert [term.text for term in terms if term.is_brand and not term.text[0].isupper()] == []

    def test_no_brand_is_an_ordinary_word(self) -> None:
        brands = {t.text.lower() for lang in LANGUAGES for t in drug_terms(lang) if t.is_brand}

        assert brands & ORDINARY_WORDS == set()

    @pytest.mark.parametrize("name", ["epinephrine", "oxytocin", "insulin", "lithium", "heparin"])
    def test_what_the_body_also_contains_has_no_brand(self, name: str) -> None:
        assert _names("en")[name].drug.brand == {"en": (), "es": ()}

    def test_synonyms_lead_to_one_drug(self) -> None:
        names = _names("en") | _names("es")

        assert names["epinephrine"].drug is names["adrenaline"].drug
        assert names["adrenalina"].drug is names["epinefrina"].drug

    @pytest.mark.parametrize("name", STARTER_DRUGS.split())
    def test_the_starter_sets_drugs_have_a_brand(self, name: str) -> None:
        assert _names("en")[name].drug.brand["en"]

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_longer_names_come_first(self, language: str) -> None:
        lengths = [len(term.text) for term in drug_terms(language)]

        assert lengths == sorted(lengths, reverse=True)

    def test_a_brands_routes_are_known_where_the_list_says_them(self) -> None:
        drug = _names("en")["hydrocortisone"].drug

        assert drug.routes["Solu-Cortef"] == ("intravenous", "intramuscular")
        assert drug.routes["Cortef"] == drug.routes["Hidroaltesona"] == ("oral",)

    def test_most_brands_have_routes(self) -> None:
        brands = {
            (drug.generic["en"], b)
            for drug in drugs()
            for lang in LANGUAGES
            for b in drug.brand[lang]
        }
        known = [(drug.generic["en"], b) for drug in drugs() for b in drug.routes]

        assert set(known) <= brands
        assert len(known) > 500

    def test_a_drugs_names_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            drugs()[0].brand["en"] = ("Other",)  # type: ignore[index]


class TestSentences:
    def test_both_languages_have_the_same_number_and_at_least_45(self) -> None:
        assert len(sentences("en")) == len(sentences("es")) >= 45

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_none_stands_twice(self, language: str) -> None:
        assert len(set(sentences(language))) == len(sentences(language))

    def test_the_first_sentences_say_the_same(self) -> None:
        assert sentences("en")[0] == (
            "The corridor outside the consulting room is lined with framed posters."
        )
        assert sentences("es")[0] == (
            "El pasillo junto a la consulta está decorado con carteles enmarcados."
        )

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_each_is_one_sentence_without_quotes(self, language: str) -> None:
        one = re.compile(r"[A-ZÁÉÍÓÚ][^.?!¿¡\"'“”«»‘’:;()\n]*\.")

        assert [text for text in sentences(language) if not one.fullmatch(text)] == []

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_none_has_a_number_a_unit_an_abbreviation_or_a_drug(self, language: str) -> None:
        assert [text for text in sentences(language) if protected_spans(text, language)] == []

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_none_speaks_of_people_who_could_be_the_patient(self, language: str) -> None:
        people = re.compile(
            r"\b(?:patients?|man|men|woman|women|boy|girl|child(?:ren)?|baby|he|she|his|her|him|"
            r"years?|aged?|months old|doctor|nurse|pain|fever|cough|illness|disease|"
            r"pacientes?|hombres?|mujer(?:es)?|niñ[oa]s?|bebé|varón|años?|edad|embarazad[ao]|"
            r"médic[oa]|enfermer[oa]|dolor|fiebre|tos|enfermedad)\b",
            re.IGNORECASE,
        )

        assert [text for text in sentences(language) if people.search(text)] == []


class TestNeighbours:
    def test_english_has_the_26_letters(self) -> None:
        assert sorted(neighbours("en")) == list("abcdefghijklmnopqrstuvwxyz")

    def test_spanish_has_the_27_letters_and_no_accented_one(self) -> None:
        assert sorted(neighbours("es")) == [*"abcdefghijklmnopqrstuvwxyz", "ñ"]

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_neighbours_are_mutual(self, language: str) -> None:
        keyboard = neighbours(language)

        assert [(a, b) for a in keyboard for b in keyboard[a] if a not in keyboard[b]] == []

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_no_letter_is_its_own_neighbour_or_named_twice(self, language: str) -> None:
        for letter, beside in neighbours(language).items():
            assert letter not in beside
            assert len(set(beside)) == len(beside) > 0

    @pytest.mark.parametrize(
        ("language", "letter", "beside"),
        [
            ("en", "l", "opk"),
            ("en", "s", "weadzx"),
            ("es", "ñ", "pl"),
            ("es", "l", "opkñ"),
            ("es", "p", "olñ"),
        ],
    )
    def test_a_letter_has_its_neighbours(self, language: str, letter: str, beside: str) -> None:
        assert set(neighbours(language)[letter]) == set(beside)


PROTECTED = [
    # Numbers: decimals, thousands, ranges, fractions, ratios, percent, signs, times.
    ("en", "a creatinine of 3.5 today", ["3.5"]),
    ("es", "una creatinina de 3,5 hoy", ["3,5"]),
    ("en", "about 1,200 cells", ["1,200"]),
    ("es", "unas 1.200 células", ["1.200"]),
    ("en", "for 3-5 days", ["3-5"]),
    ("es", "de 3–5 días", ["3–5"]),
    ("en", "half, 1/2 or ½ tablet", ["1/2", "½"]),
    ("en", "a titer of 1:160", ["1:160"]),
    ("en", "in 5% of cases", ["5%"]),
    ("es", "en el 5 % de los casos", ["5 %"]),
    ("en", "a base excess of -2.5", ["-2.5"]),
    ("en", "significant (p<0.05)", ["<0.05"]),
    ("es", "a las 10:30 horas", ["10:30"]),
    ("es", "por 1.º vez", ["1.º"]),
    # The number is protected, the words that it belongs to are not.
    ("en", "A 63-year-old man", ["63"]),
    ("es", "Hombre de 63 años", ["63"]),
    ("en", "a level of 3. Next", ["3"]),
    # Units, beside a number and alone.
    ("en", "gave 10 mg, then 10-mg doses", ["10 mg", "10-mg"]),
    ("en", "500 mcg, 50 µg and 50 μg", ["500 mcg", "50 µg", "50 μg"]),
    ("en", "BP is 84/50 mmHg", ["BP", "84/50 mmHg"]),
    ("es", "presión de 84/50 mm Hg", ["84/50 mm Hg"]),
    ("es", "frecuencia de 78 lpm", ["78 lpm"]),
    ("en", "rate 78 bpm, 22/min", ["78 bpm", "22/min"]),
    ("en", "breathes 20 /min", ["20 /min"]),
    ("en", "glucose in mg/dL", ["mg/dL"]),
    ("es", "hemoglobina de 9,5 g/dl", ["9,5 g/dl"]),
    ("es", "2 mg/kg/día de peso", ["2 mg/kg/día"]),
    ("en", "sodium 128 mEq/L and 4 mmol/L", ["128 mEq/L", "4 mmol/L"]),
    ("en", "platelets 90 x10^9/L", ["90 x10^9/L"]),
    ("en", "platelets 90 x 10^9/L", ["90 x 10^9/L"]),
    ("es", "leucocitos 12 × 10⁹/L", ["12", "10⁹/L"]),
    ("en", "130 U/L or 400 IU", ["130 U/L", "400 IU"]),
    ("es", "400 UI al día", ["400 UI"]),
    ("en", "38 °C and 38.5°C", ["38 °C", "38.5°C"]),
    ("es", "38,5 ºC de temperatura", ["38,5 ºC"]),
    ("en", "for 48 h and 5 min", ["48 h", "5 min"]),
    ("en", "48h later", ["48h"]),
    # No unit: inside a word, or a short one without a number.
    ("en", "the program and the diagram, h or min", []),
    ("en", "the patient's legs", []),
    # Letters with digits.
    ("en", "in V4R, HbA1c and T4", ["V4R", "HbA1c", "T4"]),
    ("en", "CD4+ cells, low C3", ["CD4+", "C3"]),
    ("en", "a β2 agonist or beta-2 agonist", ["β2", "beta-2"]),
    ("es", "agonista β2", ["β2"]),
    ("en", "IL-6 and SARS-CoV-2", ["IL-6", "SARS-CoV-2"]),
    ("en", "a 2nd dose", ["2nd"]),
    # Abbreviations and other words with a capital inside.
    ("en", "An ECG shows raised ST; AST and TSH are normal", ["ECG", "ST", "AST", "TSH"]),
    ("es", "IAM con ECG y TSH normales", ["IAM", "ECG", "TSH"]),
    ("en", "two ECGs, a pH, mRNA and IgA", ["ECGs", "pH", "mRNA", "IgA"]),
    ("en", "I saw A and Then", []),
    # Ions.
    ("en", "Na+ and K+ fall", ["Na+", "K+"]),
    ("en", "Ca2+, Ca²⁺, Cl- and HCO3-", ["Ca2+", "Ca²⁺", "Cl-", "HCO3-"]),
    ("en", "the Na+/K+ pump", ["Na+", "K+"]),
    ("en", "α and γ globulins", ["α", "γ"]),
    # Drug names of either language, in any case, in the plural, in more words than one.
    ("en", "takes furosemide and LASIX", ["furosemide", "LASIX"]),
    ("es", "toma furosemida y Seguril", ["furosemida", "Seguril"]),
    ("es", "toma Lasix y furosemide", ["Lasix", "furosemide"]),
    ("en", "Heparins and statins", ["Heparins"]),
    ("es", "las heparinas y las penicilinas", ["heparinas", "penicilinas"]),
    ("en", "insulin glargine, MS  Contin", ["insulin glargine", "MS  Contin"]),
    ("es", "con ÁCIDO tranexámico", ["ÁCIDO tranexámico"]),
    ("en", "Toprol-XL and digoxin-specific Fab", ["Toprol-XL", "digoxin"]),
    ("en", "heparinized lines, antidigoxin", []),
]


class TestProtectedSpans:
    @pytest.mark.parametrize(("language", "text", "parts"), PROTECTED)
    def test_what_must_not_be_touched(self, language: str, text: str, parts: list[str]) -> None:
        assert _protected(text, language) == parts

    def test_a_span_is_start_and_end_in_the_text(self) -> None:
        assert protected_spans("Gave 5 mg of Lasix.", "en") == ((5, 9), (13, 18))

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_plain_words_are_free(self, language: str) -> None:
        text = {
            "en": "Which initial measure is most appropriate for these patients?",
            "es": "¿Cuál es la medida inicial más adecuada para estos pacientes?",
        }[language]

        assert protected_spans(text, language) == ()

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_drug_name_is_protected_as_a_whole(self, language: str) -> None:
        broken = [
            term.text
            for term in drug_terms(language)
            if protected_spans(f"({term.text.upper()})", language) != ((1, 1 + len(term.text)),)
        ]

        assert broken == []

    @given(
        st.lists(
            st.one_of(
                st.text(max_size=8),
                st.sampled_from([part for _, text, _ in PROTECTED for part in text.split()]),
            )
        ).map(" ".join),
        st.sampled_from(LANGUAGES),
    )
    def test_spans_are_in_order_apart_and_within_the_text(self, text: str, language: str) -> None:
        bounds = [bound for span in protected_spans(text, language) for bound in span]

        assert bounds == sorted(set(bounds))
        assert all(0 <= bound <= len(text) for bound in bounds)

    @given(st.text(max_size=60), st.sampled_from(LANGUAGES))
    def test_every_digit_is_protected(self, text: str, language: str) -> None:
        covered = {
            index for start, end in protected_spans(text, language) for index in range(start, end)
        }

        assert {index for index, char in enumerate(text) if char in "0123456789"} <= covered


class TestLanguages:
    @pytest.mark.parametrize("read", [drug_terms, sentences, neighbours])
    def test_a_language_without_lists_is_refused(self, read: object) -> None:
        with pytest.raises(UsageError, match="no language of the word lists is called 'fr'"):
            read("fr")  # type: ignore[operator]

    def test_spans_of_a_language_without_lists_are_refused(self) -> None:
        with pytest.raises(UsageError, match="'it'"):
            protected_spans("testo", "it")


DRUG = 'en = ["a"]\nes = ["a"]\nbrand_en = []\nbrand_es = ["B"]\nclass = "c"\n'
SENTENCE = '[[sentence]]\nen = "It is."\nes = "Es."\n'


class TestBadFiles:
    def test_a_sound_file_is_read(self, folder: Path) -> None:
        (folder / "drugs.toml").write_text(f"[[drug]]\n{DRUG}", encoding="utf-8")

        assert [drug.brand["es"] for drug in drugs()] == [("B",)]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (f"[[drug]]\n{DRUG}brand_fr = []\n", r"drugs\.toml: drug 1.*'brand_fr'"),
            (f"[[drug]]\n{DRUG}[[drug]]\nen = ['x']\n", r"drug 2: es and .* missing"),
            (f"[[drugs]]\n{DRUG}", r"no key \(in .*drugs\.toml\) is called 'drugs'"),
            ("drug = 1\n", "drug must be a list of tables"),
            ("drug = [1]\n", "drug 1 must be a table"),
            (f"[[drug]]\n{DRUG}".replace('["a"]', '"a"'), "drug 1: en must be a list"),
            (f"[[drug]]\n{DRUG}".replace('["a"]', "[]"), "drug 1: en must not be empty"),
            (f"[[drug]]\n{DRUG}".replace('["B"]', "[1]"), "drug 1: brand_es must be a text"),
            (f"[[drug]]\n{DRUG}".replace('"B"', '" B"'), "brand_es must be a text without spaces"),
            (f"[[drug]]\n{DRUG}".replace('"c"', "true"), "drug 1: class must be a text"),
            (f"[[drug]]\n{DRUG}routes = 1\n", "drug 1: routes must be a table"),
            (f"[[drug]]\n{DRUG}routes = {{ C = ['oral'] }}\n", r"drug 1: routes\) is called 'C'"),
            (f"[[drug]]\n{DRUG}routes = {{ B = ['orl'] }}\n", r"routes of B\) is called 'orl'"),
            (f"[[drug]]\n{DRUG}routes = {{ B = [] }}\n", "routes of B must not be empty"),
            ("[[drug]\n", r"drugs\.toml: not TOML"),
        ],
    )
    def test_a_bad_drug_is_refused_with_its_place(
        self, folder: Path, content: str, says: str
    ) -> None:
        (folder / "drugs.toml").write_text(content, encoding="utf-8")

        with pytest.raises(UsageError, match=says):
            drugs()

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (SENTENCE + 'fr = "Est."\n', "sentence 1.*'fr'"),
            ('[[sentence]]\nen = "It is."\n', "sentence 1: es missing"),
            (SENTENCE.replace('"It is."', "1"), "sentence 1: en must be a text"),
        ],
    )
    def test_a_bad_sentence_is_refused_with_its_place(
        self, folder: Path, content: str, says: str
    ) -> None:
        (folder / "sentences.toml").write_text(content, encoding="utf-8")

        with pytest.raises(UsageError, match=says):
            sentences("en")

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ('[en]\na = ["b"]\n', "es missing"),
            ('[en]\na = ["b"]\n[es]\n[fr]\n', r"keyboards\.toml.*'fr'"),
            ("en = 1\nes = 1\n", r"\[en\] must be a table"),
            ('[en]\na = ["b", "1"]\n[es]\n', r"\[en\]: a: '1' is not one lower-case letter"),
            ('[en]\nA = ["b"]\n[es]\n', "A: 'A' is not one lower-case letter"),
            ('[en]\na = "b"\n[es]\n', r"\[en\]: a must be a list"),
            ("[en]\na = []\n[es]\n", r"\[en\]: a must not be empty"),
        ],
    )
    def test_a_bad_keyboard_is_refused_with_its_place(
        self, folder: Path, content: str, says: str
    ) -> None:
        (folder / "keyboards.toml").write_text(content, encoding="utf-8")

        with pytest.raises(UsageError, match=says):
            neighbours("en")

    def test_a_list_that_is_not_there_is_missing(self, folder: Path) -> None:
        with pytest.raises(MissingError, match=r"drugs\.toml: cannot be read"):
            drugs()
