"""Show what a guarded agent stops: its threat model, or the table of guards against AgentDojo's gullible agent."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from firsthand.errors import ConfigError
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand safety explain clerk.toml           # which attacks are stopped, which are statistical, which are not
firsthand safety table                        # needs firsthand[agentdojo]; some seconds for a row
firsthand safety table --suite slack --rules plan_lock,authority_from_trusted --human
firsthand safety table --attack adaptive
"""


@dataclass(frozen=True)
class Config:
    """The agent to explain, or the rows of the table."""

    action: Literal["explain", "table"] = field(default="explain", metadata={"positional": True})
    """explain an agent's TOML file, or print the table of guards."""
    agent: Path | None = field(default=None, metadata={"positional": True})
    """The agent's file, as `firsthand serve --agent` takes it."""
    suite: str = "all"
    """The suite of AgentDojo: workspace, travel, banking, slack or all."""
    attack: str = "important_instructions"
    """The attack: important_instructions, direct or adaptive."""
    rules: tuple[str, ...] = ()
    """A row of your own: the rules of the guard. None prints all rows."""
    human: bool = False
    """Have a perfect human answer the questions, who says yes to what the user's task needs; otherwise nobody answers."""
    json: bool = False
    """Print JSON for programs."""


def main(config: Config) -> int:
    """Print the threat model or the table."""
    if config.action == "table":
        if config.agent is not None:
            raise ConfigError("safety table takes no agent: the gullible agent is the one that is attacked")
        return _table(config)
    if config.agent is None:
        raise ConfigError("name the agent's file: firsthand safety explain AGENT.toml")
    return _explain(config, config.agent)


def _explain(config: Config, path: Path) -> int:
    from firsthand.safety.rules.threat_model import threat_model
    from firsthand.serve.agents.agent_file import open_agent, read_agent_file

    agent = open_agent(read_agent_file(path))
    threats = threat_model(agent)
    if config.json:
        print_as_json([asdict(each) for each in threats])
        return 0
    out = console()
    for standing in dict.fromkeys(each.standing for each in threats):
        out.print(f"{standing}:", markup=False)
        for each in (each for each in threats if each.standing == standing):
            left = f" (not covered: {', '.join(each.open_tools)})" if each.open_tools else ""
            out.print(f"  - {each.attack}\n      {each.because}{left}", soft_wrap=True, markup=False)
    if agent.sources:
        out.print("Tools of MCP servers are known when a server is opened, and are not counted here.", markup=False)
    return 0


def _table(config: Config) -> int:
    from firsthand.bridges.agentdojo.dojo_table import ROWS, GuardTally, measured
    from firsthand.safety.rules.policies import policies_named

    policies_named(config.rules)
    wanted = {"+".join(config.rules): config.rules} if config.rules else ROWS
    rows: dict[str, tuple[GuardTally, GuardTally]] = {}
    for name, rules in wanted.items():
        benign = asyncio.run(measured(rules, "none", suite=config.suite, human=config.human))
        rows[name] = benign, asyncio.run(measured(rules, config.attack, suite=config.suite, human=config.human))
    if config.json:
        print_as_json({name: {"benign": asdict(b), "attacked": asdict(a)} for name, (b, a) in rows.items()})
        return 0
    print_table(
        f"AgentDojo {config.suite}, {config.attack}, gullible agent",
        ["guard", "benign", "asks", "utility under attack", "attack success", "CPU s"],
        [
            [
                name,
                f"{benign.solved}/{benign.tasks}",
                f"{benign.asked} in {benign.asked_in}",
                f"{attacked.solved / max(attacked.tasks, 1):.1%}",
                f"{attacked.reached}/{attacked.tasks} = {attacked.reached / max(attacked.tasks, 1):.1%}",
                f"{attacked.cpu_s:.1f}",
            ]
            for name, (benign, attacked) in rows.items()
        ],
        right=("benign", "asks", "utility under attack", "attack success", "CPU s"),
    )
    return 0
