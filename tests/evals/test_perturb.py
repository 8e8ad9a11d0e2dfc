"""Variants map what is shown back to the item's own options, whatever was done to it."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medlocal.errors import UsageError
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import NOTA_VERIFIED, Item
from medlocal.evals.perturb import (
    PERTURBATIONS,
    NotApplicableError,
    Peers,
    Variant,
    apply,
    derive_seed,
    example_of,
    parse_variant,
    refused_pairs,
)
from medlocal.evals.steps import FAMILIES
from medlocal.evals.variant import BULLET

ITEM = Item(
    id="1",
    dataset="demo",
    split="test",
    language="en",
    stem="A 70-year-old man has taken furosemide 40 mg daily. Which electrolyte is most likely low?",
    options=("Sodium", "Potassium", "Chloride", "Calcium"),
    gold=1,
    subject="renal",
    group="demo/1",
)
SPANISH = replace(
    ITEM,
    language="es",
    stem="Un hombre de 70 años toma furosemida 40 mg al día. ¿Qué electrolito estará más bajo?",
    options=("Sodio", "Potasio", "Cloruro", "Calcio"),
)
OTHER = replace(
    ITEM,
    id="2",
    group="demo/2",
    stem="Which acid is it?",
    options=("Lactic acid", "Uric acid", "Citric acid", "Oxalic acid"),
    gold=0,
)
OTHER_SPANISH = replace(
    OTHER,
    language="es",
    stem="¿Qué ácido es?",
    options=("Ácido láctico", "Ácido úrico", "Ácido cítrico", "Ácido oxálico"),
)
PEERS = Peers.of([ITEM, SPANISH, OTHER, OTHER_SPANISH])

NAMES = [
    *("shuffle", "rotate(1)", "rotate(3)", "gold_at(A)", "gold_at(D)"),
    *("labels(digits)", "labels(roman)", "labels(lower)", "labels(greek)", "labels(bullets)"),
    *("label_style((A))", "label_style(A.)", "label_style(A))", "label_style([A])"),
    "label_style(A:)",
    *("nota_replaces_gold", "nota_added", "drop_distractor", "foreign_distractor"),
    *("negated", "irrelevant_sentence", "typos(0.1)", "upper", "drug_names", "hidden"),
    *("instruction_language", "parallel"),
    *("next_label", "text_not_label", "reversed_text", "upper_text", "label_in_words"),
    *("sorted_wrong_labels", "append(!)"),
    *("instruction(none)", "instruction(mentioned)", "instruction(example)"),
]


def allowed_pairs() -> list[str]:
    """Every two of the names that go together."""
    pairs = []
    for first, second in combinations(NAMES, 2):
        try:
            pairs.append(parse_variant(f"{first}+{second}").name)
        except UsageError:
            continue
    return pairs


PAIRS = allowed_pairs()


def test_the_perturbations_are_those_of_the_study_design() -> None:
    assert set(PERTURBATIONS) == {
        *("shuffle", "rotate", "gold_at", "labels", "label_style"),
        *("nota_replaces_gold", "nota_added", "drop_distractor", "foreign_distractor"),
        *("negated", "irrelevant_sentence", "typos", "upper", "drug_names", "hidden"),
        *("instruction_language", "parallel", "next_label", "text_not_label", "reversed_text"),
        *("upper_text", "label_in_words", "sorted_wrong_labels", "append", "instruction"),
    }


def test_perturbations_come_family_by_family_whatever_was_imported_first() -> None:
    code = (
        "import medlocal.evals.replying, medlocal.evals.perturb as p;"
        " print(*[x.family for x in p.PERTURBATIONS.values()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    families = done.stdout.split()
    assert families == sorted(families, key=FAMILIES.index)
    assert families == [p.family for p in PERTURBATIONS.values()]


def test_the_original_shows_the_item_as_it_is() -> None:
    assert apply(ITEM) == Variant(
        item=ITEM,
        name="original",
        version="1",
        seed=0,
        stem=ITEM.stem,
        labels=("A", "B", "C", "D"),
        options=ITEM.options,
        origin=(0, 1, 2, 3),
        gold=1,
        verified=True,
        replies=("A", "B", "C", "D"),
        language="en",
        prompt_language="en",
    )


def test_a_rotation_moves_every_option_down_and_the_last_one_to_the_top() -> None:
    variant = apply(ITEM, "rotate(1)")
    assert variant.options == ("Calcium", "Sodium", "Potassium", "Chloride")
    assert (variant.origin, variant.gold, variant.labels) == ((3, 0, 1, 2), 2, ("A", "B", "C", "D"))


def test_a_rotation_that_changes_nothing_is_passed_over() -> None:
    with pytest.raises(NotApplicableError, match="4 options rotated by 4 stand as before"):
        apply(ITEM, "rotate(4)")


@pytest.mark.parametrize(("slot", "gold"), [("A", 0), ("B", 1), ("C", 2), ("D", 3)])
def test_gold_at_puts_the_gold_into_its_slot(slot: str, gold: int) -> None:
    variant = apply(ITEM, f"gold_at({slot})")
    assert (variant.gold, variant.options[gold]) == (gold, "Potassium")


def test_under_the_four_gold_positions_each_slot_shows_four_different_options() -> None:
    shown = [apply(ITEM, f"gold_at({slot})").options for slot in "ABCD"]
    assert [len(set(column)) for column in zip(*shown, strict=True)] == [4, 4, 4, 4]


def test_a_slot_that_the_item_does_not_have_is_passed_over() -> None:
    with pytest.raises(NotApplicableError, match="no slot E with 4 options"):
        apply(ITEM, "gold_at(E)")


@given(st.integers(0, 1000))
def test_a_shuffle_never_leaves_the_order_as_it_is(seed: int) -> None:
    variant = apply(ITEM, "shuffle", seed)
    assert variant.origin != (0, 1, 2, 3)
    assert sorted(variant.origin) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("digits", ("1", "2", "3", "4")),
        ("roman", ("I", "II", "III", "IV")),
        ("lower", ("a", "b", "c", "d")),
        ("greek", ("α", "β", "γ", "δ")),
    ],
)
def test_other_labels_are_also_the_replies(kind: str, labels: tuple[str, ...]) -> None:
    variant = apply(ITEM, f"labels({kind})")
    assert (variant.labels, variant.replies, variant.gold) == (labels, labels, 1)


def test_behind_bullets_the_text_is_asked_for() -> None:
    variant = apply(ITEM, "labels(bullets)")
    assert variant.labels == (BULLET,) * 4
    assert (variant.replies, variant.asks) == (ITEM.options, "text")


def test_a_label_style_changes_how_the_label_looks_and_not_what_is_answered() -> None:
    variant = apply(ITEM, "label_style((A))")
    assert (variant.wrapper, variant.labels, variant.replies[1]) == (
        "({label})",
        ("A", "B", "C", "D"),
        "B",
    )


def test_none_of_the_others_stands_in_the_place_of_the_gold() -> None:
    variant = apply(ITEM, "nota_replaces_gold")
    assert variant.options[1] == "None of the other options is correct"
    assert (variant.gold, variant.content(1), variant.verified) == (1, 1, False)


def test_none_of_the_others_is_in_the_language_of_the_item() -> None:
    assert apply(SPANISH, "nota_replaces_gold").options[1] == (
        "Ninguna de las otras opciones es correcta"
    )


def test_none_of_the_others_is_verified_where_the_set_says_so() -> None:
    assert apply(replace(ITEM, flags=(NOTA_VERIFIED,)), "nota_replaces_gold").verified


def test_the_control_adds_none_of_the_others_as_a_wrong_option() -> None:
    variant = apply(ITEM, "nota_added")
    assert variant.labels == ("A", "B", "C", "D", "E")
    assert (variant.origin, variant.gold, variant.verified) == ((0, 1, 2, 3, -1), 1, True)


@pytest.mark.parametrize(
    "option", ["All of the above", "None of these", "A and B", "Todas las anteriores", "Ambas son"]
)
def test_an_item_that_speaks_of_its_own_options_gets_no_other_ones(option: str) -> None:
    item = replace(ITEM, options=("Sodium", "Potassium", "Chloride", option))
    for name in ("nota_replaces_gold", "nota_added", "drop_distractor", "negated"):
        with pytest.raises(NotApplicableError, match="already speaks of the other options"):
            apply(item, name)


def test_a_dropped_distractor_leaves_three_options_with_the_gold_among_them() -> None:
    variant = apply(ITEM, "drop_distractor")
    assert variant.labels == ("A", "B", "C")
    assert variant.options[variant.gold] == "Potassium"


def test_of_two_options_none_is_dropped() -> None:
    item = replace(ITEM, options=("Sodium", "Potassium"))
    with pytest.raises(NotApplicableError, match="fewer than two"):
        apply(item, "drop_distractor")


def test_a_foreign_distractor_comes_from_the_subject_and_is_unverified() -> None:
    variant = apply(ITEM, "foreign_distractor", 0, PEERS)
    (slot,) = (slot for slot, index in enumerate(variant.origin) if index == -1)
    assert variant.options[slot] in {"Uric acid", "Citric acid", "Oxalic acid"}
    assert (slot != variant.gold, variant.verified) == (True, False)


def test_without_another_item_of_the_subject_there_is_no_foreign_distractor() -> None:
    with pytest.raises(NotApplicableError, match="no other item of the subject"):
        apply(ITEM, "foreign_distractor", 0, Peers.of([ITEM]))


def test_the_negated_question_asks_for_several_labels() -> None:
    variant = apply(ITEM, "negated")
    assert variant.asks == "several"
    assert variant.stem == (
        f"{ITEM.stem}\nChoose all the options that do NOT correctly answer this question; exactly"
        " one of them does, and it must be left out."
    )


@pytest.mark.parametrize(
    ("language", "stem"),
    [
        ("en", "All of these cause it EXCEPT:"),
        ("en", "Which statement is incorrect?"),
        ("es", "Señale la respuesta FALSA:"),
        ("es", "¿Cuál de las siguientes es falsa?"),
        ("es", "Todas son causas excepto:"),
    ],
)
def test_a_negative_question_is_not_negated_again(language: str, stem: str) -> None:
    with pytest.raises(NotApplicableError, match="already asks for what is not so"):
        apply(replace(ITEM, language=language, stem=stem), "negated")


@pytest.mark.parametrize("stem", ["No fever was found. Which drug?", "No tiene fiebre. ¿Qué hay?"])
def test_a_finding_that_is_absent_does_not_make_a_question_negative(stem: str) -> None:
    assert apply(replace(ITEM, stem=stem), "negated").asks == "several"


def test_an_irrelevant_sentence_stands_before_the_last_one() -> None:
    stem = apply(ITEM, "irrelevant_sentence").stem
    first, last = ITEM.stem.split(". ")
    assert stem.startswith(f"{first}. ")
    assert stem.endswith(f" {last}")
    assert len(stem) > len(ITEM.stem) + 10


def test_typos_touch_neither_numbers_nor_units_nor_drugs() -> None:
    for seed in range(50):
        stem = apply(ITEM, "typos(0.5)", seed).stem
        assert len(stem) == len(ITEM.stem)
        assert stem != ITEM.stem
        assert stem.startswith("A 70-")
        assert "furosemide 40 mg" in stem


def test_capitals_leave_units_as_they_are() -> None:
    assert apply(ITEM, "upper").stem == (
        "A 70-YEAR-OLD MAN HAS TAKEN FUROSEMIDE 40 mg DAILY. WHICH ELECTROLYTE IS MOST LIKELY LOW?"
    )


def test_a_generic_name_becomes_a_brand() -> None:
    assert apply(ITEM, "drug_names").stem == ITEM.stem.replace("furosemide", "Lasix")
    assert apply(SPANISH, "drug_names").stem == SPANISH.stem.replace("furosemida", "Seguril")


def test_a_brand_becomes_its_generic_name_with_the_capital_of_a_sentence() -> None:
    item = replace(ITEM, stem="Lasix was given. Why does Lasix lower it?")
    assert apply(item, "drug_names").stem == "Furosemide was given. Why does furosemide lower it?"


def test_a_spanish_article_follows_the_name() -> None:
    item = replace(SPANISH, stem="El efecto de la furosemida. ¿Qué hace la furosemida?")
    assert apply(item, "drug_names").stem == "El efecto del Seguril. ¿Qué hace el Seguril?"


def test_an_option_that_is_the_name_itself_keeps_it() -> None:
    item = replace(ITEM, options=("Furosemide", "Give furosemide slowly", "Rest", "Water"))
    assert apply(item, "drug_names").options == (
        "Furosemide",
        "Give Lasix slowly",
        "Rest",
        "Water",
    )


@pytest.mark.parametrize(
    "stem",
    [
        "What is the brand name of furosemide?",
        "¿Cuál es el nombre comercial de la furosemida?",
        "Furosemide sodium was given.",
        "The furosemidelike effect.",
        "No drug at all.",
    ],
)
def test_a_name_that_is_asked_for_or_has_its_salt_is_left_alone(stem: str) -> None:
    with pytest.raises(NotApplicableError, match="no drug that has another name"):
        apply(replace(ITEM, stem=stem), "drug_names")


def test_the_hidden_question_shows_options_only() -> None:
    variant = apply(replace(ITEM, context="A passage."), "hidden")
    assert (variant.stem, variant.context) == ("[The question is hidden.]", "")


def test_the_instruction_may_be_in_the_other_language() -> None:
    variant = apply(ITEM, "instruction_language")
    assert (variant.language, variant.prompt_language) == ("en", "es")
    assert variant.stem == ITEM.stem


def test_the_parallel_item_is_shown_and_mapped_to_the_item() -> None:
    variant = apply(ITEM, "parallel", 0, PEERS)
    assert (variant.item, variant.stem, variant.options) == (ITEM, SPANISH.stem, SPANISH.options)
    assert (variant.language, variant.prompt_language) == ("es", "es")


def test_without_a_parallel_item_the_item_is_passed_over() -> None:
    with pytest.raises(NotApplicableError, match="no parallel item in 'es'"):
        apply(ITEM, "parallel", 0, Peers.of([ITEM]))


def test_a_parallel_item_with_another_gold_is_no_parallel() -> None:
    with pytest.raises(NotApplicableError, match="another gold"):
        apply(ITEM, "parallel", 0, Peers.of([ITEM, replace(SPANISH, gold=0)]))


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("next_label", "C"),
        ("text_not_label", "Potassium"),
        ("reversed_text", "muissatoP"),
        ("upper_text", "POTASSIUM"),
        ("label_in_words", "two"),
        ("sorted_wrong_labels", "A, C, D"),
        ("append(!)", "B!"),
        ("labels(roman)+next_label", "III"),
        ("labels(digits)+append(-END)", "2-END"),
    ],
)
def test_the_reply_for_the_gold_is_the_transformed_answer(name: str, reply: str) -> None:
    variant = apply(ITEM, name)
    assert variant.replies[variant.gold] == reply


def test_after_the_last_label_comes_the_first() -> None:
    assert apply(replace(ITEM, gold=3), "next_label").replies[3] == "A"


def test_words_for_places_are_in_the_language_of_the_prompt() -> None:
    assert apply(SPANISH, "label_in_words").replies == ("uno", "dos", "tres", "cuatro")
    assert apply(ITEM, "instruction_language+label_in_words").replies[0] == "uno"


def test_two_steps_are_taken_in_one_order_however_they_are_written() -> None:
    assert parse_variant("shuffle+typos(0.10)").name == "typos(0.1)+shuffle"
    assert parse_variant("labels(roman)+shuffle").name == "shuffle+labels(roman)"


def test_a_step_draws_the_same_alone_and_as_one_of_two() -> None:
    alone = apply(ITEM, "shuffle", 5)
    assert apply(ITEM, "typos(0.1)+shuffle", 5).origin == alone.origin
    assert apply(ITEM, "typos(0.1)+shuffle", 5).stem == apply(ITEM, "typos(0.1)", 5).stem


def test_parallel_items_draw_the_same_order() -> None:
    assert apply(ITEM, "shuffle", 3).origin == apply(SPANISH, "shuffle", 3).origin


@pytest.mark.parametrize(
    ("english", "spanish", "verified"),
    [(True, True, True), (True, False, False), (False, True, True)],
)
def test_of_the_parallel_item_its_own_check_counts(
    english: bool, spanish: bool, verified: bool
) -> None:
    item = replace(ITEM, flags=(NOTA_VERIFIED,) if english else ())
    twin = replace(SPANISH, flags=(NOTA_VERIFIED,) if spanish else ())
    variant = apply(item, "parallel+nota_replaces_gold", 0, Peers.of([item, twin]))
    assert variant.verified is verified


@pytest.mark.parametrize("name", ["upper_text", "reversed_text", "labels(bullets)+upper_text"])
@pytest.mark.parametrize("right", ["50", "1001", "7"])
def test_a_text_that_would_stay_as_it_is_is_not_transformed(name: str, right: str) -> None:
    item = replace(
        ITEM, options=("Sodium", right if "upper" in name else "1001", "MEN1", "Calcium")
    )
    with pytest.raises(NotApplicableError, match="would stay as it is"):
        apply(item, name)


def test_a_wrong_option_may_stay_as_it_is() -> None:
    item = replace(ITEM, options=("MEN1", "Potassium", "Chloride", "Calcium"))
    assert apply(item, "upper_text").replies[0] == "MEN1"


def test_capitals_reach_drugs_of_two_words() -> None:
    item = replace(
        ITEM, stem="She takes tranexamic acid, Toprol-XL and 5 mg of insulin glargine in mm Hg."
    )
    assert apply(item, "upper").stem == (
        "SHE TAKES TRANEXAMIC ACID, TOPROL-XL AND 5 mg OF INSULIN GLARGINE IN mm Hg."
    )


@pytest.mark.parametrize(
    "name", ["typos(0.1)", "upper", "irrelevant_sentence", "shuffle", "hidden"]
)
def test_the_parallel_item_may_be_changed_like_any_other(name: str) -> None:
    variant = apply(ITEM, f"parallel+{name}", 3, PEERS)
    alone = apply(SPANISH, name, 3, PEERS)
    assert (variant.stem, variant.options) == (alone.stem, alone.options)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("drug_names", "2"),
        ("irrelevant_sentence", "2"),
        ("typos(0.1)", "2"),
        ("upper", "2"),
        ("nota_replaces_gold", "2"),
        ("shuffle", "1"),
        ("negated", "1"),
        ("typos(0.1)+shuffle", "2+1"),
    ],
)
def test_a_perturbation_whose_outcome_changed_has_another_version(name: str, version: str) -> None:
    assert parse_variant(name).version == version


def test_a_variant_is_unverified_when_one_of_its_steps_is() -> None:
    assert not apply(ITEM, "nota_replaces_gold+shuffle").verified
    assert apply(ITEM, "nota_added+shuffle").verified


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("shuffle+rotate(1)", "two steps must be of different families"),
        ("negated+next_label", "cannot be transformed"),
        ("labels(bullets)+append(!)", "without labels there is none to transform"),
        ("nota_added+negated", "cannot be told apart"),
        ("instruction(none)+next_label", "nobody asks for"),
        ("shuffle+typos(0.1)+upper", "two steps at most"),
        ("shufle", "'shufle'"),
        ("rotate(12)", "1 to 9 places"),
        ("typos(0.9)", "from 0.01 to 0.5"),
        ("shuffle(2)", "takes no argument"),
        ("labels(klingon)", "cannot stand in the brackets"),
        ("gold_at(Z)", "a letter from A to J"),
        ("append(a b)", "without space"),
    ],
)
def test_a_name_that_means_nothing_is_refused_and_says_why(name: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_variant(name)
    assert why in str(refused.value)


def test_the_table_of_pairs_gives_a_reason_for_every_refusal() -> None:
    assert len(refused_pairs()) == 9
    assert all(why for _, _, why in refused_pairs())


def test_every_family_can_be_combined_with_another() -> None:
    combined = {frozenset(parse_variant(part).family for part in pair.split("+")) for pair in PAIRS}
    for family in FAMILIES:
        assert any(family in pair for pair in combined), family


def test_an_example_shows_the_form_of_the_answer_and_keeps_its_content() -> None:
    shown = example_of(OTHER, "typos(0.1)+next_label")
    assert (shown.stem, shown.replies[0]) == (OTHER.stem, "B")
    assert example_of(OTHER, "shuffle").options == OTHER.options
    assert example_of(OTHER, "negated").asks == "several"


def test_an_example_of_the_parallel_question_is_parallel_itself() -> None:
    shown = example_of(OTHER, "parallel+label_in_words", 0, PEERS)
    assert (shown.stem, shown.options) == (OTHER_SPANISH.stem, OTHER_SPANISH.options)
    assert (shown.prompt_language, shown.replies[0]) == ("es", "uno")


def test_an_example_without_a_parallel_item_is_refused_as_an_example() -> None:
    with pytest.raises(
        NotApplicableError, match="of an example: the set has no parallel item in 'es'"
    ):
        example_of(OTHER, "parallel", 0, Peers.of([ITEM, SPANISH]))


words = st.text(st.sampled_from("abcdefghijklmnñopqrstuvwxyzáéíóú "), min_size=3, max_size=20)
texts = words.map(str.strip).filter(lambda text: len(text) > 2)


@st.composite
def items(draw: st.DrawFn) -> tuple[Item, Peers]:
    """An item with a twin in the other language and neighbours of its subject."""
    num_options = draw(st.integers(2, 6))
    options = st.lists(
        texts, min_size=num_options, max_size=num_options, unique_by=lambda text: text.casefold()
    )
    language = draw(st.sampled_from(["en", "es"]))
    stem = draw(texts) + " was seen with lasix. " + draw(texts) + "?"
    item = Item(
        id="x",
        dataset="made",
        split="test",
        language=language,
        stem=stem,
        options=tuple(draw(options)),
        gold=draw(st.integers(0, num_options - 1)),
        subject="any",
        group="made/x",
        flags=draw(st.sampled_from([(), (NOTA_VERIFIED,)])),
    )
    twin = replace(item, language="es" if language == "en" else "en", options=tuple(draw(options)))
    other = replace(OTHER, dataset="made", subject="any", language=language)
    return item, Peers.of([item, twin, other])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=items(), seed=st.integers(0, 2**40), data=st.data())
def test_unmapping_inverts_every_perturbation_and_every_allowed_pair(
    made: tuple[Item, Peers], seed: int, data: st.DataObject
) -> None:
    item, peers = made
    before = repr(item)
    names = data.draw(st.lists(st.sampled_from([*NAMES, *PAIRS]), min_size=12, max_size=12))
    for name in names:
        try:
            variant = apply(item, name, seed, peers)
        except NotApplicableError:
            continue
        # Right is right: the gold slot means the item's gold, whatever stands there.
        assert variant.content(variant.gold) == item.gold
        assert apply(item, name, seed, peers) == variant
        for slot in range(len(variant.options)):
            _check_reads_back(replace(variant, gold=slot))
        if not {"nota_replaces_gold", "drug_names", "parallel"} & {
            step.perturbation.name for step in parse_variant(name).steps
        }:
            own = [slot for slot in range(len(variant.origin)) if variant.origin[slot] != -1]
            assert all(variant.options[s] == item.options[variant.origin[s]] for s in own)
    assert repr(item) == before


def _check_reads_back(variant: Variant) -> None:
    """What a format would have the answer be for a slot is read as that slot."""
    for form in FORMATS.values():
        if not form.unfit(variant, "free") and len(set(variant.replies)) == len(variant.replies):
            said = form.render(variant, variant.prompt_language)
            assert form.read(said, variant, variant.prompt_language) == variant.gold, (
                form.name,
                variant.name,
            )


@pytest.mark.slow
def test_every_allowed_pair_is_built_for_an_item_or_passes_it_over() -> None:
    built = 0
    for name in PAIRS:
        for item in (ITEM, SPANISH):
            try:
                variant = apply(item, name, 1, PEERS)
            except NotApplicableError:
                continue
            built += 1
            assert variant.name == name
            assert variant.content(variant.gold) == item.gold
    assert built > len(PAIRS)


def test_the_same_seed_gives_the_same_variant_in_another_process() -> None:
    names = ["shuffle", "typos(0.2)", "drop_distractor", "irrelevant_sentence", "drug_names"]
    code = (
        "import json, sys; sys.path.insert(0, '.')\n"
        "from tests.evals.test_perturb import ITEM\n"
        "from medlocal.evals.perturb import apply\n"
        f"print(json.dumps([[apply(ITEM, n, 9).stem, apply(ITEM, n, 9).options] for n in {names}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77", "PATH": ""},
    )
    here = [[apply(ITEM, n, 9).stem, list(apply(ITEM, n, 9).options)] for n in names]
    assert json.loads(done.stdout) == here


def test_draws_are_these_on_every_machine() -> None:
    # Computed once from the definition: SHA-256 of the canonical JSON of the parts, then Python's
    # Mersenne Twister, of which random() is promised never to change.
    import hashlib
    import random

    digest = hashlib.sha256(b'["demo/1","shuffle","0"]').digest()
    rng = random.Random(int.from_bytes(digest[:8], "big") >> 1)
    order = [0, 1, 2, 3]
    while order == [0, 1, 2, 3]:
        for last in (3, 2, 1):
            other = int(rng.random() * (last + 1))
            order[last], order[other] = order[other], order[last]
    assert apply(ITEM, "shuffle", 0).origin == tuple(order)


@given(st.lists(st.text(max_size=5), max_size=4))
def test_a_derived_seed_fits_a_signed_column(parts: list[str]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63


def test_derived_seeds_depend_on_where_the_parts_are_cut() -> None:
    assert derive_seed("ab", "c") != derive_seed("a", "bc")


def test_no_answer_means_nothing() -> None:
    assert apply(ITEM).content(None) is None


def test_a_slot_that_is_not_there_is_no_content() -> None:
    with pytest.raises(IndexError):
        apply(ITEM).content(-1)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ("A", "B", "C")},
        {"labels": ("A", "B", "C", "C"), "replies": ("A", "B", "C", "C")},
        {"origin": (0, 0, 1, 2)},
        {"origin": (0, 1, 2, 9)},
        {"gold": 4},
        {"options": (), "labels": (), "origin": (), "replies": ()},
    ],
)
def test_a_variant_that_does_not_hang_together_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="original"):
        replace(apply(ITEM), **changes)  # type: ignore[arg-type]


def test_hypothesis_items_do_reach_most_perturbations() -> None:
    reached = set()
    for name in NAMES:
        for item in (ITEM, SPANISH):
            try:
                apply(item, name, 0, PEERS)
            except NotApplicableError:
                continue
            reached.add(name)
    assert reached == set(NAMES)
