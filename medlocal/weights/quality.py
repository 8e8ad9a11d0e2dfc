"""What quantised files of one model lost against a reference file of it, on texts in several languages.

The reference is computed first, once per text, and what is needed of it is kept on the disk; then each
other file is computed on the same token ids and compared. One model is loaded at a time, all with the
same threads and rows, so that no difference comes from how they were computed. What the figures mean
stands in `distances` and `divergence`; tasks, tables and plots are not known here.

Chunks are llama.cpp's own: from an empty cache each, the second half scored.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlocal import libllama
from medlocal.errors import RefusedError, UsageError
from medlocal.files import Progress, disk_errors, file_sha256, no_progress, require_room
from medlocal.settings import Settings
from medlocal.weights.corpus import CorpusOptions, LanguageText, cut_chunk, named, texts_sha256
from medlocal.weights.distances import (
    Distances,
    Ids,
    KeepOptions,
    Kept,
    distances,
    joined,
    joined_distances,
    keep,
)
from medlocal.weights.divergence import summarise
from medlocal.weights.forward import Forward, ForwardOptions
from medlocal.weights.gate import admit
from medlocal.weights.inspect import GGUFInfo, read_gguf
from medlocal.weights.quality_results import FileFacts, Measured, Quality, TextFacts
from medlocal.weights.reference import (
    Reference,
    ReferenceFacts,
    ReferenceKey,
    open_reference,
    scored_positions,
    write_reference,
)

MIN_CHUNK_TOKENS = 32
NUM_ROWS = 512
"""Positions computed in one call, at most: llama.cpp's own default."""


@dataclass(frozen=True)
class MeasureRequest:
    """What is to be measured."""

    reference: Path
    """The GGUF that the others are compared with."""
    quantised: tuple[Path, ...]
    texts: tuple[LanguageText, ...]
    """One per language."""
    settings: Settings
    """Where references are kept, and how many threads compute."""
    max_chunks: int | None = None
    """Of a text, at most; None = all of it."""
    chunk_tokens: int = 512
    """Tokens of a chunk; llama.cpp's own default."""
    keep: KeepOptions = field(default_factory=KeepOptions)

    @property
    def folder(self) -> Path:
        """Where references are kept: one file per model and text."""
        return self.settings.home / "references"


def measure(request: MeasureRequest, progress: Progress = no_progress) -> Quality:
    """Compare files with a reference.

    Args:
        request: what with what, on which texts.
        progress: told how many tokens of all were computed, and of which file. How many there will be
            is not known until the texts are tokens.

    Raises:
        UsageError: a file is named twice, or a text is too short.
        MissingError: a file is not there.
        RefusedError: a file must not be used, or has another vocabulary than the reference.
        MedlocalError: a model could not be computed; the disk is full.
    """
    check_request(request)
    work = _Work(request, progress)
    references, num_reused = work.references()
    files = [work.compare(path, references) for path in request.quantised]
    return Quality(
        reference=work.facts(request.reference, next(iter(references.values())).facts.loaded_bytes),
        texts=tuple(
            TextFacts(
                language=text.language,
                sha256=texts_sha256([text]),
                num_chunks=len(made.tokens),
                chunk_tokens=request.chunk_tokens,
                num_positions=made.num_positions,
            )
            for text, made in zip(request.texts, references.values(), strict=True)
        ),
        files=tuple(files),
        num_reused=num_reused,
        reference_bytes=float(np.mean([r.bytes_per_position for r in references.values()])),
    )


def check_request(request: MeasureRequest) -> None:
    """Read the headers and refuse what cannot be compared, before anything is loaded.

    Raises:
        UsageError, MissingError, RefusedError: as `measure` says.
    """
    if request.chunk_tokens < MIN_CHUNK_TOKENS:
        raise UsageError(
            f"a chunk must have {MIN_CHUNK_TOKENS} tokens or more",
            hint=f"--chunk-tokens {MIN_CHUNK_TOKENS} is the least, 512 is usual",
        )
    if request.max_chunks is not None and request.max_chunks < 2:
        raise UsageError(
            "two chunks or more are needed, or there is no error to state",
            hint="--chunks 2 is the least, 0 takes all of the text",
        )
    reference = read_gguf(request.reference)
    if request.chunk_tokens > reference.context_length:
        raise UsageError(
            f"chunks of {request.chunk_tokens:,} tokens are longer than the"
            f" {reference.context_length:,} that {request.reference.name} was trained on",
            hint=f"choose shorter ones: --chunk-tokens {reference.context_length}",
        )
    names: dict[str, Path] = {}
    for path in (request.reference, *request.quantised):
        if (other := names.setdefault(path.stem, path)) is not path:
            raise UsageError(f"{other} and {path} have the same name", hint="rename one of them")
        info = read_gguf(path)
        if vocabulary_sha256(info) != vocabulary_sha256(reference):
            raise _of_another_model(info, reference, "it has another vocabulary")
        if found := _differing_tensor(info, reference):
            raise _of_another_model(info, reference, found)


