"""Single answers as rows and as files, from a store filled by hand."""

import csv
import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medlocal.errors import MedlocalError, UsageError
from medlocal.evals.answers import GRADER_VERSION
from medlocal.report.answers import COLUMNS, answer_rows, write_answers
from medlocal.store import Record, Store, StoredGrade, StoredJob
from tests.store_values import a_grade, a_job, a_record

ROOT = Path(__file__).parents[2]

VARIANT: dict[str, Any] = {
    "name": "rotate(1)",
    "version": "1",
    "stem": "¿Qué causa el déficit de tiamina?",
    "context": "",
    "labels": ["A", "B", "C"],
    "options": ["Escorbuto", "Beriberi", "Pelagra"],
    "origin": [2, 0, 1],
    "gold": 1,
    "verified": True,
    "replies": ["uno", "dos", "tres"],
    "prompt_language": "en",
}
JOB = a_job(7, variant="rotate(1)", payload={"variant": VARIANT, "examples": []})
RECORD = a_record(
    JOB,
    text="La respuesta es B",
    logprobs=(-0.5, -1.25, -0.25),
    stats={"num_prompt_tokens": 41, "tax_nats": 1.5},
)
GRADE = a_grade(
    JOB, grader=GRADER_VERSION, outcome="LENIENT_VALID", slot=1, content=0, reason="One label, B."
)
ROW: dict[str, object] = {
    "run": "20260901-101112-ab12",
    "job": "00000007",
    "model": "demo",
    "dataset": "starter",
    "item_id": "q7",
    "group_id": "starter/7",
    "language": "es",
    "prompt_language": "en",
    "variant": "rotate(1)",
    "verified": True,
    "family": "order",
    "prompt": "plain-0",
    "format": "letter",
    "arm": "free",
    "gold_label": "B",
    "gold_reply": "dos",
    "answer_label": "B",
    "outcome": "LENIENT_VALID",
    "correct": True,
    "content": 0,
    "slot": 1,
    "reason": "One label, B.",
    "grader": GRADER_VERSION,
    "finish": "stop",
    "error": "",
    "output": "La respuesta es B",
    "num_prompt_tokens": 41,
    "num_tokens": 3,
    "logprob_sum": -2.0,
    "tax_nats": 1.5,
    "label_mass": None,
    "scores": None,
    "prompt_text": '[{"role": "system", "content": "Responda."},'
    ' {"role": "user", "content": "¿Cuál es el tratamiento?"}]',
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "medlocal.db") as opened:
        yield opened


def a_run(
    store: Store,
    *jobs: StoredJob,
    records: tuple[Record, ...] = (),
    grades: tuple[StoredGrade, ...] = (),
) -> str:
    run_id = store.create_run({"suite": "quick"})
    store.add_jobs(run_id, jobs)
    store.put(run_id, records, grades)
    return run_id


def only(store: Store, run_id: str) -> dict[str, object]:
    (row,) = answer_rows(store, [run_id])
    return row


def shown_as(**changes: object) -> StoredJob:
    """The job with another variant in its payload; None takes a key away."""
    variant = {key: value for key, value in (VARIANT | changes).items() if value is not None}
    return replace(JOB, payload={"variant": variant, "examples": []})


class TestRows:
    def test_a_row_by_hand(self, store: Store) -> None:
        run_id = a_run(store, JOB, records=(RECORD,), grades=(GRADE,))
        row = only(store, run_id)
        assert row == {**ROW, "run": run_id}
        assert list(row) == list(COLUMNS)

    def test_a_scored_answer_has_scores_and_no_tokens(self, store: Store) -> None:
        stats = {"scores": {"uno": -1.5, "dos": -math.inf}, "label_mass": 0.75}
        record = a_record(JOB, text="", finish="scored", token_ids=(), logprobs=(), stats=stats)
        row = only(store, a_run(store, JOB, records=(record,), grades=(GRADE,)))
        assert row["scores"] == '{"uno": -1.5, "dos": null}'
        found = (row["label_mass"], row["num_tokens"], row["logprob_sum"])
        assert found == (0.75, 0, None)

    def test_an_engine_error_says_why(self, store: Store) -> None:
        record = a_record(JOB, text="", finish="error", error="too long", logprobs=(), token_ids=())
        row = only(store, a_run(store, JOB, records=(record,)))
        assert (row["finish"], row["error"], row["logprob_sum"]) == ("error", "too long", None)

    def test_a_job_without_an_answer_is_a_row(self, store: Store) -> None:
        row = only(store, a_run(store, JOB))
        assert list(row) == list(COLUMNS)
        asked = {name for name, value in row.items() if value is not None}
        assert asked == {*list(COLUMNS)[:16], "prompt_text"}

    def test_the_grade_of_another_grader_is_not_shown(self, store: Store) -> None:
        grade = replace(GRADE, grader=GRADER_VERSION - 1)
        row = only(store, a_run(store, JOB, records=(RECORD,), grades=(grade,)))
        assert (row["outcome"], row["correct"], row["answer_label"]) == (None, None, None)
        assert row["output"] == "La respuesta es B"

    def test_an_answer_that_names_no_option_has_no_label(self, store: Store) -> None:
        grade = replace(GRADE, outcome="REFUSAL", slot=None, content=None, correct=False)
        row = only(store, a_run(store, JOB, records=(RECORD,), grades=(grade,)))
        found = (row["answer_label"], row["slot"], row["content"], row["correct"])
        assert found == (None, None, None, False)

    def test_a_variant_from_before_replies_is_answered_by_its_labels(self, store: Store) -> None:
        row = only(store, a_run(store, shown_as(replies=None, prompt_language=None)))
        assert (row["gold_reply"], row["prompt_language"]) == ("B", "es")

    def test_two_runs_that_share_a_job_have_a_row_each(self, store: Store) -> None:
        first = a_run(store, JOB, records=(RECORD,), grades=(GRADE,))
        second = a_run(store, a_job(8, payload=JOB.payload), JOB)
        rows = [
            (row["run"], row["job"], row["correct"]) for row in answer_rows(store, [first, second])
        ]
        assert rows == [
            (first, "00000007", True),
            (second, "00000008", None),
            (second, "00000007", True),
        ]

    def test_an_unknown_run_is_refused(self, store: Store) -> None:
        a_run(store, JOB)
        with pytest.raises(UsageError, match="no run is called 'nope'"):
            list(answer_rows(store, ["nope"]))


