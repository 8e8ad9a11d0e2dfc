"""Judging answers: a corpus labelled by hand, the order of the outcomes, and laws that always hold."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.evals.answers import (
    GRADER_VERSION,
    Answer,
    Grade,
    Outcome,
    grade_output,
    grade_scores,
)
from medlocal.evals.extract import extract
from medlocal.evals.formats import FORMATS, Format
from medlocal.evals.items import Item
from medlocal.evals.perturb import Variant, apply

CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "answers.jsonl")
    .read_text("utf-8")
    .splitlines()
]
"""Labelled by hand before the code was run on them. Keys: text, language, format, finish, options or
num_options, outcome, label (null = none), why; arm and labels where they are not free and letters."""

NEUTRAL_OPTIONS = ("Zoster", "Yaws", "Xanthoma", "Vitiligo", "Uveitis")
"""For strings that name no option by its words."""


def make_variant(
    options: tuple[str, ...] = NEUTRAL_OPTIONS[:4],
    *,
    labels: tuple[str, ...] | None = None,
    gold: int = 0,
) -> Variant:
    variant = apply(Item("1", "made", "test", "en", "Which?", options, gold, "any", "made/1"))
    return (
        variant if labels is None else dataclasses.replace(variant, labels=labels, replies=labels)
    )


def grade(
    text: str,
    form: str = "letter",
    *,
    finish: str = "stop",
    arm: str = "free",
    applied: bool = True,
) -> Grade:
    answer = Answer(text, finish, arm, applied)
    return grade_output(answer, make_variant(), FORMATS[form], "en")


def case_variant(case: dict[str, Any]) -> Variant:
    options = tuple(case.get("options") or NEUTRAL_OPTIONS[: case["num_options"]])
    labels = tuple(case["labels"]) if "labels" in case else None
    return make_variant(options, labels=labels)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"line{n}") for n, case in enumerate(CORPUS, start=1)]
)
def test_a_labelled_answer_is_judged_as_labelled(case: dict[str, Any]) -> None:
    variant = case_variant(case)
    answer = Answer(case["text"], case["finish"], case.get("arm", "free"), constraint_applied=True)
    judged = grade_output(answer, variant, FORMATS[case["format"]], case["language"])
    label = None if judged.slot is None else variant.labels[judged.slot]
    assert (judged.outcome, label) == (case["outcome"], case["label"]), case["why"]


@pytest.mark.parametrize(
    "text",
    [
        "Respuesta final: C",
        "Final Answer: **C**",
        "Answer: an acute MI is likely. Final Answer: (C)",
        "Answer: Bacterial meningitis → D",
        "Answer: Let's think…",
        "A or B",
        "No puedo responder a eso",
        "La opción correcta es la c).",
        "E",
    ],
)
def test_the_corpus_holds_the_strings_that_broke_others(text: str) -> None:
    assert text in {case["text"] for case in CORPUS}


def test_the_corpus_is_bilingual_and_covers_every_format_and_outcome() -> None:
    languages = [case["language"] for case in CORPUS]
    assert len(CORPUS) >= 220
    assert 0.4 <= languages.count("es") / len(languages) <= 0.6
    assert {case["format"] for case in CORPUS} == set(FORMATS)
    assert {case["outcome"] for case in CORPUS} == set(Outcome) - {"SCORED"}


def test_no_case_stands_in_the_corpus_twice() -> None:
    asked = [{key: case[key] for key in case if key != "why"} for case in CORPUS]
    assert len({json.dumps(case, sort_keys=True) for case in asked}) == len(CORPUS)


def test_outcomes_stand_in_the_order_of_judgement() -> None:
    assert [str(outcome) for outcome in Outcome] == [
        "ENGINE_ERROR",
        "CONSTRAINT_NOT_APPLIED",
        "TRUNCATED",
        "EMPTY",
        "STRICT_VALID",
        "LENIENT_VALID",
        "AMBIGUOUS",
        "OUT_OF_SET",
        "REFUSAL",
        "UNPARSEABLE",
        "SCORED",
    ]


@pytest.mark.parametrize(
    ("judged", "expected"),
    [
        (grade("C", finish="error", arm="grammar", applied=False), Outcome.ENGINE_ERROR),
        (grade("x", finish="length", arm="grammar", applied=False), Outcome.CONSTRAINT_NOT_APPLIED),
        (grade("C", arm="grammar", applied=False), Outcome.CONSTRAINT_NOT_APPLIED),
        (grade("", arm="grammar"), Outcome.CONSTRAINT_NOT_APPLIED),
        (grade("", finish="length"), Outcome.TRUNCATED),
        (grade("A or B, for", finish="length"), Outcome.TRUNCATED),
        (grade("C"), Outcome.STRICT_VALID),
        (grade("The answer is C. I cannot answer more."), Outcome.LENIENT_VALID),
        (grade("The answer is A or B. I cannot answer more."), Outcome.AMBIGUOUS),
        (grade("The answer is A or E."), Outcome.AMBIGUOUS),
        (grade("The answer is E. I cannot answer more."), Outcome.OUT_OF_SET),
        (grade("I cannot answer that."), Outcome.REFUSAL),
    ],
)
def test_the_first_outcome_that_holds_is_the_one(judged: Grade, expected: Outcome) -> None:
    assert judged.outcome == expected


def test_a_cut_answer_of_the_grammar_arm_may_be_outside_of_the_grammar() -> None:
    assert (
        grade("Clear lungs and", "reasoned", finish="length", arm="grammar").outcome == "TRUNCATED"
    )


def test_the_constraint_says_nothing_in_the_free_arm() -> None:
    assert grade("C", applied=False).outcome == "STRICT_VALID"


def test_an_engine_error_is_told() -> None:
    answer = Answer("", "error", error="the cache is full")
    judged = grade_output(answer, make_variant(), FORMATS["letter"], "en")
    assert judged.reason == "The engine failed: the cache is full."


def test_words_that_two_options_share_are_ambiguous_and_not_an_answer() -> None:
    variant = make_variant(("Rest", "Surgery", "Rest"))
    judged = grade_output(Answer("Rest", "stop"), variant, FORMATS["text"], "en")
    assert judged.outcome != "STRICT_VALID"
    assert judged.slot is None


def test_an_answer_is_mapped_back_to_the_content_of_the_item() -> None:
    variant = dataclasses.replace(make_variant(), origin=(2, 0, 3, 1), gold=1)
    right = grade_output(Answer("B", "stop"), variant, FORMATS["letter"], "en")
    wrong = grade_output(Answer("The answer is C.", "stop"), variant, FORMATS["letter"], "en")
    assert (right.slot, right.content, right.correct) == (1, 0, True)
    assert (wrong.slot, wrong.content, wrong.correct) == (2, 3, False)


def test_a_grade_carries_the_version_of_its_grader() -> None:
    assert grade("C").grader == GRADER_VERSION == 3


def test_the_highest_score_is_the_answer() -> None:
    variant = make_variant(gold=2)
    judged = grade_scores({0: -3.0, 1: -2.5, 2: -0.5, 3: -math.inf}, variant)
    assert (judged.outcome, judged.slot, judged.content, judged.correct) == ("SCORED", 2, 2, True)


def test_of_equal_scores_the_first_option_is_taken_and_the_reason_says_so() -> None:
    judged = grade_scores({3: -1.0, 1: -1.0, 0: -2.0, 2: -4.0}, make_variant())
    assert judged.slot == 1
    assert judged.reason == "B, D have the same highest score; the first of them, B, is taken."


@pytest.mark.parametrize("scores", [{}, {0: -1.0, 1: math.nan}])
def test_scores_that_are_missing_or_no_numbers_are_an_engine_error(
    scores: dict[int, float],
) -> None:
    judged = grade_scores(scores, make_variant())
    assert (judged.outcome, judged.slot, judged.correct) == ("ENGINE_ERROR", None, False)


FRAGMENTS = st.sampled_from([
    *("A", "b", "C.", "(D)", "E", "e)", "**B**", "Answer:", "Respuesta:", "the answer is", "es la"),
    *("no", "not", "wait", "Final answer", "{", '"answer": "', "}", "<answer>", "</answer>", "\\boxed{"),
    *("\n", " ", ",", "or", "y", "1", "2 mg", "Zoster", "Yaws", "<think>", "Question:", "| A |", "```"),
])  # fmt: skip
texts = (
    st.text() | st.lists(FRAGMENTS, max_size=12).map(" ".join) | st.lists(FRAGMENTS).map("".join)
)
forms = st.sampled_from(list(FORMATS.values()))
languages = st.sampled_from(("en", "es"))
label_sets = st.sampled_from([
    *(("A", "B", "C", "D"), ("a", "b", "c", "d"), ("1", "2", "3", "4"), ("i", "ii", "iii", "iv")),
    *(("(A)", "(B)", "(C)", "(D)"), ("A.", "B.", "C.", "D."), ("[A]", "[B]", "[C]", "[D]")),
    *(("α", "β", "γ", "δ"), ("A", "C", "E", "G")),
])  # fmt: skip
any_labels = label_sets | st.just(("•", "◦", "▪", "⁃")) | st.just(("A", "a", "", "\\"))


@settings(deadline=None, max_examples=400)
@given(texts, any_labels, forms, languages, st.sampled_from(("stop", "length", "error")))
def test_every_text_has_an_outcome(
    text: str, labels: tuple[str, ...], form: Format, language: str, finish: str
) -> None:
    variant = make_variant(labels=labels)
    judged = grade_output(Answer(text, finish), variant, form, language)
    chosen = judged.outcome in {Outcome.STRICT_VALID, Outcome.LENIENT_VALID}
    assert (judged.slot is not None) == chosen
    assert judged.correct == (judged.slot == variant.gold)
    assert judged.reason.endswith(".")


TEMPLATES = st.sampled_from(
    [
        "{}",
        "{}.",
        "**{}**",
        "({})",
        "Answer: {}",
        "The correct answer is {}.",
        "Final answer: {}",
        "Respuesta: {}",
        "La respuesta correcta es la {}.",
        "La opción {} es la correcta.",
        "Option {} is correct.",
        '{{"answer": "{}"}}',
        "<answer>{}</answer>",
        "\\boxed{{{}}}",
        "The lungs are clear.\n\n{}",
        "Se descarta lo demás. Respuesta final: {}",
    ]
)


@given(TEMPLATES, label_sets, st.permutations(range(4)), st.integers(0, 3), languages)
def test_labels_that_move_take_their_answers_with_them(
    template: str, labels: tuple[str, ...], order: list[int], slot: int, language: str
) -> None:
    moved = make_variant(labels=tuple(labels[index] for index in order))
    found = extract(template.format(labels[slot]), moved, language, "letter")
    assert (found.slots, found.out_of_set) == ((order.index(slot),), ())


@given(st.permutations(NEUTRAL_OPTIONS), st.integers(0, 4), languages, forms)
def test_options_that_move_take_their_words_with_them(
    options: list[str], slot: int, language: str, form: Format
) -> None:
    variant = make_variant(tuple(options))
    for text in (options[slot], f"The answer is {options[slot].lower()}.", f"Es {options[slot]}"):
        assert extract(text, variant, language, form.name).slots == (slot,)


@settings(deadline=None)
@given(forms, label_sets, st.integers(0, 3), languages)
def test_the_extractor_reads_what_is_strictly_valid_as_the_strict_judge_does(
    form: Format, labels: tuple[str, ...], slot: int, language: str
) -> None:
    variant = dataclasses.replace(make_variant(labels=labels), gold=slot)
    found = extract(form.render(variant, language), variant, language, form.name)
    assert (found.slots, found.out_of_set, found.explicit) == ((slot,), (), True)


@given(TEMPLATES, st.sampled_from("ABCD"), languages)
def test_markdown_case_and_width_change_no_answer(template: str, label: str, language: str) -> None:
    plain = extract(template.format(label), make_variant(), language, "letter")
    assert plain.slots == ("ABCD".index(label),)
    for dressed in (f"**{label}**", f"`{label}`", label.lower(), chr(ord(label) + 0xFEE0)):
        found = extract(template.format(dressed), make_variant(), language, "letter")
        assert (found.slots, found.explicit) == (plain.slots, plain.explicit)


def test_a_text_that_loops_is_judged_at_once() -> None:
    for loop in ("<answer>", "Question: A\n", '{"answer": "', "A, ", "the answer is not A or B "):
        grade(loop * 300, finish="length")
