"""PandaLM: 999 pairs of answers to 170 instructions, each with three people's votes (Wang et al., 2023)."""

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
    "judge/pandalm_testset_v1_3humans.json", 999, "Apache-2.0", "", "", "", lambda row: row, also=("testset-v1.json",)
)
"""The authors' file, data/testset-v1.json of github.com/WeOpenML/PandaLM: it is not on the hub."""
VOTES = {0: "tie", 1: "A", 2: "B"}


def judge_pandalm(*, protocol: str = "", data: str = "", sample: int = 0) -> Benchmark:
    """Return the benchmark over all pairs, or a seeded sample of size `sample`.

    `data` is a folder with the authors' file, `testset-v1.json`.
    """
    rows, file, sha256 = read_rows(SOURCE, data)
    return vote_benchmark(
        "judge_pandalm",
        PROTOCOLS,
        protocol,
        pairs_of(rows, file, _pair),
        description="999 pairs of answers to 170 instructions, each with three people's votes (Wang et al., 2023).",
        origin=f"PandaLM's human test set, {len(rows)} pairs",
        licence="Apache-2.0",
        sample=sample,
        sha256=sha256,
    )


def _pair(row: Json, index: int) -> AnswerPair:
    question = answer_text(row["instruction"]) + (
        f"\n\n{answer_text(row['input'])}" if str(row["input"]).strip() else ""
    )
    votes = tuple(VOTES[row[f"annotator{number}"]] for number in (1, 2, 3))
    about = {"models": answer_text(row["cmp_key"])}
    return AnswerPair(
        f"pair-{index:04d}", question, answer_text(row["response1"]), answer_text(row["response2"]), votes, about
    )
