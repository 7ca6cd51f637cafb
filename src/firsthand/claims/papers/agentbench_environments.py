"""Environments of AgentBench."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote=(
        "Across 8 environments: web shopping, household tasks, digital card games, lateral thinking puzzles, "
        "databases, operating systems, web browsing, and knowledge graphs."
    ),
    source="Liu et al. 2023, arXiv:2308.03688",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Benchmarks of the suite in the catalog."""
    from firsthand import catalog

    names = sorted(name for name in catalog.names("benchmark") if name.startswith("agentbench_"))
    return Measurement(
        len(names), "environments of AgentBench that run here", columns=("benchmark",), rows=tuple((n,) for n in names)
    )


def judge(m: Measurement) -> Verdict:
    """Exactly eight."""
    if m.value == 8:
        return ruling("holds here", "all 8 have a benchmark of their own here, played without Docker or the network")
    return ruling("does not hold here", f"there are {m.value:.0f}")
