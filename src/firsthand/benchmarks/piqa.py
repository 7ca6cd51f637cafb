"""PIQA: physical common sense with two choices, by log-prob (Bisk et al., 2020)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import multiple_choice, olmes_text, question_item, requests_file
from firsthand.benchmarks.protocols.protocol import Item, Protocol
from firsthand.benchmarks.sources.datasets import Source
from firsthand.message import Json
from firsthand.scorers.choice import acc, acc_norm

PROTOCOLS = {
    "lm-eval-0shot": Protocol("lm-evaluation-harness, task piqa"),
    "smollm2": Protocol(
        "SmolLM2's model card (lighteval): the text of each choice, per character",
        scorers=(acc_norm, acc),
    ),
    "olmes-rc": olmes_text("OLMES piqa:rc, the text of each choice", query="Goal: {question}\nAnswer:"),
}
SOURCE = Source(
    path="mcq/piqa_validation.jsonl",
    rows=1838,
    licence="AFL-3.0",
    dataset="baber/piqa",
    config="default",
    split="validation",
    from_hub=lambda row: from_hub(row),
    also=(requests_file("piqa_val_rc"),),
)


def piqa(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the validation split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    return multiple_choice(
        "piqa", PROTOCOLS, protocol, SOURCE, data, read_item, "Physical common sense, two choices (Bisk et al., 2020)."
    )


def read_item(row: Json, id: str, where: str) -> Item:
    """Return the Item of a row whose query is `Goal: ...`."""
    return question_item(row, id, where, prefix="Goal: ")


def from_hub(row: Json) -> Json:
    """Convert a row of baber/piqa to a row of our file."""
    return {
        "query": f"Goal: {row['goal']}\nAnswer:",
        "choices": [row["sol1"], row["sol2"]],
        "gold": int(row["label"]),
    }
