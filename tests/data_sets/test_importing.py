"""A user's own questions: every sound row an item, every other one named with its reason."""

import datetime
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from medlocal.data.importing import BadRow, ImportOptions, ImportPlan, items, plan_import
from medlocal.data.seen import Seen
from medlocal.data.stored import write_items
from medlocal.errors import MedlocalError, MissingError, UsageError
from medlocal.evals.items import Item

DAY = datetime.datetime.fromisoformat("2024-02-01")
SOUND: dict[str, Any] = {"id": "1", "question": "¿Qué?", "A": "sí", "B": "no", "answer": "A"}


def options(**more: Any) -> ImportOptions:
    return ImportOptions(**{"set_id": "own", "language": "es", **more})


def jsonl_of(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def plan_of(tmp_path: Path, *rows: dict[str, Any], **more: Any) -> ImportPlan:
    return plan_import(jsonl_of(tmp_path, *rows), options(**more))


def imported(tmp_path: Path, *rows: dict[str, Any], **more: Any) -> list[Item]:
    return list(items(plan_of(tmp_path, *rows, **more)))


def reason_of(tmp_path: Path, **changes: Any) -> str:
    plan = plan_of(tmp_path, SOUND | changes)
    assert plan.summary.bad == 1
    return plan.bad[0].reason


class TestASpreadsheet:
    CSV = (
        "Nº;Pregunta;Opción A;Opción B;Opción C;Respuesta;Tema\n"
        "1;¿Cuál es el fármaco?;Enalapril;Losartán;;B;Cardiología\n"
        "2;¿Dónde está el riñón?;Tórax;Abdomen;Cráneo;b);\n"
    )
    EXPECTED = (
        Item("1", "own", "test", "es", "¿Cuál es el fármaco?", ("Enalapril", "Losartán"), 1,
             "Cardiología", "own/1"),
        Item("2", "own", "test", "es", "¿Dónde está el riñón?", ("Tórax", "Abdomen", "Cráneo"), 1,
             "unspecified", "own/2"),
    )  # fmt: skip

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
    def test_a_spanish_csv_file_gives_its_questions(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "preguntas.csv"
        path.write_text(self.CSV, encoding=encoding)
        assert tuple(items(plan_import(path, options()))) == self.EXPECTED

    def test_a_workbook_gives_the_same(self, tmp_path: Path) -> None:
        workbook = Workbook()
        for line in self.CSV.splitlines():
            cells = [int(text) if text.isdigit() else text or None for text in line.split(";")]
            workbook.active.append(cells)
        workbook.save(tmp_path / "preguntas.xlsx")
        plan = plan_import(tmp_path / "preguntas.xlsx", options())
        assert tuple(items(plan)) == self.EXPECTED

    def test_the_summary_says_what_was_found(self, tmp_path: Path) -> None:
        path = tmp_path / "preguntas.csv"
        path.write_text(self.CSV.replace("Tema", "Nota"), encoding="cp1252")
        summary = plan_import(path, options()).summary
        assert (summary.rows, summary.items, summary.bad, summary.skipped_multiple) == (2, 2, 0, 0)
        assert (summary.gold, summary.encoding) == ("letter", "cp1252")
        assert summary.columns == {
            "question": ("Pregunta",),
            "answer": ("Respuesta",),
            "id": ("Nº",),
            "options": ("Opción A", "Opción B", "Opción C"),
        }
        assert summary.unused == ("Nota",)
        assert (summary.by_language, summary.by_split) == ({"es": 2}, {"test": 2})


class TestFields:
    def test_all_that_a_row_says_is_kept(self, tmp_path: Path) -> None:
        row = SOUND | {
            "language": "en",
            "split": "train",
            "subject": "heart",
            "context": "A case.\r\nOf two lines.",
            "rationale": "Because.",
            "difficulty": 3,
            "group": "case 7",
            "flags": "vignette; long",
        }
        assert imported(tmp_path, row) == [
            Item("1", "own", "train", "en", "¿Qué?", ("sí", "no"), 0, "heart", "own/case 7",
                 "A case.\nOf two lines.", "3", "Because.", ("vignette", "long"))
        ]  # fmt: skip

    def test_rows_of_one_id_in_two_languages_are_parallel(self, tmp_path: Path) -> None:
        rows = [
            SOUND | {"language": "Español"},
            SOUND | {"language": "inglés", "question": "What?"},
        ]
        found = imported(tmp_path, *rows, language=None)
        assert [(i.language, i.group) for i in found] == [("es", "own/1"), ("en", "own/1")]

    @pytest.mark.parametrize(
        ("text", "code"),
        [("es-ES", "es"), ("ENGLISH", "en"), ("castellano", "es"), ("français", "fr"),
         ("it_IT", "it"), ("", "es")],
    )  # fmt: skip
    def test_languages_are_known_by_code_and_name(
        self, tmp_path: Path, text: str, code: str
    ) -> None:
        assert imported(tmp_path, SOUND | {"idioma": text})[0].language == code

    def test_a_made_id_stays_when_rows_move_or_an_answer_is_corrected(self, tmp_path: Path) -> None:
        row = {k: v for k, v in SOUND.items() if k != "id"}
        other = row | {"question": "¿Otra?"}
        first = imported(tmp_path, row, other)
        moved = imported(tmp_path, other, row | {"answer": "B"})
        assert [i.id for i in first] == [i.id for i in reversed(moved)]
        assert len({i.id for i in first}) == 2

    @pytest.mark.parametrize(
        "value",
        [
            ["sí", "no"],
            {"A": "sí", "B": "no"},
            {"2": "no", "1": "sí"},
            '["sí", "no"]',
            "['sí', 'no']",
            """["s\\xed" 'no']""",
            "sí|no",
            "sí; no",
            "sí\nno\n",
            "A) sí\nB) no",
            "a. sí; b. no",
        ],
    )
    def test_options_may_stand_in_one_column(self, tmp_path: Path, value: Any) -> None:
        row = {"question": "¿Qué?", "opciones": value, "answer": "B"}
        assert imported(tmp_path, row)[0].options == ("sí", "no")

    def test_quotes_and_escapes_of_a_written_list_are_read(self, tmp_path: Path) -> None:
        value = repr(["it's", 'say "no"', "a\\b\nc", "ñ", "\u2028x"])
        row = {"question": "¿Qué?", "options": value, "answer": "A"}
        assert imported(tmp_path, row)[0].options == (
            "it's",
            'say "no"',
            "a\\b\nc",
            "ñ",
            "x",
        )

    def test_options_may_differ_by_their_capitals(self, tmp_path: Path) -> None:
        found = imported(tmp_path, SOUND | {"A": "tt", "B": "TT", "answer": "TT"})
        assert (found[0].options, found[0].gold) == (("tt", "TT"), 1)

    def test_a_row_may_say_that_it_knows_of_options_that_are_the_same(self, tmp_path: Path) -> None:
        row = SOUND | {"B": "sí", "C": "no", "flags": "duplicate_options"}
        assert imported(tmp_path, row)[0].options == ("sí", "sí", "no")

    def test_an_answer_may_be_a_list_of_one(self, tmp_path: Path) -> None:
        assert imported(tmp_path, SOUND | {"answer": ["B"]})[0].gold == 1
        assert imported(tmp_path, SOUND | {"answer": '["B"]'})[0].gold == 1

    def test_numbers_of_pandas_are_read(self, tmp_path: Path) -> None:
        table = pa.table({
            "question": ["p", "q", "r"], "A": ["x"] * 3, "B": ["y"] * 3, "answer": [1.0, 2.0, 1.0],
            "difficulty": [float("nan"), 0.5, 1.0],
        })  # fmt: skip
        pq.write_table(table, tmp_path / "t.parquet")
        found = list(items(plan_import(tmp_path / "t.parquet", options())))
        assert [(i.gold, i.difficulty) for i in found] == [(0, ""), (1, "0.5"), (0, "1")]


class TestBadRows:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"question": "  "}, "the question is empty"),
            ({"question": None}, "the question is empty"),
            ({"A": ""}, "option A is empty and one behind it is not"),
            ({"B": None}, "1 options: from 2 to 10 can be asked"),
            ({"B": " sí "}, "two options are the same: 'sí'"),
            ({"B": "SÍ", "answer": "Sí"}, "the answer 'Sí' is the words of more than one option"),
            ({"answer": ""}, "the answer is empty"),
            ({"answer": "C"}, "the answer 'C' is not one of the 2 options"),
            ({"answer": "quizá"}, "the answer 'quizá' is not one of the 2 options"),
            ({"answer": True}, "answer: holds true or false: format the column as text"),
            ({"question": "RazÃ³n"}, "question: letters were mangled before the file was saved"),
            ({"question": "Raz\ufffdn"}, "question: a letter was lost before the file was saved"),
            ({"question": "a\ud800"}, "question: holds a character that cannot be shown, U+D800"),
            ({"B": "a\x01"}, "B: holds a character that cannot be shown, U+0001"),
            ({"B": "#N/A"}, "B: holds the error value #N/A of a spreadsheet"),
            ({"B": "#¡REF!"}, "B: holds the error value #¡REF! of a spreadsheet"),
            ({"B": ["x"]}, "B: holds list where text is needed"),
            ({"id": "1\n2"}, "id: holds a line break"),
            ({"language": "Deutsch"}, "language: 'Deutsch' is none of en, es, fr, it"),
            ({"answer": "A y B"}, "several right answers: 'A y B'"),
            ({"answer": ["A", "B"]}, "several right answers: A, B"),
        ],
    )
    def test_the_reason_is_said_in_plain_words(
        self, tmp_path: Path, changes: dict[str, Any], reason: str
    ) -> None:
        assert reason_of(tmp_path, **changes).startswith(reason)

    def test_a_date_that_excel_made_of_an_option_is_refused(self, tmp_path: Path) -> None:
        workbook = Workbook()
        workbook.active.append(["question", "A", "B", "answer"])
        workbook.active.append(["p", "1/3", DAY, "A"])
        workbook.save(tmp_path / "t.xlsx")
        plan = plan_import(tmp_path / "t.xlsx", options())
        assert plan.bad[0].row == 2
        assert plan.bad[0].reason.startswith("B: holds a date or a time, which a spreadsheet makes")

    def test_a_row_is_named_by_file_and_row(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, SOUND, SOUND | {"id": "2", "question": ""})
        path = str(tmp_path / "own.jsonl")
        assert plan.bad == (BadRow(path, 2, "the question is empty"),)
        assert str(plan.bad[0]) == f"{path}:2: the question is empty"

    def test_an_id_twice_names_the_row_before(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, SOUND, SOUND | {"question": "¿Otra?"})
        assert [bad.reason for bad in plan.bad] == ["id '1' stands in row 1 already"]

    def test_the_same_question_twice_without_ids_is_bad(self, tmp_path: Path) -> None:
        row = {k: v for k, v in SOUND.items() if k != "id"}
        plan = plan_of(tmp_path, row, row)
        reason = "the same question and options stands in row 1 already"
        assert [bad.reason for bad in plan.bad] == [reason]

    def test_a_row_without_a_language_is_bad_where_none_is_given(self, tmp_path: Path) -> None:
        rows = [SOUND | {"language": "es"}, SOUND | {"id": "2", "language": ""}]
        plan = plan_of(tmp_path, *rows, language=None)
        assert [bad.reason for bad in plan.bad] == ["language: the language is missing"]

    def test_nothing_is_imported_where_a_row_is_bad(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, SOUND, SOUND | {"id": "2", "question": ""})
        with pytest.raises(UsageError) as caught:
            items(plan)
        assert caught.value.message.endswith("1 of 2 rows cannot be imported, and so none was")
        assert caught.value.hint == "mend them, or add --skip-bad to import the other 1"

    def test_the_sound_rows_are_imported_if_bad_ones_are_to_be_skipped(
        self, tmp_path: Path
    ) -> None:
        rows = [SOUND | {"question": ""}, SOUND, SOUND | {"id": "2", "answer": "Z"}]
        assert [i.id for i in imported(tmp_path, *rows, skip_bad=True)] == ["1"]

    def test_all_are_counted_where_not_all_are_listed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("medlocal.data.importing.MAX_BAD", 3)
        plan = plan_of(tmp_path, *[SOUND | {"question": ""}] * 5)
        assert (len(plan.bad), plan.summary.bad, plan.summary.gold) == (3, 5, "")


