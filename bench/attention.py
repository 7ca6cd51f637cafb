"""Speed of paged attention for one layer (9 query and 3 kv heads of 64) beside gathering pages and calling SDPA.

    python bench/attention.py --threads 1

`gather` is the usual paged attention in plain torch: index the pages by padded block tables, then SDPA with a mask.
`contiguous` is SDPA on keys and values that already lie in one piece for each sequence, which no paged cache gives it. One
thread is timed by its own CPU time, which other processes disturb least, and several by the clock; each figure is the median
of many calls and their quartiles. A multiply-add counts as two operations, and only what causality lets a token see counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch

from firsthand.engine.measuring.attention import BLOCK, Shape, alone, branches, prompt

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


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each figure")
    parser.add_argument("--kinds", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}, "
          f"one layer, {SHAPE.heads} query and {SHAPE.kv_heads} kv heads of {SHAPE.dim}, blocks of {BLOCK}, "
          "ms a call, median (quartiles)\n")  # fmt: skip
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
