"""Who computes attention: the kernels or plain torch, on how many threads; and the tiles of the readable version."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba")
from firsthand.kernels.attention import flash_attention, paged_attention, paged_cpu, work_split
from firsthand.kernels.attention.kv_pages import Layout, PackedChunk, Pages
from firsthand.kernels.attention.paged_attention import attend_pages, compiled_attention
from firsthand.kernels.attention.score_terms import ScoreTerms
from interpreted_kernels import Interpreter

CPU = torch.device("cpu")


def test_the_kernels_take_float32_queries_without_terms_and_torch_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        paged_attention, "compiled_attention", lambda *args, **named: calls.append(("kernels", args, named))
    )
    monkeypatch.setattr(
        paged_attention, "gather_attention", lambda *args, **named: calls.append(("torch", args, named))
    )
    q, k, v, terms = torch.zeros(1, 2, 16), torch.ones(1, 1, 16), torch.zeros(1, 1, 16), ScoreTerms(softcap=2.0)
    pages, other = (Pages.empty(2, 1, 16, 16, dtype, CPU) for dtype in (torch.float16, torch.bfloat16))
    layout, small = (Layout([PackedChunk(0, 1, [0])], size) for size in (16, 8))
    for where, query, cache, by, given in (
        ("kernels", q, pages, layout, None), ("torch", q, pages, layout, terms), ("torch", q.half(), pages, layout, None),
        ("torch", q, other, layout, None), ("torch", q, pages, small, None),
    ):  # fmt: skip
        calls.clear()
        attend_pages(query, k, v, cache, by, scale=0.5, window=7, terms=given, decode=None if given else min)
        [(name, args, named)] = calls
        assert name == where
        assert all(one is other for one, other in zip(args, (query, k, v, cache, by), strict=True))
        more = {} if where == "kernels" else {"terms": given, "decode_by": None if given else min}
        assert named == {"scale": 0.5, "window": 7, **more}


@pytest.mark.parametrize(
    ("threads", "parallel_from", "window"), [(1, 0, None), (3, 1052, 0), (3, 1053, 40), (2, 0, None)]
)
def test_the_kernels_share_the_rows_of_a_step_among_threads(
    monkeypatch: pytest.MonkeyPatch, threads: int, parallel_from: int, window: int | None
) -> None:
    where: list[int] = []
    in_python = Interpreter()(paged_cpu.attend)

    def attend(*args: Any) -> None:
        where.append(threading.get_ident())
        if where[-1] != threading.main_thread().ident:
            time.sleep(0.03)  # whoever does not wait for it has no result
        in_python(*args)

    asked: list[int] = []
    pool = paged_attention._executor

    def executor(number: int) -> Any:
        asked.append(number)
        return pool(number)

    monkeypatch.setattr(paged_attention, "_executor", executor)

    monkeypatch.setattr(paged_cpu, "attend", attend)
    for module, name in ((paged_cpu, "write"), (paged_cpu, "merge"), (work_split, "plan"), (work_split, "locate")):
        monkeypatch.setattr(module, name, Interpreter()(getattr(module, name)))
    monkeypatch.setattr(paged_attention, "PARALLEL_FROM", parallel_from)
    heads, kv, dim = 4, 2, 6
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(134, each, dim, generator=generator) for each in (heads, kv, kv))
    pages = Pages.empty(12, kv, 16, dim, torch.float32, CPU)
    table = [3, 1, 4, 11, 5, 9, 2, 6, 8]
    at = torch.arange(131)
    pages.keys[torch.tensor(table)[at // 16], :, :, at % 16] = k[:131]
    pages.values[torch.tensor(table)[at // 16], :, at % 16, :dim] = v[:131]
    rows = [131, 132, 0]  # the third is another sequence of one token
    layout = Layout([PackedChunk(131, 133, table), PackedChunk(0, 1, [7])], 16, threads)
    assert int(layout.positions.sum()) * heads == 1052
    picked = torch.stack([q[131], q[132], q[133]]), *(torch.stack([x[131], x[132], x[0]]) for x in (k, v))
    found = compiled_attention(*picked, pages, layout, scale=0.4, window=window)
    for row, position in enumerate(rows):
        low = max(0, position - window + 1) if window else 0
        for head in range(heads):
            keys, values = (x[low : position + 1, head // 2].double().numpy() for x in (k, v))
            scores = keys @ picked[0][row, head].double().numpy() * 0.4
            weights = np.exp(scores - scores.max())
            np.testing.assert_allclose(found[row, head], weights @ values / weights.sum(), rtol=1e-4, atol=1e-5)
    assert len(where) == (threads if parallel_from < 1053 and threads > 1 else 1)
    assert where.count(threading.get_ident()) == 1
    assert asked == ([threads - 1] if len(where) > 1 else [])
    for number in asked:
        assert pool(number)._max_workers == number


def test_tiles_cover_a_length_and_a_causal_tile_of_queries_sees_no_later_tile() -> None:
    def pairs(tiles: Any) -> list[tuple[int, int]]:
        return [(each.start, each.stop) for each in tiles]

    assert pairs(flash_attention._tiles(9, 4)) == [(0, 4), (4, 8), (8, 9)]
    assert pairs(flash_attention._tiles(8, 4)) == [(0, 4), (4, 8)]
    assert pairs(flash_attention._tiles(0, 4)) == []
    assert pairs(flash_attention._seen(slice(2, 4), 6, 9, 3, True)) == [(0, 3), (3, 6), (6, 7)]
    assert pairs(flash_attention._seen(slice(2, 4), 6, 9, 3, False)) == [(0, 3), (3, 6), (6, 9)]
    q, k = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0], [5.0]])
    scores = flash_attention._scores(q, k, 0.5, slice(2, 4), slice(3, 6), 6, 7, True)
    assert scores.tolist() == [[0.5, -np.inf, -np.inf], [1.0, 3.0, -np.inf]]  # queries 2 and 3 are at 3 and 4
    assert flash_attention._scores(q, k, 0.5, slice(2, 4), slice(3, 6), 6, 7, False).tolist() == [
        [0.5, 1.5, 2.5],
        [1, 3, 5],
    ]


def test_the_readable_version_gives_each_argument_its_own_gradient() -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = ((1, 2, 5, 3), (1, 1, 7, 3), (1, 1, 7, 3))
    given = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    ours, theirs = ([each.clone().requires_grad_() for each in given] for _ in "ab")
    found = flash_attention.flash_attention(*ours, scale=0.7, tile=2)
    q, k, v = theirs
    later = torch.arange(7) > torch.arange(2, 7)[:, None]
    scores = (q @ k.transpose(-1, -2) * 0.7).masked_fill(later, -torch.inf)
    expected = scores.softmax(-1) @ v
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    towards = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((found * towards).sum(), ours),
        torch.autograd.grad((expected * towards).sum(), theirs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_caches_on_the_cpu_of_whole_vectors_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fits(dtype: torch.dtype, block: int, device: str = "cpu") -> bool:
        return paged_attention.can_compile(Pages.empty(1, 1, block, 16, dtype, torch.device(device)), block)

    assert [fits(torch.float32, block) for block in (1, 8, 16, 24, 32, 40, 48)] == [
        False,
        False,
        True,
        False,
        True,
        False,
        True,
    ]
    kinds = (torch.float32, torch.float16, torch.int8, torch.bfloat16, torch.float64)
    assert [fits(kind, 16) for kind in kinds] == [True, True, True, False, False]
    assert not fits(torch.float32, 16, "meta")
    paged_attention._has_numba.cache_clear()
    monkeypatch.setattr(paged_attention, "find_spec", lambda name: None if name == "numba" else name)
    assert not fits(torch.float32, 16)
    paged_attention._has_numba.cache_clear()
