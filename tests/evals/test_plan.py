"""Plans cross what is asked for, and a key says what determines an answer and nothing else."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import UsageError
from medlocal.evals.formats import ARMS, FORMATS
from medlocal.evals.items import Item
from medlocal.evals.perturb import apply
from medlocal.evals.plan import (
    AnswerForm,
    Crossing,
    Job,
    Plan,
    PlanRequest,
    job_key,
    make_plan,
    take,
)
from medlocal.evals.prompts import Message, Prompt

ROOT = Path(__file__).parents[2]
IDENTITY = {"model": "ab" * 32, "ubatch": 60, "sampling": {"temperature": 0.0}}


def an_item(number: int = 1, language: str = "en", dataset: str = "demo") -> Item:
    return Item(
        id=str(number),
        dataset=dataset,
        split="test",
        language=language,
        stem=f"Question {number}?",
        options=("one", "two"),
        gold=1,
        subject="counting",
        group=f"{dataset}/{number}",
    )


def a_prompt(language: str = "en", style: str = "plain") -> Prompt:
    return Prompt(
        language=language,
        style=style,
        version=1,
        system=f"{style} in {language}",
        question="{stem}",
        with_context="{context} {question}",
        option="{label}. {text}",
        separator="\n",
        user="{question}\n{options}\n{instruction}",
    )


REQUEST = Crossing(prompts=(a_prompt("en"), a_prompt("es")), formats=("letter",), arms=("free",))
Examples = Callable[[Item], Sequence[Item]]
FORM = AnswerForm(name="letter", version=1, pattern="(A|B)", max_tokens=20)
MESSAGES = (Message("system", "Sé breve."), Message("user", "¿Cuál?"))


def no_examples(item: Item) -> Sequence[Item]:
    return ()


def whole_plan(
    crossing: Crossing = REQUEST, *items: Item, examples: Examples = no_examples
) -> Plan:
    return make_plan(PlanRequest((crossing,), examples), items or (an_item(),), IDENTITY)


def plan(crossing: Crossing = REQUEST, *items: Item, examples: Examples = no_examples) -> list[Job]:
    return list(whole_plan(crossing, *items, examples=examples).jobs)


def refusal(crossing: Crossing, *items: Item, examples: Examples = no_examples) -> UsageError:
    with pytest.raises(UsageError) as caught:
        whole_plan(crossing, *items, examples=examples)
    return caught.value


def test_a_job_is_the_item_asked_in_its_language() -> None:
    item, prompt, letter = an_item(language="es"), a_prompt("es"), FORMATS["letter"]
    (job,) = plan(REQUEST, item)
    variant = apply(item)
    assert (job.variant, job.prompt, job.format, job.arm) == (variant, prompt, "letter", "free")
    assert job.messages == (
        Message("system", "plain in es"),
        Message("user", f"Question 1?\nA. one\nB. two\n{letter.instruction(variant, 'es')}"),
    )


def test_the_jobs_are_the_cross_product_item_by_item() -> None:
    request = replace(
        REQUEST,
        prompts=(a_prompt("en"), a_prompt("en", "exam"), a_prompt("es")),
        formats=("letter", "json"),
        arms=("free", "label"),
    )
    jobs = plan(request, an_item(2), an_item(1, "es"))
    assert [(j.variant.item.group, j.prompt.style, j.format, j.arm) for j in jobs] == [
        ("demo/2", "plain", "letter", "free"),
        ("demo/2", "plain", "letter", "label"),
        ("demo/2", "plain", "json", "free"),
        ("demo/2", "plain", "json", "label"),
        ("demo/2", "exam", "letter", "free"),
        ("demo/2", "exam", "letter", "label"),
        ("demo/2", "exam", "json", "free"),
        ("demo/2", "exam", "json", "label"),
        ("demo/1", "plain", "letter", "free"),
        ("demo/1", "plain", "letter", "label"),
        ("demo/1", "plain", "json", "free"),
        ("demo/1", "plain", "json", "label"),
    ]


def test_pairs_that_make_no_sense_are_left_out() -> None:
    request = replace(REQUEST, formats=tuple(FORMATS), arms=ARMS)
    assert [(job.format, job.arm) for job in plan(request)] == [
        ("letter", "free"),
        ("letter", "grammar"),
        ("letter", "label"),
        ("phrase", "free"),
        ("phrase", "grammar"),
        ("phrase", "label"),
        ("json", "free"),
        ("json", "grammar"),
        ("json", "label"),
        ("tag", "free"),
        ("tag", "grammar"),
        ("tag", "label"),
        ("text", "free"),
        ("text", "grammar"),
        ("text", "cloze"),
        ("reasoned", "free"),
        ("reasoned", "grammar"),
    ]


def test_what_makes_no_sense_together_is_told_with_the_reason_and_the_variants() -> None:
    crossing = replace(
        REQUEST,
        formats=("letter", "text"),
        arms=("free", "label", "cloze"),
        variants=("original", "next_label", "negated"),
    )
    assert dict(whole_plan(crossing).unfit) == {
        (
            "letter",
            "cloze",
            "cloze scores the options' words, which this format does not ask for",
        ): (
            "original",
            "next_label",
            "negated",
        ),
        ("text", "label", "label scores the labels, which have no fixed place in this format"): (
            "original",
            "next_label",
            "negated",
        ),
        ("letter", "label", "label scores single labels, and the answer is none here"): (
            "negated",
        ),
        ("text", "free", _NO_TEXT): ("next_label", "negated"),
        ("text", "cloze", _NO_TEXT): ("next_label", "negated"),
    }


_NO_TEXT = "the format asks for an option's text, the variant for something else"


def test_an_item_of_which_a_variant_makes_no_sense_is_passed_over_and_counted() -> None:
    crossing = replace(REQUEST, variants=("original", "drop_distractor"))
    plan = whole_plan(crossing, an_item(1), an_item(2))
    assert [job.variant.name for job in plan.jobs] == ["original", "original"]
    assert dict(plan.passed_over) == {
        ("drop_distractor", "fewer than two options would be left"): 2
    }


def test_a_job_that_two_crossings_ask_for_is_asked_once() -> None:
    crossings = (REQUEST, replace(REQUEST, arms=("free", "grammar")))
    plan = make_plan(PlanRequest(crossings), [an_item()], IDENTITY)
    assert [job.arm for job in plan.jobs] == ["free", "grammar"]
    assert plan.num_by_crossing == (1, 1)


def test_a_variant_in_the_other_language_is_asked_with_its_prompt() -> None:
    (job,) = plan(replace(REQUEST, variants=("instruction_language",)), an_item())
    assert (job.prompt.language, job.variant.item.language) == ("es", "en")
    assert job.messages[0].content == "plain in es"


def test_examples_are_answered_in_the_form_that_the_variant_asks_for() -> None:
    (job,) = plan(
        replace(REQUEST, variants=("next_label",)), an_item(), examples=lambda _: (an_item(9),)
    )
    assert [m.content for m in job.messages if m.role == "assistant"] == ["A"]


def test_a_seed_is_part_of_the_key_where_something_is_drawn_only() -> None:
    def keys(seed: int) -> list[str]:
        crossing = replace(REQUEST, variants=("original", "shuffle"))
        return [
            job.key
            for job in make_plan(PlanRequest((crossing,), seed=seed), [an_item()], IDENTITY).jobs
        ]

    first, second = keys(1), keys(2)
    assert (first[0] == second[0], first[1] == second[1]) == (True, False)


def test_the_arms_of_a_format_ask_with_the_same_messages() -> None:
    jobs = plan(replace(REQUEST, arms=("free", "grammar", "label")))
    assert len({job.messages for job in jobs}) == 1
    assert len({job.key for job in jobs}) == 3


def test_names_that_stand_twice_count_once() -> None:
    twice = Crossing(
        prompts=REQUEST.prompts * 2,
        formats=("letter", "letter"),
        arms=("free", "free"),
        variants=("original", "original"),
    )
    assert plan(twice) == plan()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ("letter", "leter")}, "no format is called 'leter'"),
        ({"arms": ("fre",)}, "no arm is called 'fre'"),
        ({"variants": ("orignal",)}, "no perturbation is called 'orignal'"),
        ({"formats": ()}, "a plan needs at least one format and one arm"),
        ({"arms": ()}, "a plan needs at least one format and one arm"),
        ({"variants": ()}, "no variant is asked for"),
        ({"prompts": ()}, "item 'demo/1' is in 'en', and no prompt asked for is"),
        (
            {"prompts": (a_prompt("es"),)},
            "item 'demo/1' is in 'en', and no prompt asked for is",
        ),
        (
            {"formats": ("letter", "json"), "arms": ("free", "cloze")},
            "arm 'cloze' fits none of the formats asked for (letter, json)",
        ),
    ],
)
def test_a_request_that_cannot_be_planned_is_refused_before_the_first_job(
    change: dict[str, tuple[str, ...]], message: str
) -> None:
    assert refusal(replace(REQUEST, **change)).message == message  # type: ignore[arg-type]


def test_an_arm_that_fits_no_format_is_refused_naming_those_that_it_fits() -> None:
    error = refusal(replace(REQUEST, formats=("reasoned",), arms=("cloze",)))
    assert error.hint == "it fits: text"


def test_the_examples_of_an_item_stand_before_it_with_their_answers() -> None:
    (job,) = plan(
        REQUEST, an_item(1, "es"), examples=lambda item: (an_item(9, "es"), an_item(6, "es"))
    )
    assert job.examples == ("9", "6")
    asked = [message.content.split("\n")[0] for message in job.messages if message.role == "user"]
    assert asked == ["Question 9?", "Question 6?", "Question 1?"]
    assert [m.content for m in job.messages if m.role == "assistant"] == ["B", "B"]


def test_an_item_that_is_also_an_example_is_refused() -> None:
    error = refusal(REQUEST, examples=lambda item: (an_item(1, "es"),))
    assert error.message == "item 'demo/1' is both asked and shown as an example"


def test_an_example_in_another_language_is_refused() -> None:
    error = refusal(REQUEST, an_item(1), examples=lambda item: (an_item(9, "es"),))
    assert error.message == "item 'demo/1' is in 'en', its example in 'es'"


def test_a_key_is_the_hash_of_the_spelled_out_job() -> None:
    item = replace(an_item(), stem="¿Cuál?", language="es")
    spelled = (
        '{"arm":"free","dataset":"demo","format":{"max_tokens":20,"name":"letter","pattern":"(A|B)","version":1},'
        '"identity":{"model":"abcd","ubatch":60},'
        f'"item":"{item.content_sha256}",'
        '"messages":[["system","Sé breve."],["user","¿Cuál?"]],'
        '"variant":{"name":"original","seed":0,"version":1}}'
    )
    identity = {"ubatch": 60, "model": "abcd"}
    key = job_key(identity, apply(item), MESSAGES, FORM, "free")
    assert key == hashlib.sha256(spelled.encode("utf-8")).hexdigest()[:32]
    assert key == "3691f6e90b4b1c1296eb06f6e0a1bfe2"  # from sha256sum


def a_key(**changes: object) -> str:
    """The key of one job, with parts of it changed."""
    parts: dict[str, object] = {
        "identity": IDENTITY,
        "variant": apply(an_item()),
        "messages": MESSAGES,
        "form": FORM,
        "arm": "free",
    }
    return job_key(**{**parts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"identity": {**IDENTITY, "ubatch": 512}},
        {"identity": {**IDENTITY, "sampling": {"temperature": 0.1}}},
        {"variant": apply(replace(an_item(), gold=0))},
        {"variant": replace(apply(an_item()), name="shuffle")},
        {"variant": replace(apply(an_item()), version="2")},
        {"variant": replace(apply(an_item()), seed=1)},
        {"messages": MESSAGES[1:]},
        {"messages": (Message("user", "Sé breve."), MESSAGES[1])},
        {"messages": (MESSAGES[0], Message("user", "¿Cual?"))},
        {"form": replace(FORM, name="tag")},
        {"form": replace(FORM, version=2)},
        {"form": replace(FORM, pattern="(A|B|C)")},
        {"form": replace(FORM, max_tokens=21)},
        {"arm": "grammar"},
    ],
)
def test_whatever_determines_the_answer_changes_the_key(change: dict[str, object]) -> None:
    assert a_key(**change) != a_key()


def test_what_does_not_determine_the_answer_leaves_the_key() -> None:
    renamed = replace(an_item(), id="x", group="other/x", split="dev", rationale="Because.")
    reordered = dict(reversed(IDENTITY.items()))
    assert a_key(variant=apply(renamed), identity=reordered) == a_key()


def test_a_question_that_two_sets_share_is_asked_for_each() -> None:
    twin = replace(an_item(), dataset="other", id="x", group="other/x")
    jobs = plan(REQUEST, an_item(), twin)
    assert {job.variant.item.dataset for job in jobs} == {"demo", "other"}
    assert len({job.key for job in jobs}) == len(jobs)


def test_an_identity_that_is_not_json_is_a_programmer_error() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        a_key(identity={"cache": {1, 2}})


def test_keys_are_the_same_in_processes_with_different_hash_seeds() -> None:
    def keys(hash_seed: str) -> list[str]:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", PRINT_KEYS]
        output = subprocess.check_output(command, env=environment, cwd=ROOT, text=True)
        found: list[str] = json.loads(output)
        return found

    first, second = keys("1"), keys("2")
    assert first == second
    assert len(set(first)) == 17  # every pair of format and arm that makes sense


PRINT_KEYS = """
import json, pathlib
from medlocal.catalog import data_root
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item
from medlocal.evals.formats import ARMS
from medlocal.evals.plan import Crossing, PlanRequest, make_plan
from medlocal.evals.prompts import load_prompts