def _of_another_model(info: GGUFInfo, reference: GGUFInfo, why: str) -> RefusedError:
    return RefusedError(
        f"{info.path} is no quantisation of {reference.path}: {why}",
        hint="compare quantisations of one model, made from the same conversion",
    )


def _differing_tensor(info: GGUFInfo, reference: GGUFInfo) -> str:
    """The first tensor, by name, that a file has and the other not, or not in that shape; "" = none."""
    ours, theirs = ({t.name: t.shape for t in each.tensors} for each in (info, reference))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            here, there = (
                " × ".join(map(str, shapes[name])) if name in shapes else "not"
                for shapes in (ours, theirs)
            )
            return f"its {name} is {here} there, and {there} in the reference"
    return ""


def vocabulary_sha256(info: GGUFInfo) -> str:
    """The checksum of a file's tokens, in their order: equal for the quantisations of one model."""
    digest = hashlib.sha256()
    tokens = info.metadata.get("tokenizer.ggml.tokens", ())
    assert isinstance(tokens, Iterable)
    for token in tokens:
        raw = str(token).encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(4, "little") + raw)
    return digest.hexdigest()


def type_of(info: GGUFInfo) -> str:
    """The recipe that a file claims, else the type that holds most bytes."""
    return info.file_type or info.main_quantisation or "unknown"


