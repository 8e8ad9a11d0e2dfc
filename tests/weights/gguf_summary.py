"""What is in a GGUF, short enough to be committed: read with the `gguf` package, not with ours."""

import hashlib
from pathlib import Path
from typing import Any

from gguf import GGUFReader

_MOST_TEXT, _MOST_ELEMENTS = 200, 8


def summarise(path: Path) -> dict[str, Any]:
    """Keys with type and value, and tensors with type, shape and hash, in the file's order."""
    reader = GGUFReader(path)
    keys = [
        [name, [kind.name for kind in field.types], _short(field.contents())]
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    ]
    tensors = [
        [t.name, t.tensor_type.name, [int(n) for n in t.shape], _hash(t.data.tobytes())]
        for t in reader.tensors
    ]
    return {"keys": keys, "tensors": tensors}


def _short(value: Any) -> Any:
    """A value, or the hash of one that is long."""
    if isinstance(value, list) and len(value) > _MOST_ELEMENTS:
        return f"{len(value)} elements, {_hash(repr(value).encode())}"
    if isinstance(value, str) and len(value) > _MOST_TEXT:
        return f"{len(value)} characters, {_hash(value.encode())}"
    return value


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]
