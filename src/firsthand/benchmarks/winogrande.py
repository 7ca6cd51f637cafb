"""WinoGrande: choose the name that fills a gap, by the log-prob of the text after it (Sakaguchi et al., 2020)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import multiple_choice, requests_file
from firsthand.benchmarks.protocols.protocol import Item, Protocol
from firsthand.benchmarks.sources.datasets import Source, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.choice import acc, acc_norm

PROTOCOLS = {
    "lm-eval-0shot": Protocol(
        "lm-evaluation-harness, task winogrande: each name is filled in, and the rest of the sentence is scored",
        query="{before}{choice}",
        continuation=" {after}",
        scorers=(acc,),
    ),
    "smollm2": Protocol(
        "SmolLM2's model card (lighteval): the name and the rest of the sentence, per character",
        query="{before}",
        continuation="{choice} {after}",
        scorers=(acc_norm, acc),
    ),
    "olmes-rc": Protocol(
        "OLMES winogrande:rc, scored as in lm-evaluation-harness",
        query="{before}{choice}",
        continuation=" {after}",
        scorers=(acc,),
        shots=5,
        examples="olmes",
    ),
}
SOURCE = Source(
    path="mcq/winogrande_validation.jsonl",
    rows=1267,
    licence="CC-BY-4.0",
    dataset="allenai/winogrande",
    config="winogrande_xl",
    split="validation",
    from_hub=lambda row: from_hub(row),
    also=(requests_file("winogrande_val_rc"),),
)


def winogrande(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the validation split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    return multiple_choice(
        "winogrande",
        PROTOCOLS,
        protocol,
        SOURCE,
        data,
        read_item,
        "The name that fills a gap, two choices (Sakaguchi et al., 2020).",
    )


def read_item(row: Json, id: str, where: str) -> Item:
    """Return the Item of a row {sentence with a gap _, option1, option2, answer 1 or 2}."""
    sentence, options = text_field(row, "sentence", where), [text_field(row, f"option{i}", where) for i in (1, 2)]
    before, gap, after = sentence.partition("_")
    if not gap or str(row.get("answer")) not in ("1", "2"):
        raise DataError(f"{where}: a sentence with a gap '_' and an answer 1 or 2 were expected, not {str(row)[:80]!r}")
    fields = {"before": before, "after": after.strip(), "question": f"Which name fills the gap? {sentence}"}
    return Item(id, fields, tuple(options), int(row["answer"]) - 1)


def from_hub(row: Json) -> Json:
    """Convert a row of allenai/winogrande to a row of our file."""
    return {name: row[name] for name in ("sentence", "option1", "option2", "answer")}
