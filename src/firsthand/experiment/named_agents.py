"""Makes the agents of an experiment from names: models x patterns, with tools, approvals, sampling and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.experiment.recorded import as_recorded, recorded_models
from firsthand.experiment.settings import RunSettings
from firsthand.hub.fetch_model import fetch_named
from firsthand.loop.approval import Approval, check_rules, parse_rules
from firsthand.loop.budget import Limits
from firsthand.model import Model, Sampling
from firsthand.tool import Effect, Tool
from firsthand.tool_source import ToolLike, source_name


def make_agents(
    settings: RunSettings, models: Sequence[Model] | None = None, *, show_progress: bool = False
) -> list[Agent]:
    """An agent for each model and pattern, named after the pattern, and after the model too if there are several.

    Models, unless they are open already, are opened last, because one may have to be fetched first.
    """
    sampling = Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature)
    limits = Limits(
        tokens=settings.budget_tokens,
        calls=settings.budget_calls,
        seconds=settings.budget_seconds,
        cost_usd=settings.budget_usd,
    )
    tools, approval = open_tools(settings.tools, settings.approve), Approval(parse_rules(settings.approve))
    if settings.replay:
        _expect_replayable(tools)
        tools = tuple(as_recorded(tool, settings.replay) for tool in tools if isinstance(tool, Tool))
        approval = ALLOW_ALL
    patterns = {text: catalog.pattern(text) for text in settings.pattern}
    guard = catalog.guards(settings.guard)
    models = open_models(settings, show_progress=show_progress) if models is None else models
    return [
        Agent(
            text if len(models) == 1 else f"{text}@{model.name}",
            model,
            pattern,
            options,
            tools,
            sampling,
            settings.system,
            guard or None,
            limits=limits,
            approval=approval,
            memory=None if settings.memory is None else catalog.memory(settings.memory),
        )
        for model in models
        for text, (pattern, options) in patterns.items()
    ]


ALLOW_ALL = Approval(dict.fromkeys(get_args(Effect), "allow"))
"""For replays: nothing is run, so nobody is asked."""


def open_models(settings: RunSettings, *, show_progress: bool = False) -> list[Model]:
    """The models by name; for a replay, models that answer from the recorded run."""
    if settings.replay is not None:
        return recorded_models(settings.replay, settings.model)
    for name in settings.model:
        fetch_named(name, shown=show_progress)
    return [catalog.model(name, device=settings.device, weights=settings.weights) for name in settings.model]


def open_tools(texts: Sequence[str], approve: Sequence[str] = ()) -> tuple[ToolLike, ...]:
    """The tools and sources by name, nothing for `none`; ConfigError for two of one name, or an approval rule that names no
    tool and no effect.

    The tools of a source are known when it opens: a rule for one, such as `time__now=ask`, begins with the source's name.
    """
    named = () if tuple(texts) == ("none",) else texts
    tools = tuple(tool for text in named for tool in catalog.tools_and_sources(text))
    names = [source_name(tool) for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"tools is {','.join(texts)}, which gives two tools named {name!r}: leave one out")
    sources = [source_name(tool).removeprefix("mcp:") for tool in tools if not isinstance(tool, Tool)]
    rules = {
        name: rule
        for name, rule in parse_rules(approve).items()
        if not any(name.startswith(f"{source}__") for source in sources)
    }
    check_rules(rules, [tool for tool in tools if isinstance(tool, Tool)])
    return tools


def _expect_replayable(tools: Sequence[ToolLike]) -> None:
    """ConfigError for a source: a replay opens nothing, so what it would offer is unknown."""
    for tool in tools:
        if not isinstance(tool, Tool):
            raise ConfigError(
                f"a replay opens nothing, and {source_name(tool)} is opened for each attempt: leave it out"
            )


def may_ask(agents: Sequence[Agent]) -> bool:
    """True if a person may be asked to approve a tool call during the run; the tools of a source show when it opens."""
    unknown = any(len(agent.own_tools) < len(agent.tools) for agent in agents)
    return unknown or any(agent.approval.verdict(tool) == "ask" for agent in agents for tool in agent.own_tools)
