"""Where a GGUF comes from: the keys that medlocal writes into a file's own metadata, and reads there.

The keys under `medlocal.` are ours; those under `quantize.imatrix.` are written and named by
llama.cpp's own quantiser, so that a file made there tells its matrix here, and the other way round.
This module knows keys, not how a file is made; nobody vouches for what a file says of itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from medlocal.errors import RefusedError
from medlocal.weights.header import shown
from medlocal.weights.inspect import GGUFInfo

MAX_VALUE_BYTES = 127
"""Of a string: llama.cpp's override structs hold 128, the closing zero included."""

KEYS = {
    "version": "medlocal.version",
    "source": "medlocal.source",
    "revision": "medlocal.source.revision",
    "source_sha256": "medlocal.source.sha256",
    "parent_sha256": "medlocal.parent.sha256",
    "requantised_from": "medlocal.requantised_from",
    "llama_commit": "medlocal.llama_commit",
    "corpus_sha256": "medlocal.imatrix.corpus_sha256",
    "corpus_shares": "medlocal.imatrix.corpus_shares",
    "imatrix_file": "quantize.imatrix.file",
    "imatrix_dataset": "quantize.imatrix.dataset",
    "imatrix_entries": "quantize.imatrix.entries_count",
    "imatrix_chunks": "quantize.imatrix.chunks_count",
}
"""Field of `Provenance` -> key in the file."""
MATRIX_KEYS = tuple(key for key in KEYS.values() if ".imatrix." in key)
"""Those that tell of the importance matrix with which this very file was made."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a file says of its own way. "" and 0 = it does not say."""

    version: str = ""
    """Of the medlocal that wrote the file."""
    source: str = ""
    """Of the checkpoint: a repository's id, or a folder's name."""
    revision: str = ""
    """The commit of that repository."""
    source_sha256: str = ""
    """SHA-256 over the sorted lines "sha256  name" of the checkpoint's weight files."""
    parent_sha256: str = ""
    """Of the GGUF that this one was quantised from."""
    requantised_from: str = ""
    """The main types of the quantised GGUFs on its way, the oldest first: "IQ3_S, Q4_0"."""
    llama_commit: str = ""
    """The llama.cpp that wrote the tensors."""
    corpus_sha256: str = ""
    """Of all the text that the importance matrix was measured on, where medlocal made the matrix."""
    corpus_shares: str = ""
    """The languages' shares of that text: "en=1/2 es=1/2"."""
    imatrix_file: str = ""
    """The importance matrix, as it was named when it was used."""
    imatrix_dataset: str = ""
    """The texts that it was measured on; llama.cpp's own tool names the first only."""
    imatrix_entries: int = 0
    """Tensors that it covers."""
    imatrix_chunks: int = 0
    """Chunks of text that it was measured on."""

    def entries(self) -> dict[str, str]:
        """The keys under `medlocal.` that have a value, for a writer; values of at most 127 bytes."""
        return {
            key: fitted(value)
            for name, key in KEYS.items()
            if key.startswith("medlocal.") and (value := getattr(self, name))
        }


def cleared(info: GGUFInfo) -> Iterator[tuple[str, str | int]]:
    """What a source says of its own matrix, with values that say nothing.

    llama.cpp takes all keys over from the source, and can replace their values, not remove them.
    """
    for key in MATRIX_KEYS:
        if key in info.metadata:
            yield key, "" if isinstance(info.metadata[key], str) else 0


def read_provenance(info: GGUFInfo) -> Provenance:
    """What a GGUF says of its way; empty fields for a file that no such tool made.

    Raises:
        RefusedError: a key is there and holds a value of another kind than its tools write.
    """
    return Provenance(
        **{name: _text(info, KEYS[name]) for name in KEYS if not name.startswith("imatrix_")},
        imatrix_file=_text(info, KEYS["imatrix_file"]),
        imatrix_dataset=_text(info, KEYS["imatrix_dataset"]),
        imatrix_entries=_number(info, KEYS["imatrix_entries"]),
        imatrix_chunks=_number(info, KEYS["imatrix_chunks"]),
    )


def fitted(text: str, max_bytes: int = MAX_VALUE_BYTES) -> str:
    """A text cut to what a metadata value may hold, in UTF-8, without a piece of a character."""
    return text.encode()[:max_bytes].decode("utf-8", "ignore")


def _text(info: GGUFInfo, key: str) -> str:
    if type(value := info.metadata.get(key, "")) is not str:
        raise _refused(info, key, "text")
    return value


def _number(info: GGUFInfo, key: str) -> int:
    if type(value := info.metadata.get(key, 0)) is not int:  # isinstance would take True
        raise _refused(info, key, "a whole number")
    return value


def _refused(info: GGUFInfo, key: str, wanted: str) -> RefusedError:
    return RefusedError(
        f"{info.path}: {key} is {shown(info.metadata[key])}, not {wanted}",
        hint="use a file that medlocal or llama.cpp's tools made",
    )
