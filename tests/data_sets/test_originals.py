import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.data.originals import MMLU_SUBJECTS, ORIGINALS, has_original, original_files
from medlocal.data.readers import READERS
from medlocal.data.rows import Row
from medlocal.errors import MedlocalError, MissingError, UsageError

MEDQA = {"question": "Q?", "options": {"A": "a", "B": "b"}, "answer_idx": "A", "meta_info": "step1"}
MEDMCQA = {
    "id": "1-2",
    "question": "Q?",
    "opa": "a",
    "opb": "b",
    "opc": "c",
    "opd": "d",
    "cop": 1,
    "subject_name": "Dental",
}
PUBMEDQA = {"QUESTION": "Q?", "CONTEXTS": ["c"], "LABELS": ["AIM"], "final_decision": "yes"}
QUESTION = {
    "qid": "3",
    "qtext": "¿?",
    "ra": "2",
    "image": "",
    "answers": [{"aid": 1, "atext": "a"}, {"aid": 2, "atext": "b"}],
}
EXAM = {"name": "Cuaderno_1", "year": "2016", "category": "nursery", "data": [QUESTION]}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(*values: object) -> str:
    return "".join(f"{json.dumps(value)}\n" for value in values)


def write_mmlu(folder: Path) -> None:
    for subject in MMLU_SUBJECTS:
        write(folder / f"test/{subject}_test.csv", "Q?,a,b,c,d,C\n")


def write_pubmedqa(folder: Path, records: object, truth: object) -> None:
    write(folder / "ori_pqal.json", json.dumps(records))
    write(folder / "test_ground_truth.json", json.dumps(truth))


def write_head_qa(folder: Path, exams: object) -> None:
    for name in ("HEAD", "HEAD_EN"):
        write(folder / f"{name}/test_{name}.json", json.dumps({"exams": exams}))


def read(reader: str, folder: Path) -> list[Row]:
    return list(ORIGINALS[reader](folder))


def test_medqa_lines_become_rows_of_the_split_in_the_name(tmp_path: Path) -> None:
    write(tmp_path / "phrases_no_exclude_test.jsonl", lines(MEDQA))
    write(tmp_path / "phrases_no_exclude_dev.jsonl", lines(MEDQA, MEDQA))

    assert read("medqa", tmp_path) == [
        Row(MEDQA, "test", "en", "", 1),
        Row(MEDQA, "validation", "en", "", 1),
        Row(MEDQA, "validation", "en", "", 2),
    ]


def test_medmcqa_counts_its_options_from_0_as_the_hub_does(tmp_path: Path) -> None:
    write(tmp_path / "dev.json", lines(MEDMCQA, {**MEDMCQA, "cop": 4}))

    assert [row.values["cop"] for row in read("medmcqa", tmp_path)] == [0, 3]


def test_medmcqa_without_a_gold_has_minus_1_as_on_the_hub(tmp_path: Path) -> None:
    write(tmp_path / "dev.json", lines(MEDMCQA))
    write(tmp_path / "test.json", lines({k: v for k, v in MEDMCQA.items() if k != "cop"}))

    rows = read("medmcqa", tmp_path)

    assert [(row.split, row.values["cop"]) for row in rows] == [("validation", 0), ("test", -1)]


@pytest.mark.parametrize("cop", [0, 5, "1", True, 1.0])
def test_medmcqa_with_another_gold_is_refused_with_its_line(tmp_path: Path, cop: object) -> None:
    path = write(tmp_path / "dev.json", lines(MEDMCQA) + "\n" + lines({**MEDMCQA, "cop": cop}))

    with pytest.raises(UsageError, match=f"{path}:3: cop must be 1, 2, 3 or 4"):
        read("medmcqa", tmp_path)


