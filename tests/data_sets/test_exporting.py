"""Items as tables: importing gives the same items back, and no spreadsheet runs what they hold."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook

from medlocal.data.encoding import mojibake
from medlocal.data.exporting import export_items
from medlocal.data.golds import normalised
from medlocal.data.importing import ImportOptions, items, plan_import
from medlocal.errors import MedlocalError, UsageError
from medlocal.evals.items import LANGUAGES, Item

ENDINGS = [".csv", ".tsv", ".jsonl", ".xlsx", ".parquet"]

# What importing lets through: no control characters, nothing that was mangled before.
characters = st.characters(
    codec="utf-8", exclude_categories=["Cc", "Cn"], exclude_characters="\ufffd"
)
tricky = st.sampled_from(
    ["=1+1", "'=1", "''@x", "-5 mmHg", "+ 2", "@x", "'t Hooft", "a;b", 'say "no"', "a\nb", "a,b\tc",
     "007", "3.0", "1e5", "TRUE", "1/2", "50%", "_x0041_", "_x000D_", "ñandú", "[1]", '["A"]', "null",
     "NaN", "A", "b)", "0", "á", "¿Qué?", "sep=;", "<b>&amp;", "x\u2028x", "#1"]
)  # fmt: skip
texts = (
    tricky | st.text(characters | st.just("\n"), min_size=1, max_size=12).map(str.strip)
).filter(lambda text: bool(text.strip()) and not mojibake(text))
lines = texts.map(lambda text: " ".join(text.split("\n")))


@st.composite
def some_items(draw: st.DrawFn) -> list[Item]:
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(LANGUAGES), st.sampled_from(["test", "train"]), lines),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    found = []
    for language, split, item_id in keys:
        options = draw(st.lists(texts, min_size=2, max_size=10, unique_by=normalised))
        found.append(
            Item(
                id=item_id,
                dataset="own",
                split=split,
                language=language,
                stem=draw(texts),
                options=tuple(options),
                gold=draw(st.integers(0, len(options) - 1)),
                subject=draw(lines),
                group=f"own/{draw(lines)}",
                context=draw(st.just("") | texts),
                difficulty=draw(st.just("") | lines),
                rationale=draw(st.just("") | texts),
                flags=tuple(draw(st.lists(st.sampled_from(["vignette", "long"]), max_size=2))),
            )
        )
    return found


def item_of(stem: str = "¿Qué?", **more: object) -> Item:
    values = {
        "id": "1", "dataset": "own", "split": "test", "language": "es", "stem": stem,
        "options": ("sí", "no"), "gold": 1, "subject": "s", "group": "own/case 7", **more,
    }  # fmt: skip
    return Item(**values)  # type: ignore[arg-type]


class TestBack:
    @pytest.mark.parametrize("ending", ENDINGS)
    @given(exported=some_items())
    def test_importing_gives_the_same_items(
        self, ending: str, exported: list[Item], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("back") / f"own{ending}"
        export_items(exported, path)
        plan = plan_import(path, ImportOptions("own"))
        assert [str(bad) for bad in plan.bad] == []
        assert list(items(plan)) == exported

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_only_the_id_of_the_set_is_left_behind(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"own{ending}"
        export_items([item_of()], path)
        found = list(items(plan_import(path, ImportOptions("other"))))
        assert found == [item_of(dataset="other", group="other/case 7")]


class TestForms:
    def test_csv_is_marked_utf_8_with_a_column_for_each_option(self, tmp_path: Path) -> None:
        export_items([item_of(flags=("vignette", "long"))], tmp_path / "t.csv")
        assert (tmp_path / "t.csv").read_bytes() == (
            "\ufeffid,group,split,language,subject,context,question,option_a,option_b,answer_letter,"
            "difficulty,rationale,flags\r\n"
            "1,case 7,test,es,s,,¿Qué?,sí,no,B,,,vignette;long\r\n"
        ).encode()

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "'=1"])
    def test_no_cell_of_csv_begins_as_a_formula(self, tmp_path: Path, text: str) -> None:
        export_items([item_of(text)], tmp_path / "t.csv")
        with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as stream:
            assert next(csv.DictReader(stream))["question"] == f"'{text}"

    def test_every_cell_of_a_workbook_is_text(self, tmp_path: Path) -> None:
        export_items([item_of("=1+1", options=("#N/A", "3"))], tmp_path / "t.xlsx")
        sheet = load_workbook(tmp_path / "t.xlsx").active
        filled = [cell for row in sheet.iter_rows() for cell in row if cell.value is not None]
        assert {cell.data_type for cell in filled} == {"s"}
        assert [sheet["G2"].value, sheet["H2"].value, sheet["I2"].value] == ["=1+1", "#N/A", "3"]

    def test_lines_hold_lists_and_leave_out_what_is_empty(self, tmp_path: Path) -> None:
        export_items([item_of()], tmp_path / "t.jsonl")
        assert json.loads((tmp_path / "t.jsonl").read_bytes()) == {
            "id": "1", "group": "case 7", "split": "test", "language": "es", "subject": "s",
            "question": "¿Qué?", "options": ["sí", "no"], "answer_letter": "B",
        }  # fmt: skip

    def test_parquet_holds_lists(self, tmp_path: Path) -> None:
        export_items([item_of()], tmp_path / "t.parquet")
        assert pq.read_table(tmp_path / "t.parquet")["options"].to_pylist() == [["sí", "no"]]


class TestRefused:
    def test_an_unknown_ending_lists_the_known(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError) as caught:
            export_items([item_of()], tmp_path / "t.json")
        assert caught.value.hint == "known: .csv, .tsv, .jsonl, .xlsx, .parquet"

    def test_nothing_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no item to write"):
            export_items([], tmp_path / "t.csv")

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_half_a_character_is_refused_and_leaves_no_file(
        self, tmp_path: Path, ending: str
    ) -> None:
        with pytest.raises(UsageError):
            export_items([item_of(), item_of("a\ud800")], tmp_path / f"t{ending}")
        assert list(tmp_path.iterdir()) == []

    def test_what_a_workbook_cannot_hold_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"XLSX cannot hold the character U\+0001"):
            export_items([item_of("a\x01")], tmp_path / "t.xlsx")
        with pytest.raises(UsageError, match="32,768 characters"):
            export_items([item_of("a" * 32_768)], tmp_path / "t.xlsx")

    def test_a_flag_that_would_be_two_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="flag 'a;b'"):
            export_items([item_of(flags=("a;b",))], tmp_path / "t.csv")

    def test_a_folder_that_is_not_there_is_our_own_error(self, tmp_path: Path) -> None:
        with pytest.raises(MedlocalError):
            export_items([item_of()], tmp_path / "none" / "t.csv")


def test_a_path_that_cannot_be_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    item = Item("a", "demo", "test", "en", "Which?", ("1", "2"), 0, "s", "demo/a")
    (tmp_path / "folder.csv").mkdir()
    for path in (tmp_path / "folder.csv", tmp_path / "nowhere" / "x.csv"):
        with pytest.raises(UsageError, match=r"is a folder|there is no folder"):
            export_items([item], path)
