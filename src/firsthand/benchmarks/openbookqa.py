"""OpenBookQA: elementary science that needs a fact and common sense, multiple choice by log-prob (Mihaylov et al., 2018)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import (
    labelled,
    multiple_choice,
    olmes_text,
    question_item,
    requests_file,
)
from firsthand.benchmarks.protocols.protocol import Protocol
from firsthand.benchmarks.sources.datasets import Source
from firsthand.message import Json
from firsthand.scorers.choice import acc, acc_norm

PROTOCOLS = {
    "lm-eval-0shot": Protocol("lm-evaluation-harness, task openbookqa", query="{question}", scorers=(acc_norm, acc)),
    "smollm2": Protocol(
        "SmolLM2's model card (lighteval): the text of each choice, per character",
        query="{question}",
        scorers=(acc_norm, acc),
    ),
    "olmes-rc": olmes_text("OLMES openbookqa:rc, the text of each choice"),
}
SOURCE = Source(
    path="mcq/openbookqa_test.jsonl",
    rows=500,
    licence="Apache-2.0",
    dataset="allenai/openbookqa",
    config="main",
    split="test",
    from_hub=lambda row: from_hub(row),
    also=(requests_file("openbookqa_test_rc"),),
)


def openbookqa(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the test split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    return multiple_choice(
        "openbookqa",
        PROTOCOLS,
        protocol,
        SOURCE,
        data,
        question_item,
        "Elementary science with a fact and common sense (Mihaylov et al., 2018).",
    )


def from_hub(row: Json) -> Json:
    """Convert a row of allenai/openbookqa to a row of our file."""
    return labelled(row, row["question_stem"])
