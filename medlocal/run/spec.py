"""What a run is, as one frozen value: a suite with what the command line changed of it.

Names are checked here, before anything is loaded. How a run is carried out is not known here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from medlocal.catalog import MAX_SHOTS, DatasetCard, SuiteCard, data_root, suite_cards
from medlocal.data.fewshot import ExamplePool
from medlocal.data.library import (
    has_examples,
    is_here,
    known_set,
    known_sets,
    pull_hint,
    read_set,
)
from medlocal.data.sampling import stratified
from medlocal.errors import MissingError, UsageError, unknown_name
from medlocal.evals.formats import ARMS, FORMATS
from medlocal.evals.items import Item
from medlocal.evals.layouts import is_layout, layout, parse_layout
from medlocal.evals.perturb import parse_variant
from medlocal.evals.plan import Crossing
from medlocal.evals.prompts import Prompt, load_prompts
from medlocal.evals.variant import NO_PEERS, Peers
from medlocal.settings import Settings, load_settings

MODES = ("exact", "fast")


@dataclass(frozen=True, slots=True)
class Part:
    """One crossing of a run: a suite's own, or that of one of the suites it puts together."""

    name: str
    """Id of the suite, or of the data set."""
    prompts: tuple[str, ...]
    """Styles; every style exists in every language."""
    formats: tuple[str, ...]
    arms: tuple[str, ...]
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that says what a run asks."""

    suite: str
    model: str
    """Id of a card, or path to a GGUF, as the user wrote it."""
    datasets: tuple[str, ...]
    languages: tuple[str, ...]
    parts: tuple[Part, ...]
    """Their jobs are put together, each job once."""
    limit: int | None = None
    """Items per data set and language; None = all."""
    mode: str = ""
    """`exact`, `fast`, or "" = exact on a CPU, fast on a GPU."""
    context: int = 0
    """Longest prompt with its answer, in tokens; 0 = what the model was trained with."""
    shots: int = 0
    """Few-shot examples before each question, chosen per item."""
    sample: int = 0
    """Items drawn over all data sets and languages, stratified; 0 = all."""
    seed: int = 0
    """Of the sample, of the choice of examples and of the perturbations."""
    paired: bool = False
    """True: only items that stand in every language asked."""
    more_models: tuple[str, ...] = ()
    """Asked the same after `model`, one after the other."""
    is_balanced: bool = False
    """True: asked in an order of which every beginning is a balanced sample."""
    left_out: tuple[str, ...] = ()
    """Data sets of the suite that are not on this machine, or have no examples here for `shots`."""

    @property
    def models(self) -> tuple[str, ...]:
        """All models, in the order in which they are asked."""
        return (self.model, *self.more_models)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The styles of all parts."""
        return _union(part.prompts for part in self.parts)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of all parts."""
        return _union(part.formats for part in self.parts)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms of all parts."""
        return _union(part.arms for part in self.parts)

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of all parts."""
        return _union(part.variants for part in self.parts)

    def to_json(self) -> dict[str, object]:
        """JSON values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The spec that `to_json` wrote, or an earlier version of it, which had one part."""
        known = {f.name for f in fields(cls)} - {"parts"}
        chosen = {key: _frozen(values[key]) for key in known & values.keys()}
        parts = values.get("parts") or [{"name": values["suite"], **values}]
        names = [f.name for f in fields(Part)]
        return cls(
            parts=tuple(Part(**{key: _frozen(part[key]) for key in names}) for part in parts),
            **chosen,
        )


def _union(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


_OF_PARTS = ("prompts", "formats", "arms", "variants")


def make_spec(
    suite: str, model: str, *, settings: Settings | None = None, **changes: Any
) -> RunSpec:
    """A suite's spec with changes; a change that is None changes nothing.

    Args:
        suite: id of a suite or, for all items of one data set in two forms, of a data set.
        model: id of a model card, or path to a GGUF.
        settings: where data sets are kept; None = those of this process.
        changes: fields of `RunSpec`, or of `Part` for all of its parts.

    Raises:
        UsageError: a name is unknown; the nearest ones are named.
        MissingError: a data set that was asked for, or every one of the suite, is not here.
    """
    settings = settings or load_settings()
    known = known_sets(settings)
    base = _base(suite, model, known)
    made = {key: value for key, value in changes.items() if value is not None}
    inside = {key: made.pop(key) for key in _OF_PARTS if key in made}
    parts = tuple(replace(part, **inside) for part in base.parts)
    spec = replace(base, parts=tuple(dict.fromkeys(parts)), **made)
    _check("data set", spec.datasets, known)
    _check("format", spec.formats, FORMATS)
    _check("arm", spec.arms, ARMS)
    _check_prompts(spec.prompts)
    spec = _spelled(spec)
    offered = {lang for name in spec.datasets for lang in known[name].languages}
    _check("language", spec.languages, offered)
    _check_askable(spec.languages)
    if spec.mode:
        _check("mode", (spec.mode,), MODES)
    if len(set(spec.models)) < len(spec.models):
        raise UsageError("a model is named twice", hint="--model once for each")
    _check_numbers(spec)
    is_chosen = spec.datasets != base.datasets or suite in known
    return _present(spec, known, settings, is_chosen=is_chosen)


def _check_numbers(spec: RunSpec) -> None:
    if spec.limit is not None and spec.limit < 1:
        raise UsageError(f"--limit must be 1 or more, not {spec.limit}")
    if spec.context < 0:
        raise UsageError(f"--context must be 0 or more, not {spec.context}")
    if not 0 <= spec.shots <= MAX_SHOTS:
        raise UsageError(f"--shots must be from 0 to {MAX_SHOTS}, not {spec.shots}")
    if spec.sample < 0 or spec.seed < 0:
        raise UsageError("--sample and --seed must be 0 or more")


def _check_askable(languages: Iterable[str]) -> None:
    asked = {language for language, _ in read_prompts()}
    for language in languages:
        if language not in asked:
            raise UsageError(
                f"there are no prompts and answer formats in {language!r}",
                hint=f"ask in {' or '.join(sorted(asked))}; items in other languages can be shown",
            )


def _present(
    spec: RunSpec, known: Mapping[str, DatasetCard], settings: Settings, *, is_chosen: bool
) -> RunSpec:
    """Leave out a suite's sets that cannot be asked here; one that the user named must be here."""
    cards = [known[name] for name in spec.datasets]
    missing = [card for card in cards if not is_here(card, settings)]
    bare = [
        card
        for card in cards
        if spec.shots and card not in missing and not has_examples(card, settings)
    ]
    left_out = tuple(card.id for card in cards if card in (*missing, *bare))
    present = tuple(name for name in spec.datasets if name not in left_out)
    if missing and (is_chosen or not present):
        raise MissingError(
            f"not on this machine: {', '.join(card.id for card in missing)}",
            hint="; ".join(pull_hint(card) for card in missing),
        )
    if bare and (is_chosen or not present):
        raise MissingError(
            "no split here to take few-shot examples from: " + ", ".join(card.id for card in bare),
            hint="ask without --shots, or pull the Hub's files, which may hold more splits",
        )
    return replace(spec, datasets=present, left_out=left_out)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _base(suite: str, model: str, datasets: Mapping[str, DatasetCard]) -> RunSpec:
    suites = suite_cards()
    if suite in suites:
        return _of_suite(suites[suite], model, suites)
    if suite not in datasets:
        raise unknown_name("suite", suite, [*suites, *datasets])
    asked = {language for language, _ in read_prompts()}
    languages = tuple(lang for lang in datasets[suite].languages if lang in asked)
    # Without a language that can be asked, `_check_askable` says so.
    languages = languages or datasets[suite].languages
    formats, arms = ("letter", "json"), ("free", "grammar", "label")
    part = Part(suite, ("plain",), formats, arms, ("original",))
    return RunSpec(suite, model, (suite,), languages, (part,))


