"""Epochs cover the walk of the tree once and fit the cache; batches keep to their limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.engine.batching import NUM_RESERVED_IDS, Batch, Epoch, Limits, Prefill, plan_epochs
from medlocal.engine.engine import Engine
from medlocal.engine.sequence import Request, Score
from medlocal.engine.tree import PrefixTree, build_tree
from tests.fakes import ToyDecoder

law = settings(max_examples=50, deadline=None)


@dataclass(frozen=True)
class Walk:
    """A tree, the cells that the texts at its nodes need, and the cells there are."""

    tree: PrefixTree
    growth: tuple[int, ...]
    num_cells: int

    @property
    def epochs(self) -> list[Epoch]:
        return plan_epochs(self.tree, self.growth, self.num_cells)

    def length(self, nodes: Sequence[int]) -> int:
        return sum(self.tree.nodes[node].length for node in nodes)


@st.composite
def walks(draw: st.DrawFn) -> Walk:
    token = st.integers(0, 2)
    sequences = draw(
        st.lists(st.lists(token, min_size=1, max_size=10).map(tuple), min_size=1, max_size=20)
    )
    tree = build_tree(sequences)
    growth = draw(st.tuples(*[st.sampled_from([0, 0, 1, 5]) for _ in tree.nodes]))
    # What the planner asks for: every single path fits with the texts at its end.
    least = max(n.end + g for n, g in zip(tree.nodes, growth, strict=True))
    return Walk(tree, growth, least + draw(st.integers(0, 30)))


@given(walks())
@law
def test_the_epochs_cover_the_walk_once(walk: Walk) -> None:
    covered = [node for epoch in walk.epochs for node in range(epoch.first, epoch.last)]
    assert covered == list(range(len(walk.tree.nodes)))


@given(walks())
@law
def test_an_epoch_never_needs_more_cells_than_there_are(walk: Walk) -> None:
    for epoch in walk.epochs:
        texts = sum(walk.growth[epoch.first : epoch.last])
        assert walk.length(epoch.kept) + walk.length(epoch.nodes) + texts <= walk.num_cells


@given(walks())
@law
def test_an_epoch_has_the_whole_path_above_its_first_node(walk: Walk) -> None:
    for epoch in walk.epochs:
        assert [*epoch.kept, *epoch.again] == walk.tree.ancestors(epoch.first)


@given(walks())
@law
def test_what_is_kept_lies_at_the_bottom_with_no_text_among_it(walk: Walk) -> None:
    epochs = walk.epochs
    assert epochs[0].kept == ()
    for before, epoch in pairwise(epochs):
        kept = list(epoch.kept)
        assert [*before.kept, *before.nodes][: len(kept)] == kept
        assert not any(walk.growth[node] for node in kept[:-1])


@given(walks())
@law
def test_with_room_for_all_there_is_one_epoch_and_nothing_is_computed_again(walk: Walk) -> None:
    roomy = walk.tree.num_tokens + sum(walk.growth)
    assert plan_epochs(walk.tree, walk.growth, roomy) == [
        Epoch((), (), 0, len(walk.tree.nodes)),
    ]


@given(walks())
@law
def test_the_engine_counts_what_it_computes_again(walk: Walk) -> None:
    ends = [walk.tree.sequences[i] for i in range(len(walk.tree.sequences))]
    tree = build_tree(list(dict.fromkeys(ends)))
    most = max(node.end for node in tree.nodes)
    num_cells = most + 3
    limits = Limits(num_cells, num_rows=4, num_ids=16, num_texts=2, num_outputs=4)
    engine = Engine(ToyDecoder(limits))
    list(engine.run([Request(i, p, Score(((1,),))) for i, p in enumerate(ends)], num_cells))
    epochs = plan_epochs(tree, [0] * len(tree.nodes), num_cells)
    again = sum(tree.nodes[node].length for epoch in epochs for node in epoch.again)
    assert engine.stats.unique_prompt_tokens == tree.num_tokens
    assert engine.stats.prefilled_tokens == tree.num_tokens + again


def test_the_cut_falls_where_the_least_must_be_computed_again() -> None:
    # Two questions under one instruction: the cut belongs between them, not inside the second.
    tree = build_tree([(0, 1, 1, 1), (0, 1, 1, 2), (0, 2, 2, 1), (0, 2, 2, 2)])
    epochs = plan_epochs(tree, [0] * len(tree.nodes), 7)
    assert epochs == [Epoch((), (), 0, 4), Epoch((0,), (), 4, 7)]
    assert tree.nodes[epochs[1].first].start == 1


def test_a_prefix_below_a_text_is_computed_again() -> None:
    # The texts of node 0 have left their cells between it and whatever came later.
    tree = build_tree([(0,), (0, 1, 1, 1), (0, 2, 2, 2)])
    growth = [2, 0, 0]
    assert plan_epochs(tree, growth, 6) == [Epoch((), (), 0, 2), Epoch((0,), (), 2, 3)]
    trunk = (0, 0, 1, 1, 1, 1, 1, 1)
    tree = build_tree([(0, 0), (*trunk, 2, 2, 2), (*trunk, 3, 3, 3)])
    growth = [2, 0, 0, 0]
    assert plan_epochs(tree, growth, 13) == [Epoch((), (), 0, 3), Epoch((0,), (1,), 3, 4)]


def rows_of(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(batch.positions, batch.tokens, strict=True))


class TestPrefill:
    LIMITS = Limits(num_cells=64, num_rows=4, num_ids=8, num_texts=2, num_outputs=2)

    def prefill(self, *sequences: tuple[int, ...], num_texts: int = 0, wanted: int = 0) -> Prefill:
        """A walk over all nodes.

        Args:
            sequences: of the tree.
            num_texts: that begin at the end of every node.
            wanted: how many of a node's last rows.
        """
        tree = build_tree(sequences)
        depths = [frozenset(range(max(n.start, n.end - wanted), n.end)) for n in tree.nodes]
        prefill = Prefill(tree, self.LIMITS, depths, [num_texts] * len(tree.nodes))
        prefill.begin(Epoch((), (), 0, len(tree.nodes)))
        return prefill

    def batches(self, prefill: Prefill) -> list[Batch]:
        found = []
        while not prefill.finished:
            found.append(Batch())
            prefill.fill(found[-1])
            assert found[-1], "an empty batch would go on for ever"
            for node in prefill.closable(frozenset()):
                prefill.close(node)
        return found

    def test_a_batch_takes_no_more_rows_than_there_are(self) -> None:
        batches = self.batches(self.prefill((1, 2, 3, 4, 5, 6)))
        assert [batch.tokens for batch in batches] == [[1, 2, 3, 4], [5, 6]]
        assert [batch.positions for batch in batches] == [[0, 1, 2, 3], [4, 5]]

    def test_a_batch_takes_no_more_wanted_rows_than_there_are(self) -> None:
        batches = self.batches(self.prefill((1, 2, 3, 4), wanted=4))
        assert [batch.outputs for batch in batches] == [[True, True], [True, True]]

    def test_rows_of_texts_take_their_share_of_the_batch(self) -> None:
        batch = Batch()
        batch.add(9, 30, [7], True)
        self.prefill((1, 2, 3, 4, 5), wanted=5).fill(batch)
        assert batch.tokens == [9, 1]

    def test_branches_share_the_rows_that_are_computed_beside_them(self) -> None:
        (batch,) = self.batches(self.prefill((1, 2), (1, 3)))
        trunk, left, right = batch.ids
        assert batch.tokens == [1, 2, 3]
        assert set(trunk) > set(left) | set(right)

    def test_branches_copy_what_an_earlier_batch_computed(self) -> None:
        prefill = self.prefill((1, 1, 1, 1, 2), (1, 1, 1, 1, 3))
        prefill.fill(Batch())
        copies, _ = prefill.fill(batch := Batch())
        assert [(copy.source, copy.end) for copy in copies] == [(prefill.ids[0], 4)] * 2
        assert [[copy.target] for copy in copies] == batch.ids

    def test_a_node_waits_until_there_is_room_for_its_texts(self) -> None:
        prefill = self.prefill((1,), (2,), (3,), num_texts=1)
        prefill.fill(batch := Batch())
        assert batch.tokens == [1, 2]
        prefill.give_id(prefill.text_ids[0].pop())
        prefill.fill(batch := Batch())
        assert batch.tokens == [3]

    def test_a_node_with_more_texts_than_the_limit_gets_its_turn_alone(self) -> None:
        prefill = self.prefill((1,), (2,), num_texts=3)
        prefill.fill(batch := Batch())
        assert batch.tokens == [1]
        assert len(prefill.text_ids[0]) == 3

    @given(walks())
    @law
    def test_all_rows_are_handed_out_once_and_all_ids_come_back(self, walk: Walk) -> None:
        limits = Limits(10_000, num_rows=5, num_ids=16, num_texts=1, num_outputs=5)
        nodes = range(len(walk.tree.nodes))
        prefill = Prefill(walk.tree, limits, [frozenset()] * len(nodes), [0] * len(nodes))
        prefill.begin(Epoch((), (), 0, len(nodes)))
        rows = [row for b in self.batches(prefill) for row in rows_of(b)]
        expected = [
            (walk.tree.nodes[node].start + offset, token)
            for node in nodes
            for offset, token in enumerate(walk.tree.tokens(node))
        ]
        assert rows == expected
        assert prefill.ids == {}
        assert sorted(prefill._free) == list(range(NUM_RESERVED_IDS, limits.num_ids))


@pytest.mark.parametrize("output", [True, False])
def test_a_batch_counts_its_wanted_rows(output: bool) -> None:
    batch = Batch()
    assert [batch.add(1, 0, [2], output), batch.add(1, 1, [2], True)] == [0, 1]
    assert (len(batch), batch.num_outputs) == (2, 1 + output)
