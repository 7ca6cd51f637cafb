"""MT-Bench: pairs of first-turn answers with human verdicts (Zheng et al., 2023).

LLMBar's authors selected 200 pairs with one verdict each; the hub has every vote, so a pair there may have several.
"""

from __future__ import annotations

from dataclasses import replace

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
from firsthand.errors import DataError
from firsthand.message import Json

PROTOCOLS = {
    "pairwise": VoteProtocol("our own: A, B or tie by log-prob, both orders", "pairwise"),
    "mt-bench-pair-v2": VoteProtocol("MT-Bench (pair-v2): an explanation first, both orders", "mt-bench-pair-v2"),
    "alpaca-eval": VoteProtocol("AlpacaEval 2: m or M by log-prob", "alpaca-eval"),
    "arena-hard": VoteProtocol("Arena-Hard v0.1: five verdicts after an explanation, both orders", "arena-hard"),
}
SELECTED = "judge/llmbar_processed_mtbench_humans.json"
"""LLMBar's Dataset/Processed/MT-Bench/dataset.json."""
COLUMNS = ("question_id", "model_a", "model_b", "winner", "turn", "conversation_a", "conversation_b")
SOURCE = Source(
    "judge/mt_bench_human_judgments.jsonl", 3355, "CC BY 4.0", "lmsys/mt_bench_human_judgments", "default", "human",
    lambda row: {name: row[name] for name in COLUMNS}, also=(SELECTED,),
)  # fmt: skip
WINNERS = {"model_a": "A", "model_b": "B", "tie": "tie"}
TURNED = {"A": "B", "B": "A", "tie": "tie"}
LABELS = {1: "A", 2: "B"}


def judge_mtbench(*, protocol: str = "", data: str = "", sample: int = 0) -> Benchmark:
    """Return the benchmark over all pairs, or a seeded sample of size `sample`.

    `data` is a folder with `mt_bench_human_judgments.jsonl` or LLMBar's selection, `llmbar_processed_mtbench_humans.json`,
    or `hub`.
    """
    rows, file, sha256 = read_rows(SOURCE, data)
    selected = "conversation_a" not in rows[0]
    pairs = pairs_of(rows, file, _pair) if selected else _voted(pairs_of(rows, file, _vote))
    chosen = "LLMBar's selection" if selected else f"those of first turns among {len(rows):,} votes"
    return vote_benchmark(
        "judge_mtbench",
        PROTOCOLS,
        protocol,
        pairs,
        description="Pairs of answers to MT-Bench's questions, with human verdicts (Zheng et al., 2023).",
        origin=f"MT-Bench's human judgements, {chosen}, {len(pairs)} pairs",
        licence="CC BY 4.0",
        sample=sample,
        sha256=sha256,
    )


def _pair(row: Json, index: int) -> AnswerPair:
    votes = (LABELS[int(row["label"])],)
    answers = answer_text(row["output_1"]), answer_text(row["output_2"])
    return AnswerPair(f"pair-{index:03d}", answer_text(row["input"]), *answers, votes, {})


def _vote(row: Json, index: int) -> AnswerPair:
    """Return one person's vote, with the models in alphabetical order, as others may have seen them in the other order."""
    a, b = answer_text(row["model_a"]), answer_text(row["model_b"])
    question, answer_a = _first_turn(row["conversation_a"])
    again, answer_b = _first_turn(row["conversation_b"])
    if question != again:
        raise ValueError("the two conversations begin with different questions")
    vote = WINNERS[row["winner"]]
    if b < a:
        a, b, answer_a, answer_b, vote = b, a, answer_b, answer_a, TURNED[vote]
    about = {"models": f"{a}/{b}", "turn": str(int(row["turn"]))}
    return AnswerPair(f"{int(row['question_id'])}-{a}-{b}", question, answer_a, answer_b, (vote,), about)


def _first_turn(conversation: list[Json]) -> tuple[str, str]:
    """Return the first question and its answer."""
    return answer_text(conversation[0]["content"]), answer_text(conversation[1]["content"])


def _voted(votes: list[AnswerPair]) -> list[AnswerPair]:
    """Return each pair of first-turn answers once, with all its votes."""
    found: dict[str, AnswerPair] = {}
    for each in votes:
        if each.about["turn"] == "1":
            before = found.get(each.id)
            found[each.id] = replace(each, votes=(*before.votes, *each.votes)) if before else each
    if not found:
        raise DataError("the file of MT-Bench's votes has none on a first turn: is it the right file?")
    return list(found.values())
