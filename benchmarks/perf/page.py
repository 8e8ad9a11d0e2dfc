"""How quickly does a report's page of 10,000 answers open, and how large is it?

The page is made of real questions: the starter set in two languages under the variants of the suite
`robustness`, with the prompts as they are sent; the answers are drawn. It is opened from a file in
headless Chromium, several times, each in a context of its own, and timed by the browser itself:

    first paint   something is to be seen
    shown         the first page of the list of answers has been written
    load          the load event is over

Prints a table for people; the last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from medlocal.catalog import data_root, suite_cards
from medlocal.evals.answers import Outcome
from medlocal.evals.comparing import compare
from medlocal.evals.formats import FORMATS, SCORED_ARMS
from medlocal.evals.items import Item, load_items
from medlocal.evals.perturb import NotApplicableError, Peers, Variant, apply
from medlocal.evals.position import position_bias
from medlocal.evals.prompts import Message, build_messages, load_prompts
from medlocal.evals.robustness import robustness, variant_effects
from medlocal.evals.scoring import GradedAnswer, constraint_effects, score_rows
from medlocal.evals.variant import Draw, derive_seed
from medlocal.report.browser import MOST, Question
from medlocal.report.page import to_html
from medlocal.report.results import ModelPair, Report, RunFacts

MODELS = ("a-general-model-3b.Q4_K_M", "a-clinical-model-3b.Q4_K_M")
CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LIMITS = {"seconds": 2.0, "mebibytes": 15.0}
"""What the page has to keep to."""
_SAID = (
    "The clinical picture and the findings described point to one of the options more than to the"
    " others, and the first measure follows from it. The answer is {label} (question {item}, {draw})."
)


def make_answers(most: int) -> Iterator[tuple[GradedAnswer, Question]]:
    """Answers of both models to the same questions, item by item, until there are enough."""
    root = data_root() / "benchmarks"
    by_language = [
        load_items(root / "starter" / "items.jsonl", "starter", "test", language)
        for language in ("en", "es")
    ]
    prompts, suite = load_prompts(root / "prompts"), suite_cards()["robustness"]
    peers = Peers.of(item for items in by_language for item in items)
    num_made = 0
    for items in zip(*by_language, strict=True):
        for item, name, form, arm in product(items, suite.variants, suite.formats, suite.arms):
            try:
                variant = apply(item, name, 0, peers)
            except NotApplicableError:
                continue
            if FORMATS[form].unfit(variant, arm):
                continue
            prompt = prompts[variant.prompt_language, "plain"]
            messages = build_messages(variant, prompt, FORMATS[form])
            for model in MODELS:
                if num_made == most:
                    return
                num_made += 1
                yield _answer(item, variant, messages, (model, form, arm))


def _answer(
    item: Item, variant: Variant, messages: tuple[Message, ...], how: tuple[str, str, str]
) -> tuple[GradedAnswer, Question]:
    model, form, arm = how
    key = f"{derive_seed(item.group, item.language, variant.name, *how):032x}"
    draw = Draw(int(key, 16))
    slot = variant.gold if draw.below(10) < 6 else draw.below(len(variant.options))
    is_scored = arm in SCORED_ARMS
    is_strict = arm == "grammar" or draw.below(10) < 5
    outcome = Outcome.STRICT_VALID if is_strict else Outcome.LENIENT_VALID
    outcome = Outcome.SCORED if is_scored else outcome
    said = _SAID.format(label=variant.labels[slot], item=item.id, draw=draw.below(10**6))
    shared = {
        "key": key,
        "model": model,
        "dataset": item.dataset,
        "item_id": item.id,
        "language": item.language,
        "variant": variant.name,
        "verified": variant.verified,
        "prompt": "plain",
        "format": form,
        "arm": arm,
        "correct": slot == variant.gold,
    }
    graded = GradedAnswer(
        **shared,  # type: ignore[arg-type]
        group_id=item.group,
        num_options=len(variant.options),
        gold_slot=variant.gold,
        gold_content=variant.origin[variant.gold],
        outcome=outcome,
        content=variant.content(slot),
        stats={},
        slot=slot,
        meaning=str(variant.content(slot)),
    )
    question = Question(
        **shared,  # type: ignore[arg-type]
        messages=tuple((message.role, message.content) for message in messages),
        options=tuple(zip(variant.labels, variant.options, strict=True)),
        gold=variant.gold,
        reply=variant.replies[variant.gold],
        output="" if is_scored else variant.replies[slot] if is_strict else said,
        finish="scored" if is_scored else "stop",
        outcome=outcome.value,
        answer=slot,
        reason=f"{variant.labels[slot]} was found.",
        scores=tuple((label, -0.1 - draw.below(900) / 100) for label in variant.labels)
        if is_scored
        else (),
    )
    return graded, question


def make_report(answers: list[GradedAnswer]) -> Report:
    """What a run of these answers would report."""
    runs = [RunFacts({"id": model, "created": "", "model": model}, {}) for model in MODELS]
    first, second = ([a for a in answers if a.model == model] for model in MODELS)
    return Report(
        runs=tuple(runs),
        rows=tuple(score_rows(answers)),
        effects=tuple(constraint_effects(answers)),
        variants=tuple(variant_effects(answers)),
        robustness=tuple(robustness(answers)),
        positions=tuple(position_bias(answers)),
        pairs=(ModelPair(*MODELS, compare(first, second)),),
    )


def time_opening(path: Path, times: int) -> list[dict[str, float]]:
    """Seconds from the start of navigation to each moment, per opening."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            page = context.new_page()
            page.goto(path.as_uri(), wait_until="load")
            page.locator("#rows tr").first.wait_for()
            milliseconds = page.evaluate(
                """() => ({
                  "first paint": performance.getEntriesByName("first-contentful-paint")[0].startTime,
                  "shown": performance.getEntriesByName("answers-shown")[0].startTime,
                  "load": performance.getEntriesByType("navigation")[0].loadEventEnd,
                })"""
            )
            found.append({name: value / 1000 for name, value in milliseconds.items()})
            context.close()
        browser.close()
    return found


