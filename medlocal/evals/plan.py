"""The plan: which jobs an evaluation consists of, and the stable key of each.

A job is one item, in one variant, asked with one prompt, in one answer format, through one arm. Its
key is a hash of what determines its answer and of nothing else, so that the same job has the same
key in any run, on any machine: resuming is a set difference, and a second run reuses what is there.
Planning is pure. It knows nothing of tokens, engines or stores; what the engine contributes to an
answer comes in as an opaque `identity`.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product

from medlocal.errors import UsageError, unknown_name
from medlocal.evals.formats import ARMS, FORMATS, Format
from medlocal.evals.items import Item, canonical_json
from medlocal.evals.perturb import (
    ORIGINAL,
    NotApplicableError,
    Peers,
    Variant,
    apply,
    example_of,
    parse_variant,
)
from medlocal.evals.prompts import Message, Prompt, build_messages
from medlocal.evals.variant import NO_PEERS

_KEY_LENGTH = 32
"""Hex digits of a key: 128 bits, so that no two jobs of any store will ever share one by chance."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """What is to be crossed with the items. Names that stand twice count once."""

    prompts: tuple[Prompt, ...]
    """A variant is asked with those of its language; every variant needs one."""
    formats: tuple[str, ...]
    """Names in `FORMATS`."""
    arms: tuple[str, ...] = ("free", "grammar")
    """Names in `ARMS`; what makes no sense together is left out, see `Plan.unfit`."""
    variants: tuple[str, ...] = (ORIGINAL,)
    """Names of variants; see `perturb.parse_variant`."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """One crossing, or several whose jobs are put together, each job once."""

    crossings: tuple[Crossing, ...]
    examples: Callable[[Item], Sequence[Item]] = lambda _: ()
    """Questions shown with their gold answers before an item, in the answer form of its variant."""
    seed: int = 0
    """Another seed gives other draws to the perturbations that draw."""
    peers: Peers = NO_PEERS
    """All items of the sets, for the perturbations that take something from others."""


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


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of an evaluation of one model, and what was left out of it."""

    jobs: tuple[Job, ...]
    """Item by item, in the order of the request."""
    passed_over: Mapping[tuple[str, str], int]
    """(variant, why) to the number of items of which the variant makes no sense."""
    unfit: Mapping[tuple[str, str, str], tuple[str, ...]]
    """(format, arm, why) to the variants that cannot be asked so."""
    num_by_crossing: tuple[int, ...]
    """Jobs per crossing of the request; one that several ask for counts for the first."""


def make_plan(request: PlanRequest, items: Iterable[Item], identity: Mapping[str, object]) -> Plan:
    """All jobs of an evaluation of one model: items × variants × prompts × formats × arms.

    Jobs come item by item, and within an item by crossing, variant, prompt, format and arm, in the
    order of the request. The request is checked before the first job is made.

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
    if not request.crossings:
        raise UsageError("a plan needs something to cross the items with")
    planner = _Planner(request, identity)
    for crossing in request.crossings:
        _forms(crossing)
        if not crossing.variants:
            raise UsageError("no variant is asked for", hint=f'"{ORIGINAL}" is the unperturbed one')
        for name in crossing.variants:
            parse_variant(name)
        _check_prompts(crossing, chosen)
    asked = [(item, _examples(request, item)) for item in chosen]
    for item, examples in asked:
        planner.add(item, examples)
    return Plan(
        tuple(planner.jobs.values()),
        planner.passed_over,
        planner.unfit_variants(),
        tuple(planner.num_by_crossing),
    )


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

    The messages stand in it as they are sent, so that a prompt's style and version need not. The data
    set stands in it although it determines nothing: a question that two sets share is asked for each,
    or the second would lose it from its n.
    """
    determines = {
        "identity": dict(identity),
        "dataset": variant.item.dataset,
        "item": variant.item.content_sha256,
        "variant": {"name": variant.name, "version": _version(variant), "seed": variant.seed},
        "messages": [[message.role, message.content] for message in messages],
        "format": asdict(form),
        "arm": arm,
    }
    return hashlib.sha256(canonical_json(determines)).hexdigest()[:_KEY_LENGTH]


def _version(variant: Variant) -> int | str:
    # A number where it is one, as it was before variants could have two steps.
    return int(variant.version) if variant.version.isdecimal() else variant.version


