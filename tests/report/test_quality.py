"""The report on quality: what is said, how precisely, and that outputs agree."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from medlocal.evals.stats import wilson
from medlocal.report.blocks import Lines, Table
from medlocal.report.quality import (
    print_quality,
    quality_blocks,
    quality_markdown,
    same_top_rate,
    with_error,
)
from medlocal.report.quality_files import CSV_COLUMNS, quality_csv, quality_json
from medlocal.report.quality_plot import quality_plot
from medlocal.weights.divergence import Estimated
from tests.report.quality_values import a_divergence, a_report, estimated


def tables(report_blocks: object) -> dict[str, Table]:
    assert isinstance(report_blocks, list)
    return {block.title: block for block in report_blocks if isinstance(block, Table)}


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.49117, 0.0462, ("0.491", "± 0.046")),
        (0.0070478, 0.00035452, ("0.00705", "± 0.00035")),
        (63.41, 18.2, ("63", "± 18")),
        (1234.5, 321.0, ("1234", "± 321")),
        (-0.00001, 0.0004, ("−0.00001", "± 0.00040")),
        (1.0, 0.0, ("1.000000", "± 0.000000")),
        (0.4912345, None, ("0.4912", "–")),
        (-1e-9, 0.0, ("0.000000", "± 0.000000")),
        (-0.0001, 0.4, ("0.00", "± 0.40")),
        (-0.0, None, ("0", "–")),
        (-0.5, None, ("−0.5", "–")),
    ],
)
def test_a_value_is_as_precise_as_its_error(
    value: float, error: float | None, expected: tuple[str, str]
) -> None:
    assert with_error(value, error) == expected


def test_the_interval_of_the_same_top_share_is_the_chunks_where_that_is_wider() -> None:
    found = same_top_rate(a_divergence(same_top=estimated(0.75, 0.05)))
    assert (found.low, found.high) == pytest.approx((0.645, 0.855))


def test_the_interval_of_the_same_top_share_is_wilsons_where_all_chunks_agree() -> None:
    every = Estimated(1.0, 0.0, 0.0, 1.0, 1.0)
    found = same_top_rate(a_divergence(same_top=every, num_same_top=4_080))
    assert found.low == wilson(4_080, 4_080).low
    assert found.low is not None
    assert 0.99 < found.low < 1
    assert found.high == 1


def test_every_language_has_a_table_with_the_largest_file_first() -> None:
    found = tables(quality_blocks(a_report()))
    for title in ("Against the reference, English", "Against the reference, Spanish"):
        assert [row[0][0] for row in found[title].rows] == ["model-Q8_0", "model-Q4_0"]


def test_a_row_says_all_that_was_lost() -> None:
    row = tables(quality_blocks(a_report()))["Against the reference, English"].rows[1]
    assert row == (
        ("model-Q4_0",),
        ("Q4_0", "160.0 MiB", "10.00"),
        ("0.250", "± 0.013"),
        ("0.125", "2"),
        ("75.0 %", "(70.8–79.2)"),
        ("12.50 %", "± 0.40"),
        ("1.200", "± 0.030"),
        ("9", "4", "0.267"),
    )


def test_flips_of_a_reference_at_chance_are_marked() -> None:
    found = tables(quality_blocks(a_report()))
    assert found["Against the reference, Spanish"].rows[0][-1] == ("9 *", "4 *", "0.267")
    assert "chance" in quality_markdown(a_report())


def test_without_tasks_there_is_no_column_for_them() -> None:
    found = tables(quality_blocks(a_report(with_tasks=False)))
    assert set(found) == {"Against the reference, English", "Against the reference, Spanish"}
    assert {len(row) for table in found.values() for row in table.rows} == {7}
    assert {len(table.headers) for table in found.values()} == {7}


def test_how_much_was_measured_and_kept_is_said() -> None:
    said = [line for b in quality_blocks(a_report()) if isinstance(b, Lines) for line in b.lines]
    assert any("4,080 tokens predicted, in 16 chunks of 512" in line for line in said)
    assert any("1,600 bytes per token" in line and "at most 0.0005" in line for line in said)


def test_the_table_keeps_to_80_columns() -> None:
    text = io.StringIO()
    print_quality(a_report(), Console(file=text, width=80, highlight=False))
    assert max(map(len, text.getvalue().splitlines())) <= 80


def test_no_word_of_a_header_is_divided_in_markdown() -> None:
    assert "| file | type, size, bits/weight | mean KL divergence | median, 99 % |" in (
        quality_markdown(a_report())
    )


def test_a_name_cannot_break_the_markdown() -> None:
    report = a_report()
    odd = replace(report.quality.reference, name="a|b<c>\x1b[31m")
    text = quality_markdown(replace(report, quality=replace(report.quality, reference=odd)))
    assert "a\\|b\\<c\\>" in text
    assert "\x1b" not in text


def test_the_csv_has_a_row_per_file_and_language_in_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(quality_csv(a_report()))))
    assert [(row["name"], row["language"]) for row in rows] == [
        ("model-Q8_0", "en"),
        ("model-Q8_0", "es"),
        ("model-Q4_0", "en"),
        ("model-Q4_0", "es"),
    ]
    last = rows[2]
    assert (last["kld"], last["kld_chunk_error"], last["kld_token_error"]) == (
        "0.25",
        "0.0125",
        "0.00625",
    )
    assert (last["task_lost"], last["task_gained"], last["task_n"]) == ("9", "4", "100")


def test_the_csv_leaves_the_tasks_columns_empty_where_none_were_asked() -> None:
    rows = list(csv.DictReader(io.StringIO(quality_csv(a_report(with_tasks=False)))))
    assert {row[name] for row in rows for name in CSV_COLUMNS if name.startswith("task_")} == {""}


def test_the_json_can_be_read_back_with_every_figure() -> None:
    values = json.loads(json.dumps(quality_json(a_report()), allow_nan=False))
    found = values["files"][1]["languages"]["es"]
    assert found["kld"]["value"] == 0.375
    assert found["kld_lower"] == pytest.approx(0.3375)
    assert found["same_top_interval"]["n"] == 4_080
    assert values["tasks"]["rows"][0]["comparison"]["b"] == 9
    assert values["reference_bytes_per_token"] == 1_600


class TestPlot:
    """The plot of quality against size."""

    def test_it_is_the_same_bytes_every_time(self) -> None:
        assert quality_plot(a_report(), "svg") == quality_plot(a_report(), "svg")
        assert quality_plot(a_report(), "png") == quality_plot(a_report(), "png")

    def test_it_names_every_file_and_language(self) -> None:
        text = quality_plot(a_report(), "svg").decode()
        for word in ("Q8_0", "Q4_0", "reference: BF16", "English", "Spanish", "4,080 tokens"):
            assert word in text

    def test_large_files_are_measured_in_gibibytes(self) -> None:
        report = a_report()
        large = replace(report.quality.reference, size_bytes=16 * 2**30)
        quality = replace(report.quality, reference=large)
        text = quality_plot(replace(report, quality=quality), "svg").decode()
        assert "size of the file in GiB" in text
        assert "size of the file in MiB" in quality_plot(report, "svg").decode()

    def test_a_png_is_one(self) -> None:
        assert quality_plot(a_report(), "png").startswith(b"\x89PNG")

    def test_files_of_one_type_are_called_by_their_names(self) -> None:
        report = a_report()
        first, second = report.quality.files
        same = replace(second, file=replace(second.file, type="Q8_0"))
        quality = replace(report.quality, files=(first, same))
        text = quality_plot(replace(report, quality=quality), "svg").decode()
        assert "model-Q8_0" in text
        assert "model-Q4_0" in text

    def test_a_divergence_of_0_or_below_does_not_stop_it(self) -> None:
        report = a_report({"Q8_0": -1e-7, "Q4_0": 0.25})
        assert b"Q8_0" in quality_plot(report, "svg")
        assert b"Q8_0" in quality_plot(a_report({"Q8_0": 0.0}), "svg")

    def test_labels_that_would_overlap_stand_on_lines_of_their_own(self) -> None:
        """Five files of nearly one size: no two labels share a place."""
        report = a_report({f"Q{number}_K": 0.1 for number in range(5)})
        near = [
            replace(m, file=replace(m.file, size_bytes=100 * 2**20 + number))
            for number, m in enumerate(report.quality.files)
        ]
        quality = replace(report.quality, files=tuple(near))
        text = quality_plot(replace(report, quality=quality), "svg").decode()
        heights = re.findall(r'y="(-?[\d.]+)"[^>]*>Q\d_K<', text) or re.findall(
            r"translate\([-\d.]+ ([-\d.]+)\)[^>]*>Q\d_K<", text
        )
        assert len(heights) == 5
        assert len(set(heights)) == 5
