"""A spec is a suite with changes; whatever it names exists, or nothing is begun."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.catalog import DatasetCard, ImportedItems, data_root, dataset_card, suite_cards
from medlocal.data.library import Origin, is_here, store_set
from medlocal.errors import MissingError, UsageError
from medlocal.evals.items import Item
from medlocal.run.spec import (
    Part,
    RunSpec,
    crossings_of,
    examples_of,
    make_spec,
    read_items,
    read_prompts,
)
from medlocal.settings import Settings

names = st.lists(st.text(), max_size=3).map(tuple)
parts = st.builds(Part, name=st.text(), prompts=names, formats=names, arms=names, variants=names)
specs = st.builds(
    RunSpec,
    suite=st.text(),
    model=st.text(),
    datasets=names,
    languages=names,
    parts=st.lists(parts, min_size=1, max_size=3).map(tuple),
    limit=st.none() | st.integers(),
    mode=st.text(),
    context=st.integers(),
)


def test_a_suite_says_what_is_asked() -> None:
    assert make_spec("starter", "a-model") == RunSpec(
        suite="starter",
        model="a-model",
        datasets=("starter",),
        languages=("en", "es"),
        parts=(
            Part(
                "starter",
                ("plain",),
                ("letter", "json"),
                ("free", "grammar", "label"),
                ("original",),
            ),
        ),
    )


def test_a_suite_of_suites_has_a_part_for_each_that_asks() -> None:
    spec = make_spec("full", "m")
    assert [part.name for part in spec.parts] == [
        "robustness",
        "robustness-two-step",
        "prompts",
        "instruction-levels",
        "answer-transforms",
    ]
    assert spec.datasets == ("starter",)


def test_a_change_holds_for_every_part_and_equal_parts_are_one() -> None:
    spec = make_spec("instructions", "m", formats=("letter",), variants=("original",))
    assert [(part.formats, part.variants) for part in spec.parts] == [
        (("letter",), ("original",)),
        (("letter",), ("original",)),
    ]


def test_variants_are_kept_in_their_one_spelling() -> None:
    spec = make_spec("starter", "m", variants=("shuffle+typos(0.10)", "typos(0.1)+shuffle"))
    assert spec.variants == ("typos(0.1)+shuffle",)


def test_a_layout_is_a_prompt_in_both_languages() -> None:
    spec = make_spec("starter", "m", prompts=("layout(3)",))
    (crossing,) = crossings_of(spec)
    assert [(p.language, p.style) for p in crossing.prompts] == [
        ("en", "layout(3)"),
        ("es", "layout(3)"),
    ]


@pytest.mark.parametrize("style", ["layout(x)", "layouts", "layout(-1)"])
def test_a_layout_without_a_number_is_refused(style: str) -> None:
    with pytest.raises(UsageError, match="layout"):
        make_spec("starter", "m", prompts=(style,))


def test_a_spec_of_an_earlier_version_has_one_part() -> None:
    old = {
        "suite": "starter",
        "model": "m",
        "datasets": ["starter"],
        "languages": ["es"],
        "prompts": ["plain"],
        "formats": ["letter"],
        "arms": ["free"],
        "variants": ["original"],
        "limit": 3,
    }
    assert RunSpec.from_json(old) == RunSpec(
        suite="starter",
        model="m",
        datasets=("starter",),
        languages=("es",),
        parts=(Part("starter", ("plain",), ("letter",), ("free",), ("original",)),),
        limit=3,
    )


@pytest.mark.parametrize("suite", suite_cards())
def test_every_suite_names_only_what_exists(suite: str, tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    for name in suite_cards()[suite].datasets:
        if not is_here(dataset_card(name), here):
            for language in dataset_card(name).languages:
                item = an_item(name, language)
                store_set(name, [item], Origin("made up"), here)
    spec = make_spec(suite, "a-model", settings=here)
    assert (spec.suite, spec.left_out) == (suite, ())


def an_item(dataset: str, language: str, name: str = "a", split: str = "test") -> Item:
    return Item(
        id=name,
        dataset=dataset,
        split=split,
        language=language,
        stem=f"Stem {name} {language}",
        options=("1", "2", "3", "4"),
        gold=0,
        subject="s",
        group=f"{dataset}/{name}",
    )


def test_a_suite_goes_on_without_the_sets_that_are_not_here(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    store_set("head-qa", [an_item("head-qa", "es")], Origin("made up"), here)
    spec = make_spec("clinical-es", "m", settings=here)
    assert spec.datasets == ("head-qa",)
    assert spec.left_out == ("casimedicos", "careqa")


def test_a_suite_of_which_nothing_is_here_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="head-qa, casimedicos, careqa") as caught:
        make_spec("clinical-es", "m", settings=Settings(home=tmp_path))
    assert caught.value.hint is not None
    assert "medlocal data pull head-qa" in caught.value.hint


@pytest.mark.parametrize("suite", ["careqa", "clinical-es"])
def test_a_set_that_was_asked_for_by_name_must_be_here(suite: str, tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    store_set("head-qa", [an_item("head-qa", "es")], Origin("made up"), here)
    with pytest.raises(MissingError, match="not on this machine: careqa"):
        make_spec(suite, "m", settings=here, datasets=("careqa",))


def test_a_paired_suite_asks_only_what_stands_in_every_language(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    both = [an_item("head-qa", language) for language in ("en", "es")]
    store_set("head-qa", [*both, an_item("head-qa", "es", "b")], Origin("made up"), here)
    spec = make_spec("clinical-parallel", "m", settings=here)
    assert read_items(spec, here) == both


def test_a_language_without_prompts_cannot_be_asked(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    store_set("casimedicos", [an_item("casimedicos", "fr")], Origin("made up"), here)
    with pytest.raises(UsageError, match="no prompts and answer formats in 'fr'"):
        make_spec("casimedicos", "m", settings=here, languages=("fr",))
    assert make_spec("casimedicos", "m", settings=here).languages == ("es", "en")


def test_a_set_in_a_language_without_prompts_is_refused_by_its_name(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    mine = DatasetCard("mine", "Mine", ("fr",), "test", "", "", 1, ImportedItems("mine.csv"))
    store_set("mine", [an_item("mine", "fr")], Origin("mine.csv"), here, mine)
    with pytest.raises(UsageError, match="no prompts and answer formats in 'fr'"):
        make_spec("mine", "m", settings=here)


def test_examples_come_from_the_splits_that_the_card_names(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    asked = an_item("head-qa", "es")
    shown = [an_item("head-qa", "es", name, "validation") for name in "xyz"]
    train = an_item("head-qa", "es", "t", "train")
    store_set("head-qa", [asked, *shown, train], Origin("made up"), here)
    spec = make_spec("head-qa", "m", settings=here, shots=3)
    assert list(examples_of(spec, here)(asked)) == shown


def test_a_set_without_examples_refuses_shots(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no split here to take few-shot examples from: starter"):
        make_spec("starter", "m", settings=Settings(home=tmp_path), shots=1)


def test_a_suite_leaves_out_the_sets_that_have_no_examples_here(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    shown = an_item("head-qa", "es", "x", "validation")
    store_set("head-qa", [an_item("head-qa", "es"), shown], Origin("made up"), here)
    store_set("careqa", [an_item("careqa", "es")], Origin("made up"), here)
    spec = make_spec("clinical-es", "m", settings=here, shots=1)
    assert (spec.datasets, spec.left_out) == (("head-qa",), ("casimedicos", "careqa"))


def test_the_command_line_changes_a_suite() -> None:
    changed = make_spec("starter", "m", languages=("es",), limit=3, mode="fast", context=900)
    assert (changed.languages, changed.limit) == (("es",), 3)
    assert (changed.mode, changed.context) == ("fast", 900)
    assert changed.formats == ("letter", "json")


def test_an_option_that_was_not_given_changes_nothing() -> None:
    assert make_spec("starter", "m", languages=None, limit=None, mode=None) == make_spec(
        "starter", "m"
    )


def test_a_data_set_without_a_suite_is_asked_in_two_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("models", "benchmarks"):
        shutil.copytree(data_root() / folder, tmp_path / folder)
    shutil.copytree(tmp_path / "benchmarks" / "starter", tmp_path / "benchmarks" / "wards")
    monkeypatch.setattr("medlocal.catalog.data_root", lambda: tmp_path)
    spec = make_spec("wards", "m")
    assert (spec.suite, spec.datasets, spec.languages) == ("wards", ("wards",), ("en", "es"))
    assert (spec.formats, spec.arms) == (("letter", "json"), ("free", "grammar", "label"))
    assert (spec.limit, spec.prompts, spec.variants) == (None, ("plain",), ("original",))


@given(specs)
@settings(max_examples=50, deadline=None)
def test_a_spec_survives_json(spec: RunSpec) -> None:
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_newer_version_may_have_written_more() -> None:
    spec = make_spec("starter", "m")
    assert RunSpec.from_json({**spec.to_json(), "temperature": 0.7}) == spec


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"suite": "startr"}, "no suite is called 'startr'", "did you mean starter?"),
        ({"datasets": ("start",)}, "no data set is called 'start'", "did you mean starter?"),
        ({"formats": ("jsn",)}, "no format is called 'jsn'", "did you mean json?"),
        ({"arms": ("free", "gramar")}, "no arm is called 'gramar'", "did you mean grammar?"),
        ({"prompts": ("plane",)}, "no prompt style is called 'plane'", "did you mean plain?"),
        ({"languages": ("fr",)}, "no language is called 'fr'", "known: en, es"),
        ({"mode": "exat"}, "no mode is called 'exat'", "did you mean exact?"),
        ({"shots": 6}, "--shots must be from 0 to 5, not 6", None),
        ({"seed": -1}, "--sample and --seed must be 0 or more", None),
        ({"limit": 0}, "--limit must be 1 or more, not 0", None),
        ({"context": -1}, "--context must be 0 or more, not -1", None),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest_names(
    changes: dict[str, object], message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        make_spec(str(changes.pop("suite", "starter")), "m", **changes)  # type: ignore[arg-type]
    assert caught.value.message == message
    assert caught.value.hint == hint


def test_the_items_are_those_of_the_data_sets_in_the_languages() -> None:
    items = read_items(make_spec("starter", "m"))
    assert [(i.dataset, i.language) for i in items] == [("starter", "en")] * 128 + [
        ("starter", "es")
    ] * 128


def test_the_limit_is_not_the_readers_business() -> None:
    assert len(read_items(make_spec("starter", "m", languages=("es",), limit=2))) == 128


def test_every_style_is_asked_in_every_language() -> None:
    spec = make_spec("starter", "m", prompts=("exam", "plain"))
    (crossing,) = crossings_of(spec)
    assert [(p.language, p.style) for p in crossing.prompts] == [
        ("en", "exam"),
        ("en", "plain"),
        ("es", "exam"),
        ("es", "plain"),
    ]


def test_every_style_is_written_in_every_language() -> None:
    written = set(read_prompts())
    assert written == {(lang, style) for lang in ("en", "es") for _, style in written}
