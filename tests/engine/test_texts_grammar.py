"""A grammar of a few listed texts allows what Outlines' automaton of the same pattern allows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.engine.constraint import CompiledGrammar, TokenTable
from medlocal.errors import MedlocalError
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import Item
from medlocal.evals.perturb import apply
from tests.fakes import END, NUM_VOCAB, ToyVocabulary, toy_tokens

law = settings(max_examples=60, deadline=None)

ENDS = (END, END + 1)


def table(*longer: bytes, mute: bytes = b"") -> TokenTable:
    """A vocabulary of the bytes and of some longer tokens; several may have the same text."""
    vocabulary = ToyVocabulary(longer, mute=mute)
    return TokenTable(vocabulary.pieces, ENDS, vocabulary.tokenize)


def pattern_of(texts: Sequence[str]) -> str:
    return f"({'|'.join(map(re.escape, texts))})$"


@dataclass(frozen=True)
class Case:
    texts: tuple[str, ...]
    longer: tuple[bytes, ...]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Texts that share beginnings, and tokens that are pieces of them, across characters and ends."""
    word = st.text(st.sampled_from("abñ€ ."), min_size=1, max_size=5)
    texts = tuple(draw(st.lists(word, min_size=1, max_size=4, unique=True)))
    longer = []
    for _ in range(draw(st.integers(0, 8))):
        text = draw(st.sampled_from(texts)).encode()
        start = draw(st.integers(0, len(text) - 1))
        piece = text[start : start + draw(st.integers(1, 4))]
        longer.append(piece + draw(st.sampled_from([b"", b"", b"a", b"\xc3"])))
    return Case(texts, tuple(longer))


def assert_equal_everywhere(listed: CompiledGrammar, oracle: CompiledGrammar) -> int:
    """Walk both grammars together through every state that can be reached; returns how many."""
    seen: set[tuple[int, int]] = set()
    waiting = [(listed.start().state, oracle.start().state)]
    while waiting:
        states = waiting.pop()
        if states in seen:
            continue
        seen.add(states)
        mine, other = listed.look(states[0]), oracle.look(states[1])
        assert listed.is_final(states[0]) == oracle.is_final(states[1])
        assert mine.allowed.tolist() == other.allowed.tolist()
        assert mine.forced == other.forced
        for token in listed.table.pieces:
            after = listed.next_state(states[0], token), oracle.next_state(states[1], token)
            assert (after[0] is None) == (after[1] is None)
            if after[0] is not None and after[1] is not None:
                waiting.append((after[0], after[1]))
    return len(seen)


@law
@given(cases())
def test_in_every_state_it_allows_and_forces_what_the_automaton_does(case: Case) -> None:
    of = table(*case.longer)
    listed = CompiledGrammar(pattern_of(case.texts), of, texts=case.texts)
    assert assert_equal_everywhere(listed, CompiledGrammar(listed.pattern, of)) > 1


def test_texts_that_begin_another_end_where_they_end() -> None:
    texts = ("2 mg", "2 mg/kg", "2")
    of = table(b"2 mg", b" m", b"mg/", b"g/kg")
    listed = CompiledGrammar(pattern_of(texts), of, texts=texts)
    assert assert_equal_everywhere(listed, CompiledGrammar(listed.pattern, of)) > 5
    constraint = listed.start()
    constraint.advance(NUM_VOCAB)
    assert constraint.accepting()
    assert constraint.allowed().tolist() == [ord("/"), END, END + 1]


def test_a_token_from_which_no_text_can_be_ended_is_not_allowed() -> None:
    """Without the byte c, "abc" must be entered by the token that holds it: "ab" leads nowhere."""
    listed = CompiledGrammar("(abc|b)$", table(b"ab", b"bc", mute=b"c"), texts=("abc", "b"))
    start = listed.start()
    assert start.allowed().tolist() == [ord("a"), ord("b")]
    start.advance(ord("a"))
    assert start.allowed().tolist() == [NUM_VOCAB + 1]


def test_tokens_with_the_same_text_are_all_allowed() -> None:
    listed = CompiledGrammar("(ab|b)$", table(b"ab", b"ab", b"b"), texts=("ab", "b"))
    expected = [ord("a"), ord("b"), NUM_VOCAB, NUM_VOCAB + 1, NUM_VOCAB + 2]
    assert listed.start().allowed().tolist() == expected


def test_a_character_may_be_cut_between_tokens() -> None:
    listed = CompiledGrammar("(ñu|né)$", table(b"n\xc3", b"\xb1u"), texts=("ñu", "né"))
    constraint = listed.start()
    for token in (0xC3, NUM_VOCAB + 1):
        constraint.advance(token)
    assert constraint.accepting()


@pytest.mark.parametrize("texts", [("ab", "cab"), ("c",), ("ñ", "a")])
def test_a_text_that_the_vocabulary_cannot_spell_is_an_error_with_a_way_out(
    texts: tuple[str, ...],
) -> None:
    """The automaton would leave such a text out and say nothing, where others can be spelled."""
    with pytest.raises(MedlocalError, match=r"no tokens spell '[cñ]") as caught:
        CompiledGrammar(pattern_of(texts), table(b"ab", mute="cñ".encode()), texts=texts)
    assert caught.value.hint is not None
    assert "--arms free,label" in caught.value.hint


QUESTION = Item(
    id="1",
    dataset="made",
    split="test",
    language="es",
    stem="¿Cuál?",
    options=("Ácido fólico 5 mg", "Ácido fólico 5 mg/día", 'Vitamina "B12"', "(ninguno)"),
    gold=1,
    subject="any",
    group="made/1",
)


@pytest.mark.parametrize("form", ["letter", "phrase", "json", "tag", "text"])
@pytest.mark.parametrize("name", ["original", "text_not_label", "negated", "sorted_wrong_labels"])
def test_the_formats_lists_and_patterns_are_one_grammar(form: str, name: str) -> None:
    variant = apply(QUESTION, name)
    texts = FORMATS[form].texts(variant, "es")
    of = table(b'": "', b'"A', b", ", b"A, ", b"cido f", b"es ", "día".encode(), b"5 mg")
    listed = CompiledGrammar(FORMATS[form].pattern(variant, "es"), of, texts=texts)
    assert_equal_everywhere(listed, CompiledGrammar(listed.pattern, of))
    for text in texts:
        state = listed.walk(0, toy_tokens(text))
        assert state is not None
        assert listed.is_final(state)
