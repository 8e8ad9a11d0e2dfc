import hashlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.data.originals import ORIGINALS
from medlocal.data.readers import READERS
from medlocal.data.rows import (
    ANNULLED,
    EMPTY_OPTION,
    EMPTY_STEM,
    GOLD_TWICE,
    NO_GOLD,
    PICTURE_MISSING,
    TOO_FEW_OPTIONS,
    Excluded,
    Row,
)
from medlocal.errors import UsageError
from medlocal.evals.items import Item

MEDQA: Mapping[str, Any] = {
    "question": "Which drug?",
    "answer": "b",
    "options": {"A": "a", "B": "b", "C": "c", "D": "d"},
    "meta_info": "step2&3",
    "answer_idx": "B",
    "metamap_phrases": [],
}
MEDMCQA: Mapping[str, Any] = {
    "id": "0f-1",
    "question": "Which tooth?",
    "opa": "a",
    "opb": "b",
    "opc": "c",
    "opd": "d",
    "cop": 2,
    "choice_type": "multi",
    "exp": "Because.",
    "subject_name": "Dental",
    "topic_name": None,
}
MMLU: Mapping[str, Any] = {
    "question": "Which gene?",
    "subject": "medical_genetics",
    "choices": ["a", "b", "c", "d"],
    "answer": 3,
}
PUBMEDQA: Mapping[str, Any] = {
    "QUESTION": "Does it help?",
    "CONTEXTS": ["We asked.", "We saw.", "We add."],
    "LABELS": ["AIM", "RESULTS", "UNLABELLED"],
    "MESHES": [],
    "YEAR": None,
    "reasoning_required_pred": "no",
    "reasoning_free_pred": "no",
    "final_decision": "maybe",
    "LONG_ANSWER": "Perhaps it does.",
}
HEAD_QA: Mapping[str, Any] = {
    "name": "Cuaderno_2016_1_E",
    "year": "2016",
    "category": "nursery",
    "qid": 7,
    "qtext": "¿Qué cuidado?",
    "ra": 2,
    "image": None,
    "answers": [{"aid": 1, "atext": "uno"}, {"aid": 2, "atext": "dos"}],
}
CAREQA: Mapping[str, Any] = {
    "exam_id": 36,
    "question": "Which?",
    "op1": "a",
    "op2": "b",
    "op3": "c",
    "op4": "d",
    "cop": 4,
    "year": 2024,
    "category": "Medicine",
    "unique_id": "5636d1af",
}
ROWS = {
    "medqa": MEDQA,
    "medmcqa": MEDMCQA,
    "mmlu": MMLU,
    "pubmedqa": PUBMEDQA,
    "head-qa": HEAD_QA,
    "careqa": CAREQA,
}


def read(
    reader: str, *rows: Mapping[str, Any], language: str = "en", split: str = "test"
) -> list[Item | Excluded]:
    numbered = [Row(values, split, language, "", n) for n, values in enumerate(rows, start=1)]
    return list(READERS[reader](f"my-{reader}", numbered))


def item(reader: str, **changes: Any) -> Item:
    (result,) = read(reader, {**ROWS[reader], **changes})
    assert isinstance(result, Item)
    return result


def reason(reader: str, **changes: Any) -> str:
    (result,) = read(reader, {**ROWS[reader], **changes})
    assert isinstance(result, Excluded)
    return result.reason


def digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def test_a_medqa_item_is_named_after_its_question() -> None:
    assert item("medqa") == Item(
        id=f"test-{digits('Which drug?')}",
        dataset="my-medqa",
        split="test",
        language="en",
        stem="Which drug?",
        options=("a", "b", "c", "d"),
        gold=1,
        subject="usmle step 2 and 3",
        group=f"my-medqa/test-{digits('Which drug?')}",
    )