def _of_suite(card: SuiteCard, model: str, suites: Mapping[str, SuiteCard]) -> RunSpec:
    return RunSpec(
        suite=card.id,
        model=model,
        datasets=card.datasets,
        languages=card.languages,
        parts=tuple(_parts(card, suites)),
        sample=card.sample,
        paired=card.paired,
        shots=card.shots,
    )


def _parts(
    card: SuiteCard, suites: Mapping[str, SuiteCard], above: tuple[str, ...] = ()
) -> Iterator[Part]:
    if not card.suites:
        yield Part(card.id, card.prompts, card.formats, card.arms, card.variants)
    for name in card.suites:
        if name not in suites:
            raise unknown_name("suite", name, suites)
        if name in (*above, card.id):
            raise UsageError(f"suite {card.id!r} holds {name!r}, which holds it")
        yield from _parts(suites[name], suites, (*above, card.id))


def _check_prompts(styles: Iterable[str]) -> None:
    known = {style for _, style in read_prompts()}
    for style in styles:
        if is_layout(style):
            parse_layout(style)
        else:
            _check("prompt style", (style,), known)


def _spelled(spec: RunSpec) -> RunSpec:
    """The spec with the one spelling of every variant's name; UsageError where there is none."""
    parts = (
        replace(part, variants=tuple(dict.fromkeys(parse_variant(v).name for v in part.variants)))
        for part in spec.parts
    )
    return replace(spec, parts=tuple(parts))


