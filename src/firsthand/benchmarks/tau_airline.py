"""tau-bench's airline domain: flights are booked, changed and cancelled under the airline's policy."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.tau_bench import tau_benchmark
from firsthand.worlds.world import Actions


def tau_airline(*, data: str = "", user: str = "script", rounds: int = 30, actions: Actions = "text") -> Benchmark:
    """Return the benchmark: 50 tasks. The customer is played by rules, or by a model: `user=NAME` of a model."""
    return tau_benchmark("airline", data, "test", user, rounds, actions)
