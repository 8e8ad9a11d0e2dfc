"""Reports and questions for the tests of the page: a simulated study, scored by the real functions.

What the models answer is drawn from a seed; nothing here says what a figure ought to be. The study is
as wide as a real one (all variants, levels, transforms and prompts), with few questions.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations, product

from medlocal.evals.answers import Outcome
from medlocal.evals.comparing import compare
from medlocal.evals.obedience import answer_splits
from medlocal.evals.position import position_bias
from medlocal.evals.robustness import robustness, variant_effects
from medlocal.evals.scoring import GradedAnswer, constraint_effects, score_rows
from medlocal.evals.spread import interactions, prompt_spreads
from medlocal.evals.variant import Draw, derive_seed
from medlocal.report.browser import Question
from medlocal.report.results import ModelPair, Report, RunFacts

ONE_STEP = (
    "shuffle", "rotate(1)", "rotate(2)", "rotate(3)",
    "gold_at(A)", "gold_at(B)", "gold_at(C)", "gold_at(D)",
    "labels(digits)", "labels(roman)", "labels(lower)", "labels(greek)", "labels(bullets)",
    "label_style((A))", "label_style(A.)", "label_style(A))", "label_style([A])", "label_style(A:)",
    "nota_replaces_gold", "nota_added", "drop_distractor", "foreign_distractor",
    "negated", "irrelevant_sentence", "typos(0.05)", "typos(0.2)", "upper", "drug_names", "hidden",
    "instruction_language", "parallel",
)  # fmt: skip
TWO_STEPS = (
    "typos(0.05)+shuffle", "irrelevant_sentence+shuffle", "drug_names+shuffle",
    "nota_replaces_gold+shuffle", "drop_distractor+shuffle", "negated+shuffle", "parallel+shuffle",
    "shuffle+labels(digits)", "shuffle+labels(bullets)", "rotate(1)+label_style((A))",
    "upper+labels(roman)", "nota_added+labels(digits)",
    "nota_replaces_gold+irrelevant_sentence", "drop_distractor+typos(0.05)",
    "instruction_language+typos(0.05)", "instruction_language+labels(roman)",
)  # fmt: skip
LEVELS = ("instruction(none)", "instruction(mentioned)", "instruction(example)")
TRANSFORMS = (
    "next_label", "text_not_label", "reversed_text", "upper_text", "label_in_words",
    "sorted_wrong_labels", "append(!)",
)  # fmt: skip
PROMPTS = (
    "plain", "exam", "formal", "simplified", "role_play", "direct", "instruction_first", "sections",
    "student", "careful", "rules_in_system", "consult_note", *(f"layout({n})" for n in range(1, 13)),
)  # fmt: skip
FORMATS = ("letter", "phrase", "json", "tag", "text", "reasoned")

MODELS = ("smollm2-135m-instruct", "Llama-3.2-3B-Instruct-Q4_K_M", "Meditron3-Gemma2-2B.Q8_0")
_SKILL = {MODELS[0]: (0.28, 0.25), MODELS[1]: (0.62, 0.48), MODELS[2]: (0.66, 0.57)}
_FORM = {MODELS[0]: 0.35, MODELS[1]: 0.92, MODELS[2]: 0.71}
_HARM = {
    "hidden": 0.35,
    "negated": 0.3,
    "typos(0.2)": 0.18,
    "labels(bullets)": 0.1,
    "shuffle": 0.02,
}

Condition = tuple[str, str, str, str]
"""Variant, prompt, format and arm."""


def conditions(*, is_small: bool = False) -> list[Condition]:
    """What every question is asked with."""
    robust = ["original", *ONE_STEP, *TWO_STEPS]
    arms = ("free", "grammar") if is_small else ("free", "grammar", "label")
    found = list(product(robust, ["plain"], ["letter"], arms))
    if not is_small:
        found += product(robust, ["plain"], ["json"], arms)
    levels = ["original", *LEVELS, *TRANSFORMS]
    found += product(levels, ["plain"], FORMATS[:2] if is_small else FORMATS, ["free", "grammar"])
    found += product(["original"], PROMPTS[:5] if is_small else PROMPTS, ["letter"], arms)
    return list(dict.fromkeys(found))


def answers(
    models: Sequence[str], num_items: int, chosen: Iterable[Condition]
) -> Iterator[GradedAnswer]:
    """Every model's answer to every question in every condition."""
    asked = list(chosen)
    for model, language, number in product(models, ("en", "es"), range(num_items)):
        for condition in asked:
            yield _answer(model, language, number, condition)


