"""Skills as memory."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Procedural memory: Learned skills, tool schemas, few-shot examples",
    source="the list's memory kinds",
    kind="sim",
    cost_s=1,
)
CODES = ("mill", "harbour", "bakery", "chapel", "orchard", "station")
"""Kinds of tasks; the code of a number is the number plus an offset of the kind."""
PRACTICE, ASKED = 8, 5
"""Tasks of a kind that are attempted first, and new ones."""


def measure(lab: Lab) -> Measurement:
    """A scripted model that guesses until it is shown a worked example, and then does as the first one of its kind."""
    import re
    from collections.abc import Sequence
    from random import Random

    from firsthand.agent import Agent
    from firsthand.benchmark import Benchmark
    from firsthand.loop.concurrency import run_sync
    from firsthand.memories.procedural import procedural
    from firsthand.message import Message
    from firsthand.model import Sampling
    from firsthand.patterns.direct import direct
    from firsthand.providers.scripted import Scripted
    from firsthand.scorers.match import numeric
    from firsthand.task import Task
    from firsthand.trace import Trace

    offsets = {code: Random(f"{lab.seed}-{code}").randrange(1, 5) for code in CODES}

    def asks(code: str, number: int) -> Task:
        prompt = f"What is the {code} code of {number}?"
        return Task(f"{code}-{number}", prompt, hint="a number", secret={"answer": str(number + offsets[code])})

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        said = "\n".join(message.text for message in messages)
        code, number = re.findall(r"What is the (\w+) code of (\d+)\?", said)[-1]
        shown = re.findall(rf"What is the {code} code of (\d+)\?(?:(?!What is)[\s\S])*?Answer: \D*(\d+)", said)
        guess = Random(f"{lab.seed}-{code}-{number}").randrange(1, 5)
        return str(int(number) + (int(shown[0][1]) - int(shown[0][0]) if shown else guess))

    def tried(tasks: list[Task], memory: object = None) -> list[Trace]:
        benchmark = Benchmark("codes", lambda seed: tasks, (numeric,))
        return lab.attempt(Agent("a", Scripted(reply), direct, memory=memory), benchmark, tasks)  # type: ignore[arg-type]

    practised = tried([asks(code, 10 + n) for code in CODES for n in range(PRACTICE)])
    memory = procedural(lifetime="attempt")

    async def learns() -> int:
        for trace in practised:
            for item in memory.learn(trace):
                await memory.write(item)
        return len(await memory.list())

    skills = run_sync(learns())
    new = [asks(code, 60 + n) for code in CODES for n in range(ASKED)]
    without, with_it = ([trace.value() or 0.0 for trace in tried(new, each)] for each in (None, memory))
    gain = paired(with_it, without)
    return Measurement(
        gain.difference,
        "accuracy at new tasks with the skills of attempts that succeeded, less that without",
        gain.low,
        gain.high,
        len(new),
        columns=("attempts", "tasks", "accuracy", "skills shown from"),
        rows=(
            ("practice", float(len(practised)), sum(t.value() or 0.0 for t in practised) / len(practised), 0.0),
            ("new tasks, no memory", float(len(new)), sum(without) / len(new), 0.0),
            ("new tasks, procedural", float(len(new)), sum(with_it) / len(new), float(skills)),
        ),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: above 0.3 at the lower end the mechanism carries; a scripted model shows no more than that."""
    told = f"{m.value:+.0%} at new tasks for a model that follows worked examples"
    if m.bounds[0] > 0.3:
        return ruling(
            "holds in part",
            f"the mechanism carries, {told}: skills and few-shot examples are kept; tool schemas are no memory here but "
            "a part of the request",
        )
    return ruling("does not hold here", told)