def test_a_medmcqa_item_keeps_its_uuid_and_hides_its_explanation() -> None:
    assert item("medmcqa") == Item(
        id="0f-1",
        dataset="my-medmcqa",
        split="test",
        language="en",
        stem="Which tooth?",
        options=("a", "b", "c", "d"),
        gold=2,
        subject="dental",
        group="my-medmcqa/0f-1",
        rationale="Because.",
    )


def test_an_mmlu_item_is_numbered_within_its_subject_and_split() -> None:
    assert item("mmlu") == Item(
        id="medical_genetics-test-1",
        dataset="my-mmlu",
        split="test",
        language="en",
        stem="Which gene?",
        options=("a", "b", "c", "d"),
        gold=3,
        subject="medical genetics",
        group="my-mmlu/medical_genetics-test-1",
    )


def test_a_pubmedqa_item_shows_the_abstract_without_its_conclusion() -> None:
    assert item("pubmedqa") == Item(
        id=digits("Does it help?"),
        dataset="my-pubmedqa",
        split="test",
        language="en",
        stem="Does it help?",
        options=("yes", "no", "maybe"),
        gold=2,
        subject="biomedical research",
        group=f"my-pubmedqa/{digits('Does it help?')}",
        context="AIM: We asked.\nRESULTS: We saw.\nWe add.",
        rationale="Perhaps it does.",
    )


def test_a_head_qa_item_is_named_after_its_exam_and_number() -> None:
    assert item("head-qa") == Item(
        id="Cuaderno_2016_1_E-7",
        dataset="my-head-qa",
        split="test",
        language="en",
        stem="¿Qué cuidado?",
        options=("uno", "dos"),
        gold=1,
        subject="nursing",
        group="my-head-qa/Cuaderno_2016_1_E-7",
    )


def test_a_careqa_item_is_named_after_its_exam_so_that_languages_pair() -> None:
    assert item("careqa") == Item(
        id="2024-medicine-36",
        dataset="my-careqa",
        split="test",
        language="en",
        stem="Which?",
        options=("a", "b", "c", "d"),
        gold=3,
        subject="medicine",
        group="my-careqa/2024-medicine-36",
    )


def test_a_careqa_number_that_stands_twice_is_told_apart_by_its_unique_id() -> None:
    results = read("careqa", CAREQA, {**CAREQA, "unique_id": "ffff"})

    assert [result.id for result in results] == ["2024-medicine-36", "2024-medicine-36-ffff"]


def test_of_two_equal_questions_the_second_is_named_after_its_options_too() -> None:
    other = {**MEDQA, "options": {"A": "e", "B": "f"}}

    first, second, third = (result.id for result in read("medqa", MEDQA, other, other))

    assert first == f"test-{digits('Which drug?')}"
    assert second == f"test-{digits('Which drug?' + chr(10) + 'e' + chr(10) + 'f')}"
    assert third == f"{second}-again"


@pytest.mark.parametrize(
    "stem",
    [
        "A rash. A photograph of the rash is shown. Which is it?",
        "An X-ray is done (see image). Which bone?",
        "His urinalysis is shown in Figure 1. Which drug?",
        "The structure indicated by the arrows is lined by what?",
        "An ECG is performed and shown below. Which drug?",
    ],
)
def test_a_medqa_stem_that_points_at_a_picture_is_flagged(stem: str) -> None:
    assert item("medqa", question=stem).flags == ("mentions_picture",)


@pytest.mark.parametrize(
    "stem",
    [
        "Laboratory values are shown below.\nNa 139\nWhich drug?",
        "Analysis has shown normal sperm counts. Which test?",
        "An X-ray image of the hand shows thin bones. Which cause?",
        "Mitotic figures are seen. Which tumor?",
    ],
)
def test_a_medqa_stem_that_only_tells_of_results_is_not(stem: str) -> None:
    assert item("medqa", question=stem).flags == ()


