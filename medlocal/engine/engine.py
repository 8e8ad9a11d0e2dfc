"""The loop: all requests of a model in, completions out as they finish.

It builds the prefix tree of everything that was asked, walks it in epochs, and in every batch puts
the rows of generated texts beside the rows of prompts still to be read. One row of logits serves
all that hangs on it: the label scores, the free text and the constrained text of a prompt. It
knows token ids only; it does not know what a question is, and it never prints.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from medlocal.engine.batching import (
    KEEPER,
    PADDING,
    Batch,
    Decoder,
    Epoch,
    Prefill,
    pad,
    plan_epochs,
)
from medlocal.engine.sequence import (
    Completion,
    Constraint,
    EngineStats,
    Generate,
    Logits,
    Request,
    Score,
    TokenIds,
)
from medlocal.engine.tree import PrefixTree, build_tree
from medlocal.errors import MedlocalError

_CLOSING_RESERVE = 6
"""Tokens left for what follows a closing: the answer itself and its end."""


@dataclass(slots=True)
class _Text:
    """A text being generated."""

    completion: Completion
    max_tokens: int
    constraint: Constraint | None
    sequence: int
    start: int
    """Position of its first token: the length of the prompt."""
    position: int
    """Position of the next row."""
    queue: deque[int] = field(default_factory=deque)
    """Tokens that are decided and not yet given to the model."""
    expected: deque[tuple[int, TokenIds]] = field(default_factory=deque)
    """Forced tokens whose probability is still to be read, with what was allowed beside them."""
    is_closing: bool = False

    @property
    def is_finished(self) -> bool:
        return bool(self.completion.finish)


@dataclass(slots=True)
class _Target:
    """A token of a continuation whose log-probability is read from some row."""

    completion: Completion
    continuation: int
    token: int


@dataclass(slots=True)
class _Start:
    """Where a text begins: behind its prompt and the tokens that its grammar forces first."""

    completion: Completion
    constraint: Constraint | None
    length: int
    """Tokens of prompt and forced beginning."""


@dataclass(slots=True)
class _Work:
    """The tree of a run, and what hangs on its rows."""

    tree: PrefixTree
    targets: dict[tuple[int, int], list[_Target]] = field(default_factory=dict)
    """(node, depth) -> continuation tokens that the row predicts."""
    starts: dict[int, list[_Start]] = field(default_factory=dict)
    """node -> texts that begin at its end."""
    forced: dict[tuple[int, int], list[tuple[Completion, int, TokenIds]]] = field(
        default_factory=dict
    )
    """(node, depth) -> forced first tokens that the row predicts, with what was allowed beside
    them. They belong to the tree: the label arm and other texts may share them."""
    open_targets: dict[int, int] = field(default_factory=dict)
    """Request id -> continuation tokens still to be read."""


@dataclass
class Engine:
    """Runs requests on a decoder."""

    decoder: Decoder
    on_batch: Callable[[], None] = lambda: None
    """Called after every batch. What it raises stops the run, with the cache emptied."""
    stats: EngineStats = field(default_factory=EngineStats)
    """Of the run in progress, or of the last one."""

    def run(
        self, requests: Sequence[Request], max_context: int
    ) -> Generator[Completion, None, None]:
        """Answer all requests, in the order in which they finish.

        Args:
            requests: with distinct ids.
            max_context: longest prompt with its answer, in tokens. A request that needs more gets
                a completion with `error`; nothing is ever cut.

        Yields:
            one completion for every request. Closing the iterator stops the work cleanly.
        """
        self.stats = EngineStats(num_requests=len(requests))
        self.stats.total_prompt_tokens = sum(len(r.prompt) for r in requests)
        limit = min(max_context, self._num_cells)
        fitting = []
        for request in requests:
            if request.num_cells <= limit:
                fitting.append(request)
            else:
                yield _too_long(request, limit)
        if not fitting:
            return
        started = time.perf_counter()
        try:
            yield from self._walk(_lay_out(fitting))
        finally:
            self.decoder.clear()
            self.stats.seconds = time.perf_counter() - started

    @property
    def _num_cells(self) -> int:
        """Cells for prompts and texts: a padded batch needs some of its own."""
        limits = self.decoder.limits
        return limits.num_cells - max(0, limits.min_rows - 1)

    def _walk(self, work: _Work) -> Iterator[Completion]:
        tree = work.tree
        self.stats.unique_prompt_tokens = tree.num_tokens
        growth = [0] * len(tree.nodes)
        for node, starts in work.starts.items():
            # What the grammar forces first is part of the node already.
            growth[node] = sum(_max_tokens(s.completion) - len(s.completion.tokens) for s in starts)
        most = max(n.end + g for n, g in zip(tree.nodes, growth, strict=True))
        if most > self._num_cells:
            raise MedlocalError(
                f"one prompt with its answers needs {most} cells of KV cache; "
                f"there are {self._num_cells}",
                hint="make the cache larger, or ask for shorter answers",
            )
        epochs = plan_epochs(tree, growth, self._num_cells)
        prefill = self._prefill(work)
        for number, epoch in enumerate(epochs):
            following = epochs[number + 1].kept if number + 1 < len(epochs) else ()
            yield from self._epoch(work, prefill, epoch, frozenset(following))

    def _prefill(self, work: _Work) -> Prefill:
        wanted: list[set[int]] = [set() for _ in work.tree.nodes]
        for node, depth in (*work.targets, *work.forced):
            wanted[node].add(depth)
        num_texts = [0] * len(work.tree.nodes)
        for node, starts in work.starts.items():
            wanted[node].add(work.tree.nodes[node].end - 1)
            num_texts[node] = len(starts)
        return Prefill(
            work.tree, self.decoder.limits, [frozenset(depths) for depths in wanted], num_texts
        )

    def _epoch(
        self, work: _Work, prefill: Prefill, epoch: Epoch, keep: frozenset[int]
    ) -> Iterator[Completion]:
        prefill.begin(epoch)
        texts: deque[_Text] = deque()
        while texts or not prefill.finished:
            batch = Batch()
            rows = self._add_texts(batch, texts)
            num_text_rows = len(batch)
            copies, wanted = prefill.fill(batch)
            if not batch:
                raise MedlocalError(
                    f"{self.decoder.limits.num_ids} sequence ids are too few for these requests"
                )
            self.stats.prefilled_tokens += len(batch) - num_text_rows
            for copy in copies:
                self.decoder.copy(copy.source, copy.target, 0, copy.end)
            self._decode(batch, num_text_rows)
            for row, text in rows:
                self._receive(text, self.decoder.logits(row))
            for row, node, depth in wanted:
                yield from self._read(work, prefill, (node, depth), row, texts)
            yield from self._retire(texts, prefill)
            self._close(prefill, prefill.closable(keep), work.tree)
            self.on_batch()
        self._close(prefill, [n for n in prefill.ids if n not in keep], work.tree)
        self.decoder.remove(KEEPER)

    def _add_texts(self, batch: Batch, texts: deque[_Text]) -> list[tuple[int, _Text]]:
        """Put the decided tokens of every text into the batch, as far as there is room."""
        rows = []
        limits = self.decoder.limits
        for _ in range(len(texts)):
            text = texts[0]
            while (
                text.queue
                and len(batch) < limits.num_rows
                and batch.num_outputs < limits.num_outputs
            ):
                row = batch.add(text.queue.popleft(), text.position, [text.sequence], True)
                text.position += 1
                rows.append((row, text))
            if text.queue:
                break  # its turn comes first in the next batch
            texts.rotate(-1)
        return rows

    def _decode(self, batch: Batch, num_text_rows: int) -> None:
        """Compute a batch, padded where a small one would take another kernel."""
        is_padded = pad(batch, self.decoder.limits)
        started = time.perf_counter()
        self.decoder.decode(batch)
        if is_padded:
            self.decoder.remove(PADDING)
        self.stats.decode_seconds += time.perf_counter() - started
        self.stats.num_batches += 1
        self.stats.decode_rows += num_text_rows
        self.stats.decode_batches += bool(num_text_rows)

    def _read(
        self,
        work: _Work,
        prefill: Prefill,
        place: tuple[int, int],
        row: int,
        texts: deque[_Text],
    ) -> Iterator[Completion]:
        """Give a row of the prompt to all that hangs on it."""
        node, depth = place
        logits = self.decoder.logits(row)
        targets, forced = work.targets.get(place), work.forced.get(place, ())
        if targets or forced:
            total = _log_sum_exp(logits)
            for completion, token, allowed in forced:
                _note(completion, token, logits, total, allowed)
            for target in targets or ():
                value = float(logits[target.token]) - total
                target.completion.scores[target.continuation] += value
                if _is_last(work, target.completion, value):
                    yield target.completion
        if depth == work.tree.nodes[node].end - 1:
            for start in work.starts.get(node, ()):
                texts.append(self._begin(start, prefill, node))
                self._receive(texts[-1], logits)

    def _begin(self, start: _Start, prefill: Prefill, node: int) -> _Text:
        sequence = prefill.text_ids[node].pop()
        self.decoder.copy(prefill.ids[node], sequence, 0, start.length)
        most, length = _max_tokens(start.completion), start.length
        text = _Text(start.completion, most, start.constraint, sequence, length, length)
        _extend(text)
        return text

    def _receive(self, text: _Text, logits: Logits) -> None:
        """Take the row that predicts the next token of a text."""
        if text.is_finished:
            return
        total = _log_sum_exp(logits)
        completion = text.completion
        if not math.isfinite(total):
            completion.finish, completion.error = "error", "the model's logits are not finite"
            return
        if text.expected:
            token, allowed = text.expected.popleft()
            _note(completion, token, logits, total, allowed)
            if not text.expected and len(completion.tokens) >= text.max_tokens:
                _end_by_length(text)
            return
        allowed_now = text.constraint.allowed() if text.constraint else None
        token = _choose(logits, allowed_now)
        if token in self.decoder.ends:
            completion.finish = "stop"
            _note_mask(completion, logits, total, allowed_now)
            return
        _note(completion, token, logits, total, allowed_now)
        _append(text, token)
        _extend(text)

    def _retire(self, texts: deque[_Text], prefill: Prefill) -> Iterator[Completion]:
        """Take out the texts that have ended."""
        for _ in range(len(texts)):
            text = texts.popleft()
            if not text.is_finished:
                texts.append(text)
                continue
            if text.position > text.start:
                self.decoder.copy(text.sequence, KEEPER, text.start, text.position)
            self.decoder.remove(text.sequence)
            prefill.give_id(text.sequence)
            self.stats.generated_tokens += len(text.completion.tokens)
            self.stats.forced_tokens += text.completion.num_forced
            yield text.completion

    def _close(self, prefill: Prefill, nodes: Sequence[int], tree: PrefixTree) -> None:
        for node in nodes:
            sequence = prefill.ids[node]
            self.decoder.copy(sequence, KEEPER, tree.nodes[node].start, tree.nodes[node].end)
            self.decoder.remove(sequence)
            prefill.close(node)


def _lay_out(requests: Sequence[Request]) -> _Work:
    """Build the tree of all prompts, forced beginnings and continuations; hang the requests on it."""
    number: dict[tuple[int, ...], int] = {}
    starts: list[_Start] = []
    for request in requests:
        if isinstance(request.task, Generate):
            starts.append(_start(request, request.task))
            path = request.prompt + tuple(starts[-1].completion.tokens)
            number.setdefault(path, len(number))
        else:
            for continuation in request.task.continuations:
                number.setdefault(request.prompt + continuation[:-1], len(number))
    work = _Work(build_tree(list(number)))
    for start in starts:
        _hang_text(work, start, number)
    for request in requests:
        if isinstance(request.task, Score):
            _hang_scores(work, Completion(request, ""), request.task, number)
    return work


def _start(request: Request, task: Generate) -> _Start:
    """Begin a text with what its grammar forces first."""
    completion = Completion(request, "")
    constraint = task.grammar.start() if task.grammar else None
    forced = constraint.forced() if constraint else ()
    # A beginning as long as the whole answer is left to the text itself, which knows how to end.
    if constraint and len(forced) < task.max_tokens:
        completion.tokens = list(forced)
        completion.num_forced = len(forced)
    return _Start(completion, constraint, len(request.prompt) + len(completion.tokens))


def _hang_text(work: _Work, start: _Start, number: dict[tuple[int, ...], int]) -> None:
    prompt, tokens = start.completion.request.prompt, start.completion.tokens
    sequence = number[(*prompt, *tokens)]
    for offset, token in enumerate(tokens):
        assert start.constraint is not None
        depth = len(prompt) - 1 + offset
        place = (work.tree.node_at(sequence, depth), depth)
        allowed = start.constraint.allowed()
        work.forced.setdefault(place, []).append((start.completion, token, allowed))
        start.constraint.advance(token)
    work.starts.setdefault(work.tree.end_node[sequence], []).append(start)


def _hang_scores(
    work: _Work, completion: Completion, task: Score, number: dict[tuple[int, ...], int]
) -> None:
    prompt = completion.request.prompt
    completion.scores = [0.0] * len(task.continuations)
    work.open_targets[completion.request.id] = sum(len(c) for c in task.continuations)
    for which, continuation in enumerate(task.continuations):
        sequence = number[prompt + continuation[:-1]]
        for offset, token in enumerate(continuation):
            depth = len(prompt) - 1 + offset
            place = (work.tree.node_at(sequence, depth), depth)
            work.targets.setdefault(place, []).append(_Target(completion, which, token))


def _is_last(work: _Work, completion: Completion, value: float) -> bool:
    """Count a continuation token as read; True when it was the request's last one."""
    if not math.isfinite(value):
        completion.error = "the model's logits are not finite"
    request = completion.request.id
    work.open_targets[request] -= 1
    if work.open_targets[request]:
        return False
    completion.finish = "error" if completion.error else "scored"
    return True


