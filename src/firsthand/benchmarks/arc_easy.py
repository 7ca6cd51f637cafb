"""ARC-Easy: grade-school science questions, multiple choice by log-prob (Clark et al., 2018)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.arc import make_benchmark


def arc_easy(*, data: str = "") -> Benchmark:
    """The benchmark over the test split. `data` is a folder that holds the file, `packaged` or `hub`; see `data.py`."""
    return make_benchmark("arc_easy", "ARC-Easy", 2376, data)
