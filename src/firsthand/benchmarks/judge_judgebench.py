"""JudgeBench: 270 pairs of answers to hard questions, one of each pair objectively right (Tan et al., 2024)."""

from __future__ import annotations

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
from firsthand.message import Json

PROTOCOLS = {
    "pairwise": VoteProtocol("our own: A, B or tie by log-prob, both orders", "pairwise"),
    "mt-bench-pair-v2": VoteProtocol("MT-Bench (pair-v2): an explanation first, both orders", "mt-bench-pair-v2"),
    "alpaca-eval": VoteProtocol("AlpacaEval 2: m or M by log-prob", "alpaca-eval"),
    "arena-hard": VoteProtocol("Arena-Hard v0.1: five verdicts after an explanation, both orders", "arena-hard"),
}
SOURCE = Source(
    "judge/judgebench_claude35.jsonl", 270, "MIT", "ScalerLab/JudgeBench", "default", "claude", lambda row: row,
    also=("dataset=judgebench,response_model=claude-3-5-sonnet-20240620.jsonl",),
)  # fmt: skip
LABELS = {"A>B": "A", "B>A": "B"}


def judge_judgebench(*, protocol: str = "", data: str = "", sample: int = 0) -> Benchmark:
    """Return the benchmark over all pairs, or a seeded sample of size `sample`.

    `data` is a folder with `judgebench_claude35.jsonl`, or `hub`.
    """
    rows, file, sha256 = read_rows(SOURCE, data)
    return vote_benchmark(
        "judge_judgebench",
        PROTOCOLS,
        protocol,
        pairs_of(rows, file, _pair),
        description="Pairs of answers to hard questions, one of each pair objectively right (Tan et al., 2024).",
        origin=f"JudgeBench, answers of claude-3-5-sonnet-20240620, {len(rows)} pairs",
        licence="MIT",
        sample=sample,
        sha256=sha256,
    )


def _pair(row: Json, index: int) -> AnswerPair:
    votes = (LABELS[str(row["label"])],)
    answers = answer_text(row["response_A"]), answer_text(row["response_B"])
    return AnswerPair(
        f"pair-{index:03d}", answer_text(row["question"]), *answers, votes, {"source": answer_text(row["source"])}
    )
