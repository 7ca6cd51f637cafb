"""Tree of Thoughts on the game of 24."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote=(
        "Significantly improves performance on tasks where linear reasoning fails (game of 24, creative writing, "
        "miniCrossword)."
    ),
    source="Yao et al. 2023, arXiv:2305.10601, table 2",
    kind="sim",
    cost_s=3,
)
PUZZLES = 40


def measure(lab: Lab) -> Measurement:
    """A simulated model that errs at the rates of GPT-4 in the authors' log."""
    from firsthand.agent import Agent, Pattern
    from firsthand.benchmarks.game24 import game24
    from firsthand.patterns.cot import cot
    from firsthand.patterns.tot import tot
    from firsthand.providers.sim import Sim

    benchmark = game24(data="generated")
    arms: tuple[tuple[str, Pattern, dict[str, int]], ...] = (
        ("cot", cot, {}),
        ("tot, 1 state kept", tot, {"breadth": 1}),
        ("tot, 5 states kept", tot, {"breadth": 5}),
    )
    values, rows = [], []
    for name, pattern, options in arms:
        traces = lab.attempt(Agent(name, Sim(seed=lab.seed), pattern, options), benchmark, PUZZLES)
        values.append([trace.value() or 0.0 for trace in traces])
        tokens = sum(trace.usage.completion_tokens for trace in traces) / len(traces)
        rows.append((name, sum(values[-1]) / PUZZLES, tokens))
    gain = paired(values[2], values[0])
    return Measurement(
        gain.difference,
        "share of puzzles solved by tree search less that by a chain",
        gain.low,
        gain.high,
        PUZZLES,
        columns=("pattern", "solved", "tokens written"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """The whole interval above zero."""
    if m.bounds[0] > 0:
        return ruling(
            "holds here",
            f"a model with GPT-4's error rates solves {m.value:+.0%} with tree search; it costs many times the tokens",
        )
    if m.value > 0:
        return ruling("holds in part", f"{m.value:+.0%}, within the interval of no difference")
    return ruling("does not hold here", f"tree search solves {m.value:+.0%}")
