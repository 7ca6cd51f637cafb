"""Small KV pools of the tests: how they are filled, and all that they hold."""

from __future__ import annotations

from typing import Any

from firsthand.engine.memory.blocks import BlockPool


def state(pool: BlockPool) -> tuple[list[int], list[int], list[int]]:
    """Free blocks, the next one last; cached ones, the next to be evicted first; references."""
    return pool._free, list(pool._cached), pool._references


def texts(pool: BlockPool) -> dict[int, tuple[int, ...]]:
    return {block: node.tokens for block, node in sorted(pool._node.items())}


def written(pool: BlockPool, tokens: list[int], space: Any = None) -> list[int]:
    """The table of a text whose full blocks are committed."""
    table: list[int] = []
    assert pool.extend(table, 0, len(tokens)) == []
    assert pool.commit(tokens, table, 0, len(tokens), space) == len(tokens) // pool.block_size
    return table


def kept(pool: BlockPool, tokens: list[int], note: int | None = None, space: Any = None) -> None:
    """Compute a text and let it go."""
    table = written(pool, tokens, space)
    pool.keep(tokens, table, len(tokens), note, space)
    pool.release(table)
