"""The plan: which jobs an evaluation consists of, and the stable key of each.

A job is one item, in one variant, asked with one prompt, in one answer format, through one arm. Its
key is a hash of what determines its answer and of nothing else, so that the same job has the same
key in any run, on any machine: resuming is a set difference, and a second run reuses what is there.
Planning is pure. It knows nothing of tokens, engines or stores; what the engine contributes to an
answer comes in as an opaque `identity`.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product

from medlocal.errors import UsageError, unknown_name
from medlocal.evals.formats import FORMATS, Format
from medlocal.evals.items import Item, canonical_json
from medlocal.evals.perturb import PERTURBATIONS, Variant, apply, derive_seed
from medlocal.evals.prompts import Message, Prompt, build_messages

ARMS = ("free", "grammar", "label", "cloze")
"""How an answer is obtained: greedy text, masked text, probability of labels, or of option texts."""

_REASONS = {
    "label": "label scores the labels, which have no fixed place in this format",
    "cloze": "cloze scores the options' words, which this format does not ask for",
}
_KEY_LENGTH = 32
"""Hex digits of a key: 128 bits, so that no two jobs of any store will ever share one by chance."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What is to be crossed with the items. Names that stand twice count once."""

    prompts: tuple[Prompt, ...]
    """An item is asked with those of its language; every item needs one."""
    formats: tuple[str, ...]
    """Names in `FORMATS`."""
    arms: tuple[str, ...] = ("free", "grammar")
    """Names in `ARMS`; pairs with a format that make no sense are left out, see `skipped_pairs`."""
    variants: tuple[str, ...] = ("original",)
    """Names of perturbations."""
    examples: Callable[[Item], Sequence[Item]] = lambda _: ()
    """Questions shown unperturbed, with their gold answers, before an item."""
    seed: int = 0
    """Another seed gives other draws to the perturbations that draw."""


@dataclass(frozen=True, slots=True)
class Job:
    """One question to one model, in one form, through one arm."""

    key: str
    """32 hex digits. Not of the item's id: two items with the same content are one question, and
    their jobs share a key."""
    variant: Variant
    prompt: Prompt
    format: str
    """Name in `FORMATS`."""
    arm: str
    """One of `ARMS`."""
    messages: tuple[Message, ...]
    examples: tuple[str, ...] = ()
    """Ids of the items that `messages` shows before the question, in that order."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What of a format determines an answer, for one variant in one language."""

    name: str
    version: int
    pattern: str
    """The regular expression that is both mask and strict judge."""
    max_tokens: int


def plan_jobs(
    request: PlanRequest, items: Iterable[Item], identity: Mapping[str, object]
) -> Iterator[Job]:
    """All jobs of an evaluation of one model: items × variants × prompts × formats × arms.

    Jobs come item by item, and within an item by variant, prompt, format and arm, in the order of
    the request. The request is checked before the first job is made.

    Args:
        request: what to cross the items with.
        items: in any number of languages.
        identity: what outside the evaluation determines an answer, as JSON: the model file's SHA-256,
            the engine's mode, micro-batch, build and KV types, the sampling.

    Raises:
        UsageError: a name is unknown, something is empty, an arm fits no format, an item has no
            prompt in its language, or an item's examples do not fit it.
    """
    chosen = tuple(items)
    forms = _forms(request)
    for name in request.variants:
        _check_name("perturbation", name, PERTURBATIONS)
    if not request.variants:
        raise UsageError("no variant is asked for", hint='"original" is the unperturbed one')
    _check_prompts(request, chosen)
    asked = [(item, _examples(request, item)) for item in chosen]
    return _jobs(request, asked, forms, identity)


def skipped_pairs(formats: Sequence[str], arms: Sequence[str]) -> list[tuple[str, str, str]]:
    """The pairs that a plan leaves out because they make no sense.

    Returns:
        (format, arm, why) for each.

    Raises:
        UsageError: no format or arm has one of the names.
    """
    for name in formats:
        _check_name("format", name, FORMATS)
    for arm in arms:
        _check_name("arm", arm, ARMS)
    return [
        (name, arm, _REASONS.get(arm, f"{arm} is no way to get an answer in this format"))
        for name in dict.fromkeys(formats)
        for arm in dict.fromkeys(arms)
        if arm not in FORMATS[name].arms
    ]