class TestGold:
    ROW = SOUND | {"A": "10", "B": "20", "C": "30"}

    def test_what_is_said_settles_what_is_unclear(self, tmp_path: Path) -> None:
        rows = [SOUND | {"answer": 1}]
        with pytest.raises(UsageError, match="more than one way"):
            plan_of(tmp_path, *rows)
        assert imported(tmp_path, *rows, gold="zero-based")[0].gold == 1
        assert imported(tmp_path, *rows, gold="one-based")[0].gold == 0

    def test_a_row_that_does_not_fit_what_is_said_is_bad(self, tmp_path: Path) -> None:
        rows = [SOUND | {"answer": "0"}, SOUND | {"id": "2", "answer": "2"}]
        plan = plan_of(tmp_path, *rows, gold="zero-based")
        assert [bad.reason for bad in plan.bad] == ["the answer '2' is not a number from 0 to 1"]

    def test_a_column_may_say_that_its_answers_are_letters(self, tmp_path: Path) -> None:
        row = {"question": "¿Qué grupo?", "A": "B", "B": "A", "answer_letter": "A"}
        assert imported(tmp_path, row)[0].gold == 0

    def test_the_text_of_an_option_is_its_gold(self, tmp_path: Path) -> None:
        assert imported(tmp_path, SOUND | {"answer": " No "})[0].gold == 1

    def test_rows_with_several_are_counted_apart_and_skipped(self, tmp_path: Path) -> None:
        rows = [SOUND, SOUND | {"id": "2", "answer": "A,B"}, SOUND | {"id": "3", "answer": "9"}]
        plan = plan_of(tmp_path, *rows, multi="first-only", skip_bad=True)
        summary = plan.summary
        assert (summary.items, summary.skipped_multiple, summary.bad) == (1, 1, 1)
        assert [i.id for i in items(plan)] == ["1"]

    def test_several_alone_do_not_hinder_the_import(self, tmp_path: Path) -> None:
        rows = [SOUND, SOUND | {"id": "2", "answer": "A,B"}]
        assert len(imported(tmp_path, *rows, multi="first-only")) == 1


