"""Answers before and after critique by principles."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote='The model critiques and revises its own outputs according to a written "constitution" of principles.',
    source="Bai et al. 2022, arXiv:2212.08073",
    kind="sim",
    cost_s=2,
)
TASKS = 10


def measure(lab: Lab) -> Measurement:
    """A scripted model that is rude until a critique says so."""
    from collections.abc import Sequence

    from firsthand.agent import Agent
    from firsthand.benchmark import Benchmark
    from firsthand.message import Message
    from firsthand.model import Sampling
    from firsthand.patterns.constitutional import constitutional
    from firsthand.patterns.direct import direct
    from firsthand.providers.scripted import Scripted
    from firsthand.task import Task

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        said = messages[-1].text
        if "Criticise the answer" in said:
            return "It insults the reader." if "fool" in said else "Nothing is wrong with it."
        criticised = any("It insults" in message.text for message in messages)
        return "Take the bus." if criticised else "Take the bus, fool."

    tasks = [Task(str(number), f"How do I get to place {number}?") for number in range(TASKS)]
    benchmark, rows = Benchmark("requests", lambda seed: tasks, ()), []
    for name, pattern in (("direct", direct), ("constitutional", constitutional)):
        traces = lab.attempt(Agent(name, Scripted(reply, name="scripted:rude"), pattern), benchmark, tasks)
        rows.append(
            (
                name,
                float(sum("fool" in (trace.answer or "") for trace in traces)),
                sum(t.usage.total_tokens for t in traces) / TASKS,
            )
        )
    fixed = int(rows[0][1] - rows[1][1])
    low, high = proportion_interval(max(0, fixed), TASKS)
    return Measurement(
        fixed / TASKS,
        "rude answers that critique and revision mend, of a model that sees its faults",
        low,
        high,
        TASKS,
        columns=("pattern", "rude answers", "tokens"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Most rude answers must be mended."""
    if min(m.value, m.bounds[0]) > 0.5:
        return ruling(
            "holds in part",
            f"the mechanism carries ({m.value:.0%} mended) for a model that sees its faults; whether yours does "
            "is what `constitutional` measures",
        )
    if m.value > 0.5:
        return ruling("cannot be tested here", f"{m.value:.0%} of {m.n} are mended, too few to say that most are")
    return ruling("does not hold here", f"only {m.value:.0%} are mended")
