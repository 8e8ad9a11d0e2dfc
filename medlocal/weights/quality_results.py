"""What was measured of quantised files: frozen values, which reports read without llama.cpp.

How it is measured stands in `quality`; nothing is computed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medlocal.weights.divergence import Divergence


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One GGUF."""

    name: str
    path: Path
    sha256: str
    type: str
    """The recipe that the file claims, such as "Q4_K_M", else the type that holds most bytes."""
    size_bytes: int
    bits_per_weight: float
    loaded_bytes: int
    """Of all tensors in memory, as llama.cpp counts them."""


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What was measured on."""

    language: str
    sha256: str
    """Of the text, with the language's name."""
    num_chunks: int
    chunk_tokens: int
    num_positions: int
    """Predicted tokens."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One quantised file."""

    file: FileFacts
    by_language: Mapping[str, Divergence]


@dataclass(frozen=True, slots=True)
class Quality:
    """Everything that was measured."""

    reference: FileFacts
    texts: tuple[TextFacts, ...]
    files: tuple[Measured, ...]
    """In the order in which they were named."""
    num_reused: int
    """References that had been made before."""
    reference_bytes: float
    """On the disk, per predicted token."""
