"""The engine on real llama.cpp and the real demo model."""

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from medlocal.catalog import data_root
from medlocal.engine.constraint import CompiledGrammar, TokenTable
from medlocal.engine.engine import Engine
from medlocal.engine.llama import (
    ONE_KERNEL,
    ContextOptions,
    LlamaDecoder,
)
from medlocal.engine.sequence import Completion, Generate, Request, Score
from medlocal.evals.formats import FORMATS
from medlocal.evals.items import load_items
from medlocal.evals.perturb import apply
from medlocal.evals.prompts import build_messages, load_prompts
from medlocal.libllama import LlamaModel, build_info, devices
from medlocal.run.asking import Asker
from medlocal.run.backend import EXACT_ROWS, LlamaBackend, Needs
from medlocal.settings import Settings
from medlocal.weights.inspect import read_gguf
from medlocal.weights.template import ChatTemplate, check_bos

pytestmark = [pytest.mark.weights, pytest.mark.slow]

NUM_PROMPTS = 100
EXACT = ContextOptions(
    num_cells=2048,
    num_rows=EXACT_ROWS,
    num_ids=96,
    num_threads=2,
    num_outputs=96,
    min_rows=2,
    num_texts=24,
    kv_types=ONE_KERNEL,
)
ALONE = replace(EXACT, num_cells=1024, num_ids=8, num_texts=1)


@pytest.fixture(scope="module")
def model(demo_model: Path) -> Iterator[LlamaModel]:
    with LlamaModel(demo_model) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def asker(model: LlamaModel, demo_model: Path) -> Asker:
    info = read_gguf(demo_model)
    bos = partial(check_bos, bos_id=info.bos_id, add_bos=info.wants_bos)
    return Asker(model, ChatTemplate.from_gguf(info), bos)


@pytest.fixture(scope="module")
def prompts(asker: Asker) -> list[tuple[int, ...]]:
    """The shortest of the starter's prompts, so that asking them one by one takes a minute."""
    root = data_root() / "benchmarks"
    items = load_items(root / "starter" / "items.jsonl", "starter", "test", "en")
    style = load_prompts(root / "prompts")["en", "plain"]
    found = []
    for item in items:
        messages = build_messages(apply(item), style, FORMATS["letter"])
        found.append(asker.prompt(tuple((m.role, m.content) for m in messages)))
    assert len(set(found)) >= NUM_PROMPTS
    return sorted(found, key=len)[:NUM_PROMPTS]


def run(
    model: LlamaModel, options: ContextOptions, requests: list[Request]
) -> dict[int, Completion]:
    decoder = LlamaDecoder(model, options)
    try:
        return {c.request.id: c for c in Engine(decoder).run(requests, 1024)}
    finally:
        decoder.close()


@pytest.fixture(scope="module")
def label_tokens(model: LlamaModel) -> tuple[tuple[int, ...], ...]:
    return tuple((t,) for text in "ABCD" for t in model.tokenize(text.encode()))


def test_exact_mode_gives_the_same_bits_as_one_at_a_time_without_reuse(
    model: LlamaModel,
    prompts: list[tuple[int, ...]],
    label_tokens: tuple[tuple[int, ...], ...],
) -> None:
    """Label log-probabilities of 100 prompts, asked together beside generated texts."""
    scores = [Request(i, p, Score(label_tokens)) for i, p in enumerate(prompts)]
    beside = [Request(1000 + i, p, Generate(12)) for i, p in enumerate(prompts[::10])]
    together = run(model, EXACT, scores + beside)
    decoder = LlamaDecoder(model, ALONE)
    engine = Engine(decoder)
    for request in scores:
        (alone,) = engine.run([request], 1024)
        assert alone.scores == together[request.id].scores
    for request in beside[:4]:
        (alone,) = engine.run([request], 1024)
        assert alone.tokens == together[request.id].tokens
        assert alone.logprobs == together[request.id].logprobs
    decoder.close()


def test_prompts_that_share_a_beginning_are_read_once(
    model: LlamaModel, prompts: list[tuple[int, ...]], label_tokens: tuple[tuple[int, ...], ...]
) -> None:
    decoder = LlamaDecoder(model, EXACT)
    engine = Engine(decoder)
    requests = [Request(i, p, Score(label_tokens)) for i, p in enumerate(prompts[:4])]
    requests += [Request(10 + i, p, Generate(2)) for i, p in enumerate(prompts[:4])]
    list(engine.run(requests, 1024))
    prefixes = {p[:k] for p in prompts[:4] for k in range(1, len(p) + 1)}
    assert engine.stats.prefilled_tokens == len(prefixes)
    assert engine.stats.total_prompt_tokens == 2 * sum(map(len, prompts[:4]))
    decoder.close()


