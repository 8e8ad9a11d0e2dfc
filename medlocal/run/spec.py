"""What a run is, as one frozen value: a suite with what the command line changed of it.

Names are checked here, before anything is loaded. How a run is carried out is not known here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item
from medlocal.evals.plan import ARMS
from medlocal.evals.prompts import Prompt, load_prompts
from medlocal.settings import Settings, load_settings

MODES = ("exact", "fast")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that says what a run asks."""

    suite: str
    model: str
    """Id of a card, or path to a GGUF, as the user wrote it."""
    datasets: tuple[str, ...]
    languages: tuple[str, ...]
    prompts: tuple[str, ...]
    """Styles; every style exists in every language."""
    formats: tuple[str, ...]
    arms: tuple[str, ...]
    variants: tuple[str, ...]
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
    """Of the sample and of the choice of examples."""
    paired: bool = False
    """True: only items that stand in every language asked."""
    left_out: tuple[str, ...] = ()
    """Data sets of the suite that are not on this machine, or have no examples here for `shots`."""

    def to_json(self) -> dict[str, object]:
        """JSON values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The spec that `to_json` wrote."""
        known = {f.name for f in fields(cls)}
        chosen = {key: _frozen(values[key]) for key in known & values.keys()}
        return cls(**chosen)


def make_spec(
    suite: str, model: str, *, settings: Settings | None = None, **changes: Any
) -> RunSpec:
    """A suite's spec with changes; a change that is None changes nothing.

    Args:
        suite: id of a suite or, for all items of one data set in two forms, of a data set.
        model: id of a model card, or path to a GGUF.
        settings: where data sets are kept; None = those of this process.
        changes: fields of `RunSpec`.

    Raises:
        UsageError: a name is unknown; the nearest ones are named.
        MissingError: a data set that was asked for, or every one of the suite, is not here.
    """
    settings = settings or load_settings()
    known = known_sets(settings)
    base = _base(suite, model, known)
    spec = replace(base, **{k: v for k, v in changes.items() if v is not None})
    _check("data set", spec.datasets, known)
    _check("format", spec.formats, FORMATS)
    _check("arm", spec.arms, ARMS)
    _check("prompt style", spec.prompts, {style for _, style in read_prompts()})
    offered = {lang for name in spec.datasets for lang in known[name].languages}
    _check("language", spec.languages, offered)
    _check_askable(spec.languages)
    if spec.mode:
        _check("mode", (spec.mode,), MODES)
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
        return _of_suite(suites[suite], model)
    if suite not in datasets:
        raise unknown_name("suite", suite, [*suites, *datasets])
    asked = {language for language, _ in read_prompts()}
    languages = tuple(lang for lang in datasets[suite].languages if lang in asked)
    # Without a language that can be asked, `_check_askable` says so.
    languages = languages or datasets[suite].languages
    formats, arms = ("letter", "json"), ("free", "grammar", "label")
    return RunSpec(suite, model, (suite,), languages, ("plain",), formats, arms, ("original",))


def _of_suite(card: SuiteCard, model: str) -> RunSpec:
    return RunSpec(
        suite=card.id,
        model=model,
        datasets=card.datasets,
        languages=card.languages,
        prompts=card.prompts,
        formats=card.formats,
        arms=card.arms,
        variants=card.variants,
        sample=card.sample,
        paired=card.paired,
        shots=card.shots,
    )


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


def chosen_prompts(spec: RunSpec) -> tuple[Prompt, ...]:
    """The prompts that a spec asks with."""
    prompts = read_prompts()
    return tuple(prompts[lang, style] for lang in spec.languages for style in spec.prompts)


def _check(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)
