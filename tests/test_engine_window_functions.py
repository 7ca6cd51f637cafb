"""Pins and pools of two kinds of blocks, one function at a time, with the whole state after each call."""

from __future__ import annotations

from collections import Counter

import pytest

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.memory.blocks import BlockCopy, BlockPool, PrefixMatch
from firsthand.engine.memory.pinned_prefixes import PinnedPrefix, PinnedPrefixes, max_pinned_blocks
from firsthand.engine.memory.prefix_cache import Space
from firsthand.engine.memory.window_pool import BlockTable, SlidingWindowPool, divide, open_pool, window_blocks_of
from firsthand.errors import ConfigError
from pool_tiny import kept


def test_a_released_pin_leaves_no_count_of_its_blocks() -> None:
    pool = BlockPool(9, 2)
    pins = PinnedPrefixes(pool)
    kept(pool, [1, 2, 3, 4, 5])
    one, two = pins.add([1, 2, 3, 4, 5]), pins.add([1, 2])
    assert [dict(each) for each in pins._counts] == [{0: 2, 1: 1, 2: 1}] and pins.num_blocks == 3
    pins.release(one)
    assert [dict(each) for each in pins._counts] == [{0: 1}] and (pins.num_blocks, pool.num_used) == (1, 1)
    pins.release(two)
    assert [dict(each) for each in pins._counts] == [{}] and (pins.num_blocks, pool.num_used) == (0, 0)
    assert (one.is_pinned, two.is_pinned, len(pins)) == (False, False, 0)


def test_pins_hold_at_most_half_of_the_blocks_and_the_oldest_goes_first() -> None:
    pool = BlockPool(9, 2)
    assert max_pinned_blocks(pool) == 4 and max_pinned_blocks(BlockPool(9, 2, window=3)) == 4
    pins = PinnedPrefixes(pool)
    kept(pool, [1, 2, 3, 4, 5])
    kept(pool, [6, 7], space=1)
    kept(pool, [8, 9], space=(2, "s"))
    first = pins.add([1, 2, 3, 4, 5, 9])
    assert (first.num_tokens, first.space, first.is_pinned, len(pins), pins.num_blocks) == (5, None, True, 1, 3)
    again = pins.add([1, 2, 9])
    assert again.num_tokens == 2 and pins._counts == [Counter({0: 2, 1: 1, 2: 1})] and pins.num_blocks == 3
    second = pins.add([6, 7], 1)
    assert second.space == 1 and pins.num_blocks == 4 and first.is_pinned and pool._references[:4] == [2, 1, 1, 1]
    third = pins.add([8, 9], (2, "s"))
    assert not first.is_pinned and third.is_pinned and pins._counts == [Counter({0: 1, 3: 1, 4: 1})]
    pins.release(again)
    pins.release(again)
    assert not again.is_pinned and pool._references[0] == 0 and len(pins) == 2
    pins.drop_adapter(7)
    assert len(pins) == 2
    pins.drop_adapter(2)
    assert not third.is_pinned and second.is_pinned and len(pins) == 1
    assert pins.drop_oldest() and not second.is_pinned and not pins.drop_oldest() and pool.num_used == 0
    assert pins.add([4, 4]).num_tokens == 0 and len(pins) == 1
    assert (PinnedPrefix(3).space, PinnedPrefix(3, 5).space, PinnedPrefix(3).num_tokens) == (None, 5, 3)


def test_a_long_pin_drops_as_many_of_the_oldest_as_take_its_room() -> None:
    pool = BlockPool(9, 2)
    pins = PinnedPrefixes(pool)
    for first in (10, 20, 30, 40):
        kept(pool, [first, first + 1])
    kept(pool, [1, 2, 3, 4, 5, 6])
    short = [pins.add([first, first + 1]) for first in (10, 20, 30, 40)]
    assert pins.num_blocks == 4 and all(pin.is_pinned for pin in short)
    long = pins.add([1, 2, 3, 4, 5, 6])
    assert [pin.is_pinned for pin in (*short, long)] == [False, False, False, True, True]
    assert (pins.num_blocks, len(pins), pool.num_used) == (4, 2, 4)