def take(items: Iterable[Item], limit: int | None) -> list[Item]:
    """The first items per data set and language, in an order that is stable and mixed.

    The order is that of the SHA-256 of the group id: it does not depend on the order of the file, it
    spreads the subjects in which files are sorted, a larger limit continues a smaller one, and
    parallel items stand at the same place in every language, so that a limited run stays paired.

    Args:
        items: from any number of data sets and languages.
        limit: items per data set and language; None = all of them.

    Raises:
        UsageError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be 1 or more, not {limit}", hint="leave it out for all")

    def place(item: Item) -> tuple[str, str, str, str]:
        digest = hashlib.sha256(item.group.encode("utf-8")).hexdigest()
        return digest, item.dataset, item.language, item.id

    taken: dict[tuple[str, str], int] = {}
    chosen = []
    for item in sorted(items, key=place):
        source = (item.dataset, item.language)
        taken[source] = taken.get(source, 0) + 1
        if limit is None or taken[source] <= limit:
            chosen.append(item)
    return chosen


def job_key(
    identity: Mapping[str, object],
    variant: Variant,
    messages: Sequence[Message],
    form: AnswerForm,
    arm: str,
) -> str:
    """The key of a job: SHA-256 over the canonical JSON of what determines its answer.

    The messages stand in it as they are sent, so that a prompt's style and version need not.
    """
    determines = {
        "identity": dict(identity),
        "item": variant.item.content_sha256,
        "variant": {"name": variant.name, "version": variant.version, "seed": variant.seed},
        "messages": [[message.role, message.content] for message in messages],
        "format": asdict(form),
        "arm": arm,
    }
    return hashlib.sha256(canonical_json(determines)).hexdigest()[:_KEY_LENGTH]


def _jobs(
    request: PlanRequest,
    asked: Sequence[tuple[Item, Sequence[Item]]],
    forms: Sequence[tuple[Format, Sequence[str]]],
    identity: Mapping[str, object],
) -> Iterator[Job]:
    for item, examples in asked:
        prompts = [p for p in dict.fromkeys(request.prompts) if p.language == item.language]
        shown = tuple(apply(example) for example in examples)
        for variant, prompt, (form, arms) in product(_variants(request, item), prompts, forms):
            messages = build_messages(variant, prompt, form, shown)
            described = _describe(form, variant, prompt.language)
            for arm in arms:
                yield Job(
                    key=job_key(identity, variant, messages, described, arm),
                    variant=variant,
                    prompt=prompt,
                    format=form.name,
                    arm=arm,
                    messages=messages,
                    examples=tuple(example.item.id for example in shown),
                )


def _variants(request: PlanRequest, item: Item) -> Iterator[Variant]:
    for name in dict.fromkeys(request.variants):
        # Drawn from the group, which has no language: parallel items get the same draws.
        yield apply(item, name, derive_seed(item.group, name, str(request.seed)))


def _describe(form: Format, variant: Variant, language: str) -> AnswerForm:
    return AnswerForm(form.name, form.version, form.pattern(variant, language), form.max_tokens)


def _forms(request: PlanRequest) -> list[tuple[Format, list[str]]]:
    """The formats asked for, each with the arms asked for that it can be answered through."""
    if not request.formats or not request.arms:
        raise UsageError("a plan needs at least one format and one arm")
    skipped = {(name, arm) for name, arm, _ in skipped_pairs(request.formats, request.arms)}
    names, arms = dict.fromkeys(request.formats), dict.fromkeys(request.arms)
    for arm in arms:
        if all((name, arm) in skipped for name in names):
            fitting = ", ".join(name for name, form in FORMATS.items() if arm in form.arms)
            raise UsageError(
                f"arm {arm!r} fits none of the formats asked for ({', '.join(names)})",
                hint=f"it fits: {fitting}",
            )
    forms = [(FORMATS[name], [a for a in arms if (name, a) not in skipped]) for name in names]
    return [(form, fitting) for form, fitting in forms if fitting]


def _check_name(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise unknown_name(kind, name, known)


def _check_prompts(request: PlanRequest, items: Sequence[Item]) -> None:
    languages = {prompt.language for prompt in request.prompts}
    for item in items:
        if item.language not in languages:
            raise UsageError(
                f"item {item.group!r} is in {item.language!r}, and no prompt asked for is",
                hint=f"languages with a prompt: {', '.join(sorted(languages)) or 'none'}",
            )


def _examples(request: PlanRequest, item: Item) -> Sequence[Item]:
    """An item's examples; refused where they give its answer away or speak another language."""
    examples = request.examples(item)
    for example in examples:
        if example.group == item.group:
            raise UsageError(
                f"item {item.group!r} is both asked and shown as an example",
                hint="take the examples from another split",
            )
        if example.language != item.language:
            raise UsageError(
                f"item {item.group!r} is in {item.language!r}, its example in {example.language!r}"
            )
    return examples
