"""CommonsenseQA: common-sense questions with five choices, by log-prob (Talmor et al., 2019)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import (
    LETTERS,
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
    "lm-eval-0shot": Protocol(
        "lm-evaluation-harness, task commonsense_qa: the letter of each choice",
        query="Question: {question}\n" + LETTERS,
        continuation=" {letter}",
        scorers=(acc,),
    ),
    "smollm2": Protocol(
        "SmolLM2's model card (lighteval): the text of each choice, per character",
        query="{question}",
        scorers=(acc_norm, acc),
    ),
    "olmes-rc": olmes_text("OLMES csqa:rc, the text of each choice"),
}
SOURCE = Source(
    path="mcq/commonsense_qa_validation.jsonl",
    rows=1221,
    licence="MIT",
    dataset="tau/commonsense_qa",
    config="default",
    split="validation",
    from_hub=lambda row: from_hub(row),
    also=(requests_file("csqa_val_rc"),),
)


def commonsense_qa(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the validation split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    return multiple_choice(
        "commonsense_qa",
        PROTOCOLS,
        protocol,
        SOURCE,
        data,
        question_item,
        "Common-sense concepts, five choices (Talmor et al., 2019).",
    )


def from_hub(row: Json) -> Json:
    """Convert a row of tau/commonsense_qa to a row of our file."""
    return labelled(row, row["question"].strip())