def read_items(spec: RunSpec, settings: Settings | None = None) -> list[Item]:
    """The items of a spec: of its data sets in its languages, paired and sampled; before its limit.

    Args:
        spec: what is asked.
        settings: where data sets are kept; None = those of this process.

    Raises:
        MissingError: a data set is not here any more.
        UsageError: no item is left.
    """
    settings = settings or load_settings()
    items = [
        item
        for name in spec.datasets
        for item in read_set(known_set(name, settings), settings, spec.languages)
    ]
    if spec.paired:
        items = _paired(items, spec.languages)
    if spec.sample:
        items = stratified(items, spec.sample, spec.seed)
    if not items:
        raise UsageError(
            f"no item of {', '.join(spec.datasets)} is in {', '.join(spec.languages)}",
            hint="see `medlocal data show SET`",
        )
    return items


def read_peers(spec: RunSpec, settings: Settings | None = None) -> Peers:
    """All items of a spec's data sets, for the variants that take something from others.

    In every language that can be asked, and neither sampled nor limited: a variant must not depend on
    what else is asked. Nothing is read where no variant needs it.
    """
    if not any(parse_variant(name).needs_peers for name in spec.variants):
        return NO_PEERS
    settings = settings or load_settings()
    asked = {language for language, _ in read_prompts()}
    return Peers.of(
        item
        for name in spec.datasets
        for card in (known_set(name, settings),)
        for item in read_set(card, settings, [lang for lang in card.languages if lang in asked])
    )


def _paired(items: Sequence[Item], languages: Sequence[str]) -> list[Item]:
    """The items whose group and id stand in every language."""
    found: dict[tuple[str, str], set[str]] = {}
    for item in items:
        found.setdefault((item.dataset, item.id), set()).add(item.language)
    return [item for item in items if len(found[item.dataset, item.id]) == len(languages)]


def examples_of(
    spec: RunSpec, settings: Settings | None = None
) -> Callable[[Item], Sequence[Item]]:
    """What chooses the few-shot examples of an item, from the splits that its set's card names.

    It raises UsageError for an item that has too few.
    """
    if not spec.shots:
        return lambda _: ()
    settings = settings or load_settings()
    pools: dict[str, ExamplePool] = {}
    for name in spec.datasets:
        card = known_set(name, settings)
        pool = read_set(card, settings, spec.languages, card.examples)
        pools[name] = ExamplePool(pool, spec.seed)
    return lambda item: pools[item.dataset].choose(item, spec.shots)


def read_prompts() -> dict[tuple[str, str], Prompt]:
    """All written prompts by (language, style)."""
    return load_prompts(data_root() / "benchmarks" / "prompts")


def crossings_of(spec: RunSpec) -> tuple[Crossing, ...]:
    """What a spec crosses its items with.

    The prompts are there in every language that has some: a variant may be asked in another
    language than its item's.
    """
    written = read_prompts()
    languages = tuple(dict.fromkeys(language for language, _ in written))

    def prompts(styles: Iterable[str]) -> tuple[Prompt, ...]:
        return tuple(
            layout(parse_layout(style), language) if is_layout(style) else written[language, style]
            for language in languages
            for style in styles
        )

    return tuple(
        Crossing(prompts(part.prompts), part.formats, part.arms, part.variants)
        for part in spec.parts
    )


def _check(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)
