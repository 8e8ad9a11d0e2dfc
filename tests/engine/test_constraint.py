"""A compiled grammar allows exactly the texts of its pattern, however they are cut into tokens."""

import re
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.catalog import data_root
from medlocal.engine.constraint import CompiledGrammar, GrammarConstraint, TokenTable
from medlocal.errors import MedlocalError
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import load_items
from medlocal.evals.perturb import Variant, apply
from tests.fakes import END, NUM_VOCAB, ToyVocabulary, toy_text, toy_tokens

law = settings(max_examples=40, deadline=None)

ALPHABET = "ab\n"
STRINGS = ["".join(s) for n in range(6) for s in product(ALPHABET, repeat=n)]
LONGER = (b"ab", b"ba", b"aab", b"\na", b"b\n")


def table(*longer: bytes, mute: bytes = b"") -> TokenTable:
    """A vocabulary of the bytes and of some longer tokens, which its tokenizer prefers."""
    vocabulary = ToyVocabulary(longer, mute=mute)
    return TokenTable(vocabulary.pieces, (END,), vocabulary.tokenize)


BYTES, WITH_LONGER = table(), table(*LONGER)


@cache
def tokenizations(text: bytes) -> list[list[int]]:
    """Every way to write a text with the bytes and the longer tokens."""
    if not text:
        return [[]]
    first = [(text[0], 1)]
    first += [(NUM_VOCAB + i, len(p)) for i, p in enumerate(LONGER) if text.startswith(p)]
    return [[token, *rest] for token, n in first for rest in tokenizations(text[n:])]


def walk(grammar: CompiledGrammar, tokens: list[int]) -> GrammarConstraint | None:
    """The constraint behind some tokens, or None where one of them was masked."""
    constraint = grammar.start()
    for token in tokens:
        if token not in constraint.allowed():
            return None
        constraint.advance(token)
    return constraint


def is_accepted(grammar: CompiledGrammar, tokens: list[int]) -> bool:
    constraint = walk(grammar, tokens)
    if constraint is None:
        return False
    may_end = END in constraint.allowed()
    assert constraint.accepting() == may_end
    return may_end


def _combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.lists(parts, min_size=2, max_size=3).map(lambda p: "(" + "|".join(p) + ")")
        | st.lists(parts, min_size=2, max_size=3).map("".join)
        | st.tuples(parts, st.sampled_from("*+?")).map(lambda p: f"({p[0]}){p[1]}")
    )


# What the formats' patterns are made of: literals, alternatives, groups, negated classes, * + ?
# and a last $. None of them matches the empty text: Outlines' core refuses to compile such a one.
pieces = st.sampled_from(["a", "b", "ab", "ba", "\n", r"[^a\n]", r"[^b\n]"])
patterns = (
    st.recursive(pieces, _combined, max_leaves=6)
    .map(lambda p: f"{p}$")
    .filter(lambda p: re.fullmatch(p, "") is None)
)


@given(patterns)
@law
def test_the_mask_accepts_what_the_regular_expression_matches(pattern: str) -> None:
    grammar = CompiledGrammar(pattern, BYTES)
    accepted = [s for s in STRINGS if is_accepted(grammar, toy_tokens(s))]
    assert accepted == [s for s in STRINGS if re.fullmatch(pattern, s)]


@given(patterns)
@law
def test_how_a_text_is_cut_into_tokens_makes_no_difference(pattern: str) -> None:
    grammar = CompiledGrammar(pattern, WITH_LONGER)
    for string in STRINGS:
        expected = re.fullmatch(pattern, string) is not None
        for tokens in tokenizations(string.encode()):
            assert is_accepted(grammar, tokens) == expected, (string, tokens)


@given(patterns, st.sampled_from([BYTES, WITH_LONGER]))
@law
def test_every_accepted_text_goes_on_with_what_is_forced(pattern: str, of: TokenTable) -> None:
    grammar = CompiledGrammar(pattern, of)
    matching = [s.encode() for s in STRINGS if re.fullmatch(pattern, s)]
    for string in matching:
        tokens = toy_tokens(string)
        for n in range(len(tokens) + 1):
            constraint = walk(grammar, tokens[:n])
            assert constraint is not None
            forced = b"".join(of.pieces[t] for t in constraint.forced())
            assert string[n:].startswith(forced), (string[:n], forced)


@given(patterns, st.sampled_from([BYTES, WITH_LONGER]))
@law
def test_forced_tokens_are_allowed_one_by_one(pattern: str, of: TokenTable) -> None:
    constraint = CompiledGrammar(pattern, of).start()
    for token in constraint.forced():
        assert token in constraint.allowed()
        constraint.advance(token)


