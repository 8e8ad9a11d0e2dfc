"""What a GGUF consists of, taken apart for people: groups of tensors, numbers, tokenizer, template.

All of it stands in the header; nothing is loaded or judged here. What a file does not say, or says so
that it cannot be meant, is None: whether that is a reason to refuse it is the gate's to decide.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from medlocal.errors import RefusedError
from medlocal.weights.header import ArrayRef, TensorInfo
from medlocal.weights.inspect import GGUFInfo
from medlocal.weights.template import ChatTemplate, Messages
from medlocal.weights.template_review import Finding, review

T = TypeVar("T")

EXAMPLE: Messages = (
    ("system", "You answer questions about medicine. Responde en español."),
    ("user", "¿Qué órgano produce la insulina?\nA. El hígado\nB. El páncreas"),
    ("assistant", "B"),
    ("user", "Why?"),
)
"""The conversation that a template is shown on."""

_LAYER = re.compile(r"(?:blk|enc|dec)(?:\.blk)?\.\d+\.")
_ORDER = ("token_embd", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output",
          "ffn_gate", "ffn_up", "ffn_down")  # fmt: skip
_LAST = ("norms", "biases", "other", "output")


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """The tensors of one role in all layers."""

    name: str
    """As the file calls them, without layer and ending; "norms" and "biases" are taken together."""
    types: Mapping[str, int]
    """ggml type -> number of tensors; the type of most bytes first."""
    num_tensors: int
    num_elements: int
    num_bytes: int
    bits_per_weight: float


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A token that the file names for a purpose."""

    purpose: str
    """"bos", "eos", "eot", "padding", …"""
    id: int
    text: str | None
    """As the vocabulary writes it; None where it has no such token."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """How a text becomes ids."""

    model: str | None
    """"gpt2" is BPE, "llama" SentencePiece."""
    pre: str | None
    num_tokens: int | None
    num_merges: int
    special: tuple[SpecialToken, ...]
    add_bos: bool | None
    """What the file says; None = it does not."""
    wants_bos: bool | None
    """What holds, by llama.cpp's defaults where the file does not say."""
    add_eos: bool | None
    add_space_prefix: bool | None


@dataclass(frozen=True, slots=True)
class Rope:
    """How positions are written into queries and keys."""

    base: float | None
    dimensions: int | None
    """Numbers of a head that are rotated; None = all."""
    scaling: str | None
    """"linear", "yarn", …; "factors" = one for each frequency, as Llama 3.1 has; None = none."""
    factor: float | None
    original_context: int | None
    """Tokens before it was scaled."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of the network."""

    context_length: int | None
    num_layers: int | None
    embedding_length: int | None
    feed_forward_length: int | None
    num_heads: int | None
    num_kv_heads: int | None
    head_length: tuple[int, int] | None
    """Of keys and of values."""
    num_experts: int | None
    kv_bytes_per_token: int | None
    """In F16, over all layers."""


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """How the model wants to be spoken to."""

    sha256: str
    num_characters: int
    roles: tuple[str, ...]
    """Whose turns appear in a prompt. "system (in the user's turn)" where there is no place for it."""
    example: str | None
    """`EXAMPLE` rendered, with what begins an answer; None where the template fails."""
    findings: tuple[Finding, ...]


def tensor_groups(info: GGUFInfo) -> tuple[TensorGroup, ...]:
    """The tensors by role, in the order in which a token meets them."""
    members: dict[str, list[TensorInfo]] = {}
    for tensor in info.tensors:
        members.setdefault(_role(tensor), []).append(tensor)
    return tuple(_group(name, members[name]) for name in sorted(members, key=_place))


def tokenizer_of(info: GGUFInfo) -> Tokenizer:
    """What the file says of its tokenizer."""
    merges = info.metadata.get("tokenizer.ggml.merges", ())
    return Tokenizer(
        model=said(lambda: info.tokenizer_model),
        pre=said(lambda: info.tokenizer_pre),
        num_tokens=said(lambda: info.vocab_size),
        num_merges=len(merges) if isinstance(merges, tuple | ArrayRef) else 0,
        special=tuple(_special_tokens(info)),
        add_bos=said(lambda: info.add_bos),
        wants_bos=said(lambda: info.wants_bos),
        add_eos=_find(info, "tokenizer.ggml.add_eos_token", bool),
        add_space_prefix=_find(info, "tokenizer.ggml.add_space_prefix", bool),
    )


