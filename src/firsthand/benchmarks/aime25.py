"""AIME 2025: 30 problems whose answer is an integer from 0 to 999."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.competition import in_a_box, mathematics
from firsthand.benchmarks.sources.datasets import Source

PROTOCOLS = {
    "boxed-0shot": in_a_box(
        "common zero-shot practice; with --epochs K and a temperature above 0 the score is mean@K",
        max_tokens=32_768,
        temperature=None,
    ),
}
SOURCE = Source(
    path="math/aime25.jsonl",
    rows=30,
    licence="the problems are the MAA's",
    dataset="math-ai/aime25",
    config="default",
    split="test",
    from_hub=lambda row: {name: row[name] for name in ("problem", "answer")},
)


def aime25(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the test split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    return mathematics(
        "aime25", PROTOCOLS, protocol, SOURCE, data, "AIME 2025: 30 problems whose answer is an integer from 0 to 999."
    )
