"""Reads and corrects the files of ARC-Easy and ARC-Challenge (Clark et al., 2018).

The files of the same names in mosaicml/llm-foundry differ from OLMES's golden requests in 82 and 26 rows: 71 and 19 differ
in the answer index alone, all in NYSEDREGENTS questions, and the rest have altered choices. Those files are recognised by
their SHA-256, the rows are replaced by OLMES's, and the protocol says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import SLICES, multiple_choice, question_item, requests_file
from firsthand.benchmarks.protocols.protocol import Protocol
from firsthand.benchmarks.sources.datasets import Rows, Source, load, read
from firsthand.message import Json

PREFIX = "Question: "
FOUNDRY_SHA256 = {
    "arc_easy": "d2d12e59543acf9a5ef6079634a72b30215e36c2fd4236fff3bc855d287b87f5",
    "arc_challenge": "1ae3aeedf1951d881cbd5c2e3a31e78a1993d251479afbe4cb413b6707244636",
}
"""SHA-256 of the files in mosaicml/llm-foundry, scripts/eval/local_data."""


def arc_benchmark(
    name: str, config: str, rows: int, protocols: Mapping[str, Protocol], protocol: str, data: str
) -> Benchmark:
    """Return the benchmark over the test split of one of ARC's two sets."""
    source = Source(
        path=f"mcq/{name}.jsonl",
        rows=rows,
        licence="CC-BY-SA-4.0",
        dataset="allenai/ai2_arc",
        config=config,
        split="test",
        from_hub=from_hub,
        also=(requests_file(f"{name}_test_rc"),),
    )
    test = corrected(name, load(source, data), source)
    description = f"{config}: grade-school science questions, multiple choice (Clark et al., 2018)."
    return multiple_choice(name, protocols, protocol, source, data, question_item, description, rows=test)


def corrected(name: str, test: Rows, source: Source) -> Rows:
    """Return the rows, corrected if the file is llm-foundry's."""
    if test.sha256 != FOUNDRY_SHA256[name]:
        return test
    right = {each["row"]: each for each in read(SLICES / f"{name}_corrections.jsonl.gz", source, "packaged").rows}
    rows = tuple(right.get(index, row) for index, row in enumerate(test.rows))
    return replace(test, rows=rows, origin=f"{test.origin}, {len(right)} of them corrected")


def from_hub(row: Json) -> Json:
    """Convert a row of allenai/ai2_arc to a row of our file."""
    choices = list(row["choices"]["text"])
    gold = list(row["choices"]["label"]).index(row["answerKey"])
    return {"query": PREFIX + row["question"], "choices": choices, "gold": gold}