def _answer(model: str, language: str, number: int, condition: Condition) -> GradedAnswer:
    variant, prompt, form, arm = condition
    item = f"cardiology-{number:02}"
    draw = Draw(derive_seed("sample", model, language, item, *condition))
    fixed = Draw(derive_seed("sample", model, language, item))
    uniform = [draw.below(1000) / 1000 for _ in range(4)]
    skill = _SKILL.get(model, (0.5, 0.4))[language == "es"]
    harm = sum(_HARM.get(step, 0.03) for step in variant.split("+") if step != "original")
    mood = 0.7 * fixed.below(1000) / 1000 + 0.3 * uniform[0]
    gold_slot = Draw(derive_seed(item, variant)).below(4)
    content = 0 if mood < skill - harm else 1 + draw.below(3)
    slot = gold_slot if content == 0 else (gold_slot + content) % 4
    outcome = _outcome(uniform[1], arm, _FORM.get(model, 0.6) - 0.15 * (form in {"json", "tag"}))
    is_read = outcome in {Outcome.STRICT_VALID, Outcome.LENIENT_VALID, Outcome.SCORED}
    return GradedAnswer(
        model=model,
        dataset="starter",
        language=language,
        variant=variant,
        prompt=prompt,
        format=form,
        arm=arm,
        item_id=item,
        group_id=f"starter/{item}",
        num_options=4,
        gold_slot=gold_slot,
        gold_content=0,
        outcome=outcome,
        content=content if is_read else None,
        correct=is_read and content == 0,
        stats={},
        verified=not (variant.startswith("nota_replaces") and number % 3 == 0),
        slot=slot if is_read else None,
        meaning=str(content) if is_read else None,
        key=hashlib.sha256(repr((model, language, number, condition)).encode()).hexdigest()[:32],
    )


def _outcome(drawn: float, arm: str, form: float) -> Outcome:
    if arm == "label":
        return Outcome.SCORED
    if arm == "grammar" or drawn < form:
        return Outcome.STRICT_VALID
    if drawn < form + 0.6 * (1 - form):
        return Outcome.LENIENT_VALID
    return (Outcome.UNPARSEABLE, Outcome.TRUNCATED, Outcome.AMBIGUOUS)[int(drawn * 1000) % 3]


@lru_cache
def a_report(models: tuple[str, ...] = MODELS, num_items: int = 8, is_small: bool = True) -> Report:
    """A study of these models, with everything that a report can show."""
    found = list(answers(models, num_items, conditions(is_small=is_small)))
    return report_of(found)


def report_of(found: Sequence[GradedAnswer]) -> Report:
    """The report of some answers."""
    models = list(dict.fromkeys(answer.model for answer in found))
    facts = [RunFacts(_run(model, number), _ENGINE) for number, model in enumerate(models)]
    by_model = {model: [a for a in found if a.model == model] for model in models}
    return Report(
        runs=tuple(facts),
        rows=tuple(score_rows(found)),
        effects=tuple(constraint_effects(found)),
        variants=tuple(variant_effects(found)),
        robustness=tuple(robustness(found)),
        positions=tuple(position_bias(found)),
        splits=tuple(answer_splits(found)),
        spreads=tuple(prompt_spreads(found)),
        interactions=tuple(interactions(found)),
        pairs=tuple(
            ModelPair(a, b, compare(by_model[a], by_model[b]), ("their chat templates differ",))
            for a, b in combinations(models, 2)
        ),
    )


def _run(model: str, number: int) -> dict[str, object]:
    return {
        "id": f"20261112-09140{number}-ab12",
        "created": f"2026-11-12T09:14:0{number}+00:00",
        "state": "done",
        "suite": "full",
        "model": model,
        "jobs": 1000,
        "done": 1000,
        "reused": 0,
        "errors": 0,
        "grader": 3,
    }


_ENGINE: dict[str, object] = {
    "build": "0c1e57098",
    "devices": ["CPU"],
    "mode": "exact",
    "micro_batch": 60,
    "unique_prompt_tokens": 20_000,
    "total_prompt_tokens": 62_000,
    "seconds": 1123.456,
    "liveness": {"came_out": True},
    "system": "AVX2 = 1",
}

