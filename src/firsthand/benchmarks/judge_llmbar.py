"""LLMBar: 419 pairs of answers, natural and adversarial, of which one follows the instruction (Zeng et al., 2023).

The authors agreed on each label, so every pair has one vote. In the adversarial sets the answer that does not follow the
instruction looks better.
"""

from __future__ import annotations

import hashlib
from functools import partial

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.vote_sets import (
    AnswerPair,
    VoteProtocol,
    answer_text,
    pairs_of,
    read_rows,
    vote_benchmark,
)
from firsthand.benchmarks.sources.datasets import Source
from firsthand.errors import unknown
from firsthand.message import Json

PROTOCOLS = {
    "pairwise": VoteProtocol("our own: A, B or tie by log-prob, both orders", "pairwise"),
    "mt-bench-pair-v2": VoteProtocol("MT-Bench (pair-v2): an explanation first, both orders", "mt-bench-pair-v2"),
    "alpaca-eval": VoteProtocol("AlpacaEval 2: m or M by log-prob", "alpaca-eval"),
    "arena-hard": VoteProtocol("Arena-Hard v0.1: five verdicts after an explanation, both orders", "arena-hard"),
}
SETS = {
    "natural": "Natural",
    "neighbor": "Adversarial_Neighbor",
    "gptinst": "Adversarial_GPTInst",
    "gptout": "Adversarial_GPTOut",
    "manual": "Adversarial_Manual",
}
ROWS = {"natural": 100, "neighbor": 134, "gptinst": 92, "gptout": 47, "manual": 46}
SOURCES = {
    name: Source(
        f"judge/llmbar/{split}.json", ROWS[name], "MIT", "princeton-nlp/LLMBar", "LLMBar", split, lambda row: row
    )
    for name, split in SETS.items()
}
"""The authors' files, Dataset/LLMBar/*/dataset.json, each under the name of its set."""
LABELS = {1: "A", 2: "B"}


def judge_llmbar(*, protocol: str = "", data: str = "", subset: str = "", sample: int = 0) -> Benchmark:
    """Return the benchmark over all five sets, or one: natural, neighbor, gptinst, gptout, manual.

    `data` is a folder with their files, or `hub`. `sample` above 0 is the size of a seeded sample.
    """
    if subset and subset not in SETS:
        raise unknown("set of LLMBar", subset, SETS, see="firsthand list benchmarks")
    pairs, digests = [], []
    for name in [subset] if subset else SETS:
        rows, file, sha256 = read_rows(SOURCES[name], data)
        pairs += pairs_of(rows, file, partial(_pair, name=name))
        digests.append(sha256)
    return vote_benchmark(
        "judge_llmbar",
        PROTOCOLS,
        protocol,
        pairs,
        description="Pairs of answers, natural and adversarial, of which one follows the instruction (Zeng et al., 2023).",
        origin=f"LLMBar, {subset or 'all five sets'}, {len(pairs)} pairs",
        licence="MIT",
        sample=sample,
        sha256=digests[0] if subset else hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


def _pair(row: Json, index: int, name: str) -> AnswerPair:
    votes = (LABELS[int(row["label"])],)
    answers = answer_text(row["output_1"]), answer_text(row["output_2"])
    return AnswerPair(f"{name}-{index:03d}", answer_text(row["input"]), *answers, votes, {"set": name})
