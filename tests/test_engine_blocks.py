import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand.engine.blocks import BlockPool


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
    assert pool.extend(fork, 6, 7) == [(shared, fork[1])]
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
            for source, target in copies or []:
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