class _Planner:
    """Makes the jobs, and remembers what it had to leave out."""

    def __init__(self, request: PlanRequest, identity: Mapping[str, object]) -> None:
        self._request = request
        self._identity = identity
        self._names = [dict.fromkeys(c.variants) for c in request.crossings]
        self._forms = [_forms(crossing) for crossing in request.crossings]
        self.jobs: dict[str, Job] = {}
        self.num_by_crossing = [0] * len(request.crossings)
        self.passed_over: dict[tuple[str, str], int] = {}
        self._unfit: dict[tuple[str, str, str], dict[str, None]] = {}

    def add(self, item: Item, examples: Sequence[Item]) -> None:
        """Make the jobs of one item."""
        built = self._build(item, examples)
        for number, crossing in enumerate(self._request.crossings):
            before, forms = len(self.jobs), self._forms[number]
            for name in self._names[number]:
                if name not in built:
                    continue
                variant, shown = built[name]
                prompts = [
                    p
                    for p in dict.fromkeys(crossing.prompts)
                    if p.language == variant.prompt_language
                ]
                for prompt, (form, arms) in product(prompts, forms):
                    self._ask(variant, shown, prompt, form, arms)
            self.num_by_crossing[number] += len(self.jobs) - before

    def _build(
        self, item: Item, examples: Sequence[Item]
    ) -> dict[str, tuple[Variant, tuple[Variant, ...]]]:
        """The variants that make sense of an item, by name, each with its examples."""
        seed, peers = self._request.seed, self._request.peers
        built: dict[str, tuple[Variant, tuple[Variant, ...]]] = {}
        for name in dict.fromkeys(name for names in self._names for name in names):
            try:
                variant = apply(item, name, seed, peers)
                shown = tuple(example_of(example, name, seed, peers) for example in examples)
            except NotApplicableError as refused:
                # An item whose content stands twice is one question, and counted as one.
                key = (name, refused.message)
                self.passed_over[key] = self.passed_over.get(key, 0) + 1
                continue
            built[name] = variant, shown
        return built

    def _ask(
        self,
        variant: Variant,
        shown: tuple[Variant, ...],
        prompt: Prompt,
        form: Format,
        arms: Sequence[str],
    ) -> None:
        fitting = [arm for arm in arms if not self._misfit(variant, form, arm)]
        if not fitting:
            return
        messages = build_messages(variant, prompt, form, shown)
        described = _describe(form, variant, prompt.language)
        for arm in fitting:
            key = job_key(self._identity, variant, messages, described, arm)
            if key not in self.jobs:
                ids = tuple(example.item.id for example in shown)
                self.jobs[key] = Job(key, variant, prompt, form.name, arm, messages, ids)

    def _misfit(self, variant: Variant, form: Format, arm: str) -> str:
        if why := form.unfit(variant, arm):
            self._unfit.setdefault((form.name, arm, why), {})[variant.name] = None
        return why

    def unfit_variants(self) -> dict[tuple[str, str, str], tuple[str, ...]]:
        """What could not be asked, with the variants' names in order."""
        return {key: tuple(names) for key, names in self._unfit.items()}


def _describe(form: Format, variant: Variant, language: str) -> AnswerForm:
    return AnswerForm(form.name, form.version, form.pattern(variant, language), form.limit(variant))


def _forms(crossing: Crossing) -> list[tuple[Format, list[str]]]:
    """The formats asked for, each with the arms asked for."""
    if not crossing.formats or not crossing.arms:
        raise UsageError("a plan needs at least one format and one arm")
    names, arms = dict.fromkeys(crossing.formats), dict.fromkeys(crossing.arms)
    for name in names:
        _check_name("format", name, FORMATS)
    for arm in arms:
        _check_name("arm", arm, ARMS)
        if all(FORMATS[name].misfit(arm) for name in names):
            fitting = ", ".join(name for name, form in FORMATS.items() if arm in form.arms)
            raise UsageError(
                f"arm {arm!r} fits none of the formats asked for ({', '.join(names)})",
                hint=f"it fits: {fitting}",
            )
    return [(FORMATS[name], list(arms)) for name in names]


def _check_name(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise unknown_name(kind, name, known)


def _check_prompts(request: Crossing, items: Sequence[Item]) -> None:
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
