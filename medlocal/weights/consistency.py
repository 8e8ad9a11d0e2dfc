"""Whether what a GGUF file says in one place fits what it says in another.

llama.cpp answers some contradictions with an exception, which becomes a line in its log, and others
with an assertion, which ends the process. Those that can be found without reading a weight are found
here, before it sees the file, and named: numbers that the architecture cannot have, a vocabulary whose
lists differ in length, special tokens that it does not hold, tensors of another shape than the numbers
say, or of a type that holds no weights.

Not checked: what depends on one architecture among the hundred that llama.cpp knows, except for the
few named in `_DENSE`; for the others the first load finds it. What llama.cpp demands was read in its
commit 0c1e57098 (llama-model.cpp, llama-vocab.cpp, gguf.cpp).
"""

import math
import re
from collections.abc import Iterator

from medlocal.errors import RefusedError
from medlocal.weights.header import ArrayRef, TensorInfo, shown
from medlocal.weights.inspect import GGUFInfo

MAX_LAYERS, MAX_EXPERTS = 512, 1024
"""llama.cpp's own limits."""
MAX_TOKENS = 2**21
"""Of a vocabulary: eight times the largest in use. Bounds the time that looking at each takes."""
ALIGNMENT = 32
"""Of the first tensor in the file: llama.cpp maps weights and asserts that they lie so."""

# The families that this project is about, and their neighbours built of the same tensors.
_DENSE = frozenset({"llama", "mistral3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"})
_UNIFORM = frozenset({"llama", "mistral3"})
"""Their graph asserts one head length for keys, values and rotation, and takes one number of heads."""

_NO_WEIGHTS = frozenset({"Q8_1", "Q8_K"})
"""Types that exist only while a product is computed: no kernel reads them as weights."""
_NUMBERS = frozenset({"I8", "I16", "I32", "I64", "F64"})
_ROPE_SCALINGS = frozenset({"none", "linear", "yarn", "longrope"})
_SPOKEN = frozenset({"bos", "eos", "eot", "eom"})
"""Special tokens that stand in prompts or end answers."""
_NO_TOKENIZERS = frozenset({"none", "no_vocab"})
_UTF8_BYTES = (*range(0x01, 0xC0), *range(0xC2, 0xF5))
"""Those that a text can hold."""
_PRINTABLE = re.compile(r"[ -~]+")
_LAYER = re.compile(r"blk\.(\d+)\.")


def check_consistent(info: GGUFInfo) -> None:
    """Check all that can be checked without reading a weight.

    Raises:
        RefusedError: two things that the file says do not fit, or one cannot be meant.
    """
    for problem in _problems(info):
        raise RefusedError(
            f"{info.path}: {problem}",
            hint="the file is damaged or was made wrongly: get it again, or another conversion",
        )


def doubts(info: GGUFInfo) -> Iterator[str]:
    """What is odd in a file that is consistent, and no reason to refuse it."""
    for key, value in _outside(info):
        # Found in files in use, for the padding mostly, which no prompt has.
        yield f"{key} is {shown(value)}, outside its {info.vocab_size:,} tokens, and is not used"
    end = max(tensor.offset + tensor.num_bytes for tensor in info.tensors)
    if (more := info.size - end) >= _alignment(info):
        yield f"{more:,} bytes follow the last tensor, which nothing reads"


def _problems(info: GGUFInfo) -> Iterator[str]:
    """What is wrong, in the order in which later checks rely on earlier ones."""
    yield from _naming(info)
    yield from _placing(info)
    yield from _numbers(info)
    yield from _experts(info)
    yield from _vocabulary(info)
    yield from _special_tokens(info)
    if info.tokenizer_model == "llama":
        yield from _byte_tokens(info)
    if info.architecture in _DENSE:
        yield from _heads(info)
        yield from _shapes(info)
        yield from _types(info)


def _naming(info: GGUFInfo) -> Iterator[str]:
    if "general.architecture" not in info.metadata:
        yield "says no general.architecture: it is no model"
    for name in (info.architecture, *info.metadata, *(t.name for t in info.tensors)):
        # C reads a name up to its first zero byte, so that two could become one.
        if not _PRINTABLE.fullmatch(name):
            yield f"the name {shown(name)} holds more than printable ASCII characters"


