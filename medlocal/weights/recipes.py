"""The types that llama.cpp quantises to: recipes for a whole file, and types of single tensors.

A recipe ("Q4_K_M") gives most tensors one type ("Q4_K") and some a higher one; which, is decided by
llama.cpp for each model, so this module does not know it. The numbers come from the llama.cpp that is
loaded, so a recipe that it gains is here too, once the header of such a file can be read.
"""

import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from medlocal.errors import UsageError, unknown_name
from medlocal.libllama import ggml, library

_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
"""As llama.cpp's own tool understands them."""
_NOT_MADE = {"NVFP4": "llama.cpp reads it and cannot make it", "GUESSED": "it is no type"}
_IRREGULAR = {
    "IQ3_XS": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "MXFP4_MOE": "MXFP4",
}
"""Recipes that are not called after their main tensor type (llama_ftype_get_default_type)."""
_MATRIX_TYPES = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
"""Tensor types that llama.cpp makes only with an importance matrix (tensor_requires_imatrix)."""
_WITHOUT_MATRIX = frozenset(
    {
        "token_embd.weight",
        "per_layer_token_embd.weight",
        "output.weight",
    }
)
"""The tensors that it makes without one in any type."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Tensor types that nothing was quantised to."""
_INTERNAL = frozenset({"Q8_1", "Q8_K"})
"""What llama.cpp makes of activations while it computes: no type for weights."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """How the numbers of one tensor are held."""

    name: str
    """ggml's, in capitals: "Q4_K"."""
    number: int
    """ggml's."""
    block: int
    """Elements that share their scales: rows must be whole blocks."""
    block_bytes: int

    def num_bytes(self, num_elements: int) -> int:
        """Bytes of so many elements in whole blocks."""
        return num_elements // self.block * self.block_bytes


@dataclass(frozen=True, slots=True)
class Recipe:
    """A type that a file can be quantised to."""

    name: str
    """As in file names: "Q4_K_M"."""
    number: int
    """llama.cpp's `llama_ftype`, which the file's general.file_type holds."""
    main: TensorType
    """What tensors get where llama.cpp sees no reason for another type."""


@cache
def tensor_types() -> Mapping[str, TensorType]:
    """All types of tensors that llama.cpp knows, by name."""
    base = ggml("ggml-base")
    base.ggml_type_name.restype = ctypes.c_char_p
    base.ggml_type_size.restype = ctypes.c_size_t
    base.ggml_blck_size.restype = ctypes.c_int64
    found: dict[str, TensorType] = {}
    for number in range(int(library().GGML_TYPE_COUNT)):
        name = base.ggml_type_name(number)
        if name and (
            block := base.ggml_blck_size(number)
        ):  # numbers of removed types have no block
            name = name.decode().upper()
            found[name] = TensorType(name, number, block, base.ggml_type_size(number))
    return found


def tensor_type(name: str) -> TensorType:
    """The type of that name, for a tensor that is to be kept in it; capitals or not.

    Raises:
        UsageError: there is no such type, or weights cannot be in it.
    """
    types = {
        name: kind
        for name, kind in tensor_types().items()
        if name not in _INTERNAL and not re.fullmatch(r"I\d+|F64", name)
    }
    if (kind := types.get(name.upper())) is None:
        raise unknown_name("tensor type", name, types)
    return kind


@cache
def recipes() -> Mapping[str, Recipe]:
    """All types that a file can be quantised to, by name, in llama.cpp's order."""
    from gguf import GGML_QUANT_SIZES

    lib, types = library(), tensor_types()
    numbers = {
        re.sub(r"^LLAMA_FTYPE_(MOSTLY|ALL)?_?", "", name): int(getattr(lib, name))
        for name in vars(lib)
        if name.startswith("LLAMA_FTYPE_")
    }
    return {
        name: Recipe(name, number, types[_main(name)])
        for name, number in sorted(numbers.items(), key=lambda pair: pair[1])
        if name not in _NOT_MADE and types[_main(name)].number in set(map(int, GGML_QUANT_SIZES))
    }


def _main(name: str) -> str:
    return _IRREGULAR.get(name) or re.sub(
        r"(?<=_K)_[SML]$", "", re.sub(r"^(IQ3)_M$", r"\1_S", name)
    )


def recipe(name: str) -> Recipe:
    """The recipe of that name; capitals or not, and llama.cpp's short names too.

    Raises:
        UsageError: there is no such type; the message names the nearest ones. Or llama.cpp cannot
            make it.
    """
    upper = name.upper()
    if upper in _NOT_MADE:
        raise UsageError(f"nothing can be quantised to {upper}: {_NOT_MADE[upper]}")
    if (found := recipes().get(_ALIASES.get(upper, upper))) is None:
        raise unknown_name("type of quantisation", upper, recipes())
    return found


def needs_matrix(tensor_name: str, type_name: str, recipe_name: str) -> bool:
    """Whether llama.cpp makes this tensor with an importance matrix only."""
    if tensor_name in _WITHOUT_MATRIX:
        return False
    return type_name in _MATRIX_TYPES or (type_name == "Q2_K" and recipe_name == "Q2_K_S")


def is_quantised(type_name: str) -> bool:
    """Whether numbers of this type were rounded to a few levels per block."""
    return type_name not in FLOATS and not re.fullmatch(r"I\d+", type_name)
