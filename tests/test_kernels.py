import pytest
import torch

from firsthand.kernels.attention.paged_attention import (
    PARALLEL_FROM,
    Layout,
    PackedChunk,
    Pages,
    attend_pages,
    can_compile,
    compiled_attention,
    gather_attention,
)

torch.set_num_threads(1)
SPANS = [(0, 50), (3, 4), (100, 117), (63, 64), (15, 17), (200, 201)]
HISTORY = 256


class Memory:
    """Sequences whose earlier keys and values lie in shuffled blocks; unused memory is NaN."""

    def __init__(self, spans: list[tuple[int, int]], *, heads: int, kv: int, dim: int, block: int = 16, seed: int = 0):
        random = torch.Generator().manual_seed(seed)
        self.block = block
        self.q = [torch.randn(HISTORY, heads, dim, generator=random) for _ in spans]
        self.k = [torch.randn(HISTORY, kv, dim, generator=random) for _ in spans]
        self.v = [torch.randn(HISTORY, kv, dim, generator=random) for _ in spans]
        each = -(-HISTORY // block)
        self.pages = Pages.empty(each * len(spans), kv, block, dim, torch.float32, torch.device("cpu"))
        self.pages.keys.fill_(torch.nan)
        self.pages.values.fill_(torch.nan)
        order = torch.randperm(each * len(spans), generator=torch.Generator().manual_seed(seed + 1)).tolist()
        self.tables = [order[i * each : (i + 1) * each] for i in range(len(spans))]

    def run(self, spans: list[tuple[int, int, int]], attend=attend_pages, window=None, threads=1) -> torch.Tensor:
        """Attend for (sequence, start, end) of each span, all packed together."""
        layout = Layout([PackedChunk(a, b, self.tables[i]) for i, a, b in spans], self.block, threads)
        q, k, v = (torch.cat([x[i][a:b] for i, a, b in spans]) for x in (self.q, self.k, self.v))
        return attend(q, k, v, self.pages, layout, scale=0.3, window=window)


SHAPES = [
    {"heads": 9, "kv": 3, "dim": 64},
    {"heads": 4, "kv": 4, "dim": 40},
    {"heads": 14, "kv": 2, "dim": 16, "block": 32},
    {"heads": 5, "kv": 1, "dim": 128},
]


@pytest.mark.parametrize("window", [None, 1, 7, 40])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_compiled_version_equals_the_plain_one(shape: dict[str, int], window: int | None) -> None:
    spans = [(i, a, b) for i, (a, b) in enumerate(SPANS)]
    results = []
    for attend in (compiled_attention, gather_attention):
        memory = Memory(SPANS, **shape)
        memory.run([(i, 0, a) for i, (a, _) in enumerate(SPANS) if a], attend, window)
        results.append(memory.run(spans, attend, window))
    assert torch.isfinite(results[0]).all()
    assert torch.allclose(*results, atol=2e-5)


def test_the_plain_version_is_softmax_attention() -> None:
    memory = Memory([(0, 20)], heads=2, kv=1, dim=8, block=4)
    got = memory.run([(0, 0, 20)], gather_attention, window=6)
    q, k, v = (x[0][:20].double() for x in (memory.q, memory.k, memory.v))
    for t in range(20):
        seen = slice(max(0, t - 5), t + 1)
        for head in range(2):
            weights = (k[seen, 0] @ q[t, head] * 0.3).softmax(0)
            assert torch.allclose(got[t, head].double(), weights @ v[seen, 0], atol=1e-6)


@pytest.mark.parametrize("window", [None, 21])
@pytest.mark.parametrize("shape", SHAPES)
def test_neither_company_nor_chunks_nor_blocks_nor_threads_change_a_bit(
    shape: dict[str, int], window: int | None
) -> None:
    whole = Memory([(0, 0)] * 3, **shape).run([(0, 0, 150)], window=window)
    for seed_of_tables in (0, 5):
        memory = Memory([(0, 0)] * 3, **shape)
        if seed_of_tables:
            memory.tables = [memory.tables[2][::-1], memory.tables[0], memory.tables[1]]
        parts, start = [], 0
        for size in (1, 1, 40, 3, 16, 17, 31, 1, 40):
            part = memory.run(
                [(1, 0, 2 + start), (0, start, start + size), (2, start, start + 1)],
                window=window,
                threads=1 + size % 3,
            )
            parts.append(part[2 + start : 2 + start + size])
            start += size
        assert torch.equal(torch.cat(parts), whole)


def test_work_shared_by_threads_gives_the_same_bits() -> None:
    shape = {"heads": 64, "kv": 2, "dim": 16}
    assert PARALLEL_FROM < 64 * 256 * 255 // 2
    one = Memory([(0, 0)], **shape).run([(0, 0, 256)], threads=1)
    three = Memory([(0, 0)], **shape).run([(0, 0, 256)], threads=3)
    assert torch.equal(one, three)


def test_large_and_small_scores_neither_overflow_nor_vanish() -> None:
    results = []
    for attend in (compiled_attention, gather_attention):
        memory = Memory([(0, 0)], heads=2, kv=1, dim=16)
        memory.k[0] *= torch.linspace(0, 200, HISTORY)[:, None, None]
        results.append(memory.run([(0, 0, 200)], attend))
    assert torch.isfinite(results[0]).all()
    assert torch.allclose(*results, atol=1e-4)


@pytest.mark.parametrize("where", ["q", "k", "v"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_shows_in_its_own_sequence_and_nowhere_else(where: str, value: float) -> None:
    spans = [(0, 0, 20), (1, 0, 20)]
    expected = Memory([(0, 0)] * 2, heads=4, kv=2, dim=16).run(spans)
    memory = Memory([(0, 0)] * 2, heads=4, kv=2, dim=16)
    getattr(memory, where)[0][10] = value
    got = memory.run(spans)
    assert not torch.isfinite(got[10]).any()
    assert torch.equal(got[:10], expected[:10]) and torch.equal(got[20:], expected[20:])


def test_other_caches_go_through_the_plain_version() -> None:
    cpu = torch.device("cpu")
    for dtype in (torch.float32, torch.float16, torch.int8):
        assert can_compile(Pages.empty(2, 1, 16, 8, dtype, cpu), 16)
    assert not can_compile(Pages.empty(2, 1, 16, 8, torch.bfloat16, cpu), 16)
    assert not can_compile(Pages.empty(2, 1, 8, 8, torch.float32, cpu), 8)
