"""Tool use learned without labels."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote=(
        "Shows that LLMs can self-supervise their own tool use — the model learns when and how to call APIs "
        "(calculator, search, calendar) without human-labeled data."
    ),
    source="Schick et al. 2023, arXiv:2302.04761",
    kind="ours",
    cost_s=45,
)
TEXTS, TASKS = 600, 60


def measure(lab: Lab) -> Measurement:
    """A model of 100,000 parameters that knows how a call is written, and no sum: before and after it annotated 600 texts,
    kept the calls whose results help it to predict, and was trained on them. Both may call the calculator."""
    from firsthand.benchmarks.toy_ledgers import toy_ledgers
    from firsthand.claims.toy_training import agent_of, trained
    from firsthand.tools.calculator import calculator

    base = trained(lab, "toy_bookkeeper", "bookkeeper", steps=300, batch_size=64, texts=TEXTS)
    caller = trained(
        lab, "toolformer", "caller", data=str(base / "ledgers.jsonl"), model=str(base / "model"), places=2, samples=4,
        threshold=0.5, batch_size=64, lr=1e-3, steps=80,
    )  # fmt: skip
    benchmark, values, rows = toy_ledgers(tasks=TASKS), [], []
    for name, folder in (("before", base), ("after", caller)):
        for pattern in ("direct", "toolformer"):
            traces = lab.attempt(agent_of(folder, pattern, tools=(calculator,)), benchmark, TASKS)
            scores = [trace.value() or 0.0 for trace in traces]
            calls = sum(call.kind == "tool" for trace in traces for call in trace.calls)
            rows.append((f"{name}, {pattern}", sum(scores) / TASKS, calls / TASKS))
        values.append(scores)
    gain = paired(values[1], values[0])
    return Measurement(
        gain.difference,
        "accuracy with a calculator after self-supervised training, less that before",
        gain.low,
        gain.high,
        TASKS,
        columns=("model and pattern", "accuracy", "calls of a task"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """30 points more at the lower end hold; a gain beyond chance is a part."""
    told = f"{m.value:+.0%} with a calculator, after training on calls that the model proposed and filtered itself"
    if m.bounds[0] > 0.3:
        return ruling("holds here", f"{told}; one tool in a toy language, whose form of a call the base had seen")
    if m.bounds[0] > 0:
        return ruling("holds in part", told)
    return ruling("does not hold here", told)
