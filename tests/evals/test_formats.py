"""The six formats: their wording, their grammar in both engines, and what strict reading returns."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outlines_core import Index, Vocabulary

from medlocal.errors import UsageError
from medlocal.evals.formats import FORMATS, Format
from medlocal.evals.items import LETTERS, Item
from medlocal.evals.perturb import Variant, apply

OPTIONS = ("Furosemide", "Crystalloid", "Nitroglycerin", "Metoprolol")
LABEL_SETS = (
    tuple(LETTERS),
    tuple("abcdefghij"),
    tuple("1234567890"),
    tuple(f"({letter})" for letter in LETTERS),
    tuple(f"{letter}." for letter in LETTERS),
    tuple(f"[{letter}]" for letter in LETTERS),
    ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x"),
    tuple("αβγδεζηθικ"),
    ("•", "◦", "▪", "‣", "⁃", "★", "■", "●", "○", "♦"),
    (".*", "\\d", "a|b", "$", '"', "{", "^", "(?", "é", "a b"),
)


def make_variant(
    options: tuple[str, ...] = OPTIONS, labels: tuple[str, ...] | None = None, gold: int = 2
) -> Variant:
    item = Item("1", "made", "test", "en", "Which?", options, gold, "cardiology", "made/1")
    variant = apply(item)
    return (
        variant if labels is None else dataclasses.replace(variant, labels=labels, replies=labels)
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
languages = st.sampled_from(("en", "es"))
forms = st.sampled_from(list(FORMATS.values()))


@st.composite
def variants(draw: st.DrawFn) -> Variant:
    options = tuple(draw(st.lists(texts, min_size=2, max_size=10, unique=True)))
    labels = draw(st.sampled_from(LABEL_SETS))
    gold = draw(st.integers(0, len(options) - 1))
    return make_variant(options, labels[: len(options)], gold)


BYTES = Vocabulary(256, {bytes([value]): [value] for value in range(256)})
"""A token for every byte: with it, Outlines' core accepts texts and not token boundaries."""


def core_accepts(index: Index, text: str) -> bool:
    state = index.get_initial_state()
    for value in text.encode("utf-8"):
        state = index.get_next_state(state, value)
        if state is None:
            return False
    return bool(index.is_final_state(state))


def test_formats_are_registered_by_name_in_the_order_of_the_study() -> None:
    assert list(FORMATS) == ["letter", "phrase", "json", "tag", "text", "reasoned"]
    assert all(form.name == name for name, form in FORMATS.items())


@pytest.mark.parametrize(
    ("name", "max_tokens", "arms"),
    [
        ("letter", 16, {"free", "grammar", "label"}),
        ("phrase", 20, {"free", "grammar", "label"}),
        ("json", 20, {"free", "grammar", "label"}),
        ("tag", 20, {"free", "grammar", "label"}),
        ("text", 64, {"free", "grammar", "cloze"}),
        ("reasoned", 256, {"free", "grammar"}),
    ],
)
def test_a_format_has_its_length_and_its_arms(name: str, max_tokens: int, arms: set[str]) -> None:
    assert FORMATS[name].max_tokens == max_tokens
    assert FORMATS[name].arms == arms


@pytest.mark.parametrize(
    ("name", "language", "expected"),
    [
        ("letter", "en", "C"),
        ("letter", "es", "C"),
        ("phrase", "en", "The answer is C"),
        ("phrase", "es", "La respuesta es C"),
        ("json", "en", '{"answer": "C"}'),
        ("json", "es", '{"answer": "C"}'),
        ("tag", "en", "<answer>C</answer>"),
        ("tag", "es", "<answer>C</answer>"),
        ("text", "en", "Nitroglycerin"),
        ("text", "es", "Nitroglycerin"),
        (
            "reasoned",
            "en",
            "The option that best answers the question is this one: Nitroglycerin\nAnswer: C",
        ),
        (
            "reasoned",
            "es",
            "La opción que mejor responde a la pregunta es esta: Nitroglycerin\nRespuesta: C",
        ),
    ],
)
def test_the_gold_answer_is_rendered(name: str, language: str, expected: str) -> None:
    assert FORMATS[name].render(make_variant(), language) == expected


@settings(deadline=None)
@given(forms, variants(), languages)
def test_a_rendered_answer_is_valid_and_names_the_gold(
    form: Format, variant: Variant, language: str
) -> None:
    text = form.render(variant, language)
    assert form.is_valid(text, variant, language)
    assert form.read(text, variant, language) == variant.gold


@settings(deadline=None)
@given(forms, variants(), languages)
def test_a_place_opens_every_rendered_answer(form: Format, variant: Variant, language: str) -> None:
    place = form.place(language)
    if place is not None:
        assert form.render(variant, language).startswith(place)
        assert place == place.rstrip()