@dataclass
class _Work:
    """The progress of one measurement."""

    request: MeasureRequest
    progress: Progress
    _done: int = 0
    _total: int | None = None

    def references(self) -> tuple[dict[str, Reference], int]:
        """The reference of every language, made where it is not there; and how many were there."""
        request = self.request
        keys = {text.language: self._key(text) for text in request.texts}
        found = {name: open_reference(request.folder, key) for name, key in keys.items()}
        missing = [text for text in request.texts if found[text.language] is None]
        if missing:
            self._make(missing, keys, [made for made in found.values() if made is not None])
            for text in missing:
                found[text.language] = open_reference(request.folder, keys[text.language])
        references = {name: made for name, made in found.items() if made is not None}
        assert len(references) == len(keys), "a reference that was just made is gone"
        if self._total is None:
            self._total = self._tokens_of_files([made.tokens for made in references.values()])
        return references, len(request.texts) - len(missing)

    def _make(
        self,
        texts: Sequence[LanguageText],
        keys: Mapping[str, ReferenceKey],
        others: Sequence[Reference],
    ) -> None:
        """Compute the reference on the texts, and keep what is needed of it."""
        path = self.request.reference
        info = read_gguf(path)
        with self._load(path) as model:
            facts = ReferenceFacts(model.num_vocab, vocabulary_sha256(info), model.size_bytes)
            chunks = {text.language: self._chunks(model, info, text) for text in texts}
            all_tokens = [*chunks.values(), *(made.tokens for made in others)]
            self._total = self._tokens_of_files(all_tokens) + _num_tokens(chunks.values())
            self._require_room(chunks.values(), facts)
            with Forward(model, self._forward_options()) as forward:
                for name, tokens in chunks.items():
                    key = keys[name]
                    kept = self._keep(forward, tokens, key, f"{path.stem}, {name or 'text'}")
                    write_reference(self.request.folder, key, facts, tokens, kept)

    def _keep(
        self, forward: Forward, chunks: Ids, key: ReferenceKey, description: str
    ) -> Iterator[Kept]:
        for number, tokens in enumerate(chunks):
            seed = [int(key.model_sha256[:16], 16), int(key.text_sha256[:16], 16), number]
            rng = np.random.default_rng(seed)
            parts = [
                keep(logits, following, rng, key.keep)
                for _, logits, following in _scored(forward, tokens, self.request.reference)
            ]
            yield joined(parts)
            self._tell(description, len(tokens))

    def compare(self, path: Path, references: Mapping[str, Reference]) -> Measured:
        """Compute one file on every text, and compare it with the reference."""
        by_language = {}
        with self._load(path) as model, Forward(model, self._forward_options()) as forward:
            loaded_bytes = model.size_bytes
            for name, reference in references.items():
                found: list[Distances] = []
                for tokens, kept in zip(reference.tokens, reference.chunks(), strict=True):
                    found += [
                        distances(kept.part(start, start + len(logits)), logits, following)
                        for start, logits, following in _scored(forward, tokens, path)
                    ]
                    self._tell(f"{path.stem}, {name or 'text'}", len(tokens))
                by_language[name] = summarise(joined_distances(found), len(reference.tokens))
        return Measured(self.facts(path, loaded_bytes), by_language)

    def facts(self, path: Path, loaded_bytes: int) -> FileFacts:
        """What is known of a file."""
        info = read_gguf(path)
        return FileFacts(
            name=path.stem,
            path=path,
            sha256=self._sha256(path),
            type=type_of(info),
            size_bytes=info.size,
            bits_per_weight=info.bits_per_weight or 0.0,
            loaded_bytes=loaded_bytes,
        )

    def _key(self, text: LanguageText) -> ReferenceKey:
        request = self.request
        devices = sorted(device.description for device in libllama.devices())
        return ReferenceKey(
            model_sha256=self._sha256(request.reference),
            text_sha256=texts_sha256([text]),
            chunk_tokens=request.chunk_tokens,
            num_chunks=request.max_chunks or 0,
            num_rows=NUM_ROWS,
            num_threads=request.settings.num_threads,
            build=f"{libllama.build_info()['commit']} on {', '.join(devices)}",
            keep=request.keep,
        )

    def _chunks(self, model: libllama.LlamaModel, info: GGUFInfo, text: LanguageText) -> Ids:
        """The text's token ids, (chunks, tokens)."""
        size = self.request.chunk_tokens
        options = CorpusOptions(size, model.bos if info.wants_bos else None)
        start = [] if options.bos is None else [options.bos]
        stream = np.concatenate([np.asarray(start, np.int32), text.tokens(model.tokenize)])
        number = len(stream) // size
        if number < 2:
            raise UsageError(
                f"the {named(text.language)}text has {len(stream):,} tokens, and two chunks of"
                f" {size:,} are needed at least",
                hint="give more text, or shorter chunks with --chunk-tokens",
            )
        number = min(number, self.request.max_chunks or number)
        return np.stack([cut_chunk(stream, place, options) for place in range(number)])

    def _forward_options(self) -> ForwardOptions:
        request = self.request
        return ForwardOptions(request.chunk_tokens, request.settings.num_threads, NUM_ROWS)

    def _load(self, path: Path) -> libllama.LlamaModel:
        """Load a file that came through the gate."""
        self.progress(f"loading {path.stem}", self._done, self._total)
        admit(path, self.request.settings)
        return libllama.LlamaModel(path)

    def _sha256(self, path: Path) -> str:
        def told(description: str, done: int, total: int | None) -> None:
            self.progress(description, self._done, None)  # its bytes are not our tokens

        return file_sha256(path, told, self.request.settings.home / "hashes.json")

    def _tell(self, description: str, num_tokens: int) -> None:
        self._done += num_tokens
        self.progress(description, self._done, self._total)

    def _tokens_of_files(self, chunks: Iterable[Ids]) -> int:
        return len(self.request.quantised) * _num_tokens(chunks)

    def _require_room(self, chunks: Iterable[Ids], facts: ReferenceFacts) -> None:
        """The most that the references can take."""
        options = self.request.keep
        width = 4 + (2 if facts.num_vocab <= 1 << 16 else 4)
        per_position = width * (min(options.most, facts.num_vocab) + options.num_drawn) + 16
        positions = sum(len(c) * scored_positions(self.request.chunk_tokens) for c in chunks)
        folder = self.request.folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        require_room(folder, positions * per_position)


def _num_tokens(chunks: Iterable[Ids]) -> int:
    return sum(tokens.size for tokens in chunks)


def _scored(
    forward: Forward, tokens: Ids, path: Path
) -> Iterator[tuple[int, NDArray[np.float32], Ids]]:
    """Compute a chunk.

    Yields:
        Of each block: the number of its first scored position, the logits, and the tokens that follow.

    Raises:
        RefusedError: the model gives logits that are not numbers.
    """
    first = len(tokens) // 2
    for position, logits in forward.blocks(tokens.tolist(), first):
        scored = logits[: len(tokens) - 1 - position]  # nothing follows the last one
        if not np.isfinite(scored).all():
            raise RefusedError(
                f"{path} gives logits that are not finite numbers",
                hint="its weights are damaged, or were quantised from damaged ones",
            )
        if len(scored):
            following = tokens[position + 1 : position + 1 + len(scored)]
            yield position - first, scored, following
