"""The KV cache of a timed attention case: what stands in its pages before a step, and in which blocks."""

from __future__ import annotations

import pytest
import torch

from firsthand.measure.attention_bench import BLOCK, Case, Shape, alone, branches, prompt

SHAPE = Shape(6, 2, 16)


def cached(case: Case, place: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a sequence by its block table, each position D of each head: H T D."""
    keys, values = case.pages.keys.transpose(2, 3), case.pages.values
    table = case.tables[place]
    return keys[table].transpose(0, 1).flatten(1, 2), values[table].transpose(0, 1).flatten(1, 2)


def test_every_position_before_a_step_is_in_the_cache_and_no_other() -> None:
    case = Case(SHAPE, [[0, 1, 2], [3, 4], [5]], [(33, 34), (20, 23), (0, 16)], torch.float32, 1)
    seen = set()
    for place, (start, _) in enumerate(case.spans):
        for tensor in cached(case, place):
            assert tensor.shape == (2, len(case.tables[place]) * BLOCK, 16)
            assert (tensor[:, :start] != 0).all() and not tensor[:, start:].any()
            seen |= {round(float(each), 5) for each in tensor[:, :start].flatten()}
    assert len(seen) > 0.99 * 2 * (33 + 20) * 2 * 16, "values of their own for each position, head and kind"
    assert [each.shape for each in (case.q, case.k, case.v)] == [(20, 6, 16), (20, 2, 16), (20, 2, 16)]
    assert not torch.equal(case.k, case.v) and case.pages.keys.dtype == torch.float32
    assert case.layout.spans.tolist() == [[0, 33, 1, 0], [1, 20, 3, 3], [4, 0, 16, 5]], "of new positions alone"
    assert case.layout.positions.tolist() == [33, 20, 21, 22, *range(16)]
    assert case.layout.tables.tolist() == [block for table in case.tables for block in table]
    assert (case.layout.block_size, case.layout.threads) == (16, 1)
    again = case.new_layout()
    assert again is not case.layout and (again.spans == case.layout.spans).all()
    half = Case(SHAPE, [[0]], [(3, 4)], torch.bfloat16, 2)
    assert half.pages.values.dtype == torch.bfloat16 and half.threads == half.layout.threads == 2


def test_blocks_are_in_a_drawn_order_that_is_the_same_each_time() -> None:
    first, again = (alone(SHAPE, 1, torch.float32, 4, 48) for _ in range(2))
    assert (
        first.tables == again.tables
        and torch.equal(first.q, again.q)
        and torch.equal(first.pages.keys, again.pages.keys)
    )
    flat = [block for table in first.tables for block in table]
    assert sorted(flat) == list(range(12)) and flat != sorted(flat)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    assert flat == order


def test_branches_share_their_head_alone_and_have_whole_blocks() -> None:
    case = branches(SHAPE, 3, torch.float32, count=4, shared=32, own=48)
    heads, tails = {tuple(table[:2]) for table in case.tables}, [block for table in case.tables for block in table[2:]]
    assert len(heads) == 1 and len(set(tails)) == 12 and not {*tails} & {*heads.pop()}
    assert case.spans == [(79, 80)] * 4 and case.threads == 3 and len(case.pages.keys) == 14
    whole = branches(SHAPE, 1, torch.float32)
    assert whole.spans == [(1024 + 31, 1024 + 32)] * 32 and len(whole.tables[0]) == 66
    for shared, own in ((8, 16), (16, 8), (16, 0)):
        with pytest.raises(AssertionError):
            branches(SHAPE, 1, torch.float32, 2, shared, own)
    one = prompt(SHAPE, 1, torch.float32, 48)
    assert one.spans == [(0, 48)] and len(one.tables) == 1 and not one.pages.keys.any()
