"""What a chat template holds that a reader should know of, before a model is spoken to through it.

A template decides what a model is told besides the messages, and it comes with the weights. The sandbox
keeps it from reaching out when it runs; this module reads it, so that what has not run yet is seen
too: attributes that lead to Python's own objects, other templates, characters that show something
else than they are, words that are put beside the messages, and questions about what a message says,
by which a template could answer some patients' cases with other instructions than all others.

Heuristics, and no proof that a template is honest: names are followed through assignments, and not
through macros or lists. What cannot be meant well is refused, the rest is told.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeGuard

from medlocal.errors import RefusedError
from medlocal.weights.template import ChatTemplate

if TYPE_CHECKING:
    from jinja2 import nodes

LONG = 32_768
"""Characters; the longest templates in use, with tools and documents, take 30,000."""
_SHOWN = 80
_NUM_WORDS = 4
"""From here on a fixed text is a sentence and not a label such as "### Question:"."""

_SYSTEM, _USER = "medlocalprobesystem", "medlocalprobeuser"
_TEXT_KEYS = frozenset({"content", "text"})
_BY_ATTRIBUTE = frozenset({
    "map", "selectattr", "rejectattr", "groupby", "sort", "unique", "sum", "min", "max", "attr"
})  # fmt: skip
_ASKING = frozenset(
    {"startswith", "endswith", "find", "rfind", "index", "count", "replace", "split"}
)
_CHOOSING = frozenset({"in", "select", "reject", "selectattr", "rejectattr"})
_METHODS = _ASKING | {"strip", "lstrip", "rstrip", "lower", "upper", "title", "encode", "get"}
_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Directions of writing: with them a line reads otherwise than it runs."""
_NAMES = frozenset({
    "text", "type", "content", "value", "equalto", "parts", "blocks", "thinking",
    "image", "image_url", "video", "video_url", "audio", "audio_url", "input_audio",
})  # fmt: skip
"""Keys and kinds of a message's parts, for which templates look in what may be a text or a list."""
_ROLES = frozenset({"system", "user", "assistant", "developer", "human", "model", "tool"})
_MARKUP = re.compile(r"<[^<>]{1,60}>|\[[^\[\]]{1,60}\]|\{[^{}]{1,60}\}")
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a template holds."""

    severity: Literal["refused", "warning", "note"]
    text: str
    """A sentence about the template, without its subject: "writes …"."""


def review(template: ChatTemplate) -> tuple[Finding, ...]:
    """All that is to be told of a template, the worst first.

    One that fails, or that no prompt can be made with, is told as such: whoever needs prompts refuses
    it, and a model can be measured without.
    """
    order = ("refused", "warning", "note")
    return tuple(sorted(_review(template), key=lambda found: order.index(found.severity)))


def refuse_hostile(template: ChatTemplate) -> tuple[Finding, ...]:
    """The findings that are no reason to refuse.

    Raises:
        RefusedError: a finding is one.
    """
    findings = review(template)
    refused = [found.text for found in findings if found.severity == "refused"]
    if refused:
        where = template.origin or "the file"
        raise RefusedError(
            f"the chat template of {where} {'; it '.join(refused)}",
            hint="no honest template needs that: use another conversion of the model",
        )
    return findings


@lru_cache(maxsize=16)
def _review(template: ChatTemplate) -> tuple[Finding, ...]:
    from medlocal.weights.sandbox import MAX_SOURCE, Sandbox

    found = [*_trial(template)]
    if len(template.source) > MAX_SOURCE:  # refused for it; parsing it would take long
        return tuple(found)
    try:
        tree = Sandbox().parse(template.source)
    except Exception:  # what its syntax is has been told by the trial
        return tuple(found)
    found += [*_reaching(tree), *_characters(template.source, tree), *_asking(tree)]
    if len(template.source) > LONG:
        found.append(Finding("warning", f"is {len(template.source):,} characters long"))
    if not any(finding.severity == "refused" for finding in found):
        found += _own_words(template, tree)
    return tuple(dict.fromkeys(found))


def _trial(template: ChatTemplate) -> Iterator[Finding]:
    """Whether it renders at all; what the sandbox caught is an attack, anything else a mistake."""
    from jinja2.exceptions import SecurityError

    try:
        template.merges_system  # noqa: B018 - the trial
    except RefusedError as error:
        hostile = isinstance(error.__cause__, SecurityError)
        text = error.message.partition(template.origin or "template")[2].strip()
        yield Finding("refused" if hostile else "warning", text)


def _reaching(tree: "nodes.Template") -> Iterator[Finding]:
    """What leads out of the conversation: to Python's objects, or to other templates."""
    from jinja2 import nodes

    loads = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    for load in tree.find_all(loads):
        verb = {"Include": "includes", "Extends": "extends"}.get(type(load).__name__, "imports")
        yield Finding("refused", f"{verb} another template (line {load.lineno})")
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("_"):
            yield _object(attribute.attr, attribute.lineno)
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Const) and str(item.arg.value).startswith("_"):
            yield _object(str(item.arg.value), item.lineno)
    for call in tree.find_all(nodes.Filter):
        yield from _filtering(call)
    for constant in tree.find_all(nodes.Const):
        # '{0.__class__}'.format(…), or a name that is put together and given to a filter.
        if isinstance(constant.value, str) and re.search(r"__\w+__", constant.value):
            yield _object(constant.value, constant.lineno)


