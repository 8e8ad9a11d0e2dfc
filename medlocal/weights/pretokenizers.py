"""Which of llama.cpp's pre-tokenizers does what a checkpoint's tokenizer does.

A pre-tokenizer cuts a text into words before BPE joins letters inside them. llama.cpp has its own,
by name; a checkpoint describes its own by structure. A wrong name costs accuracy without a word, so
the two are compared by what they do: both cut the same 23,000 short texts, and all cuts must agree.
A checkpoint that was trained further, with other tokens added, keeps its pre-tokenizer and is
recognised. Of several names under which llama.cpp does the same, one is written.

Where merging leads matters only for words that are tokens; of the vocabulary nothing else is known.
"""

import difflib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from medlocal.errors import RefusedError, UsageError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"
_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{_SIGNS}|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_LEAD}\p{{L}}+|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|{_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|{_LEAD}\p{{L}}+|\p{{N}}|{_SIGNS}[\r\n]*|{_SPACES}"
_TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}|{_SIGNS}[\r\n/]*|{_SPACES}"
_GPT4O = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_SIGNS}[\r\n/]*|{_SPACES}"
)
_CASE = (
    "llama.cpp takes a letter beyond A-Z for upper and lower case at once where words end at a change"
    " of case: words such as CORAZÓN or AÑOS can become other tokens than in training"
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One of llama.cpp's pre-tokenizers."""

    name: str
    stages: tuple[str, ...]
    """Regular expressions in Oniguruma's syntax; each cuts the pieces that the one before left."""
    takes_whole_words: bool = False
    """A word that is a token is taken as it is, whether or not merges lead there."""
    note: str = ""
    """Where llama.cpp is known to differ from these expressions; "" = nowhere."""


KNOWN = (
    PreTokenizer("llama-bpe", (_LLAMA3,), takes_whole_words=True),
    PreTokenizer("smaug-bpe", (_LLAMA3,)),
    PreTokenizer("smollm", (r"\p{N}", _GPT2)),
    PreTokenizer("gpt-2", (_GPT2,)),
    PreTokenizer("qwen2", (_QWEN2,)),
    PreTokenizer("tekken", (_TEKKEN,), takes_whole_words=True, note=_CASE),
    PreTokenizer("gpt-4o", (_GPT4O,), note=_CASE),
    PreTokenizer("falcon", (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    PreTokenizer(
        "default",
        (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ),
)
"""Those that are recognised. Of names that do the same, the one of the best-known model."""

LLAMA_CPP_NAMES = frozenset({
    *("a.x-4.0", "afmoe", "bailingmoe", "bailingmoe2", "bloom", "chameleon", "chatglm-bpe"),
    *("codeshell", "cohere2moe", "command-r", "dbrx", "deepseek-coder", "deepseek-llm"),
    *("deepseek-r1-qwen", "deepseek-v3", "default", "exaone", "exaone-moe", "exaone4"),
    *("f2llmv2", "falcon", "falcon-h1", "falcon3", "gemma4", "gigachat", "glm4", "glm5"),
    *("gpt-2", "gpt-4o", "gpt3-finnish", "granite-docling", "granite-embed-multi-311m"),
    *("granite-embed-multi-97m", "grok-2", "hunyuan", "hunyuan-dense", "hy_v4", "jais"),
    *("jais-2", "jina-de", "jina-es", "jina-v1-en", "jina-v2-code", "jina-v2-de"),
    *("jina-v2-es", "jina-v5-nano", "joyai-llm", "kanana2", "kimi-k2", "kormo", "laguna"),
    *("lfm2", "llada-moe", "llama-bpe", "llama-v3", "llama3", "llama4", "megrez", "mellum"),
    *("mellum2", "midm-2.0", "minerva-7b", "minicpm5", "minimax-m2", "modern-bert", "mpt"),
    *("olmo", "phi-2", "pixtral", "poro-chat", "qwen2", "qwen35", "refact", "roberta-bpe"),
    *("sarvam-moe", "seed-coder", "smaug-bpe", "smollm", "solar-open", "spark2_5"),
    *("stablelm2", "starcoder", "superbpe", "talkie", "tekken", "tiny_aya", "trillion"),
    *("ufakzeka", "viking", "whitespace", "youtu"),
})  # fmt: skip
"""Every name that this build of llama.cpp knows."""

_LETTERS = "aAéÉsSñ1²٣ \n\r\t'-_./$`中\u0301\u00a0🙂ʰǅ<"
"""One of each class of characters that any of the expressions tells apart, and some more."""
_TEXTS = (
    *("1", "12", "123", "1234", "12345", "123456", "1234567", "12345678", "123456789"),
    *("I'll", "WE'RE", "they've d'L", "'S'T'M'D", "y'all're", "l'été", "d'Éc"),
    *("HbA1c 7,5 %", "pH=7.35", "120/80 mmHg\n\n", "3-4 mg/kg/día\r\n", "±0,2 µg/dL (n=12)"),
    *("¿Qué años tiene?", "CORAZÓN AÑOS", "El niño bebió 250 ml.", "TroponinaT", "iPhoneX"),
    *("a\n\n\nb", "a  \n  b", " \n \n", "\n ", "\t\tx", "a   b", "   ", "a ", "\r\n\r\n x"),
    *("// a\n", "a/b//\n/", "...\n\n.", "```py\n", "<|x|>", "!!!!!!", "x=$1+2", "_x__1_"),
    *("中文字123abc", "សួស្តី", "नमस्ते", "👩‍⚕️🚑", "ﬁ½Ⅳ", "a\u2003b\u3000c", "e\u0301A\u0301", "x\x85y"),
)
_ALIKE = 0.7
"""From here on, of at most 1, a mistyped name is taken for a known one."""
_MAX_SECONDS = 30.0
"""For all texts. A regular expression can be made to take as long as it likes."""

_Cut = Callable[[str], list[str]]


def named(name: str) -> str:
    """The name of a pre-tokenizer that a user chose.

    Raises:
        UsageError: llama.cpp has none of that name.
    """
    if name not in LLAMA_CPP_NAMES:
        near = difflib.get_close_matches(name, sorted(LLAMA_CPP_NAMES), cutoff=_ALIKE)
        usual = f"those of the best-known models: {', '.join(known.name for known in KNOWN)}"
        raise UsageError(
            f"no pre-tokenizer of llama.cpp is called {name!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else usual,
        )
    return name


def recognise(library: Any, origin: Path, structure: str) -> PreTokenizer:
    """Find the pre-tokenizer that cuts as a tokenizer does.

    Args:
        library: a `tokenizers.Tokenizer` of the kind BPE.
        origin: its file, for messages.
        structure: how the file describes it, for messages.

    Raises:
        RefusedError: none does; the message says what was seen.
    """
    cut = _cutter(library)
    # Some differ only in what they do with whole words.
    agrees = {
        known.stages: _first_difference(cut, reference(known), origin) is None
        for known in {known.stages: known for known in KNOWN}.values()
    }
    alike = [known for known in KNOWN if agrees[known.stages]]
    for known in alike:
        if known.takes_whole_words == library.model.ignore_merges:
            return known
    if not alike:
        raise _unknown(cut, origin, structure)
    return replace(alike[0], note="; ".join(filter(None, [alike[0].note, _whole_words(library)])))


@cache
def probes() -> tuple[str, ...]:
    """The texts that are cut, short ones first."""
    return (*_TEXTS, *_short_texts())


def reference(known: PreTokenizer) -> _Cut:
    """How a known pre-tokenizer cuts a text, in the letters that stand for bytes."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    stages = [Split(Regex(stage), "isolated") for stage in known.stages]
    bytes_only = ByteLevel(add_prefix_space=False, use_regex=False)
    return _pieces_of(Sequence([*stages, bytes_only]))


def _short_texts() -> Iterator[str]:
    for length in (1, 2, 3):
        for letters in itertools.product(_LETTERS, repeat=length):
            yield "".join(letters)


def _cutter(library: Any) -> _Cut:
    before = library.pre_tokenizer
    return _pieces_of(before) if before is not None else lambda text: [text]


def _pieces_of(cutter: Any) -> _Cut:
    return lambda text: [piece for piece, _ in cutter.pre_tokenize_str(text)]


def _first_difference(cut: _Cut, other: _Cut, origin: Path) -> str | None:
    """The first text that two cut differently; None where they agree on all."""
    deadline = time.monotonic() + _MAX_SECONDS
    for text in probes():
        if cut(text) != other(text):
            return text
        if time.monotonic() > deadline:
            raise RefusedError(
                f"{origin}: the pre-tokenizer takes too long to cut short texts into words",
                hint="its regular expression is broken or hostile: get the tokenizer again",
            )
    return None


def _whole_words(library: Any) -> str:
    """A note where llama.cpp's rule for whole words is another and that makes a difference."""
    model, vocabulary = library.model, library.get_vocab(with_added_tokens=False)
    added = library.get_added_tokens_decoder()
    usual = model.ignore_merges
    model.ignore_merges = False
    try:
        num_apart = sum(
            [token.id for token in model.tokenize(text)] != [token_id]
            for text, token_id in vocabulary.items()
            if token_id not in added
        )
    finally:
        model.ignore_merges = usual
    if num_apart == 0:
        return ""
    rule = "merges them all the same" if usual else "takes them as they are"
    return (
        f"merging does not lead to {num_apart} tokens; llama.cpp {rule} where they are whole words"
    )


def _unknown(cut: _Cut, origin: Path, structure: str) -> RefusedError:
    return RefusedError(
        f"{origin}: the pre-tokenizer is none that is known here: {structure}; {_nearest(cut)}",
        hint="if you know which of llama.cpp's does the same, name it with --pre NAME (recognised"
        f" by themselves: {', '.join(known.name for known in KNOWN)})",
    )


def _nearest(cut: _Cut) -> str:
    """The known one that agrees on most texts, and a text on which it does not."""
    texts = probes()
    cuts = [cut(text) for text in texts]
    differing = {}
    for known in KNOWN:
        other = reference(known)
        differing[known] = [n for n, text in enumerate(texts) if other(text) != cuts[n]]
    known = min(differing, key=lambda each: len(differing[each]))
    number = differing[known][0]
    return (
        f"the nearest is {known.name}, which cuts {texts[number]!r} into"
        f" {reference(known)(texts[number])}, and this one into {cuts[number]}"
    )
