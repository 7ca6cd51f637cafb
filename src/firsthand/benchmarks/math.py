"""MATH: competition mathematics, 5,000 problems (Hendrycks et al., 2021)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.competition import as_minerva, in_a_box, mathematics, solved
from firsthand.benchmarks.sources.datasets import Source

PROTOCOLS = {
    "boxed-0shot": in_a_box(
        "common zero-shot practice of model cards: step by step, the answer in a box; equality by our own parser",
        max_tokens=2048,
    ),
    "minerva-4shot": as_minerva(
        "Minerva (Lewkowycz et al., 2022), four worked examples, as lm-evaluation-harness's minerva_math"
    ),
}
SOURCE = Source(
    path="math/math_test_5000.jsonl",
    rows=5000,
    licence="MIT",
    dataset="DigitalLearningGmbH/MATH-lighteval",
    config="default",
    split="test",
    from_hub=lambda row: {name: row[name] for name in ("problem", "solution", "level", "type")},
)


def math(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the test split. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    return mathematics(
        "math",
        PROTOCOLS,
        protocol,
        SOURCE,
        data,
        "MATH: competition mathematics, 5,000 problems (Hendrycks et al., 2021).",
        solved,
    )
