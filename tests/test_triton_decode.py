"""The Triton kernel of decode attention, run in numpy, against float64: each kind of cache, window and number of pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from firsthand.kernels.attention.gather import store
from firsthand.kernels.attention.kv_pages import Pages
from triton_in_numpy import imported

POSITIONS, BLOCK, DIM, KV, GROUP = [199, 0, 63, 64, 130], 12, 20, 2, 3


def a_cache(dtype: torch.dtype, *, mirrored: bool) -> tuple[Pages, torch.Tensor, list[list[Any]]]:
    """Keys and values of five sequences in scattered blocks, and them again as they were rounded; all else is NaN."""
    generator = torch.Generator().manual_seed(3)
    blocks = sum(at // BLOCK + 1 for at in POSITIONS) + 2
    pages = Pages.empty(blocks, KV, BLOCK, DIM, dtype, torch.device("cpu"))
    if mirrored:  # as on a GPU
        keys = torch.empty(blocks, KV, BLOCK, DIM, dtype=dtype).mT
        pages = Pages(keys, *pages.tensors[1:2], pages.key_scales, pages.value_scales)
    for each in pages.tensors:
        each.fill_(torch.nan if each.is_floating_point() else 99)
    order = torch.randperm(blocks, generator=generator).tolist()
    tables, texts = torch.zeros(len(POSITIONS), 18, dtype=torch.int64), []
    for row, position in enumerate(POSITIONS):
        table = [order.pop() for _ in range(position // BLOCK + 1)]
        tables[row, : len(table)] = torch.tensor(table)
        at = torch.arange(position + 1)
        k, v = (torch.randn(position + 1, KV, DIM, generator=generator) for _ in range(2))
        where = torch.tensor(table)[at // BLOCK], at % BLOCK
        store(k, v, pages, *where)
        read = [pages.keys[where[0], :, :, where[1]].double(), pages.values[where[0], :, where[1], :DIM].double()]
        if dtype == torch.int8:
            scales = (pages.key_scales, pages.value_scales)
            read = [each * scale[where[0], :, where[1], None] for each, scale in zip(read, scales, strict=True)]
        texts.append([each.numpy() for each in read])
    return pages, tables, texts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "mirrored", "window", "splits"),
    [
        (torch.float32, False, None, 16), (torch.float32, True, 64, 2), (torch.float16, False, 1, 3),
        (torch.int8, True, None, 2), (torch.int8, False, 100, 16),
    ],
)  # fmt: skip
def test_each_row_attends_to_its_own_past(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, mirrored: bool, window: int | None, splits: int
) -> None:
    kernel = imported(monkeypatch, "firsthand.kernels.attention.paged_triton")
    assert (kernel.SPLITS, kernel.TILE) == (16, 64)
    kernel.SPLITS = splits
    pages, tables, texts = a_cache(dtype, mirrored=mirrored)
    q = torch.randn(len(POSITIONS), KV * GROUP, DIM, generator=torch.Generator().manual_seed(5))
    q = q.half() if dtype == torch.float16 else q
    found = kernel.decode(q, pages, tables, torch.tensor(POSITIONS), scale=0.3, window=window)
    assert found.shape == q.shape and found.dtype == q.dtype
    for row, (position, (keys, values)) in enumerate(zip(POSITIONS, texts, strict=True)):
        low = 0 if window is None else max(position - window + 1, 0)
        for head in range(KV * GROUP):
            scores = keys[low:, head // GROUP] @ q[row, head].double().numpy() * 0.3
            weights = np.exp(scores - scores.max())
            expected = weights @ values[low:, head // GROUP] / weights.sum()
            error = 3e-3 if dtype == torch.float16 else 1e-5
            np.testing.assert_allclose(found[row, head].double().numpy(), expected, atol=error)


def test_pieces_are_merged_by_their_largest_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = imported(monkeypatch, "firsthand.kernels.attention.paged_triton")
    sums = torch.tensor([[2.0, 4.0], [10.0, -6.0], [99.0, 99.0]]).reshape(1, 1, 3, 1, 2)
    tops = torch.tensor([3.0, 4.0, -torch.inf]).reshape(1, 1, 3, 1)
    weights = torch.tensor([2.0, 5.0, 0.0]).reshape(1, 1, 3, 1)
    less = np.exp(-1)
    expected = [(2 * less + 10) / (2 * less + 5), (4 * less - 6) / (2 * less + 5)]
    assert kernel._merge(sums, tops, weights).flatten().tolist() == pytest.approx(expected, rel=1e-6)
