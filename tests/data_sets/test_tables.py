"""Rows of tables in every kind of file, as a person counts them, or our own error."""

import datetime
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from medlocal.data.tables import Record, column_names, open_source, read_source
from medlocal.errors import MedlocalError, MissingError, UsageError

DAY = datetime.datetime.fromisoformat("2024-02-01")
ENDINGS = [".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".parquet"]


def file_of(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def workbook_of(path: Path, rows: list[list[Any]], **more: list[list[Any]]) -> Path:
    workbook = Workbook()
    first = workbook.active
    for title, lines in {"first": rows, **more}.items():
        sheet = first if title == "first" else workbook.create_sheet(title)
        for line in lines:
            sheet.append(line)
    workbook.save(path)
    return path


def parquet_of(path: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def rows(path: Path, encoding: str | None = None, sheet: str | None = None) -> list[Any]:
    return [
        (record.number, record.values) for record in read_source(open_source(path, encoding, sheet))
    ]


class TestDelimited:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_the_delimiter_is_found_out(self, tmp_path: Path, delimiter: str) -> None:
        path = file_of(tmp_path, "t.csv", f"Pregunta{delimiter}A\n¿Qué?{delimiter}x: 1.5\n")
        assert rows(path) == [(2, {"Pregunta": "¿Qué?", "A": "x: 1.5"})]

    def test_other_delimiters_in_the_texts_change_nothing(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "t.csv", 'a;b\n"1;2",3\n4,5|6,7;8\n')
        with pytest.raises(UsageError):
            rows(path)
        path = file_of(tmp_path, "t.csv", 'a;b\n"1;2";3,4,5,6\n')
        assert rows(path) == [(2, {"a": "1;2", "b": "3,4,5,6"})]

    def test_the_line_by_which_excel_names_its_delimiter_is_obeyed(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "t.csv", "sep=;\r\na;b,c\r\n1;2\r\n")
        assert rows(path) == [(3, {"a": "1", "b,c": "2"})]

    def test_two_delimiters_that_divide_the_names_alike_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="divided by ',' or ';'"):
            rows(file_of(tmp_path, "t.csv", "a,b;c\n1,2;3\n"))

    def test_a_tsv_file_is_divided_by_tabs_only(self, tmp_path: Path) -> None:
        assert rows(file_of(tmp_path, "t.tsv", "a,b\tc\n1,2\t3\n")) == [
            (2, {"a,b": "1,2", "c": "3"})
        ]

    def test_the_number_is_the_line_that_a_row_begins_on(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "t.csv", 'a,b\n"1\n2\n3",x\n\n,\ny,z\n')
        assert rows(path) == [(2, {"a": "1\n2\n3", "b": "x"}), (7, {"a": "y", "b": "z"})]

    def test_columns_without_a_name_may_be_empty(self, tmp_path: Path) -> None:
        assert rows(file_of(tmp_path, "t.csv", "a,b,,\n1,2,,\n")) == [(2, {"a": "1", "b": "2"})]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("a,b\n1\n", r"t\.csv:2: 1 cells where the first row has 2"),
            ("a,b\n1,2,3\n", r"t\.csv:2: cell 3 stands under no name: '3'"),
            ("a,\n1,2\n", r"t\.csv:2: cell 2 stands under no name"),
            ("a,a\n1,2\n", r"t\.csv:1: two columns are called 'a'"),
            ('a,b\n1,2\n"3,4\n5,6\n', r"t\.csv:3: the row that begins here cannot be read"),
            ('a,b\n"1"x,2\n', r"t\.csv:2: the row that begins here cannot be read"),
            ("a,b\n1,\0\n", r"t\.csv:2: a NUL"),
        ],
    )
    def test_rows_that_cannot_be_told_apart_are_refused(
        self, tmp_path: Path, content: str, reason: str
    ) -> None:
        with pytest.raises(UsageError, match=reason):
            rows(file_of(tmp_path, "t.csv", content))

    def test_an_apostrophe_before_a_formula_is_taken_away(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "t.csv", "a,b,c\n'=1,''-2,'t Hooft\n")
        assert rows(path) == [(2, {"a": "=1", "b": "'-2", "c": "'t Hooft"})]

    def test_excels_spanish_csv_is_read(self, tmp_path: Path) -> None:
        content = "Opción;Año\r\nñandú;1,5\r\nRazón;2\r\n".encode("cp1252")
        assert rows(file_of(tmp_path, "t.csv", content)) == [
            (2, {"Opción": "ñandú", "Año": "1,5"}),
            (3, {"Opción": "Razón", "Año": "2"}),
        ]

    def test_excels_unicode_text_is_read(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "t.tsv", "año\tb\r\nñ\t2\r\n".encode("utf-16"))
        assert rows(path) == [(2, {"año": "ñ", "b": "2"})]

    def test_the_encoding_that_is_named_is_used(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "t.csv", "a,b\nrazón,2\n".encode("cp850"))
        assert rows(path, "cp850") == [(2, {"a": "razón", "b": "2"})]


