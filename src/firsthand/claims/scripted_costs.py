"""Calls and tokens of a pattern under a scripted model, which writes short answers and longer thoughts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.claims.claim import Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.loop.concurrency import run_sync
from firsthand.loop.critical_path import critical_calls
from firsthand.message import Message
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tools.calculator import calculator
from firsthand.trace import Trace

TASK = Task("1", "A shop sells 3 boxes of 4 pens, and 2 boxes of 5 pens. How many pens is that?", hint="a number")
THOUGHT = "Three boxes of four pens are twelve pens, and two boxes of five pens are ten more. " * 2
LOW, MEDIUM = 4.0, 20.0
"""Times the tokens of one plain answer: `Low` is up to 4, `Medium` up to 20, `High` above."""
LEVELS = ("Low", "Medium", "High")


def pattern_cost(lab: Lab, pattern: str, options: Mapping[str, Any] | None = None) -> Measurement:
    """Tokens of the pattern on one task over those of `direct`, with calls and the longest chain of calls."""
    rows = []
    for name, own in (("direct", {}), (pattern, options or {})):
        trace = _attempt(name, dict(own), lab.seed)
        waiting = critical_calls(trace)
        rows.append((name, float(trace.usage.total_tokens), float(len(_generated(trace))), float(waiting)))
    return Measurement(
        rows[1][1] / rows[0][1],
        f"tokens of `{pattern}` over those of one plain answer",
        columns=("pattern", "tokens", "calls", "calls in a row"),
        rows=tuple(rows),
    )


def level(ratio: float) -> str:
    """The list's word for a cost."""
    return LEVELS[0] if ratio <= LOW else LEVELS[1] if ratio <= MEDIUM else LEVELS[2]


def cost_verdict(ratio: float, said: str) -> Verdict:
    """The list's word against the level of a ratio; a neighbouring level holds in part."""
    found = level(ratio)
    times = f"{ratio:.1f} times the tokens of a plain answer"
    if found == said:
        return ruling("holds here", f"{found.lower()} by structure: {times}")
    near = abs(LEVELS.index(found) - LEVELS.index(said)) == 1
    return ruling(
        "holds in part" if near else "does not hold here", f"{found.lower()} rather than {said.lower()}: {times}"
    )


def _attempt(pattern: str, options: dict[str, Any], seed: int) -> Trace:
    model = Scripted(_reply, name="scripted:writer", score=lambda prompt, text: -1.0)
    agent = Agent(pattern, model, catalog.find("pattern", pattern), options, (calculator,))
    return run_sync(rollout(agent, TASK, seed=seed))


def _generated(trace: Trace) -> list[Any]:
    return [call for call in trace.calls if call.kind == "generate"]


def _reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
    """Replies of a willing model to the prompts of the patterns of the list's table."""
    said = messages[-1].text
    if "numbered list" in said:
        return "1. Count the first boxes\n2. Count the other boxes\n3. Add them"
    if "Action" in messages[0].text and "Observation" not in said:
        return f"Thought: {THOUGHT}\nAction: calculator[3*4 + 2*5]"
    if "Observation" in said:
        return "Thought: I know it.\nFinal Answer: 22"
    if "right or wrong" in said:
        return f"{THOUGHT} The answer is right."
    if "step by step" in said:
        return f"{THOUGHT} The answer is 22"
    if "sure" in said.lower() and "impossible" in said.lower():
        return "sure"
    return "The answer is 22"
