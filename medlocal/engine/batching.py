"""What runs next: epochs of the prefix tree, and the rows of each batch. Pure; no model, no time.

The KV cache is filled from the bottom upwards during an *epoch* and emptied at its end, but for
the prefix that the next epoch shares. Within an epoch a cell is never freed below one that is in
use, so that the cells of a sequence always lie in the order of their positions: attention adds
them up in cell order, and a result must not depend on what was freed beside it. Rejected:
freeing a sequence as soon as it ends, which packs the cache tighter and moves the last bits.

Every open node of the tree and every generated text has a sequence id of its own:

    id 0                 the keeper: holds the cells of closed sequences until the epoch ends
    id 1                 padding rows
    id 2 … num_ids - 1   nodes and generated texts

    a node's id is on the cells of the whole path down to the node, so that a child starts by
    copying its parent's id (which moves no data), and a text by copying that of its prompt.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from medlocal.engine.sequence import Logits
from medlocal.engine.tree import ROOT, PrefixTree

KEEPER = 0
PADDING = 1
NUM_RESERVED_IDS = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What a context can hold and what one call may take."""

    num_cells: int
    """KV cells in all."""
    num_rows: int
    """Rows of one batch."""
    num_ids: int
    """Sequence ids, the reserved ones included."""
    num_texts: int
    """Texts generated side by side before prefilling pauses."""
    num_outputs: int
    """Rows of one batch whose logits may be wanted."""
    min_rows: int = 1
    """Fewer rows, or fewer rows whose logits are wanted, are padded: few rows take another kernel,
    with other last bits. At most `num_rows` and `num_outputs`."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of the tree's walk that runs without freeing a cell."""

    kept: tuple[int, ...]
    """Nodes already in the cache, from the top down, in the lowest cells."""
    again: tuple[int, ...]
    """Ancestors that must be computed once more."""
    first: int
    last: int
    """Nodes first … last-1, in the order of the walk."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """All that this epoch prefills, in order."""
        return (*self.again, *range(self.first, self.last))


def plan_epochs(tree: PrefixTree, growth: Sequence[int], num_cells: int) -> list[Epoch]:
    """Cut the walk into epochs that fit the cache.

    Args:
        tree: what must be computed.
        growth: per node, cells that the texts generated at its end may need; 0 for none.
        num_cells: cells there are. Every single path with its growth must fit.

    Cuts fall where the least must be computed again: of the places in the last half of what
    fits, the one whose next node needs the shortest recomputed prefix.
    """
    epochs: list[Epoch] = []
    first = 0
    layout: tuple[int, ...] = ()
    while first < len(tree.nodes):
        path = tree.ancestors(first)
        kept = _common(layout, path)
        again = tuple(path[len(kept) :])
        held = sum(tree.nodes[n].length for n in path)
        last = _cut(tree, growth, first, num_cells - held)
        epoch = Epoch(tuple(kept), again, first, last)
        epochs.append(epoch)
        layout = _undisturbed(epoch, growth)
        first = last
    return epochs


def _cut(tree: PrefixTree, growth: Sequence[int], first: int, room: int) -> int:
    """The node before which the epoch ends, at least one after `first`."""
    used, end = 0, first
    fills: list[int] = []
    while end < len(tree.nodes):
        used += tree.nodes[end].length + growth[end]
        if used > room and end > first:
            break
        fills.append(used)
        end += 1
    if end == len(tree.nodes):
        return end
    half = [n for n in range(first + 1, end + 1) if fills[n - first - 1] * 2 >= fills[-1]]
    return min(half, key=lambda n: (tree.nodes[n].start, -n))


def _undisturbed(epoch: Epoch, growth: Sequence[int]) -> tuple[int, ...]:
    """Nodes whose cells lie at the bottom with nothing generated among them."""
    layout: list[int] = []
    for node in (*epoch.kept, *epoch.nodes):
        layout.append(node)
        if growth[node]:
            break
    return tuple(layout)


def _common(layout: Sequence[int], path: Sequence[int]) -> list[int]:
    shared = []
    for a, b in zip(layout, path, strict=False):
        if a != b:
            break
        shared.append(a)
    return shared


@dataclass(slots=True)
class Batch:
    """Rows for one call, as parallel lists."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    """Sequence ids of each row; more than one where branches of the same batch share it."""
    outputs: list[bool] = field(default_factory=list)
    """Rows whose logits are wanted."""
    num_outputs: int = 0
    """How many of `outputs` are true."""

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, token: int, position: int, ids: list[int], output: bool) -> int:
        """Append a row; returns its number."""
        self.tokens.append(token)
        self.positions.append(position)
        self.ids.append(ids)
        self.outputs.append(output)
        self.num_outputs += output
        return len(self.tokens) - 1


def pad(batch: Batch, limits: Limits) -> bool:
    """Fill a batch up to `min_rows`, in rows and, unless none are wanted, in outputs.

    The last layers are computed for the wanted rows only, so that these must be enough as well.

    Returns:
        True where rows of the sequence PADDING were added: the caller removes it afterwards.
    """
    num_missing = max(0, limits.min_rows - len(batch))
    for position in range(num_missing):
        batch.add(batch.tokens[0], position, [PADDING], False)
    if batch.num_outputs:
        spare = (row for row, wanted in enumerate(batch.outputs) if not wanted)
        for row in itertools.islice(spare, max(0, limits.min_rows - batch.num_outputs)):
            batch.outputs[row] = True
            batch.num_outputs += 1
    return num_missing > 0


class Decoder(Protocol):
    """What computes batches: `llama.LlamaDecoder`, or a toy in the tests."""

    limits: Limits
    ends: frozenset[int]
    """End-of-generation tokens."""

    def decode(self, batch: Batch) -> None:
        """Compute a batch and keep its KV."""

    def logits(self, row: int) -> Logits:
        """Logits of a wanted row of the last batch, valid until the next one."""

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let a sequence share the cells of another at positions start … end-1."""

    def remove(self, sequence: int) -> None:
        """Take a sequence id off all its cells."""

    def clear(self) -> None:
        """Empty the cache."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Let `target` share the cells of `source` at positions 0 … end-1."""

    source: int
    target: int
    end: int


