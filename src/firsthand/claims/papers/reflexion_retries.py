"""Trials with feedback."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote=(
        "Agents that learn from their own mistakes without gradient updates — the model critiques its own past "
        "failures and stores them as natural language memory for the next attempt."
    ),
    source="Shinn et al. 2023, arXiv:2303.11366",
    kind="sim",
    cost_s=1,
)
TASKS = 20


def measure(lab: Lab) -> Measurement:
    """A scripted model that errs until it is told of a failure, and then reflects rightly."""
    from collections.abc import Sequence
    from random import Random

    from firsthand.agent import Agent
    from firsthand.benchmark import Benchmark
    from firsthand.context import Context
    from firsthand.message import Message
    from firsthand.model import Sampling
    from firsthand.patterns.direct import direct
    from firsthand.patterns.parts.feedback import Feedback
    from firsthand.patterns.reflexion import reflexion
    from firsthand.providers.scripted import Scripted
    from firsthand.scorers.match import numeric
    from firsthand.task import Task

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        said = messages[-1].text
        number = int(said.split("number ")[1].split(".")[0]) if "number " in said else 0
        if "attempt failed" in said:
            return "I guessed. The rule is to double the number."
        if "double" in said:
            return f"The answer is {2 * number}"
        return f"The answer is {number + Random(f'{lab.seed}-{number}').randrange(1, 9)}"

    async def checked(task: Task, ctx: Context, answer: str) -> Feedback:
        right = answer.rstrip(".").split()[-1:] == [str(2 * int(task.id))]
        return Feedback(right, "right" if right else "wrong")

    tasks = [
        Task(str(n), f"What is the code of number {n}.", hint="a number", secret={"answer": str(2 * n)})
        for n in range(1, TASKS + 1)
    ]
    benchmark = Benchmark("codes", lambda seed: tasks, (numeric,))
    values, rows = [], []
    for name, pattern, options in (
        ("direct", direct, {}),
        ("reflexion", reflexion, {"pattern": direct, "trials": 3, "evaluate": checked}),
    ):
        traces = lab.attempt(Agent(name, Scripted(reply, name="scripted:learner"), pattern, options), benchmark, tasks)
        values.append([trace.value() or 0.0 for trace in traces])
        rows.append((name, sum(values[-1]) / TASKS, sum(t.usage.total_tokens for t in traces) / TASKS))
    gain = paired(values[1], values[0])
    return Measurement(
        gain.difference,
        "accuracy with reflections less that without, of a model that can use them",
        gain.low,
        gain.high,
        TASKS,
        columns=("pattern", "accuracy", "tokens"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """A mechanism that carries is not yet a gain for real models."""
    if m.bounds[0] > 0.1:
        return ruling(
            "holds in part",
            f"the mechanism carries: {m.value:+.0%} for a model whose reflections are right and that knows when "
            "it failed",
        )
    return ruling("does not hold here", f"{m.value:+.0%}: without a judge that knows of failures, nothing is learned")
