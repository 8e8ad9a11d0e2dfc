"""The only place where Jinja runs: a sandbox for templates that strangers wrote.

As Hugging Face renders chat templates (immutable sandbox, trimmed blocks, `break` and `continue`,
`raise_exception`, its own `tojson`), with less: no loader, so nothing is included or imported; no
`strftime_now`, because a date in the prompt would change every answer from one day to the next
(templates that ask whether it is defined fall back to a fixed date); nothing random.

And with bounds, so that a template cannot run for ever or fill the memory: loop turns and calls are
counted, and no value made by a filter, a call, `~`, `+`, `*` or `**` may be larger than `MAX_CHARS`.
Not covered: what one filter allocates before its result is measured (`replace` and `join` on large
inputs, a width inside a format string), and time as such. Against those only a process with limits of
its own would help, which costs more than a prompt does.

This module knows nothing of chats, models or files.
"""

import functools
import json
import traceback
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 100_000
"""Loop turns and calls in one rendering; a prompt with its examples takes hundreds."""
MAX_SOURCE = 2**20
"""Characters of a template; the longest in use take 30,000."""
MAX_CHARS = 2**22
"""Of the output, and of any value on the way to it."""
MAX_BITS = 1024
"""Of an integer made by a multiplication."""

# Names of filters that no template can spell: the guards that are woven into its syntax tree.
_COUNTED, _MEASURED = " counted", " measured"


class DeclinedError(jinja2.TemplateError):
    """The template itself called `raise_exception`: it will not render these messages."""


class Sandbox(ImmutableSandboxedEnvironment):
    """A Jinja environment that bounds what it runs. One rendering at a time."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        self._steps_left = 0
        self.globals["raise_exception"] = _raise_exception
        del self.globals["lipsum"], self.filters["random"]
        self.filters["tojson"] = _tojson
        self.filters |= {name: _bounded(act) for name, act in self.filters.items()}
        self.filters |= {_COUNTED: self._count, _MEASURED: _measured}

    def load(self, source: str) -> jinja2.Template:
        """Compile a template with the guards woven in.

        Raises:
            jinja2.TemplateSyntaxError: it is none; any other exception where it is hostile.
        """
        if len(source) > MAX_SOURCE:
            raise SecurityError(f"it is longer than {MAX_SOURCE:,} characters")
        return self.from_string(_Weaver().visit(self.parse(source)))

    def run(self, template: jinja2.Template, variables: Mapping[str, object]) -> str:
        """Render a template that was loaded here.

        Raises:
            DeclinedError: the template refuses the variables.
            Exception: any other; templates can make the interpreter raise anything.
        """
        self._steps_left = MAX_STEPS
        pieces: list[str] = []
        size = 0
        for piece in template.generate(variables):
            pieces.append(piece)
            if (size := size + len(piece)) > MAX_CHARS:
                raise SecurityError(f"its output is longer than {MAX_CHARS:,} characters")
        return "".join(pieces)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Refuse the attempt itself; Jinja waits until the result is used."""
        raise SecurityError(f"it reaches for {attribute!r} of a {type(obj).__name__}")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate, unless the result would be too large."""
        _check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a method or a global function."""
        self._spend(1)
        _check_arguments(args, kwargs)
        return _measured(super().call(context, obj, *args, **kwargs))

    @jinja2.pass_context  # keeps Jinja from running it once, while compiling, for a constant
    def _count(self, _context: Context, values: Iterable[Any]) -> list[Any]:
        """What a loop iterates over, its turns counted before they are taken."""
        turns = list(values)
        self._spend(1 + len(turns))
        return turns

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS:,} steps")


class _Weaver(NodeTransformer):
    """Put the guards where Jinja offers no hook: into loops and concatenations."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's naming
        if node.recursive:  # would iterate past the guard; no chat template is known to use it
            raise jinja2.TemplateAssertionError("recursive loops are not allowed", node.lineno)
        node.iter = _filtered(node.iter, _COUNTED)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's naming
        self.generic_visit(node)
        return _filtered(node, _MEASURED)


class _GenerationTag(Extension):
    """`{% generation %}` marks what a trainer learns from; a prompt has only its content."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def line_of(error: Exception) -> int | None:
    """The line of the template where it failed; None where the error has no place in it."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next(
        (frame.lineno for frame in reversed(frames) if frame.filename == "<template>"), None
    )


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _bounded(act: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(act)  # with the marks by which Jinja knows what to pass
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check_arguments(args, kwargs)
        return _measured(act(*args, **kwargs))

    return bounded


def _check_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a width, count or precision that asks for a giant result."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_CHARS:
            raise SecurityError(f"it asks for {value:,} of something")


def _check_operands(operator: str, left: Any, right: Any) -> None:
    size = 0
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length(), right.bit_length()
        size = bits[0] * abs(right) if operator == "**" else sum(bits)
        size = size * MAX_CHARS // MAX_BITS
    elif operator == "*" and isinstance(left, Sized) and isinstance(right, int):
        size = len(left) * right
    elif operator == "*" and isinstance(right, Sized) and isinstance(left, int):
        size = len(right) * left
    elif isinstance(left, Sized) and isinstance(right, Sized):
        size = len(left) + len(right)
    if size > MAX_CHARS:
        raise SecurityError(f"the result of its {operator!r} would be too large")


def _measured(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > MAX_CHARS:
        raise SecurityError(f"it makes a value of {len(value):,} elements")
    return value


def _raise_exception(message: str) -> NoReturn:
    raise DeclinedError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Not Jinja's own: that one escapes <, > and & for HTML, which models have never seen.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
