"""Patterns that a model of 135M parameters can follow in form."""

from __future__ import annotations

from collections.abc import Callable

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.trace import Trace

CLAIM = Claim(
    quote="Min Model: ReAct 4B+, CoT 7B+, Reflexion 7B+, Orchestrator 13B+, ToT 14B+",
    source="the list's table of patterns",
    kind="small",
    cost_s=30,
    needs=("model smollm2",),
)
TASKS, TOKENS = 8, 192
OPTIONS: dict[str, dict[str, object]] = {
    "react": {"max_steps": 2},
    "cot": {},
    "reflexion": {"trials": 2},
    "orchestrate": {"workers": 2},
    "tot": {"breadth": 1, "samples": 1, "judgements": 1, "generate": "sample"},
}


def measure(lab: Lab) -> Measurement:
    """SmolLM2 at eight sums under each of the five patterns: the share of its replies that have the form asked for.

    Replies have up to 192 tokens. The forms: an action that runs a tool (ReAct), `The answer is` (CoT), a verdict as the
    last word (Reflexion and ToT), a list of two or more parts (Orchestrator). Accuracy is not looked at.
    """
    from firsthand import catalog
    from firsthand.agent import Agent
    from firsthand.model import Sampling
    from firsthand.stats.intervals import proportion_interval
    from firsthand.tools.calculator import calculator

    model, benchmark, rows = lab.model("smollm2"), catalog.benchmark("arithmetic"), []
    for name, check in _checks().items():
        sampling = Sampling(temperature=0.0, max_tokens=TOKENS)
        agent = Agent(name, model, catalog.find("pattern", name), OPTIONS[name], (calculator,), sampling=sampling)
        formed = [each for trace in lab.attempt(agent, benchmark, TASKS) for each in check(trace)]
        interval = proportion_interval(sum(formed), max(1, len(formed)))
        rows.append((name, sum(formed) / max(1, len(formed)), *interval, float(len(formed))))
    kept = sum(row[1] >= 0.5 for row in rows)
    return Measurement(
        kept,
        "of the five patterns with a smallest model, those whose form SmolLM2 135M keeps in half of the replies or more",
        n=TASKS,
        columns=("pattern", "replies in form", "low", "high", "replies"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Holds if a model far below the sizes keeps the form of none; does not if it keeps that of all five."""
    formed = ", ".join(f"{row[0]} {row[1]:.0%}" for row in m.rows)
    told = (
        f"SmolLM2 135M keeps the form of {m.value:.0f} of 5 patterns ({formed}); to follow one is not yet to gain by it"
    )
    if m.value == 0:
        return ruling("holds here", told)
    return ruling("does not hold here" if m.value == 5 else "holds in part", told)


def _checks() -> dict[str, Callable[[Trace], list[bool]]]:
    from firsthand.patterns.parts.list_items import listed
    from firsthand.patterns.parts.thoughts import LABELS, last_word

    def replies(trace: Trace, asked: str) -> list[str]:
        """Replies to the prompts that have these words."""
        return [
            trace.nodes[node].message.text
            for call in trace.calls
            if call.kind == "generate" and call.at is not None and asked in trace.nodes[call.at].message.text
            for node in call.nodes
        ]

    def acts(trace: Trace) -> list[bool]:
        return [any(call.kind == "tool" and call.error is None for call in trace.calls)]

    verdicts = ("right", "wrong", "correct", "incorrect")
    return {
        "react": acts,
        "cot": lambda trace: ["answer is" in text.lower() for text in replies(trace, "step by step")],
        "reflexion": lambda trace: [
            last_word(text) in verdicts for text in replies(trace, "Check the answer step by step")
        ],
        "orchestrate": lambda trace: [len(listed(text, 2)) == 2 for text in replies(trace, "numbered list")],
        "tot": lambda trace: [last_word(text) in LABELS for text in replies(trace, "Judgement:")],
    }
