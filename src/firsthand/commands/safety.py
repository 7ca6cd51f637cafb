"""Show what a guarded agent stops: its threat model, tests of it, questions asked, and guards against a gullible agent."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.system import interruption
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand safety explain clerk.toml           # which attacks are stopped, which are statistical, which are not
firsthand safety tests clerk.toml > test_clerk.py   # a test for each fact that its tools declare
firsthand safety burden last                  # the questions that a run asked, and who answered them
firsthand safety label last --model smollm2 --principles harm+help    # then firsthand data last --as pairs
firsthand safety office --human               # our own office, attacked through tools, mails, files, documents and memory
firsthand safety table                        # needs firsthand[agentdojo]; some seconds for a row
firsthand safety table --suite slack --rules plan_lock,authority_from_trusted --human
firsthand safety table --attack adaptive
"""


@dataclass(frozen=True)
class Config:
    """The agent or run to look at, or the rows of a table."""

    action: Literal["explain", "tests", "burden", "label", "table", "office"] = field(
        default="explain", metadata={"positional": True}
    )
    """explain an agent's file, write its tests, count or label a run, or measure guards on AgentDojo or our office."""
    agent: Path | None = field(default=None, metadata={"positional": True})
    """The agent's file, as `firsthand serve --agent` takes it; for burden and label a run."""
    model: str = ""
    """For label: the model that compares the answers of each task."""
    principles: str = ""
    """For label: ids of principles, or beginnings of ids, joined by +; all of them otherwise."""
    constitution: str = ""
    """For label: the file of principles; otherwise the package's own."""
    suite: Literal["all", "workspace", "travel", "banking", "slack"] = "all"
    """The suite of AgentDojo."""
    attack: Literal["important_instructions", "direct", "adaptive"] = "important_instructions"
    """The attack on AgentDojo: in its words, as a plain request, or through what the rules trust."""
    rules: tuple[str, ...] = ()
    """A row of your own: the rules of the guard. None prints all rows."""
    drafts: bool = False
    """For table: declare AgentDojo's tools by a rule on their names alone, instead of by hand with its suites in view."""
    tasks: int = 80
    """For office: the number of tasks."""
    human: bool = False
    """Have a perfect human answer the questions, who says yes to what the user's task needs; otherwise nobody answers."""
    json: bool = False
    """Print JSON for programs."""


USED = {
    "explain": {"json"},
    "tests": set[str](),
    "burden": {"json"},
    "label": {"model", "principles", "constitution", "json"},
    "table": {"suite", "attack", "rules", "drafts", "human", "json"},
    "office": {"rules", "tasks", "human", "json"},
}
"""The flags that each action takes."""


def main(config: Config) -> int:
    """Print the threat model, the tests, the questions or a table."""
    others = {each.name for each in fields(config)} - USED[config.action] - {"action", "agent"}
    refuse_given(config, others, f"safety {config.action} does not take it")
    if config.action in ("table", "office"):
        if config.agent is not None:
            raise ConfigError(f"safety {config.action} takes no agent: the gullible agent is the one that is attacked")
        return _table(config) if config.action == "table" else _office(config)
    if config.agent is None:
        if config.action in ("burden", "label"):
            raise ConfigError(f"name the run: firsthand safety {config.action} last")
        raise ConfigError(f"name the agent's file: firsthand safety {config.action} AGENT.toml")
    if config.action == "tests":
        return _tests(config.agent)
    if config.action == "label":
        return interruption.run(_label(config, str(config.agent)))
    return _burden(config, str(config.agent)) if config.action == "burden" else _explain(config, config.agent)


def _tests(path: Path) -> int:
    from firsthand.safety.declared_tests import generated_tests
    from firsthand.serve.agents.agent_file import open_agent, read_agent_file

    print(generated_tests(open_agent(read_agent_file(path)), path), end="")
    return 0