def rope_of(info: GGUFInfo) -> Rope:
    """How the file scales positions."""
    prefix = f"{said(lambda: info.architecture)}.rope"
    scaling = _find(info, f"{prefix}.scaling.type", str)
    if any(tensor.name.startswith("rope_freqs") for tensor in info.tensors):
        scaling = "factors"
    original = _find(info, f"{prefix}.scaling.original_context_length", int)
    return Rope(
        base=_find(info, f"{prefix}.freq_base", float),
        dimensions=_find(info, f"{prefix}.dimension_count", int),
        scaling=None if scaling == "none" else scaling,
        factor=_find(info, f"{prefix}.scaling.factor", float),
        original_context=original,
    )


def shape_of(info: GGUFInfo) -> Shape:
    """The numbers of the network, as far as the file says them."""
    architecture = said(lambda: info.architecture)
    return Shape(
        context_length=said(lambda: info.context_length),
        num_layers=said(lambda: info.num_layers),
        embedding_length=_find(info, f"{architecture}.embedding_length", int),
        feed_forward_length=_find(info, f"{architecture}.feed_forward_length", int),
        num_heads=said(lambda: info.num_heads),
        num_kv_heads=said(lambda: info.num_kv_heads),
        head_length=said(lambda: info.head_dim),
        num_experts=_find(info, f"{architecture}.expert_count", int),
        kv_bytes_per_token=said(info.kv_bytes_per_token),
    )


def template_facts(template: ChatTemplate) -> TemplateFacts:
    """A template tried out on an example."""
    return TemplateFacts(
        sha256=template.sha256,
        num_characters=len(template.source),
        roles=tuple(_roles(template)),
        example=said(lambda: template.render(EXAMPLE)),
        findings=review(template),
    )


def said(read: Callable[[], T]) -> T | None:
    """What a property of a file says; None where it says nothing that can be meant."""
    try:
        return read()
    except RefusedError:
        return None


def _role(tensor: TensorInfo) -> str:
    name = _LAYER.sub("", tensor.name)
    stem, _, ending = name.rpartition(".")
    if ending == "bias":
        return "biases"
    stem = stem or name
    return "norms" if stem.endswith("norm") or stem.startswith("norm") else stem


def _place(name: str) -> tuple[int, str]:
    if name in _ORDER:
        return _ORDER.index(name), name
    return len(_ORDER) + (1 + _LAST.index(name) if name in _LAST else 0), name


def _group(name: str, tensors: list[TensorInfo]) -> TensorGroup:
    num_bytes: Counter[str] = Counter()
    for tensor in tensors:
        num_bytes[tensor.type] += tensor.num_bytes
    num_tensors = Counter(tensor.type for tensor in tensors)
    num_elements = sum(tensor.num_elements for tensor in tensors)
    return TensorGroup(
        name=name,
        types={kind: num_tensors[kind] for kind, _ in num_bytes.most_common()},
        num_tensors=len(tensors),
        num_elements=num_elements,
        num_bytes=num_bytes.total(),
        bits_per_weight=8 * num_bytes.total() / num_elements,
    )


def _special_tokens(info: GGUFInfo) -> Iterable[SpecialToken]:
    for key, value in info.metadata.items():
        named = re.fullmatch(r"tokenizer\.ggml\.(\w+)_token_id", key)
        if named and isinstance(value, int):
            text = said(lambda token=value: info.token(token))  # type: ignore[misc]
            yield SpecialToken(named[1], value, text)


def _roles(template: ChatTemplate) -> Iterable[str]:
    """Try each role: a template may refuse it, or leave out what it says."""
    if (merges := said(lambda: template.merges_system)) is None:
        return
    yield "system (in the user's turn)" if merges else "system"
    yield "user"
    turns = [("user", "medlocalprobe1"), ("assistant", "medlocalprobe2")]
    if _says(template, [*turns, ("user", "medlocalprobe3")], "medlocalprobe2"):
        yield "assistant"
    if _says(template, [*turns, ("tool", "medlocalprobe4")], "medlocalprobe4"):
        yield "tool"


def _says(template: ChatTemplate, messages: Messages, text: str) -> bool:
    return text in (said(lambda: template.render(messages)) or "")


def _find(info: GGUFInfo, key: str, kind: type[T]) -> T | None:
    value = info.metadata.get(key)
    return value if type(value) is kind else None
