"""HumanEval+: HumanEval's functions tested on 80 times as many inputs (Liu et al., 2023)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import Source
from firsthand.benchmarks.sources.evalplus import chat, completed, make

PROTOCOLS = {
    "evalplus-chat": chat(
        "EvalPlus 0.3's leaderboard for chat models, prompted as by its openai backend, greedy; the answer stands alone"
    ),
    "evalplus-base": completed(
        "EvalPlus 0.3's leaderboard for base models, greedy: the prompt, completed",
        ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "),
    ),
}
SOURCE = Source(
    path="code/HumanEvalPlus.jsonl",
    rows=164,
    licence="Apache-2.0 (HumanEval: MIT)",
    dataset="evalplus/humanevalplus",
    config="default",
    split="test",
    from_hub=lambda row: row,
)
MINI = Source(
    path="code/HumanEvalPlus-Mini.jsonl",
    rows=164,
    licence=SOURCE.licence,
    dataset=SOURCE.dataset,
    config="default",
    split="test",
    from_hub=lambda row: row,
)
RULES = {"find_zero": "root"}


def humaneval_plus(*, protocol: str = "", data: str = "", mini: bool = False) -> Benchmark:
    """Return all 164 problems. `data` is EvalPlus's file or its folder; `mini` uses the file with few inputs."""
    return make(
        "humaneval_plus",
        MINI if mini else SOURCE,
        PROTOCOLS,
        protocol,
        data,
        url="https://github.com/evalplus/humanevalplus_release/releases",
        rules=RULES,
        typed=lambda task_id, inputs: list(inputs),
        description="HumanEval's functions tested on 80 times as many inputs, 164 problems (Liu et al., 2023).",
    )
