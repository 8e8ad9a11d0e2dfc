"""Graded answers for the tests of statistics: what was chosen is all that they say."""

from dataclasses import replace
from itertools import product

from medlocal.evals.answers import Outcome
from medlocal.evals.items import Item
from medlocal.evals.perturb import apply
from medlocal.evals.scoring import GradedAnswer

GOLD_AT = ("gold_at(A)", "gold_at(B)", "gold_at(C)", "gold_at(D)")


def an_answer(
    item: str = "q1", variant: str = "original", chosen: int | None = 0, **changes: object
) -> GradedAnswer:
    """An answer to a question of four options, of which option 0 is right.

    Args:
        item: its id.
        variant: its name.
        chosen: the option chosen, by content; None = none could be read.
        changes: any other field.
    """
    answer = GradedAnswer(
        model="demo",
        dataset="starter",
        language="es",
        variant=variant,
        prompt="plain",
        format="letter",
        arm="free",
        item_id=item,
        group_id=f"starter/{item}",
        num_options=4,
        gold_slot=0,
        gold_content=0,
        outcome=Outcome.UNPARSEABLE if chosen is None else Outcome.STRICT_VALID,
        content=chosen,
        correct=chosen == 0,
        stats={},
        slot=chosen,
        meaning=None if chosen is None else str(chosen),
    )
    return replace(answer, **changes)  # type: ignore[arg-type]


def a_failure(item: str = "q1", variant: str = "original", **changes: object) -> GradedAnswer:
    """An answer that does not count, because the engine failed."""
    return an_answer(item, variant, None, outcome=Outcome.ENGINE_ERROR, **changes)


def answers_of(variant: str, chosen: str, **changes: object) -> list[GradedAnswer]:
    """The answers of the items q0, q1, ... in one variant.

    Args:
        variant: its name.
        chosen: a sign per item: the option, "-" = none could be read, "!" = the engine failed,
            " " = the item was not asked.
        changes: any other field.
    """
    found = []
    for number, sign in enumerate(chosen):
        if sign == "!":
            found.append(a_failure(f"q{number}", variant, **changes))
        elif sign != " ":
            option = None if sign == "-" else int(sign)
            found.append(an_answer(f"q{number}", variant, option, **changes))
    return found


def always_a(*variants: str) -> list[GradedAnswer]:
    """A model that always answers A, on four items whose right options stand in A, B, C and D."""
    answers = []
    for gold, name in product(range(4), variants):
        item = Item(
            id=f"q{gold}",
            dataset="starter",
            split="test",
            language="es",
            stem="¿Cuál?",
            options=("uno", "dos", "tres", "cuatro"),
            gold=gold,
            subject="números",
            group=f"starter/q{gold}",
        )
        variant = apply(item, name)
        changes: dict[str, object] = {"gold_slot": variant.gold, "gold_content": gold}
        changes["correct"] = variant.gold == 0
        changes["messages"] = " ".join(variant.options)
        answers.append(an_answer(item.id, name, variant.content(0), slot=0, **changes))
    return answers