@pytest.mark.parametrize(
    ("name", "en", "es"),
    [
        ("letter", "", ""),
        ("phrase", "The answer is", "La respuesta es"),
        ("json", '{"answer": "', '{"answer": "'),
        ("tag", "<answer>", "<answer>"),
        ("text", None, None),
        ("reasoned", None, None),
    ],
)
def test_the_place_of_the_answer(name: str, en: str | None, es: str | None) -> None:
    assert (FORMATS[name].place("en"), FORMATS[name].place("es")) == (en, es)


@settings(deadline=None, max_examples=60)
@given(st.data(), forms, variants(), languages)
def test_both_engines_accept_the_same_texts(
    data: st.DataObject, form: Format, variant: Variant, language: str
) -> None:
    index = Index(form.pattern(variant, language), BYTES)
    valid = [
        form.render(dataclasses.replace(variant, gold=slot), language)
        for slot in range(len(variant.labels))
    ]
    text = data.draw(st.sampled_from(valid))
    at = data.draw(st.integers(0, len(text)))
    inserted = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
    changed = text[:at] + inserted + text[at + data.draw(st.integers(0, 2)) :]
    for candidate in (*valid, changed, inserted, text + "\n", text[:at]):
        assert core_accepts(index, candidate) == form.is_valid(candidate, variant, language)


@pytest.mark.parametrize(
    ("name", "language", "text"),
    [
        ("letter", "en", "c"),
        ("letter", "en", "C\n"),
        ("letter", "en", " C"),
        ("letter", "en", "E"),
        ("letter", "en", ""),
        ("phrase", "en", "The answer is C."),
        ("phrase", "es", "The answer is C"),
        ("phrase", "en", "La respuesta es C"),
        ("json", "en", '{"answer":"C"}'),
        ("json", "en", '{"answer":  "C"}'),
        ("json", "es", '{"respuesta": "C"}'),
        ("json", "en", '{"answer": "E"}'),
        ("tag", "en", "<answer> C </answer>"),
        ("tag", "es", "<respuesta>C</respuesta>"),
        ("text", "en", "nitroglycerin"),
        ("text", "en", "Nitroglycerin."),
        ("text", "en", "C"),
        ("reasoned", "en", "Answer: C"),
        ("reasoned", "en", "\nAnswer: C"),
        ("reasoned", "en", "Clear lungs. Answer: C"),
        ("reasoned", "en", "Clear lungs.\nAnswer: C\n"),
        ("reasoned", "en", "Clear lungs.\nAnswer: C\nAnswer: B"),
        ("reasoned", "en", "Clear lungs.\nRespuesta: C"),
        ("reasoned", "es", "Pulmones limpios.\nAnswer: C"),
    ],
)
def test_a_text_that_is_nearly_in_the_form_is_not_valid(
    name: str, language: str, text: str
) -> None:
    form = FORMATS[name]
    assert not form.is_valid(text, make_variant(), language)
    assert form.read(text, make_variant(), language) is None


def test_reasoning_may_have_empty_lines_and_words_that_begin_like_the_answer() -> None:
    text = "Clear lungs.\n\nAnswering needs care.\nAnswer\nAn\nAnswer: D"
    assert FORMATS["reasoned"].read(text, make_variant(), "en") == 3


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))),
    languages,
)
def test_the_closing_may_follow_any_reasoning(lines: list[str], language: str) -> None:
    form, variant = FORMATS["reasoned"], make_variant()
    reasoning = "\n".join(["Well", *lines])
    closing = form.closing(language)
    opened = any(line.startswith(closing.strip()) for line in lines)
    assert form.is_valid(f"{reasoning}{closing} B", variant, language) == (not opened)


def test_only_reasoning_needs_a_closing() -> None:
    closings = {name: (form.closing("en"), form.closing("es")) for name, form in FORMATS.items()}
    assert closings.pop("reasoned") == ("\nAnswer:", "\nRespuesta:")
    assert set(closings.values()) == {("", "")}


@pytest.mark.timeout(10)  # a pattern that repeats the rest of a line takes minutes to compile
@pytest.mark.parametrize("language", ["en", "es"])
def test_the_automaton_of_reasoning_is_small(language: str) -> None:
    pattern = FORMATS["reasoned"].pattern(make_variant(), language)
    assert len(Index(pattern, BYTES).get_transitions()) < 150


def test_a_text_that_begins_another_does_not_hide_it_from_the_grammar() -> None:
    variant = make_variant(
        ("Aspirin", "Aspirin and clopidogrel", "Aspirin and", "Aspirin, low dose")
    )
    index = Index(FORMATS["text"].pattern(variant, "en"), BYTES)
    assert all(core_accepts(index, option) for option in variant.options)


