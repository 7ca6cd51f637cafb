"""Social IQa: what people feel, want and do, three choices by log-prob (Sap et al., 2019)."""

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
    """The benchmark over the validation split. `data` is a folder that holds the file, or `hub`; see `data.py`."""
    return multiple_choice(
        "social_iqa",
        PROTOCOLS,
        protocol,
        SOURCE,
        data,
        question_item,
        "What people feel, want and do (Sap et al., 2019).",
    )


def from_hub(row: Json) -> Json:
    """A row of lighteval/siqa as a row of our file."""
    query = f"Question: {row['context']} {row['question']}\nAnswer:"
    return {"query": query, "choices": [row["answerA"], row["answerB"], row["answerC"]], "gold": int(row["label"]) - 1}
