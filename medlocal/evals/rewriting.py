"""Perturbations of content: other options, another stem, another language.

What is drawn from (drug names, sentences, keyboards) and which parts of a text must not be touched
(numbers, units, drug names) stand in `wordlists`. A change that may make another option right marks
the variant as unverified, unless the set says that somebody checked it.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from medlocal.errors import UsageError, unknown_name
from medlocal.evals.crossreferences import names_labels, speaks_of_options
from medlocal.evals.items import LETTERS, NOTA_VERIFIED
from medlocal.evals.renaming import rename_drugs
from medlocal.evals.stems import KEPT_WORDS, asks_for_what_is_not, boundaries
from medlocal.evals.steps import perturbation
from medlocal.evals.variant import Draw, NotApplicableError, Peers, Variant
from medlocal.evals.wordlists import neighbours, protected_spans, sentences, symbol_spans

NOTA = {
    "en": "None of the other options is correct",
    "es": "Ninguna de las otras opciones es correcta",
}
"""None of the others. It names no place, so that it may stand in any slot."""

HIDDEN = {"en": "[The question is hidden.]", "es": "[La pregunta está oculta.]"}

_NEGATION = {
    "en": "Choose all the options that do NOT correctly answer this question; exactly one of them"
    " does, and it must be left out.",
    "es": "Elige todas las opciones que NO responden correctamente a esta pregunta; exactamente una"
    " sí lo hace, y hay que dejarla fuera.",
}
_OTHER = {"en": "es", "es": "en"}

_WORD = re.compile(r"[^\W\d_]{4,}")
_SHORT = 4
"""Fewer letters of both cases are an abbreviation whose case tells what it is: pH, IgA."""


def _spoken(texts: Mapping[str, str], language: str) -> str:
    if language not in texts:
        raise unknown_name("language of a perturbation", language, texts)
    return texts[language]


@perturbation(
    "instruction_language",
    family="language",
    does="asks in the other language; stem and options stay in theirs",
    gold="stays in its slot",
    back="label to slot",
    shapes_answer=True,
)
def _instruction_language(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return replace(variant, prompt_language=_spoken(_OTHER, variant.prompt_language))


@perturbation(
    "parallel",
    family="language",
    does="shows the same question in the other language, asked in that language",
    gold="stays in its slot",
    back="label to slot; parallel items have their options in the same order",
    needs_peers=True,
    # An example under a prompt in the other language must be in that language too.
    shapes_answer=True,
)
def _parallel(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    item, other = variant.item, _spoken(_OTHER, variant.language)
    twin = peers.translation(item, other)
    if twin is None:
        raise NotApplicableError(f"the set has no parallel item in {other!r}")
    if twin.gold != item.gold or len(twin.options) != len(item.options):
        raise NotApplicableError("the parallel item has another gold or other options")
    return replace(
        variant,
        stem=twin.stem,
        context=twin.context,
        options=twin.options,
        language=other,
        prompt_language=other,
    )


@perturbation(
    "nota_replaces_gold",
    family="option",
    does="puts none-of-the-others in the place of the right option",
    gold="is none-of-the-others; unverified unless the set says that the others are all wrong",
    back="none-of-the-others stands for the right option",
    version=2,
)
def _nota_replaces_gold(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    _check_speaks_not(variant)
    options = list(variant.options)
    options[variant.gold] = _spoken(NOTA, variant.language)
    # What was checked are the options in one language: of the parallel item, those of the parallel item.
    shown = variant.item
    if variant.language != variant.item.language:
        shown = peers.translation(variant.item, variant.language) or variant.item
    verified = NOTA_VERIFIED in shown.flags and shown.language == variant.language
    return replace(variant, options=tuple(options), verified=variant.verified and verified)


@perturbation(
    "nota_added",
    family="option",
    does="adds none-of-the-others as a last, wrong option: the control of nota_replaces_gold",
    gold="stays in its slot",
    back="none-of-the-others is none of the item's options",
)
def _nota_added(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    _check_speaks_not(variant)
    if len(variant.options) >= len(LETTERS):
        raise NotApplicableError("there is no label for one more option")
    labels = LETTERS[: len(variant.options) + 1]
    return replace(
        variant,
        labels=tuple(labels),
        replies=tuple(labels),
        options=(*variant.options, _spoken(NOTA, variant.language)),
        origin=(*variant.origin, -1),
    )


def _check_speaks_not(variant: Variant) -> None:
    if any(map(speaks_of_options, variant.options)) or names_labels(variant.options):
        raise NotApplicableError("an option already speaks of the other options")


@perturbation(
    "drop_distractor",
    family="option",
    does="takes one wrong option away",
    gold="keeps its option; its slot may move up by one",
    back="slot to option by the order shown",
    is_seeded=True,
)
def _drop_distractor(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    _check_speaks_not(variant)
    if len(variant.options) < 3:
        raise NotApplicableError("fewer than two options would be left")
    gone = draw.pick(_distractors(variant))
    kept = [slot for slot in range(len(variant.options)) if slot != gone]
    return replace(
        variant,
        labels=variant.labels[: len(kept)],
        replies=variant.labels[: len(kept)],
        options=tuple(variant.options[slot] for slot in kept),
        origin=tuple(variant.origin[slot] for slot in kept),
        gold=kept.index(variant.gold),
    )


@perturbation(
    "foreign_distractor",
    family="option",
    does="puts a wrong option of another item of the subject in the place of a wrong one",
    gold="stays in its slot; unverified, because the newcomer may be right here",
    back="the newcomer is none of the item's options",
    is_seeded=True,
    needs_peers=True,
)
def _foreign_distractor(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    _check_speaks_not(variant)
    shown = {option.casefold() for option in variant.options}
    found = {
        option
        for other in peers.of_subject(variant.item, variant.language)
        for slot, option in enumerate(other.options)
        if slot != other.gold and option.casefold() not in shown and not speaks_of_options(option)
    }
    if not found:
        raise NotApplicableError("no other item of the subject has a wrong option to lend")
    slot = draw.pick(_distractors(variant))
    options, origin = list(variant.options), list(variant.origin)
    options[slot], origin[slot] = draw.pick(sorted(found)), -1
    return replace(variant, options=tuple(options), origin=tuple(origin), verified=False)


def _distractors(variant: Variant) -> list[int]:
    return [slot for slot in range(len(variant.options)) if slot != variant.gold]


@perturbation(
    "negated",
    family="question",
    does="asks for all the options that do not answer the question: several labels",
    gold="every option but the right one",
    back="the one label that is left out, to slot; an answer that leaves out more or none names none",
    shapes_answer=True,
)
def _negated(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    _check_speaks_not(variant)
    if asks_for_what_is_not(variant.stem):
        raise NotApplicableError("the stem already asks for what is not so")
    stem = f"{variant.stem}\n{_spoken(_NEGATION, variant.language)}"
    return replace(variant, stem=stem, asks="several")


@perturbation(
    "irrelevant_sentence",
    family="question",
    does="adds a sentence that has nothing to do with the question, before its last sentence",
    gold="stays in its slot",
    back="label to slot",
    is_seeded=True,
    version=2,
)
def _irrelevant_sentence(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    sentence = draw.pick(sentences(variant.language))
    at = max(boundaries(variant.stem), default=0)
    return replace(variant, stem=f"{variant.stem[:at]}{sentence} {variant.stem[at:]}")


def _read_rate(argument: str) -> str:
    try:
        rate = float(argument)
    except ValueError:
        rate = 0.0
    if not 0.01 <= rate <= 0.5:
        raise UsageError(f"typos({argument}): a share of the words, from 0.01 to 0.5")
    return f"{rate:g}"


@perturbation(
    "typos",
    family="question",
    does="replaces a letter by its neighbour on the keyboard in a share of the stem's longer words, "
    "never in numbers, units, abbreviations or drug names, and not in a word that negates",
    gold="stays in its slot",
    back="label to slot",
    is_seeded=True,
    version=2,
    arguments=("0.05", "0.1", "0.2"),
    reads=_read_rate,
)
def _typos(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    stem = variant.stem
    spans = protected_spans(stem, variant.language)
    words = [
        found.span()
        for found in _WORD.finditer(stem)
        if found[0].casefold() not in KEPT_WORDS
        and not any(start < found.end() and found.start() < end for start, end in spans)
    ]
    if not words:
        raise NotApplicableError("the stem has no word that may be mistyped")
    num_typos = max(1, round(float(argument) * len(words)))
    characters = list(stem)
    for start, end in sorted(draw.shuffled(words)[:num_typos]):
        _mistype(characters, start, end, variant.language, draw)
    return replace(variant, stem="".join(characters))


def _mistype(characters: list[str], start: int, end: int, language: str, draw: Draw) -> None:
    """Replace one letter behind the first by a neighbour on the keyboard, in its case."""
    keys = neighbours(language)
    places = [at for at in range(start + 1, end) if keys.get(characters[at].lower())]
    if places:
        at = draw.pick(places)
        typed = draw.pick(keys[characters[at].lower()])
        characters[at] = typed.upper() if characters[at].isupper() else typed


@perturbation(
    "upper",
    family="question",
    does="writes the stem in capital letters; numbers and units stay as they are",
    gold="stays in its slot",
    back="label to slot",
    version=2,
)
def _upper(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    stem, done, at = variant.stem, [], 0
    # In capitals a milligram would be a megagram.
    for start, end in _units(stem, variant.language):
        done += [stem[at:start].upper(), stem[start:end]]
        at = end
    return replace(variant, stem="".join([*done, stem[at:].upper()]))


def _units(text: str, language: str) -> list[tuple[int, int]]:
    """Numbers, units and signs, and short words in letters of both cases, such as pH."""
    symbols = symbol_spans(text)
    words = protected_spans(text, language)
    short = [
        (start, end) for start, end in words if end - start < _SHORT and text[start:end].isalpha()
    ]
    apart = [span for span in short if not any(a < span[1] and span[0] < b for a, b in symbols)]
    return sorted([*symbols, *apart])


@perturbation(
    "drug_names",
    family="question",
    does="writes brand names for generic names of drugs and generic names for brands",
    gold="stays in its slot",
    back="label to slot",
    is_seeded=True,
    version=2,
)
def _drug_names(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    stem, options = rename_drugs(variant.stem, variant.options, variant.language, draw)
    if (stem, options) == (variant.stem, variant.options):
        raise NotApplicableError("no drug that has another name stands in it")
    return replace(variant, stem=stem, options=options)


@perturbation(
    "hidden",
    family="question",
    does="hides the stem and the passage: a control that shows what the options alone give away",
    gold="stays in its slot",
    back="label to slot",
)
def _hidden(variant: Variant, argument: str, draw: Draw, peers: Peers) -> Variant:
    return replace(variant, stem=_spoken(HIDDEN, variant.language), context="")
