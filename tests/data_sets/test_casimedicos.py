"""Cases become readable questions, parallel in four languages, with nothing left that tells the answer."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.data.casimedicos import read_items, read_original, readable
from medlocal.data.copies import same_cases
from medlocal.data.rows import (
    EMPTY_OPTION,
    EMPTY_STEM,
    GOLD_TWICE,
    NO_GOLD,
    TOO_FEW_OPTIONS,
    UNREADABLE,
    Excluded,
    Row,
)
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

Released = dict[tuple[str, str, int], list[list[str]]]
"""The tokens of each case, in sentences, by language, split and number."""
NAMES = {"train": "train", "dev": "validation", "test": "test"}


def a_row(text: str = CASE, language: str = "es", number: int = 1, split: str = "test") -> Row:
    sentences = [line.split() for line in text.split("\n")]
    labels = [["O"] * len(sentence) for sentence in sentences]
    values = {"id": number, "text": sentences, "labels": labels}
    return Row(values, split, language, language, number)


def all_of(*rows: Row) -> list[Item | Excluded]:
    return list(read_items("casimedicos", rows))


def items_of(*rows: Row) -> list[Item]:
    items = [result for result in all_of(*rows) if isinstance(result, Item)]
    assert len(items) == len(rows)
    return items


def reason(text: str) -> str:
    (result,) = all_of(a_row(text))
    assert isinstance(result, Excluded)
    return result.reason


def write_release(folder: Path, content: bytes) -> Path:
    for name in ("ES", "EN", "FR", "IT"):
        (folder / name).mkdir()
        for file in ("train.tsv", "dev.tsv", "test.tsv"):
            (folder / name / file).write_bytes(content)
    return folder


class TestACase:
    def test_it_becomes_a_question(self) -> None:
        assert all_of(a_row()) == [
            Item(
                id="test-1",
                dataset="casimedicos",
                split="test",
                language="es",
                stem="Niña de 2 años con fiebre de 38,5 ºC. ¿Cuál es el diagnóstico más probable?",
                options=("Sepsis (grave).", "Otitis. Se trata en casa.", "Gripe.", "Varicela."),
                gold=2,
                subject="genetics",
                group="casimedicos/case-test-1",
                rationale="La gripe explica la fiebre. Por eso la 3.",
                flags=("vignette",),
            )
        ]

    @pytest.mark.parametrize(
        "marker",
        ["CORRECT ANSWER: 3", "CORRECT ANSWER : 3", "BONNE RÉPONSE : 3", "RÉPONSE CORRECTE : 3",
         "RISPOSTA CORRETTA: 3"],
    )  # fmt: skip
    def test_every_marker_of_the_release_ends_the_question(self, marker: str) -> None:
        (item,) = items_of(a_row(CASE.replace("CORRECT ANSWER: 3", marker)))
        assert item.gold == 2
        assert not re.search(
            "ANSWER|RÉPONSE|RISPOSTA|explica", " ".join((item.stem, *item.options))
        )

    def test_a_marker_that_lost_its_line_break_ends_the_question(self) -> None:
        (item,) = items_of(a_row(CASE.replace("nan\nCORRECT", "Asma. CORRECT")))
        assert item.options[3:] == ("Varicela.", "Asma.")

    def test_a_nan_before_the_gold_leaves_the_gold_where_it_is(self) -> None:
        (item,) = items_of(a_row(CASE.replace("Sepsis (grave).", "nan")))
        assert item.options[item.gold] == "Gripe."

    @pytest.mark.parametrize(
        ("whole", "damaged"),
        [("\n3- Gripe", " 3- Gripe"), ("\n3- Gripe", "\n3 Gripe"), ("3- Gripe", "3-Gripe"),
         ("3- Gripe", "3 - Gripe")],
        ids=["no line break", "no hyphen", "no space", "one space more"],
    )  # fmt: skip
    def test_an_option_is_found_in_spite_of(self, whole: str, damaged: str) -> None:
        assert items_of(a_row(CASE.replace(whole, damaged))) == items_of(a_row())

    def test_a_number_out_of_turn_goes_on_with_the_option(self) -> None:
        (item,) = items_of(a_row(CASE.replace("Se trata en casa.", "5 días en casa.")))
        assert item.options[1] == "Otitis. 5 días en casa."

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("\n3- Gripe.", "", UNREADABLE),
            ("\n3- Gripe.", "\n2- Gripe.", UNREADABLE),
            ("CORRECT ANSWER: 3", "RESPUESTA: 3", UNREADABLE),
            ("QUESTION TYPE: GENETICS", "QUESTION TYPE:", UNREADABLE),
            ("CLINICAL CASE:", "CASO:", UNREADABLE),
            ("ANSWER: 3", "ANSWER: 5", NO_GOLD),
            ("ANSWER: 3", "ANSWER:", NO_GOLD),
            ("ANSWER: 3", "ANSWER: 33", NO_GOLD),
            ("4- Varicela.", "4-", EMPTY_OPTION),
            ("Varicela.", "Gripe.", GOLD_TWICE),
            ("Niña de 2 años con fiebre de 38,5 ºC.\n¿Cuál es el diagnóstico más probable?\n", "",
             EMPTY_STEM),
            ("\n2- Otitis.\nSe trata en casa.\n3- Gripe.\n4- Varicela.\n5- nan", "", TOO_FEW_OPTIONS),
        ],
    )  # fmt: skip
    def test_what_cannot_be_asked_is_left_out_with(self, old: str, new: str, expected: str) -> None:
        assert CASE.count(old) == 1
        assert reason(CASE.replace(old, new)) == expected


class TestParallelCases:
    def test_they_share_id_group_and_subject(self) -> None:
        french = a_row(CASE.replace("GENETICS", "GÉNÉTIQUE").replace("Niña", "Fille"), "fr")
        fr, es = items_of(french, a_row())
        assert (fr.id, fr.group, fr.subject) == (es.id, es.group, es.subject)
        assert es.subject == "genetics"

    @pytest.mark.parametrize(("old", "new"), [("ANSWER: 3", "ANSWER: 4"), ("nan", "Asma.")])
    def test_one_that_disagrees_with_the_spanish_is_left_out(self, old: str, new: str) -> None:
        result = all_of(a_row(CASE.replace(old, new), "it"), a_row())
        assert result[0] == Excluded("test-1", "test", "it", UNREADABLE)
        assert isinstance(result[1], Item)

    def test_copies_of_a_case_share_a_group_across_splits_and_languages(self) -> None:
        story = "una historia de tos, pérdida de peso y sudoración nocturna desde hace tres meses"
        case = CASE.replace("Niña de 2 años", f"Niña de 2 años con {story}")
        copy = case.replace("pérdida", "perdida").replace("diagnóstico más", "tratamiento más")
        es, fr, copied, other = items_of(
            a_row(case),
            a_row(CASE.replace("Niña", "Fille"), "fr"),
            a_row(copy, split="train", number=9),
            a_row(CASE.replace("Niña de 2 años con fiebre", "Varón con tos"), number=5),
        )
        assert es.group == fr.group == copied.group == "casimedicos/case-test-1"
        assert other.group == "casimedicos/case-test-5"

    def test_copies_that_contradict_each_other_are_flagged(self) -> None:
        rows = [
            a_row(),
            a_row(split="train"),
            a_row(CASE.replace(": 3", ": 4"), split="validation"),
        ]
        assert {item.flags for item in items_of(*rows[:2])} == {("vignette",)}
        assert {item.flags for item in items_of(*rows)} == {("vignette", "gold_disputed")}


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("es", "( dolor ) , tos . ¿ Fiebre ?", "(dolor), tos. ¿Fiebre?"),
        ("es", "al 5 % de 3,5 kg y 11 .5 g/dL", "al 5 % de 3,5 kg y 11.5 g/dL"),
        ("es", "sin fiebre,que tose.¿Cuál?", "sin fiebre, que tose. ¿Cuál?"),
        ("es", "« Patología »", "«Patología»"),
        ("es", "plaque\u00adtas y posterior\u00ad mente", "plaquetas y posteriormente"),
        ("en", "cough ; 82 % of cells : yes !", "cough; 82% of cells: yes!"),
        ("en", "10 mg/ 8 h, (< 1 min), 0.5 - 2, -2.1", "10 mg/8 h, (< 1 min), 0.5 - 2, -2.1"),
        ("en", "HBsAg +/ HBeAg - / two days' course", "HBsAg + / HBeAg - / two days' course"),
        ("en", "was found.What is it? e.g.This", "was found. What is it? e.g.This"),
        (
            "it",
            "dall’ umore, un po' giallastro, l' esame",
            "dall’umore, un po' giallastro, l'esame",
        ),
        ("fr", "Examen: «brace» ou non? Oui ; qu' il", "Examen : « brace » ou non ? Oui ; qu'il"),
        ("fr", "à 12:30, 25 % et (3%)", "à 12:30, 25 % et (3%)"),
        ("fr", 'de type " brace ".', 'de type "brace".'),
    ],
)
def test_spaces_are_put_where_a_language_wants_them(
    language: str, text: str, expected: str
) -> None:
    assert readable(text, language) == expected


@given(st.text("aéÑ25 .,;:?!¿()«»/+%\"'’-…\u00ad"), st.sampled_from(["es", "en", "fr", "it"]))
def test_mending_spaces_keeps_every_letter_and_digit(text: str, language: str) -> None:
    mended = readable(text, language)
    assert [c for c in mended if c.isalnum()] == [c for c in text if c.isalnum()]


class TestSameCases:
    def test_a_question_that_ends_another_text_is_not_the_same_case(self) -> None:
        question = "¿Cuál de las siguientes afirmaciones es la correcta?"
        assert same_cases([question, f"Niño con tos y fiebre. {question}"]) == [0, 1]

    def test_it_links_what_is_linked_by_a_third(self) -> None:
        words = [f"palabra{number}" for number in range(60)]
        texts = [" ".join(words[:30]), " ".join(words[30:]), " ".join(words)]
        assert same_cases(texts[:2]) == [0, 1]
        assert same_cases(texts) == [0, 0, 0]

    @given(st.lists(st.text("ab ", max_size=12), max_size=6))
    def test_equal_texts_are_the_same_case_and_the_first_stands_for_all(
        self, texts: list[str]
    ) -> None:
        firsts = same_cases(texts)
        assert all(firsts[first] == first <= index for index, first in enumerate(firsts))
        assert all(firsts[texts.index(text)] == first for text, first in zip(texts, firsts, strict=True))  # fmt: skip


class TestTheHubsColumns:
    def test_texts_that_spell_lists_are_read(self) -> None:
        row = a_row()
        spelled = {key: str(value) for key, value in row.values.items()}
        assert all_of(Row(spelled, "test", "es", "es", 1)) == all_of(row)

    @pytest.mark.parametrize(
        "text", ["", "no list", "[1, 2]", "[['a', 1]]", "[" * 500, "{[]: 1}", "'\\d'", None, 3,
                 "[['\\ud800']]"],
    )  # fmt: skip
    def test_what_is_no_list_of_sentences_is_refused(self, text: object) -> None:
        with pytest.raises(UsageError, match="casimedicos, es, test, case 1"):
            all_of(Row({"text": text}, "test", "es", "es", 1))

    def test_a_missing_column_is_named_beside_those_there(self) -> None:
        with pytest.raises(UsageError, match="'text' is missing") as caught:
            all_of(Row({"id": 1, "question": ""}, "test", "es", "es", 1))
        assert (
            caught.value.hint == "the columns must be id, text and labels; there are id, question"
        )

    @given(st.text() | st.lists(st.lists(st.text())) | st.text("[]'QUESTION TYPE:\\n1-, "))
    def test_any_text_raises_nothing_but_our_own_error(self, text: Any) -> None:
        try:
            all_of(Row({"text": text}, "test", "es", "es", 1))
        except MedlocalError:
            return


class TestTheOriginalFiles:
    def test_lines_become_sentences_of_tokens_and_tags(self, tmp_path: Path) -> None:
        content = "QUESTION O\nTYPE: \tO \nX  O\n\n\nUna\tB-Claim\tLowQuality\tcorrected\r\n\r\n"
        row = next(read_original(write_release(tmp_path, content.encode())))
        assert row == Row(
            {
                "id": 1,
                "text": [["QUESTION", "TYPE:", "X"], ["Una"]],
                "labels": [["O", "O", "O"], ["B-Claim"]],
            },
            split="train",
            language="es",
            config="es",
            number=1,
        )

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            (b"QUESTION O\nTYPE: O\n\nfever\n", 4),
            (b"QUESTION O\nTYPE: O\nhigh fever O\n", 3),
            (b"QUESTION O\n\xff O\n", 2),
            (b"\n\nfever O\n", 3),
        ],
        ids=["no tag", "two tokens", "not UTF-8", "no case"],
    )
    def test_a_malformed_line_is_named(self, tmp_path: Path, content: bytes, line: int) -> None:
        folder = write_release(tmp_path, content)
        with pytest.raises(UsageError) as caught:
            list(read_original(folder))
        assert str(caught.value).startswith(f"{folder / 'ES' / 'train.tsv'}:{line}: ")

    def test_a_folder_without_the_files_is_missing_them(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match=r"ES/train\.tsv"):
            list(read_original(tmp_path))

    @given(st.binary(max_size=200) | st.lists(st.sampled_from(
        [b"QUESTION O", b"TYPE: O", b"", b"CLINICAL O", b"CASE: O", b"1- O", b"2- O", b"nan O",
         b"CORRECT O", b"ANSWER: O", b"2 O", b"x\tI-Claim\tHighQuality", b"y"])).map(b"\n".join))  # fmt: skip
    def test_random_bytes_raise_nothing_but_our_own_error(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        folder = write_release(tmp_path_factory.mktemp("cases"), content)
        try:
            list(read_items("casimedicos", read_original(folder)))
        except MedlocalError:
            return


@pytest.fixture(scope="module")
def items(shared_data: Path) -> list[Item]:
    """All cases of the release, none of which is left out."""
    results = list(read_items("casimedicos", read_original(shared_data / "casimedicos")))
    assert all(isinstance(result, Item) for result in results)
    return [result for result in results if isinstance(result, Item)]


@pytest.fixture(scope="module")
def released(shared_data: Path) -> Released:
    """The release, read without the code under test."""
    cases: Released = {}
    for path in (shared_data / "casimedicos").glob("*/*.tsv"):
        number = 0
        for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8").strip()):
            tokens = [line.split()[0] for line in block.splitlines()]
            number += tokens[:2] == ["QUESTION", "TYPE:"]
            key = (path.parent.name.lower(), NAMES[path.stem], number)
            cases.setdefault(key, []).append(tokens)
    return cases


def parts(item: Item, released: Released) -> tuple[str, str, str]:
    """What the release has before the marker of an item's case, its number, and what follows."""
    sentences = released[item.language, item.split, int(item.id.rpartition("-")[2])]
    lines = [" ".join(tokens) for tokens in sentences]
    (at,) = (at for at, line in enumerate(lines) if re.fullmatch("[A-ZÉ ]+ ?: [1-5]", line))
    return " ".join(lines[2:at]), lines[at][-1], " ".join(lines[at + 1 :])


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def eights(text: str) -> set[tuple[str, ...]]:
    """Every eight words in a row."""
    found = words(text)
    return {tuple(found[at : at + 8]) for at in range(len(found) - 7)}


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
        for language in ("en", "es", "fr", "it"):
            counts = Counter(len(item.options) for item in items if item.language == language)
            assert counts == {4: 298, 5: 255}
        assert not [o for item in items for o in item.options if o.casefold().strip(" .") == "nan"]

    def test_the_languages_are_parallel(self, items: list[Item]) -> None:
        by_id: dict[str, set[tuple[int, int, str, str]]] = {}
        for item in items:
            facts = (item.gold, len(item.options), item.group, item.subject)
            by_id.setdefault(item.id, set()).add(facts)
        assert len(by_id) == 553
        assert all(len(facts) == 1 for facts in by_id.values())

    def test_each_place_tells_the_same_case_in_all_languages(self, items: list[Item]) -> None:
        # The ages and values stay the same in a translation; eight differ by a slip or by how
        # thousands are written.
        numbers = {
            (item.language, item.id): set(re.findall(r"\d+", item.stem + " ".join(item.options)))
            for item in items
        }
        apart = [
            (language, place)
            for (language, place), found in numbers.items()
            if len(found & numbers["es", place]) < 0.5 * len(found | numbers["es", place])
        ]
        assert len(apart) <= 8

    def test_golds_are_those_of_the_markers(self, items: list[Item], released: Released) -> None:
        assert all(parts(item, released)[1] == str(item.gold + 1) for item in items)

    def test_no_marker_is_left(self, items: list[Item]) -> None:
        marker = re.compile("CORRECT ANSWER|BONNE RÉPONSE|RÉPONSE CORRECTE|RISPOSTA CORRETTA|QUESTION TYPE|CLINICAL CASE")  # fmt: skip
        for item in items:
            assert not marker.search("\n".join((item.stem, *item.options)))

    def test_all_that_stands_before_the_marker_is_shown_and_nothing_else(
        self, items: list[Item], released: Released
    ) -> None:
        for item in items:
            shown = Counter(words(" ".join((item.stem, *item.options))))
            before = Counter(words(readable(parts(item, released)[0], item.language)))
            assert not shown - before
            # The numbers of the options, and the word that stands for a missing one.
            assert before - shown <= Counter(["1", "2", "3", "4", "5", "nan"])

    def test_no_eight_words_of_an_explanation_are_shown_but_quotations_of_the_case(
        self, items: list[Item], released: Released
    ) -> None:
        for item in items:
            before, _, after = (
                eights(readable(text, item.language)) for text in parts(item, released)
            )
            shown = set().union(*map(eights, (item.stem, *item.options)))
            assert not (after & shown) - before

    def test_spaces_stand_where_each_language_wants_them(self, items: list[Item]) -> None:
        assert [fault for item in items for fault in _faults(item)] == []

    def test_copies_of_a_case_share_a_group_and_others_do_not(self, items: list[Item]) -> None:
        groups: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            if item.language == "es":
                groups[item.group].append(item)
        copied = [members for members in groups.values() if len(members) > 1]
        assert len(groups) == 466
        assert (len(copied), sum(map(len, copied)), max(map(len, copied))) == (66, 153, 5)
        assert sum(len({item.split for item in members}) > 1 for members in copied) == 37
        # Two told in other words, and two of which only the beginnings are alike: read by hand.
        assert _of("train-6", items).group == _of("train-208", items).group
        assert _of("validation-46", items).group != _of("test-92", items).group

    def test_five_cases_have_copies_that_contradict_each_other(self, items: list[Item]) -> None:
        flagged = {item.group: item for item in items if "gold_disputed" in item.flags}
        assert len(flagged) == 5
        ids = {item.id for item in items if "gold_disputed" in item.flags}
        assert {place for place in ids if place.startswith("test")} == {"test-1", "test-46"}
        assert len(ids) == 13

    def test_a_copy_in_the_hubs_columns_gives_the_same_items(
        self, items: list[Item], released: Released
    ) -> None:
        rows = [
            Row({"id": "x", "text": repr(text), "labels": "[]"}, split, language, "", number)
            for (language, split, number), text in released.items()
        ]
        assert set(read_items("casimedicos", rows)) == set(items)


def _of(place: str, items: list[Item]) -> Item:
    return next(item for item in items if item.id == place)


def _faults(item: Item) -> Iterator[str]:
    wrong = r" [,.)\]]|[(\[] |  |[¿¡] |\w[¿¡]|[^\W\d_]{2},[^\W\d_]| \u200b|\u00ad|ﬁ|\w/ \w|\w /\w"
    if item.language == "fr":
        wrong += r"|[^\s?!][;:?!](?:\s|$)|«\S|\S»"
    else:
        wrong += r"| [;:?!]|« | »"
    if item.language in {"en", "it"}:
        wrong += r"|\d %"
    if item.language in {"fr", "it"}:
        wrong += r"|\b(?:l|d|un|dell|all|dall|qu)['’] "
    for text in (item.stem, *item.options):
        for match in re.finditer(wrong, text):
            yield f"{item.language} {item.id}: {text[max(0, match.start() - 9) : match.end() + 9]!r}"