HOSTILE = (
    "</script><img src=x onerror=\"document.title='hacked'\">\u202egnissap\x07\x1b[31m<b>C</b>"
)
"""What a model might say to a browser and to a terminal."""

_STEM = {
    "en": (
        "A 63-year-old man with an acute inferior ST-elevation myocardial infarction is awaiting"
        " primary angioplasty. Blood pressure is 84/50 mmHg and heart rate 78 bpm; the lungs are"
        " clear and there is ST elevation in V4R. Which initial measure is most appropriate?"
    ),
    "es": (
        "Hombre de 63 años con infarto agudo de miocardio inferior con elevación del ST, pendiente"
        " de angioplastia primaria. Presenta presión arterial de 84/50 mmHg y frecuencia cardíaca de"
        " 78 lpm. ¿Cuál es la medida inicial más adecuada para tratar la hipotensión?"
    ),
}
_OPTIONS = {
    "en": ("Intravenous crystalloid", "Furosemide", "Nitroglycerin", "Metoprolol"),
    "es": ("Cristaloide intravenoso", "Furosemida", "Nitroglicerina", "Metoprolol en niños"),
}
_SYSTEM = {
    "en": "You answer multiple-choice questions about medicine. Only one option is correct.",
    "es": "Responda a preguntas de opción múltiple sobre medicina. Solo una opción es correcta.",
}
_ASK = {"en": "Answer with the letter of one option.", "es": "Responda con la letra de una opción."}


def questions_of(found: Iterable[GradedAnswer]) -> Iterator[Question]:
    """The answers with the texts that a browser shows."""
    originals: dict[tuple[str, ...], GradedAnswer] = {}
    for answer in found:
        where = (answer.model, answer.language, answer.item_id, answer.prompt, answer.format)
        if answer.variant == "original":
            originals[*where, answer.arm] = answer
        yield _question(answer, originals.get((*where, answer.arm), answer))


def _question(answer: GradedAnswer, original: GradedAnswer) -> Question:
    order = [(slot - answer.gold_slot) % 4 for slot in range(4)]
    options = tuple(
        (label, _OPTIONS[answer.language][content])
        for label, content in zip("ABCD", order, strict=True)
    )
    stem = f"({answer.item_id}, {answer.variant}) {_STEM[answer.language]}"
    shown = "\n".join(f"{label}. {text}" for label, text in options)
    user = f"{stem}\n\n{shown}\n\n{_ASK[answer.language]} [{answer.format}, {answer.prompt}]"
    label = None if answer.slot is None else "ABCD"[answer.slot]
    return Question(
        key=answer.key,
        model=answer.model,
        dataset=answer.dataset,
        item_id=answer.item_id,
        language=answer.language,
        variant=answer.variant,
        verified=answer.verified,
        prompt=answer.prompt,
        format=answer.format,
        arm=answer.arm,
        messages=(("system", _SYSTEM[answer.language]), ("user", user)),
        options=options,
        gold=answer.gold_slot,
        reply="ABCD"[answer.gold_slot],
        output="" if answer.arm == "label" else _output(answer, label),
        finish="scored" if answer.arm == "label" else "stop",
        outcome=answer.outcome.value,
        answer=answer.slot,
        correct=answer.correct,
        reason=f"The outcome is {answer.outcome.value}.",
        scores=tuple((name, -0.4 - n) for n, name in enumerate("ABCD"))
        if answer.arm == "label"
        else (),
        flip=_flip(original, answer),
    )


def _output(answer: GradedAnswer, label: str | None) -> str:
    if answer.outcome == Outcome.STRICT_VALID:
        return label or ""
    said = {"en": "I think the answer must be", "es": "Creo que la respuesta debería ser"}
    return f"{said[answer.language]} {label or '…'}, {answer.item_id} {answer.variant}."


def _flip(original: GradedAnswer, answer: GradedAnswer) -> str:
    match original.correct, answer.correct:
        case True, False:
            return "right→wrong"
        case False, True:
            return "wrong→right"
        case False, False if original is not answer and original.meaning != answer.meaning:
            return "wrong→other"
    return ""


def some_questions(models: tuple[str, ...] = MODELS, num_items: int = 2) -> list[Question]:
    """Answers of a small study, the first of them hostile."""
    chosen = [c for c in conditions(is_small=True) if c[0] in {"original", "shuffle", "negated"}]
    found = list(questions_of(answers(models, num_items, chosen)))
    return [replace(found[0], output=HOSTILE), *found[1:]]
