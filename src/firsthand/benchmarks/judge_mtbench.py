"""MT-Bench: 200 pairs of first-turn answers with a human verdict, as LLMBar's authors selected them (Zheng et al., 2023)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.votes import Pair, VoteProtocol, pairs_of, read_rows, vote_benchmark, words
from firsthand.message import Json

PROTOCOLS = {
    "pairwise": VoteProtocol("our own: A, B or tie by log-prob, both orders", "pairwise"),
    "mt-bench-pair-v2": VoteProtocol("MT-Bench (pair-v2): an explanation first, both orders", "mt-bench-pair-v2"),
    "alpaca-eval": VoteProtocol("AlpacaEval 2: m or M by log-prob", "alpaca-eval"),
    "arena-hard": VoteProtocol("Arena-Hard v0.1: five verdicts after an explanation, both orders", "arena-hard"),
}
FILE = "judge/llmbar_processed_mtbench_humans.json"
SOURCE = "princeton-nlp/LLMBar, Dataset/Processed/MT-Bench/dataset.json"
LABELS = {1: "A", 2: "B"}


def judge_mtbench(*, protocol: str = "", data: str = "", sample: int = 0) -> Benchmark:
    """The benchmark over all pairs, or a seeded `sample` of so many. `data` is a folder that holds
    `llmbar_processed_mtbench_humans.json`.
    """
    rows, file, sha256 = read_rows(FILE, data, source=SOURCE)
    return vote_benchmark(
        "judge_mtbench",
        PROTOCOLS,
        protocol,
        pairs_of(rows, file, _pair),
        description="200 pairs of answers to MT-Bench's questions, each with a human verdict (Zheng et al., 2023).",
        origin=f"MT-Bench's human judgements, LLMBar's selection, {len(rows)} pairs",
        licence="CC BY 4.0",
        sample=sample,
        sha256=sha256,
    )


def _pair(row: Json, index: int) -> Pair:
    votes = (LABELS[int(row["label"])],)
    answers = words(row["output_1"]), words(row["output_2"])
    return Pair(f"pair-{index:03d}", words(row["input"]), *answers, votes, {})
