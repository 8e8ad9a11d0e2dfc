#!/usr/bin/env python3
"""Remake what the tests of `medlocal convert` are compared with: other people's conversions.

    python tools/golden_conversions.py --upstream LLAMA_CPP --python PYTHON

LLAMA_CPP is the folder of llama.cpp in llama-cpp-python's source distribution (`vendor/llama.cpp`);
PYTHON is an interpreter with torch, transformers, sentencepiece and gguf, which the project itself
never imports. Every checkpoint of `tests/weights/tiny_checkpoints.py` is converted to every type by
llama.cpp's `convert_hf_to_gguf.py`; what comes out goes into `tests/data/conversions/`:

    golden.json   of every file its keys with their values, its tensors with their hashes
    logits.npz    what transformers computes for some of the checkpoints, in single precision
    rope.json     the factors by which Llama 3.1 and 3.2 stretch their positions

One thing of the converter is replaced: it recognises a BPE pre-tokenizer by the hash of what a
whole vocabulary makes of one text, which no tiny vocabulary can have, so it is told "llama-bpe".

With `--tokenizers` the two tokenizers of the checkpoints are trained first, on the sentences that
medlocal tries converted files on; they are committed, and other versions of the trainers may make
others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "conversions"
TYPES = ("f32", "f16", "bf16", "q8_0", "auto")
COMPUTED = {
    "Tiny-Llama-2-7b-chat": 48,
    "Tiny-Llama-3.1-8B-Instruct": 200,
    "tiny-llama-3.2-tied": 200,
    "Tiny-Mistral-7B-v0.1": 32,
    "tiny-biases": 48,
    "tiny-linear-rope": 120,
}
"""Checkpoints whose logits are kept, and tokens of the text: for Mistral no more than its window."""
STRETCHED = {"Llama-3.1-8B": (128, 8.0), "Llama-3.2-1B": (64, 32.0), "Llama-3.2-3B": (128, 32.0)}
"""Elements of a head, and the factor."""
POSITIONS = (0, 1, 15, 31, 47, 63, 64, 65, 119, 150, 199)
"""Of which logits are kept, as far as the text goes."""
SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(4)),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
    *(f"<|reserved_special_token_{i}|>" for i in range(4, 9)),
)
# Llama 3's, as its tokenizer.json has it.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main() -> None:
    """Make the golden values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=Path, required=True, help="llama.cpp's source folder")
    parser.add_argument("--python", type=Path, required=True, help="an interpreter with torch")
    parser.add_argument("--tokenizers", action="store_true", help="train the tokenizers first")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if asked.inside:
        make_golden(asked.upstream, asked.inside)
        return
    if asked.tokenizers:
        train_tokenizers()
    with tempfile.TemporaryDirectory() as folder:
        command = [asked.python, __file__, "--upstream", asked.upstream, "--python", asked.python]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        subprocess.run([*command, "--inside", folder], check=True, env=environment)


def make_golden(upstream: Path, folder: Path) -> None:
    """Convert and compute everything: run by the interpreter that has torch."""
    import numpy as np

    from tests.weights.tiny_checkpoints import RECIPES, make

    golden: dict[str, dict[str, object]] = {}
    logits: dict[str, Any] = {}
    for recipe in RECIPES:
        checkpoint = make(recipe, folder)
        golden[recipe.name] = {
            kind: convert_upstream(upstream, checkpoint, kind, folder / "out.gguf")
            for kind in TYPES
        }
        if recipe.name in COMPUTED:
            logits[recipe.name] = compute(checkpoint, recipe.name)
    lines = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in kinds.items())
        + "\n  }"
        for name, kinds in golden.items()
    ]
    (DATA / "golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    np.savez_compressed(DATA / "logits.npz", **logits)
    factors = {name: stretch(*values) for name, values in STRETCHED.items()}
    (DATA / "rope.json").write_text(json.dumps(factors, indent=1) + "\n", encoding="utf-8")


def convert_upstream(upstream: Path, checkpoint: Path, kind: str, out: Path) -> dict[str, object]:
    """What llama.cpp's converter makes of a checkpoint, in short."""
    if str(upstream) not in sys.path:
        sys.path.insert(1, str(upstream))
    import convert_hf_to_gguf  # type: ignore[import-not-found]
    from conversion.base import TextModel  # type: ignore[import-not-found]

    # Only now: the converter brings a newer gguf than the interpreter may have.
    from tests.weights.gguf_summary import summarise

    TextModel.get_vocab_base_pre = lambda _self, _tokenizer: "llama-bpe"
    out.unlink(missing_ok=True)
    sys.argv = ["convert", str(checkpoint), "--outtype", kind, "--outfile", str(out)]
    convert_hf_to_gguf.main()
    return summarise(out)


def compute(checkpoint: Path, name: str) -> Any:
    """The logits of some positions, (positions, vocabulary), as transformers computes them."""
    import torch  # type: ignore[import-not-found]
    from transformers import AutoModelForCausalLM  # type: ignore[import-not-found]

    from tests.weights.tiny_checkpoints import BY_NAME, probe_tokens

    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    tokens = probe_tokens(BY_NAME[name], COMPUTED[name])
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0].numpy()
    return logits[[position for position in POSITIONS if position < len(tokens)]]


def stretch(head_dim: int, factor: float) -> list[str]:
    """What llama.cpp's converter writes for a Llama 3, as hexadecimal numbers."""
    from types import SimpleNamespace

    from conversion.llama import LlamaModel  # type: ignore[import-not-found]

    rope = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }
    model = SimpleNamespace(
        rope_parameters=rope,
        hparams={"head_dim": head_dim},
        format_tensor_name=lambda *_: "rope_freqs.weight",
    )
    ((_, factors),) = LlamaModel.generate_extra_tensors(model)
    return [float(one).hex() for one in factors]


def train_tokenizers() -> None:
    """Train the two tokenizers on clinical sentences."""
    from medlocal.weights.sentences import SENTENCES

    DATA.mkdir(parents=True, exist_ok=True)
    train_pieces(SENTENCES)
    train_bpe(SENTENCES)


def train_pieces(sentences: tuple[str, ...]) -> None:
    """As Llama 2's: BPE over pieces, bytes for what it does not know, digits one by one."""
    import sentencepiece

    from tests.weights.tiny_checkpoints import NUM_PIECES

    lines = (line for text in sentences for line in text.splitlines() if line.strip())
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "tokenizer"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_prefix=str(prefix),
            model_type="bpe",
            vocab_size=NUM_PIECES,
            character_coverage=0.98,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            num_threads=1,
            minloglevel=2,
        )
        (DATA / "tokenizer.model").write_bytes(prefix.with_suffix(".model").read_bytes())


def train_bpe(sentences: tuple[str, ...]) -> None:
    """As Llama 3's: bytes, its own way of cutting, whole words taken without merging."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    from tests.weights.tiny_checkpoints import NUM_BPE

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_BPE - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    start = SPECIAL_TOKENS[0]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{start} $A",
                pair=f"{start} $A {start}:1 $B:1",
                special_tokens=[(start, tokenizer.token_to_id(start))],
            ),
        ]
    )
    assert tokenizer.get_vocab_size() == NUM_BPE
    tokenizer.save(str(DATA / "tokenizer.json"))


if __name__ == "__main__":
    main()