def test_a_text_too_long_to_be_pinned_is_pinned_up_to_half_of_the_pool_and_with_a_window_not_at_all() -> None:
    pool = BlockPool(7, 2)
    pins = PinnedPrefixes(pool)
    kept(pool, list(range(12)))
    pin = pins.add(list(range(12)))
    assert pin.num_tokens == 6 and pins.num_blocks == 3 and pin.is_pinned
    assert pins._fits([0, 1, 2]) and not pins._fits([0, 1, 2, 3]) and not pins._is_full()
    near = BlockPool(5, 2, window=6)
    pins = PinnedPrefixes(near)
    kept(near, list(range(8)))
    assert pins.add(list(range(8))).num_tokens == 0 and pins.num_blocks == 0
    assert pins.add(list(range(4))).num_tokens == 4 and pins.num_blocks == 2 and pins._fits([0, 0, 0, 1, 2])
    wide = BlockPool(9, 2, window=3)
    pins = PinnedPrefixes(wide)
    kept(wide, list(range(10)))
    pin = pins.add(list(range(10)))
    (table,) = pins._tables.values()
    held = [block for block in table if block != wide.null_block]
    assert pin.num_tokens == 10 and 0 < len(held) < len(table) == 5, "what lies behind the window has no block"
    assert pins._counts == [Counter(held)] and pins.num_blocks == len(held)
    pins.release(pin)
    assert pins._counts == [Counter()] and wide.num_used == 0


def mixed() -> SlidingWindowPool:
    return SlidingWindowPool(BlockPool(10, 4), BlockPool(8, 4, window=6))