def main() -> None:
    """Make the page, open it, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=MOST, help="answers in the page")
    parser.add_argument("--times", type=int, default=5, help="how often it is opened")
    parser.add_argument("--keep", type=Path, help="write the page here too")
    asked = parser.parse_args()

    pairs = list(make_answers(asked.answers))
    report = make_report([graded for graded, _ in pairs])
    start = time.perf_counter()
    page = to_html(report, [question for _, question in pairs])
    making = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = asked.keep or Path(folder) / "page.html"
        path.write_text(page, encoding="utf-8")
        size = path.stat().st_size / 2**20
        opened = time_opening(path.absolute(), asked.times)
    medians = {name: statistics.median(one[name] for one in opened) for name in opened[0]}
    slowest = max(max(one["shown"], one["load"]) for one in opened)

    print(
        f"{len(pairs):,} answers, {len(report.rows):,} rows of scores, opened {asked.times} times"
    )
    for name, value in medians.items():
        print(f"  {name:<14} {value:6.2f} s  (median)")
    print(f"  {'slowest':<14} {slowest:6.2f} s  (limit {LIMITS['seconds']:g})")
    print(f"  {'size':<14} {size:6.2f} MiB (limit {LIMITS['mebibytes']:g})")
    print(f"  {'making it':<14} {making:6.2f} s")
    values = {
        "answers": len(pairs),
        "size_mebibytes": round(size, 3),
        "making_seconds": round(making, 3),
        "slowest_seconds": round(slowest, 3),
        **{f"{name.replace(' ', '_')}_seconds": round(v, 3) for name, v in medians.items()},
        "is_within_limits": slowest < LIMITS["seconds"] and size < LIMITS["mebibytes"],
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
