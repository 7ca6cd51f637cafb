"""Makes a stored attempt again from the replies that its run recorded: no model is asked, and nothing outside is called.

Each call gets the reply of its own place in the attempt, so a replay parts from its original where a pattern, a tool or a
scorer has changed since, or where one of them is not deterministic.
"""

from __future__ import annotations

from dataclasses import replace

from firsthand.errors import ConfigError
from firsthand.experiment.foreign_settings import expect_installed
from firsthand.experiment.forked_agents import base_settings, find_benchmark, forked_agent, forked_settings
from firsthand.experiment.recorded import with_recorded_judges
from firsthand.rollout import Place
from firsthand.runs.run_folder import Run
from firsthand.trace import Trace


def replay_of(run: Run, parent: Trace) -> Place:
    """The attempt to make; ConfigError where the run does not hold what it takes."""
    task = run.task(parent.benchmark, parent.task_id)
    if task is None:
        raise ConfigError(f"run {run.id} does not hold the task of this attempt, so it cannot be replayed")
    settings = base_settings(run)
    expect_installed(
        {"benchmark": settings.benchmarks, "pattern": settings.pattern, "tool": settings.tools, "guard": settings.guard}
    )
    if settings.memory:
        raise ConfigError("the attempt had a memory, which a replay would write to: run it again in a terminal")
    recorded = str(run.path)
    own = replace(forked_settings(settings, parent, model=str(parent.agent.get("model", ""))), replay=recorded)
    agent = replace(forked_agent(own, parent), name=parent.agent_name)
    return Place(agent, with_recorded_judges(find_benchmark(own, parent), recorded), task, parent.epoch)
