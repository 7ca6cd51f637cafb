"""The plain version of paged attention, part by part: index arrays, what is stored and gathered, one token and prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from firsthand.kernels.attention import gather
from firsthand.kernels.attention.gather import _gather, _indices, _prompt, decode, decode_with, store, to_device
from firsthand.kernels.attention.kv_pages import Layout, PackedChunk, Pages
from firsthand.kernels.attention.score_terms import AlibiBias, ScoreTerms

CPU = torch.device("cpu")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_index_arrays_name_each_rows_block_and_slot_and_tables_end_with_the_last_block_in_use() -> None:
    chunks = [
        PackedChunk(7, 8, [5, 4, 9, 9]), PackedChunk(2, 6, [3, 8, 9]), PackedChunk(8, 9, [1, 6, 2, 9]),
        PackedChunk(0, 4, [7, 9]), PackedChunk(0, 1, [0, 9]),
    ]  # fmt: skip
    found = _indices(Layout(chunks, 4), CPU)
    assert found.blocks.tolist() == [4, 3, 3, 8, 8, 2, 7, 7, 7, 7, 0]
    assert found.slots.tolist() == [3, 2, 3, 0, 1, 0, 0, 1, 2, 3, 0]
    assert (found.single.tolist(), found.positions.tolist()) == ([0, 5, 10], [7, 8, 0])
    assert found.tables.tolist() == [[5, 4, 0], [1, 6, 2], [0, 0, 0]]
    assert [(each.rows, each.end, each.table.tolist(), each.positions.tolist()) for each in found.prompts] == [
        (slice(1, 5), 6, [3, 8], [2, 3, 4, 5]),
        (slice(6, 10), 4, [7], [0, 1, 2, 3]),
    ]
    alone = _indices(Layout([PackedChunk(0, 2, [6])], 4), CPU)
    assert (alone.tables.shape, len(alone.single), len(alone.prompts)) == ((0, 0), 0, 1)
    parts = to_device([[3, 1], [], range(4, 6), (9,)], CPU)
    assert [part.tolist() for part in parts] == [[3, 1], [], [4, 5], [9]]
    assert {part.dtype for part in parts} == {torch.int64}
    assert gather.is_pinned(CPU) is False
    assert gather.is_pinned(torch.device("cuda")) is torch.cuda.is_available()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_what_is_stored_is_gathered_in_the_order_of_positions(dtype: torch.dtype) -> None:
    k, v = normal(1, 3, 2, 20), normal(2, 3, 2, 20)
    pages = Pages.empty(4, 2, 3, 20, dtype, CPU)
    for each in pages.tensors:
        each.fill_(50)
    store(k, v, pages, torch.tensor([2, 0, 2]), torch.tensor([1, 2, 0]))
    like = torch.zeros(1, 2, 20, dtype=torch.float64)
    keys, values = _gather(pages, torch.tensor([[0, 2], [2, 1]]), like)
    assert keys.shape == values.shape == (2, 2, 6, 20) and keys.dtype == values.dtype == torch.float64
    error = {torch.float32: 1e-7, torch.float16: 2e-3, torch.int8: 2e-2}[dtype]
    for found, given in ((keys, k), (values, v)):
        for (sequence, position), row in (((0, 2), 1), ((0, 4), 0), ((0, 3), 2), ((1, 1), 0), ((1, 0), 2)):
            np.testing.assert_allclose(found[sequence, :, position], given[row], atol=error)
        rest = found[0, :, [0, 1, 5]]
        assert (rest == (2500 if dtype == torch.int8 else 50)).all()
    assert (pages.values[..., 20:] == 50).all()  # columns beyond the head's
    if dtype == torch.int8:
        np.testing.assert_allclose(pages.key_scales[2, :, 1], k[0].abs().amax(-1) / 127, rtol=1e-6)
        np.testing.assert_allclose(pages.value_scales[0, :, 2], v[1].abs().amax(-1) / 127, rtol=1e-6)
        assert pages.key_scales[1, 0, 1] == 50


def filled(length: int, table: list[int], *, heads: int = 2) -> tuple[Pages, Tensor, Tensor]:
    """Pages of blocks of four that are NaN where nothing was written."""
    k, v = normal(3, length, heads, 16), normal(4, length, heads, 16)
    pages = Pages.empty(8, heads, 4, 16, torch.float32, CPU)
    for each in pages.tensors:
        each.fill_(torch.nan)
    at = torch.arange(length)
    store(k, v, pages, torch.tensor(table)[at // 4], at % 4)
    return pages, k, v


def plainly(q: Tensor, k: Tensor, v: Tensor, position: int, window: int | None, slopes: list[float] | None) -> Any:
    """One token's heads in float64."""
    low = 0 if window is None else max(0, position - window + 1)
    group, out = len(q) // k.shape[1], []
    for head in range(len(q)):
        keys, values = (x[low : position + 1, head // group].double().numpy() for x in (k, v))
        scores = keys @ q[head].double().numpy() * 0.4
        if slopes:
            scores = scores + slopes[head] * (np.arange(low, position + 1) - position)
        weights = np.exp(scores - scores.max())
        out.append(weights @ values / weights.sum())
    return np.array(out)


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("slopes", [None, [0.1, 0.7, 1.3, 0.4]])
def test_a_token_and_a_prompt_see_their_window_and_nothing_later(
    window: int | None, slopes: list[float] | None
) -> None:
    table = [6, 1, 3]
    pages, k, v = filled(10, table)
    terms = ScoreTerms(bias=AlibiBias(torch.tensor(slopes))) if slopes else None
    q = normal(5, 4, 4, 16)
    at = torch.tensor([9, 3, 0, 4])
    found = decode(q, pages, torch.tensor([[*table, 7]] * 4), at, scale=0.4, window=window, terms=terms)
    for row, position in enumerate(at.tolist()):
        np.testing.assert_allclose(found[row], plainly(q[row], k, v, position, window, slopes), atol=1e-5)
    found = _prompt(q, pages, torch.tensor(table), torch.arange(6, 10), 10, scale=0.4, window=window, terms=terms)
    for row in range(4):
        np.testing.assert_allclose(found[row], plainly(q[row], k, v, 6 + row, window, slopes), atol=1e-5)
    equal_heads, k, v = filled(3, [2], heads=4)
    found = decode(q[:1], equal_heads, torch.tensor([[2]]), torch.tensor([2]), scale=0.4, window=window)
    np.testing.assert_allclose(found[0], plainly(q[0], k, v, 2, window, None), atol=1e-5)


def test_a_kernel_decodes_where_there_are_no_terms() -> None:
    calls: list[Any] = []

    def kernel(*args: Any, **named: Any) -> Tensor:
        calls.append((args, named))
        return torch.zeros(1)

    pages, k, v = filled(6, [6, 1])
    given = (normal(6, 1, 2, 16), pages, torch.tensor([[6, 1]]), torch.tensor([5]))
    assert decode_with(kernel, *given, scale=0.4, window=2, terms=None).tolist() == [0]
    assert calls == [(given, {"scale": 0.4, "window": 2})]
    slopes = [0.5, 2.0]
    for by, terms, own in ((None, None, None), (kernel, ScoreTerms(bias=AlibiBias(torch.tensor(slopes))), slopes)):
        found = decode_with(by, *given, scale=0.4, window=2, terms=terms)
        np.testing.assert_allclose(found[0], plainly(given[0][0], k, v, 5, 2, own), atol=1e-5)
    assert len(calls) == 1