def _filtering(call: "nodes.Filter") -> Iterator[Finding]:
    """A filter that takes an attribute by name."""
    from jinja2 import nodes

    if call.name not in _BY_ATTRIBUTE:
        return
    named = [pair.value for pair in call.kwargs if pair.key == "attribute"]
    if call.name in {"attr", "selectattr", "rejectattr", "groupby"}:
        named += call.args[:1]
    for name in named:
        if not isinstance(name, nodes.Const):
            text = f"lets the filter {call.name!r} reach for a name that it computes"
            yield Finding("warning", f"{text} (line {call.lineno})")
        elif any(part.startswith("_") for part in str(name.value).split(".")):
            yield _object(str(name.value), call.lineno)


def _object(name: str, line: int) -> Finding:
    return Finding("refused", f"reaches for {_cut(name)} of Python's objects (line {line})")


def _characters(source: str, tree: "nodes.Template") -> Iterator[Finding]:
    """Characters that cannot be seen, or that make others look otherwise."""
    from jinja2 import nodes

    # Jinja reads "\u202e" in a constant as the character; in the source it is plain letters.
    constants = [n.value for n in tree.find_all(nodes.Const) if isinstance(n.value, str)]
    for character in sorted(set("".join([source, *constants]))):
        if character in "\n\t\r" or character.isprintable() or character == "\u00a0":
            continue
        name = unicodedata.name(character, "no name").lower()
        text = f"holds U+{ord(character):04X} ({name})"
        if line := source.count("\n", 0, source.find(character)) + 1 if character in source else 0:
            text += f" in line {line}"
        # Tags spell whole sentences that no editor shows.
        hidden = character in _OVERRIDES or 0xE0000 <= ord(character) <= 0xE007F
        yield Finding("refused" if hidden else "warning", text)


def _asking(tree: "nodes.Template") -> Iterator[Finding]:
    """Questions about what a message says."""
    from jinja2 import nodes

    names = _content_names(tree)
    for comparison in tree.find_all(nodes.Compare):
        sides = [comparison.expr, *(operand.expr for operand in comparison.ops)]
        if any(_is_content(side, names) for side in sides):
            yield from _asks(sides, comparison.lineno)
    for call in tree.find_all(nodes.Call):
        method = call.node
        asks = isinstance(method, nodes.Getattr) and method.attr in _ASKING
        if asks and _is_content(method, names):
            yield from _asks(call.args[:1], call.lineno)
    for test in (*tree.find_all(nodes.Test), *tree.find_all(nodes.Filter)):
        asked = list(test.args) if test.node is not None and _is_content(test.node, names) else []
        if test.node is not None and test.name in _CHOOSING:
            asked += [test.node] * any(_is_content(value, names) for value in test.args)
        yield from _asks(asked, test.lineno)