def test_medqa_questions_about_one_summary_are_one_group() -> None:
    ask = 'Please refer to the summary above to answer this question\n{}"\n"Trial of X\nWe saw Y."'
    one, other = (item("medqa", question=ask.format(q)) for q in ("Which bias?", "Which test?"))

    assert one.id != other.id
    assert (
        one.group
        == other.group
        == f"my-medqa/summary-{digits('Trial of X' + chr(10) + 'We saw Y.' + chr(34))}"
    )


def test_a_medqa_question_about_a_summary_that_is_lost_is_flagged() -> None:
    lost = item("medqa", question="Please refer to the summary above to answer this question\nWhy?")

    assert lost.flags == ("mentions_summary",)
    assert lost.group == f"my-medqa/{lost.id}"


def test_a_fifth_option_that_is_null_is_none() -> None:
    assert item("medqa", options={"A": "a", "B": "b", "E": None}).options == ("a", "b")


def test_texts_lose_stray_spaces_and_keep_their_lines() -> None:
    stray = " Of \u200b\u200bserum:\n\n  Na\t139\u00a0 mEq \r\n"

    assert item("mmlu", question=stray).stem == "Of serum:\n\nNa 139 mEq"


def test_options_that_read_the_same_are_flagged() -> None:
    assert item("mmlu", choices=["a", "a ", "b", "c"]).flags == ("duplicate_options",)


def test_options_that_differ_in_capitals_are_two() -> None:
    assert item("mmlu", choices=["tt", "Tt", "TT", "T"]).flags == ()


def test_a_gold_that_stands_twice_is_left_out() -> None:
    assert reason("mmlu", choices=["a", "b", "d", "d"]) == GOLD_TWICE


def test_medmcqa_keeps_a_gold_that_stands_twice_and_flags_it() -> None:
    assert item("medmcqa", opd="c").flags == ("duplicate_options", "gold_twice")


@pytest.mark.parametrize(
    ("reader", "changes", "expected"),
    [
        ("medqa", {"question": " "}, EMPTY_STEM),
        ("careqa", {"question": None}, EMPTY_STEM),
        ("medqa", {"options": {"A": "a"}, "answer_idx": "A"}, TOO_FEW_OPTIONS),
        ("medmcqa", {"opb": ""}, EMPTY_OPTION),
        ("careqa", {"op4": None}, EMPTY_OPTION),
        ("medqa", {"answer_idx": "E"}, NO_GOLD),
        ("medmcqa", {"cop": -1}, NO_GOLD),
        ("mmlu", {"answer": None}, NO_GOLD),
        ("pubmedqa", {"final_decision": None}, NO_GOLD),
        ("careqa", {"cop": None}, NO_GOLD),
        ("head-qa", {"ra": 5}, NO_GOLD),
        ("head-qa", {"ra": 0}, ANNULLED),
        ("head-qa", {"image": "./MIR-img1.png"}, PICTURE_MISSING),
        ("head-qa", {"image": {"bytes": b"\x89PNG", "path": None}}, PICTURE_MISSING),
        ("head-qa", {"image": {"bytes": None, "path": "a.png"}}, PICTURE_MISSING),
    ],
)
def test_a_record_that_cannot_be_asked_is_left_out_with_its_reason(
    reader: str, changes: dict[str, Any], expected: str
) -> None:
    assert reason(reader, **changes) == expected


def test_what_is_left_out_keeps_the_id_it_would_have_had() -> None:
    assert read("head-qa", {**HEAD_QA, "ra": 0}, language="es") == [
        Excluded("Cuaderno_2016_1_E-7", "test", "es", ANNULLED)
    ]


@pytest.mark.parametrize("image", [None, "", {"bytes": None, "path": None}])
def test_a_question_without_a_picture_is_asked(image: object) -> None:
    assert item("head-qa", image=image).gold == 1


def test_head_qa_numbers_may_be_texts_and_its_answers_two_lists() -> None:
    older = {"aid": [1, 2], "atext": ["uno", "dos"]}

    assert item("head-qa", qid="7", ra="2", answers=older) == item("head-qa")


