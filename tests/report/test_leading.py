"""Which condition stands for a language, from rows written by hand."""

from typing import Any

import pytest

from medlocal.report.leading import Lead, lead_of
from medlocal.report.overview import overview
from medlocal.report.results import Report
from tests.report.test_overview import a_row


class TestLead:
    @pytest.mark.parametrize(
        ("arms", "lead"),
        [
            (("free", "label", "grammar"), "grammar"),
            (("free", "label"), "label"),
            (("cloze", "free"), "free"),
            (("cloze",), "cloze"),
        ],
    )
    def test_knowledge_is_read_where_the_form_costs_least(
        self, arms: tuple[str, ...], lead: str
    ) -> None:
        rows = [a_row(arm=arm) for arm in arms]
        assert lead_of(rows, "en") == Lead("plain", "letter", lead)

    def test_the_usual_prompt_comes_before_a_better_arm(self) -> None:
        rows = [a_row(prompt="exam"), a_row(arm="free")]
        assert lead_of(rows, "en") == Lead("plain", "letter", "free")

    def test_without_the_usual_prompt_the_first_by_name_is_taken(self) -> None:
        rows = [a_row(prompt="student"), a_row(prompt="careful")]
        assert lead_of(rows, "en") == Lead("careful", "letter", "grammar")

    def test_the_first_format_of_the_study_is_taken(self) -> None:
        rows = [a_row(format=form) for form in ("reasoned", "json", "phrase")]
        assert lead_of(rows, "en") == Lead("plain", "phrase", "grammar")

    def test_every_model_must_have_been_asked_so(self) -> None:
        rows = [a_row("general"), a_row("general", arm="free"), a_row("clinical", arm="free")]
        assert lead_of(rows, "en") == Lead("plain", "letter", "free")

    def test_models_that_share_no_condition_have_no_lead_and_no_overview(self) -> None:
        rows = (a_row("general"), a_row("clinical", arm="free"))
        assert lead_of(rows, "en") is None
        assert overview(Report((), rows, ())) == ()

    @pytest.mark.parametrize(
        "change", [{"language": "es"}, {"variant": "upper"}, {"n": 0, "hits": 0}]
    )
    def test_only_unperturbed_answers_that_count_lead(self, change: dict[str, Any]) -> None:
        assert lead_of([a_row(**change)], "en") is None