def _asks(values: "list[nodes.Expr]", line: int) -> Iterator[Finding]:
    from jinja2 import nodes

    for value in values:
        for constant in (value, *value.find_all(nodes.Const)):
            if not isinstance(constant, nodes.Const) or not isinstance(constant.value, str):
                continue
            if constant.value in _NAMES:
                continue
            if _WORD.search(_MARKUP.sub("", constant.value)):
                text = f"asks whether a message says {_cut(constant.value)} (line {line})"
                yield Finding("warning", text)


def _content_names(tree: "nodes.Template") -> frozenset[str]:
    """Variables that hold what a message says, or a part of it."""
    from jinja2 import nodes

    pairs: list[tuple[nodes.Node, nodes.Node]] = [
        *((node.target, node.node) for node in tree.find_all(nodes.Assign)),
        *((node.target, node.iter) for node in tree.find_all(nodes.For)),
    ]
    names = frozenset({"content"})
    while True:
        more = names | {
            target.name
            for target, source in pairs
            if isinstance(target, nodes.Name) and _is_content(source, names)
        }
        if more == names:
            return names
        names = more


def _is_content(node: "nodes.Node", names: frozenset[str]) -> bool:
    """Whether an expression is what a message says, or made of it; a part's type is not."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr in _TEXT_KEYS or (node.attr in _METHODS and _is_content(node.node, names))
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        key = node.arg.value
        return key in _TEXT_KEYS if isinstance(key, str) else _is_content(node.node, names)
    if isinstance(node, nodes.Call):
        return isinstance(node.node, nodes.Getattr) and _is_content(node.node, names)
    if isinstance(node, nodes.Const | nodes.Test | nodes.Compare):
        return False
    return any(_is_content(child, names) for child in node.iter_child_nodes())


def _own_words(template: ChatTemplate, tree: "nodes.Template") -> Iterator[Finding]:
    """Texts that stand beside the messages: in every conversation, in some, or in none of ours."""
    from jinja2 import nodes

    always = _rendered(template, [("system", _SYSTEM), ("user", _USER)])
    alone = _rendered(template, [("user", _USER)])
    for text in always:
        yield Finding("warning", f"puts words of its own into every conversation: {_cut(text)}")
    for text in alone:
        if text not in always:
            text = f"gives instructions of its own where no system text is given: {_cut(text)}"
            # Every prompt of a run has a system text: nobody need be told before one.
            yield Finding("note", text)
    spoken = [n for call in tree.find_all(nodes.Call) if _complains(call) for n in call.args]
    fixed = [n.value for n in tree.find_all(nodes.Const) if n not in spoken]
    fixed += [n.data for n in tree.find_all(nodes.TemplateData)]
    said = _plain(" ".join([*always, *alone]))
    others = [t for t in map(_plain, filter(_is_text, fixed)) if _is_sentence(t) and t not in said]
    if others:
        longest = max(others, key=len)
        number = "1 text" if len(others) == 1 else f"{len(others)} texts"
        text = f"has {number} for other cases, the longest: {_cut(longest)}"
        yield Finding("note", text)


def _complains(call: "nodes.Call") -> bool:
    """Whether it only says why it will not render."""
    return getattr(call.node, "name", "") == "raise_exception"


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _rendered(template: ChatTemplate, messages: list[tuple[str, str]]) -> list[str]:
    """The sentences in a rendering that are none of the messages'."""
    try:
        text = template.render(messages)
    except RefusedError:
        return []  # it asks for a system text
    pieces = re.split(f"{_SYSTEM}|{_USER}", text)
    return [piece for piece in map(_plain, pieces) if _is_sentence(piece)]


def _plain(text: str) -> str:
    """A text without markup and roles, its white space joined."""
    words = _MARKUP.sub(" ", text).split()
    while words and words[0].lower() in _ROLES:
        words = words[1:]
    while words and words[-1].lower() in _ROLES:
        words = words[:-1]
    return " ".join(words)


def _is_sentence(text: str) -> bool:
    return len(_WORD.findall(text)) >= _NUM_WORDS


def _cut(text: str) -> str:
    """For a message: in quotes, short, and without characters that cannot be seen."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
