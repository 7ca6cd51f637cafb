"""Social IQa: people's feelings, intentions and actions, three choices by log-prob (Sap et al., 2019)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import multiple_choice, olmes_text, question_item, requests_file
from firsthand.benchmarks.protocols.protocol import Protocol
from firsthand.benchmarks.sources.datasets import Source
from firsthand.message import Json
from firsthand.scorers.choice import acc

PROTOCOLS = {
    "lm-eval-0shot": Protocol("lm-evaluation-harness, task social_iqa", query="Q: {question}\nA:", scorers=(acc,)),
    "olmes-rc": olmes_text("OLMES socialiqa:rc, the text of each choice"),
}
SOURCE = Source(
    path="mcq/social_iqa_validation.jsonl",
    rows=1954,
    licence="CC-BY-4.0",
    dataset="lighteval/siqa",
    config="default",
    split="validation",
    from_hub=lambda row: from_hub(row),
    also=(requests_file("socialiqa_val_rc"),),
)


def social_iqa(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the validation split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    return multiple_choice(
        "social_iqa",
        PROTOCOLS,
        protocol,
        SOURCE,
        data,
        question_item,
        "People's feelings, intentions and actions (Sap et al., 2019).",
    )


def from_hub(row: Json) -> Json:
    """Convert a row of lighteval/siqa to a row of our file."""
    query = f"Question: {row['context']} {row['question']}\nAnswer:"
    return {"query": query, "choices": [row["answerA"], row["answerB"], row["answerC"]], "gold": int(row["label"]) - 1}
