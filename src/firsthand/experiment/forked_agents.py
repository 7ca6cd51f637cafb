"""Settings, agent and benchmark of a fork, from the run that holds its parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.experiment.named_agents import make_agents
from firsthand.experiment.settings import RunSettings, settings_from_json, stored_settings
from firsthand.model import Model
from firsthand.runs.run_folder import Run
from firsthand.trace import Trace

CHANGES = (
    "tools",
    "system",
    "temperature",
    "max_tokens",
    "budget_tokens",
    "budget_calls",
    "budget_seconds",
    "budget_usd",
)
"""Settings that a fork may change besides pattern and model."""


def base_settings(run: Run) -> RunSettings:
    """The settings of the parent's run, which may be a fork itself."""
    config = run.config
    if "fork" in config:
        return settings_from_json(config["settings"])
    if "benchmarks" not in config or "agents" in config:
        raise ConfigError(
            f"{run.id} was not made by `firsthand run`, so its agents are not known here: use firsthand.runs.forking"
        )
    return stored_settings(run)


def forked_settings(
    settings: RunSettings,
    parent: Trace,
    *,
    pattern: str | None = None,
    model: str | None = None,
    say: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> RunSettings:
    """The parent's settings, narrowed to its agent, with the fork's changes; a change that is None changes nothing."""
    own = next(
        (text for text in settings.pattern if parent.agent_name == text or parent.agent_name.startswith(f"{text}@")),
        None,
    )
    if own is None:
        raise ConfigError(f"the run's settings name no pattern for the agent {parent.agent_name!r}: give --pattern")
    if pattern is not None or say is not None:
        own = pattern or "reply"
    models = settings.model
    chosen = model or next((each for each in models if each == parent.agent["model"]), models[0])
    given = {name: value for name, value in (changes or {}).items() if value is not None}
    benchmarks = tuple(text for text in settings.benchmarks if catalog.benchmark(text).name == parent.benchmark)
    return replace(
        settings, benchmarks=benchmarks or settings.benchmarks, pattern=(own,), model=(chosen,), replay=None,
        equal_budget=None, limit=None, epochs=1, **given,
    )  # fmt: skip


def forked_agent(settings: RunSettings, parent: Trace, models: Sequence[Model] | None = None) -> Agent:
    """The agent of these settings; it keeps the parent's name if pattern and model are the same."""
    (agent,) = make_agents(settings, models)
    if agent.name == parent.agent_name or parent.agent_name == f"{agent.name}@{agent.model.name}":
        return replace(agent, name=parent.agent_name)
    return agent


def find_benchmark(settings: RunSettings, parent: Trace) -> Benchmark:
    """The parent's benchmark, for its scorers and its environment."""
    found = [catalog.benchmark(text) for text in settings.benchmarks]
    for benchmark in found:
        if benchmark.name == parent.benchmark:
            return benchmark
    raise ConfigError(
        f"the attempt is of the benchmark {parent.benchmark!r}, and its run names {', '.join(settings.benchmarks)}: "
        "without its scorers a fork cannot be scored"
    )
