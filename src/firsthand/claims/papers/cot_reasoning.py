"""Accuracy and tokens of step-by-step answers."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote=(
        'Shows that simply adding "Let\'s think step by step" dramatically improves LLM reasoning on math, logic, '
        "and commonsense tasks."
    ),
    source="Wei et al. 2022, arXiv:2201.11903; the phrase is of Kojima et al. 2022, arXiv:2205.11916",
    kind="small",
    cost_s=20,
    needs=("model smollm2",),
)
TASKS = 24


def measure(lab: Lab) -> Measurement:
    """SmolLM2 at the benchmark `arithmetic`, at once and step by step."""
    from firsthand import catalog
    from firsthand.agent import Agent
    from firsthand.model import Sampling
    from firsthand.patterns.cot import cot
    from firsthand.patterns.direct import direct

    model, benchmark, values, rows = lab.model("smollm2"), catalog.benchmark("arithmetic"), [], []
    for name, pattern, tokens in (("direct", direct, 16), ("cot", cot, 96)):
        traces = lab.attempt(
            Agent(name, model, pattern, sampling=Sampling(temperature=0.0, max_tokens=tokens)), benchmark, TASKS
        )
        values.append([trace.value() or 0.0 for trace in traces])
        rows.append((name, sum(values[-1]) / TASKS, sum(t.usage.completion_tokens for t in traces) / TASKS))
    gain = paired(values[1], values[0])
    return Measurement(
        gain.difference,
        "accuracy of SmolLM2 135M at sums, step by step less at once",
        gain.low,
        gain.high,
        TASKS,
        columns=("pattern", "accuracy", "tokens written"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Dramatic is ten points or more, beyond chance."""
    if m.rows and all(row[1] == 0 for row in m.rows):
        return ruling("cannot be tested here", "the model solves no task either way: a floor hides any difference")
    phrase = "(the phrase is Kojima et al.'s; Wei et al. give worked examples)"
    if m.bounds[0] > 0.1:
        return ruling("holds here", f"{m.value:+.0%} {phrase}")
    if m.value > 0:
        return ruling("holds in part", f"{m.value:+.0%}, which is not dramatic, at this size {phrase}")
    return ruling(
        "does not hold here", f"{m.value:+.0%} at 135M parameters; the papers find it from some 100B on {phrase}"
    )
