"""The one screen: which answers count, what is warned of, and that it fits."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medlocal.evals.scoring import ScoreRow
from medlocal.evals.stats import Interval, Rate
from medlocal.report.quick import (
    Asked,
    QuickModel,
    QuickReport,
    compared,
    quick_json,
    read_models,
    warnings,
)
from medlocal.report.quick_screen import print_quick, quick_markdown, short_names
from medlocal.run import make_spec, start_run
from medlocal.store import Store
from tests.fakes import ToyBackend

FILE = {
    "name": "model-Q4_K_M.gguf", "bytes": 4 * 2**30, "bits_per_weight": 4.85, "parameters": 8e9,
    "quantisation": "Q4_K", "has_template": True, "slow": {},
}  # fmt: skip
MEASURED = {"mean": 61.25, "sd": 0.5, "n": 5, "unstable": False}
SPEED = {
    "load_seconds": 3.21,
    "memory": {"needed_bytes": 5 * 2**30, "gpu_bytes": 0},
    "rows": [
        {"kind": "prompt", "name": "pp128", "tokens_per_second": MEASURED},
        {"kind": "generation", "name": "tg32", "tokens_per_second": MEASURED | {"mean": 8.5}},
    ],
}
SAME = {"n": 48, "same_answer": 48, "same_bits": 48}
ENGINE = {"mode": "exact", "kv_bytes": 2**28, "self_test": {"together": SAME, "alone": SAME}}
KINDS = ("prompt", "generation")
RATE = Rate(0.625, 0.501, 0.735, 64)


def a_row(language: str, arm: str, **changes: Any) -> ScoreRow:
    is_free = arm != "label"
    row = ScoreRow(
        model="model-Q4_K_M", dataset="all", language=language, variant="original", verified=True,
        prompt="plain", format="letter", arm=arm, n=64, excluded=0, outcomes={}, acc_strict=RATE,
        fcr_strict=RATE if is_free else None, fcr_lenient=RATE if is_free else None, acc_lenient=RATE,
        acc_given_valid=RATE, coverage=1.0, chance=0.25, majority=0.281,
        median_tax_nats=0.52 if arm == "grammar" else None,
        mean_label_mass=0.93 if arm == "label" else None, at_chance=False,
        tax_interval=Interval(0.41, 0.66) if arm == "grammar" else Interval(None, None),
    )  # fmt: skip
    return replace(row, **changes)


def a_model(name: str = "model-Q4_K_M", **changes: Any) -> QuickModel:
    rows = tuple(a_row(lang, arm) for lang in ("en", "es") for arm in ("free", "grammar", "label"))
    asked = {"en": Asked(100, 64), "es": Asked(100, 64)}
    model = QuickModel(name, {"file": FILE, "speed": SPEED}, ENGINE, asked, rows)
    return replace(model, **changes)


def a_report(*models: QuickModel) -> QuickReport:
    return QuickReport(
        models or (a_model(),), (), "20260101-120000-ab12", 2, 119.6, ("starter", "medqa")
    )


def screen(report: QuickReport, width: int = 80) -> list[str]:
    text = io.StringIO()
    print_quick(report, Console(file=text, width=width, highlight=False))
    return text.getvalue().rstrip("\n").split("\n")


class TestTheScreen:
    def test_that_of_one_model_fits_a_small_terminal(self) -> None:
        slow = {"Q5_1": "69% of it is Q5_1: llama.cpp multiplies it row by row on this processor"}
        rows = tuple(replace(row, at_chance=True) for row in a_model().rows)
        lines = screen(
            a_report(a_model(facts={"file": FILE | {"slow": slow}, "speed": SPEED}, rows=rows))
        )
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80

    def test_many_data_sets_are_counted(self) -> None:
        report = replace(a_report(), datasets=tuple("abcdefgh"))
        assert "Letter answers, 8 data sets" in screen(report)
        assert "Letter answers, starter and medqa" in screen(a_report())

    def test_it_has_every_figure(self) -> None:
        text = "\n".join(screen(a_report()))
        for said in (
            "model-Q4_K_M.gguf", "4.00 GiB", "4.85 bits/weight", "Q4_K", "3.21 s", "memory 5.00 GiB",
            "prompt 61.2 ± 0.5", "generation 8.5 ± 0.5", "pp128", "tg32", "exact mode",
            "asked twice 48/48 the same", "asked alone 48/48 the same", "English", "Spanish",
            "64 of 100", "62.5 % (50.1–73.5)", "25.0 %, 28.1 %", "0.52 (0.41–0.66)", "93.0 %",
            "1:59 of 2:00", "20260101-120000-ab12", "goes on from here",
        ):  # fmt: skip
            assert said in text, said

    def test_that_of_several_has_a_column_each(self) -> None:
        names = [f"model-{kind}" for kind in ("Q4_0", "Q5_K", "Q8_0")]
        lines = screen(a_report(*map(a_model, names)), width=120)
        assert any(line.split() == ["Q4_0", "Q5_K", "Q8_0"] for line in lines)
        (english,) = [line for line in lines if line.startswith("right, label")]
        assert english.count("en 62.5 % (50.1–73.5)") == 3

    def test_an_unstable_speed_is_marked(self) -> None:
        unstable = MEASURED | {"unstable": True}
        rows = [{"kind": kind, "name": kind, "tokens_per_second": unstable} for kind in KINDS]
        text = "\n".join(screen(a_report(a_model(facts={"file": FILE, "speed": {"rows": rows}}))))
        assert text.count("UNSTABLE") == 2

    def test_answers_that_differ_by_a_bit_are_told(self) -> None:
        test = {"together": SAME, "alone": SAME | {"same_bits": 40}}
        engine = ENGINE | {"mode": "fast", "self_test": test}
        text = " ".join(screen(a_report(a_model(engine=engine)))).replace("  ", " ")
        assert "asked alone 48/48 the same (40 to the last bit)" in text

    def test_what_there_was_no_time_for_is_said(self) -> None:
        model = a_model(facts={"file": FILE}, engine={}, rows=(), asked={"en": Asked(100, 0)})
        text = "\n".join(screen(a_report(model)))
        assert "prompt not measured and generation not measured" in text
        assert "exactness: not tested" in text
        assert "0 of 100" in text

    def test_markdown_says_the_same(self) -> None:
        text = quick_markdown(a_report())
        assert text.startswith("# Quick look at model-Q4\\_K\\_M.gguf")
        assert "| questions | 64 of 100 | 64 of 100 |" in text

    def test_a_name_cannot_steer_the_terminal(self) -> None:
        facts = {"file": FILE | {"name": "evil\x1b[2J.gguf"}, "speed": SPEED}
        lines = screen(a_report(a_model(facts=facts)))
        assert "\x1b" not in "".join(lines)


class TestWarnings:
    def test_a_sound_model_has_none(self) -> None:
        assert list(warnings(a_model())) == []

    def test_a_model_at_chance_is_told_once_for_both_languages(self) -> None:
        rows = tuple(replace(row, at_chance=True) for row in a_model().rows)
        (said,) = warnings(a_model(rows=rows))
        assert said == ("English and Spanish: not shown to beat knowing nothing (25.0 %)")

    @pytest.mark.parametrize(
        ("facts", "engine", "said"),
        [
            ({"file": {"has_template": False}}, {}, "no chat template"),
            ({"file": {"slow": {"Q4_1": "69% of it is Q4_1: row by row"}}}, {}, "no fast kernel: 69%"),
            ({"gate_warnings": ["it says two things"]}, {}, "it says two things"),
            ({}, {"liveness": "failed"}, "the masks do nothing"),
            ({}, {"given_up": ["going on with 20 layers"]}, "going on with 20 layers"),
            (
                {},
                {"mode": "exact", "self_test": {"together": SAME, "alone": SAME | {"same_bits": 47}}},
                "equal requests did not get equal answers",
            ),
        ],
    )  # fmt: skip
    def test_each_thing_is_told(
        self, facts: Mapping[str, Any], engine: Mapping[str, Any], said: str
    ) -> None:
        (told,) = warnings(a_model(facts=facts, engine=engine))
        assert said in told

    def test_fast_mode_promises_no_equal_bits(self) -> None:
        test = {"together": SAME, "alone": SAME | {"same_bits": 0, "same_answer": 3}}
        assert list(warnings(a_model(engine={"mode": "fast", "self_test": test}))) == []

    def test_answers_that_do_not_count_are_told(self) -> None:
        (said,) = warnings(a_model(rows=(a_row("en", "label"), a_row("en", "free", excluded=3))))
        assert said.startswith("English, free: 3 answers do not count")


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["m-Q4_0", "m-Q8_0"], ["Q4_0", "Q8_0"]),
        (["Llama-3.2-1B.Q4_K_M", "Llama-3.2-3B.Q4_K_M"], ["1B.Q4_K_M", "3B.Q4_K_M"]),
        (["model", "model-Q8_0"], ["model", "model-Q8_0"]),
        (["one"], ["one"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_names_lose_what_they_share(names: list[str], short: list[str]) -> None:
    assert list(short_names(names).values()) == short


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "medlocal.db") as found:
        yield found


def a_run(store: Store) -> str:
    """Five questions in two languages, through three arms, by two models."""
    backends = [ToyBackend(name="one"), ToyBackend(name="two", build="toy-2")]
    spec = make_spec("starter", "one", more_models=("two",), limit=5, formats=("letter",))
    return start_run(spec, store, backends, [b.model_facts() for b in backends]).run_id


def forget(store: Store, run_id: str, model: str, number: int) -> None:
    """Take away what a model answered to one question in one arm, as if the time had run out."""
    jobs = [job for job in store.jobs(run_id) if job.model == model]
    items = list(dict.fromkeys(job.item_id for job in jobs))
    key = next(job.key for job in jobs if job.item_id == items[number] and job.arm == "free")
    store._database.execute("DELETE FROM grades WHERE job_key = ?", (key,))
    store._database.execute("DELETE FROM records WHERE job_key = ?", (key,))


class TestWhatCounts:
    def test_all_answers_of_a_whole_run_do(self, store: Store) -> None:
        (one, two), answers = read_models(store, a_run(store))
        assert one.asked == two.asked == {"en": Asked(5, 5), "es": Asked(5, 5)}
        assert len(answers["one"]) == len(answers["two"]) == 30
        assert {row.n for row in one.rows} == {5}

    def test_nothing_behind_the_first_gap_does(self, store: Store) -> None:
        run_id = a_run(store)
        forget(store, run_id, "two", 3)
        (one, two), answers = read_models(store, run_id)
        assert one.asked["en"].counted == 5
        assert {row.n for row in two.rows} == {3}
        assert two.asked == {"en": Asked(5, 3), "es": Asked(5, 3)}
        assert len(answers["two"]) == 18

    def test_two_models_are_compared_on_what_counts_for_both(self, store: Store) -> None:
        run_id = a_run(store)
        forget(store, run_id, "two", 2)
        _, answers = read_models(store, run_id)
        (pair,) = compared(answers, "one")
        assert (pair.first, pair.second) == ("one", "two")
        assert {row.n for row in pair.overall} == {2}
        assert pair.only_first == 18

    def test_without_any_answer_there_is_no_comparison(self, store: Store) -> None:
        run_id = a_run(store)
        forget(store, run_id, "two", 0)
        models, answers = read_models(store, run_id)
        assert compared(answers, "one") == ()
        assert screen(QuickReport(models, (), run_id))

    def test_verdicts_stand_below_the_columns(self, store: Store) -> None:
        models, answers = read_models(store, a_run(store))
        lines = screen(QuickReport(models, compared(answers, "one"), "r", 2, 60))
        assert "two against one, the same questions" in lines
        assert sum("no difference shown" in line for line in lines) == 6
        assert max(map(len, lines)) <= 80

    def test_json_has_everything(self, store: Store) -> None:
        models, answers = read_models(store, a_run(store))
        report = QuickReport(models, compared(answers, "one"), "r", 2, 60.123, ("starter",))
        values = json.loads(json.dumps(quick_json(report), allow_nan=False))
        assert (values["minutes"], values["seconds"], values["complete"]) == (2, 60.12, True)
        one = values["models"][0]
        assert one["questions"] == {name: {"planned": 5, "counted": 5} for name in ("en", "es")}
        assert len(one["rows"]) == len(one["by_dataset"]) == 6
        assert {row["dataset"] for row in one["by_dataset"]} == {"starter"}
        assert set(one["rows"][0]["acc_lenient"]) == {"value", "low", "high", "n"}
        assert len(values["comparisons"][0]["overall"]) == 6
