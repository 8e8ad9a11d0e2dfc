"""What quantised files lost, every figure in full precision, for other programs: CSV and JSON. Pure.

Shares run from 0 to 1, divergences are in nats, sizes in bytes. Each mean has both standard errors:
`token_error` is llama.cpp's, `chunk_error` that from the spread of the chunks' means.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from medlocal.evals.comparing import ComparisonRow
from medlocal.report import wording
from medlocal.report.files import csv_cell
from medlocal.report.quality import QualityReport, same_top_rate
from medlocal.weights.divergence import Divergence
from medlocal.weights.quality_results import Measured


def quality_json(report: QualityReport) -> dict[str, Any]:
    """The report as JSON values."""
    quality = report.quality
    values: dict[str, Any] = wording.plain(
        {
            "reference": asdict(quality.reference),
            "texts": [asdict(text) for text in quality.texts],
            "files": [
                {
                    **asdict(measured.file),
                    "languages": {
                        name: {
                            **asdict(found),
                            "same_top_interval": asdict(same_top_rate(found)),
                        }
                        for name, found in measured.by_language.items()
                    },
                }
                for measured in quality.files
            ],
            "reference_bytes_per_token": quality.reference_bytes,
            "references_reused": quality.num_reused,
            "tasks": asdict(report.tasks) if report.tasks else None,
        }
    )
    return values


_FILE_COLUMNS = ("name", "type", "size_bytes", "bits_per_weight", "loaded_bytes", "sha256")
_ESTIMATES = (
    *("kld", "same_top", "dp_rms", "dp_mean"),
    *("perplexity", "reference_perplexity", "perplexity_ratio"),
)
_PLAIN = (
    *("num_chunks", "num_positions", "num_same_top", "kld_median", "kld_99", "kld_max"),
    *("kld_reference_error", "kld_lower", "kld_upper"),
)
_PARTS = ("value", "token_error", "chunk_error", "low", "high")
_TASK_COLUMNS = (
    *("format", "arm", "n", "accuracy_reference", "accuracy", "delta", "delta_low", "delta_high"),
    *("lost", "gained", "p"),
)
CSV_COLUMNS = (
    *_FILE_COLUMNS,
    "language",
    *_PLAIN,
    *(name if part == "value" else f"{name}_{part}" for name in _ESTIMATES for part in _PARTS),
    *(f"task_{name}" for name in _TASK_COLUMNS),
)
"""Of `quality_csv`."""


def quality_csv(report: QualityReport) -> str:
    """One row per file and language, in full precision; the tasks in the form that stands for them."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for measured in report.quality.files:
        for language, found in measured.by_language.items():
            values = _csv_values(report, measured, language, found)
            writer.writerow([csv_cell(values.get(name)) for name in CSV_COLUMNS])
    return text.getvalue()


def _csv_values(
    report: QualityReport, measured: Measured, language: str, found: Divergence
) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(measured.file, name) for name in _FILE_COLUMNS}
    values["language"] = language
    values |= {name: getattr(found, name) for name in _PLAIN}
    for name in _ESTIMATES:
        estimated = asdict(getattr(found, name))
        values |= {
            name if part == "value" else f"{name}_{part}": estimated[part] for part in _PARTS
        }
    row = report.tasks.lead_row(measured.file.name, language) if report.tasks else None
    if row is not None:
        values |= {f"task_{name}": value for name, value in _task_values(row).items()}
    return values


def _task_values(row: ComparisonRow) -> Mapping[str, object]:
    values = (
        *(row.format, row.arm, row.n, row.accuracy_first.value, row.accuracy_second.value),
        *(row.delta, row.low, row.high, row.b, row.c, row.p),
    )
    return dict(zip(_TASK_COLUMNS, values, strict=True))
