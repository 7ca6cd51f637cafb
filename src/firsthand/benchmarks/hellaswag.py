"""HellaSwag: choose a scene's continuation among four, by log-prob (Zellers et al., 2019)."""

from __future__ import annotations

import re
from dataclasses import replace

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import (
    LETTERS,
    choices_of,
    multiple_choice,
    olmes_text,
    requests_file,
)
from firsthand.benchmarks.protocols.protocol import Item, Protocol
from firsthand.benchmarks.sources.datasets import Rows, Source, load, read, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.choice import acc, acc_norm
from firsthand.system.given_data import held

CHOOSE = "\nChoose the best continuation:\n"
PROTOCOLS = {
    "lm-eval-0shot": Protocol(
        "lm-evaluation-harness, task hellaswag: contexts keep the trailing space that a removed [step] leaves",
        query="{question}",
        scorers=(acc_norm, acc),
    ),
    "smollm2": Protocol(
        "SmolLM2's model card (lighteval): every context ends with a space, so that two come before an ending",
        query="{stripped} ",
        scorers=(acc_norm, acc),
    ),
    "olmes-rc": olmes_text("OLMES hellaswag:rc, the text of each ending", query="{stripped}"),
    "olmes-mc": Protocol(
        "OLMES hellaswag:mc, the letter of each ending",
        query="{question}" + CHOOSE + LETTERS,
        option=" {letter}. {stripped}\n",
        continuation=" {letter}",
        scorers=(acc,),
        shots=5,
        examples="olmes",
    ),
}
SOURCE = Source(
    path="mcq/hellaswag_validation.jsonl",
    rows=10042,
    licence="MIT",
    dataset="Rowan/hellaswag",
    config="default",
    split="validation",
    from_hub=lambda row: from_hub(row),
    also=(requests_file("hellaswag_rc"),),
)


def hellaswag(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the validation split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    rows = whole(load(SOURCE, data))
    description = "A scene's continuation, four choices (Zellers et al., 2019)."
    return multiple_choice("hellaswag", PROTOCOLS, protocol, SOURCE, data, read_item, description, rows=rows)


def whole(rows: Rows) -> Rows:
    """Return the rows; in OLMES's files, contexts get back their trailing space from the letter requests next to them."""
    letters_file = rows.path.with_name(rows.path.name.replace("_rc_", "_mc_"))
    if letters_file == rows.path or not letters_file.is_file():
        return rows
    letter_rows = read(held(letters_file, letters_file.parent), SOURCE, "").rows
    queries = [text_field(row, "query", str(letters_file)).partition(CHOOSE)[0] for row in letter_rows]
    if [query.rstrip() for query in queries] != [str(row.get("query")).rstrip() for row in rows.rows]:
        raise DataError(
            f"{letters_file} and {rows.path} do not hold the same contexts in the same order: fetch them again"
        )
    return replace(rows, rows=tuple({**row, "query": query} for row, query in zip(rows.rows, queries, strict=True)))


def read_item(row: Json, id: str, where: str) -> Item:
    """Return the Item of a row {query, choices, gold}, with `source` from the hub: one video or article is a cluster."""
    question = text_field(row, "query", where)
    choices, gold = choices_of(row, where)
    cluster = {"cluster": text_field(row, "source", where)} if "source" in row else {}
    return Item(id, {"question": question, "stripped": question.rstrip()}, choices, gold, metadata=cluster)


def from_hub(row: Json) -> Json:
    """Convert a row of Rowan/hellaswag to a row of our file."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    choices = [cleaned(ending) for ending in row["endings"]]
    source = {"source": str(row["source_id"])} if row.get("source_id") else {}
    return {"query": cleaned(context), "choices": choices, "gold": int(row["label"]), **source}


def cleaned(text: str) -> str:
    """Return the text without WikiHow's marks: ` [title]` becomes a full stop, other brackets go, and double spaces once."""
    text = re.sub(
        r"\[[^\]\n]*+(\]?)", lambda found: "" if found[1] else found[0], text.strip().replace(" [title]", ". ")
    )
    return text.replace("  ", " ")
