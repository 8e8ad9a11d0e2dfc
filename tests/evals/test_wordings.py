"""What a model is told of the form of its answer, how long it may get, and which texts are valid."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from outlines_core import Index, Vocabulary

from medlocal.errors import UsageError
from medlocal.evals.formats import FORMATS, Format
from medlocal.evals.items import Item
from medlocal.evals.perturb import Variant, apply
from medlocal.evals.wordings import mark, told

ITEM = Item(
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
LANGUAGES = ("en", "es")
LEVELS = ("none", "mentioned", "example")
TRANSFORMS = (
    "next_label", "text_not_label", "reversed_text", "upper_text", "label_in_words",
    "sorted_wrong_labels", "append(!)", "append(-END)", "labels(bullets)", "negated",
)  # fmt: skip
EVERY_FORM = list(product(FORMATS, LANGUAGES))


def made(name: str, options: tuple[str, ...] = ITEM.options) -> Variant:
    return apply(replace(ITEM, options=options), name)


def instruction(name: str, form: str = "letter", language: str = "en") -> str:
    return FORMATS[form].instruction(made(name), language)


class TestLevels:
    @pytest.mark.parametrize(("form", "language"), EVERY_FORM)
    def test_none_says_nothing_of_the_form(self, form: str, language: str) -> None:
        expected = {"en": "Answer the question.", "es": "Responde a la pregunta."}
        assert instruction("instruction(none)", form, language) == expected[language]

    @pytest.mark.parametrize(
        ("form", "en", "es"),
        [
            (
                "letter",
                "Answer with the letter of the correct option.",
                "Responde con la letra de la opción correcta.",
            ),
            (
                "phrase",
                'Answer with a sentence that says "The answer is" and then the letter of the correct'
                " option.",
                "Responde con una frase que diga «La respuesta es» y después la letra de la opción"
                " correcta.",
            ),
            (
                "json",
                'Answer in JSON, with a key "answer" that holds the letter of the correct option.',
                "Responde en JSON, con una clave «answer» que contenga la letra de la opción"
                " correcta.",
            ),
            (
                "tag",
                'Answer in XML, with a tag "answer" that holds the letter of the correct option.',
                "Responde en XML, con una etiqueta «answer» que contenga la letra de la opción"
                " correcta.",
            ),
            (
                "text",
                "Answer with the text of the correct option.",
                "Responde con el texto de la opción correcta.",
            ),
            (
                "reasoned",
                'Reason briefly, then finish with a line that says "Answer:" and then the letter of'
                " the correct option.",
                "Razona brevemente y termina con una línea que diga «Respuesta:» y después la letra"
                " de la opción correcta.",
            ),
        ],
    )
    def test_mentioned_names_the_form_and_does_not_show_it(
        self, form: str, en: str, es: str
    ) -> None:
        assert instruction("instruction(mentioned)", form, "en") == en
        assert instruction("instruction(mentioned)", form, "es") == es

    @pytest.mark.parametrize(
        ("form", "en", "es"),
        [
            ("letter", "X", "X"),
            ("phrase", "The answer is X", "La respuesta es X"),
            ("json", '{"answer": "X"}', '{"answer": "X"}'),
            ("tag", "<answer>X</answer>", "<answer>X</answer>"),
            ("reasoned", "Answer: X", "Respuesta: X"),
        ],
    )
    def test_an_example_is_added_to_what_is_mentioned(self, form: str, en: str, es: str) -> None:
        assert instruction("instruction(example)", form, "en") == (
            instruction("instruction(mentioned)", form, "en")
            + f"\nFor example, if X were the letter of the correct option:\n{en}"
        )
        assert instruction("instruction(example)", form, "es") == (
            instruction("instruction(mentioned)", form, "es")
            + f"\nPor ejemplo, si X representara la letra de la opción correcta:\n{es}"
        )

    @pytest.mark.parametrize("labels", ["", "+labels(bullets)", "+labels(digits)"])
    def test_the_example_of_a_text_is_the_text_of_no_option(self, labels: str) -> None:
        assert instruction(f"instruction(example){labels}", "text", "en").endswith(
            '\nFor example, if the text of the correct option were "Blue":\nBlue'
        )
        assert instruction(f"instruction(example){labels}", "text", "es").endswith(
            "\nPor ejemplo, si el texto de la opción correcta fuera «Azul»:\nAzul"
        )

    @pytest.mark.parametrize(
        ("name", "en", "es"),
        [
            (
                "reversed_text",
                'if the text of the correct option were "Blue":\neulB',
                "si el texto de la opción correcta fuera «Azul»:\nluzA",
            ),
            (
                "upper_text",
                'if the text of the correct option were "Blue":\nBLUE',
                "si el texto de la opción correcta fuera «Azul»:\nAZUL",
            ),
            (
                "text_not_label",
                'if the text of the correct option were "Blue":\nBlue',
                "si el texto de la opción correcta fuera «Azul»:\nAzul",
            ),
            (
                "labels(bullets)",
                'if the text of the correct option were "Blue":\nBlue',
                "si el texto de la opción correcta fuera «Azul»:\nAzul",
            ),
            (
                "label_in_words",
                "if the correct option were the eleventh one:\neleven",
                "si la opción correcta fuera la undécima:\nonce",
            ),
            (
                "append(-END)",
                "if X were the letter of the correct option:\nX-END",
                "si X representara la letra de la opción correcta:\nX-END",
            ),
            (
                "sorted_wrong_labels",
                "if X and Z were the letters of all the incorrect options, in order, with a comma and"
                " a space between them:\nX, Z",
                "si X y Z representaran las letras de todas las opciones incorrectas, por orden, con"
                " una coma y un espacio de separación:\nX, Z",
            ),
            (
                "next_label",
                "if X were the letter of the option after the correct one (after D comes A):\nX",
                "si X representara la letra de la opción que viene después de la correcta (después de"
                " D viene A):\nX",
            ),
        ],
    )
    def test_an_example_shows_what_is_to_be_made_of_the_answer(
        self, name: str, en: str, es: str
    ) -> None:
        asked = f"instruction(example)+{name}"
        assert instruction(asked, "letter", "en").endswith(f"\nFor example, {en}")
        assert instruction(asked, "letter", "es").endswith(f"\nPor ejemplo, {es}")

    def test_an_example_of_what_is_made_stands_in_the_form(self) -> None:
        assert instruction("instruction(example)+reversed_text", "json").endswith(
            '\n{"answer": "eulB"}'
        )
        assert instruction("instruction(example)+negated", "tag").endswith(
            "\n<answer>X, Z</answer>"
        )
        assert instruction("instruction(example)+label_in_words", "phrase", "es").endswith(
            "\nLa respuesta es once"
        )

    def test_strict_demands_the_form(self) -> None:
        assert instruction("original", "json", "en") == (
            'Answer with only this JSON, X being the letter of the correct option:\n{"answer": "X"}'
        )
        assert instruction("original", "reasoned", "es") == (
            "Razona brevemente, en no más de tres frases. Termina después con una última línea que"
            " tenga exactamente esta forma, siendo X la letra de la opción correcta:\nRespuesta: X"
        )

    @pytest.mark.parametrize(("form", "language"), EVERY_FORM)
    def test_each_level_says_more_than_the_one_before(self, form: str, language: str) -> None:
        texts = [instruction(f"instruction({level})", form, language) for level in LEVELS]
        texts.append(instruction("original", form, language))
        assert len(set(texts)) == 4
        assert not re.search(r"JSON|XML|letter|letra|text|line|línea|[{<:\"«]", texts[0])
        assert texts[2].startswith(texts[1])


class TestWords:
    @pytest.mark.parametrize(
        ("name", "en", "es"),
        [
            ("original", "the letter of", "la letra de"),
            ("labels(lower)", "the letter of", "la letra de"),
            ("labels(greek)", "the letter of", "la letra de"),
            ("labels(digits)", "the number of", "el número de"),
            ("labels(roman)", "the Roman numeral of", "el número romano de"),
            ("labels(roman)+append(!)", "the Roman numeral of", "el número romano de"),
            ("labels(digits)+sorted_wrong_labels", "the numbers of", "los números de"),
            (
                "labels(roman)+sorted_wrong_labels",
                "the Roman numerals of",
                "los números romanos de",
            ),
            ("negated", "the letters of", "las letras de"),
        ],
    )
    def test_labels_are_called_what_they_are(self, name: str, en: str, es: str) -> None:
        assert f"Answer with only {en} " in instruction(name)
        assert f"Responde solo con {es} " in instruction(name, "letter", "es")

    def test_where_there_are_bullets_no_label_is_spoken_of(self) -> None:
        assert instruction("labels(bullets)", "text", "en").endswith("without the bullet.")
        assert instruction("labels(bullets)", "text", "es").endswith("sin la viñeta.")

    @pytest.mark.parametrize(
        ("name", "en", "es"),
        [
            (
                "next_label",
                "the letter of the option after the correct one (after D comes A)",
                "la letra de la opción que viene después de la correcta (después de D viene A)",
            ),
            (
                "text_not_label",
                "the text of the correct option, copied exactly",
                "el texto de la opción correcta, copiado exactamente",
            ),
            (
                "reversed_text",
                "the text of the correct option written backwards, character by character",
                "el texto de la opción correcta escrito al revés, carácter a carácter",
            ),
            (
                "upper_text",
                "the text of the correct option in capital letters",
                "el texto de la opción correcta en mayúsculas",
            ),
            (
                "label_in_words",
                "the position of the correct option as a word (one, two, three…)",
                "la posición de la opción correcta escrita con letras (uno, dos, tres…)",
            ),
            (
                "sorted_wrong_labels",
                "the letters of all the incorrect options, in order, with a comma and a space"
                " between them",
                "las letras de todas las opciones incorrectas, por orden, con una coma y un espacio"
                " de separación",
            ),
            (
                "append(-END)",
                "the letter of the correct option with -END directly behind it",
                "la letra de la opción correcta con -END justo detrás, sin espacio",
            ),
            (
                "negated",
                "the letters of all the options asked for, in order, with a comma and a space"
                " between them",
                "las letras de todas las opciones que se piden, por orden, con una coma y un espacio"
                " de separación",
            ),
        ],
    )
    def test_what_is_asked_for_stands_in_every_form(self, name: str, en: str, es: str) -> None:
        assert instruction(name) == f"Answer with only {en}."
        assert instruction(name, "letter", "es") == f"Responde solo con {es}."
        assert instruction(name, "json") == (
            f'Answer with only this JSON, X being {en}:\n{{"answer": "X"}}'
        )
        assert instruction(name, "tag", "es") == (
            f"Responde solo con este XML, siendo X {es}:\n<answer>X</answer>"
        )

    def test_what_is_asked_for_closes_the_sentence_where_the_form_is_mentioned(self) -> None:
        assert instruction("instruction(mentioned)+text_not_label", "json") == (
            'Answer in JSON, with a key "answer" that holds the text of the correct option, copied'
            " exactly."
        )
        assert instruction("instruction(mentioned)+sorted_wrong_labels", "tag", "es") == (
            "Responde en XML, con una etiqueta «answer» que contenga las letras de todas las opciones"
            " incorrectas, por orden, con una coma y un espacio de separación."
        )

    @pytest.mark.parametrize(("form", "language"), EVERY_FORM)
    @pytest.mark.parametrize("name", ["original", *(f"instruction({level})" for level in LEVELS)])
    def test_no_instruction_names_a_label(self, name: str, form: str, language: str) -> None:
        assert not re.search(r"\b[A-D]\b", instruction(name, form, language))

    @pytest.mark.parametrize("language", LANGUAGES)
    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_a_transformation_names_labels_only_to_say_which_comes_after_the_last(
        self, name: str, language: str
    ) -> None:
        for form in FORMATS.values():
            if not form.unfit(made(name), "free"):
                text = form.instruction(made(name), language)
                text = re.sub(r"\((?:after D comes A|después de D viene A)\)", "", text)
                assert not re.search(r"\b[A-D]\b|Sodium|muidoS", text), text

    def test_what_stands_for_the_answer_is_not_what_is_written_behind_it(self) -> None:
        assert instruction("append(X)", "tag").endswith(":\n<answer>Z</answer>")
        assert mark(("AX", "BX")) == "Z"
        assert mark(("A", "B"), "X") == "Z"

    @pytest.mark.parametrize("name", ["labels(roman)", "labels(roman)+append(!)"])
    def test_beside_roman_numerals_no_x_stands_for_the_answer(self, name: str) -> None:
        text = instruction(name, "tag")
        assert ", Z being the Roman numeral of the correct option" in text

    def test_nor_does_it_in_an_example_of_a_list(self) -> None:
        text = instruction("labels(roman)+sorted_wrong_labels", "tag")
        assert text.endswith("<answer>Z</answer>")

    def test_a_mark_that_is_nowhere_free_is_a_question_mark(self) -> None:
        assert mark(("xz", "zx")) == "?"

    def test_a_language_that_nothing_is_written_in_is_refused(self) -> None:
        with pytest.raises(UsageError, match="'fr'"):
            told(made("original"), "letter", "fr", {})


class TestLimit:
    """16 tokens for a label in "letter", 20 in a frame, 256 with reasons."""

    @pytest.mark.parametrize(("form", "limit"), [("letter", 16), ("json", 20), ("reasoned", 256)])
    @pytest.mark.parametrize(
        "name", ["original", "next_label", "append(!)", "instruction(mentioned)"]
    )
    def test_a_label_has_the_room_of_its_form(self, name: str, form: str, limit: int) -> None:
        assert FORMATS[form].limit(made(name)) == limit

    def test_an_options_text_has_two_tokens_more_for_every_three_bytes(self) -> None:
        """Of 32 bytes all but two: 30 · 2 / 3 = 20 more than 16; ñ has two bytes."""
        variant = made("text_not_label", ("ñ" * 16, "b", "c", "d"))
        assert FORMATS["letter"].limit(variant) == 36
        assert FORMATS["tag"].limit(variant) == 40

    @pytest.mark.parametrize("name", ["negated", "labels(bullets)"])
    def test_who_is_not_told_of_the_form_has_the_room_of_a_sentence(self, name: str) -> None:
        variant = made(f"{name}+instruction(none)")
        assert {FORMATS[form].limit(variant) for form in ("letter", "phrase", "json", "tag")} == {
            64
        }

    @pytest.mark.parametrize(
        ("length", "limit"), [(1, 64), (96, 64), (98, 65), (224, 128), (541, 286), (3000, 320)]
    )
    def test_an_options_text_as_it_stands_has_a_token_for_two_bytes(
        self, length: int, limit: int
    ) -> None:
        """Half of its bytes and 16 more, from 64 to 320."""
        for name in ("original", "instruction(none)", "text_not_label"):
            variant = made(name, ("a" * length, "b", "c", "d"))
            assert FORMATS["text"].limit(variant) == limit

    def test_a_list_has_room_for_all_labels(self) -> None:
        """ "A, B, C, D" has ten bytes: 8 · 2 / 3 is 5."""
        assert FORMATS["letter"].limit(made("negated")) == 21

    @pytest.mark.parametrize(("length", "limit"), [(264, 190), (267, 192), (3000, 192)])
    def test_a_long_text_is_bounded(self, length: int, limit: int) -> None:
        variant = made("upper_text", ("a" * length, "b", "c", "d"))
        assert FORMATS["letter"].limit(variant) == limit

    @given(st.sampled_from(("original", *TRANSFORMS)), st.integers(1, 900))
    def test_reasoning_never_has_less_than_it_has_for_a_label(self, name: str, size: int) -> None:
        options = ("ab" * size, "bc" * (size + 1), "cd" * (size + 2), "de" * (size + 3))
        assert FORMATS["reasoned"].limit(made(name, options)) == 256


class TestUnfit:
    @pytest.mark.parametrize("name", ["reversed_text", "append(!)", "negated", "label_in_words"])
    def test_the_label_arm_has_single_labels_only(self, name: str) -> None:
        for form in ("letter", "phrase", "json", "tag"):
            assert FORMATS[form].unfit(made(name), "label") == (
                "label scores single labels, and the answer is none here"
            )
        assert FORMATS["letter"].unfit(made(name), "free") == ""

    @pytest.mark.parametrize("name", ["original", "next_label", "labels(roman)", "upper"])
    def test_the_label_arm_takes_what_is_answered_by_a_label(self, name: str) -> None:
        assert FORMATS["json"].unfit(made(name), "label") == ""

    @pytest.mark.parametrize("name", ["next_label", "upper_text", "sorted_wrong_labels", "negated"])
    def test_the_form_of_a_text_takes_nothing_else(self, name: str) -> None:
        assert FORMATS["text"].unfit(made(name), "grammar") == (
            "the format asks for an option's text, the variant for something else"
        )

    @pytest.mark.parametrize("name", ["original", "text_not_label", "labels(bullets)"])
    def test_the_form_of_a_text_takes_texts(self, name: str) -> None:
        assert [FORMATS["text"].unfit(made(name), arm) for arm in ("free", "cloze")] == ["", ""]

    def test_an_arm_that_the_form_has_no_place_for_is_named(self) -> None:
        assert FORMATS["reasoned"].unfit(made("original"), "label") == (
            "label scores the labels, which have no fixed place in this format"
        )
        assert FORMATS["letter"].unfit(made("original"), "cloze") == (
            "cloze scores the options' words, which this format does not ask for"
        )


BYTES = Vocabulary(256, {bytes([value]): [value] for value in range(256)})


def language_of(index: Index, state: int, begun: bytes = b"") -> Iterator[str]:
    """Every text that an automaton accepts; there must be finitely many."""
    if index.is_final_state(state):
        yield begun.decode()
    for token in index.get_allowed_tokens(state):
        following = index.get_next_state(state, token) if token < 256 else None
        if following is not None:
            yield from language_of(index, following, begun + bytes([token]))


def accepted(form: Format, variant: Variant, language: str) -> list[str]:
    index = Index(form.pattern(variant, language), BYTES)
    return list(language_of(index, index.get_initial_state()))


words = st.text(st.sampled_from('ab.ñ"\\ (|'), min_size=1, max_size=4).filter(str.strip)


class TestTexts:
    """Outlines' automaton of the pattern is the oracle: it is walked to every text that it accepts."""

    @settings(deadline=None)
    @given(
        st.sampled_from(["letter", "phrase", "json", "tag"]),
        st.sampled_from(
            ["original", "next_label", "text_not_label", "sorted_wrong_labels", "append(#)"]
        ),
        st.lists(words, min_size=2, max_size=4, unique=True),
        st.sampled_from(LANGUAGES),
    )
    def test_they_are_all_that_the_pattern_matches(
        self, name: str, asked: str, options: list[str], language: str
    ) -> None:
        assume(asked != "sorted_wrong_labels" or len(options) > 2)
        form, variant = FORMATS[name], apply(replace(ITEM, options=tuple(options), gold=0), asked)
        texts = form.texts(variant, language)
        assert sorted(texts) == sorted(accepted(form, variant, language))
        assert len(texts) == len(options)
        assert all(form.is_valid(text, variant, language) for text in texts)

    @pytest.mark.parametrize("num_options", [2, 3, 4, 5, 6])
    @pytest.mark.parametrize(("name", "language"), [("letter", "en"), ("json", "es")])
    def test_lists_are_all_subsets_but_the_empty_one(
        self, name: str, language: str, num_options: int
    ) -> None:
        options = ("Gout", "Yaws", "Zoster", "Plague", "Lupus", "Ictus")[:num_options]
        form, variant = FORMATS[name], made("negated", options)
        texts = form.texts(variant, language)
        assert len(set(texts)) == len(texts) == 2**num_options - 1
        assert set(texts) == set(accepted(form, variant, language))

    @settings(deadline=None)
    @given(st.lists(words, min_size=2, max_size=4))
    def test_options_that_share_their_words_are_one_text(self, options: list[str]) -> None:
        variant = apply(replace(ITEM, options=tuple(options), gold=0))
        texts = FORMATS["text"].texts(variant, "en")
        assert len(texts) == len(set(options))
        assert set(texts) == set(accepted(FORMATS["text"], variant, "en")) == set(options)

    def test_reasoning_cannot_be_listed(self) -> None:
        assert FORMATS["reasoned"].texts(made("original"), "en") == ()


def test_an_answer_whose_form_is_not_mentioned_may_be_a_sentence() -> None:
    item = Item("1", "d", "test", "en", "Which?", ("one", "two"), 0, "s", "d/1")
    untold, told = apply(item, "instruction(none)"), apply(item, "instruction(mentioned)")
    assert [(FORMATS[name].limit(told), FORMATS[name].limit(untold)) for name in FORMATS] == [
        (16, 64),
        (20, 64),
        (20, 64),
        (20, 64),
        (64, 64),
        (256, 256),
    ]
