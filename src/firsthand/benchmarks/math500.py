"""MATH-500: 500 problems of MATH, chosen by Lightman et al. (2023)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.competition import mathematics
from firsthand.benchmarks.data import Source
from firsthand.benchmarks.protocol import Protocol
from firsthand.evals.symbolic import boxed, minerva

PROTOCOLS = {
    "boxed-0shot": Protocol(
        "the common zero-shot practice of model cards: step by step, the answer in a box; equality by our own parser",
        query="{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
        scorers=(boxed,),
        continuation=None,
        chat=True,
        max_tokens=2048,
    ),
    "minerva-4shot": Protocol(
        "Minerva (Lewkowycz et al., 2022), four worked examples, as lm-evaluation-harness's minerva_math",
        query="Problem:\n{question}\n\nSolution:",
        scorers=(minerva, boxed),
        shots=4,
        examples="math_minerva",
        continuation=None,
        stop=("Problem:",),
        max_tokens=1024,
    ),
}
SOURCE = Source(
    path="math/math500.jsonl",
    rows=500,
    licence="MIT",
    dataset="HuggingFaceH4/MATH-500",
    config="default",
    split="test",
    from_hub=lambda row: {name: row[name] for name in ("problem", "solution", "answer", "subject", "level")},
)


def math500(*, protocol: str = "", data: str = "") -> Benchmark:
    """The benchmark over the test split. `data` is a folder that holds the file, or `hub`; see `data.py`."""
    return mathematics(
        "math500",
        PROTOCOLS,
        protocol,
        SOURCE,
        data,
        "MATH-500: 500 problems of MATH, chosen by Lightman et al. (2023).",
    )
