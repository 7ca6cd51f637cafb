import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand.engine.memory.blocks import BlockCopy, BlockPool


def filled(pool: BlockPool, tokens: list[int]) -> list[int]:
    """A table that holds these tokens, entered into the tree."""
    table = pool.take(pool.match(tokens))
    start = len(table) * pool.block_size
    copies = pool.extend(table, start, len(tokens))
    assert copies == []
    pool.commit(tokens, table, start // pool.block_size, len(tokens))
    pool.check()
    return table


def test_a_known_prefix_is_found_in_whole_blocks() -> None:
    pool = BlockPool(8, 4)
    table = filled(pool, list(range(10)))
    assert pool.match(list(range(10))) == table[:2]
    assert pool.match([0, 1, 2, 3, 9, 9, 9, 9]) == table[:1]
    assert pool.match([4, 5, 6, 7]) == [], "the second block is known only after the first"


def test_equal_hashes_of_different_tokens_do_not_share_memory() -> None:
    assert hash((-1, 0)) == hash((-2, 0)), "Python gives -1 and -2 one hash"
    pool = BlockPool(4, 2)
    filled(pool, [-1, 0])
    assert pool.match([-2, 0]) == []


def test_released_text_stays_known_until_its_memory_is_needed_and_the_oldest_goes_first() -> None:
    pool = BlockPool(4, 2)
    old = filled(pool, [1, 2, 3, 4])
    pool.release(old)
    new = filled(pool, [5, 6, 7, 8])
    pool.release(new)
    assert (pool.num_available, pool.num_cached) == (4, 4)
    filled(pool, [9, 9])
    assert pool.match([1, 2, 3, 4]) == old[:1], "the end of the older text went first"
    assert pool.match([5, 6, 7, 8]) == new


def test_a_match_makes_old_text_young_again() -> None:
    pool = BlockPool(4, 2)
    pool.release(filled(pool, [1, 2, 3, 4]))
    pool.release(filled(pool, [5, 6, 7, 8]))
    pool.release(filled(pool, [1, 2, 3, 4]))
    filled(pool, [9, 9])
    assert len(pool.match([1, 2, 3, 4])) == 2
    assert len(pool.match([5, 6, 7, 8])) == 1


def test_the_first_writer_to_a_shared_block_gets_a_copy_and_the_last_keeps_it() -> None:
    pool = BlockPool(8, 4)
    table = filled(pool, list(range(6)))
    fork = pool.fork(table)
    shared = table[1]
    assert pool.extend(fork, 6, 7) == [BlockCopy(shared, fork[1])]
    assert fork[0] == table[0] and fork[1] != shared
    assert pool.extend(table, 6, 7) == [] and table[1] == shared
    pool.check()
    pool.release(fork)
    pool.release(table)
    pool.check()
    assert pool.num_available == 8


def test_two_sequences_that_computed_the_same_block_end_up_sharing_it() -> None:
    pool = BlockPool(4, 2)
    tokens = [1, 2, 3, 4]
    one, two = [], []
    pool.extend(one, 0, 4)
    pool.extend(two, 0, 4)
    pool.commit(tokens, one, 0, 4)
    pool.commit(tokens, two, 0, 4)
    assert one == two and pool.num_available == 2
    pool.check()


def test_too_few_blocks_changes_nothing() -> None:
    pool = BlockPool(2, 2)
    table = [*filled(pool, [1, 2])]
    assert pool.extend(table, 2, 7) is None
    assert len(table) == 1 and pool.num_available == 1
    pool.check()


def test_forgetting_frees_all_cached_text() -> None:
    pool = BlockPool(4, 2)
    pool.release(filled(pool, [1, 2, 3, 4]))
    pool.forget()
    pool.check()
    assert pool.match([1, 2]) == [] and pool.num_cached == 0 and pool.num_available == 4


def test_the_check_sees_a_block_that_got_lost() -> None:
    pool = BlockPool(4, 2)
    pool._free.pop()
    with pytest.raises(AssertionError, match="total"):
        pool.check()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), num_blocks=st.integers(2, 12), block_size=st.integers(1, 4))
