"""ARC-Easy: grade-school science questions, multiple choice by log-prob (Clark et al., 2018)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import olmes_text
from firsthand.benchmarks.protocols.protocol import Protocol
from firsthand.benchmarks.sources.arc_files import arc_benchmark
from firsthand.scorers.choice import acc, acc_norm

PROTOCOLS = {
    "lm-eval-0shot": Protocol("lm-evaluation-harness, task arc_easy"),
    "smollm2": Protocol(
        "SmolLM2's model card (lighteval): the text of each choice, per character",
        scorers=(acc_norm, acc),
    ),
    "olmes-rc": olmes_text("OLMES arc_easy:rc, the text of each choice"),
}


def arc_easy(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the test split. `data` is a folder with the file, `packaged` or `hub`; see `sources/datasets.py`."""
    return arc_benchmark("arc_easy", "ARC-Easy", 2376, PROTOCOLS, protocol, data)
