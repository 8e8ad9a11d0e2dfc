"""Prompts: the wording around a variant, read from TOML, and the chat messages made with it.

A prompt has a language, a style and a version, and says how a question, its options and the
instruction are laid out. What the instruction says is the answer format's business, and how messages
become tokens is the chat template's: this module knows neither formats beyond two of their methods,
nor models.

Every template names its fields in braces. A file with an unknown key, a field too many or a field
too few is refused when it is read, so that no run asks its questions without their options.
"""

import string
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from medlocal.errors import MissingError, UsageError, unknown_name
from medlocal.evals.items import LANGUAGES
from medlocal.evals.variant import Variant

USUAL_PROMPT = "plain"
"""The style that stands for all where one must be chosen."""

Role = Literal["system", "user", "assistant"]

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "question": ("stem",),
    "with_context": ("context", "question"),
    "option": ("label", "text"),
    "user": ("question", "options", "instruction"),
}
"""The fields of each template; it has every one of them exactly once."""


class Form(Protocol):
    """What a prompt needs of an answer format."""

    def instruction(self, variant: Variant, language: str, /) -> str:
        """What the model is told about the form of its answer."""
        ...

    def render(self, variant: Variant, language: str, /) -> str:
        """The gold answer in this form."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One style in one language; the keys of a table in `benchmarks/prompts/<language>.toml`."""

    language: str
    style: str
    version: int
    """From 1; it rises whenever a text changes."""
    system: str
    """The system turn, taken literally; "" = there is no such turn."""
    question: str
    """{stem}"""
    with_context: str
    """{context} {question}: stands for the question where the item has a passage."""
    option: str
    """{label} {text}"""
    separator: str
    """Stands between two options."""
    user: str
    """{question} {options} {instruction}. With the instruction last, all that stands before it is
    a prefix that the formats of an item share, and the engine computes it once."""

    def __post_init__(self) -> None:
        if self.version < 1:
            raise ValueError(f"version must be 1 or more, not {self.version}")
        for key in _FIELDS:
            _check_fields(key, getattr(self, key))


_TEXTS = ("system", *_FIELDS, "separator")


def build_messages(
    variant: Variant, prompt: Prompt, form: Form, examples: Sequence[Variant] = ()
) -> tuple[Message, ...]:
    """The chat that asks one question: the system turn, the examples with their answers, the question.

    The instruction is in the prompt's language, which need not be the item's.

    Args:
        variant: what is asked.
        prompt: the wording.
        form: the form that the answer must have.
        examples: questions shown before with their gold answers, in the order shown.
    """
    messages = [Message("system", prompt.system)] if prompt.system else []
    for example in examples:
        messages.append(Message("user", _user_turn(example, prompt, form)))
        messages.append(Message("assistant", form.render(example, prompt.language)))
    messages.append(Message("user", _user_turn(variant, prompt, form)))
    return tuple(messages)


def _user_turn(variant: Variant, prompt: Prompt, form: Form) -> str:
    # Values are never formatted again: a stem with braces in it stays as it is.
    question = prompt.question.format(stem=variant.stem)
    if variant.context:
        question = prompt.with_context.format(context=variant.context, question=question)
    option = f"{variant.wrapper} {{text}}" if variant.wrapper else prompt.option
    options = prompt.separator.join(
        option.format(label=label, text=text)
        for label, text in zip(variant.labels, variant.options, strict=True)
    )
    instruction = form.instruction(variant, prompt.language)
    return prompt.user.format(question=question, options=options, instruction=instruction)


def load_prompts(folder: Path) -> dict[tuple[str, str], Prompt]:
    """Read all prompts of a folder that holds one `<language>.toml` per language.

    Returns:
        The prompts by (language, style), in alphabetical order of the languages and in the order of
        the file within one.

    Raises:
        MissingError: the folder holds no such file.
        UsageError: a file is named after no language, is not TOML, or does not hold what it should.
    """
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise MissingError(
            f"{folder}: there are no prompts here", hint="a file such as en.toml is needed"
        )
    prompts = [prompt for path in paths for prompt in _read_language(path)]
    return {(prompt.language, prompt.style): prompt for prompt in prompts}


def _read_language(path: Path) -> list[Prompt]:
    if path.stem not in LANGUAGES:
        raise UsageError(
            f"{path}: {path.stem!r} is no language", hint=f"known: {', '.join(LANGUAGES)}"
        )
    try:
        styles = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", hint="mend the file") from error
    if not styles:
        raise UsageError(f"{path}: holds no style", hint="one table per style, such as [plain]")
    return [_read_style(path, style, values) for style, values in styles.items()]


def _read_style(path: Path, style: str, values: object) -> Prompt:
    where = f"{path}: style {style!r}"
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a table", hint=f"write [{style}]")
    keys = ("version", *_TEXTS)
    for key in values:
        if key not in keys:
            nearest = unknown_name("key", key, keys)
            raise UsageError(f"{where}: unknown key {key!r}", hint=nearest.hint)
    version = values.get("version")
    # A bool is an int to Python, and `version = true` says nothing.
    if not isinstance(version, int) or isinstance(version, bool):
        raise UsageError(f"{where}: version must be a whole number, not {version!r}")
    texts = {key: _read_text(where, key, values) for key in _TEXTS}
    try:
        return Prompt(language=path.stem, style=style, version=version, **texts)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _read_text(where: str, key: str, values: Mapping[str, object]) -> str:
    if key not in values:
        raise UsageError(f"{where}: key {key!r} is missing")
    text = values[key]
    if not isinstance(text, str):
        raise UsageError(f"{where}: {key} must be a text, not {type(text).__name__}")
    return text


def _check_fields(key: str, template: str) -> None:
    try:
        # With what follows it in the braces, a field such as {stem!r} has no known name.
        found = [
            name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            for _, name, spec, conversion in string.Formatter().parse(template)
            if name is not None
        ]
    except ValueError as error:
        raise ValueError(f"{key}: {error}; a brace that is meant is written twice") from error
    if Counter(found) != Counter(_FIELDS[key]):
        raise ValueError(f"{key} has the fields {_braced(found)}; needs {_braced(_FIELDS[key])}")


def _braced(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names) or "none"
