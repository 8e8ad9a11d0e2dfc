"""What a run is, as one frozen value: a suite with what the command line changed of it.

Names are checked here, before anything is loaded. How a run is carried out is not known here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from medlocal.catalog import data_root, dataset_card, dataset_cards, suite_card, suite_cards
from medlocal.errors import UsageError, unknown_name
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item, load_items
from medlocal.evals.plan import ARMS
from medlocal.evals.prompts import Prompt, load_prompts

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

    def to_json(self) -> dict[str, object]:
        """JSON values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The spec that `to_json` wrote."""
        known = {f.name for f in fields(cls)}
        chosen = {key: _frozen(values[key]) for key in known & values.keys()}
        return cls(**chosen)


def make_spec(suite: str, model: str, **changes: Any) -> RunSpec:
    """A suite's spec with changes; a change that is None changes nothing.

    Args:
        suite: id of a suite or, for all items of one data set in two forms, of a data set.
        model: id of a model card, or path to a GGUF.
        changes: fields of `RunSpec`.

    Raises:
        UsageError: a name is unknown; the nearest ones are named.
    """
    spec = replace(_base(suite, model), **{k: v for k, v in changes.items() if v is not None})
    _check("data set", spec.datasets, dataset_cards())
    _check("format", spec.formats, FORMATS)
    _check("arm", spec.arms, ARMS)
    _check("prompt style", spec.prompts, {style for _, style in read_prompts()})
    offered = {lang for name in spec.datasets for lang in dataset_card(name).languages}
    _check("language", spec.languages, offered)
    if spec.mode:
        _check("mode", (spec.mode,), MODES)
    if spec.limit is not None and spec.limit < 1:
        raise UsageError(f"--limit must be 1 or more, not {spec.limit}")
    if spec.context < 0:
        raise UsageError(f"--context must be 0 or more, not {spec.context}")
    return spec


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _base(suite: str, model: str) -> RunSpec:
    suites, datasets = suite_cards(), dataset_cards()
    if suite in suites:
        card = suite_card(suite)
        return RunSpec(
            suite=suite,
            model=model,
            datasets=card.datasets,
            languages=card.languages,
            prompts=card.prompts,
            formats=card.formats,
            arms=card.arms,
            variants=card.variants,
        )
    if suite not in datasets:
        raise unknown_name("suite", suite, [*suites, *datasets])
    languages = dataset_card(suite).languages
    formats, arms = ("letter", "json"), ("free", "grammar", "label")
    return RunSpec(suite, model, (suite,), languages, ("plain",), formats, arms, ("original",))


def read_items(spec: RunSpec) -> list[Item]:
    """All items of a spec's data sets in its languages, before its limit."""
    items: list[Item] = []
    for name in spec.datasets:
        card = dataset_card(name)
        path = data_root() / "benchmarks" / card.file
        for language in spec.languages:
            if language in card.languages:
                items.extend(load_items(path, card.id, card.split, language))
    return items


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
