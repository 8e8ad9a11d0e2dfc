"""The prefix tree holds every distinct prefix once, in depth-first pre-order."""

import sys
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.engine.tree import ROOT, PrefixTree, build_tree

Sequences = list[tuple[int, ...]]

# Few small ids, so that prefixes are shared; large ones, whose bytes must sort as the numbers do.
tokens = st.sampled_from([0, 1, 2, 255, 256, 65_536, 151_935])
sequences = st.lists(st.lists(tokens, min_size=1, max_size=8).map(tuple), min_size=1, max_size=20)
law = settings(max_examples=50, deadline=None)


def prefixes(of: Sequences) -> set[tuple[int, ...]]:
    return {prefix for sequence in of for prefix in accumulate((t,) for t in sequence)}


def path(tree: PrefixTree, node: int) -> list[int]:
    return [*tree.ancestors(node), node]


def text(tree: PrefixTree, node: int) -> tuple[int, ...]:
    """The tokens from the top down to the end of a node, put together from the nodes' own."""
    return tuple(token for n in path(tree, node) for token in tree.tokens(n))


@given(sequences)
@law
def test_it_has_one_token_for_every_distinct_prefix(of: Sequences) -> None:
    assert build_tree(of).num_tokens == len(prefixes(of))


@given(sequences)
@law
def test_the_path_to_a_sequence_reads_as_the_sequence(of: Sequences) -> None:
    tree = build_tree(of)
    assert [text(tree, node) for node in tree.end_node] == of


@given(sequences)
@law
def test_a_node_begins_where_its_parent_ends(of: Sequences) -> None:
    tree = build_tree(of)
    for node in tree.nodes:
        assert node.start == (0 if node.parent == ROOT else tree.nodes[node.parent].end)
        assert node.length == node.end - node.start > 0


@given(sequences)
@law
def test_the_order_is_depth_first_and_pre_order(of: Sequences) -> None:
    tree = build_tree(of)
    for number, node in enumerate(tree.nodes[1:], start=1):
        assert node.parent in {ROOT, *path(tree, number - 1)}


@given(sequences)
@law
def test_siblings_differ_in_their_first_token_and_ascend_by_it(of: Sequences) -> None:
    tree = build_tree(of)
    children: dict[int, list[int]] = {}
    for number, node in enumerate(tree.nodes):
        children.setdefault(node.parent, []).append(tree.tokens(number)[0])
    assert all(firsts == sorted(set(firsts)) for firsts in children.values())
    for number, node in enumerate(tree.nodes):
        assert node.num_children == len(children.get(number, []))


@given(sequences)
@law
def test_no_node_is_cut_without_need(of: Sequences) -> None:
    tree = build_tree(of)
    for number, node in enumerate(tree.nodes):
        assert node.num_children != 1 or number in tree.end_node


@given(sequences)
@law
def test_every_token_of_a_sequence_is_found_by_its_depth(of: Sequences) -> None:
    tree = build_tree(of)
    for number, sequence in enumerate(of):
        for depth in range(len(sequence)):
            node = tree.node_at(number, depth)
            assert tree.nodes[node].start <= depth < tree.nodes[node].end
            assert node in path(tree, tree.end_node[number])


@given(sequences.flatmap(lambda of: st.tuples(st.just(of), st.permutations(of))))
@law
def test_the_order_of_the_sequences_makes_no_difference(pair: tuple[Sequences, Sequences]) -> None:
    first, second = (
        [text(tree, node) for node in range(len(tree.nodes))] for tree in map(build_tree, pair)
    )
    assert first == second


def test_a_sequence_that_another_one_begins_with_ends_inside_its_path() -> None:
    tree = build_tree([(1, 2, 3), (1, 2)])
    assert [tree.tokens(n) for n in range(2)] == [(1, 2), (3,)]
    assert tree.end_node == [1, 0]


def test_equal_sequences_end_at_the_same_node() -> None:
    assert build_tree([(7, 8), (7, 8)]).end_node == [0, 0]


def test_a_branch_splits_the_node_that_it_leaves() -> None:
    tree = build_tree([(1, 2, 3, 4), (1, 2, 9), (5,)])
    assert [(n.parent, n.start, n.end, n.num_children) for n in tree.nodes] == [
        (ROOT, 0, 2, 2),
        (0, 2, 4, 0),
        (0, 2, 3, 0),
        (ROOT, 0, 1, 0),
    ]


def test_no_sequences_make_an_empty_tree() -> None:
    assert build_tree([]).nodes == []


def test_a_path_may_be_deeper_than_the_interpreter_recurses() -> None:
    depth = 2 * sys.getrecursionlimit()
    tree = build_tree([(0,) * n for n in range(1, depth + 1)])
    assert len(tree.nodes) == depth
    assert tree.num_tokens == depth