def test_head_qa_golds_are_found_by_their_number_not_their_place() -> None:
    turned = [{"aid": 2, "atext": "dos"}, {"aid": 1, "atext": "uno"}]

    assert item("head-qa", answers=turned).gold == 0


def test_pubmedqa_without_headings_shows_the_parts() -> None:
    assert item("pubmedqa", LABELS=[]).context == "We asked.\nWe saw.\nWe add."


@pytest.mark.parametrize(
    ("reader", "changes", "message"),
    [
        ("medqa", {"question": 7}, "my-medqa, test, row 1: question must be a text, not 7"),
        ("medqa", {"options": ["a", "b"]}, "options must be options by letter"),
        ("medmcqa", {"cop": 4}, "cop must be from 0 to 3, not 4"),
        ("medmcqa", {"cop": True}, "cop must be a whole number, not True"),
        ("medmcqa", {"id": None}, "id must be a text"),
        ("mmlu", {"choices": "abcd"}, "choices must be a list"),
        ("mmlu", {"choices": list("abcdefghijk")}, "options must be at most 10, not 11"),
        ("mmlu", {"question": "\ud800"}, "half a character"),
        ("pubmedqa", {"final_decision": "Yes!"}, "final_decision must be yes, no or maybe"),
        ("head-qa", {"qid": None}, "qid must be a whole number, not None"),
        ("head-qa", {"answers": {"aid": 1}}, "answers must be lists of aid and atext"),
        ("careqa", {"cop": 5}, "cop must be from 1 to 4, not 5"),
    ],
)
def test_a_row_of_other_columns_is_refused(
    reader: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read(reader, {**ROWS[reader], **changes})


@pytest.mark.parametrize("reader", ROWS)
def test_a_missing_column_is_named_with_those_that_are_there(reader: str) -> None:
    with pytest.raises(UsageError, match=r"column '\w+' is missing; there are other"):
        read(reader, {"other": 1})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=12) | st.dictionaries(st.sampled_from(["A", "B", "aid"]), inner)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("reader", ROWS)
@given(values=st.data())
@settings(max_examples=60, deadline=None)
def test_any_values_become_an_item_or_an_exclusion_or_are_refused(
    reader: str, values: st.DataObject
) -> None:
    changed = values.draw(st.dictionaries(st.sampled_from(sorted(ROWS[reader])), VALUES))
    with suppress(UsageError):
        (result,) = read(reader, {**ROWS[reader], **changed})
        assert result.split == "test"


@pytest.fixture(scope="module")
def results(shared_data: Path) -> dict[str, list[Item | Excluded]]:
    """The original releases, each through its reader."""
    folders = {name: name.replace("-", "_") for name in ROWS if name in ORIGINALS}
    return {
        name: list(READERS[name](name, ORIGINALS[name](shared_data / folder)))
        for name, folder in folders.items()
    }


def items_of(results: dict[str, list[Item | Excluded]], name: str, split: str) -> list[Item]:
    found = [result for result in results[name] if isinstance(result, Item)]
    return [result for result in found if result.split == split]


def golds(items: list[Item]) -> list[int]:
    return [count for _, count in sorted(Counter(item.gold for item in items).items())]


Results = dict[str, list[Item | Excluded]]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        ("medqa", "test", [353, 309, 346, 265]),
        ("medmcqa", "validation", [1348, 1085, 925, 825]),
    ],
)
def test_gold_letters_are_those_of_the_release(
    results: Results, name: str, split: str, expected: list[int]
) -> None:
    assert golds(items_of(results, name, split)) == expected


@pytest.mark.shared_data
def test_mmlu_has_its_six_subjects(results: Results) -> None:
    test, dev = (items_of(results, "mmlu", split) for split in ("test", "dev"))

    assert Counter(item.subject for item in test) == {
        "anatomy": 135,
        "clinical knowledge": 265,
        "college biology": 144,
        "college medicine": 173,
        "medical genetics": 100,
        "professional medicine": 272,
    }
    assert set(Counter(item.subject for item in dev).values()) == {5}