def test_mmlu_has_its_subject_as_configuration(tmp_path: Path) -> None:
    write_mmlu(tmp_path)
    write(tmp_path / "dev/anatomy_dev.csv", '"One, ""two""\n?",1,2,3,4,D\n')
    write(tmp_path / "val/anatomy_val.csv", "V?,1,2,3,4,A\n")

    anatomy = [row for row in read("mmlu", tmp_path) if row.config == "anatomy"]

    assert [row.split for row in anatomy] == ["test", "dev", "validation"]
    assert anatomy[1].values == {
        "question": 'One, "two"\n?',
        "subject": "anatomy",
        "choices": ["1", "2", "3", "4"],
        "answer": 3,
    }


@pytest.mark.parametrize(
    "line", ["a,b,c,d,A", "Q?,a,b,c,d,E", "Q?,a,b,c,d,AB", "Q?,a,b,c,d,", '"Q']
)
def test_a_malformed_csv_record_is_refused_with_the_line_it_begins_on(
    tmp_path: Path, line: str
) -> None:
    write_mmlu(tmp_path)
    path = write(tmp_path / "test/anatomy_test.csv", f'"Two\nlines?",a,b,c,d,A\n{line}\n')

    with pytest.raises(UsageError, match=f"{path}:3: not "):
        read("mmlu", tmp_path)


def test_pubmedqa_asks_the_questions_of_the_ground_truth(tmp_path: Path) -> None:
    records = {pmid: {**PUBMEDQA, "QUESTION": pmid} for pmid in ("7", "8", "9")}
    write_pubmedqa(tmp_path, records, {"8": "yes"})

    rows = read("pubmedqa", tmp_path)

    assert [(row.values["QUESTION"], row.split, row.number) for row in rows] == [
        ("7", "train", 1),
        ("8", "test", 1),
        ("9", "train", 2),
    ]


def test_pubmedqa_refuses_a_ground_truth_that_says_another_thing(tmp_path: Path) -> None:
    write_pubmedqa(tmp_path, {"7": PUBMEDQA}, {"7": "no"})

    with pytest.raises(UsageError, match=r"record 1 \(7\): final_decision is another"):
        read("pubmedqa", tmp_path)


def test_pubmedqa_refuses_a_ground_truth_of_other_questions(tmp_path: Path) -> None:
    write_pubmedqa(tmp_path, {"7": PUBMEDQA}, {"7": "yes", "8": "no"})

    with pytest.raises(UsageError, match="holds 1 of the 2 questions of the test split"):
        read("pubmedqa", tmp_path)


def test_head_qa_questions_carry_their_exam_in_both_languages(tmp_path: Path) -> None:
    write_head_qa(tmp_path, {"Cuaderno_1": EXAM})
    write(tmp_path / "HEAD/dev_HEAD.json", json.dumps({"exams": {"Cuaderno_1": EXAM}}))

    rows = read("head-qa", tmp_path)

    assert [(row.language, row.config, row.split) for row in rows] == [
        ("es", "es", "test"),
        ("en", "en", "test"),
        ("es", "es", "validation"),
    ]
    assert rows[0].values == {
        **QUESTION,
        "name": "Cuaderno_1",
        "year": "2016",
        "category": "nursery",
    }


