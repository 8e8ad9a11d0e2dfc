"""Plans cross what is asked for, and a key says what determines an answer and nothing else."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import UsageError
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item
from medlocal.evals.perturb import apply
from medlocal.evals.plan import (
    ARMS,
    AnswerForm,
    Job,
    PlanRequest,
    job_key,
    plan_jobs,
    skipped_pairs,
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


REQUEST = PlanRequest(prompts=(a_prompt("en"), a_prompt("es")), formats=("letter",), arms=("free",))
FORM = AnswerForm(name="letter", version=1, pattern="(A|B)", max_tokens=20)
MESSAGES = (Message("system", "Sé breve."), Message("user", "¿Cuál?"))


def plan(request: PlanRequest = REQUEST, *items: Item) -> list[Job]:
    return list(plan_jobs(request, items or (an_item(),), IDENTITY))


def refusal(request: PlanRequest, *items: Item) -> UsageError:
    # The plan is not even begun: a wrong request must not surface after hours of work.
    with pytest.raises(UsageError) as caught:
        plan_jobs(request, items or (an_item(),), IDENTITY)
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


def test_the_pairs_left_out_are_told_with_the_reason() -> None:
    assert skipped_pairs(("letter", "text", "reasoned"), ("free", "label", "cloze")) == [
        ("letter", "cloze", "cloze scores the options' words, which this format does not ask for"),
        ("text", "label", "label scores the labels, which have no fixed place in this format"),
        ("reasoned", "label", "label scores the labels, which have no fixed place in this format"),
        (
            "reasoned",
            "cloze",
            "cloze scores the options' words, which this format does not ask for",
        ),
    ]


def test_planned_and_skipped_pairs_are_all_the_pairs() -> None:
    request = replace(REQUEST, formats=tuple(FORMATS), arms=ARMS)
    planned = {(job.format, job.arm) for job in plan(request)}
    skipped = {(name, arm) for name, arm, _ in skipped_pairs(tuple(FORMATS), ARMS)}
    assert planned | skipped == {(name, arm) for name in FORMATS for arm in ARMS}
    assert planned & skipped == set()


def test_the_arms_of_a_format_ask_with_the_same_messages() -> None:
    jobs = plan(replace(REQUEST, arms=("free", "grammar", "label")))
    assert len({job.messages for job in jobs}) == 1
    assert len({job.key for job in jobs}) == 3


def test_names_that_stand_twice_count_once() -> None:
    twice = PlanRequest(
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
    request = replace(REQUEST, examples=lambda item: (an_item(9, "es"), an_item(6, "es")))
    (job,) = plan(request, an_item(1, "es"))
    assert job.examples == ("9", "6")
    asked = [message.content.split("\n")[0] for message in job.messages if message.role == "user"]
    assert asked == ["Question 9?", "Question 6?", "Question 1?"]
    assert [m.content for m in job.messages if m.role == "assistant"] == ["B", "B"]


def test_an_item_that_is_also_an_example_is_refused() -> None:
    error = refusal(replace(REQUEST, examples=lambda item: (an_item(1, "es"),)))
    assert error.message == "item 'demo/1' is both asked and shown as an example"


def test_an_example_in_another_language_is_refused() -> None:
    error = refusal(replace(REQUEST, examples=lambda item: (an_item(9, "es"),)), an_item(1))
    assert error.message == "item 'demo/1' is in 'en', its example in 'es'"


def test_a_key_is_the_hash_of_the_spelled_out_job() -> None:
    item = replace(an_item(), stem="¿Cuál?", language="es")
    spelled = (
        '{"arm":"free","format":{"max_tokens":20,"name":"letter","pattern":"(A|B)","version":1},'
        '"identity":{"model":"abcd","ubatch":60},'
        f'"item":"{item.content_sha256}",'
        '"messages":[["system","Sé breve."],["user","¿Cuál?"]],'
        '"variant":{"name":"original","seed":0,"version":1}}'
    )
    identity = {"ubatch": 60, "model": "abcd"}
    key = job_key(identity, apply(item), MESSAGES, FORM, "free")
    assert key == hashlib.sha256(spelled.encode("utf-8")).hexdigest()[:32]
    assert key == "c3a74d3ebb05b44f7e4f7408c4af6cb3"  # from sha256sum


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
        {"variant": replace(apply(an_item()), version=2)},
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
    renamed = replace(
        an_item(), id="x", dataset="other", group="other/x", split="dev", rationale="Because."
    )
    reordered = dict(reversed(IDENTITY.items()))
    assert a_key(variant=apply(renamed), identity=reordered) == a_key()


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
from medlocal.evals.plan import ARMS, PlanRequest, plan_jobs
from medlocal.evals.prompts import load_prompts

prompts = load_prompts(data_root() / "benchmarks" / "prompts")
item = Item("1", "demo", "test", "es", "¿Cuál?", ("uno", "dos"), 1, "s", "demo/1")
request = PlanRequest((prompts["es", "plain"],), tuple(FORMATS), ARMS)
print(json.dumps([job.key for job in plan_jobs(request, [item], {"model": "ab", "ubatch": 60})]))
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
