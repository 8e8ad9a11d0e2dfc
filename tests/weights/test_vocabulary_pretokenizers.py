"""Recognising a pre-tokenizer by what it does, with llama.cpp as oracle of what its own ones do."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from medlocal.errors import RefusedError, UsageError
from medlocal.weights import pretokenizers
from medlocal.weights.pretokenizers import KNOWN, LLAMA_CPP_NAMES, PreTokenizer, probes
from medlocal.weights.vocabulary import Vocabulary, read_vocabulary
from tests.weights.tokenizer_values import (
    BYTES_ONLY,
    CONFIG,
    LLAMA3,
    NUM_BASE,
    LlamaVocab,
    added,
    bpe,
    byte_letters,
    loaded,
    sequence,
    split,
    write_folder,
    write_vocabulary,
)

MODEL = {"vocab_size": NUM_BASE + 8, "bos_token_id": NUM_BASE, "eos_token_id": NUM_BASE + 1}
Read = Callable[[dict[str, Any]], Vocabulary]

GPT2 = {**BYTES_ONLY, "use_regex": True}
GPT2_EXPRESSION = r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_OTHERWISE = LLAMA3.replace("'s|'t|'re|'ve|'m|'ll|'d", "'[stmd]|'re|'ve|'ll")
DIGITS = {"type": "Digits", "individual_digits": True}
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(tokenizer: dict[str, Any]) -> Vocabulary:
        folder = write_folder(
            tmp_path / "checkpoint", tokenizer__json=tokenizer, tokenizer_config__json=CONFIG
        )
        return read_vocabulary(folder, MODEL, {})

    return write_and_read


# As the tokenizer.json of Llama 3, of a Llama 3 whose merges were kept, of GPT-2, SmolLM, Qwen2, Mistral
# Nemo and Falcon describe them, and in other words for the same.
@pytest.mark.parametrize(
    ("steps", "ignore_merges", "name"),
    [
        ([split(LLAMA3), BYTES_ONLY], True, "llama-bpe"),
        ([split(LLAMA3), BYTES_ONLY], False, "smaug-bpe"),
        ([split(LLAMA3_OTHERWISE), BYTES_ONLY], True, "llama-bpe"),
        ([GPT2], False, "gpt-2"),
        ([split(GPT2_EXPRESSION), BYTES_ONLY], False, "gpt-2"),
        ([DIGITS, GPT2], False, "smollm"),
        ([split(QWEN2), BYTES_ONLY], False, "qwen2"),
        ([split(TEKKEN), BYTES_ONLY], True, "tekken"),
        (
            [
                {"type": "Punctuation", "behavior": "Contiguous"},
                GPT2,
                split("[0-9][0-9][0-9]"),
            ],
            False,
            "falcon",
        ),
        (
            [
                split(r"[\p{P}\$\+<=>\^~\|]+"),
                split(GPT2_EXPRESSION),
                {**DIGITS, "individual_digits": False},
                split("[0-9][0-9][0-9]"),
                BYTES_ONLY,
            ],
            False,
            "default",
        ),
    ],
)  # fmt: skip
def test_recognises_what_it_does(
    read: Read, steps: list[Any], ignore_merges: bool, name: str
) -> None:
    tokenizer = bpe(pre_tokenizer=sequence(*steps), ignore_merges=ignore_merges)

    assert read(tokenizer).pre == name


def test_a_llama_3_with_other_tokens_added_keeps_its_pre_tokenizer(read: Read) -> None:
    tokenizer = bpe(
        *(added(NUM_BASE + 2 + n, text) for n, text in enumerate(["<|nota|>", "<informe>", "Fin"])),
        merges=[["Ġ", "a"]],
    )

    assert read(tokenizer).pre == "llama-bpe"


def test_an_unknown_one_is_refused_with_what_was_seen_and_how_to_go_on(read: Read) -> None:
    unknown = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}{1,2}")

    with pytest.raises(RefusedError) as caught:
        read(bpe(pre_tokenizer=sequence(split(unknown), BYTES_ONLY)))

    message, hint = caught.value.message, caught.value.hint or ""
    assert json.dumps(unknown) in message
    assert "the nearest is llama-bpe" in message
    assert "cuts '123' into ['123'], and this one into ['12', '3']" in message
    assert "--pre NAME" in hint
    assert "smaug-bpe" in hint


def test_none_at_all_is_unknown(read: Read) -> None:
    with pytest.raises(RefusedError, match="none that is known here: null"):
        read(bpe(pre_tokenizer=None))


def test_one_that_adds_a_space_is_unknown(read: Read) -> None:
    with pytest.raises(RefusedError, match="none that is known here"):
        read(bpe(pre_tokenizer={**GPT2, "add_prefix_space": True}))


def test_an_expression_without_end_is_refused(read: Read) -> None:
    with pytest.raises(RefusedError, match=r"cannot be read as a tokenizer: .*retry-limit"):
        read(bpe(pre_tokenizer=sequence(split("(?:.+.*)+(?<=q)"), BYTES_ONLY)))


def test_slow_expressions_are_refused(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretokenizers, "_MAX_SECONDS", -1.0)

    with pytest.raises(RefusedError, match="takes too long"):
        read(bpe())


def test_notes_tokens_to_which_no_merging_leads(read: Read) -> None:
    tokenizer = bpe(
        pre_tokenizer=sequence(DIGITS, GPT2), ignore_merges=True, merges=[["Ġ", "a"], ["r", "e"]]
    )

    found = read(tokenizer)

    assert found.pre == "smollm"
    assert found.notes == (
        "merging does not lead to 1 tokens; llama.cpp merges them all the same where they are whole"
        " words",
    )


def test_a_rule_for_whole_words_that_changes_nothing_is_no_matter(read: Read) -> None:
    found = read(bpe(pre_tokenizer=sequence(DIGITS, GPT2), ignore_merges=True))

    assert (found.pre, found.notes) == ("smollm", ())


# llama.cpp as oracle.


@cache
def joining_everything() -> dict[str, Any]:
    """A BPE model that joins all letters of a short text, so that only cuts keep them apart."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.train_from_iterator(
        probes(),
        BpeTrainer(
            vocab_size=40_000,
            min_frequency=1,
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def different(known: PreTokenizer, folder: Path, texts: Sequence[str]) -> Iterator[str]:
    """The texts of which llama.cpp makes other tokens than the library does."""
    from tokenizers import Tokenizer

    model = joining_everything()
    tokenizer = bpe(
        pre_tokenizer=sequence(*map(split, known.stages), BYTES_ONLY),
        ignore_merges=known.takes_whole_words,
        vocab=model["vocab"],
        merges=model["merges"],
        added_tokens=[],
    )
    library = Tokenizer.from_str(json.dumps(tokenizer))
    with named(known.name, folder, model) as vocabulary:
        for text in texts:
            if vocabulary.tokenize(text) != library.encode(text, add_special_tokens=False).ids:
                yield text


def named(name: str, folder: Path, model: dict[str, Any]) -> Any:
    """A vocabulary of llama.cpp's with a pre-tokenizer of that name."""
    from gguf import GGUFValueType as Kind

    tokens = [*sorted(model["vocab"], key=model["vocab"].__getitem__), "<s>", "</s>"]
    merges = [" ".join(merge) for merge in model["merges"]]
    return loaded(
        write_vocabulary(
            folder / "named.gguf",
            [
                ("tokenizer.ggml.model", "gpt2", Kind.STRING),
                ("tokenizer.ggml.pre", name, Kind.STRING),
                ("tokenizer.ggml.tokens", tokens, Kind.ARRAY),
                ("tokenizer.ggml.token_type", [1] * (len(tokens) - 2) + [3, 3], Kind.ARRAY),
                ("tokenizer.ggml.merges", merges, Kind.ARRAY),
                ("tokenizer.ggml.bos_token_id", len(tokens) - 2, Kind.UINT32),
                ("tokenizer.ggml.eos_token_id", len(tokens) - 1, Kind.UINT32),
            ],
        )
    )


@pytest.mark.parametrize(
    "known", [known for known in KNOWN if not known.note], ids=lambda known: known.name
)
def test_llama_cpp_cuts_every_probe_as_its_expressions_here(
    known: PreTokenizer, tmp_path: Path
) -> None:
    assert list(different(known, tmp_path, probes())) == []


@pytest.mark.parametrize(
    "known", [known for known in KNOWN if known.note], ids=lambda known: known.name
)
def test_llama_cpp_differs_only_where_the_note_says(known: PreTokenizer, tmp_path: Path) -> None:
    # "SÉS" is one word, of which llama.cpp cuts the last letter off. Its search is slow, so a few.
    texts = ("SÉS", *probes()[::20])

    found = list(different(known, tmp_path, texts))

    assert found[0] == "SÉS"
    assert not any(text.isascii() for text in found)


def test_every_name_that_a_user_may_choose_loads_in_llama_cpp(tmp_path: Path) -> None:
    vocab = {text: number for number, text in enumerate(byte_letters())}
    model = {"vocab": {**vocab, "<mask>": 256}, "merges": [["Ġ", "a"]]}

    for name in sorted(LLAMA_CPP_NAMES):
        with named(name, tmp_path, model) as vocabulary:
            assert isinstance(vocabulary, LlamaVocab), name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lama-bpe", "did you mean llama-bpe or smaug-bpe?"),
        *(
            (name, "those of the best-known models: llama-bpe, smaug-bpe, smollm, gpt-2, qwen2,"
             " tekken, gpt-4o, falcon, default")
            for name in ("", "nonsense")
        ),
    ],
)  # fmt: skip
def test_a_name_that_is_unknown_is_answered_with_few(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        pretokenizers.named(name)
    assert caught.value.message == f"no pre-tokenizer of llama.cpp is called {name!r}"
    assert caught.value.hint == hint