def test_full_blocks_are_entered_in_both_pools_and_counted_once() -> None:
    ids = list(range(1, 18))
    for computed, full in ((0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (17, 4)):
        pool, table = mixed(), BlockTable()
        assert pool.extend(table, 0, 17) == [] and pool.commit(ids, table, 0, computed, "s") == full
        assert pool.commit(ids, table, full, computed, "s") == full
        texts = [tuple(ids[4 * n : 4 * n + 4]) for n in range(full)]
        for part, blocks in pool.split(table):
            assert {block: node.tokens for block, node in part._node.items()} == dict(zip(blocks, texts, strict=False))
        assert pool.find(ids, "s").num_tokens == 4 * full and pool.find(ids).num_tokens == 0
        same = BlockTable()
        pool.extend(same, 0, 8)
        assert pool.commit(ids, same, 0, 8, "s") == 2
        pool.check()
    assert (same, same.window_blocks) == (table[:2], table.window_blocks[:2]), "the blocks of the same text in both"


def test_two_pools_are_used_as_one() -> None:
    pool = mixed()
    assert (pool.block_size, pool.num_blocks, pool.num_usable, pool.num_available, pool.pools) == (
        4, 10, 17, 7, (pool.full_pool, pool.window_pool),
    )  # fmt: skip
    table = BlockTable()
    assert pool.extend(table, 0, 9) == [] and table == [0, 1, 2] and table.window_blocks == [1, 2, 3]
    assert window_blocks_of(table) is table.window_blocks and pool.split(table) == [
        (pool.full_pool, [0, 1, 2]), (pool.window_pool, [1, 2, 3])]  # fmt: skip
    other = pool.fork(table)
    assert isinstance(other, BlockTable) and (other, other.window_blocks) == ([0, 1, 2], [1, 2, 3])
    assert (
        pool.needed(other, 9, 13) == 2
        and pool.needed(other, 12, 17) == 2
        and (pool.num_used, pool.num_cached) == (6, 0)
    )
    assert pool.extend(other, 9, 10) == [BlockCopy(2, 3, False), BlockCopy(3, 4, True)]
    assert (other, other.window_blocks) == ([0, 1, 3], [1, 2, 4])
    assert pool.extend(other, 10, 28) is None and other.window_blocks == [1, 2, 4], (
        "7 full blocks fit, 7 window blocks do not"
    )
    ids = list(range(1, 11))
    assert pool.commit(ids, other, 0, 10, "s") == 2
    pool.keep(ids, other, 10, 6, "s")
    for part in pool.pools:
        assert [node.tokens for node in part._node.values()] == [(1, 2, 3, 4), (5, 6, 7, 8), (9, 10)]
    found = pool.find([*ids, 99], "s")
    assert found == PrefixMatch([0, 1, 3], 10, 6) and window_blocks_of(found.blocks) == [0, 2, 4]
    assert pool.find(ids).num_tokens == 0
    pool.trim(other, 10)
    assert other == [0, 1, 3] and other.window_blocks == [0, 2, 4]
    pool.release(other)
    pool.release(table)
    assert (pool.num_used, pool.num_cached) == (0, 6)
    while pool.window_pool._cached:
        pool.window_pool._allocate()
    assert pool.find(ids, "s") == PrefixMatch([], 0, None)
    pool.full_pool._allocate()
    pool.forget()
    assert pool.num_cached == 0 and pool.full_pool._node == pool.window_pool._node == {}
    pool.check()
    pool.window_pool._free.append(3)
    with pytest.raises(AssertionError):
        pool.check()


def test_a_prefix_that_one_pool_lost_is_cut_to_what_both_have_and_adapters_are_forgotten_in_both() -> None:
    pool = mixed()
    ids = list(range(1, 11))
    table = BlockTable()
    pool.extend(table, 0, 10)
    pool.commit(ids, table, 0, 10, 3)
    pool.keep(ids, table, 10, 5, 3)
    pool.window_pool._uncache(pool.window_pool._node[3])
    assert pool.needed(table, 9, 10) == 1, "the full pool would have to copy"
    found = pool.find(ids, 3)
    assert found == PrefixMatch([0, 1], 8, None) and window_blocks_of(found.blocks) == [1, 2]
    pool.forget_adapter(4)
    assert pool.find(ids, 3).num_tokens == 8
    pool.forget_adapter(3)
    assert [part._node for part in pool.pools] == [{}, {}]
    pool.release(table)
    assert pool.num_used == 0 and pool.num_cached == 0


def test_a_pool_is_opened_for_the_windows_and_the_memory() -> None:
    config = EngineConfig(block_size=4, max_batch_tokens=10, max_sequences=3, kv_memory_bytes=77)

    def opened(
        *windows: int | None, memory: int = 100_000, free: int | None = None
    ) -> list[tuple[int, int, int | None]]:
        pool = open_pool(
            windows, config, memory_bytes=memory, layer_bytes=100, extra_bytes=50, max_position=256, free_bytes=free
        )
        return [(part.num_blocks, part.block_size, part.window) for part in pool.pools]

    assert (
        opened(None, None) == [(400, 4, None)]
        and opened(8, 16) == [(400, 4, 16)]
        and opened(256, None) == [(400, 4, None)]
    )
    # 1 of 4 layers is windowed: 350 and 100 bytes; alone 5 + 3, useful 2 * 3 * (2 + 2) + 3
    assert opened(None, 8, 300, None) == [(278, 4, None), (27, 4, 8)]
    assert opened(None, 8, None, None, memory=4500) == [(10, 4, None), (8, 4, 8)]
    assert opened(255, 8, None, None, memory=900, free=900) == [(2, 4, None), (2, 4, 255)]
    with pytest.raises(ConfigError) as told:
        opened(None, 8, None, None, memory=899)
    assert (
        str(told.value)
        == "kv_memory_bytes is 77: a block of 4 tokens takes 450 bytes, and the engine needs two or more"
    )
    for free in (0, 99_999):
        with pytest.raises(ConfigError) as told:
            opened(None, free=free)
        assert str(told.value) == (
            f"kv_memory_bytes is 100,000 and {free:,} bytes of memory are free once the model is loaded: "
            "give less, or leave it out"
        )
    assert opened(None, free=100_000) == [(666, 4, None)]
    assert divide(1000, 30, 10, alone=2, useful=100) == (31, 7) and divide(1000, 30, 10, alone=2, useful=5) == (31, 5)
    assert divide(1000, 30, 10, alone=9, useful=50) == (30, 9) and divide(90, 30, 10, alone=9, useful=50) == (2, 2)


@pytest.mark.parametrize("space", [None, 3, "salt", (3, "salt")])
def test_a_text_shorter_than_a_block_is_kept_in_its_own_space_of_both_pools(space: Space) -> None:
    pool = mixed()
    ids = [1, 2, 3]
    table = BlockTable()
    assert pool.extend(table, 0, 3) == [] and pool.commit(ids, table, 0, 3, space) == 0
    pool.keep(ids, table, 3, 6, space)
    pool.release(table)
    found = {each: pool.find([*ids, 9], each) for each in (None, 3, 4, "salt", "other", (3, "salt"))}
    assert [each for each, match in found.items() if match.num_tokens] == [space] and found[space].num_tokens == 3
    assert pool.find(ids, space) == PrefixMatch([0], 3, 6) and (pool.num_cached, pool.num_used) == (2, 0)
    plain = BlockTable()
    pool.extend(plain, 0, 3)
    pool.keep(ids, plain, 3, space=space)
    assert pool.find(ids, space).note in (None, 6)
    pool.release(plain)
    pool.check()


def test_prefixes_are_pinned_up_to_their_number_and_those_without_a_block_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("firsthand.engine.memory.pinned_prefixes.MAX_PINNED_PREFIXES", 3)
    pool = BlockPool(9, 2)
    pins = PinnedPrefixes(pool)
    kept(pool, [1, 2])
    made = [pins.add([1, 2]), pins.add([7, 7]), pins.add([1, 2])]
    assert [(pin.num_tokens, pin.is_pinned) for pin in made] == [(2, True), (0, True), (2, True)]
    made.append(pins.add([]))
    assert [pin.is_pinned for pin in made] == [False, True, True, True] and (len(pins), pins.num_blocks) == (3, 1)
    made.append(pins.add([1, 2]))
    made.append(pins.add([1, 2]))
    assert [pin.is_pinned for pin in made] == [False, False, False, True, True, True]
    assert [dict(each) for each in pins._counts] == [{0: 2}] and pool._references[0] == 2