class TestFiles:
    def test_without_a_language_it_is_asked(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError) as caught:
            plan_of(tmp_path, SOUND, language=None)
        assert caught.value.hint == "say it: --language en|es|fr|it"

    def test_columns_that_are_not_recognised_name_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"own\.jsonl: no column for the question among"):
            plan_of(tmp_path, {"foo": "x", "A": "1", "B": "2", "key": "A"})

    def test_columns_can_be_told(self, tmp_path: Path) -> None:
        row = {"foo": "¿Qué?", "A": "1", "B": "2", "key": "A"}
        assert imported(tmp_path, row, columns={"question": "foo"})[0].stem == "¿Qué?"

    def test_a_column_that_only_some_rows_have_is_read(self, tmp_path: Path) -> None:
        found = imported(tmp_path, SOUND, SOUND | {"id": "2", "C": "quizá"})
        assert [len(i.options) for i in found] == [2, 3]

    def test_a_file_without_rows_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("question,A,B,answer\n", encoding="utf-8")
        with pytest.raises(UsageError, match="the file holds no question"):
            plan_import(path, options())

    def test_a_missing_file_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            plan_import(tmp_path / "none.csv", options())

    @pytest.mark.parametrize(
        "wrong", [{"language": "de"}, {"gold": "letters"}, {"multi": "all"}, {"set_id": " "}]
    )
    def test_an_option_that_there_is_not_is_refused(
        self, tmp_path: Path, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(UsageError):
            plan_of(tmp_path, SOUND, **wrong)

    def test_a_file_that_was_changed_meanwhile_is_refused(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, SOUND)
        jsonl_of(tmp_path, SOUND, SOUND | {"id": "2"})
        with pytest.raises(UsageError, match="was changed while it was imported"):
            list(items(plan))

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        def peak(num_rows: int) -> int:
            rows = (
                SOUND | {"id": str(i), "question": f"¿{i}?" + "x" * 500} for i in range(num_rows)
            )
            path = jsonl_of(tmp_path, *rows)
            tracemalloc.start()
            plan = plan_import(path, options())
            with (tmp_path / "out.jsonl").open("wb") as stream:
                assert write_items(stream, items(plan)) == num_rows
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return most

        peak(10)  # what is imported and compiled once
        # Twice as many rows are 1.1 MB more in the file.
        assert peak(4_000) < peak(2_000) + 100_000


cells = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.text(max_size=3), max_size=3)
    | st.dictionaries(st.text(max_size=2), st.text(max_size=3), max_size=2)
    | st.sampled_from(["A", "B", "0", "1", "A,B", "[", '["A"]', "{'A': 1}", "x|y", "es", "\ud800"])
)


