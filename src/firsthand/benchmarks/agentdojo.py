"""AgentDojo: 97 tasks with tools in mail, travel, banking and chat, and 629 attacks through what the tools return."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.bridges.agentdojo.dojo_benchmark import dojo_benchmark


def agentdojo(
    *, suite: str = "all", attack: str = "important_instructions", version: str = "v1.1.2", plan: bool = False
) -> Benchmark:
    """AgentDojo (Debenedetti et al., 2024) by its own package: `attack=none` gives the benign tasks.

    `suite` is workspace, travel, banking, slack or all; with `plan`, each task names the tools of its ground truth, which
    `--guard policy` takes for the plan.
    """
    return dojo_benchmark(suite, attack, version, plan)