class Prefill:
    """Hands out the rows of an epoch's nodes, in order, and keeps account of sequence ids.

    The calls that change it: `begin` (an epoch), `fill` (rows of the next batch), `closable` and
    `close` (nodes that nothing needs any more), `give_id` (a text has ended).
    """

    def __init__(
        self,
        tree: PrefixTree,
        limits: Limits,
        wanted: Sequence[frozenset[int]],
        num_texts: Sequence[int],
    ) -> None:
        """Prepare the walk.

        Args:
            tree: what must be computed.
            limits: what the context can hold.
            wanted: per node, the depths whose logits are wanted.
            num_texts: per node, the texts that begin at its end.
        """
        self._tree = tree
        self._limits = limits
        self._wanted = wanted
        self._num_texts = num_texts
        self._free = list(range(limits.num_ids - 1, NUM_RESERVED_IDS - 1, -1))
        self._order: Sequence[int] = ()
        self._again: frozenset[int] = frozenset()
        self._at = 0
        self._depth = 0
        self._unopened: dict[int, int] = {}
        self._handed_out: set[int] = set()
        self.ids: dict[int, int] = {}
        """Open nodes and their sequence ids."""
        self.text_ids: dict[int, list[int]] = {}
        """Ids set aside for the texts of nodes that are open."""
        self.num_active_texts = 0
        """Texts that were given an id and have not given it back."""

    def begin(self, epoch: Epoch) -> None:
        """Start an epoch. The nodes it keeps must still be open."""
        self._order = epoch.nodes
        self._again = frozenset(epoch.again)
        self._at = 0
        self._handed_out = set(epoch.kept)
        self._unopened = dict.fromkeys((*epoch.kept, *epoch.nodes), 0)
        for node in epoch.nodes:
            if (parent := self._tree.nodes[node].parent) != ROOT:
                self._unopened[parent] += 1
        self._start_depth()

    @property
    def finished(self) -> bool:
        """True when every row of the epoch was handed out."""
        return self._at >= len(self._order)

    def give_id(self, sequence: int) -> None:
        """Take back the id of a text that has ended; the caller has emptied it."""
        self._free.append(sequence)
        self.num_active_texts -= 1

    def fill(self, batch: Batch) -> tuple[list[Copy], list[tuple[int, int, int]]]:
        """Append rows to the batch, which may already hold rows of texts, while there is room.

        Returns:
            the copies to make before the call, in order, and the wanted rows as (row, node, depth).
        """
        copies: list[Copy] = []
        wanted: list[tuple[int, int, int]] = []
        rows_of: dict[int, list[int]] = {}
        while not self.finished and self._has_room(batch):
            node = self._order[self._at]
            if node not in self.ids:
                if not self._can_open(node):
                    break
                copies.extend(self._open(node, batch, rows_of))
            self._hand_out(batch, rows_of, wanted)
        return copies, wanted

    def _has_room(self, batch: Batch) -> bool:
        return len(batch) < self._limits.num_rows and batch.num_outputs < self._limits.num_outputs

    def _can_open(self, node: int) -> bool:
        num_new = self._num_new_texts(node)
        if num_new + 1 > len(self._free):
            return False
        # A node with more texts than the limit still gets its turn when nothing else runs.
        return not num_new or (
            not self.num_active_texts or self.num_active_texts + num_new <= self._limits.num_texts
        )

    def _num_new_texts(self, node: int) -> int:
        """Texts that begin at a node; a node computed again has had its own."""
        return 0 if node in self._again else self._num_texts[node]

    def _open(self, node: int, batch: Batch, rows_of: dict[int, list[int]]) -> list[Copy]:
        """Give a node its id, set ids aside for its texts, and share what its parent holds."""
        sequence = self.ids[node] = self._free.pop()
        num_new = self._num_new_texts(node)
        self.text_ids[node] = [self._free.pop() for _ in range(num_new)]
        self.num_active_texts += num_new
        parent = self._tree.nodes[node].parent
        if parent == ROOT:
            return []
        self._unopened[parent] -= 1
        above = self.ids[parent]
        shared = rows_of.get(above, [])
        for row in shared:
            batch.ids[row].append(sequence)
        rows_of[sequence] = list(shared)
        computed = batch.positions[shared[0]] if shared else self._tree.nodes[parent].end
        return [Copy(above, sequence, computed)] if computed else []

    def _hand_out(
        self, batch: Batch, rows_of: dict[int, list[int]], wanted: list[tuple[int, int, int]]
    ) -> None:
        """Append rows of the current node until it, the batch or the outputs come to an end."""
        node = self._order[self._at]
        n = self._tree.nodes[node]
        tokens = self._tree.sequences[n.source]
        mine = rows_of.setdefault(self.ids[node], [])
        wanted_here = frozenset() if node in self._again else self._wanted[node]
        while self._depth < n.end and self._has_room(batch):
            is_wanted = self._depth in wanted_here
            row = batch.add(tokens[self._depth], self._depth, [self.ids[node]], is_wanted)
            mine.append(row)
            if is_wanted:
                wanted.append((row, node, self._depth))
            self._depth += 1
        if self._depth == n.end:
            self._handed_out.add(node)
            self._at += 1
            self._start_depth()

    def _start_depth(self) -> None:
        if not self.finished:
            self._depth = self._tree.nodes[self._order[self._at]].start

    def closable(self, keep: frozenset[int]) -> list[int]:
        """Open nodes that nothing needs any more, once the batch was computed.

        Args:
            keep: nodes that the next epoch builds on.
        """
        return [
            node
            for node in self.ids
            if node not in keep and node in self._handed_out and not self._unopened.get(node)
        ]

    def close(self, node: int) -> None:
        """Take back a node's id; the caller has emptied it."""
        self._free.append(self.ids.pop(node))