def test_words_that_two_options_share_are_valid_and_name_neither() -> None:
    form, variant = FORMATS["text"], make_variant(("Rest", "Surgery", "Rest"))
    assert form.is_valid("Rest", variant, "en")
    assert form.read("Rest", variant, "en") is None
    assert form.read("Surgery", variant, "en") == 1


def test_a_label_is_escaped_inside_json() -> None:
    variant = make_variant(labels=('"', "\\", "C", "D"), gold=0)
    assert FORMATS["json"].render(variant, "en") == r'{"answer": "\""}'
    assert FORMATS["json"].read(r'{"answer": "\\"}', variant, "en") == 1


@pytest.mark.parametrize(
    ("name", "language", "expected"),
    [
        ("letter", "en", "Answer with only the letter of the correct option."),
        ("letter", "es", "Responde solo con la letra de la opción correcta."),
        (
            "phrase",
            "en",
            "Answer with exactly this sentence, X being the letter of the correct option:\n"
            "The answer is X",
        ),
        (
            "phrase",
            "es",
            "Responde exactamente con esta frase, siendo X la letra de la opción correcta:\n"
            "La respuesta es X",
        ),
        (
            "json",
            "en",
            "Answer with only this JSON, X being the letter of the correct option:\n"
            '{"answer": "X"}',
        ),
        (
            "json",
            "es",
            "Responde solo con este JSON, siendo X la letra de la opción correcta:\n"
            '{"answer": "X"}',
        ),
        (
            "tag",
            "en",
            "Answer with only this XML, X being the letter of the correct option:\n"
            "<answer>X</answer>",
        ),
        (
            "tag",
            "es",
            "Responde solo con este XML, siendo X la letra de la opción correcta:\n"
            "<answer>X</answer>",
        ),
        (
            "text",
            "en",
            "Answer with only the text of the correct option, copied exactly, without the letter.",
        ),
        (
            "text",
            "es",
            "Responde solo con el texto de la opción correcta, copiado exactamente, sin la letra.",
        ),
        (
            "reasoned",
            "en",
            "Reason briefly, in no more than three sentences. Then finish with a last line in exactly "
            "this form, X being the letter of the correct option:\nAnswer: X",
        ),
        (
            "reasoned",
            "es",
            "Razona brevemente, en no más de tres frases. Termina después con una última línea que "
            "tenga exactamente esta forma, siendo X la letra de la opción correcta:\nRespuesta: X",
        ),
    ],
)
def test_an_instruction_names_the_exact_form(name: str, language: str, expected: str) -> None:
    assert FORMATS[name].instruction(make_variant(), language) == expected


@pytest.mark.parametrize(
    ("labels", "language", "expected"),
    [
        (("1", "2", "3", "4"), "en", "only the number of the correct option."),
        (("5", "6", "7", "8"), "es", "solo con el número de la opción correcta."),
        (("(A)", "(B)", "(C)", "(D)"), "en", "only the label of the correct option."),
        (("i", "ii", "iii", "iv"), "es", "solo con el número romano de la opción correcta."),
    ],
)
def test_an_instruction_calls_the_labels_what_they_are(
    labels: tuple[str, ...], language: str, expected: str
) -> None:
    instruction = FORMATS["letter"].instruction(make_variant(labels=labels), language)
    assert instruction.endswith(expected)


@pytest.mark.parametrize(
    ("labels", "mark"),
    [
        (("A", "B", "C", "D"), "X"),
        (("i", "v", "ix", "x"), "Z"),
        (("W", "X", "Y", "V"), "Z"),
        (("w", "x", "y", "z"), "?"),
    ],
)
def test_the_placeholder_is_never_a_label(labels: tuple[str, ...], mark: str) -> None:
    instruction = FORMATS["tag"].instruction(make_variant(labels=labels), "en")
    assert f", {mark} being the " in instruction
    assert instruction.endswith(f":\n<answer>{mark}</answer>")


@settings(deadline=None)
@given(forms, variants(), languages)
def test_an_instruction_does_not_depend_on_the_gold(
    form: Format, variant: Variant, language: str
) -> None:
    other = dataclasses.replace(variant, gold=0)
    assert form.instruction(variant, language) == form.instruction(other, language)


def test_the_rationale_of_an_item_is_not_shown() -> None:
    variant = make_variant()
    item = dataclasses.replace(variant.item, rationale="It lowers preload.")
    shown = FORMATS["reasoned"].render(dataclasses.replace(variant, item=item), "en")
    assert "preload" not in shown


@pytest.mark.parametrize("name", [*FORMATS])
def test_a_language_that_no_format_speaks_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="'fr'"):
        FORMATS[name].instruction(make_variant(), "fr")


def test_outlines_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, medlocal.evals.formats; sys.exit('outlines' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
