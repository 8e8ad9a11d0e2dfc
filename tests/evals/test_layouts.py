"""Layouts are drawn by number, the same everywhere, and mean the same in every language."""

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import UsageError
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item
from medlocal.evals.layouts import (
    LAYOUT_VERSION,
    MAX_LAYOUT,
    SYSTEM,
    is_layout,
    layout,
    num_layouts,
    parse_layout,
)
from medlocal.evals.prompts import Prompt, build_messages, load_prompts
from medlocal.evals.variant import original

PROMPTS = Path(__file__).parents[2] / "benchmarks" / "prompts"
HINT = "write layout(N), with N from 0 to 2147483647"
NUMBERS = st.integers(0, 2**31 - 1)
PARTS = ("options", "instruction")

ENGLISH_WORDS = {
    "Passage": "Texto",
    "Question": "Pregunta",
    "Options": "Opciones",
    "Instructions": "Instrucciones",
    "PASSAGE": "TEXTO",
    "QUESTION": "PREGUNTA",
    "OPTIONS": "OPCIONES",
    "INSTRUCTIONS": "INSTRUCCIONES",
    "Context": "Contexto",
    "Q": "P",
    "Choices": "Alternativas",
    "Task": "Tarea",
}
LOWER_WORDS = {
    word.lower(): spanish.lower()
    for word, spanish in ENGLISH_WORDS.items()
    if word in {"Passage", "Question", "Options", "Instructions"}
}

ITEM = Item(
    id="1",
    dataset="demo",
    split="test",
    language="en",
    stem="Which ion is the most abundant one outside of cells?",
    options=("Sodium", "Potassium", "Calcium"),
    gold=0,
    subject="physiology",
    group="demo/1",
    context="Fluids differ.",
)


def index(number: int, what: str, num_choices: int) -> int:
    """The draw, from its definition: 63 bits of the SHA-256 of the parts as a JSON list."""
    digest = hashlib.sha256(f'["layout","{number}","{what}"]'.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 1) % num_choices


def texts(prompt: Prompt) -> tuple[str, ...]:
    return (prompt.question, prompt.with_context, prompt.option, prompt.separator, prompt.user)


def test_a_layout_with_headers_reads_as_its_draws_say() -> None:
    # spacing 2 of 19, headed 2, frame 1, words 1, place 0, wrapper 3, gap 2
    assert layout(2, "en") == Prompt(
        language="en",
        style="layout(2)",
        version=1,
        system=SYSTEM["en"],
        question="QUESTION:\n{stem}",
        with_context="PASSAGE:\n{context}\n\n\n{question}",
        option="[{label}]\t{text}",
        separator="\n",
        user="{question}\n\n\nOPTIONS:\n{options}\n\n\n{instruction}",
    )


def test_options_on_lines_of_their_own_do_not_begin_beside_their_header() -> None:
    # spacing 4 of 19, headed 3, frame 0, words 0, place 1, wrapper 5, gap 2
    assert layout(5, "es") == Prompt(
        language="es",
        style="layout(5)",
        version=1,
        system=SYSTEM["es"],
        question="Pregunta: {stem}",
        with_context="Texto: {context}\n\n{question}",
        option="{label} -\t{text}",
        separator="\n\n",
        user="{question}\n\nOpciones:\n{options}\n\nInstrucciones: {instruction}",
    )


def test_a_layout_may_begin_with_the_instruction_and_have_no_headers() -> None:
    # spacing 10 of 19, headed 0, place 3, wrapper 1, gap 0
    assert layout(1, "en") == Prompt(
        language="en",
        style="layout(1)",
        version=1,
        system=SYSTEM["en"],
        question="{stem}",
        with_context="{context}\n\n---\n\n{question}",
        option="{label}) {text}",
        separator=" | ",
        user="{instruction}\n\n---\n\n{question}\n\n---\n\n{options}",
    )


@given(NUMBERS)
def test_what_is_drawn_is_a_hash_of_the_number_and_of_what_is_drawn(number: int) -> None:
    wrappers = (
        "{label}.",
        "{label})",
        "({label})",
        "[{label}]",
        "{label}:",
        "{label} -",
        "<{label}>",
    )
    gap = (" ", "  ", "\t")[index(number, "gap", 3)]
    prompt = layout(number, "en")
    assert prompt.option == f"{wrappers[index(number, 'wrapper', 7)]}{gap}{{text}}"
    assert prompt.user.endswith("{instruction}") == (index(number, "place", 4) < 3)


@given(NUMBERS)
def test_a_header_is_drawn_as_its_presence_its_frame_and_its_words(number: int) -> None:
    num_headed = index(number, "headed", 4)
    frames = ("%s: ", "%s:\n", "%s\n", "### %s\n", "**%s**\n", "[%s]\n")
    word = ("Question", "QUESTION", "question", "Q")[index(number, "words", 4)]
    header = frames[index(number, "frame", 6)] % word if num_headed else ""
    prompt = layout(number, "en")
    assert prompt.question == f"{header}{{stem}}"
    # The options have one in two of the four choices, the instruction in the last of them.
    has_header = [re.search(rf"\w[\]*:]*\s*{{{part}}}", prompt.user) is not None for part in PARTS]
    assert has_header == [num_headed >= 2, num_headed == 3]


