"""A spec is a suite with changes; whatever it names exists, or nothing is begun."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.catalog import data_root, suite_cards
from medlocal.errors import UsageError
from medlocal.run.spec import RunSpec, chosen_prompts, make_spec, read_items, read_prompts

names = st.lists(st.text(), max_size=3).map(tuple)
specs = st.builds(
    RunSpec,
    suite=st.text(),
    model=st.text(),
    datasets=names,
    languages=names,
    prompts=names,
    formats=names,
    arms=names,
    variants=names,
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
        prompts=("plain",),
        formats=("letter", "json"),
        arms=("free", "grammar", "label"),
        variants=("original",),
    )


@pytest.mark.parametrize("suite", suite_cards())
def test_every_suite_names_only_what_exists(suite: str) -> None:
    assert make_spec(suite, "a-model").suite == suite


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
        ({"limit": 0}, "--limit must be 1 or more, not 0", None),
        ({"context": -1}, "--context must be 0 or more, not -1", None),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest_names(
    changes: dict[str, object], message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        make_spec(str(changes.pop("suite", "starter")), "m", **changes)
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
    assert [(p.language, p.style) for p in chosen_prompts(spec)] == [
        ("en", "exam"),
        ("en", "plain"),
        ("es", "exam"),
        ("es", "plain"),
    ]


def test_every_style_is_written_in_every_language() -> None:
    written = set(read_prompts())
    assert written == {(lang, style) for lang in ("en", "es") for _, style in written}