def _placing(info: GGUFInfo) -> Iterator[str]:
    """What llama.cpp takes for granted of the tensors' places and types."""
    if not info.tensors:
        yield "holds no tensors: it is a vocabulary without weights"
        return
    alignment = _alignment(info)
    if (start := info.tensors[0].offset) % ALIGNMENT:
        yield f"its weights begin at byte {start:,}, which is no multiple of {ALIGNMENT}"
    for tensor, following in zip(info.tensors, info.tensors[1:], strict=False):
        end = -(-(tensor.offset + tensor.num_bytes) // alignment) * alignment
        if following.offset != end:
            yield f"the tensor {shown(following.name)} does not follow {shown(tensor.name)}"
    for tensor in info.tensors:
        if tensor.type in _NO_WEIGHTS:
            yield f"the tensor {shown(tensor.name)} is of type {tensor.type}, which holds no weights"


def _numbers(info: GGUFInfo) -> Iterator[str]:
    """What every architecture must say, and the numbers that none can have."""
    architecture = info.architecture
    if not 1 <= info.num_layers <= MAX_LAYERS:
        yield f"{architecture}.block_count is {info.num_layers:,}; up to {MAX_LAYERS} are possible"
    info.context_length  # noqa: B018 - each refuses a number that is not there or not positive
    _count(info, "embedding_length")
    for layer, tensor in _layers(info):
        if layer >= info.num_layers:
            yield f"the tensor {shown(tensor.name)} belongs to none of {info.num_layers} layers"
    for key, value in info.metadata.items():
        if not isinstance(value, float) or not key.startswith(f"{architecture}."):
            continue
        if not math.isfinite(value) or (key.endswith("_epsilon") and value < 0):
            yield f"{key} is {value}"
    scaling = info.metadata.get(f"{architecture}.rope.scaling.type", "linear")
    if scaling not in _ROPE_SCALINGS:
        yield f"{architecture}.rope.scaling.type is {shown(scaling)}, which is unknown"
    if _count(info, "nextn_predict_layers", 0) > info.num_layers:
        yield f"{architecture}.nextn_predict_layers is more than its {info.num_layers} layers"


def _experts(info: GGUFInfo) -> Iterator[str]:
    num_experts, num_used = _count(info, "expert_count", 0), _most(info, "expert_used_count")
    num_groups = _count(info, "expert_group_count", 0)
    num_groups_used = _count(info, "expert_group_used_count", 0)
    if num_experts > MAX_EXPERTS or num_used > num_experts or (num_experts and not num_used):
        yield f"says {num_experts:,} experts, of which {num_used:,} are used"
    uneven = num_groups and (num_groups >= num_experts or num_experts % num_groups)
    if uneven or (num_groups > 1 and not 0 < num_groups_used < num_groups):
        groups = f"{num_groups:,} groups, of which {num_groups_used:,} are used"
        yield f"says {num_experts:,} experts in {groups}"


def _vocabulary(info: GGUFInfo) -> Iterator[str]:
    model = info.tokenizer_model
    if model is None or model in _NO_TOKENIZERS:
        yield "has no tokenizer"
        return
    tokens = info.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, tuple | ArrayRef) or not len(tokens) or _kind(tokens) != "string":
        yield f"tokenizer.ggml.tokens is {shown(tokens)}, not a list of texts"
        return
    if len(tokens) > MAX_TOKENS:
        yield f"its vocabulary has {len(tokens):,} tokens; up to {MAX_TOKENS:,} are read"
    for name in ("scores", "token_type"):
        values = info.metadata.get(f"tokenizer.ggml.{name}")
        if values is None:
            continue
        if not isinstance(values, tuple | ArrayRef) or len(values) < len(tokens):
            yield f"tokenizer.ggml.{name} is no list of at least {len(tokens):,} values"
    yield from _twice(tokens)
    merges = info.metadata.get("tokenizer.ggml.merges", ())
    if not isinstance(merges, tuple | ArrayRef) or (len(merges) and _kind(merges) != "string"):
        yield f"tokenizer.ggml.merges is {shown(merges)}, not a list of texts"


def _twice(tokens: "tuple[object, ...] | ArrayRef") -> Iterator[str]:
    """Two tokens of one text; llama.cpp asserts that there are none."""
    known: set[object] = set()
    for number, token in enumerate(tokens):
        # An empty one gets a name of its own; bytes that are no UTF-8 look alike without being so.
        if token in known and token and "\ufffd" not in str(token):
            yield f"the token {shown(token)} is there twice, the second time as number {number:,}"
        known.add(token)


def _special_tokens(info: GGUFInfo) -> Iterator[str]:
    # llama.cpp takes its defaults for those it does not find, which changes prompts without a word.
    for key, value in _outside(info):
        if key.split(".")[-1].removesuffix("_token_id") in _SPOKEN:
            yield f"{key} is {shown(value)}, outside its {info.vocab_size:,} tokens"