class TestFormats:
    """The patterns that are really used, on a question with every kind of character."""

    @pytest.fixture(scope="class")
    @staticmethod
    def variant() -> Variant:
        path = data_root() / "benchmarks" / "starter" / "items.jsonl"
        return apply(load_items(path, "starter", "test", "es")[0])

    @pytest.mark.parametrize("language", ["en", "es"])
    @pytest.mark.parametrize("name", FORMATS)
    def test_the_gold_answer_passes_and_a_spoilt_one_does_not(
        self, name: str, language: str, variant: Variant
    ) -> None:
        form = FORMATS[name]
        grammar = CompiledGrammar(form.pattern(variant, language), BYTES)
        text = form.render(variant, language)
        assert is_accepted(grammar, toy_tokens(text))
        for spoilt in ("", text[:-1], text[1:], f"{text}.", f" {text}"):
            expected = form.is_valid(spoilt, variant, language)
            assert is_accepted(grammar, toy_tokens(spoilt)) == expected, spoilt

    @pytest.mark.parametrize(
        ("name", "forced"),
        [
            ("letter", ""),
            ("phrase", "La respuesta es "),
            ("json", '{"answer": "'),
            ("tag", "<answer>"),
            ("reasoned", ""),
        ],
    )
    def test_what_stands_before_the_label_is_forced(
        self, name: str, forced: str, variant: Variant
    ) -> None:
        pattern = FORMATS[name].pattern(variant, "es")
        assert toy_text(CompiledGrammar(pattern, BYTES).start().forced()) == forced

    def test_a_reasoning_can_be_closed_once_it_has_begun(self, variant: Variant) -> None:
        form = FORMATS["reasoned"]
        closing = tuple(toy_tokens(form.closing("es")))
        grammar = CompiledGrammar(form.pattern(variant, "es"), BYTES, closing)
        at_the_start = grammar.start()
        inside = walk(grammar, toy_tokens("El paciente"))
        behind = walk(grammar, [*toy_tokens("El paciente"), *closing])
        assert inside is not None
        assert behind is not None
        assert at_the_start.closing() == ()
        assert inside.closing() == closing
        assert behind.closing() == ()
        assert toy_text(behind.forced()) == " "


def test_nothing_is_forced_where_the_text_may_end() -> None:
    constraint = CompiledGrammar("a(bc)?$", BYTES).start()
    assert toy_text(constraint.forced()) == "a"
    constraint.advance(ord("a"))
    assert constraint.forced() == ()
    assert constraint.allowed().tolist() == [ord("b"), END]


def test_forced_text_is_cut_as_the_tokenizer_cuts_it() -> None:
    constraint = CompiledGrammar("abba(a|b)$", table(b"ab", b"ba")).start()
    assert constraint.forced() == (NUM_VOCAB, NUM_VOCAB + 1)


def test_the_last_forced_token_is_left_to_the_model_where_a_longer_one_exists() -> None:
    grammar = CompiledGrammar('{"answer": "(A|B)"}$'.replace("{", r"\{"), table(b'"A', b'": '))
    constraint = grammar.start()
    assert toy_text([t for t in constraint.forced() if t < NUM_VOCAB]) == '{"answer'
    assert constraint.forced()[-1] == NUM_VOCAB + 1
    for token in constraint.forced():
        constraint.advance(token)
    assert constraint.allowed().tolist() == [ord('"'), NUM_VOCAB]


def test_a_tokenizer_that_writes_a_space_before_any_text_is_not_believed() -> None:
    def spaced(text: bytes) -> list[int]:
        return toy_tokens(b" " + text)

    of = TokenTable(ToyVocabulary((b"ab",)).pieces, (END,), spaced)
    assert CompiledGrammar("abb(a|b)$", of).start().forced() == (NUM_VOCAB, ord("b"))


def test_forcing_ends_where_the_text_has_no_end() -> None:
    forced = CompiledGrammar("a+ab$", BYTES).start().forced()
    assert toy_text(forced) == "aa"


def test_all_end_tokens_are_allowed_at_the_end_and_nowhere_else() -> None:
    vocabulary = ToyVocabulary()
    of = TokenTable(vocabulary.pieces, (END, END + 1), vocabulary.tokenize)
    constraint = CompiledGrammar("(a|b)$", of).start()
    assert constraint.allowed().tolist() == [ord("a"), ord("b")]
    constraint.advance(ord("b"))
    assert constraint.allowed().tolist() == [END, END + 1]


def test_two_texts_under_one_grammar_do_not_disturb_each_other() -> None:
    grammar = CompiledGrammar("(ab|ba)$", BYTES)
    first, second = grammar.start(), grammar.start()
    first.advance(ord("a"))
    assert second.allowed().tolist() == [ord("a"), ord("b")]
    assert first.allowed().tolist() == [ord("b")]


def test_a_masked_token_cannot_be_taken() -> None:
    with pytest.raises(AssertionError, match="was not allowed"):
        CompiledGrammar("a$", BYTES).start().advance(ord("b"))


def test_a_character_of_several_bytes_may_be_written_byte_by_byte() -> None:
    grammar = CompiledGrammar("(ñ|é)$", BYTES)
    assert toy_text(grammar.start().forced()) == "\N{REPLACEMENT CHARACTER}"
    assert is_accepted(grammar, toy_tokens("ñ"))
    assert not is_accepted(grammar, toy_tokens("ü"))


@pytest.mark.parametrize("pattern", [r"\{a\}$", "(a|", "a*$"])
def test_a_grammar_that_cannot_be_compiled_says_what_to_do(pattern: str) -> None:
    with pytest.raises(MedlocalError, match="cannot be compiled for this model's vocabulary") as e:
        CompiledGrammar(pattern, table(mute=b"{"))
    assert e.value.exit_code == 1
    assert e.value.hint is not None
    assert "--arms free,label" in e.value.hint
