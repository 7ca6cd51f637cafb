"""Reads an agent from a TOML file: model, pattern, tools, memory, guards, approvals, sampling and limits, by their names.

name = "clerk"
description = "Looks up orders and refunds them."
model = "smollm2"
pattern = "react"
tools = ["calculator", "sql:shop.db"]
approve = ["external=ask"]
budget-tokens = 8000
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.config import build, read_toml
from firsthand.errors import ConfigError
from firsthand.experiment.named_agents import open_tools
from firsthand.loop.approval import Approval, parse_rules
from firsthand.loop.budget import Limits
from firsthand.model import Sampling


@dataclass(frozen=True)
class AgentFile:
    """An agent by the names of its parts."""

    model: str
    """The model: a name, a path, or another provider's."""
    name: str = "agent"
    """The name that clients see."""
    description: str = ""
    """One sentence on the purpose of the agent, for clients and for other agents."""
    pattern: str = "react"
    """The pattern that answers, with options: react:max_steps=4."""
    tools: tuple[str, ...] = ()
    """Tools by name: calculator, files:notes, sql:shop.db, mcp:servers.toml."""
    system: str | None = None
    """A system message that opens every conversation."""
    guard: tuple[str, ...] = ()
    """Guards by name, in the order in which they are asked."""
    memory: str | None = None
    """A memory that the turns of a client share: notes:lifetime=agent."""
    approve: tuple[str, ...] = ()
    """Rules for tool calls: external=ask,shell=deny. What is asked waits for an answer over the wire."""
    max_tokens: int = 1024
    """Most new tokens of one generation."""
    temperature: float = 0.0
    """The sampling temperature."""
    budget_tokens: int | None = None
    """Most tokens of one turn."""
    budget_calls: int | None = None
    """Most generations and tool calls of one turn."""
    budget_seconds: float | None = None
    """Most seconds of one turn; waiting for an answer does not count."""
    budget_usd: float | None = None
    """Most money of one turn."""
    device: str = "cpu"
    """The device of a model that runs here."""
    skill: tuple[str, ...] = ()
    """Examples of requests, which an A2A card lists."""
    shared_memory: bool = False
    """Have all clients share one memory; by default each client with a key has its own."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w. -]{1,64}", self.name):
            raise ConfigError(f"name is {self.name!r:.80}: give 1 to 64 letters, digits, blanks, dots and dashes")


def read_agent_file(path: Path) -> AgentFile:
    """The agent's parts by name; ConfigError if the file is missing, is not TOML, or has a setting that is not known."""
    values = read_toml(AgentFile, path)
    if "model" not in values:
        raise ConfigError(f'{str(path)!r} names no model: write model = "smollm2"')
    return build(AgentFile, values, source=str(path))


def open_agent(file: AgentFile) -> Agent:
    """The agent; nothing is loaded yet, and no MCP server among its tools is started."""
    tools, rules = open_tools(file.tools, file.approve), parse_rules(file.approve)
    pattern, options = catalog.pattern(file.pattern)
    return Agent(
        file.name,
        catalog.model(file.model, device=file.device),
        pattern,
        options,
        tools,
        Sampling(max_tokens=file.max_tokens, temperature=file.temperature),
        file.system,
        catalog.guards(file.guard) or None,
        approval=Approval(rules),
        limits=Limits(file.budget_tokens, file.budget_calls, file.budget_seconds, file.budget_usd),
        memory=None if file.memory is None else catalog.memory(file.memory),
    )