class TestJson:
    def test_lines_are_counted_and_blank_ones_skipped(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "t.jsonl", '{"a": 1}\n\n{"b": ["x", "\u2028"]}\n')
        assert rows(path) == [(1, {"a": 1}), (3, {"b": ["x", "\u2028"]})]
        assert column_names(open_source(path)) == ("a", "b")

    @pytest.mark.parametrize(
        "content",
        [
            '[{"a": 1}, {"a": "]"}]',
            '{"version": 2, "by": {"x": "y"}, "questions": [{"a": 1}, {"a": "]"}], "end": null}',
            '{"a": 1}\n{"a": "]"}\n',
        ],
    )
    def test_a_list_stands_alone_or_in_an_object_or_in_lines(
        self, tmp_path: Path, content: str
    ) -> None:
        assert rows(file_of(tmp_path, "t.json", content)) == [(1, {"a": 1}), (2, {"a": "]"})]

    def test_an_empty_list_has_no_rows(self, tmp_path: Path) -> None:
        assert rows(file_of(tmp_path, "t.json", " [ ]\n")) == []

    def test_nan_is_nothing(self, tmp_path: Path) -> None:
        assert rows(file_of(tmp_path, "t.jsonl", '{"a": NaN}')) == [(1, {"a": None})]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ('[{"a": 1},\n{"a": }]', r"t\.json:2: not JSON"),
            ('[{"a": 1}', r"t\.json:1: .*the file ends"),
            ('[{"a": 1}] x', "more after the end"),
            ('[{"a": 1} {"a": 2}]', "',' is expected"),
            ('["a"]', r"t\.json:1: a question must be an object, not str"),
            ('{"a": [{}], "b": [{}]}', "more than one list"),
            ('{"a": 1}', "no list of questions"),
            ("3", "neither a list"),
            ("", "neither a list"),
            ('[{"a": 1, "a": 2}]', "a key stands twice"),
            ("[" * 100_000, "not JSON"),
            ('[{"a": Infinity}]', "Infinity is no number"),
        ],
    )
    def test_what_is_no_list_of_objects_is_refused(
        self, tmp_path: Path, content: str, reason: str
    ) -> None:
        with pytest.raises(UsageError, match=reason):
            rows(file_of(tmp_path, "t.json", content))

    def test_a_broken_line_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"t\.jsonl:2: not JSON"):
            rows(file_of(tmp_path, "t.jsonl", '{"a": 1}\n{"a": \n'))

    def test_entries_are_read_across_the_pieces_of_the_file(self, tmp_path: Path) -> None:
        entries = [{"n": i, "text": 'ñ\\"]}' * (i % 7) * 900} for i in range(300)]
        content = json.dumps(entries, indent=1, ensure_ascii=False)
        assert len(content) > 4 * (1 << 18)
        assert [v for _, v in rows(file_of(tmp_path, "t.json", content))] == entries

    @given(
        entries=st.lists(
            st.dictionaries(
                st.text(max_size=3),
                st.recursive(
                    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: (
                        st.lists(inner, max_size=3)
                        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
                    ),
                    max_leaves=6,
                ),
                max_size=3,
            ),
            max_size=5,
        ),
        indent=st.none() | st.integers(0, 3),
    )
    def test_a_list_gives_what_json_reads(
        self, entries: list[Any], indent: int | None, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        content = json.dumps(entries, indent=indent)
        path = file_of(tmp_path_factory.mktemp("json"), "t.json", content)
        assert [values for _, values in rows(path)] == entries


class TestWorkbooks:
    def test_numbers_are_text_as_they_are_shown(self, tmp_path: Path) -> None:
        path = workbook_of(tmp_path / "t.xlsx", [["a", "b", "c", "d"], [3, 3.0, 0.1 + 0.2, 2.5]])
        assert rows(path) == [(2, {"a": "3", "b": "3", "c": "0.3", "d": "2.5"})]

    def test_percentages_keep_their_sign(self, tmp_path: Path) -> None:
        workbook = Workbook()
        workbook.active.append(["a", "b"])
        workbook.active.append([0.05, 0.125])
        workbook.active["A2"].number_format = "0%"
        workbook.active["B2"].number_format = "0.0%"
        workbook.save(tmp_path / "t.xlsx")
        assert rows(tmp_path / "t.xlsx") == [(2, {"a": "5%", "b": "12.5%"})]

    def test_the_number_is_the_row_of_the_sheet(self, tmp_path: Path) -> None:
        lines: list[list[Any]] = [[None], ["a", "b"], [None, None], [" "], ["x", "y"]]
        assert rows(workbook_of(tmp_path / "t.xlsx", lines)) == [(5, {"a": "x", "b": "y"})]

    def test_a_sheet_can_be_named(self, tmp_path: Path) -> None:
        path = workbook_of(tmp_path / "t.xlsx", [["a"], ["1"]], Hoja2=[["b"], ["2"]])
        assert rows(path) == [(2, {"a": "1"})]
        assert rows(path, sheet="Hoja2") == [(2, {"b": "2"})]
        with pytest.raises(UsageError, match=r"(.|\n)*did you mean Hoja2"):
            rows(path, sheet="Hoja 2")

    def test_dates_and_truth_values_stay_what_they_are(self, tmp_path: Path) -> None:
        path = workbook_of(tmp_path / "t.xlsx", [["a", "b"], [DAY, True]])
        assert rows(path) == [(2, {"a": DAY, "b": True})]

    def test_a_cell_under_no_name_is_refused(self, tmp_path: Path) -> None:
        path = workbook_of(tmp_path / "t.xlsx", [["a"], ["1", None, "2"]])
        with pytest.raises(UsageError, match=r"t\.xlsx:2: cell 3 stands under no name"):
            rows(path)

    def test_line_breaks_as_xlsx_spells_them_are_read(self, tmp_path: Path) -> None:
        path = workbook_of(tmp_path / "t.xlsx", [["a"], ["1_x000D_\n2"]])
        assert rows(path) == [(2, {"a": "1\r\n2"})]

    def test_a_wrong_size_of_the_sheet_cuts_nothing_off(self, tmp_path: Path) -> None:
        path = workbook_of(tmp_path / "t.xlsx", [["a", "b"], ["1", "2"], ["3", "4"]])
        parts = {}
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                parts[name] = archive.read(name)
        sheet = parts["xl/worksheets/sheet1.xml"]
        assert b'ref="A1:B3"' in sheet
        parts["xl/worksheets/sheet1.xml"] = sheet.replace(b'ref="A1:B3"', b'ref="A1"')
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        assert len(rows(path)) == 2

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"a,b\n1,2\n", "not an XLSX file"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 and more", "before 2007"),
            (b"", "not an XLSX file"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, content: bytes, reason: str) -> None:
        with pytest.raises(UsageError, match=reason):
            rows(file_of(tmp_path, "t.xlsx", content))

    def test_an_archive_of_something_else_is_refused(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a.txt", "b")
        with pytest.raises(UsageError, match="not an XLSX file that can be read"):
            rows(file_of(tmp_path, "t.xlsx", stream.getvalue()))


class TestParquet:
    def test_rows_are_counted_from_one(self, tmp_path: Path) -> None:
        path = parquet_of(tmp_path / "t.parquet", a=["x", None], b=[[1, 2], []])
        assert rows(path) == [(1, {"a": "x", "b": [1, 2]}), (2, {"a": None, "b": []})]
        assert column_names(open_source(path)) == ("a", "b")

    def test_a_truncated_file_is_refused(self, tmp_path: Path) -> None:
        content = parquet_of(tmp_path / "t.parquet", a=["x"] * 100).read_bytes()
        path = file_of(tmp_path, "u.parquet", content[:-20])
        with pytest.raises(UsageError, match=r"u\.parquet:1: not a Parquet file"):
            rows(path)

    def test_two_columns_of_one_name_are_refused(self, tmp_path: Path) -> None:
        table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
        pq.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(UsageError, match="two columns are called 'a'"):
            rows(tmp_path / "t.parquet")


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One workbook and one table, ending to bytes: made once, for a workbook holds the time it
    was made, and with it the file's length changes from one example to the next."""
    folder = tmp_path_factory.mktemp("sound")
    return {
        ".xlsx": workbook_of(folder / "t.xlsx", [["a", "b"], ["ñ", 2]]).read_bytes(),
        ".parquet": parquet_of(folder / "t.parquet", a=["ñ", "x"], b=[2, 3]).read_bytes(),
    }


class TestAnyFile:
    def test_an_unknown_ending_lists_the_known(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError) as caught:
            rows(file_of(tmp_path, "t.ods", ""))
        assert caught.value.hint == "known: .csv, .tsv, .json, .jsonl, .xlsx, .parquet"

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_a_file_that_is_not_there_is_missing(self, tmp_path: Path, ending: str) -> None:
        with pytest.raises(MissingError):
            rows(tmp_path / f"t{ending}")

    def test_a_sheet_or_an_encoding_where_there_is_none_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="only an XLSX file has sheets"):
            rows(file_of(tmp_path, "t.csv", "a"), sheet="x")
        with pytest.raises(UsageError, match="not a text file"):
            rows(workbook_of(tmp_path / "t.xlsx", [["a"]]), encoding="utf-8")

    @pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
    def test_an_empty_file_has_no_columns(self, tmp_path: Path, ending: str) -> None:
        with pytest.raises(UsageError, match="the file is empty"):
            column_names(open_source(file_of(tmp_path, f"t{ending}", "\n")))

    @pytest.mark.parametrize(
        "path_of",
        [
            lambda folder: file_of(folder, "t.csv", "a,b\n1,2\n"),
            lambda folder: file_of(folder, "t.tsv", "a\tb\n1\t2\n"),
            lambda folder: file_of(folder, "t.json", '[{"a": "1", "b": "2"}]'),
            lambda folder: file_of(folder, "t.jsonl", '{"a": "1", "b": "2"}'),
            lambda folder: workbook_of(folder / "t.xlsx", [["a", "b"], ["1", "2"]]),
            lambda folder: parquet_of(folder / "t.parquet", a=["1"], b=["2"]),
        ],
    )
    def test_all_kinds_give_the_same_rows_and_columns(
        self, tmp_path: Path, path_of: Callable[[Path], Path]
    ) -> None:
        path = path_of(tmp_path)
        assert [record.values for record in read_source(open_source(path))] == [
            {"a": "1", "b": "2"}
        ]
        assert column_names(open_source(path)) == ("a", "b")

    def test_the_first_rows_come_before_the_last_are_read(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "t.jsonl", '{"a": 1}\n' * 10_000 + "broken")
        assert next(read_source(open_source(path))) == Record(1, {"a": 1})

    @given(ending=st.sampled_from(ENDINGS), content=st.binary(max_size=300))
    def test_any_bytes_give_rows_or_our_own_error(
        self, ending: str, content: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = file_of(tmp_path_factory.mktemp("bytes"), f"t{ending}", content)
        try:
            rows(path)
        except MedlocalError:
            return

    @given(data=st.data(), ending=st.sampled_from([".xlsx", ".parquet"]))
    def test_a_damaged_file_gives_rows_or_our_own_error(
        self,
        data: st.DataObject,
        ending: str,
        sound_files: dict[str, bytes],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        content = bytearray(sound_files[ending])
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.mktemp("damaged") / f"t{ending}"
        path.write_bytes(content)
        try:
            rows(path)
        except MedlocalError:
            return

    @given(data=st.data())
    def test_a_sheet_of_damaged_xml_gives_rows_or_our_own_error(
        self,
        data: st.DataObject,
        sound_files: dict[str, bytes],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        with zipfile.ZipFile(io.BytesIO(sound_files[".xlsx"])) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        name = data.draw(st.sampled_from(sorted(parts)))
        part = bytearray(parts[name])
        for _ in range(data.draw(st.integers(1, 6))):
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(32, 126))
        path = tmp_path_factory.mktemp("xml") / "t.xlsx"
        with zipfile.ZipFile(path, "w") as archive:
            for other, content in {**parts, name: bytes(part)}.items():
                archive.writestr(other, content)
        try:
            rows(path)
        except MedlocalError:
            return
