"""How quickly is a checkpoint converted, against copying the file, and in how much memory?

A checkpoint of the shape of Llama 3.2 1B is made up: 1.24 billion random bfloat16 weights in one file,
and a tokenizer of 128,256 generated tokens. Several rounds of, in turn:

    cp            the weights' file copied by `cp`; `cp, on the disk`: until its bytes are on the disk
    reading       ours to bf16, in a process of its own: configuration and tokenizer are read, and at
                  the same time the SHA-256 of the weights computed, which the file's metadata tells
                  (it is known already for a model that was pulled)
    conversion    then: every weight checked to be a number, and the file written. As with `cp`, its bytes
                  are the system's then, and not on the disk yet
    trial         then: the file brought to the disk, hashed, loaded by llama.cpp and tried, at the same
                  time
    whole command all of it

and, with --upstream and --python, llama.cpp's own convert_hf_to_gguf.py once per round (its
recognition of the pre-tokenizer, which knows real vocabularies only, is told the answer). Memory is
the conversion's own peak (VmHWM), mapped pages included, against three times the largest tensor + 500 MB.

Prints a table for people; the last line is JSON.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from medlocal.weights.convert import ConvertRequest, convert
from medlocal.weights.source import CheckpointSource

LIMITS = {"speed": 0.7, "other_bytes": 500e6, "tensors": 3}
"""What a conversion has to keep to: of the speed of cp, and the memory."""
NUM_VOCAB, NUM_SPECIAL = 128_256, 256
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": NUM_VOCAB,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UPSTREAM = """
import sys
sys.path.insert(1, sys.argv.pop(1))
import convert_hf_to_gguf
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda _self, _tokenizer: "llama-bpe"
convert_hf_to_gguf.main()
"""


def make_checkpoint(folder: Path) -> int:
    """Write the checkpoint; returns the bytes of its largest tensor."""
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(make_tokenizer()), encoding="utf-8")
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    shapes = make_shapes()
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            for _ in range(0, (count := int(np.prod(shape))), 2**22):
                bits = random.integers(0, 2**16, min(count, 2**22), np.uint16)
                # Signs and fractions by chance, the size between 1/128 and 1/64: weights, not NaN.
                stream.write(((bits & np.uint16(0x807F)) | np.uint16(0x3C00)).tobytes())
                count -= len(bits)
    return max(2 * int(np.prod(shape)) for shape in shapes.values())


def make_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of Llama 3.2 1B."""
    hidden, feed, keys = CONFIG["hidden_size"], CONFIG["intermediate_size"], 512
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (NUM_VOCAB, hidden)}
    for layer in range(CONFIG["num_hidden_layers"]):
        where = f"model.layers.{layer}"
        shapes |= {
            f"{where}.input_layernorm.weight": (hidden,),
            f"{where}.mlp.down_proj.weight": (hidden, feed),
            f"{where}.mlp.gate_proj.weight": (feed, hidden),
            f"{where}.mlp.up_proj.weight": (feed, hidden),
            f"{where}.post_attention_layernorm.weight": (hidden,),
            f"{where}.self_attn.k_proj.weight": (keys, hidden),
            f"{where}.self_attn.o_proj.weight": (hidden, hidden),
            f"{where}.self_attn.q_proj.weight": (hidden, hidden),
            f"{where}.self_attn.v_proj.weight": (keys, hidden),
        }
    return shapes | {"model.norm.weight": (hidden,)}