def _burden(config: Config, name: str) -> int:
    from firsthand.runs import store
    from firsthand.safety.approval_burden import approval_burden

    with store.open_run(name, data_home()) as run:
        found = approval_burden(run.traces())
    if config.json:
        print_as_json(asdict(found))
        return 0
    counted: list[tuple[str, int]] = [
        ("attempts", found.attempts),
        ("attempts with a question", found.asked_in),
        ("questions", found.questions),
        ("answered with yes", found.allowed),
        ("most in one attempt", found.most),
        *((f"answered by {who}", count) for who, count in found.by.items()),
        *((f"asked by {rule}", count) for rule, count in found.rules.items()),
    ]
    print_table(
        "questions before calls", ["", "count"], [[what, str(count)] for what, count in counted], right=("count",)
    )
    return 0


async def _label(config: Config, name: str) -> int:
    from firsthand import catalog
    from firsthand.patterns.parts.constitution import load_constitution, select_principles
    from firsthand.runs import store
    from firsthand.scorers.concerns.principle_labels import answer_pairs, label_maker, label_pair

    if not config.model:
        raise ConfigError("safety label needs a model that compares the answers: --model smollm2")
    principles = select_principles(load_constitution(config.constitution), config.principles)
    with store.open_run(name, data_home()) as run:
        model, tasks = catalog.model(config.model), run.tasks()
        kept = {(each.a, each.b) for each in run.preferences() if each.by == label_maker(model)}
        pairs = [pair for pair in answer_pairs(run.traces()) if (pair[0].id, pair[1].id) not in kept]
        wins: dict[str, int] = {}
        for a, b in pairs:
            found = await label_pair(model, tasks[a.benchmark, a.task_id].question, a, b, principles)
            run.add_preference(found)
            principle = str((found.detail or {})["principle"])
            wins[principle] = wins.get(principle, 0) + (found.winner != "tie")
    rows = [[principle, str(count)] for principle, count in sorted(wins.items())]
    print_as_json(wins) if config.json else print_table(
        f"{count_of(len(pairs), 'pair')} labelled by {label_maker(model)}", ["principle", "preferred one"], rows,
        right=("preferred one",),
    )  # fmt: skip
    return 0


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
    if len(agent.own_tools) < len(agent.tools):
        out.print("Tools of MCP servers are known when a server is opened, and are not counted here.", markup=False)
    return 0


def _table(config: Config) -> int:
    from firsthand.bridges.agentdojo.dojo_table import ROWS, measured
    from firsthand.safety.guard_tally import GuardTally
    from firsthand.safety.rules.policies import policies_named

    policies_named(config.rules)
    wanted = {"+".join(config.rules): config.rules} if config.rules else ROWS
    rows: dict[str, tuple[GuardTally, GuardTally]] = {}
    for name, rules in wanted.items():
        benign = interruption.run(measured(rules, "none", suite=config.suite, human=config.human, drafts=config.drafts))
        rows[name] = (
            benign,
            interruption.run(
                measured(rules, config.attack, suite=config.suite, human=config.human, drafts=config.drafts)
            ),
        )
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


def _office(config: Config) -> int:
    from firsthand.commands.safety_office import OFFICE_ROWS, office_tallies
    from firsthand.safety.rules.policies import policies_named

    policies_named(config.rules)
    if not 1 <= config.tasks <= 10_000:
        raise ConfigError(f"tasks is {config.tasks}: give 1 to 10,000")
    wanted = {"+".join(config.rules): config.rules} if config.rules else OFFICE_ROWS
    rows = {
        name: interruption.run(office_tallies(rules, human=config.human, tasks=config.tasks))
        for name, rules in wanted.items()
    }
    if config.json:
        print_as_json({name: {channel: asdict(each) for channel, each in row.items()} for name, row in rows.items()})
        return 0
    channels = list(next(iter(rows.values())))[1:]
    shown = [
        [
            name,
            f"{row['none'].solved}/{row['none'].tasks}",
            f"{row['none'].asked} in {row['none'].asked_in}",
            *(f"{row[channel].reached}/{row[channel].tasks}" for channel in channels),
            f"{sum(row[each].solved for each in channels) / max(sum(row[each].tasks for each in channels), 1):.1%}",
        ]
        for name, row in rows.items()
    ]
    names = ["guard", "benign", "asks", *channels, "utility under attack"]
    print_table("the office under attack, attacks that succeed by channel", names, shown, right=names[1:])
    return 0
