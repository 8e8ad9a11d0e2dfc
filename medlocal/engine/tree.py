"""The prefix tree over token ids: what prompts share, found once for all of them.

Pure. Sequences are sorted, neighbours compared, and the tree built from the lengths of their
common prefixes, so that the cost is that of sorting. It does not know what a token is, when a node
is computed, or where its KV lies.

    tokens of node n       = sequences[source][start:end]
    tokens of the path to n = sequences[source][:end]
    depth first, pre-order:  a node's number is greater than its parent's, and a subtree is a range
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ROOT = -1
"""The parent of a node that starts at depth 0."""


@dataclass(slots=True)
class Node:
    """A run of tokens without a branch inside it."""

    parent: int
    """Number of the parent, ROOT for none."""
    source: int
    """Number of a sequence that passes through the node."""
    start: int
    """Depth of the first token; equals the parent's `end`."""
    end: int
    """Depth after the last token; greater than `start`."""
    num_children: int = 0

    @property
    def length(self) -> int:
        """Tokens in the node."""
        return self.end - self.start


@dataclass(slots=True)
class PrefixTree:
    """The radix tree of a list of token sequences."""

    sequences: Sequence[tuple[int, ...]]
    nodes: list[Node] = field(default_factory=list)
    """In depth-first pre-order."""
    end_node: list[int] = field(default_factory=list)
    """Per sequence, the node at whose end it ends."""

    @property
    def num_tokens(self) -> int:
        """Tokens that must be computed when each is computed once."""
        return sum(node.length for node in self.nodes)

    def tokens(self, node: int) -> tuple[int, ...]:
        """The token ids of one node."""
        n = self.nodes[node]
        return self.sequences[n.source][n.start : n.end]

    def ancestors(self, node: int) -> list[int]:
        """The nodes above one, from the top down, itself not included."""
        path = []
        while (node := self.nodes[node].parent) != ROOT:
            path.append(node)
        return path[::-1]

    def node_at(self, sequence: int, depth: int) -> int:
        """The node that holds the token at a depth of a sequence."""
        node = self.end_node[sequence]
        while self.nodes[node].start > depth:
            node = self.nodes[node].parent
        return node


def build_tree(sequences: Sequence[tuple[int, ...]]) -> PrefixTree:
    """Build the tree; no sequence may be empty, equal ones end at the same node.

    Siblings come in the order of their token ids, whatever the order of the sequences.
    """
    arrays = [np.asarray(s, dtype=">u4") for s in sequences]
    # Big-endian bytes compare like the ids themselves, and compare at memory speed.
    order = sorted(range(len(sequences)), key=lambda i: arrays[i].tobytes())
    tree = PrefixTree(sequences, end_node=[ROOT] * len(sequences))
    open_nodes: list[_Open] = []
    previous: NDArray[np.uint32] | None = None
    finished: list[_Open] = []
    for index in order:
        shared = 0 if previous is None else _common_prefix(previous, arrays[index])
        _close(open_nodes, shared, finished)
        _descend(open_nodes, index, shared, len(arrays[index]))
        open_nodes[-1].ends.append(index)
        previous = arrays[index]
    _close(open_nodes, 0, finished)
    _number(tree, finished)
    return tree


@dataclass(slots=True)
class _Open:
    """A node while the tree is built: its end may still move up when a later sequence branches."""

    source: int
    start: int
    end: int
    children: list["_Open"] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


def _common_prefix(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> int:
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def _close(path: list[_Open], depth: int, roots: list[_Open]) -> None:
    """Take from the path all that lies below a depth, splitting the node that spans it."""
    while path and path[-1].end > depth:
        node = path.pop()
        if node.start < depth:
            upper = _Open(node.source, node.start, depth, children=[node])
            node.start = depth
            path.append(upper)
            return
        (path[-1].children if path else roots).append(node)


def _descend(path: list[_Open], source: int, depth: int, end: int) -> None:
    if end > depth:
        path.append(_Open(source, depth, end))


def _number(tree: PrefixTree, roots: list[_Open]) -> None:
    """Give the nodes their numbers in pre-order. Iterative: cloze paths can be deep."""
    stack = [(node, ROOT) for node in reversed(roots)]
    while stack:
        node, parent = stack.pop()
        number = len(tree.nodes)
        tree.nodes.append(Node(parent, node.source, node.start, node.end, len(node.children)))
        for sequence in node.ends:
            tree.end_node[sequence] = number
        stack.extend((child, number) for child in reversed(node.children))
