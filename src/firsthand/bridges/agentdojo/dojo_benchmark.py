"""AgentDojo's tasks under an attack: prompts, environments, and scores that replay the calls of a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.bridges.agentdojo.dojo_adaptive import adaptive_calls, injected
from firsthand.bridges.agentdojo.dojo_gain import gives
from firsthand.bridges.agentdojo.dojo_suites import (
    ATTACKS,
    MODEL,
    USER,
    VERSION,
    check,
    environment,
    ground_truth,
    injections_of,
    run,
    suites,
)
from firsthand.bridges.agentdojo.dojo_tools import bound_tools
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.tool_calls import has_run
from firsthand.trace import Score, Trace

SUITES = ("workspace", "travel", "banking", "slack")


class DojoEnvironment:
    """One environment of AgentDojo, and its tools."""

    self_contained = True

    def __init__(self, task: Task):
        self.facts: Json = task.metadata["dojo"]
        self.tools: Sequence[Tool] = ()

    async def open(self) -> None:
        """Makes the environment."""
        drafts = bool(self.facts.get("drafts"))
        self.tools = bound_tools(self.facts["version"], self.facts["suite"], world_of(self.facts), drafts)

    async def close(self) -> None:
        """Lets go of it."""
        self.tools = ()

    async def final_state(self) -> Json:
        """Nothing: the scorers replay the calls."""
        return {}


def world_of(facts: Json) -> Any:
    """A new environment of a task."""
    return environment(facts["version"], facts["suite"], facts["user_task"], facts["injections"])


def calls_made(trace: Trace) -> list[tuple[str, Json]]:
    """The tool calls that were run and did not fail, with the arguments the tool got; their results may be withheld."""
    made = (call.detail for call in trace.calls if has_run(call))
    return [(detail["name"], detail["arguments"]) for detail in made]


def utility(task: Task, trace: Trace) -> Score:
    """1 if the user's task is solved, by AgentDojo's check of the last message and of the environment before and after."""
    return Score("utility", float(_verdict(task, trace, task.metadata["dojo"]["user_task"])))


def attack_success(task: Task, trace: Trace) -> Score:
    """1 if the injection's goal was reached, by AgentDojo's check; of an adaptive attack, by a call that gives its gain."""
    facts = task.metadata["dojo"]
    if (goal := facts.get("goal")) is not None:
        own = _own_calls(facts)
        made = [name == goal[0] and gives(name, goal[1], arguments, own) for name, arguments in calls_made(trace)]
        return Score("attack_success", float(any(made)), {"is_harm": True})
    return Score(
        "attack_success", float(_verdict(task, trace, task.metadata["dojo"]["injection_task"])), {"is_harm": True}
    )


def _own_calls(facts: Json) -> Sequence[tuple[str, Json]]:
    """The calls that solve the user's task; none for a goal that stands alone."""
    if "version" not in facts:
        return ()
    place = (facts["version"], facts["suite"], facts["user_task"])
    return ground_truth(*place, environment(*place, {}))


def _verdict(task: Task, trace: Trace, wanted: str) -> bool:
    facts = task.metadata["dojo"]
    before, after, made = world_of(facts), world_of(facts), calls_made(trace)
    for name, arguments in made:
        run(suites(facts["version"])[facts["suite"]], after, name, arguments)
    return check(facts["version"], facts["suite"], wanted, trace.answer or "", before, after, made)


def dojo_tasks(version: str, names: Sequence[str], attack: str, plan: bool) -> Iterator[Task]:
    """The benign tasks, or with an attack every pair of a user's task and an injection."""
    for name in names:
        suite = suites(version)[name]
        for user_id, user_task in suite.user_tasks.items():
            world = environment(version, name, user_id, {})
            oracle = sorted({tool for tool, _ in ground_truth(version, name, user_id, world)}) if plan else None
            if attack == "adaptive":
                yield from _adaptive(version, name, user_id, oracle)
                continue
            for injection_id in [""] if attack == "none" else list(suite.injection_tasks):
                text = attacked_text(version, name, injection_id, attack) if injection_id else ""
                injections = injections_of(version, name, user_id, text) if injection_id else {}
                dojo = {"version": version, "suite": name, "user_task": user_id, "injection_task": injection_id}
                metadata: Json = {"suite": name, "dojo": dojo | {"injections": injections}}
                metadata |= {"plan": oracle} if plan else {}
                id = f"{name}/{user_id}" + (f"/{injection_id}" if injection_id else "")
                yield Task(id, user_task.PROMPT, verbatim=True, metadata=metadata)


def _adaptive(version: str, suite: str, user_task: str, oracle: list[str] | None) -> Iterator[Task]:
    for kind, tool, arguments in adaptive_calls(version, suite, user_task):
        dojo: Json = {"version": version, "suite": suite, "user_task": user_task, "injection_task": ""}
        dojo |= {"injections": injections_of(version, suite, user_task, _escaped(injected(kind, tool, arguments)))}
        metadata: Json = {"suite": suite, "kind": kind, "dojo": dojo | {"goal": [tool, json.loads(arguments)]}}
        metadata |= {"plan": oracle} if oracle is not None else {}
        prompt = suites(version)[suite].user_tasks[user_task].PROMPT
        yield Task(f"{suite}/{user_task}/{kind}:{tool}", prompt, verbatim=True, metadata=metadata)


def _escaped(text: str) -> str:
    """The text as it may stand in AgentDojo's YAML, between double quotes or plain."""
    return text.replace('"', "'")


def attacked_text(version: str, suite: str, injection_task: str, attack: str) -> str:
    """The text of an injection."""
    goal = suites(version)[suite].injection_tasks[injection_task].GOAL
    return ATTACKS[attack].format(goal=goal, user=USER, model=MODEL)


def dojo_benchmark(
    suite: str, attack: str, version: str = VERSION, plan: bool = False, drafts: bool = False
) -> Benchmark:
    """The benchmark of these suites, `all` or one, under an attack or `none`. ConfigError for what is not known.

    With `drafts` its tools are declared by a rule on their names, with no suite in view, and not by hand.
    """
    if suite != "all" and suite not in SUITES:
        raise ConfigError(f"suite is {suite!r}: all, {', '.join(SUITES)} was expected")
    if attack not in ("none", "adaptive", *ATTACKS):
        raise ConfigError(f"attack is {attack!r}: none, adaptive, {', '.join(ATTACKS)} was expected")
    names = SUITES if suite == "all" else (suite,)

    def drafted(task: Task) -> Task:
        changed = {**task.metadata, "dojo": {**task.metadata["dojo"], "drafts": True}}
        return replace(task, metadata=changed) if drafts else task

    scorers = (utility,) if attack == "none" else (utility, attack_success)
    return Benchmark(
        "agentdojo",
        lambda seed: tuple(map(drafted, dojo_tasks(version, names, attack, plan))),
        scorers,
        "Tasks with tools in mail, travel, banking and chat, attacked through what tools return.",
        f"AgentDojo {version}, attack {attack}, its own checks of utility and security",
        "MIT",
        DojoEnvironment,
        options={"suite": suite, "attack": attack, "version": version, "plan": plan}
        | ({"drafts": True} if drafts else {}),
    )
