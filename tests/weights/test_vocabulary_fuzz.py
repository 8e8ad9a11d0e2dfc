"""Damaged tokenizers: each is read or refused, whatever was changed in it."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from medlocal.errors import MedlocalError
from medlocal.weights.vocabulary import read_vocabulary
from tests.weights.tokenizer_values import (
    CONFIG,
    NUM_BASE,
    PIECES,
    PIECES_CONFIG,
    added,
    bpe,
    piece_model,
    write_folder,
)

SEED = 20_251_125
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**64, 0.5, float("nan"), "", "a", "<s>", "\ud800", "\0"),
    *([], [1], ["a"], [["a", "b"]], [None], {}, {"id": 1}, {"content": 1}, {"type": "BPE"}, "Ġ" * 999),
)  # fmt: skip
_MODEL = {"vocab_size": NUM_BASE + 8, "bos_token_id": NUM_BASE, "eos_token_id": NUM_BASE + 1}
_CONFIG = {
    **CONFIG,
    "pad_token": {"content": "</s>", "special": True},
    "add_bos_token": True,
    "add_prefix_space": False,
    "chat_template": [{"name": "default", "template": "T"}],
    "added_tokens_decoder": {str(NUM_BASE + 2): {"content": "<x>", "special": True}},
}
_TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [NUM_BASE], "tokens": ["<s>"]}},
}  # fmt: skip


def damaged(value: Any, rng: random.Random) -> Any:
    """The same JSON with one value somewhere in it replaced, left out or given twice."""
    value = copy.deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if rng.random() < 0.5 and isinstance(place[key], dict | list) and place[key]:
            place = place[key]
            continue
        if rng.random() < 0.2:
            del place[key]
        elif rng.random() < 0.3 and len(keys) > 1:
            place[key] = place[rng.choice(keys)]
        else:
            place[key] = rng.choice(_VALUES)
        return value


def is_read_or_refused(folder: Path, model: Any, generation: Any) -> bool:
    """True where it is read, False where it is refused; anything else is raised."""
    try:
        entries = read_vocabulary(folder, model, generation).entries()
    except MedlocalError:
        return False
    assert all(key.startswith("tokenizer.") for key, _, _ in entries)
    return True


def text_of(value: Any) -> str:
    return json.dumps(value)  # ASCII, so that half a surrogate pair can be written


@pytest.mark.parametrize("part", range(4))
def test_damaged_json_is_read_or_refused(tmp_path: Path, part: int) -> None:
    rng = random.Random(SEED + part)
    whole = [
        bpe(added(NUM_BASE + 2, "<x>"), post_processor=_TEMPLATE),
        _CONFIG,
        _MODEL,
        {"eos_token_id": [NUM_BASE + 1, NUM_BASE + 2]},
    ]
    outcomes = set()
    for _ in range(25):
        files = list(whole)
        files[part] = damaged(files[part], rng)
        folder = write_folder(
            tmp_path, tokenizer__json=text_of(files[0]), tokenizer_config__json=text_of(files[1])
        )
        outcomes.add(is_read_or_refused(folder, files[2], files[3]))

    assert outcomes == {True, False}


def test_damaged_pieces_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    whole = piece_model(PIECES)
    model = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 2}
    outcomes = set()
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        cut = bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        folder = write_folder(tmp_path, tokenizer__model=cut, tokenizer_config__json=PIECES_CONFIG)
        outcomes.add(is_read_or_refused(folder, model, {}))

    assert outcomes == {True, False}
