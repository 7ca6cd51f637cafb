"""Speed of paged attention for one layer (9 query and 3 kv heads of 64) beside gathering pages and calling SDPA.

    python bench/attention.py --threads 1
    python bench/attention.py --threads 2 --one-row

`gather` is the usual paged attention in plain torch: index the pages by padded block tables, then SDPA with a mask.
`contiguous` is SDPA on keys and values that already lie in one piece for each sequence, which no paged cache gives it. One
thread is timed by its own CPU time, which other processes disturb least, and several by the clock; each figure is the median
of many calls and their quartiles. A multiply-add counts as two operations, and only what causality lets a token see counts.

`--one-row` decodes one sequence through caches of 30 layers, one after another, so that a long one's come from memory. There
a layer's time is the processor time of a thread, and `plain read` is how fast it adds up the bytes of the same caches.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit

from firsthand.kernels.attention.attention_tables import Heads, KeyValues, RowView, Work
from firsthand.kernels.attention.paged_attention import LANES
from firsthand.kernels.attention.paged_cpu import attend, merge
from firsthand.measure.attention_bench import BLOCK, Shape, alone, branches, prompt

SHAPE = Shape(heads=9, kv_heads=3, dim=64)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}


def measure(call: Callable[[], object], threads: int, seconds: float) -> tuple[float, float, float]:
    """Milliseconds of a call: quartiles."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    for _ in range(3):
        call()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < 5:
        started = clock()
        call()
        taken.append((clock() - started) * 1e3)
    low, middle, high = statistics.quantiles(taken, n=4)
    return middle, low, high


@njit(nogil=True)
def add_up(numbers: Any) -> int:
    """The sum of whole numbers: reading them is all it takes."""
    total = 0
    for i in range(len(numbers)):
        total += numbers[i]
    return total


def one_row(
    threads: int, dtype: torch.dtype, length: int, turns: int = 9, layers: int = 30
) -> tuple[float, float, float]:
    """Microseconds of a layer for one new token, GB/s of keys and values that a thread reads, and of a plain read."""
    cases = [alone(SHAPE, threads, dtype, 1, length) for _ in range(layers)]
    layout, q = cases[0].layout, cases[0].q.numpy().reshape(-1)
    plan = layout.plan(SHAPE.heads // SHAPE.kv_heads, 0)
    out = np.empty(SHAPE.heads * SHAPE.dim, dtype=np.float32)
    partials = np.empty(plan.num_slots * SHAPE.heads * (SHAPE.dim + LANES), dtype=np.float32)
    heads, rows = Heads(SHAPE.heads, SHAPE.kv_heads, SHAPE.dim, BLOCK), RowView(q, 0, SHAPE.heads * SHAPE.dim)
    scale = np.float32(SHAPE.scale)
    items, merged = plan.cuts * SHAPE.kv_heads, np.linspace(0, len(plan.merged) * SHAPE.heads, threads + 1).astype(int)
    wholes = [array.view(np.int64) for case in cases for array in case.pages.arrays if len(array)]
    size = sum(whole.nbytes for whole in wholes) / layers

    def share(thread: int) -> float:
        started = time.thread_time()
        for case in cases:
            first, last = items[thread : thread + 2]
            work = Work(case.layout.tables, plan.tasks, plan.members, layout.positions, plan.slots)
            attend(first, last, rows, KeyValues(*case.pages.arrays), work, heads, scale, 0, partials, out)
            first, last = merged[thread : thread + 2]
            merge(first, last, plan.merged, work, heads, 0, partials, out)
        return (time.thread_time() - started) / layers * 1e6

    def read(thread: int) -> float:
        started = time.thread_time()
        for whole in wholes[thread::threads]:
            add_up(whole)
        return (time.thread_time() - started) / layers * 1e6

    with ThreadPoolExecutor(threads) as pool:
        taken = [[statistics.mean(pool.map(call, range(threads))) for call in (share, read)] for _ in range(turns + 1)]
    ours, plain = (statistics.median(each[1:]) for each in zip(*taken, strict=True))
    return ours, size / threads / ours / 1e3, size / threads / plain / 1e3


def print_one_row(threads: int, kinds: list[str]) -> None:
    """Print a Markdown table of one sequence at several lengths."""
    print("| context | cache | us a layer | GB/s of a thread | plain read, GB/s |\n|---|---|---|---|---|")
    for length in (256, 2048, 8192):
        for kind in kinds:
            taken, speed, plain = one_row(threads, DTYPES[kind], length)
            print(f"| {length:,} | {kind} | {taken:.1f} | {speed:.1f} | {plain:.1f} |", flush=True)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each figure")
    parser.add_argument("--kinds", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--one-row", action="store_true", help="decode one sequence, and nothing else")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}, "
          f"one layer, {SHAPE.heads} query and {SHAPE.kv_heads} kv heads of {SHAPE.dim}, blocks of {BLOCK}, "
          "ms a call, median (quartiles)\n")  # fmt: skip
    if args.one_row:
        print_one_row(args.threads, args.kinds)
        return
    print("| step | cache | firsthand | GFLOP/s | GB/s | gather + SDPA | SDPA, contiguous | against gather |")
    print("|---|---|---|---|---|---|---|---|")
    cases = {
        "32 branches of 1,024 + 32": lambda kind: branches(SHAPE, args.threads, kind),
        "32 apart, 1,056 each": lambda kind: alone(SHAPE, args.threads, kind, 32, 1056),
        "1 of 256": lambda kind: alone(SHAPE, args.threads, kind, 1, 256),
        "1 of 8,192": lambda kind: alone(SHAPE, args.threads, kind, 1, 8192),
        "prompt of 512": lambda kind: prompt(SHAPE, args.threads, kind, 512),
        "prompt of 4,096": lambda kind: prompt(SHAPE, args.threads, kind, 4096),
    }
    for name, make in cases.items():
        for kind in args.kinds:
            case = make(DTYPES[kind])
            with torch.inference_mode():
                ours = measure(case.ours, args.threads, args.seconds)
                rivals: list[tuple[float, float, float] | None] = [None, None]
                if kind == "float32":
                    if not name.startswith("prompt"):
                        rivals[0] = measure(case.gather(), args.threads, args.seconds)
                    rivals[1] = measure(case.contiguous(), args.threads, args.seconds)
            blocks = {block for table in case.tables for block in table}
            size = len(blocks) * BLOCK * case.pages.bytes_per_token
            cells = [f"{x[0]:.3f} ({x[1]:.3f}-{x[2]:.3f})" if x else "" for x in (ours, *rivals)]
            ratio = f"{rivals[0][0] / ours[0]:.1f}x" if rivals[0] else ""
            print(f"| {name} | {kind} | {cells[0]} | {case.operations / ours[0] / 1e6:.1f} | {size / ours[0] / 1e6:.1f} "
                  f"| {cells[1]} | {cells[2]} | {ratio} |")  # fmt: skip


if __name__ == "__main__":
    main()
