"""What an output names, as the option that it means: laws over all transformations."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.evals.extract import Extraction, extract
from medlocal.evals.formats import left_out
from medlocal.evals.items import Item
from medlocal.evals.mapping import find
from medlocal.evals.perturb import NotApplicableError, Variant, apply

ITEM = Item(
    id="1",
    dataset="made",
    split="test",
    language="en",
    stem="Which is it?",
    options=("Zoster", "Yaws", "Xanthoma", "Vitiligo"),
    gold=2,
    subject="skin",
    group="made/1",
)
SINGLE = (
    "next_label", "text_not_label", "reversed_text", "upper_text", "label_in_words", "append(!)",
    "append(#)", "append(-END)", "labels(bullets)", "labels(bullets)+reversed_text",
    "labels(roman)+next_label", "labels(digits)+label_in_words", "labels(lower)+append(!)",
)  # fmt: skip
LISTS = ("sorted_wrong_labels", "labels(digits)+sorted_wrong_labels", "negated")
STATEMENTS = {
    "en": (
        "{}", "{}.", "**{}**", "`{}`", "Answer: {}", "The correct answer is {}.",
        '{{"answer":"{}"}}', "<answer> {} </answer>", "The rash is old.\n\nFinal answer: {}",
    ),
    "es": (
        "{}", "{}.", "**{}**", "`{}`", "Respuesta: {}", "La respuesta correcta es {}.",
        '{{"answer":"{}"}}', "<answer> {} </answer>", "Es antiguo.\n\nRespuesta final: {}",
    ),
}  # fmt: skip
WORDS = ("gout", "scurvy", "measles", "dengue", "plague", "ictus", "asma", "lupus", "otitis media")

languages = st.sampled_from(("en", "es"))
slots = st.integers(0, 3)


def made(name: str, language: str = "en", options: tuple[str, ...] = ITEM.options) -> Variant:
    return apply(replace(ITEM, language=language, options=options), name)


@st.composite
def any_options(draw: st.DrawFn) -> tuple[str, ...]:
    return tuple(draw(st.lists(st.sampled_from(WORDS), min_size=4, max_size=4, unique=True)))


@settings(deadline=None)
@given(st.data(), st.sampled_from((*SINGLE, *LISTS[:2])), any_options(), languages, slots)
def test_every_reply_means_its_option_however_it_is_stated(
    data: st.DataObject, name: str, options: tuple[str, ...], language: str, slot: int
) -> None:
    variant = made(name, language, options)
    text = data.draw(st.sampled_from(STATEMENTS[language])).format(variant.replies[slot])
    found = find(text, variant, language, "phrase")
    assert (found.slots, found.out_of_set, found.explicit) == ((slot,), (), True)


@settings(deadline=None)
@given(st.data(), st.sampled_from(SINGLE), any_options(), languages, slots)
def test_the_options_words_mean_their_option_whatever_was_asked_for(
    data: st.DataObject, name: str, options: tuple[str, ...], language: str, slot: int
) -> None:
    variant = made(name, language, options)
    text = data.draw(st.sampled_from(STATEMENTS[language])).format(options[slot])
    assert find(text, variant, language, "phrase").slots == (slot,)


@settings(deadline=None)
@given(st.data(), st.sampled_from(SINGLE), languages, slots)
def test_a_plain_label_means_its_option_but_where_it_is_another_ones_reply(
    data: st.DataObject, name: str, language: str, slot: int
) -> None:
    variant = made(name, language)
    if not variant.has_labels:
        return
    text = data.draw(st.sampled_from(STATEMENTS[language])).format(variant.labels[slot])
    expected = (slot - 1) % 4 if "next_label" in name else slot
    assert find(text, variant, language, "phrase").slots == (expected,)


@settings(deadline=None)
@given(
    st.data(),
    st.sampled_from((", ", ",", " and ", " y ", "\n", "\n- ", "; ", " / ")),
    st.sampled_from(LISTS),
    st.sets(slots, min_size=2),
    languages,
)
def test_a_list_names_the_option_that_it_leaves_out_or_all_of_its_own(
    data: st.DataObject, joint: str, name: str, chosen: set[int], language: str
) -> None:
    variant = made(name, language)
    order = data.draw(st.permutations(sorted(chosen)))
    found = find(joint.join(variant.labels[slot] for slot in order), variant, language, "letter")
    gap = left_out(variant, order)
    if name == "negated" or gap is None:
        assert found.slots == tuple(order)
    else:
        assert found.slots == (gap,)


@pytest.mark.parametrize("name", LISTS)
def test_labels_under_each_other_with_their_words_are_a_list(name: str) -> None:
    variant = made(name)
    lines = [f"{variant.labels[slot]}) {variant.options[slot]}" for slot in (0, 1, 3)]
    found = find("\n".join(lines), variant, "en", "letter")
    assert found.slots == ((0, 1, 3) if name == "negated" else (2,))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A, B and D are incorrect.", (0, 1, 3)),
        ("La A, la B y la D no son correctas.", (0, 1, 3)),
        ("A and B are incorrect.", ()),
    ],
)
def test_labels_called_wrong_are_a_list_where_they_leave_one_out(
    text: str, found: tuple[int, ...]
) -> None:
    assert find(text, made("negated"), "en", "letter").slots == found


def test_a_list_with_a_label_that_no_option_has_leaves_nothing_out() -> None:
    found = find("A, B, D, E", made("sorted_wrong_labels"), "en", "letter")
    assert (found.slots, found.out_of_set) == ((0, 1, 3), ("E",))


@pytest.mark.parametrize("text", ["A, B y D", "Gana la C", "•", "", "No puedo responder."])
def test_what_asks_for_a_label_is_read_by_the_extractor_alone(text: str) -> None:
    variant = made("original", "es")
    assert find(text, variant, "es", "letter") == extract(text, variant, "es", "letter")


def test_a_reply_that_two_options_share_in_another_case_names_neither() -> None:
    variant = made("reversed_text", options=("ABC", "abc", "Yaws", "Gout"))
    assert find("cBa", variant, "en", "letter") == Extraction()


def test_words_that_read_the_same_backwards_mean_their_option() -> None:
    variant = made("reversed_text", options=("Kayak", "Yaws", "Gout", "Zoster"))
    for text in ("kayaK", "Kayak", "The answer is kayak."):
        assert find(text, variant, "en", "phrase").slots == (0,)


def test_a_reply_that_is_another_options_text_is_read_as_the_reply() -> None:
    """Told to write 12 backwards, who writes 21 means 12, though another option says 21."""
    variant = made("reversed_text", options=("12", "21", "34", "40"))
    assert find("21", variant, "en", "letter").slots == (0,)
    assert find('{"answer":"21"}', variant, "en", "json").slots == (0,)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from((*SINGLE, *LISTS)),
    st.text(st.sampled_from("ABCDE,.\n :!(){}\"'12tweobsnaYXZV-<>/")) | st.text(),
    languages,
)
def test_every_text_is_read_and_names_only_slots_of_the_variant(
    name: str, text: str, language: str
) -> None:
    variant = made(name, language)
    found = find(text, variant, language, "letter")
    assert set(found.slots) <= {0, 1, 2, 3}
    assert len(set(found.slots)) == len(found.slots)
    assert bool(re.search(r"\S", text)) or found == Extraction()


def test_a_perturbation_that_gives_two_options_one_reply_is_refused() -> None:
    with pytest.raises(NotApplicableError, match="same reply"):
        made("upper_text", options=("Yaws", "YAWS", "Gout", "Zoster"))
