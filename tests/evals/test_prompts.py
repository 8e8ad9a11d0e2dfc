"""Prompts are read strictly and become the messages that a model is sent."""

from dataclasses import replace
from pathlib import Path

import pytest

from medlocal.errors import MissingError, UsageError
from medlocal.evals.items import Item
from medlocal.evals.perturb import Variant, apply
from medlocal.evals.prompts import Message, Prompt, build_messages, load_prompts

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "prompts"

PROMPT = Prompt(
    language="en",
    style="plain",
    version=1,
    system="Be brief.",
    question="Q: {stem}",
    with_context="{context}\n\n{question}",
    option="{label}. {text}",
    separator="\n",
    user="{question}\n{options}\n\n{instruction}",
)

ITEM = Item(
    id="1",
    dataset="demo",
    split="test",
    language="en",
    stem="Which?",
    options=("one", "two"),
    gold=1,
    subject="counting",
    group="demo/1",
)

SOUND = """\
[plain]
version = 2
system = "Be brief."
question = "Q: {stem}"
with_context = "{context}: {question}"
option = "{label}. {text}"
separator = "; "
user = "{question} {options} {instruction}"
"""


class LetterForm:
    """An answer format that says in which language it was asked to speak."""

    def instruction(self, variant: Variant, language: str, /) -> str:
        return f"One of {', '.join(variant.labels)} ({language})."

    def render(self, variant: Variant, language: str, /) -> str:
        return f"{variant.labels[variant.gold]} ({language})"


def refusal(folder: Path, text: str, name: str = "en.toml") -> UsageError:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_prompts(folder)
    return caught.value


def test_a_question_is_a_system_turn_and_a_user_turn() -> None:
    assert build_messages(apply(ITEM), PROMPT, LetterForm()) == (
        Message("system", "Be brief."),
        Message("user", "Q: Which?\nA. one\nB. two\n\nOne of A, B (en)."),
    )


def test_an_empty_system_text_makes_no_turn() -> None:
    messages = build_messages(apply(ITEM), replace(PROMPT, system=""), LetterForm())
    assert [message.role for message in messages] == ["user"]


def test_a_passage_stands_where_the_template_puts_it() -> None:
    item = replace(ITEM, context="There are two.")
    assert build_messages(apply(item), PROMPT, LetterForm())[-1].content == (
        "There are two.\n\nQ: Which?\nA. one\nB. two\n\nOne of A, B (en)."
    )


def test_examples_are_pairs_of_turns_before_the_question() -> None:
    example = apply(replace(ITEM, id="2", group="demo/2", stem="What?", gold=0))
    assert build_messages(apply(ITEM), PROMPT, LetterForm(), (example,)) == (
        Message("system", "Be brief."),
        Message("user", "Q: What?\nA. one\nB. two\n\nOne of A, B (en)."),
        Message("assistant", "A (en)"),
        Message("user", "Q: Which?\nA. one\nB. two\n\nOne of A, B (en)."),
    )


def test_the_instruction_is_in_the_language_of_the_prompt_not_of_the_item() -> None:
    spanish = replace(PROMPT, language="es")
    assert build_messages(apply(ITEM), spanish, LetterForm())[-1].content.endswith("(es).")


def test_what_the_variant_shows_is_what_is_asked() -> None:
    variant = replace(
        apply(ITEM), stem="Welches?", labels=("I", "II"), options=("two", "one"), origin=(1, 0)
    )
    assert build_messages(variant, PROMPT, LetterForm())[-1].content == (
        "Q: Welches?\nI. two\nII. one\n\nOne of I, II (en)."
    )


def test_braces_in_a_question_stay_as_they_are() -> None:
    item = replace(ITEM, stem="{options} {0} {", options=("{label}", "}"))
    assert build_messages(apply(item), PROMPT, LetterForm())[-1].content.startswith(
        "Q: {options} {0} {\nA. {label}\nB. }\n"
    )


