"""Cases become readable questions, parallel in four languages, with nothing left that tells the answer."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.data.casimedicos import read_items, read_original
from medlocal.data.rows import NO_GOLD, Excluded, Row
from medlocal.errors import MedlocalError, MissingError, UsageError
from medlocal.evals.items import Item

CASE = """QUESTION TYPE: GENETICS
CLINICAL CASE:
Niña de 2 años con fiebre de 38,5 ºC.
¿Cuál es el diagnóstico más probable?
1- Sepsis (grave).
2- Otitis.
Se trata en casa.
3- Gripe.
4- Varicela.
5- nan
CORRECT ANSWER: 3
La gripe explica la fiebre.
Por eso la 3."""


def a_row(text: str = CASE, language: str = "es", number: int = 1, split: str = "test") -> Row:
    sentences = [line.split() for line in text.split("\n")]
    labels = [["O"] * len(sentence) for sentence in sentences]
    values = {"id": number, "text": sentences, "labels": labels}
    return Row(values, split, language, language, number)


def one(row: Row) -> Item | Excluded:
    (result,) = read_items("casimedicos", [row])
    return result


def test_a_case_becomes_a_question() -> None:
    item = one(a_row())
    assert isinstance(item, Item)
    assert (
        item.stem == "Niña de 2 años con fiebre de 38,5 ºC. ¿Cuál es el diagnóstico más probable?"
    )
    assert item.options == ("Sepsis (grave).", "Otitis. Se trata en casa.", "Gripe.", "Varicela.")
    assert (item.gold, item.subject, item.id) == (2, "genetics", "test-1")
    assert item.rationale == "La gripe explica la fiebre. Por eso la 3."


@pytest.mark.parametrize(
    "marker",
    ["CORRECT ANSWER: 3", "CORRECT ANSWER : 3", "BONNE RÉPONSE : 3", "RÉPONSE CORRECTE : 3",
     "RISPOSTA CORRETTA: 3"],
)  # fmt: skip
def test_every_marker_of_the_release_ends_the_question(marker: str) -> None:
    item = one(a_row(CASE.replace("CORRECT ANSWER: 3", marker)))
    assert isinstance(item, Item)
    assert item.gold == 2
    assert not re.search("ANSWER|RÉPONSE|RISPOSTA|explica", " ".join((item.stem, *item.options)))


def test_an_option_that_lost_its_hyphen_is_one() -> None:
    item = one(a_row(CASE.replace("3- Gripe.", "3 Gripe.")))
    assert isinstance(item, Item)
    assert item.options[2] == "Gripe."


def test_a_number_out_of_turn_goes_on_with_the_option() -> None:
    item = one(a_row(CASE.replace("Se trata en casa.", "5 días en casa.")))
    assert isinstance(item, Item)
    assert item.options[1] == "Otitis. 5 días en casa."


def test_a_gold_that_is_no_option_is_excluded() -> None:
    result = one(a_row(CASE.replace("ANSWER: 3", "ANSWER: 5")))
    assert result == Excluded("test-1", "test", "es", NO_GOLD)


def test_parallel_cases_share_group_and_subject() -> None:
    french = a_row(CASE.replace("GENETICS", "GÉNÉTIQUE").replace("Niña", "Fille"), "fr")
    es, fr = read_items("casimedicos", [a_row(), french])
    assert isinstance(es, Item)
    assert isinstance(fr, Item)
    assert (es.group, es.subject, es.id) == (fr.group, fr.subject, fr.id)


def test_the_same_case_with_another_question_shares_the_group() -> None:
    case = CASE.replace("Niña de 2 años", "Niña de 2 años " + "y una historia muy larga " * 8)
    other = case.replace("el diagnóstico más probable", "el tratamiento")
    first, second, third = read_items(
        "casimedicos", [a_row(case), a_row(other, split="train", number=9), a_row(number=5)]
    )
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert isinstance(third, Item)
    assert first.group == second.group != third.group


def test_texts_that_spell_lists_are_read_as_on_the_hub() -> None:
    row = a_row()
    spelled = {key: str(value) for key, value in row.values.items()}
    assert one(Row(spelled, "test", "es", "es", 1)) == one(row)


@pytest.mark.parametrize("text", ["", "no list", "[1, 2]", "[['a', 1]]", "[" * 500])
def test_what_is_no_case_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="casimedicos, es, test, case 1"):
        one(Row({"text": text}, "test", "es", "es", 1))


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_our_own_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cases")
    for name in ("ES", "EN", "FR", "IT"):
        (folder / name).mkdir()
        for file in ("train.tsv", "dev.tsv", "test.tsv"):
            (folder / name / file).write_bytes(content)
    try:
        list(read_items("casimedicos", read_original(folder)))
    except MedlocalError:
        return


def test_a_folder_without_the_files_is_missing_them(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"ES/train\.tsv"):
        list(read_original(tmp_path))


@pytest.fixture(scope="module")
def items(shared_data: Path) -> list[Item]:
    """All cases of the release."""
    results = list(read_items("casimedicos", read_original(shared_data / "casimedicos")))
    assert all(isinstance(result, Item) for result in results)
    return [result for result in results if isinstance(result, Item)]


@pytest.mark.shared_data
class TestTheRelease:
    def test_every_case_is_asked_in_every_language(self, items: list[Item]) -> None:
        counts = Counter((item.language, item.split) for item in items)
        expected = {"train": 381, "validation": 55, "test": 117}
        assert counts == {
            (language, split): number
            for language in ("en", "es", "fr", "it")
            for split, number in expected.items()
        }

    def test_298_cases_have_four_options(self, items: list[Item]) -> None:
        spanish = Counter(len(item.options) for item in items if item.language == "es")
        assert spanish == {4: 298, 5: 255}
        assert not [o for item in items for o in item.options if o.casefold().strip(" .") == "nan"]

    def test_the_languages_are_parallel(self, items: list[Item]) -> None:
        by_id: dict[str, set[tuple[int, int, str, str]]] = {}
        for item in items:
            facts = (item.gold, len(item.options), item.group, item.subject)
            by_id.setdefault(item.id, set()).add(facts)
        assert len(by_id) == 553
        assert all(len(facts) == 1 for facts in by_id.values())

    def test_no_marker_and_no_explanation_is_left(self, items: list[Item]) -> None:
        marker = re.compile("CORRECT ANSWER|BONNE RÉPONSE|RÉPONSE CORRECTE|RISPOSTA CORRETTA|QUESTION TYPE|CLINICAL CASE")  # fmt: skip
        for item in items:
            shown = " ".join((item.stem, *item.options))
            assert not marker.search(shown)
            # Explanations quote options, never the case: their beginning must not be in the stem,
            # nor their end in the last option.
            words = item.rationale.split()
            assert not words or " ".join(words[:12]) not in item.stem
            assert not words or " ".join(words[-12:]) not in item.options[-1]

    def test_spaces_stand_where_each_language_wants_them(self, items: list[Item]) -> None:
        faults: Counter[str] = Counter()
        for item in items:
            for found in _spacing(item):
                faults[found] += 1
        # What is left is in the release itself, inside its tokens or between them.
        assert sum(faults.values()) <= 40, faults


def _spacing(item: Item) -> Iterator[str]:
    shown = "\n".join((item.stem, *item.options))
    wrong = r" [,.)\]]|[(\[] |  |[¿¡] "
    if item.language != "fr":
        wrong += r"| [;:?!]"
    for match in re.finditer(wrong, shown):
        yield f"{item.language}: {match[0]!r}"
