"""Reinforcement from verifiable rewards."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="RLVR (Reinforcement from Verifiable Rewards) — used in DeepSeek R1, o1/o3",
    source="DeepSeek-AI 2025, arXiv:2501.12948",
    kind="ours",
    cost_s=35,
)
LENGTH, STEPS, TASKS = 6, 80, 100
"""Digits of a row, steps of GRPO, and rows that are asked before and after, which another seed draws."""


def measure(lab: Lab) -> Measurement:
    """A model of 100,000 parameters that can write its steps and seldom does, before and after GRPO; the reward is
    whether the last state of a row is right, which a program checks."""
    from firsthand.benchmarks.recurrence import make_tasks, recurrence
    from firsthand.claims.toy_training import agent_of, trained

    before = trained(lab, "toy_reasoner", "reasoner", length=LENGTH)
    after = trained(
        lab, "grpo", "thinker", benchmark=f"recurrence:length={LENGTH}", model=str(before / "model"), steps=STEPS,
        max_tokens=LENGTH + 4, lr=1e-3, kl=0, prompts=16, group_size=8,
    )  # fmt: skip
    benchmark, tasks, values, rows = recurrence(length=LENGTH), make_tasks(lab.seed + 1000, LENGTH, TASKS), [], []
    for name, folder in (("before", before), ("after", after)):
        agent = agent_of(folder, "direct", temperature=1.0, max_tokens=LENGTH + 4)
        traces = lab.attempt(agent, benchmark, tasks, concurrency=32)
        values.append([trace.value() or 0.0 for trace in traces])
        stepwise = sum(":" in (trace.answer or "") for trace in traces) / TASKS
        rows.append((name, sum(values[-1]) / TASKS, stepwise))
    gain = paired(values[1], values[0])
    return Measurement(
        gain.difference,
        "accuracy of a small model after reinforcement from a checked answer, less that before",
        gain.low,
        gain.high,
        TASKS,
        columns=("model", "accuracy", "answers with steps"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: 20 points more at the lower end carry the mechanism; what o1 and o3 used stays unknown."""
    told = f"{m.value:+.0%} from a reward that a program checks, and no example of how to answer"
    if m.bounds[0] > 0.2:
        return ruling("holds in part", f"{told}; R1's report says that it was used, for o1 and o3 nothing is published")
    return ruling("does not hold here", told)
