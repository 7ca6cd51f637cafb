"""ARC-Challenge: grade-school science questions, multiple choice by log-prob (Clark et al., 2018)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import LETTERS, olmes_text
from firsthand.benchmarks.protocols.protocol import Protocol
from firsthand.benchmarks.sources.arc_files import arc_benchmark
from firsthand.scorers.choice import acc, acc_norm

PROTOCOLS = {
    "lm-eval-0shot": Protocol("lm-evaluation-harness, task arc_challenge"),
    "smollm2": Protocol(
        "SmolLM2's model card (lighteval): the text of each choice, per character",
        scorers=(acc_norm, acc),
    ),
    "olmes-rc": olmes_text("OLMES arc_challenge:rc, the text of each choice"),
    "olmes-mc": Protocol(
        "OLMES arc_challenge:mc, the letter of each choice",
        query="Question: {question}\n" + LETTERS,
        option=" {letter}. {choice}\n",
        continuation=" {letter}",
        scorers=(acc,),
        shots=5,
        examples="olmes",
    ),
}


def arc_challenge(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the test split. `data` is a folder with the file, `packaged` or `hub`; see `sources/datasets.py`."""
    return arc_benchmark("arc_challenge", "ARC-Challenge", 1172, PROTOCOLS, protocol, data)
