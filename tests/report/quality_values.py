"""A measured model for the tests of the quality report: figures chosen here, nothing computed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from medlocal.evals.comparing import ComparisonRow
from medlocal.evals.stats import Rate
from medlocal.report.overview import Lead
from medlocal.report.quality import QualityReport
from medlocal.report.quality_tasks import ReferenceScore, TaskRow, Tasks
from medlocal.weights.divergence import Divergence, Estimated
from medlocal.weights.quality_results import FileFacts, Measured, Quality, TextFacts


def estimated(value: float, error: float = 0.01) -> Estimated:
    return Estimated(value, error / 2, error, value - 2.1 * error, value + 2.1 * error)


def a_divergence(kld: float = 0.25, **changes: object) -> Divergence:
    found = Divergence(
        num_chunks=16,
        num_positions=4_080,
        kld=estimated(kld, kld / 20),
        kld_reference_error=kld / 500,
        kld_lower=0.9 * kld,
        kld_upper=5 * kld,
        kld_median=kld / 2,
        kld_99=8 * kld,
        kld_max=20 * kld,
        same_top=estimated(0.75, 0.02),
        num_same_top=3_060,
        dp_rms=estimated(0.125, 0.004),
        dp_mean=estimated(-0.05, 0.003),
        perplexity=estimated(30.0, 2.0),
        reference_perplexity=estimated(25.0, 1.8),
        perplexity_ratio=estimated(1.2, 0.03),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def a_file(type_: str, mebibytes: int) -> FileFacts:
    size = mebibytes * 2**20
    name = f"model-{type_}"
    path = Path(f"/models/{name}.gguf")
    return FileFacts(name, path, "0" * 64, type_, size, 16 * mebibytes / 256, size - 2**20)


def a_comparison(language: str = "en", **changes: object) -> ComparisonRow:
    row = ComparisonRow(
        dataset="all", language=language, format="letter", arm="grammar", prompt="plain", n=100,
        excluded=0, accuracy_first=Rate(0.5, 0.4, 0.6, 100), accuracy_second=Rate(0.45, 0.35, 0.55, 100),
        delta=-0.05, low=-0.12, high=0.02, b=9, c=4, p=0.267, p_holm=0.267, fcr_first=None,
        fcr_second=None, agreement=Rate(0.8, 0.7, 0.9, 100), verdict="no difference shown",
        smallest=0.12,
    )  # fmt: skip
    return replace(row, **changes)  # type: ignore[arg-type]


def a_score(language: str = "en", *, at_chance: bool = False) -> ReferenceScore:
    accuracy = Rate(0.5, 0.4, 0.6, 100)
    return ReferenceScore(language, "letter", "grammar", accuracy, 0.25, 0.26, at_chance)


def tasks(*names: str) -> Tasks:
    """In English the reference knows something, in Spanish it is at chance."""
    return Tasks(
        suite="quick",
        run_id="run-1",
        datasets=("starter",),
        reference=(a_score("en"), a_score("es", at_chance=True)),
        rows=tuple(
            TaskRow(name, a_comparison(language)) for name in names for language in ("en", "es")
        ),
        leads=dict.fromkeys(("en", "es"), Lead("plain", "letter", "grammar")),
    )


def a_report(
    klds: Mapping[str, float] = MappingProxyType({"Q8_0": 0.004, "Q4_0": 0.25}),
    *,
    with_tasks: bool = True,
) -> QualityReport:
    """Files by their type, smaller ones later; each with its divergence."""
    sizes = {name: 200 - 40 * number for number, name in enumerate(klds)}
    files = tuple(
        Measured(
            a_file(name, sizes[name]), {"en": a_divergence(kld), "es": a_divergence(1.5 * kld)}
        )
        for name, kld in klds.items()
    )
    texts = tuple(TextFacts(language, "1" * 64, 16, 512, 4_080) for language in ("en", "es"))
    quality = Quality(a_file("BF16", 256), texts, files, 0, 1_600.0)
    return QualityReport(quality, tasks(*(m.file.name for m in files)) if with_tasks else None)