def test_a_prompt_is_read_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "es.toml").write_text(SOUND, encoding="utf-8")
    assert load_prompts(tmp_path) == {
        ("es", "plain"): Prompt(
            language="es",
            style="plain",
            version=2,
            system="Be brief.",
            question="Q: {stem}",
            with_context="{context}: {question}",
            option="{label}. {text}",
            separator="; ",
            user="{question} {options} {instruction}",
        )
    }


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("version = 2\n", "", "version must be a whole number, not None"),
        ("version = 2", "version = true", "version must be a whole number, not True"),
        ("version = 2", "version = 0", "version must be 1 or more, not 0"),
        ('separator = "; "\n', "", "key 'separator' is missing"),
        ('"; "', "3", "separator must be a text, not int"),
        ("Q: {stem}", "Q:", "question has the fields none; needs {stem}"),
        ("Q: {stem}", "{stem} {stem}", "question has the fields {stem}, {stem}; needs {stem}"),
        ("Q: {stem}", "{stem.gold}", "question has the fields {stem.gold}; needs {stem}"),
        ("Q: {stem}", "{stem!r}", "question has the fields {stem!r}; needs {stem}"),
        ("Q: {stem}", "{stem:>9}", "question has the fields {stem:>9}; needs {stem}"),
        ("{label}.", "{}.", "option has the fields {}, {text}; needs {label}, {text}"),
        (
            " {instruction}",
            "",
            "user has the fields {question}, {options}; needs {question}, {options}, {instruction}",
        ),
        (
            "Q: {stem}",
            "Q: {stem",
            "question: expected '}' before end of string; a brace that is meant is written twice",
        ),
    ],
)
def test_a_malformed_style_is_refused_with_file_style_and_key(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    error = refusal(tmp_path, SOUND.replace(old, new))
    assert error.message == f"{tmp_path / 'en.toml'}: style 'plain': {complaint}"


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    error = refusal(tmp_path, SOUND.replace("system", "sistem"))
    assert error.message.endswith("en.toml: style 'plain': unknown key 'sistem'")
    assert error.hint == "did you mean system?"


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    assert "en.toml: not TOML: " in refusal(tmp_path, "[plain").message


def test_a_value_outside_a_style_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, 'plain = "Q: {stem}"')
    assert (error.message, error.hint) == (
        f"{tmp_path / 'en.toml'}: style 'plain' must be a table",
        "write [plain]",
    )


def test_a_file_without_a_style_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "# nothing").message.endswith("en.toml: holds no style")


def test_a_file_that_is_named_after_no_language_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, SOUND, "english.toml")
    assert error.message == f"{tmp_path / 'english.toml'}: 'english' is no language"
    assert error.hint == "known: en, es, fr, it"


def test_a_folder_without_prompts_is_missing_them(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there are no prompts here"):
        load_prompts(tmp_path / "nowhere")


def test_the_shipped_prompts_differ_between_the_languages_in_words_only() -> None:
    prompts = load_prompts(SHIPPED)
    for style in ("plain", "exam"):
        english, spanish = prompts["en", style], prompts["es", style]
        assert (english.option, english.separator) == (spanish.option, spanish.separator)
        assert english.user.count("\n") == spanish.user.count("\n")


def test_the_plain_spanish_prompt_reads_as_written() -> None:
    item = replace(
        ITEM, language="es", stem="¿Qué ion predomina?", options=("Sodio", "Cloruro"), gold=0
    )
    assert build_messages(apply(item), load_prompts(SHIPPED)["es", "plain"], LetterForm()) == (
        Message(
            "system",
            "Respondes a preguntas de medicina de opción múltiple. "
            "Solo una de las opciones es correcta.",
        ),
        Message("user", "¿Qué ion predomina?\n\nA. Sodio\nB. Cloruro\n\nOne of A, B (es)."),
    )
