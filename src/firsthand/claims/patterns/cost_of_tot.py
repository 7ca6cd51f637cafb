"""Token cost of Tree of Thoughts."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_costs import cost_verdict

CLAIM = Claim(
    quote="Tree of Thoughts (ToT): Generate branches → Score → Expand best. 14B+. Token cost: High",
    source="Yao et al. 2023, arXiv:2305.10601",
    kind="sim",
    cost_s=2,
)
PUZZLES = 4


def measure(lab: Lab) -> Measurement:
    """A simulated model at the game of 24, by tree search and at once."""
    from firsthand.agent import Agent
    from firsthand.benchmarks.game24 import game24
    from firsthand.patterns.direct import direct
    from firsthand.patterns.tot import tot
    from firsthand.providers.sim import Sim

    benchmark, rows = game24(data="generated"), []
    for name, pattern in (("direct", direct), ("tot", tot)):
        traces = lab.attempt(Agent(name, Sim(seed=lab.seed), pattern, {}), benchmark, PUZZLES)
        tokens = sum(trace.usage.total_tokens for trace in traces) / PUZZLES
        calls = sum(len(trace.calls) for trace in traces) / PUZZLES
        rows.append((name, tokens, calls))
    return Measurement(
        rows[1][1] / rows[0][1],
        "tokens of `tot` over those of one plain answer, on the game of 24",
        n=PUZZLES,
        columns=("pattern", "tokens", "calls"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """The list's word against the measured level."""
    return cost_verdict(m.value, "High")