def test_head_qa_names_the_exam_and_record_at_fault(tmp_path: Path) -> None:
    write_head_qa(tmp_path, {"C": {**EXAM, "data": [QUESTION, {**QUESTION, "qtext": 7}]}})

    with pytest.raises(
        UsageError, match=r"test_HEAD\.json, exam 'C', record 2: 'qtext' is missing"
    ):
        read("head-qa", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff{}", "not JSON: 'utf-8'"),
        (b"[" * 100_000, "not JSON"),
        (b"7", "not a JSON object"),
        (b'{"question": 7}', "'question' is missing or no str"),
    ],
)
def test_a_malformed_line_is_refused_with_its_number(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = write(tmp_path / "phrases_no_exclude_test.jsonl", lines(MEDQA).encode() + line + b"\n")

    with pytest.raises(UsageError, match=f"{path}:2: {message}"):
        read("medqa", tmp_path)


def test_files_in_the_usual_subfolder_are_found(tmp_path: Path) -> None:
    path = write(tmp_path / "questions/US/4_options/phrases_no_exclude_test.jsonl", lines(MEDQA))

    assert has_original("medqa", tmp_path)
    assert original_files("medqa", tmp_path) == [path]
    assert len(read("medqa", tmp_path)) == 1


def test_the_files_read_are_listed_once_with_those_of_other_splits(tmp_path: Path) -> None:
    write_head_qa(tmp_path, {"Cuaderno_1": EXAM})
    write(tmp_path / "HEAD/train_HEAD.json", "{}")
    write(tmp_path / "HEAD/HEAD.json", "{}")

    names = [path.relative_to(tmp_path).as_posix() for path in original_files("head-qa", tmp_path)]

    assert names == [
        "HEAD/test_HEAD.json",
        "HEAD_EN/test_HEAD_EN.json",
        "HEAD/train_HEAD.json",
    ]


@pytest.mark.parametrize("reader", ORIGINALS)
def test_a_folder_without_the_files_names_them_and_the_command(tmp_path: Path, reader: str) -> None:
    assert not has_original(reader, tmp_path)
    with pytest.raises(
        MissingError, match=rf"does not hold .*(test|dev)[^`]*`medlocal data pull {reader}`"
    ):
        read(reader, tmp_path)


def test_a_set_that_has_only_the_hub_has_no_original(tmp_path: Path) -> None:
    assert not has_original("careqa", tmp_path)


def make(reader: str, folder: Path) -> None:
    """A small sound release."""
    match reader:
        case "medqa":
            write(folder / "phrases_no_exclude_test.jsonl", lines(MEDQA))
        case "medmcqa":
            write(folder / "dev.json", lines(MEDMCQA))
        case "mmlu":
            write_mmlu(folder)
        case "pubmedqa":
            write_pubmedqa(folder, {"7": PUBMEDQA}, {"7": "yes"})
        case _:
            write_head_qa(folder, {"Cuaderno_1": EXAM})


READ_HERE = ("medqa", "medmcqa", "mmlu", "pubmedqa", "head-qa")


@pytest.mark.parametrize("reader", READ_HERE)
def test_a_sound_release_makes_items(tmp_path: Path, reader: str) -> None:
    make(reader, tmp_path)

    assert list(READERS[reader](reader, ORIGINALS[reader](tmp_path)))


@pytest.mark.parametrize("reader", READ_HERE)
@given(content=st.binary(max_size=80), place=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_random_bytes_raise_no_error_but_ours(reader: str, content: bytes, place: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(reader, folder)
        files = original_files(reader, folder)
        files[place % len(files)].write_bytes(content)
        with suppress(MedlocalError):
            list(READERS[reader](reader, ORIGINALS[reader](folder)))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn, sound: dict[str, Any]) -> dict[str, Any]:
    """A record in which one column holds something else."""
    return {**sound, draw(st.sampled_from(sorted(sound))): draw(VALUES)}


@given(
    medqa=damaged(MEDQA),
    medmcqa=damaged(MEDMCQA),
    pubmedqa=damaged(PUBMEDQA),
    question=damaged(QUESTION),
    exam=damaged(EXAM),
)
@settings(max_examples=60, deadline=None)
def test_values_of_other_kinds_raise_no_error_but_ours(
    medqa: Any, medmcqa: Any, pubmedqa: Any, question: Any, exam: Any
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "phrases_no_exclude_test.jsonl", lines(medqa))
        write(folder / "dev.json", lines(medmcqa))
        write_pubmedqa(folder, {"7": pubmedqa}, {})
        write_head_qa(folder, {"C": {**EXAM, "data": [question]}, "D": exam})
        for reader in ("medqa", "medmcqa", "pubmedqa", "head-qa"):
            with suppress(MedlocalError):
                list(READERS[reader](reader, ORIGINALS[reader](folder)))
