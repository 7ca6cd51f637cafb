"""Blocks and prefixes, one function at a time, with the whole state after each call."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.engine.memory.blocks import BlockCopy, BlockPool, PrefixMatch
from firsthand.engine.memory.prefix_cache import PrefixNode, PrefixTree, adapter_of, shared, space_of
from pool_tiny import kept, state, texts, written


def test_blocks_are_given_in_order_and_the_least_recently_used_text_is_evicted() -> None:
    pool = BlockPool(4, 2)
    assert [pool._allocate() for _ in range(2)] == [0, 1] and state(pool) == ([3, 2], [], [1, 1, 0, 0])
    pool.release([0, 1])
    assert state(pool) == ([3, 2, 1, 0], [], [0, 0, 0, 0]), "from its end, so that the first is next"
    kept(pool, [1, 2, 3, 4, 5])
    assert state(pool) == ([3], [2, 1, 0], [0, 0, 0, 0]) and texts(pool) == {0: (1, 2), 1: (3, 4), 2: (5,)}
    assert (pool.num_available, pool.num_cached, pool.num_used, pool.num_usable) == (4, 3, 0, 4)
    assert [pool._allocate() for _ in range(2)] == [3, 2] and texts(pool) == {0: (1, 2), 1: (3, 4)}
    assert state(pool) == ([], [1, 0], [0, 0, 1, 1]) and pool.num_used == 2
    assert pool.take([0]) == [0] and state(pool) == ([], [1], [1, 0, 1, 1])
    assert pool.num_available_without([1, 0]) == 0 and pool.num_available_without([0]) == 1
    pool.check()


def test_shared_blocks_are_copied_from_where_it_is_written_and_missing_ones_are_added() -> None:
    pool = BlockPool(6, 4)
    table: list[int] = []
    assert pool.extend(table, 0, 5) == [] and table == [0, 1]
    other = pool.fork(table)
    assert other == table and other is not table and pool._references == [2, 2, 0, 0, 0, 0]
    assert [pool._shared(other, start) for start in (0, 3, 4, 7, 8)] == [[0, 1], [0, 1], [1], [1], []]
    assert [pool.needed(other, *span) for span in ((0, 5), (4, 8), (4, 9), (8, 8), (8, 17), (2, 3))] == [
        2,
        1,
        2,
        0,
        3,
        2,
    ]
    assert pool.extend(other, 5, 9) == [BlockCopy(1, 2, False)] and other == [0, 2, 3]
    assert pool._references == [2, 1, 1, 1, 0, 0] and pool._free == [5, 4]
    before = [*other]
    assert pool.extend(other, 0, 17) is None and other == before and pool._free == [5, 4], (
        "1 copy and 2 more are needed"
    )
    assert pool.extend(other, 0, 16) == [BlockCopy(0, 4)] and other == [4, 2, 3, 5] and pool._free == []
    assert pool.extend(table, 0, 5) == [], "nobody else has them now"
    pool.check()


def test_a_block_of_a_known_text_may_be_written_after_that_text_alone() -> None:
    pool = BlockPool(4, 4)
    table = written(pool, [1, 2, 3, 4, 5, 6])
    pool.keep([1, 2, 3, 4, 5, 6], table, 6)
    assert texts(pool) == {0: (1, 2, 3, 4), 1: (5, 6)}
    assert [pool._is_shared(1, slot) for slot in (0, 1, 2, 3)] == [True, True, False, False]
    assert [pool._is_shared(0, slot) for slot in (0, 3, 4)] == [True, True, False] and not pool._is_shared(2, 0)
    assert pool._shared(table, 6) == [] and pool._shared(table, 5) == [1] and pool._shared(table, 3) == [0, 1]


def test_full_blocks_are_committed_once_and_a_table_switches_to_the_same_text() -> None:
    pool = BlockPool(8, 2)
    first = written(pool, [1, 2, 3, 4, 5])
    assert first == [0, 1, 2] and texts(pool) == {0: (1, 2), 1: (3, 4)}
    second: list[int] = []
    pool.extend(second, 0, 6)
    assert second == [3, 4, 5] and pool.commit([1, 2, 3, 9, 7, 7], second, 0, 3) == 1
    assert second == [0, 4, 5] and pool._references[:6] == [2, 1, 1, 0, 1, 1] and pool._free[-1] == 3
    assert pool.commit([1, 2, 3, 9, 7, 7], second, 1, 6) == 3 and second == [0, 4, 5]
    assert texts(pool) == {0: (1, 2), 1: (3, 4), 4: (3, 9), 5: (7, 7)}
    assert pool.commit([1, 2, 3, 9, 7, 7], second, 3, 6) == 3 and pool.commit([1], [], 0, 1) == 0
    assert pool.commit([1, 2, 3, 9, 7, 7], second, 0, 6) == 3 and second == [0, 4, 5]
    assert list(texts(pool)) == [0, 1, 4, 5]
    pool.check()
    other: list[int] = []
    pool.extend(other, 0, 2)
    assert pool.commit([1, 2], other, 0, 2, space="salt") == 1 and other == [3], "another space has its own"
    copied: list[int] = pool.take([0, 4])
    assert pool.extend(copied, 3, 4) == [BlockCopy(4, 6)]
    assert pool.commit([1, 2, 3, 8, 0, 0], [*copied, 7], 2, 4) == 2 and 6 not in pool._node
    pool.extend(copied, 4, 6)
    assert pool.commit([1, 2, 3, 8, 6, 6], copied, 2, 6) == 3, "a block that was copied is entered too"
    assert texts(pool)[6] == (3, 8) and texts(pool)[7] == (6, 6)
    pool.check()


def test_the_end_of_a_text_is_kept_with_a_note_and_grows() -> None:
    pool = BlockPool(8, 4)
    ids = [1, 2, 3, 4, 5, 6, 7]
    table = written(pool, ids)
    pool.keep(ids, table, 6, note=9)
    assert texts(pool) == {0: (1, 2, 3, 4), 1: (5, 6)} and pool._node[1].note == 9 and pool._node[0].note is None
    pool.keep(ids, table, 7)
    assert texts(pool) == {0: (1, 2, 3, 4), 1: (5, 6, 7)} and pool._node[1].note is None
    pool.keep(ids, table, 4, note=3)
    assert pool._node[0].note == 3 and texts(pool)[1] == (5, 6, 7)
    pool.keep(ids, table, 4)
    assert pool._node[0].note == 3, "no note is not a new one"
    pool.keep(ids, table, 6, note=8)  # it only begins a longer text: no place for the note
    assert texts(pool) == {0: (1, 2, 3, 4), 1: (5, 6, 7)} and pool._node[1].note is None and pool._node[0].note == 3
    same: list[int] = pool.take([0])
    pool.extend(same, 4, 7)
    pool.keep(ids, same, 7, note=5)
    assert pool._node[1].note == 5 and 2 not in pool._node, "the text is known already, in another block"
    pool.keep([7], [], 0, note=4)
    assert pool._tree.root(None).note is None, "an empty text has no note"
    fresh: list[int] = []
    pool.extend(fresh, 0, 5)
    pool.keep([8, 8, 8, 8, 8], fresh, 5, note=1)
    assert fresh[1] not in pool._node, "its full block was never committed"
    pool.keep([8, 8], fresh, 2, note=2, space=("a", "b"))
    assert pool.find([8, 8, 1], ("a", "b")) == PrefixMatch([fresh[0]], 2, 2) and pool.find([8, 8]).num_tokens == 0
    pool.check()


def test_a_block_that_is_filled_is_no_longer_found_by_its_shorter_text() -> None:
    pool = BlockPool(4, 4)
    ids = [1, 2, 3, 4, 5, 6]
    table = written(pool, ids)
    pool.keep(ids, table, 6, note=7)
    assert pool.extend(table, 6, 8) == [] and pool.commit([*ids, 7, 8], table, 1, 8) == 2
    assert [(each.tokens, each.block) for each in pool._node[0].children] == [((5, 6, 7, 8), 1)]
    assert texts(pool) == {0: (1, 2, 3, 4), 1: (5, 6, 7, 8)} and pool.find(ids) == PrefixMatch([0, 1], 6)
    other = written(pool, [9, 9, 9])
    pool.keep([9, 9, 9], other, 2)
    pool.keep([9, 9, 9], other, 3)
    assert [(each.tokens, each.block) for each in pool._tree.root(None).children] == [
        ((1, 2, 3, 4), 0),
        ((9, 9, 9), 2),
    ]


def test_the_longest_prefix_is_found_to_the_token() -> None:
    pool = BlockPool(10, 3)
    kept(pool, [1, 2, 3, 4, 5, 6, 7, 8], note=11)
    kept(pool, [1, 2, 3, 4, 9, 9], note=12)
    assert texts(pool) == {0: (1, 2, 3), 1: (4, 5, 6), 2: (7, 8), 4: (4, 9, 9)}
    for ids, expected in (
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], PrefixMatch([0, 1, 2], 8, 11)),
        ([1, 2, 3, 4, 5, 6, 7, 8], PrefixMatch([0, 1, 2], 8, 11)),
        ([1, 2, 3, 4, 5, 6, 7], PrefixMatch([0, 1, 2], 7, None)),
        ([1, 2, 3, 4, 5, 6], PrefixMatch([0, 1], 6, None)),
        ([1, 2, 3, 4, 9, 9, 7, 8], PrefixMatch([0, 4], 6, 12)),
        ([1, 2, 3, 4, 9, 8], PrefixMatch([0, 4], 5, None)),
        ([1, 2, 3], PrefixMatch([0], 3, None)),
        ([1, 5], PrefixMatch([0], 1, None)),
        ([2, 2, 3], PrefixMatch([], 0, None)),
        ([], PrefixMatch([], 0, None)),
    ):
        assert pool.find(ids) == expected and pool.find(ids, 1) == PrefixMatch([], 0, None)
    assert [pool.match(list(range(1, end))) for end in (3, 4, 6, 7, 10)] == [[], [0], [0], [0, 1], [0, 1]]
    assert [len(pool._path(list(range(1, end)), None)) for end in (3, 4, 6, 7, 10)] == [0, 1, 1, 2, 2]


def test_behind_a_window_blocks_are_given_back_but_the_last_full_one() -> None:
    pool = BlockPool(7, 4, window=5)
    assert pool.num_usable == 6 and pool._free == [6, 5, 4, 3, 2, 1] and pool.null_block == 0
    assert [pool._first_needed(count) for count in (0, 4, 7, 8, 11, 12, 15, 16)] == [0, 0, 0, 1, 1, 2, 2, 3]
    near = BlockPool(7, 4, window=1)
    assert [near._first_needed(count) for count in (3, 4, 7, 8, 9, 12)] == [0, 0, 0, 1, 1, 2] and BlockPool(
        3, 4
    )._first_needed(99) == 0
    assert [pool.most_blocks_for(count, 3) for count in (1, 16, 17, 99)] == [1, 4, 4, 4] and pool.most_blocks_for(
        99, 4
    ) == 5
    ids = list(range(1, 15))
    table = written(pool, ids)
    pool.trim(table, 11)
    assert table == [0, 2, 3, 4] and pool._references[1] == 0 and list(pool._cached) == [1]
    pool.trim(table, 14)
    assert table == [0, 0, 3, 4] and list(pool._cached) == [1, 2] and pool._first_needed(14) == 2
    assert pool.commit(ids, table, 1, 14) == 3, "a null block is not entered"
    pool.keep(ids, table, 14)
    assert pool.find(ids) == PrefixMatch([0, 0, 3, 4], 14, None) and pool.find(ids[:7]).blocks == [1, 2]
    assert pool._allocate() == 5 and pool._allocate() == 6 and pool._allocate() == 1
    assert pool.find(ids) == PrefixMatch([0, 0, 3, 4], 14, None), "the window is whole"
    assert pool.find(ids[:7]) == PrefixMatch([], 0, None) and pool.find(ids[:8]) == PrefixMatch([0, 2], 8, None)
    assert pool.take([0, 0, 3, 4]) == [0, 0, 3, 4] and pool._references == [0, 1, 0, 2, 2, 1, 1]
    pool.release([0, 0, 3, 4])
    short = BlockPool(4, 2, window=3)
    ids = [1, 2, 3, 4, 5]
    kept(short, ids)
    short.keep(ids, short.match(ids), 4, note=8)
    assert short.find(ids[:4]).note == 8
    short._uncache(short._node[2])
    assert short.find(ids[:4]) == PrefixMatch([1], 2, None), "the note belongs to the longer text"
    full = BlockPool(3, 4)
    same = written(full, [1, 2, 3, 4, 5, 6, 7, 8])
    full.trim(same, 8)
    assert same == [0, 1]


def test_the_texts_of_an_adapter_or_of_old_weights_are_forgotten() -> None:
    pool = BlockPool(8, 2)
    for space, ids in ((1, [1, 2]), ((1, "s"), [1, 2, 3]), (2, [1, 2]), (None, [1, 2])):
        kept(pool, ids, space=space)
    used = pool.take(pool.match([1, 2], 1))
    assert used == [0] and list(pool._cached) == [2, 1, 3, 4]
    pool.forget_adapter(1)
    assert (
        texts(pool) == {3: (1, 2), 4: (1, 2)} and list(pool._cached) == [3, 4] and sorted(pool._free) == [1, 2, 5, 6, 7]
    )
    pool.check()
    pool.take([4])
    pool.forget()
    assert texts(pool) == {} and list(pool._cached) == [] and sorted(pool._free) == [1, 2, 3, 5, 6, 7]
    pool.release([4])
    pool.release(used)
    assert pool._free[-2:] == [4, 0] and pool.num_available == 8 and pool.find([1, 2], 2).num_tokens == 0
    pool.check()


def test_the_check_names_what_is_wrong() -> None:
    def broken(change: Any, window: int | None = None) -> str:
        pool = BlockPool(6, 2, window=window)
        pool.take(pool.match([1, 2, 3, 4, 5])) if kept(pool, [1, 2, 3, 4, 5]) else None
        pool.extend([], 0, 2)
        pool.check()
        change(pool)
        with pytest.raises(AssertionError) as told:
            pool.check()
        return str(told.value).partition("\n")[0]

    assert broken(lambda pool: pool._free.append(pool._free[0])) == "a block is free twice"
    assert broken(lambda pool: pool._free.pop()) == "free + cached + used is not the total"
    assert broken(lambda pool: pool._free.__setitem__(0, 0)) == "a block is in two states"
    assert broken(lambda pool: pool._free.__setitem__(0, pool._references.index(1))) == "a block is in two states"
    assert (
        broken(lambda pool: (pool._cached.__setitem__(pool._references.index(1), None), pool._free.pop()))
        == "a block is in two states"
    ), "cached and used"
    assert broken(lambda pool: pool._free.__setitem__(0, 0), 9) == "the null block is in use"
    assert broken(lambda pool: pool._references.__setitem__(0, -1)) == "a reference count is negative"
    assert broken(lambda pool: pool._node.pop(2)) == "the tree and its index differ"
    assert broken(lambda pool: (pool._cached.pop(2), pool._free.append(2))) == "a free block is in the tree"
    assert broken(lambda pool: pool._uncache(pool._node[2])) == "a cached block is not in the tree"
    assert (
        broken(lambda pool: (pool._uncache(pool._node[1]), pool._cached.pop(1), pool._free.append(1)))
        == "a branch has lost its parent"
    )


def test_a_tree_sorts_its_children_and_drops_what_holds_nothing() -> None:
    tree = PrefixTree()
    root = tree.root("s")
    assert (
        root.is_root
        and root.parent is root
        and (root.tokens, root.block, root.space, root.note) == ((), None, "s", None)
    )
    assert tree.root("s") is not root, "a root without children is not kept"
    nodes = {text: tree.insert(root, text, block) for block, text in enumerate([(3, 4), (1, 2), (3,), (3, 6)])}
    assert [node.tokens for node in root.children] == [(1, 2), (3,), (3, 4), (3, 6)] and tree.root("s") is root
    assert root.child((3, 4)) is nodes[3, 4] and root.child((3, 5)) is None and root.child((9,)) is None
    assert nodes[3, 6].parent is root and nodes[3, 6].space == "s" and nodes[3, 6].block == 3
    for text, found, count in (((3, 5), nodes[3, 4], 1), ((3, 6, 7), nodes[3, 6], 2), ((3,), nodes[3,], 1),
                               ((1,), nodes[1, 2], 1), ((2, 9), None, 0), ((), None, 0)):  # fmt: skip
        assert root.longest(text) == (found, count)
    below = tree.insert(nodes[3, 4], (5, 6), 7)
    other = tree.insert(tree.root((2, "salt")), (1, 1), 8)
    assert (
        sorted(tree.blocks(2)) == [8]
        and tree.blocks(1) == []
        and sorted(node.block for node in tree.check(2)) == [0, 1, 2, 3, 7, 8]
    )
    nodes[3, 4].block = None
    tree.prune(nodes[3, 4])
    assert root.child((3, 4)) is nodes[3, 4], "a node may outlive its block while a descendant has one"
    below.block = None
    tree.prune(below)
    assert [node.tokens for node in root.children] == [(1, 2), (3,), (3, 6)], "and the one above it"
    other.block = None
    tree.prune(other)
    assert tree.root((2, "salt")) is not other.parent and tree.root("s") is root
    tree.prune(nodes[1, 2])
    assert root.child((1, 2)) is nodes[1, 2], "its block is still there"
    assert [shared(*pair) for pair in (((1, 2, 3), (1, 2, 4)), ((1,), (1, 2)), ((), (1,)), ((2, 1), (1, 1)))] == [
        2,
        1,
        0,
        0,
    ]
    given: list[tuple[Any, ...]] = [(None,), (3,), (3, "s"), (None, "s"), (3, "", (1,)), (None, "s", (1, 2))]
    assert [space_of(*each) for each in given] == [None, 3, *given[2:]]
    assert [adapter_of(each) for each in (None, 3, (3, "s"), (None, "s"), (4, "", (1,)))] == [None, 3, 3, None, 4]


def test_a_tree_that_is_inconsistent_says_how() -> None:
    def broken(change: Any) -> str:
        tree = PrefixTree()
        one = tree.insert(tree.root(None), (1, 2), 0)
        two = tree.insert(one, (3,), 1)
        assert len(list(tree.check(2))) == 2
        change(tree, one, two)
        with pytest.raises(AssertionError) as told:
            list(tree.check(2))
        return str(told.value).partition("\n")[0]

    assert broken(lambda tree, one, two: one.parent.children.clear()) == "a space without texts was kept"
    assert broken(lambda tree, one, two: one.parent.children.append(one)) == "children are out of order or twice there"
    assert broken(lambda tree, one, two: tree.insert(two, (4,), 2)) == "an unfinished node has children"
    assert broken(lambda tree, one, two: setattr(two, "parent", two)) == "a child knows another parent"
    assert broken(lambda tree, one, two: setattr(two, "space", 1)) == "a child is of another space"
    for text in ((), (3, 4, 5)):
        assert (
            broken(lambda tree, one, two, text=text: setattr(two, "tokens", text))
            == "a node's text is not up to a block long"
        )
    assert broken(lambda tree, one, two: setattr(two, "block", None)) == "a node without block or children was left"
    assert PrefixNode(None, (), 4, 2).children == []


def test_blocks_that_were_copied_one_after_another_are_entered_from_the_first_of_them_on() -> None:
    ids = [1, 2, 3, 4, 5, 6]
    for start, said, blocks, known in (
        (2, [1, 2, 3, 9, 5, 6, 7, 7], [0, 3, 4, 5], {3: (3, 9), 4: (5, 6), 5: (7, 7)}),
        (0, [8, 8, 3, 4, 5, 6, 7, 7], [3, 4, 5, 6], {3: (8, 8), 4: (3, 4), 5: (5, 6), 6: (7, 7)}),
        (4, [1, 2, 3, 4, 9, 9, 7, 7], [0, 1, 3, 4], {3: (9, 9), 4: (7, 7)}),
    ):
        pool = BlockPool(9, 2)
        first = written(pool, ids)
        copied = pool.take(first)
        assert pool.extend(copied, start, 8) == [BlockCopy(each, 3 + n) for n, each in enumerate(first[start // 2 :])]
        assert (
            copied == blocks
            and pool.commit(said, copied, 3, 6) == 3
            and texts(pool) == {0: (1, 2), 1: (3, 4), 2: (5, 6)}
        )
        assert pool.commit(said, copied, 3, 8) == 4 and copied == blocks
        assert texts(pool) == {0: (1, 2), 1: (3, 4), 2: (5, 6), **known} and pool.match(said) == blocks
        pool.check()
    pool = BlockPool(9, 2)
    same = pool.take(written(pool, ids))
    pool.extend(same, 2, 8)
    assert pool.commit([*ids, 7, 7], same, 3, 8) == 4 and same == [0, 1, 2, 5], "the same text is the block of before"
    assert pool._references[:6] == [2, 2, 2, 0, 0, 1]
    pool.check()
