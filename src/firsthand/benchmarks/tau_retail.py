"""tau-bench's retail domain: orders are cancelled, changed, returned and exchanged under the shop's policy."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.tau_bench import tau_benchmark
from firsthand.worlds.world import Actions


def tau_retail(
    *, data: str = "", split: str = "test", user: str = "script", rounds: int = 30, actions: Actions = "text"
) -> Benchmark:
    """Return the benchmark: 115 tasks of the `test` split, or 20 of `dev`.

    The customer is played by rules, or by a model: `user=NAME` of a model.
    """
    return tau_benchmark("retail", data, split, user, rounds, actions)
