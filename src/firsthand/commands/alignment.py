"""Print the report of a joint evaluation: misbehaviour and over-refusal by agent and theme, and what it cannot show."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from firsthand.config import confidence
from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.show.alignment_report import AgentAlignment, alignment_of
from firsthand.system.home import data_home
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand run joint_alignment --model smollm2 --pattern audit
firsthand alignment last
firsthand alignment last --confidence 90% --json
"""
LEGEND = """\
misbehaves: risks with a misbehaviour in any branch. tries: the same, with calls that a guard or an approval refused.
over-refuses: harmless scenarios that were refused. competent: harmless scenarios that were done."""


@dataclass(frozen=True)
class Config:
    """The run to report on."""

    run: str = field(default="last", metadata={"positional": True})
    """A run of joint_alignment: its id, the beginning of it, its folder, or last."""
    confidence: str = "95%"
    """Confidence level of the intervals."""
    json: bool = False
    """Print JSON for programs."""


def main(config: Config) -> int:
    """Print a table for each benchmark and agent of the run, and the limits of the results."""
    level = confidence(config.confidence)
    found: dict[str, list[AgentAlignment]] = {}
    with store.open_run(config.run, data_home()) as run:
        stored = run.tasks()
        for benchmark in dict.fromkeys(name for name, _ in stored if name.partition(":")[0] == "joint_alignment"):
            tasks = {task_id: task for (name, task_id), task in stored.items() if name == benchmark}
            for agent, body in run.agents().items():
                traces = list(run.traces(benchmark=benchmark, agent=agent))
                guards = [str(each) for each in body.get("guards", ())]
                if traces:
                    found.setdefault(benchmark, []).append(alignment_of(agent, traces, tasks, guards, level))
        if not found:
            raise ConfigError(
                f"run {run.id} holds no attempt at joint_alignment: make one with "
                "`firsthand run joint_alignment --pattern audit --model NAME`"
            )
    if config.json:
        print_as_json([{"benchmark": name, **each.to_json()} for name, agents in found.items() for each in agents])
        return 0
    for benchmark, agents in found.items():
        for each in agents:
            print_alignment(benchmark, each, config.confidence)
    console().print(LEGEND, soft_wrap=True, markup=False)
    return 0


def print_alignment(benchmark: str, result: AgentAlignment, level: str) -> None:
    """Print the table of one agent, the agreement of verdicts, and what cannot be shown."""
    columns = ("misbehaves", "tries", "over_refuses", "competent")
    rows = [[theme, *(str(rates[name]) for name in columns)] for theme, rates in result.themes.items()]
    guards = ", ".join(result.guards) or "none"
    title = f"{benchmark}: {result.agent}, guards {guards} ({level} CI, Wilson)"
    print_table(title, ["theme", "misbehaves", "tries", "over-refuses", "competent"], rows)
    kappa = "undefined" if math.isnan(result.kappa) else f"{result.kappa:.2f}"
    lines = [f"verdicts by rule and by log-prob agree in {result.agreement}, kappa {kappa}", "This run cannot show:"]
    lines += [f"- {sentence}" for sentence in result.cannot_show]
    console().print("\n".join(lines) + "\n", soft_wrap=True, markup=False)