def test_no_order_of_operations_breaks_the_pool(seed: int, num_blocks: int, block_size: int) -> None:
    """Random sequences grow, fork, and end; each table always holds its own tokens, as a shadow memory shows."""
    rng = random.Random(seed)
    pool = BlockPool(num_blocks, block_size)
    memory: dict[tuple[int, int], int] = {}
    live: list[tuple[list[int], list[int], list[int]]] = []
    for _ in range(60):
        action = rng.random()
        if action < 0.35 or not live:
            tokens = [rng.randrange(2) for _ in range(rng.randrange(1, 3 * block_size))]
            table = pool.take(pool.match(tokens))
            live.append((tokens, table, [len(table) * block_size]))
        elif action < 0.5:
            tokens, table, (computed,) = rng.choice(live)
            live.append(([*tokens[:computed], 1], pool.fork(table), [computed]))
        elif action < 0.65:
            pool.release(live.pop(rng.randrange(len(live)))[1])
        else:
            tokens, table, computed = rng.choice(live)
            copies = pool.extend(table, computed[0], len(tokens))
            for source, target, _ in copies or []:
                for slot in range(block_size):
                    memory[target, slot] = memory.get((source, slot), -1)
            if copies is not None:
                for p in range(computed[0], len(tokens)):
                    memory[table[p // block_size], p % block_size] = tokens[p]
                pool.commit(tokens, table, computed[0] // block_size, len(tokens))
                computed[0] = len(tokens)
                tokens.append(rng.randrange(2))
        pool.check()
        for tokens, table, (computed,) in live:
            held = [memory[table[p // block_size], p % block_size] for p in range(computed)]
            assert held == tokens[:computed]


def kept(pool: BlockPool, tokens: list[int], note: int | None = None) -> None:
    """Text that was computed and whose sequence ended."""
    table = filled(pool, tokens)
    pool.keep(tokens, table, len(tokens), note)
    pool.release(table)
    pool.check()


def test_a_kept_text_is_found_to_its_last_token() -> None:
    pool = BlockPool(8, 4)
    kept(pool, [1, 2, 3, 4, 5, 6])
    assert pool.find([1, 2, 3, 4, 5, 6, 7, 8]).num_tokens == 6
    assert pool.find([1, 2, 3, 4, 5, 9]).num_tokens == 5
    assert pool.find([1, 2]).num_tokens == 2, "the beginning of a full block is of use too"
    assert pool.find([2, 1]).num_tokens == 0


def test_of_many_continuations_the_one_with_most_in_common_is_found() -> None:
    pool = BlockPool(40, 4)
    rng = random.Random(0)
    texts = [[rng.randrange(3) for _ in range(rng.randrange(1, 9))] for _ in range(30)]
    for text in texts[:12]:
        kept(pool, text)

    def in_common(a: list[int], b: list[int]) -> int:
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    assert pool.num_available == 40 and len(pool._free) > 0, "nothing was evicted"
    for text in texts:
        assert pool.find(text).num_tokens == max(in_common(text, other) for other in texts[:12])


def test_going_on_where_a_text_ended_takes_its_block_and_turning_off_before_takes_a_copy() -> None:
    pool = BlockPool(8, 4)
    kept(pool, [1, 2, 3])
    found = pool.find([1, 2, 3, 4, 5])
    table = pool.take(found.blocks)
    assert pool.extend(table, 3, 4) == [] and table == found.blocks
    assert pool.find([1, 2, 3, 9]).num_tokens == 3, "others still find it meanwhile"
    other = pool.take(pool.find([1, 2, 9]).blocks)
    assert pool.extend(other, 2, 3) == [BlockCopy(table[0], other[0])]
    pool.commit([1, 2, 3, 4], table, 0, 4)
    pool.release(table)
    pool.release(other)
    pool.check()
    assert pool.find([1, 2, 3, 4]).num_tokens == 4


def test_a_copy_leaves_the_text_of_an_unused_block_as_it_was() -> None:
    pool = BlockPool(8, 4)
    kept(pool, [1, 2, 3, 4])
    table = pool.take(pool.find([1, 2, 7]).blocks)
    assert len(pool.extend(table, 2, 3) or []) == 1
    assert pool.find([1, 2, 3, 4, 5]).num_tokens == 4
    pool.release(table)
    pool.check()


def test_a_note_is_found_by_whoever_goes_on_from_the_whole_text() -> None:
    pool = BlockPool(8, 4)
    kept(pool, [1, 2, 3, 4, 5, 6], note=7)
    kept(pool, [8, 8, 8, 8], note=9)
    assert pool.find([1, 2, 3, 4, 5, 6, 1]).note == 7
    assert pool.find([8, 8, 8, 8, 1]).note == 9
    for shorter in ([1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 3, 4, 5, 9], [8, 8]):
        assert pool.find(shorter).note is None


def test_a_block_is_known_by_its_text_only_once_however_often_it_is_kept() -> None:
    pool = BlockPool(8, 4)
    for _ in range(3):
        kept(pool, [1, 2, 3, 4, 5, 6])
        kept(pool, [1, 2, 3, 4, 5])
    assert pool.num_cached == 2


def windowed(num_tokens: int = 40) -> tuple[BlockPool, list[int], list[int]]:
    """A pool with a window of 10 over blocks of 4, and a text computed token by token."""
    pool, text, table = BlockPool(12, 4, window=10), list(range(num_tokens)), list[int]()
    committed = 0
    for p in range(num_tokens):
        assert pool.extend(table, p, p + 1) == []
        committed = pool.commit(text, table, committed, p + 1)
        pool.trim(table, p + 1)
        pool.check()
        first = max(p + 1 - 10 + 1, 0) // 4
        assert all(block != 0 for block in table[first:]), "what the next token sees is there"
        assert pool.num_used <= 10 // 4 + 2
    return pool, text, table


def test_behind_a_window_memory_is_given_back_and_block_0_is_never_used() -> None:
    pool, _, table = windowed()
    assert len(table) == 10 and table[:7] == [0] * 7
    assert pool.num_usable == 11
    pool.release(table)
    pool.check()
    assert pool.num_available == 11


def test_a_windowed_text_goes_on_although_its_beginning_is_forgotten() -> None:
    pool, text, table = windowed()
    pool.keep(text, table, 40)
    pool.release(table)
    while len(pool.find(text[:8]).blocks) == 2:
        filled(pool, [99] * (1 + pool.num_used))
    found = pool.find([*text, 1, 2])
    assert found.num_tokens == 40 and found.blocks[:7] == [0] * 7 and 0 not in found.blocks[7:]
    assert pool.find(text[:12]).num_tokens < 12, "near the beginning it cannot go on: what it would see is gone"
    pool.check()
