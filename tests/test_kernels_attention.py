"""Attention over paged memory: against float64 softmax, bit by bit however work is shared, and in each kind of cache."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand.kernels.attention.attention_tables import Heads, KeyValues, RowView, Work
from firsthand.kernels.attention.gather import decode, quantise, store
from firsthand.kernels.attention.paged_attention import (
    Layout,
    PackedChunk,
    Pages,
    attend_pages,
    compiled_attention,
    gather_attention,
    kv_bytes_per_token,
)
from firsthand.kernels.attention.paged_cpu import attend, merge, write
from firsthand.kernels.attention.query_tiles import SEGMENT

torch.set_num_threads(1)
CPU = torch.device("cpu")
SCALE = 0.25
DTYPES = [torch.float32, torch.float16, torch.int8]


class Text:
    """Queries, keys and values of one sequence of tokens."""

    def __init__(self, length: int, heads: int, kv: int, dim: int, seed: int = 0):
        random = torch.Generator().manual_seed(seed)
        self.q, self.k, self.v = (torch.randn(length, n, dim, generator=random) for n in (heads, kv, kv))
        self.parts = (self.q, self.k, self.v)

    def after(self, length: int, other: "Text") -> "Text":
        """This text's first tokens, and then those of another."""
        joined = Text.__new__(Text)
        joined.parts = tuple(torch.cat([a[:length], b[length:]]) for a, b in zip(self.parts, other.parts, strict=True))
        joined.q, joined.k, joined.v = joined.parts
        return joined


def empty_pages(text: Text, num_blocks: int, block: int, dtype: torch.dtype = torch.float32) -> Pages:
    """Pages whose every number is NaN, or in int8 every scale."""
    pages = Pages.empty(num_blocks, text.k.shape[1], block, text.k.shape[2], dtype, CPU)
    for tensor in pages.tensors:
        tensor.fill_(torch.nan if tensor.is_floating_point() else 77)
    return pages


def run(
    texts: list[Text], spans: list[tuple[int, int]], tables: list[list[int]], pages: Pages, *, block: int,
    window: int | None = None, threads: int = 1, how=attend_pages,
) -> list[torch.Tensor]:  # fmt: skip
    """One step that computes a span of each text; results by text."""
    layout = Layout([PackedChunk(a, b, t) for (a, b), t in zip(spans, tables, strict=True)], block, threads)
    q, k, v = (torch.cat([text.parts[i][a:b] for text, (a, b) in zip(texts, spans, strict=True)]) for i in range(3))
    out = how(q, k, v, pages, layout, scale=SCALE, window=window)
    return list(out.split([b - a for a, b in spans]))


def in_order(blocks: int, seed: int) -> list[int]:
    return torch.randperm(blocks, generator=torch.Generator().manual_seed(seed)).tolist()