@given(NUMBERS)
def test_a_layout_differs_between_the_languages_in_words_only(number: int) -> None:
    english, spanish = layout(number, "en"), layout(number, "es")
    words = {**ENGLISH_WORDS, **LOWER_WORDS}
    # Names in braces are fields, and no words of a header.
    header = re.compile(rf"(?<![{{\w])({'|'.join(words)})(?![}}\w])")
    translated = tuple(header.sub(lambda found: words[found[1]], text) for text in texts(english))
    assert translated == texts(spanish)


@given(NUMBERS, st.sampled_from(("en", "es")))
def test_the_last_option_is_no_nearer_to_the_instruction_than_to_the_option_before_it(
    number: int, language: str
) -> None:
    prompt = layout(number, language)
    behind = prompt.user.partition("{options}")[2].partition("{instruction}")[0]
    assert not behind or prompt.separator.count("\n") <= behind.count("\n")


@given(NUMBERS, st.sampled_from(("en", "es")), st.sampled_from(sorted(FORMATS)))
def test_a_layout_shows_the_whole_question_once(number: int, language: str, name: str) -> None:
    prompt, form, variant = layout(number, language), FORMATS[name], original(ITEM)
    system, user = (turn.content for turn in build_messages(variant, prompt, form))
    assert system == SYSTEM[language]
    shown = (ITEM.stem, ITEM.context, form.instruction(variant, language))
    assert [user.count(text) for text in shown] == [1, 1, 1]
    for label, text in zip("ABC", ITEM.options, strict=True):
        assert user.count(prompt.option.format(label=label, text=text)) == 1


def test_two_hundred_layouts_are_hardly_ever_the_same() -> None:
    assert len({texts(layout(number, "en")) for number in range(200)}) >= 150


def test_the_number_of_layouts_is_the_product_of_the_choices() -> None:
    # 7 wrappers, 3 gaps, 19 spacings, 2 places; no headers, or 3 sets in 6 frames and 4 words
    assert num_layouts() == 7 * 3 * 19 * 2 * (1 + 3 * 6 * 4) == 58_254


def test_layouts_repeat_as_seldom_as_that_many_equally_drawn_ones_would() -> None:
    num_draws = 5000
    expected = 0.0
    for chance_of_place in (3 / 4, 1 / 4):
        for num_headers, chance_of_headers in ((1, 1 / 4), (72, 3 / 4)):
            chance = chance_of_place * chance_of_headers / num_headers / (7 * 3 * 19)
            expected += num_headers * 7 * 3 * 19 * (1 - (1 - chance) ** num_draws)
    different = len({texts(layout(number, "en")) for number in range(num_draws)})
    assert different == pytest.approx(expected, rel=0.02)


def test_a_layout_differs_from_the_plain_prompt_in_layout_alone() -> None:
    prompts = load_prompts(PROMPTS)
    assert {language: prompts[language, "plain"].system for language in SYSTEM} == SYSTEM


def test_a_layout_carries_the_version_of_the_grammar() -> None:
    assert {layout(number, "en").version for number in range(20)} == {LAYOUT_VERSION}


@given(NUMBERS)
def test_the_name_of_a_layout_says_its_number(number: int) -> None:
    style = layout(number, "en").style
    assert is_layout(style)
    assert parse_layout(style) == number


@pytest.mark.parametrize(
    "style",
    [
        "layout",
        "layout()",
        "layout(x)",
        "layout(-1)",
        "layout(+1)",
        "layout(1.0)",
        "layout(01)",
        "layout( 1)",
        "layout(1) ",
        "layout(1)\n",
        "layout(١)",
        "layout(1",
        "layout7",
        "layout(2147483648)",
        "layout(" + "9" * 5000 + ")",
    ],
)
def test_a_malformed_name_is_refused_with_the_form_it_should_have(style: str) -> None:
    assert is_layout(style)
    with pytest.raises(UsageError) as caught:
        parse_layout(style)
    assert (caught.value.message, caught.value.hint) == (f"no layout is called {style!r}", HINT)


def test_the_names_of_the_written_prompts_mean_no_layout() -> None:
    assert [style for _, style in load_prompts(PROMPTS) if is_layout(style)] == []


@pytest.mark.parametrize("number", [-1, MAX_LAYOUT + 1])
def test_a_number_outside_the_range_is_refused(number: int) -> None:
    with pytest.raises(UsageError) as caught:
        layout(number, "en")
    assert (caught.value.message, caught.value.hint) == (f"there is no layout {number}", HINT)


def test_a_language_without_words_for_the_headers_is_refused() -> None:
    with pytest.raises(UsageError, match="no language of a layout is called 'fr'") as caught:
        layout(0, "fr")
    assert caught.value.hint == "known: en, es"