def test_the_mask_holds_the_real_model_to_a_text_it_would_not_write(
    model: LlamaModel, asker: Asker
) -> None:
    canary = asker.canary(0)
    (completion,) = run(model, ALONE, [canary]).values()
    assert asker.is_alive(completion)
    assert all(0 <= z <= 1 for z in completion.feasible)


def test_forced_tokens_spell_the_opening_as_the_tokenizer_does(model: LlamaModel) -> None:
    table = TokenTable(model.pieces, tuple(sorted(model.ends)), model.tokenize)
    grammar = CompiledGrammar(r'\{"answer": "(A|B|C|D)"\}', table)
    constraint = grammar.start()
    forced = constraint.forced()
    assert model.detokenize(forced) == '{"answer": "'
    assert list(forced) == model.tokenize(b'{"answer": "')
    for token in forced:
        constraint.advance(token)
    assert sorted(model.detokenize([t]) for t in constraint.allowed()) == ["A", "B", "C", "D"]


def test_a_prompt_begins_as_the_chat_template_says(asker: Asker, model: LlamaModel) -> None:
    tokens = asker.prompt((("system", "Be brief."), ("user", "¿Qué es la fiebre?")))
    text = b"".join(model.piece(t) or b"<control>" for t in tokens).decode()
    assert text == (
        "<control>system\nBe brief.<control>\n<control>user\n¿Qué es la fiebre?<control>\n"
        "<control>assistant\n"
    )
    assert tokens[0] == model.bos
    assert tokens[1] != model.bos


def test_tokens_give_the_text_back(model: LlamaModel) -> None:
    text = "Paciente de 63 años: ¿qué fármaco? «β-bloqueante» 5 µg/día ≥ 2 — naïve"
    assert model.detokenize(model.tokenize(text.encode())) == text


def test_the_build_is_known_by_its_commit_and_a_device_has_memory() -> None:
    assert len(build_info()["commit"]) >= 7
    assert all(device.total_bytes > 0 for device in devices() if device.kind in {"cpu", "gpu"})


def test_llama_cpp_writes_nothing_to_the_terminal(demo_model: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from medlocal.libllama import *; from medlocal.engine.llama import *;"
        "m = LlamaModel(Path(sys.argv[1]));"
        "d = LlamaDecoder(m, ContextOptions(512, 60, 8, 2, 60)); d.close(); m.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(demo_model)], capture_output=True, check=True, timeout=120
    )
    assert done.stdout == b""
    assert done.stderr == b""


def requantised(source: Path, target: Path, file_type: int) -> Path:
    """The demo model in another weight type, by llama.cpp's own quantiser."""
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize, options.nthread = file_type, True, 2
    done = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(options)
    )
    assert done == 0
    return target


@pytest.mark.parametrize(("name", "file_type"), [("Q8_0", 7), ("Q4_K_M", 15), ("BF16", 32)])
def test_exact_mode_holds_for_weights_with_other_kernels(
    demo_model: Path,
    prompts: list[tuple[int, ...]],
    label_tokens: tuple[tuple[int, ...], ...],
    tmp_path: Path,
    name: str,
    file_type: int,
) -> None:
    """What is asked together equals what is asked alone: scores of 12 prompts, and 4 texts."""
    path = requantised(demo_model, tmp_path / f"{name}.gguf", file_type)
    requests = [Request(i, p, Score(label_tokens)) for i, p in enumerate(prompts[:12])]
    requests += [Request(100 + i, p, Generate(16)) for i, p in enumerate(prompts[:4])]
    backend = LlamaBackend(name, path, Settings(home=tmp_path, threads=2), "exact")
    backend.asker()
    engine = Engine(backend.decoder(Needs.of(requests)))
    together = {c.request.id: c for c in engine.run(requests, 1024)}
    for request in requests:
        (alone,) = engine.run([request], 1024)
        beside = together[request.id]
        assert (alone.tokens, alone.logprobs) == (beside.tokens, beside.logprobs)
        assert alone.scores == beside.scores
    backend.close()
