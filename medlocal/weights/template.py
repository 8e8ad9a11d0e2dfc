"""Chat prompts as the model's own template writes them, and the proof of exactly one BOS.

A template comes with the weights, from strangers: `sandbox` runs it, and it is identified by its
hash. There is no fallback: a model without a template is refused, because a guessed form makes a good
model look bad without a word.

Text in, text out; this module never tokenises. The text already holds the template's special tokens,
so it is to be tokenised with special tokens parsed and none added, and the ids given to `check_bos`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from medlocal.errors import RefusedError
from medlocal.weights.inspect import GGUFInfo

if TYPE_CHECKING:
    from jinja2 import Template

    from medlocal.weights.sandbox import Sandbox

Messages = Sequence[tuple[str, str]]
"""(role, content) of each turn."""

_PROBE_SYSTEM, _PROBE_USER = "medlocal-system-probe", "medlocal-user-probe"


class _Declined(RefusedError):  # noqa: N818 - never leaves this module as itself
    """The template refuses these messages by its own `raise_exception`."""


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of one model."""

    source: str
    """Jinja."""
    bos_token: str
    """As text, for the template to write; "" where the model has none."""
    eos_token: str
    """The same, for the end of a sequence."""
    origin: str = field(default="", compare=False)
    """The file it came from, for messages."""

    @classmethod
    def from_gguf(cls, info: GGUFInfo) -> "ChatTemplate":
        """The template in a GGUF file, tried out once.

        Raises:
            RefusedError: the file has none, or one that is broken, hostile, or drops what it is told.
        """
        if (source := info.chat_template) is None:
            raise RefusedError(
                f"{info.path} has no chat template, so it cannot be asked chat prompts",
                hint="it is a base model, or was converted without one: use an instruct model",
            )
        bos, eos = (
            "" if token_id is None else info.token(token_id)
            for token_id in (info.bos_id, info.eos_id)
        )
        template = cls(source, bos, eos, str(info.path))
        template.merges_system  # noqa: B018 - the trial: a template fails here, not in mid-run
        return template

    @property
    def sha256(self) -> str:
        """What the template is pinned by, in hexadecimal."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @cached_property
    def merges_system(self) -> bool:
        """True where the system text goes into the first user turn.

        Decided by trying: Gemma's and Mistral's templates refuse a system turn, and some others
        leave it out without a word.
        """
        turns = [("system", _PROBE_SYSTEM), ("user", _PROBE_USER)]
        try:
            if self._says_all(turns):
                return False
        except _Declined:
            pass
        if self._says_all(_merge_system(turns)):
            return True
        raise self._refused("leaves out what the user says")

    def render(self, messages: Messages, add_generation_prompt: bool = True) -> str:
        """Write messages as the model was trained to read them.

        Args:
            messages: the turns, at least one; a system turn comes first.
            add_generation_prompt: end where the assistant's answer begins.

        Raises:
            RefusedError: the template fails or refuses; the message says where.
        """
        turns = _merge_system(messages) if self.merges_system else messages
        return self._run(turns, add_generation_prompt)

    @cached_property
    def _compiled(self) -> "tuple[Sandbox, Template]":
        from medlocal.weights.sandbox import Sandbox

        sandbox = Sandbox()
        try:
            return sandbox, sandbox.load(self.source)
        except Exception as error:  # a template can make Jinja and Python's compiler raise anything
            raise self._failed(error) from error

    def _says_all(self, turns: Messages) -> bool:
        text = self._run(turns, add_generation_prompt=True)
        return _PROBE_SYSTEM in text and _PROBE_USER in text

    def _run(self, turns: Messages, add_generation_prompt: bool) -> str:
        sandbox, template = self._compiled
        variables = {
            "messages": [{"role": role, "content": content} for role, content in turns],
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            # Defined and None, as Hugging Face passes them: templates test for `is not none`.
            "tools": None,
            "documents": None,
        }
        try:
            return sandbox.run(template, variables)
        except Exception as error:  # the same: nothing that a template raises is ours
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> RefusedError:
        from medlocal.weights.sandbox import DeclinedError, line_of

        line = line_of(error)
        place = "" if line is None else f" in line {line}"
        text = getattr(error, "message", None) or str(error) or type(error).__name__
        text = "".join(c if c.isprintable() else " " for c in text)[:200]  # it can be a stranger's
        if isinstance(error, DeclinedError):
            return self._refused(f"refuses the messages{place}: {text}", _Declined)
        return self._refused(f"fails{place}: {text}")

    def _refused(self, message: str, kind: type[RefusedError] = RefusedError) -> RefusedError:
        where = f"the chat template of {self.origin}" if self.origin else "the chat template"
        hint = "use another conversion of the model, one with its maker's own template"
        if "strftime_now" in message:
            hint = "it writes today's date, which would change every answer from day to day"
        return kind(f"{where} {message}", hint=hint)


def check_bos(token_ids: Sequence[int], bos_id: int | None, add_bos: bool | None) -> list[int]:
    """The ids to use for a prompt: as they are, or with the BOS that the model needs before them.

    A model that was trained with a BOS loses tens of points without it, and as many with two. Where
    the template writes it already, nothing is added. Where the BOS doubles as the mark of a turn
    (SmolLM2) and none is wanted, the prompt may begin with one or none.

    Args:
        token_ids: the rendered prompt, tokenised with special tokens parsed and none added.
        bos_id: the model's BOS; None where it has none.
        add_bos: whether the model wants one: `GGUFInfo.wants_bos`. None = the file does not say and
            the tokenizer is unknown: taken as yes where there is a BOS, since a superfluous one costs
            little and a missing one much.

    Raises:
        RefusedError: the prompt begins with two, or the model wants one and has none.
    """
    if bos_id is None:
        if add_bos:
            raise RefusedError(
                "the model wants a BOS and names none", hint="its file lacks bos_token_id"
            )
        return list(token_ids)
    if list(token_ids[:2]) == [bos_id, bos_id]:
        raise RefusedError(
            f"the prompt begins with BOS (token {bos_id}) twice",
            hint="the template writes it already: tokenise without adding special tokens",
        )
    missing = add_bos is not False and list(token_ids[:1]) != [bos_id]
    return [bos_id, *token_ids] if missing else list(token_ids)


def _merge_system(messages: Messages) -> Messages:
    """Put a leading system turn before the text of the user turn that follows it."""
    if not messages or messages[0][0] != "system":
        return messages
    (_, system), *turns = messages
    if turns and turns[0][0] == "user":
        _, user = turns.pop(0)
        system = f"{system}\n\n{user}" if system else user
    return [("user", system), *turns]
