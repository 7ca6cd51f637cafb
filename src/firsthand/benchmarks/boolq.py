"""BoolQ: yes/no questions about a passage, by log-prob (Clark et al., 2019)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import choices_of, multiple_choice, requests_file
from firsthand.benchmarks.protocols.protocol import Item, Protocol
from firsthand.benchmarks.sources.datasets import Source, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.choice import acc

QUERY = "{passage}\nQuestion: {question}?\nAnswer:"
PROTOCOLS = {
    "lm-eval-0shot": Protocol("lm-evaluation-harness, task boolq", query=QUERY, scorers=(acc,)),
    "olmes-rc": Protocol("OLMES boolq:rc", query=QUERY, scorers=(acc,), shots=5, examples="olmes"),
}
SOURCE = Source(
    path="mcq/boolq_validation.jsonl",
    rows=3270,
    licence="CC-BY-SA-3.0",
    dataset="aps/super_glue",
    config="boolq",
    split="validation",
    from_hub=lambda row: from_hub(row),
    also=(requests_file("boolq_val_rc"),),
)


def boolq(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the validation split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    return multiple_choice(
        "boolq", PROTOCOLS, protocol, SOURCE, data, read_item, "Yes/no questions about a passage (Clark et al., 2019)."
    )


def read_item(row: Json, id: str, where: str) -> Item:
    """Return the Item of a row {query: passage, question, Answer:}; items with one passage title are a cluster."""
    choices, gold = choices_of(row, where)
    passage, found, question = text_field(row, "query", where).removesuffix("?\nAnswer:").rpartition("\nQuestion: ")
    if not found:
        raise DataError(f"{where}: the field 'query' has no line 'Question: ...'")
    title = passage.partition(" -- ")[0][:200]
    return Item(id, {"passage": passage, "question": question}, choices, gold, metadata={"cluster": title})


def from_hub(row: Json) -> Json:
    """Convert a row of aps/super_glue, boolq, to a row of our file."""
    query = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return {"query": query, "choices": ["yes", "no"], "gold": 1 - int(row["label"])}