prompts = load_prompts(data_root() / "benchmarks" / "prompts")
item = Item("1", "demo", "test", "es", "¿Cuál?", ("uno", "dos"), 1, "s", "demo/1")
request = PlanRequest((Crossing((prompts["es", "plain"],), tuple(FORMATS), ARMS),))
plan = make_plan(request, [item], {"model": "ab", "ubatch": 60})
print(json.dumps([job.key for job in plan.jobs]))
"""


def ids(items: Sequence[Item]) -> list[str]:
    return [item.id for item in items]


def test_take_orders_by_the_hash_of_the_group() -> None:
    # for n in 1 2 3 4 5; do printf "demo/$n" | sha256sum; done | sort
    assert ids(take(map(an_item, range(1, 6)), None)) == ["3", "1", "2", "5", "4"]


def test_take_does_not_depend_on_the_order_of_the_file() -> None:
    items = [an_item(number) for number in range(20)]
    shuffled = random.Random(3).sample(items, k=20)
    assert take(shuffled, 7) == take(items, 7)


def test_take_keeps_limited_runs_parallel_across_languages() -> None:
    english = [an_item(number) for number in range(20)]
    spanish = [an_item(number, "es") for number in reversed(range(20))]
    assert ids(take(english, 5)) == ids(take(spanish, 5))


def test_take_limits_each_data_set_and_language_for_itself() -> None:
    items = [
        an_item(number, language, dataset)
        for number in range(4)
        for language in ("en", "es")
        for dataset in ("demo", "other")
    ]
    taken = [(item.dataset, item.language) for item in take(items, 3)]
    assert {source: taken.count(source) for source in taken} == {
        ("demo", "en"): 3,
        ("demo", "es"): 3,
        ("other", "en"): 3,
        ("other", "es"): 3,
    }


@given(st.integers(1, 30), st.integers(1, 30))
def test_a_larger_limit_continues_a_smaller_one(one: int, other: int) -> None:
    items = [an_item(number) for number in range(25)]
    small, large = sorted((one, other))
    assert take(items, large)[: min(small, 25)] == take(items, small)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match="must be 1 or more"):
        take([an_item()], limit)
