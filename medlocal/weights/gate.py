"""The gate: whether a GGUF may be loaded into this process.

Three checks, each letting the next one trust more: the header and what it says (`header`, `inspect`,
`consistency`) and the chat template (`template_review`) in Python, before llama.cpp sees the file; then
the first load by llama.cpp in a process of its own (`first_load`). What passed is remembered by the
file's SHA-256, llama.cpp's commit and the gate's version, so that the child runs once per file and
build. What was refused is not: the next attempt looks again.

A file that is changed between its hash and its load is not noticed; nothing here guards against
somebody who writes to the user's own folders.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medlocal import libllama
from medlocal.files import Progress, atomic_write, disk_errors, file_sha256, no_progress
from medlocal.settings import Settings
from medlocal.weights.consistency import check_consistent, doubts
from medlocal.weights.first_load import first_load
from medlocal.weights.inspect import GGUFInfo, read_gguf
from medlocal.weights.template import ChatTemplate
from medlocal.weights.template_review import refuse_hostile

GATE_VERSION = 1
"""Raised with every check that is added: what passed before is looked at again."""
CHECKS = ("header", "metadata and tensors", "chat template", "first load")
"""What has passed when a file has."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A file that was let through."""

    sha256: str
    """Of the file."""
    commit: str
    """Of the llama.cpp that loaded it first."""
    passed: tuple[str, ...]
    """The checks, in order."""
    warnings: tuple[str, ...]
    """What is no reason to refuse it, and should be known."""
    when: str
    """UTC, ISO 8601."""
    seconds: float
    """That the first load took."""
    ends: tuple[int, ...]
    """End-of-generation tokens, as llama.cpp takes them."""
    version: int = GATE_VERSION


def admit(path: Path, settings: Settings, progress: Progress = no_progress) -> Gate:
    """Let a file through the whole gate, for whoever is about to load it.

    Raises:
        MissingError: there is no such file.
        RefusedError: it must not be loaded; the message says what was found.
        MedlocalError: it could not be read, or no process could be started.
    """
    info = read_gguf(path)
    with disk_errors(path):
        sha256 = file_sha256(path, progress, settings.home / "hashes.json")
    return pass_gate(info, sha256, settings, progress)


def pass_gate(
    info: GGUFInfo, sha256: str, settings: Settings, progress: Progress = no_progress
) -> Gate:
    """The same for a file whose header and hash are known."""
    memory = gate_memory(settings)
    commit = libllama.build_info()["commit"]
    for gate in remembered_gates(memory):
        if (gate.sha256, gate.commit) == (sha256, commit):
            return gate
    warnings = examine(info)
    progress(f"first load of {info.path.name} in a process of its own", 0, None)
    loaded = first_load(info.path)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    gate = Gate(sha256, commit, CHECKS, warnings, when, round(loaded.seconds, 2), loaded.ends)
    _remember(memory, gate)
    return gate


def examine(info: GGUFInfo) -> tuple[str, ...]:
    """The checks that need no load, and what they warn of.

    Raises:
        RefusedError: the file must not be loaded.
    """
    check_consistent(info)
    warnings = list(doubts(info))
    if (template := file_template(info)) is not None:
        found = refuse_hostile(template)
        warnings += [f"the chat template {f.text}" for f in found if f.severity == "warning"]
    return tuple(warnings)


def file_template(info: GGUFInfo) -> ChatTemplate | None:
    """The chat template of a file, not tried out; None where there is none.

    Raises:
        RefusedError: the file names special tokens that it does not have.
    """
    if (source := info.chat_template) is None:
        return None
    ids = (info.bos_id, info.eos_id)
    bos, eos = ("" if token is None else info.token(token) for token in ids)
    return ChatTemplate(source, bos, eos, str(info.path))


def gate_memory(settings: Settings) -> Path:
    """Where the workspace remembers what passed."""
    return settings.home / "gate.json"


def remembered_gates(memory: Path) -> tuple[Gate, ...]:
    """What passed this version of the gate, with whatever llama.cpp.

    A file that is damaged or may not be read remembers nothing: it costs a load, never a wrong
    answer.
    """
    try:
        entries = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return ()
    return tuple(_gates(entries if isinstance(entries, list) else []))


def _gates(entries: list[object]) -> Iterator[Gate]:
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("version") != GATE_VERSION:
            continue
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in entry.items()
        }
        try:
            gate = Gate(**values)
        except TypeError:
            continue
        if gate.passed == CHECKS and _is_sound(gate):
            yield gate


def _is_sound(gate: Gate) -> bool:
    texts, numbers = (gate.sha256, gate.commit, gate.when), (gate.ends, gate.warnings)
    return all(isinstance(text, str) for text in texts) and all(
        isinstance(each, tuple) for each in numbers
    )


def _remember(memory: Path, gate: Gate) -> None:
    # What cannot be kept, as in an installation that many share, costs a load, never an answer.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        # Two processes may write at once; the later one wins, and what is lost is loaded again.
        entries = [asdict(known) for known in remembered_gates(memory)]
        atomic_write(memory, json.dumps([*entries, asdict(gate)], indent=1))
