"""The written prompts show the whole question in both languages and leave the form alone."""

import re
import string
from pathlib import Path

import pytest

from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item
from medlocal.evals.prompts import Message, Prompt, build_messages, load_prompts
from medlocal.evals.variant import original

PROMPTS = load_prompts(Path(__file__).parents[2] / "benchmarks" / "prompts")
LANGUAGES = ("en", "es")
STYLES = tuple(style for language, style in PROMPTS if language == "en")

ITEMS = {
    "en": Item(
        id="1",
        dataset="demo",
        split="test",
        language="en",
        stem="Which ion is the most abundant one outside of cells?",
        options=("Potassium", "Sodium", "Calcium"),
        gold=1,
        subject="physiology",
        group="demo/1",
        context="Fluids inside and outside of cells differ.",
    ),
    "es": Item(
        id="1",
        dataset="demo",
        split="test",
        language="es",
        stem="¿Cuál es el ion más abundante fuera de las células?",
        options=("Potasio", "Sodio", "Calcio"),
        gold=1,
        subject="fisiología",
        group="demo/1",
        context="Los líquidos de dentro y de fuera de las células son distintos.",
    ),
}

FORM_WORDS = re.compile(
    # What an answer looks like,
    r"\b(letters?|letras?|labels?|etiquetas?|numbers?|números?|digits?|dígitos?|json|xml|html|tags?"
    r"|words?|palabras?|sentences?|frases?|lines?|líneas?|format\w*|capitals?|mayúsculas"
    # what is to be said beside it,
    r"|brief\w*|brev\w*|reasons?|reasoning|razon\w*|expl[ai]\w*|justif\w*|steps?|pasos?"
    # and how it is to be given.
    r"|answer with|respond with|reply with|(?:responde|contesta) con|cop(?:y|ia)\w*)\b",
    re.IGNORECASE,
)
PICKING = re.compile(
    r"\b(choose|pick|select|mark|elige|escoge|selecciona|señala|marca)\b", re.IGNORECASE
)


def words_of(prompt: Prompt) -> str:
    """All that a prompt says itself."""
    templates = (prompt.question, prompt.with_context, prompt.option, prompt.user)
    said = [literal for text in templates for literal, *_ in string.Formatter().parse(text)]
    return "\n".join((prompt.system, *said))


def fields_of(template: str) -> list[str | None]:
    return [name for _, name, *_ in string.Formatter().parse(template) if name is not None]


def sent(language: str, style: str, name: str) -> tuple[Message, ...]:
    return build_messages(original(ITEMS[language]), PROMPTS[language, style], FORMATS[name])


def test_there_are_at_least_ten_styles_and_the_same_in_every_language() -> None:
    assert tuple(style for language, style in PROMPTS if language == "es") == STYLES
    assert len(STYLES) >= 10


def test_no_two_styles_of_a_language_say_the_same() -> None:
    for language in LANGUAGES:
        texts = {
            (prompt.system, prompt.question, prompt.option, prompt.separator, prompt.user)
            for prompt in PROMPTS.values()
            if prompt.language == language
        }
        assert len(texts) == len(STYLES)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_style_shows_the_whole_question_once_in_every_format(
    language: str, style: str, name: str
) -> None:
    item, prompt = ITEMS[language], PROMPTS[language, style]
    everything = "\n".join(message.content for message in sent(language, style, name))
    options = [
        prompt.option.format(label=label, text=text)
        for label, text in zip("ABC", item.options, strict=True)
    ]
    instruction = FORMATS[name].instruction(original(item), language)
    for part in (item.context, item.stem, *item.options, *options, instruction):
        assert everything.count(part) == 1, part


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_question_stands_in_the_last_turn_with_its_passage_before_it(
    language: str, style: str
) -> None:
    item, turn = ITEMS[language], sent(language, style, "letter")[-1]
    assert turn.role == "user"
    places = [turn.content.index(part) for part in (item.context, item.stem, *item.options)]
    assert places == sorted(places)


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_one_style_does_not_end_with_the_instruction(language: str) -> None:
    # What stands before the instruction is computed once for all formats of an item.
    ends = {style: PROMPTS[language, style].user.endswith("{instruction}") for style in STYLES}
    assert [style for style, ends_so in ends.items() if not ends_so] == ["instruction_first"]
    assert PROMPTS[language, "instruction_first"].user.startswith("{instruction}")


@pytest.mark.parametrize("style", STYLES)
def test_a_style_differs_between_the_languages_in_words_only(style: str) -> None:
    english, spanish = PROMPTS["en", style], PROMPTS["es", style]
    assert (english.option, english.separator) == (spanish.option, spanish.separator)
    assert english.version == spanish.version
    for key in ("system", "question", "with_context", "user"):
        one, other = getattr(english, key), getattr(spanish, key)
        assert bool(one) == bool(other), key
        assert re.findall(r"\n+", one) == re.findall(r"\n+", other), key
        if key != "system":
            assert fields_of(one) == fields_of(other), key


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_style_says_what_an_answer_looks_like(language: str, style: str) -> None:
    # The instruction does, and some ask for reasoning, for several labels or for a changed text.
    assert FORM_WORDS.findall(words_of(PROMPTS[language, style])) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_examination_speaks_of_choosing(language: str) -> None:
    said = {style: PICKING.search(words_of(PROMPTS[language, style])) for style in STYLES}
    assert [style for style, found in said.items() if found] == ["exam"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_style_names_an_option(language: str, style: str) -> None:
    # "I" is also a word, "(b)" is not.
    assert re.findall(r"\b[A-HJ]\b|\([a-j]\)", words_of(PROMPTS[language, style])) == []


def test_several_ways_of_writing_labels_are_tried() -> None:
    assert {prompt.option for prompt in PROMPTS.values()} == {
        "{label}. {text}",
        "{label}) {text}",
        "({label}) {text}",
        "{label}: {text}",
        "- {label}: {text}",
    }


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_has_spaces_at_its_ends_or_doubled(language: str, style: str) -> None:
    for message in sent(language, style, "letter"):
        assert message.content == message.content.strip()
        assert re.search(r"  | \n|\n{3}", message.content) is None


def test_the_consult_note_reads_as_a_note() -> None:
    system, user = sent("es", "consult_note", "letter")
    assert system.content == (
        "Respondes a las interconsultas de un hospital. Cada nota plantea una pregunta de medicina "
        "y enumera varias opciones, de las que solo una es correcta."
    )
    assert user.content == (
        "NOTA DE INTERCONSULTA\n\n"
        "Información disponible: Los líquidos de dentro y de fuera de las células son distintos.\n\n"
        "Pregunta para el especialista: ¿Cuál es el ion más abundante fuera de las células?\n\n"
        "Opciones que se valoran:\n- A: Potasio\n- B: Sodio\n- C: Calcio\n\n"
        "Responde solo con la letra de la opción correcta."
    )


def test_the_direct_style_is_nothing_but_the_question() -> None:
    (user,) = sent("en", "direct", "letter")
    assert user.content == (
        "Fluids inside and outside of cells differ.\n"
        "Which ion is the most abundant one outside of cells?\n"
        "A) Potassium\nB) Sodium\nC) Calcium\n"
        "Answer with only the letter of the correct option."
    )