def make_tokenizer() -> dict[str, Any]:
    """Llama 3's kind of tokenizer: the bytes, then words of two and of three bytes."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(product(letters, letters))
    num_triples = NUM_VOCAB - NUM_SPECIAL - len(letters) - len(pairs)
    triples = list(islice(((a + b, c) for (a, b), c in product(pairs, letters)), num_triples))
    merges = pairs + triples
    words = letters + [a + b for a, b in merges]
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    names += [f"<|reserved_special_token_{i}|>" for i in range(NUM_SPECIAL - len(names))]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": len(words) + i, "content": name, **flags, "special": True}
            for i, name in enumerate(names)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": LLAMA3_SPLIT},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": False,
                },
            ],
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {word: number for number, word in enumerate(words)},
            "merges": [f"{a} {b}" for a, b in merges],
        },
    }


def convert_here(checkpoint: Path, out: Path) -> dict[str, float]:
    """Convert in this process, and say how long each part took and how much memory."""
    starts: dict[str, float] = {}
    ends: dict[str, float] = {}

    def watch(description: str, done: int, total: int | None) -> None:
        word = description.split(" ", 1)[0]
        ends[word] = time.perf_counter()
        starts.setdefault(word, ends[word])

    start = time.perf_counter()
    source = CheckpointSource(checkpoint, "made-up", "made-up")
    convert(ConvertRequest(source, out, "bf16"), watch)
    total = time.perf_counter() - start
    trial = start + total - starts["trying"]
    reading = ends["checking"] - start
    return {
        "reading": reading,
        "conversion": total - reading - trial,
        "trial": trial,
        "whole command": total,
        "peak_bytes": _peak_bytes(),
        "trial_peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


def _peak_bytes() -> float:
    # Not ru_maxrss, which a process inherits from the one that started it.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell this process's peak memory")


def run_round(checkpoint: Path, folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Each of the things to be timed, once."""
    weights, out = checkpoint / "model.safetensors", folder / "out"
    values = {}
    for name, command in (
        ("cp", ["cp", weights, out]),
        ("cp, on the disk", ["sh", "-c", 'cp "$0" "$1" && sync "$1"', weights, out]),
    ):
        _settle(out)
        values[name] = _seconds(command)
    _settle(out)
    inside = [sys.executable, __file__, "--inside", str(checkpoint), str(folder / "out.gguf")]
    done = subprocess.run(inside, check=True, stdout=subprocess.PIPE)
    values |= json.loads(done.stdout.splitlines()[-1])
    (folder / "out.gguf").unlink()
    if asked.upstream:
        _settle(out)
        target = ["--outtype", "bf16", "--outfile", out]
        values["upstream"] = _seconds(
            [asked.python, "-c", UPSTREAM, asked.upstream, checkpoint, *target]
        )
    _settle(out)
    return values


def _settle(out: Path) -> None:
    """Begin from an idle disk: what the last one wrote is gone or on it."""
    out.unlink(missing_ok=True)
    os.sync()


def _seconds(command: list[Any]) -> float:
    start = time.perf_counter()
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    """Make the checkpoint, convert it, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; 10 GB are needed")
    parser.add_argument("--upstream", type=Path, help="llama.cpp's source folder")
    parser.add_argument("--python", type=Path, help="an interpreter with torch and transformers")
    parser.add_argument("--inside", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(convert_here(*asked.inside)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        checkpoint = folder / "Made-Up-1B"
        checkpoint.mkdir()
        largest = make_checkpoint(checkpoint)
        size = (checkpoint / "model.safetensors").stat().st_size
        run_round(checkpoint, folder, asked)  # the first reads code and weights from the disk
        rounds = [run_round(checkpoint, folder, asked) for _ in range(asked.rounds)]
        shutil.rmtree(checkpoint)
    _report(rounds, size, largest)


def _report(rounds: list[dict[str, float]], size: int, largest: int) -> None:
    names = [name for name in rounds[0] if not name.endswith("bytes")]
    medians = {name: statistics.median(one[name] for one in rounds) for name in names}
    peak, limit = max(one["peak_bytes"] for one in rounds), LIMITS["tensors"] * largest
    limit += LIMITS["other_bytes"]
    # Ratios within each round: the machine's speed changes between them.
    # The copies are compared with the writing alone, upstream's whole script with the whole command.
    ours = {"cp": "conversion", "cp, on the disk": "conversion", "upstream": "whole command"}
    ratios = {
        name: statistics.median(one[name] / one[part] for one in rounds)
        for name, part in ours.items()
        if name in medians
    }
    print(f"{size / 1e9:.2f} GB, largest tensor {largest / 1e6:,.0f} MB, {len(rounds)} rounds")
    for name, value in medians.items():
        print(f"  {name:<16} {value:7.2f} s  {size / value / 1e9:6.2f} GB/s  (median)")
    for name, value in ratios.items():
        print(f"  speed of our {ours[name]:<13} ÷ {name:<16} {value:6.2f}")
    print(f"  peak memory      {peak / 1e6:7,.0f} MB  (limit {limit / 1e6:,.0f} MB)")
    values = {
        "bytes": size,
        "rounds": len(rounds),
        **{
            f"{name.replace(', ', '_').replace(' ', '_')}_seconds": round(v, 3)
            for name, v in medians.items()
        },
        **{
            f"speed_to_{name.replace(', ', '_').replace(' ', '_')}": round(v, 3)
            for name, v in ratios.items()
        },
        "peak_bytes": round(peak),
        "trial_peak_bytes": round(max(one["trial_peak_bytes"] for one in rounds)),
        "limit_bytes": round(limit),
        "is_within_limits": ratios["cp"] >= LIMITS["speed"] and peak <= limit,
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