def exact(text: Text, start: int, end: int, window: int | None) -> torch.Tensor:
    """Softmax attention in float64."""
    group = text.q.shape[1] // text.k.shape[1]
    q, k, v = text.q[start:end].double(), *(x[:end].double().repeat_interleave(group, 1) for x in text.parts[1:])
    scores = torch.einsum("qhk,thk->hqt", q, k) * SCALE
    at, seen = torch.arange(start, end)[:, None], torch.arange(end)
    mask = seen <= at if window is None else (seen <= at) & (seen > at - window)
    return torch.einsum("hqt,thk->qhk", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_is_softmax_attention(data: st.DataObject) -> None:
    kv, group = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 11]))
    dim, block = data.draw(st.sampled_from([1, 8, 16, 40, 64, 80])), data.draw(st.sampled_from([16, 32, 48, 256]))
    window = data.draw(st.none() | st.integers(1, 400))
    threads = data.draw(st.integers(1, 3))
    length = data.draw(st.integers(1, 420))
    text = Text(length, kv * group, kv, dim, seed=length)
    table = in_order(-(-length // block) + 2, length)
    pages = empty_pages(text, len(table), block)
    cuts = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=5))})
    parts = [
        run([text], [(a, b)], [table], pages, block=block, window=window, threads=threads)[0]
        for a, b in itertools.pairwise(cuts)
    ]
    assert torch.allclose(torch.cat(parts).double(), exact(text, 0, length, window), atol=3e-5)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_bit_depends_on_chunks_company_threads_or_who_shares_the_blocks(data: st.DataObject) -> None:
    kv, group, dim = data.draw(st.sampled_from([(1, 1, 16), (3, 3, 64), (2, 7, 40), (1, 8, 24)]))
    window = data.draw(st.none() | st.integers(1, 300))
    block = data.draw(st.sampled_from([16, 64]))
    shared = data.draw(st.integers(0, 400)) // block * block
    texts = [Text(shared + 40, kv * group, kv, dim, seed=seed) for seed in range(4)]
    texts = [texts[0].after(shared, text) for text in texts]
    ends = [shared + data.draw(st.integers(1, 40)) for _ in texts]
    each = -(-(shared + 40) // block)
    order = in_order(each * 5, shared)
    private = [order[i * each : (i + 1) * each] for i in range(4)]
    head = order[4 * each :][: shared // block]
    alone = []
    for text, end, table in zip(texts, ends, private, strict=True):
        alone += run([text], [(0, end)], [table], empty_pages(text, 5 * each, block), block=block, window=window)
    pages = empty_pages(texts[0], 5 * each, block)
    tables = [head + table[len(head) :] for table in private]
    if shared:
        run(texts[:1], [(0, shared)], tables[:1], pages, block=block, window=window)
    done = [shared] * 4
    while done != ends:
        steps = [data.draw(st.integers(0, 20)) for _ in texts]
        spans = [(a, min(a + step, b)) for a, b, step in zip(done, ends, steps, strict=True)]
        going = [i for i, (a, b) in enumerate(spans) if b > a]
        if not going:
            going = [i for i in range(4) if done[i] < ends[i]][:1]
            spans[going[0]] = (done[going[0]], done[going[0]] + 1)
        got = run(
            [texts[i] for i in going], [spans[i] for i in going], [tables[i] for i in going], pages, block=block,
            window=window, threads=data.draw(st.integers(1, 3)),
        )  # fmt: skip
        for i, result in zip(going, got, strict=True):
            assert torch.equal(result, alone[i][spans[i][0] : spans[i][1]])
            done[i] = spans[i][1]


def plan_of(spans: list[tuple[int, int]], tables: list[list[int]], *, group: int, window: int, threads: int) -> tuple:
    layout = Layout([PackedChunk(a, b, t) for (a, b), t in zip(spans, tables, strict=True)], 16, threads)
    return layout, layout.plan(group, window)


@pytest.mark.parametrize("window", [0, 1, 150])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_plan_covers_each_row_and_segment_once(window: int, threads: int) -> None:
    shared = list(range(40))
    tables = [shared[:24] + list(range(100 + 20 * i, 120 + 20 * i)) for i in range(6)]
    tables += [shared[:9] + list(range(400 + 40 * i, 440 + 40 * i)) for i in range(3)]
    tables += [list(range(1000, 1100)), list(range(2000, 2100))]
    spans = [(400 + i, 401 + 3 * i) for i in range(6)] + [(500, 501), (510, 516), (300, 340), (1500, 1501), (0, 200)]
    layout, plan = plan_of(spans, tables, group=3, window=window, threads=threads)
    covered: Counter[tuple[int, int]] = Counter()
    for table, first, last, member, count, is_split in plan.tasks:
        for row in plan.members[member : member + count]:
            at = layout.positions[row]
            own = int(layout.spans[np.searchsorted(layout.spans[:, 0], row, side="right") - 1, 3])
            for segment in range(first, last):
                low = max(at - window + 1, 0) if window else 0
                if segment * SEGMENT > at or (segment + 1) * SEGMENT <= low:
                    continue  # not seen by this row of the task
                covered[int(row), segment] += 1
                blocks = slice(segment * SEGMENT // 16, min((segment + 1) * SEGMENT, at + 1 + 15) // 16)
                assert (layout.tables[table:][blocks] == layout.tables[own:][blocks]).all()
                assert bool(is_split) == (row in plan.merged)
    wanted = {
        (row, segment)
        for row, at in enumerate(layout.positions.tolist())
        for segment in range((max(at - window + 1, 0) if window else 0) // SEGMENT, at // SEGMENT + 1)
    }
    assert covered == dict.fromkeys(wanted, 1)
    assert plan.cuts[0] == 0 and plan.cuts[-1] == len(plan.tasks) and (np.diff(plan.cuts) >= 0).all()
    used = [plan.slots[row] + segment for row, segment in wanted if row in plan.merged]
    assert len(set(used)) == len(used) and all(0 <= slot < plan.num_slots for slot in used)


def test_a_shared_prefix_is_one_task_for_many_queries() -> None:
    shared = list(range(64))
    tables = [[*shared, 100 + 2 * i, 101 + 2 * i] for i in range(32)]
    _, plan = plan_of([(1055, 1056)] * 32, tables, group=3, window=0, threads=1)
    prefix = [task for task in plan.tasks if task[2] <= 1024 // SEGMENT]
    assert len(prefix) == 1024 // SEGMENT * 2  # 48 queries each
    assert all(task[4] == 16 for task in prefix)
    _, apart = plan_of([(1055, 1056)] * 2, [list(range(66)), list(range(100, 166))], group=3, window=0, threads=1)
    assert len(apart.tasks) == 2 and not len(apart.merged)


def test_a_long_sequence_is_spread_over_threads_evenly() -> None:
    spans, tables = [(8191, 8192), (40, 41)], [list(range(512)), [600, 601, 602]]
    _, plan = plan_of(spans, tables, group=3, window=0, threads=4)
    shares = [sum(int(task[2] - task[1]) for task in plan.tasks[a:b]) for a, b in itertools.pairwise(plan.cuts)]
    assert max(shares) - min(shares) <= 2 and sum(shares) == 65


@pytest.mark.parametrize("dtype", [DTYPES[0], *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in DTYPES[1:])])
def test_a_long_sequence_has_the_same_bits_split_shared_or_whole(dtype: torch.dtype) -> None:
    length = 100 * SEGMENT + 5
    text = Text(length, 7, 1, 16)
    pages = empty_pages(text, 820, 16, dtype)
    first = list(range(810))
    second = [*range(700), *range(810, 820), *range(710, 810)]  # ten blocks of its own
    at = torch.arange(length - 1)
    for table in (first, second):
        store(text.k[:-1], text.v[:-1], pages, torch.tensor(table)[at // 16], at % 16)
    spans = [(length - 1, length)]
    whole = run([text], spans, [first], pages, block=16)[0]
    for threads in (2, 3):
        _, plan = plan_of(spans, [first], group=7, window=0, threads=threads)
        assert plan.tasks[:, 5].all() and 2 * threads < len(plan.tasks) < 100  # split, in pieces of several segments
        assert torch.equal(run([text], spans, [first], pages, block=16, threads=threads)[0], whole)
        for result in run([text] * 2, spans * 2, [first, second], pages, block=16, threads=threads):
            assert torch.equal(result, whole)


def test_too_much_to_merge_is_not_split() -> None:
    shared = list(range(512))
    count = 1200  # would take 1200 * 65 records of each head
    tables = [[*shared, 600 + i] for i in range(count)]
    _, plan = plan_of([(8192, 8193)] * count, tables, group=3, window=0, threads=1)
    assert 0 < plan.num_slots <= 1 << 16
    assert sum(int(task[4]) for task in plan.tasks if not task[5]) == count - len(plan.merged)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 100])
def test_each_kind_of_cache_equals_the_plain_version(dtype: torch.dtype, window: int | None) -> None:
    texts = [Text(300, 6, 2, 40, seed=seed) for seed in range(3)]
    order = in_order(60, 1)
    tables = [order[i * 20 : (i + 1) * 20] for i in range(3)]
    results, caches = [], []
    for how in (compiled_attention, gather_attention):
        pages = empty_pages(texts[0], 60, 16, dtype)
        spans = [[(0, 130), (0, 7), (0, 270)], [(130, 131), (7, 8), (270, 271)], [(131, 132), (8, 50), (271, 280)]]
        got = [run(texts, span, tables, pages, block=16, window=window, how=how) for span in spans]
        results.append(torch.cat([x for step in got for x in step]))
        caches.append(pages)
    assert torch.isfinite(results[0]).all()
    assert torch.allclose(*results, atol=2e-5)
    for one, other in zip(caches[0].tensors, caches[1].tensors, strict=True):
        one, other = (x.nan_to_num(-5.0) if x.is_floating_point() else x for x in (one, other))
        if one.shape[-1] == 48:  # columns beyond the head are the writer's own
            one, other = one[..., :40], other[..., :40]
        assert torch.equal(one, other)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.int8, 2e-2)])
def test_each_kind_of_cache_is_as_exact_as_its_numbers(dtype: torch.dtype, error: float) -> None:
    text = Text(500, 6, 2, 64)
    pages = empty_pages(text, 32, 16, dtype)
    got = run([text], [(0, 500)], [in_order(32, 0)], pages, block=16)[0].double()
    expected = exact(text, 0, 500, None)
    assert (got - expected).norm() / expected.norm() < error


def test_bytes_of_a_token() -> None:
    assert [kv_bytes_per_token(30, 3, 64, dtype) for dtype in DTYPES] == [46080, 23040, 12240]
    assert Pages.empty(1, 2, 16, 40, torch.float32, CPU).bytes_per_token == 2 * (40 + 48) * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_a_number_shows_only_where_it_is_seen(dtype: torch.dtype) -> None:
    for which, value in itertools.product(("k", "v"), (torch.nan, torch.inf)):
        clean, texts = Text(160, 3, 1, 16), [Text(160, 3, 1, 16) for _ in range(2)]
        getattr(texts[0], which)[151] = value
        pages = empty_pages(clean, 20, 16, dtype)
        tables = [list(range(10)), list(range(10, 20))]
        expected = run([clean], [(0, 160)], [list(range(10))], empty_pages(clean, 10, 16, dtype), block=16)[0]
        got = run(texts, [(0, 160), (0, 160)], tables, pages, block=16)
        assert torch.equal(got[1], expected)
        assert torch.equal(got[0][:151], expected[:151])
        assert not torch.isfinite(got[0][151]).any()


def test_large_scores_far_apart_merge_without_overflow() -> None:
    text = Text(600, 2, 1, 16)
    text.k.mul_(torch.linspace(200, 0, 600)[:, None, None])
    got = run([text], [(0, 600)], [list(range(38))], empty_pages(text, 38, 16), block=16)[0]
    assert torch.isfinite(got).all()
    assert torch.allclose(got.double(), exact(text, 0, 600, None), atol=2e-3)


@pytest.mark.parametrize("threads", [1, 3])
def test_kernels_take_any_ranges_in_any_order(threads: int) -> None:
    """As the fused step calls them: strided rows, pieces of work in another order, the same bits."""
    texts = [Text(300, 6, 2, 32, seed=seed) for seed in range(2)]
    texts[1] = texts[0].after(256, texts[1])
    tables = [list(range(19)), [*range(16), 20, 21, 22]]
    spans = [(290, 295), (280, 281)]
    pages, other = (empty_pages(texts[0], 23, 16) for _ in range(2))
    for p in (pages, other):
        run(texts[:1], [(0, 290)], tables[:1], p, block=16)
        run(texts[1:], [(256, 280)], tables[1:], p, block=16)
    expected = torch.cat(run(texts, spans, tables, pages, block=16))
    layout = Layout([PackedChunk(a, b, t) for (a, b), t in zip(spans, tables, strict=True)], 16, threads)
    plan = layout.plan(3, 0)
    rows = [torch.cat([t.parts[i][a:b] for t, (a, b) in zip(texts, spans, strict=True)]).flatten(1) for i in range(3)]
    packed = torch.cat(rows, 1).numpy()
    stride, flat = packed.shape[1], packed.reshape(-1)
    cache, heads = KeyValues(*other.arrays), Heads(6, 2, 32, 16)
    for row in (3, 0, 5, 1, 2, 4):
        write(row, row + 1, RowView(flat, 192, stride), RowView(flat, 256, stride), layout.places, cache, heads)
    partials = np.full(plan.num_slots * 6 * 48, np.nan, np.float32)
    out = np.full(6 * 6 * 32, np.nan, np.float32)
    work = Work(layout.tables, plan.tasks, plan.members, layout.positions, plan.slots)
    arguments = (RowView(flat, 0, stride), cache, work, heads, np.float32(SCALE), 0, partials, out)
    for item in reversed(range(len(plan.tasks) * 2)):
        attend(item, item + 1, *arguments)
    merged = (plan.merged, work, heads, 0, partials, out)
    for item in reversed(range(len(plan.merged) * 6)):
        merge(item, item + 1, *merged)
    assert len(plan.merged)
    assert torch.equal(torch.from_numpy(out).reshape(expected.shape), expected)


def test_decoding_in_plain_torch_takes_tables_of_any_width() -> None:
    text = Text(50, 4, 2, 16)
    pages = empty_pages(text, 8, 16)
    expected = run([text], [(0, 50)], [[5, 1, 3, 6]], pages, block=16)[0]
    at = torch.tensor([49, 20, 33])
    tables = torch.tensor([[5, 1, 3, 6, 0, 0, 7]] * 3)  # blocks 0 and 7 hold NaN
    got = decode(text.q[at], pages, tables, at, scale=SCALE, window=None)
    assert torch.allclose(got, expected[at], atol=1e-6)


def test_a_vector_that_cannot_be_rounded_is_marked() -> None:
    x = torch.tensor([[[1.0, -4.0, 0.5]], [[0.0, 0.0, 0.0]], [[torch.nan, 1.0, 2.0]], [[-torch.inf, 1.0, 2.0]]])
    whole, scales = quantise(x)
    assert whole.tolist() == [[[32, -127, 16]], [[0, 0, 0]], [[0, 0, 0]], [[0, 0, 0]]]
    assert scales[:2].tolist() == [[4.0 / 127], [0.0]] or torch.allclose(scales[:2], torch.tensor([[4.0 / 127], [0.0]]))
    assert torch.isnan(scales[2:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_of_blocks_carry_their_scales(dtype: torch.dtype) -> None:
    text = Text(40, 2, 1, 16)
    pages = empty_pages(text, 6, 16, dtype)
    at = torch.arange(40)
    store(text.k, text.v, pages, at // 16, at % 16)
    for block in range(3):
        pages.copy(block, block + 3)
    one, other = (run([text], [(39, 40)], [table], pages, block=16)[0] for table in ([0, 1, 2], [3, 4, 5]))
    assert torch.equal(one, other) and torch.isfinite(one).all()