class TestCsv:
    def test_has_a_mark_a_header_and_a_row(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.csv"
        assert write_answers(path, [ROW], "csv") == 1
        raw = path.read_bytes()
        assert raw.startswith(b"\xef\xbb\xbfrun,job,model,dataset,item_id,group_id,language,")
        assert raw.endswith(b"\r\n")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            (row,) = csv.DictReader(stream)
        assert list(row) == list(COLUMNS)
        assert (row["verified"], row["logprob_sum"], row["label_mass"]) == ("true", "-2.0", "")
        assert row["prompt_text"] == ROW["prompt_text"]

    @pytest.mark.parametrize(
        ("output", "cell"),
        [
            ("=HYPERLINK(A1)", "'=HYPERLINK(A1)"),
            ("- C", "'- C"),
            ("+", "'+"),
            ("@C", "'@C"),
            ('C,\n"D"', 'C,\n"D"'),
        ],
    )
    def test_a_text_is_never_a_formula(self, tmp_path: Path, output: str, cell: str) -> None:
        path = tmp_path / "answers.csv"
        write_answers(path, [{**ROW, "output": output}], "csv")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            (row,) = csv.DictReader(stream)
        assert row["output"] == cell


class TestJsonLines:
    def test_a_row_is_an_object_on_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.jsonl"
        assert write_answers(path, [ROW, {**ROW, "output": "a\nb\u2028c"}], "jsonl") == 2
        first, second = path.read_bytes().removesuffix(b"\n").split(b"\n")
        assert json.loads(first) == ROW
        assert "¿Cuál es el tratamiento?".encode() in first
        assert json.loads(second)["output"] == "a\nb\u2028c"

    def test_is_strict_json_whatever_was_measured(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.jsonl"
        write_answers(path, [{**ROW, "tax_nats": math.inf, "logprob_sum": math.nan}], "jsonl")
        text = path.read_text(encoding="utf-8")
        assert '"logprob_sum": null, "tax_nats": null' in text


class TestParquet:
    def test_values_and_types_are_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.parquet"
        unknown: dict[str, object] = dict.fromkeys(COLUMNS)
        assert write_answers(path, [ROW, unknown], "parquet") == 2
        table = pq.read_table(path)
        assert table.to_pylist() == [ROW, unknown]
        types = {
            name: table.schema.field(name).type
            for name in ("output", "correct", "slot", "tax_nats")
        }
        assert types == {
            "output": pa.string(),
            "correct": pa.bool_(),
            "slot": pa.int64(),
            "tax_nats": pa.float64(),
        }

    def test_no_more_than_ten_thousand_rows_are_held_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.parquet"
        assert write_answers(path, (ROW for _ in range(20_001)), "parquet") == 20_001
        groups = pq.ParquetFile(path).metadata
        assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [
            10_000,
            10_000,
            1,
        ]

    def test_no_row_is_a_table_with_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.parquet"
        assert write_answers(path, [], "parquet") == 0
        assert pq.read_table(path).column_names == list(COLUMNS)


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """Let the kernel refuse to make a file larger, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
class TestPublishing:
    def test_a_file_is_replaced_as_a_whole(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "answers"
        path.write_text("old")

        def rows() -> Iterator[dict[str, object]]:
            yield ROW
            assert path.read_text() == "old"
            raise UsageError("the second row cannot be read")

        with pytest.raises(UsageError, match="the second row"):
            write_answers(path, rows(), kind)
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("answers", "old")]

    def test_what_the_disk_refuses_is_an_error_and_leaves_nothing(
        self, tmp_path: Path, kind: str
    ) -> None:
        rows = ({**ROW, "output": f"{number:0100}"} for number in range(2_000))
        with files_up_to(5_000), pytest.raises(MedlocalError, match=f"{tmp_path}.*File too large"):
            write_answers(tmp_path / "answers", rows, kind)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path, kind: str) -> None:
        with pytest.raises(UsageError, match=r"there is no folder .*/none"):
            write_answers(tmp_path / "none" / "answers", [ROW], kind)

    def test_a_folder_is_no_file(self, tmp_path: Path, kind: str) -> None:
        with pytest.raises(UsageError, match="is a folder"):
            write_answers(tmp_path, [ROW], kind)


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kind of file is called 'json'") as caught:
        write_answers(tmp_path / "answers", [ROW], "json")
    assert caught.value.hint == "did you mean jsonl?"


def test_pyarrow_is_loaded_only_when_needed() -> None:
    code = (
        "import sys, medlocal.report.answers, medlocal.report.files, medlocal.report.lm_eval;"
        "sys.exit(any(m in sys.modules for m in ('pyarrow', 'scipy', 'llama_cpp', 'outlines')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