def _outside(info: GGUFInfo) -> Iterator[tuple[str, object]]:
    """Special tokens that the vocabulary does not hold."""
    for key, value in info.metadata.items():
        if not (key.startswith("tokenizer.ggml.") and key.endswith("_token_id")):
            continue
        if type(value) is not int or not 0 <= value < info.vocab_size:
            yield key, value


def _byte_tokens(info: GGUFInfo) -> Iterator[str]:
    """A SentencePiece vocabulary spells what it does not know byte by byte, and asserts that it can."""
    tokens = info.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, tuple | ArrayRef)
    known = set(tokens)
    for byte in _UTF8_BYTES:
        if f"<0x{byte:02X}>" not in known and chr(byte) not in known:
            yield f"its vocabulary has no token for the byte 0x{byte:02X}"


def _heads(info: GGUFInfo) -> Iterator[str]:
    heads, kv_heads, (key_length, value_length) = info.num_heads, info.num_kv_heads, info.head_dim
    if kv_heads == 0 or heads % kv_heads:
        yield f"says {heads:,} heads and {kv_heads:,} KV heads, which do not divide them"
    if key_length == 0 or key_length % 2:
        yield f"its heads are {key_length:,} numbers long, which cannot be rotated in pairs"
    if info.architecture not in _UNIFORM:
        return
    rotated = _count(info, "rope.dimension_count", key_length)
    if not key_length == value_length == rotated:
        yield f"says keys of {key_length:,}, values of {value_length:,} and {rotated:,} rotated"
    for name in ("head_count", "head_count_kv"):
        counts = info.metadata.get(f"{info.architecture}.attention.{name}")
        if isinstance(counts, tuple) and len(set(counts)) > 1:
            yield f"{info.architecture}.attention.{name} differs between layers: {shown(counts)}"


def _shapes(info: GGUFInfo) -> Iterator[str]:
    """The width and the vocabulary against the tensors at both ends."""
    width = _count(info, "embedding_length")
    expected = {
        "token_embd.weight": (width, info.vocab_size),
        "output.weight": (width, info.vocab_size),
        "output_norm.weight": (width,),
    }
    tensors = {tensor.name: tensor for tensor in info.tensors}
    if "token_embd.weight" not in tensors:
        yield "has no tensor 'token_embd.weight'"
    for name, shape in expected.items():
        if name in tensors and tensors[name].shape != shape:
            yield f"the tensor {name!r} has the shape {tensors[name].shape}, not {shape}"
    missing = set(range(info.num_layers)) - {layer for layer, _ in _layers(info)}
    if missing:
        yield f"has no tensors for layer {min(missing)} of {info.num_layers}"


def _types(info: GGUFInfo) -> Iterator[str]:
    for tensor in info.tensors:
        # An element-wise product or sum with anything but F32 ends the process.
        if tensor.type in _NUMBERS or (len(tensor.shape) == 1 and tensor.type != "F32"):
            yield f"the tensor {shown(tensor.name)} cannot be of type {tensor.type}"


def _alignment(info: GGUFInfo) -> int:
    alignment = info.metadata.get("general.alignment", 32)
    assert isinstance(alignment, int), "the header was checked"
    return alignment


def _layers(info: GGUFInfo) -> Iterator[tuple[int, TensorInfo]]:
    for tensor in info.tensors:
        if found := _LAYER.match(tensor.name):
            yield int(found[1]), tensor


def _kind(values: "tuple[object, ...] | ArrayRef") -> str:
    if isinstance(values, ArrayRef):
        return values.type
    return "string" if isinstance(values[0], str) else type(values[0]).__name__


def _most(info: GGUFInfo, name: str) -> int:
    """A count that is one number, or one for each layer."""
    value = info.metadata.get(f"{info.architecture}.{name}", 0)
    counts = value if isinstance(value, tuple) else (value,)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise _wrong(info, name, value)
    return max((count for count in counts if isinstance(count, int)), default=0)


def _count(info: GGUFInfo, name: str, default: int | None = None) -> int:
    value = info.metadata.get(f"{info.architecture}.{name}", default)
    if type(value) is not int or value < 0 or (default is None and value == 0):
        raise _wrong(info, name, value)
    return value


def _wrong(info: GGUFInfo, name: str, value: object) -> RefusedError:
    return RefusedError(
        f"{info.path}: {info.architecture}.{name} is {shown(value)}, not a number of them",
        hint="the file is damaged or was made wrongly: get it again, or another conversion",
    )