def _too_long(request: Request, limit: int) -> Completion:
    asked = request.num_cells - len(request.prompt)
    return Completion(
        request,
        "error",
        error=f"the prompt has {len(request.prompt)} tokens and the answer up to {asked}; "
        f"the context holds {limit}",
    )


def _max_tokens(completion: Completion) -> int:
    task = completion.request.task
    assert isinstance(task, Generate)
    return task.max_tokens


def _log_sum_exp(logits: Logits) -> float:
    """Ln Σ exp(logit). Always over one whole row, so that equal rows give equal bits."""
    top = float(logits.max())
    return top + math.log(float(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))


def _choose(logits: Logits, allowed: TokenIds | None) -> int:
    """The most probable token, the lowest id where two are equal."""
    if allowed is None:
        return int(logits.argmax())
    return int(allowed[logits[allowed].argmax()])


def _note(
    completion: Completion, token: int, logits: Logits, total: float, allowed: TokenIds | None
) -> None:
    completion.logprobs.append(float(logits[token]) - total)
    _note_mask(completion, logits, total, allowed)


def _note_mask(
    completion: Completion, logits: Logits, total: float, allowed: TokenIds | None
) -> None:
    """Z_t: what the model itself gave to the allowed tokens."""
    if allowed is not None:
        completion.feasible.append(math.exp(min(0.0, _log_sum_exp(logits[allowed]) - total)))


def _append(text: _Text, token: int) -> None:
    text.completion.tokens.append(token)
    text.queue.append(token)
    if text.constraint:
        text.constraint.advance(token)


def _extend(text: _Text) -> None:
    """Append what the grammar forces, and end the text where its length is used up."""
    _force(text)
    if len(text.completion.tokens) < text.max_tokens:
        return
    text.queue.pop()  # nothing follows the last token, so the model need not read it
    if not text.expected:
        _end_by_length(text)


def _force(text: _Text) -> None:
    """Append what the grammar forces, or its closing when the length is running out."""
    constraint = text.constraint
    if constraint is None:
        return
    closing: tuple[int, ...] = ()
    room = text.max_tokens - len(text.completion.tokens)
    if not text.is_closing and (closing := constraint.closing()):
        text.is_closing = room <= len(closing) + _CLOSING_RESERVE
    for token in closing if text.is_closing and closing else constraint.forced():
        if len(text.completion.tokens) >= text.max_tokens:
            break
        text.expected.append((token, constraint.allowed()))
        text.completion.num_forced += 1
        _append(text, token)


def _end_by_length(text: _Text) -> None:
    complete = text.constraint is not None and text.constraint.accepting()
    text.completion.finish = "stop" if complete else "length"
