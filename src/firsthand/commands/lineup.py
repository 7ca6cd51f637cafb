"""Who attempts what: the models, tools and agents that a run's settings name, and every attempt they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.commands.models import fetch
from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.loop.approval import Approval, check_rules, parse_rules
from firsthand.loop.budget import Limits
from firsthand.model import Model, Sampling
from firsthand.rollout import Place
from firsthand.tool import Effect, Tool

if TYPE_CHECKING:
    from firsthand.commands.run import Config


def make_agents(config: Config, models: Sequence[Model] | None = None) -> list[Agent]:
    """An agent for each model and pattern, named after the pattern, and after the model too if there are several.

    The models, unless they are open already, come last, for one may have to be fetched first.
    """
    sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature)
    limits = Limits(
        tokens=config.budget_tokens,
        calls=config.budget_calls,
        seconds=config.budget_seconds,
        cost_usd=config.budget_usd,
    )
    tools, approval = open_tools(config), Approval(parse_rules(config.approve))
    if config.replay:
        from firsthand.commands.recorded import as_recorded

        tools = tuple(as_recorded(tool, config.replay) for tool in tools)
        approval = Approval(dict.fromkeys(get_args(Effect), "allow"))  # nothing is run, so nobody is asked
    patterns = {text: catalog.pattern(text) for text in config.pattern}
    guard = catalog.guards(config.guard)
    models = open_models(config) if models is None else models
    return [
        Agent(
            text if len(models) == 1 else f"{text}@{model.name}",
            model,
            pattern,
            options,
            tools,
            sampling,
            config.system,
            guard or None,
            limits=limits,
            approval=approval,
            memory=None if config.memory is None else catalog.memory(config.memory),
        )
        for model in models
        for text, (pattern, options) in patterns.items()
    ]


def open_models(config: Config) -> list[Model]:
    """The models by name, answering from the store where the config says replay."""
    if config.replay is not None:
        from firsthand.commands.recorded import recorded_models

        return recorded_models(config.replay, config.model)
    for name in config.model:
        if name in model_lookup.KNOWN or name.startswith("hf:"):
            fetch(name, shown=not config.json)
    return [catalog.model(name, device=config.device) for name in config.model]


def open_tools(config: Config) -> tuple[Tool, ...]:
    """The tools by name; two of one name, or a rule for a tool there is not, are ConfigErrors."""
    tools = tuple(tool for text in config.tools for tool in catalog.tools(text))
    names = [tool.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"tools is {','.join(config.tools)}, which gives two tools named {name!r}: leave one out")
    check_rules(parse_rules(config.approve), tools)
    return tools


def may_ask(places: Sequence[Place]) -> bool:
    """Whether a person may be asked in the middle of the run."""
    agents = {place.agent.name: place.agent for place in places}.values()
    unknown = any(
        len(agent.own_tools) < len(agent.tools) for agent in agents
    )  # what sources offer shows when they open
    return unknown or any(agent.approval.verdict(tool) == "ask" for agent in agents for tool in agent.own_tools)


def make_places(config: Config, agents: Sequence[Agent], benchmarks: Sequence[Benchmark]) -> list[Place]:
    """Every attempt of the run, task by task, so that an interrupted run can be compared as far as it went."""
    return [
        Place(agent, benchmark, task, epoch)
        for benchmark in benchmarks
        for epoch in range(config.epochs)
        for task in benchmark.tasks(config.seed)[: config.limit]
        for agent in agents
    ]
