"""Times attention of one layer: the paged kernel against gathering pages and calling torch's SDPA.

A case is one step over a KV cache: sequences with their block tables, and the new tokens of each. Blocks are in random
order, as in an engine that has run for a while. Values are random; only the shapes are a model's. Not included: CUDA,
int8 for SDPA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from firsthand.engine.core.engine import Engine
from firsthand.kernels.attention.gather import store
from firsthand.kernels.attention.paged_attention import Layout, PackedChunk, Pages, compiled_attention
from firsthand.measure.machine_speeds import best_of
from firsthand.measure.workloads import Metric, Workload, WorkloadSizes

BLOCK = 16
_TRIALS = 3


@dataclass(frozen=True)
class Shape:
    """The attention heads of a layer."""

    heads: int
    kv_heads: int
    dim: int

    @property
    def scale(self) -> float:
        """Scale of the attention scores."""
        return float(self.dim**-0.5)


class Case:
    """Sequences over one KV cache, and the new tokens of a step."""

    def __init__(
        self, shape: Shape, tables: list[list[int]], spans: list[tuple[int, int]], dtype: torch.dtype, threads: int
    ):
        """`spans`: first new position and end of each sequence; earlier positions are in the cache."""
        random = torch.Generator().manual_seed(0)
        num_blocks = 1 + max(max(table) for table in tables)
        order = torch.randperm(num_blocks, generator=random).tolist()
        self.tables = [[order[block] for block in table] for table in tables]
        self.shape, self.spans, self.threads = shape, spans, threads
        self.pages = Pages.empty(num_blocks, shape.kv_heads, BLOCK, shape.dim, dtype, torch.device("cpu"))
        for each in (self.pages.keys, self.pages.values):
            each.zero_()  # what is masked is multiplied by 0, and memory that nobody wrote may hold NaN
        for table, (start, _) in zip(self.tables, spans, strict=True):
            at = torch.arange(start)
            k, v = (torch.randn(start, shape.kv_heads, shape.dim, generator=random) for _ in range(2))
            store(k, v, self.pages, torch.tensor(table)[at // BLOCK], at % BLOCK)
        rows = sum(end - start for start, end in spans)
        all_heads = (shape.heads, shape.kv_heads, shape.kv_heads)
        self.q, self.k, self.v = (torch.randn(rows, heads, shape.dim, generator=random) for heads in all_heads)
        self.layout = self.new_layout()

    def new_layout(self) -> Layout:
        """Returns a new layout of the step."""
        chunks = [PackedChunk(start, end, table) for table, (start, end) in zip(self.tables, self.spans, strict=True)]
        return Layout(chunks, BLOCK, self.threads)

    def ours(self) -> torch.Tensor:
        """Run the compiled paged attention once."""
        return compiled_attention(self.q, self.k, self.v, self.pages, self.layout, scale=self.shape.scale, window=None)

    def gather(self) -> Callable[[], torch.Tensor]:
        """Returns a function that gathers pages and calls SDPA for one new token of each sequence, in float32."""
        longest = max(len(table) for table in self.tables)
        tables = torch.tensor([table + [0] * (longest - len(table)) for table in self.tables])
        ends = torch.tensor([end for _, end in self.spans])
        mask = (torch.arange(longest * BLOCK) < ends[:, None])[:, None, None]
        keys = self.pages.keys.transpose(2, 3).contiguous()

        def call() -> torch.Tensor:
            k, v = (pages[tables].transpose(1, 2).flatten(2, 3) for pages in (keys, self.pages.values))
            return functional.scaled_dot_product_attention(
                self.q[:, :, None], k, v, mask, scale=self.shape.scale, enable_gqa=True
            )

        return call

    def contiguous(self) -> Callable[[], torch.Tensor]:
        """Returns a function that calls SDPA on contiguous sequences, padded to the longest."""
        longest = max(end for _, end in self.spans)
        count = len(self.spans)
        k, v = (torch.randn(count, self.shape.kv_heads, longest, self.shape.dim) for _ in range(2))
        rows = self.q.reshape(count, -1, self.shape.heads, self.shape.dim).transpose(1, 2)
        causal = rows.shape[2] > 1
        return lambda: functional.scaled_dot_product_attention(
            rows, k, v, scale=self.shape.scale, enable_gqa=True, is_causal=causal
        )

    @property
    def operations(self) -> float:
        """Multiplications and additions of the step."""
        pairs = sum((end - start) * (start + end + 1) / 2 for start, end in self.spans)
        return 4 * pairs * self.shape.heads * self.shape.dim


def branches(
    shape: Shape, threads: int, dtype: torch.dtype, count: int = 32, shared: int = 1024, own: int = 32
) -> Case:
    """Returns a case of sequences that share a prefix, each with own tokens and one new token, in whole blocks."""
    assert shared % BLOCK == own % BLOCK == 0 < own
    head, tail = shared // BLOCK, own // BLOCK
    tables = [[*range(head), *range(head + i * tail, head + (i + 1) * tail)] for i in range(count)]
    return Case(shape, tables, [(shared + own - 1, shared + own)] * count, dtype, threads)


def alone(shape: Shape, threads: int, dtype: torch.dtype, count: int, length: int) -> Case:
    """Returns a case of sequences that share nothing, each with one new token."""
    each = length // BLOCK
    tables = [list(range(i * each, (i + 1) * each)) for i in range(count)]
    return Case(shape, tables, [(length - 1, length)] * count, dtype, threads)


def prompt(shape: Shape, threads: int, dtype: torch.dtype, length: int) -> Case:
    """Returns a case of one prompt computed at once."""
    return Case(shape, [list(range(length // BLOCK))], [(0, length)], dtype, threads)


def attention_workload(sizes: WorkloadSizes) -> Workload[Engine]:
    """Attention over a shared prefix against gathering pages, for one layer of the engine's model, in float32."""
    shared, own = (-(-tokens // BLOCK) * BLOCK for tokens in (sizes.prefix, sizes.suffix))

    def measure(engine: Engine, seed: int) -> list[float]:
        a = engine.architecture
        shape = Shape(a.num_heads, a.num_kv_heads, a.head_dim)
        case = branches(shape, engine.runner.threads, torch.float32, sizes.branches, shared, own)
        with torch.inference_mode():
            ours, theirs = best_of(case.ours, _TRIALS), best_of(case.gather(), _TRIALS)
        return [theirs / ours, 1000 * ours]

    figures = (
        Metric(
            "shared prefix: attention saved",
            "x",
            f"{sizes.branches} branches after {shared} shared tokens, one layer: gathering pages and SDPA against ours",
        ),
        Metric("shared prefix: attention", "ms", "ours, of one layer in float32 and one step"),
    )
    return Workload(figures, 0, 0, measure, needs_kernels=True)  # it has its own KV cache