class TestAnything:
    @given(
        ending=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".parquet"]),
        content=st.binary(max_size=200),
        header=st.sampled_from([b"", b"question,A,B,answer\n", b"question\tA\tB\tanswer\n"]),
    )
    def test_any_bytes_are_imported_or_our_own_error(
        self, ending: str, content: bytes, header: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("any") / f"f{ending}"
        path.write_bytes(header + content)
        try:
            list(items(plan_import(path, options(skip_bad=True))))
        except MedlocalError:
            return

    @given(
        rows=st.lists(
            st.dictionaries(
                st.sampled_from(["id", "question", "A", "B", "C", "answer", "language", "flags"]),
                cells,
            ),
            min_size=1,
            max_size=4,
        ),
        gold=st.none() | st.sampled_from(["letter", "zero-based", "one-based", "text"]),
    )
    def test_any_values_are_items_or_bad_rows(
        self, rows: list[dict[str, Any]], gold: str | None, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        rows = [SOUND | {"id": "sound", "answer": ""}, *rows]
        path = jsonl_of(tmp_path_factory.mktemp("any"), *rows)
        try:
            plan = plan_import(path, options(skip_bad=True, gold=gold, multi="first-only"))
        except UsageError:
            return
        assert len(list(items(plan))) == plan.summary.items
        summary = plan.summary
        assert summary.items + summary.bad + summary.skipped_multiple == len(rows)

    @given(value=cells, answer=st.sampled_from(["A", "1", "x", "B"]))
    def test_any_list_of_options_is_read_or_a_bad_row(
        self, value: Any, answer: str, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        row = {"question": "¿Qué?", "options": value, "answer": answer}
        path = jsonl_of(tmp_path_factory.mktemp("any"), row)
        try:
            list(items(plan_import(path, options(skip_bad=True))))
        except MedlocalError:
            return


class TestSeen:
    def test_a_key_is_known_with_the_row_that_it_came_first_in(self) -> None:
        with Seen() as seen:
            assert [seen.add("a", 5), seen.add("ñ", 6), seen.add("a", 7), seen.add("a", 8)] == [
                0,
                0,
                5,
                5,
            ]