@pytest.mark.shared_data
def test_pubmedqa_asks_half_of_its_questions(results: Results) -> None:
    test, train = (items_of(results, "pubmedqa", split) for split in ("test", "train"))

    assert (len(test), len(train)) == (500, 500)
    assert golds([*test, *train]) == [552, 338, 110]


@pytest.mark.shared_data
def test_pubmedqa_never_shows_its_conclusion(results: Results) -> None:
    items = items_of(results, "pubmedqa", "test")

    assert all(item.rationale and item.rationale not in item.context for item in items)


@pytest.mark.shared_data
@pytest.mark.parametrize("language", ["es", "en"])
def test_head_qa_leaves_out_what_needs_a_picture(results: Results, language: str) -> None:
    found = [result for result in results["head-qa"] if result.language == language]
    pictures = Counter(
        result.split
        for result in found
        if isinstance(result, Excluded) and result.reason == PICTURE_MISSING
    )

    assert Counter(result.split for result in found) == {
        "train": 2657,
        "validation": 1366,
        "test": 2742,
    }
    assert pictures == {"train": 68, "validation": 30, "test": 67}


@pytest.mark.shared_data
def test_head_qa_pairs_all_questions_of_the_test_split(results: Results) -> None:
    items = items_of(results, "head-qa", "test")
    spanish, english = (
        {item.id: item for item in items if item.language == language} for language in ("es", "en")
    )

    assert len(spanish) == 2675
    assert spanish.keys() == english.keys()
    assert all(item.group == english[name].group for name, item in spanish.items())
    assert all(item.gold == english[name].gold for name, item in spanish.items())


@pytest.mark.shared_data
def test_the_golds_that_stand_twice_are_these(results: Results) -> None:
    kept = [
        item.id[:8]
        for item in items_of(results, "medmcqa", "validation")
        if "gold_twice" in item.flags
    ]
    left_out = [
        (result.language, result.id)
        for result in results["head-qa"]
        if isinstance(result, Excluded) and result.reason == GOLD_TWICE
    ]

    assert kept == ["0190dc62", "0447b9a2", "6946c04c", "47e35777"]
    assert sorted(left_out) == [
        ("en", "Cuaderno_2013_1_Q-17"),
        ("en", "Cuaderno_2014_1_E-155"),
        ("en", "Cuaderno_2015_1_Q-94"),
        ("es", "Cuaderno_2015_1_Q-94"),
    ]


@pytest.mark.shared_data
def test_flags_of_the_release_are_counted(results: Results) -> None:
    def count(name: str, split: str, flag: str) -> int:
        return sum(flag in item.flags for item in items_of(results, name, split))

    assert count("medqa", "test", "mentions_picture") == 108
    assert count("medqa", "test", "mentions_summary") == 1
    assert count("medmcqa", "validation", "duplicate_options") == 21


@pytest.mark.shared_data
def test_ids_are_unique_within_a_split_and_language(results: Results) -> None:
    for found in results.values():
        places = Counter((result.id, result.split, result.language) for result in found)
        assert set(places.values()) == {1}


@pytest.mark.shared_data
def test_medqa_questions_about_one_abstract_share_their_group(results: Results) -> None:
    groups = Counter(item.group for item in items_of(results, "medqa", "test"))

    assert sorted(groups.values())[-2:] == [1, 2]


@pytest.mark.shared_data
def test_texts_are_clean(results: Results) -> None:
    for found in results.values():
        for item in found:
            if isinstance(item, Item):
                for text in (item.stem, *item.options, item.context):
                    assert not set(text) & set("\t\u00a0\u200b\r")
                    assert "  " not in text
                    assert text == text.strip()
